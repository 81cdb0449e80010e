"""A classification task: samples with their classes, in three splits, and how images are scaled."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from ... import _checks

__all__ = ["Data", "Split"]


@dataclass(frozen=True)
class Split:
    """Samples and their classes.

    Args:
        inputs: shape ``(n, channels, height, width)``; uint8 images, or floats that a network can take as they are.
        targets: shape ``(n,)``, whole numbers.

    Raises:
        TypeError, ValueError: no tensors, no samples, or not one class number a sample.

    Example:
        >>> len(Split(torch.zeros(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64)))
        5
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self):
        _checks.part("inputs", self.inputs, Tensor, "a tensor of samples")
        if self.inputs.ndim == 0:
            raise ValueError("inputs must have shape (n, ...), one row a sample; got ()")
        _checks.labels(self.targets, len(self.inputs), samples="inputs")

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str) -> Split:
        """The same samples on a device."""
        return Split(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Data:
    r"""A classification task with its three splits; the test split chooses nothing.

    .. math:: \tilde x_c = \frac{x_c / 255 - \text{mean}_c}{\text{std}_c} \quad \text{for channel } c

    Args:
        name: what it is called in runs and records.
        classes: number of classes.
        train, validation, test: what is trained on, what chooses the epoch, and what is reported.
        mean, std: for uint8 images, of each channel over the training images, scaled to [0, 1].

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

    def __post_init__(self):
        _checks.line("name", self.name)
        _checks.keep(self, _checks.whole, "classes")
        for name in ("train", "validation", "test"):
            split = _checks.part(name, getattr(self, name), Split, "a bisam.training.data.Split")
            _checks.in_range(split.targets, self.classes, f"targets of {name}, with classes = {self.classes},")
        _checks.keep(self, _checks.optional, "mean", "std", of=_checks.each, each_of=_checks.real)
        if self.train.inputs.dtype != torch.uint8:
            return
        channels = self.shape[0]
        if len(self.mean or ()) != channels or len(self.std or ()) != channels or min(self.std) <= 0:
            raise ValueError(
                f"mean and std must hold a number for each of the {channels} channels of uint8 images, std above 0; "
                f"got {_checks.shown(self.mean)} and {_checks.shown(self.std)}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.train.inputs.shape[1:])

    @functools.cached_property
    def fingerprint(self) -> str:
        """The first 16 digits of a SHA-256 over all samples, classes, their division into splits and their scaling, computed once."""
        _checks.needs("numpy", extra="train")
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            digest.update(split.inputs.contiguous().numpy())
            digest.update(split.targets.contiguous().numpy())
        if self.mean is not None:
            digest.update(repr((self.mean, self.std)).encode())
        return digest.hexdigest()[:16]

    def prepared(self, inputs: Tensor) -> Tensor:
        """The inputs as a network takes them: uint8 images are scaled to float32 on the same device, floats are returned as they are.

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
