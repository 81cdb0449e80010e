"""The path for newcomers: complete, an hour long, and led from page to page."""

import json
import re
from pathlib import Path

import pytest
from scripts import extension
from sphinx.errors import ExtensionError

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "_build" / "html"
one_hour = extension("one_hour")
STOPS = one_hour.stops()


def source(page):
    path = next(path for path in (ROOT / f"{page}.ipynb", ROOT / f"{page}.md") if path.exists())
    return path.read_text(encoding="utf-8"), path.suffix == ".ipynb"


def test_the_stops_take_an_hour():
    assert len(STOPS) == 7 and sum(stop["minutes"] for stop in STOPS) == 60
    assert STOPS[0]["page"] == "book/index" and len({stop["page"] for stop in STOPS}) == 7


def test_the_page_lists_every_stop_in_order():
    text = one_hour.with_path(one_hour.PAGE, *source(one_hour.PAGE))
    assert re.findall(r"^1\. \{doc\}`/(\S+)`", text, re.M) == [stop["page"] for stop in STOPS]
    assert one_hour.MARK not in text


@pytest.mark.parametrize("number", range(1, 8))
def test_a_stop_leads_to_the_next_before_anything_else_begins(number):
    stop = STOPS[number - 1]
    text, is_notebook = source(stop["page"])
    led = one_hour.with_path(stop["page"], text, is_notebook)
    if is_notebook:
        led = "\n\n".join("".join(cell["source"]) for cell in json.loads(led)["cells"] if cell["cell_type"] == "markdown")
    after = led.partition(stop["after"])[2]
    between = after.partition(":::{div} one-hour")[0]
    assert f"stop {number} of 7" in led and led.count(":::{div} one-hour") == 1
    assert not re.search(r"^## ", between.partition("\n## ")[2] if stop["after"].startswith("(") else between, re.M)
    if number < 7:
        assert f"{{doc}}`/{STOPS[number]['page']}`" in after


def test_other_pages_stay_as_they_are():
    assert one_hour.with_path("book/sam", *source("book/sam")) == source("book/sam")[0]


def test_a_page_that_has_lost_its_place_fails_the_build():
    with pytest.raises(ExtensionError, match="book/sam has no '## Nowhere'"):
        one_hour.put("# A page\n", "## Nowhere", "box", "book/sam")
    with pytest.raises(ExtensionError, match="no cell of the notebook"):
        one_hour.in_notebook('{"cells": []}', "## Summary", "box")


def test_a_box_stands_before_the_label_of_the_next_heading():
    text = "## Summary\n\nWords.\n\n(label)=\n## Exercises\n"
    assert one_hour.put(text, "## Summary", "BOX", "") == "## Summary\n\nWords.\n\nBOX\n\n(label)=\n## Exercises\n"
    assert one_hour.put("## Summary\n\nWords.", "## Summary", "BOX", "").endswith("Words.\n\nBOX\n\n")


@pytest.mark.book
def test_the_boxes_of_the_built_pages_are_links():
    for number, stop in enumerate(STOPS, start=1):
        text = (BUILT / f"{stop['page']}.html").read_text(encoding="utf-8")
        box = re.search(r'<div class="[^"]*one-hour[^"]*">(.*?)</div>', text, re.S)[1]
        assert f"stop {number} of 7" in box and "one_hour.html" in box
        if number < 7:
            assert f"{Path(STOPS[number]['page']).name}.html" in box
