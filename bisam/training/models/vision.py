r"""Networks for photographs, made by torchvision: ResNet-50, and vision transformers, one of them with weights of ImageNet.

A vision transformer cuts an image into patches of p x p pixels, maps each to a vector and reads them as a text: with a vector :math:`c` that is
learned before them and embeddings :math:`e_k` of the places,

.. math:: f_w(x) = A\,h_w\big(c + e_0,\ W x_1 + e_1,\ \dots,\ W x_n + e_n\big)_0 + b, \qquad A = 0,\ b = 0 \text{ at the start}.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn

from ... import _checks
from ..data.images import ROOT, DataError, digest_of, place
from ._parts import image_channels

__all__ = ["digest", "resnet50", "vit_b_16", "vit_b_16_imagenet", "vit_tiny"]

NAME = "vit-b-16:imagenet"
FILE = "vit_b_16-c867db91.pth"  # torchvision's IMAGENET1K_V1; the digits begin the SHA-256 of the file
B_16 = {"patch_size": 16, "num_layers": 12, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072}
TINY = {"num_layers": 4, "num_heads": 4, "hidden_dim": 64, "mlp_dim": 256}
SMALL = 16  # pixels, the side below which the tiny transformer has patches of 2 x 2


def resnet50(shape: tuple[int, ...], classes: int) -> nn.Module:
    """The residual network of 50 layers for photographs, as torchvision makes and initialises it.

    Args:
        shape: of one sample, ``(3, height, width)``; height and width at least 32.
        classes: number of classes.

    Source:
        He et al. (2016), table 1, with the stride in the 3 x 3 convolutions, as torchvision has it.

    Example:
        >>> with torch.device("meta"):
        ...     sum(p.numel() for p in resnet50((3, 224, 224), 1000).parameters())
        25557032
    """
    _coloured("resnet50", shape, classes, least=32)
    return _checks.needs("torchvision.models", extra="train").resnet50(weights=None, num_classes=classes)


def vit_b_16(shape: tuple[int, ...], classes: int) -> nn.Module:
    """The vision transformer of base size with patches of 16 x 16, as torchvision makes and initialises it, without dropout.

    Args:
        shape: of one sample, ``(3, size, size)``; the size a multiple of 16.
        classes: number of classes.

    Source:
        Dosovitskiy et al. (2021), table 1, ViT-Base; the last layer begins at zero, as there.

    Example:
        >>> with torch.device("meta"):
        ...     sum(p.numel() for p in vit_b_16((3, 224, 224), 1000).parameters())
        86567656
    """
    _coloured("vit-b-16", shape, classes)
    return _transformer("vit-b-16", shape, classes, **B_16)


def vit_b_16_imagenet(shape: tuple[int, ...], classes: int, root: str | Path | None = None) -> nn.Module:
    """The same with torchvision's weights ``IMAGENET1K_V1`` and a new last layer, which begins at zero; nothing is fetched.

    The file is looked for as ``weights/vit_b_16-c867db91.pth`` below the root, and where torchvision keeps it. For images of another size than
    224 the embeddings of the places are interpolated.

    Args:
        shape, classes: as for :func:`~bisam.training.models.vit_b_16`.
        root: folder of the data sets, see :func:`bisam.training.data.load`.

    Raises:
        DataError: the file is not there (the message says how to fetch it), truncated, or another one.

    Source:
        Dosovitskiy et al. (2021), section 3.2: to fine-tune, the head is replaced by zeros and the embeddings are interpolated.

    Example:
        >>> try:
        ...     vit_b_16_imagenet((3, 224, 225), 10)
        ... except ValueError as error:
        ...     print(str(error)[:62])
        shape must be (channels, size, size) for vit-b-16, the size a 
    """
    net = vit_b_16(shape, classes)
    if net.class_token.is_meta:  # shapes alone are asked for, and no number
        return net
    path = _weights(root)
    _digest_of(path)
    tools = _checks.needs("torchvision.models.vision_transformer", extra="train")
    body = {name: part for name, part in torch.load(path, map_location="cpu", weights_only=True).items() if not name.startswith("heads.")}
    body = tools.interpolate_embeddings(shape[1], B_16["patch_size"], body)
    net.load_state_dict({**net.state_dict(), **body})
    return net


def vit_tiny(shape: tuple[int, ...], classes: int) -> nn.Module:
    """A vision transformer of width 64 with four layers of four heads: trained in seconds on a CPU. It has no dropout.

    Args:
        shape: of one sample, ``(channels, size, size)``. Patches are of 4 x 4 pixels, below a size of 16 of 2 x 2; the size is a multiple of that.
        classes: number of classes.

    Source:
        The module is torchvision's, as is the start.

    Example:
        >>> vit_tiny((1, 8, 8), 10)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    channels = image_channels("vit-tiny", shape, classes)
    net = _transformer("vit-tiny", shape, classes, patch_size=2 if shape[1] < SMALL else 4, **TINY)
    if channels != 3:  # torchvision knows images with red, green and blue alone
        net.conv_proj = nn.Conv2d(channels, net.hidden_dim, net.patch_size, net.patch_size)
        nn.init.trunc_normal_(net.conv_proj.weight, std=math.sqrt(1 / (channels * net.patch_size**2)))
        nn.init.zeros_(net.conv_proj.bias)
    return net


def _coloured(model: str, shape: object, classes: object, least: int = 1) -> None:
    if image_channels(model, shape, classes, least) != 3:
        raise ValueError(f"shape must have 3 channels, red, green and blue, for {model}; got {_checks.shown(shape)}")


def _transformer(model: str, shape: tuple[int, ...], classes: int, patch_size: int, **sizes: int) -> nn.Module:
    if shape[1] != shape[2] or shape[1] % patch_size:
        raise ValueError(f"shape must be (channels, size, size) for {model}, the size a multiple of {patch_size}; got {_checks.shown(shape)}")
    kind = _checks.needs("torchvision.models.vision_transformer", extra="train").VisionTransformer
    return kind(image_size=shape[1], patch_size=patch_size, num_classes=classes, **sizes)


def digest(root: str | Path | None = None) -> str:
    """The first 16 digits of a SHA-256 of the file of weights, read again only where it has changed; a ``DataError`` if it is not the one.

    Args:
        root: folder of the data sets.

    Example:
        >>> try:
        ...     digest("nowhere")
        ... except DataError as error:
        ...     print(str(error)[:42])
        model 'vit-b-16:imagenet' is not there: no
    """
    path = _weights(root)
    return _digest_of(path)


def _weights(root: str | Path | None) -> Path:
    """The file of weights, in one of its two places."""
    places = place(root) / "weights" / FILE, Path(torch.hub.get_dir()) / "checkpoints" / FILE
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise DataError(f"model {NAME!r} is not there: no file {places[0]} ({ROOT}), and none {places[1]}. {_to_fetch()}")
    return found


def _to_fetch() -> str:
    return 'Fetch it with: python -c "import torchvision; torchvision.models.vit_b_16(weights=\'IMAGENET1K_V1\')"'


def _digest_of(path: Path) -> str:
    found = digest_of(path)
    wanted = FILE.rpartition("-")[2].partition(".")[0]
    if not found.startswith(wanted):
        why = f"its SHA-256 begins with {found[: len(wanted)]} and not with {wanted}"
        raise DataError(f"model {NAME!r}: {path} is truncated, corrupt or another file ({why}). Delete it. {_to_fetch()}")
    return found[:16]
