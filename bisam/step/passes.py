"""What surrounds a pass through the model, and what is noted of it."""

from __future__ import annotations

from contextlib import nullcontext

from torch import Tensor

from ..losses.cross_entropy import ZeroOne
from ..losses.loss import Loss
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


def parts_of(pieces: list[Batch]) -> list[tuple[Batch, float | Tensor]]:
    """Each piece with its share of the losses of all: that of the samples, or of their weights."""
    if len(pieces) == 1:
        return [(pieces[0], 1.0)]
    masses = [piece.mass for piece in pieces]
    return [(piece, mass / sum(masses)) for piece, mass in zip(pieces, masses, strict=True)]


def weighted(loss: Tensor, share: float | Tensor) -> Tensor:
    return loss if isinstance(share, float) and share == 1 else loss * share


def kept(logits: Tensor) -> Tensor:
    """Logits without their graph, to be looked at later, in memory of their own: a model may write its next ones over them."""
    return logits.detach().clone()


def with_terms(piece: Batch, loss: Tensor, term: Tensor | None, place: str) -> Tensor:
    """The descent loss with its extra terms, of which a note is taken."""
    if term is None:
        return loss
    piece.terms[place] = term.detach()
    return loss + term


def mean_of_values(loss: Loss, piece: Batch, logits: Tensor) -> Tensor:
    """The mean of a loss, by its values."""
    rows = piece.rows(logits)
    return rows.mean_of(rows.values(loss))


def note_loss(step: Step, piece: Batch, value: Tensor | None = None) -> None:
    if value is None:
        value = with_terms(piece, mean_of_values(step.recipe.descent, piece, piece.at_w), piece.terms.get("at_w"), "at_w")
    part = weighted(value.detach(), 1.0 if step.is_whole(piece) else piece.mass / step.mass)
    step.outcome.loss = part if step.outcome.loss is None else step.outcome.loss + part


def chosen(step: Step, piece: Batch) -> Batch:
    """The samples that the recipe's selection takes, by the logits that the piece has."""
    losses = piece.over(step.recipe.raised), piece.over(step.recipe.descent)
    return piece.subset(step.recipe.selection.chosen(piece.at_w, piece.at_worst, piece.targets, *losses))


def note_rise(step: Step, piece: Batch, part: float) -> None:
    """How much worse the samples fare at the worst point."""
    if not step.record:
        return
    for name, loss in (("rise", step.recipe.descent), ("zero_one_rise", ZeroOne())):
        change = mean_of_values(loss, piece, piece.at_worst) - mean_of_values(loss, piece, piece.at_w)
        if name == "rise" and piece.terms:
            change = change + piece.terms["at_worst"] - piece.terms["at_w"]
        setattr(step.outcome, name, getattr(step.outcome, name) + part * change)
