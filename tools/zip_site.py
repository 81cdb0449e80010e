"""Packs the built book into one file, from which it reads without a network: unpack it and open `index.html`; the search works there, too."""

from __future__ import annotations

import argparse
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
LEFT_OUT = {".buildinfo", ".nojekyll", "objects.inv"}  # for machines
NEVER = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can name: the same book is packed into the same file


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--output", type=Path, help="the file; _build/bisam-VERSION-site.zip if not given")
    given = arguments.parse_args()
    if not (HTML / "index.html").exists():
        print("==> failed: there is no book to pack: run `make html`", file=sys.stderr)
        return 1
    output = given.output or ROOT / "_build" / f"bisam-{version()}-site.zip"
    pack(HTML, output, f"bisam-{version()}")
    print(f"==> the zip file is {output}")
    return 0


def version() -> str:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def pack(source: Path, output: Path, folder: str) -> None:
    """Packs all files below a folder, in one folder of this name."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as pack:
        for path in sorted(source.rglob("*")):
            if path.is_file() and path.name not in LEFT_OUT:
                entry = zipfile.ZipInfo(f"{folder}/{path.relative_to(source).as_posix()}", NEVER)
                entry.external_attr, entry.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
                pack.writestr(entry, path.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
