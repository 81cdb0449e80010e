"""The inverse of the divergence of two coins, against a grid, against 50 digits, and against the exact binomial probabilities."""

import math

import mpmath
import numpy
import pytest
from scipy.stats import binom

from bisam.measure import kl_inverse

SHARES = (0.0, 1e-6, 0.003, 0.18, 0.5, 0.9, 1 - 1e-6, 1.0)
BUDGETS = (0.0, 1e-9, 1e-5, 0.004, 0.1, 0.8, 5.0)


def kl(a, b):
    """The definition, over an array of b."""
    with numpy.errstate(divide="ignore", invalid="ignore"):
        return sum(p * (numpy.log(p) - numpy.log(q)) for p, q in ((a, b), (1 - a, 1 - b)) if p > 0)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("budget", BUDGETS[3:])
def test_it_is_the_last_point_of_a_grid_that_the_budget_reaches(share, budget):
    grid = numpy.linspace(share, 1, 400_001)
    inside = grid[numpy.nan_to_num(kl(share, grid), nan=0.0) <= budget]
    assert inside[-1] <= kl_inverse(share, budget) <= inside[-1] + (1 - share) / 400_000 + 1e-15


@pytest.mark.parametrize("share", SHARES[1:-1])
@pytest.mark.parametrize("budget", BUDGETS[1:])
def test_at_fifty_digits_the_budget_is_spent(share, budget):
    found = kl_inverse(share, budget)
    with mpmath.workdps(50):
        a, b = mpmath.mpf(share), mpmath.mpf(found)
        if b == 1:  # the exact value is nearer to 1 than any other number of float64
            b = 1 - mpmath.mpf(2) ** -53
            assert a * mpmath.log(a / b) + (1 - a) * mpmath.log((1 - a) / (1 - b)) < budget
        else:
            spent = a * mpmath.log(a / b) + (1 - a) * mpmath.log((1 - a) / (1 - b))
            slope = (b - a) / (b * (1 - b))
            assert abs(spent - budget) <= slope * mpmath.mpf(4e-16) + budget * mpmath.mpf(1e-9)


@pytest.mark.parametrize("draws", [1, 10, 500])
@pytest.mark.parametrize("risk", [0.2, 0.01])
def test_the_bound_fails_no_more_often_than_it_may(draws, risk):
    counts = numpy.arange(draws + 1)
    bounds = numpy.array([kl_inverse(k / draws, math.log(1 / risk) / draws) for k in counts])
    for e in (*bounds[:-1] + 1e-12, *numpy.linspace(0.001, 0.999, 97)):  # it fails most just above one of its values
        assert binom.pmf(counts, draws, e)[bounds < e].sum() <= risk


@pytest.mark.parametrize("risk", [0.3, 0.05])
def test_draws_with_different_chances_are_covered_too(risk):
    """Every image has a chance of its own to be classified wrongly: all 64 outcomes of six coins, for random chances."""
    random = numpy.random.default_rng(0)
    outcomes = (numpy.arange(64)[:, None] >> numpy.arange(6)) & 1
    bounds = numpy.array([kl_inverse(k / 6, math.log(1 / risk) / 6) for k in range(7)])[outcomes.sum(1)]
    for chances in random.beta(0.3, 0.3, (2000, 6)):
        likely = numpy.where(outcomes == 1, chances, 1 - chances).prod(1)
        assert likely[bounds < chances.mean()].sum() <= risk + 1e-12


def test_a_plain_mean_and_a_two_sided_root_are_no_such_bound():
    """What a bound by the mean alone would be worth: it fails in about half of all cases."""
    counts = numpy.arange(11)
    assert binom.pmf(counts, 10, 0.25)[counts / 10 < 0.25].sum() > 0.5


def test_it_rises_with_both_and_stays_a_share():
    table = numpy.array([[kl_inverse(share, budget) for budget in BUDGETS] for share in SHARES])
    assert (numpy.diff(table, axis=0) >= 0).all() and (numpy.diff(table, axis=1) >= 0).all()
    assert (table >= numpy.array(SHARES)[:, None]).all() and table.max() == 1


@pytest.mark.parametrize("bad", [{"share": 1.5}, {"share": -0.1}, {"share": float("nan")}, {"share": "0.5"}, {"budget": -1.0}, {"budget": None}])
def test_what_is_wrong_is_named(bad):
    name = next(iter(bad))
    with pytest.raises((TypeError, ValueError), match=name):
        kl_inverse(**{"share": 0.5, "budget": 0.1, **bad})
