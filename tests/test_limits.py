"""At a neutral element every method is its simpler neighbour, bit for bit."""

import pytest
import reference
import torch

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

BASES = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
}

each_net = pytest.mark.parametrize("kind", reference.NETS)
each_base = pytest.mark.parametrize("base", BASES.values(), ids=BASES)
each_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


class Point:
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


@each_recipe
@each_base
@each_net
def test_radius_zero_is_the_base_optimiser(kind, base, recipe):
    still = recipe.replace(radius=Constant(0))
    assert still.passes == 1 and trained(kind, base, still) == trained(kind, base)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("recipe", [SAM, BISAM_LOG, BISAM_TANH], ids=lambda recipe: recipe.name)
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
    class MeanOverClasses:
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
