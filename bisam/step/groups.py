"""Parameter groups with a radius of their own: each is a ball of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from ..axes.tensors import Tensors
from .bases import members_of


def radii_of_groups(base: torch.optim.Optimizer) -> dict[int, float]:
    """The radii of the parameter groups that have one of their own; Adadelta has a ``rho`` that is something else."""
    groups = [(group, "rho" in member.defaults) for member in members_of(base) for group in member.param_groups]
    found = {g: group["rho"] for g, (group, is_other) in enumerate(groups) if "rho" in group and not is_other}
    return {g: float(rho) if isinstance(rho, Tensor) else rho for g, rho in found.items()}


def own_radii(base: torch.optim.Optimizer, parameters: Tensors) -> list[tuple[list[str], float]]:
    """The names of the parameters of each such group, with its radius."""
    radii = radii_of_groups(base)
    if not radii:
        return []
    members = {id(p): g for g, group in enumerate(base.param_groups) for p in group["params"]}
    owner = {name: members[id(p)] for name, p in parameters.items()}
    return [([name for name, g in owner.items() if g == own], rho) for own, rho in radii.items()]
