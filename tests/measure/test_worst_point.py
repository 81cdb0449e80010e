"""The climb and the rise: written out, in known bowls, and under rescaling."""

import copy
import math
import re

import pytest
import torch
from small_nets import CE, F64, net, of_vector, output, quadratic, samples
from torch import nn

import bisam
from bisam import L2, Adaptive, Batch, Lp
from bisam.measure import climb, loss_rise, m_sharpness, misclassified, top_eigenvalues, trace


@pytest.mark.parametrize("recipe", [bisam.SAM, bisam.ASAM, bisam.SAM.replace(geometry=Lp(math.inf))], ids=lambda r: r.name)
@pytest.mark.parametrize("kind", ["plain", "norm"])
def test_one_step_is_the_climb_of_the_optimiser(recipe, kind):
    model, (x, y) = net(kind), samples()
    found = loss_rise(model, CE, x, y, recipe.radius.rho, recipe.geometry, batch_norm="batch")
    flips = misclassified(
        model, x, y, climb(model, CE, x, y, recipe.radius.rho, recipe.geometry, batch_norm="batch"), batch_norm="batch"
    )
    opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), recipe, record=True)
    opt.step(Batch(model, x, y))
    assert found == pytest.approx(opt.last.loss_rise, rel=1e-12) and found > 0
    assert flips.broken - flips.mended == pytest.approx(len(x) * opt.last.zero_one_rise)


def test_rise_is_the_difference_of_the_losses_written_out():
    model, (x, y) = net(), samples()
    function, w = of_vector(model, x, lambda logits: CE(logits, y))
    w.requires_grad_()
    (g,) = torch.autograd.grad(function(w), w)
    expected = float((function(w + 0.3 * g / g.norm()) - function(w)).detach())
    for samples_at_a_time in (1, 5, 100):
        assert loss_rise(model, CE, x, y, 0.3, samples_at_a_time=samples_at_a_time) == pytest.approx(expected, rel=1e-12)


def test_adaptive_rise_is_written_out_too():
    model, (x, y) = net(), samples()
    function, w = of_vector(model, x, lambda logits: CE(logits, y))
    w.requires_grad_()
    (g,) = torch.autograd.grad(function(w), w)
    epsilon = 0.5 * w.detach() ** 2 * g / (w.detach() * g).norm()
    expected = float(function(w.detach() + epsilon) - function(w.detach()))
    assert loss_rise(model, CE, x, y, 0.5, Adaptive(0.0, "all")) == pytest.approx(expected, rel=1e-12)


def test_many_steps_reach_the_highest_point_of_a_quadratic_in_a_ball():
    given = torch.tensor([9.0, 4.0, 1.0, -2.0])
    model, x, y = quadratic(given)
    matrix, w, rho = model.matrix, model.w.detach(), 0.7
    # On the edge (A + shift) eps = -A w, with a shift below -lambda_max for the maximum; found by bisection.
    low, high = -1e6, -9.0 - 1e-9
    for _ in range(300):
        middle = (low + high) / 2
        epsilon = torch.linalg.solve(matrix + middle * torch.eye(4, dtype=F64), -(matrix @ w))
        low, high = (middle, high) if epsilon.norm() < rho else (low, middle)
    best = float((w + epsilon) @ matrix @ (w + epsilon) / 2 - w @ matrix @ w / 2)
    found = [loss_rise(model, output, x, y, rho, steps=k) for k in (1, 2, 5, 20, 200)]
    assert found == sorted(found) and found[0] < found[-1]
    assert found[-1] == pytest.approx(best, rel=1e-6)


def test_near_a_minimum_the_rise_is_the_largest_curvature():
    model, x, y = quadratic([*range(1, 6), 8])
    with torch.no_grad():
        model.w.mul_(1e-6)
    assert loss_rise(model, output, x, y, 0.5, steps=300) == pytest.approx(0.5 * 0.5**2 * 8, rel=1e-3)


@pytest.mark.parametrize("geometry", [L2(), Lp(4), Lp(math.inf), Adaptive(0.1)], ids=repr)
@pytest.mark.parametrize("steps", [1, 6])
def test_the_climb_stays_in_its_ball(geometry, steps):
    model, (x, y) = net(), samples()
    epsilon = climb(model, CE, x, y, 0.4, geometry, steps)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    assert float(geometry.norm(epsilon, weights)) <= 0.4 * (1 + 1e-12)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for name, p in moved.named_parameters():
            p.add_(epsilon[name])
    rise = float((CE(moved(x), y) - CE(model(x), y)).detach())
    assert rise == pytest.approx(loss_rise(model, CE, x, y, 0.4, geometry, steps), rel=1e-9)
    assert rise >= loss_rise(model, CE, x, y, 0.4, geometry) > 0


def test_no_radius_no_rise():
    model, (x, y) = net(), samples()
    assert loss_rise(model, CE, x, y, 0) == 0 and loss_rise(model, CE, x, y, 0.0, Adaptive(), steps=3) == 0


def test_m_sharpness():
    model, (x, y) = net(), samples(12)
    whole = loss_rise(model, CE, x, y, 0.3)
    assert m_sharpness(model, CE, x, y, 0.3, m=12) == whole
    each = [loss_rise(model, CE, x[k : k + 1], y[k : k + 1], 0.3) for k in range(12)]
    assert m_sharpness(model, CE, x, y, 0.3, m=1) == pytest.approx(sum(each) / 12, rel=1e-12)
    assert sum(each) / 12 > 1.2 * whole
    uneven = (5 * loss_rise(model, CE, x[:5], y[:5], 0.3) + 5 * loss_rise(model, CE, x[5:10], y[5:10], 0.3)) / 12
    uneven += 2 * loss_rise(model, CE, x[10:], y[10:], 0.3) / 12
    assert m_sharpness(model, CE, x, y, 0.3, m=5) == pytest.approx(uneven, rel=1e-12)


def test_m_sharpness_falls_only_where_parts_are_not_nested():
    """Of linear losses with slopes +1, -1, +1, -1, +1, -1 a part rises by rho times the size of its mean slope."""
    model, slopes = nn.Linear(1, 1, bias=False).double(), torch.tensor([1.0, -1.0] * 3).double().unsqueeze(1)
    found = [m_sharpness(model, lambda outputs, _: outputs.mean(), slopes, slopes, 0.3, m=m) for m in (6, 3, 2, 1)]
    assert found == pytest.approx([0, 0.1, 0, 0.3], abs=1e-12)


def rescaled(model, factor):
    """Layer 0 times the factor, layer 2 divided by it: the same function, for rectifiers."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.mul_(factor)
        other[0].bias.mul_(factor)
        other[2].weight.div_(factor)
    return other


def test_rescaling_rectifiers_leaves_the_adaptive_rise_alone_and_moves_the_others():
    model, (x, y) = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double(), samples(30)
    other = rescaled(model, 8.0)
    assert torch.allclose(model(x), other(x), rtol=1e-12, atol=1e-13)
    unit_free = Adaptive(eta=0.0, scaled="all")
    for steps in (1, 10):
        a, b = (loss_rise(m, CE, x, y, 0.2, unit_free, steps) for m in (model, other))
        assert a == pytest.approx(b, rel=1e-9) and a > 0
    parts = [m_sharpness(m, CE, x, y, 0.2, 10, unit_free) for m in (model, other)]
    assert parts[0] == pytest.approx(parts[1], rel=1e-9)
    for geometry in (L2(), Lp(math.inf), Adaptive(eta=0.0), Adaptive(eta=0.01, scaled="all")):
        a, b = (loss_rise(m, CE, x, y, 0.2, geometry) for m in (model, other))
        assert abs(a / b - 1) > 1e-3, geometry
    for measure in (top_eigenvalues, trace):
        a, b = (float(measure(m, CE, x, y)) for m in (model, other))
        assert b > 3 * a


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("rho", [1e10, 1e20, 1e30, 3e38, 1e39, 1e300])
def test_a_huge_radius_is_a_huge_rise_or_an_error_that_names_it(rho, steps):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 4)) if steps == 3 else nn.Linear(6, 4)
    x, y = torch.randn(8, 6), torch.randint(0, 4, (8,))
    before = [p.detach().clone() for p in model.parameters()]
    try:
        assert loss_rise(model, nn.CrossEntropyLoss(), x, y, rho=rho, steps=steps) > 1e6
    except (ValueError, FloatingPointError) as error:
        assert rho > 1e15 and re.search(r"rho (=|must be at most)", str(error)) and repr(rho) in str(error)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
