"""The pages of the reference: one a room, with all that the room hands out; and every piece of code that a page includes is there."""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BOOK, PACKAGE = ROOT / "book", ROOT / "bisam"
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def handed_out(name):
    """What a module lists in ``__all__`` and documents, by name."""
    module = importlib.import_module(name)
    found = {each: getattr(module, each) for each in getattr(module, "__all__", ())}
    return {each: value for each, value in found.items() if inspect.isclass(value) or inspect.isfunction(value)}


def modules(room):
    for path in sorted((PACKAGE / room).rglob("*.py")):
        if path.name == "__init__.py" or not path.name.startswith("_"):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_every_room_has_a_page_in_the_order_of_imports():
    listed = re.findall(r"file: book/api/(\w+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    assert sorted(listed) == ROOMS == sorted(path.stem for path in (BOOK / "api").glob("*.md"))
    assert re.findall(r"\{ref\}`\w+ <api-(\w+)>`", (BOOK / "api.md").read_text(encoding="utf-8")) == listed
    assert listed[:4] == ["losses", "axes", "step", "methods"]


@pytest.mark.parametrize("room", ROOMS)
def test_a_page_has_every_class_and_function_that_its_room_hands_out(room):
    page, shown = (BOOK / "api" / f"{room}.md").read_text(encoding="utf-8"), []
    for module, options in re.findall(r"automodule:: (\S+)\n((?:   :.*\n)*)", page):
        left_out = re.findall(r"\w+", options.partition(":exclude-members:")[2])
        shown += [value for name, value in handed_out(module).items() if name not in left_out]
    for name in re.findall(r"autoclass:: (\S+)", page):
        shown.append(getattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2]))
    missing = {f"{module}.{name}" for module in modules(room) for name, value in handed_out(module).items() if value not in shown}
    assert not missing


@pytest.mark.parametrize("path", sorted(BOOK.rglob("*.md")), ids=lambda path: path.stem)
def test_code_that_a_page_includes_is_there_and_its_markers_stand_once(path):
    for file, options in re.findall(r"```\{literalinclude\} (\S+)\n((?:\s*:.*\n)+)", path.read_text(encoding="utf-8")):
        code = (path.parent / file).read_text(encoding="utf-8")
        for marker in re.findall(r':(?:start-after|start-at|end-before|end-at): "(.+)"', options):
            assert code.count(marker) == 1, (file, marker)


IMPORTED = """
import importlib
from sphinx.ext.autodoc.mock import mock

with mock({mocked!r}):
    for module in {modules!r}:
        importlib.import_module(module)
"""


def test_every_module_of_the_reference_can_be_read_without_torch():
    """As Sphinx reads them, with torch and others mocked: nothing may be computed by them at import."""
    pytest.importorskip("sphinx", reason="the tools of the book are not installed; pip install '.[docs]'")
    mocked = re.findall(r"\w+", re.search(r"autodoc_mock_imports: \[(.*)\]", (ROOT / "_config.yml").read_text(encoding="utf-8"))[1])
    shown = sorted({name for path in (BOOK / "api").glob("*.md") for name in re.findall(r"automodule:: (\S+)", path.read_text(encoding="utf-8"))})
    assert "torch" in mocked and len(shown) > 30
    ended = subprocess.run([sys.executable, "-c", IMPORTED.format(mocked=mocked, modules=shown)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_no_property_begins_with_words_that_sphinx_takes_for_its_type():
    """Of a property `X: ...` in the first line is read as the type X, and the strict build looks for it."""
    found = set()
    for room in ROOMS:
        for module in modules(room):
            for name, value in vars(importlib.import_module(module)).items():
                own = vars(value).items() if inspect.isclass(value) and value.__module__ == module else ()
                found |= {f"{module}.{name}.{each}" for each, part in own if isinstance(part, property) and ": " in (part.__doc__ or "").partition("\n")[0]}
    assert not found
