"""Figures for telephones: the panels of a wide figure one below the other, at the sizes of text that they have side by side."""

from __future__ import annotations

import copy

from .. import _checks
from .fitting import WIDTH, fit

__all__ = ["stacked"]

WIDE = 4.4  # a figure that is no wider stays as it is
MOST = 8  # panels one below the other
BARE = 1.0  # inches of width that a panel without any ticks needs
SIDES = {"x": "bottom", "y": "left"}  # of the numbers


def stacked(figure):
    """A copy of a figure, as narrow as a telephone, with its panels one below the other.

    What panels share is given back to each: labels of the axes, numbers at the ticks, the title of a column. Panels without ticks, such
    as pictures, stand in as many columns as there is room for. Colour bars stay with their panels, legends outside come below.

    Args:
        figure: of matplotlib, in a constrained layout; it stays as it is.

    Returns:
        ``None`` where the figure is narrow already, has very many panels, or holds what cannot be moved safely: subfigures, axes without a
        place in a grid.

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
    shapes = [_inches(group[0]) for group in _panels(figure)]
    found = _copied(figure)
    panels = _panels(found)
    columns = _columns(panels)
    if not panels or len(panels) > MOST * columns:
        return None
    places = [group[0].get_subplotspec() for group in panels]
    if max(place.colspan.stop for place in places) > 1 or len({id(place.get_gridspec()) for place in places}) > 1:
        _give_back(panels)
        beside = {bar: _nearest(bar, panels) for bar in found.axes if _is_bar(bar)}
        grid = _checks.needs("matplotlib.gridspec", extra="notebooks").GridSpec(-(-len(panels) // columns), columns, figure=found)
        for k, group in enumerate(panels):
            for axes in group:
                axes.set_subplotspec(grid[k // columns, k % columns])
        for bar, axes in beside.items():  # where the layout begins, a bar must not reach beyond its panel
            box = axes.get_position(original=True)
            bar.set_position([box.x1, box.y0 + 0.2 * box.height, 0.02, 0.6 * box.height])
    fit(found, panels, shapes, columns)
    return found


def _inches(axes) -> tuple[float, float]:
    box = axes.get_window_extent()
    return box.width / axes.figure.dpi, box.height / axes.figure.dpi


def _nearest(bar, panels: list[list]):
    """The panel beside which a colour bar stands."""
    at = bar.get_window_extent()

    def far(group: list) -> float:
        box = group[0].get_window_extent()
        apart = [max(one - two, three - four, 0) for one, two, three, four in ((at.x0, box.x1, box.x0, at.x1), (at.y0, box.y1, box.y0, at.y1))]
        return apart[0] ** 2 + apart[1] ** 2

    return min(panels, key=far)[0]


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
        new += [
            (axes.yaxis.label, _one([other.get_ylabel() for other in row])), (axes.xaxis.label, _one([other.get_xlabel() for other in column])),
            (axes.title, _one([other.get_title() for other in column])),
        ]  # fmt: skip
        for name, shared in (("x", axes.get_shared_x_axes()), ("y", axes.get_shared_y_axes())):
            if any(_numbered(other, name) for other in shared.get_siblings(axes)):
                axes.tick_params(axis=name, **{f"label{SIDES[name]}": True})
                _axis(axes, name).offsetText.set_visible(True)
    for text, words in new:
        if not text.get_text():
            text.set_text(words)


def _one(of_all: list[str]) -> str:
    """The text of the only one that has one."""
    said = [text for text in of_all if text]
    return said[0] if len(said) == 1 else ""


def _axis(axes, name: str):
    return axes.xaxis if name == "x" else axes.yaxis


def _numbered(axes, name: str) -> bool:
    return bool(_axis(axes, name).get_tick_params().get(f"label{SIDES[name]}", True))
