"""What a stage knows of its task, its time, and the file that it writes: one line of JSON for everything that is done, at once."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import _checks

SESSION = "session"  # the line with which every session begins each of its files


@dataclass(frozen=True)
class Item:
    """One thing that a stage does."""

    name: str  # in the file
    run: Callable[[], object]  # does it and returns what it has found


def told(error: Exception) -> str:
    """An error in words, for the line of what it has ended; one after which the device is lost to this process is raised again."""
    if isinstance(error, getattr(torch, "AcceleratorError", ())):
        raise error
    return f"{type(error).__name__}: {error}"[:500]


def of_this_session(path: Path) -> list[dict]:
    """The lines of a file since the last session began, which may have been on another machine than those before; all, if none says so.

    A file that is not there has no lines, and a line that was cut short, when a machine was taken away, is left out.
    """
    return _sessions(path)[-1][1]


def _sessions(path: Path) -> list[tuple[dict, list[dict]]]:
    """Of each session its first line and the others; before the first there is one without."""
    path, found = _checks.path("path", path), [({}, [])]
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if line["name"] == SESSION:
            found.append((line, []))
        else:
            found[-1][1].append(line)
    return found


def fresh_first(things: Sequence[Item], path: Path, always: int) -> list[Item]:
    """Before all else what every session needs; then what no earlier session has come to on a device of the same name; then the rest.

    Otherwise one short session after the other would do the same things and be cut before the same others. The file at ``path`` has a
    line for what is done; ``always`` is how many of the first stay where they are.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     stage = Stage("try", Path(folder), quiet=True)
        ...     for name in ("session", "a", "b", "session"):
        ...         stage.note(name)
        ...     [one.name for one in fresh_first([Item(name, dict) for name in "abc"], stage.path, always=1)]
        ['a', 'c', 'b']
    """
    *earlier, (now, _) = _sessions(path)
    same = [lines for begin, lines in earlier if begin.get("device") == now.get("device")]
    done = {line["name"] for lines in same for line in lines if "error" not in line and line.get("result") != "error"}
    return [*things[:always], *sorted(things[always:], key=lambda one: one.name in done)]


@dataclass
class Stage:
    """One stage: on which device, until when, and where to."""

    name: str  # also of its file ``NAME.jsonl``
    out: Path  # folder of all that is written
    device: str = "cpu"  # or a CUDA device
    root: str | None = None  # folder of the data sets
    end: float = math.inf  # time of ``time.monotonic()`` at which it must be over; all processes of a machine share that clock
    tiny: bool = False  # sizes at which everything is tried in seconds and nothing is measured
    quiet: bool = False  # write, and show nothing
    done: frozenset[str] = frozenset()  # names of what an earlier round of the same session has done

    def __post_init__(self):
        _checks.line("name", self.name)
        self._noted: set[str] = set()
        self.out = _checks.path("out", self.out, words="the path of a folder")
        _checks.device("device", self.device)

    def in_time(self, things: Sequence[Item]) -> Iterator[Item]:
        """Those that were not done before, one after the other until the time is over; the names of what is then left are a line."""
        waiting = [one for one in things if one.name not in self.done]
        try:
            for one in waiting:
                if self.left <= 0:
                    break
                yield one
        finally:  # also if the process is told to stop in the middle of one
            if left := [one.name for one in waiting if one.name not in self._noted]:
                self.note("cut", left=left)

    @property
    def path(self) -> Path:
        return self.out / f"{self.name}.jsonl"

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()

    @property
    def is_cuda(self) -> bool:
        return self.device.startswith("cuda")

    def wait(self) -> None:
        """Returns when the device has done all that it was given."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def note(self, name: str, **values) -> None:
        """Writes a line, on the disk when this returns, and shows it."""
        line = json.dumps({"name": name, **{key: _plain(value) for key, value in values.items()}})
        with open(self.path, "ab+") as file:
            if file.tell() and file.seek(-1, os.SEEK_END) and file.read(1) != b"\n":
                file.write(b"\n")  # the line before was cut short
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._noted.add(name)
        if not self.quiet:
            shown = ", ".join(f"{key} {_short(value)}" for key, value in values.items() if value is not None)
            print(f"[{self.name}] {name}: {shown}", flush=True)


def _plain(value: object) -> object:
    """JSON has no infinity and no NaN."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
