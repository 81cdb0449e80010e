"""Intervals and p-values against slow ones. What is made of them is tested in test_rule."""

import itertools
import math
import tracemalloc

import numpy
import pytest
import torch
from scipy import stats

from bisam.evidence.crossed import crossed
from bisam.evidence.power import detectable, unpaired_detectable
from bisam.evidence.statistics import Paired, paired
from bisam.evidence.summaries import pooled, welch

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
def test_detectable_difference_is_that_of_the_rule_at_this_spread(difference):
    found, spread = compare(difference).detectable, numpy.std(difference, ddof=1)
    assert found == pytest.approx(spread * detectable(len(difference))) if len(difference) >= 6 else found == math.inf


@each_case
def test_error_and_largest_p_are_those_of_student_and_of_the_flips(difference):
    found = compare(difference)
    assert found.error == pytest.approx(stats.sem(difference), rel=1e-6)
    assert found.largest_p == pytest.approx(max(found.p, stats.ttest_1samp(difference, 0.0).pvalue), rel=1e-5)


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


@pytest.mark.slow
def test_many_pairs_fit_into_memory_and_agree_with_student():
    difference = numpy.random.default_rng(3).normal(0.3, 1, 50).tolist()
    tracemalloc.start()
    found = compare(difference).p
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == pytest.approx(stats.ttest_1samp(difference, 0.0).pvalue, abs=0.01)
    assert peak < 200e6, "all random signs at once would take 419 MB"


@pytest.mark.parametrize(
    "ours, theirs, error, message",
    [
        ([1.0, 2.0], [1.0], ValueError, r"ours and theirs must pair up, got 2 and 1"),
        ([1.0], [2.0], ValueError, r"ours and theirs must hold at least 2 numbers each, got 1"),
        ([], [], ValueError, r"ours and theirs must hold at least 2 numbers each, got 0"),
        ([1.0, math.nan], [1.0, 2.0], ValueError, r"ours must be finite, got nan"),
        ([1.0, 2.0], [1.0, math.inf], ValueError, r"theirs must be finite, got inf"),
        ([1.0, 2.0], [1.0, "2"], TypeError, r"theirs must be a real number, not '2' of type str"),
    ],
)
def test_numbers_that_do_not_pair_are_named(ours, theirs, error, message):
    with pytest.raises(error, match=message):
        paired(ours, theirs)


# -- seeds and images --------------------------------------------------------------------------------------------------


def both(seeds, images, of_seeds, of_images, rest, seed):
    """Differences in points with known spreads, as shares that are right."""
    draw = numpy.random.default_rng(seed)
    d = draw.normal(0, of_seeds, (seeds, 1)) + draw.normal(0, of_images, images) + draw.normal(0, rest, (seeds, images))
    return d / 100, numpy.zeros_like(d)


def test_crossed_by_hand():
    ours, theirs = [[1, 1, 0], [1, 0, 0]], [[0, 1, 0], [0, 0, 1]]
    found = crossed(ours, theirs)  # differences 100 0 0 / 100 0 -100: seeds 100/3 and 0, images 100, 0, -50, mean 50/3
    of_seeds, of_images = 3 * (100 / 3) ** 2 / 2, 2 * ((250 / 3) ** 2 + (50 / 3) ** 2 + (200 / 3) ** 2) / 2
    rest = sum(x**2 for x in (-50 / 3, -50 / 3, 100 / 3)) * 2 / 2
    variance = (of_seeds + of_images - rest) / 6
    freedom = (of_seeds + of_images - rest) ** 2 / (of_seeds**2 + of_images**2 / 2 + rest**2 / 2)
    assert (found.mean, found.error, found.freedom) == pytest.approx((50 / 3, variance**0.5, freedom))
    half = max(stats.t.ppf(0.975, freedom) * variance**0.5, stats.t.ppf(0.975, 1) * (of_seeds / 6) ** 0.5)
    assert (found.low, found.high, found.images) == (pytest.approx(50 / 3 - half), pytest.approx(50 / 3 + half), 3)


@pytest.mark.slow
@pytest.mark.parametrize("shape, spreads", [
    ((12, 400), (1, 10, 30)), ((12, 400), (0.2, 30, 30)), ((12, 400), (1, 0, 30)), ((6, 400), (1, 10, 30)), ((20, 100), (0.3, 20, 30)),
])  # fmt: skip
def test_the_interval_over_seeds_and_images_covers_as_often_as_it_says(shape, spreads):
    found = [crossed(*both(*shape, *spreads, seed)) for seed in range(800)]
    covered = sum(each.low <= 0 <= each.high for each in found) / 800
    assert 0.93 < covered < 0.975, "3 standard errors are 2.3 points"
    assert all((each.p < 0.05) == (not each.low <= 0 <= each.high) for each in found)


def test_the_interval_covers_for_right_and_wrong_too_where_seeds_alone_do_not():
    hits = alone = 0
    for seed in range(300):
        draw = numpy.random.default_rng(seed)
        hard, n, m = draw.normal(1.5, 1.5, 300), 12, 300
        ours, theirs = (hard + draw.normal(0, 1, m) + draw.normal(0, 1, (n, m)) + draw.normal(0, 0.05, (n, 1)) > 0 for _ in range(2))
        found, seeds = crossed(ours, theirs), paired(100 * ours.mean(1), 100 * theirs.mean(1))
        hits += found.low <= 0 <= found.high
        alone += seeds.low <= 0 <= seeds.high
    assert 0.91 < hits / 300 < 0.985 and alone / 300 < 0.75


@pytest.mark.parametrize("seed", range(20))
def test_images_never_make_an_interval_narrower(seed):
    ours, theirs = both(2 + seed % 7, 30, 1 + seed % 3, seed % 4, 20, seed)
    found, alone = crossed(ours, theirs), paired(100 * ours.mean(1), 100 * theirs.mean(1))
    assert found.low <= alone.low + 1e-7 and found.high >= alone.high - 1e-7 and found.mean == pytest.approx(alone.mean)
    wide = paired(100 * ours.mean(1), 100 * theirs.mean(1), found)
    assert wide.widest == (found.low, found.high) and wide.error >= alone.error - 1e-9 and wide.detectable >= alone.detectable - 1e-9


def test_methods_that_are_right_on_the_same_images_do_not_differ():
    same = numpy.arange(20).reshape(2, 10) % 3 == 0
    found = crossed(same, same)
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)


@pytest.mark.parametrize("ours, theirs", [
    ([[1, 0]], [[1, 0]]), ([[1], [0]], [[1], [0]]), ([[1, 0], [1, 1]], [[1, 0, 1], [1, 1, 1]]), ([1, 0], [1, 0]),
])  # fmt: skip
def test_shapes_that_do_not_cross_are_named(ours, theirs):
    with pytest.raises(ValueError, match="must be of one shape, 2 seeds and 2 images at least"):
        crossed(ours, theirs)


# -- published summaries -----------------------------------------------------------------------------------------------

SUMMARIES = {
    "equal": (96.61, 0.17, 6, 96.52, 0.17, 6),
    "a cell of a table": (94.87, 0.34, 6, 94.09, 0.26, 6),
    "lower": (88.71, 0.23, 6, 89.03, 0.09, 6),
    "groups that differ": (50.0, 1.96, 4, 44.68, 4.01, 9),
    "the fewest": (1.0, 0.1, 2, 2.0, 0.3, 2),
    "one does not vary": (1.0, 0.0, 5, 2.0, 0.3, 3),
}
each_summary = pytest.mark.parametrize("summary", SUMMARIES.values(), ids=SUMMARIES)


@each_summary
def test_welch_is_that_of_scipy(summary):
    found, expected = welch(*summary), stats.ttest_ind_from_stats(*summary, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.difference / found.error == pytest.approx(expected.statistic, rel=1e-9)
    assert found.difference == pytest.approx(summary[0] - summary[3], abs=1e-12)


@pytest.mark.parametrize("sizes", [(6, 6), (5, 9)])
def test_welch_from_summaries_is_welch_from_the_runs(sizes):
    draw = numpy.random.default_rng(0)
    first, second = (draw.normal(90 + k, 0.2 + k, n) for k, n in enumerate(sizes))
    found = welch(*(f(group) for group in (first, second) for f in (numpy.mean, lambda g: numpy.std(g, ddof=1), len)))
    expected = stats.ttest_ind(first, second, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert (found.p, found.freedom) == pytest.approx((expected.pvalue, expected.df))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_equal_spreads_have_the_degrees_of_freedom_of_student():
    assert welch(1, 0.3, 6, 2, 0.3, 6).freedom == pytest.approx(10)
    assert welch(1, 0.3, 6, 2, 1e-9, 6).freedom == pytest.approx(5)


@each_summary
def test_p_and_interval_of_welch_agree_about_zero(summary):
    found = welch(*summary)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_pooled_by_hand():
    cells = [welch(0.3, 0.3, 9, 0.1, 0.4, 16), welch(0.5, 0.2, 4, 0.0, 0.1, 4), welch(0.1, 0.1, 25, 0.2, 0.1, 25)]
    variances = [0.09 / 9 + 0.16 / 16, 0.04 / 4 + 0.01 / 4, 0.01 / 25 + 0.01 / 25]
    found = pooled(cells)
    assert found.difference == pytest.approx((0.2 + 0.5 - 0.1) / 3)
    assert found.error == pytest.approx(math.sqrt(sum(variances)) / 3)
    assert found.z == pytest.approx(0.2 / found.error) and found.models == 3
    assert found.p == pytest.approx(math.erfc(found.z / math.sqrt(2)))
    assert (found.low, found.high) == pytest.approx((0.2 - 1.959964 * found.error, 0.2 + 1.959964 * found.error))


def test_pooling_one_model_is_that_model_with_a_normal_tail():
    one = welch(*SUMMARIES["equal"])
    found = pooled([one])
    assert (found.difference, found.error) == (one.difference, pytest.approx(one.error)) and found.p < one.p


def test_the_pooled_error_is_that_of_simulated_averages():
    draw, spreads = numpy.random.default_rng(1), numpy.array([0.1, 0.3, 0.5])
    runs = draw.normal(0, spreads[:, None, None], (3, 6, 20_000))
    others = draw.normal(0, spreads[:, None, None] / 2, (3, 6, 20_000))
    averages = (runs.mean(1) - others.mean(1)).mean(0)
    expected = pooled([welch(0, s, 6, 0, s / 2, 6) for s in spreads]).error
    assert averages.std() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("n, chance", [(2, 0.8), (3, 0.8), (6, 0.8), (12, 0.8), (6, 1 / 3), (6, 0.95)])
def test_the_detectable_difference_of_two_groups_is_found_as_often_as_it_says(n, chance):
    effect = unpaired_detectable(welch(0, 0.3, n, 0, 0.3, n), chance)
    shift, edge = effect / (0.3 * math.sqrt(2 / n)), stats.t.ppf(0.975, 2 * n - 2)
    assert stats.nct.sf(edge, 2 * n - 2, shift) == pytest.approx(chance, abs=1e-3), "the other tail is next to nothing"


def test_the_detectable_difference_of_two_groups_is_that_of_simulated_runs():
    effect, draw = unpaired_detectable(welch(0, 0.2, 6, 0, 0.4, 6), 1 / 3), numpy.random.default_rng(0)
    p = stats.ttest_ind(draw.normal(effect, 0.2, (20_000, 6)), draw.normal(0, 0.4, (20_000, 6)), axis=1, equal_var=False).pvalue
    assert (p < 0.05).mean() == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: welch(1, -0.1, 6, 1, 0.1, 6), ValueError, r"std1 must be 0 or greater, got -0.1"),
        (lambda: welch(1, 0.1, 6, 1, math.inf, 6), ValueError, r"std2 must be finite, got inf"),
        (lambda: welch(1, 0.1, 1, 1, 0.1, 6), ValueError, r"n1 must be at least 2, got 1"),
        (lambda: welch(1, 0.1, 6, 1, 0.1, 5.5), TypeError, r"n2 must be a whole number, not 5.5"),
        (lambda: welch("96.5", 0.1, 6, 1, 0.1, 6), TypeError, r"mean1 must be a real number, not '96.5'"),
        (lambda: welch(1, 0.1, 6, math.nan, 0.1, 6), ValueError, r"mean2 must be finite, got nan"),
        (lambda: welch(1, 0.0, 6, 1, 0.0, 6), ValueError, r"std1 and std2 must not both be 0"),
        (lambda: pooled([]), ValueError, r"comparisons must hold at least one result of welch\(\), got none"),
        (lambda: pooled([0.1]), TypeError, r"comparisons must hold results of welch\(\), got 0\.1 of type float"),
        (lambda: unpaired_detectable(0.3), TypeError, r"comparison must be a result of welch\(\), got 0\.3 of type float"),
        (lambda: detectable(1), ValueError, r"pairs must be at least 2, got 1"),
        (lambda: unpaired_detectable(welch(1, 1, 6, 1, 1, 6), 1.0), ValueError, r"chance must be in \(0.05, 1\), got 1.0"),
        (lambda: detectable(6, 0), ValueError, r"chance must be in \(0.05, 1\), got 0"),
    ],
)
def test_bad_summaries_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
