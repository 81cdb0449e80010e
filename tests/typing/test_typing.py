"""A type checker reads the annotations of the package from outside, and agrees with a script of its user."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USER = Path(__file__).with_name("user.py")
WORDS = ["-m", "mypy", "--config-file", str(USER.with_name("mypy.ini"))]


@pytest.mark.slow
def test_the_public_signatures_carry_types(tmp_path):
    """The package stands in a folder of its own, as if it were installed. A line that has to be wrong and is not taken for it is an error, too."""
    shutil.copytree(ROOT / "bisam", tmp_path / "site" / "bisam", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(USER, tmp_path / "script.py")
    words = [sys.executable, *WORDS, "--cache-dir", str(tmp_path / "cache"), "script.py"]
    said = subprocess.run(words, cwd=tmp_path, env={"MYPYPATH": str(tmp_path / "site"), "PATH": ""}, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr


def test_the_marker_of_types_is_shipped():
    import tomllib

    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    assert (ROOT / "bisam" / "py.typed").exists() and "py.typed" in data["bisam"]
