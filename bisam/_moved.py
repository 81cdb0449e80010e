"""What version 0.1.0 called otherwise: each old name fails with one sentence that gives the import of today."""

from __future__ import annotations

import sys
from types import ModuleType

_METHODS = (
    "ASAM_ALL", "A_BISAM_LOG", "A_BISAM_TANH", "BSAM", "ESAM_CODE", "E_BISAM_LOG", "E_BISAM_TANH", "FSAM", "KSAM", "LATE_SAM",
    "LETS_SAM", "LE_SAM", "MSAM", "M_BISAM_LOG", "M_BISAM_TANH", "Posterior", "Precision", "RSAM", "SAM_EVERY_K", "SAM_ON", "VASSO",
)  # fmt: skip
_MEASURES = (
    "Flips", "Subspace", "climb", "landscape", "line_between", "loss_rise", "m_sharpness", "misclassified", "plane_through",
    "spectral_density", "top_eigenvalues", "trace",
)  # fmt: skip

# Name at the top of the package to the import of today.
NAMES = {
    **{name: f"from bisam.axes import {name}" for name in ("Unnormalised",)},
    **{name: f"from bisam.losses import {name}" for name in ("gap", "margins", "zero_one")},
    **{name: f"from bisam.measure import {name}" for name in _MEASURES},
    **{name: f"from bisam.methods import {name}" for name in _METHODS},
    **{name: f"from bisam.step import {name}" for name in ("Diagnostics", "held_buffers")},
    "Noise": "from bisam.step import RNGState",
    "Look": "from bisam import LookSAM",
    "Handed": "from bisam.methods import FirstGradientToBase",
    **{name: f"from bisam.training import {name}" for name in ("History", "Run", "fit")},
}

# Module to the module of today. `bisam.losses`, `bisam.notebook` and `bisam.step` are rooms now and still there.
MODULES = {
    "ascent": "bisam.step.two_pass", "augment": "bisam.training.augment", "batch": "bisam.step.batch", "bounds": "bisam.losses.bounds",
    "captured": "bisam.training.captured", "checkpoint": "bisam.training.checkpoint", "combination": "bisam.axes.combination",
    "crossed": "bisam.evidence.crossed", "data": "bisam.training.data", "decisions": "bisam.evidence.decisions",
    "descriptions": "bisam.evidence.descriptions", "diagnostics": "bisam.step.record", "direction": "bisam.axes.direction",
    "displacement": "bisam.step.perturbation", "environment": "bisam.training.environment", "experiments": "bisam.evidence.listing",
    "files": "bisam._files", "geometry": "bisam.axes.geometry", "hypergradient": "bisam.methods.lets",
    "landscapes": "bisam.measure", "ledger": "bisam.evidence.ledger", "masks": "bisam.axes.masks", "memory": "bisam.axes.memory",
    "metrics": "bisam.training.metrics", "models": "bisam.training.models", "needed": "bisam.evidence.needed",
    "optimizer": "bisam.step.optimizer", "own_code": "bisam.training.own_code", "own_ledger": "bisam.evidence.own_ledger",
    "parameters": "bisam.notebook.parameters", "plans": "bisam.evidence.plans", "plots": "bisam.notebook.plots",
    "pooling": "bisam.evidence.pooling", "power": "bisam.evidence.power", "prices": "bisam.evidence.prices",
    "processes": "bisam.training.processes", "progress": "bisam._progress", "published": "bisam.evidence.published",
    "queue": "bisam.evidence.queue", "radius": "bisam.axes.radius", "recipe": "bisam.methods", "report": "bisam.evidence.report",
    "reproduce": "bisam.evidence.reproduce", "selection": "bisam.axes.selection", "sharpness": "bisam.measure",
    "side_by_side": "bisam.training.side_by_side", "statistics": "bisam.evidence.statistics", "surrogate": "bisam.losses.surrogate",
    "tables": "bisam.notebook.tables", "train": "bisam.training", "variational": "bisam.methods.bsam",
    "verdicts": "bisam.evidence.verdicts", "verify": "bisam.evidence.verify", "workers": "bisam.training.workers",
}  # fmt: skip

# Rooms that `import bisam` leaves alone, since they need more than torch.
LATER = ("measure", "training", "evidence", "notebook", "gpu", "commands")


def sentence(name: str) -> str | None:
    """Where ``bisam.<name>`` of version 0.1.0 is to be found, or ``None`` if it had no such name."""
    if name in NAMES:
        return f"bisam.{name} has moved: {NAMES[name]}"
    if name in MODULES:
        return f"bisam.{name} has moved: import {MODULES[name]}"
    return None


def attribute(name: str):
    """What ``bisam.<name>`` does where there is no such name."""
    if name in LATER:
        raise AttributeError(f"bisam.{name} is not loaded by `import bisam`: import bisam.{name}")
    raise AttributeError(sentence(name) or f"module 'bisam' has no attribute {name!r}")


class Finder:
    """Is asked last for a module, and says where one of version 0.1.0 has gone."""

    @staticmethod
    def find_spec(fullname: str, path=None, target=None) -> None:
        package, _, name = fullname.partition(".")
        if package == "bisam" and (said := sentence(name)):
            # Without the name of the module: `from bisam import fit` would swallow an error that has it.
            raise ModuleNotFoundError(said)


class Room(ModuleType):
    """The room ``bisam.step``, whose name was that of a function."""

    def __call__(self, *_, **__):
        raise TypeError("bisam.step was the Heaviside function and is now the room of the step: from bisam.losses import heaviside")


sys.meta_path.append(Finder)
