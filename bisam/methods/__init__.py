"""The table of methods with its sources, and the parts that one method alone needs."""

from .bsam import FirstGradientToBase, Posterior, Precision
from .lets import Learned
from .table import *  # noqa: F403  the rows of the table, listed there
from .table import __all__ as _rows
from .variational import Variational

__all__ = [*_rows, "FirstGradientToBase", "Learned", "Posterior", "Precision", "Variational"]
