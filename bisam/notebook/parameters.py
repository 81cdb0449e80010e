"""Parameters of notebooks that cannot be wrong in silence.

The command ``bisam notebook`` reads the declarations (:mod:`bisam.notebook.declarations`) from the file before anything runs; the
notebook's first cell of code reads them again (:mod:`bisam.notebook.page`), so that a plain ``papermill`` meets the same checks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from .. import _checks
from .._checks import plain, shown
from .declarations import TYPES, Parameter, ParameterError, declared

__all__ = ["check", "from_notebook", "from_text", "table"]


def from_notebook(path: str | Path) -> dict[str, Parameter]:
    """The parameters that a notebook file declares.

    Args:
        path: the ``.ipynb`` file.

    Raises:
        TypeError: something that is no path.
        ParameterError: a file that cannot be read or is no notebook of format 4; not exactly one cell is tagged ``parameters``, or it
            holds something else.

    Example:
        >>> from bisam.notebook.find import find
        >>> sorted(from_notebook(find("lower_bounds")))
        ['alpha', 'classes', 'gamma', 'mu_log', 'mu_tanh', 'scale']
    """
    path = _checks.path("path", path)
    here = plain(str(path))
    tagged = [source for source, tags in _cells(path) if "parameters" in tags]
    if len(tagged) != 1:
        raise ParameterError(f"path {here} must have one cell tagged parameters, it has {len(tagged)}")
    try:
        return declared(tagged[0])
    except ParameterError as error:
        raise ParameterError(f"path {here}: {error}") from None


def _cells(path: Path) -> list[tuple[str, list]]:
    """Source and tags of every cell of a notebook file."""
    here = plain(str(path))
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["nbformat"] != 4:
            raise ParameterError(f"path {here} must be a notebook of format 4, got format {shown(found['nbformat'])}")
        return [("".join(cell["source"]), list(cell["metadata"].get("tags", []))) for cell in found["cells"]]
    except OSError as error:
        raise ParameterError(f"path {here} cannot be read: {error.strerror or error}") from None
    except ParameterError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ParameterError(f"path {here} must be a notebook, and is none: {type(error).__name__} {shown(error)}") from None


def from_text(parameters: Mapping[str, Parameter], given: Mapping[str, object]) -> dict[str, object]:
    """Values typed on a command line, in their declared types and checked.

    Args:
        parameters: what is declared.
        given: name to text, or to a value that has its type already.

    Raises:
        ParameterError: an unknown name, a text that is not of the declared type, or a value out of range.

    Example:
        >>> seeds = declared("n: int = 3  # seeds; allowed: [1, 9]")
        >>> from_text(seeds, {"n": "7"}), from_text(seeds, {"n": 7})
        ({'n': 7}, {'n': 7})
    """
    values = {}
    _declarations(parameters)
    for name, text in _checks.part("given", given, Mapping, "a dictionary from name to text or value").items():
        kind = parameters[name].kind if name in parameters else "str"
        if not isinstance(text, str):
            values[name] = text
            continue
        try:
            values[name] = {"true": True, "false": False}[text.lower()] if kind == "bool" else TYPES[kind](text)
        except (ValueError, KeyError):
            raise ParameterError(f"{plain(name)} must be of type {kind}, got {shown(text)}") from None
    check(parameters, values)
    return values


def check(parameters: Mapping[str, Parameter], values: Mapping[str, object]) -> None:
    """Raises a :class:`~bisam.notebook.declarations.ParameterError` for a name that is not declared or a value that is not allowed.

    Args:
        parameters: what is declared.
        values: what was given.

    Raises:
        ParameterError: names the parameter, the value and what is allowed, or the scales at which it is read; unknown names come with a
            list of all.

    Example:
        >>> check(declared("n: int = 3  # seeds; allowed: [1, 9]"), {"m": 3})
        Traceback (most recent call last):
        bisam.notebook.declarations.ParameterError: there is no parameter m; there are:
          n: int = 3  # seeds; allowed: [1, 9]
    """
    _declarations(parameters)
    for name, value in _checks.part("values", values, Mapping, "a dictionary from name to value").items():
        if name not in parameters:
            raise ParameterError(f"there is no parameter {plain(name)}; there are:\n{table(parameters)}")
        parameters[name].check(value)
    scale = values.get("scale", parameters["scale"].default if "scale" in parameters else None)
    for name, value in values.items():
        if value != parameters[name].default and not parameters[name].is_read_at(scale):
            where = parameters[name].only_at
            raise ParameterError(f"{name} is read only at scale {where}; at scale {plain(str(scale))} it would change nothing, got {shown(value)}")


def _declarations(parameters: object) -> Mapping[str, Parameter]:
    _checks.part("parameters", parameters, Mapping, "what declared() returns")
    for name, one in parameters.items():
        _checks.part(f"parameters[{shown(name)}]", one, Parameter, "a Parameter")
    return parameters


def table(parameters: Mapping[str, Parameter]) -> str:
    """All parameters as text, one a line, as the notebook declares them.

    Args:
        parameters: what is declared.

    Example:
        >>> print(table(declared("n: int = 3  # seeds; allowed: [1, 9]")))
          n: int = 3  # seeds; allowed: [1, 9]
    """
    return "\n".join(
        f"  {p.name}: {p.kind} = {p.default!r}  # {p.help}" + (f"; allowed: {p.allowed}" if p.allowed else "")
        + (f"; only at: {p.only_at}" if p.only_at else "")
        for p in _declarations(parameters).values()
    )
