"""A task: samples with their targets, in three splits, how images are scaled, and what is measured."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ... import _checks
from ...losses.rows import Task
from ...losses.targets import are_soft
from ...step.batch import CLASSES
from .. import scores

__all__ = ["Data", "Split"]


@dataclass(frozen=True)
class Split:
    """Samples and their targets.

    Args:
        inputs: shape ``(n, channels, height, width)``; uint8 images, or floats that a network can take as they are. Or a dictionary of tensors with n
            rows each, which a network takes by their names: tokens, masks.
        targets: class numbers, shape ``(n,)``; distributions over the classes, shape ``(n, K)``, floats; or a class number for each token,
            shape ``(n, L)``.

    Raises:
        TypeError, ValueError: no tensors, no samples, or not one target a sample.

    Example:
        >>> len(Split(torch.zeros(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64)))
        5
    """

    inputs: Tensor | dict[str, Tensor]
    targets: Tensor

    def __post_init__(self):
        for name, tensor in self.named().items():
            _checks.part(name, tensor, Tensor, "a tensor of samples")
            if tensor.ndim == 0:
                raise ValueError(f"{name} must have shape (n, ...), one row a sample; got ()")
        sizes = {name: len(tensor) for name, tensor in self.named().items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"inputs must hold tensors with as many rows each, got {sizes or 'none'}")
        if isinstance(self.targets, Tensor) and self.targets.ndim == 2 and len(self.targets) == next(iter(sizes.values())) > 0:
            return  # shares, or tokens: the task looks at them
        _checks.labels(self.targets, next(iter(sizes.values())), samples="inputs")

    def __len__(self) -> int:
        return len(self.targets)

    def named(self) -> dict[str, Tensor]:
        """The tensors of the inputs by what they are called in messages."""
        if isinstance(self.inputs, dict):
            return {f"inputs[{name!r}]": tensor for name, tensor in self.inputs.items()}
        return {"inputs": self.inputs}

    def map(self, change: Callable[[Tensor], Tensor]) -> Split:
        """The same samples with every tensor changed: moved to a device, or some of its rows."""
        inputs = {name: change(one) for name, one in self.inputs.items()} if isinstance(self.inputs, dict) else change(self.inputs)
        return Split(inputs, change(self.targets))

    def to(self, device: torch.device | str) -> Split:
        """The same samples on a device."""
        return self.map(lambda tensor: tensor.to(device))


@dataclass(frozen=True)
class Data:
    r"""A task with its three splits; the test split chooses nothing.

    .. math:: \tilde x_c = \frac{x_c / 255 - \text{mean}_c}{\text{std}_c} \quad \text{for channel } c

    Args:
        name: what it is called in runs and records.
        classes: number of classes.
        train, validation, test: what is trained on, what chooses the epoch, and what is reported.
        mean, std: for uint8 images, of each channel over the training images, scaled to [0, 1].
        task: what the logits of a network mean for the targets, such as :class:`~bisam.losses.task.Multiclass`.
        metrics: what is measured on validation and test split, names of ``bisam.training.scores.METRICS``; ``"accuracy"`` first.

    Raises:
        TypeError, ValueError: a field of the wrong type; uint8 images without one mean and one positive deviation a channel.

    Example:
        >>> split = Split(torch.eye(2), torch.tensor([0, 1]))
        >>> Data("two", 2, split, split, split).shape
        (2,)
    """

    name: str
    classes: int
    train: Split
    validation: Split
    test: Split
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    task: Task = CLASSES
    metrics: tuple[str, ...] = ("accuracy",)

    def __post_init__(self):
        _checks.line("name", self.name)
        _checks.keep(self, _checks.whole, "classes")
        _checks.protocol("task", self.task, Task, "a task such as bisam.Multiclass()")
        if self.task == CLASSES:
            object.__setattr__(self, "task", CLASSES)  # a batch knows the plain task by this object
        object.__setattr__(self, "metrics", scores.checked("metrics", self.metrics))
        for name in ("train", "validation", "test"):
            self._check_targets(name, _checks.part(name, getattr(self, name), Split, "a bisam.training.data.Split").targets)
        _checks.keep(self, _checks.optional, "mean", "std", of=_checks.each, each_of=_checks.real)
        if isinstance(self.train.inputs, dict) or self.train.inputs.dtype != torch.uint8:
            return
        channels = self.shape[0]
        if len(self.mean or ()) != channels or len(self.std or ()) != channels or min(self.std) <= 0:
            raise ValueError(
                f"mean and std must hold a number for each of the {channels} channels of uint8 images, std above 0; "
                f"got {_checks.shown(self.mean)} and {_checks.shown(self.std)}"
            )

    def _check_targets(self, name: str, targets: Tensor) -> None:
        self.task.check(targets)
        said = f"targets of {name}, with classes = {self.classes},"
        if not are_soft(targets):
            ignored = getattr(self.task, "ignore_index", None)
            counted = targets if ignored is None else targets[targets != ignored]
            if not counted.numel():
                raise ValueError(f"{said} must hold one that counts, got only {ignored}")
            _checks.in_range(counted, self.classes, said)
        elif targets.ndim == 2 and targets.shape[1] != self.classes:
            raise ValueError(f"{said} must have shape (n, {self.classes}), a share for each class; got {tuple(targets.shape)}")

    @property
    def shape(self) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
        """The shape of one sample; of a dictionary of tensors that of each."""
        if isinstance(self.train.inputs, dict):
            return {name: tuple(one.shape[1:]) for name, one in self.train.inputs.items()}
        return tuple(self.train.inputs.shape[1:])

    @property
    def is_plain(self) -> bool:
        """Whether a sample is one tensor with one class."""
        return not isinstance(self.train.inputs, dict) and self.task is CLASSES and self.train.targets.ndim == 1

    def picked(self, split: Split, index: Tensor | slice) -> tuple[Tensor | dict[str, Tensor], Tensor]:
        """The inputs and targets of some samples of a split; a task of texts leaves out here what is padding in all of them.

        Example:
            >>> split = Split(torch.eye(3), torch.tensor([0, 1, 2]))
            >>> Data("three", 3, split, split, split).picked(split, torch.tensor([2]))[1]
            tensor([2])
        """
        found = split.map(lambda tensor: tensor[index])
        return found.inputs, found.targets

    def measured(self, model: nn.Module, split: Split, logits: Tensor | None) -> dict[str, float]:
        """What is measured of a network on a split beside the accuracy, by the names of ``metrics``, in percent.

        Args:
            model: the network, in evaluation mode, for what its logits do not say.
            split: the samples, on the device of the network.
            logits: of all samples on the CPU, shape ``(n, K)``; ``None`` where a sample has several rows.

        Example:
            >>> split = Split(torch.eye(2), torch.tensor([0, 1]))
            >>> Data("two", 2, split, split, split, metrics=("accuracy", "f1")).measured(nn.Flatten(), split, torch.eye(2))
            {'f1': 100.0}
        """
        targets = split.targets.cpu()
        return {name: scores.score(name, logits, targets) for name in self.metrics[1:]}

    @functools.cached_property
    def fingerprint(self) -> str:
        """The first 16 digits of a SHA-256 over all samples, classes, their division into splits and their scaling, computed once."""
        _checks.needs("numpy", extra="train")
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            for name, tensor in split.named().items():
                digest.update(b"" if name == "inputs" else name.encode())
                digest.update(tensor.contiguous().numpy())
            digest.update(split.targets.contiguous().numpy())
        if self.mean is not None:
            digest.update(repr((self.mean, self.std)).encode())
        if self.task is not CLASSES:
            digest.update(repr(self.task).encode())
        return digest.hexdigest()[:16]

    def prepared(self, inputs: Tensor | dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
        """The inputs as a network takes them: uint8 images are scaled to float32 on the same device, floats and dictionaries are returned as they are.

        Args:
            inputs: samples of this task, shape ``(n, channels, height, width)``, on any device.

        Raises:
            TypeError, ValueError: neither uint8 nor floats; uint8 images for a task without mean and std, or of other channels.

        Source:
            The order of the operations is that of torchvision's ``ToTensor`` and ``Normalize``, on the CPU to the bit.

        Example:
            >>> white = torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)
            >>> split = Split(white, torch.tensor([0]))
            >>> Data("white", 2, split, split, split, mean=(0.5,), std=(0.25,)).prepared(white).unique()
            tensor([2.])
        """
        if isinstance(inputs, dict):
            return inputs
        if not isinstance(inputs, Tensor) or not (inputs.dtype == torch.uint8 or inputs.is_floating_point()):
            kind = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
            raise TypeError(f"inputs must be a tensor of uint8 or of floats, got {kind}")
        if inputs.is_floating_point():
            return inputs
        if self.mean is None:
            raise TypeError(f"inputs must be floats: data {self.name!r} has no mean and std to scale uint8 images with")
        channels = len(self.mean)
        if inputs.ndim != 4 or inputs.shape[1] != channels:
            wanted = f"(n, {channels}, height, width), the channels of data {self.name!r}"
            raise ValueError(f"inputs must have shape {wanted}; got {tuple(inputs.shape)}")
        mean, std = _scaling(self.mean, self.std, inputs.device)
        return inputs.to(torch.float32).div_(255).sub_(mean).div_(std)


@functools.lru_cache(maxsize=32)
def _scaling(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, ...]:
    """Mean and deviation on a device, made once: copying them there in every step would stop the device."""
    return tuple(torch.tensor(each, dtype=torch.float32, device=device).view(-1, 1, 1) for each in (mean, std))
