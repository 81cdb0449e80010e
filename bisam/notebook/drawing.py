"""Published and recorded numbers as figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from ..evidence.record import evaluated
from ..evidence.selection import entries as entries_of
from ..evidence.statistics import Paired
from .effects import Cell, Effect
from .plots import style_of
from .tables import ends

__all__ = ["draw_cells", "draw_curves", "draw_effects"]


def draw_cells(axes, cells: Mapping[str, Mapping[float, Cell | None]]) -> None:
    """Means with 95 % intervals over a number such as the share of wrong labels, one line a method.

    Args:
        axes: of matplotlib.
        cells: method to place on the horizontal axis to cell.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> figure, axes = plt.subplots()
        >>> draw_cells(axes, {"sam": {0.0: Cell(95.0, 0.2, 6), 40.0: None}})
        >>> len(axes.containers)
        1
        >>> plt.close(figure)
    """
    for method, row in cells.items():
        there = {x: cell for x, cell in row.items() if cell is not None}
        if not there:
            continue
        reach = [0.0 if cell.interval is None else cell.interval[1] - cell.mean for cell in there.values()]
        axes.errorbar(list(there), [cell.mean for cell in there.values()], yerr=reach, capsize=2, **style_of(method).line())
    if not axes.containers:
        _nothing(axes)


def draw_effects(axes, found: Sequence[Effect], which: str) -> None:
    """Differences with 95 % intervals, one below the other, and a line at zero; behind ours what could have been found.

    Args:
        axes: of matplotlib; two that share their vertical axis can stand side by side.
        found: the comparisons.
        which: ``"published"`` or ``"ours"``.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> figure, axes = plt.subplots()
        >>> draw_effects(axes, [Effect("ResNet", "sam", None, Paired(1.0, 0.2, 1.8, 0.03, 6, 1.0), "holds")], "ours")
        >>> [text.get_text() for text in axes.get_yticklabels()]
        ['ResNet']
        >>> plt.close(figure)
    """
    drawn = 0
    for row, each in enumerate(found):
        result = getattr(each, which)
        if result is None:
            continue
        mean = result.mean if isinstance(result, Paired) else result.difference
        if isinstance(result, Paired) and math.isfinite(result.detectable):  # with too few pairs nothing is
            axes.barh(row, 2 * result.detectable, left=-result.detectable, height=0.7, color="0.9", zorder=0)
        style = style_of(each.method)
        axes.plot(ends(result), [row, row], color=style.color)
        axes.plot(mean, row, marker=style.marker, color=style.color, markersize=6)
        drawn += 1
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(found)), [each.label for each in found])
    axes.set_ylim(max(len(found), 1) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    if not drawn:
        _nothing(axes)


def draw_curves(
    axes, records: Mapping[str, dict], methods: Sequence[str], column: str, place: dict | None = None, marked: bool = False
) -> None:
    """One column of the recorded curves over the share of the training that is done, means over the seeds.

    Args:
        axes: of matplotlib.
        records: what :func:`bisam.evidence.ledger.evidence` returned.
        methods: names of recipes or controls, one line each.
        column: of the curves, such as ``"test_accuracy"``, or two with a minus between, such as ``"train_accuracy - test_accuracy"``.
        place: field of the run to its value.
        marked: a marker for each run at the epoch that its validation accuracy chose.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from bisam.evidence import ledger
        >>> figure, axes = plt.subplots()
        >>> draw_curves(axes, ledger.evidence("first_run_second"), ["sgd", "sam"], "test_accuracy", {"label_noise": 0.4})
        >>> [line.get_label() for line in axes.lines]
        ['SGD', 'SAM']
        >>> plt.close(figure)
    """
    for method in methods:
        entries = list(entries_of(dict(records), method, place).values())
        if not entries:
            continue
        epochs, runs = _epochs(entries[0], column), [_column(entry, column) for entry in entries]
        length, style = entries[0]["run"]["epochs"], style_of(method)
        mean = [statistics.mean(values) for values in zip(*runs, strict=True)]
        axes.plot([epoch / length for epoch in epochs], mean, color=style.color, linestyle=style.linestyle, label=style.label)
        if marked:
            at = [entry["final"]["selected_epoch"] for entry in entries]
            chosen = [run[epochs.index(epoch)] for run, epoch in zip(runs, at, strict=True)]
            axes.plot([epoch / length for epoch in at], chosen, marker=style.marker, linestyle="none", color=style.color, alpha=0.5)
    axes.set(xlabel="share of the training", xlim=(0, 1))
    if axes.lines:
        axes.legend(fontsize=8.5)
    else:
        _nothing(axes)


def _epochs(entry: dict, column: str) -> list[int]:
    """The epochs, from 1, at which all parts of a column are there."""
    every = all(len(entry["curve"][name]) == entry["run"]["epochs"] for name in column.split(" - "))
    return list(range(1, entry["run"]["epochs"] + 1)) if every else evaluated(entry)


def _column(entry: dict, column: str) -> list[float]:
    """A column, or the difference of two, at :func:`_epochs`."""
    epochs, parts = _epochs(entry, column), []
    for values in (entry["curve"][name] for name in column.split(" - ")):
        whole = len(values) == entry["run"]["epochs"]
        parts.append([values[epoch - 1] for epoch in epochs] if whole else values)
    return parts[0] if len(parts) == 1 else [a - b for a, b in zip(*parts, strict=True)]


def _nothing(axes) -> None:
    axes.text(0.5, 0.5, "no runs recorded yet", transform=axes.transAxes, ha="center", va="center", color="0.4")
