"""One mini-batch and its model, and what has to be held still while the loss is looked at twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from .. import _checks

__all__ = ["Batch", "Noise", "SharedStatistics", "Statistics", "held_buffers"]


class Batch:
    r"""A model with the samples it is evaluated on.

    .. math:: w \mapsto \frac1n \sum_{i=1}^n \ell\big(f_w(x_i), y_i\big)

    Args:
        model: the network :math:`f_w`; called as ``model(inputs)``, it returns logits of shape ``(n, K)``.
        inputs: the samples, shape ``(n, ...)``.
        targets: true classes, shape ``(n,)``, whole numbers in ``0 .. K - 1``, on the device of the logits.
        autocast: ``torch.bfloat16`` or ``torch.float16`` to compute the forward pass in mixed precision. (Under an
            autocast context of your own around the whole step the backward passes would run in it too.)

    After a step there are logits of it, without a graph, for accuracies and logs. ``at_w`` are those at w, before the base has moved
    it. ``at_worst`` are those where the descent gradient was taken, at :math:`w + \epsilon` (with a start that is kept, at
    :math:`w + \delta + \epsilon`); ``None`` if nothing climbed, or if not all samples have been seen there. Of a
    :class:`~bisam.axes.selection.TopK`, ``chosen`` is the batch of the samples that both passes saw, with logits of its own. Network and data are in
    the state in which the step saw them: batch norm with the statistics of what went through together, dropout with the
    masks of the first pass (drawn anew for ``at_worst`` if the recipe says ``same_noise=False``).

    Raises:
        TypeError, ValueError: an empty batch, targets that are not whole numbers or not one a sample.

    Source:
        Ours.

    Example:
        >>> model = nn.Linear(4, 3)
        >>> Batch(model, torch.zeros(8, 4), torch.zeros(8, dtype=torch.int64)).logits().shape
        torch.Size([8, 3])
    """

    def __init__(self, model: nn.Module, inputs: Tensor, targets: Tensor, autocast: torch.dtype | None = None):
        _checks.function("model", model, "callable")
        if not isinstance(inputs, Tensor):
            raise TypeError(f"inputs must be a tensor, got {type(inputs).__name__}")
        if inputs.ndim == 0:
            raise ValueError("inputs must have shape (n, ...), one row a sample; got ()")
        _checks.labels(targets, len(inputs), samples="inputs")
        if autocast is not None and autocast is not torch.bfloat16 and autocast is not torch.float16:
            raise ValueError(f"autocast must be torch.bfloat16, torch.float16 or None, got {_checks.shown(autocast)}")
        self.model, self.inputs, self.targets, self.autocast = model, inputs, targets, autocast
        self.at_w: Tensor | None = None
        self.at_worst: Tensor | None = None
        self.chosen: Batch | None = None
        self.drawn: Noise | None = None  # the random state before the first pass of a step
        self._checked = False

    def logits(self) -> Tensor:
        """Scores of the samples, shape ``(n, K)``, with the graph that leads to the weights."""
        with torch.autocast(self.inputs.device.type, self.autocast) if self.autocast else nullcontext():
            try:
                logits = self.model(self.inputs)
            except Exception as error:
                error.add_note(f"the model was given inputs of shape {tuple(self.inputs.shape)}, {self.inputs.dtype}")
                raise
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(self.targets):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"the model must return logits of shape ({len(self.targets)}, K), got {got}")
        if not self._checked and logits.device.type == "cpu":  # elsewhere the look would stop the device
            _checks.in_range(self.targets, logits.shape[1])
        self._checked = True
        return logits

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, places: Tensor) -> Batch:
        """The samples at the given places, shape ``(k,)``, as a batch of its own."""
        if not isinstance(places, Tensor) or places.ndim != 1 or places.is_floating_point() or places.is_complex():
            raise TypeError(f"places must be a tensor of whole numbers of shape (k,), got {_checks.shown(places)}")
        try:
            inputs, targets = self.inputs[places], self.targets[places]
        except IndexError as error:
            raise ValueError(f"places must be below {len(self)}, the number of samples: {error}") from None
        if len(targets) == 0:
            raise ValueError("places must hold at least one place, got none")
        part = Batch(self.model, inputs, targets, self.autocast)
        part._checked, part.drawn = self._checked, self.drawn
        return part

    def split(self, size: int) -> list[Batch]:
        """Parts of ``size`` samples in order; the last may be smaller."""
        size = _checks.whole("size", size)
        if size >= len(self):
            return [self]
        parts = zip(self.inputs.split(size), self.targets.split(size), strict=True)
        return [Batch(self.model, inputs, targets, self.autocast) for inputs, targets in parts]

    @staticmethod
    def joined(parts: list[Batch]) -> Batch:
        """One batch of all samples of some, with their logits."""
        inputs, targets = (torch.cat([getattr(part, name) for part in parts]) for name in ("inputs", "targets"))
        whole = Batch(parts[0].model, inputs, targets, parts[0].autocast)
        whole.take_logits(parts)
        return whole

    def take_logits(self, parts: list[Batch]) -> None:
        """Takes over the logits of the parts that this batch went through the model in."""
        for name in ("at_w", "at_worst"):
            found = [getattr(part, name) for part in parts]
            if all(logits is not None for logits in found):
                setattr(self, name, torch.cat(found))

    def noise(self) -> Noise:
        """The random state of the devices that this batch is computed on, as it is now."""
        return Noise(self.inputs.device)


class Noise:
    """The random state before a pass, so that another pass can draw the same dropout masks.

    Random numbers that are not drawn from torch's global generators (NumPy's, or a generator of your own) are not
    held.

    Args:
        device: where the model draws; the CPU's generator is always held too.

    Source:
        Ours.

    Example:
        >>> noise = Noise()
        >>> first = torch.rand(2)
        >>> with noise.replayed():
        ...     second = torch.rand(2)
        >>> bool((first == second).all()), bool((first == torch.rand(2)).any())
        (True, False)
    """

    def __init__(self, device: torch.device | str = "cpu"):
        _checks.part("device", device, (torch.device, str), 'a device such as "cpu"')
        try:
            self.device = torch.device(device)
            self._state = self._read()
        except (RuntimeError, AssertionError) as error:  # torch says in both ways that a device is not there
            raise ValueError(f"device must be one that this machine has, got {_checks.shown(device)}: {_checks.shown(error)}") from None

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Draws the same numbers again inside, and goes on outside as if nothing had been drawn."""
        after = self._read()
        self._write(self._state)
        try:
            yield
        finally:
            self._write(after)

    def _read(self) -> tuple[Tensor, Tensor | None]:
        # Nothing is computed on the meta device, and so nothing is drawn there.
        other = None if self.device.type in ("cpu", "meta") else torch.get_device_module(self.device).get_rng_state(self.device)
        return torch.get_rng_state(), other

    def _write(self, state: tuple[Tensor, Tensor | None]) -> None:
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.get_device_module(self.device).set_rng_state(state[1], self.device)


@contextmanager
def held_buffers(model: nn.Module) -> Iterator[None]:
    """Lets a pass through the model leave no trace in its buffers, batch-norm statistics above all.

    The buffers are copied before and written back after. No module is switched to another mode, so that two nested
    uses do no harm, ``momentum=None`` is served as well, and a compiled model keeps one graph.

    Args:
        model: any module; its parameters are left alone.

    Source:
        Ours; that statistics belong to the pass at w is the convention of Foret et al. (2021).

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
    groups = _by_kind([buffer for _, _, buffer in places if _can_be_written(buffer)])
    with torch.no_grad():
        copies = [[torch.empty_like(buffer) for buffer in group] for group in groups]
        for copy, group in zip(copies, groups, strict=True):
            torch._foreach_copy_(copy, group)
    try:
        yield
    finally:
        with torch.no_grad():
            for copy, group in zip(copies, groups, strict=True):
                torch._foreach_copy_(group, copy)
        for module, name, buffer in places:
            module._buffers[name] = buffer


def _can_be_written(buffer: Tensor) -> bool:
    """Not an expanded buffer, whose entries share memory, nor one made in inference mode: no pass changes those either."""
    if buffer.is_inference() and not torch.is_inference_mode_enabled():
        return False
    return buffer.layout != torch.strided or all(s or n < 2 for s, n in zip(buffer.stride(), buffer.shape, strict=True))


def _by_kind(tensors: list[Tensor]) -> list[list[Tensor]]:
    """Tensors of one type and device together: such a group is copied at one go."""
    groups: dict[tuple, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    return list(groups.values())


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside a ``DistributedDataParallel``, ``DataParallel`` or compiled one."""
    while True:
        inside = getattr(model, "_orig_mod", None)
        if inside is None and isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            inside = model.module
        if inside is None:
            return model
        model = inside


def distributed(model: nn.Module) -> nn.Module | None:
    """The ``DistributedDataParallel`` that a model is, or that was compiled; ``None`` without one."""
    while getattr(model, "_orig_mod", None) is not None:
        model = model._orig_mod
    return model if isinstance(model, nn.parallel.DistributedDataParallel) else None


def is_replayed(model: nn.Module) -> bool:
    """Whether what a pass returns may live in the memory of a CUDA graph, which the next pass writes over."""
    first = next(model.parameters(), None)
    if first is None or not first.is_cuda:
        return False
    return any("_orig_mod" in module._modules or module._compiled_call_impl is not None for module in model.modules())


class Statistics:
    r"""The running statistics of batch norm before a step, to mend them if its numbers were not finite.

    Args:
        model: any module; the running statistics of batch and instance norm are copied.

    Source:
        Ours: one bad batch must not ruin a model for evaluation.

    Example:
        >>> norm = nn.BatchNorm1d(1)
        >>> before = Statistics(norm)
        >>> _ = norm(torch.tensor([[1.0], [torch.nan]]))
        >>> before.mend()
        >>> norm.running_mean
        tensor([0.])
    """

    def __init__(self, model: nn.Module):
        self._buffers = [b for layer in _norm_layers(model) for b in layer._buffers.values() if b is not None]
        self._before = [torch.empty_like(buffer) for buffer in self._buffers]
        for group, copy in zip(_by_kind(self._buffers), _by_kind(self._before), strict=True):
            torch._foreach_copy_(copy, group)

    def mend(self) -> None:
        """Writes all of them back if any has become infinite or NaN; otherwise they count, as after any pass."""
        if all(torch.isfinite(buffer).all() for buffer in self._buffers):
            return
        with torch.no_grad():
            for buffer, value in zip(self._buffers, self._before, strict=True):
                buffer.copy_(value)


def _norm_layers(model: nn.Module) -> list[nn.Module]:
    layers = _checks.module("model", model).modules()
    return [module for module in layers if isinstance(module, nn.modules.batchnorm._NormBase)]


class SharedStatistics:
    r"""Lets batch norm count one step where a batch goes through the model in parts.

    .. math:: \mu \leftarrow \sum_k \frac{n_k}{n}\,\mu_k, \qquad \mu_k = \text{what part } k \text{ alone would make of } \mu

    Every part finds the running statistics as they were before the step; at the end they are the mean of what the
    parts made of them. The running mean is then exactly that of the whole batch, the running variance the mean of
    the variances within the parts.

    Args:
        model: any module; only the running statistics of batch and instance norm are treated so.

    Source:
        Ours.

    Example:
        >>> norm, x = nn.BatchNorm1d(1, momentum=1.0), torch.tensor([[0.0], [2.0], [4.0], [6.0]])
        >>> statistics = SharedStatistics(norm)
        >>> for part in x.split(2):
        ...     with statistics.part(share=0.5):
        ...         _ = norm(part)
        >>> statistics.settle()
        >>> norm.running_mean, norm.num_batches_tracked
        (tensor([3.]), tensor(1))
    """

    def __init__(self, model: nn.Module):
        self._buffers = [b for layer in _norm_layers(model) for b in layer._buffers.values() if b is not None]
        self._before = [buffer.clone() for buffer in self._buffers]
        self._sum = [torch.zeros_like(buffer) for buffer in self._buffers]

    @contextmanager
    def part(self, share: float) -> Iterator[None]:
        """Around the pass of one part; ``share`` is its part of the samples."""
        with torch.no_grad():
            self._write(self._before)
        yield
        with torch.no_grad():
            for total, buffer in zip(self._sum, self._buffers, strict=True):
                total.add_(buffer, alpha=share) if buffer.is_floating_point() else total.copy_(buffer)

    def settle(self) -> None:
        """Writes the means; call it after the last part."""
        with torch.no_grad():
            self._write(self._sum)

    def _write(self, values: list[Tensor]) -> None:
        for buffer, value in zip(self._buffers, values, strict=True):
            buffer.copy_(value)
