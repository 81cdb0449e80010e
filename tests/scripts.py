"""The scripts in tools/ and the extensions in book/_ext, which are no packages, as modules."""

import importlib
import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def tool(name):
    """One of the scripts in tools/, which may import each other; a fresh module each time, so that a test may change it."""
    folder = _importable(ROOT / "tools")
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def extension(name):
    """One of the book's own extensions in book/_ext, which may import each other."""
    _importable(ROOT / "book" / "_ext")
    return importlib.import_module(name)


def _importable(folder):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return folder
