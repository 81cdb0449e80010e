"""What a training is to do: every choice, checked, as plain values; and the labels that it sees, some of them wrong on purpose."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import _checks
from .._kinds import LATER
from ..axes.recipe import Recipe
from ..methods.bsam import needs_variational
from ..methods.table import RECIPES, SAM, recipe
from ..training import augment, captured, choices, data, models
from .choices import BASES
from .data import Data, Split, symmetric_noise
from .data.streamed import RESIZED_CROP
from .rng import seed_for

__all__ = ["COMPILE", "PRECISIONS", "Run", "equal_budget", "labelled"]

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
COMPILE = ("no", "default", "reduce-overhead", "whole-step")  # the last two run CUDA graphs


@dataclass(frozen=True)
class Run:
    r"""Everything that decides what a training does, and nothing else.

    The learning rate follows :math:`\eta_e = \tfrac12 \eta\,(1 + \cos(\pi e / E))` over the epochs :math:`e = 0, \dots, E - 1`, unless another
    schedule is chosen, see :mod:`bisam.training.schedules`.

    Args:
        recipe: the method, a :class:`~bisam.axes.recipe.Recipe` or its name.
        data: name of the task or path of a function of one's own, see :func:`bisam.training.data.load`.
        model: name of the network or path of a function of one's own, see :func:`bisam.training.models.check_name`.
        epochs: passes over the training images.
        batch_size: samples a step; a smaller last batch is left out of the epoch.
        lr: highest learning rate; ``None`` stands for that of ``BASES``, as it does for the next two.
        momentum: of the base optimiser, in [0, 1): of SGD and Muon; AdamW and the base of the bSAM recipes take it as their first beta.
        weight_decay: of the base optimiser; it is not part of the ascent gradient. For bSAM it is the prior.
        label_noise: share of the training labels that are redrawn, in [0, 1); the other splits stay clean.
        noise_reading: ``"other"`` or ``"any"``, see :func:`~bisam.training.data.symmetric_noise`.
        seed: of the initial weights, the order of the images, the dropout masks and the noisy labels.
        device: ``"cpu"`` or a CUDA device.
        augment: how training images are changed, one of ``bisam.training.augment.AUGMENTATIONS``; where they are streamed ``"none"`` or
            ``"resized-crop"``, see :mod:`bisam.training.data.streamed`.
        split_seed: which training images are held back for validation; the digits have one split.
        train_images: take so many training images, a tenth of them for validation; all if ``None``.
        test_images: report on so many test images; all if ``None``.
        pool: average the pixels of the images over squares of this side; 1 leaves them as they are.
        validation_noise: the validation labels are redrawn at the same rate as the training labels.
        precision: ``"bfloat16"`` runs the networks under autocast; ``"float32"`` is that on a GPU as well, without TF32.
        channels_last: the layout of images and kernels that convolutions like best; it moves the last bits.
        compile: ``"default"`` or ``"reduce-overhead"`` (with CUDA graphs) runs the network through ``torch.compile``; ``"whole-step"`` makes one
            CUDA graph of both passes and all around them, see :mod:`bisam.training.captured`. On a CPU it is ``"no"`` to the bit.
        per_worker: with several processes, each climbs with the gradient of its own share of the batch.
        evaluate_every: look at the validation and test splits after so many epochs, and after the last one.
        base: the optimiser that moves the weights: ``"sgd"``, ``"adamw"``, or ``"muon"``, for matrices, with AdamW for the rest.
        beta2: second beta of AdamW, in [0, 1).
        schedule: of the learning rate, ``"cosine"``, ``"linear"``, ``"step"`` or ``"constant"``.
        rate_by: ``"epoch"``, as the published code has it, or ``"step"``.
        warmup: so many steps at the start over which the rate rises; with ``rate_by="step"``.
        milestones: of the schedule ``"step"``, shares of the training in (0, 1), in order, at which the rate is multiplied by ``decay``.
        decay: see there.
        clip: longest gradient that the base is handed, in the 2-norm over all parameters; the ascent is not clipped.
        accumulate: parts that a batch goes through the network in, for the memory; they climb together.
        ema: decay, in (0, 1), of an exponential moving average of the weights, which is then what is evaluated and kept.
        mixup: alpha of the Beta distribution by which two training samples are mixed, see :mod:`bisam.training.mixup`; 0 mixes none.
        bootstrap: train twice, the second time on the classes that the first network gives the training samples, see
            :mod:`bisam.training.bootstrap`.
        metrics: measured beside those of the data, names of ``bisam.training.scores.METRICS``.
        select: the metric whose validation value chooses the epoch.
        loading: ``"device"`` keeps all images there as tensors; ``"stream"`` decodes them from their files as they are needed, see
            :mod:`bisam.training.stream`.
        image_size: side in pixels that streamed images are cut to; ``None`` for the data's own, see :func:`bisam.training.data.load`.
        patience: end early when so many evaluations in turn have not raised that value; ``None`` never does.

    Raises:
        TypeError, ValueError: a field of the wrong type or out of range; one that would take no part in this run.

    Source:
        The protocol of Xie et al. (2024), section 4.1, at the size of the digits.

    Example:
        >>> Run(recipe="bisam-log", epochs=3).recipe.passes
        2
    """

    recipe: Recipe | str = SAM
    data: str = "digits"
    model: str = "small_conv"
    epochs: int = 30
    batch_size: int = 100
    lr: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    label_noise: float = 0.0
    noise_reading: str = "other"
    seed: int = 0
    device: str = "cpu"
    augment: str = "none"
    split_seed: int = 0
    train_images: int | None = None
    test_images: int | None = None
    validation_noise: bool = False
    precision: str = "float32"
    channels_last: bool = False
    compile: str = "no"
    per_worker: bool = False
    pool: int = 1
    evaluate_every: int = 1
    # Records from before a field came do not name it.
    base: str = dataclasses.field(default="sgd", metadata=LATER)
    beta2: float = dataclasses.field(default=0.999, metadata=LATER)
    schedule: str = dataclasses.field(default="cosine", metadata=LATER)
    rate_by: str = dataclasses.field(default="epoch", metadata=LATER)
    warmup: int = dataclasses.field(default=0, metadata=LATER)
    milestones: tuple[float, ...] = dataclasses.field(default=(), metadata=LATER)
    decay: float = dataclasses.field(default=0.1, metadata=LATER)
    clip: float | None = dataclasses.field(default=None, metadata=LATER)
    accumulate: int = dataclasses.field(default=1, metadata=LATER)
    ema: float | None = dataclasses.field(default=None, metadata=LATER)
    mixup: float = dataclasses.field(default=0.0, metadata=LATER)
    bootstrap: bool = dataclasses.field(default=False, metadata=LATER)
    metrics: tuple[str, ...] = dataclasses.field(default=(), metadata=LATER)
    select: str = dataclasses.field(default="accuracy", metadata=LATER)
    patience: int | None = dataclasses.field(default=None, metadata=LATER)
    loading: str = dataclasses.field(default="device", metadata=LATER)
    image_size: int | None = dataclasses.field(default=None, metadata=LATER)

    def __post_init__(self):
        if isinstance(self.recipe, str):
            object.__setattr__(self, "recipe", recipe(self.recipe))
        if not isinstance(self.recipe, Recipe):
            raise TypeError(f"recipe must be a bisam.Recipe or one of {', '.join(RECIPES)}; got {_checks.shown(self.recipe)}")
        object.__setattr__(self, "data", data.check_name(self.data))
        object.__setattr__(self, "model", models.check_name(self.model))
        _checks.keep(self, _checks.whole, "epochs", "batch_size", "pool", "evaluate_every")
        for name, value in BASES[_checks.choice("base", self.base, tuple(BASES))].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        _checks.keep(self, _checks.positive, "lr")
        _checks.keep(self, _checks.nonnegative, "weight_decay")
        _checks.keep(self, _checks.fraction, "momentum", "label_noise")
        _checks.choice("noise_reading", self.noise_reading, data.READINGS)
        _checks.keep(self, _checks.whole, "seed", "split_seed", least=0)
        _checks.keep(self, _checks.optional, "train_images", "test_images", of=_checks.whole)
        for name in ("validation_noise", "channels_last", "per_worker"):
            _checks.flag(name, getattr(self, name))
        _checks.choice("augment", self.augment, (*augment.AUGMENTATIONS, RESIZED_CROP))
        _checks.choice("precision", self.precision, tuple(PRECISIONS))
        _checks.choice("compile", self.compile, COMPILE)
        choices.check(self)
        if self.compile == "whole-step":
            captured.check(self.recipe)
        _checks.device("device", self.device)

    @property
    def own_base(self) -> bool:
        """Whether the recipe brings its own base optimiser, as those of bSAM do."""
        return needs_variational(self.recipe)

    @property
    def trainings(self) -> int:
        """How many trainings it takes."""
        return 2 if self.bootstrap else 1

    def replace(self, **changes) -> Run:
        """A copy with some fields changed. Another base brings the learning rate, momentum and weight decay of ``BASES`` with it, if they are not given."""
        if changes.get("base", self.base) != self.base:
            changes = {**dict.fromkeys(BASES["sgd"]), **changes}
        return dataclasses.replace(self, **changes)

    def identity(self) -> dict:
        """What a checkpoint must agree with: all fields but the number of the GPU, so that another one can go on."""
        return {**self.to_dict(), "device": self.device.partition(":")[0]}

    def task(self, root: str | Path | None = None) -> Data:
        """The data with their splits, read from the folder of the data sets, see :func:`bisam.training.data.load`."""
        chosen = {"train_images": self.train_images, "test_images": self.test_images, "split_seed": self.split_seed, "pool": self.pool}
        return data.load(self.data, root, **chosen, loading=self.loading, image_size=self.image_size)

    def evaluates(self, epoch: int) -> bool:
        """Whether validation and test split are looked at after this epoch, counted from 1."""
        return epoch % self.evaluate_every == 0 or epoch == self.epochs

    def to_dict(self) -> dict:
        """All fields as plain values, ready for JSON."""
        said = [one for one in dataclasses.fields(self) if not (one.metadata.get("later") and getattr(self, one.name) == one.default)]
        plain = {one.name: list(value) if isinstance(value := getattr(self, one.name), tuple) else value for one in said}
        return {**plain, "recipe": self.recipe.to_dict()}

    @staticmethod
    def from_dict(fields: dict) -> Run:
        """The run that :meth:`to_dict` wrote."""
        _checks.part("fields", fields, dict, "a dictionary as Run.to_dict() makes it")
        if "recipe" not in fields:
            raise ValueError(f"fields must hold a recipe, got {_checks.shown(list(fields))}")
        known = [one.name for one in dataclasses.fields(Run)]
        for name in fields:
            _checks.choice("a name among the fields", name, known)
        return Run(**{**fields, "recipe": Recipe.from_dict(fields["recipe"])})


def equal_budget(epochs: int, method: Recipe) -> int:
    r"""Epochs that cost as many passes as ``epochs`` of a two-pass method: twice as many for the base optimiser.

    .. math:: E' = \lceil 2 E / \text{passes} \rceil

    Args:
        epochs: of a method with two passes a step.
        method: the other one.

    Example:
        >>> equal_budget(30, SAM), equal_budget(30, recipe("sgd"))
        (30, 60)
    """
    return math.ceil(epochs * 2 / method.passes)


def labelled(run: Run, task: Data, part: str = "train") -> Split:
    """A split with the labels that a run sees: redrawn in part where the run says so.

    Args:
        run: its noise rate, its reading, its seed, and whether validation labels are noisy too.
        task: what :func:`bisam.training.data.load` returned.
        part: ``"train"`` or ``"validation"``.

    Example:
        >>> task = data.digits()
        >>> noisy = labelled(Run(label_noise=0.4, seed=3), task)
        >>> int((noisy.targets != task.train.targets).sum())
        400
    """
    _checks.part("run", run, Run, "a bisam.training.Run")
    _checks.part("task", task, Data, "a bisam.training.data.Data")
    split = getattr(task, _checks.choice("part", part, ("train", "validation")))
    if not run.label_noise or (part == "validation" and not run.validation_noise):
        return split
    seed = seed_for(f"{part} labels", run.seed)
    noisy = symmetric_noise(split.targets, run.label_noise, task.classes, seed, reading=run.noise_reading)
    return Split(split.inputs, noisy)
