"""Ways to make one training step on a batch: the floors, this package's recipes, and peers where installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

import bisam

Step = Callable[[], object]
Method = Callable[[nn.Module, Tensor, Tensor], Step]

# The learning rate is small: a batch that is learnt by heart has gradients below the normal numbers, which many CPUs are slow to add.
BASE = {"lr": 1e-5, "momentum": 0.9, "weight_decay": 5e-4, "fused": True}

PEERS = ("pytorch_optimizer",)


def one_pass(model: nn.Module, x: Tensor, y: Tensor) -> Step:
    """The base optimiser alone."""
    return _descents(1, model, x, y)


def two_passes(model: nn.Module, x: Tensor, y: Tensor) -> Step:
    """The floor of every method with a climb: its two passes and its base, and nothing else."""
    return _descents(2, model, x, y)


def _descents(passes: int, model: nn.Module, x: Tensor, y: Tensor) -> Step:
    sgd = torch.optim.SGD(model.parameters(), **BASE)

    def step() -> None:
        for _ in range(passes):
            sgd.zero_grad()
            functional.cross_entropy(model(x), y).backward()
        sgd.step()

    return step


def ours(name: str) -> Method:
    """A recipe of this package, in the two lines of its README."""

    def method(model: nn.Module, x: Tensor, y: Tensor) -> Step:
        optimizer = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), **BASE), bisam.recipe(name))
        return lambda: optimizer.step(bisam.Batch(model, x, y))

    return method


def pytorch_optimizer_sam(model: nn.Module, x: Tensor, y: Tensor) -> Step:
    """SAM of pytorch_optimizer, as its documentation calls it."""
    from pytorch_optimizer import SAM

    optimizer = SAM(model.parameters(), torch.optim.SGD, **BASE)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    def step() -> None:
        closure()
        optimizer.step(closure)

    return step


def period(name: str) -> int:
    """Steps after which a recipe repeats; above 1 for one that climbs in every k-th step only."""
    recipe = bisam.RECIPES.get(name.removeprefix("bisam "))
    parts = (getattr(recipe, field, None) for field in ("combination", "radius"))
    return math.lcm(*(getattr(part, "every", 1) for part in parts))


def recipes(names: tuple[str, ...]) -> dict[str, Method]:
    """Recipes of this package, as they are called in tables and files."""
    return {f"bisam {name}": ours(name) for name in names}


def peers() -> tuple[dict[str, Method], dict[str, str]]:
    """Other libraries' SAM where installed, and the others with the reason."""
    name = "pytorch_optimizer sam"
    if importlib.util.find_spec("pytorch_optimizer") is None:
        return {}, {name: "not installed: pip install pytorch_optimizer"}
    return {name: pytorch_optimizer_sam}, {}


def peer_versions() -> dict[str, str]:
    """The versions of the peers that are installed."""
    return {name: importlib.metadata.version(name) for name in PEERS if importlib.util.find_spec(name)}
