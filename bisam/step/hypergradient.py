r"""How the radius of a step changed the gap between validation and training loss after it: the lesson that LETS learns.

.. math::
    h = \frac{d}{d\rho}\,\tfrac12\big(L^{vl} - L^{tr}\big)^2(w_{t+1}(\rho)), \qquad
    w_{t+1}(\rho) = w_t - \eta\,\nabla L^{tr}(w_t + \rho u)
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from .. import _checks
from ..axes.combination import dot
from ..axes.geometry import Tensors
from .batch import Batch, distributed, held_buffers, unwrapped

__all__ = ["Lesson"]


class Lesson:
    r"""What one step teaches about the radius.

    .. math::
        h = -(L^{vl} - L^{tr})\,\big\langle \eta\,(\nabla L^{vl} - \nabla L^{tr}),\; \nabla^2 L^{tr}(w_t + \epsilon)\,u \big\rangle,
        \qquad u = \epsilon / \rho

    Losses and their gradients are at the new weights, with the batch-norm statistics held. The derivative is that for a base
    that moves by :math:`-\eta` times the gradient; for a base with momentum it is the derivative for this step alone, for
    Adam a stand-in.

    Args:
        pieces: the training batch.
        validation: the validation batch.

    Source:
        Wang et al. (2024), the alternating scheme of LETS; the chain rule is written out here, the paper's own form was
        not at hand.

    Example:
        >>> from bisam import SAM, Learned, SharpnessAware
        >>> model = nn.Linear(2, 2)
        >>> learning = SAM.replace(radius=Learned(rho=0.05, rate=1.0, form="exact"))
        >>> opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), learning)
        >>> batch = Batch(model, torch.eye(2), torch.tensor([0, 1]))
        >>> _ = opt.step(batch, validation=batch)   # no gap: nothing to learn
        >>> opt.memory.rho
        0.05
    """

    def __init__(self, pieces: list[Batch], validation: Batch):
        self.pieces, self.validation = pieces, validation
        self._unit: Tensors = {}
        self._product: Tensors = {}  # the Hessian times u, or what stands for it

    def check(self, logits: Tensor) -> None:
        """Looks at the validation targets while nothing has moved."""
        if logits.device.type == "cpu":
            _checks.in_range(self.validation.targets, logits.shape[1])

    def climbed(self, moves: Tensors, rho: float) -> None:
        """Takes note of the climb of this step."""
        self._unit = {name: move / rho for name, move in moves.items()}

    def look(self, ascent, pieces: list[Batch], share: float, at_w: Tensors) -> None:
        """Called at the worst point, after the gradient there is known: finds the Hessian times u."""
        form = ascent.recipe.radius.form
        if form == "exact":
            product = self._exact(ascent, pieces)
        else:
            at_worst = {n: p.grad.detach().clone() for n, p in ascent._named() if p.grad is not None}
            at_worst = ascent.unscaled(at_worst)
            if form == "diagonal":
                product = {n: at_worst[n] ** 2 * u for n, u in self._unit.items() if n in at_worst}
            else:
                both = [name for name in at_worst if name in at_w]
                product = {name: (at_worst[name] - at_w[name]) / ascent.now for name in both}
        for name, part in product.items():
            self._product[name] = self._product.get(name, 0.0) + share * part

    def _exact(self, ascent, pieces: list[Batch]) -> Tensors:
        named = {name: p for name, p in ascent._named() if p.requires_grad}
        weights = list(named.values())  # all rows of the Hessian, also those of weights that did not climb
        climbed = [name for name in named if name in self._unit]
        moved, u = [named[name] for name in climbed], [self._unit[name] for name in climbed]
        total, found = sum(len(piece) for piece in pieces), {}
        if not moved:
            return {}
        for piece in pieces:
            with nullcontext() if piece.drawn is None else piece.drawn.replayed():
                logits = piece.logits()
            loss = ascent.recipe.descent.values(logits, piece.targets).mean() * (len(piece) / total)
            slopes = torch.autograd.grad(loss, moved, create_graph=True, allow_unused=True)
            seen = [(slope, part) for slope, part in zip(slopes, u, strict=True) if slope is not None]
            slopes, along = [slope for slope, _ in seen], [part for _, part in seen]
            product = torch.autograd.grad(slopes, weights, along, allow_unused=True)
            for name, part in zip(named, product, strict=True):
                if part is not None:
                    found[name] = found.get(name, 0.0) + part
        return found

    def hypergradient(self, optimizer) -> float:
        r"""The derivative h, after the base has made its step.

        Args:
            optimizer: the :class:`~bisam.step.optimizer.SharpnessAware` whose step it was.
        """
        model = self.pieces[0].model
        noise = self.pieces[0].noise()
        rates = {id(p): float(group["lr"]) for group in optimizer.param_groups for p in group["params"]}
        named = {name: p for name, p in optimizer.named_parameters(optimizer._names) if p.requires_grad}
        with held_buffers(model), noise.replayed():  # the random numbers of training go on undisturbed
            training, slope = self._loss(model, self.pieces, named, optimizer.recipe.descent)
            validation, other = self._loss(model, [self.validation], named, optimizer.recipe.descent)
        change = {name: rates[id(named[name])] * (other[name] - slope[name]) for name in slope if name in other}
        h = -(validation - training) * dot(change, self._product).to(validation)
        if (shared := distributed(model)) is not None:  # every worker has to learn the same radius
            torch.distributed.all_reduce(h, group=shared.process_group)
            h = h / torch.distributed.get_world_size(shared.process_group)
        return float(h)

    @staticmethod
    def _loss(model: nn.Module, pieces: list[Batch], named: dict[str, Tensor], descent) -> tuple[Tensor, Tensors]:
        total, value, gradient = sum(len(piece) for piece in pieces), 0.0, {}
        for piece in pieces:
            # Not through a wrapper for several workers, whose backward hooks wait for one backward pass a forward pass.
            logits = Batch(unwrapped(model), piece.inputs, piece.targets, piece.autocast).logits()
            loss = descent.values(logits, piece.targets).mean() * (len(piece) / total)
            found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            value = value + loss.detach()
            for name, part in zip(named, found, strict=True):
                if part is not None:
                    gradient[name] = gradient.get(name, 0.0) + part
        return value, gradient
