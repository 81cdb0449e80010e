r"""Verdicts: what runs say of a claim, by rules that are written down before the runs, dated, and kept.

Rule 1 is that of version 0.1.0. Rule 2, of 2026-11-28, was fixed before any run was made under it; it judges the old claims too,
beside the old verdict. A difference is *seen* if the intervals exclude zero and the exact sign-flip test has :math:`p < 0.05`, over
enough pairs. Rule 2 adds:

- **twelve pairs** for a claim that is written under it, where six were enough (``FEWEST``);
- **test images** as a second sample, where the records say which are right (:mod:`bisam.evidence.crossed`);
- **a precondition**: a comparison of test accuracies needs networks that have fitted (:class:`Fit`);
- **the published error**, and no reward for our own noise (:func:`verdict`);
- **families** of claims, within which false discoveries are controlled (:func:`bisam.evidence.statistics.within_family`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from .. import _checks
from .crossed import student
from .power import FEWEST_PAIRS, unpaired_detectable
from .statistics import Paired
from .summaries import Unpaired

__all__ = ["CHANCE_TO_SEE", "FEWEST", "NOT_IN_FAMILY", "OWN", "VERDICTS", "Fit", "Published", "direction", "prediction_interval", "verdict"]

FEWEST = {1: FEWEST_PAIRS, 2: 12}  # pairs that a claim needs, by the rule that it was written under
CHANCE_TO_SEE = 1 / 3  # power at which Simonsohn (2015) takes an effect to have been within a study's sight
VERDICTS = ("reproduced", "direction only", "not reproduced", "not resolved", "not in regime", "not attempted")
OWN = ("holds", "refuted", "not resolved", "not in regime", "not attempted")
NOT_IN_FAMILY = "not resolved within its family"


@dataclass(frozen=True)
class Published:
    """A published difference: the printed number, and Welch's comparison where spreads and numbers of runs are printed too.

    Example:
        >>> from bisam.evidence.summaries import welch
        >>> round(Published(0.19, welch(94.28, 0.31, 6, 94.09, 0.26, 6)).sight, 2), Published(0.19).sight
        (0.28, None)
    """

    effect: float
    comparison: Unpaired | None = None

    def __post_init__(self):
        _checks.keep(self, _checks.real, "effect")
        _checks.optional("comparison", self.comparison, of=_checks.part, wanted=Unpaired, words="a result of welch()")

    @property
    def sight(self) -> float | None:
        """The difference that the published runs had one chance in three to find; ``None`` without their spread."""
        return None if self.comparison is None else unpaired_detectable(self.comparison, CHANCE_TO_SEE)


@dataclass(frozen=True)
class Fit:
    r"""How far the networks of a comparison have fitted their training labels, and how far a claim needs them to.

    ``ours`` and ``theirs`` are mean training accuracies at the end, in percent, on the labels trained on; ``reachable`` and
    ``their_reachable`` the shares of labels that can be fitted without learning a wrong one by heart, :math:`100\,(1 - p)` with a
    share p of wrong labels; ``needed`` the percentage of these that a claim asks for; ``gap`` and ``their_gap`` training minus
    test accuracy at the end. A method that refuses the wrong labels passes, and so does one that learns them.

    Example:
        >>> Fit(62.5, 100.0, needed=90, reachable=60.0, their_reachable=60.0).in_regime, Fit(47.3, 57.8, needed=90).in_regime
        (True, False)
    """

    ours: float
    theirs: float
    needed: float
    reachable: float = 100.0
    their_reachable: float = 100.0
    gap: float = 0.0
    their_gap: float = 0.0

    def __post_init__(self):
        _checks.keep(self, _checks.real, *(each.name for each in fields(self)))

    @property
    def in_regime(self) -> bool:
        """Whether both have fitted enough."""
        share = self.needed / 100
        return self.ours >= share * self.reachable and self.theirs >= share * self.their_reachable


def direction(ours: Paired, fewest: int = FEWEST_PAIRS) -> int:
    """1 if a positive difference is seen, -1 if a negative one, 0 if none.

    Args:
        ours: the comparison; where it has an interval over seeds and images, that must exclude zero too.
        fewest: pairs below which nothing is seen.

    Example:
        >>> seen = Paired(mean=1.0, low=0.2, high=1.8, p=0.03, pairs=6, detectable=1.0)
        >>> direction(seen), direction(seen, fewest=12)
        (1, 0)
    """
    (low, high), seeds = _paired(ours).widest, ours.verdict
    if ours.pairs < _checks.whole("fewest", fewest) or seeds == "not resolved" or low <= 0 <= high:
        return 0
    return 1 if seeds == "better" else -1


def prediction_interval(ours: Paired, published: Published) -> tuple[float, float]:
    r"""Where a published difference may lie if it and ours have one true value, both being uncertain.

    .. math::
        \bar d \pm t_{\nu,\,0.975} \sqrt{\operatorname{se}_o^2 + \operatorname{se}_p^2}, \qquad
        \nu = \frac{(\operatorname{se}_o^2 + \operatorname{se}_p^2)^2}{\operatorname{se}_o^4 / (n - 1) + \operatorname{se}_p^4 / \nu_p}

    Where no spread is printed, :math:`\operatorname{se}_p` counts as zero: the printed number stands as if it were exact.

    Args:
        ours: the comparison of our runs.
        published: the published difference.

    Source:
        Patil, Peng & Leek (2016), with the degrees of freedom of Welch and Satterthwaite.

    Example:
        >>> from bisam.evidence.summaries import welch
        >>> ours = Paired(mean=0.3, low=0.1, high=0.5, p=0.001, pairs=12, detectable=0.3)
        >>> [round(end, 2) for end in prediction_interval(ours, Published(0.19, welch(94.28, 0.31, 6, 94.09, 0.26, 6)))]
        [-0.1, 0.7]
        >>> [round(end, 2) for end in prediction_interval(ours, Published(0.19))]
        [0.1, 0.5]
    """
    mine, theirs, freedom = _paired(ours).error ** 2, 0.0, ours.pairs - 1.0
    if _checks.part("published", published, Published, "a Published").comparison is not None:
        theirs = published.comparison.error**2
        freedom = (mine + theirs) ** 2 / (mine**2 / freedom + theirs**2 / published.comparison.freedom)
    reach = student(freedom) * (mine + theirs) ** 0.5
    return ours.mean - reach, ours.mean + reach


def verdict(ours: Paired | None, published: Published | None = None, fewest: int = FEWEST_PAIRS, fit: Fit | None = None) -> str:
    r"""What runs say of a claim by rule 2, taken alone; the first line that fits holds.

    1. ``"not attempted"``: there are no runs.
    2. ``"not in regime"``: the networks have not fitted what the claim asks for.
    3. ``"not resolved"``: fewer pairs than the claim needs.

    Then a claim of ours ``"holds"``, is ``"refuted"`` or ``"not resolved"``, as a difference is seen in its direction, in the
    other one, or in none. Of a published difference :math:`e \ne 0`:

    4. Seen in the other direction: ``"not reproduced"``.
    5. Seen in its direction: ``"reproduced"`` if :math:`e` lies in :func:`prediction_interval`, ours would have found a true
       difference of :math:`|e|` with probability 0.8 at our spread, and our interval does not leave out what 6 asks for. Else
       ``"direction only"``: the size differs, or one of the two intervals is too wide to speak of a size.
    6. Not seen: ``"not reproduced"`` if our interval leaves out :math:`e`, and also the difference that the published runs had
       one chance in three to find: the effect, if any, is smaller than printed and out of their sight. Else ``"not resolved"``.

    Of a printed difference of nothing, which has no direction: ``"not reproduced"`` if one is seen, ``"reproduced"`` if our
    interval lies within what was out of their sight, else ``"not resolved"``.

    Args:
        ours: the :class:`~bisam.evidence.statistics.Paired` of our runs, in the direction of the claim; ``None`` if there are none.
        published: the published difference; ``None`` for a claim of ours.
        fewest: pairs that the claim needs.
        fit: training accuracies; ``None`` for a claim without a precondition.

    Source:
        The size in 5 is Patil, Peng & Leek's (2016), the sight in 6 Simonsohn's (2015).

    Example:
        >>> seen = Paired(mean=0.3, low=0.1, high=0.5, p=0.001, pairs=12, detectable=0.29)
        >>> [verdict(seen, Published(e)) for e in (0.35, 0.2, 0.9, -0.2)]
        ['reproduced', 'direction only', 'direction only', 'not reproduced']
        >>> unseen = Paired(mean=0.1, low=-0.2, high=0.4, p=0.4, pairs=12, detectable=0.4)
        >>> [verdict(unseen, Published(e)) for e in (0.2, 0.9)], verdict(seen), verdict(None)
        (['not resolved', 'not reproduced'], 'holds', 'not attempted')
    """
    _checks.optional("published", published, of=_checks.part, wanted=Published, words="a Published")
    _checks.optional("fit", fit, of=_checks.part, wanted=Fit, words="a Fit")
    fewest = _checks.whole("fewest", fewest)
    if ours is None:
        return "not attempted"
    _paired(ours, ", or None")
    if fit is not None and not fit.in_regime:
        return "not in regime"
    if ours.pairs < fewest:
        return "not resolved"
    seen = direction(ours, fewest)
    if published is None:
        return {1: "holds", -1: "refuted", 0: "not resolved"}[seen]
    return _seen(ours, published, seen) if seen else _unseen(ours, published)


def _paired(ours: object, others: str = "") -> Paired:
    return _checks.part("ours", ours, Paired, f"the Paired that paired() returns{others}")


def _seen(ours: Paired, published: Published, seen: int) -> str:
    if seen * published.effect <= 0:
        return "not reproduced"
    low, high = prediction_interval(ours, published)
    fits = low <= published.effect <= high and ours.detectable <= abs(published.effect)
    # A noisy print predicts nearly everything, also a difference of nearly nothing.
    return "reproduced" if fits and not _leaves_out(ours, published) else "direction only"


def _leaves_out(ours: Paired, published: Published) -> bool:
    """Whether the interval rules out the published difference, and what the published runs had a chance to find."""
    low, high = ours.widest
    possible = high if published.effect > 0 else -low  # the largest effect in the published direction that ours allows
    return possible < abs(published.effect) and (published.sight is None or possible < published.sight)


def _unseen(ours: Paired, published: Published) -> str:
    (low, high), sight = ours.widest, published.sight
    if not low <= 0 <= high:  # interval and test contradict each other about zero
        return "not resolved"
    if published.effect == 0:
        return "reproduced" if sight is not None and -sight < low and high < sight else "not resolved"
    return "not reproduced" if _leaves_out(ours, published) else "not resolved"
