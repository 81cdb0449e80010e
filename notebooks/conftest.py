"""``pytest --nbval-lax notebooks`` executes every notebook at scale smoke and compares with what is stored for that scale.

The outputs in the notebooks themselves are those of scale laptop: ``--scale laptop`` executes and compares those, which takes up to an hour.
"""

import functools
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser):
    parser.addoption("--scale", choices=("smoke", "laptop"), default="smoke", help="scale at which nbval executes the notebooks")


@functools.cache
def _tool():
    spec = importlib.util.spec_from_file_location("execute_notebooks", ROOT / "tools" / "execute_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def _at_smoke(kind):
    """The collector of nbval with the cells and outputs of scale smoke in place of those that it reads."""

    class AtSmoke(kind):
        @property
        def nb(self):
            return self._nb

        @nb.setter
        def nb(self, as_stored):
            self._nb = _tool().smoke_notebook(self.path)

    return AtSmoke


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path, parent):
    found = yield
    if file_path.suffix != ".ipynb" or not found or parent.config.getoption("--scale") != "smoke":
        return found
    return [_at_smoke(type(each)).from_parent(parent, path=each.path) for each in found]
