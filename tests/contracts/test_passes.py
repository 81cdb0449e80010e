"""What `Recipe.passes` says is what a step costs: real passes, counted over ten steps for every pair of choices along two axes."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import bisam
from bisam import (  # fmt: skip
    SAM,
    Adaptive,
    Averaged,
    Batch,
    ByLearningRate,
    Constant,
    Decomposed,
    Learned,
    LookSAM,
    LossBudget,
    Lp,
    Masked,
    MostSensitive,
    Only,
    Phase,
    RandomStart,
    Schedule,
    SharpnessAware,
    TopK,
)
from bisam.axes import Unnormalised

STEPS, SAMPLES, LAYERS, WIDTH = 10, 20, 4, 5  # so many steps are whole periods of all choices
CHOICES = {
    "ascent": {"Q": bisam.BISAM_LOG.ascent},
    "geometry": {
        "adaptive": Adaptive(), "a mask over coordinates": Masked(keep=0.5), "a mask over tensors": Masked(keep=0.5, per="tensor"),
        "norm layers": Only(), "no norm": Unnormalised(), "box": Lp(float("inf")),
    },
    "radius": {
        "a ramp": Schedule((0, 10), (0.01, 0.05)), "by learning rate": ByLearningRate(0.05), "every fifth": Phase(0.05, every=5),
        "a budget": LossBudget(0.05, 0.5), "learned": Learned(0.05, 1.0), "learned every second": Learned(0.05, 1.0, every=2),
        "learned by differences": Learned(0.05, 1.0, form="difference"),
    },
    "start": {"random": RandomStart(), "random, not kept": RandomStart(kept=False)},
    "direction": {"averaged": Averaged(0.0, 1.0, decay=0.6)},
    "selection": {
        "half after": MostSensitive(0.5), "half before": TopK(0.5), "half before, by Q": TopK(0.5, by="ascent"), "all": TopK(1.0),
        "all after": MostSensitive(1.0),
    },
    "micro_batch": {"parts": 10},
    "combination": {
        "decomposed": Decomposed(0.4), "decomposed by the ascent": Decomposed(0.4, at_w="ascent"), "LookSAM": LookSAM(5),
        "LookSAM by the ascent": LookSAM(5, at_w="ascent"),
    },
}  # fmt: skip
ONE = [((axis, name),) for axis, choices in CHOICES.items() for name in choices]
PAIRS = [a + b for a, b in itertools.combinations(ONE, 2) if a[0][0] != b[0][0]]


def counted(tensor, counter, ahead, back):
    """The tensor itself; notes how often it is gone through, forward and backward."""

    def note(_):
        counter.thirds += back

    counter.thirds += ahead
    tensor = tensor.view_as(tensor)
    if tensor.requires_grad:
        tensor.register_hook(note)
    return tensor


class Net(nn.Module):
    """Layers of one size. A pass forward, the gradients of the layers' outputs and those of their weights are a third each."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weights = nn.ParameterList(torch.randn(WIDTH, WIDTH) / 2 for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.counter = SimpleNamespace(thirds=0.0)  # not an attribute of the module, which later passes leave as it was

    def forward(self, x):
        share = len(x) / SAMPLES / LAYERS
        for weight in self.weights:
            x = torch.tanh(counted(x @ counted(weight, self.counter, 0.0, share), self.counter, share, share))
        return self.norm(x)


def recipe(pair):
    return SAM.replace(**{"radius": Constant(0.05), **{axis: CHOICES[axis][name] for axis, name in pair}})


def real_passes(method):
    """Passes a step; and for a mask over tensors what luck has added to the share of the weights whose gradients are computed."""
    model = Net()
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.01), method, seed=0)
    generator, luck = torch.Generator().manual_seed(1), 0.0
    for _ in range(STEPS):
        x, y = torch.randn(SAMPLES, WIDTH, generator=generator), torch.randint(WIDTH, (SAMPLES,), generator=generator)
        drawn = opt.memory.state("geometry").get("active", {})
        is_climbing = method.radius.now(opt.memory) > 0 and (method.combination is None or method.combination.climbs(opt.memory))
        if method.geometry.is_drawn and is_climbing and method.gradient_at_w != "ascent":
            luck += sum(drawn.get(f"weights.{k}", True) for k in range(LAYERS)) / LAYERS - method.geometry.drawn_share
        opt.step(Batch(model, x, y), **({"validation": Batch(model, x, y)} if method.radius.learns else {}))
    seen = method.selection.fraction if method.selection is not None and method.selection.when == "before" else 1.0
    return model.counter.thirds / 3 / STEPS, luck * seen / 3 / STEPS


@pytest.mark.parametrize(
    "pair", [*ONE, *(pytest.param(pair, marks=pytest.mark.slow) for pair in PAIRS)], ids=lambda pair: " x ".join(name for _, name in pair)
)
def test_a_step_costs_what_the_recipe_says(pair):
    try:
        method = recipe(pair)
    except ValueError as refused:  # a product that cannot be: by name, when the recipe is built
        assert all(axis in str(refused) for axis, _ in pair), refused
        return
    found, luck = real_passes(method)
    if ("geometry", "norm layers") in pair:  # how many weights the norm layers have is the model's affair
        assert found <= method.passes + 1e-9
    else:
        # With a mask over tensors the backward pass ends at the lowest one that is drawn, on average one layer early.
        early = 1 / (2 * LAYERS) if method.geometry.is_drawn else 1e-9
        assert method.passes + luck - early <= found <= method.passes + luck + 1e-9


@pytest.mark.parametrize("form", ["exact", "diagonal"])
def test_a_radius_that_learns_in_every_second_step_pays_in_those_alone(form):
    """The exact form differentiates twice, which is not counted in whole passes here; but half as often is half as much."""
    often, seldom = (real_passes(SAM.replace(radius=Learned(0.05, 1.0, form=form, every=every)))[0] - 2 for every in (1, 2))
    assert often == pytest.approx(2 * seldom) and seldom > 0


def test_the_base_alone_costs_one_pass():
    assert real_passes(bisam.SGD)[0] == pytest.approx(1)
