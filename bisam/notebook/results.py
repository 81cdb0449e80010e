"""Results as tables: rendered where a notebook or the book shows them, lines of text where a terminal does.

pandas' ``Styler`` makes the markup: a plain ``table`` whose cells carry classes, so that the stylesheet of the book colours it in both
schemes, and whose text is escaped. (``great_tables`` writes its colours into every table, and they would not follow the scheme.)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .. import _checks
from .._checks import shown
from .lines import table

__all__ = ["Results", "display", "is_notebook", "show"]

GOOD = ("agrees", "better", "holds", "reproduced", "yes")
BAD = ("differs", "fails", "no", "not reproduced", "refuted", "worse")
OPEN = ("direction only", "not attempted", "not in regime", "not resolved", "undecided")
COLORS = {"good": "#0b5d2e", "bad": "#8a1f11", "open": "#5c4a00"}  # each at least 4.5 to 1 on white and on a striped row
MARKS = {"good": "\N{CHECK MARK} ", "bad": "\N{MULTIPLICATION X} ", "open": "\N{EN DASH} "}  # so that colour is never alone
WORDY = 20  # letters from which a column holds sentences
NUMBER = re.compile(r"<?[+\N{MINUS SIGN}-]?[0-9.,]+\s*(%|x|±.*|\[.*|/.*|\(.*)?$|-$|$")
ZERO = re.compile(r"^[+-]?(0[.0]*%?)(e\+00)?$")  # a zero has no sign and no exponent


@dataclass(frozen=True)
class Results:
    """A table of results with a caption, as a notebook displays it.

    Args:
        rows: one dictionary a row, with the same columns in the same order: text, numbers, True or False, or ``None`` where there is nothing.
        caption: what is shown, of which runs, on which device and at which scale; it ends with a full stop.
        formats: name of a column to the format of its numbers, such as ``".2f"`` or ``"+.1%"``.

    Raises:
        TypeError, ValueError: rows that are no dictionaries or have different columns, a caption without an end, or a format of a column that is not there.

    Example:
        >>> print(Results([{"method": "SAM", "accuracy": 91.25, "verdict": "holds"}], "Digits, ten runs.", {"accuracy": ".1f"}))
        Digits, ten runs.
        method  accuracy  verdict
        SAM         91.2  holds
    """

    rows: Sequence[Mapping[str, object]]
    caption: str
    formats: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.rows, (list, tuple)):
            raise TypeError(f"rows must be a list of dictionaries, got {shown(self.rows)}")
        rows = [dict(_checks.part(f"rows[{number}]", row, Mapping, "a dictionary")) for number, row in enumerate(self.rows)]
        if not rows or not rows[0]:
            raise ValueError("rows must hold at least one row with at least one column")
        for number, row in enumerate(rows):
            if list(row) != list(rows[0]):
                raise ValueError(f"rows[{number}] must have the columns of the first row, {', '.join(rows[0])}; got {', '.join(map(str, row))}")
        if not _checks.text("caption", self.caption).endswith((".", "?", "!")):
            raise ValueError(f"caption must be whole sentences, with a full stop at the end, got {shown(self.caption)}")
        for name in _checks.part("formats", self.formats, Mapping, "a dictionary"):
            _checks.choice("formats: a column", name, tuple(rows[0]))
        object.__setattr__(self, "rows", tuple(rows))

    @property
    def cells(self) -> list[list[str]]:
        """What stands in the table, row by row, as text."""
        return [[_text(value, self.formats.get(name)) for name, value in row.items()] for row in self.rows]

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self.rows[0])

    @property
    def is_number(self) -> list[bool]:
        """Which columns hold numbers, and are set flush right."""
        return [all(NUMBER.match(cell) for cell in column) and any(column) for column in zip(*self.cells, strict=True)]

    def __str__(self) -> str:
        sides = ["  >" if number else "  <" for number in self.is_number]
        return f"{self.caption}\n{table(self.columns, self.cells, [sides[0].strip(), *sides[1:]])}"

    __repr__ = __str__

    def markup(self) -> str:
        """The table as HTML: a caption, cells with classes, verdicts in a colour and with a mark."""
        pandas = _checks.needs("pandas", extra="notebooks")
        cells, digest = self.cells, hashlib.sha256(str(self).encode()).hexdigest()[:8]
        kinds = [[_kind(cell) for cell in row] for row in cells]
        marked = [[MARKS.get(kind, "") + cell for cell, kind in zip(*row, strict=True)] for row in zip(cells, kinds, strict=True)]
        frame = pandas.DataFrame(marked, columns=self.columns, dtype=object)
        classes = pandas.DataFrame([[f"verdict verdict-{kind}" if kind else "" for kind in row] for row in kinds], columns=self.columns)
        found = {kind for row in kinds for kind in row}
        styles = [{"selector": f".verdict-{kind}", "props": f"color: {color}; font-weight: 600"} for kind, color in COLORS.items() if kind in found]
        wordy = [not number and max(map(len, column)) > WORDY for number, column in zip(self.is_number, zip(*cells, strict=True), strict=True)]
        styles += _styles(".col", self.is_number, "text-align: right; font-variant-numeric: tabular-nums")
        styles += _styles("td.col", self.is_number, "white-space: nowrap")  # an interval stays in one line
        styles += _styles("td.col", wordy, "min-width: 11em")  # on a phone the table scrolls, and no word stands alone
        styler = frame.style.format(escape="html").format_index(escape="html", axis=1).hide(axis="index")
        styler = styler.set_td_classes(classes).set_table_styles(styles).set_caption(_escaped(self.caption))
        styler = styler.set_table_attributes('class="bisam-results sortable"').set_uuid(digest)
        styler.cell_ids = False
        return f'<div class="bisam-results-box" tabindex="0" role="region" aria-label="Table: {_escaped(self.caption)}">{_slim(styler.to_html())}</div>'

    def _repr_html_(self) -> str:
        return self.markup()


def show(rows: Sequence[Mapping[str, object]], caption: str, formats: Mapping[str, str] | None = None) -> None:
    """Displays results as a table; outside of a notebook it prints them.

    Args:
        rows: as of :class:`Results`.
        caption: as of :class:`Results`.
        formats: as of :class:`Results`.

    Raises:
        TypeError, ValueError: as :class:`Results`.

    Example:
        >>> show([{"K": 3, "limit": 0.3466}, {"K": 10, "limit": 1.0986}], "Where the order turns.", {"limit": ".2f"})
        Where the order turns.
         K  limit
         3   0.35
        10   1.10
    """
    found = Results(rows, caption, {} if formats is None else formats)
    display(found, str(found))


def display(found: Results, text: str) -> None:
    """Shows a table where a notebook runs, with a text for what shows no markup; elsewhere it prints the text.

    Args:
        found: the table.
        text: what a terminal shows.

    Example:
        >>> display(Results([{"K": 3}], "Classes."), "K = 3")
        K = 3
    """
    found, text = _checks.part("found", found, Results, "a table of results"), _checks.text("text", text)
    if is_notebook():
        both = {"text/plain": text, "text/html": found.markup()}
        _checks.needs("IPython.display", extra="notebooks").display(both, raw=True)
    else:
        print(text)


def is_notebook() -> bool:
    """Whether a notebook runs, which shows markup and pictures.

    Example:
        >>> is_notebook()
        False
    """
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None


def _text(value: object, form: str | None) -> str:
    value = value.item() if hasattr(value, "item") else value  # numbers of torch and numpy
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, (int, float, str)):
        raise TypeError(f"rows must hold numbers, text, True, False or None, got {shown(value)}")
    if isinstance(value, str):
        return value
    found = format(value, form or "")
    return ZERO.sub(lambda zero: "0" if zero[2] else zero[1], found)


def _styles(selector: str, chosen: Sequence[bool], props: str) -> list[dict[str, str]]:
    """A rule for each column that is chosen."""
    return [{"selector": f"{selector}{number}", "props": props} for number, is_chosen in enumerate(chosen) if is_chosen]


def _slim(html: str) -> str:
    """Without the indents and the classes that no style names: a page with many tables is a quarter smaller."""
    return re.sub(r"\n\s+", "\n", re.sub(r'class="(?:data row\d+|col_heading level0) ', 'class="', html))


def _kind(cell: str) -> str:
    """Whether a cell is a verdict, and of which kind; others have none."""
    kinds = {"good": GOOD, "bad": BAD, "open": OPEN}
    return next((kind for kind, words in kinds.items() if cell in words or (kind == "open" and cell.startswith(words))), "")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
