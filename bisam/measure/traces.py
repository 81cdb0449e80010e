"""The trace of the Hessian, estimated from its products with random vectors of signs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .. import _checks
from .batches import Loss, check_finite
from .hessian import Matrix, matrix_of

__all__ = ["trace"]


@_checks.renamed(chunk="samples_at_a_time")
def trace(
    model: nn.Module, loss: Loss, x: Tensor, y: Tensor, products: int = 60, *, estimator: str = "hutch++", ggn: bool = False,
    samples_at_a_time: int = 1000, batch_norm: str = "running", seed: int = 0, progress: bool = False,
) -> float:  # fmt: skip
    r"""The trace of the Hessian of the loss, the sum of all curvatures, estimated with random vectors of signs.

    .. math:: \operatorname{tr} H = \mathbb E\,[v^\top H v], \qquad v_i = \pm 1

    Hutch++ first treats exactly the directions in which H is large, which a third of its products find, and draws the rest; it
    is unbiased and varies less than the plain mean. Another ``seed`` gives another estimate: a few of them show the spread.

    Args:
        model, loss, x, y, ggn, samples_at_a_time, batch_norm, progress: as in :func:`top_eigenvalues`.
        products: Hessian-vector products to spend, at least 3. From as many on as there are weights, the trace is exact.
        estimator: ``"hutch++"``, ``"xtrace"`` or ``"hutchinson"``.
        seed: of the random vectors.

    Returns:
        The estimate, in units of the loss over squared weights.

    Raises:
        TypeError, ValueError, FloatingPointError: as in :func:`top_eigenvalues`.

    Source:
        Meyer et al. (2021) for Hutch++, Epperly et al. (2024) for XTrace, Hutchinson (1989).

    Example:
        >>> import math
        >>> model, loss = nn.Linear(2, 1, bias=False), nn.MSELoss()
        >>> x, y = math.sqrt(2) * torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)  # w1^2 + 4 w2^2
        >>> round(trace(model, loss, x, y), 4)
        10.0
    """
    _checks.choice("estimator", estimator, tuple(ESTIMATORS))
    products, seed = _checks.whole("products", products, least=3), _checks.whole("seed", seed, least=0)
    estimate, multiple = ESTIMATORS[estimator]
    how = {"ggn": ggn, "samples_at_a_time": samples_at_a_time, "batch_norm": batch_norm, "progress": progress}
    with matrix_of(model, loss, x, y, title="trace", **how) as matrix:
        if products >= len(matrix):
            return float(matrix.dense().diagonal().sum())
        with drawn(matrix, seed):
            found = estimate(matrix, products // multiple)
    return check_finite("the estimate of the trace", float(found))


def _hutchinson(matrix: Matrix, count: int) -> Tensor:
    """The mean of v' A v over so many vectors v."""
    v = _signs(matrix, count)
    return (v * (matrix @ v)).sum() / count


def _hutch_plus_plus(matrix: Matrix, count: int) -> Tensor:
    """Exactly on the span Q of A S, for so many random vectors S, and Hutchinson's estimate on the rest."""
    q = torch.linalg.qr(matrix @ _signs(matrix, count)).Q
    exact = (q * (matrix @ q)).sum()
    v = _signs(matrix, count)
    product = matrix @ (v - q @ (q.T @ v))
    return exact + (v * (product - q @ (q.T @ product))).sum() / count


def _xtrace(matrix: Matrix, count: int) -> Tensor:
    """Hutch++ with each of the vectors in turn as the one that draws and all others as those that span, in products of 2 ``count``."""
    v = _signs(matrix, count)
    product = matrix @ v
    q, r = torch.linalg.qr(product)
    product_q = matrix @ q
    # Without vector i the others span Q (I - s_i s_i') Q'.
    s = torch.linalg.inv(r.T)
    s = s / s.norm(dim=0)

    def without(columns: Tensor) -> Tensor:
        return columns - s * (s * columns).sum(0)

    inside = q.T @ product_q
    exact = inside.trace() - (s * (inside @ s)).sum(0)
    rest = product - product_q @ without(q.T @ v)
    rest = rest - q @ without(q.T @ rest)
    return (exact + (v * rest).sum(0)).mean()


# With the number of products that an estimator makes for each of its vectors.
ESTIMATORS = {"hutch++": (_hutch_plus_plus, 3), "xtrace": (_xtrace, 2), "hutchinson": (_hutchinson, 1)}


def _signs(matrix: Matrix, count: int) -> Tensor:
    """So many random vectors of entries -1 and 1, shape ``(d, count)``."""
    columns = [torch.empty(len(matrix), device=matrix.device, dtype=matrix.dtype).bernoulli_(0.5) for _ in range(count)]
    return torch.stack(columns, dim=1) * 2 - 1


@contextmanager
def drawn(matrix: Matrix, seed: int) -> Iterator[None]:
    """Random vectors on the device of the matrix that depend on the seed alone; the caller's random state is left as it was."""
    with torch.random.fork_rng([matrix.device] if matrix.device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
