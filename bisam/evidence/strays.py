"""The files of a ledger: those of records, and everything that lies there and does not belong."""

from __future__ import annotations

import stat
from pathlib import Path

from .. import _files as files
from . import measured
from .places import LedgerError
from .published import TableError, read_rows

LINK = "is a link; a ledger holds files"
BESIDE = ("claims.toml", "published.csv", "benchmarks.json", "runs", "measured")  # what a ledger holds; and a text that says what it is
LEFT = (".part", ".probe", ".tmp", ".lock", "~", ".swp")  # endings of what writers and editors leave behind


def table_faults(path: Path) -> list[str]:
    """What is wrong with the ledger's own published table; it need not have one."""
    try:
        if stat.S_ISLNK(path.lstat().st_mode):
            return [f"{path}: {LINK}"]
        read_rows(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"{path}: cannot be read: {error.strerror}"]
    except TableError as error:
        return [str(error)]
    return []


def measured_faults(folder: Path) -> list[str]:
    """What is wrong with the measured rows of a ledger, and with what was predicted of them; it need not have any."""
    faults: list[str] = []
    for path in _inside(folder / "measured", "measured:", faults) or ():
        try:
            if fault := _fault(path, "file" if path.suffix in (".json", ".toml") else None):
                faults.append(f"measured/{_shown(path.name)}: {fault}")
            elif path.suffix == ".json":
                measured.load(path.stem, folder)
            else:
                measured.predictions(folder)
        except (LedgerError, ValueError) as error:
            faults.append(f"measured/{_shown(path.name)}: {error}")
    return faults


def strays(folder: Path, faults: list[str]) -> None:
    """Notes what lies beside the list and the records, and does not belong there."""
    for path in _inside(folder, "the ledger", faults) or ():
        if path.name not in BESIDE and not path.name.startswith("README"):
            faults.append(f"{_shown(path.name)}: {_fault(path)}")


def books(folder: Path, faults: list[str]) -> dict[str, list[Path]]:
    """The files of records by the name of their folder; everything else is noted among the faults."""
    found: dict[str, list[Path]] = {}
    for home in _inside(folder / "runs", "runs:", faults) or ():
        place = f"runs/{_shown(home.name)}"
        if fault := _fault(home, "folder") or _name_fault(home.name):
            faults.append(f"{place}: {fault}")
            continue
        found[home.name] = []
        inside = _inside(home, f"{place}:", faults)
        if inside == []:
            faults.append(f"{place}: holds no record")
        for path in inside or ():
            if fault := _fault(path, "file" if path.suffix == ".json" else None) or _name_fault(path.stem):
                faults.append(f"{place}/{_shown(path.name)}: {fault}")
            else:
                found[home.name].append(path)
    return found


def _inside(folder: Path, name: str, faults: list[str]) -> list[Path] | None:
    """What a folder holds; ``None`` where that cannot be said, which is noted. A folder that is not there holds nothing."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        faults.append(f"{name} is no folder")
    except OSError as error:
        faults.append(f"{name} cannot be read: {error.strerror}")
    return None


def _fault(path: Path, wanted: str | None = None) -> str | None:
    """Why a thing has no place where a ``"file"`` or a ``"folder"`` belongs, or nothing at all."""
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    kind = "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"
    if kind == wanted:
        return None
    if stat.S_ISLNK(mode):
        return LINK
    if path.name.endswith(LEFT):
        return "was left behind by a writer that did not end well, or is still at work"
    return "is a folder where none belongs" if kind == "folder" else "is no file of a ledger"


def _name_fault(name: str) -> str | None:
    try:
        files.safe_name("the name", name)
    except ValueError as error:
        return str(error)
    return None


def _shown(name: str) -> str:
    return name if name.isprintable() else repr(name)
