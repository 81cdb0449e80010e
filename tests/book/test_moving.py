"""What can be moved on the pages: its numbers are those of the library and of the notebooks, and everyone can move it."""

import gzip
import json
import math
import random
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
from headless import chromium, served, watched, without_formulas

import bisam
from bisam.notebook import plots

ROOT = Path(__file__).resolve().parents[2]
HTML, STATIC = ROOT / "_build" / "html", ROOT / "book" / "_static"
PLACES = {
    "lower-bounds": "lower_bounds", "spread-torn": "wrong_maximiser", "ball": "wrong_maximiser", "two-minima": "two_minima",
    "surface": "loss_landscapes",
}  # fmt: skip
HANDLES = {
    "lower-bounds": "Margin of the leading rival", "spread-torn": "Leads of spread and torn", "ball": "Perturbation", "two-minima": "Starting point",
}  # fmt: skip
HARMLESS = ("THEBE_JS_URL",)  # declared twice by the theme; nothing is loaded for it
LARGEST = 120_000  # bytes of scripts of ours on a page, with those of D3
LARGEST_SENT = 36_000  # the same, compressed
TIGHT = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


# -- the formulas -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def formulas(browser):
    """Runs a line of JavaScript with the formulas at hand."""
    tab = browser.new_page()
    tab.add_script_tag(path=STATIC / "moving" / "maths.js")
    yield lambda line, given: torch.tensor(tab.evaluate(f"given => {{ const m = Moving.maths; return {line}; }}", given), dtype=torch.float64)
    tab.close()


def cells(notebook, *ids):
    """What cells of a notebook define, executed one after the other."""
    made = {"torch": torch, "bisam": bisam, "math": math, "ETA": 0.05, "STEPS": 1, "lead": 0.1, "classes": 10, "rho": 0.3}
    made["this"], made["plots"] = MagicMock(), plots  # tables are the page's
    made["cross_entropy"] = bisam.CrossEntropy().per_sample
    stored = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = {cell["id"]: "".join(cell["source"]) for cell in stored}
    for name in ids:
        exec(code[name], made)
    return made


BOUNDS = [(f"m.negLog({shift})", bisam.NegLog(shift)) for shift in (bisam.NegLog().gamma, 0.9, 4.2)]
BOUNDS += [(f"m.tanh({slope})", bisam.Tanh(slope)) for slope in (0.05, 0.1, 1.0, 4.7)]


@pytest.mark.parametrize(("line", "phi"), BOUNDS, ids=[line for line, _ in BOUNDS])
def test_a_bound_and_its_slope_are_those_of_the_library(formulas, double, line, phi):
    x = 60 * torch.rand(400, generator=double) - 30
    value, slope = formulas(f"[given.map({line}.value), given.map({line}.slope)]", x.tolist())
    torch.testing.assert_close(value, phi(x), **TIGHT)
    torch.testing.assert_close(slope, phi.derivative(x), **TIGHT)


def sample(draw):
    """A sample with two kinds of rivals, as groups of classes and as scores."""
    leader, others, more = draw.uniform(-12, 12), draw.uniform(-12, 12), draw.choice([0, 1, 8, 998])
    groups = [{"margin": 0, "count": 1}, {"margin": leader, "count": 1}, {"margin": others, "count": more}]
    return groups, torch.tensor([[0.0, leader] + more * [others]], requires_grad=True)


@pytest.mark.parametrize(("line", "phi"), BOUNDS, ids=[line for line, _ in BOUNDS])
def test_q_and_its_pulls_are_those_of_the_library(formulas, double, line, phi):
    draw = random.Random(line)
    for mu in (0.1, 1.5, 10.0, 97.0):
        for _ in range(10):
            groups, scores = sample(draw)
            compare(formulas(f"(q => [q.value, ...q.pulls.slice(1)])(m.surrogate({line}, {mu}, given))", groups), bisam.Surrogate(phi, mu), scores)


def test_cross_entropy_and_its_pulls_are_those_of_the_library(formulas, double):
    draw = random.Random(0)
    for _ in range(40):
        groups, scores = sample(draw)
        compare(formulas("(q => [q.value, ...q.pulls.slice(1)])(m.crossEntropy(given))", groups), bisam.CrossEntropy(), scores)


def compare(found, loss, scores):
    value = loss.per_sample(scores, torch.zeros(1, dtype=torch.int64))
    (pulls,) = torch.autograd.grad(value.sum(), scores)
    torch.testing.assert_close(found[0], value[0].detach(), **TIGHT)
    torch.testing.assert_close(found[1], pulls[0, 1], **TIGHT)
    if scores.shape[1] > 2:
        torch.testing.assert_close(found[2], pulls[0, 2], **TIGHT)


def test_spread_and_torn_are_those_of_the_notebook(formulas, double, capsys):
    made = cells("wrong_maximiser", "toy")
    for classes in (2, 3, 10, 1000):
        for lead in (0.0, 0.1, 2.35, 7.0):
            for name in ("spread", "torn"):
                scores = made[name](classes, lead)
                there = formulas(f"[m.crossEntropy(m.{name}(...given)).value, m.surrogate(m.negLog(), 1.5, m.{name}(...given)).value]", [classes, lead])
                here = [loss.per_sample(scores, made["TRUE"])[0] for loss in (bisam.CrossEntropy(), bisam.Surrogate())]
                torch.testing.assert_close(there, torch.stack(here), **TIGHT)


def test_the_valley_and_a_step_are_those_of_the_notebook(formulas, double, capsys):
    made = cells("two_minima", "loss", "scratch")
    w = 4 * torch.rand(200, 2, generator=double) - 2
    torch.testing.assert_close(formulas("given.map(m.valley)", w.tolist()), made["loss"](w), **TIGHT)
    torch.testing.assert_close(formulas("given.map(m.valleyGradient)", w.tolist()), made["gradient"](w), **TIGHT)
    for rho in (0.0, 0.05, 0.3, 1.4):
        there = formulas(f"given.map(w => m.samStep(w, {rho}, 0.05).next)", w.tolist())
        torch.testing.assert_close(there, made["sam_step"](w, rho), **TIGHT)


def test_the_ball_and_its_two_maxima_are_those_of_the_notebook(formulas, double, capsys):
    made = cells("wrong_maximiser", "disc", "disc-table")
    points = made["steps"].reshape(-1, 2)
    chosen = torch.randint(len(points), (500,), generator=double)
    there = formulas("given.map(m.ball).map(b => [b.mistakes, b.crossEntropy, b.q])", points[chosen].tolist())
    here = [made["mistakes"], *made["climbs"].values()]
    torch.testing.assert_close(there, torch.stack([each.reshape(-1)[chosen].double() for each in here], 1), **TIGHT)
    best = formulas("[m.ballMaxima()].flatMap(b => [b.crossEntropy, b.q]).map(b => [...b.at, b.mistakes])", None)
    for found, (place, mistakes) in zip(best, made["reached"].values(), strict=True):
        torch.testing.assert_close(found[:2], place, rtol=0, atol=1e-9)
        assert found[2] == mistakes


# -- files --------------------------------------------------------------------------------------------------------------


def test_methods_have_the_colours_of_the_figures():
    style = (STATIC / "moving" / "moving.css").read_text(encoding="utf-8")
    for name, method in {"sam": "sam", "log": "bisam-log", "tanh": "bisam-tanh", "sgd": "sgd"}.items():
        assert re.search(rf"--{name}: (\S+);", style)[1] == plots.style_of(method).color.lower()


def test_a_page_loads_the_scripts_of_what_is_on_it_and_no_others(tmp_path):
    (tmp_path / "conf.py").write_text(f"import sys\nsys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\nextensions = ['myst_parser', 'moving']\n"
                                      "myst_enable_extensions = ['colon_fence']\n")  # fmt: skip
    (tmp_path / "index.md").write_text("# A page\n\n:::{moving} ball\nNo scripts, no ball.\n:::\n\n```{toctree}\nother\nwrong\n```\n")
    (tmp_path / "other.md").write_text("# Another\n\nIt stands still.\n")
    (tmp_path / "wrong.md").write_text("# A third\n\nIt stands still.\n")

    def build():
        command = [sys.executable, "-m", "sphinx", "-q", "-W", str(tmp_path), str(tmp_path / "out")]
        return subprocess.run(command, capture_output=True, text=True).stderr

    assert build() == ""
    page, other = ((tmp_path / "out" / f"{name}.html").read_text() for name in ("index", "other"))
    assert 'data-moving="ball"' in page and "No scripts, no ball." in page
    assert re.findall(r'src="_static/((?:moving|vendor)[^"?]*)', page) == [
        "vendor/d3/d3.js", "moving/maths.js", "moving/parts.js", "moving/ball.js"]  # fmt: skip
    assert "moving" not in other.split("</head>")[0] and "d3.js" not in other
    (tmp_path / "wrong.md").write_text("# A third\n\n:::{moving} bell\nNothing.\n:::\n")
    assert "there is no bell; there are ball, lower-bounds" in build()


# -- the built pages ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address():
    with served(HTML) as address:
        yield address


@pytest.fixture
def opened(browser, address):
    """Opens the page of a thing, and returns the tab and what can be moved; nothing that moves has formulas to be set."""
    contexts = []

    def opened(name, at=None, **settings):
        contexts.append(browser.new_context(**settings))
        tab = without_formulas(watched(contexts[-1].new_page(), at or address))
        tab.goto(f"{at or address}/notebooks/{PLACES[name]}.html")
        tab.wait_for_load_state("load")
        inside = "figure" if name == "surface" else f'[data-moving="{name}"]'
        return tab, tab.locator(f"{inside} .moving-live")

    yield opened
    for context in contexts:
        context.close()


THINGS = pytest.mark.parametrize("name", PLACES)


@pytest.mark.book
@THINGS
def test_keys_move_every_slider_and_the_words_follow(opened, name):
    tab, live = opened(name)
    sliders = live.locator("input[type=range]:visible")
    for number in range(sliders.count()):
        slider, before = sliders.nth(number), words(live)
        slider.focus()
        tab.keyboard.press("ArrowRight")
        shown = slider.get_attribute("aria-valuetext")
        assert slider.locator("xpath=../output").inner_text() == shown and slider.evaluate("it => it.labels.length") == 1
        tab.keyboard.press("PageUp")
        assert slider.get_attribute("aria-valuetext") != shown
        assert words(live) != before or name == "two-minima"  # there the radius is that of the next step
    is_sound(tab)


def words(live):
    """All that a drawing says: its numbers, its sentence and its lines."""
    return live.evaluate("it => it.querySelector('.moving-said').textContent + [...it.querySelectorAll('svg')].map(svg => svg.innerHTML).join('')")


def is_sound(tab):
    """No request has left the site, and the console has no error of ours."""
    assert tab.outside == []
    assert [error for error in tab.errors if not any(known in error for known in HARMLESS)] == []


@pytest.mark.book
@pytest.mark.parametrize("name", HANDLES)
def test_arrow_keys_and_a_finger_move_the_handle(opened, name):
    tab, live = opened(name, has_touch=True, viewport={"width": 390, "height": 800})
    knob = live.get_by_role("slider", name=HANDLES[name])
    knob.focus()
    assert knob.evaluate("it => getComputedStyle(it.querySelector('.moving-knob')).strokeWidth") == "5px", "focus is not seen"
    before = knob.get_attribute("aria-valuetext"), live.locator(".moving-said").inner_text()
    tab.keyboard.press("ArrowRight")
    after = knob.get_attribute("aria-valuetext"), live.locator(".moving-said").inner_text()
    assert before[0] != after[0] and before[1] != after[1]
    knob.scroll_into_view_if_needed()
    box = live.locator("svg").first.bounding_box()
    tab.touchscreen.tap(box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"])
    assert knob.get_attribute("aria-valuetext") != after[0]
    reach = knob.locator(".moving-reach").bounding_box()
    assert min(reach["width"], reach["height"]) >= 40, "too small for a finger"
    is_sound(tab)


@pytest.mark.book
@pytest.mark.parametrize("name", HANDLES)
def test_a_handle_can_be_dragged(opened, name):
    tab, live = opened(name, viewport={"width": 1280, "height": 1000})
    knob = live.get_by_role("slider", name=HANDLES[name])
    live.locator("svg").first.scroll_into_view_if_needed()
    before, box = knob.get_attribute("aria-valuetext"), knob.locator(".moving-knob").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 30, y - 10, steps=3)
    tab.mouse.up()
    assert knob.get_attribute("aria-valuetext") != before


@pytest.mark.book
def test_the_surface_is_turned_by_keys_by_the_mouse_and_by_its_slider(opened):
    tab, live = opened("surface", viewport={"width": 1280, "height": 1000})
    surface = live.locator(".moving-surface")
    surface.focus()
    assert surface.get_attribute("aria-valuetext") == "turned by 35°, tilted by 30°"
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowUp")
    assert surface.get_attribute("aria-valuetext") == "turned by 40°, tilted by 33°"
    surface.evaluate("surface => surface.scrollIntoView({block: 'center', behavior: 'instant'})")  # all of it, below the header
    surface.hover(trial=True)  # waits until it stands still and the mouse can reach it
    box = surface.bounding_box()
    tab.mouse.move(box["x"] + 200, box["y"] + 200)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 240, box["y"] + 200)
    tab.mouse.up()
    assert surface.get_attribute("aria-valuetext") == "turned by 20°, tilted by 33°"
    before = words(live)
    live.get_by_label("network").select_option("SAM")
    assert live.locator(".moving-said").inner_text().startswith("SAM, cross-entropy") and words(live) != before
    is_sound(tab)


@pytest.mark.book
def test_the_numbers_beside_the_bounds_are_those_of_the_library(opened, double):
    _, live = opened("lower-bounds")
    compare_shown(live, bisam.Surrogate())
    live.get_by_label("tanh").check()
    compare_shown(live, bisam.Surrogate(bisam.Tanh(), 10.0))


def compare_shown(live, q):
    scores = torch.tensor([[0.0, 1.0]], requires_grad=True)
    for name, loss in {"q": q, "ce": bisam.CrossEntropy()}.items():
        value = loss.per_sample(scores, torch.zeros(1, dtype=torch.int64))
        (pull,) = torch.autograd.grad(value.sum(), scores)
        for cell, number in ((name, value.item()), (f"{name}-pull", pull[0, 1].item())):
            assert live.locator(f'[data-number="{cell}"]').inner_text() == f"{number:.3f}".replace("-", "−")


@pytest.mark.book
def test_steps_are_made_at_once_where_motion_is_not_wanted(opened):
    tab, live = opened("two-minima", reduced_motion="reduce")
    live.get_by_role("button", name="One step").click()
    live.get_by_role("button", name="100 steps").click()
    said = live.locator(".moving-said").inner_text()
    assert said.startswith("After 101 steps: SAM is at (0.99, 0.00), near the wide minimum; gradient descent is at (−1.01, 0.00), near the sharp")
    tab.wait_for_function("it => it.querySelector('[role=status]').textContent.startsWith('After 101 steps')", arg=live.element_handle())
    is_sound(tab)


@pytest.mark.book
@THINGS
def test_without_scripts_and_on_paper_the_still_picture_is_seen(opened, name):
    tab, _ = opened(name, java_script_enabled=False)
    picture = tab.locator("#fig-surface img" if name == "surface" else f'[data-moving="{name}"] img')
    assert picture.is_visible() and picture.get_attribute("alt")
    assert tab.locator(".moving-live").count() == 0
    tab, live = opened(name)
    picture = tab.locator("#fig-surface img" if name == "surface" else f'[data-moving="{name}"] img')
    assert live.is_visible() and not picture.is_visible()
    tab.emulate_media(media="print")
    assert picture.is_visible() and not live.is_visible()


@pytest.mark.book
@pytest.mark.parametrize("scheme", ["light", "dark"])
@THINGS
def test_it_fits_a_phone_and_both_schemes(opened, name, scheme):
    tab, live = opened(name, color_scheme=scheme, viewport={"width": 390, "height": 800})
    assert live.is_visible() and tab.evaluate("document.documentElement.dataset.theme") == scheme
    assert tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    box = live.bounding_box()
    for svg in live.locator("svg").all():
        inner = svg.bounding_box()
        assert inner["x"] >= box["x"] and inner["x"] + inner["width"] <= box["x"] + box["width"]
    texts = live.evaluate(TEXTS)
    assert texts
    for text, size, contrast in texts:
        assert size >= 11, f"{text}: {size} px"
        assert contrast > 4.5, f"{text}: contrast {contrast:.1f}"
    is_sound(tab)


# The size on the screen and the contrast with the page of every text.
TEXTS = """live => {
  const shade = colour => { const [r, g, b] = colour.match(/[0-9.]+/g).map(Number).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = shade(getComputedStyle(document.body).backgroundColor);
  return [...live.querySelectorAll('svg text, label, legend, output, th, td, .moving-said')].filter(it => it.textContent.trim() && it.getClientRects().length)
    .map(it => { const style = getComputedStyle(it), ink = shade(it.tagName === 'text' ? style.fill : style.color);
      const svg = it.closest('svg'), scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
      return [it.textContent, parseFloat(style.fontSize) * scale, (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05)]; });
}"""


@pytest.mark.book
@THINGS
def test_it_works_in_a_folder_without_a_server(opened, name):
    tab, live = opened(name, at=HTML.as_uri())
    assert live.is_visible()
    is_sound(tab)


@pytest.mark.book
def test_scripts_are_small_and_only_where_they_are_used():
    for page in HTML.glob("*/*.html"):
        text = page.read_text(encoding="utf-8")
        used = set(re.findall(r'data-moving="([a-z-]+)"', text))
        scripts = re.findall(r'src="\.\./_static/((?:moving|vendor/d3)/[^"?]+)', text)
        assert {Path(path).stem for path in scripts} == (used | {"d3", "maths", "parts"} if used else set()), page.name
        content = [(HTML / "_static" / path).read_bytes() for path in scripts]
        assert sum(map(len, content)) < LARGEST
        assert sum(len(gzip.compress(each)) for each in content) < LARGEST_SENT
    assert (STATIC / "vendor" / "d3" / "LICENSE").read_text(encoding="utf-8").startswith("Copyright")
