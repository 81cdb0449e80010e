"""A printed page: black on white from both colours, with its number, its solutions, or as a handout without them."""

import pytest
from built import visit
from headless import watched, without_formulas

pytestmark = pytest.mark.book


@pytest.fixture(params=["light", "dark"], scope="module")
def printed(request, browser, address):
    context = browser.new_context(color_scheme=request.param, viewport={"width": 673, "height": 1000})
    tab = watched(context.new_page(), address)
    visit(tab, address, "book/sam")
    tab.emulate_media(media="print", color_scheme=request.param)
    yield tab
    context.close()


def test_all_is_black_on_white(printed):
    assert set(printed.evaluate(COLOURS)) == {"rgb(0, 0, 0)"}
    assert set(printed.evaluate(GROUNDS)) <= {"rgba(0, 0, 0, 0)", "rgb(255, 255, 255)"}


def test_the_heading_has_its_number_and_stands_once(printed):
    shown = [heading.inner_text() for heading in printed.locator("h1").all() if heading.is_visible()]
    assert len(shown) == 1 and shown[0].startswith("2. ")


def test_what_is_pressed_on_a_screen_is_not_printed(printed):
    for part in (".bd-header-article", ".bd-sidebar-primary", ".bd-sidebar-secondary", ".prev-next-footer", "article button"):
        assert not any(box.is_visible() for box in printed.locator(part).all()), part


def test_solutions_are_printed_open_and_a_handout_has_none(printed):
    solutions = printed.locator("article div.solution")
    assert solutions.count() > 1
    assert all(box.bounding_box()["height"] > 80 for box in solutions.all())
    assert all(inner.is_visible() for inner in solutions.locator("> section").all())
    printed.evaluate("document.documentElement.classList.add('handout')")
    hidden, kept = not any(box.is_visible() for box in solutions.all()), printed.locator("article div.exercise").first.is_visible()
    printed.evaluate("document.documentElement.classList.remove('handout')")
    assert hidden and kept


def test_a_press_on_any_word_of_its_title_unfolds_a_solution(browser, address):
    context = browser.new_context()
    tab = without_formulas(watched(context.new_page(), address))
    visit(tab, address, "book/sam")
    solution = tab.locator("article div.solution").first
    assert not solution.locator("> section").is_visible() and solution.locator("> .admonition-title a").count() == 0
    box = solution.locator("> .admonition-title").bounding_box()
    for right in (20, 160):  # on "Solution to", then on the name of the exercise
        before, hidden = tab.url, "toggle-hidden" in solution.get_attribute("class")
        solution.locator("> .admonition-title").click(position={"x": right, "y": box["height"] / 2})
        assert ("toggle-hidden" in solution.get_attribute("class")) != hidden and tab.url == before
    context.close()


COLOURS = """() => [...document.querySelectorAll("article :is(h1, h2, h3, p, li, td, a, code, pre, pre span, figcaption)")]
  .filter(part => part.getClientRects().length).map(part => getComputedStyle(part).color)"""
GROUNDS = """() => [document.documentElement, document.body, ...document.querySelectorAll("main *")]
  .filter(part => part.getClientRects().length && !(part instanceof SVGElement || part instanceof HTMLImageElement))
  .map(part => getComputedStyle(part).backgroundColor)"""
