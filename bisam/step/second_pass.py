r"""Line 5 of Algorithm 1: the gradient of the descent loss at the worst point, :math:`\nabla L(w + \epsilon)`."""

from __future__ import annotations

import torch

from ..axes.tensors import Tensors
from . import gradients
from .batch import Batch
from .passes import backward, kept, note_rise, weighted
from .step import Step


def descend(step: Step, piece: Batch, part: float, share: float) -> None:
    """Backward from the descent loss at the worst point, on the samples that are chosen."""
    recipe, selection = step.recipe, step.recipe.selection
    if selection is not None and selection.when == "after" and selection.fraction < 1:
        with torch.no_grad(), piece.replayed():
            piece.at_worst = piece.logits().clone()
        note_rise(step, piece, part * share)
        piece = piece.subset(selection.chosen(piece.at_w, piece.at_worst, piece.targets, recipe.raised, recipe.descent))
    with piece.replayed():
        logits = piece.logits()
    if piece.at_w is not None:
        piece.at_worst = kept(logits)
        note_rise(step, piece, part * share)
    backward(step, weighted(recipe.descent.mean(logits, piece.targets), part))


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


def teach(step: Step, pieces: list[Batch], share: float, at_w: Tensors) -> None:
    """Shows a learned radius the gradients on both sides of the climb."""
    held = {name: p.grad.detach().clone() for name, p in step.parameters.items() if p.grad is not None}
    step.learner.descended(step.parameters, pieces, share, at_w, gradients.unscaled_(held, step.scaler))
