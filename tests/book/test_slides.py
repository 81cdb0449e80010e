"""The lecture: complete, in time, true to the pages that it draws on, and shown without a network."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from headless import chromium, served, watched
from scripts import tool

ROOT = Path(__file__).resolve().parents[2]
IN_BOOK = ROOT / "_build" / "html" / "slides"
WIDTH, HEIGHT = 1280, 720


deck = tool("build_slides")
pictures = tool("slide_pictures")
execute = tool("execute_notebooks")
SLIDES = deck.slides()


@pytest.fixture(params=SLIDES, ids=lambda slide: slide.title)
def slide(request):
    return request.param


def test_the_lecture_takes_45_minutes_more_or_less():
    needed = sum(slide.minutes for slide in SLIDES if not slide.optional)
    assert 40 <= needed <= sum(slide.minutes for slide in SLIDES) <= 50
    assert sum(not slide.optional for slide in SLIDES) >= 25


def test_notes_say_more_than_the_minutes_and_what_a_slide_needs_exists_or_it_is_optional(slide):
    assert 0.5 <= slide.minutes <= 4
    assert len(slide.notes.split()) > 12
    assert "$" not in slide.notes, "the speaker's window does not draw formulas"
    assert slide.optional or not slide.missing


def test_every_slide_but_the_first_names_its_pages():
    assert [slide.title for slide in SLIDES if not slide.pages] == [SLIDES[0].title]


def words_of(page):
    """All that a page of the book says, with the stored output of its cells, or a table of results."""
    if page.endswith(".csv"):
        return (ROOT / page).read_text(encoding="utf-8")
    if (ROOT / f"{page}.md").exists():
        return (ROOT / f"{page}.md").read_text(encoding="utf-8")
    cells = json.loads((ROOT / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) + "".join(map(shown_text, cell.get("outputs", []))) for cell in cells)


def shown_text(out):
    return "".join(out.get("text", [])) + "".join(out.get("data", {}).get("text/plain", []))


def numbers(text):
    return set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\d)", text))


def test_every_number_on_a_slide_stands_on_one_of_its_pages(slide):
    if slide.missing:
        pytest.skip(f"left out for want of {', '.join(slide.missing)}")
    body = re.sub(r"<!--.*?-->|\(../figures/.*?\)|(?m:^\d+\. )|\$\$.*?\$\$|\$[^$]+\$|```.*?```", " ", slide.body, flags=re.S)
    said = numbers(" ".join(words_of(page) for page in slide.pages))
    unknown = {number for number in numbers(body) if (len(number) > 1 and not re.fullmatch("20[12][0-9]", number))} - said
    assert not unknown


def test_numbers_are_found_and_missed():
    assert numbers("from 0.15 on, 1.81 (K = 10), w_2 and x86") == {"0.15", "1.81", "10"}


def test_a_mistake_in_the_deck_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(deck, "SOURCE", tmp_path)
    for text, said in {
        "# A title\n\nbut no notes\n": "has no notes",
        "# A title\n\nNote: without minutes": "minutes",
        "no title\n\nNote: 1 min. And so on.": "title",
        '# A title\n\n![x](../figures/fig-that-is-not-there.svg "900")\n\nNote: 1 min. And so on.': "fig-that-is-not-there",
        "# A title\n\n<!-- from: book/nowhere -->\n\nNote: 1 min. And so on.": "book/nowhere",
    }.items():
        (tmp_path / "deck.md").write_text(text)
        with pytest.raises(deck.DeckError, match=said):
            deck.shown()
    with pytest.raises(deck.DeckError, match="no lines marked"):
        deck.filled('<!-- code: book/code/algorithm1.py "nothing" -->')
    with pytest.raises(deck.DeckError, match="not a comment that does something"):
        deck.filled("<!-- wright -->")


def test_a_slide_without_its_picture_is_left_out_and_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(deck, "SOURCE", tmp_path)
    (tmp_path / "deck.md").write_text(
        '# One\n\nNote: 1 min. And so on.\n---\n<!-- optional -->\n# Two\n\n![x](../figures/fig-none.svg "900")\n\nNote: 1 min. And so on.'
    )
    assert [slide.title for slide in deck.shown()] == ["One"]
    assert "slide left out: 'Two', for want of fig-none" in capsys.readouterr().out


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.images, self.loaded, self.links, self.sections, self.notes = [], [], [], 0, 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.sections += tag == "section"
        self.notes += tag == "aside" and given.get("class") == "notes"
        if tag == "img":
            self.images.append(given)
        if tag in ("img", "script") and given.get("src"):
            self.loaded.append(given["src"])
        if tag == "link":
            self.loaded.append(given["href"])
        if tag == "a":
            self.links.append(given["href"])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    deck.build(folder / "deck", book="..")
    return folder / "deck"


def test_the_build_makes_a_page_with_all_that_it_loads(built):
    page = Page(built / "index.html")
    assert page.sections == page.notes == len([slide for slide in SLIDES if not slide.missing])
    for address in page.loaded:
        assert (built / address).is_file(), address
    assert (built / "reveal" / "LICENSE").read_text().startswith("Copyright")


def test_every_picture_has_the_alt_text_of_its_notebook(built):
    images = Page(built / "index.html").images
    assert images and all(len(image["alt"]) > 40 for image in images)


def test_code_is_that_of_the_files(built):
    shown = re.sub(r"<[^>]+>", "", (built / "index.html").read_text(encoding="utf-8"))
    assert "loss = opt.step(bisam.Batch(model, x, y))" in shown
    assert "<!--" not in shown.split("</title>")[0] + shown.split("One question more")[1]


def test_a_picture_comes_by_the_third_slide():
    assert any(slide.pictures for slide in SLIDES[:3])


def test_results_are_tables_and_no_print_outs():
    for slide in SLIDES:
        blocks = re.findall(r"^```\n(.*?)^```$", slide.body, re.M | re.S)
        assert all(re.match(r"make |\.venv/bin/", line) for block in blocks for line in block.splitlines()), slide.title
    assert sum("| verdict |" in slide.body for slide in SLIDES) == 1


def test_most_slides_are_revealed_in_steps(built):
    text = (built / "index.html").read_text(encoding="utf-8")
    sections = text.split("<section")[1:]
    assert sum('class="fragment"' in section for section in sections) >= 0.7 * len(sections)
    assert "<!-- step -->" not in text and deck.STEP == "<!-- step -->"


def test_a_list_after_a_step_appears_item_by_item_and_other_text_at_once():
    assert deck.stepped("a\n\n<!-- step -->\n\n- b\n- c\n", {}).count('<li class="fragment">') == 2
    assert deck.stepped("a\n\n<!-- step -->\n\nb\n\n- c\n", {}).count('class="fragment"') == 1
    assert "fragment" not in deck.stepped("- a\n- b\n", {})


DRAWING = """<svg width="605pt" viewBox="0 0 600 200"><text style="font: 10px 'DejaVu Sans'; text-anchor: middle" x="3">a</text>
<g style="fill: #000" transform="translate(30 20)">
 <text><tspan style="font: 7px 'DejaVu Sans'">2</tspan><tspan style="font: 10px 'DejaVu Sans'">w</tspan></text></g><text style="font-size: 12px">b</text></svg>"""


def test_labels_grow_until_they_can_be_read_and_no_further():
    larger = pictures.enlarged(DRAWING, 900)  # at 1.5, labels of 10 are 15 pixels high
    assert [float(size) for size in re.findall(r"<text[^>]*font(?:-size)?: ([\d.]+)px", larger)] == [12, 12]
    assert 'transform="translate(30 20) scale(1.200)"' in larger and "font: 7px" in larger and "font: 10px" in larger
    kept = pictures.enlarged(DRAWING, 1200)
    assert [float(size) for size in re.findall(r"<text[^>]*font(?:-size)?: ([\d.]+)px", kept)] == [10, 12] and "scale" not in kept
    assert pictures.enlarged('<svg viewBox="0 0 9 9"></svg>', 100) == '<svg viewBox="0 0 9 9"></svg>'


def test_nothing_outside_is_named_by_what_is_loaded(built):
    for path in (built / "index.html", built / "deck.css", built / "front.css", built / "reveal" / "reveal.css"):
        assert not re.search(r"(https?:)?//[\w-]+\.\w", path.read_text(encoding="utf-8")), path


def test_what_is_taken_from_others_is_small():
    assert sum(path.stat().st_size for path in deck.REVEAL.iterdir()) < 600_000


def test_a_missing_browser_is_no_failure(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(deck.shutil, "which", lambda _: None)
    assert deck.print_pdf(tmp_path / "index.html", tmp_path / "x.pdf", 1) == 0
    assert "no Chromium is installed" in capsys.readouterr().out and not (tmp_path / "x.pdf").exists()


# -- the deck in the built book, in a browser ---------------------------------------------------------------------------


@pytest.mark.book
def test_the_links_of_the_deck_lead_to_pages_of_the_book():
    for target in Page(IN_BOOK / "index.html").links:
        assert (IN_BOOK / unquote(urlsplit(target).path)).resolve().exists(), target


@pytest.fixture(scope="module")
def shown():
    """The deck on a screen."""
    with chromium() as browser, served(IN_BOOK.parent) as home:
        tab = watched(browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}), home)
        tab.goto(f"{home}/book/teach.html")
        tab.click("a[href$='slides/index.html']")
        tab.wait_for_function("window.Reveal && Reveal.isReady()")
        yield tab


@pytest.mark.book
def test_the_page_for_teachers_leads_to_a_deck_that_needs_no_network(shown):
    assert shown.evaluate("Reveal.getTotalSlides()") == len([slide for slide in SLIDES if not slide.missing])
    assert shown.locator("mjx-container").count() > 50
    assert shown.locator("[data-mjx-error], mjx-merror").count() == 0
    assert shown.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert shown.outside == []
    assert [error for error in shown.errors if "THEBE_JS_URL" not in error] == []


@pytest.mark.book
def test_every_slide_fits(shown):
    for k in range(shown.evaluate("Reveal.getTotalSlides()")):
        shown.evaluate(f"Reveal.slide({k})")
        title, right, bottom, foot = shown.evaluate(EXTENT)
        assert right <= WIDTH - 50, f"{title!r} is {right:.0f} px wide"
        assert bottom <= foot, f"{title!r} reaches down to {bottom:.0f} px, its foot begins at {foot:.0f}"


@pytest.mark.book
def test_labels_of_pictures_can_be_read_from_the_last_row(shown):
    measured, stored = {}, []
    for k in range(shown.evaluate("Reveal.getTotalSlides()")):
        shown.evaluate(f"Reveal.slide({k})")
        for source, width, natural, wanted in shown.evaluate(DRAWN):
            assert width == pytest.approx(wanted, abs=2), f"{source} is {width:.0f} px wide, and was to be {wanted:.0f}"
            labels = label_heights(IN_BOOK / source, width)
            if labels:
                measured[source] = min(labels)
            else:  # a picture of pixels, in which 10 points are 15 pixels
                stored.append(source)
                assert width >= 0.7 * natural, f"{source} is shrunk"
        words = shown.evaluate(WORDS)
        assert all(size >= pictures.READABLE for size in words), words
    assert all(size >= pictures.READABLE - 0.1 for size in measured.values()), measured
    if stored:
        print(f"not measured, for they are kept as pixels until their page is executed again: {', '.join(stored)}")


@pytest.mark.book
def test_labels_of_pictures_keep_clear_of_each_other_and_of_the_edge(shown):
    clashes, waiting = {}, []
    for k in range(shown.evaluate("Reveal.getTotalSlides()")):
        shown.evaluate(f"Reveal.slide({k})")
        for source, found in shown.evaluate(CLASHES):
            if not found:
                continue
            drawn_by = [path for path in (ROOT / "notebooks").glob("*.ipynb") if f'"{Path(source).stem.rpartition("-")[0]}"' in path.read_text("utf-8")]
            if any(map(execute.is_stale, drawn_by)):
                waiting.append(source)  # drawn before its code was changed
            else:
                clashes[source] = found
    assert not clashes
    if waiting:
        print(f"labels that meet are accepted until their page is executed again: {', '.join(waiting)}")


def label_heights(path, width):
    """Heights in pixels of the labels of a drawing, at the width at which it is shown; indices of formulas are left out."""
    text = path.read_text(encoding="utf-8")
    sizes = re.findall(r"<text\b[^>]*font(?:-size)?: ?(?:\w+ )*([\d.]+)px", text)
    return [float(size) * width / float(re.search(r'viewBox="[\d.-]+ [\d.-]+ ([\d.]+)', text)[1]) for size in sizes]


EXTENT = """() => {
  const slide = Reveal.getCurrentSlide(), foot = slide.querySelector(".foot");
  const boxes = [...slide.querySelectorAll(".body *")].map(part => part.getBoundingClientRect()).filter(box => box.width && box.height);
  return [slide.querySelector("h1").textContent, Math.max(...boxes.map(box => box.right)), Math.max(...boxes.map(box => box.bottom)),
          foot ? foot.getBoundingClientRect().top : 720];
}"""
DRAWN = """() => [...Reveal.getCurrentSlide().querySelectorAll(".body img")].map(image =>
  [image.getAttribute("src"), image.getBoundingClientRect().width, image.naturalWidth, parseFloat(image.style.width)])"""
# Formulas are left out: their boxes are as high as their highest sign. A third of a height may meet: there boxes have no ink.
CLASHES = """() => Promise.all([...Reveal.getCurrentSlide().querySelectorAll(".body img[src$='.svg']")].map(async image => {
  const source = image.getAttribute("src"), place = document.createElement("div");
  place.innerHTML = (await (await fetch(source)).text()).replace(/^[^]*?(?=<svg)/, "");
  place.style = "position: absolute; left: 0; top: 0; visibility: hidden";
  document.body.append(place);
  const drawing = place.querySelector("svg");
  drawing.setAttribute("width", image.style.width), drawing.removeAttribute("height");
  const edge = drawing.getBoundingClientRect(), labels = [...drawing.querySelectorAll("text:not(:has(tspan))")]
    .filter(label => label.textContent.trim()).map(label => [label.textContent.trim(), label.getBoundingClientRect()]);
  const found = labels.filter(([, box]) => box.left < edge.left - 2 || box.right > edge.right + 2 || box.top < edge.top - 4 || box.bottom > edge.bottom + 4)
    .map(([said]) => `${said} leaves the picture`);
  labels.forEach(([said, one], k) => labels.slice(k + 1).forEach(([other, two]) => {
    const across = Math.min(one.right, two.right) - Math.max(one.left, two.left), down = Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top);
    if (across > 8 && down > 8) found.push(`${said} meets ${other}`);
  }));
  place.remove();
  return [source, found];
}))"""
WORDS = """() => [...Reveal.getCurrentSlide().querySelectorAll(".body svg.idea text")].map(text =>
  parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a)"""
