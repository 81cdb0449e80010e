"""The notebooks of the book, by their names."""

from __future__ import annotations

from pathlib import Path

from .. import _checks

__all__ = ["NotebookError", "checkout", "find", "names"]


class NotebookError(RuntimeError):
    """A notebook that does not exist, cannot be written or fails in one of its cells."""


def folder() -> Path:
    """Where the notebooks are: ``notebooks`` in the current folder or one above it, else in the checkout that the package is in."""
    here = Path.cwd()
    places = [folder / "notebooks" for folder in (here, *here.parents, Path(__file__).resolve().parents[2])]
    found = next((place for place in places if any(place.glob("*.ipynb"))), None)
    if found is None:
        raise NotebookError(f"this works in a checkout of bisam or below a folder with notebooks; none found at {places[0]}, above, or at {places[-1]}")
    return found


def checkout() -> Path:
    """The checkout that the package is in, or else the one around the current folder: pages take the code of the chapters from there.

    Raises:
        NotebookError: neither is there.

    Example:
        >>> (checkout() / "book" / "code" / "algorithm1.py").is_file()
        True
    """
    here = Path.cwd()
    places = [Path(__file__).resolve().parents[2], here, *here.parents]
    found = next((place for place in places if (place / "book" / "code").is_dir()), None)
    if found is None:
        raise NotebookError(f"this page needs a checkout of bisam, for the folder book/code; none found at {places[0]}, at {here}, or above")
    return found


def names() -> list[str]:
    """The names of all notebooks.

    Example:
        >>> "first_run" in names()
        True
    """
    return sorted(path.stem for path in folder().glob("*.ipynb"))


def find(name: str) -> Path:
    """The file of the named notebook.

    Args:
        name: without folder and ending; or the path of a notebook file that is there.

    Raises:
        NotebookError: an unknown name; the message lists those that exist.

    Example:
        >>> find("first_run").name
        'first_run.ipynb'
    """
    if _checks.text("name", name).endswith(".ipynb") and Path(name).is_file():
        return Path(name)
    if name not in names():
        raise NotebookError(f"there is no notebook {_checks.plain(name)}; there are: {', '.join(names())}")
    return folder() / f"{name}.ipynb"
