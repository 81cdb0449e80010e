"""Progress on the terminal, or in lines where there is none."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["epochs_bar"]

MOST_LINES = 100


@contextmanager
def epochs_bar(title: str, total: int, done: int, show: bool) -> Iterator[Callable[[dict], None]]:
    """A bar that moves by one epoch each time the yielded function is called with that epoch's row.

    On a terminal the bar is redrawn in place; elsewhere (a log file, a notebook) each epoch is a line on the error output, or each
    k-th and the last where a hundred lines would not do.

    Args:
        title: what stands before the bar.
        total: number of epochs.
        done: how many of them are finished already.
        show: draw it, or write the lines.

    Source:
        Ours, on rich.

    Example:
        >>> with epochs_bar("sam", total=1, done=0, show=False) as advance:
        ...     advance({"train_loss": 0.5, "validation_accuracy": 90.0})
    """
    if not show:
        yield lambda row: None
        return
    if (console := _terminal()) is None:
        yield _lines(title, total, done)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, completed=done, note="")
        yield lambda row: bar.update(task, advance=1, note=_note(row))


def _terminal():
    """The terminal behind the error output, or ``None``; without rich nothing is drawn on it either."""
    try:
        from rich.console import Console
    except ImportError:
        return None
    console = Console(stderr=True)
    return console if console.is_terminal else None


def _lines(title: str, total: int, done: int) -> Callable[[dict], None]:
    epochs, every = itertools.count(done + 1), -(-total // MOST_LINES)

    def advance(row: dict) -> None:
        if (epoch := next(epochs)) % every == 0 or epoch == total:
            print(f"{title}: epoch {epoch} of {total}: {_note(row)}", file=sys.stderr, flush=True)

    return advance


def _note(row: dict) -> str:
    seen = f"  validation {row['validation_accuracy']:.1f} %" if "validation_accuracy" in row else ""
    return f"loss {row['train_loss']:.3f}{seen}"
