"""Whether what a step has led to may be given to the base: looked at at once, or when the base is about to move."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .. import _look
from ..axes.memory import Memory
from ..axes.tensors import Tensors
from . import gradients
from .buffers import Statistics
from .nonfinite import NonFinite, is_known_not_finite, tell_the_scaler, total_of, what_is_bad
from .record import Diagnostics
from .step import Step
from .turn import Turn


class Judgement:
    """Keeps gradients that are not finite from the base, and the record of the last step.

    Args:
        nonfinite: what happens to them.
        memory: of the method, which forgets such a step.
    """

    def __init__(self, nonfinite: NonFinite, memory: Memory):
        self.nonfinite, self.memory = nonfinite, memory
        self.last: Diagnostics | None = None
        self._waiting: tuple[Step, dict] | None = None  # what a block has left, with the memory before it

    @contextmanager
    def taken_back(self, is_cleared: bool = True) -> Iterator[dict]:
        """Around passes: after an error in them the method remembers what it did before, and no gradient is left."""
        moment = self.memory.snapshot()
        try:
            yield moment
        except BaseException:
            if is_cleared:
                self.nonfinite.base.zero_grad()
            self.memory.restore(moment)
            raise

    def is_fine(self, step: Step, moment: dict, statistics: Statistics | None = None) -> bool:
        """Whether all was finite. If not, the gradients go, and what the recipe remembered of this step."""
        found, size = gradients.gradients(step.parameters), step.outcome.first_norm
        self._note(step, found)
        if step.scaler is None:
            return self._is_fine(step, moment, found, statistics)
        tell_the_scaler(size, found)
        if self.memory.snapshot() and what_is_bad(total_of(found, size), found, size):
            self.memory.restore(moment)  # the scaler will skip the step, and knows nothing of the memory
            return False
        return True

    def wait(self, step: Step, moment: dict) -> None:
        """Leaves it for later: a scaler that we were not told of may come first, and has to see an overflow of either pass."""
        found = gradients.gradients(step.parameters)
        self._note(step, found)
        size = step.outcome.first_norm
        if size is not None and (is_known_not_finite(size) or not _look.is_free(size)):
            tell_the_scaler(size, found)
        self._waiting = step, moment

    def look_at_last(self, turn: Turn) -> None:
        """The same for what waits, now that the base is about to move."""
        if self._waiting is None:
            return
        (step, moment), self._waiting = self._waiting, None
        size = step.outcome.first_norm
        is_marked = size is not None and is_known_not_finite(size)  # the other gradient may have been finite before
        try:
            is_fine = self._is_fine(step, moment, {} if is_marked else gradients.gradients(step.parameters))
        except FloatingPointError as error:
            turn.clear()
            error.add_note("with float16 hand the GradScaler over, opt.perturbed(model, scaler=scaler), and step by scaler.step(opt)")
            raise
        turn.is_empty = not is_fine

    def clear(self) -> None:
        """The gradients are gone, and with them what was wrong."""
        self._waiting = None
        self.nonfinite.clear()

    def _is_fine(self, step: Step, moment: dict, found: Tensors, statistics: Statistics | None = None) -> bool:
        size, learns = step.outcome.first_norm, step.learner is not None
        is_fine = self.nonfinite.is_fine(found, size, step.recipe.name, self.memory, moment, learns, statistics)
        if not is_fine:
            self.nonfinite.base.zero_grad()
            self.nonfinite.clear()
            self.memory.restore(moment)
        return is_fine

    def _note(self, step: Step, found: Tensors) -> None:
        if step.record:
            scale = 1.0 if step.scaler is None else step.scaler.get_scale()
            self.last = Diagnostics.of(step.outcome, found, step=self.memory.step, skipped=self.nonfinite.skipped, scale=scale)
