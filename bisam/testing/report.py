"""What came out of the checks, one line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Nonconformance", "Outcome", "Report"]

PASSED, FAILED, NOT_APPLICABLE = "passed", "failed", "not applicable"


class Nonconformance(AssertionError):
    """At least one check has failed; the message is the table of those."""


@dataclass(frozen=True)
class Outcome:
    """What one check has found.

    Args:
        name: of the check, which is that of its function.
        verdict: ``"passed"``, ``"failed"`` or ``"not applicable"``.
        measured: the number that was looked at, 0 where all is exact; ``None`` if there is none.
        limit: the largest number that passes.
        said: the error of a candidate that failed with one, or the reason why a check does not apply.

    Example:
        >>> print(Outcome("length", "passed", 2e-16, 1e-6))
        length: passed, 2.0e-16 (at most 1e-06)
    """

    name: str
    verdict: str
    measured: float | None = None
    limit: float | None = None
    said: str = ""

    def __str__(self) -> str:
        number = "" if self.measured is None else f", {self.measured:.1e} (at most {self.limit:g})"
        return f"{self.name}: {self.verdict}{number}{', ' + self.said if self.said else ''}"


class Report:
    """The outcomes of all checks of one candidate; printed, it is a table.

    Args:
        outcomes: what :func:`~bisam.testing.conformance.check` has found, in its order.

    Example:
        >>> report = Report([Outcome("length", "failed", 0.3, 1e-6)])
        >>> report.passed, [outcome.name for outcome in report.failed]
        (False, ['length'])
        >>> print(report)
        check   outcome  measured  at most
        length  failed   3.0e-01   1e-06
    """

    def __init__(self, outcomes: Sequence[Outcome]):
        self._outcomes = {outcome.name: outcome for outcome in outcomes}

    def __getitem__(self, name: str) -> Outcome:
        return self._outcomes[name]

    def __iter__(self):
        return iter(self._outcomes.values())

    def __len__(self) -> int:
        return len(self._outcomes)

    @property
    def failed(self) -> list[Outcome]:
        """The checks that have failed."""
        return [outcome for outcome in self if outcome.verdict == FAILED]

    @property
    def passed(self) -> bool:
        """Whether no check has failed, and at least one has passed."""
        return not self.failed and any(outcome.verdict == PASSED for outcome in self)

    def raise_if_failed(self) -> None:
        """A :class:`Nonconformance` with the table of the checks that have failed, if any has, or if none applied."""
        if not self.passed:
            raise Nonconformance(f"\n{Report(self.failed)}" if self.failed else "no check applied")

    def to_dict(self) -> dict[str, dict]:
        """Plain values, ready for JSON: of each check its verdict, its number, and what was said."""
        return {
            outcome.name: {"verdict": outcome.verdict, "measured": outcome.measured, "said": outcome.said} for outcome in self
        }

    def __str__(self) -> str:
        rows = [("check", "outcome", "measured", "at most", ""), *(_cells(outcome) for outcome in self)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(line.rstrip() for line in lines)


def _cells(outcome: Outcome) -> tuple[str, ...]:
    numbers = ("", "") if outcome.measured is None else (f"{outcome.measured:.1e}", f"{outcome.limit:g}")
    return (outcome.name, outcome.verdict, *numbers, outcome.said)
