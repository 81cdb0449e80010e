"""The files that torchvision fetches: where they lie, and whether they are whole."""

from __future__ import annotations

from pathlib import Path

from ... import _checks
from .images import ROOT, DataError

FETCHED = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}  # name: torchvision's
IDX = ("mnist", "fashion-mnist")  # which of them are four idx files


def kind_of(name: str) -> type:
    """The class of torchvision that fetches a task."""
    return getattr(_checks.needs("torchvision.datasets", extra="train"), FETCHED[name])


def how_to_fetch(name: str, root: Path) -> str:
    """What to do, for an error."""
    code = f"import torchvision; torchvision.datasets.{FETCHED[name]}({str(root)!r}, download=True)"
    return f'Fetch it with: python -c "{code}"'


def checksums(name: str, root: Path) -> dict[Path, str | None]:
    """The files of a task and their MD5 sums as torchvision knows them; it knows none of unpacked idx files."""
    kind = kind_of(name)
    if name not in IDX:
        folder = root / kind.base_folder
        known = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
        return {folder / file: md5 for file, md5 in known}
    folder, files = root / FETCHED[name] / "raw", {}
    for file, md5 in kind.resources:
        unpacked = folder / file.removesuffix(".gz")
        files |= {unpacked: None} if unpacked.is_file() or not (folder / file).is_file() else {folder / file: md5}
    return files


def there(name: str, root: Path) -> list[Path]:
    """The files of a task; a ``DataError`` that says how to fetch them if one is missing."""
    files = list(checksums(name, root))
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise DataError(f"data {name!r} is not there: no file {missing[0]} ({ROOT}). {how_to_fetch(name, root)}")
    return files


def corrupt(name: str, root: Path, path: Path, why: object) -> DataError:
    """The error about a file that is not what it should be."""
    return DataError(f"data {name!r}: {path} is truncated or corrupt ({why}). Delete it. {how_to_fetch(name, root)}")


def is_whole(path: Path, md5: str | None) -> bool:
    """Whether a file is there, with this checksum if one is known."""
    return _checks.needs("torchvision.datasets.utils", extra="train").check_integrity(path, md5)
