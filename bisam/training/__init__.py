"""Runs: data, networks, the loop, and checkpoints that it goes on from."""

from .checkpoint import CheckpointError
from .data import DataError
from .digest import weights_digest
from .evaluation import accuracy, which_right
from .history import History
from .labels import labelled
from .loop import fit
from .run import Run, equal_budget
from .side_by_side import fit_side_by_side

__all__ = [
    "CheckpointError", "DataError", "History", "Run", "accuracy", "equal_budget", "fit", "fit_side_by_side", "labelled",
    "weights_digest", "which_right",
]  # fmt: skip
