r"""A step whose passes are functions: the closure of torch's own protocol, or one function for each loss.

.. math:: w \;\xrightarrow{\ \texttt{ascent()}\ }\; w + \epsilon \;\xrightarrow{\ \texttt{descent()}\ }\; w

A closure clears the gradients, computes the loss, calls ``backward()`` and returns the loss; it is called at both points.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from .. import _checks
from ..axes.tensors import Tensors, euclidean_norm
from . import bases, gradients
from .batch import Batch
from .block import backward_from, random_state, replayed, taken
from .climb import climb, scatter
from .modules import is_compiled, unwrapped
from .passes import on_this_worker
from .perturbation import are_unheld
from .refusals import called, check_calls
from .rng import RNGState
from .second_pass import alone, combine
from .step import Step
from .two_pass import displaced, tell_all

_NO_GRADIENT = (
    "no parameter of the base optimiser has a gradient after the first pass: the base must hold the parameters of the model, and a "
    "closure must compute the loss, call backward() on it and return it (one that does not must follow a block or opt.backward(batch))"
)
_NOT_CLEARED = (
    "the closure must clear the gradients itself, by opt.zero_grad() before its backward(): those found before it would be counted "
    "as gradients of the same place (for parts of a batch one closure may call backward() several times)"
)


@dataclass
class Calls:
    """The functions of a step.

    Args:
        ascent: makes the first pass and leaves its gradient; returns its loss.
        descent: the same of the second.
        both_at_w: the gradient of the second is needed at w as well.
    """

    ascent: Callable[[Step], object]
    descent: Callable[[Step], object]
    both_at_w: bool = False


def calls_of(opt, batch, closure, ascent, descent, model, validation, turn) -> tuple[Callable | None, Calls | None]:
    """The closure that was given, and the functions of both passes where no gradient waits already."""
    if closure is None and callable(batch) and not isinstance(batch, (Batch, nn.Module)):
        batch, closure = None, batch
    if descent is None and ascent is not None:
        raise TypeError("descent must be given beside ascent: a function that returns the descent loss")
    given = {"batch": batch, "closure": closure, "descent": descent}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise TypeError(f"{names[1]} must be left out of step({names[0]}), which makes both passes itself")
    if validation is not None and batch is None:
        raise TypeError("validation must be left out of a step without a batch: a learned radius needs the samples")
    is_late = closure is not None and turn.is_ready  # its framework runs hooks in it, and no passes
    if batch is not None or not names or is_late:
        if model is not None:
            raise TypeError("model must be left out of a step without a closure and descent")
        return closure, None
    check_calls(opt.recipe, ascent, descent, model, opt.per_worker)
    if closure is not None:
        return closure, calls_of_closure(closure, turn)
    at_w = None if opt.recipe.combination is None else opt.recipe.combination.at_w
    return None, calls_of_losses(ascent, descent, at_w == "descent")


def calls_of_closure(closure: Callable[[], object], turn) -> Calls:
    """A closure in the place of both passes."""
    _checks.function("closure", closure, "a function without arguments")

    def first(step: Step) -> object:
        earlier = [(p, p.grad) for p in step.parameters.values() if p.grad is not None]
        turn.was_cleared = False
        loss = called(closure)
        if not turn.was_cleared and any(p.grad is gradient for p, gradient in earlier):
            raise RuntimeError(_NO_GRADIENT if loss is None else _NOT_CLEARED)
        return loss

    return Calls(first, lambda step: called(closure))


def calls_of_losses(ascent: Callable[[], Tensor] | None, descent: Callable[[], Tensor], needs_descent: bool) -> Calls:
    """One function for each loss; the descent loss is raised as well where there is no other."""
    _checks.function("descent", descent, "a function without arguments that returns the descent loss")

    def second(step: Step) -> Tensor:
        return backward_from(step, "descent", descent)

    if ascent is None:
        return Calls(second, second)
    _checks.function("ascent", ascent, "a function without arguments that returns the ascent loss")
    return Calls(lambda step: backward_from(step, "ascent", ascent), second, both_at_w=needs_descent)


def gradient_of_calls(new_step: Callable[[nn.Module], Step], calls: Calls, model: nn.Module | None) -> tuple[Step, object]:
    """Leaves the gradient for the base in the parameters; returns the step and the loss of the first pass at w."""
    step, seen = new_step(nn.ModuleList() if model is None else model), []
    noise = random_state(step)
    first = calls.ascent if step.climbs else calls.descent
    with displaced(step) as away:
        if step.climbs and step.recipe.start is not None:
            scatter(step, away)
        with on_this_worker(step) if step.climbs else nullcontext(), nullcontext() if model is not None else modules_that_run(seen):
            loss = first(step)
        if not gradients.gradients(step.parameters):
            raise RuntimeError(_NO_GRADIENT)
        if model is not None:
            gradients.check_known(gradients.gradients(step.parameters))
        step = new_step(joined(seen)) if model is None else step  # with names, and with modules whose state is held
        at_w = _climb_and_descend(step, calls, noise) if step.climbs else None
    loss = loss if at_w is None or step.outcome.loss is None else step.outcome.loss
    tell_all(step)
    alone(step) if at_w is None else combine(step, at_w, 1.0)
    return step, loss


def _climb_and_descend(step: Step, calls: Calls, noise: RNGState | None) -> Tensors:
    """Line 4 and 5 after the first pass; returns the gradient at w that a combination needs."""
    gradient = taken(step)
    at_w = gradient if step.recipe.gradient_at_w == "ascent" else {}
    step.keeps_ascent = step.keeps_ascent or not are_unheld(gradient)  # a hook may have kept them
    with displaced(step) as away, bases.displaced(step.model), step.held(others=True):
        if calls.both_at_w:
            with replayed(noise):
                step.outcome.loss = calls.descent(step)
            at_w = taken(step)
            step.outcome.beside = euclidean_norm(at_w)  # nobody else would notice that it is not finite
        climb(step, away, gradient)
        with replayed(noise):
            calls.descent(step)
    return at_w


@contextmanager
def modules_that_run(seen: list[nn.Module]) -> Iterator[None]:
    """Collects the modules that are called, but for those inside one that is there already. What is compiled runs without the hook."""
    known: set[nn.Module] = set()
    hooks = []

    def note(module: nn.Module, _) -> None:
        if module not in known:
            seen.append(module)
            known.update(module.modules())
        if unwrapped(module) is not module and is_compiled(module):
            hooks.pop().remove()
            hooks.append(module.register_forward_hook(listen, always_call=True))

    def listen(*_) -> None:
        if hooks:
            hooks.pop().remove()
        hooks.append(register_module_forward_pre_hook(note))

    listen()
    try:
        yield
    except Exception as error:
        if "torch._dynamo" in sys.modules:
            error.add_note("a model that is compiled in place must be given: opt.step(..., model=model)")
        raise
    finally:
        hooks.pop().remove()


def joined(seen: list[nn.Module]) -> nn.Module:
    """The one module that holds weights or buffers of all that ran; several in one."""
    held = [module for module in seen if any(True for kind in (module.parameters(), module.buffers()) for _ in kind)]
    inner = {part for module in held for part in module.modules() if part is not module}
    outer = [module for module in held if module not in inner]
    return outer[0] if len(outer) == 1 else nn.ModuleList(outer)
