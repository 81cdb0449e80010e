"""Declared parameters of notebooks.

A notebook declares each parameter once, in its cell tagged ``parameters``, one a line::

    rho: float = 0.05  # radius of the ball; allowed: [0, 2]
    scale: str = "smoke"  # how much to run; allowed: smoke, laptop, paper

``allowed`` is an interval, whose ends belong to it or not as the brackets say, a list of values, ``some of`` and a list, for
text with one or more of these values and commas between, or ``any``, for text such as the name of a folder.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from .. import _checks
from .._checks import plain, shown

__all__ = ["LINE", "TYPES", "Parameter", "ParameterError", "declared"]

TYPES = {"int": int, "float": float, "str": str, "bool": bool}
# A default is text in quotes or one word, so that no two parts of the pattern can share a character: its time is linear.
LINE = re.compile(
    r"^(?P<name>[a-z]\w*): (?P<kind>int|float|str|bool) = "
    r"""(?P<default>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s#'"]\S*)\s+# (?P<help>\S.*)$"""
)
INTERVAL = re.compile(r"^(?P<left>[\[(])(?P<low>[^,]+),(?P<high>[^,]+)(?P<right>[\])])$")


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
        bisam.notebook.declarations.ParameterError: rho must be in [0, 2], got 3
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
        """Raises a :class:`~bisam.notebook.declarations.ParameterError` unless the value has the declared type and is allowed."""
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
