"""Climbing with a part of the weights: a random part, as ESAM does, or the normalisation layers only."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .. import _checks
from .._kinds import kind
from .balls import L2
from .geometry import Ball, Geometry
from .memory import Memory
from .shards import like
from .tensors import Tensors

__all__ = ["Masked", "Only"]

MANY = 2**20  # coordinates, from which on a mask is drawn four at a time; the recorded runs have fewer in a tensor
NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class _Inside(Geometry):
    """A set that lets another one move a part of the weights, and is as the other one where it does not say otherwise."""

    inner: Geometry = field(default_factory=L2)

    def __post_init__(self):
        _checks.protocol("inner", self.inner, Geometry, "a set such as L2()")

    @property
    def is_drawn(self) -> bool:
        """Whether the parameters that may climb are drawn."""
        return self.inner.is_drawn

    @property
    def drawn_share(self) -> float:
        """The share of the parameters that is drawn, on average."""
        return self.inner.drawn_share

    @property
    def is_bounded(self) -> bool:
        """Whether the set inside is a ball."""
        return self.inner.is_bounded

    def prepared(self, weights: Tensors, memory: Memory) -> Ball:
        return self.inner.prepared(weights, memory)

    def active(self, model: nn.Module, memory: Memory) -> set[str] | None:
        return self.inner.active(model, memory)

    def after_step(self, names: list[str], memory: Memory) -> None:
        self.inner.after_step(names, memory)

    def check_base(self, base: torch.optim.Optimizer, recipe: str) -> None:
        self.inner.check_base(base, recipe)


@kind("Masked")
@dataclass(frozen=True)
class Masked(_Inside):
    r"""Perturbs a random part of the weights, and that part further than the set inside would.

    .. math::
        \epsilon = \frac{1}{\beta}\,m \odot \hat\epsilon(g) \quad\text{(per coordinate)}, \qquad
        \epsilon = \frac{1}{\beta}\,\hat\epsilon(g_m) \quad\text{(per tensor)}

    Here m keeps a coordinate or a tensor with probability :math:`\beta`, :math:`\hat\epsilon` is the perturbation of the set inside, and
    :math:`g_m` the gradient of the tensors that are kept. Per coordinate, the inner set sees the whole gradient, and the mean over the masks is its perturbation; so
    :math:`\langle g, \epsilon\rangle = \rho\,\|g\|_*` holds on average only. Per tensor, it sees the gradient of the chosen tensors,
    and those of the others are not even computed; the length is :math:`\rho / \beta` in every step, where the printed formula gives
    about :math:`\rho / \sqrt\beta`. The first step uses all tensors.

    Args:
        inner: the set whose perturbation is masked.
        keep: :math:`\beta`, the probability that a coordinate or tensor is perturbed, in (0, 1].
        per: ``"coordinate"`` as printed, ``"tensor"`` as in ESAM's public code.
        divisor: ``"kept"`` divides by :math:`\beta`, which makes the mean of each coordinate right; ``"dropped"`` by :math:`1 - \beta`, as
            algorithm 3 of BiSAM's early version prints. They agree at :math:`\beta = 0.5`.

    Raises:
        TypeError, ValueError: ``inner`` is no set, ``keep`` outside (0, 1], an unknown ``per`` or ``divisor``, or a
            division by 0.

    Source:
        Du et al. (2022), section 3.1, "stochastic weight perturbation", and their public code; Xie et al. (2024), algorithm 3
        of the early version.

    Example:
        >>> g = {"w": torch.tensor([3.0, 4.0])}
        >>> memory = Memory(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), seed=0)
        >>> Masked(keep=0.5).prepared(g, memory).perturbation(g, g, rho=0.5)
        {'w': tensor([0.6000, 0.0000])}
    """

    keep: float = 0.5
    per: str = "coordinate"
    divisor: str = "kept"

    def __post_init__(self):
        super().__post_init__()
        _checks.keep(self, _checks.share, "keep")
        _checks.choice("per", self.per, ("coordinate", "tensor"))
        _checks.choice("divisor", self.divisor, ("kept", "dropped"))
        if self.divisor == "dropped" and self.keep == 1:
            raise ValueError('keep must be below 1 with divisor="dropped", which divides by 1 - keep; got 1')

    @property
    def is_drawn(self) -> bool:
        """Whether the tensors that may climb are drawn, here or by the set inside."""
        return self.per == "tensor" or self.inner.is_drawn

    @property
    def drawn_share(self) -> float:
        """The share of the tensors that is drawn, on average."""
        return (self.keep if self.per == "tensor" else 1.0) * self.inner.drawn_share

    def active(self, model: nn.Module, memory: Memory) -> set[str] | None:
        inner = super().active(model, memory)
        chosen = memory.state("geometry").get("active") if self.per == "tensor" else None
        if chosen is None:
            return inner
        allowed = {name for name, _ in model.named_parameters()} if inner is None else inner
        return {name for name in allowed if chosen.get(name, True)}

    def mask(self, weights: Tensors, memory: Memory) -> Tensors:
        """Which coordinates of each tensor move (shape of the tensor), or which tensors (scalars), by name."""
        if self.per == "tensor":
            chosen = memory.state("geometry").get("active", {})
            return {name: torch.tensor(chosen.get(name, True)) for name in weights}
        return {name: like(_kept(w, self.keep, memory.generator(w.device)), w) for name, w in weights.items()}

    def prepared(self, weights: Tensors, memory: Memory) -> _Drawn:
        scale = 1 / (self.keep if self.divisor == "kept" else 1 - self.keep)
        return _Drawn(super().prepared(weights, memory), self.mask(weights, memory), scale, self.per)

    def after_step(self, names: list[str], memory: Memory) -> None:
        super().after_step(names, memory)
        if self.per == "tensor":
            draws = torch.rand(len(names), generator=memory.generator(torch.device("cpu"))) < self.keep
            memory.state("geometry")["active"] = dict(zip(names, draws.tolist(), strict=True))


def _kept(weight: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Which coordinates are kept, each with this probability: where they are many, drawn four at a time, in a third of the time."""
    parts = round(share * 2**16)
    is_close = abs(parts / 2**16 - share) < 1e-4 * share and parts < 2**16
    if weight.device.type != "cpu" or weight.numel() < MANY or not is_close:
        return torch.rand(weight.shape, generator=generator, device=weight.device) < share
    words = torch.empty((weight.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    quarters = words.view(torch.int16)[: weight.numel()]  # evenly from -32,768 to 32,767
    return (quarters < parts - 2**15).view(weight.shape)


@dataclass(frozen=True, eq=False)
class _Drawn(Ball):
    """A masked set in one step."""

    inner: Ball
    mask: Tensors
    scale: float
    per: str

    def _of_inner(self, tensors: Tensors) -> Tensors:
        return tensors if self.per == "coordinate" else {n: t for n, t in tensors.items() if self.mask[n]}

    def norm(self, perturbation, weights):
        return self.inner.norm(self._of_inner(perturbation), weights)

    def dual_norm(self, gradient, weights):
        return self.inner.dual_norm(self._of_inner(gradient), weights)

    def perturbation(self, gradient, weights, rho, dual_norm=None):
        seen = self._of_inner(gradient)
        climb = self.inner.perturbation(seen, weights, rho, dual_norm) if seen else {}
        if self.per == "tensor":
            return {name: part * self.scale for name, part in climb.items()}
        return {name: (part * self.scale).masked_fill_(~self.mask[name], 0) for name, part in climb.items()}


@kind("Only")
@dataclass(frozen=True)
class Only(_Inside):
    r"""Perturbs the parameters of the normalisation layers only.

    .. math:: \epsilon = \hat\epsilon(g_{\text{norm}}), \qquad \epsilon_i = 0 \text{ elsewhere}

    The radius is that of the small ball, over the scales and shifts of the normalisation layers; the gradients of the
    other weights are not computed in the first pass.

    Args:
        inner: the set within which these parameters move.
        layers: ``"norm"``: batch, layer, group, instance and root-mean-square normalisation.

    Raises:
        TypeError, ValueError: ``inner`` is no set; unknown ``layers``.

    Source:
        Mueller et al. (2023), "Normalization layers are all that sharpness-aware minimization needs".

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        >>> memory = Memory(torch.optim.SGD(model.parameters(), lr=0.1), seed=0)
        >>> sorted(Only().active(model, memory))
        ['1.bias', '1.weight']
    """

    layers: str = "norm"

    def __post_init__(self):
        super().__post_init__()
        _checks.choice("layers", self.layers, ("norm",))

    def active(self, model: nn.Module, memory: Memory) -> set[str]:
        """The names of the parameters that may move; a ``ValueError`` for a model without a normalisation layer that has some."""
        norm = {id(p) for module in model.modules() if isinstance(module, NORM_LAYERS) for p in module.parameters(False)}
        names = {name for name, parameter in model.named_parameters() if id(parameter) in norm}
        if not names:
            raise ValueError("layers must name layers that the model has; it has no normalisation layer with parameters")
        inner = super().active(model, memory)
        return names if inner is None else names & inner
