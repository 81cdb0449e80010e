r"""An exponential moving average of the weights, which is evaluated in their place.

.. math:: \bar w_{t+1} = \beta\,\bar w_t + (1 - \beta)\,w_{t+1}, \qquad \bar w_1 = w_1
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

if TYPE_CHECKING:
    from .run import Run

__all__ = ["averaged"]


def averaged(run: Run, model: nn.Module) -> AveragedModel | None:
    """The average of a network, statistics of batch norm included, to be updated after every step; ``None`` where the run asks for none.

    Example:
        >>> from bisam.training import Run
        >>> averaged(Run(), nn.Linear(2, 2)) is None, type(averaged(Run(ema=0.9), nn.Linear(2, 2)).module).__name__
        (True, 'Linear')
    """
    if run.ema is None:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(run.ema), use_buffers=True)
