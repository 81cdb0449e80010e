"""How large a share can be, given what was counted: the inverse of the divergence of two coins."""

from __future__ import annotations

import math

from .. import _checks

__all__ = ["kl_inverse"]


def kl_inverse(share: float, budget: float) -> float:
    r"""The largest share whose divergence from a counted share does not exceed a budget.

    .. math:: \max\{b \in [\hat e, 1] : \mathrm{kl}(\hat e \,\|\, b) \le B\}, \qquad
        \mathrm{kl}(a \| b) = a \log\tfrac ab + (1 - a) \log\tfrac{1 - a}{1 - b}

    With :math:`B = \log(1/\delta) / m` it is an upper confidence bound: of m independent numbers between 0 and 1 with a mean
    expectation of e, the mean :math:`\hat e` satisfies :math:`e \le` this value with a probability of at least :math:`1 - \delta`.

    Args:
        share: the share that was counted, :math:`\hat e`, from 0 to 1.
        budget: the most that the divergence may be, B, 0 or greater.

    Returns:
        The largest such share, rounded upwards, so that it is below the exact value by no more than rounding in float64.

    Raises:
        TypeError, ValueError: an argument that is no finite real number or out of range.

    Source:
        Langford and Caruana (2001) for the use with draws; Maurer (2004) for that with a divergence of weights.

    Example:
        >>> import math
        >>> round(kl_inverse(0.0, math.log(1 / 0.05) / 59), 3)  # 59 draws without a mistake
        0.05
        >>> kl_inverse(0.5, 0.0), kl_inverse(1.0, 0.1)
        (0.5, 1.0)
    """
    a, most = _checks.real("share", share), _checks.nonnegative("budget", budget)
    if not 0 <= a <= 1:
        raise ValueError(f"share must be from 0 to 1, got {_checks.shown(share)}")
    if a == 1 or most == 0:
        return a
    if a == 0:
        return -math.expm1(-most)
    low, high = a, 1.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _divergence(a, middle) <= most else (low, middle)
    return high


def _divergence(a: float, b: float) -> float:
    """kl(a || b) for 0 < a < b < 1, as a sum of two terms of which none is negative: no digits are lost for b near a."""
    up, down = (b - a) / a, (b - a) / (1 - a)
    return a * (up - math.log1p(up)) + (1 - a) * (-down - math.log1p(-down))
