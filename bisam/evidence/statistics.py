"""What runs can and cannot tell: the interval and the test of a difference over runs that share seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .. import _checks
from . import power
from .crossed import ALPHA, Crossed, student
from .power import FEWEST_PAIRS

__all__ = ["Paired", "paired", "within_family"]

MOST_EXACT = 40  # pairs of which all sign patterns are counted; SciPy stops at 19


@dataclass(frozen=True)
class Paired:
    r"""The comparison of two methods over runs that share a seed.

    ``low`` to ``high`` is the 95 % Student interval of the mean difference, ``p`` the two-sided sign-flip p-value, ``detectable``
    the mean difference that the rule would find with probability 0.8 at this spread, see :func:`bisam.evidence.power.detectable`.
    ``images`` is the wider interval over seeds and test images, ``None`` where the records do not say which images are right.

    Example:
        >>> Paired(mean=1.0, low=0.2, high=1.8, p=0.03, pairs=6, detectable=1.0).verdict
        'better'
        >>> Paired(mean=1.0, low=0.2, high=1.8, p=0.06, pairs=5, detectable=1.0).verdict
        'not resolved'
    """

    mean: float
    low: float
    high: float
    p: float
    pairs: int
    detectable: float
    images: Crossed | None = None

    @property
    def verdict(self) -> str:
        """What the seeds alone decide. A difference is resolved with six pairs or more, an interval that excludes zero and p below 0.05."""
        if self.pairs < FEWEST_PAIRS or self.p >= ALPHA or self.low <= 0 <= self.high:
            return "not resolved"
        return "better" if self.mean > 0 else "worse"

    @property
    def error(self) -> float:
        """Standard error of the mean difference, over seeds or, where that is known and larger, over seeds and images."""
        seeds = (self.high - self.low) / 2 / student(self.pairs - 1)
        return seeds if self.images is None else max(seeds, self.images.error)

    @property
    def widest(self) -> tuple[float, float]:
        """The 95 % interval that counts, over seeds and images where that is known, else over seeds."""
        return (self.low, self.high) if self.images is None else (self.images.low, self.images.high)

    @property
    def largest_p(self) -> float:
        """The largest p of all that is asked, by sign flips, by Student's test, and over seeds and images where that is known."""
        stats = _checks.needs("scipy.stats", extra="train")
        half = (self.high - self.low) / 2
        by_t = float(2 * stats.t.sf(abs(self.mean) / half * student(self.pairs - 1), self.pairs - 1)) if half else float(self.mean == 0)
        return max(self.p, by_t, 0.0 if self.images is None else self.images.p)


def paired(ours: Sequence[float], theirs: Sequence[float], images: Crossed | None = None) -> Paired:
    r"""Compares two methods seed by seed: ours minus theirs.

    .. math::
        \begin{gathered}
        d_k = a_k - b_k, \qquad \bar d \pm t_{n-1,\,0.975}\, \frac{s_d}{\sqrt n}, \\
        p = 2^{-n}\, \#\Big\{\sigma \in \{-1, 1\}^n : \Big|\sum_k \sigma_k d_k\Big| \ge \Big|\sum_k d_k\Big|\Big\}
        \end{gathered}

    Args:
        ours: one number a seed, such as test accuracies in percent.
        theirs: the other method's numbers, in the same order of seeds.
        images: the same comparison by :func:`bisam.evidence.crossed.crossed`, if it is known which test images are right.

    Raises:
        ValueError: different lengths, fewer than two pairs, or numbers that are not finite.

    Source:
        Student's interval; Fisher's sign-flip test, exact up to 40 pairs, over half a million random patterns beyond. It
        asks for differences that are symmetric about zero if the methods are the same.

    Example:
        >>> result = paired([91.0, 92.0, 90.5, 91.5, 92.5, 91.0], [90.0, 90.5, 90.0, 90.5, 91.0, 90.5])
        >>> round(result.mean, 2), round(result.p, 3), result.verdict
        (1.0, 0.031, 'better')
    """
    numpy, stats = _checks.needs("numpy", extra="train"), _checks.needs("scipy.stats", extra="train")
    ours, theirs = _checks.series("ours", ours), _checks.series("theirs", theirs)
    _checks.optional("images", images, of=_checks.part, wanted=Crossed, words="a result of crossed()")
    if len(ours) != len(theirs):
        raise ValueError(f"ours and theirs must pair up, got {len(ours)} and {len(theirs)} numbers")
    if len(ours) < 2:
        raise ValueError(f"ours and theirs must hold at least 2 numbers each, got {len(ours)}")
    # Differences of rounded accuracies tie often; without rounding, noise in the 16th digit would break the ties.
    difference = [round(a - b, 9) for a, b in zip(ours, theirs, strict=True)]
    n, mean, spread = len(difference), float(numpy.mean(difference)), float(numpy.std(difference, ddof=1))
    if len(set(difference)) == 1:  # SciPy warns of what has no spread
        low = high = mean
    else:
        low, high = map(float, stats.ttest_1samp(difference, 0.0).confidence_interval(1 - ALPHA))
    if images is not None:
        spread = max(spread, images.error * math.sqrt(n))  # so that what counts as detectable is not too small
    found = power.detectable(n)
    return Paired(mean, low, high, _sign_flip(difference), n, found * spread if math.isfinite(found) else found, images)


def _sign_flip(difference: list[float]) -> float:
    """The p over all sign patterns, whose sums are put together from those of two halves; beyond 40 pairs over random patterns."""
    numpy, stats = _checks.needs("numpy", extra="train"), _checks.needs("scipy.stats", extra="train")
    if not any(difference):
        return 1.0
    if len(difference) > MOST_EXACT:
        batch = max(1, 2**21 // len(difference))  # all at once would take 8 MB a pair
        more = {"permutation_type": "samples", "vectorized": True, "n_resamples": 2**19, "batch": batch, "random_state": 0}
        return float(stats.permutation_test((difference,), lambda d, axis: numpy.mean(d, axis=axis), **more).pvalue)
    # Whole numbers, so that equal sums are equal; 40 of them stay within 64 bits.
    units = numpy.rint(numpy.array(difference) * min(1e9, 1e17 / max(map(abs, difference)))).astype(numpy.int64)
    reach = abs(units.sum())
    if reach == 0:
        return 1.0
    one, other = (_signed_sums(half) for half in numpy.array_split(units, 2))
    other.sort()
    above = len(other) - numpy.searchsorted(other, reach - one, side="left")
    return 2 * int(above.sum()) / 2 ** len(units)  # as many patterns reach it below as above


def _signed_sums(units):
    numpy = _checks.needs("numpy", extra="train")
    sums = numpy.zeros(1, dtype=numpy.int64)
    for unit in units:
        sums = numpy.concatenate((sums + unit, sums - unit))
    return sums


def within_family(p: Sequence[float]) -> list[float]:
    r"""The q of each claim of a family: the smallest rate of false discoveries at which it is one.

    .. math::
        q_{(i)} = \min_{j \ge i} \frac{m}{j}\, p_{(j)}

    Who calls the claims with :math:`q < 0.05` found has, over many studies, a mean share of false alarms among them of at most
    0.05, where a study that finds nothing counts as 0. Each family is held to this rate, several families together are not.

    Args:
        p: one a claim; of a rule that asks for several things, the largest of their p.

    Raises:
        TypeError, ValueError: no list of numbers in [0, 1].

    Source:
        Benjamini & Hochberg (1995), computed by SciPy. It is proved for independent claims and for positively dependent ones.
        For two-sided claims that share runs it is not; simulations keep the rate below 0.05.

    Example:
        >>> [round(q, 3) for q in within_family([0.01, 0.04, 0.03])]
        [0.03, 0.04, 0.04]
    """
    stats = _checks.needs("scipy.stats", extra="train")
    p = _checks.series("p", p)
    if wrong := [each for each in p if not 0 <= each <= 1]:
        raise ValueError(f"p must hold numbers from 0 to 1, got {wrong[0]!r}")
    return [float(q) for q in stats.false_discovery_control(p, method="bh")] if p else []
