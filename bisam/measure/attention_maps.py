r"""Where a transformer looks: its attention maps, how concentrated they are, and how alike those of several networks.

.. math:: A = \mathrm{softmax}\Big(\frac{Q K^\top}{\sqrt d}\Big), \qquad C(p) = 1 - \frac{H(p)}{\log P}, \qquad
    S(p, q) = 1 - \frac{1}{\log 2}\Big(H\big(\tfrac{p + q}{2}\big) - \tfrac12 H(p) - \tfrac12 H(q)\Big)

for distributions p and q over P patches with the entropy :math:`H(p) = -\sum_i p_i \log p_i`. C is 0 for an even look and 1 for a look at one
patch; S, one minus the divergence of Jensen and Shannon, is 1 for equal looks and 0 for looks that share no patch.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from .. import _checks
from .held import held

__all__ = ["agreement", "attention", "concentration", "looks"]


@torch.no_grad()
def attention(model: nn.Module, inputs: Tensor) -> Tensor:
    """The attention of every layer and head, in evaluation mode.

    Args:
        model: a network with modules ``torch.nn.MultiheadAttention``, all of one form and with self-attention, such as torchvision's ViT.
        inputs: samples, shape ``(n, ...)``.

    Returns:
        Shape ``(layers, n, heads, L, L)``, rows that sum to 1: how much each of L tokens looks at each.

    Raises:
        ValueError: a network without such modules, or one in which they have several forms.

    Example:
        >>> layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        >>> found = attention(nn.TransformerEncoder(layer, 3, enable_nested_tensor=False), torch.randn(4, 5, 8))
        >>> found.shape, torch.allclose(found.sum(-1), torch.ones(()))
        (torch.Size([3, 4, 2, 5, 5]), True)
    """
    _checks.module("model", model)
    if not isinstance(inputs, Tensor) or inputs.ndim < 2 or not inputs.is_floating_point() or not len(inputs):
        raise ValueError(f"inputs must be a tensor of floats with one row a sample, got {_checks.shown(inputs)}")
    layers = [module for module in model.modules() if isinstance(module, nn.MultiheadAttention)]
    if not layers:
        raise ValueError(f"model must hold modules torch.nn.MultiheadAttention, got {type(model).__name__} without one")
    found: list[Tensor] = []

    def note(layer: nn.MultiheadAttention, given: tuple, named: dict) -> None:
        found.append(_map(layer, *given[:2], **named))

    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it goes past the modules
    try:
        with held(model, "running"):
            model(inputs)
    except (AssertionError, RuntimeError) as error:  # what torch says of shapes
        raise ValueError(f"inputs must be what the model takes, got {_checks.shown(inputs)}: {error}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for hook in hooks:
            hook.remove()
    if len({one.shape for one in found}) != 1:
        raise ValueError(f"model must have layers of attention of one form, got {sorted({tuple(one.shape) for one in found})}")
    return torch.stack(found)


def _map(layer: nn.MultiheadAttention, query: Tensor, key: Tensor, **more: object) -> Tensor:
    if more.get("attn_mask") is not None or more.get("key_padding_mask") is not None:
        raise ValueError("model must attend to all tokens, got a layer with a mask")
    _, weights = layer.forward(query, key, key, need_weights=True, average_attn_weights=False)
    return weights


def looks(maps: Tensor, layer: int = -1) -> Tensor:
    """How the first token, which the class is read from, looks at the others: the mean over the heads of a layer, without itself.

    Args:
        maps: what :func:`attention` returned.
        layer: which one; the last by default.

    Returns:
        Shape ``(n, L - 1)``, distributions over the patches.

    Example:
        >>> looks(torch.full((2, 3, 4, 5, 5), 0.2))[0]
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    _shaped("maps", maps, 5, "(layers, n, heads, L, L)")
    if isinstance(layer, bool) or not isinstance(layer, int) or not -len(maps) <= layer < len(maps):
        raise ValueError(f"layer must be a whole number in -{len(maps)} .. {len(maps) - 1}, got {_checks.shown(layer)}")
    found = maps[layer, :, :, 0, 1:].mean(1)
    return found / found.sum(1, keepdim=True)


def concentration(p: Tensor) -> Tensor:
    """C of each distribution: 0 for an even look at all patches, 1 for a look at one.

    Args:
        p: shape ``(n, P)``, rows that sum to 1, two patches at least.

    Example:
        >>> concentration(torch.tensor([[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]))
        tensor([0.5000, 1.0000])
    """
    _shaped("p", p, 2, "(n, P)")
    return (1 - _entropy(p) / math.log(p.shape[1])).clamp(0, 1)


def agreement(looks: Tensor) -> Tensor:
    """S of the looks of several networks at the same images: the mean over all pairs of networks.

    Args:
        looks: shape ``(networks, n, P)``, two networks at least.

    Returns:
        Shape ``(n,)``.

    Example:
        >>> one, two = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> agreement(torch.stack([one, two])), agreement(torch.stack([one, one]))
        (tensor([0.]), tensor([1.]))
    """
    _shaped("looks", looks, 3, "(networks, n, P)")
    if len(looks) < 2:
        raise ValueError(f"looks must be of two networks at least, got {len(looks)}")
    found = [1 - (_entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2) / math.log(2) for p, q in itertools.combinations(looks, 2)]
    return torch.stack(found).mean(0).clamp(0, 1)


def _entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).sum(-1)


def _shaped(name: str, value: object, axes: int, words: str) -> None:
    if not isinstance(value, Tensor) or value.ndim != axes or value.shape[-1] < 2 or not value.is_floating_point():
        raise ValueError(f"{name} must be a tensor of floats of shape {words} with two tokens at least, got {_checks.shown(value)}")
