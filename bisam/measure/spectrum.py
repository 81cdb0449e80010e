"""How the eigenvalues of the Hessian are distributed, by Lanczos quadrature."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .. import _checks
from .batches import Loss
from .eigenvalues import extreme_eigenvalues
from .hessian import Matrix, matrix_of
from .traces import drawn

__all__ = ["spectral_density"]

BOUNDS_TOLERANCE = 1e-2  # the ends of a spectrum need not be exact where its bumps are wide
MARGIN = 0.05  # of the spectrum, on either side of the grid; this and the next are those of Papyan (2020), appendix D.2
KAPPA = 3.0  # two neighbours of the quadrature overlap where their bumps have fallen to 1 / kappa


@_checks.renamed(chunk="samples_at_a_time")
def spectral_density(
    model: nn.Module, loss: Loss, x: Tensor, y: Tensor, products: int = 40, *, repeats: int = 4, points: int = 512,
    ggn: bool = False, samples_at_a_time: int = 1000, batch_norm: str = "running", seed: int = 0, progress: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    r"""How the eigenvalues of the Hessian are distributed: a smoothed density, by Lanczos quadrature.

    .. math:: p(\lambda) \approx \frac1d \sum_{i=1}^d \mathcal N(\lambda;\ \lambda_i,\ \tau^2)

    The width :math:`\tau` of a bump is a fixed share of the whole spectrum, the smaller the more products are spent, about 1.5 % at 40.
    Whatever lies closer together is one hump, and one eigenvalue among d is a bump of area 1/d: look at it on a logarithmic axis.

    Args:
        model, loss, x, y, ggn, samples_at_a_time, batch_norm, progress: as in :func:`top_eigenvalues`.
        products: Hessian-vector products from each random vector, at least 2 and fewer than there are weights.
        repeats: random vectors to average over.
        points: resolution of the grid.
        seed: of the random vectors.

    Returns:
        The grid and the density on it, shape ``(points,)`` each, in float64 on the CPU; the area below is 1.

    Raises:
        TypeError, ValueError, ModuleNotFoundError: as in :func:`top_eigenvalues`.
        FloatingPointError: a product is not finite, or the iteration broke down because the matrix has few distinct eigenvalues.

    Source:
        Papyan (2020), algorithm 2.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model, x, y = nn.Linear(30, 4), torch.randn(50, 30), torch.arange(50) % 4
        >>> grid, density = spectral_density(model, nn.CrossEntropyLoss(), x, y, products=20)
        >>> round(float(torch.trapezoid(density, grid)), 2)
        1.0
    """
    products, repeats = _checks.whole("products", products, 2), _checks.whole("repeats", repeats)
    points, seed = _checks.whole("points", points, 2), _checks.whole("seed", seed, 0)
    how = {"ggn": ggn, "samples_at_a_time": samples_at_a_time, "batch_norm": batch_norm, "progress": progress}
    with matrix_of(model, loss, x, y, title="spectrum", **how) as matrix:
        if products >= len(matrix):
            raise ValueError(f"products must be below {len(matrix)}, the number of weights; got {products}")
        ends = [float(extreme_eigenvalues(matrix, 1, which, BOUNDS_TOLERANCE, seed)) for which in ("smallest", "largest")]
        grid = _grid(*ends, points)
        with drawn(matrix, seed):
            densities = [_smoothed(*_quadrature(matrix, products), grid) for _ in range(repeats)]
    return grid, torch.stack(densities).mean(0)


def _grid(low: float, high: float, points: int) -> Tensor:
    margin = MARGIN * (high - low)
    return torch.linspace(low - margin, high + margin, points, dtype=torch.float64)


def _quadrature(matrix: Matrix, products: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the spectrum as a random vector sees it: Lanczos iterations without reorthogonalisation."""
    along, across = [], []  # the diagonal of the tridiagonal matrix, and the one beside it
    before, v = None, torch.randn(len(matrix), device=matrix.device, dtype=matrix.dtype)
    v = v / v.norm()
    for k in range(products):
        ahead = matrix @ v
        if k:
            ahead = ahead - across[-1] * before
        along.append((ahead * v).sum())
        ahead = ahead - along[-1] * v
        across.append(ahead.norm())
        before, v = v, ahead / across[-1]
    off = torch.stack(across[:-1])
    values, vectors = torch.linalg.eigh(torch.stack(along).diag() + off.diag(1) + off.diag(-1))
    return values.double().cpu(), vectors[0].square().double().cpu()


def _smoothed(nodes: Tensor, weights: Tensor, grid: Tensor) -> Tensor:
    """The density on the grid, each node a bump of a width that goes with the grid's and with the number of nodes."""
    width = float(grid[-1] - grid[0]) / (len(nodes) - 1) / math.sqrt(8 * math.log(KAPPA))
    bumps = torch.exp(-0.5 * ((grid - nodes.unsqueeze(1)) / width).square()) / (width * math.sqrt(2 * math.pi))
    return (weights.unsqueeze(1) * bumps).sum(0)
