"""Checkpoints that are whole or not there, and that say which run they belong to."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from . import _checks

__all__ = ["CheckpointError", "check_writable", "read", "write"]

FORMAT = 1


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, cannot be written, or belongs to another run."""


def check_writable(path: Path) -> None:
    """Makes the folder and proves that a file can be written there, before any work starts.

    Args:
        path: the checkpoint file to be.

    Raises:
        CheckpointError: the folder cannot be made or written to.

    Source:
        Ours.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     check_writable(Path(folder) / "new" / "run.pt")
    """
    path = _checks.path("path", path)
    try:
        _checks.writable(path)
    except OSError as error:
        raise CheckpointError(f"checkpoint_path {path} cannot be written: {error}. Choose another folder") from None


def write(path: Path, run: dict, state: dict) -> None:
    """Replaces the file in one piece: a reader, or a kill at any moment, sees the old one or the new one.

    Args:
        path: the checkpoint file.
        run: the description of the run, plain values.
        state: tensors and plain values.

    Raises:
        CheckpointError: the disk does not take it; the old file stays.

    Source:
        Ours.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "run.pt"
        ...     write(path, run={"seed": 0}, state={"epoch": 3})
        ...     read(path, run={"seed": 0})
        {'epoch': 3}
    """
    path = _checks.path("path", path)
    for name, value in (("run", run), ("state", state)):
        _checks.part(name, value, dict, "a dictionary of plain values and tensors")
    if path.is_dir():
        raise CheckpointError(f"checkpoint_path {path} is a folder")
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(draft, "wb") as file:
            torch.save({"format": FORMAT, "run": run, "state": state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        draft.unlink(missing_ok=True)
        kept = "The old file stays" if path.exists() else "Nothing was kept"
        raise CheckpointError(
            f"checkpoint_path {path} cannot be written ({error}); is the disk full? {kept}"
        ) from None


def read(path: Path, run: dict) -> dict:
    """The state that :func:`write` stored for the same run.

    Args:
        path: the checkpoint file.
        run: the description of the run that wants to go on.

    Raises:
        CheckpointError: the file is truncated or no checkpoint, or another run wrote it; nothing is changed.

    Source:
        Ours.

    Example:
        >>> try:
        ...     read(Path("no such file"), run={"seed": 0})
        ... except CheckpointError as error:
        ...     print(str(error)[:45])
        checkpoint_path no such file cannot be read (
    """
    path = _checks.path("path", path)
    _checks.part("run", run, dict, "a dictionary of plain values")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        written, state = stored["run"], stored["state"]
        if stored["format"] != FORMAT:
            raise ValueError(f"format {stored['format']}")
    except Exception as error:  # torch, zipfile and pickle each have their own words for a broken file
        raise CheckpointError(
            f"checkpoint_path {path} cannot be read ({type(error).__name__}): it is truncated or no checkpoint of "
            "this version. Delete it to start over, or restore it"
        ) from None
    if written != run:
        here, there = _leaves(run), _leaves(written)
        names = [name for name in {**here, **there} if here.get(name) != there.get(name)]
        changes = "; ".join(f"{name}: {there.get(name)!r} there, {here.get(name)!r} here" for name in names)
        raise CheckpointError(
            f"checkpoint_path {path} belongs to another run ({changes}). Choose another file, or delete it"
        )
    return state


def _leaves(tree: dict, path: str = "") -> dict[str, object]:
    """The values of nested dictionaries by dotted names, so that only what differs is shown."""
    found = {}
    for name, value in tree.items():
        found |= _leaves(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return found
