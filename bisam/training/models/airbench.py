r"""A small network that learns CIFAR-10 in few epochs: whitened patches, pooling, and convolutions that begin as the identity.

The first layer is computed from the training images and not learned. With the covariance :math:`\Sigma = U \Lambda U^\top` of
all patches of 2 x 2 pixels it maps a patch p to

.. math:: \pm\, \frac{u_k^\top p}{\sqrt{\lambda_k + \kappa}}, \qquad k = 1, \dots, 4 c,

so that what the layers behind it see has the same variance in every direction.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import _checks
from ._parts import image_channels

__all__ = ["Whitening", "airbench"]

SIDE = 2  # pixels of a patch
FLOOR = 5e-4  # kappa: variances far below it are noise of the pixels
ENOUGH = 5000  # images that the covariance is taken from
KEPT = 4  # kernels of a process, by the images that they were computed from


class Whitening(nn.Module):
    r"""A convolution that whitens patches of so many channels, with a learned bias; its kernel is a buffer that :meth:`fit` computes.

    .. math:: x \mapsto \pm\, \frac{u_k^\top p(x)}{\sqrt{\lambda_k + \kappa}} + b

    Before :meth:`fit` the kernel copies the pixels of a patch with both signs.

    Source:
        Jordan (2024): a first layer that is frozen, made of the eigenvectors of patches with both signs.

    Example:
        >>> images = torch.randn(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> layer = Whitening(1)
        >>> layer.fit(images)
        >>> bool((layer(images)[:, :4].var((0, 2, 3)) - 1).abs().max() < 0.01)
        True
    """

    def __init__(self, channels: int):
        super().__init__()
        entries = channels * SIDE**2
        unit = torch.eye(entries).reshape(entries, channels, SIDE, SIDE)
        self.register_buffer("kernel", torch.cat([unit, -unit]))
        self.bias = nn.Parameter(torch.zeros(2 * entries))

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Computes the kernel from images of shape ``(n, channels, height, width)``, floats as the network takes them."""
        images = images[:ENOUGH].detach().cpu().contiguous()
        # The runs of an experiment see the same images, and the covariance takes a second. Its last bits depend on the number of threads.
        key = (hashlib.sha256(images.view(torch.uint8).numpy()).digest(), images.shape, images.dtype, torch.get_num_threads())
        if key not in _FITTED:
            if len(_FITTED) == KEPT:
                del _FITTED[next(iter(_FITTED))]
            _FITTED[key] = _whitening(images)
        rows = _FITTED[key].reshape(-1, *self.kernel.shape[1:])
        self.kernel.copy_(torch.cat([rows, -rows]))

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.kernel, self.bias)


_FITTED: dict[tuple, Tensor] = {}  # by images: the rows of a kernel


def _whitening(images: Tensor) -> Tensor:
    patches = functional.unfold(images.double(), SIDE).transpose(1, 2).flatten(0, 1)
    patches = patches - patches.mean(0)
    variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
    # The sign of an eigenvector is the library's choice: its largest entry is made positive.
    largest = directions.abs().argmax(0, keepdim=True)
    directions = directions * directions.gather(0, largest).sign()
    return (directions / (variances.clamp(min=0) + FLOOR).sqrt()).T.flip(0)


class _Airbench(nn.Sequential):
    """The network; what it needs to see of the data before training is said in :meth:`prepare`."""

    def prepare(self, images: Tensor) -> None:
        """Fits the first layer to training images, floats as the network takes them, before the first step."""
        self[0].fit(images)


def airbench(shape: tuple[int, ...], classes: int, widths: tuple[int, int, int] = (32, 96, 128)) -> nn.Sequential:
    """Whitened patches, three blocks of two 3 x 3 convolutions with pooling between, the largest value of each channel, a linear layer.

    Before training ``net.prepare(images)`` fits the first layer; :func:`bisam.training.fit` does so.

    Args:
        shape: of one sample, ``(channels, height, width)``; height and width at least 9.
        classes: number of classes.
        widths: channels of the three blocks.

    Source:
        After Jordan (2024): whitening, GELU, pooling inside the blocks and the partial identity as first weights are taken from there. What
        belongs to its training (scaled biases, look-ahead, flips in turn, several crops) is left out, so that methods are compared on plain
        training, and it is narrower.

    Example:
        >>> sum(p.numel() for p in airbench((3, 32, 32), 10).parameters())
        387106
    """
    channels = image_channels("airbench", shape, classes, least=9)
    widths = _checks.each("widths", widths, each_of=_checks.whole)
    if len(widths) != 3:
        raise ValueError(f"widths must be three whole numbers, got {widths}")
    inside = 2 * channels * SIDE**2
    layers: list[nn.Module] = [Whitening(channels), nn.GELU()]
    for width in widths:
        layers += _block(inside, width)
        inside = width
    return _Airbench(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(inside, classes))


def _block(inside: int, outside: int) -> list[nn.Module]:
    return [
        _convolution(inside, outside), nn.MaxPool2d(2), nn.BatchNorm2d(outside), nn.GELU(),
        _convolution(outside, outside), nn.BatchNorm2d(outside), nn.GELU(),
    ]  # fmt: skip


def _convolution(inside: int, outside: int) -> nn.Conv2d:
    """3 x 3, size kept; as many outputs as can be copy their input at first, the others start as PyTorch makes them."""
    layer = nn.Conv2d(inside, outside, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight[: min(inside, outside)].data)
    return layer
