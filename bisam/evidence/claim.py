"""A claim as data: one falsifiable sentence with the comparison that decides it, written before the runs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .. import _checks
from ..methods.table import RECIPES, is_recipe
from ..training import scores
from .experiment import CONTROLS
from .places import LedgerError
from .verdicts import FEWEST

__all__ = ["Claim", "Family"]

METRICS = (*(f"{epoch}_test_{metric}" for epoch in ("selected", "last") for metric in scores.METRICS), "broken")
FITTED = 90.0  # percent of the labels that can be fitted, which a claim about accuracy needs both methods to have fitted


@dataclass(frozen=True)
class Claim:
    r"""One falsifiable sentence, with the comparison that decides it: ``ours`` minus ``theirs`` in ``metric``.

    Args:
        id: unique, begins with the experiment or the table.
        experiment: whose runs decide it; empty for a claim that nothing here can decide yet.
        statement: the sentence.
        ours, theirs: two methods.
        metric: ``"selected_test_accuracy"``, ``"last_test_accuracy"``, the same of another of ``bisam.training.scores.METRICS``,
            or ``"broken"``, the samples that were right at w and wrong at :math:`w + \epsilon`, mean over the epochs.
        at: the place of the grid, axis to value.
        against: where ``theirs`` stands at another place, the axes that differ.
        over: axes of the grid to average over, seed by seed; a seed counts once both methods have it at all their values.
        label_noise: short for that axis in ``at``.
        published: columns of ``results/published.csv`` to values that both numbers have; empty for a claim of ours.
        published_as: what the published table calls ``ours`` and ``theirs``, where it is not the usual name.
        rule: under which it was written: 1, or 2 since 2026-11-28, see :mod:`bisam.evidence.verdicts`.
        family: of claims that ask one question, see :class:`Family`; empty for a secondary claim, which is judged alone.
        pairs: all seeds of its experiment, before which it is not resolved, so that nobody can stop when he likes what he sees.
        fitted: percentage of the labels that can be fitted, which both methods must have fitted at the end; ``None`` means 90 for a
            claim about accuracies and none for others.

    Raises:
        ValueError: an unknown method, metric or rule, an axis in ``over`` that has its place in ``at``, a percentage outside of [0, 100].

    Example:
        >>> from bisam.evidence.listing import claims
        >>> claim = claims("first_run")[0]
        >>> claim.ours, claim.theirs, claim.metric
        ('sam', 'sgd', 'last_test_accuracy')
    """

    id: str
    experiment: str
    statement: str
    ours: str
    theirs: str
    metric: str
    at: dict = field(default_factory=dict)
    against: dict = field(default_factory=dict)
    over: tuple[str, ...] = ()
    label_noise: float | None = None
    published: dict = field(default_factory=dict)
    published_as: dict = field(default_factory=dict)
    rule: int = 1
    family: str = ""
    pairs: int = 0
    fitted: float | None = None

    def __post_init__(self):
        for name in ("ours", "theirs"):
            if not is_recipe(getattr(self, name)):
                _checks.choice(name, getattr(self, name), (*RECIPES, *CONTROLS))
        _checks.choice("metric", self.metric, METRICS)
        if _checks.whole("rule", self.rule) not in FEWEST:
            raise ValueError(f"rule must be one of {', '.join(map(str, FEWEST))}; got {self.rule} in claim {self.id}")
        _checks.whole("pairs", self.pairs, least=0)
        if self.fitted is not None and not 0 <= _checks.real("fitted", self.fitted) <= 100:
            raise ValueError(f"fitted must be a percentage in [0, 100], got {self.fitted} in claim {self.id}")
        for side in self.published_as:
            _checks.choice("published_as", side, ("ours", "theirs"))
        object.__setattr__(self, "over", tuple(self.over))
        for axis in self.over:
            if axis in self.other_place:
                raise ValueError(f"over must name axes that have no place in claim {self.id}, got {axis!r}")

    @property
    def place(self) -> dict:
        """Where ours stands, axis to value, the noise included."""
        return {**({} if self.label_noise is None else {"label_noise": self.label_noise}), **self.at}

    @property
    def other_place(self) -> dict:
        """Where theirs stands."""
        return {**self.place, **self.against}

    def sides(self, grid: Mapping[str, Sequence]) -> list[tuple[str, list[dict]]]:
        """Both methods, each with all the places that it is averaged over, in a grid of axes to their values."""
        for axis in self.over:
            if axis not in grid:
                raise LedgerError(f"claim {self.id}: over names {axis!r}; the grid of {self.experiment} has {', '.join(grid) or 'no axis'}")
        parts = [dict(zip(self.over, values, strict=True)) for values in itertools.product(*(grid[axis] for axis in self.over))]
        sides = ((self.ours, self.place), (self.theirs, self.other_place))
        return [(name, [{**place, **part} for part in parts]) for name, place in sides]

    @property
    def needed(self) -> float:
        """What ``fitted`` comes to; 0 without a precondition."""
        if self.fitted is not None:
            return self.fitted
        return 0.0 if self.metric == "broken" else FITTED

    @property
    def fewest(self) -> int:
        """Pairs that it needs under the rule that it was written under, or more where it says so."""
        return max(FEWEST[self.rule], self.pairs)


@dataclass(frozen=True)
class Family:
    """Claims that ask one question, the ``title``, within which false discoveries are controlled; ``why`` says what belongs to it.

    Example:
        >>> from bisam.evidence.listing import families
        >>> families()["sam-over-sgd"].title
        'Is SAM more accurate than SGD at a small scale?'
    """

    name: str
    title: str
    why: str
