"""What an executed notebook says: its parameters, its tables, its checked lines and its figures.

A cell publishes a table (:func:`bisam.notebook.page.publish`) as an output of a type of its own: ``{"name": "claims", "rows": [{...}, ...]}``. The rows are flat: names of
columns to numbers, texts, truth values or ``None``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import _checks
from .._checks import plain, shown
from . import parameters as declarations
from .declarations import ParameterError
from .find import NotebookError
from .page import MIME as TABLE

__all__ = ["TABLE", "Executed", "Figure", "checked", "columns_of", "figure_names", "published", "read"]

CHECKED = "nbval-check-output"
SVG, PNG = "image/svg+xml", "image/png"
PICTURES = {SVG, PNG}


@dataclass(frozen=True)
class Figure:
    """A picture with the name and the caption that its cell gives it.

    Example:
        >>> Figure("fig-spectra", "Spectra.", "", "svg", b"<svg/>").name
        'fig-spectra'
    """

    name: str
    caption: str
    alt: str
    kind: str  # "svg" or "png"
    content: bytes


@dataclass(frozen=True)
class Executed:
    """One executed notebook.

    Args:
        path: of the file.
        made: what ``bisam notebook`` has noted about the execution; empty for one that was made otherwise.
        parameters: name to value.
        tables: name and rows of each table that its cells have published, in their order.
        checked: heading and text of each cell whose text the tests compare, by the id of the cell.
        figures: the pictures.

    Example:
        >>> Executed(Path("out.ipynb"), {}, {"seeds": 2}, [], {}, []).claims
        []
    """

    path: Path
    made: dict
    parameters: dict
    tables: list[tuple[str, list[dict]]]
    checked: dict[str, tuple[str, str]]
    figures: list[Figure]

    @property
    def claims(self) -> list[dict]:
        """The rows of all tables of claims."""
        return [row for name, rows in self.tables if name == "claims" for row in rows]


def read(path: str | Path) -> Executed:
    """Reads an executed notebook.

    Args:
        path: the ``.ipynb`` file.

    Raises:
        NotebookError: it cannot be read, or is no notebook of format 4.

    Example:
        >>> from bisam.notebook.find import find
        >>> page = read(find("lower_bounds"))
        >>> page.parameters["alpha"], [figure.name for figure in page.figures][0]
        (0.1, 'fig-lower-bounds')
    """
    path = _checks.path("path", path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["nbformat"] != 4:
            raise ValueError(f"format {shown(found['nbformat'])}")
        cells = [{**cell, "source": _joined(cell["source"])} for cell in found["cells"]]
        made = found["metadata"].get("bisam", {}).get("run", {})
        values = made.get("parameters") or _parameters(path, found)
        return Executed(path, made, values, _in_order(published(cells), made.get("columns", {})), checked(cells), _figures(cells))
    except OSError as error:
        raise NotebookError(f"{plain(str(path))} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotebookError(f"{plain(str(path))} must be an executed notebook of format 4, and is none: {type(error).__name__} {shown(error)}") from None


def published(cells: list) -> list[tuple[str, list[dict]]]:
    """Name and rows of each table that cells have published, in their order; tables of one name are one.

    Args:
        cells: of a notebook, as JSON has them.

    Example:
        >>> output = {"output_type": "display_data", "data": {TABLE: {"name": "claims", "rows": [{"claim": "SAM is above SGD", "yours": True}]}}}
        >>> published([{"cell_type": "code", "outputs": [output]}])
        [('claims', [{'claim': 'SAM is above SGD', 'yours': True}])]
    """
    found: dict[str, list[dict]] = {}
    for cell in cells:
        for output in cell.get("outputs", []):
            table = output.get("data", {}).get(TABLE)
            if table is not None:
                table = json.loads(_joined(table)) if isinstance(table, (str, list)) else table
                found.setdefault(str(table["name"]), []).extend(dict(row) for row in table["rows"])
    return list(found.items())


def columns_of(rows: Iterable[Mapping]) -> list[str]:
    """Every column that one of the rows has, in the order of their first appearance.

    Args:
        rows: name of the column to value.

    Example:
        >>> columns_of([{"seed": 0, "rho": 0.1}, {"seed": 1, "note": ""}])
        ['seed', 'rho', 'note']
    """
    return list(dict.fromkeys(name for row in rows for name in row))


def _in_order(tables: list[tuple[str, list[dict]]], columns: Mapping[str, list[str]]) -> list[tuple[str, list[dict]]]:
    """The tables with their columns as they were published."""
    return [(name, [{key: row[key] for key in [*columns.get(name, []), *row] if key in row} for row in rows]) for name, rows in tables]


def _joined(text: str | list) -> str:
    return text if isinstance(text, str) else "".join(text)


def _parameters(path: Path, notebook: dict) -> dict:
    """What a notebook declares, with what papermill has noted; nothing where it declares none."""
    try:
        declared = {name: one.default for name, one in declarations.from_notebook(path).items()}
    except ParameterError:
        declared = {}
    return {**declared, **notebook["metadata"].get("papermill", {}).get("parameters", {})}


def checked(cells: list) -> dict[str, tuple[str, str]]:
    """Heading and printed text of each cell that the tests compare, by the id of the cell.

    Args:
        cells: of a notebook, as JSON has them.

    Example:
        >>> checked([{"cell_type": "code", "id": "a", "metadata": {"tags": [CHECKED]}, "outputs": []}])
        {'a': ('', '')}
    """
    found, heading = {}, ""
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "markdown":
            headings = [line.lstrip("# ") for line in _joined(cell["source"]).splitlines() if line.startswith("#")]
            heading = headings[-1] if headings else heading
        elif CHECKED in cell["metadata"].get("tags", []):
            found[cell.get("id") or f"cell {number}"] = (heading, _text(cell))
    return found


def _text(cell: dict) -> str:
    parts = []
    for output in cell.get("outputs", []):
        if output["output_type"] == "stream" and output["name"] == "stdout":
            parts.append(_joined(output["text"]))
        elif output["output_type"] in ("display_data", "execute_result") and not PICTURES & output["data"].keys():
            parts.append(_joined(output["data"].get("text/plain", "")) + "\n")
    return "".join(parts)


def figure_names(cells: list) -> list[tuple[str, dict]]:
    """Name and output of every picture, as its cell names it; the second of a cell has a number.

    Args:
        cells: of a notebook, as JSON has them.

    Example:
        >>> output = {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo="}}
        >>> [name for name, _ in figure_names([{"metadata": {}, "outputs": [output, output]}])]
        ['cell-0', 'cell-0-2']
    """
    found = []
    for number, cell in enumerate(cells):
        name = cell["metadata"].get("mystnb", {}).get("figure", {}).get("name", f"cell-{cell.get('id') or number}")
        pictures = [output for output in cell.get("outputs", []) if PICTURES & output.get("data", {}).keys()]
        found += [(name + (f"-{k + 1}" if k else ""), output) for k, output in enumerate(pictures)]
    return found


def _figures(cells: list) -> list[Figure]:
    about = {}
    for cell in cells:
        given = cell["metadata"].get("mystnb", {})
        about[given.get("figure", {}).get("name")] = (given.get("figure", {}).get("caption", ""), given.get("image", {}).get("alt", ""))
    return [Figure(name, *about.get(name, ("", "")), *_content(output["data"])) for name, output in figure_names(cells)]


def _content(data: Mapping) -> tuple[str, bytes]:
    if SVG in data:
        return "svg", _joined(data[SVG]).encode()
    return "png", base64.b64decode(_joined(data[PNG]))
