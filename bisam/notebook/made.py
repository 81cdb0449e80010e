"""What an executed notebook was made with: noted in its metadata, and in one cell that people read."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..evidence.places import RESULTS
from ..training.environment import environment

__all__ = ["TAG", "cell_text", "code_digest", "made", "source_digest"]

TAG = "bisam-run"  # of the cell that people read


def source_digest(cells: list) -> str:
    """A digest over the kinds and sources of cells, which their outputs do not move.

    Args:
        cells: of a notebook, as JSON has them.

    Example:
        >>> len(source_digest([{"cell_type": "code", "source": "6 * 7"}]))
        16
    """
    content = [[cell["cell_type"], "".join(cell["source"])] for cell in cells]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@functools.cache
def code_digest() -> str:
    """A digest over the modules of this package, and over names and sizes of the records that notebooks read.

    Example:
        >>> code_digest() == code_digest()
        True
    """
    package, digest = Path(__file__).resolve().parents[1], hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    for folder, inner, names in os.walk(RESULTS):
        inner.sort()
        for name in sorted(names):
            digest.update(f"{Path(folder, name).relative_to(RESULTS).as_posix()} {os.path.getsize(Path(folder, name))}\n".encode())
    return digest.hexdigest()[:16]


def made(name: str, source: str, values: Mapping[str, object], given: Mapping[str, object], seconds: float, threads: int | None = None) -> dict:
    """All that is noted about an execution, in plain values; nothing in it names the machine or its user.

    Args:
        name: of the notebook.
        source: digest of its cells.
        values: all parameters.
        given: those that are not at their defaults.
        seconds: how long it took.
        threads: how many the kernel was told to compute with; as many as torch takes here if left out.

    Example:
        >>> made("first_run", "0" * 16, {"seeds": 4}, {"seeds": 4}, 1.25)["parameters"]
        {'seeds': 4}
    """
    here = environment("cpu", seconds)
    versions = {each: here[each] for each in ("bisam", "torch", "python", "numpy") if each in here}
    for package in ("matplotlib", "scipy", "torchvision"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    machine = {each: here[each] for each in ("system", "processor", "instructions", "cores")} | {"threads": threads or here["threads"]}
    return {
        "notebook": name, "source": source, "code": code_digest(), "commit": here["commit"], "parameters": dict(values), "given": dict(given),
        "versions": versions, "machine": machine, "seconds": round(seconds, 2),
    }  # fmt: skip


def cell_text(about: Mapping) -> str:
    """The cell that people read, in Markdown.

    Args:
        about: what :func:`~bisam.notebook.made.made` returned.

    Example:
        >>> print(cell_text(made("first_run", "0" * 16, {"seeds": 4}, {"seeds": 4}, 1.25)).splitlines()[6])
        | the same again | `bisam notebook first_run -p seeds 4` |
    """
    words = "".join(f" -p {name} {shlex.quote(str(value))}" for name, value in about["given"].items())
    rows = {
        "parameters": ", ".join(f"{name} = {value!r}" for name, value in about["parameters"].items()),
        "not at their defaults": ", ".join(about["given"]) or "none",
        "the same again": f"`bisam notebook {about['notebook']}{words}`",
        "versions": ", ".join(f"{name} {number}" for name, number in about["versions"].items()),
        "commit": about["commit"] or "unknown, outside a checkout",
        "machine": f"{about['machine']['system']}, {about['machine']['processor']}, {about['machine']['threads']} threads",
        "seconds": f"{about['seconds']:.1f}",
    }
    lines = [f"| {name} | {str(text).replace('|', chr(92) + '|')} |" for name, text in rows.items()]
    return "\n".join(["## How this copy was made", "", "| | |", "| --- | --- |", *lines])
