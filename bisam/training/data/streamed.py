r"""Images that stay in their files: each is decoded when it is asked for, and cut to one size.

.. math:: \tilde x = \mathrm{crop}_s\big(\mathrm{resize}_{\lfloor 256 s / 224 \rceil}\, x\big) \text{ to evaluate}, \qquad
    \tilde x = \mathrm{flip}^{f}\,\mathrm{resize}_s\big(\mathrm{window}\, x\big) \text{ to train},

with a window of 8 to 100 % of the area and sides 3 : 4 to 4 : 3, drawn anew for each image in each epoch.
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from ... import _checks
from ..rng import drawing_from, seed_for
from .images import DataError
from .task import Data, Split

__all__ = ["MEAN", "RESIZED_CROP", "STD", "Look", "Streamed"]

# Red, green and blue over the training images of ImageNet, as torchvision's weights expect them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESIZED_CROP = "resized-crop"  # the name of the augmentation


@dataclass(frozen=True)
class Look:
    """How an image file becomes a tensor of one size.

    Args:
        height, width: of the result, in pixels.
        resized: images of any size are resized and cut; without, one of another size is an error.

    Source:
        The transforms are torchvision's, with its defaults: ``RandomResizedCrop`` and ``RandomHorizontalFlip`` to train, ``Resize`` to 256 / 224
        of the size and ``CenterCrop`` to evaluate, as for the ResNets of He et al. (2016) in the form of Goyal et al. (2017).

    Example:
        >>> Look(224, 224).height
        224
    """

    height: int
    width: int
    resized: bool = True

    def __post_init__(self):
        _checks.keep(self, _checks.whole, "height", "width")
        _checks.flag("resized", self.resized)

    def at(self, path: str, seed: int | None = None) -> Tensor:
        """The image in a file, uint8 of shape ``(3, height, width)``; a ``DataError`` names the file if it is broken.

        Args:
            path: of the file.
            seed: of a random window and a random flip; ``None`` for the image as it is evaluated.
        """
        tools = _checks.needs("torchvision.transforms.v2", extra="train")
        image = _opened(path)
        if not self.resized and (image.height, image.width) != (self.height, self.width):
            sizes = f"{image.height} x {image.width} pixels and others {self.height} x {self.width}"
            raise DataError(f"image {path} has {sizes}; all images must have one size, or image_size be given")
        if seed is not None:
            with drawing_from(seed):
                image = tools.RandomHorizontalFlip()(tools.RandomResizedCrop((self.height, self.width))(image))
        elif self.resized:
            image = tools.CenterCrop((self.height, self.width))(tools.Resize(round(self.height * 256 / 224))(image))
        return tools.functional.pil_to_tensor(image)


def _opened(path: str):
    """The image as red, green and blue."""
    opened = _checks.needs("PIL.Image", extra="train").open
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata that some images of ImageNet have wrong
            with opened(path) as image:
                return image.convert("RGB")
    except FileNotFoundError:
        raise DataError(f"image {path} is gone. Restore it") from None
    except Exception as error:  # each format has its own words for a broken file
        raise DataError(f"image {path} is truncated or corrupt ({type(error).__name__}: {error}). Restore it or take it away") from None


@dataclass(frozen=True)
class Streamed(Data):
    """A task whose inputs are numbers of files, int64 of shape ``(n,)``; who picks samples gets the images.

    Args:
        name, classes, train, validation, test, mean, std, task, metrics: as of :class:`~bisam.training.data.Data`.
        files: paths, whose places are the numbers.
        listing: a digest of the names and sizes of the files and of their classes.
        look: how a file becomes a tensor.

    Example:
        >>> split = Split(torch.tensor([0, 1]), torch.tensor([0, 1]))
        >>> Streamed("two", 2, split, split, split, MEAN, STD, files=("a.jpg", "b.jpg"), listing="0", look=Look(32, 32)).shape
        (3, 32, 32)
    """

    files: tuple[str, ...] = ()
    listing: str = ""
    look: Look = Look(224, 224)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image as the network takes it."""
        return 3, self.look.height, self.look.width

    def picked(self, split: Split, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Some images of a split as they are evaluated, uint8, decoded here and now, and their classes."""
        return torch.stack([self.look.at(self.files[k]) for k in split.inputs[index].tolist()]), split.targets[index]

    def drawn(self, number: int, seed: int, epoch: int | None) -> Tensor:
        """One image, uint8: without an epoch as it is evaluated, else as the run of a seed augments it in that epoch, in whatever process."""
        return self.look.at(self.files[number], None if epoch is None else seed_for(f"look {epoch} {number}", seed))

    @functools.cached_property
    def fingerprint(self) -> str:
        """The first 16 digits of a SHA-256 over the listing, the division into splits and the scaling; no image is read."""
        _checks.needs("numpy", extra="train")
        digest = hashlib.sha256(self.listing.encode())
        for split in (self.train, self.validation, self.test):
            for tensor in (split.inputs, split.targets):
                digest.update(tensor.contiguous().numpy())
        digest.update(repr((self.mean, self.std)).encode())
        return digest.hexdigest()[:16]
