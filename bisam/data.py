r"""Data: fixed, stratified splits, and labels that are wrong on purpose.

.. math:: \tilde y_i = \begin{cases} \text{a class drawn uniformly} & \text{for a share } r \text{ of the samples} \\
    y_i & \text{otherwise} \end{cases}
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from . import _checks

__all__ = ["DATA", "READINGS", "Data", "Split", "digits", "load", "symmetric_noise"]

READINGS = ("other", "any")


@dataclass(frozen=True)
class Split:
    """Samples and their classes.

    Args:
        inputs: shape ``(n, channels, height, width)``.
        targets: shape ``(n,)``, whole numbers.

    Source:
        Ours.

    Example:
        >>> len(Split(torch.zeros(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64)))
        5
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str) -> Split:
        """The same samples on a device."""
        return Split(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Data:
    """A classification task with its three splits; the test split chooses nothing.

    Args:
        name: what it is called in runs and records.
        classes: number of classes.
        train: what is trained on.
        validation: what chooses the epoch.
        test: what is reported.

    Source:
        Ours.

    Example:
        >>> digits().fingerprint
        '28f2d7b2e458c832'
    """

    name: str
    classes: int
    train: Split
    validation: Split
    test: Split

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.train.inputs.shape[1:])

    @property
    def fingerprint(self) -> str:
        """The first 16 digits of a SHA-256 over all samples, classes and their division into splits."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            digest.update(split.inputs.contiguous().numpy().tobytes())
            digest.update(split.targets.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


@functools.cache
def digits() -> Data:
    """Scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 pixels in ten classes, shipped with the package.

    The split is the same in every run: 1,000 images to train on, 297 to choose the epoch by, 500 to report on, each
    with the classes in the proportions of the whole. Pixels are shifted and scaled to mean 0 and standard deviation 1
    over the training images.

    Returns:
        The task, inputs of shape ``(n, 1, 8, 8)`` in float32.

    Source:
        Alpaydin and Kaynak (1998), the test part of the UCI optical digits, as shipped by scikit-learn.

    Example:
        >>> task = digits()
        >>> len(task.train), len(task.validation), len(task.test), task.shape
        (1000, 297, 500, (1, 8, 8))
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, classes = load_digits(return_X_y=True)
    rest, test_x, rest_y, test_y = train_test_split(pixels, classes, test_size=500, random_state=0, stratify=classes)
    train_x, valid_x, train_y, valid_y = train_test_split(rest, rest_y, train_size=1000, random_state=0, stratify=rest_y)
    mean, std = train_x.mean(), train_x.std()

    def split(x, y):
        inputs = torch.tensor((x - mean) / std, dtype=torch.float32).reshape(-1, 1, 8, 8)
        return Split(inputs, torch.tensor(y, dtype=torch.int64))

    return Data("digits", 10, split(train_x, train_y), split(valid_x, valid_y), split(test_x, test_y))


DATA = {"digits": digits}


def load(name: str) -> Data:
    """The named task.

    Args:
        name: one of ``DATA``.

    Raises:
        ValueError: an unknown name; the message lists those that exist.

    Source:
        The function of that name in this module.

    Example:
        >>> load("digits").classes
        10
    """
    return DATA[_checks.choice("data", name, tuple(DATA))]()


def symmetric_noise(targets: Tensor, rate: float, classes: int, seed: int, reading: str = "other") -> Tensor:
    r"""Labels of which a share has been redrawn uniformly.

    Exactly ``round(rate * n)`` labels are redrawn. Published tables say "noise rate" for two different things: under
    ``"other"`` a redrawn label is always wrong; under ``"any"`` the true class is in the draw too, so that the share
    of wrong labels is :math:`r\,(K - 1) / K`.

    Args:
        targets: true classes, shape ``(n,)``, whole numbers.
        rate: share r of the labels to redraw, in [0, 1).
        classes: number of classes K, at least 2.
        seed: which labels and which classes; the same seed gives the same labels.
        reading: ``"other"`` draws among the K - 1 wrong classes, ``"any"`` among all K.

    Returns:
        New labels, shape ``(n,)``; the given ones are left alone.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range.

    Source:
        The "other" reading is that of Xie et al. (2024), appendix A.3 of the early version, as its text has it.

    Example:
        >>> clean = torch.zeros(10, dtype=torch.int64)
        >>> int((symmetric_noise(clean, 0.4, classes=10, seed=0) != clean).sum())
        4
    """
    _checks.labels(targets, len(targets))
    _checks.fraction("rate", rate)
    _checks.whole("classes", classes, least=2)
    _checks.whole("seed", seed, least=0)
    _checks.choice("reading", reading, READINGS)
    _checks.in_range(targets, classes)
    draw = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(targets), generator=draw)[: round(rate * len(targets))]
    noisy = targets.clone()
    if reading == "any":
        noisy[chosen] = torch.randint(0, classes, chosen.shape, generator=draw)
    else:
        noisy[chosen] = (targets[chosen] + torch.randint(1, classes, chosen.shape, generator=draw)) % classes
    return noisy
