"""A page of the book and a run of it: the setting that the text describes, and the one that was run.

The declared defaults are the setting that the text of a notebook is about. Whoever runs it with other parameters gets a banner that
says so, and claims that stand beside his own numbers.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import _checks
from .._checks import plain, shown
from . import parameters, results
from .declarations import LINE, TYPES, Parameter, ParameterError, declared
from .find import NotebookError, find
from .lines import table

__all__ = ["Page", "begin", "publish"]

INJECTED = "# Parameters"  # how papermill begins the cell that it adds
DECLARES = re.compile(rf"[a-z]\w*: ({'|'.join(TYPES)})\b")
MIME = "application/vnd.bisam.table+json"


@dataclass(frozen=True)
class Page:
    """What a notebook was run with, beside what its text describes.

    Args:
        name: of the notebook.
        declared: its parameters; the defaults are the setting that the text describes.
        values: name to value, as they are in this run.

    Example:
        >>> seeds = Parameter("seeds", "int", 10, "runs of each method", "[1, 50]")
        >>> Page("mine", {"seeds": seeds}, {"seeds": 3}).banner()
        'The text of this page describes seeds = 10. You ran seeds = 3. Outputs and figures are of your run; the sentences are not.'
    """

    name: str
    declared: Mapping[str, Parameter]
    values: Mapping[str, object]

    @property
    def changed(self) -> dict[str, object]:
        """The parameters that differ from the setting of the text, with the values of this run."""
        return {name: value for name, value in self.values.items() if value != self.declared[name].default}

    @property
    def is_stated(self) -> bool:
        """Whether this run is the one that the text describes."""
        return not self.changed

    def banner(self) -> str:
        """What differs from the setting of the text, in two sentences; empty where nothing does."""
        if self.is_stated:
            return ""
        stated, ran = _assignments(self._defaults(self.changed)), _assignments(self.changed)
        return f"The text of this page describes {stated}. You ran {ran}. Outputs and figures are of your run; the sentences are not."

    def _defaults(self, names: Iterable[str]) -> dict[str, object]:
        return {name: self.declared[name].default for name in names}

    def claims(self, rows: Mapping[str, tuple[object, object]]) -> None:
        """Shows what the text states; in another setting what this run gives beside it.

        Args:
            rows: a sentence to two values, the one that this run has computed and the one that the text states: True or False, a
                number, or text. Round numbers so far that machines agree.

        Raises:
            TypeError: a row that is no pair, or a value that is none of these.

        Example:
            >>> seeds = Parameter("seeds", "int", 10, "runs of each method", "[1, 50]")
            >>> Page("mine", {"seeds": seeds}, {"seeds": 10}).claims({"SAM is flatter than SGD": (True, True)})
            SAM is flatter than SGD  yes
            >>> Page("mine", {"seeds": seeds}, {"seeds": 3}).claims({"SAM is flatter than SGD": (False, True)})
                                     yours  stated
            SAM is flatter than SGD     no     yes
            stated for seeds = 10
        """
        found = [_claim(sentence, pair) for sentence, pair in _checks.part("rows", rows, Mapping, "a dictionary").items()]
        lines = self._in_lines(found)
        columns = ("claim", "yours") if self._comes_out(found) else ("claim", "yours", "stated")
        names = {"yours": "in this run"} if len(columns) == 2 else {}
        cells = [{names.get(key, key): row[key] for key in columns} for row in found]
        results.display(results.Results(cells, " ".join(["What this page states, computed again.", *lines[1:], self._setting()])), lines[0])
        publish("claims", found)

    def table(self, rows: Sequence[Mapping[str, object]], caption: str, formats: Mapping[str, str] | None = None) -> None:
        """Displays what this run has computed as a table, whose caption ends with the scale and the device of the run.

        Args:
            rows: one dictionary a row, see :class:`~bisam.notebook.results.Results`.
            caption: what is shown, in whole sentences. Of recorded runs use :func:`bisam.notebook.results.show`, and say which.
            formats: name of a column to the format of its numbers.

        Raises:
            TypeError, ValueError: as :class:`~bisam.notebook.results.Results`.

        Example:
            >>> scale = Parameter("scale", "str", "laptop", "runs", "smoke, laptop")
            >>> Page("mine", {"scale": scale}, {"scale": "smoke"}).table([{"K": 3, "limit": 0.3466}], "Where the order turns.", {"limit": ".2f"})
            Where the order turns. Scale smoke, on the CPU.
            K  limit
            3   0.35
        """
        results.show(rows, f"{caption} {self._setting()}", formats)

    def _setting(self) -> str:
        device = str(self.values.get("device", "cpu"))
        where = "on the CPU" if device in ("cpu", "auto") else f"on {device}"
        return f"Scale {self.values['scale']}, {where}." if "scale" in self.values else f"Computed {where}."

    def _comes_out(self, found: Sequence[Mapping]) -> bool:
        return self.is_stated and all(row["agrees"] for row in found)

    def _in_lines(self, found: Sequence[Mapping]) -> list[str]:
        """The claims as lines of text, and sentences on what is to be known beside them."""
        if self._comes_out(found):
            return [table(("", ""), [(row["claim"], row["stated"]) for row in found], ("<", "  >")).partition("\n")[2]]
        cells = [(row["claim"], row["yours"], row["stated"]) for row in found]
        more = [f"stated for {_assignments(self._defaults(self.changed or self.declared))}"]
        if self.is_stated:
            differ = sum(not row["agrees"] for row in found)
            more.append(f"{differ} of {len(found)} do not come out as stated in a run of the very setting of the text")
        text = "\n".join([table(("", "yours", "stated"), cells, ("<", "  >", "  >")), *more])
        return [text, *(f"{line[0].upper()}{line[1:]}." for line in more)]


def _assignments(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} = {value if value != '' else 'empty'}" for name, value in values.items())


def _claim(sentence: object, pair: object) -> dict:
    _checks.text("a sentence of rows", sentence)
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise TypeError(f"rows[{shown(sentence)}] must be a pair of yours and stated, got {shown(pair)}")
    yours, stated = (_word(sentence, value) for value in pair)
    return {"claim": sentence, "yours": yours, "stated": stated, "agrees": yours == stated}


def _word(sentence: str, value: object) -> str:
    value = value.item() if hasattr(value, "item") else value  # numbers of torch and numpy
    if not isinstance(value, (bool, int, float, str)):
        raise TypeError(f"rows[{shown(sentence)}] must hold True or False, numbers or text, got {shown(value)}")
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def publish(name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Hands a table to the command that runs the notebook, which gathers it with those of other runs; elsewhere it does nothing.

    Args:
        name: of the table.
        rows: one dictionary a row.

    Example:
        >>> publish("claims", [{"claim": "SAM is flatter than SGD", "yours": "yes"}])
    """
    _checks.text("name", name)
    if not isinstance(rows, (list, tuple)) or not all(isinstance(row, Mapping) for row in rows):
        raise TypeError(f"rows must be a list of dictionaries, got {shown(rows)}")
    if os.environ.get("BISAM_PUBLISH") == "1":
        display = _checks.needs("IPython.display", extra="notebooks")
        display.display({MIME: {"name": name, "rows": list(rows)}}, raw=True)


def begin(namespace: Mapping[str, object], name: str) -> Page:
    """Checks the parameters of a notebook, shows the banner where they are not those of the text, and returns the page.

    The declarations are those of the cell tagged ``parameters`` as it was run last. Where cells are not remembered (nbval, a script,
    ``%run``), they are read from the notebook's file, or else from the script's own lines.

    Args:
        namespace: of the notebook, ``globals()``.
        name: of the notebook.

    Raises:
        ParameterError: an unknown name, a wrong type, a value out of range, one that would change nothing, or no declaration at all.

    Example:
        >>> cells = ["n: int = 3  # seeds; allowed: [1, 9]", "# Parameters\\nn = 4"]
        >>> begin({"In": cells, "n": 4}, "my_notebook").changed
        The text of this page describes n = 3. You ran n = 4. Outputs and figures are of your run; the sentences are not.
        {'n': 4}
    """
    _checks.part("namespace", namespace, Mapping, "a dictionary such as globals()")
    _checks.text("name", name)
    cells = [_without_magic(text) for text in namespace.get("In", []) if isinstance(text, str)]
    declaring = _declaring(cells)
    if declaring is None:
        known, injected = _declared_elsewhere(name, namespace), []
    else:
        known = declared(cells[declaring])
        injected = [each for text in cells[declaring + 1 :] if text.startswith(INJECTED) for each in _assigned(text)]
    names = list(dict.fromkeys([*known, *injected]))
    missing = [each for each in names if each not in namespace]
    if missing:
        raise ParameterError(f"the namespace must hold {missing[0]}, and does not: run the cell tagged `parameters` first")
    values = {each: namespace[each] for each in names}
    parameters.check(known, values)
    page = Page(name, known, values)
    if os.environ.get("BISAM_FORM") == "1":
        from . import form  # needs ipywidgets

        form.show(known, namespace)
    if page.banner():
        print(page.banner())
    return page


def _without_magic(text: str) -> str:
    """A cell without the magic that times it or the like."""
    return text.partition("\n")[2] if text.startswith("%%") else text


def _declaring(cells: Sequence[str]) -> int | None:
    """The latest cell that declares all that the first such cell declares and does nothing else; an annotation further down is no declaration."""
    found = {number: names for number, text in enumerate(cells) if (names := _names(text))}
    first = next(iter(found.values()), set())
    return max((number for number, names in found.items() if names >= first), default=None)


def _names(text: str) -> set[str]:
    """What a cell declares; nothing if it does anything else."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {line.partition(":")[0] for line in lines} if all(map(DECLARES.match, lines)) else set()


def _declared_elsewhere(name: str, namespace: Mapping[str, object]) -> dict[str, Parameter]:
    try:
        return parameters.from_notebook(find(name))
    except NotebookError:
        script = Path(str(namespace.get("__file__", "")))
        lines = script.read_text(encoding="utf-8").splitlines() if script.is_file() else []
        own = [line for line in lines if LINE.match(line)]
        if own:
            return declared("\n".join(own))
        raise ParameterError(
            f"no cell declares the parameters of {plain(name)}, and its file is not here: run the cell tagged `parameters` first"
        ) from None


def _assigned(source: str) -> list[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ParameterError(f"the cell that papermill added cannot be read: {shown(error)}") from None
    targets = [node.targets for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    return [target.id for group in targets for target in group if isinstance(target, ast.Name)]
