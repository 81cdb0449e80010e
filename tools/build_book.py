"""Builds the book strictly (nitpicky, warnings are errors) from what the notebooks have stored.

Before the build it writes what pages include: the picture of the first page, the tables of when notebooks were executed and of conformance, the tables of the pages for teachers and of
records, the index of terms, and the pictures that chapters borrow from notebooks. After it the slides and both editions of the
notebooks go beside the pages. It needs no torch.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GENERATED = ROOT / "book" / "_generated"
FIGURES = ROOT / "book" / "figures"
PICTURES = {"image/svg+xml", "image/png"}


def main() -> int:
    import build_slides
    import editions
    import teaching

    try:
        prepare()
    except teaching.TeachingError as error:
        print(f"==> failed: {error}", file=sys.stderr)
        return 1
    forget_if_settings_changed()
    print("==> building the book", flush=True)
    log = ROOT / "_build" / "book.log"
    log.parent.mkdir(exist_ok=True)
    command = [str(Path(sys.executable).parent / "jupyter-book"), "build", ".", "-W", "-n", "--keep-going"]
    with log.open("w", encoding="utf-8") as file:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # the reference is read from the docstrings in bisam/
        status = subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode
    if status:
        lines = log.read_text(encoding="utf-8").splitlines()
        said = [line for line in lines if "WARNING" in line or "ERROR" in line or "rror:" in line]
        print("\n".join(said or lines[-30:]), file=sys.stderr)
        print(f"==> failed: the book has {len(said)} warnings or errors; the whole log is {log}", file=sys.stderr)
        return 1
    try:
        build_slides.build(build_slides.IN_BOOK, book="..")
        editions.build(site=editions.ways.site())
    except (build_slides.DeckError, editions.EditionError) as error:
        print(f"==> failed: {error}", file=sys.stderr)
        return 1
    print(f"==> the book is {ROOT / '_build' / 'html' / 'index.html'}")
    return 0


def forget_if_settings_changed() -> None:
    """Starts afresh when something changed that Sphinx does not notice: settings, contents, styles, installed tools."""
    files = [ROOT / "_config.yml", ROOT / "_toc.yml", ROOT / "pyproject.toml"]
    files += sorted(file for folder in ("_static", "_ext") for file in (ROOT / "book" / folder).rglob("*.*") if file.suffix != ".pyc")
    content = b"".join(file.read_bytes() for file in files) + sys.executable.encode() + os.environ.get("BISAM_PUBLISHED", "").encode()
    mark, digest = ROOT / "_build" / "settings", hashlib.sha256(content).hexdigest()
    if not mark.exists() or mark.read_text() != digest:
        shutil.rmtree(ROOT / "_build" / "html", ignore_errors=True)
        shutil.rmtree(ROOT / "_build" / ".doctrees", ignore_errors=True)
        mark.parent.mkdir(exist_ok=True)
        mark.write_text(digest)


def prepare() -> None:
    GENERATED.mkdir(exist_ok=True)
    FIGURES.mkdir(exist_ok=True)
    import cover
    import gpu_tables
    import record_fields
    import teaching

    replace(GENERATED / "idea.svg", cover.idea().encode())
    replace(GENERATED / "status.md", status_table().encode())
    replace(GENERATED / "conformance.md", conformance_table().encode())
    replace(GENERATED / "record_schema.md", record_fields.tables().encode())
    for name, text in (teaching.tables() | gpu_tables.tables()).items():
        replace(GENERATED / name, text.encode())
    pictures = named_figures()
    for name, content in pictures.items():
        replace(FIGURES / f"{name}.svg", content)
    for path in FIGURES.iterdir():
        if path.stem not in pictures or path.suffix != ".svg":
            path.unlink()


def named_figures() -> dict[str, bytes]:
    """The stored pictures of all notebooks as SVG, by the name that their cells give them."""
    found = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            name = cell["metadata"].get("mystnb", {}).get("figure", {}).get("name")
            pictures = [out["data"] for out in cell.get("outputs", []) if PICTURES & set(out.get("data", {}))]
            if name and pictures:
                found[name] = svg_of(pictures[0])
    return found


def svg_of(picture: dict) -> bytes:
    """The SVG of a stored picture; around a PNG, which a notebook holds whose figures were not drawn in the style of the book."""
    if "image/svg+xml" in picture:
        return "".join(picture["image/svg+xml"]).encode()
    text = "".join("".join(picture["image/png"]).split())
    width, height = struct.unpack(">II", base64.b64decode(text)[16:24])
    size = f'width="{width}" height="{height}"'
    inside = f'<image {size} href="data:image/png;base64,{text}"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {size}>{inside}</svg>\n'.encode()


def status_table() -> str:
    rows = json.loads((ROOT / "book" / "status.json").read_text(encoding="utf-8"))
    lines = ["| notebook | seconds | device | torch | Python | commit |", "| --- | ---: | --- | --- | --- | --- |"]
    for name, run in rows.items():
        lines.append(
            f"| {{doc}}`../notebooks/{name}` | {run['wall_seconds']:.1f} | {run['device']} | {run['torch']} "
            f"| {run['python']} | `{run['commit']}` |"
        )
    return "\n".join(lines) + "\n"


def conformance_table() -> str:
    """A table of those that are SAM and one of its relatives, a column each."""
    outcomes = json.loads((ROOT / "book" / "conformance.json").read_text(encoding="utf-8"))
    is_sam = {name: name.startswith("bisam") or name.endswith(", SAM") for name in outcomes}
    tables = (_columns({name: run for name, run in outcomes.items() if is_sam[name] == wanted}) for wanted in (True, False))
    runs = sorted({f"{run['date']} with torch {run['torch']}" for run in outcomes.values()})
    return "\n".join(tables) + f"\nRun on {', '.join(runs)}.\n"


def _columns(outcomes: dict) -> str:
    """A row for each check that applies to one at least: a tick, the number that was too large, or a dash where it does not apply."""
    heads = [f"{name.removesuffix(', SAM')} {run['version']}" for name, run in outcomes.items()]
    lines = [f"| check | {' | '.join(heads)} |", f"| --- |{' :---: |' * len(heads)}"]
    for check in next(iter(outcomes.values()))["checks"]:
        cells = [_cell(run["checks"][check]) for run in outcomes.values()]
        lines += [f"| `{check}` | {' | '.join(cells)} |"] if set(cells) != {"-"} else []
    cells = (f"{run['beside']['difference']:.0e}" if run["beside"] else "-" for run in outcomes.values())
    return "\n".join([*lines, f"| from ours | {' | '.join(cells)} |", ""])


def _cell(check: dict) -> str:
    if check["verdict"] == "failed":
        return check["said"].partition(":")[0] if check["measured"] is None else f"{check['measured']:.1g}"
    return {"passed": "✓", "not applicable": "-"}[check["verdict"]]


def replace(path: Path, content: bytes) -> None:
    """Writes only what changed, so that a second build finds nothing to do."""
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)


if __name__ == "__main__":
    sys.exit(main())
