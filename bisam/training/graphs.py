"""CUDA graphs: the kernels of one call, to be run again, and the streams beside that of the program on which they are captured."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch


class CudaGraph:
    """The kernels of one call of a function without arguments, to be run again. The call itself computes nothing."""

    def __init__(self, step: Callable[[], None], stream: torch.cuda.Stream, generators: Iterable[torch.Generator] = ()):
        self._graph = torch.cuda.CUDAGraph()
        for generator in generators:  # their draws go on from replay to replay; the global one is known to torch
            self._graph.register_generator_state(generator)
        with nothing_collected(), torch.cuda.graph(self._graph, stream=stream):
            step()

    def replay(self) -> None:
        """Runs the kernels, on the current stream."""
        self._graph.replay()


@contextmanager
def nothing_collected() -> Iterator[None]:
    """Inside, Python collects no garbage: what it would free on the device must not be freed while a stream is captured."""
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def graph_of(device: torch.device) -> type | None:
    """What captures on a device; ``None`` where every step runs eagerly."""
    return CudaGraph if device.type == "cuda" else None


def side_stream(device: torch.device):
    """A stream beside that of the program, for warm-up and capture; ``None`` on a CPU."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


@contextmanager
def aside(stream) -> Iterator[None]:
    """Inside, work goes to another stream, after what was asked for before; what is asked for later comes after it.

    Libraries set up what they need for a stream when it is first used. What they set up for the default stream is of no use to a graph.
    """
    if stream is None:
        yield
        return
    here = torch.cuda.current_stream(stream.device)
    stream.wait_stream(here)
    with torch.cuda.stream(stream):
        yield
    here.wait_stream(stream)
