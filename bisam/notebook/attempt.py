"""One execution of a job: what comes out when it ends well, and what is kept when it does not."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import warnings
from pathlib import Path

from .. import _checks
from .. import _files as files
from .._progress import FEED
from . import outputs
from .data import write_data, write_figures
from .executed import columns_of, published
from .execution import Execution
from .find import NotebookError
from .job import Job
from .made import TAG, cell_text, code_digest, made, source_digest
from .watch import Feed

__all__ = ["Attempt", "merged", "source_of"]

EVERY = 5.0  # seconds between two drafts of what has run so far
PUBLISH = "BISAM_PUBLISH"  # the variable that has the cells publish their tables, see bisam.notebook.page.publish
VECTORS = "--InlineBackend.figure_formats={'png', 'svg', 'pdf'}"


class Attempt:
    """A context in which a job can be executed.

    Args:
        job: what is to be run.
        place: where the executed notebook goes.
        threads: how many the kernel computes with; as it likes if left out.
        figures: folder for the figures as SVG and PDF.

    Raises:
        NotebookError: the notebook cannot be executed in the current folder.

    Example:
        >>> from bisam.notebook.job import job
        >>> with Attempt(job("lower_bounds", {"alpha": "0.2"}), Path("out.ipynb")) as attempt:
        ...     attempt.execution.done, attempt.keep()
        (0, 'no cell had run to its end')
    """

    def __init__(self, job: Job, place: Path, *, threads: int | None = None, figures: Path | None = None):
        self._job, self._place, self._threads, self._figures = job, place, threads, figures
        self._began = self._drafted = time.perf_counter()

    def __enter__(self) -> Attempt:
        code_digest()  # before the kernel imports the same files
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bisam-", ignore_cleanup_errors=True))
            notebook, self._source = _read(self._job)
            self.feed = Feed(Path(folder) / "progress")
            variables = {**os.environ, FEED: str(self.feed.path), PUBLISH: "1"}
            if self._threads is not None:
                variables |= {"OMP_NUM_THREADS": str(self._threads)}
            options = [VECTORS] if self._figures is not None else []
            self.execution = Execution(notebook, Path.cwd(), variables, options, self._draft)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_) -> None:
        self.execution.stop()
        self._stack.close()

    def finish(self, *, replace: bool) -> None:
        """Writes what has come out.

        Args:
            replace: an output that is there may be replaced.

        Raises:
            NotebookError: the execution did not come to its end; says where what has run is kept.
            OSError: the disk does not take what has come out.
        """
        if (trouble := self.execution.trouble) is not None:
            raise NotebookError(f"{self._words(trouble)}\n{self.keep()}") from None
        about = self._about()
        write_figures(self.execution.notebook, self._figures)
        try:
            outputs.put(self._place, self._text(about), replace=replace)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}; {self.keep()}", str(self._place)) from None
        write_data(self._place, self.execution.notebook.cells, about)
        with contextlib.suppress(OSError):
            outputs.partial_of(self._place).unlink()

    def keep(self) -> str:
        """Writes what has run beside the output, and says so in a sentence; an old output stays as it was."""
        if not any(cell.get("outputs") or cell.get("execution_count") for cell in self.execution.notebook.cells):
            return "no cell had run to its end"
        kept = outputs.partial_of(self._place)
        try:
            files.write_whole(kept, self._text(self._about()))
        except OSError as error:
            return f"what has run cannot be kept: {error.filename} {error.strerror}"
        return f"what has run, up to cell {self.execution.done} of {self.execution.cells}, is in {kept}; the same command begins again"

    def _draft(self) -> None:
        """Keeps what has run for the case that this process is killed; called after every cell."""
        if time.perf_counter() - self._drafted < EVERY:
            return
        self._drafted = time.perf_counter()
        with contextlib.suppress(OSError):  # what cannot be written now is said at the end
            files.write_whole(outputs.partial_of(self._place), self._text(self._about()))

    def _about(self) -> dict:
        seconds = time.perf_counter() - self._began
        found = made(self._job.path.stem, self._source, self._job.all_values, self._job.given, seconds, self._threads)
        complete = self.execution.trouble is None and self.execution.done == self.execution.cells
        # The file has the columns of a table in the order of the alphabet.
        columns = {name: columns_of(rows) for name, rows in published(self.execution.notebook.cells)}
        return {**found, "columns": columns, "complete": complete, "cells": [self.execution.done, self.execution.cells]}

    def _text(self, about: dict) -> str:
        import nbformat

        notebook = nbformat.from_dict(self.execution.notebook)  # a copy
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = merged(cell.outputs)
        last = nbformat.v4.new_markdown_cell(cell_text(about), metadata={"tags": [TAG]})
        last["id"] = TAG
        notebook.cells.append(last)
        notebook.metadata = nbformat.from_dict({
            "bisam": {"run": about}, "language_info": {"name": "python", "file_extension": ".py", "nbconvert_exporter": "python"},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        })  # fmt: skip
        return nbformat.writes(notebook) + "\n"

    def _words(self, trouble: BaseException) -> str:
        where = f"cell {self.execution.done + 1} of {self._job.path.stem}"
        if hasattr(trouble, "ename"):
            return f"{where} failed with {trouble.ename}: {trouble.evalue}"
        if type(trouble).__name__ == "DeadKernelError":
            return f"the kernel died in {where}; something killed it, or the memory was full"
        return f"the kernel does not go on at {where}: {type(trouble).__name__}: {trouble}"


def source_of(job: Job) -> str:
    """The digest of the cells of a job's notebook.

    Example:
        >>> from bisam.notebook.job import job
        >>> len(source_of(job("lower_bounds", {})))
        16
    """
    return source_digest(_stored(job).cells)


def _stored(job: Job):
    nbformat = _checks.needs("nbformat", extra="notebooks")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of cells without ids, which get some
        return nbformat.read(job.path, as_version=4)


def _read(job: Job) -> tuple:
    """The notebook of a job with a cell of its values, and the digest of its cells without it."""
    import nbformat

    notebook = _stored(job)
    source = source_digest(notebook.cells)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    if job.given:
        lines = ["# Parameters", *(f"{name} = {_literal(value)}" for name, value in job.given.items())]  # as papermill writes it
        cell = nbformat.v4.new_code_cell("\n".join(lines), metadata={"tags": ["injected-parameters"]})
        cell["id"] = "injected-parameters"
        place = next(k for k, each in enumerate(notebook.cells) if "parameters" in each.metadata.get("tags", []))
        notebook.cells.insert(place + 1, cell)
    return notebook, source


def _literal(value: object) -> str:
    return f'float("{value}")' if value in (float("inf"), -float("inf")) else repr(value)


def merged(found: list) -> list:
    """Joins printed text that arrived in several pieces: how many pieces there are depends on the clock.

    Args:
        found: the outputs of a cell.

    Example:
        >>> merged([{"output_type": "stream", "name": "stdout", "text": text} for text in ("6 * ", "7")])
        [{'output_type': 'stream', 'name': 'stdout', 'text': '6 * 7'}]
    """
    joined: list = []
    for output in found:
        last = joined[-1] if joined else {}
        if output["output_type"] == "stream" and last.get("name") == output.get("name"):
            last["text"] += output["text"]
        else:
            joined.append(output)
    return joined
