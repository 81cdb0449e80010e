"""Intervals and p-values against slow ones, and the rule of the verdict."""

import itertools
import math

import pytest
import torch
from scipy import stats

from bisam.statistics import Paired, paired

ZEROS = [0.0] * 8
CASES = {
    "better": [0.4, 0.9, 0.2, 1.1, 0.6, 0.8, 0.3],
    "mixed": [0.4, -0.9, 0.2, 1.1, -0.6, 0.8],
    "ties": [0.2, 0.2, -0.2, 0.2, 0.4, 0.0, 0.2, -0.4],
    "two": [1.0, 2.0],
    "twelve": torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist(),
}
each_case = pytest.mark.parametrize("difference", CASES.values(), ids=CASES)


def compare(difference):
    return paired([90 + d for d in difference], [90.0] * len(difference))


@each_case
def test_p_counts_the_sign_patterns_that_are_as_extreme(difference):
    extreme = 0
    for signs in itertools.product((-1, 1), repeat=len(difference)):
        total = sum(sign * d for sign, d in zip(signs, difference, strict=True))
        extreme += abs(total) >= abs(sum(difference)) - 1e-9
    assert compare(difference).p == pytest.approx(extreme / 2 ** len(difference), abs=1e-12)


@each_case
def test_interval_is_that_of_student(difference):
    found, n = compare(difference), len(difference)
    interval = stats.ttest_1samp(difference, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-7)
    assert (found.mean, found.pairs) == (pytest.approx(sum(difference) / n, abs=1e-9), n)


@each_case
def test_detectable_difference_is_that_of_the_formula(difference):
    n, mean = len(difference), sum(difference) / len(difference)
    spread = math.sqrt(sum((d - mean) ** 2 for d in difference) / (n - 1))
    expected = (stats.t.ppf(0.975, n - 1) + stats.t.ppf(0.8, n - 1)) * spread / math.sqrt(n)
    assert compare(difference).detectable == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    "numbers, verdict",
    [
        ({}, "better"),
        ({"mean": -1.0, "low": -1.5, "high": -0.5}, "worse"),
        ({"pairs": 5}, "not resolved"),
        ({"p": 0.05}, "not resolved"),
        ({"low": -0.1}, "not resolved"),
        ({"low": 0.0}, "not resolved"),
        ({"mean": -1.0, "low": -1.5, "high": 0.0}, "not resolved"),
    ],
)
def test_a_difference_is_resolved_only_if_all_three_conditions_hold(numbers, verdict):
    resolved = {"mean": 1.0, "low": 0.5, "high": 1.5, "p": 0.03, "pairs": 6, "detectable": 0.4}
    assert Paired(**{**resolved, **numbers}).verdict == verdict


def test_verdicts_of_whole_comparisons():
    clear = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert compare(clear).verdict == "better" and compare([-d for d in clear]).verdict == "worse"
    assert compare(clear[:5]).verdict == compare(CASES["mixed"]).verdict == "not resolved"


def test_exchanging_the_methods_turns_the_comparison_round():
    ours, theirs = [91.0, 92.5, 90.0, 93.0, 91.5, 92.0], [90.5, 92.0, 90.5, 91.0, 91.0, 90.0]
    one, other = paired(ours, theirs), paired(theirs, ours)
    assert (one.mean, one.low, one.p) == pytest.approx((-other.mean, -other.high, other.p))


def test_no_difference_at_all_is_not_resolved():
    found = paired(ZEROS, ZEROS)
    assert (found.mean, found.p, found.detectable, found.verdict) == (0, 1, 0, "not resolved")


def test_differences_that_tie_up_to_rounding_count_as_ties():
    ours = [90.1, 90.3, 90.2, 90.3, 90.2, 89.9]
    theirs = [90.0, 90.2, 90.1, 90.2, 90.1, 90.0]  # five times +0.1 and once -0.1, in other last digits
    assert paired(ours, theirs).p == pytest.approx(2 * (1 + 6) / 64)


def test_p_is_exact_for_seventeen_pairs_too():
    assert compare([1.0] * 17).p == pytest.approx(2 / 2**17, rel=1e-9)


@pytest.mark.parametrize(
    "ours, theirs, error, message",
    [
        ([1.0, 2.0], [1.0], ValueError, r"ours and theirs must pair up, got 2 and 1"),
        ([1.0], [2.0], ValueError, r"ours must hold at least 2 numbers, got 1"),
        ([], [], ValueError, r"ours must hold at least 2 numbers, got 0"),
        ([1.0, math.nan], [1.0, 2.0], ValueError, r"ours must be finite, got nan"),
        ([1.0, 2.0], [1.0, math.inf], ValueError, r"theirs must be finite, got inf"),
        ([1.0, 2.0], [1.0, "2"], TypeError, r"theirs must be a real number, not '2' of type str"),
    ],
)
def test_numbers_that_do_not_pair_are_named(ours, theirs, error, message):
    with pytest.raises(error, match=message):
        paired(ours, theirs)
