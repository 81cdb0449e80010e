"""Choices as plain values: each part of a recipe has a kind, a name that records keep whatever its class is called later."""

from __future__ import annotations

import dataclasses
import math
import numbers

from . import _checks

# Of a field that a part was given after records had been made of it: records do not name its default, so that the older ones are still of that part.
LATER = {"later": True}
KINDS: dict[str, type] = {}  # of the parts that records name, by kind


def kind(name: str):
    """Decorates the class of a part: records call it by this name."""

    def registered(part: type) -> type:
        part.kind = name
        KINDS[name] = part
        return part

    return registered


def plain(value):
    """A value or part as what JSON can hold; :func:`built` turns it back."""
    if isinstance(value, tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        if value == math.inf:
            return "inf"  # JSON has no infinity
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    if not dataclasses.is_dataclass(value):
        return value
    said = [field for field in dataclasses.fields(value) if not (field.metadata.get("later") and getattr(value, field.name) == field.default)]
    fields = {field.name: plain(getattr(value, field.name)) for field in said}
    return {"kind": getattr(type(value), "kind", type(value).__name__), **fields}


def built(value):
    """The value or part that :func:`plain` wrote; a ``ValueError`` for a kind or field that is unknown."""
    if isinstance(value, str):
        return math.inf if value == "inf" else value
    if not isinstance(value, dict):
        return value
    kind = _checks.choice("choices: kind", value.get("kind"), tuple(KINDS))
    known = [field.name for field in dataclasses.fields(KINDS[kind])]
    for name in value:
        if name != "kind":
            _checks.choice(f"choices of kind {kind!r}", name, known)
    # A name stays text, also if it reads "inf".
    return KINDS[kind](**{name: part if name == "name" else built(part) for name, part in value.items() if name != "kind"})
