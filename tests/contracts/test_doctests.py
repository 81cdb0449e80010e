"""Every example in a docstring runs, and everything public has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import bisam
from bisam.evidence.places import RESULTS

NAMES = [
    info.name
    for info in pkgutil.walk_packages(bisam.__path__, "bisam.")
    if not info.name.endswith("__main__")
]
MODULES = {name: importlib.import_module(name) for name in ["bisam", *NAMES]}


READ_ALL = {f"bisam.evidence.{name}" for name in ("crossed", "decisions", "machines", "needed", "own_ledger", "power", "queue", "report")}  # all records, or many simulated ones


def public(module):
    """Functions and classes that the module lists as its own, but exceptions and protocols."""
    for name in getattr(module, "__all__", ()):
        thing = getattr(module, name)
        mine = getattr(thing, "__module__", None) == module.__name__
        idle = inspect.isclass(thing) and (
            issubclass(thing, Exception) or getattr(thing, "_is_protocol", False)
        )
        if mine and not idle and (inspect.isfunction(thing) or inspect.isclass(thing)):
            yield name


@pytest.fixture(scope="session")
def few_records(tmp_path_factory):
    """Results with the records of one small experiment, for the example that reads all of a folder."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "runs").mkdir()
    (folder / "runs" / "first_run").symlink_to(RESULTS / "runs" / "first_run")
    return folder


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in READ_ALL else name for name in MODULES])
def test_examples_print_what_they_say(name, capsys, few_records):
    instead = {"RESULTS": few_records} if name == "bisam.evidence.pooling" else {}
    results = doctest.testmod(MODULES[name], extraglobs=instead)
    assert results.failed == 0, capsys.readouterr().out


def test_everything_public_has_an_example(capsys):
    lacking = []
    for module in MODULES.values():
        for each in public(module):
            thing = getattr(module, each)
            (test,) = doctest.DocTestFinder(recurse=False).find(thing, each)
            if not test.examples:
                lacking.append(f"{module.__name__}.{each}")
            if hasattr(thing, "__wrapped__"):  # which doctest.testmod takes for another module's
                assert doctest.DocTestRunner().run(test).failed == 0, capsys.readouterr().out
    assert not lacking, "no Example in the docstrings"


def test_the_examples_are_found():
    found = [
        test for module in MODULES.values() for test in doctest.DocTestFinder().find(module) if test.examples
    ]
    assert len(found) > 30 and sum(len(list(public(module))) for module in MODULES.values()) > 30
