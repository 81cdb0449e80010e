"""Which factors of the descent gradient are taken at the worst point, how many steps the climb has, and a climb without aim: against plain formulas."""

import pytest
import reference
import torch
from torch.nn import functional

import bisam
from bisam import SAM, Batch, Constant, CrossEntropy, SharpnessAware
from bisam.axes import RandomDirection
from bisam.step.second_pass import with_slope_at_w

RHO = 0.3


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def gradient(model, x, y, at, loss=functional.cross_entropy):
    """The gradient of a loss at some weights, as one vector, without moving the model's own."""
    named = dict(zip(dict(model.named_parameters()), at, strict=True))
    outputs = torch.func.functional_call(model, named, (x,))
    return torch.autograd.grad(loss(outputs, y), at)


def weights(model):
    return [p.detach().clone().requires_grad_() for p in model.parameters()]


def moved(at, direction, rho=RHO):
    return [(w + rho * d / flat(direction).norm()).detach().requires_grad_() for w, d in zip(at, direction, strict=True)]


def one_step(recipe, model, x, y, **options):
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=1.0), recipe, seed=0, **options)
    opt.step(Batch(model, x, y))
    return opt


def test_j_sam_moves_the_jacobian_and_not_the_slope():
    model, (x, y) = reference.net(), reference.samples()
    w = weights(model)
    slope = torch.softmax(model(x), 1) - functional.one_hot(y, model(x).shape[1])
    away = moved(w, gradient(model, x, y, w))
    expected = gradient(model, x, y, away, lambda f, _: (slope.detach() * f).sum() / len(x))
    one_step(bisam.recipe("j-sam").with_rho(RHO), model, x, y)
    torch.testing.assert_close(flat(model.parameters()), flat(w) - flat(expected), rtol=1e-12, atol=1e-13)


def test_j_sam_of_a_linear_model_is_gradient_descent():
    """Its Jacobian is the same everywhere: what SAM does to it, it does through the slopes."""
    model, x, y = torch.nn.Linear(4, 3, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    w = weights(model)
    expected = flat(w) - flat(gradient(model, x, y, w))
    one_step(bisam.recipe("j-sam").with_rho(RHO), model, x, y)
    torch.testing.assert_close(flat(model.parameters()), expected, rtol=1e-12, atol=1e-13)


def test_j_sam_keeps_extra_terms_and_reports_the_loss():
    model, (x, y) = reference.net(), reference.samples()
    w = weights(model)
    loss = functional.cross_entropy(model(x), y).item()
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=1.0), bisam.recipe("j-sam").with_rho(RHO), record=True)
    found = opt.step(Batch(model, x, y, extra=lambda outputs, batch: 0.1 * outputs.square().mean()))
    assert found.item() == pytest.approx(loss + 0.1 * torch.func.functional_call(model, dict(zip(dict(model.named_parameters()), w, strict=True)), (x,)).square().mean().item())
    assert opt.last.loss_rise > 0


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_each_ascent_gradient_is_taken_where_the_one_before_led(steps):
    model, (x, y) = reference.net(), reference.samples()
    w = weights(model)
    at = w
    for _ in range(steps):
        at = moved(w, gradient(model, x, y, at))
    expected = flat(w) - flat(gradient(model, x, y, at))
    opt = one_step(SAM.replace(ascent_steps=steps, radius=Constant(RHO)), model, x, y, record=True)
    torch.testing.assert_close(flat(model.parameters()), expected, rtol=1e-12, atol=1e-13)
    assert opt.last.length == pytest.approx(RHO)


def test_more_steps_draw_the_same_masks_and_leave_the_statistics_of_one_pass():
    kind = "norm and dropout"
    found = {}
    for steps in (1, 4):
        torch.manual_seed(0)
        model, (x, y) = reference.net(kind), reference.samples()
        one_step(SAM.replace(ascent_steps=steps), model, x, y)
        found[steps] = torch.cat([b.double().flatten() for b in model.buffers()]), torch.get_rng_state()
    assert torch.equal(found[1][0], found[4][0]) and torch.equal(found[1][1], found[4][1])


@pytest.mark.parametrize("changes", [{"micro_batch": 4}, {"selection": bisam.TopK(0.5)}, {"ascent": bisam.Surrogate()}], ids=str)
def test_more_steps_go_with_other_axes(changes):
    model, (x, y) = reference.net(), reference.samples()
    recipe = SAM.replace(ascent_steps=3, radius=Constant(RHO), **changes)
    before = flat(model.parameters())
    one_step(recipe, model, x, y)
    several = flat(model.parameters())
    model = reference.net()
    one_step(recipe.replace(ascent_steps=1), model, x, y)
    assert several.isfinite().all() and not torch.equal(several, before) and (several - flat(model.parameters())).abs().max() > 1e-8


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_gradients_that_a_hook_keeps_are_not_written_over(steps):
    model, (x, y) = reference.net(), reference.samples()
    kept = []
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda p: kept.append((p.grad, p.grad.clone())))
    one_step(SAM.replace(ascent_steps=steps), model, x, y)
    assert len(kept) == (steps + 1) * len(list(model.parameters())) and all(torch.equal(*pair) for pair in kept)


def test_j_sam_keeps_small_slopes_of_half_precision():
    """Of logits of one sample far right and others far wrong, the slopes of the first are below what float16 has."""
    logits = torch.zeros(64, 10, dtype=torch.float16)
    logits[:, 0] = 13.0
    model = torch.nn.Linear(1, 10, bias=True)
    piece = Batch(model, torch.ones(64, 1), torch.zeros(64, dtype=torch.int64))
    piece.at_w = logits
    there = logits.clone().requires_grad_()
    scale = 2.0**12
    (scale * with_slope_at_w(CrossEntropy(), piece, there)).backward()
    w = logits.double().requires_grad_()
    (exact,) = torch.autograd.grad(functional.cross_entropy(w, piece.targets), w)
    assert exact.abs().max() < torch.finfo(torch.float16).smallest_normal
    torch.testing.assert_close(there.grad.double() / scale, exact, rtol=3e-3, atol=0)  # a slope near -1 and 1 / n are rounded once each


def test_more_steps_reach_a_higher_loss():
    rises = {}
    for steps in (1, 10):
        torch.manual_seed(1)
        model, (x, y) = reference.net(), reference.samples()
        rises[steps] = one_step(SAM.replace(ascent_steps=steps, radius=Constant(1.0)), model, x, y, record=True).last.loss_rise
    assert rises[10] > rises[1] * (1 + 1e-6)


def test_a_random_direction_has_the_length_and_no_aim():
    model, (x, y) = reference.net(), reference.samples()
    recipe = SAM.replace(direction=RandomDirection(), radius=Constant(RHO))
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), recipe, seed=3, record=True)
    for _ in range(20):
        w = weights(model)
        opt.step(Batch(model, x, y))
        found = (flat(w) - flat(model.parameters())) / 0.1  # the gradient at the point that was drawn
        assert opt.last.length == pytest.approx(RHO)
        assert (found - flat(gradient(model, x, y, w))).norm() > 0 and abs(opt.last.loss_rise) > 0


def test_a_random_direction_comes_again_with_the_seed():
    found = []
    for seed in (0, 0, 1):
        model, (x, y) = reference.net(), reference.samples()
        opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), SAM.replace(direction=RandomDirection()), seed=seed)
        for _ in range(3):
            opt.step(Batch(model, x, y))
        found.append(flat(model.parameters()))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


REFUSED = {
    "a start": (lambda: SAM.replace(ascent_steps=2, start=bisam.RandomStart()), r"start must be None with ascent_steps=2, got RandomStart\(\)"),
    "a direction": (lambda: SAM.replace(ascent_steps=2, direction=RandomDirection()), r"direction must be None with ascent_steps=2"),
    "a combination": (lambda: bisam.GSAM.replace(ascent_steps=2), r"combination must be None with ascent_steps=2, got Decomposed\(.*\)"),
    "a learned radius": (lambda: bisam.recipe("lets-sam").replace(ascent_steps=2), "radius must need no gradient at w with ascent_steps=2"),
    "no steps": (lambda: SAM.replace(ascent_steps=0), "ascent_steps must be at least 1, got 0"),
    "a selection": (lambda: bisam.ESAM.replace(factors="jacobian"), r"selection must be None with factors='jacobian', got MostSensitive"),
    "factors": (lambda: SAM.replace(factors="slope"), "factors must be one of both, jacobian; got 'slope'"),
}


@pytest.mark.parametrize("make, message", REFUSED.values(), ids=REFUSED)
def test_what_does_not_go_together_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("recipe", [SAM.replace(ascent_steps=2), bisam.recipe("j-sam")], ids=["two steps", "j-sam"])
def test_a_loop_without_the_batch_is_told_so(recipe):
    model, (x, y) = reference.net(), reference.samples()
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), recipe)
    field = "ascent_steps" if recipe.ascent_steps > 1 else "factors"

    def closure():
        opt.zero_grad()
        loss = CrossEntropy()(model(x), y)
        loss.backward()
        return loss

    with pytest.raises(ValueError, match=f"the {field} of recipe '{recipe.name}' needs the batch itself, which a closure does not see"):
        opt.step(closure)
    with pytest.raises(ValueError, match=f"the {field} of recipe .* which a block does not see"), opt.perturbed(model):
        pass
