"""Published sets of photographs, and trees of one's own, as lists of their files: ImageNet, Flowers-102 and the Oxford pets.

The layouts are those of the archives: ``imagenet/train/CLASS/IMAGE`` and ``imagenet/val/CLASS/IMAGE``; ``flowers-102`` and
``oxford-iiit-pet`` as torchvision unpacks them. Of the flowers, torchvision's training and validation images are the training images here;
of the pets its ``trainval``. The published test images are the test split, of ImageNet those of ``val``.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ... import _checks
from . import folder
from .images import ROOT, DataError, division
from .streamed import MEAN, STD, Look, Streamed
from .task import Split

if TYPE_CHECKING:
    import numpy

__all__ = ["LOADING", "SETS", "SIZE", "check_loading"]

LOADING = ("device", "stream")

SIZE = 224  # pixels, the side of the images of published sets where nobody says another
FLOWERS, PETS = "flowers-102", "oxford-iiit-pet"
IDS = {"trnid": True, "valid": True, "tstid": False}  # of setid.mat: which images are trained on
NAMES = {"flowers102": "Flowers102", "pets": "OxfordIIITPet"}  # torchvision's


class Files:
    """The image files of a task: those to train on and those to test on, each with its class and size.

    Args:
        top: folder that names of files are told from in the digest.
        train, test: the files, in an order that does not change.
    """

    def __init__(self, top: Path, train: list[folder.Listed], test: list[folder.Listed]):
        self.top, self.train, self.test = top, train, test
        self.classes = 1 + max(file.target for file in train)
        start, digest, stamp = len(str(top)), hashlib.sha256(), hashlib.sha256(str(top).encode(errors="surrogateescape"))
        for file in (*train, *test):
            said = f"{file.path[start:]}\0{file.size}\0{file.target}\n".encode(errors="surrogateescape")
            digest.update(said)
            stamp.update(said + str(file.changed).encode())
        self.digest, self.stamp = digest.hexdigest()[:16], stamp.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Files) and self.stamp == other.stamp

    def __hash__(self) -> int:
        return hash(self.stamp)


def check_loading(name: str, loading: str, image_size: int | None = None, pool: int = 1) -> None:
    """A ``ValueError`` where the images of a task are not loaded in that way, or a choice about their size takes no part.

    Args:
        name: of the task.
        loading: ``"device"``, where all images are tensors on the device, or ``"stream"``, where they are decoded as they are needed.
        image_size: side that streamed images are cut to; ``None`` for the data's own.
        pool: side of the squares over which pixels are averaged.

    Example:
        >>> check_loading("pets", "stream", image_size=224)
        >>> try:
        ...     check_loading("pets", "device")
        ... except ValueError as error:
        ...     print(str(error)[:40])
        loading must be "stream" for data 'pets'
    """
    _checks.text("data", name)
    _checks.choice("loading", loading, LOADING)
    _checks.optional("image_size", image_size, of=_checks.whole)
    _checks.whole("pool", pool)
    if loading == "device" and name in SETS:
        raise ValueError(f'loading must be "stream" for data {name!r}, whose photographs have many sizes; got "device"')
    if loading == "device" and image_size is not None:
        raise ValueError(f'image_size must be left out with loading "device", where images keep their size; got {image_size}')
    if loading == "stream" and name not in SETS and not name.startswith(folder.PREFIX):
        raise ValueError(f'loading must be "device" for data {_checks.shown(name)}: streamed are {", ".join(SETS)} and folder:NAME; got "stream"')
    if loading == "stream" and pool > 1:
        raise ValueError(f'pool must be 1 with loading "stream", where image_size makes images smaller; got {pool}')


def task_of(
    name: str, root: Path, train_images: int | None, test_images: int | None, split_seed: int, image_size: int | None
) -> Streamed:
    """The task of a published set or of ``folder:NAME``, with its files unread; the arguments have been checked."""
    files = SETS[name](root) if name in SETS else _own(name, root)
    return _divided(name, files, train_images, test_images, split_seed, image_size)


@functools.lru_cache(maxsize=2)
def _divided(
    name: str, files: Files, train_images: int | None, test_images: int | None, split_seed: int, image_size: int | None
) -> Streamed:
    every = (*files.train, *files.test)
    targets = torch.tensor([file.target for file in every])
    train, validation, test = division(name, files.top, len(files.train), len(files.test), train_images, test_images, split_seed)
    splits = [Split(part, targets[part]) for part in (train, validation, test + len(files.train))]
    size = SIZE if image_size is None and name in SETS else image_size
    look = Look(size, size) if size else Look(*_pixels(every[0].path), resized=False)
    return Streamed(name, files.classes, *splits, MEAN, STD, files=tuple(file.path for file in every), listing=files.digest, look=look)


def _pixels(path: str) -> tuple[int, int]:
    """Height and width of an image."""
    height, width = folder.decode([path]).shape[2:]
    return height, width


def _filled(name: str, files: Iterable[folder.Listed]) -> list[folder.Listed]:
    """The files, none of which is empty."""
    found = list(files)
    for file in found:
        if file.size == 0:
            raise DataError(f"data {name!r}: image {file.path} is empty. Restore it or take it away")
    return found


def _own(name: str, root: Path) -> Files:
    tree = folder.tree(name, root)
    return Files(tree, *(_filled(name, folder.listing(tree / part)) for part in ("train", "test")))


def _imagenet(root: Path) -> Files:
    tree = root / "imagenet"
    for place in (root, tree, tree / "train", tree / "val"):
        if not place.is_dir():
            raise DataError(f"data 'imagenet' is not there: no folder {place} ({ROOT}). {_unpacked(tree)}")
    classes = {part: _classes_of(tree, tree / part) for part in ("train", "val")}
    if classes["train"] != classes["val"] or len(classes["train"]) < 2:
        alone = [", ".join(sorted(classes[one] - classes[other])[:5]) or "none" for one, other in (("train", "val"), ("val", "train"))]
        raise DataError(
            f"data 'imagenet': {tree}/train and {tree}/val must have the same folders, two classes at least; only in train: {alone[0]}; "
            f"only in val: {alone[1]}; in both: {len(classes['train'] & classes['val'])}. {_unpacked(tree)}"
        )
    return Files(tree, *(_filled("imagenet", folder.listing(tree / part)) for part in ("train", "val")))


def _classes_of(tree: Path, place: Path) -> set[str]:
    """The folders of a split, which must be sorted into them."""
    entries = sorted(os.scandir(place), key=lambda entry: entry.name)
    packed = [entry.name for entry in entries if entry.name.endswith(".tar")]
    if packed:
        raise DataError(f"data 'imagenet': {place} holds archives that are not unpacked, {len(packed)} of them, such as {packed[0]}. {_unpacked(tree)}")
    loose = [entry.name for entry in entries if entry.name.lower().endswith(folder.SUFFIXES) and entry.is_file()]
    if loose:
        raise DataError(
            f"data 'imagenet': {place} holds {len(loose)} images in no folder of their class, such as {loose[0]}; they must be sorted into "
            f"folders named as those of the training images. {_unpacked(tree)}"
        )
    return {entry.name for entry in entries if entry.is_dir()}


def _unpacked(tree: Path) -> str:
    code = f"import torchvision; [torchvision.datasets.ImageNet({str(tree)!r}, split) for split in ('train', 'val')]"
    return (
        f"Needed are {tree}/train/CLASS/IMAGE and {tree}/val/CLASS/IMAGE. ImageNet is not fetched without an account: log in at "
        f"https://image-net.org, put ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz into {tree}, and unpack "
        f'and sort them with: python -c "{code}"'
    )


def _flowers(root: Path) -> Files:
    base = root / FLOWERS
    parts = {key: _matrix("flowers102", root, base / file, key) for file, key in (("imagelabels.mat", "labels"), *(("setid.mat", key) for key in IDS))}
    labels = parts.pop("labels")
    listed = {True: [], False: []}
    for key, numbers in parts.items():
        if numbers.min() < 1 or numbers.max() > len(labels):
            raise _wrong("flowers102", root, base / "setid.mat", f"{key} must name images 1 .. {len(labels)}, those of imagelabels.mat; it runs to {numbers.max()}")
        listed[IDS[key]] += [(f"image_{number:05d}.jpg", int(labels[number - 1]) - 1) for number in numbers.tolist()]
    return _from_rows("flowers102", root, base, base / "jpg", base / "imagelabels.mat", listed)


def _matrix(name: str, root: Path, path: Path, key: str) -> numpy.ndarray:
    """A row of whole numbers from a file of Matlab."""
    if not path.is_file():
        raise _absent(name, root, path)
    read = _checks.needs("scipy.io", extra="train").loadmat
    try:
        return read(str(path))[key].reshape(-1).astype("int64")
    except Exception as error:  # SciPy and zlib have their own words for a broken file
        raise _wrong(name, root, path, f"it is truncated or corrupt ({type(error).__name__}: {error})") from None


def _pets(root: Path) -> Files:
    base = root / PETS
    listed = {}
    for is_train, file in ((True, "trainval.txt"), (False, "test.txt")):
        path = base / "annotations" / file
        if not path.is_file():
            raise _absent("pets", root, path)
        rows = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
        broken = next((k for k, row in enumerate(rows) if len(row) < 2 or not row[1].isdecimal()), None)
        if broken is not None or not rows:
            what = "it is empty" if not rows else f"line {broken + 1} must begin with the name of an image and the number of its class"
            raise _wrong("pets", root, path, what)
        listed[is_train] = [(f"{row[0]}.jpg", int(row[1]) - 1) for row in rows]
    return _from_rows("pets", root, base, base / "images", base / "annotations" / "trainval.txt", listed)


def _from_rows(name: str, root: Path, base: Path, images: Path, told: Path, listed: dict[bool, list[tuple[str, int]]]) -> Files:
    """The files that lists of names and classes are about."""
    classes, tested = ({target for _, target in listed[is_train]} for is_train in (True, False))
    if len(classes) < 2 or classes != set(range(len(classes))) or not tested <= classes:
        raise _wrong(name, root, told, f"its classes must be 1 .. K, two at least, each among the training images; {len(classes)} are")
    return Files(base, *(_filled(name, (_listed(name, root, images / file, target) for file, target in listed[is_train])) for is_train in (True, False)))


def _listed(name: str, root: Path, path: Path, target: int) -> folder.Listed:
    try:
        status = path.stat()
    except OSError:
        raise _absent(name, root, path) from None
    return folder.Listed(str(path), target, status.st_size, status.st_mtime_ns)


def _absent(name: str, root: Path, path: Path) -> DataError:
    return DataError(f"data {name!r} is not there: no file {path} ({ROOT}). {_how_to_fetch(name, root)}")


def _wrong(name: str, root: Path, path: Path, why: str) -> DataError:
    return DataError(f"data {name!r}: {path} cannot be used: {why}. Delete it. {_how_to_fetch(name, root)}")


def _how_to_fetch(name: str, root: Path) -> str:
    return f'Fetch it with: python -c "import torchvision; torchvision.datasets.{NAMES[name]}({str(root)!r}, download=True)"'


SETS = {"imagenet": _imagenet, "flowers102": _flowers, "pets": _pets}
