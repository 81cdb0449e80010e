r"""Loss landscapes: several metrics at once on the points of a grid, along a line or over a plane.

.. math:: m(a, b) = \frac1n \sum_{i=1}^n m\big(f_{w + a u + b v}(x_i), y_i\big)

A picture is a choice of directions u and v, of a range for a and b, of a metric m, and of what batch norm does. Each
of them is an argument here, because each of them can change the story.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from .. import _checks
from .._progress import bar
from ..axes.tensors import Tensors
from .directions import same_shapes
from .held import check_batch_norm, held
from .subspace import Subspace

__all__ = ["landscape"]

Metric = Callable[[Tensor, Tensor], Tensor]


@_checks.renamed(chunk="points_at_a_time", batch_size="samples_at_a_time")
def landscape(
    model: nn.Module, subspace: Subspace, coordinates: Sequence[Tensor], inputs: Tensor, targets: Tensor,
    metrics: Mapping[str, Metric], *, batch_norm: str = "running", points_at_a_time: int = 16,
    samples_at_a_time: int | None = None, dtype: torch.dtype | None = None, progress: bool = False,
) -> dict[str, Tensor]:  # fmt: skip
    r"""The mean of every metric over the samples, at all points of a grid.

    The network is computed once a point, for all metrics, and for several points at a time. It is computed in evaluation
    mode (without dropout), on a copy: the model, its weights, buffers and mode are left alone.

    Args:
        model: gives the network and its buffers; its weights are those of the subspace.
        subspace: a line or a plane.
        coordinates: the values of a, or of a and of b: tensors of shape ``(A,)`` and ``(B,)``.
        inputs: samples, shape ``(n, ...)``.
        targets: true classes, shape ``(n,)``.
        metrics: name to function of logits ``(n, K)`` and targets that returns one number a sample, such as
            ``CrossEntropy().per_sample``, ``Surrogate().per_sample`` and ``zero_one``.
        batch_norm: ``"running"`` uses the running statistics of the model at every point; ``"batch"`` uses at every
            point the mean and variance of the given inputs there, as a network in training mode does with one batch.
        points_at_a_time: more take more memory and give the same numbers, up to rounding.
        samples_at_a_time: ``None`` for all; anything else needs ``batch_norm="running"``.
        dtype: of the computation, such as ``torch.float64``; ``None`` keeps that of the weights.
        progress: show a bar on the terminal.

    Returns:
        Name to tensor of shape ``(A,)`` or ``(A, B)``, float64, on the CPU; infinite where the logits are not finite.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or range.

    Source:
        Li et al. (2018).

    Example:
        >>> from bisam import CrossEntropy
        >>> from bisam.losses import zero_one
        >>> from bisam.measure import gaussian, normalised, weights_of
        >>> net = nn.Linear(2, 3)
        >>> w = weights_of(net)
        >>> line = Subspace(w, normalised(gaussian(net, seed=0), w))
        >>> metrics = {"ce": CrossEntropy().per_sample, "0-1": zero_one}
        >>> x, y = torch.randn(8, 2), torch.zeros(8, dtype=torch.int64)
        >>> found = landscape(net, line, [torch.linspace(-1, 1, 5)], x, y, metrics)
        >>> found["ce"].shape, bool(found["ce"][2].isclose(CrossEntropy()(net(x), y).double()))
        (torch.Size([5]), True)
    """
    _check_grid(model, subspace, coordinates)
    _check_samples(inputs, targets, metrics)
    check_batch_norm(batch_norm)
    many = _checks.whole("points_at_a_time", points_at_a_time)
    size = _batch_size(len(targets), samples_at_a_time, batch_norm)
    if dtype is not None:
        if not _checks.part("dtype", dtype, torch.dtype, "a torch.dtype or None").is_floating_point:
            raise ValueError(f"dtype must be one of floating-point numbers, got {dtype}")
        subspace = _converted(subspace, dtype)
        inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    points = torch.cartesian_prod(*(axis.detach().double().cpu() for axis in coordinates)).reshape(-1, len(coordinates))
    sums = {name: torch.zeros(len(points), dtype=torch.float64) for name in metrics}
    network = _network(model, batch_norm, dtype)
    with torch.no_grad(), bar("landscape", len(points), "points", progress) as advance:
        for index in torch.arange(len(points)).split(many):
            weights = subspace.at(*points[index].unbind(1))
            for x, y in zip(inputs.split(size), targets.split(size), strict=True):
                logits = _logits(network, weights, x)
                for name, metric in metrics.items():
                    sums[name][index] += _summed(name, metric, logits, y)
            advance(len(index))
    shape = [len(axis) for axis in coordinates]
    return {name: (total / len(targets)).reshape(shape) for name, total in sums.items()}


def _batch_size(n: int, samples_at_a_time: int | None, batch_norm: str) -> int:
    size = n if samples_at_a_time is None else _checks.whole("samples_at_a_time", samples_at_a_time)
    if batch_norm == "batch" and size < n:
        raise ValueError(f'samples_at_a_time must be None with batch_norm="batch", which needs all inputs at once; got {samples_at_a_time}')
    return size


def _network(model: nn.Module, batch_norm: str, dtype: torch.dtype | None) -> Callable[[Tensors, Tensor], Tensor]:
    """The logits as a function of weights and inputs, by a copy: of a module in two places torch leaves the wrong weights behind."""
    with held(model, batch_norm):
        twin = copy.deepcopy(model).requires_grad_(False).to(dtype)
    buffers = dict(twin.named_buffers())
    return lambda weights, x: torch.func.functional_call(twin, {**weights, **buffers}, (x,))


def _logits(network: Callable[[Tensors, Tensor], Tensor], weights: Tensors, inputs: Tensor) -> Tensor:
    """The logits at several points, shape ``(points, n, K)``."""
    try:
        logits = torch.func.vmap(network, in_dims=(0, None))(weights, inputs)
    except Exception as error:
        error.add_note(f"model was given inputs of shape {tuple(inputs.shape)}, {inputs.dtype}, at several points at a time")
        raise
    if not isinstance(logits, Tensor) or logits.ndim != 3:
        raise ValueError(f"model must return logits of shape (n, K) for the inputs, got {_checks.shown(logits)} for several points")
    return logits


def _converted(subspace: Subspace, dtype: torch.dtype) -> Subspace:
    parts = (subspace.origin, *subspace.axes)
    return Subspace(*({name: tensor.to(dtype) for name, tensor in part.items()} for part in parts))


def _summed(name: str, metric: Metric, logits: Tensor, targets: Tensor) -> Tensor:
    """The sum of a metric over the samples at every point, shape ``(points,)``; infinite where a logit is not finite."""
    count, n, classes = logits.shape
    finite = logits.isfinite().flatten(1).all(1)
    usable = torch.where(finite[:, None, None], logits, 0.0).reshape(count * n, classes)
    try:
        values = metric(usable, targets.repeat(count))
    except Exception as error:
        error.add_note(f"metrics[{name!r}] was given logits of shape {tuple(usable.shape)} and the targets, {count} times")
        raise
    if not isinstance(values, Tensor) or values.shape != (count * n,):
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"metrics[{name!r}] must return one number a sample, shape ({count * n},); got {shape}")
    sums = values.double().reshape(count, n).sum(1)
    return torch.where(finite, sums, torch.inf).cpu()


def _check_grid(model: object, subspace: object, coordinates: object) -> None:
    _checks.module("model", model)
    if not isinstance(subspace, Subspace):
        raise TypeError(f"subspace must be a bisam.measure.Subspace, got {type(subspace).__name__}")
    same_shapes("subspace", subspace.origin, "model", dict(model.named_parameters()))
    wanted = len(subspace.axes)
    if not isinstance(coordinates, (list, tuple)) or len(coordinates) != wanted:
        raise ValueError(f"coordinates must be a list of {wanted} tensors, one a direction; got {_checks.shown(coordinates)}")
    for axis in coordinates:
        is_row = isinstance(axis, Tensor) and axis.ndim == 1 and len(axis) > 0
        if not is_row or axis.is_complex() or axis.dtype == torch.bool or not axis.isfinite().all():
            raise ValueError(f"coordinates must hold tensors of shape (points,) with finite values, got {_checks.shown(axis)}")


def _check_samples(inputs: object, targets: object, metrics: object) -> None:
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs must be a tensor of shape (n, ...), got {type(inputs).__name__}")
    if inputs.ndim == 0:
        raise ValueError("inputs must have shape (n, ...), one row a sample; got ()")
    _checks.labels(targets, len(inputs), samples="inputs")
    if not isinstance(metrics, Mapping) or not metrics:
        raise ValueError(f"metrics must name at least one function of logits and targets, got {_checks.shown(metrics)}")
    for name, metric in metrics.items():
        _checks.function(f"metrics[{_checks.shown(name)}]", metric, "a function of logits and targets")
