"""No line of code or output is cut, on a phone or on paper; and a chapter shows its first picture before it is left."""

import pytest
from built import CHAPTERS, PAGES, visit
from headless import watched

SCREEN = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
PAPER = {"width": 673, "height": 1000}  # A4 at 96 dots an inch, less its margins

FIRST_PICTURE_WITHIN = 1.5  # screens
# Pages of chapters that still show it later. The list may only shrink: a page that has got better is taken out.
STILL_LATER = {}

pytestmark = [pytest.mark.book, pytest.mark.gate]


@pytest.fixture(scope="module", params=PAGES)
def shown(request, tab, address):
    """A page with all that folds unfolded."""
    tab.emulate_media(media="screen")
    tab.set_viewport_size(SCREEN)
    visit(tab, address, request.param)
    tab.first = tab.evaluate(FIRST_PICTURE)
    tab.evaluate(UNFOLDED)
    return request.param


@pytest.fixture(scope="module")
def tab(browser, address):
    context = browser.new_context()
    yield watched(context.new_page(), address)
    context.close()


def test_a_chapter_begins_with_a_picture(shown, tab):
    early = tab.first is not None and tab.first <= FIRST_PICTURE_WITHIN * SCREEN["height"]
    assert shown not in CHAPTERS or early != (shown in STILL_LATER), f"the first picture of {shown} stands at {tab.first} px, {SCREEN['height']} are a screen"


def test_nothing_is_cut_on_a_phone(shown, tab):
    tab.emulate_media(media="screen")
    tab.set_viewport_size(PHONE)
    assert tab.evaluate(CUT, "article pre") == []


def test_nothing_is_cut_on_paper(shown, tab):
    tab.emulate_media(media="print")
    tab.set_viewport_size(PAPER)
    assert tab.evaluate(CUT, "article :is(pre, table)") == []


def test_a_line_that_wraps_goes_on_indented(tab, address):
    visit(tab, address, "notebooks/first_run")
    tab.evaluate(UNFOLDED)
    tab.set_viewport_size(PHONE)
    indents = tab.evaluate(INDENTS)
    assert len(indents) > 5 and min(indents) > 5


def test_what_is_cut_is_found(tab, address):
    visit(tab, address, "book/index")
    tab.set_viewport_size(PHONE)
    tab.evaluate("document.querySelector('article pre').style.whiteSpace = 'pre'")
    assert len(tab.evaluate(CUT, "article pre")) == 1


UNFOLDED = """() => {
  document.querySelectorAll("article details").forEach(part => part.open = true);
  document.querySelectorAll("article .toggle-hidden").forEach(part => part.classList.remove("toggle-hidden"));
}"""
CUT = """selector => {
  const right = document.querySelector("article").getBoundingClientRect().right;
  return [...document.querySelectorAll(selector)]
    .filter(box => box.getClientRects().length && (box.scrollWidth > box.clientWidth + 1 || box.getBoundingClientRect().right > right + 1))
    .map(box => `${box.scrollWidth} px in ${box.clientWidth}: ${box.textContent.trim().slice(0, 80)}`);
}"""
# How far to the right of its first letter a line of code goes on in its second row.
INDENTS = """() => [...document.querySelectorAll("article .highlight pre span.line")]
  .filter(line => line.getClientRects().length && /^\\S/.test(line.textContent)).map(line => {
    const range = document.createRange();
    range.selectNodeContents(line);
    const rows = [...range.getClientRects()].filter(box => box.width > 1), top = Math.min(...rows.map(box => box.top));
    const lower = rows.filter(box => box.top > top + 8);
    return lower.length ? Math.min(...lower.map(box => box.left)) - Math.min(...rows.filter(box => box.top <= top + 8).map(box => box.left)) : null;
  }).filter(indent => indent !== null)"""
FIRST_PICTURE = """() => {
  const pictures = [...document.querySelectorAll("article :is(img, canvas, svg:not(.svg-inline--fa, .tb-icon, svg svg))")];
  const tops = pictures.map(picture => picture.getBoundingClientRect()).filter(box => box.width > 150 && box.height > 80).map(box => box.top);
  return tops.length ? Math.min(...tops) + scrollY : null;
}"""
