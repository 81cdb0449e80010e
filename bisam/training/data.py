r"""Data: splits that a seed fixes, images scaled by their mean and deviation, and labels that are wrong on purpose.

.. math:: \tilde x = \frac{x / 255 - \text{mean}}{\text{std}}, \qquad
    \tilde y_i = \begin{cases} \text{a class drawn uniformly} & \text{for a share } r \text{ of the samples} \\
    y_i & \text{otherwise} \end{cases}
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .. import _checks
from ..training import images as _images
from ..training import own_code
from .images import DataError

__all__ = ["DATA", "READINGS", "Data", "DataError", "Split", "check_name", "digits", "load", "pooled", "symmetric_noise"]

READINGS = ("other", "any")


@dataclass(frozen=True)
class Split:
    """Samples and their classes.

    Args:
        inputs: shape ``(n, channels, height, width)``; uint8 images, or floats that a network can take as they are.
        targets: shape ``(n,)``, whole numbers.

    Raises:
        TypeError, ValueError: no tensors, no samples, or not one class number a sample.

    Source:
        Ours.

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
        train: what is trained on.
        validation: what chooses the epoch.
        test: what is reported.
        mean: for uint8 images, the mean of each channel over the training images, scaled to [0, 1].
        std: for uint8 images, the standard deviation of each channel in the same units.

    Raises:
        TypeError, ValueError: a field of the wrong type; uint8 images without one mean and one positive deviation a channel.

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
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self):
        _checks.line("name", self.name)
        _checks.keep(self, _checks.whole, "classes")
        for name in ("train", "validation", "test"):
            split = _checks.part(name, getattr(self, name), Split, "a bisam.training.data.Split")
            _checks.in_range(split.targets, self.classes, f"targets of {name}, with classes = {self.classes},")
        _checks.keep(self, _channels, "mean", "std")
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
        """The first 16 digits of a SHA-256 over all samples, classes, their division into splits and their scaling.

        It is computed once an object.
        """
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            digest.update(split.inputs.contiguous().numpy())
            digest.update(split.targets.contiguous().numpy())
        if self.mean is not None:
            digest.update(repr((self.mean, self.std)).encode())
        return digest.hexdigest()[:16]

    def prepared(self, inputs: Tensor) -> Tensor:
        """The inputs as a network takes them: uint8 images are scaled, floats are returned as they are.

        Args:
            inputs: samples of this task, shape ``(n, channels, height, width)``, on any device.

        Returns:
            Float32 of the same shape on the same device, or the very floats that were given.

        Raises:
            TypeError: inputs that are neither uint8 nor floats, or uint8 images for a task without mean and std.
            ValueError: uint8 images of another number of channels.

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
            raise ValueError(
                f"inputs must have shape (n, {channels}, height, width), the channels of data {self.name!r}; "
                f"got {tuple(inputs.shape)}"
            )
        mean, std = _scaling(self.mean, self.std, inputs.device)
        return inputs.to(torch.float32).div_(255).sub_(mean).div_(std)


def _channels(name: str, value: object) -> tuple[float, ...] | None:
    """A number for each channel, or ``None``."""
    return _checks.optional(name, value, of=_checks.each, each_of=_checks.real)


@functools.lru_cache(maxsize=32)
def _scaling(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, ...]:
    """Mean and deviation on a device, made once: copying them there in every step would stop the device."""
    return tuple(torch.tensor(each, dtype=torch.float32, device=device).view(-1, 1, 1) for each in (mean, std))


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


@functools.lru_cache(maxsize=2)
def _cut(
    name: str, root: Path, stamp: str, train_images: int | None, test_images: int | None, split_seed: int, pool: int
) -> Data:
    """The task; the last two are kept while the stamp of their files stays the same."""
    images = _images.read(name, root, stamp)
    images = images._replace(train=pooled(images.train, pool), test=pooled(images.test, pool))
    train_images = _at_most("train_images", train_images, len(images.train))
    test_images = _at_most("test_images", test_images, len(images.test))
    if train_images < 10:
        raise DataError(f"data {name!r} in {root} has {train_images} training images; at least 10 are needed")
    order = torch.randperm(len(images.train), generator=torch.Generator().manual_seed(split_seed))[:train_images]
    train, validation = order.split([train_images - train_images // 10, train_images // 10])
    test = torch.arange(test_images)
    if test_images < len(images.test):
        test = torch.randperm(len(images.test), generator=torch.Generator().manual_seed(0))[:test_images]
    splits = [Split(images.train[index], images.train_targets[index]) for index in (train, validation)]
    mean, std = _statistics(splits[0].inputs)
    return Data(name, images.classes, *splits, Split(images.test[test], images.test_targets[test]), mean, std)


def pooled(images: Tensor, pool: int) -> Tensor:
    r"""Smaller images: each pixel is the mean of a square of pixels, rounded, halves up.

    .. math:: \tilde x_{ij} = \Big\lfloor \frac{1}{s^2} \sum_{a, b < s} x_{s i + a,\, s j + b} + \frac12 \Big\rfloor

    Args:
        images: uint8, shape ``(n, channels, height, width)``.
        pool: side of the squares, s; 1 leaves the images as they are.

    Returns:
        uint8, shape ``(n, channels, height / s, width / s)``.

    Raises:
        TypeError, ValueError: something else than such images; a side that does not divide their height and width.

    Source:
        Ours.

    Example:
        >>> pooled(torch.tensor([[[[0, 1], [2, 3]]]], dtype=torch.uint8), 2)
        tensor([[[[2]]]], dtype=torch.uint8)
    """
    _checks.part("images", images, Tensor, "a tensor of images")
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(f"images must be uint8 of shape (n, channels, height, width), got {images.dtype} {tuple(images.shape)}")
    if (pool := _checks.whole("pool", pool)) == 1:
        return images
    n, channels, height, width = images.shape
    if height % pool or width % pool:
        raise ValueError(f"pool must divide the height and the width of the images, {height} and {width}; got {pool}")
    sums = images.reshape(n, channels, height // pool, pool, width // pool, pool).sum((3, 5), dtype=torch.int32)
    return sums.add_(pool**2 // 2).div_(pool**2, rounding_mode="floor").to(torch.uint8)


def _at_most(name: str, value: int | None, there: int) -> int:
    if value is not None and value > there:
        raise ValueError(f"{name} must be at most {there}, the images there are; got {value}")
    return there if value is None else value


def _statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in [0, 1], from exact sums of whole numbers.

    A channel with one value everywhere gets deviation 1, so that it becomes 0 and not 0 / 0.
    """
    means, deviations = [], []
    for channel in images.unbind(1):
        counts = torch.bincount(channel.reshape(-1), minlength=256).tolist()
        n, total = sum(counts), sum(value * count for value, count in enumerate(counts))
        spread = n * sum(value**2 * count for value, count in enumerate(counts)) - total**2
        means.append(total / (255 * n))
        deviations.append(math.sqrt(spread) / (255 * n) if spread else 1.0)
    return tuple(means), tuple(deviations)


def _from_files(
    name: str,
    root: str | Path | None = None,
    train_images: int | None = None,
    test_images: int | None = None,
    split_seed: int = 0,
    pool: int = 1,
) -> Data:
    place = Path(root if root is not None else os.environ.get("BISAM_DATA") or "data").expanduser().absolute()
    return _cut(name, place, _images.stamp(name, place), train_images, test_images, split_seed, pool)


DATA = {"digits": digits} | {name: functools.partial(_from_files, name) for name in _images.FETCHED}


def check_name(name: object) -> str:
    """The name of a task, or an error that lists what is allowed; no file is looked at, and nothing is imported.

    Args:
        name: one of ``DATA``, ``"folder:NAME"``, ``"file:NAME"``, or the path of a function that returns a :class:`Data`,
            ``"package.module:function"``; an entry point of the group ``bisam.data`` becomes its path.

    Raises:
        ValueError: an unknown name; the message lists those that exist.

    Source:
        Ours.

    Example:
        >>> check_name("cifar10"), check_name("folder:flowers")
        ('cifar10', 'folder:flowers')
    """
    if isinstance(name, str) and re.fullmatch(rf"({_images.FOLDER}|{_images.FILE})\w[\w.-]*", name):
        return name
    if isinstance(name, str) and name in DATA:
        return name
    if (path := own_code.path_of("data", name)) is None:
        raise ValueError(
            f"data must be one of {', '.join([*DATA, *own_code.names('data')])}, folder:NAME or file:NAME, NAME of letters, digits, _, - and ., "
            f"or MODULE:FUNCTION; got {_checks.shown(name)}"
        )
    return path


def load(
    name: str,
    root: str | Path | None = None,
    train_images: int | None = None,
    test_images: int | None = None,
    split_seed: int = 0,
    pool: int = 1,
) -> Data:
    """The named task.

    ``"digits"`` is shipped and its split is fixed. The others are read from files and never fetched:
    ``"mnist"``, ``"fashion-mnist"``, ``"cifar10"`` and ``"cifar100"`` as torchvision stores them below the root;
    ``"file:NAME"`` from ``root/NAME.npz`` with the arrays ``images`` and ``labels`` (and ``test_images``, ``test_labels``;
    without them half of the images, drawn with seed 0, are the test split); and ``"folder:NAME"`` from
    ``root/NAME/train/CLASS/IMAGE`` and ``root/NAME/test/CLASS/IMAGE``. The images of a folder have one size, become red, green and blue, and are kept decoded
    in ``root/NAME.decoded.npz``, which is made again when the
    name, the size or the time of a file changes. (Decoders of JPEG may differ in the last bit of a pixel, so the same
    tree may get another fingerprint under another version of Pillow.)

    The training images are put in the order ``torch.randperm(n, generator=g)`` with ``g`` seeded by ``split_seed``; the
    first ``train_images`` of it are kept, and the last tenth of these (rounded down) is the validation split. The
    statistics that scale the images are those of the training split alone.

    The function at a path, ``"package.module:function"``, is called with those of the arguments that it takes, and returns a :class:`Data`, the same
    each time; what it returned last is kept.

    Args:
        name: one of ``DATA``, ``"folder:NAME"``, ``"file:NAME"``, or the path or entry point of a function.
        root: folder of the data; by default the environment variable ``BISAM_DATA``, else ``data``.
        train_images: how many of the training images to use, validation included, at least 10; by default all.
        test_images: how many of the test images to use, drawn in the same way with seed 0 whatever ``split_seed``
            is; by default all, in the order of the files.
        split_seed: which training images become the validation split.
        pool: side of the squares of pixels that are averaged, see :func:`bisam.training.data.pooled`; 1 leaves the images as they are.

    Raises:
        TypeError, ValueError: an unknown name (the message lists those that exist), a number out of range, or a choice
            of images for a task whose split is fixed.
        DataError: files are missing (the message says which, and how to fetch them), truncated or corrupt.

    Source:
        The 90/10 division and the scaling by training statistics are those of Xie et al. (2024), section 4.1 of the
        early version. Their public code draws the division once, with seed 42 of NumPy, and takes the statistics over
        both parts.

    Example:
        >>> load("digits").classes
        10
    """
    name = check_name(name)
    root = _checks.optional("root", root, of=_checks.path, words="the path of a folder")
    train_images = _checks.optional("train_images", train_images, of=_checks.whole, least=10)
    test_images = _checks.optional("test_images", test_images, of=_checks.whole)
    split_seed, pool = _checks.whole("split_seed", split_seed, least=0), _checks.whole("pool", pool)
    if name.startswith((_images.FOLDER, _images.FILE)) or name in _images.FETCHED:
        return _from_files(name, root, train_images, test_images, split_seed, pool)
    given = {"train_images": train_images, "test_images": test_images, "split_seed": split_seed or None, "pool": pool if pool > 1 else None}
    if name not in DATA:
        own = own_code.function("data", name)
        return _own(name, own, tuple(own_code.task_arguments(name, own, {"root": root, **given}).items()))
    for argument, value in given.items():
        if value is not None:
            raise ValueError(f"{argument} must be left out for data {name!r}, whose split is fixed; got {value}")
    return DATA[name]()


@functools.lru_cache(maxsize=2)
def _own(name: str, own: Callable[..., Data], arguments: tuple[tuple[str, object], ...]) -> Data:
    """Kept, so that a record has the fingerprint of the data that were trained on."""
    return _checks.part(f"what data {name!r} returns", own(**dict(arguments)), Data, "a bisam.training.data.Data")


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
    _checks.labels(targets)
    rate, classes = _checks.fraction("rate", rate), _checks.whole("classes", classes, least=2)
    seed = _checks.whole("seed", seed, least=0)
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
