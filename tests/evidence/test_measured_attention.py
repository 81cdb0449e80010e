"""The rows on maps of attention in results/measured: their form, that they fit together, and that the tool measures what it says."""

import itertools
import tomllib

import pytest
import torch
from scripts import tool

from bisam.evidence import measured
from bisam.evidence.places import RESULTS
from bisam.measure import agreement, attention, looks
from bisam.training import data
from bisam.training.models import vision

TOOL = tool("measure_attention")
SEARCH, FOUND, PAIRS, LOOKS = (
    measured.load(name) for name in ("attention_search", "attention", "attention_pairs", "attention_looks")
)
KEYS = {*itertools.product(TOOL.METHODS, TOOL.SEEDS)}


def test_every_network_and_layer_is_there_once():
    assert (
        len(FOUND.networks) == len(KEYS) and {(row["method"], row["seed"]) for row in FOUND.networks} == KEYS
    )
    layers = [(row["method"], row["seed"], row["layer"]) for row in FOUND.rows]
    assert len(layers) == len(set(layers)) == TOOL.LAYERS * len(KEYS)
    within = [row for row in PAIRS.rows if row["method"] == row["other"]]
    assert len(within) == TOOL.LAYERS * len(TOOL.METHODS) * len([*itertools.combinations(TOOL.SEEDS, 2)])
    across = [row for row in PAIRS.rows if row["method"] != row["other"]]
    assert all(row["seed"] == row["other_seed"] for row in across)
    assert len(across) == TOOL.LAYERS * (len(TOOL.METHODS) - 1) * len(TOOL.SEEDS)


def test_the_rows_fit_together():
    assert all(0 <= row["concentration"] <= 1 and row["ink"] > 0 for row in FOUND.rows)
    assert all(0 <= row["agreement"] <= 1 for row in PAIRS.rows)
    for row in LOOKS.rows:
        parts = [int(part) for part in row["look"].split()]
        assert len(parts) == 16 and sum(parts) == pytest.approx(1000, abs=8)
    targets = data.digits().test.targets
    assert sorted({int(targets[row["image"]]) for row in LOOKS.rows}) == [*range(10)]


def test_the_settings_are_those_that_the_search_chooses():
    assert TOOL.chosen(SEARCH.rows)[0] in TOOL.RATES and TOOL.chosen(SEARCH.rows)[1] in TOOL.RADII
    assert TOOL.chosen(SEARCH.rows[:-1])[1] == 0
    assert not set(TOOL.SEARCH_SEEDS) & set(TOOL.SEEDS)
    tied = [{**row, "validation_accuracy": 50.0} for row in SEARCH.rows]
    assert TOOL.chosen(tied) == (min(TOOL.RATES), min(TOOL.RADII))


def test_every_prediction_names_a_column():
    plan = tomllib.loads((RESULTS / "measured" / "attention.toml").read_text(encoding="utf-8"))
    assert {*plan["methods"], plan["against"]} <= set(TOOL.METHODS)
    assert [one["of"] for one in plan["prediction"]] == ["concentration", "agreement", "ink", "dependence"]


def test_the_patches_with_the_highest_score_lose_their_ink():
    images = data.digits().test.inputs[:5]
    score = torch.zeros(5, 16)
    score[:, [0, 3, 5, 15]] = 1.0
    found = TOOL.erased(images, score)
    assert bool((found[:, 0, :2, :2] == images.min()).all()) and bool(
        (found[:, 0, 6:, 6:] == images.min()).all()
    )
    assert torch.equal(found[:, 0, :2, 2:6], images[:, 0, :2, 2:6])
    assert TOOL.patches(images).mean(1).tolist() == pytest.approx([1.0] * 5)
    assert TOOL.patches(found)[:, [0, 3, 5, 15]].abs().max() == 0


def test_a_network_that_looks_evenly_sees_the_ink_that_there_is():
    torch.manual_seed(0)
    net, split = vision.vit_tiny((1, 8, 8), 10), data.digits().test
    for part in net.modules():
        if isinstance(part, torch.nn.MultiheadAttention):
            torch.nn.init.zeros_(part.in_proj_weight[: part.embed_dim])
            torch.nn.init.zeros_(part.in_proj_bias[: part.embed_dim])
    network, rows, seen = TOOL.of_network(net, split.inputs, split.targets)
    for row in rows:
        assert row["concentration"] == pytest.approx(0, abs=1e-5) and row["ink"] == pytest.approx(
            1, abs=1e-5
        ) == pytest.approx(row["ink_other"], abs=1e-4)
    assert network["lost_random"] == 0, (
        "the last layer begins at zero, so that every class has the same score"
    )
    assert torch.equal(seen[-1], looks(attention(net, split.inputs)))
    assert agreement(seen[:2]).min() > 1 - 1e-4
