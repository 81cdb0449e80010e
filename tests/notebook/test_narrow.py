"""Figures for telephones: panels one below the other, with all that they shared, at the width of a screen."""

import itertools

import numpy as np
import pytest
from matplotlib import pyplot as plt

from bisam.notebook import plots
from bisam.notebook.narrow import stacked

plots.style()
rows = np.arange(400.0).reshape(20, 20)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def boxes(figure):
    figure.draw_without_rendering()
    return [axes.get_window_extent() for axes in figure.axes]


def labels(axes, name):
    ticks = axes.get_xticklabels() if name == "x" else axes.get_yticklabels()
    return [label.get_text() for label in ticks if label.get_visible()]


def test_panels_stand_below_each_other_in_their_order_and_the_figure_itself_stays():
    figure, panels = plt.subplots(1, 3, figsize=(9, 3))
    for number, axes in enumerate(panels):
        axes.set_title(f"panel {number}")
    before = [axes.get_subplotspec() for axes in panels]
    found = stacked(figure)
    places = boxes(found)
    assert [axes.get_title() for axes in found.axes] == ["panel 0", "panel 1", "panel 2"]
    assert all(one.y0 > two.y1 for one, two in itertools.pairwise(places)) and len({round(box.x0) for box in places}) == 1
    assert found.get_figwidth() == 4.2 and figure.get_figwidth() == 9 and [axes.get_subplotspec() for axes in panels] == before
    assert plt.get_fignums() == [figure.number], "pyplot does not know of the copy"


def test_the_sizes_of_texts_stay_and_the_smallest_are_raised():
    figure, panels = plt.subplots(1, 2, figsize=(9, 3))
    panels[0].set_title("large", fontsize=13)
    panels[1].text(0.5, 0.5, "small", fontsize=5)
    found = stacked(figure)
    assert found.axes[0].title.get_fontsize() == 13 and found.axes[1].texts[0].get_fontsize() == 7.2


def test_what_panels_share_is_given_back_to_each():
    figure, grid = plt.subplots(2, 2, figsize=(8, 5), sharex=True, sharey=True)
    grid[0, 0].plot([1, 2, 3])
    grid[0, 0].set(ylabel="upper row", title="left column")
    grid[1, 0].set(ylabel="lower row", xlabel="step")
    grid[0, 1].set(title="right column")
    grid[1, 1].set(xlabel="radius")
    figure.draw_without_rendering()
    assert not labels(grid[0, 1], "x") and not labels(grid[0, 1], "y")
    found = stacked(figure)
    assert [axes.get_title() for axes in found.axes] == ["left column", "right column"] * 2
    assert [axes.get_ylabel() for axes in found.axes] == ["upper row", "upper row", "lower row", "lower row"]
    assert [axes.get_xlabel() for axes in found.axes] == ["step", "radius"] * 2
    assert all(labels(axes, "x") and labels(axes, "y") for axes in found.axes)
    assert grid[0, 1].get_ylabel() == "" and not labels(grid[0, 1], "x")


def test_each_panel_that_has_a_title_keeps_it_with_its_room():
    figure, panels = plt.subplots(1, 2, figsize=(8, 3))
    figure.draw_without_rendering()
    for axes in panels:
        axes.set_title("own", pad=30)
    assert all(axes.titleOffsetTrans.to_values()[5] == panels[0].titleOffsetTrans.to_values()[5] > 0 for axes in stacked(figure).axes)


def test_a_colour_bar_stays_beside_its_panel():
    figure, panels = plt.subplots(1, 2, figsize=(9, 3))
    figure.colorbar(panels[0].contourf(rows), ax=panels[0])
    figure.colorbar(panels[1].imshow(rows), ax=panels[1])
    found = stacked(figure)
    one, two, first, second = boxes(found)
    for panel, bar in ((one, first), (two, second)):
        assert bar.x0 >= panel.x1 and panel.y0 - 3 <= bar.y0 < bar.y1 <= panel.y1 + 3


def test_legends_beside_a_panel_and_wide_ones_come_below_and_fit():
    figure, panels = plt.subplots(1, 2, figsize=(9, 3))
    for number in range(5):
        panels[1].plot([number, 2], label=f"method with a long name {number}")
    panels[1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    found = stacked(figure)
    (legend,), places = found.legends, boxes(found)
    at = legend.get_window_extent()
    assert found.axes[1].get_legend() is None and len(legend.get_texts()) == 5
    assert at.y1 <= min(box.y0 for box in places) and at.width <= found.bbox.width


def test_a_legend_below_the_figure_gets_the_columns_that_fit():
    figure, panels = plt.subplots(1, 2, figsize=(9, 3))
    for number in range(4):
        panels[0].plot([number, 2], label=f"method with a long name {number}")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    found = stacked(figure)
    found.draw_without_rendering()
    assert len(found.legends) == 1 and found.legends[0].get_window_extent().width <= found.bbox.width


def test_long_words_get_more_lines_and_formulas_stay_whole():
    figure, axes = plt.subplots(figsize=(8, 3))
    axes.set_title(r"a title that is far too long for a telephone, with $\frac{a + b}{c + d}$ in it, and more words")
    axes.set_ylabel("a label that is longer than the panel is high, by many many words")
    found = stacked(figure)
    found.draw_without_rendering()
    title = found.axes[0].title
    assert "\n" in title.get_text() and r"$\frac{a + b}{c + d}$" in title.get_text() and title.get_window_extent().width <= found.bbox.width
    assert "\n" in found.axes[0].get_ylabel() and "\n" not in axes.get_title()


def test_words_at_the_ticks_that_would_overlap_are_turned():
    figure, axes = plt.subplots(figsize=(9, 3))
    axes.bar(["a long word here", "another long word", "a third long word", "and a fourth one"], [1, 2, 3, 4])
    found = stacked(figure)
    found.draw_without_rendering()
    assert all(label.get_rotation() == 35 for label in found.axes[0].get_xticklabels())


def test_pictures_without_ticks_stand_side_by_side():
    figure, panels = plt.subplots(1, 8, figsize=(8.4, 1.5))
    for axes in panels:
        axes.imshow(rows)
        axes.axis("off")
    places = boxes(stacked(figure))
    assert len({round(box.x0) for box in places}) == 4 and len({round(box.y0) for box in places}) == 2


def test_a_panel_keeps_its_shape_where_that_means_something():
    figure, panels = plt.subplots(1, 2, figsize=(9, 3))
    for axes in panels:
        axes.set(aspect="equal", xlim=(0, 2), ylim=(0, 1))
    assert all(box.width / box.height == pytest.approx(2) and box.width > 200 for box in boxes(stacked(figure)))


def test_a_list_of_many_rows_keeps_its_height():
    figure, axes = plt.subplots(figsize=(8, 9))
    axes.set_yticks(range(40), [f"row {k}" for k in range(40)])
    assert stacked(figure).get_figheight() > 8


def subfigures():
    figure = plt.figure(figsize=(9, 3))
    for half in figure.subfigures(1, 2):
        half.subplots()
    return figure


def free():
    figure = plt.figure(figsize=(9, 3))
    figure.add_axes([0.1, 0.1, 0.8, 0.8])
    return figure


NONE = {
    "narrow already": lambda: plt.figure(figsize=(4, 3)),
    "subfigures": subfigures,
    "axes without a place in a grid": free,
    "without a layout that moves things": lambda: plt.subplots(1, 2, figsize=(9, 3), layout="none")[0],
    "very many panels": lambda: plt.subplots(3, 4, figsize=(9, 6))[0],
}


@pytest.mark.parametrize("why", NONE)
def test_where_it_cannot_be_done_safely_it_is_not_done(why):
    assert stacked(NONE[why]()) is None
