"""The tables of the page on the form of a record, from the JSON schema that ships with the package."""

from __future__ import annotations

import json
from pathlib import Path

SCHEMA = Path(__file__).resolve().parents[1] / "bisam" / "evidence" / "schema" / "record.json"
LISTS = {"number": "numbers", "integer": "whole numbers", "string": "texts"}


def tables() -> str:
    """One section for the record, and one for each of its parts that has fields of its own."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return "\n".join(_sections(schema, "", schema))


def _sections(rule: dict, path: str, schema: dict) -> list[str]:
    lines = [f"## {f'`{path}`' if path else 'The record'}", "", rule["description"], ""]
    lines += ["| field | value | in every record since schema | what it is |", "| --- | --- | ---: | --- |"]
    fields = rule["properties"]
    since = {name: _since(path, name, schema) for name in fields}
    lines += [f"| `{name}` | {_value(field)} | {since[name]} | {field['description']} |" for name, field in fields.items()] + [""]
    for name, field in fields.items():
        if field.get("properties") and not (path and name == "recipe"):
            lines += _sections(field, f"{path}.{name}".lstrip("."), schema)
    return lines


def _since(path: str, name: str, schema: dict) -> str:
    """The first schema that asks for a field; a dash for one that is there only where it applies."""
    rules = {1: schema} | {case["if"]["properties"]["schema"]["minimum"]: case["then"] for case in schema["allOf"]}
    for number, rule in rules.items():
        for part in path.split(".") if path else ():
            rule = rule.get("properties", {}).get(part, {})
        if name in rule.get("required", ()):
            return str(number)
    return "-"


def _value(field: dict) -> str:
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    kinds = [field["type"]] if isinstance(field["type"], str) else field["type"]
    return " or ".join(_kind(kind, field) for kind in kinds)


def _kind(kind: str, field: dict) -> str:
    if kind == "array":
        return f"list of {LISTS[field['items']['type']]}{_limits(field['items'])}"
    if kind == "string" and field.get("pattern") == "^[0-9a-f]{16}$":
        return "16 hexadecimal digits"
    words = {"number": "number", "integer": "whole number", "string": "text", "boolean": "true or false", "object": "object", "null": "`null`"}
    return words[kind] + (_limits(field) if kind in LISTS else "")


def _limits(rule: dict) -> str:
    """Bounds that mean something; the others only keep nonsense out."""
    low, high = rule.get("minimum"), rule.get("maximum")
    if high is None or high > 1e6:
        return "" if low is None else f", at least {low}"
    return f", {low} to {high}"
