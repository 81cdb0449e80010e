"""Records and notebooks are found from the working folder, then beside the package; elsewhere one sentence says what is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bisam
from bisam import cli
from bisam.evidence import places, summaries

PACKAGE = Path(bisam.__file__).parent
ROOT = PACKAGE.parent


def test_the_nearest_list_of_claims_is_found_then_that_of_the_checkout(tmp_path):
    deep = tmp_path / "mine" / "a" / "b"
    deep.mkdir(parents=True)
    assert places.found_from(deep) == ROOT / "results"
    (tmp_path / "mine" / "results").mkdir()
    assert places.found_from(deep) == ROOT / "results"  # no list in it
    (tmp_path / "mine" / "results" / "claims.toml").touch()
    assert places.found_from(deep) == places.found_from(tmp_path / "mine") == tmp_path / "mine" / "results"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package in a folder without records and notebooks."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE, folder / "bisam", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def said(installed, here, *words):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run([sys.executable, *words], cwd=here, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_outside_a_checkout_modules_import_and_what_needs_records_ends_with_one_sentence(installed, tmp_path):
    code = """
import bisam.evidence.decisions, bisam.evidence.queue, bisam.evidence.needed, bisam.notebook.drawing
from bisam import cli
print([cli.main(words) for words in (["report"], ["verify"], ["reproduce", "T9", "--plan"], ["evidence", "--plan"], ["notebook"])])
"""
    found = said(installed, tmp_path, "-c", code)
    assert found.stdout == "[1, 1, 1, 1, 1]\n", found.stderr
    lines = found.stderr.splitlines()
    assert len(lines) == 5 and all(line.startswith("bisam: this works in a checkout of bisam or below a folder with") for line in lines)
    assert f"none found at {tmp_path / 'results'}, in a folder above, or at {installed / 'results'}. `pip install -e .` in a checkout installs" in lines[0]


@pytest.mark.slow
def test_an_installed_package_finds_records_from_the_working_folder(installed):
    code = "from bisam.evidence.listing import experiment; from bisam.notebook.find import find; print(experiment('first_run').seeds, find('first_run'))"
    found = said(installed, ROOT / "results" / "runs", "-c", code)
    assert found.stdout == f"10 {ROOT / 'notebooks' / 'first_run.ipynb'}\n", found.stderr


def test_a_missing_library_is_one_sentence_with_its_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(ModuleNotFoundError, match=r"^scipy is needed here .*bisam\[train\]"):
        summaries.welch(94.28, 0.31, 6, 94.09, 0.26, 6)
    assert cli.main(["report", "T1"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("bisam: scipy is needed here") and lines[0].endswith('pip install "bisam[train]"')
