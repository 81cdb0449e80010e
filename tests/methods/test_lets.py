"""The hypergradient of LETS is the derivative of the whole step, or the product of axes is refused."""

import pytest
import torch
from torch import nn

from bisam import (
    SAM,
    Batch,
    Constant,
    CrossEntropy,
    Decomposed,
    Learned,
    MostSensitive,
    RandomStart,
    SharpnessAware,
    TopK,
)

RHO = 0.05


def samples():
    g = torch.Generator().manual_seed(1)
    x, vx = (torch.randn(16, 6, generator=g, dtype=torch.float64) for _ in range(2))
    y, vy = (torch.randint(0, 5, (16,), generator=g) for _ in range(2))
    return x, y, vx, vy


def after_one_step(radius, base, **changes):
    """The optimiser, and half of the squared gap at the new weights."""
    x, y, vx, vy = samples()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)).double()
    opt = SharpnessAware(base(model.parameters()), SAM.replace(radius=radius, **changes), seed=3)
    opt.step(Batch(model, x, y), **({"validation": Batch(model, vx, vy)} if radius.learns else {}))
    with torch.no_grad():
        gap = float(CrossEntropy()(model(vx), vy) - CrossEntropy()(model(x), y))
    return opt, gap**2 / 2


BASES = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
}
STARTS = {"at w": None, "random": RandomStart(), "random, not kept": RandomStart(kept=False)}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_the_exact_form_is_the_derivative_of_the_whole_step(base, start):
    rate, d = 1e-4, 1e-5
    opt, _ = after_one_step(Learned(RHO, rate, form="exact", least=1e-300, most=1e300), base, start=start)
    found = (RHO - opt.memory.rho) / rate
    above, below = (after_one_step(Constant(RHO + sign * d), base, start=start)[1] for sign in (1, -1))
    assert found == pytest.approx((above - below) / (2 * d), rel=1e-3)


@pytest.mark.parametrize("changes, field", [
    ({"selection": MostSensitive(0.5)}, "selection"), ({"selection": TopK(0.5)}, "selection"),
    ({"combination": Decomposed(0.4)}, "combination"),
])  # fmt: skip
@pytest.mark.parametrize("form", ["exact", "difference", "diagonal"])
def test_what_the_derivative_does_not_know_is_refused_when_the_recipe_is_built(changes, field, form):
    with pytest.raises(ValueError, match=f"{field} must be None with radius Learned, whose derivative"):
        SAM.replace(radius=Learned(RHO, 1.0, form=form), **changes)


def test_a_difference_over_more_than_the_climb_is_refused():
    with pytest.raises(ValueError, match='start must be kept with radius Learned'):
        SAM.replace(radius=Learned(RHO, 1.0, form="difference"), start=RandomStart(kept=False))


def test_a_momentum_with_dampening_is_refused():
    weights = [nn.Parameter(torch.zeros(2))]
    with pytest.raises(ValueError, match="base must have dampening=0 with radius Learned, as in recipe 'sam'"):
        SharpnessAware(torch.optim.SGD(weights, lr=0.1, momentum=0.9, dampening=0.5), SAM.replace(radius=Learned(RHO, 1.0)))
    SharpnessAware(torch.optim.SGD(weights, lr=0.1, momentum=0.9, dampening=0.5), SAM)
