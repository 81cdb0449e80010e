"""Checks of arguments: each raises an error that names the argument, its value and what is allowed.

Those of numbers return a plain int or float, and callers keep that.
"""

from __future__ import annotations

import functools
import importlib
import math
import numbers
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import torch

SHOWN = 120  # so many characters of a value are shown


def real(name: str, value: object) -> float:
    """A finite real number, or a ``TypeError`` / ``ValueError`` that names it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, not {shown(value)} of type {type(value).__name__}")
    try:
        found = float(value)
    except OverflowError:
        raise ValueError(f"{name} must be below 1.8e308 in size, got {shown(value)}") from None
    if not math.isfinite(found):
        raise ValueError(f"{name} must be finite, got {shown(value)}")
    return found


def _ranged(words: str, inside: Callable[[float], bool]) -> Callable[[str, object], float]:
    def check(name: str, value: object) -> float:
        found = real(name, value)
        if not inside(found):
            raise ValueError(f"{name} must be {words}, got {shown(value)}")
        return found

    return check


positive = _ranged("greater than 0", lambda number: number > 0)
nonnegative = _ranged("0 or greater", lambda number: number >= 0)
fraction = _ranged("in [0, 1)", lambda number: 0 <= number < 1)
inside = _ranged("greater than 0 and less than 1", lambda number: 0 < number < 1)
share = _ranged("greater than 0 and at most 1", lambda number: 0 < number <= 1)


def whole(name: str, value: object, least: int = 1) -> int:
    """A whole number, at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be a whole number, not {shown(value)} of type {type(value).__name__}")
    found = int(value)
    if found < least:
        raise ValueError(f"{name} must be at least {least}, got {shown(value)}")
    if found >= 2**63:
        raise ValueError(f"{name} must be below 2^63, got {shown(value)}")
    return found


def flag(name: str, value: object) -> bool:
    """True or False, and nothing that only counts as such."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return value


def optional(name: str, value: object, of: Callable, **more):
    """``None``, or what a check makes of the value."""
    return None if value is None else of(name, value, **more)


def each(name: str, value: object, each_of: Callable, length: int | None = None, **more) -> tuple:
    """A tuple or list of at least one entry, or of so many, each of which passes a check."""
    if not isinstance(value, (tuple, list)) or not value:
        raise TypeError(f"{name} must be a tuple with at least one entry, got {shown(value)}")
    if length is not None and len(value) != length:
        raise ValueError(f"{name} must have {length} entries, got {shown(value)}")
    return tuple(each_of(name, entry, **more) for entry in value)


def keep(part: object, check: Callable, *names: str, **more) -> None:
    """Puts into fields of a frozen dataclass what a check makes of them: numbers of other libraries become plain ones."""
    for name in names:
        object.__setattr__(part, name, check(name, getattr(part, name), **more))


def needs(package: str, extra: str) -> ModuleType:
    """The package, or one of its modules, imported; where it is missing, an error that names the extra of ours that brings it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        said = f'{package.split(".")[0]} is needed here and cannot be imported ({error}); install it with: pip install "bisam[{extra}]"'
        raise ModuleNotFoundError(said, name=error.name) from None


def renamed(**new: str) -> Callable[[Callable], Callable]:
    """For a function whose arguments had other names: an old one is refused with a sentence that gives the new one."""

    def over(function: Callable) -> Callable:
        @functools.wraps(function)
        def checked(*arguments, **named):
            for name in named:
                if name in new:
                    raise TypeError(f"{name} is now called {new[name]}")
            return function(*arguments, **named)

        return checked

    return over


def choice(name: str, value: object, allowed) -> str:
    """One of ``allowed``, which are text."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}; got {shown(value)}")
    return value


def text(name: str, value: object) -> str:
    """Text."""
    return part(name, value, str, "text")


def line(name: str, value: object, most: int = 200) -> str:
    """Text that can stand in a line of a table or in the name of a file."""
    if not text(name, value).isprintable() or len(value) > most:
        raise ValueError(f"{name} must be text of one line that can be printed, at most {most} characters; got {shown(value)}")
    return value


def path(name: str, value: object, words: str = "the path of a file", longest: int = 255) -> Path:
    """The path of a file or folder, given as text or as a path, no part of it longer than so many bytes."""
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise TypeError(f"{name} must be {words}, not {shown(value)} of type {type(value).__name__}")
    try:
        parts = os.fsencode(value).split(b"/")
    except UnicodeEncodeError:  # half a pair of surrogates
        parts = [b"\0"]
    if parts == [b""] or any(len(part) > longest or b"\0" in part for part in parts):
        raise ValueError(f"{name} must be {words}, each part of it at most {longest} bytes long; got {shown(value)}")
    return Path(value)


def part(name: str, value: object, wanted: type | tuple, words: str):
    """The object itself, if it is of the wanted type or of one of several, or has all methods of the wanted names.

    ``words`` say what is meant, such as ``"a set such as L2()"``.
    """
    methods = isinstance(wanted, tuple) and isinstance(wanted[0], str)
    if all(offers(value, method) for method in wanted) if methods else isinstance(value, wanted):
        return value
    raise _wrong_type(name, value, words)


def _wrong_type(name: str, value: object, words: str, more: str = "") -> TypeError:
    stop = ";" if "," in words else ","
    return TypeError(f"{name} must be {words}{stop} got {shown(value)} of type {type(value).__name__}{more}")


def _is_plain(value: object) -> bool:
    """A class, a container or a number, which is no part whatever methods it has: a dictionary's ``values`` are no losses."""
    return isinstance(value, (type, Collection, numbers.Number)) or torch.is_tensor(value)


def offers(part: object, method: str) -> bool:
    """A part that has the method."""
    return not _is_plain(part) and callable(getattr(part, method, None))


def protocol(name: str, value: object, wanted: type, words: str):
    """The part itself, if it has all that the step asks of its axis: as a subclass of the protocol, or member by member."""
    if wanted in type(value).__mro__:
        return value
    members = [member for member in {**vars(wanted), **wanted.__annotations__} if not member.startswith("_")]
    lacks = members if _is_plain(value) else [member for member in members if not hasattr(value, member)]
    if not lacks:
        return value
    has_some = len(lacks) < len(members)
    more = f", which lacks {', '.join(lacks)}: make it a subclass of {wanted.__module__}.{wanted.__name__}" if has_some else ""
    raise _wrong_type(name, value, words, more)


def sequence(name: str, value: object) -> Sequence:
    """A list, a tuple or a range: something with an order and a length, and no text."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise _wrong_type(name, value, "a list")
    return value


def series(name: str, value: object) -> list[float]:
    """Finite numbers, in a list, a tuple or an array of numpy with one axis."""
    numpy = sys.modules.get("numpy")  # where nobody has loaded it, the value is no array of it
    is_array = numpy is not None and isinstance(value, numpy.ndarray) and value.ndim == 1
    found = value.tolist() if is_array else sequence(name, value)
    return [real(name, entry) for entry in found]


def parameters(name: str, value: object) -> list:
    """Parameters or groups of them, as an optimiser takes them: a list that holds something."""
    if isinstance(value, (str, bytes, torch.Tensor, Mapping)) or not isinstance(value, Iterable):
        raise _wrong_type(name, value, "parameters such as model.parameters()")
    try:
        found = list(value)
    except TypeError:  # an array without an axis
        found = []
    if not found:
        raise ValueError(f"{name} must hold at least one parameter, got none")
    return [part(name, entry, (torch.Tensor, dict, tuple), "parameters or groups of them") for entry in found]


def module(name: str, value: object) -> torch.nn.Module:
    """A network."""
    return part(name, value, torch.nn.Module, "a torch.nn.Module")


def function(name: str, value: object, words: str) -> Callable:
    """Something that can be called, and no class."""
    if not callable(value) or isinstance(value, type):
        raise TypeError(f"{name} must be {words}, got {shown(value)} of type {type(value).__name__}")
    return value


def tensors(name: str, value: object) -> Mapping[str, torch.Tensor]:
    """A dictionary from names to tensors, such as weights or a perturbation."""
    for key, entry in part(name, value, Mapping, "a dictionary from name to tensor").items():
        if not isinstance(key, str) or not isinstance(entry, torch.Tensor):
            raise TypeError(f"{name} must be a dictionary from name to tensor, got {shown(key)}: {shown(entry)}")
    return value


def plain(name: object) -> str:
    """A name inside a sentence: as it is if it can be printed in a line, and otherwise as :func:`shown` has it."""
    return name if isinstance(name, str) and 0 < len(name) <= SHOWN and name.isprintable() else shown(name)


def shown(value: object) -> str:
    """The value for an error message: short, printable, and there also if the value cannot say what it is."""
    try:
        said = f"tensor of shape {tuple(value.shape)}, {value.dtype}" if isinstance(value, torch.Tensor) and value.numel() > 4 else repr(value)
        said = said.encode("utf-8", "backslashreplace").decode()
    except Exception as error:  # whatever a repr does, the message must come; the digits of a huge integer raise as well
        said = f"<{type(value).__name__}, whose repr fails with {type(error).__name__}>"
    return said if len(said) <= SHOWN else f"{said[: SHOWN - 25]} ... {said[-20:]}"


def device(name: str, value: object) -> str:
    """``"cpu"`` or a CUDA device that this machine has."""
    if not isinstance(value, str) or not re.fullmatch(r"cpu|cuda(:[0-9]{1,4})?", value):
        raise ValueError(f'{name} must be "cpu" or a CUDA device such as "cuda:0", got {shown(value)}')
    there = torch.cuda.device_count() if value != "cpu" else 1  # the look for other devices takes longer than all else that a run checks
    if value != "cpu" and int(value.removeprefix("cuda").removeprefix(":") or 0) >= there:
        found = f"{there} CUDA devices" if there else "no CUDA device"
        raise ValueError(f"{name} {shown(value)} is not there: torch finds {found} on this machine")
    return value


def scores(logits: object, targets: object) -> None:
    """Logits of shape (n, K) and integer targets of shape (n,), n > 0, K > 0; values are checked on the CPU."""
    score_shapes(logits, targets)
    score_values(logits, targets)


def score_shapes(logits: object, targets: object) -> None:
    """What :func:`scores` can tell without a look at the values."""
    if not isinstance(logits, torch.Tensor) or not logits.is_floating_point():
        kind = logits.dtype if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise TypeError(f"logits must be a floating-point tensor of shape (n, K), got {kind}")
    if logits.ndim != 2 or logits.shape[0] == 0 or logits.shape[1] == 0:
        raise ValueError(f"logits must have shape (n, K) with n > 0 and K > 0, got {tuple(logits.shape)}")
    labels(targets, len(logits), samples="rows of logits")


def score_values(logits: torch.Tensor, targets: torch.Tensor, true_is_finite: bool = False) -> None:
    """Classes that exist, and no NaN or +inf among the logits.

    Nothing is looked at on other devices than the CPU, where reading would stop the device at every step, or under ``torch.compile``, so
    that the graph stays whole. With ``true_is_finite`` no true class may have a score of minus infinity: its margins would be undefined.
    """
    if logits.device.type != "cpu" or not _values_can_be_read(logits):
        return
    in_range(targets, logits.shape[1])
    low, high = (bound.item() for bound in torch.aminmax(logits.detach()))
    if not high < math.inf:  # NaN as well; minus infinity rules a class out and is fine
        wrong = int((~(logits.detach() < math.inf)).sum())
        raise ValueError(f"logits must not hold NaN or +inf; {wrong} of {logits.numel()} do")
    if true_is_finite and low == -math.inf:
        out = int((logits.detach().gather(1, targets.long().unsqueeze(1)) == -math.inf).sum())
        if out:
            raise ValueError(f"logits must be finite for the true class; {out} of {len(logits)} samples rule theirs out with -inf")


def labels(targets: object, n: int | None = None, name: str = "targets", samples: str = "samples") -> None:
    """Integer targets of shape (n,), n > 0; of any n if it is not given."""
    if not isinstance(targets, torch.Tensor):
        raise TypeError(f"{name} must be a tensor of class numbers, got {type(targets).__name__}")
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise TypeError(f"{name} must hold whole class numbers (torch.int64), got {targets.dtype}")
    if targets.ndim != 1 or n not in (None, len(targets)):
        wanted, there = ("n", "") if n is None else (n, f" for {n} {samples}")
        raise ValueError(f"{name} must have shape ({wanted},), one class number a sample; got {tuple(targets.shape)}{there}")
    if len(targets) == 0:
        raise ValueError(f"{name} must hold at least one sample, got an empty batch")


def in_range(targets: torch.Tensor, classes: int, name: str = "targets") -> None:
    """Every target in 0 .. classes - 1 (read from the device: call it where that is cheap)."""
    low, high = (bound.item() for bound in torch.aminmax(targets.detach()))
    if low < 0 or high >= classes:
        wrong = f"{low if low < 0 else high}{'; task=bisam.Multiclass(ignore_index=...) leaves a label out' if low < 0 or high == 255 else ''}"
        raise ValueError(f"{name} must be in 0 .. {classes - 1} (the logits have {classes} columns), got {wrong}")


def _values_can_be_read(tensor: torch.Tensor) -> bool:
    """False while compiling and inside ``torch.func`` transforms, where a tensor has no single value."""
    return not torch.compiler.is_compiling() and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
