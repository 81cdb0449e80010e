"""What published claims would take: pairs against simulation, arithmetic against a count by hand, hours against the published table."""

import dataclasses
import math

import numpy
import pytest
from scipy import stats

from bisam.evidence import listing, needed
from bisam.evidence.needed import flop_of_run, hours_of_run, need, needs, pairs_needed
from bisam.training import Run

CIFAR = {"data": "cifar10", "epochs": 1}


@pytest.mark.parametrize("effect", [1.2, 0.7, 0.45])
def test_the_pairs_find_the_difference_four_times_out_of_five(effect):
    pairs = pairs_needed(effect, fewest=2)
    draw = numpy.random.default_rng(0)
    found = [(stats.ttest_1samp(draw.normal(effect, 1, (20_000, n)), 0, axis=1).pvalue < 0.05).mean() for n in (pairs - 1, pairs)]
    assert found[0] < 0.805 and found[1] > 0.795 and found[0] < found[1]


def test_the_rule_has_a_floor_and_nothing_has_no_number():
    assert pairs_needed(5.0) == 12 and pairs_needed(-5.0, fewest=20) == 20 and pairs_needed(0.0) is None
    assert pairs_needed(0.3) < pairs_needed(0.3, chance=0.9) < pairs_needed(0.2, chance=0.9)
    with pytest.raises(ValueError, match="chance must be"):
        pairs_needed(0.5, chance=1.5)


def test_operations_of_a_small_network_by_hand():
    # 64 -> 128 -> 128 -> 10 with two operations a weight; the backward pass has twice those of the forward pass.
    run = Run(recipe="sam", model="mlp", data="cifar10", epochs=3)
    weights = 3072 * 128 + 128 * 128 + 128 * 10
    assert flop_of_run(run) == 3 * 2 * weights * 45_000 * 3 * 2
    assert flop_of_run(run.replace(recipe=run.recipe, train_images=5_000)) == flop_of_run(run) / 10
    assert flop_of_run(Run()) is None and hours_of_run(Run()) is None


def test_operations_of_a_convolution_by_hand():
    net = Run(recipe="sgd", model="small_conv", **CIFAR)
    macs = 32 * 32 * 16 * 27 + 16 * 16 * 32 * 9 * 16 + 8 * 8 * 32 * 9 * 32 + 32 * 64 * 10
    assert flop_of_run(net) == 3 * 2 * macs * 45_000


def test_hours_are_those_of_the_published_table_where_it_has_the_network():
    assert hours_of_run(Run(recipe="sam", model="densenet121", **CIFAR)) == pytest.approx(58 / 3600)
    assert hours_of_run(Run(recipe="sgd", model="densenet121", **CIFAR)) == pytest.approx(29 / 3600)
    small, large = (Run(recipe="sam", model=model, **CIFAR) for model in ("resnet32", "resnet56"))
    assert hours_of_run(small) / hours_of_run(large) == pytest.approx(flop_of_run(small) / flop_of_run(large))


@pytest.mark.slow
def test_a_claim_over_a_table_needs_the_runs_of_all_its_networks():
    plan = listing.experiment("T1")
    found = {each.claim.id: each for each in needs()}
    cells = [found[f"T1/{model}/sam-over-sgd"] for model in plan.grid["model"]]
    average = found["T1/average/sam-over-sgd"]
    assert average.flop == pytest.approx(sum(each.flop for each in cells)) and average.hours == pytest.approx(sum(each.hours for each in cells))
    one = cells[1]
    assert one.claim.ours == "sam" and one.spread == pytest.approx(math.hypot(0.26, 0.26)) and one.effect == pytest.approx(0.08)
    assert one.hours == pytest.approx(2 * 200 * 23 / 3600) and one.all_hours == one.pairs * one.hours
    # two methods at a time make half of the table, since SAM is in three of the comparisons
    assert sum(flop_of_run(run) for run in plan.runs().values()) / 1e18 == pytest.approx(21.6, abs=0.1)


def test_what_has_no_spread_has_no_pairs_and_what_has_no_plan_no_price():
    found = needs()
    assert len(found) == sum(bool(claim.published) for claim in listing.claims())
    without = [each for each in found if each.spread is None]
    assert without and all(each.pairs is None and each.all_hours is None for each in without)
    unplanned = [each for each in found if not each.claim.experiment]
    assert unplanned and all(each.flop is None and each.hours is None for each in unplanned)
    ours = dataclasses.replace(found[0].claim, published={})
    assert need(ours, None) is None and needed.TIMED.keys() <= set(listing.experiment("T1").grid["model"])
