"""MNIST and its kin: four idx files, packed or not.

torchvision reads unpacked files alone, by functions that it does not document and that end in an ``assert`` where a file is broken.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from . import fetched
from .images import DataError, Images


def read(name: str, root: Path) -> Images:
    """The four idx files, in the order of torchvision's list: training images and classes, test images and classes."""
    sums, classes = fetched.checksums(name, root), len(fetched.kind_of(name).classes)
    train, train_targets, test, test_targets = (_idx(name, root, path, md5) for path, md5 in sums.items())
    counts = [len(part) for part in (train, train_targets, test, test_targets)]
    if counts[0] != counts[1] or counts[2] != counts[3]:
        raise DataError(
            f"data {name!r} in {root} has {counts[0]} training and {counts[2]} test images, but the classes of "
            f"{counts[1]} and {counts[3]}"
        )
    largest = max(int(train_targets.max()), int(test_targets.max()))
    if largest >= classes:
        raise DataError(f"data {name!r} in {root} has classes 0 .. {classes - 1}, but a label {largest}")
    return Images(classes, train.unsqueeze(1), train_targets.long(), test.unsqueeze(1), test_targets.long())


def _idx(name: str, root: Path, path: Path, md5: str | None) -> Tensor:
    """Bytes behind a header: two zeros, the type, the number of dimensions, and each size in four bytes."""
    if not fetched.is_whole(path, md5):
        raise fetched.corrupt(name, root, path, "its MD5 sum is not that of the original")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        dimensions = 3 if "idx3" in path.name else 1
        head, *shape = struct.unpack_from(f">{1 + dimensions}I", raw)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise fetched.corrupt(name, root, path, error) from None
    start = 4 * (1 + dimensions)
    if head != 0x800 + dimensions or len(raw) - start != math.prod(shape) or len(raw) == start:
        raise fetched.corrupt(name, root, path, f"its header promises {shape}, behind it are {len(raw) - start} bytes")
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=start).reshape(shape)
