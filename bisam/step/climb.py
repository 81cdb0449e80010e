r"""Line 4 of Algorithm 1: the climb.

.. math:: w \;\to\; w + \epsilon, \qquad \epsilon = \arg\max_{\|\epsilon\| \le \rho} \langle \nabla A(w), \epsilon\rangle
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..axes.tensors import Tensors, euclidean_norm, linear
from .gradients import is_foreign
from .nonfinite import is_known_not_finite
from .perturbation import Displacement
from .sharded import weights_have_moved
from .step import Step


def climb(step: Step, away: Displacement, gradient: Tensors, share: float = 1.0) -> None:
    """Moves the weights to the worst point that the ascent gradient points to."""
    recipe = step.recipe
    if step.record:
        step.outcome.ascent_gradient = linear(step.outcome.ascent_gradient, 1, gradient, share)
    moves, shared_moves = moves_of(step, away, gradient)
    if step.record:
        step.outcome.length = euclidean_norm(moves)
    if step.learner is not None:
        step.learner.climbed(shared_moves, step.rho)
    if recipe.ascent_steps > 1 or (recipe.start is not None and not recipe.start.kept):
        away.back()
    move(step, away, moves)


def climb_again(step: Step, away: Displacement, gradient: Tensors) -> None:
    """Moves the weights from w to the point that leads to the next ascent gradient."""
    moves, _ = moves_of(step, away, gradient)
    away.back()
    move(step, away, moves)


def moves_of(step: Step, away: Displacement, gradient: Tensors) -> tuple[Tensors, Tensors]:
    """The perturbation that the ascent gradient points to, and the part of it that the radius of the recipe sizes."""
    names = step.active()
    direction = {name: g for name, g in gradient.items() if names is None or name in names}
    if step.recipe.direction is not None:
        direction = step.recipe.direction.filtered(direction, step.memory)
    moves: Tensors = {}
    shared_moves: Tensors = {}  # those that the radius of the recipe has a part in
    for g, rho, is_own in _balls(step, direction):
        found = _perturbation(step, g, {name: away.original(step.parameters[name]) for name in g}, rho, is_own)
        shared_moves.update({} if is_own else found)
        moves.update(found)
    return moves, shared_moves


def move(step: Step, away: Displacement, moves: Tensors) -> None:
    """Moves the weights by name."""
    if not moves:
        return
    moved = [step.parameters[name] for name in moves]
    if not away.is_away:
        away.leave(moved)
    away.add(moved, list(moves.values()))
    weights_have_moved(step.model)


def scatter(step: Step, away: Displacement) -> None:
    """Moves to where the recipe wants the ascent gradient taken, if that is not w."""
    weights = {name: p for name, p in step.parameters.items() if p.requires_grad}
    if not weights:
        return
    offset = step.recipe.start.offset({n: p for n, p in weights.items() if not is_foreign(n)}, step.memory)
    away.leave(list(weights.values()))  # all that the climb may move
    away.add(list(weights.values()), [offset[n] if n in offset else torch.zeros_like(p) for n, p in weights.items()])
    weights_have_moved(step.model)


def _balls(step: Step, direction: Tensors) -> list[tuple[Tensors, float, bool]]:
    """The tensors that share a ball, its radius, and whether that is a group's own: one for all, and one for each such group."""
    if not step.own_radii:
        return [(direction, step.rho, False)]
    owned = {name for names, _ in step.own_radii for name in names}
    shared = {name: g for name, g in direction.items() if name not in owned}
    balls = [(shared, step.rho, False)]
    balls += [({name: direction[name] for name in names if name in direction}, rho, True) for names, rho in step.own_radii]
    return [ball for ball in balls if ball[0]]


def _perturbation(step: Step, g: Tensors, w: Tensors, rho: float, is_own: bool) -> Tensors:
    """The move of one ball; nothing where the gradient is not finite, which is dealt with afterwards."""

    def length(size: Tensor) -> float | Tensor | None:
        step.outcome.note_norm(size)
        if is_known_not_finite(size) or rho == 0:
            return None
        return rho if is_own else step.recipe.radius.length(rho, size)

    if not g:  # nothing is drawn that could climb
        step.outcome.note_norm(euclidean_norm(g))
        return {}
    ball = step.recipe.geometry.prepared(w, step.memory)
    with torch.no_grad():
        return ball.worst_point(g, w, length, spare=not step.keeps_ascent)[1]
