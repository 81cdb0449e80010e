r"""Several processes that train one network, as ``torchrun`` starts them: each takes its share of every batch.

.. math:: \nabla L_{\mathcal B} = \frac1W \sum_{r=0}^{W-1} \nabla L_{\mathcal B_r}, \qquad
    \mathcal B_r = \{r, r + W, r + 2W, \dots\}
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["Workers", "check_alone", "workers"]

_trainings = itertools.count()  # of this process, and so of all: each makes them in the same order


class Workers:
    """The processes of one training: how many there are, 1 if nobody else takes part, and which one this is, from 0.

    Example:
        >>> alone = Workers(rank=0, size=1)
        >>> alone.share(torch.arange(4)), alone.is_first
        (tensor([0, 1, 2, 3]), True)
        >>> Workers(rank=1, size=2).share(torch.arange(4))
        tensor([1, 3])
    """

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def share(self, index: Tensor) -> Tensor:
        """The part of a batch that this process computes, every W-th sample."""
        return index[self.rank :: self.size]

    def shares(self, n: int, chunk: int) -> tuple[Tensor, ...]:
        """The places of this process among n samples, so many of all processes at a time."""
        return self.share(torch.arange(n)).split(max(chunk // self.size, 1))

    def wrapped(self, model: nn.Module, device: str) -> nn.Module:
        """The model with gradients that are averaged over the processes, or the model itself."""
        if self.size == 1:
            return model
        places = [torch.device(device)] if device.startswith("cuda") else None
        return nn.parallel.DistributedDataParallel(model, device_ids=places)

    def total(self, number: Tensor) -> Tensor:
        """The sum of a number over the processes, the same on all of them."""
        if self.size > 1:
            number = number.clone()
            dist.all_reduce(number)
        return number

    def gathered(self, state: object) -> list:
        """What each process has to say, in the order of their ranks."""
        if self.size == 1:
            return [state]
        states = [None] * self.size
        dist.all_gather_object(states, state)
        return states

    def joined(self, mine: Tensor) -> Tensor:
        """The rows of all, where each has a row for each sample of its share, in the order of the samples."""
        if self.size == 1:
            return mine
        parts = self.gathered(mine)
        found = mine.new_empty(sum(map(len, parts)), *mine.shape[1:])
        for rank, part in enumerate(parts):
            found[rank :: self.size] = part
        return found

    def check(self, batch_size: int) -> None:
        """A ``ValueError`` if a batch cannot be shared evenly: the mean of the shares would not be that of the batch."""
        if batch_size % self.size:
            raise ValueError(f"batch_size must be a multiple of the {self.size} processes, got {batch_size}")


def check_alone(command: str) -> None:
    """A ``ValueError`` if ``torchrun`` has started several of this process, for a command that shares its work in another way.

    Example:
        >>> check_alone("reproduce")
    """
    if (size := int(os.environ.get("WORLD_SIZE", 1))) > 1:
        raise ValueError(
            f"{command} must be started once, not as {size} processes by torchrun: only `bisam train` shares its work among them. "
            f"To run whole trainings side by side use `bisam reproduce --workers {size}` without torchrun"
        )


@functools.cache
def _meeting_place() -> tuple[dist.Store, int, int]:
    """Where the processes of ``torchrun`` find each other, the rank of this one, and how many they are."""
    return next(dist.rendezvous("env://"))


@contextmanager
def workers(device: str) -> Iterator[Workers]:
    """The processes that ``torchrun`` started, joined for the time of the block; one alone without it.

    On ``"cpu"`` they talk through gloo. On ``"cuda"`` each takes a GPU of its machine and they talk through nccl, or through gloo where several
    share one, which nccl refuses. A numbered GPU, which several on one machine would all take, is a ``ValueError``.

    Example:
        >>> with workers("cpu") as here:
        ...     here.size
        1
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield Workers(0, 1)
        return
    there = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if device.startswith("cuda"):
        if device != "cuda" and there > 1:
            raise ValueError(f'device must be "cuda" for {there} processes on one machine, so that each takes its own; got {device!r}')
        if device == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    joined_here = not dist.is_initialized()
    if joined_here:
        own = device.startswith("cuda") and there <= torch.cuda.device_count()
        # Each group meets under a name of its own: the addresses of the one before are still to be found, and would be dialled.
        store, rank, size = _meeting_place()
        store = dist.PrefixStore(f"training {next(_trainings)}", store)
        dist.init_process_group("cpu:gloo,cuda:nccl" if own else "gloo", store=store, rank=rank, world_size=size)
    try:
        yield Workers(dist.get_rank(), dist.get_world_size())
    finally:
        if joined_here:
            dist.destroy_process_group()
