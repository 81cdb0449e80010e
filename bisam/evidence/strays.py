"""The files of a ledger: those of records, and everything that lies there and does not belong."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from .. import _files as files
from .published import TableError, read_rows

BESIDE = ("claims.toml", "published.csv", "benchmarks.json", "runs")  # what a ledger holds; and a text that says what it is
LEFT = (".part", ".probe", ".tmp", ".lock", "~", ".swp")  # endings of what writers and editors leave behind


def table_faults(path: Path) -> list[str]:
    """What is wrong with the ledger's own published table; it need not have one."""
    try:
        if _kind(path) == "link":
            return [f"{path}: {_what(path)}"]
        read_rows(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"{path}: cannot be read: {error.strerror}"]
    except TableError as error:
        return [str(error)]
    return []


def strays(folder: Path) -> Iterator[str]:
    """What lies beside the list and the records, and does not belong there."""
    inside, fault = _inside(folder)
    if fault:
        yield f"the ledger {fault}"
    for path in inside:
        if path.name not in BESIDE and not path.name.startswith("README"):
            yield f"{_shown(path.name)}: {_what(path)}"


def books(folder: Path, faults: list[str]) -> dict[str, list[Path]]:
    """The files of records by the name of their folder; everything else is noted among the faults."""
    found: dict[str, list[Path]] = {}
    homes, fault = _inside(folder / "runs")
    faults += [f"runs: {fault}"] if fault else []
    for home in homes:
        place = f"runs/{_shown(home.name)}"
        if fault := _place_fault(home, "folder") or _name_fault(home.name):
            faults.append(f"{place}: {fault}")
            continue
        found[home.name] = []
        inside, fault = _inside(home)
        if fault:
            faults.append(f"{place}: {fault}")
            continue
        for path in inside:
            fault = _place_fault(path, "file") or (_what(path) if path.suffix != ".json" else _name_fault(path.stem))
            if fault:
                faults.append(f"{place}/{_shown(path.name)}: {fault}")
            else:
                found[home.name].append(path)
        if not inside:
            faults.append(f"{place}: holds no record")
    return found


def _inside(folder: Path) -> tuple[list[Path], str | None]:
    """What a folder holds, and why that cannot be said; a folder that is not there holds nothing."""
    try:
        return sorted(folder.iterdir()), None
    except FileNotFoundError:
        return [], None
    except NotADirectoryError:
        return [], "is no folder"
    except OSError as error:
        return [], f"cannot be read: {error.strerror}"


def _kind(path: Path) -> str:
    mode = path.lstat().st_mode
    return "link" if stat.S_ISLNK(mode) else "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def _place_fault(path: Path, kind: str) -> str | None:
    """Why nothing of that kind is at a place: it is another thing, or nobody may look."""
    try:
        return None if _kind(path) == kind else _what(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _what(path: Path) -> str:
    """What a thing is that has no place in a ledger."""
    try:
        kind = _kind(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if kind == "link":
        return "is a link; a ledger holds files"
    if path.name.endswith(LEFT):
        return "was left behind by a writer that did not end well, or is still at work"
    if kind == "folder":
        return "is a folder where none belongs"
    return "is no file of a ledger"


def _name_fault(name: str) -> str | None:
    try:
        files.safe_name("the name", name)
    except ValueError as error:
        return str(error)
    return None


def _shown(name: str) -> str:
    return name if name.isprintable() else repr(name)
