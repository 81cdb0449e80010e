"""Executes notebooks, those that are out of date or all, and stores what came out.

At scale `laptop`, the default of every notebook, the outputs are stored in the notebook itself: it is the page of the book. At scale
`smoke`, which takes seconds and is what tests execute, they are stored in `tests/notebook/smoke`.

A notebook is out of date when its own code, a module of `bisam/` that it reaches, or the records it reads have changed
since it was executed; comments, docstrings and prose do not count. What is stored is written only after every cell has succeeded, and
holds nothing that depends on when it ran, so that executing an unchanged notebook again leaves the same bytes. Times and versions go to
`book/status.json`.
"""

from __future__ import annotations

import argparse
import ast
import base64
import concurrent.futures
import functools
import gzip
import hashlib
import json
import platform
import re
import sys
import time
from pathlib import Path

import nbformat

from bisam._files import write_whole
from bisam.notebook.attempt import merged
from bisam.notebook.pictures import NARROW, PDF, SVG

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bisam"
STATUS = ROOT / "book" / "status.json"
SMOKE = ROOT / "tests" / "notebook" / "smoke"
RENDERINGS = ROOT / "book" / "renderings"  # the PDF and the narrow SVG of each figure, so that the notebooks stay small
SCALES = ("laptop", "smoke")
PICTURES = ("image/png", SVG, PDF, NARROW)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("names", nargs="*", help="of notebooks; all if none is named")
    arguments.add_argument("--scale", choices=(*SCALES, "both"), default="both", help="laptop: the pages; smoke: what tests compare with")
    arguments.add_argument("--all", action="store_true", help="also those that are up to date")
    arguments.add_argument("--check", action="store_true", help="execute nothing; fail if one is out of date")
    arguments.add_argument("--workers", type=int, default=1, help="how many to execute side by side")
    given = arguments.parse_args()
    paths = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    unknown = [name for name in given.names if name not in paths]
    if unknown:
        print(f"==> failed: there is no notebook {unknown[0]}; there are: {', '.join(paths)}", file=sys.stderr)
        return 1
    scales = SCALES if given.scale == "both" else (given.scale,)
    chosen = [(paths[name], scale) for scale in scales for name in given.names or paths]
    stale = [each for each in chosen if given.all or is_stale(*each)]
    if given.check:
        print("\n".join(f"out of date at scale {scale}: {path.relative_to(ROOT)}" for path, scale in stale))
        return 1 if stale else 0
    if not stale:
        print(f"==> notebooks: {len(chosen)} of {len(chosen)} are up to date, nothing to execute")
    return 0 if execute_all(stale, given.workers) else 1


def execute_all(stale: list[tuple[Path, str]], workers: int) -> bool:
    """Executes notebooks, those that took longest first; says whether all succeeded."""
    took = {name: entry["wall_seconds"] for name, entry in read_status().items()}
    stale = sorted(stale, key=lambda each: (each[1], -took.get(each[0].stem, 0.0)))
    succeeded = True
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(execute, path, scale) for path, scale in stale]
        try:
            for done in concurrent.futures.as_completed(running):
                succeeded = keep(*done.result()) and succeeded
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            print("==> stopped; what was executed is stored, the same command goes on", file=sys.stderr)
            return False
    return succeeded


def smoke_of(path: Path) -> Path:
    """Where the outputs at scale smoke are stored."""
    return SMOKE / f"{path.stem}.json"


def at_scale(notebook: nbformat.NotebookNode, scale: str) -> nbformat.NotebookNode:
    """The notebook at a scale: where its default is another, with a cell below the declarations, as papermill adds one."""
    for place, cell in enumerate(notebook.cells):
        if "parameters" in cell.metadata.get("tags", []) and not re.search(rf'^scale: str = "{scale}"', cell.source, flags=re.M):
            notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(f'# Parameters\nscale = "{scale}"', id="scale-of-this-execution"))
            break
    return notebook


def smoke_notebook(path: Path) -> nbformat.NotebookNode:
    """A notebook at scale smoke with the outputs that are stored for it; cells that are new have none."""
    notebook = at_scale(nbformat.read(path, as_version=4), "smoke")
    stored = json.loads(smoke_of(path).read_text(encoding="utf-8"))["outputs"] if smoke_of(path).exists() else {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [nbformat.from_dict(output) for output in stored.get(cell.id, [])]
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return notebook


def inputs_digest(path: Path, notebook: dict) -> str:
    """A digest over all that the outputs of a notebook depend on."""
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    digest = hashlib.sha256(json.dumps(cells).encode())
    files = modules(" ".join(cells))
    if "book/code" in json.dumps(cells):
        files += sorted((ROOT / "book" / "code").glob("*.py"))
    if PACKAGE / "evidence" / "listing.py" in files:
        files += [ROOT / "results" / "claims.toml", *sorted((ROOT / "results" / "runs").rglob("*.json"))]
    if PACKAGE / "evidence" / "measured.py" in files:
        files += sorted(path for path in (ROOT / "results" / "measured").iterdir() if path.is_file())
    if PACKAGE / "evidence" / "published.py" in files or "published.csv" in json.dumps(cells):
        files.append(ROOT / "results" / "published.csv")
    if "benchmarks.json" in json.dumps(cells):
        files.append(ROOT / "results" / "benchmarks.json")
    if "plain_finetuning.csv" in json.dumps(cells):
        files.append(ROOT / "benchmarks" / "plain_finetuning.csv")
    for file in files:
        content = code(file).encode() if file.suffix == ".py" else file.read_bytes()
        digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + content)
    return digest.hexdigest()[:16]


@functools.cache
def code(path: Path) -> str:
    """The lines of a Python file that do something: no docstring, no line of comment, no blank line."""
    text = path.read_text(encoding="utf-8")
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    first = [node.body[0] for node in ast.walk(ast.parse(text)) if isinstance(node, kinds) and node.body]
    strings = [node for node in first if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)]
    left_out = {number for node in strings for number in range(node.lineno, node.end_lineno + 1)}
    lines = enumerate(text.splitlines(), start=1)
    return "\n".join(line.rstrip() for number, line in lines if number not in left_out and line.strip() and not line.lstrip().startswith("#"))


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


def is_stale(path: Path, scale: str = "laptop") -> bool:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    if scale == "laptop":
        stored = notebook["metadata"].get("bisam", {}).get("inputs")
    else:
        stored = json.loads(smoke_of(path).read_text(encoding="utf-8"))["inputs"] if smoke_of(path).exists() else None
    return stored != inputs_digest(path, notebook)


def execute(path: Path, scale: str) -> tuple[Path, str, nbformat.NotebookNode, float, str]:
    """The executed notebook, the seconds that took, and what went wrong."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = at_scale(nbformat.read(path, as_version=4), scale)
    client = NotebookClient(
        notebook, timeout=3600, kernel_name="python3", record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--log-level=ERROR"],  # the kernel warns of TCP, which here stays on this machine
    )
    print(f"==> executing {path.name} at scale {scale}", flush=True)
    started, said = time.perf_counter(), ""
    try:
        client.execute()
    except CellExecutionError as error:
        said = str(error)
    return path, scale, notebook, time.perf_counter() - started, said


def keep(path: Path, scale: str, notebook: nbformat.NotebookNode, seconds: float, said: str) -> bool:
    """Stores an executed notebook; says whether it succeeded."""
    if said:
        print(f"==> failed at scale {scale}: {path.relative_to(ROOT)} (what was stored is as it was)\n{said}", file=sys.stderr)
        return False
    print(f"==> {path.name} at scale {scale}: {seconds:.1f} s", flush=True)
    tidy(notebook)
    if scale == "smoke":
        store_smoke(path, notebook, seconds)
        return True
    before = path.read_bytes()
    set_aside(path.stem, notebook)
    store(path, notebook)
    if path.read_bytes() != before or path.stem not in read_status():
        write_status(path.stem, seconds)
    return True


def set_aside(stem: str, notebook: nbformat.NotebookNode) -> None:
    """Takes the renderings of each figure out of a notebook, and writes them to files that the book finds by the figure's name."""
    RENDERINGS.mkdir(exist_ok=True)
    for cell in notebook.cells:
        figures = [output.data for output in cell.get("outputs", []) if SVG in output.get("data", {})]
        for number, data in enumerate(figures):
            name = figure_name(stem, cell, number)
            for kind, ending in ((PDF, "pdf"), (NARROW, "narrow.svg")):
                content, place = data.pop(kind, None), RENDERINGS / f"{name}.{ending}"
                if content:
                    decoded = base64.b64decode(content)
                    write_whole(place, gzip.decompress(decoded) if kind == NARROW else decoded)
                else:
                    place.unlink(missing_ok=True)


def figure_name(stem: str, cell: nbformat.NotebookNode, number: int) -> str:
    """The name that the cell gives its figure, or one of the notebook and the cell."""
    name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name", f"{stem}-{cell.id}")
    return f"{name}-{number + 1}" if number else name


def tidy(notebook: nbformat.NotebookNode) -> None:
    for cell in notebook.cells:
        for key in ("execution", "papermill", "ExecuteTime"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = merged(cell.outputs)


def store(path: Path, notebook: nbformat.NotebookNode) -> None:
    digest = inputs_digest(path, notebook)
    notebook.metadata = nbformat.from_dict({
        "bisam": {"inputs": digest},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "file_extension": ".py", "nbconvert_exporter": "python"},  # so that nbconvert writes .py
    })
    nbformat.validate(notebook)
    write_whole(path, nbformat.writes(notebook) + "\n")


def store_smoke(path: Path, notebook: nbformat.NotebookNode, seconds: float) -> None:
    """The outputs by the name of their cells, without pictures, which nbval does not compare."""
    digest = inputs_digest(path, json.loads(path.read_text(encoding="utf-8")))
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code" and cell.outputs}
    for output in (output for found in outputs.values() for output in found):
        for kind in set(PICTURES) & output.get("data", {}).keys():
            output["data"][kind] = ""
    before = json.loads(smoke_of(path).read_text(encoding="utf-8")) if smoke_of(path).exists() else {}
    if before.get("outputs") == json.loads(json.dumps(outputs)):
        seconds = before["seconds"]  # the file of an unchanged notebook stays as it is
    SMOKE.mkdir(exist_ok=True)
    content = {"inputs": digest, "seconds": round(seconds, 1), "outputs": outputs}
    write_whole(smoke_of(path), json.dumps(content, indent=1, ensure_ascii=False) + "\n")


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
