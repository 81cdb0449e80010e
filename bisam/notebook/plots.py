"""How figures look: one colour, line and marker per method everywhere, white ground, readable without colour."""

from __future__ import annotations

from dataclasses import dataclass

from .. import _checks

__all__ = ["LOOKS", "Look", "look", "style"]


@dataclass(frozen=True)
class Look:
    """The label, colour, line and marker of one method.

    Source:
        Most colours are those of Okabe and Ito (2008), which most colour-blind readers can tell apart.

    Example:
        >>> look("sgd").line()["linestyle"]
        ':'
    """

    label: str
    color: str
    linestyle: str
    marker: str

    def line(self) -> dict:
        """Keyword arguments for matplotlib's ``plot``."""
        return {"label": self.label, "color": self.color, "linestyle": self.linestyle, "marker": self.marker}


LOOKS = {
    "sgd": Look("SGD", "#666666", ":", "o"),
    "sam": Look("SAM", "#0072B2", "-", "s"),
    "bisam-log": Look("BiSAM (-log)", "#D55E00", "--", "^"),
    "bisam-tanh": Look("BiSAM (tanh)", "#009E73", "-.", "D"),
    # Controls.
    "sam-unsmoothed": Look("SAM, unsmoothed climb", "#CC79A7", "-", "P"),
    "sam-temperature": Look("SAM, with temperature", "#000000", "--", "x"),
    "sgd-equal-epochs": Look("SGD, equal epochs", "#666666", "-.", "1"),
    # Other balls and cheaper steps: the colour is that of the loss that is climbed.
    "asam-all": Look("ASAM", "#0072B2", "-", "p"),
    "asam": Look("ASAM (weights only)", "#0072B2", "-", "X"),
    "a-bisam-log": Look("A-BiSAM (-log)", "#D55E00", "--", "v"),
    "a-bisam-tanh": Look("A-BiSAM (tanh)", "#009E73", "-.", "d"),
    "esam": Look("ESAM", "#0072B2", "-", "<"),
    "e-bisam-log": Look("E-BiSAM (-log)", "#D55E00", "--", ">"),
    "e-bisam-tanh": Look("E-BiSAM (tanh)", "#009E73", "-.", "*"),
    # A learned radius stands beside a held one, in the lighter colour.
    "lets-sam": Look("LETS-SAM", "#56B4E9", ":", "h"),
    "lets-asam": Look("LETS-ASAM", "#56B4E9", ":", "+"),
    "lets-bisam-log": Look("LETS-BiSAM (-log)", "#E69F00", ":", "H"),
    "lets-bisam-tanh": Look("LETS-BiSAM (tanh)", "#882255", ":", "8"),
}


def look(method: str) -> Look:
    """The look of a named method.

    Args:
        method: name of a recipe.

    Raises:
        ValueError: a method without a look; the message lists those that have one.

    Example:
        >>> look("sam").label
        'SAM'
    """
    return LOOKS[_checks.choice("method", method, tuple(LOOKS))]


def style() -> None:
    """Sets matplotlib's defaults for all figures of the book: white ground, quiet axes, small files.

    Example:
        >>> style()
    """
    import matplotlib

    matplotlib.rcParams.update({
        "figure.dpi": 110,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "figure.constrained_layout.use": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "font.size": 10,
        "legend.frameon": False,
        "lines.markersize": 4,
        "lines.linewidth": 1.6,
    })
