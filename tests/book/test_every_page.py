"""Every page, opened once as a reader without a network sees it: its formulas stand, nothing is loaded from elsewhere, nothing is cut, a chapter begins
with a picture, and axe-core calls nothing serious at either width in either colours."""

from importlib.resources import files

import pytest
from built import CHAPTERS, PAGES, visit
from headless import watched

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
PAPER = {"width": 673, "height": 1000}  # A4 at 96 dots an inch, less its margins
FIRST_PICTURE_WITHIN = 1.5  # screens
# All rules are asked once, and those that depend on colour or room again. No style of the book asks for a scheme and a width at once, so that two looks
# see both schemes and both widths.
DEPENDING = ["color-contrast", "link-in-text-block", "scrollable-region-focusable", "target-size"]
LOOKS = [("light", WIDE, None), ("dark", PHONE, DEPENDING)]
HARMLESS = ("THEBE_JS_URL",)  # declared twice by the theme; nothing is loaded for it

pytestmark = pytest.mark.book


@pytest.fixture(scope="module")
def tab(browser, address):
    context = browser.new_context()
    context.add_init_script(AT_ONCE)
    yield watched(context.new_page(), address)
    context.close()


def opened(tab, address, name):
    look(tab, "light", WIDE)
    tab.outside.clear()
    tab.errors.clear()
    visit(tab, address, name)


def look(tab, scheme, size, media="screen"):
    tab.emulate_media(color_scheme=scheme, media=media)
    tab.set_viewport_size(size)
    tab.evaluate(TWO_FRAMES)


def faults_of(tab, scheme, size, rules):
    """What axe-core calls serious or critical in one look at the page that is open."""
    look(tab, scheme, size)
    tab.wait_for_function(SETTLED, arg=[scheme, size["width"]], timeout=60_000)
    said = tab.evaluate(JUDGED, rules)
    if said:  # what the theme was about to mend is gone after a second look, and a fault stays
        tab.wait_for_timeout(1000)
        said = tab.evaluate(JUDGED, rules)
    return [f"{scheme}, {size['width']} px: {fault}" for fault in said]


def missing(tab):
    """What the page lacks or asks others for: formulas that do not stand, errors on the console, requests to other machines."""
    written, shown = tab.locator(".math:not(script)").count(), tab.locator("mjx-container").count()
    faults = [f"{written - shown} formulas do not stand"] if shown < written else []
    faults += [f"an error in a formula: {text}" for text in tab.locator("[data-mjx-error], mjx-merror, [mathcolor='red']").all_inner_texts()]
    faults += [f"asked of another machine: {url}" for url in tab.outside]
    return faults + [error for error in tab.errors if not any(known in error for known in HARMLESS)]


def sideways(tab):
    """How far a phone can be moved sideways."""
    look(tab, "light", PHONE)
    beyond = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return [f"{beyond} px of sideways scroll at phone width"] if beyond > 0 else []


def first_picture(tab, name):
    """Where the first picture of a chapter stands, if that is too far down."""
    top = tab.evaluate(FIRST_PICTURE)
    late = name in CHAPTERS and (top is None or top > FIRST_PICTURE_WITHIN * WIDE["height"])
    return [f"the first picture stands at {top} px, and a screen has {WIDE['height']}"] if late else []


def cut(tab, size, media, boxes):
    """The boxes that hold more than they show."""
    look(tab, "light", size, media)
    return [f"cut at {size['width']} px ({media}): {box}" for box in tab.evaluate(CUT, boxes)]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_stands_fits_and_can_be_read(tab, address, name):
    opened(tab, address, name)
    faults = missing(tab) + first_picture(tab, name) + sideways(tab)
    tab.evaluate(UNFOLDED)
    faults += cut(tab, PHONE, "screen", "article pre") + cut(tab, PAPER, "print", "article :is(pre, table)")
    tab.evaluate(AXE)
    tab.evaluate(MADE_SMALLER)
    for scheme, size, rules in LOOKS:
        faults += faults_of(tab, scheme, size, rules)
    assert not faults, "\n".join(faults)


def test_what_axe_calls_serious_is_found(tab, address):
    opened(tab, address, "book/index")
    tab.evaluate(AXE)
    assert faults_of(tab, *LOOKS[0]) == []
    tab.evaluate("document.querySelector('article p').style.color = '#bbb'")
    assert any("color-contrast" in said for said in faults_of(tab, *LOOKS[0]))
    tab.evaluate("document.querySelector('article').insertAdjacentHTML('beforeend', '<button></button>')")
    assert any("button-name" in said for said in faults_of(tab, *LOOKS[0]))


def test_what_is_missing_or_asked_of_others_is_found(tab, address):
    opened(tab, address, "book/bisam")
    assert tab.locator("mjx-container").count() > 20, "formulas are not found"
    assert missing(tab) == [] and sideways(tab) == []
    tab.evaluate("document.querySelectorAll('mjx-container').forEach(formula => formula.remove())")
    tab.evaluate("fetch('http://example.invalid/x').catch(() => console.error('not there'))")
    tab.evaluate("document.querySelector('article').insertAdjacentHTML('beforeend', '<div style=\"width: 900px\">wide</div>')")
    tab.wait_for_function("() => performance.getEntriesByName('http://example.invalid/x').length > 0")
    said = " ".join(missing(tab))
    assert all(fault in said for fault in ("formulas do not stand", "example.invalid", "not there")) and len(sideways(tab)) == 1


def test_what_is_cut_is_found(tab, address):
    opened(tab, address, "book/index")
    tab.evaluate("document.querySelector('article pre').style.whiteSpace = 'pre'")
    assert len(cut(tab, PHONE, "screen", "article pre")) == 1


def test_a_picture_that_comes_late_is_found(tab, address):
    opened(tab, address, "notebooks/first_run")
    assert first_picture(tab, "notebooks/first_run") == []
    tab.evaluate("document.querySelector('article h1').style.marginBottom = '1400px'")
    assert len(first_picture(tab, "notebooks/first_run")) == 1


def test_a_line_that_wraps_goes_on_indented(tab, address):
    opened(tab, address, "notebooks/first_run")
    tab.evaluate(UNFOLDED)
    look(tab, "light", PHONE)
    indents = tab.evaluate(INDENTS)
    assert len(indents) > 5 and min(indents) > 5


def test_a_long_word_of_code_keeps_its_indent_on_a_phone(tab, address):
    opened(tab, address, "notebooks/reproduce_radius")
    tab.evaluate(UNFOLDED)
    look(tab, "light", PHONE)
    lines = tab.evaluate(BEGINS)
    assert len(lines) > 50 and {indent for indent, *_ in lines} >= {4, 8}
    for indent, below, left in lines:
        assert below < 8 and left == pytest.approx(indent / 2, abs=0.3), (indent, below, left)


def test_a_caption_is_as_wide_as_a_line_over_a_narrow_table_and_stays_on_a_phone(tab, address):
    opened(tab, address, "notebooks/when_sam_does_not_help")
    tables, captions = zip(*tab.evaluate(TABLES), strict=True)
    assert min(tables) < 300 and min(captions) > 400
    look(tab, "light", PHONE)
    tables, captions = zip(*tab.evaluate(TABLES), strict=True)
    assert max(tables) > PHONE["width"] > max(captions)


def test_formulas_are_no_tab_stops(tab, address):
    opened(tab, address, "book/bisam")
    assert tab.locator("mjx-container").count() > 20
    assert tab.locator("article [tabindex='0']:is(mjx-container, mjx-container *)").count() == 0


UNFOLDED = """() => {
  document.querySelectorAll("article details").forEach(part => part.open = true);
  document.querySelectorAll("article .toggle-hidden").forEach(part => part.classList.remove("toggle-hidden"));
}"""
# The theme waits for 300 ms of rest before it looks for what scrolls; here it looks in the next frame, so that no test has to wait or to guess.
AT_ONCE = "{const later = setTimeout; window.setTimeout = (work, wait, ...rest) => later(work, wait === 300 ? 0 : wait, ...rest);}"
TWO_FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
# The theme follows the scheme and the width a moment later: it colours the page, and lets keys reach what now scrolls.
SETTLED = """([scheme, width]) => document.documentElement.dataset.theme === scheme && innerWidth === width && matchMedia("screen").matches &&
  [...document.querySelectorAll("pre, .pst-scrollable-table-container")].every(box => box.tabIndex === 0 || box.scrollWidth <= box.clientWidth)"""
# MathJax draws a formula with hundreds of elements of its own, and says it to screen readers in a hidden one; neither is ours, so that the inner
# tree of each goes and its box stays. Words of code lose their element where one of their kind has kept its own: most of a page are such.
MADE_SMALLER = """() => {
  for (const formula of document.querySelectorAll("mjx-container")) {
    const box = formula.getBoundingClientRect();
    formula.style.cssText += `;display:inline-block;width:${box.width}px;height:${box.height}px`;
    formula.replaceChildren();
  }
  const seen = new Set();
  for (const code of document.querySelectorAll(".highlight pre")) {
    const ground = getComputedStyle(code).backgroundColor;
    for (const word of code.querySelectorAll("span[class]:not(.line)")) {
      const kind = word.className + ground;
      if (seen.has(kind)) word.replaceWith(word.textContent);
      seen.add(kind);
    }
  }
}"""
# The rule of contrast looks at what lies below every piece of text, which takes axe-core a minute on a page of ten thousand. Text of one colour, size
# and weight on one ground has one contrast, so that the rule is asked of the first two pieces of each kind; all other rules see the whole page.
JUDGED = """async rules => {
  const grounds = new Map();
  const groundOf = box => {
    if (!box) return "";
    if (!grounds.has(box)) {
      const {backgroundColor, backgroundImage} = getComputedStyle(box);
      const isClear = backgroundColor === "rgba(0, 0, 0, 0)" && backgroundImage === "none";
      grounds.set(box, isClear ? groundOf(box.parentElement) : backgroundColor + backgroundImage);
    }
    return grounds.get(box);
  };
  const isText = piece => [...piece.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
  const seen = new Map();
  for (const piece of document.querySelectorAll("body *:not(script, style, mjx-container, svg *)")) {
    delete piece.dataset.kind;
    if (!isText(piece) || !piece.checkVisibility()) continue;
    const {color, fontSize, fontWeight, opacity} = getComputedStyle(piece), kind = [color, fontSize, fontWeight, opacity, groundOf(piece)].join();
    seen.set(kind, (seen.get(kind) ?? 0) + 1);
    if (seen.get(kind) <= 2) piece.dataset.kind = kind;
  }
  axe.configure({rules: [{id: "color-contrast", selector: "[data-kind]"}]});
  const options = {resultTypes: ["violations"], ...(rules && {runOnly: {type: "rule", values: rules}})};
  const {violations} = await axe.run({exclude: [["mjx-container"]]}, options);
  return violations.filter(({impact}) => impact === "serious" || impact === "critical").flatMap(({id, impact, nodes}) =>
    nodes.map(node => `${impact} ${id}: ${node.html.slice(0, 160)}: ${node.failureSummary.split("\\n").slice(1).join(" ").trim().slice(0, 220)}`));
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
# Of each line of code with an indent: the indent, how far below its top the first word stands, and how far to the right in letters.
BEGINS = """() => [...document.querySelectorAll("article .highlight pre span.line")]
  .filter(line => line.getClientRects().length && /^ +\\S/.test(line.textContent)).map(line => {
    const range = document.createRange(), walk = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
    do walk.nextNode(); while (!walk.currentNode.data.trim());
    const at = walk.currentNode.data.search(/\\S/);
    range.setStart(walk.currentNode, at), range.setEnd(walk.currentNode, at + 1);
    const box = range.getBoundingClientRect(), whole = line.getBoundingClientRect();
    return [line.textContent.search(/\\S/), box.top - whole.top, (box.left - whole.left) / box.width];
  })"""
TABLES = """[...document.querySelectorAll("article table.bisam-results")].filter(table => table.getClientRects().length)
  .map(table => [table.tBodies[0].getBoundingClientRect().width, table.caption.getBoundingClientRect().width])"""
FIRST_PICTURE = """() => {
  const pictures = [...document.querySelectorAll("article :is(img, canvas, svg:not(.svg-inline--fa, .tb-icon, svg svg))")];
  const tops = pictures.map(picture => picture.getBoundingClientRect()).filter(box => box.width > 150 && box.height > 80).map(box => box.top);
  return tops.length ? Math.min(...tops) + scrollY : null;
}"""
