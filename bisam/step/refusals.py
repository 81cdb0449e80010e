"""What cannot be done is refused by name, before anything is touched."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from .. import _checks, _look
from ..axes.recipe import Recipe
from . import sharded
from .bases import check_in_place
from .batch import Batch
from .doors import instead_of_a_batch
from .groups import radii_of_groups
from .modules import draws_noise, names_of
from .rng import RNGState
from .step import Step


def checked_batch(recipe: Recipe, batch: object, validation: object, record: bool) -> list[Batch]:
    """The parts of the batch, or an error."""
    pieces = batch if isinstance(batch, list) else [batch]
    if not pieces or not all(isinstance(piece, Batch) for piece in pieces):
        got = next((type(piece).__name__ for piece in pieces if not isinstance(piece, Batch)), "an empty list")
        raise TypeError(f"step needs a bisam.Batch(model, inputs, targets), got {got}; or a list of batches{instead_of_a_batch(batch)}")
    model = pieces[0].model
    if not isinstance(model, nn.Module):  # its parameters and buffers have to be found
        raise TypeError(f"the model of the batch must be a torch.nn.Module, got {type(model).__name__}")
    sharded.check_model(model)
    if any(piece.model is not model for piece in pieces):
        raise TypeError("the parts of a batch must have the same model")
    learns = recipe.radius.learns
    if not isinstance(validation, Batch) if learns else validation is not None:
        wanted = "must be a bisam.Batch" if learns else "must be left out"
        raise TypeError(f"validation {wanted} for recipe {recipe.name!r}, got {type(validation).__name__}")
    if learns and validation.model is not model:
        raise TypeError("validation must be a batch of the same model as the training batch")
    if not all(piece.is_plain for piece in pieces) and _look.is_free(pieces[0].targets) and float(sum(piece.mass for piece in pieces)) == 0:
        raise ValueError("no target of the batch counts: all have a weight of 0 or are ignored")
    if pieces[0].device.type == "meta" and (learns or record):
        field = "recipe must have no learned radius" if learns else "record must be False"
        raise ValueError(f"{field} on the meta device, where there are shapes and no numbers")
    return pieces


def check_block(recipe: Recipe, groups: list[dict], model: nn.Module, noise: RNGState | None, ascent: object) -> None:
    """An error where a block around passes of others cannot do what the recipe says."""
    sharded.check_model(_checks.module("model", model))
    known = names_of(model)
    if not any(parameter in known for group in groups for parameter in group["params"]):
        raise ValueError("model must be the one whose parameters the base holds; none of this model's are among them")
    if noise is not None:
        _checks.part("noise", noise, RNGState, "a bisam.step.RNGState")
    _check_passes(recipe, "a block")
    if ascent is not None:
        _checks.function("ascent", ascent, "a function without arguments that returns the ascent loss")
        if noise is not None:
            raise ValueError("noise must be left out with ascent, whose pass the block makes itself, at the noise that the other draws again")
        if any(parameter.grad is not None for group in groups for parameter in group["params"]):
            raise ValueError("ascent must be given where no parameter has a gradient, which would be lost: call opt.zero_grad() before the block")
    elif recipe.radius.rho != 0 and raises_another(recipe):
        raise ValueError(
            f"ascent must be given for recipe {recipe.name!r}, which raises another loss than it descends on: "
            "with opt.perturbed(model, ascent=lambda: opt.recipe.ascent(model(x), y)), and no backward() before it"
        )
    elif recipe.radius.rho != 0 and recipe.start is not None:
        raise ValueError(
            f"ascent must be given for recipe {recipe.name!r}, whose first gradient is not taken at w: "
            "with opt.perturbed(model, ascent=lambda: loss_of(model(x), y)), and no backward() before it"
        )
    if recipe.radius.rho != 0 and recipe.gradient_at_w == "descent":
        raise ValueError(
            f"the combination of recipe {recipe.name!r} needs the gradient of the descent loss at w beside that of the ascent loss, "
            "which a block does not see; use opt.step(ascent=..., descent=...), with a function for each loss, or opt.step(batch)"
        )
    if noise is None and ascent is None and recipe.same_noise and draws_noise(model):
        raise ValueError(
            "noise must be given for a model with active dropout: take noise = bisam.step.RNGState(device) before the "
            "first pass and call perturbed(model, noise); or hand over that pass, perturbed(model, ascent=lambda: loss); "
            "or use a recipe with same_noise=False"
        )


def check_calls(recipe: Recipe, ascent: object, descent: object, model: object, per_worker: bool) -> None:
    """An error where functions in place of a batch cannot do what the recipe says; without ``descent`` it is a closure."""
    _check_passes(recipe, "a function" if descent is not None else "a closure")
    if recipe.radius.rho != 0 and ascent is None and raises_another(recipe):
        why = "ascent must be given beside descent for" if descent is not None else "a closure has one loss, and cannot serve"
        raise ValueError(
            f"{why} recipe {recipe.name!r}, which raises another loss than it descends on: "
            "opt.step(ascent=lambda: opt.recipe.ascent(model(x), y), descent=lambda: loss_of(model(x), y))"
        )
    if model is not None:
        _checks.module("model", model)
    elif recipe.radius.rho != 0 and (recipe.start is not None or per_worker):
        why = "per_worker=True" if per_worker else f"recipe {recipe.name!r}, whose first gradient is not taken at w"
        raise ValueError(f"model must be given to step, step(..., model=model), for {why}")


def raises_another(recipe: Recipe) -> bool:
    """Whether the ascent loss is not the descent loss."""
    return recipe.ascent is not None and recipe.ascent != recipe.descent


def _check_passes(recipe: Recipe, where: str) -> None:
    """An error for what needs the samples themselves."""
    if recipe.radius.rho == 0:
        return
    extra = [field for field in ("selection", "micro_batch") if getattr(recipe, field) is not None]
    extra += ["radius"] if recipe.radius.learns else []
    extra += [field for field, neutral in (("ascent_steps", 1), ("factors", "both")) if getattr(recipe, field) != neutral]
    if extra:
        raise ValueError(
            f"the {extra[0]} of recipe {recipe.name!r} needs the batch itself, which {where} does not see; "
            "use opt.step(batch) or opt.backward(batch)"
        )


def about_scaler(step: Step) -> str | None:
    """What is said to a ``GradScaler`` that a block was not given; ``None`` where its factor has changed nothing of the climb."""
    recipe, device = step.recipe, next(iter(step.parameters.values())).device
    one, other = (recipe.radius.length(step.rho, torch.tensor(size, device=device)) for size in (1e-3, 1e6))
    remembers = recipe.direction is not None or (recipe.combination is not None and recipe.combination.hands_over)
    if not step.climbs or (recipe.geometry.is_bounded and float(one) == float(other) and not remembers):
        return None
    return (
        f"scaler must be given to the block, opt.perturbed(model, scaler=scaler), for recipe {recipe.name!r}: "
        "its climb depends on the size of the gradient, and the factor of the GradScaler was taken for a part of that"
    )


def check_moment(recipe: Recipe, base: torch.optim.Optimizer, is_inside: bool, per_worker: bool, model: nn.Module | None) -> None:
    """An error where no step can begin now."""
    recipe.check_base(base)  # its groups may have changed
    if sharded.any_sharded(parameter for group in base.param_groups for parameter in group["params"]):
        sharded.check_recipe(recipe, per_worker, model)
    if is_inside:
        raise RuntimeError("a `with opt.perturbed(model):` block must be left before the next step or block begins")
    if model is not None:
        check_in_place(model)
    if not torch.is_grad_enabled():
        raise RuntimeError("gradients must be enabled for a step; leave torch.no_grad() or inference_mode() first")
    for g, rho in radii_of_groups(base).items():
        if _checks.nonnegative(f"rho of parameter group {g}", rho) > 0 and recipe.radius.rho == 0:
            raise ValueError(
                f"rho of parameter group {g} must be 0 for recipe {recipe.name!r}, which has no radius; "
                f"got {rho!r}"
            )


def called(closure: Callable[[], object]) -> object:
    """What a closure returns."""
    _checks.function("closure", closure, "a function without arguments")
    try:
        return closure()
    except Exception as error:
        error.add_note("closure was called without arguments")
        raise


def call_hooks(closure: Callable[[], object] | None) -> None:
    """Calls a closure in which a framework runs its hooks, where a gradient waits already."""
    if closure is not None and called(closure) is not None:
        raise TypeError("closure must not compute a loss: its gradient would replace the one at the worst point")


def enabled(scaler):
    """The scaler, or ``None`` for one that is switched off and so looks at no gradient."""
    if scaler is not None and not isinstance(scaler, torch.amp.GradScaler):
        _checks.part("scaler", scaler, ("is_enabled", "scale", "unscale_", "step", "update"), "a torch.amp.GradScaler")
    return scaler if scaler is not None and scaler.is_enabled() else None
