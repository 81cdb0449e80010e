"""The bounds stay below the step, are exact at a tie, and know their own slope."""

import math

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from bisam import NegLog, Tanh
from bisam.losses.bounds import GAMMA
from bisam.losses.bounds import heaviside as step

BOUNDS = {
    "neg-log": (NegLog(), reference.neg_log(GAMMA)),
    "neg-log, gamma 2": (NegLog(2.0), reference.neg_log(2.0)),
    "neg-log, gamma 40": (NegLog(40.0), reference.neg_log(40.0)),
    "tanh": (Tanh(), reference.tanh(0.1)),
    "tanh, alpha 1": (Tanh(1.0), reference.tanh(1.0)),
}
each_bound = pytest.mark.parametrize("bound, formula", BOUNDS.values(), ids=BOUNDS)
every_float = st.one_of(
    st.floats(width=32, allow_nan=False), st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38])
)


def grid(reach=60.0):
    side = torch.linspace(reach / 120, reach, 120, dtype=torch.float64)
    return torch.cat(
        [-side.flip(0), torch.zeros(1, dtype=torch.float64), side]
    )  # with an exact 0 in the middle


@each_bound
def test_value_is_that_of_the_formula(bound, formula):
    expected = torch.tensor([formula[0](x) for x in grid().tolist()], dtype=torch.float64)
    torch.testing.assert_close(bound(grid()), expected, rtol=1e-13, atol=1e-13)


@each_bound
def test_float32_value_is_that_of_the_formula(bound, formula):
    expected = torch.tensor([formula[0](x) for x in grid().tolist()])
    torch.testing.assert_close(bound(grid().float()), expected, rtol=1e-6, atol=1e-6)


@each_bound
def test_derivative_is_that_of_the_formula_also_far_out(bound, formula):
    expected = torch.tensor([formula[1](x) for x in grid(300.0).tolist()], dtype=torch.float64)
    torch.testing.assert_close(bound.derivative(grid(300.0)), expected, rtol=1e-12, atol=0)


@each_bound
def test_derivative_is_what_autograd_makes_of_the_value_also_at_zero(bound, formula):
    x = grid(5.0).requires_grad_()
    (slope,) = torch.autograd.grad(bound(x).sum(), x)
    torch.testing.assert_close(slope, bound.derivative(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@given(x=st.lists(every_float, min_size=1, max_size=20))
def test_never_above_the_step(dtype, x):
    x = torch.tensor(x, dtype=dtype)
    for bound, _ in BOUNDS.values():
        assert (bound(x) <= step(x)).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bound", [NegLog(), Tanh(), Tanh(3.0)])
def test_exactly_zero_at_a_tie(bound, dtype):
    assert bound(torch.tensor([0.0, -0.0], dtype=dtype)).tolist() == [0.0, 0.0]


@each_bound
def test_shape_and_dtype_are_those_of_the_margins(bound, formula):
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        x = torch.zeros(2, 3, dtype=dtype)
        assert (
            (bound(x).dtype, bound(x).shape)
            == (bound.derivative(x).dtype, bound.derivative(x).shape)
            == (dtype, (2, 3))
        )


def test_a_larger_shift_is_looser_everywhere():
    assert (NegLog(2.0)(grid()) <= NegLog()(grid()) + 1e-15).all() and NegLog(2.0)(torch.zeros(1)) < -1


def test_step_is_zero_at_a_tie():
    assert step(torch.tensor([-1.0, -0.0, 0.0, 1e-45])).tolist() == [0.0, 0.0, 0.0, 1.0]


def test_bounds_are_compared_by_value_and_cannot_be_changed():
    assert Tanh(0.2) == Tanh(0.2) != Tanh(0.3) and hash(NegLog()) == hash(NegLog())
    with pytest.raises(AttributeError):
        Tanh(0.2).alpha = 0.3


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Tanh(0), ValueError, r"alpha must be greater than 0, got 0"),
        (lambda: Tanh(-0.5), ValueError, r"alpha must be greater than 0, got -0\.5"),
        (lambda: Tanh(math.inf), ValueError, r"alpha must be finite, got inf"),
        (lambda: Tanh(math.nan), ValueError, r"alpha must be finite, got nan"),
        (lambda: Tanh(True), TypeError, r"alpha must be a real number, not True of type bool"),
        (lambda: Tanh("0.1"), TypeError, r"alpha must be a real number, not '0\.1' of type str"),
        (lambda: NegLog(0.5), ValueError, r"gamma must be at least log\(e - 1\) = 0\.541325, got 0\.5"),
        (lambda: NegLog(math.nan), ValueError, r"gamma must be finite, got nan"),
        (lambda: NegLog(None), TypeError, r"gamma must be a real number, not None of type NoneType"),
    ],
)
def test_a_wrong_parameter_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
