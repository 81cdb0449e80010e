"""The size of a narrow figure: texts and legends fit its width, and its height is what its panels need."""

from __future__ import annotations

import itertools
import re

from .. import _checks

__all__ = ["WIDTH", "fit"]

WIDTH = 4.2  # inches; on a screen of 390 pixels 7.1 points are then 8 pixels
ROUNDS = 2
SMALLEST = 7.2  # points of the smallest text
LEAST, MOST = 1.7, 3.0  # inches of height of a panel; one that is far higher, such as a list of many rows, stays so


def fit(figure, panels: list[list], shapes: list[tuple[float, float]], columns: int) -> None:
    """Sets the size of a figure, in which texts and legends fit the width, and each panel is about as high as it was.

    Args:
        figure: whose panels have their places in a grid.
        panels: the axes of each place.
        shapes: width and height in inches that each panel had before.
        columns: how many panels stand side by side.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
        >>> fit(figure, [[axes]], [(7.0, 2.5)], 1)
        >>> float(figure.get_figwidth()), round(float(figure.get_figheight()))
        (4.2, 3)
        >>> plt.close(figure)
    """
    rows = [panels[k : k + columns] for k in range(0, len(panels), columns)]
    figure.set_size_inches(WIDTH, sum(shapes[k * columns][1] + 0.7 for k in range(len(rows))))
    for text in figure.findobj(_checks.needs("matplotlib.text", extra="notebooks").Text):
        text.set_fontsize(max(text.get_fontsize(), SMALLEST))
    for number in range(ROUNDS):
        figure.draw_without_rendering()
        if number == 0:
            _move_legends(figure, panels)
        _break_lines(figure, panels)
        for group in panels:
            _turn_numbers(group[0])
        missing, wanted = 0.0, []
        for k, row in enumerate(rows):
            box = row[0][0].get_position(original=True)
            width, height = box.width * figure.get_figwidth(), box.height * figure.get_figheight()
            wanted.append(_height(row[0][0], width, *shapes[k * columns]))
            missing += wanted[-1] - height
        grid = rows[0][0][0].get_subplotspec().get_gridspec()
        if grid.nrows == len(rows):
            grid.set_height_ratios(wanted)
        figure.set_figheight(max(1.0, figure.get_figheight() + missing))


def _height(axes, width: float, before: float, height: float) -> float:
    """Inches: a panel keeps its shape where that means something, and else its height."""
    return width * height / before if axes.get_aspect() != "auto" else min(max(height, LEAST), MOST if height < MOST * 1.4 else height)


def _move_legends(figure, panels: list[list]) -> None:
    """Legends that stand beside a panel come below the figure, and those that are too wide get fewer columns."""
    below = []
    for axes in (axes for group in panels for axes in group if axes.get_legend()):
        legend, box = axes.get_legend(), axes.get_window_extent()
        at = legend.get_window_extent()
        outside = at.x0 > box.x1 - 2 or at.y0 > box.y1 - 2
        if not (at.x0 > box.x1 - 2 or at.width > box.width):
            continue
        said = _said(legend)
        legend.remove()
        if outside:
            below.append(said)
        else:
            axes.legend(**said)
    for legend in list(figure.legends):
        below.append(_said(legend))
        figure.legends.remove(legend)  # `legend.remove` of a copy looks for it in the figure that was copied
    known: list[list[str]] = []
    for said in below:
        if said["labels"] not in known:
            known.append(said["labels"])
            _below(figure, said)


def _said(legend) -> dict:
    """What a legend shows, as arguments for another."""
    return {
        "handles": list(legend.legend_handles), "labels": [text.get_text() for text in legend.get_texts()],
        "title": legend.get_title().get_text() or None, "fontsize": max(SMALLEST, legend.get_texts()[0].get_fontsize()),
    }  # fmt: skip


def _below(figure, said: dict) -> None:
    """A legend below the panels, with as many columns as fit."""
    for columns in range(min(4, len(said["labels"])), 0, -1):
        legend = figure.legend(**said, loc="outside lower center", ncols=columns)
        if columns == 1 or legend.get_window_extent(figure.canvas.get_renderer()).width < figure.bbox.width:
            return
        figure.legends.remove(legend)


def _turn_numbers(axes) -> None:
    """Words at the ticks that would run into each other stand aslant."""
    low, high = sorted(axes.get_xlim())
    shown = [label for label in axes.get_xticklabels() if label.get_text() and label.get_visible() and low <= label.get_position()[0] <= high]
    boxes = sorted((label.get_window_extent() for label in shown), key=lambda box: box.x0)
    if any(one.x1 > two.x0 for one, two in itertools.pairwise(boxes)) and not any(label.get_rotation() for label in shown):
        axes.tick_params(axis="x", labelrotation=35)
        for label in shown:
            label.set(horizontalalignment="right", rotation_mode="anchor")


def _break_lines(figure, panels: list[list]) -> None:
    """Titles and labels that are longer than there is room for get more lines."""
    wide, texts = figure.bbox.width, []
    for group in panels:
        for axes in group:
            box = axes.get_window_extent()
            beside = 2 * min(box.x1, wide - box.x0) - box.width + 0.0  # a title is centred on its panel
            texts += [(axes.title, min(wide, max(box.width, beside))), (axes.xaxis.label, min(wide, max(box.width, beside)))]
            texts += [(axes.yaxis.label, box.height * 1.15)]
    if figure.get_suptitle():
        texts += [(text, wide) for text in figure.texts if text.get_text() == figure.get_suptitle()]
    for text, room in texts:
        if text.get_text():
            _break_line(text, room)


def _break_line(text, room: float) -> None:
    words = re.findall(r"(?:\$[^$]*\$|[^\s$])+", text.get_text())  # a formula stays whole
    longest = len(text.get_text())
    for _ in range(len(words)):
        box = text.get_window_extent()
        long = box.height if text.get_rotation() % 180 == 90 else box.width
        if long <= room:
            return
        longest = min(longest - 1, int(longest * room / long))
        lines = [""]
        for word in words:
            if lines[-1] and len(lines[-1]) + len(word) >= longest:
                lines.append("")
            lines[-1] = f"{lines[-1]} {word}".strip()
        text.set_text("\n".join(lines))
