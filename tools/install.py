"""Makes the environment that a command needs: `.venv` with everything, or `.venv-html` with the book's tools alone. JupyterLab comes into `.venv`.

`.venv-sphinx` has the newest Sphinx, without Jupyter Book.

Runs on a bare Python; finished environments are recognised by a stamp and left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONTENTS = {
    "all": "torch and all tools, about 6 GB",
    "html": "the tools of the book",
    "lab": "JupyterLab and its widgets",
    "sphinx": "the newest Sphinx and its extensions",
}
FOLDERS = {"html": ".venv-html", "sphinx": ".venv-sphinx"}
OF_PIP = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX")  # where packages are to come from, which uv does not read
NOT_COMPILED = r"site-packages[/\\](.*[/\\]tests|transformers[/\\]models)[/\\](?!auto)"  # nothing here imports them


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("what", choices=tuple(CONTENTS))
    arguments.add_argument("--constraints", default="constraints.txt", help="versions to hold to; empty for the newest")
    given = arguments.parse_args()
    if sys.version_info < (3, 11):  # noqa: UP036 - this file is what says so
        return fail(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; try make PYTHON=python3.12")
    constraints = Path(given.constraints) if given.constraints else None
    if constraints and not (ROOT / constraints).exists():
        return fail(f"CONSTRAINTS={constraints} is not there")
    full = ROOT / ".venv"
    if given.what == "html" and is_ready(full, stamp(constraints)):
        return 0  # the full environment builds the book as well
    folder = ROOT / FOLDERS.get(given.what, ".venv")
    if is_ready(folder, stamp(constraints), given.what):
        return 0
    return install(folder, given.what, constraints)


def install(folder: Path, what: str, constraints: Path | None) -> int:
    started = time.perf_counter()
    say(f"setting up {folder.name} ({CONTENTS[what]})")
    try:
        make(folder)
    except (subprocess.CalledProcessError, OSError) as error:
        return fail(f"python -m venv failed ({error}); on Debian and Ubuntu: apt install python3-venv")
    held = ["--constraint", str(constraints)] if constraints else ["--upgrade"]
    python = folder / "bin" / "python"
    if not is_fetched_by_uv(python, held, packages(what)):
        status = run(python, "-m", "pip", "install", "--no-compile", *held, *packages(what))
        if status:
            return fail(f"pip ended with status {status}; its last lines above say why. The same command tries again")
    # On all cores: pip would take one, and all files. Those written for another Python stay as they are, without a word.
    subprocess.run([python, "-m", "compileall", "-q", "-q", "-j", "0", "-x", NOT_COMPILED, folder])
    mark(folder, what).write_text(stamp(constraints))
    say(f"{folder.name} is ready after {time.perf_counter() - started:.0f} s")
    return 0


def is_fetched_by_uv(python: Path, held: list[str], wanted: list[str]) -> bool:
    """Whether uv has installed the packages, in a third of the time that pip takes; pip does it where uv cannot be had, or knows no way to them."""
    if any(name in os.environ for name in OF_PIP) or run(python, "-m", "pip", "install", "--quiet", *held, "uv"):
        return False
    return run(python, "-m", "uv", "pip", "install", "--python", python, *held, *wanted) == 0


def run(*words: str | Path) -> int:
    """The status of a command, which waits for slow networks and does not ask whether there is a newer pip."""
    return subprocess.run(words, cwd=ROOT, env={"UV_HTTP_TIMEOUT": "300", **os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}).returncode


def make(folder: Path) -> None:
    """A virtual environment with pip, of the Python that runs this; a half-made or older one is made anew."""
    version = "import sys, pip; print(sys.version_info[:2])"
    python = folder / "bin" / "python"
    if python.exists():
        found = subprocess.run([python, "-c", version], capture_output=True, text=True)
        if found.returncode == 0 and found.stdout.strip() == str(sys.version_info[:2]):
            return
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True, symlinks=os.name != "nt")


def packages(what: str) -> list[str]:
    import tomllib

    if what in ("all", "lab"):
        return ["--editable", ".[notebooks,docs,test,loops,language,cluster,release]" if what == "all" else ".[lab]"]
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return content["dependency-groups"]["sphinx"] if what == "sphinx" else content["project"]["optional-dependencies"]["docs"]


def stamp(constraints: Path | None) -> str:
    files = [ROOT / "pyproject.toml"] + ([ROOT / constraints] if constraints else [])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() + f" {sys.version_info[:2]}"


def mark(folder: Path, what: str) -> Path:
    """The stamp of an environment; JupyterLab, which comes into the full one, has its own."""
    return folder / ("stamp-lab" if what == "lab" else "stamp")


def is_ready(folder: Path, wanted: str, what: str = "all") -> bool:
    return mark(folder, what).exists() and mark(folder, what).read_text() == wanted


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def fail(text: str) -> int:
    print(f"==> failed: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
