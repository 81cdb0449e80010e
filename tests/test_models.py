"""The networks: shapes, sizes, where their randomness comes from."""

import pytest
import torch
from torch import nn

from bisam.models import MODELS, build, mlp

each_model = pytest.mark.parametrize("name", MODELS)


@each_model
@pytest.mark.parametrize("shape, classes", [((1, 8, 8), 10), ((3, 12, 8), 4), ((1, 4, 4), 1)])
def test_samples_become_logits(name, shape, classes):
    assert build(name, shape, classes)(torch.zeros(2, *shape)).shape == (2, classes)


@each_model
def test_initial_weights_come_from_the_global_random_state(name):
    first, second = build(name, (1, 8, 8), 10), build(name, (1, 8, 8), 10)
    torch.manual_seed(0)  # where the fixture has put it before the first
    again = build(name, (1, 8, 8), 10)
    pairs = list(zip(first.parameters(), second.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(a, c) for a, _, c in pairs) and not all(torch.equal(a, b) for a, b, _ in pairs)


@pytest.mark.parametrize("name, count", [("small_conv", 15418), ("mlp", 26122)])
def test_numbers_of_parameters(name, count):
    assert sum(p.numel() for p in build(name, (1, 8, 8), 10).parameters()) == count


def test_depth_width_and_dropout_of_the_perceptron():
    layers = mlp((1, 8, 8), 10, width=7, depth=3, dropout=0.25)
    assert [layer.out_features for layer in layers if isinstance(layer, nn.Linear)] == [7, 7, 7, 10]
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.25] * 3
    assert not any(isinstance(layer, nn.Dropout) for layer in mlp((1, 8, 8), 10))


def test_an_unknown_network_is_named():
    with pytest.raises(ValueError, match=r"model must be one of small_conv, mlp; got 'resnet'"):
        build("resnet", (1, 8, 8), 10)
