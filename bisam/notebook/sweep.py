"""Sweeps: the product of several values of several parameters, all checked before anything runs."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import _checks
from .. import _files as files
from .._checks import plain, shown
from . import parameters
from .declarations import Parameter, ParameterError
from .find import NotebookError, find
from .job import Job
from .outputs import stem

__all__ = ["axis", "folder_of", "opened", "plan"]

RANGE = re.compile(r"(-?\d{1,18}):(-?\d{1,18})(?::(-?\d{1,18}))?")
MOST = 200  # runs that nobody has to confirm
MOST_VALUES = 10_000
MARK = "sweep.json"


def axis(declared: Mapping[str, Parameter], text: str) -> tuple[str, list[str]]:
    """The parameter and the values of one ``--sweep``.

    Values have commas between, or semicolons where a value has commas in it. Of a whole number ``0:5`` is 0, 1, 2, 3, 4 and ``0:10:2`` every second, as Python counts.

    Args:
        declared: the parameters of the notebook.
        text: ``NAME=VALUES``.

    Raises:
        ParameterError: another form, an unknown parameter, no value, or one of them twice.

    Example:
        >>> from bisam.notebook.declarations import declared
        >>> known = declared("seed: int = 0  # first seed\\nrho: float = 0.1  # radius")
        >>> axis(known, "seed=0:3"), axis(known, "rho=0.1,0.2")
        (('seed', ['0', '1', '2']), ('rho', ['0.1', '0.2']))
    """
    name, sign, values = _checks.text("sweep", text).partition("=")
    if not sign or not values:
        raise ParameterError(f"sweep must be NAME=VALUES, such as rho=0.1,0.2,0.4 or seed=0:5; got {shown(text)}")
    if name not in declared:
        raise ParameterError(f"there is no parameter {plain(name)} to sweep; there are:\n{parameters.table(declared)}")
    texts = _values(declared[name], values)
    found = [parameters.from_text(declared, {name: each})[name] for each in texts if _is_alone(declared, name, each)]
    twice = [each for k, each in enumerate(found) if each in found[:k]]
    if twice:
        raise ParameterError(f"sweep {name} must have each value once, got {shown(twice[0])} twice")
    return name, texts


def _values(one: Parameter, values: str) -> list[str]:
    counted = RANGE.fullmatch(values) if one.kind == "int" else None
    if counted is None:
        between = ";" if ";" in values or one.allowed.startswith("some of ") else ","
        texts = [each.strip() for each in values.split(between)]
    else:
        first, end, step = (int(each) if each else 1 for each in counted.groups())
        texts = [] if step == 0 else range(first, end, step)
    if not 0 < len(texts) <= MOST_VALUES:
        raise ParameterError(f"sweep {one.name} must have between 1 and {MOST_VALUES} values, got {shown(values)}, which are {len(texts)}")
    return [str(each) for each in texts]


def _is_alone(declared: Mapping[str, Parameter], name: str, text: str) -> bool:
    """Whether a value is allowed without the others; one that needs another parameter is checked with it."""
    try:
        parameters.from_text(declared, {name: text})
    except ParameterError:
        return False
    return True


def plan(name: str, given: Mapping[str, str], axes: Sequence[str], many: bool = False) -> list[Job]:
    """Every run of a sweep.

    Args:
        name: of the notebook, or its file.
        given: parameter name to text, of those that all runs share.
        axes: what is swept, ``NAME=VALUES`` each.
        many: more than 200 runs are wanted.

    Raises:
        NotebookError: no such notebook.
        ParameterError: a value that is not allowed, a parameter that is given twice, or more than 200 runs that nobody has confirmed.

    Example:
        >>> [job.stem for job in plan("lower_bounds", {"gamma": "1"}, ["alpha=0.1,0.2"])]
        ['lower_bounds-gamma=1.0', 'lower_bounds-alpha=0.2-gamma=1.0']
    """
    path = find(name)
    declared = parameters.from_notebook(path)
    swept: dict[str, list[str]] = {}
    for text in axes:
        key, values = axis(declared, text)
        if key in swept or key in given:
            raise ParameterError(f"{key} must be given once, got it {'in two sweeps' if key in swept else 'in a sweep and by -p'}")
        swept[key] = values
    count = math.prod(map(len, swept.values()))
    if count > MOST and not many:
        raise ParameterError(f"sweep has {count} runs; more than {MOST} need --yes")
    cells = (dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values()))
    return [Job(path, declared, parameters.from_text(declared, {**given, **cell})) for cell in cells]


def folder_of(name: str, jobs: Sequence[Job], axes: Sequence[str]) -> Path:
    """Where a sweep is gathered if nobody says it: the same for more values of the same parameters, so that runs that are there are used.

    Args:
        name: of the notebook.
        jobs: what :func:`~bisam.notebook.sweep.plan` returned.
        axes: what is swept.

    Example:
        >>> axes = ["alpha=0.1,0.2"]
        >>> folder_of("lower_bounds", plan("lower_bounds", {"gamma": "1"}, axes), axes).as_posix()
        '_build/notebooks/lower_bounds-gamma=1.0-sweep-alpha'
    """
    swept = [text.partition("=")[0] for text in axes]
    shared = {key: value for key, value in jobs[0].values.items() if key not in swept}
    return Path("_build") / "notebooks" / "-".join([stem(name, jobs[0].declared, shared), "sweep", *sorted(swept)])


def opened(folder: Path, name: str) -> Path:
    """The folder of a sweep, made if it is not there.

    Args:
        folder: where the runs are gathered.
        name: of the notebook.

    Raises:
        NotebookError: the folder holds something else.
        OSError: it cannot be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sorted(path.name for path in opened(Path(folder) / "new", "first_run").iterdir())
        ['runs', 'sweep.json']
    """
    if folder.exists() and not folder.is_dir():
        raise NotebookError(f"output {folder} must be a folder for a sweep, and is a file")
    there = folder.exists() and any(folder.iterdir())
    try:
        owner = json.loads((folder / MARK).read_text(encoding="utf-8"))["notebook"] if there else name
    except (OSError, ValueError, KeyError, TypeError):
        raise NotebookError(f"output {folder} must be empty or a sweep of {name}, and holds something else") from None
    if owner != name:
        raise NotebookError(f"output {folder} must be empty or a sweep of {name}, and is one of {plain(owner)}")
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    files.write_whole(folder / MARK, json.dumps({"notebook": name}) + "\n")
    return folder
