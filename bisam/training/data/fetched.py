"""What torchvision fetches: where the files lie, whether they are whole, and what is in them.

CIFAR's pickles are read by torchvision. Of MNIST and its kin it reads unpacked idx files alone, by functions that it does not document and
that end in an ``assert`` where a file is broken.
"""

from __future__ import annotations

import gzip
import math
import struct
import warnings
import zlib
from pathlib import Path

import torch
from torch import Tensor

from ... import _checks
from .images import ROOT, DataError, Images

FETCHED = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}  # name: torchvision's
IDX = ("mnist", "fashion-mnist")  # which of them are four idx files


def kind_of(name: str) -> type:
    """The class of torchvision that fetches a task."""
    return getattr(_checks.needs("torchvision.datasets", extra="train"), FETCHED[name])


def checksums(name: str, root: Path) -> dict[Path, str | None]:
    """The files of a task and their MD5 sums as torchvision knows them; it knows none of unpacked idx files."""
    kind = kind_of(name)
    if name not in IDX:
        known = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
        return {root / kind.base_folder / file: md5 for file, md5 in known}
    folder, files = root / FETCHED[name] / "raw", {}
    for file, md5 in kind.resources:
        unpacked = folder / file.removesuffix(".gz")
        files |= {unpacked: None} if unpacked.is_file() or not (folder / file).is_file() else {folder / file: md5}
    return files


def there(name: str, root: Path) -> list[Path]:
    """The files of a task; a ``DataError`` that says how to fetch them if one is missing."""
    files = list(checksums(name, root))
    for path in files:
        if not path.is_file():
            raise DataError(f"data {name!r} is not there: no file {path} ({ROOT}). {_how_to_fetch(name, root)}")
    return files


def read(name: str, root: Path) -> Images:
    """Training and test images, in the order of their files."""
    return _read_idx(name, root) if name in IDX else _read_cifar(name, root)


def _read_cifar(name: str, root: Path) -> Images:
    kind = kind_of(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the files were pickled by a NumPy whose notation today's deprecates
            train, test = (kind(root, train=train, download=False) for train in (True, False))
    except Exception as error:  # pickle, zlib and torchvision each have their own words for a broken file
        there(name, root)
        for path, md5 in checksums(name, root).items():
            _check_sum(name, root, path, md5)
        raise DataError(f"data {name!r} in {root} cannot be read ({type(error).__name__}: {error})") from None
    pixels = [torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous() for part in (train, test)]
    return Images(len(train.classes), pixels[0], torch.tensor(train.targets), pixels[1], torch.tensor(test.targets))


def _read_idx(name: str, root: Path) -> Images:
    """The four files in the order of torchvision's list: training images and classes, test images and classes."""
    sums, classes = checksums(name, root), len(kind_of(name).classes)
    train, train_targets, test, test_targets = (_idx(name, root, path, md5) for path, md5 in sums.items())
    counts = [len(part) for part in (train, train_targets, test, test_targets)]
    if counts[0] != counts[1] or counts[2] != counts[3]:
        raise DataError(
            f"data {name!r} in {root} has {counts[0]} training and {counts[2]} test images, but the classes of {counts[1]} and {counts[3]}"
        )
    largest = max(int(train_targets.max()), int(test_targets.max()))
    if largest >= classes:
        raise DataError(f"data {name!r} in {root} has classes 0 .. {classes - 1}, but a label {largest}")
    return Images(classes, train.unsqueeze(1), train_targets.long(), test.unsqueeze(1), test_targets.long())


def _idx(name: str, root: Path, path: Path, md5: str | None) -> Tensor:
    """Bytes behind a header: two zeros, the type, the number of dimensions, and each size in four bytes."""
    _check_sum(name, root, path, md5)
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        dimensions = 3 if "idx3" in path.name else 1
        head, *shape = struct.unpack_from(f">{1 + dimensions}I", raw)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise _corrupt(name, root, path, error) from None
    start = 4 * (1 + dimensions)
    if head != 0x800 + dimensions or len(raw) - start != math.prod(shape) or len(raw) == start:
        raise _corrupt(name, root, path, f"its header promises {shape}, behind it are {len(raw) - start} bytes")
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=start).reshape(shape)


def _check_sum(name: str, root: Path, path: Path, md5: str | None) -> None:
    if not _checks.needs("torchvision.datasets.utils", extra="train").check_integrity(path, md5):
        raise _corrupt(name, root, path, "its MD5 sum is not that of the original") from None


def _corrupt(name: str, root: Path, path: Path, why: object) -> DataError:
    return DataError(f"data {name!r}: {path} is truncated or corrupt ({why}). Delete it. {_how_to_fetch(name, root)}")


def _how_to_fetch(name: str, root: Path) -> str:
    code = f"import torchvision; torchvision.datasets.{FETCHED[name]}({str(root)!r}, download=True)"
    return f'Fetch it with: python -c "{code}"'
