r"""Loss landscapes: several metrics at once on lines and planes through the space of weights.

.. math:: m(a, b) = \frac1n \sum_{i=1}^n m\big(f_{w + a u + b v}(x_i), y_i\big)

A picture is a choice of directions u and v, of a range for a and b, of a metric m, and of what batch norm does. Each
of them is an argument here, because each of them can change the story.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import _checks

__all__ = ["Subspace", "gaussian", "landscape", "line_between", "normalised", "plane_through", "weights_of"]

Tensors = dict[str, Tensor]
Metric = Callable[[Tensor, Tensor], Tensor]

SCALES = ("filter", "tensor", "none")
VECTORS = ("zero", "scaled")
BATCH_NORM = ("kept", "estimated")


def weights_of(model: nn.Module) -> Tensors:
    """A copy of the parameters of a model, by name; frozen ones included, tied ones once.

    Args:
        model: any module.

    Raises:
        TypeError: ``model`` is no module.

    Source:
        Ours.

    Example:
        >>> sorted(weights_of(nn.Linear(2, 3)))
        ['bias', 'weight']
    """
    return {name: p.detach().clone() for name, p in _checks.module("model", model).named_parameters()}


def gaussian(model: nn.Module, seed: int) -> Tensors:
    r"""A random direction, every entry from :math:`\mathcal N(0, 1)`: the same for all models with the same shapes.

    The numbers are drawn on the CPU in float64 and then converted, so that they depend neither on the device nor on the
    type of the weights. The caller's random state is left alone.

    Args:
        model: whose parameters give names, shapes, types and devices.
        seed: a whole number, 0 or greater.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range.

    Source:
        Li et al. (2018), section 4.

    Example:
        >>> one, other = nn.Linear(2, 3), nn.Linear(2, 3)
        >>> torch.equal(gaussian(one, seed=0)["weight"], gaussian(other, seed=0)["weight"])
        True
    """
    draw = torch.Generator().manual_seed(_checks.whole("seed", seed, least=0))
    return {
        name: torch.randn(p.shape, generator=draw, dtype=torch.float64).to(p.device, p.dtype)
        for name, p in _checks.module("model", model).named_parameters()
    }


def normalised(
    direction: Mapping[str, Tensor], weights: Mapping[str, Tensor], by: str = "filter", vectors: str = "zero"
) -> Tensors:
    r"""A direction measured in units of the weights, filter by filter.

    .. math:: u_k \leftarrow \frac{u_k}{\|u_k\|_2}\, \|w_k\|_2 \qquad \text{for every filter } k

    A filter is one slice of a tensor along its first axis: what feeds one output channel of a convolution, or one output
    of a linear layer. If a layer of a network with rectifiers is multiplied by c > 0 and the next one divided by c, pictures
    along the result stay as they are. A factor that differs from unit to unit changes the norms of the next layer's
    filters unevenly, and pictures with them.

    Args:
        direction: name to tensor.
        weights: the same names and shapes, the point that the picture is drawn around. To draw several models on one
            scale, give the weights of one of them to all calls.
        by: ``"filter"``; ``"tensor"`` measures every tensor as a whole; ``"none"`` leaves matrices and filters as drawn.
        vectors: what becomes of tensors with fewer than two axes, biases and the scales of batch norm: ``"zero"`` leaves
            them out of the direction, ``"scaled"`` treats each as one filter (with ``by="none"``, as drawn).

    Returns:
        A new direction; the given one is left alone. A filter whose direction or weight is 0 gets 0.

    Raises:
        TypeError, ValueError: names or shapes that differ, or an unknown choice.

    Source:
        Li et al. (2018), section 4; their code has both treatments of vectors.

    Example:
        >>> w = {"weight": torch.tensor([[3.0, 4.0], [0.0, 2.0]])}
        >>> normalised({"weight": torch.tensor([[1.0, 0.0], [0.0, 9.0]])}, w)["weight"]
        tensor([[5., 0.],
                [0., 2.]])
    """
    _checks.choice("by", by, SCALES)
    _checks.choice("vectors", vectors, VECTORS)
    _same_shapes("direction", direction, "weights", weights)
    return {name: _in_units_of(weights[name], u, by, vectors) for name, u in direction.items()}


@dataclass(frozen=True)
class Subspace:
    r"""A line :math:`w + a u` or a plane :math:`w + a u + b v` in the space of weights.

    Args:
        origin: w, name to tensor.
        along: u, the same names and shapes.
        across: v, or ``None`` for a line.

    Raises:
        TypeError, ValueError: names or shapes that differ.

    Source:
        Goodfellow, Vinyals and Saxe (2015) for lines, Li et al. (2018) for planes.

    Example:
        >>> w, u = {"weight": torch.zeros(2)}, {"weight": torch.ones(2)}
        >>> Subspace(w, u).at(0.5)
        {'weight': tensor([0.5000, 0.5000])}
    """

    origin: Tensors
    along: Tensors
    across: Tensors | None = None

    def __post_init__(self):
        _same_shapes("along", self.along, "origin", self.origin)
        if self.across is not None:
            _same_shapes("across", self.across, "origin", self.origin)

    @property
    def axes(self) -> tuple[Tensors, ...]:
        """The directions, one or two."""
        return (self.along,) if self.across is None else (self.along, self.across)

    def at(self, *coordinates: float | Tensor) -> Tensors:
        """The weights at a point; for coordinates of shape ``(m,)``, those of m points, stacked in front.

        Args:
            coordinates: a, or a and b: numbers, or tensors of one shape.

        Raises:
            ValueError: not as many coordinates as there are directions.
        """
        if len(coordinates) != len(self.axes):
            raise ValueError(f"coordinates must be {len(self.axes)}, one a direction; got {len(coordinates)}")
        return {name: self._entry(name, coordinates) for name in self.origin}

    def _entry(self, name: str, coordinates: Sequence[float | Tensor]) -> Tensor:
        point = self.origin[name]
        for step, axis in zip(coordinates, self.axes, strict=True):
            step = _coordinate(step).to(point.device, point.dtype)
            point = point + step.reshape(*step.shape, *[1] * axis[name].ndim) * axis[name]
        return point


def _coordinate(value: float | Tensor) -> Tensor:
    if isinstance(value, Tensor):
        if value.is_complex() or value.dtype == torch.bool or not value.isfinite().all():
            raise ValueError(f"coordinates must be finite real numbers, got {_checks.shown(value)}")
        return value
    return torch.tensor(_checks.real("coordinates", value), dtype=torch.float64)


def line_between(start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> Subspace:
    r"""The line :math:`(1 - a)\, w_0 + a\, w_1` through two models: they lie at 0 and at 1.

    Args:
        start: weights :math:`w_0`, name to tensor.
        end: weights :math:`w_1`, the same names and shapes.

    Raises:
        TypeError, ValueError: names or shapes that differ.

    Source:
        Goodfellow, Vinyals and Saxe (2015).

    Example:
        >>> line_between({"weight": torch.zeros(1)}, {"weight": torch.ones(1)}).at(0.25)
        {'weight': tensor([0.2500])}
    """
    _same_shapes("end", end, "start", start)
    return Subspace(dict(start), {name: end[name] - w for name, w in start.items()})


def plane_through(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], third: Mapping[str, Tensor]
) -> tuple[Subspace, Tensor]:
    """The plane through three models, with axes of length 1 at right angles.

    Distances in the picture are then Euclidean distances between weights.

    Args:
        first: weights, the origin of the picture.
        second: weights, on the first axis.
        third: weights, on the positive side of the second axis.

    Returns:
        The plane, and the coordinates of the three models, shape ``(3, 2)``, float64.

    Raises:
        TypeError, ValueError: names or shapes that differ, or three models on one line.

    Source:
        Garipov et al. (2018), appendix.

    Example:
        >>> a, b, c = ({"weight": torch.tensor(w)} for w in ([0.0, 0.0], [3.0, 0.0], [1.0, 2.0]))
        >>> plane_through(a, b, c)[1]
        tensor([[0., 0.],
                [3., 0.],
                [1., 2.]], dtype=torch.float64)
    """
    _same_shapes("second", second, "first", first)
    _same_shapes("third", third, "first", first)
    to_second, to_third = ({n: (w[n] - first[n]).double() for n in first} for w in (second, third))
    reach = _dot(to_second, to_second).sqrt()
    u = {n: part / reach for n, part in to_second.items()}
    shadow = _dot(to_third, u)
    rest = {n: part - shadow * u[n] for n, part in to_third.items()}
    height = _dot(rest, rest).sqrt()
    if not (reach > 0 and height > 1e-6 * _dot(to_third, to_third).sqrt() and height > 0):
        raise ValueError("third must not lie on the line through first and second: the three models span no plane")
    along = {n: part.to(first[n].dtype) for n, part in u.items()}
    across = {n: (part / height).to(first[n].dtype) for n, part in rest.items()}
    corners = torch.tensor([[0.0, 0.0], [float(reach), 0.0], [float(shadow), float(height)]], dtype=torch.float64)
    return Subspace(dict(first), along, across), corners


def landscape(
    model: nn.Module,
    subspace: Subspace,
    coordinates: Sequence[Tensor],
    inputs: Tensor,
    targets: Tensor,
    metrics: Mapping[str, Metric],
    *,
    batch_norm: str = "kept",
    chunk: int = 16,
    batch_size: int | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = False,
) -> dict[str, Tensor]:
    r"""The mean of every metric over the samples, at all points of a grid.

    The network is computed once a point, for all metrics, and for ``chunk`` points at a time. It is computed in evaluation
    mode (without dropout), on a copy: the model, its weights, buffers and mode are left alone.

    Args:
        model: gives the network and its buffers; its weights are those of the subspace.
        subspace: a line or a plane.
        coordinates: the values of a, or of a and of b: tensors of shape ``(A,)`` and ``(B,)``.
        inputs: samples, shape ``(n, ...)``.
        targets: true classes, shape ``(n,)``.
        metrics: name to function of logits ``(n, K)`` and targets that returns one number a sample, such as
            ``CrossEntropy().per_sample``, ``Surrogate().per_sample`` and ``zero_one``.
        batch_norm: ``"kept"`` uses the running statistics of the model at every point; ``"estimated"`` uses at every
            point the mean and variance of the given inputs there, as a network in training mode does with one batch.
        chunk: points computed at a time; more take more memory and give the same numbers, up to rounding.
        batch_size: samples computed at a time, or ``None`` for all; only with ``batch_norm="kept"``.
        dtype: of the computation, such as ``torch.float64``; ``None`` keeps that of the weights.
        progress: show a bar on the terminal.

    Returns:
        Name to tensor of shape ``(A,)`` or ``(A, B)``, float64, on the CPU; infinite where the logits are not finite.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or range.

    Source:
        Li et al. (2018) for the pictures; several metrics on shared points is ours.

    Example:
        >>> from bisam import CrossEntropy
        >>> from bisam.losses import zero_one
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
    _checks.choice("batch_norm", batch_norm, BATCH_NORM)
    chunk = _checks.whole("chunk", chunk)
    if dtype is not None and not _checks.part("dtype", dtype, torch.dtype, "a torch.dtype or None").is_floating_point:
        raise ValueError(f"dtype must be one of floating-point numbers, got {dtype}")
    size = len(targets) if batch_size is None else _checks.whole("batch_size", batch_size)
    if batch_norm == "estimated" and size < len(targets):
        raise ValueError(
            f'batch_size must be None with batch_norm="estimated", which needs all inputs at once; got {batch_size}'
        )
    network = _network(model, batch_norm, dtype)
    if dtype is not None:
        subspace = _converted(subspace, dtype)
        inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    points = torch.cartesian_prod(*(axis.detach().double().cpu() for axis in coordinates)).reshape(-1, len(coordinates))
    pieces = list(zip(inputs.split(size), targets.split(size), strict=True))
    sums = {name: torch.zeros(len(points), dtype=torch.float64) for name in metrics}
    with torch.no_grad(), _bar(len(points), progress) as advance:
        for index in torch.arange(len(points)).split(chunk):
            weights = subspace.at(*points[index].unbind(1))
            for x, y in pieces:
                logits = _logits(network, weights, x)
                for name, metric in metrics.items():
                    sums[name][index] += _summed(name, metric, logits, y)
            advance(len(index))
    shape = [len(axis) for axis in coordinates]
    return {name: (total / len(targets)).reshape(shape) for name, total in sums.items()}


def _network(model: nn.Module, batch_norm: str, dtype: torch.dtype | None) -> Callable[[Tensors, Tensor], Tensor]:
    """The logits as a function of weights and inputs."""
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    if batch_norm == "estimated":
        _forget_statistics(twin)
    if dtype is not None:
        twin.to(dtype)
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


def _forget_statistics(twin: nn.Module) -> None:
    """Without running statistics a batch-norm layer uses those of the batch, in evaluation mode too."""
    for layer in twin.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None


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


def _in_units_of(weight: Tensor, u: Tensor, by: str, vectors: str) -> Tensor:
    if u.ndim < 2 and vectors == "zero":
        return torch.zeros_like(u)
    if by == "none":
        return u.clone()
    rows = len(u) if u.ndim > 1 and by == "filter" else 1
    drawn, size = (part.detach().double().reshape(rows, -1) for part in (u, weight))
    length = drawn.norm(dim=1, keepdim=True)
    unit = torch.where(length > 0, drawn / length, 0.0)
    return (unit * size.norm(dim=1, keepdim=True)).reshape(u.shape).to(u.dtype)


def _dot(a: Tensors, b: Tensors) -> Tensor:
    return sum((a[name] * b[name]).sum() for name in a)


@contextlib.contextmanager
def _bar(total: int, show: bool) -> Iterator[Callable[[int], None]]:
    """A bar over the points of the grid, on a terminal only."""
    if not _checks.flag("progress", show):
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("points", total=total)
        yield lambda done: bar.advance(task, done)


# -- checks -----------------------------------------------------------------------------------------------------------


def _same_shapes(name: str, tensors: object, other: str, weights: object) -> None:
    """Two dictionaries with the same names and shapes."""
    for title, found in ((name, tensors), (other, weights)):
        for key, part in _checks.tensors(title, found).items():
            if not part.is_floating_point():
                raise TypeError(f"{title}[{key!r}] must hold floating-point numbers, got {part.dtype}")
    if set(tensors) != set(weights):
        odd = sorted(set(tensors) ^ set(weights))
        raise ValueError(f"{name} must have the names that {other} has; only one of them has {', '.join(odd)}")
    for key, part in tensors.items():
        if part.shape != weights[key].shape:
            raise ValueError(
                f"{name}[{key!r}] must have shape {tuple(weights[key].shape)}, as in {other}; got {tuple(part.shape)}"
            )


def _check_grid(model: object, subspace: object, coordinates: object) -> None:
    _checks.module("model", model)
    if not isinstance(subspace, Subspace):
        raise TypeError(f"subspace must be a bisam.measure.landscapes.Subspace, got {type(subspace).__name__}")
    _same_shapes("subspace", subspace.origin, "model", dict(model.named_parameters()))
    wanted = len(subspace.axes)
    if not isinstance(coordinates, (list, tuple)) or len(coordinates) != wanted:
        raise ValueError(f"coordinates must be a list of {wanted} tensors, one a direction; got {_checks.shown(coordinates)}")
    for axis in coordinates:
        if not isinstance(axis, Tensor) or axis.ndim != 1 or len(axis) == 0 or axis.is_complex() or axis.dtype == torch.bool or not axis.isfinite().all():
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
