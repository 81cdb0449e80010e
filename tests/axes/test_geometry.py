"""The perturbation has length rho, points along the gradient, and forgets the scale of the loss."""

import math

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

import bisam
from bisam import (
    BISAM_LOG,
    L2,
    SAM,
    Adaptive,
    Batch,
    Constant,
    LossBudget,
    Lp,
    Masked,
    Only,
    SharpnessAware,
    _look,
)
from bisam.axes import Unnormalised
from bisam.axes.tensors import euclidean_norm

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


# -- other balls -----------------------------------------------------------------------------------

POWERS = [1, 1.2, 1.5, 2, 3, 7.0, math.inf]
SETS = [*map(Lp, POWERS), Adaptive(), Adaptive(0.0, "all"), Adaptive(0.5, "all")]


def weights(dtype=torch.float64):
    draw = torch.Generator().manual_seed(1)
    return {name: torch.randn(g.shape, generator=draw, dtype=dtype) for name, g in gradient().items()}


def assert_same(found, expected):
    for part, other in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(part, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("p", POWERS)
def test_the_p_ball_is_that_of_the_formula(p):
    g = gradient()
    assert_same(Lp(p).perturbation(g, g, 0.3), reference.lp_step(list(g.values()), 0.3, p))


def test_the_spike_is_shared_by_entries_that_tie():
    g = {"w": torch.tensor([2.0, -2.0, 1.0])}
    assert Lp(1).perturbation(g, g, 1.0)["w"].tolist() == [0.5, -0.5, 0.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_spike_and_the_sign_step_move_for_every_gradient(dtype):
    draw = torch.Generator().manual_seed(0)
    for _ in range(500):
        g = {name: torch.randn(3, generator=draw).to(dtype) for name in "ab"}
        spike, sign = (Lp(p).perturbation(g, g, 0.5) for p in (1, math.inf))
        size = torch.cat([part.abs() for part in g.values()])
        tops = (size == size.max()).sum()
        assert (flat(spike) != 0).equal(size == size.max()) and float(flat(spike).abs().sum()) == pytest.approx(0.5, rel=1e-2)
        assert tops > 1 or flat(spike).abs().max() == 0.5
        assert flat(sign).equal(0.5 * torch.cat([part.sign() for part in g.values()]))


@pytest.mark.parametrize("eta, scaled", [(0.01, "weights"), (0.0, "all"), (0.5, "all")])
def test_the_ellipsoid_is_that_of_the_formula(eta, scaled):
    g, w = gradient(), weights()
    which = [scaled == "all" or "weight" in name for name in g]
    expected = reference.adaptive_step(list(g.values()), list(w.values()), 0.3, eta, which)
    assert_same(Adaptive(eta, scaled).perturbation(g, w, 0.3), expected)


@pytest.mark.parametrize("ball", SETS, ids=str)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_length_is_rho_and_the_pairing_rho_times_the_dual_norm(ball, scale):
    g, w = gradient(scale), weights()
    found = ball.perturbation(g, w, 0.3)
    assert float(ball.norm(found, w)) == pytest.approx(0.3, rel=1e-12)
    assert float(flat(g) @ flat(found)) == pytest.approx(0.3 * float(ball.dual_norm(g, w)), rel=1e-12)


@pytest.mark.parametrize("ball", SETS, ids=str)
def test_no_point_of_the_set_pairs_better_with_the_gradient(ball):
    g, w = gradient(), weights()
    best = float(flat(g) @ flat(ball.perturbation(g, w, 1.0)))
    draw = torch.Generator().manual_seed(2)
    for _ in range(200):
        other = {name: torch.randn(t.shape, generator=draw, dtype=t.dtype) for name, t in g.items()}
        length = float(ball.norm(other, w))
        assert float(flat(g) @ flat(other)) / length <= best * (1 + 1e-12)


@pytest.mark.parametrize("ball", SETS, ids=str)
def test_a_zero_gradient_moves_nothing_and_the_inputs_stay(ball):
    g, w = {name: torch.zeros_like(t) for name, t in gradient().items()}, weights()
    assert not flat(ball.perturbation(g, w, 0.3)).any()
    g, before = gradient(), flat(gradient())
    ball.perturbation(g, w, 0.3), ball.norm(g, w), ball.dual_norm(g, w)
    assert torch.equal(flat(g), before) and torch.equal(flat(w), flat(weights()))


@pytest.mark.parametrize("ball", [Lp(2), Adaptive(1.0, "all")], ids=str)
def test_at_its_neutral_setting_a_ball_is_the_round_one(ball):
    g, w = gradient(), {name: torch.zeros_like(t) for name, t in gradient().items()}
    assert_same(ball.perturbation(g, w, 0.3), list(L2().perturbation(g, w, 0.3).values()))


def test_a_weight_of_zero_cannot_move_without_eta():
    g, w = {"weight": torch.ones(2)}, {"weight": torch.tensor([0.0, 2.0])}
    found = Adaptive(0.0).perturbation(g, w, 0.5)
    assert found["weight"][0] == 0 and float(Adaptive(0.0).norm(found, w)) == pytest.approx(0.5)


def test_rescaling_a_layer_rescales_its_perturbation_alike():
    """The point of ASAM: w -> c w with g -> g / c, which leaves a ReLU network as it is, multiplies epsilon by c."""
    g, w, c = gradient(), weights(), 7.0
    ball = Adaptive(0.0, "all")
    plain = ball.perturbation(g, w, 0.3)
    moved = ball.perturbation({**g, "weight": g["weight"] / c}, {**w, "weight": w["weight"] * c}, 0.3)
    torch.testing.assert_close(moved["weight"], c * plain["weight"], rtol=1e-12, atol=0)
    torch.testing.assert_close(moved["bias"], plain["bias"], rtol=1e-12, atol=0)


@pytest.mark.parametrize("recipe", [SAM, BISAM_LOG], ids=lambda row: row.name)
@pytest.mark.parametrize("scaled, which", [("weights", [True, False] * 2), ("all", [True] * 4)])
def test_a_step_scales_the_parameters_that_the_model_calls_weights(recipe, scaled, which):
    model, (x, y) = reference.net(), reference.samples()
    parameters = list(model.parameters())
    recipe = recipe.replace(geometry=Adaptive(0.01, scaled), radius=Constant(0.5))
    g = torch.autograd.grad(recipe.raised(model(x), y), parameters)
    climb = reference.adaptive_step(g, parameters, 0.5, 0.01, which)
    start = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        [p.add_(e) for p, e in zip(parameters, climb, strict=True)]
    descent = torch.autograd.grad(recipe.descent(model(x), y), parameters)
    with torch.no_grad():
        [p.copy_(w) for p, w in zip(parameters, start, strict=True)]
    SharpnessAware(torch.optim.SGD(parameters, lr=0.1), recipe).step(Batch(model, x, y))
    for p, w, d in zip(parameters, start, descent, strict=True):
        torch.testing.assert_close(p.detach(), w - 0.1 * d, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("make, error, message", [
    (lambda: Lp(0.5), ValueError, r"p must be 1 or greater, math\.inf included; got 0\.5"),
    (lambda: Lp(math.nan), ValueError, "p must be 1 or greater"),
    (lambda: Lp("2"), TypeError, "p must be a real number, not '2'"),
    (lambda: Adaptive(-0.1), ValueError, r"eta must be 0 or greater, got -0\.1"),
    (lambda: Adaptive(scaled="biases"), ValueError, "scaled must be one of weights, all; got 'biases'"),
])
def test_a_wrong_set_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


SETS = {"L2": L2(), "adaptive": Adaptive(eta=1.0), "p = 1": Lp(1), "p = 3": Lp(3), "box": Lp(math.inf)}


@pytest.mark.parametrize("size, rho", [(1e-42, 0.05), (1e-44, 1e-3), (1e-30, 1e20), (1.0, 3e38), (1e-45, 1e38), (1e30, 1e-12)])
@pytest.mark.parametrize("ball", SETS.values(), ids=SETS)
def test_the_climb_is_as_long_as_the_radius_whatever_the_ratio_of_both(ball, size, rho):
    g, w = {"weight": torch.tensor([size, 0.0])}, {"weight": torch.zeros(2)}
    assert ball.perturbation(g, w, rho)["weight"].tolist() == [pytest.approx(rho, rel=1e-5), 0.0]
    in_place = ball.worst_point(g, w, lambda size: rho, spare=True)[1]
    assert in_place["weight"].tolist() == [pytest.approx(rho, rel=1e-5), 0.0]


@pytest.mark.parametrize("ball", [*SETS.values(), Unnormalised()], ids=repr)
def test_a_gradient_of_exactly_zero_moves_nothing_also_with_a_radius_of_zero(ball):
    g, w = {"weight": torch.zeros(2)}, {"weight": torch.ones(2)}
    for rho in (0.0, 0.05, 3e38, torch.tensor(0.05)):
        assert ball.perturbation(g, w, rho)["weight"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dtype, rho", [(torch.float16, 1e5), (torch.float32, 1e39), (torch.float32, 1e300), (torch.bfloat16, 1e39)])
@pytest.mark.parametrize("ball", [*SETS.values(), Unnormalised()], ids=repr)
def test_a_radius_beyond_the_range_of_the_weights_is_refused(ball, dtype, rho):
    g, w = {"weight": torch.ones(2, dtype=dtype)}, {"weight": torch.ones(2, dtype=dtype)}
    for radius in (rho, torch.tensor(rho, dtype=torch.float64)):
        with pytest.raises(ValueError, match=rf"rho must be at most .*, the largest number in {dtype}, got 1"):
            ball.perturbation(g, w, radius)
    with pytest.raises(ValueError, match="rho must be at most"):
        ball.worst_point(g, w, lambda size: rho, spare=True)


@pytest.mark.parametrize("inside", [False, True])
def test_a_loss_budget_needs_a_ball(inside):
    geometry = Masked(Unnormalised(), keep=0.5) if inside else Unnormalised()
    with pytest.raises(ValueError, match=r"geometry must be a ball with radius LossBudget, .*got .*Unnormalised\(\)"):
        SAM.replace(geometry=geometry, radius=LossBudget(budget=0.1, rho=1.0))


def test_entries_that_cannot_move_count_in_the_adaptive_norm_only_if_they_have_moved():
    w = {"weight": torch.tensor([0.0, 2.0])}
    for moved, size in (([0.0, 1.0], 0.5), ([1.0, 1.0], math.inf), ([-1.0, 1.0], math.inf)):
        assert Adaptive(eta=0.0).norm({"weight": torch.tensor(moved)}, w).item() == size
    assert Adaptive(eta=0.0).norm({"weight": torch.tensor([math.nan, 1.0])}, w).isnan()


def test_where_the_ratio_cannot_be_read_the_climb_is_shorter_but_there(monkeypatch):
    monkeypatch.setattr(_look, "is_free", lambda tensor: False)  # as on a GPU
    for size in (1e-40, 1e-25, 1e-20):
        moved = L2().perturbation({"w": torch.tensor([size, 0.0])}, {}, 0.05)["w"]
        assert moved.tolist() == [pytest.approx(0.05 * size / torch.finfo(torch.float32).tiny ** 0.5, rel=1e-4), 0.0]
    for size in (1e-18, 1.0, 1e18):
        assert L2().perturbation({"w": torch.tensor([size])}, {}, 0.05)["w"].item() == pytest.approx(0.05, rel=1e-4)
    assert L2().perturbation({"w": torch.zeros(2)}, {}, 0.05)["w"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("changed", [
    {"geometry": L2()}, {"geometry": Adaptive()}, {"geometry": Lp(3)}, {"geometry": Masked(L2(), keep=0.5)},
    {"geometry": Only(L2())}, {"geometry": Unnormalised()}, {"radius": LossBudget(budget=1e39, rho=1e39)},
], ids=repr)
def test_a_step_refuses_a_radius_beyond_the_range_and_leaves_the_weights(changed):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    recipe = SAM.replace(**{"radius": Constant(1e39)} | changed)
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), recipe)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=r"rho must be at most 3\.403e\+38"):
        opt.step(Batch(model, torch.randn(5, 3), torch.tensor([0, 1, 2, 3, 0])))
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("keep", [0.5, 0.3, 1e-5, 1.0])
def test_a_large_mask_keeps_its_share_and_comes_again(keep):
    memory = bisam.axes.Memory(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), seed=0)
    weights = {"w": torch.empty(1024, 1025), "small": torch.empty(3, 5)}
    drawn = [bisam.Masked(keep=keep).mask(weights, memory)["w"] for _ in range(2)]
    memory.generator(torch.device("cpu")).manual_seed(0)
    again = bisam.Masked(keep=keep).mask(weights, memory)["w"]
    n = again.numel()
    assert torch.equal(again, drawn[0]) and again.shape == (1024, 1025)
    assert all(abs(int(mask.sum()) - keep * n) <= 5 * (n * keep * (1 - keep)) ** 0.5 + n / 2**17 for mask in drawn)
    if keep in (0.5, 0.3):  # neighbours, which may come from one draw, know nothing of each other
        pairs = drawn[0].flatten()[: n // 2 * 2].view(-1, 2).double()
        assert abs(float(torch.corrcoef(pairs.T)[0, 1])) < 0.01 and not torch.equal(*drawn)
