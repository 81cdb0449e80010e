"""The largest or smallest eigenvalues of the Hessian, by Lanczos iterations."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from .. import _checks
from .batches import Loss
from .hessian import Matrix, matrix_of

__all__ = ["top_eigenvalues"]

DENSE = 64  # up to so many weights the whole matrix is as cheap as an iteration
POWERS = 5  # power iterations that find the scale of a matrix
ITERATIONS = 300  # restarts of ARPACK before it gives up
# Sign and shift, in units of the scale of the matrix. An eigenvalue near 0 never meets a relative tolerance; shifted
# away from 0 it does, and the tolerance is relative to the scale.
SHIFT = {"largest": (1, 1), "smallest": (-1, 1), "magnitude": (1, 0)}


@_checks.renamed(chunk="samples_at_a_time")
def top_eigenvalues(
    model: nn.Module, loss: Loss, x: Tensor, y: Tensor, k: int = 1, *, which: str = "largest", ggn: bool = False,
    tolerance: float = 1e-4, samples_at_a_time: int = 1000, batch_norm: str = "running", seed: int = 0, progress: bool = False,
) -> Tensor:  # fmt: skip
    r"""The k largest eigenvalues of the Hessian of the loss, by Lanczos iterations on Hessian-vector products.

    .. math:: H = \nabla^2 L(w), \qquad G = \frac1n \sum_i J_i^\top\, \nabla_f^2 \ell_i\, J_i, \qquad J_i = \frac{\partial f_w(x_i)}{\partial w}

    G is the generalised Gauss-Newton matrix: what is left of H without the second derivatives of the network. For
    cross-entropy it has no negative eigenvalue. Where a rectifier has its kink, the derivatives are those that torch gives.

    Args:
        model, loss, x, y, samples_at_a_time, batch_norm: as in :func:`loss_rise`; the loss must be twice differentiable.
        k: how many, from 1 to the number of weights.
        which: ``"largest"``, ``"smallest"`` (the most negative) or ``"magnitude"`` (the largest in absolute value).
        ggn: take G instead of H.
        tolerance: error at which the iteration stops, in units of the largest absolute eigenvalue.
        seed: of the vector that it starts from.
        progress: count the products on the terminal.

    Returns:
        The eigenvalues, the one asked for first, shape ``(k,)``, in float64 on the CPU. Up to 64 weights the whole matrix is made, and
        they are exact.

    Raises:
        TypeError, ValueError: as in :func:`loss_rise`.
        ModuleNotFoundError: SciPy is not installed, and there are more than 64 weights.
        FloatingPointError: a product is not finite.
        scipy.sparse.linalg.ArpackNoConvergence: too many iterations; a larger ``tolerance`` needs fewer.

    Source:
        Lehoucq, Sorensen and Yang (1998): ARPACK, which is ``eigsh`` of SciPy.

    Example:
        >>> import math
        >>> model, loss = nn.Linear(2, 1, bias=False), nn.MSELoss()
        >>> x, y = math.sqrt(2) * torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)  # w1^2 + 4 w2^2
        >>> top_eigenvalues(model, loss, x, y, k=2)
        tensor([8.0000, 2.0000], dtype=torch.float64)
    """
    _checks.choice("which", which, tuple(SHIFT))
    tolerance, seed = _checks.positive("tolerance", tolerance), _checks.whole("seed", seed, least=0)
    k = _checks.whole("k", k)
    how = {"ggn": ggn, "samples_at_a_time": samples_at_a_time, "batch_norm": batch_norm, "progress": progress}
    with matrix_of(model, loss, x, y, title="eigenvalues", **how) as matrix:
        if k > len(matrix):
            raise ValueError(f"k must be at most {len(matrix)}, the number of weights; got {k}")
        return extreme_eigenvalues(matrix, k, which, tolerance, seed)


def extreme_eigenvalues(matrix: Matrix, k: int, which: str, tolerance: float, seed: int) -> Tensor:
    """As :func:`top_eigenvalues`, of a symmetric matrix."""
    if len(matrix) <= max(DENSE, k + 1):
        return _first(torch.linalg.eigvalsh(matrix.dense()), which)[:k]
    linalg, numpy = (_checks.needs(name, extra="measure") for name in ("scipy.sparse.linalg", "numpy"))
    draw = numpy.random.default_rng(seed)
    start = draw.standard_normal(len(matrix))
    scale = _scale(matrix, start)
    if scale == 0:
        return torch.zeros(k, dtype=torch.float64)
    sign, shift = SHIFT[which][0], SHIFT[which][1] * scale

    def product(vectors):
        found = matrix @ torch.as_tensor(vectors).to(matrix.device, matrix.dtype)
        return sign * found.double().cpu().numpy() + shift * vectors

    operator = linalg.LinearOperator(matrix.shape, matvec=lambda v: product(v.reshape(-1)), matmat=product, dtype="float64")
    # Should the iteration need a fresh vector, newer versions of SciPy draw it from `rng`.
    own = {"rng": draw} if "rng" in inspect.signature(linalg.eigsh).parameters else {}
    end = "LM" if which == "magnitude" else "LA"
    found = linalg.eigsh(operator, k, which=end, v0=start, tol=tolerance, maxiter=ITERATIONS, return_eigenvectors=False, **own)
    return _first(sign * (torch.as_tensor(found) - shift), which)


def _scale(matrix: Matrix, start) -> float:
    """About the largest absolute eigenvalue, by a few power iterations."""
    vector, size = torch.as_tensor(start).to(matrix.device, matrix.dtype), 0.0
    for _ in range(POWERS):
        vector = matrix @ (vector / vector.norm())
        size = float(vector.norm())
        if size == 0:
            break
    return size


def _first(values: Tensor, which: str) -> Tensor:
    """Sorted, with the one asked for first."""
    key = values.abs() if which == "magnitude" else values
    return values[key.argsort(descending=which != "smallest")]
