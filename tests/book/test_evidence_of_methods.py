"""The word on its evidence that the page of methods has for every row, computed again from the records and the notebooks."""

import ast
import json
import re
from functools import cache
from pathlib import Path

import bisam

ROOT = Path(__file__).resolve().parents[2]
RECORDED, TRIED, FORMULA = "recorded", "tried in a notebook", "formula only"


@cache
def recorded():
    """The names of the recipes that records have, read without the rest of the records."""
    paths = (ROOT / "results" / "runs").rglob("*.json")
    name = re.compile(r'"recipe":\s*\{[^{}]*?"name":\s*"([^"]+)"')
    return {found[1] for path in paths if (found := name.search(path.read_text(encoding="utf-8")))}


@cache
def tried():
    """The rows whose name or constant stands in the code of a notebook."""
    constants = {name: row.name for name, row in vars(bisam.methods).items() if isinstance(row, bisam.Recipe)}
    found = set()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for cell in cells:
            if cell["cell_type"] != "code":
                continue
            for node in ast.walk(ast.parse("".join(cell["source"]))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
                elif isinstance(node, (ast.Name, ast.Attribute)):
                    found.add(constants.get(node.id if isinstance(node, ast.Name) else node.attr))
    return found


def word(name):
    return RECORDED if name in recorded() else TRIED if name in tried() else FORMULA


def shown():
    """The last cell of each row of the page; where it has several names, a word for each of them, or one for all."""
    for line in (ROOT / "book" / "methods.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            names, words = re.findall(r"`([^`]+)`", cells[0]), cells[-1].split("; ")
            assert len(words) in (1, len(names)), line
            yield from zip(names, words * (len(names) if len(words) == 1 else 1), strict=True)


def test_the_page_says_what_there_is_of_a_row():
    rows = list(shown())
    assert len(rows) > 30 and [(name, evidence, word(name)) for name, evidence in rows if evidence != word(name)] == []


def test_the_names_in_the_records_are_found():
    assert {"sgd", "sam", "bisam-log"} <= recorded() and "sam-every-k" in bisam.RECIPES
