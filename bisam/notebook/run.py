"""Running a notebook of the book with parameters of one's own."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from .. import _checks
from .. import _files as files
from . import parameters
from .find import NotebookError, find

__all__ = ["run"]


def run(name: str, given: Mapping[str, str], output: Path | None = None, *, progress: bool = True) -> Path:
    """Executes a notebook through papermill with parameters given as text.

    Args:
        name: of the notebook.
        given: parameter name to text; all are checked before the first cell runs.
        output: file to write, in one piece when the last cell has run; ``_build/notebooks/<name>.ipynb`` if not given.
        progress: show papermill's bar.

    Returns:
        The executed notebook.

    Raises:
        NotebookError: no such notebook, no permission to write, or an error in a cell: then the executed notebook
            with the traceback is there all the same.
        ParameterError: an unknown name, a wrong type or a value out of range; nothing has run.

    Example:
        >>> run("lower_bounds", {"alpha": "-1"})
        Traceback (most recent call last):
        bisam.notebook.declarations.ParameterError: alpha must be in (0, 100], got -1.0
    """
    output = _checks.optional("output", output, of=_checks.path)
    _checks.flag("progress", progress)
    path = find(name)
    values = parameters.from_text(parameters.from_notebook(path), given)
    output = output or Path("_build") / "notebooks" / path.name
    try:
        files.check_writable(output)
        return _execute(path, output, values, progress)
    except OSError as error:
        why = error.strerror if error.filename == str(output) else f"cannot be written: {error}"
        raise NotebookError(f"output {output} {why}") from None


def _execute(path: Path, output: Path, values: dict, progress: bool) -> Path:
    papermill = _checks.needs("papermill", extra="notebooks")
    with tempfile.TemporaryDirectory() as folder:  # papermill writes after every cell; what it replaces must be whole
        draft = Path(folder) / output.name
        try:
            papermill.execute_notebook(
                str(path), str(draft), values, kernel_name="python3", cwd=str(path.parent), progress_bar=progress,
                extra_arguments=["--log-level=ERROR"],  # the kernel warns of TCP, which here stays on this machine
            )
            files.write_whole(output, draft.read_bytes())
        except papermill.PapermillExecutionError as error:
            files.write_whole(output, draft.read_bytes())
            raise NotebookError(
                f"cell {error.exec_count} of {path.stem} failed with {error.ename}: {error.evalue}\n"
                f"the executed notebook with the traceback is {output}"
            ) from None
    return output
