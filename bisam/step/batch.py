"""One mini-batch and its model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from .. import _checks, _look
from ..losses.loss import Loss
from ..losses.rows import Rows, Task
from ..losses.targets import checked_weights
from ..losses.task import Multiclass
from . import structure
from .rng import RNGState

__all__ = ["Batch"]

CLASSES = Multiclass()


class Batch:
    r"""A model with the samples it is evaluated on, and what its logits mean.

    .. math:: w \mapsto \frac1n \sum_{i=1}^n \ell\big(f_w(x_i), y_i\big)

    Args:
        model: the network :math:`f_w`. A tensor is given to it as ``model(inputs)``, a tuple or list as ``model(*inputs)``, a dictionary
            as ``model(**inputs)``. It returns logits, or something with ``logits`` in it.
        inputs: the samples: a tensor of shape ``(n, ...)``, or a tuple, list or dictionary with such tensors; or whatever ``forward`` takes. A tensor in it
            that has n rows has one a sample; all else is shared by the samples.
        targets: for ``(n, K)`` logits true classes, shape ``(n,)``, whole numbers in ``0 .. K - 1``, or distributions over the classes, shape ``(n, K)``; on the
            device of the logits. For pixels, tokens, one logit and independent labels see ``task``.
        autocast: ``torch.bfloat16`` or ``torch.float16`` to compute the forward pass in mixed precision. (Under an
            autocast context of your own around the whole step the backward passes would run in it too.)
        task: what the logits mean, :class:`~bisam.losses.task.Multiclass` or :class:`~bisam.losses.task.Binary`, with class weights and an ignored label.
        forward: how the logits are reached, ``forward(model, inputs)``, where it is not as above: it returns logits, or a dictionary with
            ``"logits"`` and what ``extra`` needs.
        weights: how much each sample counts, shape ``(n,)``, or each pixel, token or label, shape of the targets (of shares without the axis of the classes); 0 or greater. The mean is divided by their sum.
        extra: terms of the descent loss beside it, ``extra(outputs, batch)``: a scalar with a graph, the mean over the samples of this ``batch``, which may
            be a part of yours; ``outputs`` is what the model or ``forward`` has returned.

    After a step there are logits of it, without a graph, for accuracies and logs. ``at_w`` are those at w, before the base has moved
    it. ``at_worst`` are those where the descent gradient was taken, at :math:`w + \epsilon` (with a start that is kept, at
    :math:`w + \delta + \epsilon`); ``None`` if nothing climbed, or if not all samples have been seen there. Of a
    :class:`~bisam.axes.selection.TopK`, ``chosen`` is the batch of the samples that both passes saw, with logits of its own. Network and data are in
    the state in which the step saw them: batch norm with the statistics of what went through together, dropout with the
    masks of the first pass (drawn anew for ``at_worst`` if the recipe says ``same_noise=False``).

    Raises:
        TypeError, ValueError: an empty batch, targets that are none of the task or not one a sample, weights of another shape, a wrong argument.

    Example:
        >>> model = nn.Linear(4, 3)
        >>> Batch(model, torch.zeros(8, 4), torch.zeros(8, dtype=torch.int64)).logits().shape
        torch.Size([8, 3])
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: object,
        targets: Tensor,
        autocast: torch.dtype | None = None,
        *,
        task: Task = CLASSES,
        forward: Callable[[nn.Module, object], object] | None = None,
        weights: Tensor | None = None,
        extra: Callable[[object, Batch], Tensor] | None = None,
        **theirs,
    ):
        structure.check_names(theirs, autocast)
        _checks.function("model", model, "callable, and comes first: Batch(model, inputs, targets)")
        structure.check_inputs(inputs, forward is not None)
        if autocast is not None and autocast is not torch.bfloat16 and autocast is not torch.float16:
            raise ValueError(f"autocast must be torch.bfloat16, torch.float16 or None, got {_checks.shown(autocast)}")
        self.task = task if task is CLASSES else _checks.protocol("task", task, Task, "a task such as bisam.Binary()")
        self.forward = _checks.optional("forward", forward, of=_checks.function, words="a function of the model and the inputs")
        self.extra = _checks.optional("extra", extra, of=_checks.function, words="a function of the outputs and the batch")
        self.task.check(targets)
        structure.check_lengths(inputs, targets)
        self.model, self.inputs, self.targets, self.autocast = model, inputs, targets, autocast
        self.weights = None if weights is None else checked_weights(weights, targets, self.task.weight_shape(targets))
        self.at_w: Tensor | None = None
        self.at_worst: Tensor | None = None
        self.chosen: Batch | None = None
        self.drawn: RNGState | None = None  # the random state before the first pass of a step
        self.terms: dict[str, Tensor] = {}  # the extra terms at w and at the worst point
        self._classes: int | None = None  # of the logits, once they have been seen
        self._is_part = False
        self.tilt: float | Tensor = 1.0  # of the extra terms, which are means over samples where the losses are means over weights

    def logits(self) -> Tensor:
        """Scores of the samples as the model gives them, with the graph that leads to the weights."""
        return self.passed()[0]

    def passed(self) -> tuple[Tensor, Tensor | None]:
        """A forward pass: the logits, and the extra terms of the descent loss if there are some."""
        with torch.autocast(self.device.type, self.autocast) if self.autocast else nullcontext():
            try:
                outputs = structure.given(self.model, self.inputs) if self.forward is None else self.forward(self.model, self.inputs)
            except Exception as error:
                error.add_note(f"the model was given inputs of {structure.shown(self.inputs)}")
                raise
            logits = structure.logits_of(outputs)
            if logits is None:
                raise ValueError(f"the model must return logits {self._wanted()}, got {structure.said(outputs)}")
            self._look_at(logits)
            return logits, None if self.extra is None else self._term(outputs)

    def rows(self, logits: Tensor) -> Rows:
        """What a loss is applied to, for logits of these samples."""
        if self.is_plain and logits.ndim == 2 and logits.shape[1] > 1 and len(logits) == len(self.targets):
            return Rows(logits, self.targets)  # the quick way
        return self.task.rows(logits, self.targets, self.weights)

    def mean(self, loss: Loss, logits: Tensor, term: Tensor | None = None) -> Tensor:
        """The mean of a loss over the samples, with the extra terms where they are given: a scalar with a graph."""
        found = self.rows(logits).mean(loss)
        return found if term is None else found + term

    def over(self, loss: Loss) -> Loss:
        """A loss whose values are those of the samples, whatever the rows of the task."""
        return loss if self.is_plain else _OfSamples(loss, self)

    @property
    def is_plain(self) -> bool:
        """Whether a sample is a row that counts like every other."""
        return self.task is CLASSES and self.weights is None and self.targets.ndim == 1

    @property
    def mass(self) -> float | Tensor:
        """The number of samples, or the sum of their weights, by which the sum of their losses is divided."""
        return len(self.targets) if self.is_plain else self.task.mass(self.targets, self.weights)

    @property
    def device(self) -> torch.device:
        """Where the inputs are; that of the targets, if no tensor is among them."""
        return next(structure.tensors_in(self.inputs), self.targets).device

    def _look_at(self, logits: Tensor) -> None:
        """Checks logits: their shape, and the first ones' classes where a look is free."""
        rows = self.rows(logits)
        classes = rows.logits.shape[1]
        if self._classes not in (None, classes):
            raise ValueError(
                f"the logits of a part of the batch have {classes} classes, those of all had {self._classes}: they depend on the whole batch, "
                "and no samples can be taken out of it; use a recipe without selection and micro_batch"
            )
        if self._classes is None and _look.is_free(logits) and not rows.targets.is_floating_point():
            _checks.in_range(rows.targets, classes, "targets of a part of the batch" if self._is_part else "targets")
        self._classes = classes

    def check_classes(self, logits: Tensor) -> None:
        """An error for a class that logits like these do not have."""
        if _look.is_free(logits) and self.is_plain:
            _checks.in_range(self.targets, logits.shape[1])

    def _term(self, outputs: object) -> Tensor:
        found = self.extra(outputs, self)
        if not isinstance(found, Tensor) or found.numel() != 1:
            raise ValueError(f"extra must return a scalar tensor, got {_checks.shown(found)}")
        return found.reshape(()) * self.tilt

    def _wanted(self) -> str:
        n = len(self.targets)
        return f"of shape ({n}, K)" if self.is_plain else f"for targets of shape {tuple(self.targets.shape)}"

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, places: Tensor) -> Batch:
        """The samples at the given places, shape ``(k,)``, as a batch of its own."""
        if not isinstance(places, Tensor) or places.ndim != 1 or places.is_floating_point() or places.is_complex():
            raise TypeError(f"places must be a tensor of whole numbers of shape (k,), got {_checks.shown(places)}")
        if len(places) == 0:
            raise ValueError("places must hold at least one place, got none")
        try:
            part = self._part(lambda tensor: tensor[places])
        except IndexError as error:
            raise ValueError(f"places must be below {len(self)}, the number of samples: {error}") from None
        part.drawn, part.tilt = self.drawn, self.tilt
        return part

    def split(self, size: int) -> list[Batch]:
        """Parts of ``size`` samples in order; the last may be smaller."""
        size = _checks.whole("size", size)
        if size >= len(self):
            return [self]
        return [self._part(lambda tensor, k=k: tensor[k : k + size]) for k in range(0, len(self), size)]

    def _part(self, pick: Callable[[Tensor], Tensor]) -> Batch:
        """Some samples, of everything that has one row a sample."""
        n = len(self)
        if not any(tensor.ndim and len(tensor) == n for tensor in structure.tensors_in(self.inputs)):
            raise ValueError(
                f"inputs must hold tensors with one row for each of the {n} samples, so that some can be taken out, as the recipe's selection "
                f"or micro_batch does; got {structure.shown(self.inputs)}"
            )
        part = self._copy()
        part._is_part = True
        part.inputs = structure.picked(self.inputs, n, pick)
        part.targets = pick(self.targets)
        part.weights = None if self.weights is None else pick(self.weights)
        return part

    def on(self, model: nn.Module) -> Batch:
        """The same samples with another model."""
        other = self._copy()
        other.model = model
        return other

    def _copy(self) -> Batch:
        found = copy.copy(self)
        found.forget()
        found.drawn, found.tilt = None, 1.0
        return found

    @staticmethod
    def joined(parts: list[Batch]) -> Batch:
        """One batch of all samples of some parts, with their logits; of the inputs it has a list."""
        whole = parts[0]._copy()
        whole.inputs = torch.cat([part.inputs for part in parts]) if isinstance(whole.inputs, Tensor) else [part.inputs for part in parts]
        whole.targets = torch.cat([part.targets for part in parts])
        whole.weights = None if whole.weights is None else torch.cat([part.weights for part in parts])
        whole.take_logits(parts)
        return whole

    def take_logits(self, parts: list[Batch]) -> None:
        """Takes over the logits of the parts that this batch went through the model in."""
        for name in ("at_w", "at_worst"):
            found = [getattr(part, name) for part in parts]
            if all(logits is not None for logits in found):
                setattr(self, name, torch.cat(found))

    def random_state(self) -> RNGState:
        """The random state of the CPU and of the device of the inputs, as it is now."""
        return RNGState(self.device)

    def forget(self) -> None:
        """Drops the logits of an earlier step."""
        self.at_w = self.at_worst = self.chosen = None
        self.terms = {}

    def replayed(self):
        """Around another pass over the samples: the random numbers of the first one come again, if they were remembered."""
        return nullcontext() if self.drawn is None else self.drawn.replayed()


class _OfSamples(Loss):
    """A loss whose values are those of the samples of a batch, the sums over their rows."""

    def __init__(self, loss: Loss, batch: Batch):
        self._loss, self._batch = loss, batch

    def values(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self._batch.rows(logits).values(self._loss).reshape(len(self._batch), -1).sum(1)
