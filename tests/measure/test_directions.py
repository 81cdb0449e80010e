"""Directions in units of the weights, and what a rescaling of the network may change in a picture."""

import copy

import pytest
import torch
from digit_nets import GRID, METRICS, X, Y, network, plane
from torch import nn

from bisam.measure import gaussian, landscape, normalised, weights_of


def test_every_filter_has_the_length_of_its_weights_and_keeps_its_direction():
    model = network()
    w, u = weights_of(model), gaussian(model, 0)
    found = normalised(u, w, vectors="scaled")
    for name in w:
        rows = len(w[name]) if w[name].ndim > 1 else 1
        ours, weight, drawn = (part[name].reshape(rows, -1) for part in (found, w, u))
        torch.testing.assert_close(ours.norm(dim=1), weight.norm(dim=1), rtol=1e-12, atol=1e-15)
        cosine = nn.functional.cosine_similarity(ours, drawn)
        assert ((cosine > 1 - 1e-12) | (weight.norm(dim=1) == 0)).all()
    assert torch.equal(u["0.weight"], gaussian(model, 0)["0.weight"])


def test_other_scales_and_vectors():
    model = network()
    w, u = weights_of(model), gaussian(model, 0)
    whole = normalised(u, w, by="tensor")
    torch.testing.assert_close(whole["0.weight"].norm(), w["0.weight"].norm())
    assert not torch.allclose(whole["0.weight"][0].norm(), w["0.weight"][0].norm(), rtol=1e-3)
    assert torch.equal(normalised(u, w, by="none")["0.weight"], u["0.weight"])
    for by in ("filter", "tensor", "none"):
        zeroed = normalised(u, w, by=by, vectors="zero")
        assert [name for name in w if not zeroed[name].any()] == [name for name in w if w[name].ndim < 2]
    assert torch.equal(normalised(u, w, by="none", vectors="scaled")["10.bias"], u["10.bias"])


def test_zero_weights_and_zero_directions_give_zero_and_no_nan():
    w, zero = {"weight": torch.tensor([[3.0, 4.0], [0.0, 0.0]])}, {"weight": torch.zeros(2, 2)}
    assert torch.equal(normalised(zero, w)["weight"], zero["weight"])
    assert torch.equal(normalised({"weight": torch.ones(2, 2)}, w)["weight"][1], torch.zeros(2))


def test_a_direction_is_shared_by_models_of_any_type():
    one, other = gaussian(network(seed=0).float(), 7), gaussian(network(seed=1), 7)
    for name in one:
        assert one[name].dtype == torch.float32 and other[name].dtype == torch.float64
        assert torch.equal(one[name], other[name].float())
    assert not torch.equal(other["0.weight"], gaussian(network(), 8)["0.weight"])
    entries = torch.cat([part.flatten() for part in other.values()])
    assert abs(entries.mean()) < 0.05 and abs(entries.std() - 1) < 0.05


def test_a_direction_leaves_the_random_state_alone():
    model, state = network(), torch.get_rng_state()
    gaussian(model, 7)
    assert torch.equal(torch.get_rng_state(), state)


def rescaled(model, factor):
    """The same function: the first layer times a factor (a number, or one a unit), the second divided by it."""
    twin = copy.deepcopy(model)
    factor = torch.as_tensor(factor, dtype=torch.float64) * torch.ones(len(model[1].bias), dtype=torch.float64)
    with torch.no_grad():
        twin[1].weight.mul_(factor[:, None])
        twin[1].bias.mul_(factor)
        twin[3].weight.div_(factor)
    torch.testing.assert_close(twin(X), model(X), rtol=1e-12, atol=1e-12)
    return twin


def pictures(model, other, by, vectors="scaled"):
    return [landscape(m, plane(m, by, vectors), GRID, X, Y, METRICS)["ce"] for m in (model, other)]


@pytest.mark.parametrize("factor", [0.01, 3.0, 50.0])
def test_filter_normalised_pictures_survive_the_rescaling_of_a_layer_and_raw_ones_do_not(factor):
    model = network("mlp")
    other = rescaled(model, factor)
    for by in ("filter", "tensor"):
        one, two = pictures(model, other, by)
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)
    one, two = pictures(model, other, "none")
    assert (one / two - 1).abs().max() > 0.05


def test_biases_left_out_of_the_direction_do_not_break_the_invariance():
    model = network("mlp")
    one, two = pictures(model, rescaled(model, 20.0), "filter", vectors="zero")
    torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)  # they are scaled with their layer


def test_a_factor_that_differs_from_unit_to_unit_does_change_the_picture():
    model = network("mlp")
    one, two = pictures(model, rescaled(model, torch.linspace(0.02, 50, 128)), "filter")
    assert (one / two - 1).abs().max() > 0.05


def test_batch_norm_makes_the_scale_of_a_filter_irrelevant():
    model = network()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[3].weight.mul_(torch.linspace(0.5, 20, 32)[:, None, None, None])
    one, two = (landscape(m, plane(m), GRID, X, Y, METRICS, batch_norm="batch")["ce"] for m in (model, other))
    torch.testing.assert_close(one, two, rtol=1e-2, atol=1e-3)  # up to the eps of batch norm
    one, two = (landscape(m, plane(m, "none"), GRID, X, Y, METRICS, batch_norm="batch")["ce"] for m in (model, other))
    assert (one / two - 1).abs().max() > 0.05


def test_errors_of_directions_name_the_argument():
    model = network("mlp")
    w, u = weights_of(model), gaussian(model, 0)
    with pytest.raises(ValueError, match="by must be one of filter, tensor, none"):
        normalised(u, w, by="layer")
    with pytest.raises(ValueError, match="vectors must be one of zero, scaled"):
        normalised(u, w, vectors="keep")
    with pytest.raises(ValueError, match="direction must have the names that weights has"):
        normalised({"weight": torch.ones(2, 2)}, w)
    with pytest.raises(TypeError, match="direction must be a dictionary"):
        normalised(torch.ones(2), w)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        gaussian(model, -1)
