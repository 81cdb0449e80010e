"""How figures look: one colour, line and marker per method everywhere, white ground, readable without colour."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from .. import _checks
from ..axes.recipe import SAM, Recipe
from ..losses.bounds import NegLog, Tanh
from ..methods.table import RECIPES, recipe
from . import pictures
from .results import is_notebook

__all__ = ["STYLES", "MethodStyle", "style", "style_of"]


@dataclass(frozen=True)
class MethodStyle:
    """The label, colour, line and marker of one method.

    Source:
        Most colours are those of Okabe and Ito (2008), which most colour-blind readers can tell apart.

    Example:
        >>> style_of("sgd").line()["linestyle"]
        ':'
    """

    label: str
    color: str
    linestyle: str
    marker: str

    def line(self) -> dict:
        """Keyword arguments for matplotlib's ``plot``."""
        return asdict(self)


STYLES = {
    "sgd": MethodStyle("SGD", "#666666", ":", "o"),
    "sam": MethodStyle("SAM", "#0072B2", "-", "s"),
    "bisam-log": MethodStyle("BiSAM (-log)", "#D55E00", "--", "^"),
    "bisam-tanh": MethodStyle("BiSAM (tanh)", "#009E73", "-.", "D"),
    # Controls.
    "sam-unsmoothed": MethodStyle("SAM, unsmoothed climb", "#CC79A7", "-", "P"),
    "sam-temperature": MethodStyle("SAM, with temperature", "#000000", "--", "x"),
    "sgd-equal-epochs": MethodStyle("SGD, equal epochs", "#666666", "-.", "1"),
    # Other balls and cheaper steps: the colour is that of the loss that is climbed.
    "asam-all": MethodStyle("ASAM", "#0072B2", "-", "p"),
    "asam": MethodStyle("ASAM (weights only)", "#0072B2", "-", "X"),
    "a-bisam-log": MethodStyle("A-BiSAM (-log)", "#D55E00", "--", "v"),
    "a-bisam-tanh": MethodStyle("A-BiSAM (tanh)", "#009E73", "-.", "d"),
    "esam": MethodStyle("ESAM", "#0072B2", "-", "<"),
    "e-bisam-log": MethodStyle("E-BiSAM (-log)", "#D55E00", "--", ">"),
    "e-bisam-tanh": MethodStyle("E-BiSAM (tanh)", "#009E73", "-.", "*"),
    "msam": MethodStyle("mSAM", "#0072B2", "--", "$m$"),
    "m-bisam-log": MethodStyle("M-BiSAM (-log)", "#D55E00", ":", "$M$"),
    "m-bisam-tanh": MethodStyle("M-BiSAM (tanh)", "#009E73", ":", "$W$"),
    # Climbs that are blind or take several steps, and the other two bounds.
    "sam-random": MethodStyle("random direction", "#666666", "--", "2"),
    "sam-3-steps": MethodStyle("SAM, 3 steps", "#0072B2", "-.", "3"),
    "sam-10-steps": MethodStyle("SAM, 10 steps", "#0072B2", ":", "4"),
    "sam-from-step-200": MethodStyle("SAM, last third", "#0072B2", (0, (5, 1, 1, 1, 1, 1)), "$T$"),
    "bisam-log-from-step-200": MethodStyle("BiSAM (-log), last third", "#D55E00", (0, (5, 1, 1, 1, 1, 1)), "$L$"),
    "log-sharper": MethodStyle("BiSAM (-log), sharper bound", "#D55E00", "-.", "|"),
    "log-rivals": MethodStyle("BiSAM (-log), rivals only", "#D55E00", ":", "_"),
    "tanh-rivals": MethodStyle("BiSAM (tanh, slope 1), rivals only", "#009E73", ":", "."),
    "j-sam": MethodStyle("J-SAM", "#56B4E9", "-", "$J$"),
    # A learned radius stands beside a held one, in the lighter colour.
    "lets-sam": MethodStyle("LETS-SAM", "#56B4E9", ":", "h"),
    "lets-asam": MethodStyle("LETS-ASAM", "#56B4E9", ":", "+"),
    "lets-bisam-log": MethodStyle("LETS-BiSAM (-log)", "#E69F00", ":", "H"),
    "lets-bisam-tanh": MethodStyle("LETS-BiSAM (tanh)", "#882255", ":", "8"),
}

# Of the other methods: the colour says on which axis they differ from SAM, the first of these; the line, what they climb.
COLORS = {
    "combination": "#332288", "direction": "#882255", "start": "#E69F00", "selection": "#44AA99", "micro_batch": "#999933",
    "geometry": "#CC79A7", "radius": "#56B4E9",
}  # fmt: skip
LINES = {NegLog: "--", Tanh: "-."}
MARKERS = "sXpDv^<>*hPd"
WORDS = {
    "bisam-log": "BiSAM (-log)", "bisam-tanh": "BiSAM (tanh)", "looksam": "LookSAM", "bsam": "bSAM", "msam": "mSAM", "vasso": "VaSSO", "e": "E",
    "m": "M", "le": "LE", "on": "ON",
}  # fmt: skip


def style_of(method: str) -> MethodStyle:
    """The style of a named method.

    Args:
        method: name of a recipe or of a control.

    Raises:
        ValueError: an unknown name; the message lists the recipes.

    Example:
        >>> style_of("sam").label, style_of("gsam-bisam-log").label, style_of("gsam-bisam-log").linestyle
        ('SAM', 'GSAM-BiSAM (-log)', '--')
    """
    _checks.text("method", method)
    return STYLES[method] if method in STYLES else _by_rule(recipe(method))


def _by_rule(row: Recipe) -> MethodStyle:
    axis = next((axis for axis in COLORS if _kind(row, axis) != _kind(SAM, axis)), "radius")
    line = LINES.get(type(getattr(row.ascent, "phi", None)), "-")
    base = re.sub("-bisam-(log|tanh)$", "", row.name)  # a method and its products with Q have one marker
    known = list(RECIPES)
    number = known.index(base if base in known else row.name) if row.name in known or base in known else 0
    return MethodStyle(_label(row.name), COLORS[axis], line, MARKERS[number % len(MARKERS)])


def _kind(row: Recipe, axis: str) -> object:
    part = getattr(row, axis)
    return type(part) if axis != "micro_batch" else part is not None


def _label(name: str) -> str:
    stem, _, variant = re.sub("-(code|printed)$", r"/\1", name).partition("/")
    words = re.findall("bisam-log|bisam-tanh|[^-]+", stem)
    label = "-".join(WORDS.get(word, word.upper() if word.endswith("sam") else word) for word in words)
    return f"{label}, {variant}" if variant else label


def style() -> None:
    """Sets matplotlib's defaults for all figures of the book: white ground, quiet axes, SVG whose text is text.

    Example:
        >>> style()
    """
    matplotlib = _checks.needs("matplotlib", extra="notebooks")
    matplotlib.rcParams.update({
        "figure.dpi": 110, "figure.facecolor": "white", "savefig.facecolor": "white", "figure.constrained_layout.use": True,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
        "font.size": 10, "legend.frameon": False, "lines.markersize": 4, "lines.linewidth": 1.6,
        # Verdana is as wide as DejaVu Sans, in which matplotlib sets the text, and is there where the other is not.
        "svg.fonttype": "none", "svg.hashsalt": "bisam", "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    })  # fmt: skip
    if is_notebook():
        # The backend sets its formats when it is first asked for, which must not come after ours.
        _checks.needs("matplotlib_inline.backend_inline", extra="notebooks").set_matplotlib_formats("svg")
        pictures.offer(_checks.needs("IPython", extra="notebooks").get_ipython())
