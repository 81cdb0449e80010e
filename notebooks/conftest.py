"""``pytest --nbval-lax notebooks`` executes every notebook at scale smoke and compares with what is stored for that scale.

The outputs in the notebooks themselves are those of scale laptop: ``--scale laptop`` executes and compares those, which takes up to an hour.
"""

import contextlib
import functools
import importlib.util
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser):
    parser.addoption("--scale", choices=("smoke", "laptop"), default="smoke", help="scale at which nbval executes the notebooks")


def pytest_configure(config):
    """Kernels are forks of one process, which has imported torch and the like."""
    if not config.pluginmanager.hasplugin("nbval") or not hasattr(os, "fork"):
        return
    from nbval.kernel import NbvalKernelspecManager

    opened, usual = contextlib.ExitStack(), NbvalKernelspecManager.get_kernel_spec
    config.add_cleanup(opened.close)
    words = functools.cache(lambda: opened.enter_context(_tool("warm_kernels").kernels()))

    def forked(self, name):
        spec = usual(self, name)
        spec.argv = [*words(), "{connection_file}"]
        return spec

    NbvalKernelspecManager.get_kernel_spec = forked
    config.add_cleanup(lambda: setattr(NbvalKernelspecManager, "get_kernel_spec", usual))


@functools.cache
def _tool(name="execute_notebooks"):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
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
    if file_path.suffix != ".ipynb" or not found:
        return found
    if parent.config.getoption("--scale") == "smoke":
        found = [_at_smoke(type(each)).from_parent(parent, path=each.path) for each in found]
    for each in found:  # a table has its numbers as text too: those are compared, and neither its markup nor a picture
        each.skip_compare = (*each.skip_compare, "text/html", *_tool().PICTURES)
    return found
