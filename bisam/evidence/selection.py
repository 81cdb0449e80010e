"""Records of a method at a place of the grid, by seed."""

from __future__ import annotations

from .. import _checks
from .experiment import Experiment

__all__ = ["entries", "series"]

RECORDS = "records by file name, as bisam.evidence.ledger.evidence() returns them"


def entries(records: dict[str, dict], method: str, place: dict | None = None, plan: Experiment | None = None) -> dict[int, dict]:
    """One method's records by seed, at a place of the grid.

    Args:
        records: what :func:`bisam.evidence.ledger.evidence` returned.
        method: name of a recipe or control.
        place: field of the run, ``"rho"``, or the ``"rate"`` of a learned radius, to its value.
        plan: the experiment, where its budget doubles an axis ``epochs`` for SGD: a place is what the plan says.

    Example:
        >>> from bisam.evidence.ledger import load
        >>> len(entries(load("first_run"), "sam", {"label_noise": 0.4}))
        10
    """
    found, place = {}, _checks.optional("place", place, of=_checks.part, wanted=dict, words="a dictionary from axis to value")
    _checks.text("method", method)
    planned = {} if _checks.optional("plan", plan, of=_checks.part, wanted=Experiment, words="an Experiment") is None else plan.places()
    for file, entry in _checks.part("records", records, dict, RECORDS).items():
        run = _checks.part("records", entry, dict, RECORDS)["run"]
        at = {**run, **{name: run["recipe"]["radius"].get(name) for name in ("rho", "rate")}, **planned.get(file, {})}
        if run["recipe"]["name"] == method and all(at.get(name) == value for name, value in (place or {}).items()):
            found[run["seed"]] = entry
    return dict(sorted(found.items()))


def series(records: dict, method: str, metric: str, place: dict | None = None, plan: Experiment | None = None) -> dict[int, float]:
    """One method's numbers by seed, at a place of the grid.

    Args:
        records, method, place, plan: as in :func:`entries`.
        metric: of the final numbers of a run.

    Example:
        >>> from bisam.evidence.ledger import load
        >>> found = series(load("first_run"), "sam", "last_test_accuracy", {"label_noise": 0.4})
        >>> len(found), found[0] > 80
        (10, True)
    """
    _checks.text("metric", metric)
    finals = {seed: entry["final"] for seed, entry in entries(records, method, place, plan).items()}
    return {seed: final[metric] for seed, final in finals.items() if metric in final}  # the earliest have fewer
