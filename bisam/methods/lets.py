"""LETS: a radius that learns from the gap between validation and training loss, by the derivative of its square."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import _checks
from .._kinds import kind
from ..axes.cost import BACKWARD
from ..axes.memory import Memory
from ..axes.radius import Learner, Radius
from ..axes.tensors import Tensors, dot, linear
from ..losses.loss import Loss
from ..step.batch import Batch
from ..step.buffers import held_buffers
from ..step.gradients import python_functions
from ..step.modules import distributed, unwrapped

__all__ = ["Learned"]


@kind("Learned")
@dataclass(frozen=True)
class Learned(Radius):
    r"""A radius that lowers the squared gap between validation and training loss, by its derivative.

    .. math::
        \rho \leftarrow \rho - \beta h, \qquad
        h = \frac{d}{d\rho}\,\tfrac12\big(L^{vl} - L^{tr}\big)^2(w_{t+1}(\rho)), \qquad
        w_{t+1}(\rho) = w_t - \eta\,\nabla L^{tr}(w_t + \rho u)

    .. math::
        h = -(L^{vl} - L^{tr})\,\big\langle \eta\,(\nabla L^{vl} - \nabla L^{tr}),\; \nabla^2 L^{tr}(w_t + \epsilon)\,u \big\rangle,
        \qquad u = \epsilon / \rho

    Losses and their gradients are at the new weights, with the batch-norm statistics held. Several workers learn the mean of what each
    finds for its own share of the batches. The derivative is that for a base
    that moves by :math:`-\eta` times the gradient (with Nesterov momentum :math:`m`, by :math:`1 + m` times that); for a base with
    momentum it is the derivative for this step alone, for Adam a stand-in. The Hessian times u has three forms: ``"exact"``, by
    differentiating twice; ``"difference"``, :math:`(\nabla L(w + \epsilon) - \nabla L(w)) / \rho` from gradients that the step has
    computed; ``"diagonal"``, the squared gradient in place of the Hessian.

    Args:
        rho: the radius to begin with, greater than 0.
        rate: :math:`\beta`, 0 or greater, in units of radius squared over loss squared. As :math:`h` holds the learning rate
            :math:`\eta`, a rate fits a learning rate too, and with a schedule that ends at zero the radius comes to rest in any case.
        form: how the Hessian is handled.
        every: update after every so many steps.
        least: the smallest radius, greater than 0.
        most: the largest.

    Raises:
        TypeError, ValueError: a number out of its range, an unknown ``form``.

    Source:
        Wang et al. (2024), LETS, whose alternating scheme this is; the chain rule is written out here, the paper's own form was not at
        hand. The paper replaces the Hessian by a diagonal; that it is the squared gradient is likely but not certain. The rate, the
        limits and the period of its runs are not known to us.

    Example:
        >>> from bisam import SAM, SharpnessAware
        >>> model = nn.Linear(2, 2)
        >>> learning = SAM.replace(radius=Learned(rho=0.05, rate=1.0, form="exact"))
        >>> opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), learning)
        >>> batch = Batch(model, torch.eye(2), torch.tensor([0, 1]))
        >>> _ = opt.step(batch, validation=batch)   # no gap: nothing to learn
        >>> opt.memory.rho
        0.05
    """

    rho: float
    rate: float
    form: str = "diagonal"
    every: int = 1
    least: float = 1e-3
    most: float = 1.0
    learns = True

    def __post_init__(self):
        _checks.keep(self, _checks.nonnegative, "rate")
        _checks.choice("form", self.form, ("exact", "difference", "diagonal"))
        _checks.keep(self, _checks.whole, "every")
        _checks.keep(self, _checks.positive, "least", "most", "rho")
        if self.least > self.most:
            raise ValueError(f"least must be at most most = {self.most!r}, got {self.least!r}")
        if not self.least <= self.rho <= self.most:
            raise ValueError(f"rho must be from least = {self.least!r} to most = {self.most!r}, got {self.rho!r}")

    @property
    def at_w(self) -> str | None:
        """The difference form needs the gradient of the descent loss at w."""
        return "descent" if self.form == "difference" else None

    @property
    def extra_passes(self) -> float:
        """The training and the validation batch at the new weights, and for the exact form the Hessian times u."""
        return (2 + (1 + 2 * BACKWARD if self.form == "exact" else 0)) / self.every

    def check_recipe(self, recipe) -> None:
        """Refuses choices that the derivative does not know of: a selection, a combination, in the difference form a start not kept."""
        for field in ("selection", "combination"):
            part = getattr(recipe, field)
            if part is not None:
                raise ValueError(
                    f"{field} must be None with radius Learned, whose derivative is that of a step on the whole batch with the "
                    f"gradient at the worst point; got {type(part).__name__}"
                )
        if self.form == "difference" and recipe.start is not None and not recipe.start.kept:
            raise ValueError(
                'start must be kept with radius Learned(form="difference"): the difference of two gradients is that over the climb; '
                f"got {type(recipe.start).__name__}"
            )

    def check_base(self, base: torch.optim.Optimizer, recipe: str) -> None:
        """Refuses a momentum with dampening, of which the derivative knows nothing."""
        if any(group.get("momentum") and group.get("dampening") for group in base.param_groups):
            raise ValueError(f"base must have dampening=0 with radius Learned, as in recipe {recipe!r}")

    def now(self, memory: Memory) -> float:
        return memory.state("radius").setdefault("rho", self.rho)

    def learner(self, pieces: list[Batch], validation: Batch, descent: Loss, memory: Memory) -> Hypergradient:
        return Hypergradient(self, pieces, validation, descent, is_due=(memory.step + 1) % self.every == 0)

    def update(self, hypergradient: float, memory: Memory) -> None:
        """One step of gradient descent on the radius, within its limits."""
        if math.isfinite(hypergradient):
            moved = self.now(memory) - self.rate * hypergradient
            memory.state("radius")["rho"] = min(self.most, max(self.least, moved))


class Hypergradient(Learner):
    """The derivative h of :class:`Learned`, for the step that it watches."""

    def __init__(self, radius: Learned, pieces: list[Batch], validation: Batch, descent: Loss, is_due: bool):
        self.radius, self.pieces, self.validation, self.descent = radius, pieces, validation, descent
        self.is_due = is_due  # whether the radius learns from this step
        self._unit: Tensors = {}
        self._product: Tensors = {}  # the Hessian times u, or what stands for it

    def check(self, logits: Tensor) -> None:
        if any("Checkpoint" in name for name in python_functions(logits)):
            raise ValueError(
                "model must use torch.utils.checkpoint with use_reentrant=False for a radius that learns: torch takes no gradient of some "
                "parameters alone through a re-entrant checkpoint"
            )
        self.validation.check_classes(logits)

    def climbed(self, moves: Tensors, rho: float) -> None:
        self._unit = {name: move / rho for name, move in moves.items()}
        self._rho = rho

    def descended(self, parameters: Tensors, pieces: list[Batch], share: float, at_w: Tensors, at_worst: Tensors) -> None:
        """Finds the Hessian times u at the worst point."""
        if not self.is_due:
            return
        if self.radius.form == "exact":
            product = self._exact(parameters, pieces)
        elif self.radius.form == "diagonal":
            product = {n: at_worst[n] ** 2 * u for n, u in self._unit.items() if n in at_worst}
        else:
            product = {name: (at_worst[name] - at_w[name]) / self._rho for name in at_worst if name in at_w}
        self._product = linear(self._product, 1, product, share)

    def _exact(self, parameters: Tensors, pieces: list[Batch]) -> Tensors:
        named = {name: p for name, p in parameters.items() if p.requires_grad}
        climbed = {name: p for name, p in named.items() if name in self._unit}
        total, found = sum(piece.mass for piece in pieces), {}
        if not climbed:
            return {}
        for piece in pieces:
            with nullcontext() if piece.drawn is None else piece.drawn.replayed():
                logits, term = piece.passed()
            loss = piece.mean(self.descent, logits, term) * (piece.mass / total)
            slopes = torch.autograd.grad(loss, list(climbed.values()), create_graph=True, allow_unused=True)
            slopes = {name: slope for name, slope in zip(climbed, slopes, strict=True) if slope is not None}
            u = [self._unit[name] for name in slopes]
            # For all weights: the Hessian has rows for those as well that did not climb.
            product = torch.autograd.grad(list(slopes.values()), list(named.values()), u, allow_unused=True)
            found = linear(found, 1, _copied(named, product), 1)
        return found

    def moved(self, parameters: Tensors, memory: Memory) -> None:
        if self.is_due:
            self.radius.update(self._derivative(parameters, memory.base.param_groups), memory)

    def _derivative(self, parameters: Tensors, groups: list[dict]) -> float:
        model, noise = self.pieces[0].model, self.pieces[0].random_state()
        rates = {id(p): _rate(group) for group in groups for p in group["params"]}
        named = {name: p for name, p in parameters.items() if p.requires_grad}
        with held_buffers(model, parameters.values()), noise.replayed():  # the random numbers of training go on undisturbed
            training, slope = self._loss(model, self.pieces, named)
            validation, other = self._loss(model, [self.validation], named)
        change = {name: rates[id(named[name])] * (other[name] - slope[name]) for name in slope if name in other}
        h = -(validation - training) * dot(change, self._product).to(validation)
        if (shared := distributed(model)) is not None:  # every worker has to learn the same radius
            torch.distributed.all_reduce(h, group=shared.process_group)
            h = h / torch.distributed.get_world_size(shared.process_group)
        return float(h)

    def _loss(self, model: nn.Module, pieces: list[Batch], named: Tensors) -> tuple[Tensor, Tensors]:
        total, value, gradient = sum(piece.mass for piece in pieces), 0.0, {}
        for piece in pieces:
            # Not through a wrapper for several workers, whose backward hooks wait for one backward pass a forward pass.
            logits, term = piece.on(unwrapped(model)).passed()
            loss = piece.mean(self.descent, logits, term) * (piece.mass / total)
            found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            value = value + loss.detach()
            gradient = linear(gradient, 1, _copied(named, found), 1)
        return value, gradient


def _copied(named: Tensors, found: tuple[Tensor | None, ...]) -> Tensors:
    """Gradients by name, in memory of their own: that of a CUDA graph is written over by its next replay."""
    return {name: part.clone() for name, part in zip(named, found, strict=True) if part is not None}


def _rate(group: dict) -> float:
    """How far the weights of a group move for a gradient of 1."""
    return float(group["lr"]) * (1 + group["momentum"] if group.get("nesterov") else 1)
