"""Writes into the setup cell of every notebook what happens where `bisam` is not installed, as on Colab.

With an address in `[tool.bisam] repository` of pyproject.toml the cell fetches the tag of this version with its records and installs it; without one
it says in a sentence how to install it. A notebook whose outputs were current stays current, for the lines do nothing where `bisam` is installed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from pathlib import Path

import execute_notebooks as execute

from bisam._files import write_whole

ROOT = Path(__file__).resolve().parents[1]
TEST = 'if importlib.util.find_spec("bisam") is None:'
BLOCK = re.compile(rf"\Aimport importlib\.util\n\n{re.escape(TEST)}.*\n(?:(?: {{4}}.*)?\n)*?(?=\S)")
SETUP = "page.begin("

MISSING = f"""import importlib.util

{TEST}
    raise ModuleNotFoundError(
        'bisam is not installed: run `pip install -e ".[notebooks]"` in a checkout '
        "of it, and start the kernel again"
    )

"""
FETCHED = f"""import importlib.util

{TEST}  # as on Colab: fetch it with its records
    import os
    import subprocess
    import sys

    for words in (
        ["git", "clone", "-q", "--depth", "1", "--branch", "TAG",
         "ADDRESS", "FOLDER"],
        [sys.executable, "-m", "pip", "install", "-q", "-e",
         "FOLDER[notebooks]"],
    ):
        subprocess.run(words, check=True)
    sys.path.insert(0, os.path.abspath("FOLDER"))

"""


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true", help="write nothing; fail if a notebook lacks the lines or has others")
    arguments.add_argument("--folder", type=Path, default=ROOT / "notebooks", help="of the notebooks")
    given = arguments.parse_args()
    lines = block(**setting())
    wrong = [path for path in sorted(given.folder.glob("*.ipynb")) if changed(path, lines) is not None]
    if given.check:
        print("\n".join(f"first cell: {path} needs `python tools/first_cell.py`" for path in wrong))
        return 1 if wrong else 0
    for path in wrong:
        write(path, lines)
    print(f"==> first cell: {len(wrong)} notebooks written")
    return 0


def setting() -> dict[str, str]:
    """The address of the project, empty if it has none, and the version."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {"address": content["tool"]["bisam"]["repository"], "version": content["project"]["version"]}


def block(address: str, version: str) -> str:
    """The lines, for a project at this address."""
    if not address:
        return MISSING
    if not re.fullmatch(r"[\w.:/@~+-]+", address):
        raise SystemExit(f"==> failed: repository must be the address of a git repository, got {address!r}")
    return FETCHED.replace("TAG", f"v{version}").replace("ADDRESS", address).replace("FOLDER", f"bisam-{version}")


def changed(path: Path, lines: str) -> dict | None:
    """The notebook with the lines at the head of its setup cell; nothing if it has them already."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cell = next((each for each in notebook["cells"] if each["cell_type"] == "code" and SETUP in "".join(each["source"])), None)
    if cell is None:
        raise SystemExit(f"==> failed: {path} has no cell with {SETUP}...)")
    before = "".join(cell["source"])
    after = lines + BLOCK.sub("", before)
    if after == before:
        return None
    cell["source"] = after.splitlines(keepends=True)
    return notebook


def write(path: Path, lines: str) -> None:
    """Writes a notebook, and the digests of its outputs if these were current."""
    is_page = path.parent == ROOT / "notebooks"
    current = [scale for scale in execute.SCALES if is_page and not execute.is_stale(path, scale)]
    notebook = changed(path, lines)
    digest = execute.inputs_digest(path, notebook)
    if "laptop" in current:
        notebook["metadata"]["bisam"]["inputs"] = digest
    write_whole(path, json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    if "smoke" in current:
        stored = json.loads(execute.smoke_of(path).read_text(encoding="utf-8"))
        write_whole(execute.smoke_of(path), json.dumps({**stored, "inputs": digest}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
