"""What a pass moves beside the weights, batch-norm statistics above all: which pass may, and how it comes back."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from .. import _checks
from .held import Before, Snapshot, Watch
from .modules import is_compiled

__all__ = ["held_buffers"]


@contextmanager
def held_buffers(model: nn.Module, own: Iterable[Tensor] | None = None, others: bool = False) -> Iterator[None]:
    """Lets a pass through the model leave no trace in its state, batch-norm statistics above all.

    Buffers are copied before and written back after. So are frozen parameters that a forward pass moves, as a momentum encoder does; they
    are found by themselves, and the others take no memory. Of modules whose class is not torch's own, attributes that are tensors,
    numbers, words, ``None``, tuples, lists, dictionaries, sets or deques refer to what they did, and these tensors and containers hold
    what they held; a module that is hidden in one is held like one inside the model; what lies deeper, in other objects or
    outside the modules is not seen. No module is switched to another mode, so that two nested uses do no harm, ``momentum=None`` is
    served as well, and a compiled model keeps one graph. That the statistics belong to the pass at w is the convention of Foret et al.
    (2021).

    Args:
        model: any module; its parameters that require a gradient are left alone.
        own: of these, the ones that an optimiser moves, if not all; the others count as frozen.
        others: hold the buffers of other modules that run inside too, from when they do; not where the model is compiled, which minds that.

    Raises:
        RuntimeError: a frozen parameter has moved inside that had not before: there is no copy of it, or the code of a block has moved it.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> with held_buffers(norm):
        ...     _ = norm(torch.rand(4, 2))
        >>> norm.running_mean
        tensor([0., 0.])
    """
    before = Before(_checks.module("model", model), own, in_block=others)
    with ExitStack() as around:
        around.callback(before.put_back)
        if others and not is_compiled(model):
            around.callback(register_module_forward_pre_hook(lambda module, _: before.meet(module)).remove)
        if before.frozen.has_unknown:
            if "torch._dynamo" in sys.modules:  # what is compiled would be compiled again for the watch
                around.enter_context(torch.compiler.set_stance("force_eager"))
            around.enter_context(Watch(before.frozen))
        yield
    before.frozen.check()


def _running_statistics(model: nn.Module) -> list[Tensor]:
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    return [b for layer in norms for b in layer._buffers.values() if b is not None and not nn.parameter.is_lazy(b)]


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
        if any(nn.parameter.is_lazy(buffer) for buffer in model.buffers()):
            raise ValueError("model must have its lazy modules made before a step in parts: call model(inputs) once before it")
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
