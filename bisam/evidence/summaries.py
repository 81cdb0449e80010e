"""Tests that read published summaries: a mean, a standard deviation and a number of runs, and nothing about pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .. import _checks
from .crossed import ALPHA, student

__all__ = ["Pooled", "Unpaired", "pooled", "welch"]


@dataclass(frozen=True)
class Unpaired:
    """The difference of two methods from means and deviations of their runs, with its standard error, two-sided p and 95 % interval.

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
    r"""Welch's test from published summaries, first minus second: two groups, each with a spread of its own.

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

    Raises:
        TypeError, ValueError: no numbers, a negative spread, fewer than two runs, or no spread in either group.

    Source:
        Welch (1947). Seeds that both methods share are lost in a summary; where their runs go up and down together, a paired
        interval is narrower.

    Example:
        >>> result = welch(94.28, 0.31, 6, 94.09, 0.26, 6)
        >>> round(result.difference, 2), round(result.error, 3), round(result.p, 2)
        (0.19, 0.165, 0.28)
    """
    stats = _checks.needs("scipy.stats", extra="train")
    mean1, mean2 = _checks.real("mean1", mean1), _checks.real("mean2", mean2)
    std1, std2 = _checks.nonnegative("std1", std1), _checks.nonnegative("std2", std2)
    n1, n2 = _checks.whole("n1", n1, 2), _checks.whole("n2", n2, 2)
    difference, first, second = mean1 - mean2, std1 * std1 / n1, std2 * std2 / n2
    if not math.isfinite(first + second):
        raise ValueError(f"std1 and std2 must have squares within the range of a float, got {std1!r} and {std2!r}")
    if first + second == 0:
        raise ValueError("std1 and std2 must not both be 0: a difference is judged by the spread of the runs")
    test = stats.ttest_ind_from_stats(mean1, std1, n1, mean2, std2, n2, equal_var=False)
    error = math.sqrt(first + second)
    freedom = (first + second) ** 2 / (first**2 / (n1 - 1) + second**2 / (n2 - 1))
    reach = student(freedom) * error
    return Unpaired(difference, error, freedom, float(test.pvalue), difference - reach, difference + reach)


@dataclass(frozen=True)
class Pooled:
    """The average of several differences, with its standard error, their ratio ``z``, its two-sided p and 95 % interval.

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

    It answers for these models, on average, and says nothing of others. The p is that of a normal distribution, as if the
    standard errors were known, and so a little too small.

    Args:
        comparisons: one a model; all models weigh the same.

    Raises:
        TypeError, ValueError: no list of results of :func:`welch`, or an empty one.

    Example:
        >>> result = pooled([welch(0.2, 0.1, 6, 0.1, 0.1, 6), welch(0.3, 0.1, 6, 0.0, 0.1, 6)])
        >>> round(result.difference, 3), round(result.error, 4), round(result.z, 2)
        (0.2, 0.0408, 4.9)
    """
    stats = _checks.needs("scipy.stats", extra="train")
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
