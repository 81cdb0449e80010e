"""The loop: epochs from where a checkpoint left off to where the run or the time ends."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor

from .. import _checks
from .. import _files as files
from .._progress import epochs_bar
from ..training import bootstrap, checkpoint, models
from .data import Data
from .devices import exact_kernels
from .environment import made_on_by
from .history import History
from .metrics import earlier_rows
from .rng import forked_rng, seeded_rng
from .run import Run
from .state import State
from .stream import accidents_named, check_loaders
from .workers import Workers, workers


def fit(
    run: Run, checkpoint_path: str | Path | None = None, *, root: str | Path | None = None, progress: bool = False,
    stop_after: int | None = None, minutes: float | None = None, on_epoch: Callable[[dict], object] | None = None,
    stop: Callable[[], bool] | None = None, loaders: int | None = None,
) -> History:  # fmt: skip
    """Trains as ``run`` says and returns the history; with a checkpoint it goes on where it was cut, exactly.

    The caller's random state is left as it was. The checkpoint is replaced in one piece after every epoch: a kill at any moment costs at most
    one epoch, and the resumed training ends at the same bits as an uncut one (on the same machine with the same number of threads).

    Under ``torchrun`` the processes share every batch and come to the same weights; the first writes the checkpoint. Apart from that one
    training at a time works on a checkpoint: it holds a lock beside the file, which goes with its process. With ``bootstrap`` the first of the
    two trainings has a checkpoint of its own beside it, which ends in ``.first``; the history is that of the second.

    Args:
        run: what to do.
        checkpoint_path: file to write after every epoch, and to go on from if it is there.
        root: folder of the data sets, see :func:`bisam.training.data.load`.
        progress: show a bar on the terminal; where there is none, write lines to the error output.
        stop_after: end cleanly after so many epochs in this call; the same call goes on later.
        minutes: end cleanly before an epoch that would probably last beyond this; the same call goes on later.
        on_epoch: is called with a copy of the row of each epoch that this call finishes, when the checkpoint has it; of several processes the
            first calls it. Whatever it draws or changes, the training goes on to the same bits; an error in it becomes a warning.
        stop: is asked before each epoch, and ends the training cleanly where it says True, of several processes where one says so; the same
            call goes on later.
        loaders: processes that decode images, where ``loading="stream"``, for each process that trains; 0 leaves it to that. It moves no bit.

    Raises:
        bisam.training.checkpoint.CheckpointError: the file is damaged in any bit, belongs to another run, does not fit this one, is in the
            hands of another training, or cannot be written; the file is as it was.
        bisam.training.data.DataError: the data are not there, or broken.
        FloatingPointError: a gradient is inf or NaN; the message says at which epoch, the checkpoint stays.
        ValueError: the batch size exceeds the number of training images, or cannot be shared by the processes.

    Source:
        Xie et al. (2024), section 4.1 of the early version: SGD with momentum, cosine schedule by the epoch, the epoch chosen by validation.

    Example:
        >>> history = fit(Run(recipe="sam", model="mlp", epochs=2))
        >>> len(history.rows), history.last_test_accuracy > 60
        (2, True)
    """
    _checks.part("run", run, Run, "a bisam.training.Run")
    _checks.flag("progress", progress)
    stop_after = _checks.optional("stop_after", stop_after, of=_checks.whole)
    minutes = _checks.optional("minutes", minutes, of=_checks.positive)
    _checks.optional("on_epoch", on_epoch, of=_checks.function, words="a function of the row of an epoch")
    _checks.optional("stop", stop, of=_checks.function, words="a function that says whether to stop")
    check_loaders(run, loaders)
    path = _checks.optional("checkpoint_path", checkpoint_path, of=_checks.path)
    if path is not None:
        checkpoint.check_writable(path)
    models.find(run.model)
    given = {"progress": progress, "stop": stop}
    if not run.bootstrap:
        return _trained(run, path, root, None, loaders, stop_after=stop_after, minutes=minutes, on_epoch=on_epoch, **given).history
    first, file, began = bootstrap.first_run(run), bootstrap.first_path(path), time.perf_counter()
    before = len(earlier_rows(file, first)) if file is not None and file.exists() else 0
    teacher = _trained(first, file, root, None, loaders, stop_after=stop_after, minutes=minutes, **given)
    done = len(teacher.history.rows) - before
    if not teacher.history.finished or done == stop_after:
        return History(run)  # nothing of the second training yet
    stop_after = None if stop_after is None else stop_after - done
    minutes = None if minutes is None else max(minutes - (time.perf_counter() - began) / 60, 1e-3)
    labels = bootstrap.relabelled(teacher)
    return _trained(run, path, root, labels, loaders, stop_after=stop_after, minutes=minutes, on_epoch=on_epoch, **given).history


def _trained(run: Run, path: Path | None, root: str | Path | None, labels: Tensor | None, loaders: int | None, **how) -> State:
    """A training as it stands at its end, with the labels of the run or with others; locks, random state and kernels are seen to."""
    task = task_of(run, root)
    with workers(run.device) as here, locked(path, here), seeded_rng(run.seed, run.device), exact_kernels(run.device):
        here.check(run.batch_size)
        with contextlib.closing(State(run, task, here, root=root, labels=labels, loaders=loaders)) as state, accidents_named():
            train(state, path, **how)
            return state


def task_of(run: Run, root: str | Path | None) -> Data:
    """The data of a run, which must hold a batch of training images."""
    task = run.task(root)
    if run.batch_size > len(task.train):
        raise ValueError(f"batch_size must be at most {len(task.train)}, the training images; got {run.batch_size}")
    return task


@contextlib.contextmanager
def locked(path: Path | None, here: Workers) -> Iterator[None]:
    """Holds the lock of a checkpoint: two trainings on one would each replace what the other wrote. The processes of one are one."""
    held = files.held(checkpoint.lock(path)) if path is not None and here.is_first else contextlib.nullcontext(True)
    with held as mine:
        if not here.gathered(mine)[0]:
            what = "is in the hands of another training that runs now. Wait for it, or choose another file"
            raise checkpoint.CheckpointError(f"checkpoint_path {path} {what}")
        yield


def train(
    state: State, path: Path | None = None, *, progress: bool = False, stop_after: int | None = None, minutes: float | None = None,
    on_epoch: Callable[[dict], object] | None = None, stop: Callable[[], bool] | None = None,
) -> History:  # fmt: skip
    """What :func:`~bisam.training.fit` does with a state, around which locks, random state and kernels have been seen to."""
    run, history, first = state.run, state.history, state.workers.is_first
    if path is not None and path.exists():
        state.load(checkpoint.read(path, run.identity()), path)
    end = run.epochs if stop_after is None else min(run.epochs, len(history.rows) + stop_after)
    with epochs_bar(run.recipe.name, run.epochs, len(history.rows), progress and first) as advance:
        for _ in course(state, path, end, minutes, advance, on_epoch, stop=stop):
            pass
    return history


def course(
    state: State, path: Path | None, end: int, minutes: float | None = None,
    advance: Callable[[dict], object] = lambda row: None, on_epoch: Callable[[dict], object] | None = None, every: float = 0.0,
    stop: Callable[[], bool] | None = None,
) -> Iterator[None]:  # fmt: skip
    """The training up to an epoch, one step at a time; between two steps others may have the device.

    A checkpoint is written after an epoch, but not within ``every`` seconds of the last, and where the time is over before the run is done.
    """
    run, history, first = state.run, state.history, state.workers.is_first
    made_on = made_on_by(run, 0.0, state.root) if path is not None and first else {}
    began, longest = time.perf_counter(), 0.0
    kept_at, kept = began, len(history.rows)
    while len(history.rows) < end and not history.finished and not late(state, began, longest, minutes) and not _told(stop, state.workers):
        started = time.perf_counter()
        yield from state.steps()
        longest = max(longest, time.perf_counter() - started)
        history.seconds += time.perf_counter() - started
        if path is not None and (every == 0 or state.workers.gathered(time.perf_counter() - kept_at >= every)[0]):
            _keep(state, path, made_on)
            kept_at, kept = time.perf_counter(), len(history.rows)
        if on_epoch is not None and first:
            _tell(on_epoch, dict(history.rows[-1]), run.device)
        advance(history.rows[-1])
    if history.finished:
        history.fitted = state.look(state.train, whole=False).metrics["accuracy"]
    elif path is not None and kept < len(history.rows):
        _keep(state, path, made_on)


def late(state: State, began: float, longest: float, minutes: float | None) -> bool:
    """Whether one more epoch would outlast the time, by the clock of the first process."""
    return minutes is not None and state.workers.gathered(time.perf_counter() - began + longest > 60 * minutes)[0]


def _told(stop: Callable[[], bool] | None, here: Workers) -> bool:
    """Whether one of the processes is to stop: all hear of it before the same epoch."""
    return stop is not None and any(here.gathered(bool(stop())))


def _keep(state: State, path: Path, made_on: dict) -> None:
    saved = state.save()  # all processes have their part in it
    if state.workers.is_first:
        checkpoint.write(path, state.run.identity(), saved, {**made_on, "wall_seconds": round(state.history.seconds, 2)})


def _tell(on_epoch: Callable[[dict], object], row: dict, device: str) -> None:
    """Calls what is not ours, which may draw random numbers and fail, and cost the training neither its bits nor its end."""
    epoch = row["epoch"]
    try:
        with forked_rng(device):
            on_epoch(row)
    except Exception as error:
        said = f"on_epoch failed after epoch {epoch} with {type(error).__name__}: {error}; the training goes on"
        warnings.warn(said, RuntimeWarning, stacklevel=2)
