"""Tensors of which every worker holds a shard, as after ``fully_shard``: numbers of the whole, and whole tensors cut into shards."""

from __future__ import annotations

import torch
from torch import Tensor

_PLAIN = (Tensor, torch.nn.Parameter)  # a look for what they do not have takes time


def are_workers() -> bool:
    """Whether there are several processes, without which nothing is spread."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is spread over workers: a ``DTensor``, known by its mesh, so that nothing is imported for the others."""
    return type(tensor) not in _PLAIN and hasattr(tensor, "device_mesh")


def local(tensor: Tensor) -> Tensor:
    """What this worker holds of a tensor, in the same memory."""
    return tensor.detach().to_local() if is_sharded(tensor) else tensor


def locals_of(tensors: list[Tensor]) -> list[Tensor]:
    """:func:`local` of each, at one go."""
    return [local(tensor) for tensor in tensors] if are_workers() else tensors


def spread_as(gradient: Tensor, tensor: Tensor) -> Tensor:
    """A gradient in the shards of its parameter, where the backward pass has left the workers a sum to make."""
    if not is_sharded(gradient) or gradient.placements == tensor.placements:
        return gradient
    return gradient.redistribute(tensor.device_mesh, tensor.placements)


def over_shards(parts: list[Tensor], tensors: list[Tensor], p: float) -> list[Tensor]:
    r"""The p-norm of each tensor, from those of what this worker holds; with p = 1 the sums. Plain tensors keep theirs.

    .. math:: \|g\|_p = \Big(\sum_{\text{workers}} \|g_{\text{worker}}\|_p^p\Big)^{1/p}

    The workers meet once for all tensors that are spread in the same way, and all find the same bits.
    """
    alike: dict[tuple, list[int]] = {}
    for k, tensor in enumerate(tensors if are_workers() else ()):
        if is_sharded(tensor):
            alike.setdefault((tensor.device_mesh, tensor.placements), []).append(k)
    found = list(parts)
    for (mesh, placements), places in alike.items():
        whole = _together(torch.stack([parts[k] for k in places]).double(), mesh, placements, p)
        for k, value in zip(places, whole.to(parts[places[0]].dtype).unbind(), strict=True):
            found[k] = value
    return found


def _together(values: Tensor, mesh, placements: tuple, p: float) -> Tensor:
    """In float64, whose range holds the squares of all that float32 can."""
    from torch.distributed.tensor import DTensor, Partial, Replicate

    is_largest = p == float("inf")
    here = Partial("max" if is_largest else "sum")
    spread = [Replicate() if placement.is_replicate() else here for placement in placements]
    powers = values if is_largest or p == 1 else values.pow(p)
    whole = DTensor.from_local(powers, mesh, spread, run_check=False).full_tensor()
    return whole if is_largest or p == 1 else whole.pow(1 / p)


def like(whole: Tensor, tensor: Tensor) -> Tensor:
    """A tensor that all workers have made alike, cut as the other one is; as it is beside a plain one."""
    if not is_sharded(tensor):
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, tensor.device_mesh, tensor.placements, src_data_rank=None)
