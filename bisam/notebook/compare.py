"""Two executed notebooks side by side: what they were made with, what they claim, and where their checked lines differ."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

from .executed import Executed, read
from .lines import table

__all__ = ["compare"]

NOWHERE = "-"


def compare(one: str | Path, other: str | Path) -> str:
    """What differs between two executed notebooks, as text.

    Args:
        one: the first, an ``.ipynb`` file: a rerun, a run of a sweep, a page of the book, or what papermill has made.
        other: the second.

    Raises:
        NotebookError: one of them cannot be read or is no notebook.

    Example:
        >>> from bisam.notebook.find import find
        >>> print(compare(find("lower_bounds"), find("lower_bounds")).splitlines()[-1])
        no figure differs
    """
    first, second = read(one), read(other)
    parts = [
        f"1  {first.path}\n2  {second.path}",
        _differences("parameter", first.parameters, second.parameters),
        _differences("made with", _made(first), _made(second)),
        *_tables(first, second), *_checked(first, second), _figures(first, second),
    ]
    return "\n\n".join(part for part in parts if part)


def _made(run: Executed) -> dict:
    """How a run was made; nothing is known of a page or of what others have made."""
    if not run.made:
        return {}
    machine = {name: run.made["machine"][name] for name in ("system", "processor", "threads")}
    state = "whole" if run.made["complete"] else "cells {} of {}".format(*run.made["cells"])
    about = {name: run.made[name] for name in ("notebook", "commit", "code", "source", "seconds")}
    return {**about, **run.made["versions"], **machine, "state": state}


def _differences(title: str, first: Mapping, second: Mapping) -> str:
    names = [name for name in dict.fromkeys([*first, *second]) if first.get(name) != second.get(name)]
    if not names:
        return f"no {title} differs" if title == "parameter" else ""
    return table((title, "1", "2"), [(name, first.get(name, NOWHERE), second.get(name, NOWHERE)) for name in names], ("<", "  <", "  <"))


def _tables(first: Executed, second: Executed) -> list[str]:
    """The claims side by side, and every other table that is not the same as a diff."""
    sentences = list(dict.fromkeys(row["claim"] for run in (first, second) for row in run.claims))
    values = [{row["claim"]: row for row in run.claims} for run in (first, second)]
    parts = []
    if sentences:
        rows = [_claim(each, *values) for each in sentences]
        parts.append(table(("claim", "1", "2", "stated", ""), rows, ("<", "  >", "  >", "  >", "  <")))
    there = [dict(run.tables) for run in (first, second)]
    for name in dict.fromkeys([*there[0], *there[1]]):
        if name != "claims":
            parts += _diff(f"table {name}", *(_flat(each.get(name, [])) for each in there))
    return parts


def _claim(sentence: str, first: Mapping, second: Mapping) -> tuple:
    yours = [str(each.get(sentence, {}).get("yours", NOWHERE)) for each in (first, second)]
    stated = (first.get(sentence) or second.get(sentence)).get("stated", NOWHERE)
    return sentence, *yours, stated, "" if yours[0] == yours[1] else "differs"


def _flat(rows: Sequence[Mapping]) -> list[str]:
    return [", ".join(f"{name} = {value}" for name, value in row.items()) for row in rows]


def _checked(first: Executed, second: Executed) -> list[str]:
    parts = []
    for name in dict.fromkeys([*first.checked, *second.checked]):
        texts = [run.checked.get(name, ("", "")) for run in (first, second)]
        heading = texts[0][0] or texts[1][0]
        parts += _diff(f"cell {name}" + (f", {heading}" if heading else ""), *(text.splitlines() for _, text in texts))
    return parts or (["no checked line differs"] if first.checked else [])


def _diff(title: str, first: Sequence[str], second: Sequence[str]) -> list[str]:
    lines = list(difflib.unified_diff(first, second, n=1, lineterm=""))[3:]  # without the names of files and the first place
    return ["\n".join([title, *(f"  {line}" for line in lines)])] if lines else []


def _figures(first: Executed, second: Executed) -> str:
    pictures = [{figure.name: figure.content for figure in run.figures} for run in (first, second)]
    names = [name for name in dict.fromkeys([*pictures[0], *pictures[1]]) if pictures[0].get(name) != pictures[1].get(name)]
    if not names:
        return "no figure differs" if any(pictures) else ""
    return f"figures that differ: {', '.join(names)}"
