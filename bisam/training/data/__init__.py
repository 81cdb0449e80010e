r"""Data: splits that a seed fixes, images scaled by their mean and deviation, and labels that are wrong on purpose.

.. math:: \tilde x = \frac{x / 255 - \text{mean}}{\text{std}}, \qquad
    \tilde y_i = \begin{cases} \text{a class drawn uniformly} & \text{for a share } r \text{ of the samples} \\
    y_i & \text{otherwise} \end{cases}
"""

from .image_sets import check_loading
from .images import DataError
from .loading import DATA, check_name, load
from .noise import READINGS, symmetric_noise
from .optical_digits import digits
from .pixels import pooled
from .task import Data, Split

__all__ = ["DATA", "READINGS", "Data", "DataError", "Split", "check_loading", "check_name", "digits", "load", "pooled", "symmetric_noise"]
