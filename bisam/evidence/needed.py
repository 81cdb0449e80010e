r"""What it would take: the seeds and the arithmetic that a published claim asks for, if it is exactly true.

A difference :math:`e` between methods with printed deviations :math:`s_1, s_2` is found by Student's test of n pairs with probability

.. math:: \Pr\big[\,|T_{n-1}(\sqrt n\, |e| / s)| > t_{n-1,\,0.975}\,\big], \qquad s^2 = s_1^2 + s_2^2 .

Pairs that share a seed may agree more than that; how much more is not printed, so it counts as nothing.
"""

from __future__ import annotations

import bisect
import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from .. import _checks
from ..training import Run, models
from .claim import Claim
from .crossed import ALPHA
from .experiment import Experiment
from .listing import claims, experiments
from .places import RESULTS
from .power import POWER
from .published import published, published_difference, published_sides
from .verdicts import FEWEST

__all__ = ["Need", "flop_of_run", "hours_of_run", "needs", "pairs_needed"]

MOST_PAIRS = 100_000
TIMED = {  # networks of table 10, and what it calls them; its WRN-28 has 34 layers in the public code
    "densenet121": "DenseNet-121", "resnet56": "Resnet-56", "vgg19-bn": "VGG19-BN", "wrn-34-2": "WRN-28-2", "wrn-34-10": "WRN-28-10",
}  # fmt: skip
PUBLISHED_DATA = {"cifar10": ((3, 32, 32), 10, 45_000), "cifar100": ((3, 32, 32), 100, 45_000)}  # shape, classes, images that are trained on


@dataclass(frozen=True)
class Need:
    """What a published claim asks for, each part ``None`` where it cannot be said.

    ``effect`` is the printed difference and ``spread`` the deviation of the difference of a pair, from the printed ones, in points.
    ``pairs`` find a difference of that size with probability 0.8. One pair, at all places that the claim averages over, takes
    ``flop`` floating-point operations, and ``hours`` of one A100 by the published seconds of an epoch.

    Example:
        >>> Need(claims("T1")[0], 0.1, 0.2, 34, 2e16, 2.0).all_hours
        68.0
    """

    claim: Claim
    effect: float
    spread: float | None
    pairs: int | None
    flop: float | None
    hours: float | None

    @property
    def all_hours(self) -> float | None:
        """Of one A100 for all pairs."""
        return None if self.pairs is None or self.hours is None else self.pairs * self.hours


def pairs_needed(effect: float, fewest: int = FEWEST[2], chance: float = POWER) -> int | None:
    """The number of pairs with which Student's test finds a difference with a given probability; ``None`` above a hundred thousand.

    Args:
        effect: the true mean of the paired differences over their standard deviation.
        fewest: pairs that the rule asks for in any case.
        chance: the probability.

    Source:
        The noncentral t distribution. The whole rule asks for a few more pairs, since it asks for three things at once.

    Example:
        >>> [pairs_needed(effect) for effect in (2.0, 0.5, 0.2, 0.0)]
        [12, 34, 199, None]
    """
    effect, fewest = abs(_checks.real("effect", effect)), _checks.whole("fewest", fewest, least=2)
    chance = _checks.fraction("chance", chance)
    stats = _checks.needs("scipy.stats", extra="train")

    def power(pairs: int) -> float:
        return float(stats.ncf.sf(stats.f.ppf(1 - ALPHA, 1, pairs - 1), 1, pairs - 1, pairs * effect**2))

    if power(MOST_PAIRS) < chance:
        return None
    return fewest + bisect.bisect_left(range(fewest, MOST_PAIRS), chance, key=power)


def flop_of_run(run: Run) -> float | None:
    """About how many floating-point operations convolutions and matrix products take in a training, a multiply-add being two.

    Args:
        run: of a task whose size is known without its files; of others the answer is ``None``.

    Source:
        Counted in the layers of a network without numbers in it; the gradient by the images, which nobody needs, is counted too.

    Example:
        >>> f"{flop_of_run(Run(data='cifar10', model='resnet56', epochs=200)):.1e}"
        '1.4e+16'
    """
    _checks.part("run", run, Run, "a bisam.training.Run")
    if run.data not in PUBLISHED_DATA:
        return None
    shape, classes, images = PUBLISHED_DATA[run.data]
    taken = images if run.train_images is None else run.train_images - run.train_images // 10
    return _flop_of_image(run.model, shape, classes) * taken * run.epochs * run.recipe.passes


@functools.cache
def _flop_of_image(model: str, shape: tuple[int, ...], classes: int) -> float:
    """Of one forward and backward pass of one image: the backward pass has two products for each one of the forward pass."""
    found = []

    def count(layer: nn.Module, inputs: tuple, outputs: torch.Tensor) -> None:
        found.append(2 * outputs.numel() * layer.weight[0].numel())  # each output is a product with as many weights

    with torch.device("meta"):
        net = models.build(model, shape, classes).eval()
        for layer in net.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.register_forward_hook(count)
        with torch.no_grad():
            net(torch.zeros(1, *shape))
    return 3.0 * sum(found)


def hours_of_run(run: Run) -> float | None:
    """About how many hours one A100 takes for a training, by the published seconds of a SAM epoch.

    Args:
        run: of a task whose size is known without its files; of others the answer is ``None``.

    Source:
        Table 10 of the early version of Xie et al. (2023): 45,000 images, batches of 128. A network that it leaves out takes as
        long for an operation as ResNet-56.

    Example:
        >>> round(hours_of_run(Run(recipe="sam", data="cifar10", model="resnet56", epochs=200)), 2)
        1.28
    """
    if (flop := flop_of_run(run)) is None:
        return None
    timed = run.model if run.model in TIMED else "resnet56"
    row = published(table="T10", model=TIMED[timed], method="SAM (cross-entropy)")[0]
    epoch = flop_of_run(Run(recipe="sam", data="cifar10", model=timed, epochs=1))
    return flop / epoch * row["mean"] / 3600


def need(claim: Claim, chosen: Experiment | None) -> Need | None:
    """What a published claim asks for; ``None`` for a claim of ours."""
    difference = published_difference(_checks.part("claim", claim, Claim, "a Claim"))
    _checks.optional("chosen", chosen, of=_checks.part, wanted=Experiment, words="an Experiment")
    if difference is None:
        return None
    spread = pairs = None
    if difference.comparison is not None:
        spread = sum(side["std"] ** 2 for side in published_sides(claim)) ** 0.5
        pairs = pairs_needed(difference.effect / spread) if spread else None
    sides = [] if chosen is None else claim.sides(chosen.grid)
    runs = [chosen.run(name, chosen.first_seed, **place) for name, places in sides for place in places]
    found = [[price(run) for run in runs] for price in (flop_of_run, hours_of_run)]
    return Need(claim, difference.effect, spread, pairs, *(None if not each or None in each else sum(each) for each in found))


def needs(folder: Path = RESULTS) -> list[Need]:
    """What every published claim of the list asks for.

    Args:
        folder: the ledger.

    Example:
        >>> {each.claim.published["table"] for each in needs()} >= {"T1", "T2", "T9"}
        True
    """
    plans = experiments(folder)
    found = [need(claim, plans.get(claim.experiment)) for claim in claims(None, folder)]
    return [each for each in found if each is not None]
