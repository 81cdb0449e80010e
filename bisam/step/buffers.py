"""The buffers of a model, batch-norm statistics above all: which pass may change them, and how they come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .. import _checks

__all__ = ["held_buffers"]


class Snapshot:
    """Copies of buffers, to write them back: those of one type and device at one go."""

    def __init__(self, buffers: list[Tensor]):
        groups: dict[tuple, list[Tensor]] = {}
        for buffer in buffers:
            groups.setdefault((buffer.dtype, buffer.device), []).append(buffer)
        self._groups = [(group, [torch.empty_like(buffer) for buffer in group]) for group in groups.values()]
        with torch.no_grad():
            for group, copies in self._groups:
                torch._foreach_copy_(copies, group)

    def restore(self) -> None:
        """Writes the copies back."""
        with torch.no_grad():
            for group, copies in self._groups:
                torch._foreach_copy_(group, copies)


@contextmanager
def held_buffers(model: nn.Module) -> Iterator[None]:
    """Lets a pass through the model leave no trace in its buffers, batch-norm statistics above all.

    The buffers are copied before and written back after. No module is switched to another mode, so that two nested
    uses do no harm, ``momentum=None`` is served as well, and a compiled model keeps one graph. That the statistics belong to the
    pass at w is the convention of Foret et al. (2021).

    Args:
        model: any module; its parameters are left alone.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> with held_buffers(norm):
        ...     _ = norm(torch.rand(4, 2))
        >>> norm.running_mean
        tensor([0., 0.])
    """
    places = [
        (module, name, buffer)
        for module in _checks.module("model", model).modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    before = Snapshot([buffer for _, _, buffer in places if _can_be_written(buffer)])
    try:
        yield
    finally:
        before.restore()
        for module, name, buffer in places:
            module._buffers[name] = buffer


def _can_be_written(buffer: Tensor) -> bool:
    """Not an expanded buffer, whose entries share memory, nor one made in inference mode: no pass changes those either."""
    if buffer.is_inference() and not torch.is_inference_mode_enabled():
        return False
    return buffer.layout != torch.strided or all(s or n < 2 for s, n in zip(buffer.stride(), buffer.shape, strict=True))


def _running_statistics(model: nn.Module) -> list[Tensor]:
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    return [buffer for layer in norms for buffer in layer._buffers.values() if buffer is not None]


class Statistics:
    """The running statistics of batch and instance norm before a step, to mend them if its numbers were not finite."""

    def __init__(self, model: nn.Module):
        self._buffers = _running_statistics(model)
        self._before = Snapshot(self._buffers)

    def mend(self) -> None:
        """Writes all of them back if any has become infinite or NaN; otherwise they count, as after any pass."""
        if not all(torch.isfinite(buffer).all() for buffer in self._buffers):
            self._before.restore()


class SharedStatistics:
    r"""Lets batch norm count one step where a batch goes through the model in parts.

    .. math:: \mu \leftarrow \sum_k \frac{n_k}{n}\,\mu_k, \qquad \mu_k = \text{what part } k \text{ alone would make of } \mu

    Every part finds the running statistics as they were before the step. At the end the running mean is exactly that of the whole
    batch, the running variance the mean of the variances within the parts.
    """

    def __init__(self, model: nn.Module):
        self._buffers = _running_statistics(model)
        self._before = Snapshot(self._buffers)
        self._sum = [torch.zeros_like(buffer) for buffer in self._buffers]

    @contextmanager
    def part(self, share: float) -> Iterator[None]:
        """Around the pass of one part; ``share`` is its part of the samples."""
        self._before.restore()
        yield
        with torch.no_grad():
            for total, buffer in zip(self._sum, self._buffers, strict=True):
                total.add_(buffer, alpha=share) if buffer.is_floating_point() else total.copy_(buffer)

    def settle(self) -> None:
        """Writes the means; call it after the last part."""
        with torch.no_grad():
            for buffer, mean in zip(self._buffers, self._sum, strict=True):
                buffer.copy_(mean)
