"""A tree of images in one file, a npz: the bytes of each image as they are on the disk, one after the other.

It is there for machines that the tree has to be carried to: sixty thousand files take a minute to copy, one takes a second.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ... import _checks
from ... import _files as files

if TYPE_CHECKING:
    import numpy

SUFFIX = ".packed.npz"
FORM = "packed images, form 1"
THREADS = 8  # decoders let go of Python's lock


class Archive(NamedTuple):
    """What the file holds: all bytes, and of each image how many, its class, and whether it is one to train on."""

    content: numpy.ndarray
    sizes: numpy.ndarray
    targets: numpy.ndarray
    is_train: numpy.ndarray


def path_of(name: str, root: Path) -> Path:
    """Where the archive of a tree is, if there is one."""
    return root / f"{name}{SUFFIX}"


def write(path: Path, images: list[tuple[bytes, int, bool]]) -> None:
    """Writes images, given as bytes, class and whether they are to be trained on, in their order."""
    numpy = _checks.needs("numpy", extra="train")
    contents, targets, is_train = zip(*images, strict=True)
    sizes = numpy.array([len(raw) for raw in contents], "int32")
    content = numpy.frombuffer(b"".join(contents), numpy.uint8)
    archive = Archive(content, sizes, numpy.array(targets, "int16"), numpy.array(is_train, "bool"))
    # Two thirds of a JPEG of a small image are its tables, which all of them share: compressed, the file is a third as large.
    files.write_whole(path, lambda file: numpy.savez_compressed(file, form=numpy.array(FORM), **archive._asdict()))


def read(path: Path) -> Archive:
    """The archive; a ``ValueError``, ``KeyError`` or ``OSError`` where the file is none. The checksums of npz are looked at."""
    numpy = _checks.needs("numpy", extra="train")
    with open(path, "rb") as file, numpy.load(file, allow_pickle=False) as stored:
        if str(stored["form"]) != FORM:
            raise ValueError(f"its form is {stored['form']}")
        archive = Archive(*(stored[name] for name in Archive._fields))
    counts = {len(archive.sizes), len(archive.targets), len(archive.is_train)}
    if len(counts) != 1 or archive.sizes.min(initial=0) < 0 or archive.sizes.sum(dtype=numpy.int64) != len(archive.content):
        raise ValueError("its parts do not fit together")
    return archive


def decoded(archive: Archive) -> numpy.ndarray:
    """All images, uint8 of shape (n, 3, height, width)."""
    numpy = _checks.needs("numpy", extra="train")
    parts = numpy.split(archive.content, archive.sizes.cumsum(dtype=numpy.int64)[:-1])
    return decode(parts, range(len(parts)))


def decode(sources: Sequence, names: Sequence) -> numpy.ndarray:
    """The images of files, or of their bytes; a ``ValueError`` names one that is broken or of another size."""
    numpy = _checks.needs("numpy", extra="train")
    first = _pixels(sources[0], names[0])
    images = numpy.empty((len(sources), *first.shape), dtype=numpy.uint8)

    def put(k: int) -> None:
        image = _pixels(sources[k], names[k])
        if image.shape != first.shape:
            sizes = [f"{height} x {width}" for _, height, width in (image.shape, first.shape)]
            raise ValueError(f"image {names[k]} has {sizes[0]} pixels and {names[0]} {sizes[1]}; all images must have one size")
        images[k] = image

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(put, range(len(sources))):
            pass
    return images


def _pixels(source: str | numpy.ndarray, name: object) -> numpy.ndarray:
    """Red, green and blue, shape (3, height, width); grey images three times the same, as torchvision's ImageFolder reads them."""
    numpy, image_module = (_checks.needs(package, extra="train") for package in ("numpy", "PIL.Image"))
    try:
        with image_module.open(source if isinstance(source, str) else io.BytesIO(source)) as image:
            return numpy.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except Exception as error:  # each format has its own words for a broken file
        raise ValueError(f"image {name} is truncated or corrupt ({type(error).__name__}: {error})") from None
