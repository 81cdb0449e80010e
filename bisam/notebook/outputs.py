"""Where executed notebooks go: names made from the parameters, and a place that belongs to one execution alone."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from .. import _checks
from .. import _files as files
from .declarations import Parameter
from .find import NotebookError

__all__ = ["changed", "claimed", "data_of", "partial_of", "put", "stem"]

LONGEST = 120  # characters of a name, so that endings and the names of drafts have room
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def changed(parameters: Mapping[str, Parameter], values: Mapping[str, object]) -> dict[str, object]:
    """The values that are not the declared defaults, in the order of the declarations.

    Args:
        parameters: what is declared.
        values: what was given.

    Example:
        >>> from bisam.notebook.declarations import declared
        >>> changed(declared("n: int = 3  # seeds\\nrho: float = 1.0  # radius"), {"rho": 0.5, "n": 3})
        {'rho': 0.5}
    """
    return {name: values[name] for name, one in parameters.items() if name in values and values[name] != one.default}


def stem(name: str, parameters: Mapping[str, Parameter], values: Mapping[str, object]) -> str:
    """A name for an executed notebook: its own, and each parameter that is not at its default.

    What cannot stand in the name of a file becomes a dash, and a long name is cut; both end in a digest of the parameters, so that
    different ones have different names.

    Args:
        name: of the notebook.
        parameters: what is declared.
        values: what was given.

    Example:
        >>> from bisam.notebook.declarations import declared
        >>> stem("first_run", declared("n: int = 3  # seeds\\nrho: float = 1.0  # radius"), {"rho": 0.5, "n": 3})
        'first_run-rho=0.5'
    """
    found = changed(parameters, values)
    whole = "-".join([name, *(f"{key}={value}" for key, value in found.items())])
    plain = re.sub("[^A-Za-z0-9_.+=-]+", "-", whole)
    if plain == whole and len(plain) <= LONGEST:
        return plain
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:8]
    return f"{plain[:LONGEST]}-{digest}"


def partial_of(path: Path) -> Path:
    """Where what has run of an execution is kept that did not come to its end.

    Example:
        >>> partial_of(Path("out.ipynb")).name
        'out.partial.ipynb'
    """
    return path.with_name(f"{path.stem}.partial.ipynb")


def data_of(path: Path) -> Path:
    """The folder of the tables of an executed notebook, beside it.

    Example:
        >>> data_of(Path("out.ipynb")).name
        'out.data'
    """
    return path.with_name(f"{path.stem}.data")


@contextlib.contextmanager
def claimed(path: Path, *, fixed: bool, replace: bool) -> Iterator[Path]:
    """A place for an executed notebook that nobody else writes to during the block.

    What is there already stays. Of a name that is not ``fixed`` the next free one is taken: ``first_run-2.ipynb``.

    Args:
        path: the place that is wanted.
        fixed: this place or none.
        replace: what is there may be replaced.

    Raises:
        NotebookError: the place is taken, or another execution has it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     wanted = Path(folder) / "first_run.ipynb"
        ...     with claimed(wanted, fixed=False, replace=False) as one, claimed(wanted, fixed=False, replace=False) as two:
        ...         one.name, two.name
        ('first_run.ipynb', 'first_run-2.ipynb')
    """
    for number in itertools.count(1):
        place = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        files.check_writable(place)
        with files.held(place.with_name(f".{place.name}.lock")) as mine:
            there = [] if replace else [one for one in (place, data_of(place), place.with_suffix(".html")) if os.path.lexists(one)]
            if mine and not there:
                yield place
                return
        if there and fixed:
            raise NotebookError(f"output {there[0]} is there already; --force replaces it, and another --output leaves it alone")
        if fixed or replace:
            raise NotebookError(f"output {place} is being written by another command that runs now; wait for it, or give another --output")


def put(path: Path, text: str, *, replace: bool) -> None:
    """Writes a file in one piece, and over another only where that is allowed.

    Args:
        path: of the file, which :func:`~bisam.notebook.outputs.claimed` has given.
        text: its content.
        replace: what is there may be replaced.

    Raises:
        FileExistsError: it has come to be there meanwhile.
        OSError: the disk does not take it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     put(Path(folder) / "out.ipynb", "{}", replace=False)
        ...     (Path(folder) / "out.ipynb").read_text()
        '{}'
    """
    _checks.flag("replace", replace)
    if replace:
        files.write_whole(path, text)
        return
    try:
        files.write_new(path, text)
    except OSError as error:
        if error.errno not in NO_LINKS or os.path.lexists(path):
            raise
        files.write_whole(path, text)  # a file system without hard links; the lock keeps other commands away
