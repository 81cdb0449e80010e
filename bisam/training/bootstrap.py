r"""Bootstrap under label noise: a network is trained, says what the labels are, and another one is trained from scratch on what it says.

.. math:: \hat y_i = \arg\max_j f_{w_1}(x_i)_j, \qquad w_2 = \text{training on } (x_i, \hat y_i)

Both trainings have the same settings, the same initial weights and the same order of the samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .evaluation import CHUNK, evaluating, passes

if TYPE_CHECKING:
    from .run import Run
    from .state import State

__all__ = ["first_path", "first_run", "relabelled"]


def first_run(run: Run) -> Run:
    """The training that gives the labels.

    Example:
        >>> from bisam.training import Run
        >>> first_run(Run(bootstrap=True)).bootstrap
        False
    """
    return run.replace(bootstrap=False)


def first_path(path: Path | None) -> Path | None:
    """Where the first training has its checkpoint, beside that of the second.

    Example:
        >>> first_path(Path("runs/run.pt")).name
        'run.pt.first'
    """
    return None if path is None else path.with_name(f"{path.name}.first")


def relabelled(state: State) -> Tensor:
    """The classes that a trained network gives the training samples, in evaluation mode and unaugmented: shape ``(n,)``, on its device.

    Example:
        >>> from bisam.training import Run, data
        >>> from bisam.training.state import State
        >>> relabelled(State(Run(model="mlp"), data.digits())).shape
        torch.Size([1000])
    """
    with evaluating(state.judged), state.autocast():
        return torch.cat([logits.argmax(1) for logits, _ in passes(state.judged, state.task, state.train, state.laid_out, CHUNK)])
