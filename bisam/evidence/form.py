"""The form of an entry of claims.toml: every field by its kind.

The tables below say what a field may be. A field that they do not name is checked by its annotation alone.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import reprlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING

from .. import _checks
from .. import _files as files
from ..axes.radius import Constant
from ..losses.cross_entropy import CrossEntropy
from ..methods.lets import Learned
from ..training import Run
from ..training.data.image_sets import SETS
from ..training.data.streamed import RESIZED_CROP
from .experiment import AXES, Experiment
from .published import rows

SHOWN = ("LETS", "figure-2")  # what the texts show without numbers that results/published.csv could hold
LONGEST = 1000  # characters of a text
MOST_EPOCHS = 1_000_000  # a day of the smallest run; what a budget of equal passes doubles stays far from the bounds of a number


def _must(holds: bool, words: str, kind: type[Exception] = ValueError) -> None:
    if not holds:
        raise kind(f"must {words}")


def _text(value: object) -> None:
    _must(isinstance(value, str), "be a text", TypeError)
    control = any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in value)
    _must(not control, "hold no control characters")
    _must(len(value) <= LONGEST and value == value.strip(), f"have at most {LONGEST} characters, and no space at its ends")


def _whole(value: object) -> None:
    _must(type(value) is int and abs(value) < 2**63, "be a whole number", TypeError)


def _real(value: object) -> None:
    _must(type(value) in (int, float) and abs(value) < 1e300, "be a finite number", TypeError)


def _flag(value: object) -> None:
    _must(isinstance(value, bool), "be true or false", TypeError)


def _plain(value: object) -> None:
    if isinstance(value, str):
        _text(value)
    elif not isinstance(value, bool):
        _real(value)


def _table(value: object) -> None:
    _must(isinstance(value, dict), "be a table", TypeError)
    for name, inner in value.items():
        _text(name)
        _must(not isinstance(inner, dict), f"hold no table, as at {name}", TypeError)
        for each in inner if isinstance(inner, list | tuple) else [inner]:
            _within(name, _plain, each)


def _list(check: Callable) -> Callable:
    def checked(value: object) -> None:
        _must(isinstance(value, list | tuple), "be a list", TypeError)
        for each in value:
            check(each)
        _must(not any(each in value[:k] for k, each in enumerate(value)), "hold nothing twice")

    return checked


def _within(name: str, check: Callable, value: object) -> None:
    try:
        check(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error} as {name}") from None


KINDS = {
    "str": _text, "int": _whole, "float": _real, "float | None": _real, "bool": _flag, "dict": _table,
    "tuple[str, ...]": _list(_text), "tuple[float, ...]": _list(_real),
}  # fmt: skip


def _something(value: object) -> None:
    _must(bool(value), "not be empty")


def _at_least(least: float) -> Callable:
    return lambda value: _must(value >= least, f"be at least {least}")


def _one_of(*allowed: object) -> Callable:
    return lambda value: _must(value in allowed, f"be one of {', '.join(map(str, allowed))}")


def _epochs(value: int) -> None:
    _must(1 <= value <= MOST_EPOCHS, f"be at least 1 and at most {MOST_EPOCHS}")


def _rate(value: float) -> None:
    Learned(0.1, value)


# What must stand beside a field of a run so that it takes part; whether it does in the plan is seen when all of a run is known.
COMPANIONS = {
    "beta2": lambda value: {"base": "adamw"},
    "warmup": lambda value: {"rate_by": "step"},
    "milestones": lambda value: {"schedule": "step"},
    "decay": lambda value: {"schedule": "step", "milestones": (0.5,)},
    "schedule": lambda value: {"milestones": (0.5,)} if value == "step" else {},
    "select": lambda value: {"metrics": (value,)} if value != "accuracy" else {},
    "accumulate": lambda value: {"batch_size": value},
    "data": lambda value: {"loading": "stream"} if value in SETS else {},
    "loading": lambda value: {"data": "imagenet"} if value == "stream" else {},
    "image_size": lambda value: {"data": "imagenet", "loading": "stream"},
    "augment": lambda value: {"data": "imagenet", "loading": "stream"} if value == RESIZED_CROP else {},
}


def _setting(name: str, value: object) -> None:
    """A field of a run, a radius or a rate, as they check it themselves."""
    _checks.choice("axis", name, AXES)
    if name == "epochs":
        _within(name, _whole, value)
        _within(name, _epochs, value)
    if name == "rho":
        Constant(value)
    elif name == "rate":
        _rate(value)
    else:
        beside = COMPANIONS[name](value) if name in COMPANIONS else {}
        Run(**{**beside, name: value})


def _each(check: Callable, *values: Iterable) -> None:
    for given in zip(*values, strict=True):
        check(*given)


def _axes(value: dict) -> None:
    for name, inner in value.items():
        _list(_plain)(inner)
        _within(name, _something, inner)
        for each in inner:
            _setting(name, each)


OWN = {
    "Experiment": {
        "title": _something, "methods": _something, "seeds": _at_least(1), "epochs": _epochs, "first_seed": _at_least(0), "rho": Constant,
        "schema": _one_of(1, 2, 3), "machine": _one_of("", "cpu", "gpu"),
        "rate": _rate, "smoothing": CrossEntropy, "convention": lambda value: CrossEntropy(0.1, value),
        "label_noise": lambda value: _axes({"label_noise": value}), "axes": _axes,
        "settings": lambda value: _each(_setting, value, value.values()), "radius": lambda value: _each(Constant, value.values()),
        "mu": lambda value: _each(functools.partial(_checks.positive, "mu"), value.values()),
        "tables": lambda value: _each(_one_of(*dict.fromkeys(row["table"] for row in rows()), *SHOWN), value),
    },
    "Claim": {
        "id": lambda value: _each(functools.partial(files.safe_name, "each part between slashes"), value.split("/")),
        "statement": _something, "ours": _something, "theirs": _something, "pairs": _at_least(0),
    },
    "Family": {"title": _something, "why": _something},
}  # fmt: skip


def made(kind: type, where: str, fields: object, faults: list[str], **given: object) -> object | None:
    """The entry, or ``None`` with its faults added."""
    if not isinstance(fields, dict):
        faults.append(f"{where} must be a table, got {reprlib.repr(fields)}")
        return None
    wrong = list(_field_faults(kind, fields, given))
    try:
        one = None if wrong else kind(**given, **{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
        wrong += _entry_faults(one) if isinstance(one, Experiment) else []
    except (TypeError, ValueError) as error:
        wrong.append(str(error))
    faults += [f"{where}: {fault}" for fault in wrong]
    return None if wrong else one


def _field_faults(kind: type, fields: dict, given: dict) -> Iterator[str]:
    known = {part.name: part for part in dataclasses.fields(kind) if part.name not in given}
    for name in fields:
        if name not in known:
            yield f"{name!r} is no field; there are {', '.join(known)}"
    for name, part in known.items():
        if name not in fields:
            if part.default is MISSING and part.default_factory is MISSING:
                yield f"{name} is missing"
            continue
        try:
            for check in (KINDS.get(part.type), OWN[kind.__name__].get(name)):
                if check is not None:
                    check(fields[name])
        except (TypeError, ValueError, OverflowError) as error:
            yield f"{name} {error}, got {reprlib.repr(fields[name])}" if str(error).startswith("must") else f"{name}: {error}"


def _entry_faults(plan: Experiment) -> Iterator[str]:
    """What is wrong between the fields of an experiment."""
    own = [name for name in ("label_noise", "rho", "rate") if getattr(plan, name) not in (None, ())]
    for name in (*(axis for axis in plan.axes if axis in (*own, *plan.settings)), *(name for name in own if name in plan.settings)):
        yield f"{name} must be given once, as an axis, a setting or a field"
    for field, given in (("radius", plan.radius), ("mu", plan.mu)):
        for name in given:
            if name not in plan.methods:
                yield f"{field} is given for {name}, which is none of its methods"
    places = len(plan.methods) * math.prod(len(values) for values in plan.grid.values())
    names = dataclasses.replace(plan, seeds=1).cells()
    if len(names) < places:
        yield "axes have values whose records would have one name"
    for name in names:
        files.safe_name("the name of a record", name)
    yield from _run_faults(plan)


def _run_faults(plan: Experiment) -> Iterator[str]:
    """What its runs refuse, one after the other: choices that do not go together."""
    try:
        dataclasses.replace(plan, seeds=1).runs()
    except (TypeError, ValueError) as error:
        yield str(error)
