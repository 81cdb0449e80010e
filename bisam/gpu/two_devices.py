"""A step on the GPU beside the same step on the CPU: every method in float32 and bfloat16, and float16 with a scaler."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import torch
from torch import nn

from ..axes import memory
from ..axes.recipe import Recipe
from ..axes.schedules import Phase
from ..methods.table import RECIPES
from ..step.batch import Batch
from ..step.optimizer import SharpnessAware
from ..training import Run
from ..training.run import PRECISIONS
from ..training.state import base_optimizer
from .deviations import Wrong, at_most, distance, weights_of
from .lines import Stage

EXACT = 1e-3  # of the way of a training: float32 on two kinds of machine, which add in different orders
OF_STEPS = 1e-4  # the same of two steps of a network without kinks, where the CPU's own rounding is 3e-6
WIDTHS = (3, 16, 32, 64)  # channels of the network, each half as high and wide
ROUNDED = 3.0  # times as far from float32 as the CPU's own bfloat16 is, and no more


def step(stage: Stage, name: str, precision: str) -> float:
    """Two steps of a method on the device, and as the CPU makes them in float32; the difference as a share of what the steps did."""
    start = weights_of(_net())
    exact = weights_of(_after(name, "cpu", "float32"))
    there = weights_of(_after(name, stage.device, precision))
    deviation = distance(there, exact, start)
    if precision == "float32":
        return at_most(deviation, OF_STEPS, "of the update, against the CPU")
    own = distance(weights_of(_after(name, "cpu", precision)), exact, start)
    return at_most(deviation, ROUNDED * own + 0.02, f"of the update; bfloat16 on the CPU is {own:.3g} away from float32")


def _net() -> nn.Module:
    """A small network without kinks: where a sum is 0 up to rounding, the last bit decides on which side of a kink it lies, and machines add in different orders."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for inside, outside in itertools.pairwise(WIDTHS):
            layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.GELU(), nn.AvgPool2d(2)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDTHS[-1] * 2 * 2, 10))


def _after(name: str, device: str, precision: str) -> nn.Module:
    model = _net().to(device)
    recipe = exercised(RECIPES[name], start=1, micro_batch=8)
    run = Run(recipe=recipe, lr=0.05, batch_size=32, device=device)
    opt = SharpnessAware(base_optimizer(run, model, 1000), recipe, seed=0, nonfinite="skip" if device != "cpu" else "raise")
    generator = torch.Generator().manual_seed(1)
    with drawn_on_the_cpu():
        for _ in range(2):
            batch, lesson = (_batch(model, device, precision, generator) for _ in range(2))
            opt.step(batch, validation=lesson if recipe.radius.learns else None)
    return model


def _batch(model: nn.Module, device: str, precision: str, generator: torch.Generator) -> Batch:
    inputs, targets = torch.randn(32, 3, 16, 16, generator=generator), torch.randint(10, (32,), generator=generator)
    return Batch(model, inputs.to(device), targets.to(device), PRECISIONS[precision])


def exercised(recipe: Recipe, start: int, micro_batch: int) -> Recipe:
    """The method with settings at which few steps show what it does."""
    if recipe.name in ("late-sam", "sam-every-k"):
        recipe = recipe.replace(radius=Phase(recipe.radius.rho, start=start))
    return recipe.replace(micro_batch=micro_batch) if recipe.micro_batch else recipe


@contextlib.contextmanager
def drawn_on_the_cpu() -> Iterator[None]:
    """Masks and random starts come from one generator on the CPU, so that two devices climb the same way."""
    mine, rand, randn = memory.Memory.generator, torch.rand, torch.randn

    def here(draw):
        def drawn(*shape, generator=None, device=None, **more):
            if generator is None:
                return draw(*shape, device=device, **more)
            return draw(*shape, generator=generator, **more).to(device or "cpu")

        return drawn

    memory.Memory.generator = lambda self, device: mine(self, torch.device("cpu"))
    torch.rand, torch.randn = here(rand), here(randn)
    try:
        yield
    finally:
        memory.Memory.generator, torch.rand, torch.randn = mine, rand, randn


def _scaled(stage: Stage, name: str, scale: float | None) -> tuple[nn.Module, torch.amp.GradScaler | None]:
    """After two steps in float16 with a scaler that begins at a scale; without one, in float32."""
    model, generator = _net().to(stage.device), torch.Generator().manual_seed(1)
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), RECIPES[name], seed=0)
    scaler = None if scale is None else torch.amp.GradScaler(stage.device.partition(":")[0], init_scale=scale)
    for _ in range(2):
        batch = _batch(model, stage.device, "float32", generator)
        if scaler is None:
            opt.step(batch)
            continue
        batch.autocast = torch.float16
        opt.step(batch, scaler=scaler)
        scaler.update()
    return model, scaler


def scaler(stage: Stage, name: str) -> float:
    scaled, exact = (weights_of(_scaled(stage, name, scale)[0]) for scale in (2.0**12, None))
    return at_most(distance(scaled, exact, weights_of(_net())), 0.1, "of the update, against float32")


def overflow(stage: Stage) -> float:
    """A scale beyond float16: the weights stay where they are, to the bit, and the scale comes down."""
    model, scaler = _scaled(stage, "bisam-log", 2.0**60)
    moved = max(float((a - b).abs().max()) for a, b in zip(weights_of(model), weights_of(_net()), strict=True))
    if moved or scaler.get_scale() >= 2.0**60:
        raise Wrong(moved, f"weights moved by {moved:.3g}, and the scale is {scaler.get_scale():g}")
    return moved
