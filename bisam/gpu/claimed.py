"""What the list of claims asks of a GPU: its experiments, their data, and the networks whose steps are to be timed."""

from __future__ import annotations

from pathlib import Path

from .. import _checks
from ..evidence.listing import experiments
from ..training import Run


def for_gpus(folder: Path) -> list[str]:
    """The experiments of a list of claims whose runs are to be made on a GPU, in the order of the file."""
    return [name for name, one in experiments(folder).items() if one.machine == "gpu"]


def _whole_steps(folder: Path) -> list[Run]:
    """The runs of these experiments that a graph can make, in their order."""
    known = experiments(folder)
    return [run for name in for_gpus(folder) for run in known[name].runs().values() if run.compile == "whole-step"]


def data_of(folder: Path) -> set[str]:
    """The names of the data that these experiments train on with ``compile="whole-step"``."""
    return {run.data for run in _whole_steps(folder)}


def kind(run: Run) -> str:
    """What has one price for a pass over an image: a network, on images of one size, in batches of one size.

    Example:
        >>> kind(Run(model="mlp", batch_size=50)), kind(Run(model="mlp", pool=2))
        ('mlp, 50 a batch', 'mlp / 2, 100 a batch')
    """
    _checks.part("run", run, Run, "a bisam.training.Run")
    return f"{run.model}{'' if run.pool == 1 else f' / {run.pool}'}, {run.batch_size} a batch"


def kinds(folder: Path) -> dict[str, Run]:
    """Of every :func:`kind` among the runs with ``compile="whole-step"`` the one with the longest step, which is to be timed."""
    found: dict[str, list[Run]] = {}
    for run in _whole_steps(folder):
        found.setdefault(kind(run), []).append(run)
    return {name: max(runs, key=lambda run: (run.recipe.passes, run.recipe.name == "bisam-log")) for name, runs in found.items()}
