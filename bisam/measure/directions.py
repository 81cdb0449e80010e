"""Directions in the space of weights: drawn at random, and measured in units of the weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .. import _checks
from ..axes.tensors import Tensors

__all__ = ["gaussian", "normalised", "weights_of"]


def weights_of(model: nn.Module) -> Tensors:
    """A copy of the parameters of a model, by name; frozen ones included, tied ones once.

    Args:
        model: any module.

    Raises:
        TypeError: ``model`` is no module.

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
    _checks.choice("by", by, ("filter", "tensor", "none"))
    _checks.choice("vectors", vectors, ("zero", "scaled"))
    same_shapes("direction", direction, "weights", weights)
    return {name: _in_units_of(weights[name], u, by, vectors) for name, u in direction.items()}


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


def same_shapes(name: str, tensors: object, other: str, weights: object) -> None:
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
            raise ValueError(f"{name}[{key!r}] must have shape {tuple(weights[key].shape)}, as in {other}; got {tuple(part.shape)}")
