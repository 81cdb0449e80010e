"""What every kind of source makes of its files, what is said where it cannot, and decoded images that are kept beside their tree."""

from __future__ import annotations

import functools
import hashlib
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ... import _checks
from ... import _files as files

__all__ = ["ROOT", "DataError", "Images", "place"]

ROOT = "root is the argument of that name, else the environment variable BISAM_DATA, else ./data"


class DataError(RuntimeError):
    """Data that is not there, is incomplete or cannot be read; the message says where and what to do."""


def place(root: str | Path | None = None) -> Path:
    """The folder of the data sets: the root if it is given, else that of the environment variable ``BISAM_DATA``, else ``data``.

    Args:
        root: the path of a folder, which need not be there; ``~`` is the home.

    Raises:
        TypeError, ValueError: no path.

    Example:
        >>> place("/srv/sets").as_posix()
        '/srv/sets'
    """
    root = _checks.optional("root", root, of=_checks.path, words="the path of a folder")
    return Path(root if root is not None else os.environ.get("BISAM_DATA") or "data").expanduser().absolute()


class Images(NamedTuple):
    """Training and test images, uint8 of shape (n, channels, height, width), and their classes, int64.

    Example:
        >>> grey = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
        >>> Images(3, grey, torch.tensor([0, 2]), grey[:1], torch.tensor([1])).train.shape
        torch.Size([2, 1, 4, 4])
    """

    classes: int
    train: Tensor
    train_targets: Tensor
    test: Tensor
    test_targets: Tensor


def division(
    name: str, root: Path, there: int, tested: int, train_images: int | None, test_images: int | None, split_seed: int, kind: str = "images"
) -> tuple[Tensor, Tensor, Tensor]:
    """Places of the images, or the rows of texts, to train on, of those held back, a tenth, and of those of the test split that are reported on."""
    train_images, test_images = _at_most("train_images", train_images, there, kind), _at_most("test_images", test_images, tested, kind)
    if train_images < 10:
        raise DataError(f"data {name!r} in {root} has {train_images} training {kind}; at least 10 are needed")
    order = torch.randperm(there, generator=torch.Generator().manual_seed(split_seed))[:train_images]
    train, validation = order.split([train_images - train_images // 10, train_images // 10])
    if test_images == tested:
        return train, validation, torch.arange(tested)
    return train, validation, torch.randperm(tested, generator=torch.Generator().manual_seed(0))[:test_images]


def _at_most(name: str, value: int | None, there: int, kind: str) -> int:
    if value is not None and value > there:
        raise ValueError(f"{name} must be at most {there}, the {kind} there are; got {value}")
    return there if value is None else value


def stamp(files: Iterable[Path]) -> str:
    """A digest of names, sizes and times of files that are there."""
    digest = hashlib.sha256()
    for path in files:
        status = path.stat()
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, read again only where its size or time has changed."""
    return _digest(path, stamp([path]))


@functools.lru_cache(maxsize=8)
def _digest(path: Path, key: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def kept(path: Path, key: str) -> Images | None:
    """The decoded images, if they are those of this listing and every checksum in the file is right."""
    numpy = _checks.needs("numpy", extra="train")
    try:
        with open(path, "rb") as file, numpy.load(file, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            return Images(int(stored["classes"]), *(torch.from_numpy(stored[part]) for part in Images._fields[1:]))
    except Exception:  # not there, truncated, corrupt or another kind of file: all are mended by decoding again
        return None


def keep(path: Path, key: str, images: Images) -> None:
    """Replaces the file in one piece, so that two processes that decode at once both leave a whole one."""
    numpy = _checks.needs("numpy", extra="train")
    parts = {part: numpy.asarray(x) for part, x in images._asdict().items()}
    try:
        files.write_whole(path, lambda file: numpy.savez(file, key=numpy.array(key), **parts))
    except OSError as error:
        text = f"decoded images cannot be kept in {path} ({error.strerror}); the next process decodes them again"
        warnings.warn(text, stacklevel=2)
