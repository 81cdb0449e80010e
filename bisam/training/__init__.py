"""Runs: data, networks, the loop, and checkpoints that it goes on from."""

from .checkpoint import CheckpointError
from .data import DataError
from .evaluation import accuracy, which_right
from .history import History, weights_digest
from .loop import fit
from .run import Run, equal_budget, labelled
from .side_by_side import fit_side_by_side

__all__ = [
    "CheckpointError", "DataError", "History", "Run", "accuracy", "equal_budget", "fit", "fit_side_by_side", "labelled",
    "weights_digest", "which_right",
]  # fmt: skip
