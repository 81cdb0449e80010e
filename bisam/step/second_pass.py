r"""Line 5 of Algorithm 1: the gradient of the descent loss at the worst point, :math:`\nabla L(w + \epsilon)`."""

from __future__ import annotations

import torch
from torch import Tensor

from ..axes.tensors import Tensors
from ..losses.formula import at_least_float32
from ..losses.loss import Loss
from . import gradients
from .batch import Batch
from .passes import backward, chosen, kept, note_rise, weighted, with_terms
from .sharded import drop_copies
from .step import Step


def descend(step: Step, piece: Batch, part: float | Tensor, share: float | Tensor) -> None:
    """Backward from the descent loss at the worst point, on the samples that are chosen."""
    recipe, selection = step.recipe, step.recipe.selection
    if selection is not None and selection.when == "after" and selection.fraction < 1:
        with torch.no_grad(), piece.replayed():
            logits, term = piece.passed()
        drop_copies()
        piece.at_worst = logits.clone()
        with_terms(piece, piece.at_worst, term, "at_worst")
        note_rise(step, piece, part * share)
        piece = chosen(step, piece)
    with piece.replayed():
        logits, term = piece.passed()
    mean = piece.mean(recipe.descent, logits) if recipe.factors == "both" else with_slope_at_w(recipe.descent, piece, logits)
    loss = with_terms(piece, mean, term, "at_worst")
    if piece.at_w is not None:
        piece.at_worst = kept(logits)
        note_rise(step, piece, part * share)
    backward(step, weighted(loss, part))


def with_slope_at_w(loss: Loss, piece: Batch, logits: Tensor) -> Tensor:
    r"""The linear function :math:`\langle \ell'(f_w), f_{w + \epsilon} \rangle`, whose gradient is the Jacobian at the worst point times the slope at w.

    The slope is in float32 at least: in float16 that of a far margin would vanish before a scaler's factor comes.
    """
    with torch.enable_grad():
        at_w = piece.at_w.detach().to(at_least_float32(piece.at_w)).requires_grad_()
        (slope,) = torch.autograd.grad(piece.mean(loss, at_w), at_w)
    return (slope * logits.to(slope.dtype)).sum()


def combine(step: Step, at_w: Tensors, share: float) -> None:
    """What the base is given, where it is not the gradient at the worst point alone."""
    if step.recipe.combination is None:
        return
    at_worst = gradients.unscaled_(gradients.take(step.parameters), step.scaler)
    if step.shared is not None and step.per_worker:
        at_w = gradients.mean_over_workers(at_w, step.shared)  # all workers must give their bases the same gradient
    with torch.no_grad():
        found = step.recipe.combination.combined(at_w, at_worst, step.memory, share * step.weight)
        gradients.put(step.parameters, gradients.rescaled(found, step.scaler))


def alone(step: Step) -> None:
    """What the base is given of the one gradient of a step without a climb."""
    if step.recipe.combination is None:
        return
    found = gradients.unscaled_(gradients.take(step.parameters), step.scaler)
    found = step.recipe.combination.alone(found, step.memory)
    gradients.put(step.parameters, gradients.rescaled(found, step.scaler))


def teach(step: Step, pieces: list[Batch], share: float, at_w: Tensors) -> None:
    """Shows a learned radius the gradients on both sides of the climb."""
    held = {name: p.grad.detach().clone() for name, p in step.parameters.items() if p.grad is not None}
    step.learner.descended(step.parameters, pieces, share, at_w, gradients.unscaled_(held, step.scaler))
