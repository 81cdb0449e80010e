"""The built book: every link leads somewhere, nothing is loaded from elsewhere, the search finds words, and both themes can be read."""

import functools
import re
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from built import HTML, PAGES, visit
from headless import watched, without_formulas

pytestmark = pytest.mark.book


class Links(HTMLParser):
    """Targets, sources and anchors of one page."""

    def __init__(self, path):
        super().__init__()
        self.targets, self.sources, self.anchors, self.images = [], [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given.get("id"), given.get("name")}
        if tag == "a" and given.get("href"):
            self.targets.append(given["href"])
        if tag in ("script", "img", "iframe") and given.get("src"):
            self.sources.append(given["src"])
        if tag == "link" and given.get("rel") in ("stylesheet", "preload", "icon") and given.get("href"):
            self.sources.append(given["href"])
        if tag == "img":
            self.images.append(given)


@functools.cache
def links(path):
    return Links(path)


def is_outside(address):
    return bool(urlsplit(address).scheme or urlsplit(address).netloc)


@pytest.fixture(params=PAGES)
def page(request):
    return HTML / f"{request.param}.html"


def test_the_book_is_built():
    assert (HTML / "index.html").exists(), "run `make html` first"


def lost(page):
    """The links of a page that lead to no file, or to no place in it."""
    found = []
    for target in links(page).targets:
        if is_outside(target):
            continue
        file, anchor = unquote(urlsplit(target).path), unquote(urlsplit(target).fragment)
        there = (page.parent / file).resolve() if file else page
        if not there.exists() or (anchor and there.suffix == ".html" and anchor not in links(there).anchors):
            found.append(target)
    return found


def test_links_lead_to_a_page_and_an_anchor_that_exist(page):
    assert lost(page) == []


def test_links_of_pages_beside_the_contents_lead_somewhere_too():
    listed = {HTML / f"{name}.html" for name in PAGES}
    others = [path for path in HTML.rglob("*.html") if path not in listed and path.relative_to(HTML).parts[0] not in ("_static", "slides")]
    assert {"genindex.html", "search.html", "index.html"} <= {path.name for path in others}
    assert {str(path.relative_to(HTML)): lost(path) for path in others if lost(path)} == {}


def test_styles_name_files_that_are_there():
    for path in (HTML / "_static").rglob("*.css"):
        for address in re.findall(r"url\(\s*['\"]?([^'\")]+)", path.read_text(encoding="utf-8")):
            if not address.startswith(("data:", "#")):
                assert (path.parent / unquote(urlsplit(address).path)).resolve().exists(), f"{path.name}: {address}"


def test_nothing_is_loaded_from_elsewhere(page):
    for source in links(page).sources:
        if source.startswith("data:image/"):  # stands in the page itself
            continue
        assert not is_outside(source), source
        assert (page.parent / unquote(urlsplit(source).path)).resolve().exists(), source


def test_every_image_has_alt_text(page):
    for image in links(page).images:
        assert image.get("alt"), image


def test_no_markup_is_left_over(page):
    body = page.read_text(encoding="utf-8").split("<article", 1)[1].split("</article>")[0]
    prose = re.sub(r"<(pre|script|code)\b.*?</\1>", "", body, flags=re.S)
    prose = re.sub(r'<(div|span) class="math[^>]*>.*?</\1>', "", prose, flags=re.S)
    prose = re.sub(r"<[^>]+>", "", prose)
    for mark in ("$$", "[^", "{prf:", "{numref}", "{cite", "{doc}", ":label:"):
        assert mark not in prose, mark


def test_no_page_names_a_folder_of_the_machine_that_built_it(page):
    assert str(HTML.parents[1]) not in page.read_text(encoding="utf-8")


# -- in a browser -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reader(browser):
    """One for all pages, so that what they share is read once."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context
    context.close()


@pytest.fixture
def opened(reader, address):
    tab = watched(reader.new_page(), address)
    yield tab
    tab.close()


@pytest.mark.parametrize("word", ["surrogate", "margins", "SharpnessAware"])
def test_search_finds_a_word(opened, address, word):
    opened.goto(f"{address}/search.html?q={word}")
    opened.wait_for_selector("#search-results ul li a")
    assert opened.locator("#search-results ul li").count() >= 1
    assert opened.outside == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_keep_text_and_ground_apart(browser, address, theme):
    context = browser.new_context(color_scheme=theme)
    tab = without_formulas(watched(context.new_page(), address))
    visit(tab, address, "book/bisam")
    assert tab.evaluate("document.documentElement.dataset.theme") == theme
    ink, ground = (tab.evaluate(LUMINANCE, [selector, key]) for selector, key in (("article p", "color"), ("body", "backgroundColor")))
    bright, dim = max(ink, ground), min(ink, ground)
    assert (bright + 0.05) / (dim + 0.05) > 7, "contrast below the AAA level"
    assert (ground > 0.5) == (theme == "light")
    context.close()


LUMINANCE = """([selector, key]) => {
  const [r, g, b] = getComputedStyle(document.querySelector(selector))[key].match(/[0-9.]+/g).map(Number)
    .map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}"""
