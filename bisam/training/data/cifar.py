"""CIFAR: pickles, which torchvision reads."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from . import fetched
from .images import DataError, Images


def read(name: str, root: Path) -> Images:
    """Training and test images, in the order of their files."""
    kind = fetched.kind_of(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the files were pickled by a NumPy whose notation today's deprecates
            parts = [kind(root, train=train, download=False) for train in (True, False)]
    except Exception as error:  # pickle, zlib and torchvision each have their own words for a broken file
        raise _diagnosis(name, root, error) from None
    pixels = [torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous() for part in parts]
    targets = [torch.tensor(part.targets) for part in parts]
    return Images(len(parts[0].classes), pixels[0], targets[0], pixels[1], targets[1])


def _diagnosis(name: str, root: Path, error: Exception) -> DataError:
    """The first file whose checksum is wrong, or the error as it came."""
    fetched.there(name, root)
    for path, md5 in fetched.checksums(name, root).items():
        if not fetched.is_whole(path, md5):
            return fetched.corrupt(name, root, path, "its MD5 sum is not that of the original")
    return DataError(f"data {name!r} in {root} cannot be read ({type(error).__name__}: {error})")
