"""Executes notebooks in place: those that are out of date, or all.

A notebook is out of date when its own cells, a module of `bisam/` that they reach, or the records it reads have changed
since it was executed. The file is written only after every cell has succeeded, and holds nothing that depends on when it ran, so
that executing an unchanged notebook again leaves the same bytes. Times and versions go to `book/status.json`.
"""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import json
import platform
import re
import sys
import time
from pathlib import Path

import nbformat

from bisam._files import write_whole

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bisam"
STATUS = ROOT / "book" / "status.json"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("names", nargs="*", help="of notebooks; all if none is named")
    arguments.add_argument("--all", action="store_true", help="also those that are up to date")
    arguments.add_argument("--check", action="store_true", help="execute nothing; fail if one is out of date")
    given = arguments.parse_args()
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    chosen = [path for path in paths if not given.names or path.stem in given.names]
    stale = [path for path in chosen if given.all or is_stale(path)]
    if given.check:
        print("\n".join(f"out of date: {path.relative_to(ROOT)}" for path in stale))
        return 1 if stale else 0
    if not stale:
        print(f"==> notebooks: {len(chosen)} of {len(chosen)} are up to date, nothing to execute")
    for path in stale:
        if not execute(path):
            return 1
    return 0


def inputs_digest(path: Path, notebook: dict) -> str:
    """A digest over all that the outputs of a notebook depend on."""
    cells = [[cell["cell_type"], "".join(cell["source"]), cell["metadata"]] for cell in notebook["cells"]]
    digest = hashlib.sha256(json.dumps(cells, sort_keys=True).encode())
    files = modules(" ".join("".join(cell["source"]) for cell in notebook["cells"]))
    if "book/code" in json.dumps(cells):
        files += sorted((ROOT / "book" / "code").glob("*.py"))
    if PACKAGE / "evidence" / "listing.py" in files:
        files += [ROOT / "results" / "claims.toml", *sorted((ROOT / "results" / "runs").rglob("*.json"))]
    if PACKAGE / "evidence" / "published.py" in files or "published.csv" in json.dumps(cells):
        files.append(ROOT / "results" / "published.csv")
    if "benchmarks.json" in json.dumps(cells):
        files.append(ROOT / "results" / "benchmarks.json")
    for file in files:
        digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def modules(source: str) -> list[Path]:
    """The files of the package that the code of a notebook reaches, through the names it uses and what their modules import."""
    start = PACKAGE / "__init__.py"
    waiting = [PACKAGE / "_checks.py"]
    for room, names in re.findall(r"from bisam((?:\.\w+)*) import (\([^)]*\)|[^\n#;]+)", source):
        place = find(PACKAGE, room.lstrip(".")) if room else start
        waiting += [origin(place, name) for name in re.findall(r"\w+(?: as \w+)?", names) for name in name.split(" as ")[:1]]
    for chain in re.findall(r"(?<![\w./])bisam((?:\.\w+)+)", re.sub(r"from bisam[\w.]* import", "", source)):
        place = start
        for name in chain.lstrip(".").split("."):
            place = origin(place, name)
        waiting.append(place)
    reached: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            waiting += [origin(module, name) for module, names in imports(path) for name in names]
    return sorted(reached)


def origin(module: Path, name: str) -> Path:
    """The file that a name comes from: of a room, one of its modules, or the module that its ``__init__`` takes the name from."""
    if module.name != "__init__.py":
        return module
    if (inside := find(module.parent, name)) is not None:
        return inside
    taken = {alias: other for other, names in imports(module) for alias in names}
    source = taken.get(name) or taken.get("*")
    return module if source is None else origin(source, name)


@functools.cache
def imports(path: Path) -> list[tuple[Path, list[str]]]:
    """The modules of the package that a file imports, wherever in it, each with the names that it takes from there."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            module = find(path.parents[node.level - 1], node.module or "__init__")
            if module is not None:
                found.append((module, [alias.name for alias in node.names]))
    return found


def find(folder: Path, name: str) -> Path | None:
    """The file of the module or room of that name in a folder, if there is one."""
    places = (folder.joinpath(*name.split(".")).with_suffix(".py"), folder.joinpath(*name.split("."), "__init__.py"))
    return next((place for place in places if place.exists()), None)


def is_stale(path: Path) -> bool:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return notebook["metadata"].get("bisam", {}).get("inputs") != inputs_digest(path, notebook)


def execute(path: Path) -> bool:
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    before = path.read_bytes()
    notebook = nbformat.read(path, as_version=4)
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    done = 0

    def report(cell, cell_index, **_):
        nonlocal done
        done += cell.cell_type == "code"
        if sys.stdout.isatty():
            print(f"\r==> executing {path.name}: cell {done} of {cells}", end="", flush=True)

    client = NotebookClient(
        notebook, timeout=1800, kernel_name="python3", record_timing=False, on_cell_executed=report,
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--log-level=ERROR"],  # the kernel warns of TCP, which here stays on this machine
    )
    print(f"==> executing {path.name}", end="", flush=True)
    started = time.perf_counter()
    try:
        client.execute()
    except CellExecutionError as error:
        print(f"\n==> failed: {path.relative_to(ROOT)} (the file is as it was)\n{error}", file=sys.stderr)
        return False
    seconds = time.perf_counter() - started
    print(f"  {seconds:.1f} s")
    store(path, notebook)
    if path.read_bytes() != before or path.stem not in read_status():
        write_status(path.stem, seconds)
    return True


def store(path: Path, notebook: nbformat.NotebookNode) -> None:
    for cell in notebook.cells:
        for key in ("execution", "papermill", "ExecuteTime"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = merged(cell.outputs)
    digest = inputs_digest(path, notebook)
    notebook.metadata = nbformat.from_dict({
        "bisam": {"inputs": digest},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    })
    nbformat.validate(notebook)
    write_whole(path, nbformat.writes(notebook) + "\n")


def merged(outputs: list) -> list:
    """Joins printed text that arrived in several pieces: how many pieces there are depends on the clock."""
    joined = []
    for output in outputs:
        last = joined[-1] if joined else {}
        if output.output_type == "stream" and last.get("name") == output.get("name"):
            last["text"] += output["text"]
        else:
            joined.append(output)
    return joined


def read_status() -> dict:
    return json.loads(STATUS.read_text(encoding="utf-8")) if STATUS.exists() else {}


def write_status(name: str, seconds: float) -> None:
    from importlib.metadata import version

    from bisam.training import environment

    found = environment.environment("cpu", seconds)
    entry = {name: found[name] for name in ("python", "torch", "device", "wall_seconds", "commit")}
    entry |= {"matplotlib": version("matplotlib"), "numpy": version("numpy"), "system": platform.system()}
    status = {**read_status(), name: entry}
    write_whole(STATUS, json.dumps(dict(sorted(status.items())), indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
