r"""The worst point of a ball: how far the loss rises on the way up from w, and where the climb ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from .. import _checks
from .._progress import bar
from ..axes.balls import L2
from ..axes.geometry import Ball
from ..axes.tensors import Tensors
from ..step.modules import unwrapped
from .batches import Loss, batches, check_finite, check_loss, loss_and_gradient, mean_loss
from .held import held, moved, trainable

__all__ = ["climb", "loss_rise", "m_sharpness"]

STRIDE = 0.25  # length of a further step of the ascent, as a share of the radius
A_BALL = "a ball such as L2() or Adaptive(), without a memory of its own"


@_checks.renamed(chunk="samples_at_a_time")
def loss_rise(
    model: nn.Module, loss: Loss, x: Tensor, y: Tensor, rho: float, geometry=None, steps: int = 1, *,
    samples_at_a_time: int = 1000, batch_norm: str = "running", progress: bool = False,
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
        geometry: the ball, :class:`~bisam.axes.balls.L2` if none is given.
        steps: gradients that the climb may take, at least 1.
        samples_at_a_time: samples that go through the model together.
        batch_norm: ``"running"`` or ``"batch"``: which statistics batch norm uses, as :mod:`bisam.measure` says.
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
        >>> import torch
        >>> model = nn.Linear(2, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[3.0, 0.0]]))
        >>> loss = nn.MSELoss()  # with these data w1^2 + 4 w2^2
        >>> x, y = math.sqrt(2) * torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
        >>> round(loss_rise(model, loss, x, y, rho=1.0), 4), round(loss_rise(model, loss, x, y, rho=1.0, steps=30), 4)
        (7.0, 7.0)
    """
    parts = batches(x, y, samples_at_a_time)
    found = _search(model, loss, parts, rho, geometry, steps, batch_norm, progress)
    return found.there - found.here


@_checks.renamed(chunk="samples_at_a_time")
def m_sharpness(
    model: nn.Module, loss: Loss, x: Tensor, y: Tensor, rho: float, m: int, geometry=None, steps: int = 1, *,
    samples_at_a_time: int = 1000, batch_norm: str = "running", progress: bool = False,
) -> float:  # fmt: skip
    r"""The mean over parts of m samples of the rise of each part's loss, every part with a climb of its own.

    .. math:: \sum_k \frac{n_k}{n} \Big[\max_{\|\epsilon\| \le \rho} L_k(w + \epsilon) - L_k(w)\Big]

    The maxima stand for what the climb finds. At m = n it is :func:`loss_rise`. Where parts are cut into smaller ones, as by an m
    that divides the old one, the exact value cannot fall, because a perturbation for all is a compromise; by another m it can.
    Parts are taken in the order of the samples; the last one may be smaller.

    Args:
        model, loss, x, y, rho, geometry, steps, samples_at_a_time, batch_norm, progress: as in :func:`loss_rise`.
        m: samples that share a climb, from 1 to n.

    Raises:
        TypeError, ValueError: as in :func:`loss_rise`; ``m`` is above n.

    Source:
        Foret et al. (2021), section 4.1, "m-sharpness", as a mean instead of a sum.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model, x, y = nn.Linear(3, 2), torch.randn(8, 3), torch.arange(8) % 2
        >>> loss = nn.CrossEntropyLoss()
        >>> whole = loss_rise(model, loss, x, y, rho=0.1)
        >>> m_sharpness(model, loss, x, y, rho=0.1, m=8) == whole, m_sharpness(model, loss, x, y, rho=0.1, m=1) > whole
        (True, True)
    """
    batches(x, y, samples_at_a_time)  # for its checks
    m = _checks.whole("m", m)
    if m > len(x):
        raise ValueError(f"m must be at most {len(x)}, the number of samples; got {m}")
    total = 0.0
    with bar("m-sharpness", math.ceil(len(x) / m), "parts", progress) as advance:
        for inputs, targets in zip(x.split(m), y.split(m), strict=True):
            found = _search(model, loss, batches(inputs, targets, samples_at_a_time), rho, geometry, steps, batch_norm, progress=False)
            total += (found.there - found.here) * (len(inputs) / len(x))
            advance(1)
    return total


@_checks.renamed(chunk="samples_at_a_time")
def climb(
    model: nn.Module, loss: Loss, x: Tensor, y: Tensor, rho: float, geometry=None, steps: int = 1, *,
    samples_at_a_time: int = 1000, batch_norm: str = "running", progress: bool = False,
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
        model, loss, x, y, rho, geometry, steps, samples_at_a_time, batch_norm, progress: as in :func:`loss_rise`.

    Returns:
        Name to tensor, detached, of the shapes of the parameters.

    Raises:
        TypeError, ValueError, FloatingPointError: as in :func:`loss_rise`.

    Source:
        Foret et al. (2021), eq. 2, for one step; projected ascent as in Madry et al. (2018), on weights, beyond.

    Example:
        >>> import torch
        >>> model = nn.Linear(2, 2)
        >>> epsilon = climb(model, nn.CrossEntropyLoss(), torch.eye(2), torch.tensor([0, 1]), rho=0.5)
        >>> sorted(epsilon), round(float(L2().norm(epsilon, {})), 4)
        (['bias', 'weight'], 0.5)
    """
    return _search(model, loss, batches(x, y, samples_at_a_time), rho, geometry, steps, batch_norm, progress).epsilon


@dataclass
class _Climb:
    epsilon: Tensors
    here: float
    there: float


def _search(model, loss, parts, rho, geometry, steps, batch_norm, progress) -> _Climb:
    """The climb of :func:`climb`, with the losses at both of its ends."""
    geometry = L2() if geometry is None else geometry
    steps = _checks.whole("steps", steps)
    _checks.protocol("geometry", geometry, Ball, A_BALL)
    if steps > 1 and not geometry.is_bounded:
        raise ValueError(f"steps must be 1 with {geometry!r}, which is no ball; got {steps}")
    model, rho = unwrapped(_checks.module("model", model)), _checks.nonnegative("rho", rho)
    check_loss(loss)
    weights = trainable(model)
    with held(model, batch_norm), bar("climb", (steps + 1) * len(parts), "passes", progress) as advance:
        here, gradient = loss_and_gradient(model, loss, parts, weights, advance)
        check_finite("the loss at w", here)
        home = {name: w.detach().clone() for name, w in weights.items()}
        epsilon = geometry.perturbation(gradient, home, rho)
        best = None
        for k in range(steps):
            with moved(weights, epsilon):
                if k == steps - 1:
                    there = mean_loss(model, loss, parts, advance)
                else:
                    there, gradient = loss_and_gradient(model, loss, parts, weights, advance)
            if math.isnan(there):
                raise FloatingPointError(f"the loss at w + epsilon is not a number: rho = {rho!r} takes the network out of its range")
            if best is None or there > best.there:
                best = _Climb(epsilon, here, there)
            if k < steps - 1:
                epsilon = _further(geometry, epsilon, gradient, home, rho)
    return best


def _further(geometry, epsilon: Tensors, gradient: Tensors, home: Tensors, rho: float) -> Tensors:
    """One more step up, and back to the edge of the ball if it led out."""
    move = geometry.perturbation(gradient, home, STRIDE * rho)
    further = {name: part + move[name] for name, part in epsilon.items()}
    length = check_finite(f"the length of a climb with rho = {rho!r}", float(geometry.norm(further, home)))
    return further if length <= rho else {name: part * (rho / length) for name, part in further.items()}
