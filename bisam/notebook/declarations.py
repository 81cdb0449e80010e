"""Declared parameters of notebooks.

A notebook declares each parameter once, in its cell tagged ``parameters``, one a line::

    rho: float = 0.05  # radius of the ball; allowed: [0, 2]
    scale: str = "laptop"  # how much to run; allowed: smoke, laptop, paper
    seeds: int = 0  # runs of each method, 0: by scale; allowed: 0 or [2, 50]
    root: str = ""  # folder of the data sets; allowed: empty or a folder; only at: paper

``allowed`` is an interval, whose ends belong to it or not as the brackets say, a list of values, ``some of`` and a list, for
text with one or more of these values and commas between, ``empty``, ``a file`` or ``a folder`` that is there, ``a device`` that is
there, or several of these with ``or`` between; or ``any``. ``only at`` lists the scales at which the parameter is read.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

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
        allowed: an interval such as ``"(0, 1]"``, a list such as ``"smoke, laptop"``, ``"some of sgd, sam"``, ``"a file"``, several
            with ``or`` between such as ``"0 or [2, 50]"``, or ``"any"`` or ``""`` for any value.
        only_at: the scales at which it is read, such as ``"laptop, paper"``; ``""`` for all.

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
    only_at: str = ""

    def __post_init__(self):
        for field in ("name", "help", "allowed", "only_at"):
            _checks.line(field, getattr(self, field), most=1000)
        if not self.name.isidentifier():
            raise ParameterError(f"name must be one that a variable can have, got {shown(self.name)}")
        _checks.choice("kind", self.kind, tuple(TYPES))
        for interval in filter(None, map(INTERVAL.match, self.allowed.split(" or "))):
            if not all(map(_is_number, interval.group("low", "high"))):
                raise ParameterError(f"allowed of {plain(self.name)} must have numbers as its ends, got {shown(self.allowed)}")

    def check(self, value: object) -> None:
        """Raises a :class:`~bisam.notebook.declarations.ParameterError` unless the value has the declared type and is allowed."""
        if not self._has_type(value):
            raise ParameterError(f"{self.name} must be of type {self.kind}, got {shown(value)} ({type(value).__name__})")
        kinds = self.allowed.split(" or ")
        if self.allowed in ("", "any") or any(_is_one_of(value, kind) for kind in kinds):
            return
        separator = ";" if "," in kinds[-1] and not INTERVAL.match(kinds[-1]) else ","
        raise ParameterError(f"{self.name} must be {' or '.join(map(_words, kinds))}{separator} got {shown(value)}")

    def is_read_at(self, scale: object) -> bool:
        """Whether the parameter would change anything at a scale.

        Example:
            >>> Parameter("root", "str", "", "folder", "any", "laptop, paper").is_read_at("smoke")
            False
        """
        return not self.only_at or scale in _listed(self.only_at)

    def _has_type(self, value: object) -> bool:
        if self.kind == "float":  # a whole number is a fine float
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        return type(value) is TYPES[self.kind]


def _listed(text: str) -> list[str]:
    return re.split(r",\s*", text)


def _is_one_of(value: object, kind: str) -> bool:
    """Whether a value of the declared type belongs to one of the kinds of values that ``or`` separates."""
    if interval := INTERVAL.match(kind):
        return _inside(value, interval)
    if kind.startswith("some of "):
        given = _listed(str(value))
        return set(given) <= set(_listed(kind.removeprefix("some of "))) and len(given) == len(set(given))
    if kind in THERE:
        return THERE[kind](str(value))
    return str(value) in _listed(kind)


def _words(kind: str) -> str:
    if INTERVAL.match(kind):
        return f"in {kind}"
    if kind.startswith("some of "):
        return f"{kind}, each once, with commas between"
    if kind in THERE:
        return kind if kind == "empty" else f"{kind} that is there"
    return f"one of {kind}" if "," in kind else kind


def _is_device(name: str) -> bool:
    if name == "cpu" or not re.fullmatch(r"cuda(:\d+)?", name):
        return name == "cpu"
    import torch  # only where a GPU is asked for: the check of a command line is quick otherwise

    return int(name.partition(":")[2] or 0) < torch.cuda.device_count()


THERE = {
    "empty": lambda text: text == "",
    "a file": lambda text: Path(text).expanduser().is_file(),
    "a folder": lambda text: text != "" and Path(text).expanduser().is_dir(),
    "a device": _is_device,
}


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
        text, _, rest = match["help"].partition("; allowed: ")
        allowed, _, scales = rest.partition("; only at: ")
        parameter = Parameter(match["name"], match["kind"], _literal(match["name"], match["default"]), text, allowed, scales)
        parameter.check(parameter.default)
        found[parameter.name] = parameter
    return found


def _literal(name: str, text: str) -> object:
    """The value that a default spells out."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two of brackets in brackets
        raise ParameterError(f"the default of {name} must be a plain number, text in quotes, True or False; got {shown(text)}") from None
