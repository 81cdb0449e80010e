r"""From a batch to the gradient at the worst point: what every method does between two steps of the base.

.. math:: w \;\to\; w + \delta \;\xrightarrow{\ \nabla A\ }\; w + \delta + \epsilon \;\xrightarrow{\ \nabla L\ }\; w

Split the batch; on each part climb from w, within a set of a given shape and size, in the direction that raises the ascent loss
most; there, on some of the samples, take the gradient of the descent loss; average.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..axes.geometry import Tensors, climb_, euclidean_norm
from ..axes.selection import MostSensitive, TopK
from .batch import Batch, Noise, SharedStatistics, distributed, held_buffers, is_replayed, unwrapped
from .perturbation import Displacement, are_unheld

__all__ = ["Ascent", "Outcome"]

_NO_GRADIENT = (
    "no parameter of the base optimiser has a gradient after the first pass: "
    "the base must hold the parameters of the model, and some of those that may climb must require gradients"
)


@dataclass
class Outcome:
    """What a batch has led to, beside the gradients that the parameters hold.

    ``size`` is the dual norm of the ascent gradient, the largest among the parts. The rest is for a record.

    Source:
        Ours.

    Example:
        >>> Outcome().is_kept
        True
    """

    loss: Tensor | float = 0.0
    size: Tensor | None = None
    is_kept: bool = True
    at_w: Tensors = field(default_factory=dict)
    rise: Tensor | float = 0.0
    zero_one_rise: Tensor | float = 0.0
    rho: float = 0.0
    length: Tensor | None = None
    has_losses: bool = False

    def saw(self, size: Tensor) -> None:
        """Takes note of the ascent gradient of one more part."""
        self.size = size if self.size is None else torch.maximum(self.size, size)  # keeps a NaN


class Ascent:
    r"""One step of a recipe, up to the gradient that the base is given.

    .. math:: \sum_k \frac{n_k}{n}\,\nabla L_{\mathcal B_k}(w + \epsilon_k)

    Args:
        optimizer: the :class:`~bisam.step.optimizer.SharpnessAware` that the step is of.
        model: the network.
        scaler: a ``GradScaler``, if the losses are scaled.
        lesson: what a learned radius needs to see of the step.

    Source:
        The order of things is that of Foret et al. (2021), algorithm 1, with the places where its relatives differ.

    Example:
        >>> from bisam import SAM, Batch, SharpnessAware
        >>> model = nn.Linear(2, 2)
        >>> opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), SAM)
        >>> outcome = Ascent(opt, model).of_batch([Batch(model, torch.eye(2), torch.tensor([0, 1]))])
        >>> outcome.loss.shape, model.weight.grad.shape
        (torch.Size([]), torch.Size([2, 2]))
    """

    def __init__(self, optimizer, model: nn.Module, scaler=None, lesson=None, weight: float = 1.0):
        self.weight = weight
        self.optimizer, self.recipe, self.memory = optimizer, optimizer.recipe, optimizer.memory
        self.model, self.scaler, self.lesson = model, scaler, lesson
        self.shared, self.is_replayed = distributed(model), is_replayed(model)
        self.memory.named = dict(self._named())
        self.now = self.recipe.radius.now(self.memory)
        self.own = own_radii(optimizer)
        # Whether somebody needs the ascent gradient after the climb, which may otherwise be made in its memory.
        self.keeps_first = self.recipe.gradient_at_w == "ascent" or optimizer.record
        self.outcome = Outcome(rho=self.now)

    @property
    def climbs(self) -> bool:
        """Whether this step has a second pass."""
        if self.now == 0:
            return False
        looks = getattr(self.recipe.combination, "climbs", None)
        return looks is None or looks(self.memory)

    # -- the batch --------------------------------------------------------------------------------------------------

    def of_batch(self, pieces: list[Batch]) -> Outcome:
        """Leaves the gradient of the whole batch in the parameters, which have none when it begins."""
        total = sum(len(piece) for piece in pieces)
        for piece in pieces:
            piece.at_w = piece.at_worst = piece.chosen = None  # a batch may have been in another step before
        balls = [pieces]
        if self.climbs and self.recipe.micro_batch is not None:
            balls = [[part] for piece in pieces for part in piece.split(self.recipe.micro_batch)]
        self.statistics = SharedStatistics(self.model) if sum(map(len, balls)) > 1 else None
        self.total, self.outcome.has_losses = total, True
        one = self._of_ball if self.climbs else self._at_w
        gradient: Tensors = {}
        for ball in balls:
            share = sum(len(piece) for piece in ball) / total
            one(ball, share)
            if len(balls) > 1:
                gradient = _plus(gradient, self.optimizer._take(), share)
        if len(balls) > 1:
            self._give(gradient)
            if self.climbs and self.recipe.micro_batch is not None:
                self._note_logits(pieces, balls)
        if self.statistics is not None:
            self.statistics.settle()
        if self.shared is not None and self.optimizer.per_worker and self.outcome.size is not None:
            self.outcome.size = self._seen_by_all(self.outcome.size)
        return self.outcome

    @staticmethod
    def _note_logits(pieces: list[Batch], balls: list[list[Batch]]) -> None:
        """The logits of batches that went through the model in parts."""
        found = iter(part for ball in balls for part in ball)
        for piece in pieces:
            parts, n = [], 0
            while n < len(piece):
                parts.append(next(found))
                n += len(parts[-1])
            piece.take_logits(parts)
            if all(part.chosen is not None for part in parts):
                piece.chosen = Batch.joined([part.chosen for part in parts])

    def _at_w(self, pieces: list[Batch], share: float) -> None:
        """A step of the base alone: one pass, and the whole batch."""
        for piece, part in _parts(pieces):
            with self._counted(piece):
                logits = _with_graph(piece.logits())
            piece.at_w = logits.detach().clone()  # the memory of the logits may be that of a CUDA graph
            loss = self.recipe.descent.values(logits, piece.targets).mean()
            self._backward(_part(loss, part))
            self._note_loss(piece, loss)
        if hasattr(self.recipe.combination, "alone"):
            unscaled = self.unscaled(self.optimizer._take())
            self._give(self._scaled(self.recipe.combination.alone(unscaled, self.memory)))

    def _of_ball(self, pieces: list[Batch], share: float) -> None:
        """One climb, on the samples of some pieces, and the gradient of the descent loss from there."""
        recipe = self.recipe
        is_ranked = isinstance(recipe.selection, TopK) and recipe.selection.fraction < 1
        if is_ranked:
            pieces = self._ranked(pieces)
        with self._displaced() as away:
            if recipe.start is not None:
                self._look_at_w(pieces, is_ranked)
            self._scatter(away)
            first, extra = self._first_pass(pieces, is_ranked)
            at_w = first if recipe.gradient_at_w == "ascent" else extra
            self.keeps_first = self.keeps_first or not are_unheld(first)  # a hook may have kept them
            self._climb(away, first)
            with held_buffers(self.model):
                for piece, part in _parts(pieces):
                    self._descend(piece, part, share)
                if self.lesson is not None:
                    self.lesson.look(self, pieces, share, at_w)
        self._combine(at_w, share)

    # -- the first pass -----------------------------------------------------------------------------------------------

    def _ranked(self, pieces: list[Batch]) -> list[Batch]:
        """The samples that both passes see; the pass that ranks them is the one that statistics count."""
        recipe, found = self.recipe, []
        for piece in pieces:
            self._remember_noise(piece)
            with torch.no_grad(), self._counted(piece):
                piece.at_w = piece.logits().clone()
            self._note_loss(piece)
            places = recipe.selection.chosen(piece.at_w, piece.targets, recipe.raised, recipe.descent)
            piece.chosen = piece.subset(places)
            found.append(piece.chosen)
        return found

    def _remember_noise(self, piece: Batch) -> None:
        """Called before the first pass over a piece, whose dropout masks the others are to draw again."""
        piece.drawn = piece.noise() if self.recipe.same_noise else None

    def _look_at_w(self, pieces: list[Batch], is_ranked: bool) -> None:
        """A pass at w for the record, where the first pass is elsewhere: it draws the same numbers and leaves no trace."""
        noise = pieces[0].noise()
        with torch.no_grad(), held_buffers(self.model), noise.replayed():
            for piece in pieces:
                with replayed(piece) if is_ranked else nullcontext():
                    piece.at_w = piece.logits().clone()

    def _scatter(self, away: Displacement) -> None:
        """Moves to where the recipe wants the ascent gradient taken, if that is not w."""
        if self.recipe.start is None:
            return
        weights = {name: p for name, p in self._named() if p.requires_grad}
        if not weights:
            return
        offset = self.recipe.start.offset({n: p for n, p in weights.items() if not _is_foreign(n)}, self.memory)
        away.leave(list(weights.values()))  # all that the climb may move
        away.add(list(weights.values()), [offset[n] if n in offset else torch.zeros_like(p) for n, p in weights.items()])
        torch.clear_autocast_cache()

    def _first_pass(self, pieces: list[Batch], is_ranked: bool) -> tuple[Tensors, Tensors]:
        """The ascent gradient, and the descent gradient at the same place where the recipe needs it too."""
        recipe, first, extra = self.recipe, {}, {}
        inputs = self._needed()
        for piece, part in _parts(pieces):
            if not is_ranked:
                self._remember_noise(piece)
            # The backward passes belong inside: norm layers look at their statistics again.
            with self._on_this_worker(), held_buffers(self.model) if is_ranked else self._counted(piece):
                with replayed(piece) if is_ranked else nullcontext():
                    logits = _with_graph(piece.logits())
                if recipe.gradient_at_w == "descent":
                    loss = _part(recipe.descent.values(logits, piece.targets).mean(), part)
                    extra = _plus(extra, self.plain_gradient(loss), 1.0)
                at_w = piece.at_w  # there already where this pass is not at w
                value = self._raise(logits, piece, part, inputs)
                if recipe.start is not None:
                    piece.at_w, value = at_w, None
            if len(pieces) > 1:
                first = _plus(first, self.optimizer._take(), 1.0)
            if not is_ranked:
                self._note_loss(piece, value)
            if self.lesson is not None:
                self.lesson.check(logits)
        first = first if len(pieces) > 1 else self.optimizer._take()
        if not first and inputs != [] and (inputs is None or not is_drawn(self.recipe.geometry)):
            raise RuntimeError(_NO_GRADIENT)
        if extra:
            self.outcome.saw(euclidean_norm(extra))  # nobody else would notice that it is not finite
        return self.unscaled(first), extra

    def _note_loss(self, piece: Batch, value: Tensor | None = None) -> None:
        if value is None:
            value = self.recipe.descent.values(piece.at_w, piece.targets).mean()
        self.outcome.loss = self.outcome.loss + _part(value.detach(), len(piece) / self.total)

    def _raise(self, logits: Tensor, piece: Batch, part: float, inputs: list[Tensor] | None) -> Tensor | None:
        """Backward from the ascent loss; from its gradient for the logits where the loss knows it in closed form.

        Returns the descent loss, where that is what is raised.
        """
        piece.at_w = logits.detach().clone()
        loss = self.recipe.raised
        if inputs == []:
            return None  # no tensor was drawn: nothing climbs
        if hasattr(loss, "gradient"):
            # Factors come before the rounding to half precision, in which a gradient of far margins would vanish.
            one = torch.ones((), device=logits.device)
            scale = part if self.scaler is None else self._scaled_one(one) * part
            logits.backward(loss.gradient(logits, piece.targets, scale), inputs=inputs)
            self._keep_gradients()
            return None
        value = loss.values(logits, piece.targets).mean()
        self._backward(_part(value, part), inputs)
        return value if loss is self.recipe.descent else None

    def _needed(self) -> list[Tensor] | None:
        """The parameters whose ascent gradient is needed, or ``None`` for all."""
        if self.keeps_first or self._is_shared:  # workers wait for the gradients of all parameters
            return None
        names = self._active()
        if names is None:
            return None
        found = [p for name, p in self._named() if name in names and p.requires_grad]
        may_be_none = is_drawn(self.recipe.geometry)
        if not found and not (may_be_none and any(not _is_foreign(name) for name, _ in self._named())):
            raise RuntimeError(_NO_GRADIENT)
        return found

    def _active(self) -> set[str] | None:
        """The names of the parameters that may climb, or ``None`` for all."""
        if not hasattr(self.recipe.geometry, "active"):
            return None
        return self.recipe.geometry.active(unwrapped(self.model), self.memory)

    # -- the climb ----------------------------------------------------------------------------------------------------

    def _climb(self, away: Displacement, gradient: Tensors) -> None:
        """Moves the weights to the worst point that the gradient points to."""
        recipe, names = self.recipe, self._active()
        direction = {name: g for name, g in gradient.items() if names is None or name in names}
        if recipe.direction is not None:
            direction = recipe.direction.filtered(direction, self.memory)
        if self.optimizer.record:
            self.outcome.at_w = _plus(self.outcome.at_w, gradient, 1.0)
        named = {name: p for name, p in self._named() if name in direction}
        moves: Tensors = {}
        shared_moves: Tensors = {}  # those that the learned radius has a part in
        for names_of_ball, rho in self._balls(direction):
            g, w = ({n: tensors[n] for n in names_of_ball} for tensors in (direction, named))
            is_own = any(owned is names_of_ball for owned in self._owned)
            moved_now = self._perturbation(g, {n: away.home(p) for n, p in w.items()}, rho, is_own)
            shared_moves.update({} if is_own else moved_now)
            moves.update(moved_now)
        if self.optimizer.record:
            self.outcome.length = euclidean_norm(moves)
        if self.lesson is not None:
            self.lesson.climbed(shared_moves, self.now)
        if recipe.start is not None and not recipe.start.kept:
            away.back()
        if not moves:
            return
        moved = [named[name] for name in moves]
        if not away.is_away:
            away.leave(moved)
        away.add(moved, list(moves.values()))
        torch.clear_autocast_cache()  # casts of the weights as they were would switch the method off without a word

    def _balls(self, direction: Tensors) -> list[tuple[list[str], float]]:
        """The names that share a ball, with its radius: one for all, and one for each group with a radius of its own."""
        self._owned: list[list[str]] = []
        if not self.own:
            return [(list(direction), self.now)]
        groups = self.optimizer.param_groups
        members = {id(p): g for g, group in enumerate(groups) for p in group["params"]}
        owner = {name: members[id(p)] for name, p in self._named()}
        shared = [name for name in direction if owner[name] not in self.own]
        found = [(shared, self.now)] if shared else []
        for g, rho in self.own.items():
            self._owned.append([name for name in direction if owner[name] == g])
            found.append((self._owned[-1], rho))
        return [(names, rho) for names, rho in found if names]

    def _perturbation(self, g: Tensors, w: Tensors, now: float, is_own: bool = False) -> Tensors:
        """The move of one ball; nothing where the gradient is not finite, which is dealt with afterwards."""
        geometry = self.recipe.geometry
        if hasattr(geometry, "prepared"):
            geometry = geometry.prepared(w, self.memory)
        in_place = hasattr(geometry, "stretch_") and not self.keeps_first  # nobody needs g any more
        with torch.no_grad():
            if in_place:
                geometry.stretch_(g, w)
            size = euclidean_norm(g) if in_place else geometry.dual_norm(g, w)
            self.outcome.saw(size)
            if _is_known_not_finite(size) or now == 0:
                return {}
            length = getattr(self.recipe.radius, "length", None)
            rho = now if length is None or is_own else length(now, size)
            return climb_(geometry, g, w, size, rho) if in_place else geometry.perturbation(g, w, rho, size)

    # -- the second pass ----------------------------------------------------------------------------------------------

    def _descend(self, piece: Batch, part: float, share: float) -> None:
        """Backward from the descent loss at the worst point, on the samples that are chosen."""
        selection = self.recipe.selection
        if isinstance(selection, MostSensitive) and selection.fraction < 1:
            with torch.no_grad(), replayed(piece):
                there = piece.logits().clone()
            piece.at_worst = there
            self._note_rise(piece, there, part * share)
            values = self.recipe.raised.values
            places = selection.chosen(values(piece.at_w, piece.targets), values(there, piece.targets))
            piece = piece.subset(places)
        with replayed(piece):
            logits = piece.logits()
        if piece.at_w is not None:
            piece.at_worst = logits.detach().clone()
            self._note_rise(piece, piece.at_worst, part * share)
        self._backward(_part(self.recipe.descent.values(logits, piece.targets).mean(), part))

    def _note_rise(self, piece: Batch, there: Tensor, part: float) -> None:
        """How much worse the samples fare at the worst point, for the record."""
        if not self.optimizer.record:
            return
        for name, values in (("rise", self.recipe.descent.values), ("zero_one_rise", _wrong)):
            change = values(there, piece.targets).mean() - values(piece.at_w, piece.targets).mean()
            setattr(self.outcome, name, getattr(self.outcome, name) + part * change)

    def _combine(self, at_w: Tensors, share: float) -> None:
        """What the base is given, where it is not the gradient at the worst point alone."""
        if self.recipe.combination is None:
            return
        at_worst = self.unscaled(self.optimizer._take())
        if self.shared is not None and self.optimizer.per_worker:
            at_w = self._over_workers(at_w)  # all workers must give their bases the same gradient
        with torch.no_grad():
            self._give(self._scaled(self.recipe.combination.combined(at_w, at_worst, self.memory, share * self.weight)))

    # -- the block of a loop that is not ours ---------------------------------------------------------------------------

    @contextmanager
    def block(self, gradient: Tensors, noise: Noise | None) -> Iterator[Outcome]:
        """Inside, the weights stand where the gradient points to."""
        self.keeps_first = self.keeps_first or not are_unheld(gradient)  # the caller may have kept them
        with self._displaced() as away:
            if self.climbs:
                self._climb(away, gradient)
            with held_buffers(self.model), nullcontext() if noise is None else noise.replayed():
                yield self.outcome
        if self.recipe.gradient_at_w == "ascent":
            self._combine(gradient, 1.0)

    # -- gradients ----------------------------------------------------------------------------------------------------

    def _backward(self, loss: Tensor, inputs: list[Tensor] | None = None) -> None:
        self._scaled_one(loss).backward(inputs=inputs)
        self._keep_gradients()

    def _keep_gradients(self) -> None:
        """Takes the gradients out of the memory of a CUDA graph, before its next replay writes over them."""
        if self.is_replayed:
            for _, parameter in self._named():
                parameter.grad = None if parameter.grad is None else parameter.grad.clone()

    def plain_gradient(self, loss: Tensor) -> Tensors:
        """The gradient of a loss by name, on the side: the parameters keep theirs. The graph is kept as well."""
        named = {name: p for name, p in self._named() if p.requires_grad}
        if not named:
            return {}
        found = torch.autograd.grad(
            self._scaled_one(loss), list(named.values()), retain_graph=True, allow_unused=True
        )
        gradient = {
            name: g.clone() if self.is_replayed else g for name, g in zip(named, found, strict=True) if g is not None
        }
        return self.unscaled(self._over_workers(gradient) if self._is_shared else gradient)

    @property
    def _is_shared(self) -> bool:
        """Whether the ascent gradient is that of several workers together."""
        return self.shared is not None and not self.optimizer.per_worker

    def _over_workers(self, gradient: Tensors) -> Tensors:
        """The mean over all workers; gradients of backward() outside ``no_sync`` are averaged by the model itself."""
        for g in gradient.values():
            torch.distributed.all_reduce(g, group=self.shared.process_group)
            g.div_(torch.distributed.get_world_size(self.shared.process_group))
        return gradient

    def _seen_by_all(self, size: Tensor) -> Tensor:
        """The size on this worker, or NaN if that of any worker is not finite: all must skip the same steps."""
        device = next(iter(self._named()))[1].device  # the norm of no tensors is on the CPU, where nccl cannot reach it
        accidents = (~torch.isfinite(size)).to(device, torch.float32)
        torch.distributed.all_reduce(accidents, group=self.shared.process_group)
        return torch.where(accidents > 0, torch.nan, size.to(device))

    def unscaled(self, gradient: Tensors) -> Tensors:
        """Without the factor of the scaler."""
        if self.scaler is not None and gradient:
            torch._foreach_mul_(list(gradient.values()), 1 / self._factor(gradient))
        return gradient

    def _scaled(self, gradient: Tensors) -> Tensors:
        if self.scaler is not None and gradient:
            return {name: g * self._factor(gradient) for name, g in gradient.items()}
        return gradient

    def _factor(self, gradient: Tensors) -> Tensor:
        return self.scaler.scale(torch.ones((), device=next(iter(gradient.values())).device))

    def _scaled_one(self, loss: Tensor) -> Tensor:
        return loss if self.scaler is None else self.scaler.scale(loss)

    def _give(self, gradient: Tensors) -> None:
        """Puts a gradient into the parameters, which have none."""
        for name, parameter in self._named():
            parameter.grad = gradient.get(name)

    # -- what surrounds a pass ----------------------------------------------------------------------------------------

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        return self.optimizer.named_parameters(self.optimizer._names)

    def _counted(self, piece: Batch):
        """Around a pass at w, whose batch-norm statistics count; shared by the pieces of a step."""
        return nullcontext() if self.statistics is None else self.statistics.part(len(piece) / self.total)

    def _on_this_worker(self):
        """Keeps the ascent gradient to this worker, if every worker is to climb by itself."""
        alone = self.optimizer.per_worker and hasattr(self.model, "no_sync")
        return self.model.no_sync() if alone else nullcontext()

    @contextmanager
    def _displaced(self) -> Iterator[Displacement]:
        """The weights are back afterwards, come what may, and no cast of moved weights is kept by autocast."""
        away = self.optimizer.displacement
        try:
            yield away
        finally:
            away.back()
            torch.clear_autocast_cache()


def _with_graph(logits: Tensor) -> Tensor:
    """Logits that a gradient can be taken of, or an error that says what to do."""
    if not logits.requires_grad:
        raise ValueError(
            "model must have a parameter that requires a gradient and leads to the logits: unfreeze some with "
            "requires_grad_(True), and keep torch.no_grad() out of its forward pass"
        )
    return logits


def replayed(piece: Batch):
    """Around another pass over a piece: the random numbers of its first pass come again, if the recipe says so."""
    return nullcontext() if piece.drawn is None else piece.drawn.replayed()


def _parts(pieces: list[Batch]) -> list[tuple[Batch, float]]:
    """Each piece with its share of the samples of all."""
    total = sum(len(piece) for piece in pieces)
    return [(piece, len(piece) / total) for piece in pieces]


def _part(loss: Tensor, share: float) -> Tensor:
    return loss if share == 1 else loss * share


def _plus(a: Tensors, b: Tensors, factor: float) -> Tensors:
    """The sum a + factor b by name; a name of one side only has its own part."""
    found = dict(a)
    for name, part in b.items():
        part = part if factor == 1 else part * factor
        found[name] = found[name] + part if name in found else part
    return found


def is_drawn(geometry) -> bool:
    """Whether the tensors that may climb are drawn, so that by bad luck none of them has a gradient."""
    return getattr(geometry, "per", None) == "tensor" or (hasattr(geometry, "inner") and is_drawn(geometry.inner))


def _wrong(logits: Tensor, targets: Tensor) -> Tensor:
    return (logits.argmax(1) != targets).to(torch.promote_types(logits.dtype, torch.float32))


def own_radii(optimizer) -> dict[int, float]:
    """The radii of the parameter groups that have one of their own; Adadelta has a ``rho`` that is something else."""
    if "rho" in optimizer.defaults:
        return {}
    groups = enumerate(optimizer.param_groups)
    found = {g: group["rho"] for g, group in groups if "rho" in group}
    return {g: float(rho) if isinstance(rho, Tensor) else rho for g, rho in found.items()}


def _is_foreign(name: str) -> bool:
    """Whether a parameter of the base is not among the model's."""
    return name.startswith("parameter ")


def _is_known_not_finite(number: Tensor) -> bool:
    return number.device.type == "cpu" and not bool(torch.isfinite(number))  # elsewhere the look would stop the device
