"""The pictures of the slides: drawn larger than in the book, with labels that can be read from the last row."""

from __future__ import annotations

import re
from pathlib import Path

import cover

FIGURES = Path(__file__).resolve().parents[1] / "book" / "figures"
READABLE = 18  # pixels of the smallest label, on a slide 1280 pixels wide
LABEL = re.compile(r"(font(?:-size)?: ?(?:\w+ )*)([\d.]+)px")
FORMULA = re.compile(r'(<g [^>]*transform="translate\([^"]*)("[^>]*>\s*)(<text>.*?</text>)', re.DOTALL)


def idea() -> str:
    """The picture of the first page, on one line, so that Markdown takes it as it is."""
    return f'<div class="drawing">{cover.idea().replace(chr(10), "")}</div>'


def figure(name: str) -> Path | None:
    """The drawing of a named picture, if the book has one."""
    path = FIGURES / f"{name}.svg"
    return path if path.exists() else None


def enlarged(svg: str, width: int) -> str:
    """A drawing whose small labels grow until they can be read at this width, and no further, so that they keep clear of each other."""
    least = READABLE * float(re.search(r'viewBox="[\d.-]+ [\d.-]+ ([\d.]+)', svg)[1]) / width
    svg = re.sub(r"<text\b[^>]*>", lambda text: LABEL.sub(lambda found: f"{found[1]}{max(float(found[2]), least):.2f}px", text[0]), svg)
    return FORMULA.sub(lambda group: f"{group[1]}{grown(group[3], least)}{group[2]}{group[3]}", svg)


def grown(formula: str, least: float) -> str:
    """By how much a formula has to grow. Its letters have a place each, so that the group grows as a whole."""
    largest = max((float(found[2]) for found in LABEL.finditer(formula)), default=least)
    return f" scale({least / largest:.3f})" if largest < least else ""
