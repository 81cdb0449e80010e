"""Whether a run and its data go together: a choice about images takes no part where there are none."""

from __future__ import annotations

import dataclasses

from .data import Data
from .run import Run

__all__ = ["check"]


def check(run: Run, task: Data) -> Data:
    """The data with all that the run measures; a ``ValueError`` names a choice that these data do not go with.

    Example:
        >>> from bisam.training import data
        >>> check(Run(metrics=("top5_accuracy",)), data.digits()).metrics
        ('accuracy', 'top5_accuracy')
    """
    metrics = (*task.metrics, *(one for one in run.metrics if one not in task.metrics))
    if run.select not in metrics:
        raise ValueError(f"select must be one of {', '.join(metrics)} for data {task.name!r}, or be among metrics; got {run.select!r}")
    if run.label_noise and task.train.targets.ndim != 1:
        raise ValueError(f"label_noise must be 0 for data {task.name!r}, whose samples have more than a class number; got {run.label_noise:g}")
    if run.mixup and task.train.targets.ndim != 1:
        raise ValueError(f"mixup must be 0 for data {task.name!r}, whose samples have more than a class number; got {run.mixup:g}")
    if run.bootstrap and not task.is_plain:
        raise ValueError(f"bootstrap must be False for data {task.name!r}, whose samples are no images with a class number")
    if isinstance(task.train.inputs, dict):
        for name, neutral in (("augment", "none"), ("mixup", 0.0), ("channels_last", False), ("compile", "no")):
            if (value := getattr(run, name)) != neutral:
                raise ValueError(f"{name} must be {neutral!r} for data {task.name!r}, which are no images; got {value!r}")
    if run.compile == "whole-step" and not task.is_plain:
        raise ValueError(f"compile must not be 'whole-step' for data {task.name!r}, whose samples have more than one class")
    return task if metrics == task.metrics else dataclasses.replace(task, metrics=metrics)
