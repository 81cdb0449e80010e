"""One mini-batch and its model."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from .. import _checks, _look
from .rng import RNGState

__all__ = ["Batch"]


class Batch:
    r"""A model with the samples it is evaluated on.

    .. math:: w \mapsto \frac1n \sum_{i=1}^n \ell\big(f_w(x_i), y_i\big)

    Args:
        model: the network :math:`f_w`; called as ``model(inputs)``, it returns logits of shape ``(n, K)``.
        inputs: the samples, shape ``(n, ...)``.
        targets: true classes, shape ``(n,)``, whole numbers in ``0 .. K - 1``, on the device of the logits.
        autocast: ``torch.bfloat16`` or ``torch.float16`` to compute the forward pass in mixed precision. (Under an
            autocast context of your own around the whole step the backward passes would run in it too.)

    After a step there are logits of it, without a graph, for accuracies and logs. ``at_w`` are those at w, before the base has moved
    it. ``at_worst`` are those where the descent gradient was taken, at :math:`w + \epsilon` (with a start that is kept, at
    :math:`w + \delta + \epsilon`); ``None`` if nothing climbed, or if not all samples have been seen there. Of a
    :class:`~bisam.axes.selection.TopK`, ``chosen`` is the batch of the samples that both passes saw, with logits of its own. Network and data are in
    the state in which the step saw them: batch norm with the statistics of what went through together, dropout with the
    masks of the first pass (drawn anew for ``at_worst`` if the recipe says ``same_noise=False``).

    Raises:
        TypeError, ValueError: an empty batch, targets that are not whole numbers or not one a sample.

    Example:
        >>> model = nn.Linear(4, 3)
        >>> Batch(model, torch.zeros(8, 4), torch.zeros(8, dtype=torch.int64)).logits().shape
        torch.Size([8, 3])
    """

    def __init__(self, model: nn.Module, inputs: Tensor, targets: Tensor, autocast: torch.dtype | None = None):
        _checks.function("model", model, "callable")
        if not isinstance(inputs, Tensor):
            raise TypeError(f"inputs must be a tensor, got {type(inputs).__name__}")
        if inputs.ndim == 0:
            raise ValueError("inputs must have shape (n, ...), one row a sample; got ()")
        _checks.labels(targets, len(inputs), samples="inputs")
        if autocast is not None and autocast is not torch.bfloat16 and autocast is not torch.float16:
            raise ValueError(f"autocast must be torch.bfloat16, torch.float16 or None, got {_checks.shown(autocast)}")
        self.model, self.inputs, self.targets, self.autocast = model, inputs, targets, autocast
        self.at_w: Tensor | None = None
        self.at_worst: Tensor | None = None
        self.chosen: Batch | None = None
        self.drawn: RNGState | None = None  # the random state before the first pass of a step
        self._checked = False

    def logits(self) -> Tensor:
        """Scores of the samples, shape ``(n, K)``, with the graph that leads to the weights."""
        with torch.autocast(self.inputs.device.type, self.autocast) if self.autocast else nullcontext():
            try:
                logits = self.model(self.inputs)
            except Exception as error:
                error.add_note(f"the model was given inputs of shape {tuple(self.inputs.shape)}, {self.inputs.dtype}")
                raise
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(self.targets):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"the model must return logits of shape ({len(self.targets)}, K), got {got}")
        if not self._checked and _look.is_free(logits):
            _checks.in_range(self.targets, logits.shape[1])
        self._checked = True
        return logits

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, places: Tensor) -> Batch:
        """The samples at the given places, shape ``(k,)``, as a batch of its own."""
        if not isinstance(places, Tensor) or places.ndim != 1 or places.is_floating_point() or places.is_complex():
            raise TypeError(f"places must be a tensor of whole numbers of shape (k,), got {_checks.shown(places)}")
        try:
            inputs, targets = self.inputs[places], self.targets[places]
        except IndexError as error:
            raise ValueError(f"places must be below {len(self)}, the number of samples: {error}") from None
        if len(targets) == 0:
            raise ValueError("places must hold at least one place, got none")
        part = Batch(self.model, inputs, targets, self.autocast)
        part._checked, part.drawn = self._checked, self.drawn
        return part

    def split(self, size: int) -> list[Batch]:
        """Parts of ``size`` samples in order; the last may be smaller."""
        size = _checks.whole("size", size)
        if size >= len(self):
            return [self]
        parts = zip(self.inputs.split(size), self.targets.split(size), strict=True)
        return [Batch(self.model, inputs, targets, self.autocast) for inputs, targets in parts]

    @staticmethod
    def joined(parts: list[Batch]) -> Batch:
        """One batch of all samples of some, with their logits."""
        inputs, targets = (torch.cat([getattr(part, name) for part in parts]) for name in ("inputs", "targets"))
        whole = Batch(parts[0].model, inputs, targets, parts[0].autocast)
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
        return RNGState(self.inputs.device)

    def forget(self) -> None:
        """Drops the logits of an earlier step."""
        self.at_w = self.at_worst = self.chosen = None

    def replayed(self):
        """Around another pass over the samples: the random numbers of the first one come again, if they were remembered."""
        return nullcontext() if self.drawn is None else self.drawn.replayed()
