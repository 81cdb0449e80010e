r"""How sharp is a minimum? Measures at a point w, on given data: the rise of the loss nearby, its curvature, and pictures of both.

And where a transformer looks: :func:`~bisam.measure.attention`.

.. math::
    \begin{gathered}
    L(w + \epsilon) - L(w), \quad \|\epsilon\| \le \rho; \qquad
    \lambda_{\max}(H), \quad \operatorname{tr} H = \sum_i \lambda_i, \\
    p(\lambda) = \frac1d \sum_{i=1}^d \delta(\lambda - \lambda_i); \qquad H = \nabla^2 L(w)
    \end{gathered}

What is measured is the network as a function of its weights. Every function here leaves weights, buffers, gradients, modes and
the random state as it found them, also when it fails, and these conventions hold for all of them:

- **Modes.** Dropout is off. Batch norm uses its running statistics with ``batch_norm="running"``, so that every sample is
  judged by itself and ``samples_at_a_time`` changes nothing but rounding. With ``batch_norm="batch"`` it uses the statistics of the
  samples that go through together, as in training: what goes through together is then part of what is measured.
- **Loss.** ``loss(outputs, targets)`` returns the mean over the samples it is given; ours is then the mean over all of them.
- **Weights.** All parameters that require a gradient.
- **Precision** is that of the model. A rise is a difference of two close numbers: where it is small, measure a
  copy in float64, ``copy.deepcopy(model).double()``.

Eigenvalues of more than 64 weights, and densities, need SciPy, which the extra ``measure`` brings: ``pip install "bisam[measure]"``.
"""

from .attention_maps import agreement, attention, concentration, looks
from .coins import kl_inverse
from .directions import gaussian, normalised, weights_of
from .eigenvalues import top_eigenvalues
from .flips import Flips, misclassified
from .grid import landscape
from .spectrum import spectral_density
from .subspace import Subspace, line_between, plane_through
from .traces import trace
from .worst_point import climb, loss_rise, m_sharpness

__all__ = [
    "Flips", "Subspace", "agreement", "attention", "climb", "concentration", "gaussian", "kl_inverse", "landscape", "line_between", "looks", "loss_rise", "m_sharpness", "misclassified",
    "normalised", "plane_through", "spectral_density", "top_eigenvalues", "trace", "weights_of",
]  # fmt: skip
