"""Parameters of notebooks that cannot be wrong in silence.

A notebook declares each parameter once, in its cell tagged ``parameters``, one a line::

    rho: float = 0.05  # radius of the ball; allowed: [0, 2]
    scale: str = "smoke"  # how much to run; allowed: smoke, laptop, paper

``allowed`` is an interval, whose ends belong to it or not as the brackets say, a list of values, ``some of`` and a list, for
text with one or more of these values and commas between, or ``any``, for text such as the name of a folder. The command
``bisam notebook`` reads the declarations from the file before anything runs; the notebook's first cell of code reads
them again, so that a plain ``papermill`` meets the same checks.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Parameter", "ParameterError", "check", "check_cells", "declared", "from_notebook", "from_text", "table"]

TYPES = {"int": int, "float": float, "str": str, "bool": bool}
LINE = re.compile(r"^(?P<name>[a-z]\w*): (?P<kind>int|float|str|bool) = (?P<default>.+?)\s+# (?P<help>.+)$")
INTERVAL = re.compile(r"^(?P<left>[\[(])(?P<low>[^,]+),(?P<high>[^,]+)(?P<right>[\])])$")
INJECTED = "# Parameters"  # how papermill begins the cell that it adds


class ParameterError(ValueError):
    """A parameter that does not exist, has the wrong type or is out of range."""


@dataclass(frozen=True)
class Parameter:
    """One declared parameter of a notebook.

    Args:
        name: what it is called.
        kind: ``"int"``, ``"float"``, ``"str"`` or ``"bool"``.
        default: its value if none is given.
        help: what it means, in one line.
        allowed: an interval such as ``"(0, 1]"``, a list such as ``"smoke, laptop"``, ``"some of sgd, sam"``, or ``"any"`` or
            ``""`` for any value.

    Source:
        Ours.

    Example:
        >>> Parameter("rho", "float", 0.05, "radius of the ball", "[0, 2]").check(3)
        Traceback (most recent call last):
        bisam.parameters.ParameterError: rho must be in [0, 2], got 3
    """

    name: str
    kind: str
    default: object
    help: str
    allowed: str = ""

    def check(self, value: object) -> None:
        """Raises a :class:`ParameterError` unless the value has the declared type and is allowed."""
        if not self._has_type(value):
            raise ParameterError(f"{self.name} must be of type {self.kind}, got {value!r} ({type(value).__name__})")
        interval = INTERVAL.match(self.allowed)
        if interval and not _inside(value, interval):
            raise ParameterError(f"{self.name} must be in {self.allowed}, got {value!r}")
        if interval or self.allowed in ("", "any"):
            return
        listed = re.split(r",\s*", self.allowed.removeprefix("some of "))
        if self.allowed.startswith("some of "):
            given = re.split(r",\s*", str(value))
            if not set(given) <= set(listed) or len(given) > len(set(given)):
                raise ParameterError(f"{self.name} must be {self.allowed}, each once, with commas between; got {value!r}")
        elif str(value) not in listed:
            raise ParameterError(f"{self.name} must be one of {self.allowed}; got {value!r}")

    def _has_type(self, value: object) -> bool:
        if self.kind == "float":  # a whole number is a fine float
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        return type(value) is TYPES[self.kind]


def _inside(value: float, interval: re.Match) -> bool:
    low, high = float(interval["low"]), float(interval["high"])
    above = value >= low if interval["left"] == "[" else value > low
    below = value <= high if interval["right"] == "]" else value < high
    return above and below  # NaN is in no interval: both comparisons are false


def declared(source: str) -> dict[str, Parameter]:
    """The parameters that the text of a ``parameters`` cell declares, by name.

    Args:
        source: the cell's code.

    Raises:
        ParameterError: a line that is neither a declaration nor a comment, or a default that is not allowed itself.

    Source:
        Ours; the annotation is the one that papermill shows in its own help.

    Example:
        >>> declared('rho: float = 0.05  # radius; allowed: [0, 2]')["rho"].allowed
        '[0, 2]'
    """
    found = {}
    for line in source.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = LINE.match(line)
        if match is None:
            raise ParameterError(f"not a declaration `name: type = value  # help; allowed: ...`: {line!r}")
        text, _, allowed = match["help"].partition("; allowed: ")
        parameter = Parameter(match["name"], match["kind"], ast.literal_eval(match["default"]), text, allowed)
        parameter.check(parameter.default)
        found[parameter.name] = parameter
    return found


def from_notebook(path: str | Path) -> dict[str, Parameter]:
    """The parameters that a notebook file declares.

    Args:
        path: the ``.ipynb`` file.

    Raises:
        ParameterError: not exactly one cell is tagged ``parameters``, or it holds something else.

    Source:
        Ours.

    Example:
        >>> from bisam.notebook import find
        >>> sorted(from_notebook(find("lower_bounds")))
        ['alpha', 'gamma', 'mu_log', 'mu_tanh', 'scale']
    """
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise ParameterError(f"{path} must have one cell tagged parameters, it has {len(tagged)}")
    return declared("".join(tagged[0]["source"]))


def from_text(parameters: Mapping[str, Parameter], given: Mapping[str, str]) -> dict[str, object]:
    """Values typed on a command line, in their declared types and checked.

    Args:
        parameters: what is declared.
        given: name to text.

    Raises:
        ParameterError: an unknown name, a text that is not of the declared type, or a value out of range.

    Source:
        Ours.

    Example:
        >>> from_text(declared("n: int = 3  # seeds; allowed: [1, 9]"), {"n": "7"})
        {'n': 7}
    """
    values = {}
    for name, text in given.items():
        kind = parameters[name].kind if name in parameters else "str"
        try:
            values[name] = {"true": True, "false": False}[text.lower()] if kind == "bool" else TYPES[kind](text)
        except (ValueError, KeyError):
            raise ParameterError(f"{name} must be of type {kind}, got {text!r}") from None
    check(parameters, values)
    return values


def check(parameters: Mapping[str, Parameter], values: Mapping[str, object]) -> None:
    """Raises a :class:`ParameterError` for a name that is not declared or a value that is not allowed.

    Args:
        parameters: what is declared.
        values: what was given.

    Raises:
        ParameterError: names the parameter, the value and what is allowed; unknown names come with a list of all.

    Source:
        Ours.

    Example:
        >>> check(declared("n: int = 3  # seeds; allowed: [1, 9]"), {"m": 3})
        Traceback (most recent call last):
        bisam.parameters.ParameterError: there is no parameter m; there are:
          n: int = 3  # seeds; allowed: [1, 9]
    """
    for name, value in values.items():
        if name not in parameters:
            raise ParameterError(f"there is no parameter {name}; there are:\n{table(parameters)}")
        parameters[name].check(value)


def table(parameters: Mapping[str, Parameter]) -> str:
    """All parameters as text, one a line, as the notebook declares them.

    Args:
        parameters: what is declared.

    Source:
        Ours.

    Example:
        >>> print(table(declared("n: int = 3  # seeds; allowed: [1, 9]")))
          n: int = 3  # seeds; allowed: [1, 9]
    """
    return "\n".join(
        f"  {p.name}: {p.kind} = {p.default!r}  # {p.help}" + (f"; allowed: {p.allowed}" if p.allowed else "")
        for p in parameters.values()
    )


def check_cells(cells: Sequence[str], namespace: Mapping[str, object], name: str) -> None:
    """The check that a notebook's first cell of code makes: ``parameters.check_cells(In, globals(), "first_run")``.

    It looks at the text of the cells that ran before: the latest one that declares parameters, and any that papermill
    put after it. Where cells are executed without being remembered (nbval does so), the declarations are read from
    the notebook's file.

    Args:
        cells: the texts of the cells so far, IPython's ``In``.
        namespace: the values as they are now.
        name: of the notebook.

    Raises:
        ParameterError: an unknown name, a wrong type, a value out of range, or no declaration at all.

    Source:
        Ours.

    Example:
        >>> check_cells(["n: int = 3  # seeds; allowed: [1, 9]", "# Parameters\\nn = 4"], {"n": 4}, "my_notebook")
    """
    from .notebook import find

    declaring = [k for k, text in enumerate(cells) if any(map(LINE.match, text.splitlines()))]
    if not declaring and any(cells):
        raise ParameterError("no cell before this one declares parameters: run the cell tagged `parameters` first")
    parameters = declared(cells[declaring[-1]]) if declaring else from_notebook(find(name))
    injected = [text for text in cells[declaring[-1] + 1 :] if text.startswith(INJECTED)] if declaring else []
    names = list(parameters) + [name for text in injected for name in _assigned(text)]
    check(parameters, {name: namespace.get(name) for name in names})


def _assigned(source: str) -> list[str]:
    targets = [node.targets for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign)]
    return [target.id for group in targets for target in group if isinstance(target, ast.Name)]
