"""Figures for telephones: the panels of a wide figure one below the other, at the sizes of text that they have side by side."""

from __future__ import annotations

import copy
import itertools
import re

from .. import _checks

__all__ = ["WIDTH", "stacked"]

WIDTH = 4.2  # inches; on a screen of 390 pixels 7 points are then 8 pixels
WIDE = 4.4  # a figure that is no wider stays as it is
ROUNDS = 3  # of fitting the height
SMALLEST = 7.0  # points of the smallest text
BARE = 1.0  # inches of width that a panel without any ticks needs
LEAST, MOST = 1.7, 3.0  # inches of height of a panel; one that is far higher, such as a list of many rows, stays so
SIDES = {"x": "bottom", "y": "left"}  # of the numbers


def stacked(figure):
    """A copy of a figure, as narrow as a telephone, with its panels one below the other.

    What panels share is given back to each: labels of the axes, numbers at the ticks, the title of a column. Panels without ticks, such
    as pictures, stand in as many columns as there is room for. Colour bars stay with their panels, legends outside come below.

    Args:
        figure: of matplotlib, in a constrained layout; it stays as it is.

    Returns:
        ``None`` where the figure is narrow already, or holds what cannot be moved safely: subfigures, axes without a place in a grid.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> figure, panels = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
        >>> label = panels[0].set_ylabel("loss")
        >>> narrow = stacked(figure)
        >>> [axes.get_ylabel() for axes in narrow.axes], [float(axes.get_position().x0) > 0.4 for axes in narrow.axes]
        (['loss', 'loss'], [False, False])
        >>> plt.close(figure)
    """
    if figure.get_figwidth() <= WIDE or figure.subfigs or not _constrained(figure):
        return None
    if any(axes.get_subplotspec() is None for axes in figure.axes if not _is_bar(axes)):
        return None
    figure.draw_without_rendering()
    panels = _panels(figure)
    boxes = [axes.get_window_extent() for axes, *_ in panels]
    shapes = [(box.width / figure.dpi, box.height / figure.dpi) for box in boxes]
    found = _copied(figure)
    panels = _panels(found)
    if not panels:
        return None
    before = [axes.get_subplotspec() for axes, *_ in panels]
    columns = _columns(panels)
    if max(spec.colspan.stop for spec in before) > 1 or len({id(spec.get_gridspec()) for spec in before}) > 1:
        _give_back(panels)
        grid = _checks.needs("matplotlib.gridspec", extra="notebooks").GridSpec(-(-len(panels) // columns), columns, figure=found)
        for k, group in enumerate(panels):
            for axes in group:
                axes.set_subplotspec(grid[k // columns, k % columns])
    _fit(found, panels, shapes, columns)
    return found


def _constrained(figure) -> bool:
    engine = figure.get_layout_engine()
    return engine is not None and not engine.colorbar_gridspec


def _is_bar(axes) -> bool:
    return axes.get_label() == "<colorbar>"


def _copied(figure):
    """A copy that pyplot does not know of."""
    manager, figure.canvas.manager = figure.canvas.manager, None
    try:
        found = copy.deepcopy(figure)
    finally:
        figure.canvas.manager = manager
    # Below a figure that has been shown in a notebook hang callbacks of its own; a bare canvas has none.
    _checks.needs("matplotlib.backends.backend_agg", extra="notebooks").FigureCanvasAgg(found)
    return found


def _panels(figure) -> list[list]:
    """The axes in the order in which they were made, with those that stand in the same place together."""
    found: dict[tuple, list] = {}
    for axes in figure.axes:
        if not _is_bar(axes):
            spec = axes.get_subplotspec()
            found.setdefault((id(spec.get_gridspec()), spec.num1, spec.num2), []).append(axes)
    return [group for group in found.values() if any(axes.get_visible() for axes in group)]


def _columns(panels: list[list]) -> int:
    """How many panels stand side by side: one, unless they are pictures without ticks."""
    bare = all(not axes.axison or (not len(axes.get_xticks()) and not len(axes.get_yticks())) for group in panels for axes in group)
    if not bare:
        return 1
    most = max(group[0].get_subplotspec().colspan.stop for group in panels)
    return max(1, min(most, int(WIDTH / BARE)))


def _give_back(panels: list[list]) -> None:
    """Labels, titles and numbers that a panel has from its neighbour become its own."""
    places = [(group[0], group[0].get_subplotspec()) for group in panels]
    new = []
    for axes, spec in places:
        grid = spec.get_gridspec()
        mine = [(other, at) for other, at in places if at.get_gridspec() is grid]
        row = [other for other, at in mine if at.rowspan.start == spec.rowspan.start]
        column = [other for other, at in mine if at.colspan.start == spec.colspan.start]
        words = {
            "ylabel": _one([other.get_ylabel() for other in row], axes.get_ylabel()),
            "xlabel": _one([other.get_xlabel() for other in column], axes.get_xlabel()),
            "title": _one([other.get_title() for other in column], axes.get_title()),
        }
        new.append((axes, words))
        for name, shared in (("x", axes.get_shared_x_axes()), ("y", axes.get_shared_y_axes())):
            if any(_numbered(other, name) for other in shared.get_siblings(axes)):
                axes.tick_params(axis=name, **{f"label{SIDES[name]}": True})
                _axis(axes, name).offsetText.set_visible(True)
    for axes, words in new:
        axes.set(**{name: text for name, text in words.items() if text})


def _one(of_all: list[str], own: str) -> str:
    """The own text, or that of the only neighbour that has one."""
    said = [text for text in of_all if text]
    return own or (said[0] if len(said) == 1 else "")


def _axis(axes, name: str):
    return axes.xaxis if name == "x" else axes.yaxis


def _numbered(axes, name: str) -> bool:
    return bool(_axis(axes, name).get_tick_params().get(f"label{SIDES[name]}", True))


# -- the size ------------------------------------------------------------------------------------------------------------


def _fit(figure, panels: list[list], shapes: list[tuple[float, float]], columns: int) -> None:
    """Sets the size of the figure, in which texts and legends fit its width, and each panel is about as high as it was."""
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
        legend.remove()
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
        legend.remove()


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
