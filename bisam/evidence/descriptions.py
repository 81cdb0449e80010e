"""Runs as files: a description is read from JSON, from TOML or from a record, and those of a plan are written out."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import _checks
from .. import _files as files
from .._kinds import KINDS
from ..axes.recipe import Recipe
from ..methods.table import recipe
from ..training import Run
from ..training.environment import environment, threads_held
from . import record, schema
from .listing import experiment
from .places import RESULTS
from .plans import Planned, runs_planned

__all__ = ["Description", "changed", "export", "read", "recipe_from", "value_of"]

KIND = {".json": record.parsed, ".toml": tomllib.loads}
AROUND = ("run", "threads", "experiment", "file", "scale", "environment", "rows", "skipped", "seconds")  # what stands beside a run in a file


@dataclass(frozen=True)
class Description:
    """What a file says of a run, before the run is made: another option may still take the place of a field.

    Args:
        fields: of a :class:`~bisam.training.Run`, name to value; those that are left out have their defaults.
        threads: that the run is made with, on which the last bits depend on a CPU; ``None`` leaves it to torch.

    Raises:
        TypeError, ValueError: an unknown field, or a number of threads that is none.

    Example:
        >>> Description({"epochs": 3}).run(lr=0.05).lr
        0.05
    """

    fields: dict = dataclasses.field(default_factory=dict)
    threads: int | None = None

    def __post_init__(self):
        _checks.part("fields", self.fields, dict, "a dictionary from the fields of a bisam.training.Run to their values")
        known = [one.name for one in dataclasses.fields(Run)]
        for name in self.fields:
            _checks.choice("a name among the fields", name, known)
        _checks.keep(self, _checks.optional, "threads", of=_checks.whole)

    def run(self, **changes) -> Run:
        """The run, with some fields of its description changed first."""
        return Run(**{**self.fields, **changes})


def read(path: str | Path) -> Description:
    """The run that a file describes.

    The file holds the fields of a :class:`~bisam.training.Run`, or holds them as ``run`` beside other things: a record of the
    ledger, which is checked wherever it lies, a ``history.json`` of ``bisam train``, and what :func:`export` wrote.

    Args:
        path: of a file that ends in ``.json`` or ``.toml``.

    Raises:
        OSError: the file cannot be read.
        TypeError, ValueError: it is neither JSON nor TOML, holds something that is no field, or a recipe that is none.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "mine.toml"
        ...     _ = path.write_text('epochs = 3\\nrecipe = { name = "bisam-log", rho = 0.1, ascent.mu = 2 }')
        ...     found = read(path).run()
        >>> found.epochs, found.recipe.radius.rho, found.recipe.ascent.mu
        (3, 0.1, 2)
        >>> read(RESULTS / "runs" / "first_run" / "sam-noise40-seed0.json").threads
        1
    """
    path = _checks.path("path", path)
    parsed = KIND[_checks.choice(f"the ending of {_checks.plain(str(path))}", path.suffix, tuple(KIND))]
    if path.stat().st_size > record.LARGEST:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, and a description has at most {record.LARGEST}")
    try:
        return _described(parsed(path.read_bytes().decode("utf-8")))
    except (TypeError, ValueError, RecursionError) as error:  # broken TOML and broken UTF-8 are ValueErrors too
        raise (TypeError if isinstance(error, TypeError) else ValueError)(f"{path}: {error}") from None


def _described(found: object) -> Description:
    _checks.part("it", found, dict, "the fields of a run, or a dictionary that holds them as run")
    if "run" not in found:
        return Description(_with_recipe(found))
    if "schema" in found:
        for wrong in schema.faults(found):
            raise ValueError(wrong)
        return Description(_with_recipe(found["run"]), record.threads(found))
    for name in found:
        _checks.choice("a name beside run", name, AROUND)
    made_on = _checks.part("environment", found.get("environment", {}), dict, "a dictionary")
    return Description(_with_recipe(found["run"]), found.get("threads", made_on.get("threads")))


def _with_recipe(fields: object) -> dict:
    _checks.part("run", fields, dict, "a dictionary of the fields of a run")
    return {**fields, "recipe": recipe_from(fields["recipe"])} if "recipe" in fields else dict(fields)


def recipe_from(value: str | dict) -> Recipe:
    """A recipe as a description holds it.

    Args:
        value: the name of a recipe; or changes to a named one, ``name`` and beside it ``rho`` and any axis or part of it; or the
            dictionary that :meth:`bisam.axes.recipe.Recipe.to_dict` makes.

    Raises:
        TypeError, ValueError: none of these, an unknown name, or a change that the recipe cannot take.

    Example:
        >>> recipe_from({"name": "sam", "rho": 0.1, "geometry": {"kind": "Adaptive"}}).radius.rho
        0.1
    """
    if isinstance(value, str):
        return recipe(value)
    _checks.part("recipe", value, dict, "the name of a recipe, changes to a named one, or a dictionary as Recipe.to_dict() makes it")
    if "kind" in value:
        return Recipe.from_dict(value)
    found = changed(recipe(value.get("name")), {axis: part for axis, part in value.items() if axis not in ("name", "rho")})
    return found.with_rho(value["rho"]) if "rho" in value else found


def changed(method: Recipe, settings: Mapping[str, object]) -> Recipe:
    """A recipe with parts of it set by their dotted names; its own name stays.

    Args:
        method: the recipe.
        settings: such as ``"ascent.mu"`` to its value. A part as a whole is a dictionary with its ``kind``, or the kind alone; a
            dictionary without a kind holds changes of the part that is there.

    Raises:
        TypeError, ValueError: a name that the recipe does not have, or a value that is not allowed there.

    Example:
        >>> changed(recipe("bisam-log"), {"ascent.mu": 2, "descent": {"smoothing": 0.1}, "geometry": "Adaptive"}).ascent.mu
        2
    """
    choices = _checks.part("method", method, Recipe, "a bisam.Recipe").to_dict()
    _checks.part("settings", settings, Mapping, "a dictionary from dotted names to values")
    for path, value in settings.items():
        _put(choices, _checks.text("a name among the settings", path), value, method.name)
    return Recipe.from_dict(choices)


def _put(choices: dict, path: str, value: object, name: str) -> None:
    if isinstance(value, dict) and "kind" not in value:
        for inner, entry in value.items():
            _put(choices, f"{path}.{inner}", entry, name)
        return
    inner, walked = choices, f"the recipe {name}"
    for step in path.split("."):
        part = inner
        if not isinstance(part, dict):
            said = "none" if part is None else _checks.shown(part)
            raise ValueError(f"{_checks.plain(path)} cannot be set, for {walked} is {said}: set the part as a whole, with its kind")
        known = [each for each in part if each != "kind"]
        if step not in known:
            raise ValueError(f"{_checks.plain(path)} cannot be set: {walked} has {', '.join(known) or 'nothing to set'}; got {_checks.shown(step)}")
        inner, walked = part[step], f"{step} of the recipe {name}"
    part[step] = {"kind": value} if isinstance(value, str) and value in KINDS and step != "name" else value


def value_of(text: str) -> object:
    """A value as it is typed: JSON, else a value of TOML, else the text itself.

    Args:
        text: such as ``2``, ``true``, ``none``, ``inf``, ``{kind = "Tanh", alpha = 0.2}``, ``{"kind": "Tanh"}`` or ``Adaptive``.

    Example:
        >>> [value_of(text) for text in ("2", "none", '{kind = "Tanh", alpha = 0.2}', "Adaptive")]
        [2, None, {'kind': 'Tanh', 'alpha': 0.2}, 'Adaptive']
    """
    if _checks.text("text", text) == "none":
        return None
    with contextlib.suppress(ValueError):
        return record.parsed(text)
    with contextlib.suppress(ValueError, RecursionError):
        found = tomllib.loads(f"x = {text}")
        if list(found) == ["x"]:  # and no line break with a second setting behind it
            return found["x"]
    return text


def export(planned: Sequence[Planned], folder: str | Path, results: Path = RESULTS) -> list[Path]:
    """Writes each planned run as a file, ``FOLDER/EXPERIMENT/RUN.json``, which :func:`read` takes, and returns their paths.

    Each file asks for one thread, as :func:`~bisam.evidence.reproduce.carry_out` does, so that ``bisam train --from`` of it ends at
    the same weights. A file that is there and describes the same run is left alone.

    Args:
        planned: what :func:`~bisam.evidence.plans.plan` returned.
        folder: where to.
        results: the ledger in whose list the experiments are.

    Raises:
        OSError: a folder cannot be written to.
        ValueError: a file is there that describes another run, or cannot be read; nothing has been written.

    Example:
        >>> import tempfile
        >>> from bisam.evidence.plans import plan
        >>> one = plan("first_run")[:1]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read(export(one, folder)[0]).run() == one[0].run
        True
    """
    planned, folder = runs_planned(planned), _checks.path("folder", folder, "the path of a folder")
    paths = [folder / one.experiment / f"{one.file}.json" for one in planned]
    for path, one in zip(paths, planned, strict=True):
        if path.exists() and read(path).run() != one.run:
            raise ValueError(f"{path} is there already and describes another run; choose another folder")
    new = {path: one for path, one in zip(paths, planned, strict=True) if not path.exists()}
    for place in {path.parent: path for path in new}.values():
        files.check_writable(place)
    for path, one in new.items():
        files.write_whole(path, json.dumps(_exported(one, results), indent=1) + "\n")
    return paths


def _exported(one: Planned, results: Path) -> dict:
    with threads_held(1):
        made_on = environment(one.run.device, 0.0, one.run.precision)
    about = {"experiment": one.experiment, "file": one.file, "scale": experiment(one.experiment, results).scale}
    return {**about, "threads": 1, "run": one.run.to_dict(), "environment": made_on}
