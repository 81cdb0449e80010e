"""The mean weighted by the shares, and the true class left out: values, gradients, and what they are bounds of."""

import itertools
import math

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bisam import (
    BISAM_LOG,
    Batch,
    Binary,
    CrossEntropy,
    Multiclass,
    NegLog,
    Recipe,
    SharpnessAware,
    Surrogate,
    Tanh,
)
from bisam.losses import margins, zero_one
from bisam.losses.bounds import GAMMA

BOUNDS = {
    "neg-log": (NegLog(), reference.neg_log(GAMMA)),
    "tanh": (Tanh(), reference.tanh(0.1)),
    "tanh, alpha 1": (Tanh(1.0), reference.tanh(1.0)),
}
OTHERS = [("boltzmann", "classes"), ("mellowmax", "rivals"), ("boltzmann", "rivals")]
each_other = pytest.mark.parametrize("form, over", OTHERS, ids=["boltzmann-classes", "mellowmax-rivals", "boltzmann-rivals"])
each_bound = pytest.mark.parametrize("bound, formula", BOUNDS.values(), ids=BOUNDS)


def written(scores, true, phi, slope, mu, form, over):
    """Value and gradient of one sample by the formulas, with Python's numbers alone."""
    found = [score - scores[true] for score in scores]
    counted = [j for j in range(len(scores)) if over == "classes" or j != true]
    top = max(mu * phi(found[j]) for j in counted)
    weight = {j: math.exp(mu * phi(found[j]) - top) for j in counted}
    share = {j: weight[j] / math.fsum(weight.values()) for j in counted}
    mean = math.fsum(share[j] * phi(found[j]) for j in counted)
    smooth = (top + math.log(math.fsum(weight.values()) / len(counted))) / mu
    rate = {j: share[j] * (1 if form == "mellowmax" else 1 + mu * (phi(found[j]) - mean)) for j in counted}
    pull = [rate[j] * slope(found[j]) if j in rate and j != true else 0.0 for j in range(len(scores))]
    pull[true] = -math.fsum(pull)
    return smooth if form == "mellowmax" else mean, pull


@pytest.mark.parametrize("mu", [1e-2, 1.5, 10.0, 1e3])
@each_bound
@each_other
def test_value_and_gradient_are_those_of_the_formula(form, over, bound, formula, mu):
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(20, 6, generator=generator, dtype=torch.float64)
    logits[0], logits[1, 0] = 0.0, 60.0
    targets = torch.randint(6, (20,), generator=generator)
    targets[1] = 1
    expected = [written(row, y, *formula, mu, form, over) for row, y in zip(logits.tolist(), targets.tolist(), strict=True)]
    q = Surrogate(bound, mu, form, over)
    torch.testing.assert_close(q.per_sample(logits, targets), torch.tensor([value for value, _ in expected], dtype=torch.float64), rtol=1e-10, atol=1e-11)
    found = q.gradient(logits, targets) * len(logits)
    torch.testing.assert_close(found, torch.tensor([pull for _, pull in expected], dtype=torch.float64), rtol=1e-8, atol=1e-12)


@each_bound
@each_other
def test_the_gradient_is_that_of_the_value_twice_over(form, over, bound, formula):
    logits = 3 * torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logits.requires_grad_()
    q, targets, shares = Surrogate(bound, 1.5, form, over), torch.tensor([0, 1, 4, 2]), torch.full((4, 5), 0.2).double()
    for y in (targets, shares):
        assert torch.autograd.gradcheck(lambda f, y=y: q.per_sample(f, y), logits)
        assert torch.autograd.gradgradcheck(lambda f, y=y: q.per_sample(f, y), logits)
        found = torch.func.grad(lambda f, y=y: q(f, y))(logits.detach())
        torch.testing.assert_close(found, q.gradient(logits, y), rtol=1e-12, atol=1e-14)


@each_other
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_backward_is_the_gradient_to_the_last_bit(form, over, dtype):
    logits = (4 * torch.randn(6, 5, generator=torch.Generator().manual_seed(2))).to(dtype).requires_grad_()
    q, targets = Surrogate(NegLog(), 1.5, form, over), torch.tensor([0, 1, 2, 3, 4, 0])
    q(logits, targets).backward()
    assert torch.equal(logits.grad, q.gradient(logits, targets))


rows = st.lists(st.floats(-1e3, 1e3, allow_nan=False), min_size=2, max_size=8)


@settings(deadline=None)
@given(rows, st.floats(1e-2, 1e3), st.sampled_from(list(BOUNDS)))
def test_the_chain_of_lower_bounds(scores, mu, name):
    """Published <= sharper <= largest phi <= 0-1 loss, over all classes and over the rivals; the first gap is log K less the entropy, over mu."""
    logits, targets = torch.tensor([scores], dtype=torch.float64), torch.tensor([0])
    phi, mistake = BOUNDS[name][0], zero_one(logits, targets).double()
    for over in ("classes", "rivals"):
        published, sharper = (Surrogate(phi, mu, form, over).per_sample(logits, targets) for form in ("mellowmax", "boltzmann"))
        heights = phi(margins(logits, targets))[:, 0 if over == "classes" else 1 :]
        share = torch.softmax(mu * heights, 1)
        entropy = torch.special.entr(share).sum(1)
        slack = 1e-9 * (1 + heights.abs().amax())
        assert published <= sharper + slack and sharper <= heights.amax(1) + slack and heights.amax(1) <= mistake
        torch.testing.assert_close(sharper - published, (math.log(heights.shape[1]) - entropy) / mu, rtol=1e-6, atol=float(slack))
        for value in (published, sharper):
            assert value <= mistake + 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@each_other
def test_no_rounding_lifts_a_bound_above_the_mistakes(form, over, dtype):
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1e4, 1e4], [-1e4, 1e4, 1e4], [1e4, -1e4, -1e4]], dtype=dtype)
    mistakes = torch.tensor([0.0, 1.0, 1.0, 0.0])
    for bound, mu in itertools.product((NegLog(), Tanh(), Tanh(1.0)), (1e-2, 1.5, 10.0, 1e3)):
        assert (Surrogate(bound, mu, form, over).per_sample(logits, torch.zeros(4, dtype=torch.long)) <= mistakes).all()


def test_one_rival_has_the_pull_of_phi():
    margin = torch.linspace(-30, 30, 121, dtype=torch.float64)
    logits, targets = torch.stack([torch.zeros_like(margin), margin], 1), torch.zeros(121, dtype=torch.long)
    for phi in (NegLog(), Tanh(1.0)):
        for form in ("mellowmax", "boltzmann"):
            q = Surrogate(phi, 7.0, form, over="rivals")
            torch.testing.assert_close(q.per_sample(logits, targets), phi(margin), rtol=1e-12, atol=1e-13)
            torch.testing.assert_close(q.gradient(logits, targets)[:, 1] * 121, phi.derivative(margin), rtol=1e-10, atol=1e-14)


def test_one_strong_rival_is_certified_at_every_mu_by_the_sharper_bound():
    logits = torch.zeros(1, 10, dtype=torch.float64)
    logits[0, 1], logits[0, 2:] = 20.0, -60.0
    for mu in (0.05, 0.5, 1.5, 5.0):
        published, sharper = (Surrogate(NegLog(), mu, form)(logits, torch.tensor([0])) for form in ("mellowmax", "boltzmann"))
        assert sharper > published
    assert Surrogate(NegLog(), 1.5, "boltzmann")(logits, torch.tensor([0])) > 0.8 > 0 > Surrogate(NegLog(), 1.5)(logits, torch.tensor([0]))


@each_other
def test_far_and_missing_scores_have_finite_gradients(form, over):
    rows = [[0.0, -math.inf, 3.0], [3e38, -3e38, 0.0], [-3e38, 3e38, 0.0]]
    logits, targets = torch.tensor(rows), torch.zeros(3, dtype=torch.long)
    for bound in (NegLog(), Tanh(), Tanh(1.0)):
        q = Surrogate(bound, 10.0, form, over)
        assert q.gradient(logits, targets).isfinite().all() and q.values(logits, targets).isfinite().all()


@each_other
def test_tasks_and_the_step_take_the_other_bounds(form, over):
    """Pixels, weights and one logit: the step's weights are those of the formula under autograd."""
    recipe = BISAM_LOG.replace(ascent=Surrogate(NegLog(), 1.5, form, over))
    for task, out in ((Multiclass(), 4), (Binary(), 1)):
        torch.manual_seed(0)
        model = torch.nn.Linear(5, out, dtype=torch.float64)
        x = torch.randn(8, 5, dtype=torch.float64)
        y = torch.randint(4, (8,)) if out == 4 else torch.randint(2, (8, 1))
        before = [p.detach().clone() for p in model.parameters()]
        ascent = torch.autograd.grad(task.mean(recipe.ascent, model(x), y), list(model.parameters()))
        norm = sum(g.square().sum() for g in ascent).sqrt()
        moved = [(p + 0.05 * g / norm).detach() for p, g in zip(before, ascent, strict=True)]
        with torch.no_grad():
            for p, m in zip(model.parameters(), moved, strict=True):
                p.copy_(m)
        descent = torch.autograd.grad(task.mean(CrossEntropy(), model(x), y), list(model.parameters()))
        with torch.no_grad():
            for p, w in zip(model.parameters(), before, strict=True):
                p.copy_(w)
        SharpnessAware(torch.optim.SGD(model.parameters(), lr=1.0), recipe).step(Batch(model, x, y, task=task))
        for p, w, g in zip(model.parameters(), before, descent, strict=True):
            torch.testing.assert_close(p.detach(), w - g, rtol=1e-10, atol=1e-12)


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match="form must be one of mellowmax, boltzmann; got 'max'"):
        Surrogate(form="max")
    with pytest.raises(ValueError, match="over must be one of classes, rivals; got 'all'"):
        Surrogate(over="all")
    with pytest.raises(ValueError, match="logits must have 2 classes at least for over='rivals', got 1"):
        Surrogate(over="rivals")(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))


def test_records_name_the_choices_only_where_they_are_made():
    assert BISAM_LOG.to_dict()["ascent"] == {"kind": "Surrogate", "phi": {"kind": "NegLog", "gamma": GAMMA}, "mu": 1.5}
    sharper = BISAM_LOG.replace(ascent=Surrogate(form="boltzmann", over="rivals"))
    assert sharper.to_dict()["ascent"]["form"] == "boltzmann" and Recipe.from_dict(sharper.to_dict()) == sharper
