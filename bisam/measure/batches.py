"""The mean loss over samples that go through a model batch by batch, and its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .. import _checks

Loss = Callable[[Tensor, Tensor], Tensor]
Batches = list[tuple[Tensor, Tensor]]
Advance = Callable[[int], None]


def batches(x: Tensor, y: Tensor, samples_at_a_time: int) -> Batches:
    """Samples and targets in batches, in their order; the last batch may be smaller.

    >>> [len(inputs) for inputs, targets in batches(torch.zeros(5, 2), torch.zeros(5), 2)]
    [2, 2, 1]
    """
    for name, value in (("x", x), ("y", y)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
        if value.ndim == 0 or len(value) == 0:
            raise ValueError(f"{name} must hold at least one sample, got shape {tuple(value.shape)}")
    if len(x) != len(y):
        raise ValueError(f"x and y must pair up, got {len(x)} samples and {len(y)} targets")
    size = _checks.whole("samples_at_a_time", samples_at_a_time)
    return list(zip(x.split(size), y.split(size), strict=True))


def mean_loss(model: nn.Module, loss: Loss, parts: Batches, advance: Advance) -> float:
    r"""The mean loss over all samples, :math:`\sum_k \frac{n_k}{n} L_k(w)`, in float64; ``advance`` is called with 1 after each batch.

    >>> mean_loss(nn.Identity(), nn.MSELoss(), batches(torch.ones(3, 1), torch.zeros(3, 1), 2), print)
    1
    1
    1.0
    """
    n, total = count(parts), 0.0
    with torch.no_grad():
        for inputs, targets in parts:
            total += float(loss_value(model, loss, inputs, targets)) * (len(inputs) / n)
            advance(1)
    return total


def loss_and_gradient(
    model: nn.Module, loss: Loss, parts: Batches, weights: dict[str, Tensor], advance: Advance
) -> tuple[float, dict[str, Tensor]]:
    """As :func:`mean_loss`, with the gradient for the weights by name; the ``grad`` of the parameters is not touched."""
    n, total, gradient = count(parts), 0.0, {}
    for inputs, targets in parts:
        with torch.enable_grad():
            value = loss_value(model, loss, inputs, targets)
        share = len(inputs) / n
        found = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
        for (name, weight), g in zip(weights.items(), found, strict=True):
            g = torch.zeros_like(weight) if g is None else g.detach() * share
            gradient[name] = gradient[name] + g if name in gradient else g
        total += float(value.detach()) * share
        advance(1)
    return total, gradient


def count(parts: Batches) -> int:
    return sum(len(inputs) for inputs, _ in parts)


def check_loss(loss: object) -> None:
    """A function that is not said to be anything but a mean."""
    _checks.function("loss", loss, "a function of outputs and targets")
    if getattr(loss, "reduction", "mean") != "mean":
        raise ValueError(f'loss must be the mean over the samples, reduction="mean"; got reduction={loss.reduction!r}')


def loss_value(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> Tensor:
    return loss_of(loss, outputs_of(model, inputs), targets)


def outputs_of(model: nn.Module, inputs: Tensor) -> Tensor:
    try:
        return model(inputs)
    except Exception as error:
        error.add_note(f"model was given x of shape {tuple(inputs.shape)}, {inputs.dtype}")
        raise


def loss_of(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss, or an error that says what it was given."""
    try:
        value = loss(outputs, targets)
    except Exception as error:
        check_classes(outputs, targets)
        error.add_note(f"loss was given the outputs for x, {_checks.shown(outputs)}, and targets y, {_checks.shown(targets)}")
        raise
    if not isinstance(value, Tensor) or value.ndim:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"loss must return a scalar tensor, the mean over the samples; got {got}")
    return value


def check_classes(outputs: object, targets: Tensor) -> None:
    """Where targets can only be class numbers (whole, one a row of outputs), they are numbers of columns."""
    whole = not targets.is_floating_point() and not targets.is_complex() and targets.dtype != torch.bool
    if whole and isinstance(outputs, Tensor) and outputs.ndim == 2 and targets.shape == outputs.shape[:1]:
        _checks.in_range(targets, outputs.shape[1], "y")


def check_finite(what: str, value: float) -> float:
    if not math.isfinite(value):
        raise FloatingPointError(f"{what} is not finite, it is {value}: look for inf or NaN in x, in y and among the weights of the model")
    return value
