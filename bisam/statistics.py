r"""What paired runs can and cannot tell: intervals, a sign-flip test, and the verdict by a rule fixed beforehand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from . import _checks

__all__ = ["ALPHA", "FEWEST_PAIRS", "Paired", "paired"]

ALPHA = 0.05  # level of the interval and of the test: ours, fixed before any run
FEWEST_PAIRS = 6  # with five pairs the smallest two-sided sign-flip p is 2 / 2^5 = 0.0625, above any verdict


@dataclass(frozen=True)
class Paired:
    r"""The comparison of two methods over runs that share a seed.

    ``low`` to ``high`` is the 95 % Student interval of the mean difference, ``p`` the two-sided sign-flip p-value,
    ``detectable`` the mean difference that would be found with probability 0.8 at this spread and number of pairs.

    Source:
        Ours; the rule of the verdict is fixed here for the whole project.

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

    @property
    def verdict(self) -> str:
        """``"better"``, ``"worse"`` or ``"not resolved"``.

        A difference is resolved with at least six pairs, an interval that excludes zero and p below 0.05.
        """
        if self.pairs < FEWEST_PAIRS or self.p >= ALPHA or self.low <= 0 <= self.high:
            return "not resolved"
        return "better" if self.mean > 0 else "worse"


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Paired:
    r"""Compares two methods seed by seed.

    .. math::
        d_k = a_k - b_k, \qquad \bar d \pm t_{n-1,\,0.975}\, \frac{s_d}{\sqrt n}, \qquad
        p = 2^{-n}\, \#\Big\{\sigma \in \{-1, 1\}^n : \Big|\sum_k \sigma_k d_k\Big| \ge \Big|\sum_k d_k\Big|\Big\}

    Args:
        ours: one number a seed, such as test accuracies in percent.
        theirs: the other method's numbers, in the same order of seeds.

    Returns:
        Mean difference (ours minus theirs), its interval, the exact p-value and the detectable difference
        :math:`(t_{n-1,0.975} + t_{n-1,0.8})\, s_d / \sqrt n`.

    Raises:
        ValueError: different lengths, fewer than two pairs, or numbers that are not finite.

    Source:
        Student's interval; Fisher's sign-flip test, computed by SciPy over all sign patterns up to 19 pairs and over
        half a million random ones beyond.

    Example:
        >>> result = paired([91.0, 92.0, 90.5, 91.5, 92.5, 91.0], [90.0, 90.5, 90.0, 90.5, 91.0, 90.5])
        >>> round(result.mean, 2), round(result.p, 3), result.verdict
        (1.0, 0.031, 'better')
    """
    import numpy
    from scipy import stats

    if len(ours) != len(theirs):
        raise ValueError(f"ours and theirs must pair up, got {len(ours)} and {len(theirs)} numbers")
    if len(ours) < 2:
        raise ValueError(f"ours must hold at least 2 numbers, got {len(ours)}")
    # Differences of rounded accuracies tie often; without rounding, noise in the 16th digit would break the ties.
    difference = [round(_checks.real("ours", a) - _checks.real("theirs", b), 9) for a, b in zip(ours, theirs, strict=True)]
    n, mean = len(difference), float(numpy.mean(difference))
    error = float(numpy.std(difference, ddof=1)) / math.sqrt(n)
    reach, power = stats.t.ppf([1 - ALPHA / 2, 0.8], n - 1)
    return Paired(mean, mean - reach * error, mean + reach * error, _sign_flip(difference), n, (reach + power) * error)


def _sign_flip(difference: list[float]) -> float:
    import numpy
    from scipy import stats

    if not any(difference):
        return 1.0
    return float(
        stats.permutation_test(
            (difference,), lambda d, axis: numpy.mean(d, axis=axis),
            permutation_type="samples", vectorized=True, n_resamples=2**19, random_state=0,
        ).pvalue
    )
