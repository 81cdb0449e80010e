"""Files of arrays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ... import _checks
from .images import ROOT, DataError, Images

if TYPE_CHECKING:
    import numpy

PREFIX = "file:"
ARRAYS = ("images", "labels", "test_images", "test_labels")  # of a file; others in it are left alone


def path_of(name: str, root: Path) -> Path:
    """The file of a task; a ``DataError`` that says what must be in it if it is not there."""
    path = root / f"{name.removeprefix(PREFIX)}.npz"
    if not path.is_file():
        raise DataError(
            f"data {name!r} is not there: no file {path}. Needed are arrays `images` (uint8, n x height x width, or with 1 or 3 "
            f"channels after n) and `labels` in it, and `test_images` and `test_labels` where the test split is given ({ROOT})"
        )
    return path


def read(name: str, root: Path) -> Images:
    """The arrays of a file. Where it has no test split, half of the images, drawn with seed 0, are one."""
    numpy = _checks.needs("numpy", extra="train")
    path = path_of(name, root)
    try:
        with numpy.load(path, allow_pickle=False) as stored:
            found = {part: _native(stored[part]) for part in ARRAYS if part in stored.files}
    except Exception as error:  # no archive, a truncated one, or one of pickled objects
        raise DataError(f"data {name!r}: {path} cannot be read as arrays ({type(error).__name__}: {error})") from None
    images, labels = _labelled(path, found, *ARRAYS[:2])
    if "test_images" in found or "test_labels" in found:
        test, test_labels = _labelled(path, found, *ARRAYS[2:])
        if test.shape[1:] != images.shape[1:]:
            raise DataError(f"{path}: images have shape {tuple(images.shape[1:])} and test_images {tuple(test.shape[1:])}; they must agree")
        return Images(_classes(path, torch.cat([labels, test_labels])), images, labels, test, test_labels)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, test = order[: len(images) - len(images) // 2], order[len(images) - len(images) // 2 :]
    return Images(_classes(path, labels), images[train], labels[train], images[test], labels[test])


def _native(array: numpy.ndarray) -> Tensor:
    """Whole numbers in a form that torch can compare; other kinds as they are, to be refused by name."""
    if array.dtype.kind in "ui" and array.dtype != "uint8":
        array = array.astype("int64")
    return torch.from_numpy(array)


def _classes(path: Path, labels: Tensor) -> int:
    """One more than the largest label; every class must be there."""
    there = labels.unique()
    if len(there) < 2 or int(there[-1]) != len(there) - 1:
        raise DataError(f"{path}: labels must be 0 .. K - 1 with at least two classes, each of them there; they run to {int(there[-1])}, {len(there)} of them")
    return len(there)


def _labelled(path: Path, found: dict[str, Tensor], images: str, labels: str) -> tuple[Tensor, Tensor]:
    for part in (images, labels):
        if part not in found:
            raise DataError(f"{path} holds no array {part!r}; it holds {', '.join(found) or 'nothing'}")
    pixels, classes = found[images], found[labels]
    pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or pixels.numel() == 0:
        got = f"{found[images].dtype} {tuple(found[images].shape)}"
        raise DataError(f"{path}: {images} must be uint8 of shape (n, height, width) or (n, 1 or 3, height, width), got {got}")
    if classes.shape != (len(pixels),) or classes.is_floating_point() or classes.is_complex() or int(classes.min()) < 0:
        got = f"{classes.dtype} {tuple(classes.shape)}"
        raise DataError(f"{path}: {labels} must be {len(pixels)} whole numbers from 0, one an image; got {got}")
    return pixels.contiguous(), classes.long()
