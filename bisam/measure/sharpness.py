r"""How sharp is a minimum? Measures at a point w, on given data: the rise of the loss nearby, and its curvature.

.. math::
    L(w + \epsilon) - L(w), \quad \|\epsilon\| \le \rho; \qquad
    \lambda_{\max}(H), \quad \operatorname{tr} H = \sum_i \lambda_i, \quad
    p(\lambda) = \frac1d \sum_{i=1}^d \delta(\lambda - \lambda_i); \qquad H = \nabla^2 L(w)

What is measured is the network as a function of its weights. Every function here leaves weights, buffers, gradients, modes and
the random state as it found them, also when it fails, and these conventions hold for all of them:

- **Modes.** Dropout is off. Batch norm uses its running statistics with ``batch_norm="running"``, so that every sample is
  judged by itself and ``chunk`` changes nothing but rounding. With ``batch_norm="batch"`` it uses the statistics of the samples that
  go through together, as in training: each chunk is then a batch of its own, and ``chunk`` is part of what is measured.
- **Loss.** ``loss(outputs, targets)`` returns the mean over the samples it is given; ours is then the mean over all of them.
- **Weights.** All parameters that require a gradient.
- **Precision** is that of the model. A rise is a difference of two close numbers: where it is small, measure a
  copy in float64, ``copy.deepcopy(model).double()``.

The functions of the Hessian need the extra ``sharpness``, which is ``curvlinops-for-pytorch``.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .. import _checks
from ..axes.geometry import L2, Tensors, Unnormalised
from ..losses.cross_entropy import zero_one
from ..step.batch import held_buffers, unwrapped
from ..step.perturbation import Displacement

__all__ = [
    "Flips", "climb", "loss_rise", "m_sharpness", "misclassified", "spectral_density", "top_eigenvalues", "trace",
]  # fmt: skip

Loss = Callable[[Tensor, Tensor], Tensor]
STATISTICS = ("running", "batch")
STRIDE = 0.25  # length of a further step of the ascent, as a share of the radius: ours
DENSE = 64  # up to so many weights the whole matrix is as cheap as an iteration
COLUMNS = 8  # vectors multiplied at one go: each needs the memory of a pass
POWERS = 5  # power iterations that find the scale of a matrix
ITERATIONS = 300  # restarts of ARPACK before it gives up
BOUNDS_TOLERANCE = 1e-2  # the ends of a spectrum need not be exact where its bumps are wide
_A_BALL = "a ball such as L2() or Adaptive(), without a memory of its own"
_BATCH_NORM = nn.modules.batchnorm._BatchNorm


# -- the rise of the loss in a ball ---------------------------------------------------------------------------------------


def loss_rise(
    model: nn.Module, loss: Loss, x: Tensor, y: Tensor, rho: float, geometry=None, steps: int = 1, *,
    chunk: int = 1000, batch_norm: str = "running", progress: bool = False,
) -> float:  # fmt: skip
    r"""How much the loss rises from w to the worst point that a climb finds in a ball.

    .. math:: L(w + \epsilon) - L(w), \qquad \epsilon = \arg\max_{\|\epsilon\| \le \rho} \langle \nabla L(w), \epsilon\rangle

    That is ``steps=1``, the climb that a step of the optimiser makes. More steps go on from there, see :func:`climb`, and find
    more; every one of these numbers is a lower bound of the highest rise in the ball, and with one step it can be negative. With
    ``geometry=Adaptive(eta=0, scaled="all")`` it is the adaptive sharpness.

    Args:
        model: the network; ``model(x)`` are its outputs.
        loss: of outputs and targets, the mean over the samples, such as :class:`~bisam.losses.cross_entropy.CrossEntropy`.
        x: samples, shape ``(n, ...)``.
        y: targets, ``n`` of them.
        rho: radius of the ball in its own norm, 0 or greater.
        geometry: the ball, :class:`~bisam.axes.geometry.L2` if none is given.
        steps: gradients that the climb may take, at least 1.
        chunk: samples that go through the model together.
        batch_norm: ``"running"`` or ``"batch"``: which statistics batch norm uses, as the module says.
        progress: show a bar on the terminal.

    Returns:
        The rise, in the units of the loss. It costs ``steps`` passes and a forward pass.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range, such as a radius beyond the largest number of the
            weights' dtype; a loss that is not a mean; a ball that needs the optimiser's memory, or that cannot take several steps.
        FloatingPointError: the loss at w is not finite, or the loss at :math:`w + \epsilon` is not a number, as with a huge radius;
            an infinite one there is an infinite rise.

    Source:
        Foret et al. (2021), with their linear step for the maximum; the adaptive form is that of Kwon et al. (2021).

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[3.0, 0.0]]))
        >>> loss = nn.MSELoss()  # with these data w1^2 + 4 w2^2
        >>> x, y = math.sqrt(2) * torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
        >>> round(loss_rise(model, loss, x, y, rho=1.0), 4), round(loss_rise(model, loss, x, y, rho=1.0, steps=30), 4)
        (7.0, 7.0)
    """
    parts = _parts(x, y, chunk)
    found = _search(model, loss, parts, rho, geometry, steps, batch_norm, progress)
    return found.there - found.here


def m_sharpness(
    model: nn.Module, loss: Loss, x: Tensor, y: Tensor, rho: float, m: int, geometry=None, steps: int = 1, *,
    chunk: int = 1000, batch_norm: str = "running", progress: bool = False,
) -> float:  # fmt: skip
    r"""The mean over parts of m samples of the rise of each part's loss, every part with a climb of its own.

    .. math:: \sum_k \frac{n_k}{n} \Big[\max_{\|\epsilon\| \le \rho} L_k(w + \epsilon) - L_k(w)\Big]

    The maxima stand for what the climb finds. At m = n it is :func:`loss_rise`; for smaller m the exact value can only be
    larger, because a perturbation for all is worse than one for each. Parts are taken in the order of the samples; the last one
    may be smaller.

    Args:
        model, loss, x, y, rho, geometry, steps, chunk, batch_norm, progress: as in :func:`loss_rise`.
        m: samples that share a climb, from 1 to n.

    Raises:
        TypeError, ValueError: as in :func:`loss_rise`; ``m`` is above n.

    Source:
        Foret et al. (2021), section 4.1, "m-sharpness", as a mean instead of a sum.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model, x, y = nn.Linear(3, 2), torch.randn(8, 3), torch.arange(8) % 2
        >>> loss = nn.CrossEntropyLoss()
        >>> whole = loss_rise(model, loss, x, y, rho=0.1)
        >>> m_sharpness(model, loss, x, y, rho=0.1, m=8) == whole, m_sharpness(model, loss, x, y, rho=0.1, m=1) > whole
        (True, True)
    """
    _parts(x, y, chunk)  # for its checks
    m = _checks.whole("m", m)
    if m > len(x):
        raise ValueError(f"m must be at most {len(x)}, the number of samples; got {m}")
    total = 0.0
    with _bar("m-sharpness", math.ceil(len(x) / m), progress) as advance:
        for inputs, targets in zip(x.split(m), y.split(m), strict=True):
            found = _search(model, loss, _parts(inputs, targets, chunk), rho, geometry, steps, batch_norm, False)
            total += (found.there - found.here) * (len(inputs) / len(x))
            advance(1)
    return total


def climb(
    model: nn.Module, loss: Loss, x: Tensor, y: Tensor, rho: float, geometry=None, steps: int = 1, *,
    chunk: int = 1000, batch_norm: str = "running", progress: bool = False,
) -> Tensors:  # fmt: skip
    r"""The perturbation that :func:`loss_rise` looks at, by parameter name.

    .. math::
        \epsilon_1 = \hat\epsilon_\rho(\nabla L(w)), \qquad
        \epsilon_{k+1} = \Pi_\rho\big(\epsilon_k + \hat\epsilon_{\rho/4}(\nabla L(w + \epsilon_k))\big), \qquad
        \Pi_\rho(\epsilon) = \epsilon \min\Big(1, \frac{\rho}{\|\epsilon\|}\Big)

    Here :math:`\hat\epsilon_r(g)` is the point of the ball of radius r that g points to, and the axes of the ball stay those at w. Of all the
    points visited the one with the highest loss is taken, so more steps never find less. Where the gradient at w is exactly zero
    there is no climb.

    Args:
        model, loss, x, y, rho, geometry, steps, chunk, batch_norm, progress: as in :func:`loss_rise`.

    Returns:
        Name to tensor, detached, of the shapes of the parameters.

    Raises:
        TypeError, ValueError, FloatingPointError: as in :func:`loss_rise`.

    Source:
        Foret et al. (2021), eq. 2, for one step; projected ascent as in Madry et al. (2018), on weights, beyond.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> epsilon = climb(model, nn.CrossEntropyLoss(), torch.eye(2), torch.tensor([0, 1]), rho=0.5)
        >>> sorted(epsilon), round(float(L2().norm(epsilon, {})), 4)
        (['bias', 'weight'], 0.5)
    """
    return _search(model, loss, _parts(x, y, chunk), rho, geometry, steps, batch_norm, progress).epsilon


@dataclass(frozen=True)
class Flips:
    r"""What a perturbation does to the decisions about n samples.

    Args:
        broken: right at w, wrong at :math:`w + \epsilon`.
        mended: wrong at w, right at :math:`w + \epsilon`.
        wrong: wrong at w.
        n: number of samples.

    Source:
        Ours; ``broken`` is our reading of figure 2 of Xie et al. (2024), which does not define its count.

    Example:
        >>> Flips(broken=3, mended=1, wrong=10, n=100).wrong_there
        12
    """

    broken: int
    mended: int
    wrong: int
    n: int

    @property
    def wrong_there(self) -> int:
        r"""Wrong at :math:`w + \epsilon`."""
        return self.wrong + self.broken - self.mended


def misclassified(
    model: nn.Module, x: Tensor, y: Tensor, perturbation: Tensors, *, chunk: int = 1000, batch_norm: str = "running",
) -> Flips:  # fmt: skip
    r"""Counts the samples that a perturbation of the weights turns from right to wrong, and from wrong to right.

    .. math:: \#\big\{i : \ell^{01}_i(w) = 0,\ \ell^{01}_i(w + \epsilon) = 1\big\}, \qquad
        \#\big\{i : \ell^{01}_i(w) = 1,\ \ell^{01}_i(w + \epsilon) = 0\big\}

    A sample whose true class ties for the highest score counts as right.

    Args:
        model: the network; ``model(x)`` are logits, shape ``(n, K)``.
        x: samples, shape ``(n, ...)``.
        y: true classes, shape ``(n,)``, whole numbers.
        perturbation: name of a parameter to tensor of its shape, such as :func:`climb` returns; others stay where they are.
        chunk, batch_norm: as in :func:`loss_rise`.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range; an unknown name or another shape.

    Source:
        See :class:`Flips`.

    Example:
        >>> model = nn.Linear(1, 2, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[1.0], [0.0]]))  # class 0 where x is positive
        >>> x, y = torch.tensor([[2.0], [-1.0]]), torch.tensor([0, 0])
        >>> misclassified(model, x, y, {"weight": torch.tensor([[-2.0], [0.0]])})
        Flips(broken=1, mended=1, wrong=1, n=2)
    """
    parts, model = _parts(x, y, chunk), unwrapped(_checks.module("model", model))
    _checks.labels(y, len(x), "y")
    known = dict(model.named_parameters())
    if not _checks.tensors("perturbation", perturbation):
        raise ValueError("perturbation must hold at least one tensor, got an empty dictionary")
    for name, move in perturbation.items():
        if name not in known:
            raise ValueError(f"perturbation must name parameters of the model, among them {', '.join(list(known)[:5])}; got {name!r}")
        if move.shape != known[name].shape:
            raise ValueError(f"perturbation of {name} must have shape {tuple(known[name].shape)}, got {tuple(move.shape)}")
    moved = {name: known[name] for name in perturbation}
    with _held(model, batch_norm), torch.no_grad():
        before = _mistakes(model, parts)
        with _away(moved, perturbation):
            after = _mistakes(model, parts)
    return Flips(int((after & ~before).sum()), int((before & ~after).sum()), int(before.sum()), len(x))


# -- curvature ------------------------------------------------------------------------------------------------------------


def top_eigenvalues(
    model: nn.Module, loss: Loss, x: Tensor, y: Tensor, k: int = 1, *, which: str = "largest", ggn: bool = False,
    tolerance: float = 1e-4, chunk: int = 1000, batch_norm: str = "running", seed: int = 0, progress: bool = False,
) -> Tensor:  # fmt: skip
    r"""The k largest eigenvalues of the Hessian of the loss, by Lanczos iterations on Hessian-vector products.

    .. math:: H = \nabla^2 L(w), \qquad G = \frac1n \sum_i J_i^\top\, \nabla_f^2 \ell_i\, J_i, \qquad J_i = \frac{\partial f_w(x_i)}{\partial w}

    G is the generalised Gauss-Newton matrix: what is left of H without the second derivatives of the network. For
    cross-entropy it has no negative eigenvalue. Where a rectifier has its kink, the derivatives are those that torch gives.

    Args:
        model, loss, x, y, chunk, batch_norm: as in :func:`loss_rise`; the loss must be twice differentiable.
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
        ModuleNotFoundError: curvlinops is not installed.
        FloatingPointError: a product is not finite.
        scipy.sparse.linalg.ArpackNoConvergence: too many iterations; a larger ``tolerance`` needs fewer.

    Source:
        ``eigsh`` of SciPy (ARPACK) on the operators of curvlinops.

    Example:
        >>> model, loss = nn.Linear(2, 1, bias=False), nn.MSELoss()
        >>> x, y = math.sqrt(2) * torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)  # w1^2 + 4 w2^2
        >>> top_eigenvalues(model, loss, x, y, k=2)
        tensor([8.0000, 2.0000], dtype=torch.float64)
    """
    _checks.choice("which", which, tuple(_SHIFT))
    tolerance, seed = _checks.positive("tolerance", tolerance), _checks.whole("seed", seed, least=0)
    k = _checks.whole("k", k)
    with _matrix(model, loss, x, y, ggn, chunk, batch_norm, "eigenvalues", progress) as matrix:
        if k > len(matrix):
            raise ValueError(f"k must be at most {len(matrix)}, the number of weights; got {k}")
        return _eigenvalues(matrix, k, which, tolerance, seed)


def trace(
    model: nn.Module, loss: Loss, x: Tensor, y: Tensor, products: int = 60, *, estimator: str = "hutch++", ggn: bool = False,
    chunk: int = 1000, batch_norm: str = "running", seed: int = 0, progress: bool = False,
) -> float:  # fmt: skip
    r"""The trace of the Hessian of the loss, the sum of all curvatures, estimated with random vectors of signs.

    .. math:: \operatorname{tr} H = \mathbb E\,[v^\top H v], \qquad v_i = \pm 1

    Hutch++ first treats exactly the directions in which H is large, which a third of its products find, and draws the rest; it
    is unbiased and varies less than the plain mean. Another ``seed`` gives another estimate: a few of them show the spread.

    Args:
        model, loss, x, y, ggn, chunk, batch_norm, progress: as in :func:`top_eigenvalues`.
        products: Hessian-vector products to spend, at least 3. From as many on as there are weights, the trace is exact.
        estimator: ``"hutch++"``, ``"xtrace"`` or ``"hutchinson"``.
        seed: of the random vectors.

    Returns:
        The estimate, in units of the loss over squared weights.

    Raises:
        TypeError, ValueError, ModuleNotFoundError, FloatingPointError: as in :func:`top_eigenvalues`.

    Source:
        Meyer et al. (2021) for Hutch++, Epperly et al. (2024) for XTrace, Hutchinson (1989), all as in curvlinops.

    Example:
        >>> model, loss = nn.Linear(2, 1, bias=False), nn.MSELoss()
        >>> x, y = math.sqrt(2) * torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)  # w1^2 + 4 w2^2
        >>> round(trace(model, loss, x, y), 4)
        10.0
    """
    _checks.choice("estimator", estimator, tuple(_ESTIMATORS))
    products, seed = _checks.whole("products", products, least=3), _checks.whole("seed", seed, least=0)
    name, multiple = _ESTIMATORS[estimator]
    with _matrix(model, loss, x, y, ggn, chunk, batch_norm, "trace", progress) as matrix:
        if products >= len(matrix):
            return float(matrix.dense().diagonal().sum())
        with _drawn(matrix, seed):
            estimate = getattr(_curvlinops(), name)(matrix, products // multiple * multiple)
    return _finite("the estimate of the trace", float(estimate))


def spectral_density(
    model: nn.Module, loss: Loss, x: Tensor, y: Tensor, products: int = 40, *, repeats: int = 4, points: int = 512,
    ggn: bool = False, chunk: int = 1000, batch_norm: str = "running", seed: int = 0, progress: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    r"""How the eigenvalues of the Hessian are distributed: a smoothed density, by Lanczos quadrature.

    .. math:: p(\lambda) \approx \frac1d \sum_{i=1}^d \mathcal N(\lambda;\ \lambda_i,\ \tau^2)

    The width :math:`\tau` of a bump is a fixed share of the whole spectrum, the smaller the more products are spent, about 1.5 % at 40.
    Whatever lies closer together is one hump, and one eigenvalue among d is a bump of area 1/d: look at it on a logarithmic axis.

    Args:
        model, loss, x, y, ggn, chunk, batch_norm, progress: as in :func:`top_eigenvalues`.
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
        Papyan (2020), algorithm 2, as in curvlinops.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model, x, y = nn.Linear(30, 4), torch.randn(50, 30), torch.arange(50) % 4
        >>> grid, density = spectral_density(model, nn.CrossEntropyLoss(), x, y, products=20)
        >>> round(float(torch.trapezoid(density, grid)), 2)
        1.0
    """
    products, repeats = _checks.whole("products", products, 2), _checks.whole("repeats", repeats)
    points, seed = _checks.whole("points", points, 2), _checks.whole("seed", seed, 0)
    with _matrix(model, loss, x, y, ggn, chunk, batch_norm, "spectrum", progress) as matrix:
        if products >= len(matrix):
            raise ValueError(f"products must be below {len(matrix)}, the number of weights; got {products}")
        ends = [float(_eigenvalues(matrix, 1, which, BOUNDS_TOLERANCE, seed)) for which in ("smallest", "largest")]
        with _drawn(matrix, seed):
            grid, density = _curvlinops().lanczos_approximate_spectrum(
                matrix, products, num_points=points, num_repeats=repeats, boundaries=tuple(ends)
            )
    return grid.double().cpu(), density.double().cpu()


# -- how the rise is found ------------------------------------------------------------------------------------------------


@dataclass
class _Found:
    epsilon: Tensors
    here: float
    there: float


def _search(model, loss, parts, rho, geometry, steps, batch_norm, progress) -> _Found:
    """The climb of :func:`climb`, with the losses at both of its ends."""
    geometry, steps = _ball(geometry, steps)
    model, rho = unwrapped(_checks.module("model", model)), _checks.nonnegative("rho", rho)
    _mean(loss)
    weights = _parameters(model)
    with _held(model, batch_norm), _bar("climb", (steps + 1) * len(parts), progress) as advance:
        here, gradient = _loss_and_gradient(model, loss, parts, weights, advance)
        _finite("the loss at w", here)
        home = {name: w.detach().clone() for name, w in weights.items()}
        epsilon = geometry.perturbation(gradient, home, rho)
        best = None
        for k in range(steps):
            with _away(weights, epsilon):
                if k == steps - 1:
                    there = _loss(model, loss, parts, advance)
                else:
                    there, gradient = _loss_and_gradient(model, loss, parts, weights, advance)
            if math.isnan(there):
                raise FloatingPointError(f"the loss at w + epsilon is not a number: rho = {rho!r} takes the network out of its range")
            if best is None or there > best.there:
                best = _Found(epsilon, here, there)
            if k < steps - 1:
                epsilon = _further(geometry, epsilon, gradient, home, rho)
    return best


def _further(geometry, epsilon: Tensors, gradient: Tensors, home: Tensors, rho: float) -> Tensors:
    """One more step up, and back to the edge of the ball if it led out."""
    move = geometry.perturbation(gradient, home, STRIDE * rho)
    moved = {name: part + move[name] for name, part in epsilon.items()}
    length = _finite(f"the length of a climb with rho = {rho!r}", float(geometry.norm(moved, home)))
    return moved if length <= rho else {name: part * (rho / length) for name, part in moved.items()}


def _ball(geometry, steps: int) -> tuple[object, int]:
    geometry = L2() if geometry is None else geometry
    steps = _checks.whole("steps", steps)
    _checks.part("geometry", geometry, ("perturbation", "norm"), _A_BALL)
    if hasattr(geometry, "prepared") or hasattr(geometry, "active"):
        raise TypeError(f"geometry must be {_A_BALL}; got {_checks.shown(geometry)}")
    if steps > 1 and isinstance(geometry, Unnormalised):
        raise ValueError(f"steps must be 1 with Unnormalised(), which is no ball; got {steps}")
    return geometry, steps


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not weights:
        raise ValueError("the model must have a parameter that requires a gradient, it has none")
    return weights


def _parts(x: Tensor, y: Tensor, chunk: int) -> list[tuple[Tensor, Tensor]]:
    for name, value in (("x", x), ("y", y)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
        if value.ndim == 0 or len(value) == 0:
            raise ValueError(f"{name} must hold at least one sample, got shape {tuple(value.shape)}")
    if len(x) != len(y):
        raise ValueError(f"x and y must pair up, got {len(x)} samples and {len(y)} targets")
    chunk = _checks.whole("chunk", chunk)
    return list(zip(x.split(chunk), y.split(chunk), strict=True))


def _mean(loss: Loss) -> Loss:
    _checks.function("loss", loss, "a function of outputs and targets")
    if getattr(loss, "reduction", "mean") != "mean":
        raise ValueError(f'loss must be the mean over the samples, reduction="mean"; got reduction={loss.reduction!r}')
    return loss


def _value(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> Tensor:
    value = _of_outputs(loss, _outputs(model, inputs), targets)
    if not isinstance(value, Tensor) or value.ndim:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"loss must return a scalar tensor, the mean over the samples; got {got}")
    return value


def _outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    try:
        return model(inputs)
    except Exception as error:
        error.add_note(f"model was given x of shape {tuple(inputs.shape)}, {inputs.dtype}")
        raise


def _of_outputs(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    try:
        return loss(outputs, targets)
    except Exception as error:
        if _are_classes(outputs, targets):
            _checks.in_range(targets, outputs.shape[1], "y")
        error.add_note(f"loss was given the outputs for x, {_checks.shown(outputs)}, and targets y, {_checks.shown(targets)}")
        raise


def _are_classes(outputs: object, targets: Tensor) -> bool:
    """Whether targets can only be class numbers: whole, one a row of outputs."""
    whole = not targets.is_floating_point() and not targets.is_complex() and targets.dtype != torch.bool
    return whole and isinstance(outputs, Tensor) and outputs.ndim == 2 and targets.shape == outputs.shape[:1]


def _loss(model, loss, parts, advance) -> float:
    n, total = sum(len(inputs) for inputs, _ in parts), 0.0
    with torch.no_grad():
        for inputs, targets in parts:
            total += float(_value(model, loss, inputs, targets)) * (len(inputs) / n)
            advance(1)
    return total


def _loss_and_gradient(model, loss, parts, weights: dict[str, Tensor], advance) -> tuple[float, Tensors]:
    """Both over all parts; the ``grad`` of the parameters is not touched."""
    n, total, gradient = sum(len(inputs) for inputs, _ in parts), 0.0, {}
    for inputs, targets in parts:
        with torch.enable_grad():
            value = _value(model, loss, inputs, targets)
        share = len(inputs) / n
        found = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
        for (name, weight), g in zip(weights.items(), found, strict=True):
            g = torch.zeros_like(weight) if g is None else g.detach() * share
            gradient[name] = gradient[name] + g if name in gradient else g
        total += float(value.detach()) * share
        advance(1)
    return total, gradient


def _mistakes(model: nn.Module, parts) -> Tensor:
    found = []
    for inputs, targets in parts:
        logits = _outputs(model, inputs)
        if _are_classes(logits, targets):
            _checks.in_range(targets, logits.shape[1], "y")
        try:
            found.append(zero_one(logits, targets))
        except (TypeError, ValueError) as error:
            error.add_note("the logits are those of model for x, the targets are y")
            raise
    return torch.cat(found).bool()


def _finite(what: str, value: float) -> float:
    if not math.isfinite(value):
        raise FloatingPointError(f"{what} is not finite, it is {value}: look for inf or NaN in x, in y and among the weights of the model")
    return value


# -- holding still --------------------------------------------------------------------------------------------------------


@contextmanager
def _away(weights: dict[str, Tensor], perturbation: Tensors) -> Iterator[None]:
    """The parameters moved by the perturbation inside, and back to the bit."""
    parameters, away = list(weights.values()), Displacement()
    moves = [perturbation[name].detach().to(weight, copy=True) for name, weight in weights.items()]
    away.leave(parameters)
    try:
        if parameters:
            away.add(parameters, moves)
        yield
    finally:
        away.back()


@contextmanager
def _held(model: nn.Module, batch_norm: str) -> Iterator[None]:
    """All modules in the mode that is measured in, without a trace afterwards."""
    _checks.choice("batch_norm", batch_norm, STATISTICS)
    before = [(module, module.training) for module in model.modules()]
    norms = [module for module in model.modules() if isinstance(module, _BATCH_NORM)]
    tracked = [norm.track_running_stats for norm in norms]
    if batch_norm == "running" and any(norm.running_mean is None for norm in norms):
        raise ValueError('batch_norm must be "batch" for a model with a batch norm that keeps no running statistics')
    with held_buffers(model):
        try:
            for module, _ in before:
                module.training = False
            if batch_norm == "batch":
                for norm in norms:  # not tracking: a function without side effects, which the Hessian needs
                    norm.training, norm.track_running_stats = True, False
            yield
        finally:
            for module, was_training in before:
                module.training = was_training
            for norm, was_tracked in zip(norms, tracked, strict=True):
                norm.track_running_stats = was_tracked


@contextmanager
def _bar(title: str, total: int | None, show: bool) -> Iterator[Callable[[int], None]]:
    """A bar, or with an unknown total a count, on a terminal only."""
    if not _checks.flag("progress", show):
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f} passes"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, advance=done)


# -- the Hessian as an operator -------------------------------------------------------------------------------------------

# Sign and shift, in units of the scale of the matrix. An eigenvalue near 0 never meets a relative tolerance; shifted
# away from 0 it does, and the tolerance is relative to the scale.
_SHIFT = {"largest": (1, 1), "smallest": (-1, 1), "magnitude": (1, 0)}
_ESTIMATORS = {"hutch++": ("hutchpp_trace", 3), "xtrace": ("xtrace", 2), "hutchinson": ("hutchinson_trace", 1)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning that ``torch.jit`` is deprecated: a dependency of curvlinops uses it, and so does torch itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit")
        yield


def _curvlinops():
    """The module, or an error that says how to get it."""
    try:
        with _quiet():
            import curvlinops
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the Hessian needs curvlinops ({error}); install it with: pip install curvlinops-for-pytorch", name=error.name
        ) from None
    return curvlinops


class _MeanLoss(nn.Module):
    """The loss as curvlinops wants it: a module that says that it is a mean."""

    reduction = "mean"

    def __init__(self, loss: Loss):
        super().__init__()
        self.loss = _mean(loss)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return _of_outputs(self.loss, outputs, targets)


def _hessian() -> type:
    """The operator of curvlinops with products made in another way.

    Its own go forward over backward under ``vmap``. There torch (2.15) differentiates layer norm, and batch norm with the
    statistics of the batch, wrongly and without a word, and group norm not at all. Twice backward is right for all of them.
    """

    class Hessian(_curvlinops().HessianLinearOperator):
        def _matmat_batch(self, X: Tensor, y: Tensor, M: list[Tensor]) -> list[Tensor]:
            with torch.enable_grad():
                value = self._loss_func(self._model_func(X), y)
                gradient = torch.autograd.grad(value, self._params, create_graph=True, materialize_grads=True)
                columns = [self._product(gradient, vector) for vector in zip(*(m.unbind(-1) for m in M), strict=True)]
            return [torch.stack(parts, -1) for parts in zip(*columns, strict=True)]

        def _product(self, gradient: tuple[Tensor, ...], vector: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            along = sum((g * v).sum() for g, v in zip(gradient, vector, strict=True))
            if not along.requires_grad:  # a gradient that does not depend on the weights
                return tuple(torch.zeros_like(v) for v in vector)
            return torch.autograd.grad(along, self._params, retain_graph=True, materialize_grads=True)

    return Hessian


class _Matrix:
    """A symmetric operator of curvlinops that multiplies few columns at one go, counts, and refuses what is not finite."""

    def __init__(self, operator, advance: Callable[[int], None]):
        self._operator, self._advance = operator, advance
        self.shape, self.device, self.dtype = operator.shape, operator.device, operator.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __matmul__(self, vectors: Tensor) -> Tensor:
        if vectors.ndim == 1:
            return (self @ vectors.unsqueeze(1)).squeeze(1)
        found = []
        for columns in vectors.split(COLUMNS, dim=1):
            if not columns.isfinite().all():
                raise FloatingPointError(
                    "the iteration broke down, as it does where the matrix has few distinct eigenvalues; ask for fewer products"
                )
            try:
                with _quiet(), sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention have no second derivative
                    product = self._operator @ columns
            except Exception as error:
                error.add_note("so it was with the second derivatives of loss(model(x), y)")
                raise
            if not product.isfinite().all():
                raise FloatingPointError("a product with the Hessian is not finite: look at the loss and its second derivatives at w")
            found.append(product)
            self._advance(columns.shape[1])
        return torch.cat(found, dim=1)

    def dense(self) -> Tensor:
        """The whole matrix, made symmetric, in float64 on the CPU."""
        whole = (self @ torch.eye(len(self), device=self.device, dtype=self.dtype)).double().cpu()
        return (whole + whole.T) / 2

    def to_scipy(self, sign: int = 1, shift: float = 0.0):
        """sign * matrix + shift * identity, for SciPy."""
        from scipy.sparse.linalg import LinearOperator

        def product(vectors):
            found = self @ torch.as_tensor(vectors).to(self.device, self.dtype)
            return sign * found.double().cpu().numpy() + shift * vectors

        return LinearOperator(self.shape, matvec=lambda v: product(v.reshape(-1)), matmat=product, dtype="float64")


@contextmanager
def _matrix(model, loss, x, y, ggn, chunk, batch_norm, title, progress) -> Iterator[_Matrix]:
    """The operator, with model and randomness held still."""
    parts, model = _parts(x, y, chunk), unwrapped(_checks.module("model", model))
    build = _curvlinops().GGNLinearOperator if _checks.flag("ggn", ggn) else _hessian()
    weights = list(_parameters(model).values())
    with _held(model, batch_norm), _bar(title, None, progress) as advance:
        # What its own check looks for, random modules and moving statistics, is held still already.
        operator = build(model, _MeanLoss(loss), weights, parts, check_deterministic=False, num_data=len(x))
        yield _Matrix(operator, advance)


def _eigenvalues(matrix: _Matrix, k: int, which: str, tolerance: float, seed: int) -> Tensor:
    if len(matrix) <= max(DENSE, k + 1):
        return _first(torch.linalg.eigvalsh(matrix.dense()), which)[:k]
    import numpy
    from scipy.sparse.linalg import eigsh

    draw = numpy.random.default_rng(seed)
    start = draw.standard_normal(len(matrix))
    scale = _scale(matrix, start)
    if scale == 0:
        return torch.zeros(k, dtype=torch.float64)
    sign, shift = _SHIFT[which][0], _SHIFT[which][1] * scale
    # Should the iteration need a fresh vector, newer versions of SciPy draw it from `rng`.
    own = {"rng": draw} if "rng" in inspect.signature(eigsh).parameters else {}
    found = eigsh(
        matrix.to_scipy(sign, shift), k, which="LM" if which == "magnitude" else "LA", v0=start, tol=tolerance,
        maxiter=ITERATIONS, return_eigenvectors=False, **own,
    )  # fmt: skip
    return _first(sign * (torch.as_tensor(found) - shift), which)


def _scale(matrix: _Matrix, start) -> float:
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


@contextmanager
def _drawn(matrix: _Matrix, seed: int) -> Iterator[None]:
    """Random vectors that depend on the seed alone; the caller's random state is left as it was."""
    devices = [matrix.device] if matrix.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
