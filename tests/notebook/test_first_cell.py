"""The first lines of a notebook where the package is not installed: they fetch a tag and install it, or say how to."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import scripts

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool():
    return scripts.tool("first_cell")


@pytest.fixture
def notebook(tmp_path):
    """A copy of a notebook."""
    (tmp_path / "notebooks").mkdir()
    return Path(shutil.copy(ROOT / "notebooks" / "lower_bounds.ipynb", tmp_path / "notebooks"))


def setup_cell(path):
    cells = json.loads(path.read_text())["cells"]
    return next("".join(cell["source"]) for cell in cells if "page.begin(" in "".join(cell["source"]) and cell["cell_type"] == "code")


@pytest.mark.parametrize("address", ["", "https://example.org/bisam.git"])
def test_the_lines_are_written_once_and_can_be_exchanged(address, tool, notebook, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["first_cell", "--folder", str(notebook.parent)])
    first = tool.block("", "0.0.1")
    notebook.write_text(json.dumps(tool.changed(notebook, first) or json.loads(notebook.read_text())))
    rest = setup_cell(notebook).removeprefix(first)
    assert "import importlib" not in rest and "page.begin(" in rest
    monkeypatch.setattr(tool, "setting", lambda: {"address": address, "version": "9.9"})
    assert tool.main() == 0 and tool.main() == 0
    assert setup_cell(notebook) == tool.block(address, "9.9") + rest
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--check"])
    assert tool.main() == 0
    notebook.write_text(notebook.read_text().replace("find_spec", "find_it"))
    assert tool.main() == 1 and "lower_bounds.ipynb needs `python tools/first_cell.py`" in capsys.readouterr().out


def test_all_notebooks_have_the_lines_or_none(tool):
    lines = tool.block(**tool.setting())
    assert len({tool.changed(path, lines) is None for path in (ROOT / "notebooks").glob("*.ipynb")}) == 1, "run `python tools/first_cell.py`"


def test_there_is_one_setting(tool):
    found = tool.setting()
    assert found["address"] == "" or found["address"].startswith("https://")
    assert found["version"] == __import__("bisam").__version__


HIDE = """import os, sys
sys.path = [path for path in sys.path if not os.path.exists(os.path.join(path, "bisam", "__init__.py"))]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
"""


def run(lines, folder, *, hidden):
    """The lines and a look at the package, in a fresh Python that finds no bisam but one that the lines bring."""
    words = [sys.executable, "-c", (HIDE if hidden else "") + lines + "\nimport bisam\nprint(bisam.__file__)"]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True)


def test_without_an_address_the_lines_say_how_to_install(tool, tmp_path):
    ended = run(tool.block("", "0.0.1"), tmp_path, hidden=True)
    assert ended.returncode == 1 and 'ModuleNotFoundError: bisam is not installed: run `pip install -e ".[notebooks]"` in a checkout of it' in ended.stderr


def test_where_it_is_installed_the_lines_do_nothing(tool, tmp_path):
    ended = run(tool.block("nowhere", "0.0.1"), tmp_path, hidden=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_with_an_address_the_tag_is_fetched_and_found(tool, tmp_path):
    """A repository on this machine stands for the address, and a package of three lines for the project."""
    project = tmp_path / "project"
    (project / "bisam").mkdir(parents=True)
    (project / "bisam" / "__init__.py").write_text("")
    (project / "pyproject.toml").write_text('[project]\nname = "bisam"\nversion = "0.0.1"\n[project.optional-dependencies]\nnotebooks = []\n')
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(project)]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"], ["tag", "v0.0.1"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "elsewhere").mkdir()
    # Installing needs an index of packages; what pip would be asked is noted instead.
    lines = tool.block(str(project), "0.0.1").replace("[sys.executable, ", '["echo", ')
    ended = run(lines, tmp_path / "elsewhere", hidden=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["-m pip install -q -e bisam-0.0.1[notebooks]", str(tmp_path / "elsewhere" / "bisam-0.0.1" / "bisam" / "__init__.py")]
