"""What is to be brought home, in one small file that is written first; checkpoints, which are large and can be made again, stay outside."""

from __future__ import annotations

import tarfile
from pathlib import Path

from .. import _checks
from .. import _files as files

__all__ = ["NAME", "pack"]

NAME = "home.tar.gz"
LARGE = ("checkpoints", "data")  # folders that are not in it


def pack(out: Path) -> Path:
    """Writes the records, the claims and the lines of all stages of a session into one file beside them, and returns its path.

    A borrowed machine often hands back a few small files only. The records of a session of a quarter of an hour take less than a megabyte,
    its checkpoints a hundred.

    Args:
        out: the folder of the session.

    Raises:
        OSError: the disk does not take it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "speed.jsonl").write_text("{}")
        ...     with tarfile.open(pack(Path(folder))) as archive:
        ...         archive.getnames()
        ['out/speed.jsonl']
    """
    out = _checks.path("out", out, words="the path of a folder")

    def write(file) -> None:
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            for path in _small(out):
                archive.add(path, arcname=str(Path("out") / path.relative_to(out)))

    files.write_whole(out / NAME, write)
    return out / NAME


def _small(out: Path) -> list[Path]:
    """The files in their order, without the large folders, locks and an earlier package."""
    found = (path for path in out.rglob("*") if path.is_file() and path.suffix != ".lock" and path.name != NAME)
    return sorted(path for path in found if path.relative_to(out).parts[0] not in LARGE)
