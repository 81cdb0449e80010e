"""A tree of images in one file: the bytes of each image as they are on the disk, one after the other, in a npz.

It is there for machines that the tree has to be carried to: sixty thousand files take a minute to copy, one takes a second.
"""

from __future__ import annotations

import io
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
    content = numpy.frombuffer(b"".join(raw for raw, _, _ in images), numpy.uint8)
    sizes, targets, is_train = zip(*((len(raw), target, train) for raw, target, train in images), strict=True)
    columns = numpy.array(sizes, "int32"), numpy.array(targets, "int16"), numpy.array(is_train, "bool")
    archive = Archive(content, *columns)
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
    ends = archive.sizes.cumsum(dtype=numpy.int64)
    starts = ends - archive.sizes
    first = pixels(archive.content[starts[0] : ends[0]].tobytes())
    images = numpy.empty((len(ends), *first.shape), dtype=numpy.uint8)

    def put(k: int) -> None:
        image = pixels(archive.content[starts[k] : ends[k]].tobytes())
        if image.shape != first.shape:
            raise ValueError(f"image {k} has {image.shape[1]} x {image.shape[2]} pixels and image 0 {first.shape[1]} x {first.shape[2]}")
        images[k] = image

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(put, range(len(ends))):
            pass
    return images


def pixels(source: str | bytes) -> numpy.ndarray:
    """Red, green and blue, shape (3, height, width), of a file or of its bytes."""
    numpy, image_module = (_checks.needs(package, extra="train") for package in ("numpy", "PIL.Image"))
    with image_module.open(source if isinstance(source, str) else io.BytesIO(source)) as image:
        return numpy.asarray(image.convert("RGB")).transpose(2, 0, 1)
