r"""Batches of images that are decoded from their files by processes of their own, while the network is at work on those before.

.. math:: \tilde x_i = \mathrm{look}\big(x_i;\ \mathrm{seed}(\text{run}, \text{epoch}, i)\big)

Every random choice about an image comes from the seed of the run, the epoch and the number of its file: how many processes decode, and which
of them has an image in hand, moves no bit. The order of the images is that of the run, as it is for images on the device.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator
from multiprocessing import active_children, get_context

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .. import _checks
from .data import DataError, Split
from .data.streamed import RESIZED_CROP, Streamed
from .processes import follow_parent, signals_held_back
from .run import Run

__all__ = ["Stream", "accidents_named", "check_loaders"]

MOST = 8  # processes where nobody says how many


def check_loaders(run: Run, loaders: int | None) -> int | None:
    """How many processes decode the images of a run: a number, 0 for none but that of the training, or ``None``; refused where none is streamed.

    Example:
        >>> check_loaders(Run(), None) is None
        True
        >>> check_loaders(Run(data="pets", loading="stream"), 4)
        4
    """
    if _checks.optional("loaders", loaders, of=_checks.whole, least=0) is not None and run.loading != "stream":
        raise ValueError(f'loaders must be left out with loading {run.loading!r}, where no image is decoded while training; got {loaders}')
    return loaders


@contextlib.contextmanager
def accidents_named() -> Iterator[None]:
    """Inside, the end of a process that decodes is a ``DataError``; torch says it in words of its own, and in the middle of anything.

    Example:
        >>> try:
        ...     with accidents_named():
        ...         raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
        ... except DataError as error:
        ...     print(str(error)[:49])
        a process that decodes images has ended by itself
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        what = "Often memory was short, also that in /dev/shm: take fewer loaders. The same call goes on from its checkpoint"
        raise DataError(f"a process that decodes images has ended by itself ({error}). {what}") from None


class Stream:
    """The images of a task, batch by batch, on the device of a training.

    Its processes begin with the first batch and end with :meth:`close`, or with the process that they belong to, however that ends.

    Args:
        run: its seed, its device, and whether it augments.
        task: with the files.
        loaders: processes that decode; 0 decodes here. By default as many as there are cores for each training process, at most ``MOST``.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from bisam.training.data.streamed import MEAN, STD, Look
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (40, 30)).save(f"{folder}/one.png")
        ...     split = Split(torch.tensor([0, 0]), torch.tensor([0, 1]))
        ...     task = Streamed("two", 2, split, split, split, MEAN, STD, files=(f"{folder}/one.png",), look=Look(8, 8))
        ...     stream = Stream(Run(data="pets", loading="stream"), task, loaders=0)
        ...     [tuple(images.shape) for images, classes in stream.parts(split, [torch.tensor([1, 0]), torch.tensor([1])])]
        [(2, 3, 8, 8), (1, 3, 8, 8)]
    """

    def __init__(self, run: Run, task: Streamed, loaders: int | None = None):
        self.run, self.task, self.device = run, task, torch.device(run.device)
        for package in ("torchvision.transforms.v2", "PIL.Image"):  # here, where it can be said that one is missing, and once for all processes
            _checks.needs(package, extra="train")
        self.loaders = _default() if check_loaders(run, loaders) is None else loaders
        self._keys = _Keys()
        self._loader: DataLoader | None = None
        self._processes: set = set()

    def parts(self, split: Split, places: Iterable[Tensor], epoch: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The images, uint8, and classes at the given places of a split, in order; one call at a time.

        Args:
            split: of the task, on the CPU.
            places: of each batch.
            epoch: from 1, to train in; ``None`` for the images as they are evaluated.

        Raises:
            DataError: an image is missing or broken; the message has its path.
        """
        places = list(places)
        self._keys.batches = [[(number, epoch) for number in split.inputs[index].tolist()] for index in places]
        for index, images in zip(places, self._started(), strict=True):
            if isinstance(images, DataError):
                raise images
            yield self._sent(images), self._sent(split.targets[index])

    def picked(self, split: Split, index: Tensor) -> tuple[Tensor, Tensor]:
        """A few images as they are evaluated, decoded in this process, beside what the others are at."""
        images, targets = self.task.picked(split, index)
        return images.to(self.device), targets.to(self.device)

    def close(self) -> None:
        """Ends the processes that decode, at once, whoever still has their last batches in hand, such as the traceback of an interrupt."""
        self._loader, processes, self._processes = None, self._processes, set()
        for process in processes:
            process.terminate()  # torch takes any other end for an accident
        for process in processes:
            process.join()

    def _sent(self, values: Tensor) -> Tensor:
        if self.device.type != "cuda":
            return values
        return (values if values.is_pinned() else values.pin_memory()).to(self.device, non_blocking=True)

    def _started(self) -> Iterator[Tensor | DataError]:
        """What the processes make of the keys; they are started once, and wait for the next keys."""
        with signals_held_back(), warnings.catch_warnings():
            # Torch's word that there are more processes than cores, and Python's on forks beside threads: the children leave torch's threads alone.
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            if self._loader is None:
                self._loader = self._made()
            before = set(active_children())
            found = iter(self._loader)
            self._processes |= set(active_children()) - before
            return found

    def _made(self) -> DataLoader:
        files = _Decoded(self.task, self.run.seed, self.run.augment == RESIZED_CROP)
        many = {"persistent_workers": True, "multiprocessing_context": get_context(_way()), "worker_init_fn": _begin} if self.loaders else {}
        return DataLoader(
            files, batch_sampler=self._keys, num_workers=self.loaders, collate_fn=_together, pin_memory=self.device.type == "cuda",
            generator=torch.Generator(), **many,  # without a generator it would draw from that of the dropout masks
        )  # fmt: skip


class _Keys:
    """What is to be decoded next, batch by batch: set before each round of the loader, which asks for it then."""

    batches: list = ()

    def __iter__(self) -> Iterator[list]:
        return iter(self.batches)


class _Decoded(Dataset):
    """Images by the number of their file and the epoch, of a whole batch at a time; an error is handed on in their place."""

    def __init__(self, task: Streamed, seed: int, augmented: bool):
        self.task, self.seed, self.augmented = task, seed, augmented

    def __getitems__(self, keys: list[tuple[int, int | None]]) -> list[Tensor] | DataError:
        try:
            return [self.task.drawn(number, self.seed, epoch if self.augmented else None) for number, epoch in keys]
        except DataError as error:
            return error


def _together(images: list[Tensor] | DataError) -> Tensor | DataError:
    return images if isinstance(images, DataError) else torch.stack(images)


def _way() -> str:
    """How processes are started: by a fork where that is sound, which copies no list of files and runs no script again."""
    return "fork" if sys.platform == "linux" else "spawn"


def _begin(number: int) -> None:
    """In a new process: it goes with the one that started it, leaves the terminal's signals to that, and ends when that says so."""
    follow_parent()
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _default() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
