"""Folders with one class each: the images as torchvision's ImageFolder reads them, decoded once; or such a tree in one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from ... import _checks
from . import archive
from .images import ROOT, DataError, Images, keep, kept

if TYPE_CHECKING:
    import numpy

PREFIX = "folder:"
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # those of torchvision


class Listed(NamedTuple):
    """One image file: where it is, its class, and what shows that it has changed."""

    path: str
    target: int
    size: int
    changed: int


def tree(name: str, root: Path) -> Path:
    """The folder of a tree of images, whose training and test images have the same classes; a ``DataError`` if not."""
    tree = root / name.removeprefix(PREFIX)
    for folder in (root, tree, tree / "train", tree / "test"):
        if not folder.is_dir():
            raise DataError(
                f"data {name!r} is not there: no folder {folder}. Needed are {tree}/train/CLASS/IMAGE and "
                f"{tree}/test/CLASS/IMAGE, with images that end in {', '.join(SUFFIXES)} ({ROOT})"
            )
    train, test = ({entry.name for entry in os.scandir(tree / part) if entry.is_dir()} for part in ("train", "test"))
    if len(train) < 2 or train != test:
        alone = ", ".join(sorted(train - test)) or "none", ", ".join(sorted(test - train)) or "none"
        raise DataError(
            f"data {name!r}: {tree}/train and {tree}/test must have the same folders, two classes at least; "
            f"only in train: {alone[0]}; only in test: {alone[1]}; in both: {len(train & test)}"
        )
    return tree


def listing(folder: Path) -> list[Listed]:
    """The images of a split in the order of torchvision's ImageFolder: by class, subfolder and name."""
    images = []
    for target, label in enumerate(sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())):
        found = [
            os.path.join(place, file)
            for place, _, files in sorted(os.walk(folder / label, followlinks=True))
            for file in sorted(files)
            if file.lower().endswith(SUFFIXES)
        ]
        if not found:
            raise DataError(f"{folder / label} holds no image that ends in {', '.join(SUFFIXES)}")
        try:
            stats = [os.stat(path) for path in found]
        except OSError as error:  # such as a link that leads nowhere
            raise DataError(f"image {error.filename} cannot be read ({error.strerror})") from None
        images += [Listed(path, target, s.st_size, s.st_mtime_ns) for path, s in zip(found, stats, strict=True)]
    return images


def stamped(name: str, root: Path) -> list[tuple]:
    """What shows that the files of a task have changed, a row a file."""
    if (packed := _archive_of(name, root)) is not None:
        status = packed.stat()
        return [(packed.name, status.st_size, status.st_mtime_ns)]
    top = tree(name, root)
    start = len(str(top))  # the same tree elsewhere is the same tree
    return [(file.path[start:], file.size, file.changed) for part in ("train", "test") for file in listing(top / part)]


def _archive_of(name: str, root: Path) -> Path | None:
    """The file that holds a tree of images, where there is no tree."""
    tree = root / name.removeprefix(PREFIX)
    path = archive.path_of(tree.name, root)
    return path if not tree.is_dir() and path.is_file() else None


def read(name: str, root: Path, key: str) -> Images:
    """All images of a tree, or of its archive; decoded only where none are kept under the key."""
    cache = root / f"{name.removeprefix(PREFIX)}.decoded.npz"
    images = kept(cache, key)
    if images is None:
        _checks.needs("PIL.Image", extra="train")
        packed = _archive_of(name, root)
        images = _from_tree(tree(name, root)) if packed is None else _from_archive(packed)
        keep(cache, key, images)
    return images


def _from_archive(path: Path) -> Images:
    try:
        found = archive.read(path)
        pixels, is_train = torch.from_numpy(archive.decoded(found)), torch.from_numpy(found.is_train)
    except Exception as error:  # numpy, zipfile and each decoder have their own words
        raise DataError(f"{path} is truncated or corrupt ({type(error).__name__}: {error}). Restore it") from None
    targets = torch.from_numpy(found.targets).long()
    return Images(int(targets[is_train].max()) + 1, pixels[is_train], targets[is_train], pixels[~is_train], targets[~is_train])


def pack(name: str, root: Path, there: Path) -> Path:
    """Puts a tree of images into one file, from which :func:`read` makes the same images; a ``DataError`` if the tree is not there."""
    top = tree(name, root)
    listed = [(file, part == "train") for part in ("train", "test") for file in listing(top / part)]
    path = archive.path_of(top.name, there)
    archive.write(path, [(Path(file.path).read_bytes(), file.target, is_train) for file, is_train in listed])
    return path


def _from_tree(top: Path) -> Images:
    train, test = listing(top / "train"), listing(top / "test")
    pixels, cut = torch.from_numpy(decode([file.path for file in (*train, *test)])), len(train)
    targets = [torch.tensor([file.target for file in part]) for part in (train, test)]
    return Images(int(targets[0].max()) + 1, pixels[:cut], targets[0], pixels[cut:], targets[1])


def decode(paths: list[str]) -> numpy.ndarray:
    """The images of files, uint8 of shape (n, 3, height, width); a ``DataError`` names one that is broken or of another size."""
    try:
        return archive.decode(paths, paths)
    except ValueError as error:
        raise DataError(f"{error}. Restore it or take it away") from None
