"""Decoded images, kept beside the tree that they come from."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from ... import _checks
from ... import _files as files
from .images import Images


def kept(path: Path, key: str) -> Images | None:
    """The decoded images, if they are those of this listing and every checksum in the file is right."""
    numpy = _checks.needs("numpy", extra="train")
    try:
        with open(path, "rb") as file, numpy.load(file, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            return Images(int(stored["classes"]), *(torch.from_numpy(stored[part]) for part in Images._fields[1:]))
    except Exception:  # not there, truncated, corrupt or another kind of file: all are mended by decoding again
        return None


def keep(path: Path, key: str, images: Images) -> None:
    """Replaces the cache in one piece, so that two processes that decode at once both leave a whole one."""
    numpy = _checks.needs("numpy", extra="train")
    parts = {part: numpy.asarray(x) for part, x in images._asdict().items()}
    try:
        files.write_whole(path, lambda file: numpy.savez(file, key=numpy.array(key), **parts))
    except OSError as error:
        text = f"decoded images cannot be kept in {path} ({error.strerror}); the next process decodes them again"
        warnings.warn(text, stacklevel=2)
