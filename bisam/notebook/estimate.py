"""How long a notebook will probably take: as long as its stored execution at that scale."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

__all__ = ["clock", "seconds", "words"]


def seconds(path: Path, scale: object, stated: object) -> float | None:
    """How long the stored execution of a notebook took; ``None`` where nobody knows.

    Args:
        path: of the notebook.
        scale: at which it is to run.
        stated: the scale of the pages, which is the declared default.

    Example:
        >>> seconds(Path("notebooks/nothing.ipynb"), "laptop", "laptop") is None
        True
    """
    root = path.resolve().parents[1]
    if scale == stated:
        found = _read(root / "book" / "status.json").get(path.stem, {}).get("wall_seconds")
    else:
        found = _read(root / "tests" / "notebook" / str(scale) / f"{path.stem}.json").get("seconds")
    return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) else None


def words(path: Path, scale: object, stated: object, longer: Sequence[str] = ()) -> str:
    """The sentence that is said before a notebook starts.

    Args:
        path: of the notebook.
        scale: at which it is to run.
        stated: the scale of the pages.
        longer: parameters that make it longer.

    Example:
        >>> words(Path("notebooks/nothing.ipynb"), "paper", "laptop")
        'nothing: no time is known for scale paper'
    """
    known = seconds(path, scale, stated)
    at = "" if scale is None else f" for scale {scale}"
    if known is None:
        return f"{path.stem}: no time is known{at}"
    more = f"; more {' or '.join(longer)} take longer in proportion" if longer else ""
    return f"{path.stem}: about {clock(known)}, as long as the stored execution took{at.replace('for', 'at')}{more}"


def clock(amount: float) -> str:
    """Seconds as people say them.

    Args:
        amount: of seconds.

    Example:
        >>> clock(41.3), clock(600), clock(9000)
        ('41 s', '10 min', '2 h 30 min')
    """
    amount = max(1, round(amount))
    if amount < 90:
        return f"{amount} s"
    minutes = round(amount / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _read(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}
