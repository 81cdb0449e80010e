r"""What runs can and cannot tell: intervals and tests of differences.

Our own runs share seeds and are compared pair by pair (:func:`paired`); where it is recorded which test images are right,
the images are sampled too (:mod:`bisam.evidence.crossed`). A published table gives a mean, a standard deviation and a number of runs, and
nothing about pairs: :func:`welch`, :func:`pooled` and :func:`sign_test` read it. What follows from the numbers is said by
:mod:`bisam.evidence.verdicts`, what could have been found by :mod:`bisam.evidence.power`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .. import _checks
from .crossed import ALPHA, Crossed

__all__ = ["ALPHA", "FEWEST_PAIRS", "Paired", "Pooled", "Unpaired", "paired", "pooled", "sign_test", "welch"]

MOST_EXACT = 40  # pairs of which all sign patterns are counted; SciPy stops at 19
FEWEST_PAIRS = 6  # with five pairs the smallest two-sided sign-flip p is 2 / 2^5 = 0.0625, above any verdict


@dataclass(frozen=True)
class Paired:
    r"""The comparison of two methods over runs that share a seed.

    ``low`` to ``high`` is the 95 % Student interval of the mean difference, ``p`` the two-sided sign-flip p-value,
    ``detectable`` the mean difference that the rule would find with probability 0.8 at this spread and number of pairs.
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
        """``"better"``, ``"worse"`` or ``"not resolved"``, from the seeds alone.

        A difference is resolved with at least six pairs, an interval that excludes zero and p below 0.05.
        """
        if self.pairs < FEWEST_PAIRS or self.p >= ALPHA or self.low <= 0 <= self.high:
            return "not resolved"
        return "better" if self.mean > 0 else "worse"

    @property
    def error(self) -> float:
        """Standard error of the mean difference, over seeds or, where that is known and larger, over seeds and images."""
        from scipy import stats

        seeds = (self.high - self.low) / 2 / float(stats.t.ppf(1 - ALPHA / 2, self.pairs - 1))
        return seeds if self.images is None else max(seeds, self.images.error)

    @property
    def widest(self) -> tuple[float, float]:
        """The 95 % interval that counts, over seeds and images where that is known, else over seeds."""
        return (self.low, self.high) if self.images is None else (self.images.low, self.images.high)

    @property
    def largest_p(self) -> float:
        """The largest p of all that is asked, by sign flips, by Student's test, and over seeds and images where that is known."""
        from scipy import stats

        half = (self.high - self.low) / 2
        reach = float(stats.t.ppf(1 - ALPHA / 2, self.pairs - 1))
        student = float(2 * stats.t.sf(abs(self.mean) / half * reach, self.pairs - 1)) if half else float(self.mean == 0)
        return max(self.p, student, 0.0 if self.images is None else self.images.p)


def paired(ours: Sequence[float], theirs: Sequence[float], images: Crossed | None = None) -> Paired:
    r"""Compares two methods seed by seed.

    .. math::
        d_k = a_k - b_k, \qquad \bar d \pm t_{n-1,\,0.975}\, \frac{s_d}{\sqrt n}, \qquad
        p = 2^{-n}\, \#\Big\{\sigma \in \{-1, 1\}^n : \Big|\sum_k \sigma_k d_k\Big| \ge \Big|\sum_k d_k\Big|\Big\}

    Args:
        ours: one number a seed, such as test accuracies in percent.
        theirs: the other method's numbers, in the same order of seeds.
        images: the same comparison by :func:`bisam.evidence.crossed.crossed`, if it is known which test images are right.

    Returns:
        Mean difference (ours minus theirs), its interval, the exact p-value and the detectable difference, which is
        :math:`s_d` times :func:`bisam.evidence.power.detectable`.

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
    import numpy
    from scipy import stats

    from ..evidence import power  # which simulates the rule of this module

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
    import numpy
    from scipy import stats

    if not any(difference):
        return 1.0
    if len(difference) > MOST_EXACT:
        return float(
            stats.permutation_test(
                (difference,), lambda d, axis: numpy.mean(d, axis=axis),
                permutation_type="samples", vectorized=True, n_resamples=2**19, random_state=0,
                batch=max(1, 2**21 // len(difference)),  # all at once would take 8 MB a pair
            ).pvalue
        )
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
    import numpy

    sums = numpy.zeros(1, dtype=numpy.int64)
    for unit in units:
        sums = numpy.concatenate((sums + unit, sums - unit))
    return sums


# -- published summaries ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unpaired:
    r"""The comparison of two methods of which means, standard deviations and numbers of runs are known.

    ``low`` to ``high`` is the 95 % interval of the ``difference``, ``error`` its standard error, ``freedom`` the
    degrees of freedom, ``p`` two-sided.

    Example:
        >>> welch(91.0, 0.3, 6, 90.5, 0.2, 6).freedom > 8
        True
    """

    difference: float
    error: float
    freedom: float
    p: float
    low: float
    high: float


def welch(mean1: float, std1: float, n1: int, mean2: float, std2: float, n2: int) -> Unpaired:
    r"""Welch's test from published summaries: two groups, each with a spread of its own.

    .. math::
        v_i = \frac{s_i^2}{n_i}, \qquad t = \frac{m_1 - m_2}{\sqrt{v_1 + v_2}}, \qquad
        \nu = \frac{(v_1 + v_2)^2}{v_1^2 / (n_1 - 1) + v_2^2 / (n_2 - 1)}

    Args:
        mean1: mean of the first group, such as a test accuracy in percent.
        std1: standard deviation of its runs (not of the mean), with :math:`n - 1` in the denominator.
        n1: number of its runs.
        mean2: mean of the second group.
        std2: its standard deviation.
        n2: its number of runs.

    Returns:
        First minus second, with standard error, degrees of freedom, two-sided p and 95 % interval.

    Raises:
        TypeError: not a number, or a number of runs that is not whole.
        ValueError: a negative spread, fewer than two runs, or no spread in either group.

    Source:
        Welch (1947). Seeds that both methods share are lost in a summary; if runs of one seed go up and down
        together, the interval is wider than a paired one.

    Example:
        >>> result = welch(94.28, 0.31, 6, 94.09, 0.26, 6)
        >>> round(result.difference, 2), round(result.error, 3), round(result.p, 2)
        (0.19, 0.165, 0.28)
    """
    from scipy import stats

    mean1, mean2, std1, std2, n1, n2 = (
        *(_checks.real(name, mean) for name, mean in (("mean1", mean1), ("mean2", mean2))),
        *(_checks.nonnegative(name, std) for name, std in (("std1", std1), ("std2", std2))),
        *(_checks.whole(name, n, 2) for name, n in (("n1", n1), ("n2", n2))),
    )
    difference, first, second = mean1 - mean2, std1 * std1 / n1, std2 * std2 / n2
    if not math.isfinite(first + second):
        raise ValueError(f"std1 and std2 must have squares within the range of a float, got {std1!r} and {std2!r}")
    if first + second == 0:
        raise ValueError("std1 and std2 must not both be 0: a difference is judged by the spread of the runs")
    test = stats.ttest_ind_from_stats(mean1, std1, n1, mean2, std2, n2, equal_var=False)
    error = math.sqrt(first + second)
    freedom = (first + second) ** 2 / (first**2 / (n1 - 1) + second**2 / (n2 - 1))
    reach = float(stats.t.ppf(1 - ALPHA / 2, freedom)) * error
    return Unpaired(difference, error, freedom, float(test.pvalue), difference - reach, difference + reach)


@dataclass(frozen=True)
class Pooled:
    r"""The average of several differences, each from other runs.

    ``low`` to ``high`` is the 95 % interval of the average ``difference``, ``error`` its standard error, ``z`` their
    ratio, ``p`` two-sided.

    Example:
        >>> pooled([welch(91.0, 0.3, 6, 90.5, 0.2, 6)] * 4).models
        4
    """

    difference: float
    error: float
    z: float
    p: float
    low: float
    high: float
    models: int


def pooled(comparisons: Sequence[Unpaired]) -> Pooled:
    r"""The average difference over several models, with the standard error of the average.

    .. math::
        \bar\Delta = \frac1m \sum_k \Delta_k, \qquad \operatorname{se} = \frac1m \sqrt{\sum_k \operatorname{se}_k^2},
        \qquad z = \frac{\bar\Delta}{\operatorname{se}}

    It answers for these models, on average, and says nothing of others. The p is that of a normal distribution, as if
    the standard errors were known; from a few runs each they are not, and p comes out a little too small.

    Args:
        comparisons: one a model; all models weigh the same.

    Returns:
        Average difference, standard error, z, two-sided p and 95 % interval.

    Raises:
        TypeError: something else than results of :func:`welch`.
        ValueError: none at all.

    Source:
        The variance of a mean of independent numbers.

    Example:
        >>> result = pooled([welch(0.2, 0.1, 6, 0.1, 0.1, 6), welch(0.3, 0.1, 6, 0.0, 0.1, 6)])
        >>> round(result.difference, 3), round(result.error, 4), round(result.z, 2)
        (0.2, 0.0408, 4.9)
    """
    from scipy import stats

    if not _checks.sequence("comparisons", comparisons):
        raise ValueError("comparisons must hold at least one result of welch(), got none")
    for each in comparisons:
        if not isinstance(each, Unpaired):
            raise TypeError(f"comparisons must hold results of welch(), got {_checks.shown(each)} of type {type(each).__name__}")
    models = len(comparisons)
    difference = math.fsum(each.difference for each in comparisons) / models
    error = math.sqrt(math.fsum(each.error**2 for each in comparisons)) / models
    z, reach = difference / error, float(stats.norm.ppf(1 - ALPHA / 2)) * error
    p = float(2 * stats.norm.sf(abs(z)))
    return Pooled(difference, error, z, p, difference - reach, difference + reach, models)


def sign_test(wins: int, trials: int) -> float:
    r"""The two-sided p of so many wins in so many trials, if a win were a coin toss.

    .. math::
        p = 2^{-n} \#\big\{\text{outcomes with at least } \max(k, n - k) \text{ equal signs}\big\}

    It uses who won and not by how much, so that one large difference cannot carry it. Leave ties out of both numbers.

    Args:
        wins: models in which the first method has the higher mean, :math:`k`.
        trials: models without a tie, :math:`n`.

    Returns:
        p, between :math:`2^{1 - n}` and 1.

    Raises:
        TypeError: numbers that are not whole.
        ValueError: no trials, or more wins than trials.

    Source:
        Arbuthnot (1710); computed by SciPy.

    Example:
        >>> sign_test(5, 5), sign_test(9, 10)
        (0.0625, 0.021484375)
    """
    from scipy import stats

    if _checks.whole("wins", wins, 0) > _checks.whole("trials", trials):
        raise ValueError(f"wins must be at most trials, got {wins} of {trials}")
    return float(stats.binomtest(wins, trials).pvalue)
