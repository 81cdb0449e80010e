"""The labels that a run sees, some of them wrong on purpose."""

from __future__ import annotations

from .. import _checks
from .data import Data, Split, symmetric_noise
from .rng import seed_for
from .run import Run

__all__ = ["labelled"]


def labelled(run: Run, task: Data, part: str = "train") -> Split:
    """A split with the labels that a run sees: redrawn in part where the run says so.

    Args:
        run: its noise rate, its reading, its seed, and whether validation labels are noisy too.
        task: what :func:`bisam.training.data.load` returned.
        part: ``"train"`` or ``"validation"``.

    Example:
        >>> from bisam.training import data
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
