"""Lines and planes through the space of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks
from ..axes.tensors import Tensors
from .directions import same_shapes

__all__ = ["Subspace", "line_between", "plane_through"]


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
        same_shapes("along", self.along, "origin", self.origin)
        if self.across is not None:
            same_shapes("across", self.across, "origin", self.origin)

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
    same_shapes("end", end, "start", start)
    return Subspace(dict(start), {name: end[name] - w for name, w in start.items()})


def plane_through(first: Mapping[str, Tensor], second: Mapping[str, Tensor], third: Mapping[str, Tensor]) -> tuple[Subspace, Tensor]:
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
    same_shapes("second", second, "first", first)
    same_shapes("third", third, "first", first)
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


def _dot(a: Tensors, b: Tensors) -> Tensor:
    return sum((a[name] * b[name]).sum() for name in a)
