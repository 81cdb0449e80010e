r"""What missing runs would cost on a named card, from their arithmetic alone: no such card is needed here.

.. math:: \text{hours} = \frac{\text{FLOP}}{3600\, r}, \qquad r = \min\big(s\,P_{\text{card}},\; r_{10}\,P_{\text{card}} / P_{\text{A100}}\big)

with the peak P of the card at the precision of the run, the share s of it that a training of large layers reaches, and for the networks of
table 10 the rate :math:`r_{10}` that its seconds on an A100 say. The share is that of the widest network of that table, which is the best case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import _checks
from ..training import Run
from ..training.data import DataError
from .needed import TIMED, flop_of_run, published_rate
from .plans import Planned, runs_planned

__all__ = ["CARDS", "Cost", "cost"]

# Peaks from the data sheets of the vendor, dense, in 10^12 operations a second: float32 without and with TF32, and bfloat16.
CARDS = {
    "A100": {"float32": 19.5, "tf32": 156.0, "bfloat16": 312.0},
    "L4": {"float32": 30.3, "tf32": 60.0, "bfloat16": 121.0},
    "RTX-4090": {"float32": 82.6, "tf32": 82.6, "bfloat16": 165.2},
    "H100": {"float32": 67.0, "tf32": 494.7, "bfloat16": 989.4},
    "H200": {"float32": 67.0, "tf32": 494.7, "bfloat16": 989.4},
}
SHARE = 0.35  # of the peak: 55 of 156 is what the seconds of the widest network of table 10 say


@dataclass(frozen=True)
class Cost:
    """What runs cost on a card: their operations, the hours of one card, and by data set why some have no price.

    Example:
        >>> Cost(7.2e18, 100.0, {}).hours
        100.0
    """

    flop: float
    hours: float
    unknown: dict[str, str]


def cost(planned: Sequence[Planned], card: str, root: str | None = None) -> Cost:
    """What the missing runs of a plan would cost on a card.

    Args:
        planned: runs; those that are recorded cost nothing.
        card: one of ``CARDS``.
        root: folder of the data sets, for data whose size is not known without them.

    Raises:
        ValueError: an unknown card.

    Example:
        >>> from bisam.evidence.plans import plan
        >>> found = cost(plan("T1", scale="paper"), "A100")
        >>> 1e18 < found.flop < 1e20, found.unknown
        (True, {})
    """
    _checks.choice("card", card, tuple(CARDS))
    flop = seconds = 0.0
    unknown: dict[str, str] = {}
    for one in runs_planned(planned):
        if one.recorded or one.run.data in unknown:
            continue
        try:
            own = flop_of_run(one.run, root)
        except DataError as error:
            unknown[one.run.data] = str(error)
            continue
        flop += own
        seconds += own / (1e12 * rate(one.run, card))
    return Cost(flop, seconds / 3600, unknown)


def rate(run: Run, card: str) -> float:
    """About how many operations a second a card makes in a training, in 10^12.

    Example:
        >>> rate(Run(data="cifar10", model="resnet56"), "A100") < 3 < rate(Run(data="cifar10", model="wrn-34-10"), "A100")
        True
    """
    peak = CARDS[_checks.choice("card", card, tuple(CARDS))]
    most = SHARE * peak[run.precision]
    if (name := "resnet56" if run.data.startswith("cifar") and run.model not in TIMED else run.model) not in TIMED:
        return most
    return min(most, published_rate(name) / 1e12 * peak["tf32"] / CARDS["A100"]["tf32"])
