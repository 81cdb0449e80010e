"""Running a notebook of the book with parameters of one's own."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from .. import _checks
from .. import _files as files
from ..notebook import parameters

__all__ = ["NotebookError", "find", "names", "run"]


class NotebookError(RuntimeError):
    """A notebook that does not exist, cannot be written or fails in one of its cells."""


def folder() -> Path:
    """Where the notebooks are: ``notebooks`` in the current folder or in a checkout's root."""
    places = (Path.cwd() / "notebooks", Path(__file__).resolve().parents[2] / "notebooks")
    for place in places:
        if place.is_dir():
            return place
    raise NotebookError(f"no folder notebooks at {' or '.join(map(str, places))}: run this inside a checkout")


def names() -> list[str]:
    """The names of all notebooks.

    Example:
        >>> "first_run" in names()
        True
    """
    return sorted(path.stem for path in folder().glob("*.ipynb"))


def find(name: str) -> Path:
    """The file of the named notebook.

    Args:
        name: without folder and ending.

    Raises:
        NotebookError: an unknown name; the message lists those that exist.

    Example:
        >>> find("first_run").name
        'first_run.ipynb'
    """
    if _checks.text("name", name) not in names():
        raise NotebookError(f"there is no notebook {_checks.plain(name)}; there are: {', '.join(names())}")
    return folder() / f"{name}.ipynb"


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
        bisam.notebook.parameters.ParameterError: alpha must be in (0, 100], got -1.0
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
    try:
        import papermill
    except ImportError:
        raise NotebookError('papermill is not installed: pip install "bisam[notebooks]"') from None
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
