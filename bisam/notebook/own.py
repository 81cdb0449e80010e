"""What runs made a moment ago decide: the rule of the ledger on the reader's own runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .. import _checks
from ..evidence.report import p_value
from ..evidence.statistics import paired
from .page import publish
from .plots import style_of
from .tables import could_find, gap

__all__ = ["own_rows"]


def own_rows(
    values: Mapping[str, Sequence[float]], pairs: Sequence[tuple[str, str]], names: Mapping[str, str] | None = None
) -> list[dict[str, object]]:
    """Differences over the seeds that were run here as rows of a table: mean, 95 % interval, sign-flip p, what would be found, verdict.

    With fewer than six pairs nothing is resolved, however large the difference.

    Args:
        values: method to its numbers, one a seed, in the same order of seeds.
        pairs: ours and theirs of each row.
        names: method to what to call it; the labels of :func:`bisam.notebook.plots.style_of` if left out.

    Raises:
        TypeError, ValueError: a pair of a method that has no numbers, or of two that do not pair up.

    Example:
        >>> row = own_rows({"sam": [91.0, 92.0], "sgd": [90.0, 90.5]}, [("sam", "sgd")])[0]
        >>> row["comparison"], row["difference"], row["verdict"]
        ('SAM minus SGD', '+1.25 [-1.93, +4.43]', 'not resolved')
    """
    _checks.part("values", values, Mapping, "a dictionary from method to numbers")
    names = _checks.part("names", {} if names is None else names, Mapping, "a dictionary from method to text")
    if not isinstance(pairs, (list, tuple)) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        raise TypeError(f"pairs must be a list of pairs of methods, got {_checks.shown(pairs)}")
    rows = []
    for ours, theirs in pairs:
        for method in (ours, theirs):
            if method not in values:
                raise ValueError(f"pairs must name methods that values holds numbers of, got {_checks.shown(method)}")
            _checks.series(f"values[{method!r}]", values[method])
        label = " minus ".join(names.get(method) or style_of(method).label for method in (ours, theirs))
        cells = (label, *_cells(values[ours], values[theirs]))
        rows.append(dict(zip(("comparison", "difference", "p", "detectable", "pairs", "verdict"), cells, strict=True)))
    publish("your runs", rows)
    return rows


def _cells(ours: Sequence[float], theirs: Sequence[float]) -> tuple:
    if len(ours) == len(theirs) == 1:
        return f"{ours[0] - theirs[0]:+.2f}, no interval", "-", "-", 1, "not resolved"
    result = paired(list(ours), list(theirs))
    return gap(result.mean, result), p_value(result.p), could_find(result), result.pairs, result.verdict
