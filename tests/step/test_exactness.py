"""Q against arithmetic with 50 digits: any margin, any phi and mu, four dtypes, and every way to differentiate it."""

import copy
import dataclasses
import itertools
import math
import pickle

import mpmath
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from bisam import BISAM_LOG, BISAM_TANH, SAM, Batch, NegLog, SharpnessAware, Surrogate, Tanh, _look
from bisam.losses import zero_one
from bisam.losses.bounds import GAMMA, Identity
from bisam.losses.fused import _balanced, reach_of

EXACT = {  # relative error of an entry of the gradient; half precision rounds once, at the end
    torch.float64: 1e-12, torch.float32: 3e-6, torch.float16: 0.55 * 2**-10, torch.bfloat16: 0.55 * 2**-7,
}
CASES = [
    *[(NegLog(), mu) for mu in (1.5, 1.0, 0.5, 2.0, 5.0, 8.0, 10.0, 0.01, 50.0, 1e3, 1e-8, 1e8)],
    (NegLog(2.0), 1.5), (NegLog(2.0), 8.0), (NegLog(30.0), 1.5),
    (Tanh(), 10.0), (Tanh(), 20.0), (Tanh(), 0.1), (Tanh(1.0), 10.0), (Tanh(0.25), 10.0), (Tanh(0.01), 1.0), (Tanh(5.0), 3.0),
]  # fmt: skip
PUBLISHED = [(NegLog(), 1.5), (NegLog(), 1.0), (Tanh(), 10.0)]
MARGINS = (0.0, -1e-3, -1.0, -8.0, -15.0, -23.0, -40.0, -80.0, -100.0, 1e-3, 5.0, 15.9, 16.1, 30.0, 60.0, 85.0, 100.0, 1000.0)
each_dtype = pytest.mark.parametrize("dtype", EXACT, ids=str)
# The crossing of the other precisions is slow.
each_dtype_in_time = pytest.mark.parametrize(
    "dtype", [dtype if dtype == torch.float32 else pytest.param(dtype, marks=pytest.mark.slow) for dtype in EXACT], ids=str
)
each_case = pytest.mark.parametrize("phi, mu", CASES, ids=lambda x: repr(x))
# Forward mode compiles decompositions with torch.jit, which torch itself calls deprecated.
jit_of_torch = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
each_published = pytest.mark.parametrize("phi, mu", PUBLISHED, ids=lambda x: repr(x))


def exact(row, y, phi, mu):
    """q and its gradient with 50 digits, from the numbers that the logits are."""
    with mpmath.workdps(50):
        margins = [mpmath.mpf(score) - mpmath.mpf(row[y]) for score in row]
        if isinstance(phi, NegLog):
            gamma = mpmath.log(mpmath.e - 1) if phi.gamma == GAMMA else mpmath.mpf(phi.gamma)
            high = [1 - mpmath.log1p(mpmath.exp(gamma - x)) for x in margins]
            slope = [1 / (1 + mpmath.exp(x - gamma)) for x in margins]
        else:
            high = [mpmath.tanh(mpmath.mpf(phi.alpha) * x) for x in margins]
            slope = [mpmath.mpf(phi.alpha) * mpmath.sech(mpmath.mpf(phi.alpha) * x) ** 2 for x in margins]
        top = max(high)
        weight = [mpmath.exp(mu * (h - top)) for h in high]
        total = mpmath.fsum(weight)
        gradient = [w / total * s for w, s in zip(weight, slope, strict=True)]
        gradient[y] = 0
        gradient[y] = -mpmath.fsum(gradient)
        return top + mpmath.log(total / len(row)) / mu, gradient


def batch(margin, classes, n, dtype, seed=0, spread=2.0):
    """Logits whose true class is behind the best of the others by a margin."""
    generator = torch.Generator().manual_seed(seed)
    logits = (spread * torch.randn(n, classes, generator=generator)).to(dtype)
    targets = torch.randint(classes, (n,), generator=generator)
    if classes > 1:
        rival = logits.scatter(1, targets[:, None], -torch.inf).amax(1).double()
        logits[torch.arange(n), targets] = (rival - margin).to(dtype)
    return logits, targets


def check(logits, targets, phi, mu, scale=1.0):
    """Value and gradient of every sample, entry by entry; what is beneath the smallest normal number may be 0."""
    dtype = logits.dtype
    values, found = Surrogate(phi, mu).per_sample(logits, targets), Surrogate(phi, mu).gradient(logits, targets, scale)
    leaf = logits.clone().requires_grad_()
    (scale * Surrogate(phi, mu)(leaf, targets)).backward()
    assert values.dtype == torch.promote_types(dtype, torch.float32) and found.dtype == leaf.grad.dtype == dtype
    tiny, eps = torch.finfo(dtype).tiny, torch.finfo(values.dtype).eps
    # The exponential turns the rounding of mu phi in float64 into a relative error of mu times as much.
    entry = max(EXACT[dtype], 2 * mu * torch.finfo(torch.float64).eps)
    for i, row in enumerate(logits.double().tolist()):
        value, gradient = exact(row, int(targets[i]), phi, mu)
        assert abs(values[i].item() - value) <= (8 + 1 / mu) * eps * max(1, abs(value))
        for ours in (found[i].double().tolist(), leaf.grad[i].double().tolist()):
            for a, b in zip(ours, gradient, strict=True):
                b = b * scale / len(logits)
                error = abs(a - b)
                assert error <= entry * abs(b) if abs(b) >= tiny else error <= tiny, (phi, mu, row, a, b)
    assert (values <= zero_one(logits, targets)).all()


@each_dtype_in_time
@each_case
def test_every_entry_is_exact_at_any_margin(phi, mu, dtype):
    for k, margin in enumerate(MARGINS):
        check(*batch(margin, (2, 3, 10)[k % 3], 2, dtype, seed=k), phi, mu)
    check(*batch(0.0, 1, 2, dtype), phi, mu)


@each_dtype_in_time
@each_case
def test_every_entry_is_exact_where_no_look_is_free(phi, mu, dtype, monkeypatch):
    monkeypatch.setattr(_look, "is_free", lambda tensor: False)
    for k, margin in enumerate(MARGINS[:: 1 if reach_of(phi, mu) else 6]):
        check(*batch(margin, (2, 3, 10)[k % 3], 2, dtype, seed=k), phi, mu)
    check(*batch(0.0, 1, 2, dtype), phi, mu)
    check(*batch(0.0, 100, 2, dtype, spread=12.0), phi, mu)


@pytest.mark.slow
@each_dtype
@each_published
def test_every_entry_is_exact_for_many_classes_and_random_margins(phi, mu, dtype):
    for seed, (classes, spread) in enumerate([(100, 2.0), (100, 12.0), (1000, 2.0), (1000, 30.0)]):
        logits, targets = batch(0.0, classes, 2, dtype, seed, spread)
        check(logits, targets, phi, mu)


@each_dtype
def test_every_entry_is_exact_for_random_numbers_of_all_kinds(dtype):
    generator = torch.Generator().manual_seed(1)

    def draw(low, high):
        return low + (high - low) * torch.rand((), generator=generator).item()

    for seed in range(60):
        mu = 10 ** draw(-2, 3)
        phi = NegLog(GAMMA + draw(0, 3)) if seed % 2 else Tanh(10 ** draw(-2, 1))
        check(*batch(draw(-120, 120), seed % 7 + 2, 1, dtype, seed, spread=10 ** draw(-1, 1.5)), phi, mu)


@pytest.mark.parametrize("margin", [-15.0, -40.0, -80.0, -100.0, 30.0, 60.0, 100.0, 1000.0])
@each_published
def test_a_batch_that_is_right_or_wrong_by_far_has_the_right_direction(phi, mu, margin):
    logits, targets = batch(margin, 10, 128, torch.float32)
    found = Surrogate(phi, mu).gradient(logits, targets, 1e30).double().flatten()
    expected = Surrogate(phi, mu).gradient(logits.double(), targets, 1e30).flatten()
    if expected.abs().max() < 1e30 * torch.finfo(torch.float32).tiny:
        assert found.abs().max() <= 1e30 * torch.finfo(torch.float32).tiny  # nothing that float32 could hold
    else:
        cosine = (found @ expected / found.norm() / expected.norm()).item()
        assert cosine > 1 - 1e-9


@each_dtype
def test_numbers_of_any_size_give_finite_results_at_or_below_the_01_loss(dtype):
    big = torch.finfo(dtype).max
    rows = [[big, -big, 0.0], [-big, big, 0.0], [big, big, big], [1.0, 1.0, 1.0], [-big, 0.0, big / 2], [0.0, -math.inf, 3.0]]
    logits = torch.tensor(rows, dtype=dtype, requires_grad=True)
    for (phi, mu), true in itertools.product(CASES, (0, 2)):
        targets = torch.full((len(rows),), true)
        values = Surrogate(phi, mu).per_sample(logits, targets)
        (slopes,) = torch.autograd.grad(values.sum(), logits, create_graph=True)
        assert values.isfinite().all() and slopes.isfinite().all(), (phi, mu)
        assert Surrogate(phi, mu).gradient(logits, targets).isfinite().all(), (phi, mu)
        assert (values <= zero_one(logits, targets)).all(), (phi, mu)


@each_dtype
def test_a_tie_of_all_classes_is_exactly_no_loss(dtype):
    for (phi, mu), classes in itertools.product(CASES, (1, 2, 3, 7, 10, 100, 1000)):
        values = Surrogate(phi, mu).per_sample(torch.full((2, classes), 3.7, dtype=dtype), torch.tensor([0, classes - 1]))
        at_tie = 0.0 if isinstance(phi, Tanh) or phi.gamma == GAMMA else 1 - math.log1p(math.exp(phi.gamma))
        assert values.tolist() == ([0.0, 0.0] if at_tie == 0 else pytest.approx([at_tie] * 2, rel=1e-6)), (phi, mu, classes)


def test_no_bound_at_all_is_finite_too():
    logits = torch.tensor([[1.7e308, -1.7e308, 0.0], [-1.7e308, 1.7e308, 0.0]], dtype=torch.float64, requires_grad=True)
    value = Surrogate(Identity(), 3.0)(logits, torch.tensor([0, 0]))
    value.backward()
    assert value.isfinite() and logits.grad.isfinite().all()


# -- a phi of one's own ------------------------------------------------------------------------------------------------


class Mine:
    def __init__(self, bound):
        self.bound = bound

    def __call__(self, x):
        return self.bound(x)

    def derivative(self, x):
        return self.bound.derivative(x)


class Steeper(NegLog):
    """A subclass with values of its own, which no formula of the class above may stand in for."""

    def __call__(self, x):
        return super().__call__(x) - 1

    def derivative(self, x):
        return 2 * super().derivative(x)


@each_published
def test_a_phi_with_two_methods_is_as_exact(phi, mu):
    for margin in (-40.0, -3.0, 0.0, 20.0):
        logits, targets = batch(margin, 10, 16, torch.float32)
        ours, own = Surrogate(phi, mu), Surrogate(Mine(phi), mu)
        assert reach_of(phi, mu) is not None and reach_of(own.phi, mu) is None
        torch.testing.assert_close(own(logits, targets), ours(logits, targets), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(own.gradient(logits, targets), ours.gradient(logits, targets), rtol=3e-6, atol=1e-38)


def test_a_subclass_is_taken_at_its_word():
    logits, targets = batch(-2.0, 10, 16, torch.float32)
    ours, own = Surrogate(NegLog(), 1.5), Surrogate(Steeper(), 1.5)
    torch.testing.assert_close(own(logits, targets), ours(logits, targets) - 1)
    torch.testing.assert_close(own.gradient(logits, targets), 2 * ours.gradient(logits, targets))


# -- the scale of a loss in half precision ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@each_published
def test_all_factors_come_before_the_rounding(phi, mu, dtype):
    for margin in (-12.0, 0.0, 7.0):
        check(*batch(margin, 10, 16, dtype), phi, mu, scale=2.0**12)
    logits, targets = batch(-12.0, 10, 16, dtype)
    scale = torch.tensor(2.0**12)
    assert torch.equal(Surrogate(phi, mu).gradient(logits, targets, scale), Surrogate(phi, mu).gradient(logits, targets, 2.0**12))


class Shifted(nn.Module):
    """Right by 12 logits, at which the gradient of a sample is beneath float16; the last feature is the true class."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(32, 10)

    def forward(self, x):
        scores, true = self.linear(x[:, :-1]), x[:, -1:].long()
        fixed = scores.detach()
        shift = fixed.scatter(1, true, -torch.inf).amax(1, keepdim=True) - fixed.gather(1, true) + 12
        return scores + torch.zeros_like(scores).scatter(1, true, shift)


@pytest.mark.parametrize("micro_batch", [None, 32])
@pytest.mark.parametrize("recipe", [SAM, BISAM_LOG, BISAM_TANH], ids=lambda recipe: recipe.name)
def test_the_climb_of_scaled_float16_is_that_of_float32(recipe, micro_batch):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(128, 32, generator=generator), torch.randint(0, 10, (128,), generator=generator)
    x = torch.cat([x, y[:, None].float()], dim=1)
    recipe = dataclasses.replace(recipe, micro_batch=micro_batch)
    length = {}
    for name, dtype in (("float16", torch.float16), ("float32", None)):
        model, scaler = Shifted(), torch.amp.GradScaler("cpu", init_scale=2.0**16)
        opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.0), recipe, record=True)
        opt.backward(Batch(model, x, y, dtype), scaler=scaler)
        length[name] = float(opt.last.length)
    assert length["float16"] == pytest.approx(length["float32"], rel=0.01) and length["float32"] == pytest.approx(0.05, rel=1e-3)


@pytest.mark.slow
@each_published
def test_a_large_float16_batch_of_many_classes_keeps_its_direction(phi, mu):
    logits, targets = batch(-3.0, 1000, 4096, torch.float16)
    expected = Surrogate(phi, mu).gradient(logits.double(), targets).flatten()
    leaf = logits.clone().requires_grad_()
    torch.amp.GradScaler("cpu", init_scale=2.0**16).scale(Surrogate(phi, mu)(leaf, targets)).backward()
    for found in (leaf.grad, Surrogate(phi, mu).gradient(logits, targets, 2.0**16)):
        found = found.double().flatten()
        assert found @ expected / found.norm() / expected.norm() > 0.999


# -- ways to differentiate -------------------------------------------------------------------------------------------------


@jit_of_torch
@each_published
@pytest.mark.parametrize("margin", [-150.0, -30.0, -2.0, 20.0, 150.0])
def test_transforms_and_forward_mode_are_exact_too(phi, mu, margin):
    logits, targets = batch(margin, 4, 3, torch.float32)
    q = Surrogate(phi, mu)
    gradient = q.gradient(logits.double(), targets)
    close = {"rtol": 1e-5, "atol": 2 * torch.finfo(torch.float32).tiny}

    def loss(x):
        return q(x, targets)

    for found in (torch.func.grad(loss)(logits), torch.func.jacrev(loss)(logits), torch.func.jacfwd(loss)(logits)):
        torch.testing.assert_close(found.double(), gradient, **close)
    rows = torch.func.vmap(torch.func.grad(lambda row, y: q(row[None], y[None])))(logits, targets) / len(logits)
    torch.testing.assert_close(rows.double(), gradient, **close)
    for j in range(4):
        tangent = torch.zeros_like(logits)
        tangent[:, j] = 1.0
        with forward_ad.dual_level():
            found = forward_ad.unpack_dual(q(forward_ad.make_dual(logits, tangent), targets)).tangent
        torch.testing.assert_close(found.double(), gradient[:, j].sum(), **close)


@jit_of_torch
@each_dtype
@each_published
def test_second_derivatives_agree_in_all_dtypes(phi, mu, dtype):
    logits, targets = batch(-1.0, 4, 3, dtype)
    q = Surrogate(phi, mu)
    expected = torch.func.hessian(lambda x: q(x, targets))(logits.double())
    assert torch.autograd.gradgradcheck(lambda x: q.per_sample(x, targets), logits.double().requires_grad_())
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype in (torch.float32, torch.float64) else {"rtol": 0.05, "atol": 0.01}
    twice = torch.autograd.functional.hessian(lambda x: q(x, targets), logits)
    assert twice.dtype == dtype
    torch.testing.assert_close(twice.double(), expected, **close)
    if dtype in (torch.float32, torch.float64):
        torch.testing.assert_close(torch.func.hessian(lambda x: q(x, targets))(logits).double(), expected, **close)


@jit_of_torch
@each_published
def test_forward_over_reverse_sees_the_dual_logits(phi, mu):
    logits, targets = batch(-1.0, 4, 3, torch.float64)
    q, tangent = Surrogate(phi, mu), torch.linspace(-1, 1, 12, dtype=torch.float64).view(3, 4)
    expected = torch.func.jvp(torch.func.grad(lambda x: q(x, targets)), (logits,), (tangent,))[1]
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(logits.clone().requires_grad_(), tangent)
        (gradient,) = torch.autograd.grad(q(dual, targets), dual, create_graph=True)
        found = forward_ad.unpack_dual(gradient).tangent
    torch.testing.assert_close(found, expected)


@each_published
def test_shapes_alone_copies_and_pickles(phi, mu):
    logits = torch.zeros(5, 3, device="meta", requires_grad=True)
    targets = torch.zeros(5, dtype=torch.long, device="meta")
    q = Surrogate(phi, mu)
    q(logits, targets).backward()
    assert logits.grad.shape == q.gradient(logits, targets).shape == (5, 3) and q.per_sample(logits, targets).shape == (5,)
    assert copy.deepcopy(q) == q == pickle.loads(pickle.dumps(q))


@pytest.mark.slow
@each_published
def test_one_graph_for_the_compiler_with_the_same_numbers(phi, mu):
    q = Surrogate(phi, mu)
    torch.compiler.reset()
    compiled = torch.compile(q.__call__, fullgraph=True, dynamic=False, backend="aot_eager")
    for margin in (-80.0, -40.0, -2.0, 20.0, 80.0):
        logits, targets = batch(margin, 10, 16, torch.float32)
        leaf = logits.clone().requires_grad_()
        value = compiled(leaf, targets)
        value.backward()
        torch.testing.assert_close(value.double(), q(logits.double(), targets), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(leaf.grad.double(), q.gradient(logits.double(), targets), rtol=EXACT[torch.float32], atol=1e-38)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@each_published
def test_autocast_changes_nothing(phi, mu, dtype):
    logits, targets = batch(-5.0, 10, 16, dtype)
    found = {}
    for enabled in (True, False):
        leaf = logits.clone().requires_grad_()
        with torch.autocast("cpu", dtype, enabled=enabled):
            value = Surrogate(phi, mu)(leaf, targets)
            value.backward()
            found[enabled] = value, leaf.grad, Surrogate(phi, mu).gradient(logits, targets)
    assert all(torch.equal(a, b) for a, b in zip(found[True], found[False], strict=True))


@each_published
@pytest.mark.parametrize("margin", [-50.0, -3.0, 1.0, 50.0])
def test_the_closed_form_is_backward_to_the_last_bit(phi, mu, margin):
    logits, targets = batch(margin, 10, 16, torch.float32)
    leaf = logits.clone().requires_grad_()
    Surrogate(phi, mu)(leaf, targets).backward()
    assert torch.equal(leaf.grad, Surrogate(phi, mu).gradient(logits, targets))


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [True, None])
def test_one_compiled_function_serves_several_mu(dynamic):
    torch.compiler.reset()
    compiled = torch.compile(lambda q, logits, targets: q(logits, targets), backend="aot_eager", dynamic=dynamic)
    logits, targets = batch(-2.0, 10, 16, torch.float32)
    for q in [*(Surrogate(NegLog(), mu) for mu in (1.5, 2.5, 1.0, 3.3)), Surrogate(Tanh(), 10.0), Surrogate(Tanh(), 5.0)]:
        leaf = logits.clone().requires_grad_()
        value = compiled(q, leaf, targets)
        value.backward()
        torch.testing.assert_close(value.double(), q(logits.double(), targets), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(leaf.grad.double(), q.gradient(logits.double(), targets), rtol=EXACT[torch.float32], atol=1e-38)


@pytest.mark.parametrize("phi", [NegLog(), NegLog(0.6), Tanh(), Tanh(1.0)], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_autograd_of_a_bound_is_its_derivative_far_out_too(phi, dtype):
    x = torch.tensor([-80.0, -20.0, -1.0, -1e-3, 0.0, 1e-3, 0.5, 0.999, 1.001, 5.0, 30.0, 36.0, 40.0, 80.0], dtype=dtype, requires_grad=True)
    phi(x).sum().backward()
    torch.testing.assert_close(x.grad, phi.derivative(x.detach()), rtol=2e-5 if dtype == torch.float32 else 1e-13, atol=0)
    vmapped = torch.func.vmap(torch.func.grad(phi.__call__))(x.detach())
    torch.testing.assert_close(vmapped, x.grad, rtol=1e-6, atol=0)


@pytest.mark.parametrize("classes", [1, 2, 10, 1000])
def test_the_true_column_is_balanced_alike_on_a_gpu_and_on_a_cpu(classes):
    pull, true = torch.rand(16, classes), torch.randint(classes, (16, 1))
    masked, written = (_balanced(pull.clone(), true, by_mask) for by_mask in (True, False))
    assert torch.equal(masked, written) and masked.sum(-1).abs().max() < 1e-3
