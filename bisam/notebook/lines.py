"""Tables as lines of text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = ["table"]


def table(header: Sequence[object], rows: Iterable[Sequence[object]], columns: Sequence[str]) -> str:
    """Lines of text, one a row, below a header.

    Args:
        header: a word a column.
        rows: as many cells each.
        columns: the form of each column: the spaces before it, ``<`` or ``>`` for its side, and its width; without one it is as wide
            as its widest cell.

    Example:
        >>> print(table(("", "n"), [("SAM", 6), ("BiSAM", 12)], ("<", "  >4")))
                  n
        SAM       6
        BiSAM    12
    """
    lines = [[str(cell) for cell in line] for line in (header, *rows)]
    parts = []
    for number, column in enumerate(columns):
        before, side, width = re.fullmatch("( *)([<>])([0-9]*)", column).groups()
        cells = [line[number] for line in lines]
        wide = int(width) if width else max(map(len, cells))
        parts.append([before + (cell.ljust(wide) if side == "<" else cell.rjust(wide)) for cell in cells])
    return "\n".join("".join(line).rstrip() for line in zip(*parts, strict=True))
