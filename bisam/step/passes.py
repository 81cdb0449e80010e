"""What surrounds a pass through the model, and what is noted of it."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from . import gradients
from .batch import Batch
from .step import Step


def backward(step: Step, loss: Tensor, inputs: list[Tensor] | None = None) -> None:
    """``loss.backward()``, scaled if there is a scaler."""
    gradients.scaled(loss, step.scaler).backward(inputs=inputs)
    if step.is_graphed:
        gradients.copied(step.parameters)


def on_this_worker(step: Step):
    """Keeps the ascent gradient to this worker, if every worker is to climb by itself."""
    return step.model.no_sync() if step.per_worker and hasattr(step.model, "no_sync") else nullcontext()


def counted(step: Step, piece: Batch):
    """Around a pass at w, whose batch-norm statistics count; shared by the pieces of a step."""
    return nullcontext() if step.statistics is None else step.statistics.part(len(piece) / step.total)


def remember_noise(step: Step, piece: Batch) -> None:
    """Called before the first pass over a piece, whose dropout masks the others are to draw again."""
    piece.drawn = piece.random_state() if step.recipe.same_noise else None


def with_graph(logits: Tensor) -> Tensor:
    """Logits that a gradient can be taken of, or an error that says what to do."""
    if not logits.requires_grad:
        raise ValueError(
            "model must have a parameter that requires a gradient and leads to the logits: unfreeze some with "
            "requires_grad_(True), and keep torch.no_grad() out of its forward pass"
        )
    return logits


def parts_of(pieces: list[Batch]) -> list[tuple[Batch, float]]:
    """Each piece with its share of the samples of all."""
    total = sum(len(piece) for piece in pieces)
    return [(piece, len(piece) / total) for piece in pieces]


def weighted(loss: Tensor, share: float) -> Tensor:
    return loss if share == 1 else loss * share


def kept(logits: Tensor) -> Tensor:
    """Logits without their graph, to be looked at later, in memory of their own: a model may write its next ones over them."""
    return logits.detach().clone()


def note_loss(step: Step, piece: Batch, value: Tensor | None = None) -> None:
    if value is None:
        value = step.recipe.descent.values(piece.at_w, piece.targets).mean()
    part = weighted(value.detach(), len(piece) / step.total)
    step.outcome.loss = part if step.outcome.loss is None else step.outcome.loss + part


def note_rise(step: Step, piece: Batch, part: float) -> None:
    """How much worse the samples fare at the worst point."""
    if not step.record:
        return
    for name, values in (("rise", step.recipe.descent.values), ("zero_one_rise", _wrong)):
        change = values(piece.at_worst, piece.targets).mean() - values(piece.at_w, piece.targets).mean()
        setattr(step.outcome, name, getattr(step.outcome, name) + part * change)


def _wrong(logits: Tensor, targets: Tensor) -> Tensor:
    """1 for a sample whose true class is beaten; a tie is right, as in :func:`bisam.losses.zero_one`, whose checks would read numbers."""
    own = logits.gather(1, targets.long().unsqueeze(1)).squeeze(1)
    return (own < logits.amax(1)).to(torch.promote_types(logits.dtype, torch.float32))
