"""The first page: its picture is computed as the notebook computes it, and its numbers are those of the records."""

import json
import re
from pathlib import Path

import pytest
import torch
from headless import chromium, served, watched
from scripts import tool

import bisam
from bisam.evidence.decisions import decisions

ROOT = Path(__file__).resolve().parents[2]
INDEX = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
SAYS = {"holds": "better", "refuted": "worse", "not resolved": "not resolved"}


cover = tool("cover")


def test_the_losses_of_the_picture_are_those_of_the_package():
    F = torch.linspace(-4, 4, 33, dtype=torch.float64)
    logits, y = torch.stack([torch.zeros_like(F), F], 1), torch.zeros(33, dtype=torch.int64)
    for ours, theirs in ((cover.lower_bound, bisam.Surrogate()), (cover.cross_entropy, bisam.CrossEntropy())):
        torch.testing.assert_close(torch.tensor([ours(x) for x in F.tolist()], dtype=torch.float64), theirs.per_sample(logits, y))


def test_the_arrows_end_where_the_notebook_finds_the_highest_values():
    shown = "".join(
        "".join(out.get("text", out.get("data", {}).get("text/plain", []))) + "\n" for cell in json.loads((ROOT / "notebooks" / "wrong_maximiser.ipynb").read_text(encoding="utf-8"))["cells"]
        for out in cell.get("outputs", [])
    )  # fmt: skip
    loss, bound = cover.highest(cover.cross_entropy), cover.highest(cover.lower_bound)
    assert loss == pytest.approx((0.26, -0.14), abs=0.006) and bound == pytest.approx((-0.03, -0.30), abs=0.006)
    assert [sum(cover.wrong(step)) for step in ((0.0, 0.0), loss, bound)] == [1, 1, 5]
    assert re.search(r"mistakes in the disc where cross-entropy is highest +1\n", shown)
    assert re.search(r"mistakes in the disc where Q is highest +5\n", shown)


def test_the_picture_shows_every_sample_once_a_row():
    drawn = cover.idea()
    assert len(re.findall('class="right"', drawn)) == 12 + 12 + 8
    assert len(re.findall('class="wrong"', drawn)) == 3 and len(re.findall('class="wrong new bisam"', drawn)) == 4
    assert "1 of 13 wrong" in drawn and "5 of 13 wrong" in drawn
    assert drawn.count("<title") == 1 and 'aria-labelledby="idea-said"' in drawn


def test_words_of_the_picture_are_large_enough_for_a_phone_and_stay_inside():
    width = float(re.search(r'viewBox="0 0 (\d+)', cover.idea())[1])
    assert width <= 360, "a phone shows 350 px: at this width 14 px stay 14 px"
    assert "font-size: 14px" in (ROOT / "book" / "_static" / "front.css").read_text(encoding="utf-8")


def test_the_logo_is_the_one_that_is_drawn_and_the_shared_image_has_its_size():
    assert (ROOT / "book" / "_static" / "logo.svg").read_text(encoding="utf-8") == cover.logo()
    head = (ROOT / "book" / "_static" / "shared.png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")) == (1200, 630)


ROWS = {
    "SAM over SGD, 40 % wrong labels": ("power_digits/sam-over-sgd-noise40", "power_mnist/sam-over-sgd-noise40"),
    "BiSAM (-log) over SAM, same labels": ("power_digits/log-over-sam-noise40", "power_mnist/log-over-sam-noise40"),
    "BiSAM (tanh) over SAM, same labels": ("power_digits/tanh-over-sam-noise40", "power_mnist/tanh-over-sam-noise40"),
    "SAM over SGD, right labels": ("power_digits/sam-over-sgd-noise00",),
    "BiSAM (-log) over SAM, right labels": ("power_digits/log-over-sam-noise00",),
}


def in_points(difference):
    """A difference as the table prints it: with its sign, unless it rounds to zero."""
    return f"{difference:+.1f}".replace("-", "\N{MINUS SIGN}") if abs(difference) >= 0.05 else "0.0"


@pytest.mark.slow
def test_the_table_says_what_the_records_say():
    known = {each.claim.id: each for name in ("power_digits", "power_mnist") for each in decisions(name)}
    for row, wanted in ROWS.items():
        points, verdict = re.search(rf"^\| {re.escape(row)} \| (.*?) \| \[. (.*?)\]", INDEX, re.M).groups()
        found = [known[name] for name in wanted]
        assert points == ", ".join(in_points(each.result.mean) for each in found), row
        assert {SAYS[each.verdict] for each in found} == {verdict}, row
        assert {each.result.pairs for each in found} == {40}


def test_what_was_not_run_is_said():
    assert re.search(r"of the published size \| +\| \[– not attempted\]", INDEX)


def test_the_first_page_has_no_formula_three_doors_and_the_two_lines():
    assert "$" not in INDEX
    assert re.findall(r":link: (\S+)", INDEX) == ["one_hour", "how_to_read", "teach"]
    assert "# line one" in INDEX and "# line two" in INDEX


# -- the built page --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened():
    """The first page in a window of some size and theme."""
    with chromium() as browser, served(ROOT / "_build" / "html") as home:

        def page(width, height, theme):
            tab = watched(browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme).new_page(), home)
            tab.goto(f"{home}/book/index.html")
            tab.wait_for_load_state("load")
            return tab

        yield page


@pytest.mark.book
def test_the_first_screen_shows_the_picture_and_beside_it_the_results(opened):
    tab = opened(1440, 900, "light")
    picture, results, doors = (tab.locator(name).first.bounding_box() for name in ("svg.idea", "table.front-results", ".sd-card"))
    assert picture["y"] + picture["height"] <= 900 and results["y"] + results["height"] <= 900
    assert results["x"] >= picture["x"] + picture["width"] and doors["y"] < 1350
    assert tab.locator(".verdict-good, .verdict-bad, .verdict-open").count() == 6
    assert tab.locator("mjx-container, .math").count() == 0 and tab.outside == []


@pytest.mark.book
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_on_a_phone_the_words_of_the_picture_can_be_read(opened, theme):
    tab = opened(390, 800, theme)
    sizes = tab.evaluate("[...document.querySelectorAll('svg.idea text')].map(t => parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a)")
    assert len(sizes) > 10 and min(sizes) >= 12.5
    picture, results = tab.locator("svg.idea").bounding_box(), tab.locator("table.front-results").bounding_box()
    assert results["y"] > picture["y"] + picture["height"]
    for name in ("svg.idea text.note", "svg.idea text.sam", "svg.idea text.bisam"):
        ink, ground = (tab.evaluate(LUMINANCE, [where, key]) for where, key in ((name, "fill"), ("body", "backgroundColor")))
        assert (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05) >= 4.5, name


LUMINANCE = """([selector, key]) => {
  const [r, g, b] = getComputedStyle(document.querySelector(selector))[key].match(/[0-9.]+/g).map(Number)
    .map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}"""
