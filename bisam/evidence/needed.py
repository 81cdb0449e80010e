r"""What it would take: the seeds and the arithmetic that a published claim asks for, if it is exactly true.

A difference :math:`e` between methods with printed deviations :math:`s_1, s_2` is found by Student's test of n pairs with probability

.. math:: \Pr\big[\,|T_{n-1}(\sqrt n\, |e| / s)| > t_{n-1,\,0.975}\,\big], \qquad s^2 = s_1^2 + s_2^2 .

Pairs that share a seed may agree more than that; how much more is not printed, so it counts as nothing.
"""

from __future__ import annotations

import bisect
import functools
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from .. import _checks
from ..step.structure import given
from ..training import DataError, Run, models
from ..training.data.tokens import TokenShape, Vocabulary
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
UNTRAINED = {"vit-b-16:imagenet": "vit-b-16"}  # the same arithmetic, for which no weights are needed
TIMED = {  # networks of table 10, and what it calls them; its WRN-28 has 34 layers in the public code
    "densenet121": "DenseNet-121", "resnet56": "Resnet-56", "vgg19-bn": "VGG19-BN", "wrn-34-2": "WRN-28-2", "wrn-34-10": "WRN-28-10",
}  # fmt: skip
PUBLISHED_DATA = {  # shape, classes, images that are trained on, where a tenth of those for training is held back
    "cifar10": ((3, 32, 32), 10, 45_000), "cifar100": ((3, 32, 32), 100, 45_000), "imagenet": ((3, 224, 224), 1000, 1_153_051),
    "flowers102": ((3, 224, 224), 102, 1_836), "pets": ((3, 224, 224), 37, 3_312),
    "parallel:iwslt14": ((("source", (64,)), ("target_in", (64,))), 8000, 160_000),  # about; it has a split for validation of its own
}  # fmt: skip
GLUE_ROWS = {"cola": 7_696, "mrpc": 3_301, "rte": 2_241, "sts-b": 5_175, "sst-2": 60_615, "qnli": 94_269, "wnli": 572}  # nine tenths of train.tsv
LAYERS, TOKENS = 85e6, 128  # of an encoder of the usual base size, parameters without its table of words; and the most tokens of a row


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


def flop_of_run(run: Run, root: str | Path | None = None) -> float:
    """About how many floating-point operations convolutions and matrix products take in a training, a multiply-add being two.

    Args:
        run: of any task; the files of one in ``PUBLISHED_DATA`` need not be there.
        root: folder of the data sets, for the others.

    Raises:
        bisam.training.data.DataError: data whose size is known from their files alone are not there.

    A task of GLUE that is not there is taken with an encoder of the usual base size, 85 million parameters in its layers, and 128 tokens a row.

    Source:
        Counted by PyTorch in one forward pass; a backward pass has two products for each one of it. The gradient by the images, which
        nobody needs, is counted too.

    Example:
        >>> f"{flop_of_run(Run(data='cifar10', model='resnet56', epochs=200)):.1e}"
        '1.4e+16'
    """
    _checks.part("run", run, Run, "a bisam.training.Run")
    try:
        shape, vocabulary, classes, samples = _size(run, root)
        each = _flop_of_sample(UNTRAINED.get(run.model, run.model), shape, vocabulary, classes, root)
    except DataError:
        if not run.data.startswith("glue:"):
            raise
        samples, each = _taken(run, GLUE_ROWS[run.data.split(":")[1]]), 6 * LAYERS * TOKENS
    return each * samples * run.epochs * run.recipe.passes * run.trainings


def _size(run: Run, root: str | Path | None) -> tuple[tuple, Vocabulary | None, int, int]:
    """The shape of a sample, of several tensors in it their names and shapes, its vocabulary, the classes and the samples that are trained on."""
    if run.data in PUBLISHED_DATA:
        shape, classes, samples = PUBLISHED_DATA[run.data]
        return shape, None, classes, _taken(run, samples)
    task = run.task(root)
    shape = tuple(task.shape.items()) if isinstance(task.shape, dict) else task.shape
    return shape, getattr(task, "vocabulary", None), task.classes, len(task.train)


def _taken(run: Run, samples: int) -> int:
    """How many are trained on: of those that are asked for nine tenths."""
    return samples if run.train_images is None else run.train_images - run.train_images // 10


@functools.cache
def _flop_of_sample(model: str, shape: tuple, vocabulary: Vocabulary | None, classes: int, root: str | Path | None) -> float:
    """Of one forward and backward pass of one sample; a text is as long as the longest."""
    named = TokenShape(dict(shape), vocabulary) if shape and isinstance(shape[0], tuple) else None
    place = torch.device("meta") if named is None else nullcontext()
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a layer of one operation, of which nobody knows what is in it
    try:
        with place, torch.no_grad(), torch.random.fork_rng([]), FlopCounterMode(display=False) as counter:
            net = models.build(model, named or shape, classes, root).eval()
            given(net, torch.zeros(1, *shape) if named is None else {name: torch.ones(1, *one, dtype=torch.int64) for name, one in named.items()})
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return 3.0 * counter.get_total_flops()


def hours_of_run(run: Run) -> float | None:
    """About how many hours one A100 takes for a training, by the published seconds of a SAM epoch.

    Args:
        run: on CIFAR, as the table; of others the answer is ``None``, and :func:`bisam.evidence.cards.cost` has one.

    Source:
        Table 10 of the early version of Xie et al. (2023): 45,000 images, batches of 128. A network that it leaves out takes as
        long for an operation as ResNet-56.

    Example:
        >>> round(hours_of_run(Run(recipe="sam", data="cifar10", model="resnet56", epochs=200)), 2)
        1.28
    """
    if not run.data.startswith("cifar"):
        return None
    return flop_of_run(run) / published_rate(run.model if run.model in TIMED else "resnet56") / 3600


def published_rate(model: str) -> float:
    """The operations a second that the seconds of a SAM epoch on an A100 say, for a network of table 10.

    Example:
        >>> f"{published_rate('resnet56'):.1e}"
        '2.9e+12'
    """
    row = published(table="T10", model=TIMED[_checks.choice("model", model, tuple(TIMED))], method="SAM (cross-entropy)")[0]
    return flop_of_run(Run(recipe="sam", data="cifar10", model=model, epochs=1)) / row["mean"]


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
    found = [[price(run) for run in runs] for price in (lambda run: flop_of_run(run) if run.data in PUBLISHED_DATA else None, hours_of_run)]
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
