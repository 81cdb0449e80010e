"""The published tables: their rows, and the differences that claims are about."""

from __future__ import annotations

import csv
import functools
import math
import re
from collections.abc import Iterator
from pathlib import Path

from .. import _checks
from .claim import Claim
from .places import RESULTS, LedgerError, check_there
from .summaries import welch
from .verdicts import Published

__all__ = ["PUBLISHED_AS", "published", "published_difference"]

COLUMNS = ("source", "table", "task", "dataset", "model", "method", "metric", "mean", "std", "n_runs", "note")
NEEDED = ("source", "table", "method", "metric")  # no row is without them
NUMBERS = {"mean": float, "std": float, "n_runs": int}

# What the published tables call the methods.
PUBLISHED_AS = {
    "sgd": "SGD", "sam": "SAM", "bisam-log": "BiSAM (-log)", "bisam-tanh": "BiSAM (tanh)", "asam-all": "ASAM",
    "a-bisam-log": "A-BiSAM (-log)", "a-bisam-tanh": "A-BiSAM (tanh)", "esam": "ESAM", "e-bisam-log": "E-BiSAM (-log)",
    "e-bisam-tanh": "E-BiSAM (tanh)",
}  # fmt: skip


def published(**columns: str) -> list[dict]:
    """The rows of ``results/published.csv`` that have these values; means, deviations and numbers of runs as numbers.

    Args:
        columns: column to value, such as ``table="T1", model="Average"``.

    Raises:
        ValueError: a column that the table does not have, or a value that no row has there; the message lists those that exist.

    Example:
        >>> [row["mean"] for row in published(table="T1", model="Resnet-56", method="SAM")]
        [94.09]
    """
    found = rows()
    for name, value in columns.items():
        _checks.choice("column", name, COLUMNS)
        _checks.choice(name, value, tuple(dict.fromkeys(row[name] for row in found)))
    chosen = [row for row in found if all(row[name] == value for name, value in columns.items())]
    return [{name: NUMBERS[name](value) if name in NUMBERS and value else value for name, value in row.items()} for row in chosen]


class TableError(LedgerError):
    """A published table that cannot be read: no claim is at fault for it."""


@functools.cache
def rows() -> list[dict]:
    """The rows of the project's table as they are written, checked."""
    check_there(RESULTS)
    return read_rows(RESULTS / "published.csv")


def read_rows(path: Path) -> list[dict]:
    """The rows of a published table as they are written, after a check of each cell; a ``TableError`` names the first that is wrong."""
    found = []
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if tuple(header) != COLUMNS:
                raise TableError(f"{path}: row 1 must be the columns {','.join(COLUMNS)}, got {','.join(header)[:200]!r}")
            for cells in reader:
                for wrong in _row_faults(cells):
                    raise TableError(f"{path}: row {reader.line_num}, {wrong}")
                found.append(dict(zip(COLUMNS, cells, strict=True)))
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (csv.Error, ValueError) as error:  # no CSV, or no UTF-8
        raise TableError(f"{path}: cannot be read after row {len(found) + 1}: {error}") from None
    if not found:
        raise TableError(f"{path}: has no rows")
    return found


def _row_faults(cells: list[str]) -> Iterator[str]:
    if len(cells) != len(COLUMNS):
        yield f"which must have {len(COLUMNS)} columns, has {len(cells)}"
        return
    row = dict(zip(COLUMNS, cells, strict=True))
    for name, text in row.items():
        if not text.isprintable():
            yield f"column {name}: must hold no control characters, got {text[:40]!r}"
        if name in NEEDED and not text:
            yield f"column {name}: must not be empty"
        if name in NUMBERS and text and (wrong := _number_fault(name, text)):
            yield f"column {name}: must be {wrong}, got {text[:40]!r}"
    if not row["mean"] and not row["note"]:
        yield "column mean: is empty, and note does not say why"


def _number_fault(name: str, text: str) -> str | None:
    """What a number must be that is not; only plain digits are read, so no ``nan``, ``inf`` or ``1_0``."""
    if name == "n_runs":
        return None if re.fullmatch("[1-9][0-9]{0,8}", text) else "a whole number of at least 1"
    if not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text) or not math.isfinite(float(text)):
        return "a finite number"
    return "at least 0" if name == "std" and float(text) < 0 else None


def published_effect(claim: Claim) -> float | None:
    """The published number of ours minus that of theirs, as accuracy in points; ``None`` for a claim of our own."""
    if not _checks.part("claim", claim, Claim, "a Claim").published:
        return None
    ours, theirs = published_sides(claim)
    return (ours["mean"] - theirs["mean"]) * (-1 if "error" in ours["metric"] else 1)  # a table of errors counts the other way round


def published_difference(claim: Claim) -> Published | None:
    """The published difference with what is printed of its error, read by Welch's test; ``None`` for a claim of our own.

    Args:
        claim: its ``published`` columns must single out one row for each of the two methods, or a ``LedgerError`` says so.

    Example:
        >>> claim = Claim("c", "first_run", "s.", "sam", "sgd", "last_test_accuracy", published={"table": "T1", "model": "Resnet-56"})
        >>> round(published_difference(claim).comparison.error, 2)
        0.15
    """
    if (effect := published_effect(claim)) is None:
        return None
    sides = published_sides(claim)
    known = all(side["std"] != "" and side["n_runs"] != "" and side["n_runs"] > 1 for side in sides) and any(side["std"] for side in sides)
    return Published(effect, welch(*(side[key] for side in sides for key in ("mean", "std", "n_runs"))) if known else None)


def published_sides(claim: Claim) -> list[dict]:
    """The published rows of ours and of theirs."""
    found = []
    for side in ("ours", "theirs"):
        method = getattr(claim, side)
        name = claim.published_as.get(side, PUBLISHED_AS.get(method, method))
        rows = [row for row in published(**claim.published) if row["method"] == name]
        if len(rows) != 1:
            raise LedgerError(f"claim {claim.id}: {claim.published} has {len(rows)} published rows for {method}")
        found.append(rows[0])
    if found[0] == found[1]:
        raise LedgerError(f"claim {claim.id}: {claim.published} has one row for both, {found[0]['method']}")
    return found
