"""Progress on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["epochs_bar"]


@contextmanager
def epochs_bar(title: str, total: int, done: int, show: bool) -> Iterator[Callable[[dict], None]]:
    """A bar that moves by one epoch each time the yielded function is called with that epoch's row.

    On a terminal the bar is redrawn in place; elsewhere (a log file, a notebook) it is not drawn at all.

    Args:
        title: what stands before the bar.
        total: number of epochs.
        done: how many of them are finished already.
        show: draw it.

    Source:
        Ours, on rich.

    Example:
        >>> with epochs_bar("sam", total=1, done=0, show=False) as advance:
        ...     advance({"train_loss": 0.5, "validation_accuracy": 90.0})
    """
    if not show:
        yield lambda row: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not Console(stderr=True).is_terminal) as bar:
        task = bar.add_task(title, total=total, completed=done, note="")

        def advance(row: dict) -> None:
            note = f"loss {row['train_loss']:.3f}"
            if "validation_accuracy" in row:
                note += f"  validation {row['validation_accuracy']:.1f} %"
            bar.update(task, advance=1, note=note)

        yield advance
