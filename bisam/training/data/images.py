"""What every kind of source makes of its files, what is said where it cannot, and decoded images that are kept beside their tree."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ... import _checks
from ... import _files as files

__all__ = ["ROOT", "DataError", "Images"]

ROOT = "root is the argument of that name, else the environment variable BISAM_DATA, else ./data"


class DataError(RuntimeError):
    """Data that is not there, is incomplete or cannot be read; the message says where and what to do."""


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
