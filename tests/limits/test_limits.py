"""At a neutral element every method is its simpler neighbour, bit for bit."""

import pytest
import reference
import torch

import bisam
import bisam.axes.memory
from bisam import (
    BISAM_LOG,
    BISAM_TANH,
    RECIPES,
    SAM,
    SGD,
    Batch,
    Constant,
    CrossEntropy,
    SharpnessAware,
    Surrogate,
    Tanh,
)
from bisam.axes.geometry import Ball
from bisam.losses.loss import Loss

BASES = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
}

DTYPES = (torch.float64, torch.float32, torch.bfloat16)
each_net = pytest.mark.parametrize("kind", reference.NETS)
each_base = pytest.mark.parametrize("base", BASES.values(), ids=BASES)


class Point(Ball):
    """The set that holds zero alone: whatever its radius, nothing moves."""

    def norm(self, perturbation, weights):
        return torch.zeros(())

    def dual_norm(self, gradient, weights):
        return torch.zeros(())

    def perturbation(self, gradient, weights, rho, dual_norm=None):
        return {name: torch.zeros_like(part) for name, part in gradient.items()}


def trained(kind, base, recipe=None, steps=4, dtype=torch.float64):
    """Everything that a training leaves: losses, weights, buffers, optimiser state, random state; as bits."""
    model = reference.net(kind, dtype)
    optimizer = base(model.parameters())
    torch.manual_seed(7)
    losses = []
    for k in range(steps):
        x, y = reference.samples(k, dtype=dtype)
        if recipe is None:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y, reduction="none").mean()
            loss.backward()
            optimizer.step()
        else:
            loss = SharpnessAware(optimizer, recipe).step(Batch(model, x, y))
        losses.append(loss.detach())
    return reference.bits([losses, model.state_dict(), optimizer.state_dict(), torch.get_rng_state()])


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_radius_zero_is_the_base_optimiser(recipe):
    still = recipe.replace(radius=Constant(0))
    assert still.passes == 1 and trained("norm and dropout", BASES["sgd"], still) == trained("norm and dropout", BASES["sgd"])


@each_base
@each_net
def test_radius_zero_is_whatever_base_there_is_for_whatever_network(kind, base):
    assert trained(kind, base, BISAM_LOG.replace(radius=Constant(0))) == trained(kind, base)


@pytest.mark.slow
@pytest.mark.parametrize("dtype, recipe", [(torch.float64, SAM), (torch.float64, BISAM_TANH), *((dtype, BISAM_LOG) for dtype in DTYPES)])
@each_base
@each_net
def test_two_passes_that_move_nothing_are_the_base_optimiser(kind, base, recipe, dtype):
    still = recipe.replace(geometry=Point(), radius=Constant(0.05))
    if dtype == torch.bfloat16:  # the base is given the loss that bisam computes: half precision in float32
        expected = trained(kind, base, SGD, dtype=dtype)
    else:
        expected = trained(kind, base, dtype=dtype)
    assert still.passes == 2 and trained(kind, base, still, dtype=dtype) == expected


@each_net
def test_fresh_noise_is_what_the_field_turns_on_and_matters_only_with_dropout(kind):
    still = SAM.replace(geometry=Point(), same_noise=False)
    same = trained(kind, BASES["sgd"], still) == trained(kind, BASES["sgd"])
    assert same == ("dropout" not in kind)


@each_net
def test_sam_that_names_its_ascent_loss_is_sam(kind):
    named = SAM.replace(ascent=CrossEntropy())
    assert trained(kind, BASES["sgd"], named) == trained(kind, BASES["sgd"], SAM)


@each_net
def test_bisam_that_raises_its_descent_loss_is_sam(kind):
    assert trained(kind, BASES["sgd"], BISAM_LOG.replace(ascent=None)) == trained(kind, BASES["sgd"], SAM)


def test_without_smoothing_both_conventions_are_one():
    recipes = [SAM.replace(descent=CrossEntropy(0.0, convention)) for convention in ("all", "others")]
    assert trained("norm", BASES["sgd"], recipes[0]) == trained("norm", BASES["sgd"], recipes[1])


def weights(recipe):
    model = reference.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for k in range(3):
        SharpnessAware(optimizer, recipe).step(Batch(model, *reference.samples(k)))
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_small_radius_is_near_the_base_and_the_distance_shrinks_with_it():
    base, near, nearer = (
        weights(SGD),
        weights(SAM.replace(radius=Constant(1e-3))),
        weights(SAM.replace(radius=Constant(1e-4))),
    )
    assert float((near - base).norm() / (nearer - base).norm()) == pytest.approx(10, rel=0.01)


def test_a_small_mu_makes_the_surrogate_the_mean_over_classes():
    # log-sum-exp at mu -> 0 is the plain mean; so is the direction of its gradient.
    class MeanOverClasses(Loss):
        def values(self, logits, targets):
            return torch.tanh(logits - logits.gather(1, targets[:, None])).mean(1)

    soft, mean = SAM.replace(ascent=Surrogate(Tanh(1.0), mu=1e-7)), SAM.replace(ascent=MeanOverClasses())
    torch.testing.assert_close(weights(soft), weights(mean), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("recipe", [SAM, BISAM_LOG, BISAM_TANH], ids=lambda recipe: recipe.name)
def test_a_method_with_a_radius_is_not_its_base(recipe):
    assert not torch.allclose(weights(recipe), weights(SGD), rtol=1e-5)


def test_the_methods_differ_from_each_other():
    sam, log, tanh = (weights(recipe) for recipe in (SAM, BISAM_LOG, BISAM_TANH))
    assert not any(torch.allclose(a, b, rtol=1e-7) for a, b in ((sam, log), (sam, tanh), (log, tanh)))


# -- the neutral element of every axis ------------------------------------------------------------------------------------

NEUTRAL = {
    "a mask that keeps all": {"geometry": bisam.Masked(bisam.L2(), keep=1.0)},
    "a mask of tensors that keeps all": {"geometry": bisam.Masked(bisam.L2(), keep=1.0, per="tensor")},
    "all samples are the most sensitive": {"selection": bisam.MostSensitive(1.0)},
    "all samples are the top k": {"selection": bisam.TopK(1.0)},
    "one part as large as the batch": {"micro_batch": 8},
    "the gradient without an average": {"direction": bisam.Averaged(1.0, 0.0, decay=0.9)},
    "an average that forgets at once": {"direction": bisam.Averaged(0.0, 1.0, decay=0.0)},
    "a decomposition of weight zero": {"combination": bisam.Decomposed(alpha=0.0)},
    "a look in every step": {"combination": bisam.LookSAM(every=1)},
    "a phase of the whole training": {"radius": bisam.Phase(0.05)},
    "a schedule that stands still": {"radius": bisam.Schedule((0, 3), (0.05, 0.05))},
    "a radius that ignores the rate": {"radius": bisam.ByLearningRate(0.05, least=0.05)},
}
each_neutral = pytest.mark.parametrize("changes", NEUTRAL.values(), ids=NEUTRAL)
each_loss = pytest.mark.parametrize("plain", [SAM, BISAM_LOG, BISAM_TANH], ids=lambda recipe: recipe.name)


def path(recipe, kind="norm and dropout", steps=4, **more):
    """Weights, buffers, momentum and random state after some steps, as bits."""
    model = reference.net(kind)
    optimizer = BASES["sgd"](model.parameters())
    torch.manual_seed(7)
    opt = SharpnessAware(optimizer, recipe)
    for k in range(steps):
        opt.step(Batch(model, *reference.samples(k)), **{name: make(model, k) for name, make in more.items()})
    return reference.bits([model.state_dict(), optimizer.state_dict(), torch.get_rng_state()])


@each_neutral
@each_loss
def test_a_neutral_choice_changes_no_bit(plain, changes):
    assert path(plain.replace(**changes)) == path(plain)


@each_loss
def test_a_radius_that_learns_nothing_is_constant(plain):
    learning = plain.replace(radius=bisam.Learned(0.05, rate=0.0))
    assert path(learning, validation=lambda model, k: Batch(model, *reference.samples(50 + k))) == path(plain)


@each_loss
def test_a_start_that_does_not_scatter_is_none(plain):
    assert path(plain.replace(start=bisam.RandomStart(0.0))) == path(plain)
    assert path(plain.replace(start=bisam.RandomStart(0.0, kept=False))) == path(plain)


@each_loss
def test_the_ball_of_p_two_is_round(plain):
    close = weights(plain.replace(geometry=bisam.Lp(2)))
    torch.testing.assert_close(close, weights(plain), rtol=1e-12, atol=1e-14)


@each_loss
def test_a_budget_that_always_reaches_the_cap_is_constant(plain):
    close = weights(plain.replace(radius=bisam.LossBudget(budget=1e9, rho=0.05)))
    torch.testing.assert_close(close, weights(plain), rtol=1e-13, atol=1e-15)


def test_norm_layers_alone_are_all_of_a_network_of_norm_layers():
    def trained_norms(recipe):
        model = torch.nn.Sequential(torch.nn.LayerNorm(4), torch.nn.Tanh(), torch.nn.LayerNorm(4)).double()
        opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), recipe)
        for k in range(3):
            opt.step(Batch(model, *reference.samples(k)))
        return reference.bits(model.state_dict())

    assert trained_norms(SAM.replace(geometry=bisam.Only())) == trained_norms(SAM)


@each_neutral
def test_the_same_choice_away_from_its_neutral_element_is_another_method(changes):
    away = {
        "geometry": bisam.Masked(bisam.L2(), keep=0.5),
        "selection": bisam.MostSensitive(0.5),
        "micro_batch": 3,
        "direction": bisam.Averaged(0.0, 1.0, decay=0.5),
        "combination": bisam.Decomposed(alpha=0.5),
        "radius": bisam.Phase(0.05, every=2),
    }
    (axis,) = changes
    assert path(SAM.replace(**{axis: away[axis]})) != path(SAM)


# -- two opposite repairs of one vector -------------------------------------------------------------------------------------


def test_with_sigma_one_it_makes_no_difference_which_average_is_taken_away():
    # g - m_t = decay (g - m_{t-1}): after the first step, where both are the gradient, the directions agree.
    lagged = SAM.replace(direction=bisam.Averaged(1.0, -1.0, decay=0.9, lagged=True))
    memory, gradients = bisam.axes.memory.Memory(torch.optim.SGD([torch.zeros(1)], lr=0.1), 0), torch.randn(5, 3).double()
    other = bisam.axes.memory.Memory(torch.optim.SGD([torch.zeros(1)], lr=0.1), 0)
    now = bisam.Averaged(1.0, -1.0, decay=0.9)
    for k, g in enumerate(gradients):
        before, after = lagged.direction.filtered({"w": g}, memory)["w"], now.filtered({"w": g}, other)["w"]
        if k:
            torch.testing.assert_close(after, 0.9 * before)


@pytest.mark.slow
def test_the_mean_over_masks_is_the_perturbation_of_the_whole():
    torch.manual_seed(0)
    gradient = {"a": torch.randn(3, 2), "b": torch.randn(4)}
    memory = bisam.axes.memory.Memory(torch.optim.SGD([torch.zeros(1)], lr=0.1), seed=1)
    masked, draws = bisam.Masked(bisam.L2(), keep=0.25), 20_000
    total = {name: torch.zeros_like(g) for name, g in gradient.items()}
    for _ in range(draws):
        for name, part in masked.prepared(gradient, memory).perturbation(gradient, gradient, rho=1.0).items():
            total[name] += part / draws
    whole = bisam.L2().perturbation(gradient, gradient, rho=1.0)
    for name in gradient:
        torch.testing.assert_close(total[name], whole[name], rtol=0.1, atol=0.01)


def test_a_mask_of_tensors_climbs_rho_over_the_share_that_is_kept():
    model = reference.net("norm")
    opt = SharpnessAware(BASES["sgd"](model.parameters()), bisam.methods.ESAM_CODE, record=True, seed=2)
    lengths = []
    for k in range(12):
        opt.step(Batch(model, *reference.samples(k)))
        lengths.append(opt.last.length)
    moved = [length for length in lengths if length]
    assert lengths[0] == pytest.approx(0.1) and moved == pytest.approx([0.1] * len(moved)) and len(moved) > 6


@pytest.mark.parametrize("name", ["gsam", "le-sam", "bsam", "e-bisam-log-printed"])
def test_the_scale_of_the_ascent_loss_matters_where_nothing_normalises_it(name):
    class Scaled(Loss):
        def __init__(self, factor):
            self.factor = factor

        def values(self, logits, targets):
            return self.factor * BISAM_LOG.ascent.values(logits, targets)

    def lengths(factor):
        recipe = bisam.recipe(name).replace(ascent=Scaled(factor))
        if name == "gsam":
            recipe = recipe.replace(combination=bisam.Decomposed(0.5, at_w="ascent"))
        model = reference.net()
        base = bisam.Variational(model.parameters(), samples=500) if name == "bsam" else BASES["sgd"](model.parameters())
        SharpnessAware(base, recipe, seed=0).step(Batch(model, *reference.samples(0)))
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    one, mu_times = lengths(1.0), lengths(1.5)  # Q without its 1 / mu is mu times as large
    assert not torch.allclose(one, mu_times, rtol=1e-8, atol=0)


def test_with_q_the_budget_is_a_share_of_samples_and_the_gradient_has_the_factor_one_over_mu():
    logits, y = torch.randn(6, 5, dtype=torch.float64), torch.randint(5, (6,))
    for mu in (0.7, 1.5, 10.0):
        q = Surrogate(mu=mu)
        leaf = logits.clone().requires_grad_()
        phi = q.phi(leaf - leaf.gather(1, y[:, None]))
        (torch.logsumexp(mu * phi, 1) / mu).mean().backward()  # with 1 / mu, as printed
        torch.testing.assert_close(q.gradient(logits, y), leaf.grad, rtol=1e-10, atol=1e-12)
