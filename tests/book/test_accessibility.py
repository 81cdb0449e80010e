"""Every page to axe-core, at both widths and in both colours: nothing that it calls serious or critical."""

from importlib.resources import files

import pytest
from built import PAGES, visit
from headless import watched

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
# A page is judged by all rules once; what depends on colour or room is asked again at the other width and in the other colours.
DEPENDING = ["color-contrast", "link-in-text-block", "scrollable-region-focusable", "target-size"]
LOOKS = [("light", WIDE, None), ("dark", WIDE, DEPENDING), ("dark", PHONE, DEPENDING), ("light", PHONE, DEPENDING)]

pytestmark = [pytest.mark.book, pytest.mark.gate]


@pytest.fixture(scope="module")
def tab(browser, address):
    context = browser.new_context()
    yield watched(context.new_page(), address)
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_serious_fault(tab, address, name):
    tab.emulate_media(color_scheme="light")
    tab.set_viewport_size(WIDE)
    visit(tab, address, name)
    tab.evaluate(MADE_SMALLER)
    tab.evaluate(AXE)
    faults = {}
    for scheme, size, rules in LOOKS:
        tab.emulate_media(color_scheme=scheme)
        tab.set_viewport_size(size)
        assert tab.evaluate("document.documentElement.dataset.theme") == scheme
        for said in tab.evaluate(JUDGED, rules):
            faults.setdefault(said, f"{scheme}, {size['width']} px")
    assert not faults, "\n".join(f"{where}: {said}" for said, where in faults.items())


def test_a_fault_is_found(tab, address):
    visit(tab, address, "book/index")
    tab.evaluate(AXE)
    tab.evaluate("document.querySelector('article p').style.color = '#bbb'")
    assert any("color-contrast" in said for said in tab.evaluate(JUDGED, DEPENDING))
    tab.evaluate("document.querySelector('article').insertAdjacentHTML('beforeend', '<button></button>')")
    assert any("button-name" in said for said in tab.evaluate(JUDGED, None))


def test_formulas_are_no_tab_stops(tab, address):
    visit(tab, address, "book/bisam")
    assert tab.locator("mjx-container").count() > 20
    assert tab.locator("article [tabindex='0']:is(mjx-container, mjx-container *)").count() == 0


# MathJax draws a formula with hundreds of elements of its own, and says it to screen readers in a hidden one; neither is ours, so that the inner
# tree of each goes and its box stays. A kind of token has one colour on one ground: the first of each stands for all.
MADE_SMALLER = """() => {
  for (const formula of document.querySelectorAll("mjx-container")) {
    const box = formula.getBoundingClientRect();
    formula.style.cssText += `;display:inline-block;width:${box.width}px;height:${box.height}px`;
    formula.replaceChildren();
  }
  const seen = new Set();
  for (const token of document.querySelectorAll(".highlight pre span[class]:not(.line)")) {
    const kind = token.className + getComputedStyle(token.closest("pre")).backgroundColor + !!token.closest("details:not([open])");
    if (seen.has(kind)) token.replaceWith(token.textContent);
    seen.add(kind);
  }
}"""
JUDGED = """async rules => {
  const options = {resultTypes: ["violations"], ...(rules && {runOnly: {type: "rule", values: rules}})};
  const {violations} = await axe.run({exclude: [["mjx-container"]]}, options);
  return violations.filter(({impact}) => impact === "serious" || impact === "critical").flatMap(({id, impact, nodes}) =>
    nodes.map(node => `${impact} ${id}: ${node.html.slice(0, 160)}: ${node.failureSummary.split("\\n").slice(1).join(" ").trim().slice(0, 220)}`));
}"""
