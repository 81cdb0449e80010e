"""Measures of sharpness against dense matrices, known spectra and symmetries; and that measuring changes nothing."""

import copy
import math
import re
import subprocess
import sys

import numpy
import pytest
import torch
from torch import nn

import bisam
from bisam import L2, Adaptive, Batch, Lp
from bisam.measure import sharpness
from bisam.measure.sharpness import (
    climb,
    loss_rise,
    m_sharpness,
    misclassified,
    spectral_density,
    top_eigenvalues,
    trace,
)

pytest.importorskip("curvlinops")
F64 = torch.float64
CE = bisam.CrossEntropy()


def net(kind="plain", inputs=4, hidden=5, classes=3):
    """Few enough weights for a dense Hessian; tanh, so that it exists everywhere."""
    middle = {"plain": [], "norm": [nn.BatchNorm1d(hidden)], "dropout": [nn.Dropout(0.5)]}[kind]
    return nn.Sequential(nn.Linear(inputs, hidden), *middle, nn.Tanh(), nn.Linear(hidden, classes)).double()


def samples(n=12, inputs=4, classes=3, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, inputs, generator=draw, dtype=F64), torch.randint(classes, (n,), generator=draw)


class Quadratic(nn.Module):
    """One weight vector w; the loss is w' A w / 2 whatever the samples."""

    def __init__(self, matrix, start):
        super().__init__()
        self.w, self.matrix = nn.Parameter(start.clone()), matrix

    def forward(self, x):
        return (self.w @ self.matrix @ self.w / 2).expand(len(x), 1)


def output(logits, targets):
    return logits.mean()


def quadratic(eigenvalues, seed=0):
    d = len(eigenvalues)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=F64)).Q
    matrix = rotation @ torch.diag(torch.as_tensor(eigenvalues, dtype=F64)) @ rotation.T
    start = torch.randn(d, generator=torch.Generator().manual_seed(seed + 1), dtype=F64)
    return Quadratic(matrix, start), torch.zeros(3, 1, dtype=F64), torch.zeros(3)


def of_vector(model, x, loss):
    """The loss as a function of all weights in one vector, and that vector."""
    weights = dict(model.named_parameters())
    sizes = [w.numel() for w in weights.values()]

    def function(vector):
        parts = {
            name: part.view_as(w) for (name, w), part in zip(weights.items(), vector.split(sizes), strict=True)
        }
        return loss(torch.func.functional_call(model, parts, (x,)))

    return function, torch.cat([w.detach().flatten() for w in weights.values()])


def dense_hessian(model, x, y, loss=CE):
    """Row by row with plain autograd."""
    function, w = of_vector(model, x, lambda logits: loss(logits, y))
    w.requires_grad_()
    (g,) = torch.autograd.grad(function(w), w, create_graph=True)
    return torch.stack([torch.autograd.grad(entry, w, retain_graph=True)[0] for entry in g])


def dense_ggn(model, x, y):
    """J' (diag p - p p') J, sample by sample: the Hessian of cross-entropy for the logits, written out."""
    total = 0
    for k in range(len(x)):
        function, w = of_vector(model, x[k : k + 1], lambda logits: logits[0])
        jacobian = torch.autograd.functional.jacobian(function, w)
        p = function(w).detach().softmax(0)
        total = total + jacobian.T @ (p.diag() - torch.outer(p, p)) @ jacobian
    return total / len(x)


# -- curvature ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [5, 100])
@pytest.mark.parametrize("hidden", [5, 20], ids=["dense", "lanczos"])
def test_eigenvalues_are_those_of_the_dense_hessian(hidden, chunk):
    model, (x, y) = net(hidden=hidden), samples()
    values = torch.linalg.eigvalsh(dense_hessian(model, x, y)).flip(0)
    assert (sum(p.numel() for p in model.parameters()) > sharpness.DENSE) == (hidden == 20)
    how = {"tolerance": 1e-10, "chunk": chunk}
    assert torch.allclose(top_eigenvalues(model, CE, x, y, 4, **how), values[:4], atol=1e-9)
    lowest = top_eigenvalues(model, CE, x, y, 3, which="smallest", **how)
    assert torch.allclose(lowest, values.flip(0)[:3], atol=1e-9) and lowest[0] < 0
    both = values[values.abs().argsort(descending=True)][:5]
    assert torch.allclose(top_eigenvalues(model, CE, x, y, 5, which="magnitude", **how), both, atol=1e-9)


@pytest.mark.parametrize("hidden", [5, 20], ids=["dense", "lanczos"])
def test_ggn_is_the_written_out_one_and_not_the_hessian(hidden):
    model, (x, y) = net(hidden=hidden), samples()
    ggn, hessian = dense_ggn(model, x, y), dense_hessian(model, x, y)
    assert (ggn - hessian).abs().max() > 1e-3
    found = top_eigenvalues(model, CE, x, y, 4, ggn=True, tolerance=1e-10, chunk=5)
    assert torch.allclose(found, torch.linalg.eigvalsh(ggn).flip(0)[:4], atol=1e-9)
    exact = trace(model, CE, x, y, products=10_000, ggn=True, chunk=5)
    assert exact == pytest.approx(float(ggn.trace()), rel=1e-10)
    assert float(top_eigenvalues(model, CE, x, y, which="smallest", ggn=True)) > -1e-6


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_other_losses_have_their_own_hessian(smoothing):
    model, (x, y) = net(), samples()
    for loss in (bisam.CrossEntropy(smoothing), bisam.BISAM_LOG.ascent, bisam.BISAM_TANH.ascent):
        values = torch.linalg.eigvalsh(dense_hessian(model, x, y, loss)).flip(0)
        assert torch.allclose(top_eigenvalues(model, loss, x, y, 3, chunk=5), values[:3], atol=1e-9)


def test_quadratic_has_the_spectrum_it_was_given():
    given = torch.cat([torch.tensor([30.0, 9.0, -4.0], dtype=F64), torch.linspace(0, 1, 97, dtype=F64)])
    model, x, y = quadratic(given)
    assert torch.allclose(top_eigenvalues(model, output, x, y, 2), given[:2], atol=1e-2)
    assert float(top_eigenvalues(model, output, x, y, which="smallest")) == pytest.approx(-4, abs=1e-2)
    assert top_eigenvalues(model, output, x, y, 3, which="magnitude").tolist() == pytest.approx([30, 9, -4], abs=1e-2)
    assert trace(model, output, x, y, products=100) == pytest.approx(float(given.sum()), rel=1e-10)


def test_matrices_of_low_rank_have_zeros_and_end_in_time():
    given = torch.tensor([5.0, 2.0] + [0.0] * 98)
    model, x, y = quadratic(given)
    assert top_eigenvalues(model, output, x, y, 4).tolist() == pytest.approx([5, 2, 0, 0], abs=1e-3)
    assert float(top_eigenvalues(model, output, x, y, which="smallest")) == pytest.approx(0, abs=1e-3)
    flat, x, y = quadratic(torch.zeros(100))
    assert top_eigenvalues(flat, output, x, y, 2).tolist() == [0, 0]


@pytest.mark.parametrize("estimator", ["hutch++", "xtrace", "hutchinson"])
def test_trace_estimators_are_right_on_average(estimator):
    model, (x, y) = net(hidden=20), samples()
    exact = float(dense_hessian(model, x, y).trace())
    found = [trace(model, CE, x, y, products=18, estimator=estimator, seed=s) for s in range(60)]
    error = numpy.std(found, ddof=1) / math.sqrt(len(found))
    assert 0 < error < 0.2 * abs(exact)
    assert abs(numpy.mean(found) - exact) < 4 * error


def test_trace_depends_on_the_seed_alone():
    model, (x, y) = net(hidden=20), samples()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = [trace(model, CE, x, y, products=9, seed=s) for s in (0, 1)]
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(4)
    assert [trace(model, CE, x, y, products=9, seed=s) for s in (0, 1)] == first
    assert first[0] != first[1]
    assert trace(model, CE, x, y, products=9) == trace(model, CE, x, y, products=11)  # whole thirds are spent


def test_spectral_density_is_the_smoothed_spectrum():
    given = torch.cat([torch.full((20,), 10.0), torch.linspace(-1, 1, 180)])
    model, x, y = quadratic(given)
    grid, density = spectral_density(model, output, x, y, products=24, repeats=40)
    area = torch.cumulative_trapezoid(density, grid)
    assert float(area[-1]) == pytest.approx(1, abs=0.02)
    below = float(area[int((grid < 5).sum()) - 1])
    assert below == pytest.approx(0.9, abs=0.02)  # a share of 20 / 200 sits at 10
    mean = float(torch.trapezoid(density * grid, grid))
    assert mean == pytest.approx(float(given.mean()), abs=0.15)
    assert grid[0] < -1 and grid[-1] > 10
    again = spectral_density(model, output, x, y, products=24, repeats=40)[1]
    assert torch.equal(density, again)


def test_spectral_density_says_when_it_broke_down():
    model, x, y = quadratic(torch.zeros(100))
    with pytest.raises(FloatingPointError, match="distinct eigenvalues"):
        spectral_density(model, output, x, y)


class Attention(nn.Module):
    def forward(self, x):
        q = x.view(len(x), 1, 4, 2)
        return nn.functional.scaled_dot_product_attention(q, q, q).flatten(1)


LAYERS = {
    "batch norm, batch": nn.BatchNorm1d(8),
    "batch norm, running": nn.BatchNorm1d(8),
    "layer norm": nn.LayerNorm(8),
    "group norm": nn.GroupNorm(2, 8),
    "instance norm": nn.Sequential(nn.Unflatten(1, (2, 4)), nn.InstanceNorm1d(2), nn.Flatten()),
    "convolution": nn.Sequential(nn.Unflatten(1, (2, 4)), nn.Conv1d(2, 2, 3, padding=1), nn.Flatten()),
    "attention": Attention(),
}


@pytest.mark.parametrize("name", LAYERS)
def test_products_agree_with_differences_of_gradients(name):
    """Independent of second derivatives, which libraries have got wrong for normalisation layers."""
    model = nn.Sequential(nn.Linear(4, 8), LAYERS[name], nn.Tanh(), nn.Linear(8, 3)).double()
    (x, y), how = samples(), {"batch_norm": "batch" if name.endswith("batch") else "running"}
    function, w = of_vector(copy.deepcopy(model).train(name.endswith("batch")), x, lambda logits: CE(logits, y))

    def gradient(at):
        at = at.clone().requires_grad_()
        return torch.autograd.grad(function(at), at)[0]

    step = 1e-5
    rows = [(gradient(w + step * e) - gradient(w - step * e)) / (2 * step) for e in torch.eye(len(w), dtype=F64)]
    values = torch.linalg.eigvalsh(torch.stack(rows)).flip(0)
    assert torch.allclose(top_eigenvalues(model, CE, x, y, 5, tolerance=1e-9, **how), values[:5], atol=1e-5)
    jacobian = torch.autograd.functional.jacobian(of_vector(copy.deepcopy(model).train(name.endswith("batch")), x, lambda f: f)[0], w)
    p = model.train(name.endswith("batch"))(x).detach().softmax(1)
    middle = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    ggn = torch.einsum("nid,nij,nje->de", jacobian, middle, jacobian) / len(x)
    found = top_eigenvalues(model, CE, x, y, 5, ggn=True, tolerance=1e-9, **how)
    assert torch.allclose(found, torch.linalg.eigvalsh(ggn).flip(0)[:5], atol=1e-8)


@pytest.mark.parametrize("batch_norm", ["running", "batch"])
def test_batch_norm_uses_the_statistics_that_were_asked_for(batch_norm):
    model, (x, y) = net("norm"), samples()
    for _ in range(3):
        model(2 * x + 1)
    reference = copy.deepcopy(model).train(batch_norm == "batch")
    values = torch.linalg.eigvalsh(dense_hessian(reference, x, y)).flip(0)
    found = top_eigenvalues(model, CE, x, y, 3, batch_norm=batch_norm)
    assert torch.allclose(found, values[:3], atol=1e-9)
    other = top_eigenvalues(model, CE, x, y, 3, batch_norm={"running": "batch", "batch": "running"}[batch_norm])
    assert (found - other).abs().max() > 1e-3
    parts = top_eigenvalues(model, CE, x, y, 3, batch_norm=batch_norm, chunk=6)
    assert torch.allclose(parts, found, atol=1e-9) == (batch_norm == "running")


# -- the rise -------------------------------------------------------------------------------------------------------------


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
    for chunk in (1, 5, 100):
        assert loss_rise(model, CE, x, y, 0.3, chunk=chunk) == pytest.approx(expected, rel=1e-12)


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


# -- rescaling ------------------------------------------------------------------------------------------------------------


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


# -- counts ---------------------------------------------------------------------------------------------------------------


def test_flips_on_a_case_made_by_hand():
    model = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0], [0.0]]))  # class 0 where x > 0
    x = torch.tensor([[1.0], [2.0], [-1.0], [-3.0], [0.0]], dtype=F64)
    y = torch.tensor([0, 1, 0, 1, 1])  # right, wrong, wrong, right, a tie: right
    turned = {"weight": torch.tensor([[-2.0], [0.0]], dtype=F64)}  # class 0 where x < 0
    flips = misclassified(model, x, y, turned, chunk=2)
    assert (flips.broken, flips.mended, flips.wrong, flips.n) == (2, 2, 2, 5) and flips.wrong_there == 2
    shifted = {"weight": torch.tensor([[0.0], [5.0]], dtype=F64)}  # class 1 where x > 0
    assert misclassified(model, x[:2], y[:2], shifted) == bisam.measure.Flips(broken=1, mended=1, wrong=1, n=2)
    none = misclassified(model, x, y, {"weight": torch.zeros(2, 1, dtype=F64)})
    assert (none.broken, none.mended, none.wrong) == (0, 0, 2)
    with pytest.raises(ValueError, match="perturbation must hold at least one tensor"):
        misclassified(model, x, y, {})


# -- nothing has changed --------------------------------------------------------------------------------------------------


class Exploding(nn.Module):
    """Fails in the n-th forward pass."""

    def __init__(self, at):
        super().__init__()
        self.left = at

    def forward(self, x):
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("it went off")
        return x


MEASURES = {
    "loss_rise": lambda m, x, y, **more: loss_rise(m, CE, x, y, 0.3, steps=3, **more),
    "adaptive": lambda m, x, y, **more: loss_rise(m, CE, x, y, 0.3, Adaptive(), **more),
    "m_sharpness": lambda m, x, y, **more: m_sharpness(m, CE, x, y, 0.3, 4, **more),
    "climb": lambda m, x, y, **more: climb(m, CE, x, y, 0.3, **more),
    "misclassified": lambda m, x, y, **more: misclassified(
        m, x, y, {n: torch.ones_like(p) for n, p in m.named_parameters()}, **more
    ),
    "top_eigenvalues": lambda m, x, y, **more: top_eigenvalues(m, CE, x, y, 2, **more),
    "trace": lambda m, x, y, **more: trace(m, CE, x, y, products=6, **more),
    "density": lambda m, x, y, **more: spectral_density(m, CE, x, y, products=6, **more),
}


def everything(model):
    tensors = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters()), torch.get_rng_state()]
    modes = [module.training for module in model.modules()]
    tracked = [m.track_running_stats for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
    places = [p.data_ptr() for p in [*model.parameters(), *model.buffers()]]
    return [t.detach().clone() for t in tensors], modes, tracked, places


def same(a, b):
    return all(map(torch.equal, a[0], b[0])) and a[1:] == b[1:]


def exercised(at=10**9):
    model = nn.Sequential(
        nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), Exploding(at), nn.Linear(16, 3)
    ).double()
    x, y = samples()
    CE(model.train()(x) if at > 10**8 else nn.Sequential(*model[:4], model[5])(x), y).backward()
    model[3].eval()  # a mode of its own
    model[0].bias.requires_grad_(False)
    return model, x, y


@pytest.mark.parametrize("batch_norm", ["running", "batch"])
@pytest.mark.parametrize("name", MEASURES)
def test_measuring_changes_nothing(name, batch_norm):
    model, x, y = exercised()
    before = everything(model)
    MEASURES[name](model, x, y, batch_norm=batch_norm, chunk=6)
    assert same(before, everything(model))
    with torch.no_grad():  # as evaluation code would call it
        MEASURES[name](model, x, y, batch_norm=batch_norm, chunk=6)
    assert same(before, everything(model))


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("name", MEASURES)
def test_failing_changes_nothing(name, at):
    model, x, y = exercised(at)
    before = everything(model)
    with pytest.raises(RuntimeError, match="it went off"):
        MEASURES[name](model, x, y, batch_norm="batch", chunk=6)
    assert same(before, everything(model))


def test_measuring_in_between_leaves_a_training_as_it_was():
    def trained(measured):
        torch.manual_seed(0)
        model, (x, y) = net("norm"), samples()
        opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), bisam.SAM)
        for _ in range(3):
            opt.step(Batch(model, x, y))
            if measured:
                for measure in MEASURES.values():
                    measure(model, x, y)
        return [p.detach().clone() for p in model.state_dict().values()]

    assert all(map(torch.equal, trained(False), trained(True)))


# -- input ----------------------------------------------------------------------------------------------------------------


def test_bad_input_is_named():
    model, (x, y) = net(), samples()
    cases = {
        "rho": lambda: loss_rise(model, CE, x, y, -1),
        "steps": lambda: loss_rise(model, CE, x, y, 0.1, steps=0),
        "steps must be 1": lambda: loss_rise(model, CE, x, y, 0.1, bisam.axes.Unnormalised(), steps=2),
        "geometry": lambda: loss_rise(model, CE, x, y, 0.1, bisam.Masked()),
        "geometry must be a ball": lambda: loss_rise(model, CE, x, y, 0.1, bisam.L2),
        "m must be at most 12": lambda: m_sharpness(model, CE, x, y, 0.1, 13),
        "m must be at least 1": lambda: m_sharpness(model, CE, x, y, 0.1, 0),
        "pair up": lambda: loss_rise(model, CE, x, y[:3], 0.1),
        "at least one sample": lambda: loss_rise(model, CE, x[:0], y[:0], 0.1),
        "x must be a tensor": lambda: loss_rise(model, CE, [1], y, 0.1),
        "chunk": lambda: loss_rise(model, CE, x, y, 0.1, chunk=0),
        "batch_norm": lambda: loss_rise(model, CE, x, y, 0.1, batch_norm="train"),
        "reduction": lambda: loss_rise(model, nn.CrossEntropyLoss(reduction="sum"), x, y, 0.1),
        "reduction='sum'": lambda: trace(model, nn.CrossEntropyLoss(reduction="sum"), x, y),
        "scalar": lambda: loss_rise(model, CE.per_sample, x, y, 0.1),
        "loss must be a function": lambda: loss_rise(model, 3, x, y, 0.1),
        "k must be at most 43": lambda: top_eigenvalues(model, CE, x, y, 44),
        "which": lambda: top_eigenvalues(model, CE, x, y, which="LA"),
        "ggn": lambda: top_eigenvalues(model, CE, x, y, ggn=1),
        "tolerance": lambda: top_eigenvalues(model, CE, x, y, tolerance=0),
        "estimator": lambda: trace(model, CE, x, y, estimator="guess"),
        "products must be at least 3": lambda: trace(model, CE, x, y, products=2),
        "products must be below 43": lambda: spectral_density(model, CE, x, y, products=43),
        "seed": lambda: trace(model, CE, x, y, seed=-1),
        "must name parameters": lambda: misclassified(model, x, y, {"nobody": x}),
        "must have shape": lambda: misclassified(model, x, y, {"0.weight": x}),
        "running statistics": lambda: loss_rise(
            nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), model), CE, x, y, 0.1
        ),
    }
    for message, case in cases.items():
        with pytest.raises((ValueError, TypeError), match=message):
            case()
    with pytest.raises(ValueError, match="requires a gradient"):
        loss_rise(copy.deepcopy(model).requires_grad_(False), CE, x, y, 0.1)


def test_what_is_not_finite_is_not_a_number_to_report():
    model, (x, y) = net(), samples()
    with torch.no_grad():
        model[2].weight.fill_(math.inf)
    with pytest.raises((FloatingPointError, ValueError), match=r"finite|NaN"):
        loss_rise(model, nn.CrossEntropyLoss(), x, y, 0.1)
    with pytest.raises(FloatingPointError, match="not finite"):
        top_eigenvalues(model, nn.CrossEntropyLoss(), x, y)


def test_without_curvlinops_the_error_says_what_to_install():
    code = (
        "import sys, torch; sys.modules['curvlinops'] = None\n"
        "import bisam\n"
        "model, x, y = torch.nn.Linear(2, 2), torch.eye(2), torch.tensor([0, 1])\n"
        "assert bisam.measure.loss_rise(model, bisam.CrossEntropy(), x, y, 0.1) > 0\n"
        "try: bisam.measure.trace(model, bisam.CrossEntropy(), x, y)\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install curvlinops-for-pytorch" in child.stdout


def test_curvlinops_waits_until_it_is_needed():
    code = "import sys, bisam.measure.sharpness; print('curvlinops' in sys.modules, 'scipy' in sys.modules)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.split() == ["False", "False"]


def test_progress_is_silent_off_a_terminal(capfd):
    model, (x, y) = net(), samples()
    quiet, shown = (loss_rise(model, CE, x, y, 0.1, steps=2, progress=progress) for progress in (False, True))
    trace(model, CE, x, y, progress=True)
    m_sharpness(model, CE, x, y, 0.1, 4, progress=True)
    assert quiet == shown and capfd.readouterr() == ("", "")


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
