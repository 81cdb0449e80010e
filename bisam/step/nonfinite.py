"""What happens when a gradient of either pass is not finite: an error, or a step that is skipped."""

from __future__ import annotations

import math
import sys
import warnings

import torch
from torch import Tensor

from ..axes.memory import Memory
from ..axes.tensors import Tensors
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

    def is_fine(self, norms: dict[str, Tensor], recipe: str, memory: Memory, moment: dict, learns: bool, statistics: Statistics | None) -> bool:
        """Whether the step may go on. If not, gradients and memory are to be as before it; the statistics are already.

        Args:
            norms: of the gradients of both passes, by ``"ascent"`` and ``"descent"``.
            recipe: its name.
            memory: of the optimiser.
            moment: the memory before the step.
            learns: whether the radius learns from this step, which has to know at once.
            statistics: the running statistics before the step, if they may have seen what is not finite.

        Raises:
            FloatingPointError: one of them is not finite, and the mode is ``"raise"``.
        """
        device = norms["descent"].device  # the ascent may have drawn no tensor, and its norm is then on the CPU
        if device.type == "meta":
            return True  # there are shapes and no numbers
        finite = all_finite(norms)
        if self.mode == "skip" and self._base_can_skip(device) and not learns and memory.can_be_restored_where(moment):
            memory.restore_where(~finite, moment)
            alarm = (~finite).to(torch.float32)  # read by the base on the device; nobody waits for it
            self._alarm = alarm if self._alarm is None else torch.maximum(self._alarm, alarm)  # of any part
            return True
        if finite:
            return True
        if statistics is not None:
            statistics.mend()
        bad = " and ".join(name for name, norm in norms.items() if not torch.isfinite(norm))
        message = f"the {bad} gradient of {recipe} holds inf or NaN; the weights are as before the step"
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
            self.base.grad_scale, self.base.found_inf = None, self._alarm

    def after_base(self) -> None:
        """Counts on the device."""
        alarm, self._alarm = self._alarm, None
        if alarm is not None and "found_inf" in self.base.__dict__:
            del self.base.grad_scale, self.base.found_inf
            if self._skipped_there is None:
                self._skipped_there = torch.zeros_like(alarm)
            self._skipped_there.add_(alarm)  # in place: a captured step finds it there again

    def _base_can_skip(self, device: torch.device) -> bool:
        """Whether a bad step can be left to a fused base, without waiting for the device to say that it is bad.

        Not in its first step, which would leave its momentum unset.
        """
        if looking_is_free(device):
            return False
        groups = self.base.param_groups
        moved = [p for group in groups for p in group["params"] if p.grad is not None]
        keeps_nothing = all(group.get("momentum") == 0 for group in groups)
        return all(group.get("fused") for group in groups) and (keeps_nothing or all(p in self.base.state for p in moved))


def looking_is_free(device: torch.device) -> bool:
    """Whether reading a number does not make the program wait for a device."""
    return device.type == "cpu"


def all_finite(norms: dict[str, Tensor]) -> Tensor:
    """Whether all norms are finite, a boolean on the device of the descent gradient."""
    device = norms["descent"].device
    total = sum(norm.detach().to(device) for name, norm in norms.items() if name != "descent") + norms["descent"].detach()
    return total < torch.inf  # false for NaN; in few operations, each of which a fast device would wait for


def is_known_not_finite(number: Tensor) -> bool:
    """Whether a number is not finite, where the look at it does not make the program wait for a device."""
    return number.device.type == "cpu" and not math.isfinite(number.item())


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
