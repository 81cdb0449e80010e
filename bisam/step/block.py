r"""Passes that are not made here: a block around one, or functions that make both, in place of a batch.

.. math:: w \;\to\; w + \delta \;\xrightarrow{\ \nabla A\ }\; w + \delta + \epsilon \;\xrightarrow{\ \nabla L\ }\; w

The order is that of :mod:`bisam.step.two_pass`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from torch import Tensor

from .. import _checks
from ..axes.tensors import Tensors
from . import bases, gradients
from .climb import climb, scatter
from .passes import on_this_worker
from .perturbation import are_unheld
from .rng import RNGState
from .second_pass import alone, combine
from .step import Step
from .two_pass import displaced, tell_all

_NO_GRADIENT = (
    "no parameter of the base optimiser has a gradient: call backward() on the ascent loss first, "
    "of a model whose parameters the base holds, and zero_grad() before that"
)
_NOISE = (
    "noise must be given, since random numbers were drawn in the block and the pass before it drew others: take "
    "noise = bisam.step.RNGState(device) before the first pass and call perturbed(model, noise); or hand over that pass, "
    "perturbed(model, ascent=lambda: loss); or use a recipe with same_noise=False. What is not the model's draw outside the block"
)


@contextmanager
def at_worst_point(step: Step, ascent: Callable[[], Tensor] | None, noise: RNGState | None) -> Iterator[None]:
    """Lines 3 to 5 around the second pass of somebody else, and around the first one where it is not given as a function."""
    if ascent is None:
        gradient = taken_of_model(step)
        with _second_pass(step, gradient, noise):
            yield
    elif step.climbs:
        noise = random_state(step)
        with displaced(step) as away:
            if step.recipe.start is not None:
                scatter(step, away)
            with on_this_worker(step):
                backward_from(step, "ascent", ascent)
            gradient = taken_of_model(step)
            with _second_pass(step, gradient, noise):
                yield
    else:  # the pass inside is the only one
        yield
    tell_all(step)
    if not gradients.gradients(step.parameters):
        return  # nothing to make anything of
    if step.climbs:
        combine(step, gradient if step.recipe.gradient_at_w == "ascent" else {}, 1.0)
    else:
        alone(step)


@contextmanager
def _second_pass(step: Step, gradient: Tensors, noise: RNGState | None) -> Iterator[None]:
    before = random_state(step) if noise is None else None
    step.keeps_ascent = step.keeps_ascent or not are_unheld(gradient)  # the caller may have kept them
    with displaced(step) as away:
        if step.climbs:
            climb(step, away, gradient)
        with bases.displaced(step.model), step.held(others=True), replayed(noise if step.recipe.same_noise else None):
            yield
    if before is not None and before.has_moved():
        gradients.take(step.parameters)
        raise ValueError(_NOISE)


def backward_from(step: Step, name: str, function: Callable[[], Tensor]) -> Tensor:
    """The loss that a function returns, after the backward pass from it."""
    loss = function()
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        got = f"shape {tuple(loss.shape)}, requires_grad={loss.requires_grad}" if isinstance(loss, Tensor) else _checks.shown(loss)
        raise TypeError(f"{name} must return a loss, a scalar tensor whose graph leads to the weights, without a backward() of its own; got {got}")
    gradients.scaled(loss, step.scaler).backward()
    return loss.detach()


def taken(step: Step) -> Tensors:
    """The gradients that a pass has left, without the factor of the scaler; the parameters have none afterwards."""
    gradient = gradients.take(step.parameters)
    for parameter in step.others:
        parameter.grad = None  # of the last pass alone, as the base's have
    if step.is_graphed or step.scaler is not None:  # in memory of their own
        gradient = {name: g.clone() for name, g in gradient.items()}
    return gradients.unscaled_(gradient, step.scaler)


def taken_of_model(step: Step) -> Tensors:
    """The same of a first pass, which has left some, and of the parameters of the model alone."""
    gradient = taken(step)
    if not gradient:
        raise RuntimeError(_NO_GRADIENT)
    gradients.check_known(gradient)
    return gradient


def random_state(step: Step) -> RNGState | None:
    """The random state as it is now, if other passes are to draw the same numbers."""
    return RNGState(next(iter(step.parameters.values())).device) if step.recipe.same_noise else None


def replayed(noise: RNGState | None):
    """Around another pass: the random numbers of the first one come again."""
    return nullcontext() if noise is None else noise.replayed()
