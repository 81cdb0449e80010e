r"""Published and recorded numbers side by side: cells of tables, differences with intervals, as text and as figures.

A cell is :math:`\bar x \pm s` over :math:`n` runs, and its interval :math:`\bar x \pm t_{n-1,\,0.975}\, s / \sqrt n`. Of a
published difference only Welch's interval can be had (:func:`bisam.evidence.statistics.welch`), of ours the paired one
(:func:`bisam.evidence.statistics.paired`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..evidence import report
from ..evidence.record import evaluated
from ..evidence.statistics import ALPHA, Paired, Unpaired, welch
from ..evidence.verdicts import direction
from ..training import History
from .plots import look

__all__ = [
    "Cell", "Effect", "by_chance", "could_find", "draw_cells", "draw_curves", "draw_effects", "effect", "effects", "grid", "joined", "live", "published_cell",
    "published_gap", "recorded_cell", "states",
]  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One cell of a table: mean, standard deviation over runs, and their number; what is not printed is ``None``.

    Example:
        >>> print(Cell(94.09, 0.26, 6))
        94.09 ± 0.26
        >>> [round(end, 2) for end in Cell(94.09, 0.26, 6).interval]
        [93.82, 94.36]
    """

    mean: float
    std: float | None = None
    runs: int | None = None

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + ("" if self.std is None else f" ± {self.std:.2f}")

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean; ``None`` with fewer than two runs, or where the spread is not known."""
        if self.std is None or self.runs is None or self.runs < 2:
            return None
        from scipy import stats

        reach = float(stats.t.ppf(1 - ALPHA / 2, self.runs - 1)) * self.std / math.sqrt(self.runs)
        return self.mean - reach, self.mean + reach


@dataclass(frozen=True)
class Effect:
    """One comparison: a name, the look of the method on trial, the published difference, ours, and what was decided.

    Args:
        label: a few words.
        method: on trial; it gives the colour.
        published: by Welch's test; ``None`` where nothing is published, or a mean without a spread.
        ours: over paired seeds; ``None`` without records.
        verdict: of the claim that ours decides.

    Example:
        >>> Effect("40 %", "sam", None, None, "not attempted").verdict
        'not attempted'
    """

    label: str
    method: str
    published: Unpaired | None
    ours: Paired | None
    verdict: str


# -- cells ------------------------------------------------------------------------------------------------------------


def published_cell(method: str, **columns: str) -> Cell | None:
    """A method's number in a published table; ``None`` if the table leaves it out.

    Args:
        method: name of a recipe.
        columns: column of ``results/published.csv`` to value; with the method they must single out one row.

    Raises:
        ValueError: several rows, or a column that the table does not have.

    Source:
        The table names the source of each row.

    Example:
        >>> print(published_cell("bisam-log", table="T1", model="Resnet-56"))
        94.28 ± 0.31
        >>> published_cell("esam", table="T1", model="Resnet-56")
    """
    name = report.PUBLISHED_AS.get(method, method)
    rows = [row for row in report.published(**columns) if row["method"] == name]
    if len(rows) > 1:
        raise ValueError(f"columns must single out one row, {columns} has {len(rows)} for {method}")
    if not rows or rows[0]["mean"] == "":
        return None
    row = rows[0]
    return Cell(row["mean"], *(row[key] if row[key] != "" else None for key in ("std", "n_runs")))


def recorded_cell(records: Mapping[str, dict], method: str, metric: str, place: dict | None = None) -> Cell | None:
    """Mean and spread of a method's records at a place of the grid; ``None`` if there are none.

    Args:
        records: what :func:`bisam.evidence.ledger.evidence` returned.
        method: name of a recipe or control.
        metric: of the final numbers of a run.
        place: field of the run to its value.

    Example:
        >>> from bisam.evidence import ledger
        >>> recorded_cell(ledger.evidence("first_run_second"), "sam", "last_test_accuracy", {"label_noise": 0.4}).runs
        10
    """
    numbers = list(report.series(dict(records), method, metric, place).values())
    if not numbers:
        return None
    return Cell(statistics.mean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else None, len(numbers))


def grid(rows: Mapping[str, Mapping[str, Cell | str | None]], corner: str = "") -> str:
    """Cells as lines of text, one a row, with a dash where there is none.

    Args:
        rows: name of the row to name of the column to cell; the first row names the columns.
        corner: what stands above the names of the rows.

    Example:
        >>> print(grid({"clean": {"SGD": Cell(94.76, 0.14), "SAM": None}, "noisy": {"SGD": "?", "SAM": Cell(9.5)}}))
                        SGD    SAM
        clean  94.76 ± 0.14      -
        noisy             ?   9.50
    """
    columns = list(next(iter(rows.values()), {}))
    text = [[corner, *columns]]
    text += [[name, *("-" if row.get(key) is None else str(row[key]) for key in columns)] for name, row in rows.items()]
    widths = [max(len(line[k]) for line in text) for k in range(len(columns) + 1)]
    return "\n".join(
        (f"{line[0]:{widths[0]}}" + "".join(f"  {word:>{max(width, 5)}}" for word, width in zip(line[1:], widths[1:], strict=True))).rstrip()
        for line in text
    )


# -- differences ------------------------------------------------------------------------------------------------------


def published_gap(ours: str, theirs: str, **columns: str) -> Unpaired | None:
    """The published difference of two methods with Welch's interval; ``None`` without two cells that have spreads.

    Args:
        ours: a method.
        theirs: another.
        columns: as in :func:`published_cell`.

    Source:
        ``results/published.csv``.

    Example:
        >>> gap = published_gap("bisam-log", "sam", table="T1", model="Resnet-56")
        >>> round(gap.difference, 2), round(gap.p, 2)
        (0.19, 0.28)
    """
    cells = [published_cell(method, **columns) for method in (ours, theirs)]
    if any(cell is None or cell.interval is None for cell in cells):
        return None
    return welch(*(part for cell in cells for part in (cell.mean, cell.std, cell.runs)))


def effect(decision: report.Decision, label: str, **columns: str) -> Effect:
    """A decided claim beside the published difference that it bears upon.

    Args:
        decision: one of :func:`bisam.evidence.decisions.decisions`.
        label: a few words.
        columns: where the published cells stand; those of the claim if left out.

    Example:
        >>> from bisam.evidence import ledger
        >>> claim = next(claim for claim in ledger.claims("T1") if claim.id == "T1/resnet56/bisam-log-over-sam")
        >>> round(effect(report.decide(claim), "ResNet-56").published.difference, 2)
        0.19
    """
    claim = decision.claim
    columns = columns or claim.published
    published = published_gap(claim.ours, claim.theirs, **columns) if columns else None
    return Effect(label, claim.ours, published, decision.result, decision.verdict)


def effects(found: Sequence[Effect], heads: tuple[str, str] = ("published", "ours")) -> str:
    """Differences as lines of text: published with Welch's interval, ours with the paired one, p, pairs and verdict.

    Where nothing is published the column is left out.

    Args:
        found: the comparisons.
        heads: what to call the two columns.

    Example:
        >>> print(effects([Effect("ResNet", "sam", welch(94.3, 0.3, 6, 94.1, 0.3, 6), None, "not attempted")]))
                published             ours                       p   n  verdict
        ResNet  +0.20 [-0.19, +0.59]  -                          -   -  not attempted
    """
    width = max([len(each.label) for each in found] + [0])
    first = 0 if all(each.published is None for each in found) else max(len(heads[0]), 20) + 2
    lines = [f"{'':{width}}  {heads[0][:first]:{first}}{heads[1]:22} {'p':>5} {'n':>3}  verdict"]
    for each in found:
        theirs = "-" if each.published is None else _gap(each.published.difference, each.published)
        ours, p, pairs = "-", "-", "-"
        if each.ours is not None:
            ours, p, pairs = _gap(each.ours.mean, each.ours), f"{each.ours.p:.3f}", str(each.ours.pairs)
        lines.append(f"{each.label:{width}}  {theirs[:first]:{first}}{ours:22} {p:>5} {pairs:>3}  {each.verdict}")
    return "\n".join(lines)


def _gap(mean: float, interval: Paired | Unpaired) -> str:
    low, high = _ends(interval)
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def _ends(interval: Paired | Unpaired) -> tuple[float, float]:
    return interval.widest if isinstance(interval, Paired) else (interval.low, interval.high)


def states(found: Iterable[report.Decision], names: Mapping[str, str] | None = None) -> str:
    """Claims as lines of text: difference, interval, p, what would have been found, and the verdict.

    Args:
        found: what :func:`bisam.evidence.decisions.decisions` returned.
        names: id of a claim to what to call it; ids without their experiment if left out.

    Example:
        >>> states([]).split()
        ['difference', 'p', 'detectable', 'n', 'verdict']
    """
    found = list(found)
    called = [(names or {}).get(each.claim.id, each.claim.id.partition("/")[2]) for each in found]
    width = max([len(name) for name in called] + [0])
    lines = [f"{'':{width}}  {'difference':22} {'p':>5}  detectable   n  verdict"]
    for name, each in zip(called, found, strict=True):
        result = each.result
        numbers = f"{'-':22} {'-':>5} {'-':>11} {'-':>3}"
        if result is not None:
            numbers = f"{_gap(result.mean, result):22} {result.p:5.3f} {could_find(result):>11} {result.pairs:3}"
        early = f", {result.pairs} of {each.claim.pairs} pairs so far" if result is not None and result.pairs < each.claim.pairs else ""
        lines.append(f"{name:{width}}  {numbers}  {each.verdict}{early}")
    return "\n".join(lines)


def could_find(result: Paired | None) -> str:
    """The difference in points that so many pairs would find four times out of five, as text; a dash where no difference would be.

    Args:
        result: of :func:`bisam.evidence.statistics.paired`; ``None`` without pairs.

    Example:
        >>> from bisam.evidence.statistics import paired
        >>> could_find(paired([2.0, 3.0], [1.0, 1.0])), could_find(paired(range(2, 14), [0] * 6 + [6] * 6))
        ('-', '1.60')
    """
    return f"{result.detectable:.2f}" if result is not None and math.isfinite(result.detectable) else "-"


def by_chance(found: Iterable[report.Decision]) -> str:
    """How many claims the records resolve, and how many of so many would be resolved if nothing were to be found.

    A true null is resolved with a probability of at most 5 %. Claims that are not in regime are not judged.

    Args:
        found: what :func:`bisam.evidence.decisions.decisions` returned.

    Example:
        >>> by_chance([])
        'no claim has records'
    """
    recorded = [each for each in found if each.result is not None]
    judged = [each for each in recorded if each.verdict != "not in regime"]
    if not judged:
        return "no claim with records is in regime" if recorded else "no claim has records"
    resolved = sum(direction(each.result, each.claim.fewest) != 0 for each in judged)
    return f"{resolved} of {len(judged)} differences resolved; up to {ALPHA * len(judged):.1f} expected by chance if none were real"


# -- runs made here ---------------------------------------------------------------------------------------------------


def live(histories: Mapping[str, Sequence[History]]) -> str:
    """Runs made a moment ago as lines of text, means over their seeds. No evidence.

    Args:
        histories: method to what :func:`bisam.training.fit` returned, one a seed.

    Example:
        >>> from bisam.training import Run, fit
        >>> print(live({"sam": [fit(Run(model="mlp", epochs=1))]}).splitlines()[0])
             epochs  passes  own labels  validation  test, chosen  test, last
    """
    names = {method: look(method).label for method in histories}
    width = max(map(len, names.values()))
    lines = [f"{'':{width}}  epochs  passes  own labels  validation  test, chosen  test, last"]
    for method, runs in histories.items():
        own, validation = (
            statistics.mean(each.rows[each.selected_epoch - 1][key] for each in runs) for key in ("train_accuracy", "validation_accuracy")
        )
        chosen = statistics.mean(each.selected_test_accuracy for each in runs)
        last = statistics.mean(each.last_test_accuracy for each in runs)
        epochs = runs[0].run.epochs
        passes = epochs * runs[0].run.recipe.passes
        lines.append(f"{names[method]:{width}}  {epochs:6}  {passes:6.1f}  {own:10.1f}  {validation:10.1f}  {chosen:12.1f}  {last:10.1f}")
    return "\n".join(lines)


def joined(text: str) -> list[str]:
    """Methods that were given as one text with commas.

    Args:
        text: such as ``"sam, bisam-log"``.

    Example:
        >>> joined("sam, bisam-log")
        ['sam', 'bisam-log']
    """
    return [word.strip() for word in text.split(",")]


# -- figures ----------------------------------------------------------------------------------------------------------


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
        axes.errorbar(list(there), [cell.mean for cell in there.values()], yerr=reach, capsize=2, **look(method).line())
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
        style = look(each.method)
        axes.plot(_ends(result), [row, row], color=style.color)
        axes.plot(mean, row, style.marker, color=style.color, markersize=6)
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
        entries = list(report.entries(dict(records), method, place).values())
        if not entries:
            continue
        epochs, runs = _epochs(entries[0], column), [_column(entry, column) for entry in entries]
        length, style = entries[0]["run"]["epochs"], look(method)
        mean = [statistics.mean(values) for values in zip(*runs, strict=True)]
        axes.plot([epoch / length for epoch in epochs], mean, color=style.color, linestyle=style.linestyle, label=style.label)
        if marked:
            at = [entry["final"]["selected_epoch"] for entry in entries]
            chosen = [run[epochs.index(epoch)] for run, epoch in zip(runs, at, strict=True)]
            axes.plot([epoch / length for epoch in at], chosen, style.marker, color=style.color, alpha=0.5)
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
