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

from .. import _checks
from .._checks import plain, shown

__all__ = ["Parameter", "ParameterError", "check", "check_cells", "declared", "from_notebook", "from_text", "table"]

TYPES = {"int": int, "float": float, "str": str, "bool": bool}
# A default is text in quotes or one word, so that no two parts of the pattern can share a character: its time is linear.
LINE = re.compile(
    r"^(?P<name>[a-z]\w*): (?P<kind>int|float|str|bool) = "
    r"""(?P<default>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s#'"]\S*)\s+# (?P<help>\S.*)$"""
)
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

    Raises:
        TypeError, ParameterError: a field that is no text, an unknown kind, an interval whose ends are no numbers.

    Example:
        >>> Parameter("rho", "float", 0.05, "radius of the ball", "[0, 2]").check(3)
        Traceback (most recent call last):
        bisam.notebook.parameters.ParameterError: rho must be in [0, 2], got 3
    """

    name: str
    kind: str
    default: object
    help: str
    allowed: str = ""

    def __post_init__(self):
        for field in ("name", "help", "allowed"):
            _checks.line(field, getattr(self, field), most=1000)
        if not self.name.isidentifier():
            raise ParameterError(f"name must be one that a variable can have, got {shown(self.name)}")
        _checks.choice("kind", self.kind, tuple(TYPES))
        interval = INTERVAL.match(self.allowed)
        if interval and not all(map(_is_number, interval.group("low", "high"))):
            raise ParameterError(f"allowed of {plain(self.name)} must have numbers as its ends, got {shown(self.allowed)}")

    def check(self, value: object) -> None:
        """Raises a :class:`ParameterError` unless the value has the declared type and is allowed."""
        if not self._has_type(value):
            raise ParameterError(f"{self.name} must be of type {self.kind}, got {shown(value)} ({type(value).__name__})")
        interval = INTERVAL.match(self.allowed)
        if interval and not _inside(value, interval):
            raise ParameterError(f"{self.name} must be in {self.allowed}, got {shown(value)}")
        if interval or self.allowed in ("", "any"):
            return
        listed = re.split(r",\s*", self.allowed.removeprefix("some of "))
        if self.allowed.startswith("some of "):
            given = re.split(r",\s*", str(value))
            if not set(given) <= set(listed) or len(given) > len(set(given)):
                raise ParameterError(f"{self.name} must be {self.allowed}, each once, with commas between; got {shown(value)}")
        elif str(value) not in listed:
            raise ParameterError(f"{self.name} must be one of {self.allowed}; got {shown(value)}")

    def _has_type(self, value: object) -> bool:
        if self.kind == "float":  # a whole number is a fine float
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        return type(value) is TYPES[self.kind]


def _is_number(text: str) -> bool:
    try:
        return float(text) == float(text)  # NaN is the number that is not itself
    except ValueError:
        return False


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
        ParameterError: a line that is neither a declaration nor a comment, a name that is declared twice, or a default that is no
            plain value or not allowed itself.

    Example:
        >>> declared('rho: float = 0.05  # radius; allowed: [0, 2]')["rho"].allowed
        '[0, 2]'
    """
    found = {}
    for line in _checks.text("source", source).splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = LINE.match(line)
        if match is None:
            raise ParameterError(f"the source has a line that is not a declaration `name: type = value  # help; allowed: ...`: {shown(line)}")
        if match["name"] in found:
            raise ParameterError(f"{match['name']} is declared twice in the source")
        text, _, allowed = match["help"].partition("; allowed: ")
        parameter = Parameter(match["name"], match["kind"], _literal(match["name"], match["default"]), text, allowed)
        parameter.check(parameter.default)
        found[parameter.name] = parameter
    return found


def _literal(name: str, text: str) -> object:
    """The value that a default spells out."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two of brackets in brackets
        raise ParameterError(f"the default of {name} must be a plain number, text in quotes, True or False; got {shown(text)}") from None


def from_notebook(path: str | Path) -> dict[str, Parameter]:
    """The parameters that a notebook file declares.

    Args:
        path: the ``.ipynb`` file.

    Raises:
        TypeError: something that is no path.
        ParameterError: a file that cannot be read or is no notebook of format 4; not exactly one cell is tagged ``parameters``, or it
            holds something else.

    Example:
        >>> from bisam.notebook.run import find
        >>> sorted(from_notebook(find("lower_bounds")))
        ['alpha', 'gamma', 'mu_log', 'mu_tanh', 'scale']
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


def from_text(parameters: Mapping[str, Parameter], given: Mapping[str, str]) -> dict[str, object]:
    """Values typed on a command line, in their declared types and checked.

    Args:
        parameters: what is declared.
        given: name to text.

    Raises:
        ParameterError: an unknown name, a text that is not of the declared type, or a value out of range.

    Example:
        >>> from_text(declared("n: int = 3  # seeds; allowed: [1, 9]"), {"n": "7"})
        {'n': 7}
    """
    values = {}
    _declarations(parameters)
    for name, text in _checks.part("given", given, Mapping, "a dictionary from name to text").items():
        _checks.text(f"given {plain(name)}", text)
        kind = parameters[name].kind if name in parameters else "str"
        try:
            values[name] = {"true": True, "false": False}[text.lower()] if kind == "bool" else TYPES[kind](text)
        except (ValueError, KeyError):
            raise ParameterError(f"{plain(name)} must be of type {kind}, got {shown(text)}") from None
    check(parameters, values)
    return values


def check(parameters: Mapping[str, Parameter], values: Mapping[str, object]) -> None:
    """Raises a :class:`ParameterError` for a name that is not declared or a value that is not allowed.

    Args:
        parameters: what is declared.
        values: what was given.

    Raises:
        ParameterError: names the parameter, the value and what is allowed; unknown names come with a list of all.

    Example:
        >>> check(declared("n: int = 3  # seeds; allowed: [1, 9]"), {"m": 3})
        Traceback (most recent call last):
        bisam.notebook.parameters.ParameterError: there is no parameter m; there are:
          n: int = 3  # seeds; allowed: [1, 9]
    """
    _declarations(parameters)
    for name, value in _checks.part("values", values, Mapping, "a dictionary from name to value").items():
        if name not in parameters:
            raise ParameterError(f"there is no parameter {plain(name)}; there are:\n{table(parameters)}")
        parameters[name].check(value)


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
        for p in _declarations(parameters).values()
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

    Example:
        >>> check_cells(["n: int = 3  # seeds; allowed: [1, 9]", "# Parameters\\nn = 4"], {"n": 4}, "my_notebook")
    """
    from .run import find

    if not isinstance(cells, (list, tuple)) or not all(isinstance(text, str) for text in cells):
        raise TypeError(f"cells must be a list of texts, IPython's In; got {shown(cells)}")
    _checks.part("namespace", namespace, Mapping, "a dictionary such as globals()")
    _checks.text("name", name)
    declaring = [k for k, text in enumerate(cells) if any(map(LINE.match, text.splitlines()))]
    if not declaring and any(cells):
        raise ParameterError("no cell before this one declares parameters: run the cell tagged `parameters` first")
    parameters = declared(cells[declaring[-1]]) if declaring else from_notebook(find(name))
    injected = [text for text in cells[declaring[-1] + 1 :] if text.startswith(INJECTED)] if declaring else []
    names = list(parameters) + [name for text in injected for name in _assigned(text)]
    for name in names:
        if name not in namespace:
            raise ParameterError(f"the namespace must hold {name}, which the cells declare; it is not there")
    check(parameters, {name: namespace[name] for name in names})


def _assigned(source: str) -> list[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ParameterError(f"the cell that papermill added to the cells cannot be read: {shown(error)}") from None
    targets = [node.targets for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    return [target.id for group in targets for target in group if isinstance(target, ast.Name)]
