"""The base optimiser of bSAM."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _checks

__all__ = ["Variational"]


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
        settings = dict(lr=lr, betas=betas, samples=samples, prior=prior, damping=damping, precision=precision)
        super().__init__(_checks.parameters("params", params), _checked(settings))
        self._handed: dict[Tensor, Tensor] = {}

    def add_param_group(self, param_group: dict) -> None:
        """Adds parameters, with settings of their own where the group has some; an error for a number out of its range."""
        super().add_param_group({**param_group, **_checked({**self.defaults, **param_group})})

    def hand(self, gradients: dict[Tensor, Tensor]) -> None:
        """Gives the gradient r of the next step, by parameter."""
        self._handed = gradients

    def group_of(self, parameter: Tensor) -> dict:
        """The group that a parameter is in, with its settings."""
        return next(group for group in self.param_groups if any(p is parameter for p in group["params"]))

    def precision(self, parameter: Tensor) -> Tensor:
        """The precision s of a parameter as it is now, shape of the parameter, in float32 at least."""
        state = self.state[parameter]
        if "precision" not in state:
            wide, first = torch.promote_types(parameter.dtype, torch.float32), self.group_of(parameter)["precision"]
            state["precision"] = torch.full_like(parameter, first, dtype=wide, requires_grad=False)
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


_NUMBERS = {
    "lr": _checks.positive, "samples": _checks.positive, "prior": _checks.nonnegative, "damping": _checks.nonnegative,
    "precision": _checks.positive,
}  # fmt: skip


def _checked(settings: dict) -> dict:
    """The settings of a group as plain numbers."""
    found = {name: check(name, settings[name]) for name, check in _NUMBERS.items()}
    return {**found, "betas": _checks.each("betas", settings["betas"], each_of=_checks.fraction, length=2)}
