"""The tables and figures of an executed notebook as files that other programs read."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from .. import _files as files
from .executed import checked, columns_of, figure_names, published
from .outputs import data_of

__all__ = ["csv_text", "safe", "write_data", "write_figures"]

VECTORS = {"image/svg+xml": "svg", "application/pdf": "pdf"}


def write_data(place: Path, cells: list, about: Mapping) -> None:
    """Writes the folder beside an executed notebook: ``run.json`` with everything, and a CSV for each table.

    Args:
        place: of the notebook.
        cells: that were executed.
        about: how it was made.

    Raises:
        OSError: the disk does not take it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_data(Path(folder) / "out.ipynb", [], {"seconds": 1.0})
        ...     (Path(folder) / "out.data" / "run.json").read_text()
        '{\\n "seconds": 1.0,\\n "tables": {},\\n "checked": {}\\n}\\n'
    """
    folder, tables = data_of(place), published(cells)
    folder.mkdir(exist_ok=True)
    lines = {name: text for name, (_, text) in checked(cells).items()}
    content = json.dumps({**about, "tables": dict(tables), "checked": lines}, indent=1, ensure_ascii=False)
    files.write_whole(folder / "run.json", content + "\n")
    for name, rows in tables:
        files.write_whole(folder / f"{safe(name)}.csv", csv_text(rows))


def csv_text(rows: Iterable[Mapping]) -> str:
    """Rows as CSV, with every column that one of them has, in the order of their first appearance.

    Args:
        rows: name of the column to value.

    Example:
        >>> print(csv_text([{"seed": 0, "rho": 0.1}, {"seed": 1, "note": "a, b"}]), end="")
        seed,rho,note
        0,0.1,
        1,,"a, b"
    """
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns_of(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_figures(notebook, folder: Path | None) -> None:
    """Writes the figures as SVG and PDF; what was drawn for that alone does not stay in the notebook.

    Args:
        notebook: that was executed.
        folder: in which they are written, under the names that the cells give them; ``None`` for none.

    Raises:
        OSError: the disk does not take it.

    Example:
        >>> write_figures({"cells": []}, None)
    """
    if folder is None:
        return
    for name, output in figure_names(notebook["cells"]):
        for kind, ending in VECTORS.items():
            if kind not in output["data"]:
                continue
            data = output["data"].pop(kind) if "image/png" in output["data"] else output["data"][kind]
            data = data if isinstance(data, str) else "".join(data)
            folder.mkdir(parents=True, exist_ok=True)
            files.write_whole(folder / f"{safe(name)}.{ending}", data if ending == "svg" else base64.b64decode(data))


def safe(name: str) -> str:
    """A name of a table or a figure that can stand in the name of a file.

    Args:
        name: as a cell gives it.

    Example:
        >>> safe("my table/2")
        'my-table-2'
    """
    return re.sub("[^A-Za-z0-9_.+=-]+", "-", name).strip("-.")[:120] or "table"
