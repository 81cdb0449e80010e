r"""Line 3 of Algorithm 1: the gradient of the ascent loss, :math:`\nabla A(w)`."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from ..axes.tensors import Tensors, euclidean_norm, linear
from . import gradients
from .batch import Batch
from .passes import (
    backward,
    counted,
    kept,
    note_loss,
    on_this_worker,
    parts_of,
    remember_noise,
    weighted,
    with_graph,
)
from .step import Step

_NO_GRADIENT = (
    "no parameter of the base optimiser has a gradient after the first pass: "
    "the base must hold the parameters of the model, and some of those that may climb must require gradients"
)


def ranked(step: Step, pieces: list[Batch]) -> tuple[list[Batch], bool]:
    """The samples that both passes see, and whether a pass over all has ranked them, which is then the one whose statistics count."""
    recipe, found = step.recipe, []
    if recipe.selection is None or recipe.selection.when != "before" or recipe.selection.fraction == 1:
        return pieces, False
    for piece in pieces:
        remember_noise(step, piece)
        with torch.no_grad(), counted(step, piece):
            piece.at_w = piece.logits().clone()
        note_loss(step, piece)
        piece.chosen = piece.subset(recipe.selection.chosen(piece.at_w, None, piece.targets, recipe.raised, recipe.descent))
        found.append(piece.chosen)
    return found, True


def ascent_gradient(step: Step, pieces: list[Batch], is_ranked: bool) -> tuple[Tensors, Tensors]:
    """The ascent gradient, and the descent gradient at the same place where the recipe needs it too."""
    recipe, found, descent_at_w = step.recipe, {}, {}
    inputs = _inputs(step)
    for piece, part in parts_of(pieces):
        if not is_ranked:
            remember_noise(step, piece)
        # The backward passes belong inside: norm layers look at their statistics again.
        with on_this_worker(step), step.held() if is_ranked else counted(step, piece):
            with piece.replayed() if is_ranked else nullcontext():
                logits = with_graph(piece.logits())
            if inputs and gradients.python_functions(logits):
                inputs = None  # no saving where some of them might be missed
            if recipe.gradient_at_w == "descent":
                loss = weighted(recipe.descent.mean(logits, piece.targets), part)
                descent_at_w = linear(descent_at_w, 1, _gradient_beside(step, loss), 1)
            at_w = piece.at_w  # there already where this pass is not at w
            value = _backward_from_ascent(step, logits, piece, part, inputs)
            if recipe.start is not None:
                piece.at_w, value = at_w, None
        if len(pieces) > 1:
            found = linear(found, 1, gradients.take(step.parameters), 1)
        if not is_ranked:
            note_loss(step, piece, value)
        if step.learner is not None:
            step.learner.check(logits)
    found = found if len(pieces) > 1 else gradients.take(step.parameters)
    if not found and inputs != [] and (inputs is None or not recipe.geometry.is_drawn):
        raise RuntimeError(_NO_GRADIENT)
    if descent_at_w:
        step.outcome.beside = euclidean_norm(descent_at_w)  # nobody else would notice that it is not finite
    return gradients.unscaled_(found, step.scaler), descent_at_w


def _backward_from_ascent(step: Step, logits: Tensor, piece: Batch, part: float, inputs: list[Tensor] | None) -> Tensor | None:
    """Backward from the ascent loss; from its gradient for the logits where the loss knows it in closed form.

    Returns the descent loss, where that is what is raised.
    """
    piece.at_w = kept(logits)
    loss = step.recipe.raised
    if inputs == []:
        return None  # no tensor was drawn: nothing climbs
    # Factors come before the rounding to half precision, in which a gradient of far margins would vanish.
    scale = part if step.scaler is None else gradients.scaled(torch.ones((), device=logits.device), step.scaler) * part
    slope = loss.gradient(logits, piece.targets, scale)
    if slope is not None:
        logits.backward(slope, inputs=inputs)
        if step.is_graphed:
            gradients.copied(step.parameters)
        return None
    value = loss.values(logits, piece.targets).mean()
    backward(step, weighted(value, part), inputs)
    return value if loss is step.recipe.descent else None


def _inputs(step: Step) -> list[Tensor] | None:
    """The parameters whose ascent gradient is needed, or ``None`` for all."""
    if step.keeps_ascent or step.is_joint or step.is_sharded:  # workers wait for the gradients of all parameters
        return None
    names = step.active()
    if names is None:
        return None
    found = [p for name, p in step.parameters.items() if name in names and p.requires_grad]
    may_be_none = step.recipe.geometry.is_drawn
    if not found and not (may_be_none and any(not gradients.is_foreign(name) for name in step.parameters)):
        raise RuntimeError(_NO_GRADIENT)
    return found


def _gradient_beside(step: Step, loss: Tensor) -> Tensors:
    """The gradient of a loss by name, on the side: the parameters keep theirs. The graph is kept as well."""
    named = {name: p for name, p in step.parameters.items() if p.requires_grad}
    if not named:
        return {}
    # Shards are no part of the graph, and get their gradients by hooks of a backward pass; others may be hidden in a function.
    if step.is_sharded or (not step.is_joint and gradients.python_functions(loss)):
        gradients.scaled(loss, step.scaler).backward(retain_graph=True)
        gradient = gradients.take(step.parameters)
    else:
        found = torch.autograd.grad(gradients.scaled(loss, step.scaler), list(named.values()), retain_graph=True, allow_unused=True)
        gradient = {name: g for name, g in zip(named, found, strict=True) if g is not None}
    gradient = {name: g.clone() for name, g in gradient.items()} if step.is_graphed else gradient
    return gradients.unscaled_(gradients.mean_over_workers(gradient, step.shared) if step.is_joint else gradient, step.scaler)


def look_at_w(step: Step, pieces: list[Batch], is_ranked: bool) -> None:
    """A pass at w for the record, where the first pass is elsewhere: it draws the same numbers and leaves no trace."""
    with torch.no_grad(), step.held(), pieces[0].random_state().replayed():
        for piece in pieces:
            with piece.replayed() if is_ranked else nullcontext():
                piece.at_w = piece.logits().clone()
