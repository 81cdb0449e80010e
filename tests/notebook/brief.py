"""Notebooks of a few lines, which tests write and execute."""

import json

DECLARED = "n: int = 1  # a number; allowed: [0, 9]\nword: str = \"a\"  # a word; allowed: any"


def code(source, name, tags=(), **metadata):
    return {"cell_type": "code", "id": name, "metadata": {"tags": list(tags), **metadata}, "source": source, "outputs": [], "execution_count": None}


def prose(source, name):
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


def write(folder, *cells, declared=DECLARED, kernel="python3", name="small"):
    """A notebook ``NAME`` below a folder, with cells given as sources or whole."""
    cells = [code(cell, f"c{k}") if isinstance(cell, str) else cell for k, cell in enumerate(cells)]
    content = {
        "cells": [code(declared, "parameters", ["parameters"]), *cells], "nbformat": 4, "nbformat_minor": 5,
        "metadata": {"kernelspec": {"display_name": kernel, "language": "python", "name": kernel}},
    }  # fmt: skip
    (folder / "notebooks").mkdir(exist_ok=True)
    path = folder / "notebooks" / f"{name}.ipynb"
    path.write_text(json.dumps(content))
    return path


def printed(path):
    """All that the cells of an executed notebook have printed."""
    cells = json.loads(path.read_text())["cells"]
    return "".join("".join(out.get("text", [])) for cell in cells for out in cell.get("outputs", []))
