"""Figures on the pages of the book: sharp, light, readable on a telephone, described, and to be saved."""

import base64
import gzip
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as tree
from pathlib import Path

import nbformat
import pytest
import scripts
from headless import chromium, served, watched, without_formulas

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
MOST = 300_000  # bytes of a figure
READABLE = 8  # pixels


# -- the extension, on a site of two pages ----------------------------------------------------------------------------------


def drawing(label="loss", size=10, width=600):
    words = f'<text style="font: {size}px sans-serif">{label}</text>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}pt" height="20pt" viewBox="0 0 {width} 20">\n{words}\n</svg>\n'


def cell(name, **data):
    about = {"mystnb": {"image": {"alt": f"what {name} shows", "width": "80%"}, "figure": {"name": name, "caption": f"The figure {name}."}}}
    output = nbformat.v4.new_output("display_data", data={"text/plain": "<Figure>", **data})
    return nbformat.v4.new_code_cell("draw()", execution_count=1, outputs=[output], metadata=about, id=name)


def packed(text):
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Three figures, one with all that a notebook stores, one that is wide only, one small, and a chapter that borrows the first."""
    ext, folder = scripts.extension("figures"), tmp_path_factory.mktemp("site")
    (folder / "notebooks").mkdir()
    wide = drawing("whole")
    cells = [
        nbformat.v4.new_markdown_cell("# A page", id="title"),
        cell("fig-whole", **{ext.SVG: wide, ext.NARROW: packed(drawing("thin", width=300)), ext.PDF: base64.b64encode(b"%PDF-1.4 x").decode()}),
        cell("fig-wide", **{ext.SVG: drawing("wide", size=6)}),
        cell("fig-small", **{ext.SVG: drawing("small", width=300)}),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}})
    (folder / "notebooks" / "page.ipynb").write_text(nbformat.writes(notebook))
    (folder / "borrowed.svg").write_text(wide)
    (folder / "foreign.svg").write_text(drawing("foreign"))
    borrowed = "```{figure} borrowed.svg\n:alt: borrowed\n\nBorrowed.\n```\n\n```{figure} foreign.svg\n:alt: foreign\n\nForeign.\n```\n"
    (folder / "index.md").write_text(f"# A chapter\n\n{borrowed}\n```{{toctree}}\nnotebooks/page\n```\n")
    (folder / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\nextensions = ['myst_nb', 'figures']\nnb_execution_mode = 'off'\n"
    )
    words = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", str(folder), str(folder / "html")]
    ended = subprocess.run(words, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return folder / "html"


def part(page, name):
    """The figure of that name, with the line below it."""
    text = page.read_text(encoding="utf-8")
    return next(found for found in re.findall(r"<figure.*?</figure>\n?(?:<p class=\"bisam-save\">.*?</p>)?", text, re.DOTALL) if name in found)


def test_a_narrow_rendering_is_shown_on_telephones_and_the_alt_text_stays(site):
    found = part(site / "notebooks" / "page.html", "fig-whole")
    source = re.search(r'<picture[^>]*><source media="([^"]+)" srcset="([^"]+)"><img[^>]*alt="what fig-whole shows"', found)
    assert source[1] == "screen and (max-width: 600px)" and ">thin<" in (site / "notebooks" / source[2]).read_text()


def test_a_phone_is_told_where_the_panels_on_the_left_stand():
    ext = scripts.extension("figures")
    tall = drawing("tall", width=300).replace("0 0 300 20", "0 0 300 40")
    assert ext.is_stacked(ext.Drawn("a", drawing(), tall.encode(), None))
    assert not ext.is_stacked(ext.Drawn("a", drawing(width=300), drawing(width=250).encode(), None))
    assert all(ext.SIDES.search(words) for words in ("Left: SGD.", "below (left) and above", "the pull, left with -log"))
    assert not any(ext.SIDES.search(words) for words in ("samples that are right", "what is left of it"))


def test_a_figure_can_be_saved_as_svg_and_pdf(site):
    found = part(site / "notebooks" / "page.html", "fig-whole")
    places = dict(re.findall(r'<a href="([^"]+)" download="([^"]+)"', found))
    assert sorted(places.values()) == ["fig-whole.pdf", "fig-whole.svg"]
    for place, name in places.items():
        content = (site / "notebooks" / place).read_bytes()
        assert content.startswith(b"%PDF") if name.endswith(".pdf") else b">whole<" in content


def test_a_chapter_that_borrows_a_figure_has_the_same(site):
    found = part(site / "index.html", "borrowed.svg")
    assert 'srcset="_images/fig-whole.narrow.svg"' in found and 'href="_images/fig-whole.pdf" download="fig-whole.pdf"' in found


def test_a_picture_of_another_origin_is_left_alone(site):
    assert not re.search("picture|bisam", part(site / "index.html", "foreign.svg"))


def test_a_figure_that_is_only_wide_scrolls_in_a_box_at_a_width_at_which_it_can_be_read(site):
    found = part(site / "notebooks" / "page.html", "fig-wide")
    assert "--least: 800px" in found and 'tabindex="0"' in found and "<picture" not in found
    assert "bisam-wide" not in part(site / "notebooks" / "page.html", "fig-small")


def test_the_size_of_a_formula_is_that_of_its_largest_letters():
    text = '<text x="1"><tspan style="font: oblique 10px x">L</tspan><tspan style="font: 7px x">max</tspan></text><text style="font: 8.5px x">a</text>'
    assert scripts.extension("figures").sizes(text) == [10, 8.5]


def test_the_types_of_what_is_stored_are_those_that_notebooks_write():
    from bisam.notebook import pictures

    ext = scripts.extension("figures")
    assert (ext.SVG, ext.PDF, ext.NARROW) == (pictures.SVG, pictures.PDF, pictures.NARROW)


# -- the figures of the book ------------------------------------------------------------------------------------------------


def drawn_cells():
    """Every stored figure of the book, with the cell that draws it."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for each in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for output in each.get("outputs", []):
                if {"image/svg+xml", "image/png"} & output.get("data", {}).keys():
                    yield each, output["data"]


CELLS = list(drawn_cells())
NAMES = [each["metadata"].get("mystnb", {}).get("figure", {}).get("name", each["id"]) for each, _ in CELLS]


@pytest.fixture(params=range(len(CELLS)), ids=NAMES)
def stored(request):
    return CELLS[request.param]


@pytest.mark.book
def test_a_figure_is_a_light_svg_with_text_and_is_described(stored):
    each, data = stored
    text = "".join(data["image/svg+xml"])
    tree.fromstring(text)
    assert len(text.encode()) < MOST and text.count("<text") >= 1
    assert len(each["metadata"]["mystnb"]["image"]["alt"]) > 40


@pytest.fixture(scope="module")
def drawings():
    return scripts.extension("figures").stored(ROOT / "notebooks")


@pytest.mark.book
def test_its_files_open(stored, drawings):
    _, data = stored
    drawn = drawings[scripts.extension("figures").digest("".join(data["image/svg+xml"]))]
    assert drawn.pdf.startswith(b"%PDF")
    if drawn.narrow is not None:
        text = drawn.narrow.decode()
        tree.fromstring(text)
        assert ">" in text and len(text.encode()) < MOST and text.count("<text") >= 1


PHONE = """() => [...document.querySelectorAll(".bd-article figure img, .bd-article .cell_output img")].filter(image => image.getClientRects().length).map(image =>
  [image.currentSrc, image.getBoundingClientRect().width, document.documentElement.scrollWidth])"""
PAGES = sorted(re.findall(r"(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def phone():
    with chromium() as browser, served(HTML) as address:
        tab = browser.new_page(viewport={"width": 390, "height": 844})
        yield without_formulas(watched(tab, address)), address  # no figure has any


@pytest.fixture(scope="module", params=PAGES)
def page(request, phone):
    """A page on a telephone, opened once for all questions; a tab without a page where there is no figure on it."""
    tab, address = phone
    article = (HTML / f"{request.param}.html").read_text(encoding="utf-8").split("<article", 1)[1].split("</article>")[0]
    tab.goto(f"{address}/{request.param}.html" if "<img" in article or "bisam-save" in article else "about:blank")
    return tab, address


@pytest.mark.book
def test_no_text_of_a_figure_is_too_small_on_a_telephone(page):
    tab, address = page
    tab.evaluate("""() => { document.querySelectorAll("img").forEach(image => { image.loading = "eager"; }); }""")
    small = []
    for source, width, _ in tab.evaluate(PHONE):
        file = HTML / source.removeprefix(f"{address}/")
        if file.suffix != ".svg":
            continue
        text = file.read_text(encoding="utf-8")
        scale = width / float(re.search(r'viewBox="[\d.-]+ [\d.-]+ ([\d.]+)', text)[1])
        small += [(file.name, size * scale) for size in scripts.extension("figures").sizes(text) if size * scale < READABLE - 0.05]
    assert small == []


@pytest.mark.book
def test_links_that_save_stand_on_the_screen_and_not_on_paper(page):
    tab, _ = page
    lines = tab.locator(".bisam-save")
    shown = [line.is_visible() for line in lines.all()]
    tab.emulate_media(media="print")
    printed = [line.is_visible() for line in lines.all()]
    tab.emulate_media(media="screen")
    assert all(shown) and not any(printed)
