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
    chosen,
    counted,
    kept,
    note_loss,
    on_this_worker,
    parts_of,
    remember_noise,
    weighted,
    with_graph,
    with_terms,
)
from .sharded import drop_copies
from .step import Step

_NO_GRADIENT = (
    "no parameter of the base optimiser has a gradient after the first pass: "
    "the base must hold the parameters of the model, and some of those that may climb must require gradients"
)
_UNSYNCHRONISED = "; a model of fully_shard gives its shards none after set_requires_gradient_sync(False): call it with True before a step"


def ranked(step: Step, pieces: list[Batch]) -> tuple[list[Batch], bool]:
    """The samples that both passes see, and whether a pass over all has ranked them, which is then the one whose statistics count."""
    recipe, found = step.recipe, []
    if recipe.selection is None or recipe.selection.when != "before" or recipe.selection.fraction == 1:
        return pieces, False
    for piece in pieces:
        remember_noise(step, piece)
        look(step, piece, counted(step, piece))
        note_loss(step, piece)
        piece.chosen = chosen(step, piece)
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
                logits, term = piece.passed()
            with_graph(logits)
            if inputs and gradients.python_functions(logits, term):
                inputs = None  # no saving where some of them might be missed
            if recipe.gradient_at_w == "descent":
                loss = weighted(piece.mean(recipe.descent, logits, term), part)
                descent_at_w = linear(descent_at_w, 1, _gradient_beside(step, loss), 1)
            at_w, terms = piece.at_w, piece.terms  # there already where this pass is not at w
            value = _backward_from_ascent(step, logits, term, piece, part, inputs)
            if recipe.start is not None:
                piece.at_w, piece.terms, value = at_w, terms, None
        if len(pieces) > 1:
            found = linear(found, 1, gradients.take(step.parameters), 1)
        if not is_ranked:
            note_loss(step, piece, value)
        if step.learner is not None:
            step.learner.check(logits)
    found = found if len(pieces) > 1 else gradients.take(step.parameters)
    gradients.check_known(found)
    if not found and inputs != [] and (inputs is None or not recipe.geometry.is_drawn):
        raise RuntimeError(_NO_GRADIENT + (_UNSYNCHRONISED if step.is_sharded else ""))
    if descent_at_w:
        step.outcome.beside = euclidean_norm(descent_at_w)  # nobody else would notice that it is not finite
    return gradients.unscaled_(found, step.scaler), descent_at_w


def ascent_gradient_nearby(step: Step, pieces: list[Batch]) -> Tensors:
    """The ascent gradient where an earlier one has led to; what is known of w, and the statistics and random numbers of its pass, stay."""
    seen = [(piece.at_w, piece.terms) for piece in pieces]
    found, _ = ascent_gradient(step, pieces, is_ranked=True)
    for piece, (at_w, terms) in zip(pieces, seen, strict=True):
        piece.at_w, piece.terms = at_w, terms
    return found


def _backward_from_ascent(
    step: Step, logits: Tensor, term: Tensor | None, piece: Batch, part: float | Tensor, inputs: list[Tensor] | None
) -> Tensor | None:
    """Backward from the ascent loss; from its gradient for the logits where the loss knows it in closed form.

    Returns the descent loss, where that is what is raised.
    """
    piece.at_w, piece.terms = kept(logits), {} if term is None else {"at_w": term.detach()}
    loss, is_descent = step.recipe.raised, step.recipe.raised is step.recipe.descent
    if inputs == []:
        return None  # no tensor was drawn: nothing climbs
    # Factors come before the rounding to half precision, in which a gradient of far margins would vanish.
    scale = part if step.scaler is None else gradients.scaled(torch.ones((), device=logits.device), step.scaler) * part
    rows = piece.rows(logits)
    slope = None if is_descent and term is not None else rows.gradient(loss, scale)
    if slope is not None:
        rows.logits.backward(slope, inputs=inputs)
        if step.is_graphed:
            gradients.copied(step.parameters)
        return None
    value = rows.mean_of(rows.values(loss))
    value = with_terms(piece, value, term, "at_w") if is_descent else value
    backward(step, weighted(value, part), inputs)
    return value if is_descent else None


def _inputs(step: Step) -> list[Tensor] | None:
    """The parameters whose ascent gradient is needed, or ``None`` for all."""
    if step.keeps_ascent or step.is_joint or step.is_sharded:  # workers wait for the gradients of all parameters
        return None
    names = step.active()
    if names is None or any(gradients.is_foreign(name) for name in step.parameters):  # those are to be noticed
        return None
    found = [p for name, p in step.parameters.items() if name in names and p.requires_grad]
    if not found and not step.recipe.geometry.is_drawn:
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
    with step.held(), pieces[0].random_state().replayed():
        for piece in pieces:
            look(step, piece, piece.replayed() if is_ranked else nullcontext())


def look(step: Step, piece: Batch, around) -> None:
    """The logits at w, and the extra terms there, without a graph."""
    with torch.no_grad(), around:
        logits, term = piece.passed()
    drop_copies()
    piece.at_w = logits.clone()
    with_terms(piece, piece.at_w, term, "at_w")
