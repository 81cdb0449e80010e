"""A part from outside the package takes part, or is refused by name when the recipe is built. One of each kind, and its plain formula."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from bisam import SAM, Batch, Constant, Masked, SharpnessAware
from bisam.axes.combination import Combination
from bisam.axes.direction import Direction
from bisam.axes.geometry import Ball, Geometry
from bisam.axes.radius import Radius
from bisam.axes.selection import Selection
from bisam.axes.start import Start
from bisam.losses.loss import Loss

LR, RHO = 0.1, 0.3


@dataclass(frozen=True)
class Squared(Loss):
    """Brier's score of the logits themselves."""

    def values(self, logits, targets):
        return (logits - nn.functional.one_hot(targets, logits.shape[1])).square().sum(1)


@dataclass(frozen=True)
class Signs(Ball):
    """The box of side rho: every entry moves."""

    def norm(self, perturbation, weights):
        return torch.stack([part.abs().max() for part in perturbation.values()]).max()

    def dual_norm(self, gradient, weights):
        return torch.stack([part.abs().sum() for part in gradient.values()]).sum()

    def perturbation(self, gradient, weights, rho, dual_norm=None):
        return {name: rho * part.sign() for name, part in gradient.items()}


@dataclass(frozen=True)
class EverySecond(Geometry):
    """A set that changes: in odd steps nothing but biases."""

    def prepared(self, weights, memory):
        return Signs()

    def active(self, model, memory):
        return {"bias"} if memory.step % 2 else None


@dataclass(frozen=True)
class Halving(Radius):
    """Half as far in every step."""

    rho: float

    def now(self, memory):
        return self.rho / 2**memory.step


@dataclass(frozen=True)
class Shifted(Start):
    """The ascent gradient is taken where every entry is larger by one."""

    def offset(self, weights, memory):
        return {name: torch.ones_like(weight) for name, weight in weights.items()}


@dataclass(frozen=True)
class Backwards(Direction):
    """Down instead of up."""

    def filtered(self, gradient, memory):
        return {name: -part for name, part in gradient.items()}


@dataclass(frozen=True)
class FirstHalf(Selection):
    """The first half of the batch, before or after the climb."""

    fraction: float = 0.5
    when: str = "before"

    def chosen(self, at_w, at_worst, targets, ascent, descent):
        return torch.arange(len(targets) // 2)


@dataclass(frozen=True)
class Mean(Combination):
    """The mean of the two gradients."""

    at_w: str = "descent"

    def combined(self, r, p, memory, share=1.0):
        return {name: (part + r[name]) / 2 for name, part in p.items()}


def data(k=0, n=12):
    generator = torch.Generator().manual_seed(k)
    return torch.randn(n, 3, generator=generator, dtype=torch.float64), torch.randint(4, (n,), generator=generator)


def network():
    torch.manual_seed(0)
    return nn.Linear(3, 4).double()


def slope(weights, loss, x, y):
    leaves = [w.detach().requires_grad_() for w in weights]
    value = loss(x @ leaves[0].T + leaves[1], y)
    return torch.autograd.grad(value, leaves)


def cross_entropy(logits, y):
    return nn.functional.cross_entropy(logits, y)


def moved(weights, rho, direction):
    return [w + rho * d for w, d in zip(weights, direction, strict=True)]


def unit(gradient):
    size = torch.sqrt(sum(g.square().sum() for g in gradient))
    return [g / size for g in gradient]


def formula(part, weights, x, y, t):
    """The gradient that the base is given, written out for one part."""
    loss, rho, half = cross_entropy, RHO, slice(len(y) // 2)
    if isinstance(part, Squared):
        up = slope(weights, lambda z, y: part.values(z, y).mean(), x, y)
        return slope(moved(weights, rho, unit(up)), loss, x, y)
    g = slope(weights, loss, x, y)
    if isinstance(part, (Signs, EverySecond)):
        signs = [part_.sign() for part_ in g]
        if isinstance(part, EverySecond) and t % 2:
            signs[0] = torch.zeros_like(signs[0])
        return slope(moved(weights, rho, signs), loss, x, y)
    if isinstance(part, Halving):
        return slope(moved(weights, rho / 2**t, unit(g)), loss, x, y)
    if isinstance(part, Shifted):
        there = [w + 1 for w in weights]
        return slope(moved(there, rho, unit(slope(there, loss, x, y))), loss, x, y)
    if isinstance(part, Backwards):
        return slope(moved(weights, -rho, unit(g)), loss, x, y)
    if isinstance(part, FirstHalf):
        up = slope(weights, loss, x[half], y[half]) if part.when == "before" else g
        return slope(moved(weights, rho, unit(up)), loss, x[half], y[half])
    there = slope(moved(weights, rho, unit(g)), loss, x, y)
    return [(a + b) / 2 for a, b in zip(g, there, strict=True)]


PARTS = {
    "ascent": [Squared()], "geometry": [Signs(), EverySecond()], "radius": [Halving(RHO)], "start": [Shifted()],
    "direction": [Backwards()], "selection": [FirstHalf(), FirstHalf(when="after")], "combination": [Mean()],
}  # fmt: skip
EACH = [(axis, part) for axis, parts in PARTS.items() for part in parts]


def test_a_ball_of_ones_own_is_not_asked_where_no_tensor_is_drawn_to_climb():
    model = network()
    recipe = SAM.replace(geometry=Masked(Signs(), keep=1e-9, per="tensor"), radius=Constant(RHO))
    opt, (x, y) = SharpnessAware(torch.optim.SGD(model.parameters(), lr=LR), recipe, seed=0), data(1)
    opt.step(Batch(model, x, y))  # all tensors climb, and none in the next step
    before = [w.detach().clone() for w in model.parameters()]
    opt.step(Batch(model, x, y))
    for w, g, mine in zip(before, slope(before, cross_entropy, x, y), model.parameters(), strict=True):
        torch.testing.assert_close(mine.detach(), w - LR * g, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("axis, part", EACH, ids=lambda value: value if isinstance(value, str) else repr(value))
def test_a_part_of_ones_own_takes_part(axis, part):
    model = network()
    recipe = SAM.replace(**{"radius": Constant(RHO), axis: part})
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=LR), recipe)
    expected = [w.detach().clone() for w in model.parameters()]
    for t in range(3):
        x, y = data(t)
        opt.step(Batch(model, x, y))
        expected = moved(expected, -LR, formula(part, expected, x, y, t))
        for mine, theirs in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(mine.detach(), theirs, rtol=1e-10, atol=1e-12)


class Lacking:
    """It has the method by which its axis is known, and nothing else."""

    def values(self, logits, targets): ...

    def prepared(self, weights, memory): ...

    def now(self, memory): ...

    def offset(self, weights, memory): ...

    def filtered(self, gradient, memory): ...

    def chosen(self, *scores): ...

    def combined(self, r, p, memory, share=1.0): ...


@pytest.mark.parametrize("axis", [*PARTS, "descent"])
@pytest.mark.parametrize("part", [Lacking(), Lacking, {}, 5, torch.zeros(2)], ids=["lacking", "a class", "dict", "number", "tensor"])
def test_what_the_step_could_not_call_is_refused_by_name(axis, part):
    with pytest.raises(TypeError, match=rf"^{axis} must be a .*got"):
        SAM.replace(**{axis: part})
    if isinstance(part, Lacking):
        with pytest.raises(TypeError, match=r"of type Lacking, which lacks .*: make it a subclass of bisam\."):
            SAM.replace(**{axis: part})


def test_a_subclass_without_the_method_that_counts_cannot_be_made():
    for axis in (Geometry, Ball, Radius, Start, Direction, Selection, Combination, Loss):
        with pytest.raises(TypeError, match="abstract"):
            type("Own", (axis,), {})()


@pytest.mark.parametrize("part, message", [
    (FirstHalf(when="sometimes"), "selection: when must be one of before, after; got 'sometimes'"),
    (FirstHalf(fraction=0.0), "selection: fraction must be greater than 0 and at most 1, got 0.0"),
])  # fmt: skip
def test_a_selection_that_is_never_asked_is_refused(part, message):
    with pytest.raises(ValueError, match=message):
        SAM.replace(selection=part)
