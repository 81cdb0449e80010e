"""What was measured on trained networks without training on, and whether it came out as it was predicted."""

from __future__ import annotations

import itertools
import json
import math
import statistics
import tomllib
from dataclasses import dataclass
from pathlib import Path

from .. import _checks
from .. import _files as files
from .places import RESULTS, LedgerError

__all__ = ["Measured", "Outcome", "Prediction", "cells", "load", "outcomes", "predictions"]

CELL = ("trained_by", "label_noise", "epoch", "radius")  # what the networks of a cell have in common
ROW = (*CELL, "climb")
SIDES = ("climb", "radius")


@dataclass(frozen=True)
class Measured:
    """One file of ``results/measured``.

    Args:
        what: what its rows are.
        environment: of the machine that measured.
        networks: one row a network, a dictionary from column to value.
        rows: one row a network, radius and climb, likewise.

    Example:
        >>> load("dropped_term").rows[0]["climb"]
        'sam'
    """

    what: str
    environment: dict
    networks: list[dict]
    rows: list[dict]


@dataclass(frozen=True)
class Prediction:
    r"""A sentence about measured rows, with the count that decides it; written before they were measured.

    In every cell, which is a kind of network and a radius, the median over the networks of one side is compared with that of the
    other, :math:`\operatorname{med}(a) > c \operatorname{med}(b)`.

    Args:
        id: short name.
        statement: the sentence.
        rows: file of ``results/measured`` that decides it, without ending.
        of: the column.
        larger: the rows that are predicted to be larger: ``climb``, ``radius`` or both; without ``radius`` those of the cell.
        smaller: the rows, or the number, that are predicted to be smaller.
        needed: cells in which it must be so.
        cells: cells that there are.
        times: the factor c.
        radius: the cells of this radius alone.

    Raises:
        TypeError, ValueError: a field that is not as above.

    Example:
        >>> Prediction("p", "a exceeds b.", "climbs", "loss_rise", {"climb": "a"}, {"climb": "b"}, needed=3, cells=4).times
        1.0
    """

    id: str
    statement: str
    rows: str
    of: str
    larger: dict | float
    smaller: dict | float
    needed: int
    cells: int
    times: float = 1.0
    radius: float | None = None

    def __post_init__(self):
        for name in ("id", "statement", "rows", "of"):
            _checks.text(name, getattr(self, name))
        for name in ("larger", "smaller"):
            side = getattr(self, name)
            if isinstance(side, dict):
                for key in side:
                    _checks.choice(f"a key of {name}", key, SIDES)
            else:
                _checks.keep(self, _checks.real, name)
        _checks.keep(self, _checks.whole, "needed", "cells")
        _checks.keep(self, _checks.positive, "times")
        _checks.keep(self, _checks.optional, "radius", of=_checks.positive)
        if self.needed > self.cells:
            raise ValueError(f"needed must be at most cells in {self.id!r}, got {self.needed} of {self.cells}")


@dataclass(frozen=True)
class Outcome:
    """What became of a prediction: in how many cells it is so, of those that were measured.

    Example:
        >>> one = Prediction("p", "a exceeds b.", "climbs", "loss_rise", {"climb": "a"}, {"climb": "b"}, needed=3, cells=4)
        >>> Outcome(one, so=3, seen=4).verdict, Outcome(one, so=2, seen=4).verdict, Outcome(one, so=2, seen=2).verdict
        ('holds', 'fails', 'not measured')
    """

    prediction: Prediction
    so: int
    seen: int

    @property
    def verdict(self) -> str:
        """``"holds"``, ``"fails"``, or ``"not measured"`` where a cell is missing."""
        if self.seen != self.prediction.cells:
            return "not measured"
        return "holds" if self.so >= self.prediction.needed else "fails"


def load(name: str, folder: Path = RESULTS) -> Measured:
    """The file ``measured/NAME.json`` of a folder of results, with every number checked to be finite.

    Args:
        name: ``"dropped_term"`` or ``"climbs"``.
        folder: of the results.

    Raises:
        LedgerError: the file cannot be read or does not have the form.

    Example:
        >>> sorted(load("climbs").rows[0])[:3]
        ['aim', 'climb', 'epoch']
    """
    path = _checks.path("folder", folder, "the path of a folder") / "measured" / f"{files.safe_name('name', name)}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        tables = {part: [dict(zip(found[part]["columns"], row, strict=True)) for row in found[part]["values"]] for part in ("networks", "rows")}
        made = Measured(found["what"], found["environment"], **tables)
    except OSError as error:
        raise LedgerError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"{path} does not have the form of a measured file: {type(error).__name__}: {error}") from None
    for row in (*made.networks, *made.rows):
        for column, value in row.items():
            if not isinstance(value, str) and not (isinstance(value, (int, float)) and math.isfinite(value)):
                raise LedgerError(f"{path}: {column} must be a word or a finite number, got {value!r}")
    return made


def predictions(folder: Path = RESULTS) -> list[Prediction]:
    """What ``measured/predictions.toml`` says, in its order.

    Args:
        folder: of the results.

    Raises:
        LedgerError: the file cannot be read or does not have the form.

    Example:
        >>> predictions()[0].rows
        'dropped_term'
    """
    path = _checks.path("folder", folder, "the path of a folder") / "measured" / "predictions.toml"
    try:
        return [Prediction(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["prediction"]]
    except OSError as error:
        raise LedgerError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"{path} does not have the form of a list of predictions: {error}") from None


def cells(rows: list[dict], of: str, by: tuple[str, ...] = ROW) -> dict[tuple, float]:
    """The median of a column over the rows that agree in other columns.

    Args:
        rows: of a measured file.
        of: the column.
        by: the columns that make a cell.

    Raises:
        TypeError, ValueError: rows that are no dictionaries, or a column that they do not have.

    Example:
        >>> cells([{"climb": "a", "x": 1.0}, {"climb": "a", "x": 3.0}, {"climb": "b", "x": 5.0}], of="x", by=("climb",))
        {('a',): 2.0, ('b',): 5.0}
    """
    found: dict[tuple, list[float]] = {}
    for row in _checks.sequence("rows", rows):
        for name, column in (("of", of), *(("a column of by", each) for each in by)):
            _checks.choice(name, column, tuple(_checks.part("rows", row, dict, "rows of a measured file")))
        found.setdefault(tuple(row[column] for column in by), []).append(row[of])
    return {cell: statistics.median(values) for cell, values in found.items()}


def outcomes(folder: Path = RESULTS) -> list[Outcome]:
    """Every prediction with what the rows say.

    Args:
        folder: of the results.

    Raises:
        LedgerError: as for :func:`load` and :func:`predictions`.

    Example:
        >>> {each.verdict for each in outcomes()} <= {"holds", "fails"}
        True
    """
    listed = predictions(folder)
    rows = {name: load(name, folder).rows for name in {one.rows for one in listed}}
    return [outcome(one, rows[one.rows]) for one in listed]


def outcome(one: Prediction, rows: list[dict]) -> Outcome:
    """One prediction with what the rows say."""
    medians = cells(rows, one.of)
    sides = (one.larger, one.smaller)
    is_of_one_radius = any(isinstance(side, dict) and "radius" in side for side in sides)
    kinds = sorted({cell[:3] for cell in medians})
    radii = [one.radius] if one.radius is not None else sorted({cell[3] for cell in medians})
    so = seen = 0
    for kind, radius in itertools.product(kinds, radii[:1] if is_of_one_radius else radii):
        larger, smaller = (
            medians.get((*kind, side.get("radius", radius), side.get("climb"))) if isinstance(side, dict) else side for side in sides
        )
        if larger is not None and smaller is not None:
            seen, so = seen + 1, so + (larger > one.times * smaller)
    return Outcome(one, so, seen)
