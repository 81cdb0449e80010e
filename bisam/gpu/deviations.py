"""How far two results lie apart, and what is too far."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..training import History, weights_digest


class Wrong(Exception):
    """A check that has run to its end and found a difference that should not be."""


def at_most(deviation: float, most: float, words: str) -> float:
    """The deviation, or what is wrong with it."""
    if not deviation <= most:
        raise Wrong(deviation, f"{deviation:.3g} {words}; at most {most:.3g} was expected")
    return deviation


def weights_of(model: nn.Module) -> list[Tensor]:
    """The parameters on the CPU, in double precision."""
    return [p.detach().double().cpu() for p in model.parameters()]


def distance(one: list[Tensor], other: list[Tensor], start: list[Tensor]) -> float:
    """Of two places, as a share of the way from the start to the second."""
    apart, way = (torch.cat([(a - b).flatten() for a, b in zip(*pair, strict=True)]).norm() for pair in ((one, other), (other, start)))
    return float(apart / way)


def same(one: History, other: History, words: str) -> float:
    """Zero, or what is wrong: weights and rows must agree to the bit."""
    pairs = zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    apart = max(float((a.double() - b.double()).abs().max()) for a, b in pairs)
    if weights_digest(one.model) != weights_digest(other.model) or one.rows != other.rows:
        raise Wrong(apart, f"{words} differ: largest difference of a weight {apart:.3g}")
    return apart
