"""The choices of a run about base, schedule and loop: what each may be, and which take no part beside others."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from .. import _checks
from ..training import scores
from .data import check_loading
from .data.streamed import RESIZED_CROP

if TYPE_CHECKING:
    from .run import Run

__all__ = ["BASES", "SCHEDULES", "check"]

# What a base is given where a run says nothing else: SGD as Xie et al. (2024) have it, AdamW with the values of Loshchilov and Hutter (2019) that
# torch has too, and Muon as Liu et al. (2025) scale it, with the momentum of Jordan (2024).
BASES = {
    "sgd": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "adamw": {"lr": 1e-3, "momentum": 0.9, "weight_decay": 0.01},
    "muon": {"lr": 1e-3, "momentum": 0.95, "weight_decay": 0.1},
}
SCHEDULES = ("cosine", "linear", "step", "constant")


def check(run: Run) -> None:
    """Puts plain values into the fields of a run, and refuses by name what is out of range or would be without effect.

    Example:
        >>> from bisam.training import Run
        >>> try:
        ...     Run(warmup=100)
        ... except ValueError as error:
        ...     print(str(error)[:46])
        warmup must be left out with rate_by "epoch", 
    """
    _checks.keep(run, _checks.fraction, "beta2", "decay")
    _checks.choice("schedule", run.schedule, SCHEDULES)
    _checks.choice("rate_by", run.rate_by, ("epoch", "step"))
    _checks.keep(run, _checks.optional, "image_size", of=_checks.whole)
    check_loading(run.data, run.loading, run.image_size, run.pool)
    _checks.keep(run, _checks.whole, "warmup", least=0)
    _checks.keep(run, _checks.nonnegative, "mixup")
    _checks.flag("bootstrap", run.bootstrap)
    _checks.keep(run, _checks.whole, "accumulate")
    _checks.keep(run, _checks.optional, "clip", of=_checks.positive)
    _checks.keep(run, _checks.optional, "patience", of=_checks.whole)
    _checks.keep(run, _checks.optional, "ema", of=_checks.inside)
    milestones = tuple(_checks.inside("milestones", one) for one in _checks.sequence("milestones", run.milestones))
    object.__setattr__(run, "milestones", milestones)
    metrics = scores.checked("metrics", ("accuracy", *_checks.sequence("metrics", run.metrics)))
    object.__setattr__(run, "metrics", metrics[1:])
    _checks.choice("select", run.select, tuple(scores.METRICS))
    if list(milestones) != sorted(set(milestones)):
        raise ValueError(f"milestones must rise, got {milestones}")
    for name, holds, where in _idle(run):
        if holds:
            raise ValueError(f"{name} must be left out {where}, where it takes no part; got {_checks.shown(getattr(run, name))}")
    streams = run.loading == "stream"
    if streams and run.augment not in ("none", RESIZED_CROP):
        raise ValueError(f'augment must be "none" or {RESIZED_CROP!r} with loading "stream"; got {run.augment!r}')
    if streams and run.compile == "whole-step":
        raise ValueError('compile must not be "whole-step" with loading "stream": the images of a graph are on the device')
    if run.schedule == "step" and not milestones:
        raise ValueError('milestones must hold at least one share of the training with schedule "step", got none')
    if run.batch_size % run.accumulate:
        raise ValueError(f"accumulate must divide batch_size, {run.batch_size}; got {run.accumulate}")


def _idle(run: Run) -> list[tuple[str, bool, str]]:
    """Fields that would be without effect beside others, whether each is, and where."""
    found = [
        ("augment", run.loading == "device" and run.augment == RESIZED_CROP, 'with loading "device"'),
        ("base", run.own_base and run.base != "sgd", f"with recipe {run.recipe.name!r}, which brings its own"),
        ("beta2", run.base == "sgd" and run.beta2 != 0.999, 'with base "sgd"'),
        ("warmup", run.rate_by == "epoch" and run.warmup > 0, 'with rate_by "epoch"'),
        ("milestones", run.schedule != "step" and bool(run.milestones), f"with schedule {run.schedule!r}"),
        ("decay", not run.milestones and run.decay != 0.1, "without milestones"),
        ("rate_by", run.schedule == "constant" and run.rate_by == "step" and not run.warmup, 'with schedule "constant" and no warmup'),
    ]
    found += [(name, run.loading == "stream" and bool(getattr(run, name)), 'with loading "stream"') for name in ("mixup", "bootstrap")]
    if run.compile == "whole-step":
        defaults = {one.name: one.default for one in dataclasses.fields(run)}
        alone = ("base", "rate_by", "clip", "accumulate", "ema", "mixup", "bootstrap")
        found += [(name, getattr(run, name) != defaults[name], 'with compile "whole-step"') for name in alone]
    return found
