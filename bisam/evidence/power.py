r"""What the rule can find: its power, and the difference that it finds four times out of five.

The rule asks for three things at once, so no textbook formula is its power. It is simulated, once for each number of pairs, in
units of the standard deviation of the differences.
"""

from __future__ import annotations

import functools
import math

from .. import _checks
from .crossed import ALPHA, student
from .summaries import Unpaired

__all__ = ["FEWEST_PAIRS", "POWER", "detectable", "power", "unpaired_detectable"]

FEWEST_PAIRS = 6  # with five pairs the smallest two-sided sign-flip p is 2 / 2^5 = 0.0625, above any verdict
POWER = 0.8  # chance at which an effect counts as detectable
DRAWS = 20_000  # simulated comparisons for a number of pairs: a power of 0.8 is then known to about 0.003
PATTERNS = 2**12  # of signs: all of them up to 12 pairs, beyond as many random ones
FARTHEST = 1e3  # standard deviations; no rule with six pairs fails there


def power(effect: float, pairs: int, fewest: int = FEWEST_PAIRS) -> float:
    r"""The chance that the rule resolves a true difference, by simulation with a fixed seed.

    .. math::
        \Pr\Big[\, p_{\text{flip}} < 0.05, \;\; \big|\bar d\big| > t_{n-1,\,0.975}\, s_d / \sqrt n \,\Big],
        \qquad d_k \sim \mathcal N(\delta, 1), \quad k = 1, \dots, n

    Args:
        effect: true mean of the paired differences over their standard deviation, :math:`\delta`; 0 gives the share of false alarms.
        pairs: their number, :math:`n`.
        fewest: pairs below which the rule resolves nothing.

    Raises:
        TypeError, ValueError: an effect that is no finite number, or fewer than two pairs.

    Example:
        >>> [round(power(1.2, n), 1) for n in (6, 12)], power(1.2, 10, fewest=12)
        ([0.5, 1.0], 0.0)
    """
    numpy = _checks.needs("numpy", extra="train")
    shift = abs(_checks.real("effect", effect))
    if (pairs := _checks.whole("pairs", pairs, 2)) < _checks.whole("fewest", fewest):
        return 0.0
    edges = _edges(pairs)
    # Edges of the other sign are those of the mirrored sample, and samples and mirror images are equally likely.
    found = numpy.searchsorted(edges, shift, side="left") + numpy.searchsorted(edges, -shift, side="left")
    return float(found) / len(edges)


def detectable(pairs: int, chance: float = POWER, fewest: int = FEWEST_PAIRS) -> float:
    """The difference that the rule resolves with a given probability, in standard deviations: the inverse of :func:`power`.

    Smaller ones are found less often, and then look larger than they are: only their lucky draws pass.

    Args:
        pairs: their number.
        chance: probability of finding it, in (0.05, 1).
        fewest: pairs below which the rule resolves nothing, and nothing finite is detectable.

    Raises:
        TypeError, ValueError: fewer than two pairs, or a chance outside of (0.05, 1).

    Example:
        >>> [round(detectable(n), 1) for n in (5, 6, 12, 40)]
        [inf, 1.8, 0.9, 0.5]
    """
    chance, pairs = _chance(chance), _checks.whole("pairs", pairs, 2)
    return math.inf if pairs < max(_checks.whole("fewest", fewest), FEWEST_PAIRS) else _inverse(pairs, chance)


@functools.cache
def _inverse(pairs: int, chance: float) -> float:
    optimize = _checks.needs("scipy.optimize", extra="train")
    return float(optimize.bisect(lambda effect: power(effect, pairs) - chance, 0.0, FARTHEST, xtol=1e-4))


def unpaired_detectable(comparison: Unpaired, chance: float = POWER) -> float:
    r"""The difference of two groups that Welch's test finds with a given probability at the 5 % level, in the units of the comparison.

    .. math::
        \delta\, \operatorname{se} \quad\text{with}\quad
        \Pr\big[\,|T_{\nu}(\delta)| > t_{\nu,\,0.975}\,\big] = \text{chance}

    Args:
        comparison: gives the standard error and the degrees of freedom :math:`\nu`.
        chance: probability of finding it, in (0.05, 1).

    Raises:
        TypeError, ValueError: no result of :func:`bisam.evidence.summaries.welch`, or a chance outside of (0.05, 1).

    Source:
        The noncentral t distribution. With a chance of one third it is by what Simonsohn (2015) judges how much a study could see.

    Example:
        >>> from bisam.evidence.summaries import welch
        >>> round(unpaired_detectable(welch(94.3, 0.2, 6, 94.1, 0.2, 6)), 2)
        0.36
    """
    optimize, stats = _checks.needs("scipy.optimize", extra="train"), _checks.needs("scipy.stats", extra="train")
    chance = _chance(chance)
    freedom = _checks.part("comparison", comparison, Unpaired, "a result of welch()").freedom
    edge = stats.f.ppf(1 - ALPHA, 1, freedom)

    def lacking(effect: float) -> float:  # the square of a noncentral t is a noncentral F, which has both tails in one
        return float(stats.ncf.sf(edge, 1, freedom, effect**2)) - chance

    farthest = math.sqrt(edge)
    while lacking(farthest) < 0:
        farthest *= 2
    return float(optimize.brentq(lacking, 1e-6, farthest)) * comparison.error


def _chance(chance: float) -> float:
    found = _checks.real("chance", chance)
    if not ALPHA < found < 1:
        raise ValueError(f"chance must be in ({ALPHA}, 1), got {_checks.shown(chance)}")
    return found


@functools.cache
def _edges(pairs: int):
    r"""How far normal differences must be shifted until the rule calls them better, sorted, for many samples.

    A shift :math:`\delta` of a sample z passes Student's test if :math:`\bar z + \delta > t s_z / \sqrt n`. The sign pattern that
    turns the pairs in S is as extreme as the observed one if the mean of :math:`z_k + \delta` over S is at most zero. So the
    sign-flip test passes once :math:`-\delta` is below the k-th smallest mean of a subset, with k set by the level.
    """
    numpy = _checks.needs("numpy", extra="train")
    if pairs < FEWEST_PAIRS:
        return numpy.full(1, math.inf)  # the smallest two-sided sign-flip p is 2 / 2^n
    draw = numpy.random.default_rng(pairs)
    subsets = _subsets(pairs, draw)
    rank = math.ceil(ALPHA / 2 * (len(subsets) + 1)) - 1  # the observed pattern counts as one
    weights = (subsets / subsets.sum(1, keepdims=True)).T
    reach = student(pairs - 1) / math.sqrt(pairs)
    edges, size = [], max(1, 2**21 // len(subsets))
    for start in range(0, DRAWS // 2, size):
        sample = draw.normal(size=(min(size, DRAWS // 2 - start), pairs))
        means = numpy.sort(sample @ weights, axis=1)  # a third of the time of a partition at two places
        center, half = sample.mean(1), reach * sample.std(1, ddof=1)
        edges += [numpy.maximum(half - center, -means[:, rank - 1]), numpy.maximum(half + center, means[:, -rank])]
    return numpy.sort(numpy.concatenate(edges))


def _subsets(pairs: int, draw):
    """Which pairs each sign pattern turns, one a row: all patterns but the observed one, or a random choice of them."""
    numpy = _checks.needs("numpy", extra="train")
    if 2**pairs <= PATTERNS:
        return (numpy.arange(1, 2**pairs)[:, None] >> numpy.arange(pairs)) & 1
    chosen = draw.integers(0, 2, size=(PATTERNS - 1, pairs))
    chosen[chosen.sum(1) == 0, 0] = 1
    return chosen
