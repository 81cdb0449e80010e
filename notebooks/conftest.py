"""``pytest --nbval-lax notebooks`` executes every notebook at scale smoke and compares with what is stored for that scale.

The outputs in the notebooks themselves are those of scale laptop: ``--scale laptop`` executes and compares those, which takes up to an hour.
"""

import importlib.util
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser):
    parser.addoption("--scale", choices=("smoke", "laptop"), default="smoke", help="scale at which nbval executes the notebooks")


def _tool():
    spec = importlib.util.spec_from_file_location("execute_notebooks", ROOT / "tools" / "execute_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path, parent):
    found = yield
    if file_path.suffix != ".ipynb" or not found or parent.config.getoption("--scale") != "smoke":
        return found
    tool = _tool()
    copy = ROOT / "_build" / "smoke" / file_path.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    tool.write_whole(copy, nbformat.writes(tool.smoke_notebook(file_path)))
    return [type(each).from_parent(parent, path=copy) for each in found]
