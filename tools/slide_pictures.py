"""The pictures of the slides: drawn larger than in the book, with labels that can be read from the last row."""

from __future__ import annotations

import re
from pathlib import Path

import cover

FIGURES = Path(__file__).resolve().parents[1] / "book" / "figures"
READABLE = 18  # pixels of the smallest label, on a slide 1280 pixels wide
LABEL = re.compile(r"(font(?:-size)?: ?(?:\w+ )*)([\d.]+)px")


def idea() -> str:
    """The picture of the first page, on one line, so that Markdown takes it as it is."""
    return f'<div class="drawing">{cover.idea().replace(chr(10), "")}</div>'


def figure(name: str) -> Path | None:
    """The drawing of a named picture, if the book has one."""
    path = FIGURES / f"{name}.svg"
    return path if path.exists() else None


def enlarged(svg: str, width: int) -> str:
    """A drawing whose labels are all scaled by one factor, so that at this width the smallest can be read."""
    shown = width / float(re.search(r'viewBox="[\d.-]+ [\d.-]+ ([\d.]+)', svg)[1])
    plain = [float(found[2]) for text in re.findall(r"<text\b[^>]*>", svg) if (found := LABEL.search(text))]
    factor = READABLE / (shown * min(plain)) if plain else 1
    if factor <= 1:
        return svg
    svg = re.sub(r"<text\b[^>]*>", lambda text: LABEL.sub(lambda found: f"{found[1]}{float(found[2]) * factor:.2f}px", text[0]), svg)
    # Formulas are groups of letters, each with its place: the group grows as a whole.
    return re.sub(r'(<g [^>]*transform="translate\([^"]*)("[^>]*>\s*<text>)', rf"\1 scale({factor:.3f})\2", svg)
