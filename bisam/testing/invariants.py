"""What is asked: each check is a function of a candidate that returns a number, which is small where the invariant holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .setting import Candidate

ROUNDING = 1e-7  # what float64 may differ by after some steps, with a small number added to a norm


@dataclass(frozen=True)
class Invariant:
    """A function with the largest number that passes."""

    name: str
    measure: Callable[[Candidate], float]
    limit: float
    is_of_the_formula: bool


INVARIANTS: dict[str, Invariant] = {}


def invariant(limit: float, formula: bool = False):
    """Decorates a check; ``formula`` if it asks for the formula of SAM, which relatives do not share."""

    def registered(measure):
        INVARIANTS[measure.__name__] = Invariant(measure.__name__, measure, limit, formula)
        return measure

    return registered
