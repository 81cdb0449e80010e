"""Arithmetic on tensors by name: sums, inner products, norms over all parameters at once."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from .. import _look
from .shards import is_sharded, local, locals_of, over_shards

__all__ = ["Tensors", "dot", "euclidean_norm", "linear"]

Tensors = dict[str, Tensor]


def linear(a: Tensors, x: Tensor | float, b: Tensors, y: Tensor | float) -> Tensors:
    """The sum x a + y b by name, in the types of a; a name of one side only has its own part.

    Args:
        a: name to tensor.
        x: its factor.
        b: name to tensor, of the same shapes where both have a name.
        y: its factor.

    Example:
        >>> linear({"w": torch.tensor([1.0, 2.0])}, 2.0, {"w": torch.tensor([3.0, 4.0]), "b": torch.tensor([1.0])}, -1.0)
        {'w': tensor([-1.,  0.]), 'b': tensor([-1.])}
    """
    names = list(dict.fromkeys([*a, *b]))
    return {name: _term(a.get(name), x, b.get(name), y) for name in names}


def _term(a: Tensor | None, x: Tensor | float, b: Tensor | None, y: Tensor | float) -> Tensor:
    if a is None or b is None:
        part, factor = (b, y) if a is None else (a, x)
        return _times(part, factor).to(part.dtype)
    return (_times(a, x) + _times(b, y)).to(a.dtype)


def _times(tensor: Tensor, factor: Tensor | float) -> Tensor:
    return tensor if isinstance(factor, (int, float)) and factor == 1 else tensor * factor


def dot(a: Tensors, b: Tensors) -> Tensor:
    r"""The inner product :math:`\langle a, b\rangle` over the names that both have, summed in float32 at least.

    Args:
        a: name to tensor.
        b: name to tensor, of the same shapes.

    Example:
        >>> dot({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 4.0])})
        tensor(11.)
    """
    names = [name for name in a if name in b]
    parts = over_shards([_inner(local(a[name]), local(b[name])) for name in names], [a[name] for name in names], p=1)
    return torch.stack([part.to(parts[0].device) for part in parts]).sum() if parts else torch.zeros(())


def _inner(a: Tensor, b: Tensor) -> Tensor:
    wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return torch.dot(a.detach().to(wide).flatten(), b.detach().to(wide).flatten())


def scaled(tensors: list[Tensor], rho: float | Tensor, size: Tensor, in_place: bool = False) -> list[Tensor]:
    """Tensors times rho / size, on any devices; zero where the size is 0."""
    if not tensors:
        return []
    check_range(rho, tensors)
    by_device: dict[torch.device, list[Tensor]] = {}
    # Unseen: a norm at the edge of its range is too small to divide by, and so the move is shorter than rho, and zero for zero.
    ratio = rho / (size if _look.is_free(size) else size.clamp(min=torch.finfo(size.dtype).tiny ** 0.5))
    if _is_beyond_range(ratio, size):
        wide = _times_in_float64(tensors, rho, size)
        return [tensor.copy_(product) for tensor, product in zip(tensors, wide, strict=True)] if in_place else wide
    if _look.is_free(size) and size.item() == 0:
        ratio = torch.zeros_like(ratio)
    if not in_place:
        if all(tensor.device == ratio.device and not is_sharded(tensor) for tensor in tensors):
            return list(torch._foreach_mul(tensors, ratio))
        return [tensor * ratio.to(tensor.device) for tensor in tensors]
    for tensor in tensors:
        by_device.setdefault(tensor.device, []).append(local(tensor))
    for device, group in by_device.items():
        torch._foreach_mul_(group, ratio.to(device))
    return tensors


def check_range(rho: float | Tensor, tensors: Iterable[Tensor]) -> None:
    """A radius that the weights can be moved by; one that is a number of another device is not read."""
    if isinstance(rho, Tensor):
        if not _look.is_free(rho):
            return
        rho = float(rho)
    for dtype in {tensor.dtype for tensor in tensors}:
        if rho > torch.finfo(dtype).max:
            raise ValueError(f"rho must be at most {torch.finfo(dtype).max:.4g}, the largest number in {dtype}, got {rho!r}")


def _is_beyond_range(ratio: Tensor, size: Tensor) -> bool:
    """Whether rho / size has no number while rho and size have: the product with a tensor of this size may well have one."""
    return _look.is_free(ratio) and math.isinf(ratio.item()) and size.item() > 0


def _times_in_float64(tensors: list[Tensor], rho: float | Tensor, size: Tensor) -> list[Tensor]:
    ratio = rho / size.double()
    return [(tensor.double() * ratio.to(tensor.device)).to(tensor.dtype) for tensor in tensors]


def p_norm(tensors: Tensors, p: float) -> Tensor:
    """The p-norm of all entries together, as carefully summed as :func:`euclidean_norm`."""
    if p == 2:
        return euclidean_norm(tensors)
    values = [value for value in tensors.values() if value.numel()]
    if not values:
        return torch.zeros(())
    dtype = _wide(values)
    parts = [_norm(local(value), p, dtype).to(values[0].device) for value in values]
    parts = over_shards(parts, values, p)
    return torch.linalg.vector_norm(torch.stack(parts), p)


def _norm(values: Tensor, p: float, dtype: torch.dtype) -> Tensor:
    if not values.numel():  # a worker may hold nothing of a tensor that is not empty
        return torch.zeros((), dtype=dtype, device=values.device)
    return torch.linalg.vector_norm(values, p, dtype=dtype)


def euclidean_norm(tensors: Tensors) -> Tensor:
    r"""The Euclidean norm of all entries together.

    .. math:: \|g\|_2 = \Big(\sum_{\text{names}} \sum_k g_k^2\Big)^{1/2}

    Args:
        tensors: name to tensor, any shapes, floating point.

    Returns:
        A scalar, zero for no tensors. It is summed in float32 at least, and in float64 if any tensor is or if the sum
        leaves the range of float32 (on the CPU): squares of half-precision gradients overflow above 256, those of
        float32 vanish below 1e-22, and a norm that is infinite or zero switches a method off without a word.

    Example:
        >>> euclidean_norm({"w": torch.tensor([300.0, 400.0], dtype=torch.float16)})
        tensor(500.)
    """
    values = list(tensors.values())
    if not values:
        return torch.zeros(())
    norm = torch.linalg.vector_norm(torch.stack(norms_of(values)))
    # Squares of float32 leave its range below 1e-19 and above 1e19. Looking at the number is free on the CPU only.
    if _look.is_free(norm) and norm.dtype == torch.float32 and not 1e-12 < norm.item() < 1e12:
        return torch.linalg.vector_norm(torch.stack(norms_of(values, torch.float64))).to(norm.dtype)
    return norm


def norms_of(values: list[Tensor], dtype: torch.dtype | None = None) -> list[Tensor]:
    """The Euclidean norm of each tensor, in one type and on the device of the first."""
    if not values:
        return []
    norms = torch._foreach_norm(locals_of(values), 2, dtype=dtype or _wide(values))
    return over_shards([norm.to(values[0].device) for norm in norms], values, p=2)


def _wide(values: list[Tensor]) -> torch.dtype:
    """The type to sum in: float32 at least, float64 if any tensor is."""
    dtype = torch.float32
    for other in {tensor.dtype for tensor in values}:
        dtype = torch.promote_types(dtype, other)
    return dtype
