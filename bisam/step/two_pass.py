r"""From a batch to the gradient at the worst point, in the order of Algorithm 1.

.. math:: w \;\to\; w + \delta \;\xrightarrow{\ \nabla A\ }\; w + \delta + \epsilon \;\xrightarrow{\ \nabla L\ }\; w

Line 3: the gradient of the ascent loss at w. Line 4: the climb to :math:`w + \epsilon`. Line 5: the gradient of the descent loss
there. Line 6, the move from w, is the base's. With a ball for each part of a batch, the gradients of the parts are averaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .. import _look
from ..axes.tensors import Tensors, linear
from . import gradients
from .batch import Batch
from .buffers import SharedStatistics
from .climb import climb, climb_again, scatter
from .first_pass import ascent_gradient, ascent_gradient_nearby, look_at_w, ranked
from .passes import (
    backward,
    counted,
    kept,
    mean_of_values,
    note_loss,
    parts_of,
    weighted,
    with_graph,
    with_terms,
)
from .perturbation import Displacement, are_unheld
from .second_pass import alone, combine, descend, teach
from .sharded import synchronised, weights_have_moved
from .step import Step


def gradient_at_worst_point(step: Step, pieces: list[Batch]) -> None:
    r"""Leaves :math:`\sum_k \frac{n_k}{n}\,\nabla L_{\mathcal B_k}(w + \epsilon_k)` in the parameters, which have no gradient when it begins.

    Source:
        Foret et al. (2021), algorithm 1, with the places where its relatives differ.
    """
    for piece in pieces:
        piece.forget()
    is_split = step.climbs and step.recipe.micro_batch is not None
    balls = [[part] for piece in pieces for part in piece.split(step.recipe.micro_batch)] if is_split else [pieces]
    step.statistics = SharedStatistics(step.model) if sum(map(len, balls)) > 1 else None
    step.total, step.outcome.has_losses = sum(len(piece) for piece in pieces), True
    step.mass = step.total if all(piece.is_plain for piece in pieces) else sum(piece.mass for piece in pieces)
    for ball in balls:
        balance(step, ball, is_one=len(balls) == 1 and len(ball) == 1)
    one_ball = climb_and_descend if step.climbs else descend_at_w
    gradient: Tensors = {}
    for ball in balls:
        share = 1.0 if len(balls) == 1 else sum(piece.mass for piece in ball) / step.mass
        with synchronised(step.shared):
            one_ball(step, ball, share)
        if len(balls) > 1:
            gradient = linear(gradient, 1, gradients.take(step.parameters), share)
    if len(balls) > 1:
        gradients.put(step.parameters, gradient)
        if is_split:
            note_logits(pieces, balls)
    if step.statistics is not None:
        step.statistics.settle()
    tell_all(step)


def balance(step: Step, pieces: list[Batch], is_one: bool) -> None:
    """Each piece will count by the weights of its samples; its extra terms are means over samples, and shall count by their number."""
    for piece in pieces:
        if piece.extra is None or piece.is_plain or is_one:
            continue
        if _look.is_free(piece.targets) and float(piece.mass) == 0:
            raise ValueError("no target of a part of the batch counts, so that its extra terms would be lost: give the samples in one batch")
        piece.tilt = len(piece) / step.total / (piece.mass / step.mass)


def climb_and_descend(step: Step, pieces: list[Batch], share: float) -> None:
    """Lines 3 to 5 for the samples of one ball; the weights are back at w afterwards, come what may."""
    pieces, is_ranked = ranked(step, pieces)
    with displaced(step) as away:
        if step.recipe.start is not None:
            look_at_w(step, pieces, is_ranked)
            scatter(step, away)
        with gradients.left_alone(step.others):
            ascent, descent_at_w = ascent_gradient(step, pieces, is_ranked)  # line 3
            for _ in range(step.recipe.ascent_steps - 1):
                look_who_holds(step, ascent)
                climb_again(step, away, ascent)
                ascent = ascent_gradient_nearby(step, pieces)
        at_w = ascent if step.recipe.gradient_at_w == "ascent" else descent_at_w
        look_who_holds(step, ascent)
        climb(step, away, ascent, share)  # line 4
        with step.held(others=any(piece.forward or piece.extra for piece in pieces)):
            for piece, part in parts_of(pieces):
                descend(step, piece, part, share)  # line 5
            if step.learner is not None:
                teach(step, pieces, share, at_w)
    combine(step, at_w, share)


def look_who_holds(step: Step, ascent: Tensors) -> None:
    """A hook may have kept the gradients of a pass: then the climb must not write over them."""
    step.keeps_ascent = step.keeps_ascent or not are_unheld(ascent)


def descend_at_w(step: Step, pieces: list[Batch], share: float) -> None:
    """A step without a climb: one pass, and the whole batch."""
    for piece, part in parts_of(pieces):
        with counted(step, piece):
            logits, term = piece.passed()
        piece.at_w = kept(with_graph(logits))
        loss = with_terms(piece, mean_of_values(step.recipe.descent, piece, logits), term, "at_w")
        backward(step, weighted(loss, part))
        note_loss(step, piece, loss)
    alone(step)


def tell_all(step: Step) -> None:
    """Where every worker climbs by itself, all are told of an accident in the first pass of any."""
    if step.shared is not None and step.per_worker and step.outcome.first_norm is not None:
        device = next(iter(step.parameters.values())).device
        step.outcome.beside = gradients.seen_by_all(step.outcome.first_norm, device, step.shared)


@contextmanager
def displaced(step: Step) -> Iterator[Displacement]:
    """The weights are back afterwards, come what may, and no cast of moved weights is kept by autocast."""
    try:
        yield step.away
    finally:
        step.away.back()
        weights_have_moved(step.model)


def note_logits(pieces: list[Batch], balls: list[list[Batch]]) -> None:
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
