"""A ledger of one's own: the experiments of this project, planned anew or with other settings, beside records that are not mixed with its own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .. import __version__, _checks
from .. import _files as files
from ..training.environment import commit
from ..training.run import COMPILE, PRECISIONS
from .claim import Claim
from .experiment import Experiment
from .listing import claims, experiments, families
from .places import RESULTS
from .plans import Planned, runs_planned
from .record import SCHEMA

__all__ = ["SETTINGS", "check_planned", "derive"]

SETTINGS = {"precision": tuple(PRECISIONS), "compile": COMPILE}  # what may be another than planned, and its values


def derive(folder: str | Path, settings: Mapping[str, str], names: Sequence[str] = (), results: Path = RESULTS) -> list[str]:
    """Writes the list of claims of a ledger of one's own: that of another ledger, with some settings of all experiments replaced.

    A record must fit the plan of its ledger, so a run with another setting belongs to another plan. As the new ledger has no
    records, none of its experiments is stopped or has an earlier form. Those that cannot be run with the settings are left out with
    their claims; they are named in the head of the list, and returned.

    Args:
        folder: the new ledger; a list that is there is kept, and nothing is written.
        settings: ``"precision"`` and ``"compile"`` to their values, or some of them; may be empty.
        names: of experiments that must not be left out.
        results: the ledger whose list is taken.

    Raises:
        OSError: the folder cannot be written to.
        ValueError: an unknown setting or value, an experiment among ``names`` that cannot be run so, or a folder with other things in it.

    Example:
        >>> import tempfile
        >>> from bisam.evidence.listing import experiment
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = derive(folder, {"precision": "bfloat16"})
        ...     experiment("digits", Path(folder)).settings["precision"]
        'bfloat16'
    """
    path = _checks.path("folder", folder, "the path of a folder") / "claims.toml"
    if path.parent.is_dir() and not path.exists() and any(path.parent.iterdir()):
        raise ValueError(f"folder must be a new or an empty one, or a ledger with its claims.toml; {path.parent} holds other things")
    check_settings(settings)
    _checks.sequence("names", names)
    results = _checks.path("results", results, "the path of a folder")
    plans, without = {}, {}
    for one in experiments(results).values():
        try:
            plans[one.name] = _with(one, settings)
        except (TypeError, ValueError) as error:
            without[one.name] = str(error)
    for name in names:
        if name in without:
            raise ValueError(f"{_words(settings)} cannot be set for {name}: {without[name]}")
    lines = [
        f"# The experiments and claims of bisam {__version__}, commit {commit() or 'unknown'}, planned anew.",
        f"# Changed in all of them: {_words(settings)}.",
        "# The rule that judges is in the head of results/claims.toml of that project. Written by `bisam reproduce --ledger`.",
        *(f"# Left out: {name}, for {' '.join(why.split())}." for name, why in without.items()),
        "",
    ]
    for table, entries in (("family", families(results)), ("experiment", plans)):
        for one in entries.values():
            lines += [f"[{table}.{_key(one.name)}]", *_fields(one), ""]
    for claim in claims(None, results):
        if claim.experiment not in without:
            lines += ["[[claim]]", *_fields(claim), ""]
    files.check_writable(path)
    with contextlib.suppress(FileExistsError):  # another process made the same one
        files.write_new(path, "\n".join(lines))
    return list(without)


def check_settings(settings: Mapping[str, str]) -> None:
    """A ``ValueError`` unless each is a setting that may be replaced, with a value that it can have."""
    for name, value in _checks.part("settings", settings, Mapping, "a dictionary from settings to their values").items():
        _checks.choice(name, value, SETTINGS[_checks.choice("a name among the settings", name, tuple(SETTINGS))])


def _with(one: Experiment, settings: Mapping[str, str]) -> Experiment:
    if axes := [name for name in settings if name in one.axes]:
        raise ValueError(f"{axes[0]} is an axis of {one.name}")
    changed = dataclasses.replace(one, settings={**one.settings, **settings}, stopped="", schema=SCHEMA)
    dataclasses.replace(changed, seeds=1).runs()  # a method may refuse a setting
    return changed


def _words(settings: Mapping[str, str]) -> str:
    return " and ".join(f"{name} {value}" for name, value in settings.items()) or "nothing"


def _fields(one: Experiment | Claim) -> Iterable[str]:
    """The fields of an entry that differ from their defaults, as lines of TOML."""
    for part in dataclasses.fields(one):
        default = part.default if part.default_factory is dataclasses.MISSING else part.default_factory()
        if part.name != "name" and (value := getattr(one, part.name)) != default:
            yield f"{part.name} = {_toml(value)}"


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_key(key)} = {_toml(inner)}' for key, inner in value.items())} }}" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)  # of texts without control characters, numbers and flags TOML says the same as JSON


def _key(name: str) -> str:
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else _toml(name)


def check_planned(planned: Sequence[Planned], settings: Mapping[str, str], folder: Path = RESULTS) -> None:
    """A ``ValueError`` unless planned runs have the settings that are asked for; a record with others would not fit its plan.

    Args:
        planned: what :func:`~bisam.evidence.plans.plan` returned.
        settings: as in :func:`derive`.
        folder: the ledger that they were planned from, for the error.

    Example:
        >>> from bisam.evidence.plans import plan
        >>> check_planned(plan("first_run"), {"precision": "float32"})
    """
    check_settings(settings)
    for one in runs_planned(planned):
        for name, value in settings.items():
            if (own := getattr(one.run, name)) != value:
                raise ValueError(
                    f"{name} must be {own} for {one.experiment}, as {Path(folder) / 'claims.toml'} plans it, or its records would not fit "
                    f"their plan; got {value!r}. To run it so, name a ledger of its own that is not there yet: --ledger FOLDER"
                )
