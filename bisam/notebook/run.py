"""Running a notebook of the book with parameters of one's own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from .. import _checks
from . import outputs
from .attempt import Attempt
from .find import NotebookError
from .html import check_ready, write_html
from .job import Job, job
from .watch import watched

__all__ = ["run"]


def run(
    name: str, given: Mapping[str, str], output: Path | None = None, *, progress: bool = True, replace: bool = False,
    figures: Path | None = None, html: bool = False,
) -> Path:  # fmt: skip
    """Executes a notebook in the current folder, with parameters given as text.

    Args:
        name: of the notebook, or its file.
        given: parameter name to text; all are checked before the first cell runs.
        output: file to write, in one piece when the last cell has run. If not given it is ``_build/notebooks/NAME.ipynb``, with every parameter that
            is not at its default in the name, and a number where that is there already.
        progress: say how long it will take, and show a bar.
        replace: an output that is there may be replaced.
        figures: folder for the figures as SVG and PDF.
        html: also write ``NAME.html``, one file to read.

    Returns:
        The executed notebook. Beside it is a folder with its tables and parameters, ``NAME.data``.

    Raises:
        NotebookError: no such notebook, an output that is there or cannot be written, a kernel that died, or an error in a cell. What has run is then kept
            beside the output, in ``NAME.partial.ipynb``; an old output stays as it was.
        ParameterError: an unknown name, a wrong type or a value out of range; nothing has run.
        ModuleNotFoundError: the packages of the extra ``notebooks`` are not there, or those of ``docs`` for HTML.

    Example:
        >>> run("lower_bounds", {"alpha": "-1"})
        Traceback (most recent call last):
        bisam.notebook.declarations.ParameterError: alpha must be in (0, 100], got -1.0
    """
    output = _checks.optional("output", output, of=_checks.path)
    _checks.flag("progress", progress)
    _checks.flag("replace", replace)
    figures = _checks.optional("figures", figures, of=_checks.path, words="the path of a folder")
    if _checks.flag("html", html):
        check_ready()
    one = job(name, given)
    wanted = output or Path("_build") / "notebooks" / f"{one.stem}.ipynb"
    try:
        with outputs.claimed(wanted, fixed=output is not None, replace=replace) as place:
            if progress:
                print(one.estimate(), file=sys.stderr, flush=True)
            _execute(one, place, figures, replace=replace, progress=progress)
            if html:
                _write(place, progress)
            return place
    except OSError as error:
        raise NotebookError(_why(error, wanted)) from None


def _execute(one: Job, place: Path, figures: Path | None, *, replace: bool, progress: bool) -> None:
    with Attempt(one, place, figures=figures) as attempt:
        try:
            attempt.execution.start()
            watched(attempt.execution, one.path.stem, attempt.feed, progress)
        except BaseException as stop:  # Ctrl-C and its like
            attempt.execution.stop()
            stop.add_note(attempt.keep())
            raise
        attempt.finish(replace=replace)


def _write(place: Path, progress: bool) -> None:
    found = write_html(place, place.with_suffix(".html"))
    if progress:
        print("\n".join([f"{place.with_suffix('.html')}", *found]), file=sys.stderr, flush=True)


def _why(error: OSError, wanted: Path) -> str:
    return f"output {error.filename} {error.strerror}" if error.filename else f"output {wanted} cannot be written: {error.strerror or error}"
