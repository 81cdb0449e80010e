"""What a notebook stores of a figure: text stays text, heavy parts become rasters, and a narrow rendering and a PDF stand beside it."""

import base64
import gzip
import re
import xml.etree.ElementTree as tree

import numpy as np
import pytest
from matplotlib import pyplot as plt

from bisam.notebook import pictures, plots

plots.style()


@pytest.fixture
def axes():
    figure, axes = plt.subplots(figsize=(6.4, 3))
    axes.set(title="the words of a title", xlabel="radius")
    yield axes
    plt.close(figure)


def contours(axes):
    x = np.linspace(-3, 3, 300)
    return axes.contourf(x, x, np.sin(9 * x) * np.cos(11 * x)[:, None], 40)


HEAVY = {
    "many points": lambda axes: axes.scatter(*np.random.default_rng(0).normal(size=(2, 9000))),
    "a mesh": lambda axes: axes.pcolormesh(np.outer(np.arange(200.0), np.arange(200.0))),
    "contours": contours,
    "hexagons": lambda axes: axes.hexbin(*np.random.default_rng(0).normal(size=(2, 90000)), gridsize=90),
    "a restless line": lambda axes: axes.plot(np.random.default_rng(0).normal(size=40_000))[0],
    "many marks": lambda axes: axes.plot(*np.random.default_rng(0).normal(size=(2, 5000)), ".")[0],
}


@pytest.mark.parametrize("what", HEAVY)
def test_what_is_heavy_becomes_a_raster_and_text_stays_text(axes, what):
    drawn = HEAVY[what](axes)
    text = pictures.svg_of(axes.figure)
    assert drawn.get_rasterized() and text.count("<image") >= 1 and len(text) < 300_000
    assert ">the words of a title</text>" in text and ">radius</text>" in text
    tree.fromstring(text)


def test_what_is_light_stays_as_it_is(axes):
    line = axes.plot([1, 2], [3, 4], "o-", label="a line")[0]
    smooth = axes.plot(np.linspace(0, 6, 200_000), np.sin(np.linspace(0, 6, 200_000)))[0]
    few = axes.scatter([1, 2], [3, 4])
    axes.legend()
    text = pictures.svg_of(axes.figure)
    assert "<image" not in text and not any(artist.get_rasterized() for artist in (line, smooth, few))


def test_a_prime_is_a_letter_of_a_font_that_browsers_have(axes):
    axes.set_ylabel(r"$\phi'(F)$")
    text = pictures.svg_of(axes.figure)
    assert ">′</tspan>" in text and "cmsy10" not in text


def test_only_the_heaviest_is_a_raster(axes):
    heavy, light = HEAVY["many points"](axes), axes.scatter([1, 2], [3, 4])
    pictures.lighten(axes.figure)
    assert heavy.get_rasterized() and not light.get_rasterized()


@pytest.mark.parametrize("draw", [pictures.svg_of, pictures.pdf_of, pictures.narrow_of])
def test_a_figure_made_twice_has_the_same_bytes(draw):
    made = []
    for _ in range(2):
        figure, axes = plt.subplots(figsize=(6.4, 3))
        axes.plot([1, 2], label="a line")
        axes.legend()
        made.append(draw(figure))
        plt.close(figure)
    assert made[0] == made[1]


def test_a_pdf_holds_letters_and_no_picture_of_them(axes):
    axes.plot([1, 2])
    content = pictures.pdf_of(axes.figure)
    assert content.startswith(b"%PDF") and b"/Font" in content and b"/ToUnicode" in content and b"/Subtype /Image" not in content


def test_a_notebook_gets_all_of_them():
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    pictures.offer(shell)
    figure, panels = plt.subplots(1, 2, figsize=(8, 3))
    panels[0].plot([1, 2])
    data, _ = shell.display_formatter.format(figure)
    single = shell.display_formatter.format(plt.figure(figsize=(3, 2)))[0]
    plt.close("all")
    assert {pictures.SVG, pictures.PDF, pictures.NARROW, "text/plain"} == set(data)
    narrow = gzip.decompress(base64.b64decode(data[pictures.NARROW])).decode()
    widths = [float(re.search(r'viewBox="0 0 ([\d.]+)', text)[1]) for text in (data[pictures.SVG], narrow)]
    assert widths[0] > 500 and widths[1] < 320
    assert pictures.NARROW not in single, "it is narrow already"
