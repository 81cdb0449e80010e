"""A conformance test: what is published about SAM, asked of any optimiser that makes two passes, whoever wrote it."""

from .conformance import check
from .report import Nonconformance, Outcome, Report
from .setting import Objective
from .styles import backward_then_closure, batch, block, closure, function, two_steps

__all__ = [
    "Nonconformance", "Objective", "Outcome", "Report", "backward_then_closure", "batch", "block", "check", "closure", "function",
    "two_steps",
]  # fmt: skip
