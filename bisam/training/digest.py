"""A digest of a network, to tell runs apart."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from .. import _checks

__all__ = ["weights_digest"]


def weights_digest(model: nn.Module) -> str:
    """The first 16 digits of a SHA-256 over the bits of all parameters and buffers, to tell runs apart.

    Args:
        model: any module.

    Example:
        >>> weights_digest(nn.Linear(2, 2)) == weights_digest(nn.Linear(2, 2))
        False
    """
    _checks.needs("numpy", extra="train")
    digest = hashlib.sha256()
    for name, tensor in _checks.module("model", model).state_dict().items():
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        digest.update(name.encode() + raw)
    return digest.hexdigest()[:16]
