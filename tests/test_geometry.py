"""The perturbation has length rho, points along the gradient, and forgets the scale of the loss."""

import math

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from bisam import L2
from bisam.geometry import euclidean_norm

SCALES = (1e-30, 1e-12, 1.0, 1e12, 1e30)


def gradient(scale=1.0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(0)
    shapes = {"weight": (3, 4), "bias": (3,), "scalar": ()}
    return {name: scale * torch.randn(shape, generator=draw, dtype=dtype) for name, shape in shapes.items()}


def flat(tensors):
    return torch.cat([tensor.double().flatten() for tensor in tensors.values()])


@pytest.mark.parametrize("rho", [0.0, 1e-3, 0.05, 7.0])
def test_perturbation_is_that_of_the_formula(rho):
    g = gradient()
    found = L2().perturbation(g, g, rho)
    for part, expected in zip(found.values(), reference.l2_step(list(g.values()), rho), strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_length_is_rho_at_every_scale_of_the_loss(dtype, scale):
    g = gradient(scale, dtype)
    found = L2().perturbation(g, g, 0.05)
    assert float(L2().norm(found, g)) == pytest.approx(0.05, rel=1e-6)
    assert float(flat(found).norm()) == pytest.approx(0.05, rel=1e-6)


@given(
    entries=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8),
    cut=st.integers(0, 8),
    rho=st.floats(1e-6, 10),
)
def test_pairing_with_the_gradient_is_rho_times_the_dual_norm(entries, cut, rho):
    g = {
        "a": torch.tensor(entries[:cut], dtype=torch.float64),
        "b": torch.tensor(entries[cut:], dtype=torch.float64),
    }
    climb = L2().perturbation(g, g, rho)
    pairing = sum(float((g[name] * climb[name]).sum()) for name in g)
    assert pairing == pytest.approx(rho * float(L2().dual_norm(g, g)), rel=1e-10, abs=1e-300)


@given(direction=st.lists(st.floats(-10, 10), min_size=5, max_size=5))
def test_no_other_point_of_the_ball_pairs_better(direction):
    g, other = torch.tensor([3.0, -1.0, 0.0, 2.0, 0.5]).double(), torch.tensor(direction).double()
    best = L2().perturbation({"w": g}, {"w": g}, 0.1)["w"]
    assert g @ other <= (g @ best) * other.norm() / 0.1 + 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_zero_gradient_gives_a_zero_perturbation(dtype):
    g = {"w": torch.zeros(3, dtype=dtype)}
    found = L2().perturbation(g, g, 0.05)["w"]
    assert found.dtype == dtype and found.tolist() == [0.0] * 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("entry", [1e-3, 300.0, 60000.0])
def test_squares_of_half_precision_gradients_do_not_overflow(entry, dtype):
    g = {"w": torch.full((1000,), entry, dtype=dtype), "b": torch.full((24,), entry, dtype=dtype)}
    found = L2().perturbation(g, g, 0.05)
    assert found["w"].dtype == dtype and float(flat(found).norm()) == pytest.approx(0.05, rel=5e-3)


def test_norm_of_half_precision_is_as_exact_as_in_float32():
    tensors = {"w": torch.full((1000,), 300.0, dtype=torch.float16)}
    assert float(euclidean_norm(tensors)) == pytest.approx(300 * math.sqrt(1000), rel=1e-6)


def test_norm_is_summed_in_float64_if_any_tensor_is():
    tensors = {"single": torch.tensor([1.0]), "double": torch.tensor([1e-6], dtype=torch.float64)}
    assert float(euclidean_norm(tensors)) == pytest.approx(math.sqrt(1 + 1e-12), rel=1e-15)


def test_a_norm_that_is_known_is_used():
    g = gradient()
    found = L2().perturbation(g, g, 0.05, dual_norm=torch.tensor(2.0, dtype=torch.float64))
    assert torch.equal(found["bias"], g["bias"] * 0.025)


def test_gradients_keep_their_names_and_values():
    g = gradient()
    before = reference.bits(g)
    assert list(L2().perturbation(g, g, 0.05)) == list(g) and reference.bits(g) == before


def test_nothing_has_norm_zero():
    assert euclidean_norm({}) == 0
