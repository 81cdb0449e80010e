"""One gradient is good for one step of the base: what waits for it, and what is said where nothing does."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary, WeakSet

import torch

from ..axes.recipe import Recipe

NOTHING = (
    "step() without a batch must follow a `with opt.perturbed(model):` block or opt.backward(batch); "
    "otherwise the base optimiser would run alone under another name"
)
CLEARED = "zero_grad() has cleared the gradient that the block or backward() had left for this step: call it before the first pass"
EMPTY = (
    "no gradient was left by the `with opt.perturbed(model):` block: call backward() on the descent loss inside it, "
    "with gradients enabled, and zero_grad() before the first pass"
)
INSIDE = (
    "the base must be stepped after the `with opt.perturbed(model):` block, not inside it: "
    "the weights stand elsewhere there and are put back at its end"
)
UNSCALED = "scaler must be given to backward(batch, scaler=scaler), whose gradients a GradScaler would divide by its factor otherwise"

_TURNS: WeakKeyDictionary[torch.optim.Optimizer, WeakSet[Turn]] = WeakKeyDictionary()


class Turn:
    """Whether a gradient waits for the base, and whether a block is open.

    Args:
        base: the optimiser that moves the weights; several wrappers may share it.
    """

    def __init__(self, base: torch.optim.Optimizer):
        self._base = weakref.ref(base)
        self.is_inside = self.was_cleared = False
        self.clear()
        _TURNS.setdefault(base, WeakSet()).add(self)

    def ready(self, is_empty: bool = False, against_scaler: Callable[[], str | None] = lambda: None) -> None:
        """A gradient waits; none does where the step is skipped. ``against_scaler`` says what a ``GradScaler`` is told of which we were not."""
        self.is_ready, self.is_empty, self.why, self.against_scaler = True, is_empty, NOTHING, against_scaler

    def clear(self, why: str = NOTHING) -> None:
        """No gradient waits, and why not."""
        self.is_ready, self.is_empty, self.why, self.against_scaler = False, False, why, lambda: None

    def cleared(self) -> None:
        """The gradients have been cleared by whoever writes the loop."""
        self.clear(CLEARED if self.is_ready else NOTHING)
        self.was_cleared = True

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Around passes that are not made here: no other step may begin, and the base must wait."""
        self.is_inside = True
        try:
            yield
        finally:
            self.is_inside = False

    def hang_on(self, base: torch.optim.Optimizer, wrapper: object, before: Callable[[], None], after: Callable[[], None]) -> None:
        """However the base is stepped, one gradient is good for one step. The hooks do not keep the wrapper alive."""
        before, after = weakref.WeakMethod(before), weakref.WeakMethod(after)
        for hook in (
            base.register_step_pre_hook(lambda *_: before()() if before() else None),
            base.register_step_post_hook(lambda *_: after()() if after() else None),
        ):
            weakref.finalize(wrapper, hook.remove)

    def check(self) -> None:
        """An error where no gradient waits for the base."""
        if self.is_inside:
            raise RuntimeError(INSIDE)
        if not self.is_ready:
            raise RuntimeError(self.why)

    def begin_block(self) -> None:
        """Nothing waits any more; an error where a block would take a gradient that does for a part of the ascent gradient."""
        if self.is_ready and not self.is_empty:
            raise RuntimeError(
                "a gradient waits already, which the block would use up as one of the ascent loss: call opt.step() or opt.zero_grad() first; "
                "to accumulate, opt.backward([part, part]), opt.backward(part, weight=...), or several backward() in one block"
            )
        self.clear()

    def check_base(self, recipe: Recipe) -> None:
        """An error where the base must not move the weights now, whoever has asked it to."""
        if self.is_inside:
            raise RuntimeError(INSIDE)
        if self.is_ready:
            if not self.is_empty and all(p.grad is None for group in self._base().param_groups for p in group["params"]):
                self.clear(CLEARED)
                raise RuntimeError(CLEARED)
        elif recipe.radius.rho != 0 and not is_idle(self._base()) and not any(turn.is_ready for turn in _TURNS[self._base()]):
            raise RuntimeError(
                self.why if self.why is not NOTHING else f"the base must be stepped after a block or backward() of the SharpnessAware around it, "
                f"by opt.step(): alone it would make its own step under the name of {recipe.name!r}; for a training without a climb set "
                "opt.recipe = bisam.SGD"
            )

    def check_scaler(self) -> None:
        """An error where a ``GradScaler`` that is about to step must not."""
        said = self.against_scaler()
        if said is not None:
            raise ValueError(said)
        if self.why is not NOTHING:
            raise RuntimeError(self.why)


def is_idle(base: torch.optim.Optimizer) -> bool:
    """Whether a step of the base moves nothing, as where its state is to be made for a checkpoint."""
    return all(float(group.get("lr", 1.0)) == 0 for group in base.param_groups)
