r"""Augmentation of a whole batch at once: random crops of padded images, horizontal flips, and Cutout.

.. math:: \tilde x = m \odot
    \frac{\mathrm{flip}^{f}\,\mathrm{crop}_{t,l}(\mathrm{pad}_p\, x) / 255 - \text{mean}}{\text{std}},
    \qquad t, l \sim U\{0, \dots, 2p\}, \quad f \sim U\{0, 1\}

with a mask :math:`m` that is 0 on a square around a pixel drawn uniformly, and 1 elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .. import _checks
from .data import Data

__all__ = ["AUGMENTATIONS", "Augment"]


@dataclass(frozen=True)
class Augment:
    r"""Random crops, flips and Cutout, drawn anew for every image of a batch.

    .. math::
        \begin{gathered}
        \mathrm{crop}_{t,l}(\mathrm{pad}_p\, x)_{ij} = x_{i + t - p,\ j + l - p}, \\
        m_{ij} = 0 \iff r - \lfloor s/2 \rfloor \le i < r - \lfloor s/2 \rfloor + s \ \text{ and }\
        c - \lfloor s/2 \rfloor \le j < c - \lfloor s/2 \rfloor + s
        \end{gathered}

    Pixels outside of :math:`x` are 0, before images are scaled. The square of Cutout, of side s around row r and column c, is cut off at the
    borders and filled with 0 after scaling, which is the mean of the training images.

    Args:
        crop: pixels p of padding on each side, of which a window as large as the image is cut; 0 for none.
        flip: mirror left and right with probability 1/2.
        cutout: side s of the square in pixels; 0 for none.
        cutout_probability: share of the images that get a square, in (0, 1].

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range.

    Source:
        Padding by 4, crop and flip: Xie et al. (2024), section 4.1 of the early version. Cutout of 16 pixels with probability 0.5: their code.

    Example:
        >>> from bisam.training import data
        >>> task = data.digits()
        >>> batch = Augment(crop=1, flip=True)(task.train.inputs[:4], task, torch.Generator().manual_seed(0))
        >>> batch.shape, batch.dtype
        (torch.Size([4, 1, 8, 8]), torch.float32)
    """

    crop: int = 0
    flip: bool = False
    cutout: int = 0
    cutout_probability: float = 0.5

    def __post_init__(self):
        _checks.keep(self, _checks.whole, "crop", "cutout", least=0)
        _checks.flag("flip", self.flip)
        _checks.keep(self, _checks.share, "cutout_probability")

    def __call__(self, inputs: Tensor, data: Data, generator: torch.Generator) -> Tensor:
        """A new batch of the same shape on the same device, whose uint8 images have become float32; the given one is left alone.

        Every draw comes from the generator on the CPU, so that the same state gives the same batch on every device; all else is done on the
        device of the inputs without waiting for it. Floats that nothing is done to are the very tensor that was given.

        Args:
            inputs: samples of the task, shape ``(n, channels, height, width)``, uint8 or floats that are ready.
            data: the task, whose mean and deviation scale uint8 images.
            generator: where the draws come from, on the CPU; its state advances.

        Raises:
            TypeError, ValueError: inputs that are no batch of images, an empty batch, or no generator on the CPU.
        """
        _check(inputs, data, generator)
        n, (height, width) = len(inputs), inputs.shape[-2:]
        drawn = self.draws(n, height, width, generator)
        if drawn and inputs.device.type != "cpu":
            drawn = dict(zip(drawn, _sent(torch.stack(list(drawn.values())), inputs.device), strict=True))
        return self.changed(inputs, data, drawn)

    def changed(self, inputs: Tensor, data: Data, drawn: dict[str, Tensor]) -> Tensor:
        """The new batch that :meth:`draws` on the device of the inputs make."""
        if self.crop:
            inputs = _cropped(inputs, self.crop, drawn["top"], drawn["left"])
        if self.flip:
            inputs = torch.where(drawn["flip"].bool()[:, None, None, None], inputs.flip(3), inputs)
        batch = data.prepared(inputs)
        return _cut_out(batch, self.cutout, drawn["row"], drawn["column"], drawn["hit"]) if self.cutout else batch

    def draws(self, n: int, height: int, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """A few whole numbers a sample, each of shape (n,)."""

        def below(end: int) -> Tensor:
            return torch.randint(end, (n,), generator=generator)

        drawn = {}
        if self.crop:
            drawn |= {"top": below(2 * self.crop + 1), "left": below(2 * self.crop + 1)}
        if self.flip:
            drawn |= {"flip": below(2)}
        if self.cutout:
            hit = torch.rand(n, generator=generator, dtype=torch.float64) < self.cutout_probability
            drawn |= {"row": below(height), "column": below(width), "hit": hit.long()}
        return drawn


AUGMENTATIONS = {
    "none": Augment(),
    "flip": Augment(flip=True),
    "crop2": Augment(crop=2),  # digits are not mirrored
    "crop2-flip": Augment(crop=2, flip=True),  # for images of half the size
    "crop-flip": Augment(crop=4, flip=True),
    "crop-flip-cutout": Augment(crop=4, flip=True, cutout=16),
}


def _check(inputs: object, data: object, generator: object) -> None:
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs must be a tensor of images, got {type(inputs).__name__}")
    if inputs.ndim != 4:
        raise ValueError(f"inputs must have shape (n, channels, height, width), got {tuple(inputs.shape)}")
    if 0 in inputs.shape:
        raise ValueError(f"inputs must hold at least one sample, got an empty batch of shape {tuple(inputs.shape)}")
    if not isinstance(data, Data):
        raise TypeError(f"data must be a bisam.training.data.Data, got {type(data).__name__}")
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
    if generator.device.type != "cpu":
        raise ValueError(f"generator must be on the CPU, for the same draws everywhere; it is on {generator.device}")


def _sent(drawn: Tensor, device: torch.device) -> tuple[Tensor, ...]:
    """The draws on a device, in one copy that neither side waits for."""
    pinned = drawn.pin_memory() if device.type == "cuda" else drawn
    return pinned.to(device, non_blocking=True).unbind()


def _cropped(inputs: Tensor, padding: int, top: Tensor, left: Tensor) -> Tensor:
    """Of each padded image the window of the old size whose corner is (top, left)."""
    height, width = inputs.shape[-2:]
    padded = functional.pad(inputs, (padding,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # all of them, as views: nothing is copied yet
    return windows[torch.arange(len(inputs), device=inputs.device), :, top, left]


def _cut_out(batch: Tensor, side: int, row: Tensor, column: Tensor, hit: Tensor) -> Tensor:
    """0 on the square around (row, column) in the images that are hit."""
    rows = _within(batch.shape[2], side, row) & hit.bool()[:, None]
    columns = _within(batch.shape[3], side, column)
    return batch.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def _within(length: int, side: int, centre: Tensor) -> Tensor:
    """Which of the places 0 .. length - 1 lie within ``side`` around each centre, shape (n, length)."""
    start = centre[:, None] - side // 2
    place = torch.arange(length, device=centre.device)
    return (place >= start) & (place < start + side)
