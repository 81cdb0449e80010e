"""Checks of arguments: each raises an error that names the argument, its value and what is allowed."""

from __future__ import annotations

import math
import numbers
import re
from pathlib import Path

import torch


def real(name: str, value: object) -> float:
    """A finite real number, or a ``TypeError`` / ``ValueError`` that names it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, not {value!r} of type {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return float(value)


def positive(name: str, value: object) -> float:
    """A finite number above zero."""
    if real(name, value) <= 0:
        raise ValueError(f"{name} must be greater than 0, got {value!r}")
    return float(value)


def nonnegative(name: str, value: object) -> float:
    """A finite number, zero or above."""
    if real(name, value) < 0:
        raise ValueError(f"{name} must be 0 or greater, got {value!r}")
    return float(value)


def fraction(name: str, value: object) -> float:
    """A number in [0, 1)."""
    if not 0 <= real(name, value) < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value!r}")
    return float(value)


def share(name: str, value: object) -> float:
    """A number in (0, 1]."""
    if not 0 < real(name, value) <= 1:
        raise ValueError(f"{name} must be greater than 0 and at most 1, got {value!r}")
    return float(value)


def flag(name: str, value: object) -> bool:
    """True or False, and nothing that only counts as such."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def whole(name: str, value: object, least: int = 1) -> int:
    """A whole number, at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be a whole number, not {value!r} of type {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    if value >= 2**63:
        raise ValueError(f"{name} must be below 2^63, got {value!r}")
    return int(value)


def choice(name: str, value: object, allowed) -> str:
    """One of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}; got {value!r}")
    return value


def writable(path: Path) -> None:
    """Makes the folder of a file and proves that the file can be written there; an ``OSError`` says why not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder")
    probe = path.with_name(path.name + ".probe")
    probe.write_bytes(b"")
    probe.unlink()


def offers(part: object, method: str) -> bool:
    """An object, not a class, that has the method."""
    return not isinstance(part, type) and callable(getattr(part, method, None))


def device(name: str, value: object) -> str:
    """``"cpu"`` or a CUDA device that this machine has."""
    if not isinstance(value, str) or not re.fullmatch(r"cpu|cuda(:\d+)?", value):
        raise ValueError(f'{name} must be "cpu" or a CUDA device such as "cuda:0", got {value!r}')
    there = torch.cuda.device_count()
    if value != "cpu" and int(value.removeprefix("cuda").removeprefix(":") or 0) >= there:
        found = f"{there} CUDA devices" if there else "no CUDA device"
        raise ValueError(f"{name} {value!r} is not there: torch finds {found} on this machine")
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
    labels(targets, len(logits))


def score_values(logits: torch.Tensor, targets: torch.Tensor, true_is_finite: bool = False) -> None:
    """Classes that exist, and no NaN or +inf among the logits.

    On other devices than the CPU nothing is looked at: reading values would stop the device at every step. Under
    ``torch.compile`` neither, so that the graph stays whole. With ``true_is_finite`` no true class may be ruled out by a score
    of minus infinity: its margins would be undefined.
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


def labels(targets: object, n: int) -> None:
    """Integer targets of shape (n,), n > 0."""
    if not isinstance(targets, torch.Tensor):
        raise TypeError(f"targets must be a tensor of class numbers, got {type(targets).__name__}")
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise TypeError(f"targets must hold whole class numbers (torch.int64), got {targets.dtype}")
    if targets.ndim != 1 or len(targets) != n:
        raise ValueError(f"targets must have shape ({n},), one class number a sample; got {tuple(targets.shape)}")
    if n == 0:
        raise ValueError("targets must hold at least one sample, got an empty batch")


def in_range(targets: torch.Tensor, classes: int) -> None:
    """Every target in 0 .. classes - 1 (read from the device: call it where that is cheap)."""
    low, high = (bound.item() for bound in torch.aminmax(targets.detach()))
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise ValueError(f"targets must be in 0 .. {classes - 1} (the logits have {classes} columns), got {wrong}")


def _values_can_be_read(tensor: torch.Tensor) -> bool:
    """False while compiling and inside ``torch.func`` transforms, where a tensor has no single value."""
    return not torch.compiler.is_compiling() and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def is_set(part: object) -> bool:
    """An object that can say where to climb, at once or after it is prepared for a step."""
    return offers(part, "perturbation") or offers(part, "prepared")
