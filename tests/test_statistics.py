"""Intervals and p-values against slow ones, and the rules of the verdicts."""

import itertools
import math
import tracemalloc

import numpy
import pytest
import torch
from scipy import stats

from bisam.statistics import (
    VERDICTS,
    Paired,
    detectable,
    paired,
    pooled,
    sign_test,
    verdict,
    welch,
)

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


# -- the verdict on a published effect ---------------------------------------------------------------------------------


def seen(low, high, p=0.03, pairs=6):
    return Paired(mean=(low + high) / 2, low=low, high=high, p=p, pairs=pairs, detectable=0.4)


def unseen(low, high, p=0.3, pairs=6):
    return seen(low, high, p, pairs)


@pytest.mark.parametrize(
    "ours, effect, expected",
    [
        (None, 0.5, "not attempted"),
        (None, -0.5, "not attempted"),
        # an effect is seen, in the published direction
        (seen(0.1, 0.9), 0.5, "reproduced"),
        (seen(0.1, 0.9), 0.1, "reproduced"),
        (seen(0.1, 0.9), 0.9, "reproduced"),
        (seen(0.1, 0.9), math.nextafter(0.1, 0), "direction only"),
        (seen(0.1, 0.9), math.nextafter(0.9, 1), "direction only"),
        (seen(0.1, 0.9), 2.0, "direction only"),
        (seen(-0.9, -0.1), -0.5, "reproduced"),
        (seen(-0.9, -0.1), -0.05, "direction only"),
        (seen(-0.9, -0.1), -2.0, "direction only"),
        # an effect is seen, in the other direction
        (seen(0.1, 0.9), -0.5, "not reproduced"),
        (seen(-0.9, -0.1), 0.5, "not reproduced"),
        # no effect is seen
        (unseen(-0.2, 0.4), 0.2, "not resolved"),
        (unseen(-0.2, 0.4), 0.4, "not resolved"),
        (unseen(-0.2, 0.4), math.nextafter(0.4, 1), "not reproduced"),
        (unseen(-0.2, 0.4), -0.2, "not resolved"),
        (unseen(-0.2, 0.4), -0.3, "not reproduced"),
        (unseen(0.0, 0.4), 0.2, "not resolved"),
        (unseen(0.0, 0.4), 0.5, "not reproduced"),
        (unseen(-0.2, 0.4, p=0.05), 0.5, "not reproduced"),
        # interval and test contradict each other about zero
        (unseen(-0.2, 0.4, p=0.0499), 0.5, "not resolved"),
        (seen(0.1, 0.4, p=0.05), 0.5, "not resolved"),
        (seen(0.1, 0.4, p=0.05), 0.2, "not resolved"),
        (seen(0.1, 0.4, p=0.05), -0.5, "not resolved"),
        # too few pairs
        (seen(0.1, 0.9, pairs=5), 0.5, "not resolved"),
        (seen(0.1, 0.9, pairs=5), -0.5, "not resolved"),
        (unseen(-0.2, 0.4, pairs=5), 2.0, "not resolved"),
        (unseen(-0.2, 0.4, pairs=6), 2.0, "not reproduced"),
    ],
)
def test_a_published_effect_gets_its_verdict(ours, effect, expected):
    assert verdict(ours, effect) == expected


def cases():
    """Every order of low, zero, high and the effect, with ties, times everything else that the rule looks at."""
    places = [-2.0, -1.0, 0.0, 1.0, 2.0]
    intervals = [(low, high) for low in places for high in places if low <= high]
    for (low, high), effect, p, pairs in itertools.product(intervals, (-3, -2, -1, 1, 2, 3), (0.03, 0.05, 0.3), (5, 6)):
        yield Paired((low + high) / 2, low, high, p, pairs, 1.0), effect


def test_every_case_has_one_verdict_and_every_verdict_a_case():
    found = {verdict(ours, effect) for ours, effect in cases()} | {verdict(None, 1)}
    assert found == set(VERDICTS)


def test_the_verdict_does_not_depend_on_which_method_is_called_ours():
    for ours, effect in cases():
        turned = Paired(-ours.mean, -ours.high, -ours.low, ours.p, ours.pairs, ours.detectable)
        assert verdict(turned, -effect) == verdict(ours, effect)


def test_better_is_necessary_for_a_reproduction_and_not_reproduced_never_means_larger():
    for ours, effect in cases():
        said = verdict(ours, effect)
        if said in ("reproduced", "direction only"):
            assert ours.verdict == ("better" if effect > 0 else "worse")
        if said == "reproduced":
            assert ours.low <= effect <= ours.high
        if said == "not reproduced":
            assert ours.pairs >= 6 and (ours.high < effect if effect > 0 else effect < ours.low)


def test_more_runs_of_the_same_kind_lead_from_not_resolved_to_a_decision():
    half = [0.1, 0.5, -0.2, 0.6, 0.3, 0.1]
    assert [verdict(compare(half * k), 0.25) for k in (1, 4)] == ["not resolved", "reproduced"]
    assert [verdict(compare(half * k), 0.9) for k in (1, 4)] == ["not reproduced", "direction only"]


@pytest.mark.parametrize(
    "ours, effect, error, message",
    [
        (None, 0, ValueError, r"published_effect must not be 0"),
        (None, math.nan, ValueError, r"published_effect must be finite, got nan"),
        (None, "0.1", TypeError, r"published_effect must be a real number, not '0.1'"),
        (0.3, 0.1, TypeError, r"ours must be the Paired that paired\(\) returns, or None, got float"),
        ([], 0.1, TypeError, r"ours must be the Paired that paired\(\) returns, or None, got list"),
    ],
)
def test_bad_arguments_of_the_verdict_are_named(ours, effect, error, message):
    with pytest.raises(error, match=message):
        verdict(ours, effect)


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


@pytest.mark.parametrize("trials", [1, 2, 5, 6, 10, 17])
def test_the_sign_test_counts_coin_tosses(trials):
    for wins in range(trials + 1):
        assert sign_test(wins, trials) == pytest.approx(stats.binomtest(wins, trials).pvalue)
        assert sign_test(wins, trials) == sign_test(trials - wins, trials)
    assert sign_test(trials, trials) == 2 / 2**trials


@pytest.mark.parametrize("n, power", [(2, 0.8), (3, 0.8), (6, 0.8), (12, 0.8), (6, 0.5), (6, 0.95)])
def test_the_detectable_difference_is_found_as_often_as_it_says(n, power):
    effect = detectable(0.3, n, power)
    shift, edge = effect / (0.3 * math.sqrt(2 / n)), stats.t.ppf(0.975, 2 * n - 2)
    found = stats.nct.sf(edge, 2 * n - 2, shift) + stats.nct.cdf(-edge, 2 * n - 2, shift)
    assert found == pytest.approx(power, abs=0.025 if n >= 6 else 0.06)


def test_the_detectable_difference_is_the_formula_and_grows_with_spread_and_power():
    by_hand = (stats.t.ppf(0.975, 10) + stats.t.ppf(0.8, 10)) * 0.2 * math.sqrt(1 / 3)
    assert detectable(0.2, 6) == pytest.approx(by_hand) == pytest.approx(detectable(0.4, 6) / 2)
    assert detectable(0.2, 6, 0.5) < detectable(0.2, 6) < detectable(0.2, 6, 0.9) and detectable(0, 6) == 0


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
        (lambda: pooled([0.1]), TypeError, r"comparisons must hold results of welch\(\), got float"),
        (lambda: sign_test(6, 5), ValueError, r"wins must be at most trials, got 6 of 5"),
        (lambda: sign_test(-1, 5), ValueError, r"wins must be at least 0, got -1"),
        (lambda: sign_test(0, 0), ValueError, r"trials must be at least 1, got 0"),
        (lambda: sign_test(2.5, 5), TypeError, r"wins must be a whole number, not 2.5"),
        (lambda: detectable(-1, 6), ValueError, r"std must be 0 or greater, got -1"),
        (lambda: detectable(1, 1), ValueError, r"n must be at least 2, got 1"),
        (lambda: detectable(1, 6, 1.0), ValueError, r"power must be in \(0, 1\), got 1.0"),
        (lambda: detectable(1, 6, 0), ValueError, r"power must be in \(0, 1\), got 0"),
    ],
)
def test_bad_summaries_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
