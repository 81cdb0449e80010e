r"""bSAM: sharpness-aware training as variational inference, with an update of its own.

.. math::
    \theta \sim \mathcal N\big(w, \tfrac{1}{N s}\big), \quad r = \nabla L(\theta), \quad \epsilon = \rho\,\frac{g}{s}, \quad
    p = \nabla L(w + \epsilon)

.. math::
    m \leftarrow \beta_1 m + (1 - \beta_1)(p + \delta w), \quad w \leftarrow w - \eta\,\frac{m}{s}, \quad
    s \leftarrow \beta_2 s + (1 - \beta_2)\big(\sqrt{s}\,|r| + \delta + \gamma\big)

This method does not fit the axes as the others do: its precision s belongs to the base optimiser, yet also sets where the first
gradient is taken and how far the climb goes; and its base needs both gradients. So it is four parts that belong together,
:class:`Posterior`, :class:`Precision`, :class:`Handed` and the base :class:`Variational`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks
from .._kinds import kind
from ..axes.combination import AT_W, Combination
from ..axes.geometry import Ball, Geometry
from ..axes.memory import Memory
from ..axes.start import Start
from ..axes.tensors import Tensors, euclidean_norm

__all__ = ["Handed", "Posterior", "Precision", "Variational"]


class Variational(torch.optim.Optimizer):
    r"""The base optimiser of bSAM: a mean w and a precision s for every weight.

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1)(p + \delta w), \quad w \leftarrow w - \eta\,\frac{m}{s}, \quad
        s \leftarrow \beta_2 s + (1 - \beta_2)\big(\sqrt{s}\,|r| + \delta + \gamma\big)

    p is the gradient that the parameters hold, r the one that :meth:`hand` was given, or p without it. The mean moves
    before the precision does.

    Args:
        params: parameters or groups of them.
        lr: :math:`\eta`, greater than 0.
        betas: :math:`(\beta_1, \beta_2)`, each in [0, 1).
        samples: N, the number of training samples, augmentation counted in, greater than 0.
        prior: :math:`\delta`, the precision of the prior divided by N; ``None`` is 40 / N.
        damping: :math:`\gamma`, 0 or greater.
        precision: s before the first step, greater than 0.

    Raises:
        TypeError, ValueError: a number out of its range.

    Source:
        Moellenhoff and Khan (2023), algorithm 1 and the order of updates of their public code; the defaults are theirs for
        CIFAR with a ResNet-18, except ``samples``, which depends on the data (theirs was 4 x 50,000).

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> base = Variational([weight], lr=0.5, samples=1000)
        >>> weight.grad = torch.tensor([0.2])
        >>> base.step()
        >>> round(weight.item(), 4), round(base.state[weight]["precision"].item(), 4)
        (0.988, 0.9993)
    """

    def __init__(
        self,
        params,
        lr: float = 0.5,
        betas: tuple[float, float] = (0.9, 0.999),
        samples: float = 200_000,
        prior: float | None = None,
        damping: float = 0.1,
        precision: float = 1.0,
    ):
        samples = _checks.positive("samples", samples)
        prior = 40 / samples if prior is None else prior
        super().__init__(
            _checks.parameters("params", params),
            _checked(dict(lr=lr, betas=betas, samples=samples, prior=prior, damping=damping, precision=precision)),
        )
        self._handed: dict[Tensor, Tensor] = {}

    def add_param_group(self, param_group: dict) -> None:
        """Adds parameters, with settings of their own where the group has some.

        Raises:
            TypeError, ValueError: a number out of its range.
        """
        super().add_param_group({**param_group, **_checked({**self.defaults, **param_group})})

    def hand(self, gradients: dict[Tensor, Tensor]) -> None:
        """Gives the gradient r of the next step, by parameter."""
        self._handed = gradients

    def precision(self, parameter: Tensor) -> Tensor:
        """The precision s of a parameter as it is now, shape of the parameter, in float32 at least."""
        state = self.state[parameter]
        if "precision" not in state:
            group = next(g for g in self.param_groups if any(p is parameter for p in g["params"]))
            wide = torch.promote_types(parameter.dtype, torch.float32)
            state["precision"] = torch.full_like(parameter, group["precision"], dtype=wide, requires_grad=False)
            state["mean_gradient"] = torch.zeros_like(state["precision"])
        return state["precision"]

    def load_state_dict(self, state_dict: dict) -> None:
        """As any optimiser, but the state stays in float32 where torch would cast it to the type of the parameter."""
        super().load_state_dict(state_dict)
        places = [place for group in state_dict["param_groups"] for place in group["params"]]
        for place, p in zip(places, [p for group in self.param_groups for p in group["params"]], strict=True):
            for key, value in state_dict["state"].get(place, {}).items():
                self.state[p][key] = value.to(p.device, copy=True)

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """One update of means and precisions; parameters without a gradient are left alone."""
        if closure is not None:
            raise TypeError("step takes no closure; compute the gradients first")
        handed, self._handed = self._handed, {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group, handed.get(parameter, parameter.grad))

    def _move(self, w: Tensor, group: dict, r: Tensor) -> None:
        s, (beta1, beta2) = self.precision(w), group["betas"]
        m = self.state[w]["mean_gradient"]
        m.mul_(beta1).add_(w.grad.to(m) + group["prior"] * w.to(m), alpha=1 - beta1)
        w.sub_((group["lr"] * m / s).to(w.dtype))
        grown = s.sqrt() * r.to(s).abs() + (group["prior"] + group["damping"])
        s.mul_(beta2).add_(grown, alpha=1 - beta2)

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "_handed": {}}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._handed = {}


@kind("Posterior")
@dataclass(frozen=True)
class Posterior(Start):
    r"""Takes the first gradient at a draw from the posterior; the draw is not kept for the second.

    .. math:: \delta \sim \mathcal N\big(0, \tfrac{1}{N s}\big) \quad\text{elementwise}

    Source:
        Moellenhoff and Khan (2023), algorithm 1. :math:`1 / (N s)` is the variance; its root is the deviation.

    Example:
        >>> Posterior().kept
        False
    """

    kept = False

    def check_base(self, base: torch.optim.Optimizer, recipe: str) -> None:
        """A ``TypeError`` for a base that has no precision."""
        _needs_variational(self, base, recipe)

    def offset(self, weights: Tensors, memory: Memory) -> Tensors:
        r"""The random move :math:`\delta`, by name."""
        found = {}
        for name, weight in weights.items():
            s, samples = memory.base.precision(weight), _samples(memory.base, weight)
            noise = torch.randn(s.shape, generator=memory.generator(s.device), device=s.device, dtype=s.dtype)
            found[name] = (noise / (samples * s).sqrt()).to(weight.dtype)
        return found


@kind("Precision")
@dataclass(frozen=True)
class Precision(Geometry):
    r"""Climbs along the gradient divided by the precision, without a norm.

    .. math:: \epsilon = \rho\,\frac{g}{s}

    The scale of the ascent loss matters: nothing is normalised, so a Q without its factor :math:`1/\mu` would need another radius.

    Source:
        Moellenhoff and Khan (2023), algorithm 1.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> memory = Memory(Variational([weight], samples=100, precision=2.0), seed=0)
        >>> shape = Precision().prepared({"w": weight}, memory)
        >>> shape.perturbation({"w": torch.tensor([4.0, -2.0])}, {"w": weight}, rho=0.1)
        {'w': tensor([ 0.2000, -0.1000])}
    """

    def check_base(self, base: torch.optim.Optimizer, recipe: str) -> None:
        """A ``TypeError`` for a base that has no precision."""
        _needs_variational(self, base, recipe)

    def prepared(self, weights: Tensors, memory: Memory) -> _Scaled:
        """The climb of this step, with the precision as it is now."""
        # The weights given are values; the state of the base goes by parameter.
        return _Scaled({name: memory.base.precision(memory.named.get(name, w)) for name, w in weights.items()})


@dataclass(frozen=True, eq=False)
class _Scaled(Ball):
    s: Tensors

    def norm(self, perturbation: Tensors, weights: Tensors) -> Tensor:
        return euclidean_norm({name: e * self.s[name] for name, e in perturbation.items()})

    def dual_norm(self, gradient: Tensors, weights: Tensors) -> Tensor:
        return euclidean_norm(gradient)

    def perturbation(
        self, gradient: Tensors, weights: Tensors, rho: float, dual_norm: Tensor | None = None
    ) -> Tensors:
        return {name: (rho * g / self.s[name]).to(g.dtype) for name, g in gradient.items()}


@kind("Handed")
@dataclass(frozen=True)
class Handed(Combination):
    r"""Descends with the gradient at :math:`w + \epsilon` and hands the one of the first pass to the base.

    .. math:: p \text{ moves the mean}, \qquad r \text{ moves the precision}

    Args:
        at_w: which gradient r is. ``"descent"`` keeps the precision an estimate of the curvature of the descent loss,
            also where Q is climbed.

    Raises:
        ValueError: an unknown ``at_w``.

    Source:
        Moellenhoff and Khan (2023), algorithm 1.

    Example:
        >>> Handed().at_w
        'descent'
    """

    at_w: str = "descent"

    def __post_init__(self):
        _checks.choice("at_w", self.at_w, AT_W)

    def check_base(self, base: torch.optim.Optimizer, recipe: str) -> None:
        """A ``TypeError`` for a base that has no precision."""
        _needs_variational(self, base, recipe)

    def combined(self, r: Tensors, p: Tensors, memory: Memory, share: float = 1.0) -> Tensors:
        """The gradient p; r is kept for the base, summed over the parts of a batch by their shares."""
        kept = memory.state("combination")
        kept.update({name: share * part + kept.get(name, 0.0) for name, part in r.items()})
        return p

    def before_base(self, named: Tensors, memory: Memory) -> None:
        """Gives the base the gradients that were kept, by parameter."""
        kept = memory.state("combination")
        if not kept:
            return
        memory.base.hand({parameter: kept[name] for name, parameter in named.items() if name in kept})
        kept.clear()

    def forget(self, memory: Memory) -> None:
        """Gradients that were cleared are not handed on."""
        memory.state("combination").clear()


def _needs_variational(part: object, base: torch.optim.Optimizer, name: str) -> None:
    if not isinstance(base, Variational):
        raise TypeError(
            f"base must be a bisam.Variational for {type(part).__name__}(), as in recipe {name!r}; got {type(base).__name__}"
        )


_NUMBERS = {
    "lr": _checks.positive, "samples": _checks.positive, "prior": _checks.nonnegative, "damping": _checks.nonnegative,
    "precision": _checks.positive,
}  # fmt: skip


def _checked(settings: dict) -> dict:
    """The settings of a group as plain numbers."""
    found = {name: check(name, settings[name]) for name, check in _NUMBERS.items()}
    return {**found, "betas": _checks.each("betas", settings["betas"], each_of=_checks.fraction, length=2)}


def _samples(base: Variational, weight: Tensor) -> float:
    return next(group["samples"] for group in base.param_groups if any(p is weight for p in group["params"]))
