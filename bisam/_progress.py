"""Progress on the terminal, or in lines where there is none."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from . import _checks

__all__ = ["FEED", "bar", "epochs_bar"]

MOST_LINES = 100
FEED = "BISAM_PROGRESS"  # a variable that names a file: bars that show nothing write to it, for another process to show
FEED_EVERY = 0.2  # seconds between two lines of one bar


@contextmanager
def bar(
    title: str, total: int | None, unit: str, show: bool, *, done: int = 0, line: str = "", most_lines: int | None = None,
) -> Iterator[Callable[..., None]]:  # fmt: skip
    """A bar that moves each time the yielded function ``advance(count=1, note="")`` is called.

    On a terminal the bar is redrawn in place. Elsewhere (a log file, a notebook) nothing is written without ``line``; with it
    each call writes that line, with ``{title}``, ``{done}``, ``{total}`` and ``{note}`` in it, on the error output, or each k-th and the
    last where ``most_lines`` of them would not do. Of a ``total`` that nobody knows, ``None``, the time that has passed is shown.

    A bar that shows nothing appends to the file that the variable ``BISAM_PROGRESS`` names, if it is set: ``bisam notebook`` shows from there
    how far the trainings inside a cell have come, and the outputs of the cell hold none of it.

    Raises:
        ModuleNotFoundError: rich is not installed, and there is no ``line`` to write instead.

    Example:
        >>> with bar("sam", total=2, unit="epochs", show=False) as advance:
        ...     advance()
        ...     advance(1, note="loss 0.5")
    """
    console = _terminal(is_needed=not line) if _checks.flag("progress", show) else None
    if console is not None:
        yield from _drawn(console, title, total, unit, done)
    elif show and line:
        yield _lines(line, title, total, done, most_lines)
    elif os.environ.get(FEED):
        yield _fed(os.environ[FEED], title, total, unit, done)
    else:
        yield lambda count=1, note="": None


@contextmanager
def epochs_bar(title: str, total: int, done: int, show: bool) -> Iterator[Callable[[dict], None]]:
    """A bar that moves by one epoch each time the yielded function is called with that epoch's row; lines where there is no terminal.

    Example:
        >>> with epochs_bar("sam", total=1, done=0, show=False) as advance:
        ...     advance({"train_loss": 0.5, "validation_accuracy": 90.0})
    """
    line = "{title}: epoch {done} of {total}: {note}"
    with bar(title, total, "epochs", show, done=done, line=line, most_lines=MOST_LINES) as advance:
        yield lambda row: advance(1, note=_note(row))


def _terminal(is_needed: bool):
    """The terminal behind the error output, or ``None``; also where rich is missing and something else will do."""
    try:
        console = _checks.needs("rich.console", extra="measure").Console(stderr=True)
    except ModuleNotFoundError:
        if is_needed:
            raise
        return None
    return console if console.is_terminal else None


def _drawn(console, title: str, total: int | None, unit: str, done: int) -> Iterator[Callable[..., None]]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    count = "{task.completed:.0f}" if total is None else "{task.completed:.0f}/{task.total:.0f}"
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn(f"{count} {unit}"),
        TimeElapsedColumn() if total is None else TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total, completed=done, note="")
        yield lambda count=1, note="": progress.update(task, advance=count, note=note)


def _lines(line: str, title: str, total: int, done: int, most: int | None) -> Callable[..., None]:
    every = 1 if most is None else -(-total // most)

    def advance(count: int = 1, note: str = "") -> None:
        nonlocal done
        before, done = done, done + count
        if done // every > before // every or done == total:
            print(line.format(title=title, done=done, total=total, note=note), file=sys.stderr, flush=True)

    return advance


def _fed(path: str, title: str, total: int | None, unit: str, done: int) -> Callable[..., None]:
    last = 0.0

    def advance(count: int = 1, note: str = "") -> None:
        nonlocal done, last
        done, now = done + count, time.monotonic()
        if now - last < FEED_EVERY and done != total:
            return
        last = now
        with suppress(OSError), open(path, "a", encoding="utf-8") as file:  # short lines, which several processes can append
            file.write(json.dumps({"title": title, "done": done, "total": total, "unit": unit, "note": note}) + "\n")

    return advance


def _note(row: dict) -> str:
    seen = f"  validation {row['validation_accuracy']:.1f} %" if "validation_accuracy" in row else ""
    return f"loss {row['train_loss']:.3f}{seen}"
