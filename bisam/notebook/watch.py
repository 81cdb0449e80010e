"""How far an execution has come, for those who wait: cells, and the trainings inside a long one."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .._progress import bar
from .execution import Execution

__all__ = ["Feed", "watched"]

POLL = 0.2  # seconds between two looks
EVERY = 20.0  # seconds between two lines about the inside of a cell where there is no terminal


class Feed:
    """The file to which the bars inside a kernel write, named by the variable ``BISAM_PROGRESS``.

    Args:
        path: of the file, which need not be there yet.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     feed = Feed(Path(folder) / "feed")
        ...     _ = feed.path.write_text('{"title": "sam", "done": 3, "total": 20, "unit": "epochs", "note": "loss 0.5"}\\n')
        ...     feed.latest()
        'sam: 3/20 epochs, loss 0.5'
    """

    def __init__(self, path: Path):
        self.path, self._read, self._latest = path, 0, ""

    def latest(self) -> str:
        """The last whole line as words; nothing before there is one."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self._read)
                new = file.read()
        except OSError:
            return self._latest
        whole, end, _ = new.rpartition(b"\n")
        self._read += len(whole) + len(end)
        if whole:
            self._latest = _words(whole.rpartition(b"\n")[2])
        return self._latest

    def forget(self) -> None:
        """What was said so far belongs to a cell that has ended."""
        self.latest()
        self._latest = ""


def _words(line: bytes) -> str:
    try:
        said = json.loads(line)
        of = "" if said["total"] is None else f"/{said['total']}"
        return f"{said['title']}: {said['done']}{of} {said['unit']}" + (f", {said['note']}" if said["note"] else "")
    except (ValueError, KeyError, TypeError):  # anybody may write to a file
        return ""


def watched(execution: Execution, title: str, feed: Feed, show: bool, every: float = EVERY) -> None:
    """Waits for the end of an execution and shows a bar of its cells meanwhile.

    Args:
        execution: that has been started.
        title: of the bar.
        feed: what its kernel says.
        show: whether anything is shown.
        every: seconds between two lines about the inside of a cell where there is no terminal.

    Example:
        >>> import nbformat, os
        >>> one = Execution(nbformat.v4.new_notebook(), Path.cwd(), os.environ)
        >>> one.stop()  # before it has begun, so that here nothing runs
        >>> one.start()
        >>> watched(one, "empty", Feed(Path("nothing")), show=False)
        >>> one.done, one.trouble
        (0, None)
    """
    with bar(title, execution.cells, "cells", show, line="{title}: cell {done} of {total}{note}") as advance:
        say = _spoken(title, every) if show and not sys.stderr.isatty() else None
        seen = 0
        while True:
            ended = execution.has_ended(POLL)
            if execution.done > seen:
                feed.forget()
                advance(execution.done - seen)
                seen = execution.done
            elif note := feed.latest():
                say(seen, note) if say else advance(0, note=note)
            if ended:
                return


def _spoken(title: str, every: float) -> Callable[[int, str], None]:
    last, before = time.monotonic(), ""

    def say(cell: int, note: str) -> None:
        nonlocal last, before
        if note == before or time.monotonic() - last < every:
            return
        last, before = time.monotonic(), note
        print(f"{title}: in cell {cell + 1}, {note}", file=sys.stderr, flush=True)

    return say
