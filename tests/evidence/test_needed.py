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
    digits = Run(recipe="sam", model="mlp", epochs=3)
    assert flop_of_run(digits) == 3 * 2 * (64 * 128 + 128 * 128 + 128 * 10) * 1_000 * 3 * 2 and hours_of_run(digits) is None
    assert flop_of_run(digits.replace(bootstrap=True)) == 2 * flop_of_run(digits)


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


def test_what_has_no_spread_has_no_pairs_and_every_plan_has_a_price():
    found = needs()
    assert len(found) == sum(bool(claim.published) for claim in listing.claims())
    without = [each for each in found if each.spread is None]
    assert without and all(each.pairs is None and each.all_hours is None for each in without)
    assert all(each.claim.experiment and each.flop for each in found)  # every published claim has a plan, and the plan a price
    ours = dataclasses.replace(found[0].claim, published={})
    assert need(ours, None) is None and needed.TIMED.keys() <= set(listing.experiment("T1").grid["model"])


def test_what_is_not_there_is_priced_by_what_is_known_of_its_size(tmp_path):
    tuned = Run(recipe="sam", data="flowers102", loading="stream", model="vit-b-16:imagenet", epochs=1, batch_size=512)
    # 12 layers of width 768 on 197 tokens, patches of 16 x 16 pixels, and the attention itself
    products = 196 * 768 * 768 + 12 * (197 * 12 * 768**2 + 2 * 197**2 * 768)
    assert flop_of_run(tuned, str(tmp_path)) / (3 * 2 * products * 1_836 * 2) == pytest.approx(1, rel=0.01)
    words = Run(recipe="sam", data="glue:rte:large", model="encoder:large", epochs=2)
    assert flop_of_run(words, str(tmp_path)) == 6 * 85e6 * 128 * 2_241 * 2 * 2
    translated = Run(recipe="sgd", data="parallel:iwslt14", model="seq2seq_small", epochs=1)
    assert 1e13 < flop_of_run(translated, str(tmp_path)) < 1e17
    with pytest.raises(needed.DataError, match="is not there"):
        flop_of_run(Run(data="parallel:mine", model="seq2seq_small"), str(tmp_path))


def test_a_table_of_photographs_has_operations_and_no_published_seconds():
    found = {each.claim.id: each for each in needs() if each.claim.id.startswith(("T3", "T4"))}
    assert len(found) == 6 and all(each.flop and each.hours is None for each in found.values())
