"""Radii that change: with the steps, with the learning rate, in phases, or as far as a loss budget pays for."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks
from .._kinds import kind
from .memory import Memory
from .radius import Radius
from .tensors import check_range

__all__ = ["ByLearningRate", "LossBudget", "Phase", "Schedule"]


@kind("Schedule")
@dataclass(frozen=True)
class Schedule(Radius):
    r"""A radius that runs along straight lines between given steps.

    .. math:: \rho_t = \rho_k + (\rho_{k+1} - \rho_k)\,\frac{t - t_k}{t_{k+1} - t_k} \quad (t_k \le t \le t_{k+1})

    Args:
        steps: the corners :math:`t_k`, rising whole numbers, counted in steps from 0; the radius is constant outside.
        rhos: the radii there, 0 or greater.

    Raises:
        TypeError, ValueError: corners that do not rise, radii below 0, not as many of one as of the other.

    Example:
        >>> ramp = Schedule(steps=(0, 100), rhos=(0.0, 0.05))
        >>> memory = Memory(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), seed=0)
        >>> memory.step = 50
        >>> ramp.now(memory), ramp.rho
        (0.025, 0.05)
    """

    steps: tuple[int, ...]
    rhos: tuple[float, ...]
    changes_each_step = True

    def __post_init__(self):
        _checks.keep(self, _checks.each, "steps", each_of=_checks.whole, least=0)
        _checks.keep(self, _checks.each, "rhos", each_of=_checks.nonnegative)
        if any(late <= early for early, late in zip(self.steps, self.steps[1:], strict=False)):
            raise ValueError(f"steps must rise, got {_checks.shown(self.steps)}")
        if len(self.rhos) != len(self.steps):
            raise ValueError(f"rhos must hold one radius for each of the {len(self.steps)} steps, got {len(self.rhos)}")

    @property
    def rho(self) -> float:
        """The largest radius."""
        return max(self.rhos)

    def with_rho(self, rho: float) -> Schedule:
        """The same line, higher or lower."""
        scale = rho / self.rho
        return Schedule(self.steps, tuple(scale * r for r in self.rhos))

    def now(self, memory: Memory) -> float:
        k = bisect.bisect_right(self.steps, memory.step)
        if k == 0 or k == len(self.steps):
            return self.rhos[0] if k == 0 else self.rhos[-1]
        (t0, t1), (r0, r1) = self.steps[k - 1 : k + 1], self.rhos[k - 1 : k + 1]
        return r0 + (r1 - r0) * (memory.step - t0) / (t1 - t0)


@kind("ByLearningRate")
@dataclass(frozen=True)
class ByLearningRate(Radius):
    r"""A radius that falls with the learning rate.

    .. math::
        \rho_t = \rho_{\min} + (\rho_{\max} - \rho_{\min})\,\frac{\eta_t - \eta_{\min}}{\eta_{\max} - \eta_{\min}}

    Args:
        rho: the largest radius, 0 or greater.
        least: the smallest, from 0 to ``rho``.
        lr_max: the largest learning rate; ``None`` takes the one that a scheduler started from, or that of the first step.
            Outside the two rates the radius stays at its end.
        lr_min: the smallest learning rate, 0 or greater.

    Raises:
        TypeError, ValueError: a number out of its range.

    Source:
        Zhuang et al. (2022), section 4, for GSAM.

    Example:
        >>> base = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        >>> falling, memory = ByLearningRate(rho=0.04, least=0.02), Memory(base, seed=0)
        >>> before = falling.now(memory)
        >>> base.param_groups[0]["lr"] = 0.05
        >>> before, round(falling.now(memory), 3)
        (0.04, 0.03)
    """

    rho: float
    least: float = 0.0
    lr_max: float | None = None
    lr_min: float = 0.0

    def __post_init__(self):
        _checks.keep(self, _checks.nonnegative, "rho", "least", "lr_min")
        if self.least > self.rho:
            raise ValueError(f"least must be at most rho = {self.rho!r}, got {self.least!r}")
        _checks.keep(self, _checks.optional, "lr_max", of=_checks.positive)
        if self.lr_max is not None and self.lr_max <= self.lr_min:
            raise ValueError(f"lr_max must be above lr_min = {self.lr_min!r}, got {self.lr_max!r}")

    def now(self, memory: Memory) -> float:
        top = self.lr_max
        if top is None:
            started = memory.base.param_groups[0].get("initial_lr")
            top = float(memory.state("radius").setdefault("lr_max", memory.lr) if started is None else started)
        if top <= self.lr_min:
            return self.rho
        share = min(1.0, max(0.0, (memory.lr - self.lr_min) / (top - self.lr_min)))
        return self.least + (self.rho - self.least) * share


@kind("Phase")
@dataclass(frozen=True)
class Phase(Radius):
    r"""A radius in some of the steps; the others are steps of the base optimiser, at the cost of one pass.

    .. math:: \rho_t = \rho\;\mathbb 1\big[t \ge t_0 \text{ and } (t - t_0) \bmod k = 0\big]

    Args:
        rho: the radius where it is on, 0 or greater.
        start: the first step :math:`t_0` with it, counted from 0.
        every: k, at least 1.

    Raises:
        TypeError, ValueError: a number out of its range.

    Source:
        For ``start`` Zhou et al. (2025), "Sharpness-aware minimization efficiently selects flatter minima late in training";
        ``every`` is the plainest way to save passes, the baseline of Liu et al. (2022), LookSAM.

    Example:
        >>> memory = Memory(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), seed=0)
        >>> radii = []
        >>> for memory.step in range(6):
        ...     radii.append(Phase(rho=0.05, start=2, every=2).now(memory))
        >>> radii
        [0.0, 0.0, 0.05, 0.0, 0.05, 0.0]
    """

    rho: float
    start: int = 0
    every: int = 1

    def __post_init__(self):
        _checks.keep(self, _checks.nonnegative, "rho")
        _checks.keep(self, _checks.whole, "start", least=0)
        _checks.keep(self, _checks.whole, "every")

    @property
    def climbing_share(self) -> float:
        """One step in ``every``."""
        return 1 / self.every

    def now(self, memory: Memory) -> float:
        since = memory.step - self.start
        return self.rho if since >= 0 and since % self.every == 0 else 0.0


@kind("LossBudget")
@dataclass(frozen=True)
class LossBudget(Radius):
    r"""As far as a fixed rise of the linearised loss pays for.

    .. math:: \rho_t = \min\Big(\frac{\sigma_t}{\|g\|_*},\; \rho_{\max}\Big), \qquad \langle g, \epsilon\rangle = \sigma_t

    The scale of the ascent loss matters: the budget is in its units. :math:`Q_{\phi,\mu}` has the factor :math:`1/\mu` here, so a budget
    is a share of misclassified samples.

    Args:
        budget: :math:`\sigma`, 0 or greater, in units of the ascent loss.
        rho: the largest radius, 0 or greater.
        hold: the step from which the budget falls to zero along a half cosine; ``None`` keeps it.
        total: the step at which it is zero.

    Raises:
        TypeError, ValueError: a number out of its range, or only one of ``hold`` and ``total``.

    Source:
        Wang et al. (2026), "Fix the loss, not the radius" (LE-SAM), read in a summary only, without the values of its runs.

    Example:
        >>> budget = LossBudget(budget=0.1, rho=1.0)
        >>> budget.length(0.1, torch.tensor(4.0)), budget.length(0.1, torch.tensor(0.01))
        (tensor(0.0250), tensor(1.))
    """

    budget: float
    rho: float
    hold: int | None = None
    total: int | None = None

    def __post_init__(self):
        _checks.keep(self, _checks.nonnegative, "budget", "rho")
        if (self.hold is None) != (self.total is None):
            raise ValueError(f"hold and total must be given together, got {_checks.shown(self.hold)} and {_checks.shown(self.total)}")
        if self.hold is not None:
            _checks.keep(self, _checks.whole, "hold", least=0)
            _checks.keep(self, _checks.whole, "total")
            if self.total <= self.hold:
                raise ValueError(f"total must be above hold = {self.hold}, got {self.total}")

    def check_recipe(self, recipe) -> None:
        """Refuses a geometry without a ball: the rise is not the product of its radius and a norm."""
        if not recipe.geometry.is_bounded:
            raise ValueError(f"geometry must be a ball with radius LossBudget, which divides by its dual norm; got {recipe.geometry!r}")

    @property
    def changes_each_step(self) -> bool:
        """A budget that falls is another one at every step."""
        return self.hold is not None

    def now(self, memory: Memory) -> float:
        """The budget of this step, or 0 if the radius is."""
        if self.rho == 0:
            return 0.0
        if self.hold is None or memory.step < self.hold:
            return self.budget
        if memory.step >= self.total:
            return 0.0
        share = (memory.step - self.hold) / (self.total - self.hold)
        return self.budget / 2 * (1 + math.cos(math.pi * share))

    def length(self, now: float, dual_norm: Tensor) -> Tensor:
        check_range(self.rho, [dual_norm])
        return torch.clamp(now / dual_norm, max=self.rho)  # at a gradient of zero the cap, and no climb
