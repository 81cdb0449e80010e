"""Timing by turns: every round takes one sample of each candidate, and ratios are formed within the round.

A machine that is shared or warms up is slower in one minute than in the next. Candidates that are timed one after
the other would be compared across minutes; samples of one round lie side by side.
"""

from __future__ import annotations

import gc
import json
import math
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bisam._files import write_whole

WARM_UP = 2  # runs before anything is timed: lazy state, caches and compilation
MOST_RUNS = 100_000  # in one sample, however short a run is


@dataclass(frozen=True)
class Timer:
    """A clock in seconds, and a wait that lets the device finish what it was given."""

    now: Callable[[], float] = time.perf_counter
    wait: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Settings:
    """How everything is measured; the same for all cases of one call."""

    device: str = "cpu"
    rounds: int = 30
    sample_seconds: float = 0.005  # a sample is repeated runs until it lasts this long
    seed: int = 0
    quick: bool = False


@dataclass(frozen=True)
class Candidate:
    """One way to do the work of a case.

    Args:
        name: in tables and files.
        run: does the work once; in a case that counts, returns the number.
        before: brings about what ``run`` needs, and is not timed; the clock then stops between runs.
        period: runs after which the work repeats; every sample holds a multiple of it.
        optional: one that fails while it warms up is left out with its reason, not an error.
    """

    name: str
    run: Callable[[], object]
    before: Callable[[], object] | None = None
    period: int = 1
    optional: bool = False


@dataclass(frozen=True)
class Case:
    """Candidates for the same work, the first of them the reference.

    Args:
        group: what is measured, one of the words of ``--only``.
        name: which variant of it.
        unit: what the reference does, in words.
        candidates: the reference first.
        skipped: candidates that cannot run here, with the reason.
        facts: sizes that the numbers depend on.
        counts: ``run`` returns a number, and nothing is timed.
    """

    group: str
    name: str
    unit: str
    candidates: list[Candidate]
    skipped: dict[str, str] = field(default_factory=dict)
    facts: dict[str, int] = field(default_factory=dict)
    counts: bool = False


def measure(case: Case, settings: Settings, timer: Timer, advance: Callable[[int], object] = lambda done: None) -> dict:
    """All candidates of a case by turns, as plain values ready for JSON; ``advance`` hears how many rounds are done."""
    if case.counts:
        found, skipped = _counted(case), {}
    else:
        runs, skipped = _runs_per_sample(case, settings, timer)
        samples = _by_turns(runs, settings, timer, advance)
        reference = samples[case.candidates[0].name]
        found = {
            candidate.name: {**timed(samples[candidate.name], reference), "runs_per_sample": count}
            for candidate, count in runs.items()
        }
    return {
        "group": case.group, "name": case.name, "unit": case.unit, "reference": case.candidates[0].name,
        "kind": "count" if case.counts else "time", "facts": case.facts, "candidates": found,
        "skipped": {**case.skipped, **skipped},
    }


def sample(candidate: Candidate, runs: int, timer: Timer) -> float:
    """Seconds of one run, as the mean of several in a row."""
    spent, in_a_row = 0.0, runs if candidate.before is None else 1
    for _ in range(0, runs, in_a_row):
        if candidate.before is not None:
            candidate.before()
        timer.wait()
        start = timer.now()
        for _ in range(in_a_row):
            candidate.run()
        timer.wait()
        spent += timer.now() - start
    return spent / runs


def timed(seconds: list[float], reference: list[float]) -> dict:
    """Median time, and the median and quartiles of the ratios to the reference sample of the same round."""
    ratios = [own / other for own, other in zip(seconds, reference, strict=True)]
    return {"seconds": statistics.median(seconds), "ratio": statistics.median(ratios), "quartiles": _quartiles(ratios)}


def write(path: Path, content: dict) -> None:
    """Writes JSON all at once: a reader sees the old file or the new one, never a half."""
    write_whole(path, json.dumps(content, indent=1) + "\n")


def _quartiles(values: list[float]) -> list[float]:
    if len(values) == 1:
        return [values[0], values[0]]
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return [lower, upper]


def _counted(case: Case) -> dict:
    values = {candidate.name: candidate.run() for candidate in case.candidates}
    reference = values[case.candidates[0].name]
    return {name: {"value": value, "ratio": value / reference, "more": value - reference} for name, value in values.items()}


def _runs_per_sample(case: Case, settings: Settings, timer: Timer) -> tuple[dict[Candidate, int], dict[str, str]]:
    """Warms every candidate up and finds how many runs make a sample; the optional ones that fail are left out."""
    runs, skipped = {}, {}
    for candidate in case.candidates:
        try:
            sample(candidate, WARM_UP * candidate.period, timer)
            runs[candidate] = _enough_runs(candidate, settings.sample_seconds, timer)
        except Exception as error:
            if not candidate.optional:
                raise
            first_line = (str(error).strip().splitlines() or ["no message"])[0]
            skipped[candidate.name] = f"failed with {type(error).__name__}: {first_line}"
    return runs, skipped


def _enough_runs(candidate: Candidate, seconds: float, timer: Timer) -> int:
    runs = candidate.period
    while (spent := sample(candidate, runs, timer) * runs) < seconds and runs < MOST_RUNS:
        # A fifth more than the estimate, since the next look may be faster; a first look at nothing says little.
        growth = min(1.2 * seconds / spent, 10.0) if spent > 0 else 10.0
        runs = candidate.period * math.ceil(max(growth, 1.0) * runs / candidate.period)
    return runs


def _by_turns(runs: dict[Candidate, int], settings: Settings, timer: Timer, advance) -> dict[str, list[float]]:
    samples = {candidate.name: [] for candidate in runs}
    order, shuffler = list(runs), random.Random(settings.seed)
    gc.collect()
    gc.freeze()  # the collector stays on, as in a training, but does not walk through imported modules
    try:
        for done in range(settings.rounds):
            shuffler.shuffle(order)  # so that no candidate always follows the same one
            for candidate in order:
                samples[candidate.name].append(sample(candidate, runs[candidate], timer))
            advance(done + 1)
    finally:
        gc.unfreeze()
    return samples
