"""The table of methods with its sources, and the parts that one method alone needs."""

from .bsam import FirstGradientToBase, Posterior, Precision
from .lets import Learned
from .table import *  # noqa: F403  the rows of the table, listed there
from .table import (
    E_BISAM_LOG_PRINTED,
    E_BISAM_TANH_PRINTED,
    LETS_ASAM,
    LETS_BISAM_LOG,
    LETS_BISAM_TANH,
    SAM_INF,
)
from .table import __all__ as _rows
from .variational import Variational

__all__ = [
    *_rows,
    "E_BISAM_LOG_PRINTED", "E_BISAM_TANH_PRINTED", "FirstGradientToBase", "LETS_ASAM", "LETS_BISAM_LOG", "LETS_BISAM_TANH", "Learned", "Posterior",
    "Precision", "SAM_INF", "Variational",
]  # fmt: skip
