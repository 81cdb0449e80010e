"""The form of one record: the schema that ships with the package, and the faults of a record by it."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import reprlib
from collections.abc import Iterator
from pathlib import Path

from .. import _checks
from .record import misfits

SCHEMA_FILE = Path(__file__).resolve().parent / "schema" / "record.json"


def schema() -> dict:
    """The JSON schema of a record, as it ships with the package."""
    return json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))


def forms_are_checked() -> bool:
    """Whether the library is there that compares a record with the schema; without it only the numbers are compared with each other."""
    return importlib.util.find_spec("jsonschema") is not None


def faults(found: object) -> Iterator[str]:
    """Everything that is wrong with a record taken by itself, a line each: first its form, and if that is right, what does not fit."""
    errors = _validator().iter_errors(found) if forms_are_checked() else ()
    wrong = sorted(errors, key=lambda error: (len(error.absolute_path), list(map(str, error.absolute_path))))
    seen = list(dict.fromkeys(map(_words, wrong)))
    yield from seen
    if not seen:
        yield from misfits(found)


_OF_PYTHON = {"number": (int, float), "integer": (int,)}


@functools.cache
def _validator():
    """The library, with two keywords in forms of our own: the columns of a curve are not handed to it, which is four times as quick."""
    jsonschema = _checks.needs("jsonschema", extra="train")
    plain = jsonschema.Draft202012Validator
    kinds = plain.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)  # the standard lets 3.0 pass as one

    def matching(validator, pattern: str, instance: object, _) -> Iterator:
        if validator.is_type(instance, "string") and not _compiled(pattern).search(instance):
            yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")

    return jsonschema.validators.extend(plain, {"properties": _properties, "pattern": matching}, type_checker=kinds)(schema())


@functools.cache
def _compiled(pattern: str) -> re.Pattern:
    """As the standard has it: the sign for the end is the end, and not a line break before it."""
    return re.compile(re.sub(r"\$$", r"\\Z", pattern))


def _properties(validator, properties: dict, instance: object, _) -> Iterator:
    if not validator.is_type(instance, "object"):
        return
    for name, rule in properties.items():
        if name in instance and not _is_sound_column(instance[name], rule):
            yield from validator.descend(instance[name], rule, path=name, schema_path=name)


def _is_sound_column(value: object, rule: dict | bool) -> bool:
    """Whether a list of numbers fits its rule; the library is slow at these. Where it is not that plain, the answer is no."""
    if type(value) is not list or not value or not isinstance(rule, dict) or rule.get("type") != "array":
        return False
    items = rule.get("items", {})
    plain = set(items) == {"type", "minimum", "maximum"} and set(map(type, value)) <= set(_OF_PYTHON[items["type"]])
    return plain and items["minimum"] <= min(value) and max(value) <= items["maximum"]


_TYPES = {
    "number": "a finite number", "integer": "a whole number", "string": "a text", "object": "an object", "array": "a list",
    "boolean": "true or false", "null": "null",
}  # fmt: skip
_SAID = {
    "minimum": "at least {}", "maximum": "at most {}", "pattern": "a text of the form {}", "enum": "one of {}",
    "const": "{!r}", "minItems": "a list of at least {}", "minLength": "a text of at least {} characters", "maxLength": "a text of at most {} characters",
}  # fmt: skip


def _words(error) -> str:
    """What is wrong, from an error of the library."""
    where, rule = ".".join(map(str, error.absolute_path)), error.validator_value
    if error.validator == "required":
        return f"{where} lacks {', '.join(name for name in rule if name not in error.instance)}".strip()
    if error.validator == "additionalProperties":
        extra = [name for name in error.instance if name not in error.schema.get("properties", ())]
        return f"{where} holds {', '.join(map(repr, extra))}, which no record has".strip()
    if error.validator == "not":  # a field that only later schemas have
        return f"{where} must not hold {', '.join(rule['required'])} in a record of that schema".strip()
    if error.validator == "type":
        allowed = " or ".join(_TYPES[kind] for kind in ([rule] if isinstance(rule, str) else rule))
    else:
        allowed = _SAID[error.validator].format(", ".join(map(str, rule)) if isinstance(rule, list) else rule)
    return f"{where or 'it'} must be {allowed}, got {reprlib.repr(error.instance)}"
