"""The random state of torch around a training, and a seed of its own for everything that is drawn."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor


def seed_for(purpose: str, seed: int) -> int:
    """A seed of its own for each purpose: two generators with one seed draw the same permutation.

    Labels that were redrawn with the seed of the order would all come first in the first epoch.
    """
    return int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:4], "big")


@contextlib.contextmanager
def seeded_rng(seed: int, device: str) -> Iterator[None]:
    """Inside, torch draws from a seed; outside, nothing has been drawn."""
    with forked_rng(device):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Inside, torch draws on the CPU from a seed; outside, nothing has been drawn. No GPU is asked or seeded."""
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        yield


def forked_rng(device: str) -> contextlib.AbstractContextManager:
    """What is drawn inside is not seen outside; on every GPU, for manual_seed seeds all of them."""
    used = device != "cpu" or torch.cuda.is_initialized()
    return torch.random.fork_rng(range(torch.cuda.device_count()) if used else [])


def rng_state(device: str) -> list[Tensor]:
    """That of the CPU, and of the GPU where the device is one."""
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.startswith("cuda") else [])


def set_rng_state(states: list[Tensor], device: str) -> None:
    """Takes over what :func:`rng_state` returned, also from another GPU."""
    torch.set_rng_state(states[0].cpu())
    if device.startswith("cuda"):
        torch.cuda.set_rng_state(states[1].cpu(), device)
