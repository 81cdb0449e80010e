"""How torch computes a training: with exact kernels on a GPU, and through its compiler where a run says so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextlib.contextmanager
def exact_kernels(device: str) -> Iterator[None]:
    """On a GPU: float32 in full (not TF32), convolutions that add in a fixed order, and attention by its formula, whose quick kernels
    add in any order on the way back; so that a resumed run has the same bits."""
    if device == "cpu":
        yield
        return
    before = torch.get_float32_matmul_precision()
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False), sdpa_kernel(SDPBackend.MATH):
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)


def compiled(network: nn.Module, mode: str) -> nn.Module:
    """The network through ``torch.compile`` in the mode of a run; itself where nothing of it is compiled alone."""
    if mode in ("no", "whole-step"):
        return network
    torch.compiler.reset()  # of a sweep every training compiles; dynamo gives up after a few networks
    return torch.compile(network, mode=None if mode == "default" else mode)
