"""Whether a number of a tensor may be read: on a GPU the program would have to wait for all that was asked before."""

from __future__ import annotations

from torch import Tensor


def is_free(tensor: Tensor) -> bool:
    """Whether a look at the numbers of a tensor makes the program wait for no device. Called by this name: a test looks nowhere."""
    return tensor.device.type == "cpu"
