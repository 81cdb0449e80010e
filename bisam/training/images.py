"""Images on disk as tensors: the files that torchvision fetches, folders with one class each, decoded once, and files of arrays."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .. import _files as files
from ..training import archive as _archive

if TYPE_CHECKING:
    import numpy

FETCHED = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}  # name: torchvision's
IDX = ("mnist", "fashion-mnist")  # which of them are four idx files
FOLDER, FILE = "folder:", "file:"
ARRAYS = ("images", "labels", "test_images", "test_labels")  # of a file; others in it are left alone
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # those of torchvision
ROOT = "root is the argument of that name, else the environment variable BISAM_DATA, else ./data"
FORMAT = "decoded images, form 1"


class DataError(RuntimeError):
    """Data that is not there, is incomplete or cannot be read; the message says where and what to do."""


class Images(NamedTuple):
    """Training and test images, uint8 of shape (n, channels, height, width), and their classes, int64."""

    classes: int
    train: Tensor
    train_targets: Tensor
    test: Tensor
    test_targets: Tensor


class Listed(NamedTuple):
    """One image file: where it is, its class, and what shows that it has changed."""

    path: str
    target: int
    size: int
    changed: int


def stamp(name: str, root: Path) -> str:
    """A digest of the names, sizes and times of the files of a task, which changes when they do.

    Raises:
        DataError: a file or a folder is missing.
    """
    if (archive := _archive_of(name, root)) is not None:
        status = archive.stat()
        return _digest([(archive.name, status.st_size, status.st_mtime_ns)])
    if name.startswith(FOLDER):
        tree = _tree(name, root)
        listing = [*_listing(tree / "train"), *_listing(tree / "test")]
        start = len(str(tree))  # the same tree elsewhere is the same tree
        return _digest((file.path[start:], file.size, file.changed) for file in listing)
    there = [_arrays(name, root)] if name.startswith(FILE) else _fetched_files(name, root)
    found = ((path, path.stat()) for path in there)
    return _digest((str(path), status.st_size, status.st_mtime_ns) for path, status in found)


def read(name: str, root: Path, key: str) -> Images:
    """All images of a task; ``key`` is its stamp.

    Raises:
        DataError: a file is missing, truncated or corrupt; it is named.
    """
    if name.startswith(FOLDER):
        return _read_folder(name, root, key)
    if name.startswith(FILE):
        return _read_arrays(name, root)
    return _read_idx(name, root) if name in IDX else _read_cifar(name, root)


def _digest(rows) -> str:
    digest = hashlib.sha256(FORMAT.encode())
    for row in rows:
        digest.update("\0".join(map(str, row)).encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()


# What torchvision fetches


def _torchvision(name: str):
    from torchvision import datasets

    return getattr(datasets, FETCHED[name])


def _how_to_fetch(name: str, root: Path) -> str:
    code = f"import torchvision; torchvision.datasets.{FETCHED[name]}({str(root)!r}, download=True)"
    return f'Fetch it with: python -c "{code}"'


def _checksums(name: str, root: Path) -> dict[Path, str | None]:
    """The files of a task and their MD5 sums as torchvision knows them; it knows none of unpacked idx files."""
    kind = _torchvision(name)
    if name not in IDX:
        folder = root / kind.base_folder
        known = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
        return {folder / file: md5 for file, md5 in known}
    folder, files = root / FETCHED[name] / "raw", {}
    for file, md5 in kind.resources:
        unpacked = folder / file.removesuffix(".gz")
        files |= {unpacked: None} if unpacked.is_file() or not (folder / file).is_file() else {folder / file: md5}
    return files


def _fetched_files(name: str, root: Path) -> list[Path]:
    files = list(_checksums(name, root))
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise DataError(f"data {name!r} is not there: no file {missing[0]} ({ROOT}). {_how_to_fetch(name, root)}")
    return files


def _corrupt(name: str, root: Path, path: Path, why: object) -> DataError:
    return DataError(f"data {name!r}: {path} is truncated or corrupt ({why}). Delete it. {_how_to_fetch(name, root)}")


def _read_cifar(name: str, root: Path) -> Images:
    kind = _torchvision(name)
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
    from torchvision.datasets.utils import check_integrity

    _fetched_files(name, root)
    for path, md5 in _checksums(name, root).items():
        if not check_integrity(path, md5):
            return _corrupt(name, root, path, "its MD5 sum is not that of the original")
    return DataError(f"data {name!r} in {root} cannot be read ({type(error).__name__}: {error})")


def _read_idx(name: str, root: Path) -> Images:
    """The four idx files, in the order of torchvision's list: training images and classes, test images and classes."""
    sums, classes = _checksums(name, root), len(_torchvision(name).classes)
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
    from torchvision.datasets.utils import check_integrity

    if not check_integrity(path, md5):
        raise _corrupt(name, root, path, "its MD5 sum is not that of the original")
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


# Folders with one class each


def _tree(name: str, root: Path) -> Path:
    tree = root / name.removeprefix(FOLDER)
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


def _listing(folder: Path) -> list[Listed]:
    """The images of a split in the order of torchvision's ImageFolder: by class, subfolder and name."""
    listing = []
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
        listing += [Listed(path, target, s.st_size, s.st_mtime_ns) for path, s in zip(found, stats, strict=True)]
    return listing


def _archive_of(name: str, root: Path) -> Path | None:
    """The file that holds a tree of images, where there is no tree."""
    tree = root / name.removeprefix(FOLDER)
    path = _archive.path_of(tree.name, root)
    return path if name.startswith(FOLDER) and not tree.is_dir() and path.is_file() else None


def _read_folder(name: str, root: Path, key: str) -> Images:
    cache = root / f"{name.removeprefix(FOLDER)}.decoded.npz"
    images = _cached(cache, key)
    if images is None:
        archive = _archive_of(name, root)
        images = _from_tree(_tree(name, root)) if archive is None else _from_archive(archive)
        _keep(cache, key, images)
    return images


def _from_archive(path: Path) -> Images:
    try:
        archive = _archive.read(path)
        pixels, is_train = torch.from_numpy(_archive.decoded(archive)), torch.from_numpy(archive.is_train)
    except Exception as error:  # numpy, zipfile and each decoder have their own words
        raise DataError(f"{path} is truncated or corrupt ({type(error).__name__}: {error}). Restore it") from None
    targets = torch.from_numpy(archive.targets).long()
    return Images(int(targets[is_train].max()) + 1, pixels[is_train], targets[is_train], pixels[~is_train], targets[~is_train])


def pack(name: str, root: Path, there: Path) -> Path:
    """Puts a tree of images into one file, from which :func:`read` makes the same images where the tree is not.

    Raises:
        DataError: the tree is not there.
    """
    tree = _tree(name, root)
    listed = [(file, part == "train") for part in ("train", "test") for file in _listing(tree / part)]
    path = _archive.path_of(tree.name, there)
    _archive.write(path, [(Path(file.path).read_bytes(), file.target, is_train) for file, is_train in listed])
    return path


def _from_tree(tree: Path) -> Images:
    train, test = _listing(tree / "train"), _listing(tree / "test")
    pixels, cut = torch.from_numpy(_decoded([file.path for file in (*train, *test)])), len(train)
    targets = [torch.tensor([file.target for file in part]) for part in (train, test)]
    return Images(int(targets[0].max()) + 1, pixels[:cut], targets[0], pixels[cut:], targets[1])


def _decoded(paths: list[str]) -> numpy.ndarray:
    import numpy

    first = _pixels(paths[0])
    images = numpy.empty((len(paths), *first.shape), dtype=numpy.uint8)
    for k, path in enumerate(paths):
        image = _pixels(path)
        if image.shape != first.shape:
            sizes = [f"{height} x {width}" for _, height, width in (image.shape, first.shape)]
            raise DataError(f"{path} has {sizes[0]} pixels and {paths[0]} {sizes[1]}; all images must have one size")
        images[k] = image
    return images


def _pixels(path: str) -> numpy.ndarray:
    """Red, green and blue, shape (3, height, width); grey images three times the same, as ImageFolder reads them."""
    try:
        return _archive.pixels(path)
    except Exception as error:  # each format has its own words for a broken file
        why = f"{type(error).__name__}: {error}"
        raise DataError(f"image {path} is truncated or corrupt ({why}). Restore it or take it away") from None


def _cached(path: Path, key: str) -> Images | None:
    """The decoded images, if they are those of this listing and every checksum in the file is right."""
    import numpy

    try:
        with open(path, "rb") as file, numpy.load(file, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            return Images(int(stored["classes"]), *(torch.from_numpy(stored[part]) for part in Images._fields[1:]))
    except Exception:  # not there, truncated, corrupt or another kind of file: all are mended by decoding again
        return None


def _keep(path: Path, key: str, images: Images) -> None:
    """Replaces the cache in one piece, so that two processes that decode at once both leave a whole one."""
    import numpy

    parts = {part: numpy.asarray(x) for part, x in images._asdict().items()}
    try:
        files.write_whole(path, lambda file: numpy.savez(file, key=numpy.array(key), **parts))
    except OSError as error:
        text = f"decoded images cannot be kept in {path} ({error.strerror}); the next process decodes them again"
        warnings.warn(text, stacklevel=2)


# Files of arrays


def _arrays(name: str, root: Path) -> Path:
    path = root / f"{name.removeprefix(FILE)}.npz"
    if not path.is_file():
        raise DataError(
            f"data {name!r} is not there: no file {path}. Needed are arrays `images` (uint8, n x height x width, or with 1 or 3 "
            f"channels after n) and `labels` in it, and `test_images` and `test_labels` where the test split is given ({ROOT})"
        )
    return path


def _read_arrays(name: str, root: Path) -> Images:
    """The arrays of a file. Where it has no test split, half of the images, drawn with seed 0, are one."""
    import numpy

    path = _arrays(name, root)
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
