"""The published tables: their rows, and the differences that claims are about."""

from __future__ import annotations

import csv
import functools

from . import _checks
from .experiments import RESULTS, Claim, LedgerError
from .statistics import welch
from .verdicts import Published

__all__ = ["PUBLISHED_AS", "published", "published_difference", "published_effect"]

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

    Source:
        The table names the source of each row.

    Example:
        >>> [row["mean"] for row in published(table="T1", model="Resnet-56", method="SAM")]
        [94.09]
    """
    rows = _rows()
    for name, value in columns.items():
        _checks.choice("column", name, tuple(rows[0]))
        _checks.choice(name, value, tuple(dict.fromkeys(row[name] for row in rows)))
    chosen = [row for row in rows if all(row[name] == value for name, value in columns.items())]
    kinds = {"mean": float, "std": float, "n_runs": int}
    return [{name: kinds[name](value) if name in kinds and value else value for name, value in row.items()} for row in chosen]


@functools.cache
def _rows() -> list[dict]:
    with open(RESULTS / "published.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def published_effect(claim: Claim) -> float | None:
    """The published number of ours minus that of theirs, as accuracy in points; ``None`` for a claim of our own.

    Args:
        claim: its ``published`` columns must single out one row for each of the two methods.

    Raises:
        LedgerError: they do not.

    Source:
        ``results/published.csv``. A table of errors counts the other way round.

    Example:
        >>> claim = Claim("c", "first_run", "s.", "sam", "sgd", "last_test_accuracy", published={"table": "T1", "model": "Resnet-56"})
        >>> round(published_effect(claim), 2)
        0.08
    """
    if not _checks.part("claim", claim, Claim, "a Claim").published:
        return None
    ours, theirs = _sides(claim)
    return (ours["mean"] - theirs["mean"]) * (-1 if "error" in ours["metric"] else 1)


def published_difference(claim: Claim) -> Published | None:
    """The published difference with what is printed of its error; ``None`` for a claim of our own.

    Args:
        claim: as in :func:`published_effect`.

    Raises:
        LedgerError: its ``published`` columns do not single out two rows.

    Source:
        ``results/published.csv``, read by Welch's test.

    Example:
        >>> claim = Claim("c", "first_run", "s.", "sam", "sgd", "last_test_accuracy", published={"table": "T1", "model": "Resnet-56"})
        >>> round(published_difference(claim).comparison.error, 2)
        0.15
    """
    effect = published_effect(claim)
    if effect is None:
        return None
    sides = _sides(claim)
    known = all(side["std"] != "" and side["n_runs"] != "" and side["n_runs"] > 1 for side in sides) and any(side["std"] for side in sides)
    return Published(effect, welch(*(side[key] for side in sides for key in ("mean", "std", "n_runs"))) if known else None)


def _sides(claim: Claim) -> list[dict]:
    """The published rows of ours and of theirs."""
    found = []
    for side in ("ours", "theirs"):
        method = getattr(claim, side)
        name = claim.published_as.get(side, PUBLISHED_AS.get(method, method))
        rows = [row for row in published(**claim.published) if row["method"] == name]
        if len(rows) != 1:
            raise LedgerError(f"claim {claim.id}: {claim.published} has {len(rows)} published rows for {method}")
        found.append(rows[0])
    return found
