"""A figure as files: SVG whose text is text and whose heavy parts are rasters, PDF, and a narrow SVG for telephones."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import logging
import re

from .. import _checks
from .narrow import stacked

__all__ = ["NARROW", "PDF", "SVG", "lighten", "narrow_of", "offer", "pdf_of", "svg_of"]

SVG, PDF = "image/svg+xml", "application/pdf"
NARROW = "application/vnd.bisam.narrow-svg"  # SVG, gzip, base64: other programs pass an unknown type over
VECTORS = 60_000  # bytes of paths that one figure may hold
MARK, VERTEX, PATH = 90, 16, 120  # bytes that a marker, a vertex and the beginning of a path take in SVG
DPI = (200, 120)  # of rasters: the first with which a figure is small enough
MOST = 280_000  # bytes of a figure
PAD = 0.05  # inches around a figure


def lighten(figure) -> None:
    """Marks the heaviest artists of a figure to be drawn as rasters, until its other paths are few enough; text stays text.

    Args:
        figure: of matplotlib, drawn as a raster or not at all so far.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> figure, axes = plt.subplots()
        >>> many, few = axes.scatter(range(5000), range(5000)), axes.scatter([1], [1])
        >>> lighten(figure)
        >>> many.get_rasterized(), few.get_rasterized()
        (True, False)
        >>> plt.close(figure)
    """
    weights = [(_weight(artist), artist) for axes in figure.axes for artist in (*axes.collections, *axes.lines)]
    left = sum(weight for weight, _ in weights)
    for weight, artist in sorted(weights, key=lambda each: -each[0]):
        if left <= VECTORS:
            return
        artist.set_rasterized(True)
        left -= weight


def _weight(artist) -> int:
    """About how many bytes an artist takes in SVG."""
    collections = _checks.needs("matplotlib.collections", extra="notebooks")
    if isinstance(artist, collections.QuadMesh):
        return (PATH + 5 * VERTEX) * artist.get_array().size
    if isinstance(artist, collections.Collection):
        paths = artist.get_paths()
        drawn = sum(PATH + VERTEX * len(path.vertices) for path in paths)
        return drawn + MARK * max(0, len(artist.get_offsets()) - len(paths))
    path = artist.get_transform().transform_path(artist.get_path())
    points = len(path.cleaned(simplify=path.should_simplify).vertices) if artist.get_linestyle() != "None" else 0
    marks = len(path.vertices) if artist.get_marker() not in ("None", None, "", " ") else 0
    return VERTEX * points + MARK * marks


def svg_of(figure) -> str:
    """A figure as SVG.

    Args:
        figure: of matplotlib.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> figure, axes = plt.subplots()
        >>> title = axes.set_title("a title")
        >>> with plt.rc_context({"svg.fonttype": "none"}):
        ...     ">a title</text>" in svg_of(figure)
        True
        >>> plt.close(figure)
    """
    lighten(figure)
    with _laid_out(figure):
        for dpi in DPI:
            text = _primed(_short(_saved(figure, "svg", dpi).decode()))
            if len(text) <= MOST:
                break
    return text


def _short(text: str) -> str:
    """The SVG without comments and names of groups, with its places to a hundredth of a point; what its texts say stays as it is."""

    def rounded(tag: re.Match) -> str:
        if "scale(" in tag[0] or "matrix(" in tag[0]:
            return tag[0]
        return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), tag[0])

    return re.sub("<[^>]+>", rounded, re.sub('(?s:<!--.*?-->\n?)|(?s: *<metadata>.*?</metadata>\n)|(?<=<g) id="[^"]*"', "", text))


def _primed(text: str) -> str:
    """The SVG with a prime where matplotlib names a glyph of a font for formulas, which no browser has: it would show a zero."""
    return re.sub(r"""(<tspan[^>]*font-family: )'cmsy10'([^>]*>)0(</tspan>)""", "\\1'DejaVu Sans'\\2\N{PRIME}\\3", text)


@contextlib.contextmanager
def _laid_out(figure):
    """The layout is found once and not at every drawing, which takes most of the time."""
    engine = figure.get_layout_engine()
    if engine is None:
        yield
        return
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    try:
        yield
    finally:
        figure.set_layout_engine(engine)


def _saved(figure, kind: str, dpi: int) -> bytes:
    logging.getLogger("fontTools").setLevel(logging.ERROR)  # it warns of the dates in fonts, and a notebook would keep that
    file = io.BytesIO()
    without = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]  # a date would change the bytes of every execution
    figure.savefig(file, format=kind, dpi=dpi, bbox_inches="tight", pad_inches=PAD, metadata=without)
    return file.getvalue()


def pdf_of(figure) -> bytes:
    """A figure as PDF, with the letters of its text.

    Args:
        figure: of matplotlib.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> figure, axes = plt.subplots()
        >>> pdf_of(figure)[:4]
        b'%PDF'
        >>> plt.close(figure)
    """
    lighten(figure)
    with _laid_out(figure):
        return _saved(figure, "pdf", DPI[0])


def narrow_of(figure) -> str | None:
    """A narrow rendering of a figure, its panels one below the other: SVG, compressed, as a line of text.

    Args:
        figure: of matplotlib; it stays as it is.

    Returns:
        ``None`` where the figure is narrow already or cannot be laid out anew.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> figure, panels = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
        >>> len(narrow_of(figure)) > 1000
        True
        >>> plt.close(figure)
    """
    copy = stacked(figure)
    return None if copy is None else base64.b64encode(gzip.compress(svg_of(copy).encode(), mtime=0)).decode()


def offer(shell) -> None:
    """Has a notebook show every figure as SVG, with its PDF and its narrow rendering beside it.

    Args:
        shell: of IPython.

    Example:
        >>> from IPython.core.interactiveshell import InteractiveShell
        >>> shell = InteractiveShell()
        >>> offer(shell)
        >>> NARROW in shell.display_formatter.formatters
        True
    """
    figures = _checks.needs("matplotlib.figure", extra="notebooks")
    base = _checks.needs("IPython.core.formatters", extra="notebooks").BaseFormatter
    traitlets = _checks.needs("traitlets", extra="notebooks")

    class Narrow(base):
        format_type = traitlets.Unicode(NARROW)
        print_method = traitlets.ObjectName("_repr_narrow_")

    formatters = shell.display_formatter.formatters
    formatters.setdefault(NARROW, Narrow(parent=shell.display_formatter))
    for kind in ("image/png", "image/jpeg"):
        formatters[kind].pop(figures.Figure, None)
    for kind, draw in ((SVG, svg_of), (PDF, pdf_of), (NARROW, narrow_of)):
        formatters[kind].for_type(figures.Figure, draw)
