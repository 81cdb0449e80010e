"""What happens when a gradient of either pass is not finite: an error, or a step that is skipped."""

from __future__ import annotations

import math
import sys
import warnings

import torch
from torch import Tensor

from .. import _look
from ..axes.memory import Memory
from ..axes.tensors import Tensors, euclidean_norm, norms_of
from .bases import members_of
from .buffers import Statistics


class NonFinite:
    """The policy of one optimiser, and the count of the steps that it has skipped.

    Args:
        mode: ``"raise"`` or ``"skip"``.
        base: the optimiser that moves the weights. A fused one can skip a step by itself, without a look from the program.
    """

    def __init__(self, mode: str, base: torch.optim.Optimizer):
        self.mode, self.base = mode, base
        self._skipped, self._skipped_there = 0, None  # counted here, and on the device
        self._alarm: Tensor | None = None

    @property
    def skipped(self) -> int:
        """How many steps were skipped."""
        return self._skipped + (0 if self._skipped_there is None else int(self._skipped_there))

    @skipped.setter
    def skipped(self, count: int) -> None:
        self._skipped, self._skipped_there = count, None

    def is_fine(
        self, gradient: Tensors, ascent: Tensor | None, recipe: str, memory: Memory, moment: dict, learns: bool, statistics: Statistics | None
    ) -> bool:
        """Whether the step may go on. If not, gradients and memory are to be put back by the caller; statistics have been, here.

        Args:
            gradient: what the base is given, by name.
            ascent: the norm of the ascent gradient, if there is one.
            recipe: its name.
            memory: of the optimiser.
            moment: the memory before the step.
            learns: whether the radius learns from this step, which has to know at once.
            statistics: the running statistics before the step, if they may have seen what is not finite.

        Raises:
            FloatingPointError: one of them is not finite, and the mode is ``"raise"``.
        """
        total = total_of(gradient, ascent)
        if self.mode == "skip" and self._base_can_skip(total) and not learns and memory.can_be_restored_where(moment):
            alarm = (~torch.isfinite(total)).to(torch.float32)  # read by the base on the device; nobody waits for it
            memory.restore_where(alarm > 0, moment)
            self._alarm = alarm if self._alarm is None else torch.maximum(self._alarm, alarm)  # of any part
            return True
        bad = what_is_bad(total, gradient, ascent)
        if not bad:
            return True
        if statistics is not None:
            statistics.mend()
        message = f"the {' and '.join(bad)} gradient of {recipe} holds inf or NaN; the weights are as before the step"
        if self.mode == "raise":
            self.clear()
            self.base.zero_grad()
            memory.restore(moment)
            raise FloatingPointError(message + "; look for inf or NaN among the inputs and logits")
        self.skipped += 1
        if self.skipped == 1:
            message += "; the step is skipped, later ones are only counted"
            warnings.warn(message, RuntimeWarning, stacklevel=_levels_to_the_caller())
        return False

    def clear(self) -> None:
        """The gradients are gone, and with them what was wrong."""
        self._alarm = None

    def before_base(self) -> None:
        """Tells a fused base on the device whether it has to skip."""
        if self._alarm is not None:
            for member in members_of(self.base):
                member.grad_scale, member.found_inf = None, self._alarm

    def after_base(self) -> None:
        """Counts on the device."""
        alarm, self._alarm = self._alarm, None
        told = [] if alarm is None else [member for member in members_of(self.base) if "found_inf" in member.__dict__]
        for member in told:
            del member.grad_scale, member.found_inf
        if told:
            if self._skipped_there is None:
                self._skipped_there = torch.zeros_like(alarm)
            self._skipped_there.add_(alarm)  # in place: a captured step finds it there again

    def _base_can_skip(self, total: Tensor) -> bool:
        """Whether a bad step can be left to a fused base, without waiting for the device to say that it is bad.

        Not in its first step, which would leave its momentum unset.
        """
        if _look.is_free(total):
            return False
        groups, state = self.base.param_groups, self.base.state
        moved = [p for group in groups for p in group["params"] if p.grad is not None]
        keeps_nothing = all(group.get("momentum") == 0 for group in groups)
        return all(group.get("fused") for group in groups) and (keeps_nothing or all(p in state for p in moved))


def total_of(gradient: Tensors, ascent: Tensor | None) -> Tensor:
    """A number on the device that is not finite if any gradient is not, in three operations; squares beyond float32 make it infinite too."""
    norms = norms_of(list(gradient.values()))
    norms += [] if ascent is None else [ascent.detach().to(norms[0])] if norms else [ascent.detach()]
    return torch.stack(norms).sum() if norms else torch.zeros(())


def what_is_bad(total: Tensor, gradient: Tensors, ascent: Tensor | None) -> list[str]:
    """The gradients that are not finite; nothing where only the squares of :func:`total_of` have left the range of float32."""
    if total.device.type == "meta" or math.isfinite(total.item()):
        return []
    norms = {"ascent": ascent, "descent": euclidean_norm(gradient)}
    return [name for name, norm in norms.items() if norm is not None and not torch.isfinite(norm)]


def is_known_not_finite(number: Tensor) -> bool:
    """Whether a number is not finite, where the look at it does not make the program wait for a device."""
    return _look.is_free(number) and not math.isfinite(number.item())


def tell_the_scaler(size: Tensor | None, gradient: Tensors) -> None:
    """Passes an overflow of the first pass on to the gradients of the second, where the scaler looks for it."""
    if size is not None and gradient:
        first = next(iter(gradient.values()))
        first.mul_(torch.where(torch.isfinite(size), 1.0, torch.nan).to(first))


def _levels_to_the_caller() -> int:
    """How far up the stack the code that uses this package is, for a warning to point to."""
    level, frame = 1, sys._getframe(1)
    package = __name__.rpartition(".")[0]
    while frame.f_back and frame.f_globals.get("__name__", "").startswith((package, "contextlib")):
        level, frame = level + 1, frame.f_back
    return level
