"""Tasks by their names: which there are, and where each comes from."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

from ... import _checks
from ...training import own_code
from . import glue, image_sets, parallel, sources
from .fetched import FETCHED
from .image_sets import SETS, check_loading
from .images import division, place
from .optical_digits import digits
from .pixels import pooled, statistics
from .sources import FILE, FOLDER
from .task import Data, Split


@functools.lru_cache(maxsize=2)
def divided(
    name: str, root: Path, stamp: str, train_images: int | None, test_images: int | None, split_seed: int, pool: int
) -> Data:
    """The images of a task, divided into splits; the last two are kept while the stamp of their files stays the same."""
    images = sources.read(name, root, stamp)
    images = images._replace(train=pooled(images.train, pool), test=pooled(images.test, pool))
    train, validation, test = division(name, root, len(images.train), len(images.test), train_images, test_images, split_seed)
    splits = [Split(images.train[index], images.train_targets[index]) for index in (train, validation)]
    mean, std = statistics(splits[0].inputs)
    return Data(name, images.classes, *splits, Split(images.test[test], images.test_targets[test]), mean, std)


def check_name(name: object) -> str:
    """The name of a task, or a ``ValueError`` that lists what is allowed; no file is looked at, and nothing is imported.

    Args:
        name: one of ``DATA``, ``"folder:NAME"``, ``"file:NAME"``, ``"glue:TASK:FOLDER"``, ``"parallel:NAME"``, or the path of a function that
            returns a :class:`Data`, ``"package.module:function"``; an entry point of the group ``bisam.data`` becomes its path.

    Example:
        >>> check_name("cifar10"), check_name("folder:flowers")
        ('cifar10', 'folder:flowers')
    """
    if isinstance(name, str) and (name in DATA or re.fullmatch(rf"({FOLDER}|{FILE}|{parallel.PREFIX})\w[\w.-]*|{glue.NAMES}", name)):
        return name
    if (path := own_code.path_of("data", name)) is None:
        there = ", ".join([*DATA, *own_code.names("data")])
        form = "folder:NAME or file:NAME, NAME of letters, digits, _, - and ., parallel:NAME"
        form = f"{form}, glue:TASK:FOLDER with TASK one of {', '.join(glue.TASKS)}, or MODULE:FUNCTION"
        raise ValueError(f"data must be one of {there}, {form}; got {_checks.shown(name)}")
    return path


def load(
    name: str, root: str | Path | None = None, train_images: int | None = None, test_images: int | None = None, split_seed: int = 0, pool: int = 1,
    loading: str = "device", image_size: int | None = None,
) -> Data:  # fmt: skip
    """The named task.

    ``"digits"`` is shipped and its split is fixed. The others are read from files below the root and never fetched: ``"mnist"``,
    ``"fashion-mnist"``, ``"cifar10"`` and ``"cifar100"`` as torchvision stores them; ``"file:NAME"`` from ``NAME.npz`` with the arrays
    ``images``, ``labels``, ``test_images`` and ``test_labels`` (without the last two, half of the images, drawn with seed 0, are the test
    split); ``"folder:NAME"`` from ``NAME/train/CLASS/IMAGE`` and ``NAME/test/CLASS/IMAGE``, images of one size, which become red, green and
    blue. These are kept decoded in ``NAME.decoded.npz`` until the name, size or time of a file changes. (Decoders of JPEG may differ in the
    last bit of a pixel: another version of Pillow may give another fingerprint.)

    Two kinds of names are of texts, and read with the packages of the extra ``language``. ``"glue:TASK:FOLDER"`` is a task of GLUE, one of ``cola``, ``mrpc``, ``rte``,
    ``sts-b``, ``sst-2``, ``qnli`` and ``wnli``, from its own files ``glue/CoLA/train.tsv``, ``dev.tsv`` and so on, in the tokens of the encoder whose
    ``tokenizer.json`` is in ``FOLDER``. Its labelled dev set is the test split, since the labels of the real test set are not public.
    ``"parallel:NAME"`` is German to English, line by line, from ``NAME/train.de``, ``NAME/train.en`` and so on, see :func:`bisam.training.data.parallel.load`.

    With ``loading="stream"`` images stay in their files and are decoded as they are needed: those of ``"folder:NAME"``, and of ``"imagenet"``,
    ``"flowers102"`` and ``"pets"``, which have no other way. They may have many sizes and are cut to ``image_size``; they are scaled by the mean and
    deviation of ImageNet, ``bisam.training.data.streamed.MEAN`` and ``STD``; and the fingerprint is of names, sizes and classes of the files.
    ImageNet is read from ``imagenet/train/CLASS/IMAGE`` and ``imagenet/val/CLASS/IMAGE``, with the classes that are there; the others as
    torchvision unpacks them.

    The training images are put in the order ``torch.randperm(n, generator=g)`` with ``g`` seeded by ``split_seed``; the first ``train_images``
    of it are kept, and the last tenth of these (rounded down) is the validation split. Images are scaled by the statistics of the training split.

    The function at a path, ``"package.module:function"``, is called with those of the arguments that it takes, and returns a :class:`Data`, the
    same each time; what it returned last is kept.

    Args:
        name: as for :func:`check_name`.
        root: folder of the data; by default the environment variable ``BISAM_DATA``, else ``data``.
        train_images: how many of the training images or rows to use, validation included, at least 10; by default all.
        test_images: how many of the test images or rows to use, drawn with seed 0 whatever ``split_seed`` is; by default all, in the order of the files.
        split_seed: which training images become the validation split.
        pool: side of the squares of pixels that are averaged, see :func:`bisam.training.data.pooled`; 1 leaves the images as they are.
        loading: ``"device"`` or ``"stream"``.
        image_size: side of streamed images in pixels; by default 224, and of ``"folder:NAME"`` that of the images, which then must have one size.

    Raises:
        TypeError, ValueError: an unknown name (the message lists those that exist), a number out of range, a choice where the split is fixed.
        DataError: files are missing (the message says which, and how to fetch them), truncated or corrupt.

    Source:
        The 90/10 division and the scaling by training statistics are those of Xie et al. (2024), section 4.1 of the early version. Their public
        code draws the division once, with seed 42 of NumPy, and takes the statistics over both parts.

    Example:
        >>> load("digits").classes
        10
    """
    name = check_name(name)
    root = _checks.optional("root", root, of=_checks.path, words="the path of a folder")
    folder = place(root)
    train_images = _checks.optional("train_images", train_images, of=_checks.whole, least=10)
    test_images = _checks.optional("test_images", test_images, of=_checks.whole)
    split_seed, pool = _checks.whole("split_seed", split_seed, least=0), _checks.whole("pool", pool)
    check_loading(name, loading, image_size, pool)
    if loading == "stream":
        return image_sets.task_of(name, folder, train_images, test_images, split_seed, image_size)
    if name.startswith((FOLDER, FILE)) or name in FETCHED:
        return divided(name, folder, sources.stamp(name, folder), train_images, test_images, split_seed, pool)
    if name.startswith(tuple(TEXTS)):
        if pool > 1:
            raise ValueError(f"pool must be left out for data {name!r}, which has no pixels; got {pool}")
        return TEXTS[f"{name.partition(':')[0]}:"](name, folder, train_images, test_images, split_seed)
    given = {"train_images": train_images, "test_images": test_images, "split_seed": split_seed or None, "pool": pool if pool > 1 else None}
    if name not in DATA:
        own = own_code.function("data", name)
        return own_task(name, own, tuple(own_code.task_arguments(name, own, {"root": root, **given}).items()))
    for argument, value in given.items():
        if value is not None:
            raise ValueError(f"{argument} must be left out for data {name!r}, whose split is fixed; got {value}")
    return DATA[name]()


@functools.lru_cache(maxsize=2)
def own_task(name: str, own: Callable[..., Data], arguments: tuple[tuple[str, object], ...]) -> Data:
    """Kept, so that a record has the fingerprint of the data that were trained on."""
    return _checks.part(f"what data {name!r} returns", own(**dict(arguments)), Data, "a bisam.training.data.Data")


TEXTS = {glue.PREFIX: glue.load, parallel.PREFIX: parallel.load}
DATA = {"digits": digits, **{name: functools.partial(load, name) for name in FETCHED}, **{name: functools.partial(load, name, loading="stream") for name in SETS}}
