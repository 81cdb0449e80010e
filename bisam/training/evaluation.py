"""Which samples a network gets right, and how many of them a climb has broken.

Whoever asks says what becomes of a tie. An accuracy is about the one class that a network answers, of equal scores the first, as ``argmax``
has it; a broken sample is about the 0-1 loss, where a tie is right. Ties are as good as absent in float32, one logit in a thousand in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import _checks
from ..losses.rows import Task
from ..losses.targets import are_soft
from ..step.batch import Batch
from ..step.structure import given, logits_of
from .data import Data, Split

__all__ = ["TIES", "Seen", "accuracy", "broken", "count_rows", "is_right", "look", "right_rows", "which_right"]

TIES = ("right", "first")
CHUNK = 1000  # images that are looked at at a time


def is_right(logits: Tensor, targets: Tensor, ties: str = "right") -> Tensor:
    r"""Whether no other class has a higher logit than the true one, on the device of the logits, which is not waited for.

    .. math:: F_{i y_i} \ge \max_j F_{ij}

    Args:
        logits: scores, shape ``(n, K)``.
        targets: true classes, shape ``(n,)``.
        ties: of a sample whose true class shares the highest score: ``"right"`` counts it, as :func:`~bisam.losses.cross_entropy.zero_one`
            does; ``"first"`` counts it if its class is the first of the equal ones. Others are a ``ValueError``.

    Example:
        >>> logits, targets = torch.tensor([[1.0, 1.0], [1.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 1, 1])
        >>> is_right(logits, targets)
        tensor([ True,  True, False])
        >>> is_right(logits, targets, ties="first")
        tensor([ True, False, False])
    """
    if _checks.choice("ties", ties, TIES) == "first":
        return logits.argmax(1) == targets
    return logits.gather(1, targets.long().unsqueeze(1)).squeeze(1) >= logits.amax(1)


def accuracy(
    model: nn.Module, split: Split, chunk: int = CHUNK, prepared: Callable[[Tensor], Tensor] | None = None, ties: str = "first"
) -> float:
    """Share of samples to which the network gives the highest score at their class, in percent; arguments as for :func:`which_right`.

    Example:
        >>> accuracy(nn.Flatten(), Split(torch.eye(2), torch.tensor([0, 0])))
        50.0
    """
    return 100 * int(which_right(model, split, chunk, prepared, ties).sum()) / len(split)


def which_right(
    model: nn.Module, split: Split, chunk: int = CHUNK, prepared: Callable[[Tensor], Tensor] | None = None, ties: str = "first"
) -> Tensor:
    """Which samples are right, in evaluation mode, on the CPU; the mode of the model is kept.

    Args:
        model: any network that returns logits.
        split: samples and their classes.
        chunk: samples that go through the network at a time.
        prepared: makes of a chunk of inputs what the network takes, such as :meth:`bisam.training.data.Data.prepared`.
        ties: as for :func:`~bisam.training.evaluation.is_right`.

    Example:
        >>> which_right(nn.Flatten(), Split(torch.eye(2), torch.tensor([0, 0])))
        tensor([ True, False])
    """
    if getattr(split.inputs, "ndim", 0) < 2:
        raise ValueError("split must hold its samples as a tensor of shape (n, ...); of streamed images it holds their numbers, see Data.picked")
    parts = zip(split.inputs.split(chunk), split.targets.split(chunk), strict=True)
    with evaluating(model):
        right = [is_right(model(prepared(inputs) if prepared else inputs), targets, ties) for inputs, targets in parts]
    return torch.cat(right).cpu()


def right_rows(task: Task, logits: Tensor, targets: Tensor) -> Tensor:
    """Which rows that count have their highest score, of equal ones the first, at their class, or at the largest of their shares.

    A row is a sample, or a token that is not left out. Shape ``(m,)``, on the device of the logits.

    Example:
        >>> from bisam import Multiclass
        >>> right_rows(Multiclass(axis=-1, ignore_index=-100), torch.eye(2).expand(1, 2, 2), torch.tensor([[0, -100]]))
        tensor([True])
    """
    rows = task.rows(logits, targets)
    classes = rows.targets.argmax(1) if are_soft(rows.targets) else rows.targets
    found = rows.logits.argmax(1) == classes
    return found if rows.weights is None else found[rows.weights > 0]


def count_rows(task: Data, split: Split) -> int:
    """How many rows of a split count: its samples, or its tokens that are not left out.

    Example:
        >>> split = Split(torch.eye(2), torch.tensor([0, 1]))
        >>> count_rows(Data("two", 2, split, split, split), split)
        2
    """
    targets, weights = task.task.flat(split.targets)
    return len(targets) if weights is None else int((weights > 0).sum())


class Seen(NamedTuple):
    """What a look at a split has found: ``right``, which rows are, shape ``(m,)`` on the CPU, and the ``metrics`` in percent, accuracy first.

    Example:
        >>> Seen(torch.tensor([True, False]), {"accuracy": 50.0}).metrics["accuracy"]
        50.0
    """

    right: Tensor
    metrics: dict[str, float]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, a network is in evaluation mode, and no graph is made; its mode is kept.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> with evaluating(model):
        ...     inside = model.training
        >>> inside, model.training
        (False, True)
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def passes(
    model: nn.Module, task: Data, split: Split, laid_out: Callable[[Tensor], Tensor], chunk: int, parts: Iterable[tuple[Tensor, Tensor]] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """The logits of the samples of a split with their targets, part by part; arguments as for :func:`look`.

    Example:
        >>> split = Split(torch.eye(2), torch.tensor([0, 1]))
        >>> [len(logits) for logits, targets in passes(nn.Flatten(), Data("two", 2, split, split, split), split, lambda inputs: inputs, chunk=1)]
        [1, 1]
    """
    picked = (task.picked(split, slice(start, start + chunk)) for start in range(0, len(split), chunk))
    for inputs, targets in picked if parts is None else parts:
        yield logits_of(given(model, laid_out(task.prepared(inputs)))), targets


def look(
    model: nn.Module, task: Data, split: Split, laid_out: Callable[[Tensor], Tensor] = lambda inputs: inputs, chunk: int = CHUNK, whole: bool = True,
    parts: Iterable[tuple[Tensor, Tensor]] | None = None, joined: Callable[[Tensor], Tensor] = lambda mine: mine,
) -> Seen:  # fmt: skip
    """All that the metrics of a task say of a network on a split, in evaluation mode; the mode of the model is kept.

    Args:
        model: any network that returns logits.
        task: the data, which say how a batch is picked and what is measured.
        split: samples on the device of the network.
        laid_out: changes inputs before the network takes them.
        chunk: samples that go through the network at a time.
        whole: measure everything, and not the accuracy alone.
        parts: the inputs and targets of the split, in order, where they are not picked from its tensors.
        joined: makes of what the samples in ``parts`` have come to what all samples have, where each of several processes has its share.

    Example:
        >>> split = Split(torch.eye(2), torch.tensor([0, 0]))
        >>> look(nn.Flatten(), Data("two", 2, split, split, split, metrics=("accuracy", "f1")), split).metrics
        {'accuracy': 50.0, 'f1': 0.0}
    """
    right, kept, whole = [], [], whole and len(task.metrics) > 1
    with evaluating(model):
        for logits, targets in passes(model, task, split, laid_out, chunk, parts):
            right.append(right_rows(task.task, logits, targets).cpu())
            if whole and logits.ndim == 2:
                kept.append(logits.float().cpu())
        found = joined(torch.cat(right))
        more = task.measured(model, split, joined(torch.cat(kept)) if kept else None) if whole else {}
    return Seen(found, {"accuracy": 100 * int(found.sum()) / len(found), **more})


def broken(batch: Batch, ties: str = "right") -> Tensor | int:
    """How many of the samples that both passes of a step saw are right at w and wrong at w + epsilon, in training mode.

    ``ties`` as for :func:`~bisam.training.evaluation.is_right`; ``"first"`` is the count of records of version 0.1.0.

    Example:
        >>> broken(Batch(nn.Flatten(), torch.eye(2), torch.tensor([0, 1])))
        0
    """
    batch = batch if batch.chosen is None else batch.chosen
    if batch.at_worst is None:
        return 0
    return (is_right(batch.at_w, batch.targets, ties) & ~is_right(batch.at_worst, batch.targets, ties)).sum()


class Sums:
    """What the steps of an epoch add up, on the device until its end: losses, right rows, those that the climb has broken, and all rows.

    Rows of plain samples are the samples, whose number needs no counting.
    """

    def __init__(self, device: torch.device):
        self.loss = torch.zeros((), device=device)
        self.right, self.broken, self.rows = self.loss.long(), self.loss.long(), self.loss.long()

    def clear(self) -> None:
        """Begins again, in the same tensors."""
        for total in (self.loss, self.right, self.broken, self.rows):
            total.zero_()

    def add(self, batch: Batch, loss: Tensor) -> None:
        """Takes in a step, without waiting for it."""
        if batch.is_plain:
            self.loss.add_(loss * len(batch.targets))
            self.right.add_(is_right(batch.at_w, batch.targets, ties="first").sum())
            self.broken.add_(broken(batch))
            return
        right = right_rows(batch.task, batch.at_w, batch.targets)
        self.loss.add_(loss * len(right))
        self.right.add_(right.sum())
        self.rows.add_(len(right))
        both = batch if batch.chosen is None else batch.chosen
        if both.at_worst is not None:
            before, after = (right_rows(both.task, logits, both.targets) for logits in (both.at_w, both.at_worst))
            self.broken.add_((before & ~after).sum())

    def add_parts(self, parts: Sequence[Batch], loss: Tensor) -> None:
        """Takes in a step whose batch went through the network in parts, with the loss of them all."""
        for part in parts:
            self.add(part, loss)
