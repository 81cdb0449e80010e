"""Networks and data that are not ours: a function named by its path, or by an entry point that an installed package declares.

A path is ``package.module:function``. An entry point of the group ``bisam.models`` or ``bisam.data`` is a short name for one, which a
:class:`~bisam.training.Run` replaces by the path, so that a record says what was run and can be read where the package is not. In all
functions here ``kind`` is ``"model"`` or ``"data"``.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from .. import _checks

__all__ = ["function", "is_path", "names", "path_of", "sources"]

GROUPS = {"model": "bisam.models", "data": "bisam.data"}
IDENTIFIER = r"[^\W\d]\w*"
PATH = re.compile(rf"{IDENTIFIER}(\.{IDENTIFIER})*:{IDENTIFIER}(\.{IDENTIFIER})*")
FILES = ("folder:", "file:", "glue:", "parallel:", "encoder:")  # how names of what is read from files begin; they are no modules


def is_path(name: object) -> bool:
    """Whether a name has the form ``package.module:function``; nothing is imported.

    Example:
        >>> is_path("my_lab.networks:narrow"), is_path("folder:flowers"), is_path("mlp")
        (True, False, False)
    """
    return isinstance(name, str) and PATH.fullmatch(name) is not None and not name.startswith(FILES)


def names(kind: str) -> list[str]:
    """The entry points that installed packages declare.

    Example:
        >>> isinstance(names("model"), list)
        True
    """
    return sorted(_declared(kind))


def _declared(kind: str) -> dict[str, EntryPoint]:
    group = GROUPS[_checks.choice("kind", kind, tuple(GROUPS))]
    return {one.name: one for one in entry_points(group=group)}


def path_of(kind: str, name: object) -> str | None:
    """The path that a name stands for, a path itself or an entry point, which must name a function; ``None`` if it is neither. Nothing is imported.

    Example:
        >>> path_of("model", "my_lab.networks:narrow"), path_of("model", "mlq")
        ('my_lab.networks:narrow', None)
    """
    if is_path(name):
        return name
    found = _declared(kind).get(name) if isinstance(name, str) and name.isprintable() else None
    if found is None:
        return None
    path = found.value.partition("[")[0].replace(" ", "")
    if not is_path(path):
        raise ValueError(f"{kind} {name!r} is an entry point that must name a function as MODULE:FUNCTION, got {_checks.shown(found.value)}")
    return path


def function(kind: str, path: str) -> Callable:
    """The function at a path; its module is imported, and with it the code of others is run.

    Raises:
        ValueError: there is no such module, it fails while it is imported, or it has nothing of that name.
        TypeError: what is there cannot be called.

    Example:
        >>> function("model", "bisam.training.models:mlp").__name__
        'mlp'
    """
    _checks.choice("kind", kind, tuple(GROUPS))
    if not is_path(path):
        raise ValueError(f"path must be MODULE:FUNCTION, got {_checks.shown(path)}")
    module, _, attribute = path.partition(":")
    try:
        found = importlib.import_module(module)
    except Exception as error:  # whatever the module does
        raise ValueError(f"{kind} {path!r} cannot be imported ({type(error).__name__}: {error}); modules are looked for in sys.path") from None
    for name in attribute.split("."):
        if not hasattr(found, name):
            there = ", ".join(one for one in vars(found) if not one.startswith("_") and callable(getattr(found, one))) or "no function"
            raise ValueError(f"{kind} {path!r} is not there: {module} has no {attribute}; it has {there}")
        found = getattr(found, name)
    if not callable(found):
        raise TypeError(f"{kind} {path!r} must be a function, got {_checks.shown(found)} of type {type(found).__name__}")
    return found


def task_arguments(path: str, own: Callable, given: Mapping[str, object]) -> dict[str, object]:
    """What a function of data is called with: of the loader's arguments those that it takes.

    Of what is given, ``None`` is left at its default. An argument that the function does not take is a ``ValueError``, but for the root, which
    is a place and not a choice.

    Example:
        >>> task_arguments("x:y", lambda split_seed=0: None, {"root": "data", "split_seed": 3, "pool": None})
        {'split_seed': 3}
    """
    parameters = inspect.signature(own).parameters
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    for name, value in given.items():
        if value is not None and name != "root" and not takes_all and name not in parameters:
            raise ValueError(f"{name} must be left out for data {path!r}, whose function does not take it; got {value}")
    return {name: value for name, value in given.items() if value is not None and (takes_all or name in parameters)}


def sources(model: str, data: str) -> dict[str, str]:
    """Of each path the first 16 digits of a SHA-256 of the file that its function is in; names that are no paths are left out.

    Example:
        >>> list(sources("bisam.training.models:mlp", "digits"))
        ['bisam.training.models:mlp']
    """
    return {path: _source(kind, path) for kind, path in (("model", model), ("data", data)) if is_path(path)}


@functools.cache
def _source(kind: str, path: str) -> str:
    """Looked at once a process: what is imported stays as it is when the file is changed."""
    function(kind, path)
    file = getattr(importlib.import_module(path.partition(":")[0]), "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file else "no file"
