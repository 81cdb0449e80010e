"""Checkpoints that are whole or not there, and that say which run they belong to."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
from pathlib import Path

import torch
from torch import Tensor

from .. import _checks
from .. import _files as files

__all__ = ["CheckpointError", "check_form", "check_writable", "lock", "made_on", "read", "write"]

FORMAT = 2  # 1: without a seal, and without the bits of the test images
MARK = b"sha256 "
SEAL = len(MARK) + 64  # bytes of the comment that ends the archive


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, cannot be written, or belongs to another run."""


def check_writable(path: Path) -> None:
    """Makes the folder of a checkpoint and proves that a file can be written there, before any work; a ``CheckpointError`` if not.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     check_writable(Path(folder) / "new" / "run.pt")
    """
    path = _checks.path("path", path)
    try:
        files.check_writable(path)
    except OSError as error:
        raise CheckpointError(f"checkpoint_path {path} {error.strerror}. Choose another folder") from None


def lock(path: Path) -> Path:
    """The file whose lock a training holds as long as it works on a checkpoint: beside the file that a link leads to.

    Example:
        >>> lock(Path("/runs/run.pt")).name
        'run.pt.lock'
    """
    return Path(f"{os.path.realpath(_checks.path('path', path))}.lock")


def write(path: Path, run: dict, state: dict, environment: dict | None = None) -> None:
    """Replaces the file in one piece: a reader, or a kill at any moment, sees the old one or the new one.

    The archive of ``torch.save`` ends in a seal, a SHA-256 over all bytes before it, which stands in the comment of the archive:
    ``torch.load`` reads the file as any other. If the disk does not take it there is a ``CheckpointError``, and the old file stays.

    Args:
        path: the checkpoint file.
        run: the description of the run, plain values.
        state: tensors and plain values.
        environment: what the training ran on, plain values, see :func:`bisam.training.environment.environment`; :func:`made_on` reads it.

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
    _checks.optional("environment", environment, of=_checks.part, wanted=dict, words="a dictionary of plain values")
    archive, plain = io.BytesIO(), json.loads(json.dumps(environment))  # a version of torch is a text of its own kind
    torch.save({"format": FORMAT, "run": run, "state": state, "environment": plain}, archive)
    archive.seek(-2, os.SEEK_END)  # the last two bytes of a zip archive are the length of its comment
    archive.write(SEAL.to_bytes(2, "little"))
    archive.write(_seal(archive.getvalue()))
    try:
        files.write_whole(path, archive.getvalue())
    except OSError as error:
        kept = "The old file stays" if path.exists() else "Nothing was kept"
        raise CheckpointError(f"checkpoint_path {path} {error.strerror}. {kept}") from None


def _seal(content: bytes | memoryview) -> bytes:
    return MARK + hashlib.sha256(content).hexdigest().encode()


def read(path: Path, run: dict) -> dict:
    """The state that :func:`write` stored for the same run.

    A ``CheckpointError`` says that the file is truncated, changed in any bit or no checkpoint, or that another run wrote it.

    Example:
        >>> try:
        ...     read(Path("no such file"), run={"seed": 0})
        ... except CheckpointError as error:
        ...     print(str(error)[:45])
        checkpoint_path no such file cannot be read (
    """
    _checks.part("run", run, dict, "a dictionary of plain values")
    stored = _stored(path)
    if (written := stored["run"]) != run:
        here, there = _leaves(run), _leaves(written)
        names = [name for name in {**here, **there} if here.get(name) != there.get(name)]
        changes = "; ".join(f"{name}: {there.get(name)!r} there, {here.get(name)!r} here" for name in names)
        raise CheckpointError(f"checkpoint_path {path} belongs to another run ({changes}). Choose another file, or delete it")
    return stored["state"]


def made_on(path: Path) -> dict | None:
    """What the training ran on that wrote a checkpoint last; ``None`` if :func:`write` was not told, as in files of earlier versions.

    A ``CheckpointError`` says that the file is truncated, changed in any bit or no checkpoint.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(Path(folder) / "run.pt", {}, {}, environment={"threads": 1})
        ...     made_on(Path(folder) / "run.pt")
        {'threads': 1}
    """
    return _stored(path).get("environment")


def _stored(path: Path) -> dict:
    path = _checks.path("path", path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint_path {path} cannot be read ({error.strerror})") from None
    if content[-SEAL:] != _seal(memoryview(content)[:-SEAL]):
        raise _unreadable(path, "its seal does not fit")
    try:
        stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if stored["format"] != FORMAT or not isinstance(stored["run"], dict) or "state" not in stored:
            raise ValueError(f"format {stored['format']}")
    except Exception as error:  # torch, zipfile and pickle each have their own words for what they do not know
        raise _unreadable(path, type(error).__name__) from None
    return stored


def _unreadable(path: Path, why: str) -> CheckpointError:
    what = "it is damaged, truncated or no checkpoint of this version. Delete it to start over, or restore it"
    return CheckpointError(f"checkpoint_path {path} cannot be read ({why}): {what}")


def _leaves(tree: dict, path: str = "") -> dict[str, object]:
    """The values of nested dictionaries by dotted names, so that only what differs is shown."""
    found = {}
    for name, value in tree.items():
        found |= _leaves(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return found


def check_form(found: object, form: object, where: str = "state") -> None:
    """Compares nested dictionaries and lists of tensors and plain values with others of the same form: every value may differ, not what it is.

    Names, types, lengths, shapes and kinds of numbers must be the same, and all numbers finite; GPUs are one, whatever their number. A
    ``CheckpointError`` has the first thing that is missing, unexpected or of another form, by its dotted name, which begins with ``where``.

    Example:
        >>> check_form({"w": torch.ones(2)}, {"w": torch.zeros(2)})
        >>> check_form({"w": torch.ones(3)}, {"w": torch.zeros(2)})
        Traceback (most recent call last):
        bisam.training.checkpoint.CheckpointError: state.w must be a torch.float32 tensor of shape (2,), got a torch.float32 tensor of shape (3,)
    """
    if type(found) is not type(form):
        raise CheckpointError(f"{where} must be {_words(form)}, got {_words(found)}")
    if isinstance(form, dict):
        found, form = ({_place(key): value for key, value in one.items()} for one in (found, form))
        missing, extra = [key for key in form if key not in found], [key for key in found if key not in form]
        if missing or extra:
            what = f"lacks {missing[0]!r}" if missing else f"holds {extra[0]!r}, which this run does not know"
            raise CheckpointError(f"{where} {what}")
        for key, value in found.items():
            check_form(value, form[key], f"{where}.{key}")
    elif isinstance(form, (list, tuple)):
        if len(found) != len(form):
            raise CheckpointError(f"{where} must have {len(form)} entries, got {len(found)}")
        for k, (one, other) in enumerate(zip(found, form, strict=True)):
            check_form(one, other, f"{where}.{k}")
    elif isinstance(form, Tensor):
        if (found.dtype, found.shape, found.layout) != (form.dtype, form.shape, form.layout):
            raise CheckpointError(f"{where} must be {_words(form)}, got {_words(found)}")
        if found.is_floating_point() and not found.isfinite().all() and form.isfinite().all():
            raise CheckpointError(f"{where} must be finite; {int((~found.isfinite()).sum())} of {found.numel()} numbers are not")
    elif isinstance(form, float) and not math.isfinite(found):
        raise CheckpointError(f"{where} must be finite, got {found!r}")


def _place(key: object) -> object:
    return "cuda" if isinstance(key, str) and re.fullmatch(r"cuda:\d+", key) else key


def _words(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    return "None" if value is None else f"of type {type(value).__name__}"
