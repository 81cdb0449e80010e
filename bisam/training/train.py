"""Training from a description to a record: ``Run`` says what, ``fit`` does it, ``History`` holds what came out."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import _checks
from .. import _files as files
from .._progress import epochs_bar
from ..axes.radius import Learned
from ..axes.recipe import Recipe
from ..methods.bsam import Precision, Variational
from ..methods.table import RECIPES, SAM, recipe
from ..step.batch import Batch
from ..step.optimizer import SharpnessAware
from ..training import augment, captured, checkpoint, data, models
from ..training import resume as _resume
from .data import Data, Split
from .workers import Workers, workers

__all__ = ["COMPILE", "PRECISIONS", "History", "Run", "fit", "labelled", "weights_digest"]

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
COMPILE = ("no", "default", "reduce-overhead", "whole-step")  # the last two run CUDA graphs


@dataclass(frozen=True)
class Run:
    r"""Everything that decides what a training does, and nothing else.

    The learning rate follows :math:`\eta_e = \tfrac12 \eta\,(1 + \cos(\pi e / E))` over the epochs
    :math:`e = 0, \dots, E - 1`, as in the published runs.

    Args:
        recipe: the method, a :class:`~bisam.axes.recipe.Recipe` or its name.
        data: name of the task, one of ``bisam.training.data.DATA``, ``"folder:NAME"`` for a tree of images, ``"file:NAME"`` for arrays,
            or the path of a function of one's own, ``"package.module:function"``, see :func:`bisam.training.data.load`.
        model: name of the network, one of ``bisam.training.models.MODELS``, or the path of a function of one's own, see :func:`bisam.training.models.check_name`.
        epochs: passes over the training images.
        batch_size: images a step; a smaller last batch is left out of the epoch.
        lr: learning rate at the start.
        momentum: of the base optimiser, SGD, in [0, 1). The base of the bSAM recipes takes it as its first beta.
        weight_decay: of the base optimiser; it is not part of the ascent gradient. For bSAM it is the prior.
        label_noise: share of the training labels that are redrawn, in [0, 1); the other splits stay clean.
        noise_reading: ``"other"`` or ``"any"``, see :func:`~bisam.training.data.symmetric_noise`.
        seed: of the initial weights, the order of the images, the dropout masks and the noisy labels.
        device: ``"cpu"`` or a CUDA device.
        augment: how training images are changed, one of ``bisam.training.augment.AUGMENTATIONS``.
        split_seed: which training images are held back for validation; the digits have one split.
        train_images: take so many training images, a tenth of them for validation; all if ``None``.
        test_images: report on so many test images; all if ``None``.
        pool: average the pixels of the images over squares of this side; 1 leaves them as they are.
        validation_noise: the validation labels are redrawn at the same rate as the training labels.
        precision: ``"bfloat16"`` runs the networks under autocast; ``"float32"`` is that on a GPU as well, without TF32.
        channels_last: the layout of images and kernels that convolutions like best; it moves the last bits.
        compile: ``"default"`` or ``"reduce-overhead"`` (with CUDA graphs) runs the network through ``torch.compile``;
            ``"whole-step"`` makes one CUDA graph of both passes and all around them, see :mod:`bisam.training.captured`. On a CPU it is
            ``"no"`` to the bit.
        per_worker: with several processes, each climbs with the gradient of its own share of the batch.
        evaluate_every: look at the validation and test splits after so many epochs, and after the last one.

    Raises:
        TypeError, ValueError: a field of the wrong type or out of range.

    Source:
        The protocol of Xie et al. (2024), section 4.1, at the size of the digits.

    Example:
        >>> Run(recipe="bisam-log", epochs=3).recipe.passes
        2
    """

    recipe: Recipe | str = SAM
    data: str = "digits"
    model: str = "small_conv"
    epochs: int = 30
    batch_size: int = 100
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_noise: float = 0.0
    noise_reading: str = "other"
    seed: int = 0
    device: str = "cpu"
    augment: str = "none"
    split_seed: int = 0
    train_images: int | None = None
    test_images: int | None = None
    validation_noise: bool = False
    precision: str = "float32"
    channels_last: bool = False
    compile: str = "no"
    per_worker: bool = False
    pool: int = 1
    evaluate_every: int = 1

    def __post_init__(self):
        if isinstance(self.recipe, str):
            object.__setattr__(self, "recipe", recipe(self.recipe))
        if not isinstance(self.recipe, Recipe):
            raise TypeError(f"recipe must be a bisam.Recipe or one of {', '.join(RECIPES)}; got {_checks.shown(self.recipe)}")
        object.__setattr__(self, "data", data.check_name(self.data))
        object.__setattr__(self, "model", models.check_name(self.model))
        _checks.keep(self, _checks.whole, "epochs", "batch_size", "pool", "evaluate_every")
        _checks.keep(self, _checks.positive, "lr")
        _checks.keep(self, _checks.nonnegative, "weight_decay")
        _checks.keep(self, _checks.fraction, "momentum", "label_noise")
        _checks.choice("noise_reading", self.noise_reading, data.READINGS)
        _checks.keep(self, _checks.whole, "seed", "split_seed", least=0)
        _checks.keep(self, _checks.optional, "train_images", "test_images", of=_checks.whole)
        for name in ("validation_noise", "channels_last", "per_worker"):
            _checks.flag(name, getattr(self, name))
        _checks.choice("augment", self.augment, tuple(augment.AUGMENTATIONS))
        _checks.choice("precision", self.precision, tuple(PRECISIONS))
        _checks.choice("compile", self.compile, COMPILE)
        if self.compile == "whole-step":
            captured.check(self.recipe)
        _checks.device("device", self.device)

    def replace(self, **changes) -> Run:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def task(self, root: str | Path | None = None) -> Data:
        """The data with their splits, read from the folder of the data sets, see :func:`bisam.training.data.load`."""
        chosen = {"train_images": self.train_images, "test_images": self.test_images, "split_seed": self.split_seed, "pool": self.pool}
        return data.load(self.data, root, **chosen)

    def evaluates(self, epoch: int) -> bool:
        """Whether validation and test accuracy are measured after this epoch, counted from 1."""
        return epoch % self.evaluate_every == 0 or epoch == self.epochs

    def to_dict(self) -> dict:
        """All fields as plain values, ready for JSON."""
        plain = {name.name: getattr(self, name.name) for name in dataclasses.fields(self)}
        return {**plain, "recipe": self.recipe.to_dict()}

    @staticmethod
    def from_dict(fields: dict) -> Run:
        """The run that :meth:`to_dict` wrote."""
        _checks.part("fields", fields, dict, "a dictionary as Run.to_dict() makes it")
        if "recipe" not in fields:
            raise ValueError(f"fields must hold a recipe, got {_checks.shown(list(fields))}")
        known = [one.name for one in dataclasses.fields(Run)]
        for name in fields:
            _checks.choice("a name among the fields", name, known)
        return Run(**{**fields, "recipe": Recipe.from_dict(fields["recipe"])})


@dataclass
class History:
    r"""What a training left: one row an epoch, and the trained model.

    A row holds ``epoch`` (from 1), ``lr``, ``train_loss`` (mean over the epoch of the descent loss of each batch at the w of its
    step), ``train_accuracy`` (at these same w, on the labels trained on), ``broken`` (how many training samples were right at
    the w of their step and wrong where its descent gradient was taken, as :class:`~bisam.step.batch.Batch` says; with ``TopK`` among the
    chosen samples; 0 where nothing climbs), and in the epochs that are evaluated ``validation_accuracy`` and ``test_accuracy``;
    accuracies in percent. Where the radius is learned there is one more, ``rho``, the radius after the last step of the epoch.

    Args:
        run: what was done.
        rows: one an epoch.
        skipped: steps that were left out because a gradient was not finite.
        seconds: wall time of the epochs.
        model: the network with its weights after the last epoch.
        right: which test images are right, a boolean tensor of shape (m,) in the order of the test split: ``"selected"`` at
            :attr:`selected_epoch`, ``"last"`` after the last epoch that was done.
        fitted: accuracy in percent on all training images with the labels trained on, in evaluation mode, unaugmented, after the
            last epoch of the run; ``None`` before.

    Source:
        The selection rule is that of Xie et al. (2024), section 4.1 of the early version.

    Example:
        >>> rows = [{"epoch": e, "validation_accuracy": v, "test_accuracy": t} for e, v, t in ((1, 90, 88), (2, 90, 91))]
        >>> history = History(Run(epochs=2), rows)
        >>> history.selected_epoch, history.selected_test_accuracy, history.last_test_accuracy
        (1, 88, 91)
    """

    run: Run
    rows: list[dict] = field(default_factory=list)
    skipped: int = 0
    seconds: float = 0.0
    model: nn.Module | None = None
    right: dict[str, Tensor] = field(default_factory=dict)
    fitted: float | None = None

    @property
    def finished(self) -> bool:
        """Whether all epochs of the run are done."""
        return len(self.rows) == self.run.epochs

    @property
    def selected_epoch(self) -> int:
        """The earliest epoch of the highest validation accuracy among those evaluated, which is what the protocol reports."""
        seen = [row for row in self.rows if "validation_accuracy" in row]
        if not seen:
            raise ValueError(f"no epoch has been evaluated yet: {len(self.rows)} are done, the first is evaluated after {self.run.evaluate_every}")
        return max(seen, key=lambda row: (row["validation_accuracy"], -row["epoch"]))["epoch"]

    @property
    def selected_test_accuracy(self) -> float:
        """Test accuracy in percent at :attr:`selected_epoch`."""
        return self.rows[self.selected_epoch - 1]["test_accuracy"]

    @property
    def last_test_accuracy(self) -> float:
        """Test accuracy in percent after the last epoch that was evaluated, whatever the validation split says."""
        return self.curve("test_accuracy")[-1]

    def curve(self, name: str) -> list[float]:
        """One column of the rows, such as ``"test_accuracy"``, from the epochs that have it."""
        _checks.choice("name of the column", name, tuple(dict.fromkeys(key for row in self.rows for key in row)))
        return [row[name] for row in self.rows if name in row]


def fit(
    run: Run,
    checkpoint_path: str | Path | None = None,
    *,
    root: str | Path | None = None,
    progress: bool = False,
    stop_after: int | None = None,
    minutes: float | None = None,
    on_epoch: Callable[[dict], object] | None = None,
) -> History:
    """Trains as ``run`` says and returns the history; with a checkpoint it goes on where it was cut, exactly.

    The caller's random state is left as it was. The checkpoint is replaced in one piece after every epoch, so that a
    kill at any moment costs at most one epoch, and the resumed training ends at the same bits as an uncut one (on the
    same machine with the same number of threads, on which the order of sums depends).

    Under ``torchrun`` the processes share every batch and come to the same weights; the first writes the checkpoint. Apart from
    that one training at a time works on a checkpoint: it holds a lock beside the file, which goes with its process.

    Args:
        run: what to do.
        checkpoint_path: file to write after every epoch, and to go on from if it is there.
        root: folder of the data sets, see :func:`bisam.training.data.load`.
        progress: show a bar on the terminal; where there is none, write lines to the error output.
        stop_after: end cleanly after so many epochs in this call; the same call goes on later.
        minutes: end cleanly before an epoch that would probably last beyond this; the same call goes on later.
        on_epoch: is called with a copy of the row of each epoch that this call finishes, when the checkpoint has it; of several processes the
            first calls it. Whatever it draws or changes, the training goes on to the same bits; an error in it becomes a warning.

    Returns:
        One row an epoch, and the model with its weights after the last one.

    Raises:
        bisam.training.checkpoint.CheckpointError: the file is damaged in any bit, belongs to another run, does not fit this one, is in the
            hands of another training, or cannot be written; the file is as it was.
        bisam.training.data.DataError: the data are not there, or broken.
        FloatingPointError: a gradient is inf or NaN; the message says at which epoch, the checkpoint stays.
        ValueError: the batch size exceeds the number of training images, or cannot be shared by the processes.

    Source:
        Xie et al. (2024), section 4.1 of the early version: SGD with momentum, cosine schedule by the epoch, the
        epoch chosen by validation accuracy.

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
    path = _checks.optional("checkpoint_path", checkpoint_path, of=_checks.path)
    if path is not None:
        checkpoint.check_writable(path)
    models.find(run.model)
    task = task_of(run, root)
    with workers(run.device) as here, _alone_at(path, here), _own_randomness(run), exact_kernels(run.device):
        here.check(run.batch_size)
        return _train(_State(run, task, here), path, progress, stop_after, minutes, on_epoch)


def task_of(run: Run, root: str | Path | None) -> Data:
    """The data of a run, which must hold a batch of training images."""
    task = run.task(root)
    if run.batch_size > len(task.train):
        raise ValueError(f"batch_size must be at most {len(task.train)}, the training images; got {run.batch_size}")
    return task


@contextlib.contextmanager
def _alone_at(path: Path | None, here: Workers) -> Iterator[None]:
    """Holds the lock of a checkpoint: two trainings on one would each replace what the other wrote. The processes of one are one."""
    locked = files.held(checkpoint.lock(path)) if path is not None and here.is_first else contextlib.nullcontext(True)
    with locked as mine:
        if not here.gathered(mine)[0]:
            raise checkpoint.CheckpointError(
                f"checkpoint_path {path} is in the hands of another training that runs now. Wait for it, or choose another file"
            )
        yield


def _train(
    state: _State, path: Path | None, progress: bool, stop_after: int | None, minutes: float | None, on_epoch: Callable | None
) -> History:
    run, history, first = state.run, state.history, state.workers.is_first
    if path is not None and path.exists():
        state.load(checkpoint.read(path, _identity(run)), path)
    end = run.epochs if stop_after is None else min(run.epochs, len(history.rows) + stop_after)
    with epochs_bar(run.recipe.name, run.epochs, len(history.rows), progress and first) as advance:
        for _ in course(state, path, end, minutes, advance, on_epoch):
            pass
    return history


def course(
    state: _State, path: Path | None, end: int, minutes: float | None = None,
    advance: Callable[[dict], object] = lambda row: None, on_epoch: Callable[[dict], object] | None = None, every: float = 0.0,
) -> Iterator[None]:  # fmt: skip
    """The training up to an epoch, one step at a time; between two steps others may have the device.

    A checkpoint is written after an epoch, but not within ``every`` seconds of the last, and where the time is over before the run is done.
    """
    from .environment import made_on_by  # it needs the names of this module

    run, history, first = state.run, state.history, state.workers.is_first
    made_on = made_on_by(run, 0.0) if path is not None and first else {}
    began, longest = time.perf_counter(), 0.0
    kept_at, kept = began, len(history.rows)
    while len(history.rows) < end and not state.late(began, longest, minutes):
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
        history.fitted = state._accuracy(state.train)
    elif path is not None and kept < len(history.rows):
        _keep(state, path, made_on)


def _keep(state: _State, path: Path, made_on: dict) -> None:
    saved = state.save()  # all processes have their part in it
    if state.workers.is_first:
        checkpoint.write(path, _identity(state.run), saved, {**made_on, "wall_seconds": round(state.history.seconds, 2)})


class Sums:
    """What an epoch adds up, on the device until its end: losses, right samples, and those that the climb has broken."""

    def __init__(self, device: torch.device):
        self.loss = torch.zeros((), device=device)
        self.right, self.broken = self.loss.long(), self.loss.long()

    def clear(self) -> None:
        """Begins again, in the same tensors."""
        for total in (self.loss, self.right, self.broken):
            total.zero_()

    def add(self, batch: Batch, loss: Tensor) -> None:
        """Takes in a step, without waiting for it."""
        self.loss.add_(loss * len(batch.targets))
        self.right.add_(_right(batch.at_w, batch.targets).sum())
        self.broken.add_(_broken(batch))


def _tell(on_epoch: Callable[[dict], object], row: dict, device: str) -> None:
    """Calls what is not ours, which may draw random numbers and fail, and cost the training neither its bits nor its end."""
    epoch = row["epoch"]
    try:
        with _kept_randomness(device):
            on_epoch(row)
    except Exception as error:
        said = f"on_epoch failed after epoch {epoch} with {type(error).__name__}: {error}; the training goes on"
        warnings.warn(said, RuntimeWarning, stacklevel=2)


class _State:
    """All that changes while training, so that saving it is saving everything."""

    def __init__(self, run: Run, task: Data, here: Workers = Workers(0, 1), graphs: bool = True):  # noqa: B008  it holds nothing that changes
        self.run, self.workers, self.device = run, here, torch.device(run.device)
        self.task, self.augment = task, augment.AUGMENTATIONS[run.augment]
        splits = (labelled(run, task), labelled(run, task, "validation"), task.test)
        self.train, self.validation, self.test = (split.to(self.device) for split in splits)
        layout = torch.channels_last if run.channels_last else torch.preserve_format
        self.model = models.build(run.model, task.shape, task.classes).to(device=self.device, memory_format=layout)
        if hasattr(self.model, "prepare"):
            self.model.prepare(task.prepared(self.train.inputs[:models.PREPARED]))
        self.network = _compiled(here.wrapped(self.model, run.device), run.compile)
        self.optimizer = SharpnessAware(
            _base(run, self.model, len(self.train)), run.recipe, seed=run.seed, per_worker=run.per_worker,
            # On a GPU nobody waits for the device to hear whether a gradient is finite: it is looked up after the epoch.
            nonfinite="skip" if self.device.type == "cuda" else "raise",
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=run.epochs)
        self.order = torch.Generator().manual_seed(run.seed)
        self.lessons = torch.Generator().manual_seed(_stream("lessons", run.seed))  # which validation images teach the radius
        self.looks = torch.Generator().manual_seed(_stream("looks", run.seed))  # how the training images are changed
        nothing = torch.zeros(len(self.test), dtype=torch.bool)
        self.history = History(run, model=self.model, right={"selected": nothing, "last": nothing})
        self.randomness: list[Tensor] | None = None  # that of torch, where others draw from it between the steps of this training
        self.whole = captured.WholeStep(self, graphs) if run.compile == "whole-step" else None
        if here.rank:
            torch.manual_seed(run.seed + here.rank)  # other dropout masks for the other samples

    def late(self, began: float, longest: float, minutes: float | None) -> bool:
        """Whether one more epoch would outlast the time, by the clock of the first process."""
        if minutes is None:
            return False
        late = time.perf_counter() - began + longest > 60 * minutes
        return self.workers.gathered(late)[0]

    def epoch(self) -> dict:
        """One more epoch; its row."""
        for _ in self.steps():
            pass
        return self.history.rows[-1]

    def steps(self) -> Iterator[None]:
        """One more epoch, step by step; its row is there at the end."""
        epoch, lr, seen = len(self.history.rows) + 1, self.schedule.get_last_lr()[0], 0
        self.model.train()
        sums = self.whole.sums if self.whole else self.new_sums()
        try:
            for count in self.whole.epoch(lr) if self.whole else self._each_step(sums):
                seen += count
                yield
            self._check_finite()
        except FloatingPointError as error:
            raise FloatingPointError(f"epoch {epoch} of {self.run.epochs}, lr {lr:g}: {error}") from None
        self.schedule.step()
        self.history.skipped = self.optimizer.skipped
        row = {
            "epoch": epoch,
            "lr": lr,
            "train_loss": float(self.workers.total(sums.loss)) / seen,
            "train_accuracy": 100 * int(self.workers.total(sums.right)) / seen,
            "broken": int(self.workers.total(sums.broken)),
        }
        if isinstance(self.run.recipe.radius, Learned):
            row["rho"] = self.optimizer.memory.rho
        self.history.rows.append(row)
        if self.run.evaluates(epoch):
            self._evaluate(row)

    def _evaluate(self, row: dict) -> None:
        """Adds to the row of an epoch what the model says about the other two splits."""
        right = self._right(self.test)
        row["validation_accuracy"] = self._accuracy(self.validation)
        row["test_accuracy"] = 100 * int(right.sum()) / len(right)
        self.history.right["last"] = right
        if self.history.selected_epoch == row["epoch"]:
            self.history.right["selected"] = right

    def _each_step(self, sums: Sums) -> Iterator[int]:
        for index in self._batches():
            batch = self._batch(self.train, index, self.augment)
            sums.add(batch, self.optimizer.step(batch, validation=self._lesson()))
            yield len(index)

    def new_sums(self) -> Sums:
        return Sums(self.device)

    def next_order(self) -> Tensor:
        """The order of the training images in the next epoch, on the CPU."""
        return torch.randperm(len(self.train), generator=self.order)

    def _batches(self) -> Iterator[Tensor]:
        size = self.run.batch_size
        order = self.next_order().to(self.train.targets.device)
        return (order[k : k + size] for k in range(0, len(order) - size + 1, size))

    def _batch(self, split: Split, index: Tensor, change: augment.Augment | None) -> Batch:
        """This process's share of some samples; the whole batch is changed before it is shared, to draw the same everywhere."""
        inputs = split.inputs[index]
        inputs = self.task.prepared(inputs) if change is None else change(inputs, self.task, self.looks)
        mine = self.workers.share(torch.arange(len(index), device=index.device)) if self.workers.size > 1 else slice(None)
        return Batch(self.network, self._laid_out(inputs[mine]), split.targets[index[mine]], PRECISIONS[self.run.precision])

    def _laid_out(self, inputs: Tensor) -> Tensor:
        return inputs.contiguous(memory_format=torch.channels_last) if self.run.channels_last else inputs

    def _lesson(self) -> Batch | None:
        """A batch of validation images for a learned radius, which must not see test images."""
        if not isinstance(self.run.recipe.radius, Learned):
            return None
        size = min(self.run.batch_size, len(self.validation))
        size -= size % self.workers.size
        index = torch.randperm(len(self.validation), generator=self.lessons)[:size].to(self.validation.targets.device)
        return self._batch(self.validation, index, None)

    def _check_finite(self) -> None:
        """On a GPU, where the steps did not look: a ``FloatingPointError`` if a step of this epoch was skipped."""
        if self.optimizer.nonfinite == "skip" and (fresh := self.optimizer.skipped - self.history.skipped):
            raise FloatingPointError(f"{fresh} steps met a gradient that is inf or NaN and were skipped")

    def _accuracy(self, split: Split) -> float:
        return 100 * int(self._right(split).sum()) / len(split)

    def _right(self, split: Split) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.run.precision == "bfloat16"):
            return which_right(self.model, split, prepared=lambda inputs: self._laid_out(self.task.prepared(inputs)))

    def save(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "order": self.order.get_state(),
            "lessons": self.lessons.get_state(),
            "looks": self.looks.get_state(),
            "randomness": self.workers.gathered(self.randomness or _random_state(self.run.device)),
            "rows": self.history.rows,
            "seconds": self.history.seconds,
            "right": self.history.right,
        }

    def load(self, saved: dict, path: Path | None = None) -> None:
        """Takes over what :meth:`save` wrote. The state is a fresh one; a ``CheckpointError`` leaves it of no use."""
        try:
            _resume.check(self, saved)
            self._load(saved)
        except checkpoint.CheckpointError as error:
            raise checkpoint.CheckpointError(f"checkpoint_path {path} does not fit this run: {error}. Delete it to start over") from None
        except Exception as error:  # what torch says of random states and of values that have the right form
            raise checkpoint.CheckpointError(
                f"checkpoint_path {path} does not fit this run ({type(error).__name__}: {error}). Delete it to start over"
            ) from None

    def _load(self, saved: dict) -> None:
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        for name in ("order", "lessons", "looks"):
            getattr(self, name).set_state(saved[name].cpu())
        _set_random_state(saved["randomness"][self.workers.rank], self.run.device)
        self.history.rows = saved["rows"]
        self.history.skipped, self.history.seconds = self.optimizer.skipped, saved["seconds"]
        self.history.right = saved["right"]

    def first_step(self) -> None:
        """One step on the first batch, which makes all that a step makes."""
        self.optimizer.step(self._batch(self.train, next(self._batches()), self.augment), validation=self._lesson())


def _identity(run: Run) -> dict:
    """What a checkpoint must agree with: all of a run but the number of its GPU, so that another one can go on."""
    return {**run.to_dict(), "device": run.device.partition(":")[0]}


def labelled(run: Run, task: Data, part: str = "train") -> Split:
    """A split with the labels that a run sees: redrawn in part where the run says so.

    Args:
        run: its noise rate, its reading, its seed, and whether validation labels are noisy too.
        task: what :func:`bisam.training.data.load` returned.
        part: ``"train"`` or ``"validation"``.

    Raises:
        ValueError: another part.

    Source:
        Ours.

    Example:
        >>> task = data.digits()
        >>> noisy = labelled(Run(label_noise=0.4, seed=3), task)
        >>> int((noisy.targets != task.train.targets).sum())
        400
    """
    _checks.part("run", run, Run, "a bisam.training.Run")
    _checks.part("task", task, Data, "a bisam.training.data.Data")
    split = getattr(task, _checks.choice("part", part, ("train", "validation")))
    if not run.label_noise or (part == "validation" and not run.validation_noise):
        return split
    seed = _stream(f"{part} labels", run.seed)
    noisy = data.symmetric_noise(split.targets, run.label_noise, task.classes, seed, reading=run.noise_reading)
    return Split(split.inputs, noisy)


def _stream(purpose: str, seed: int) -> int:
    """A seed of its own for each purpose: two generators with one seed draw the same permutation.

    Labels that were redrawn with the seed of the order would all come first in the first epoch.
    """
    return int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:4], "big")


def _compiled(network: nn.Module, mode: str) -> nn.Module:
    if mode in ("no", "whole-step"):
        return network
    torch.compiler.reset()  # of a sweep every training compiles; dynamo gives up after a few networks
    return torch.compile(network, mode=None if mode == "default" else mode)


def _base(run: Run, model: nn.Module, samples: int) -> torch.optim.Optimizer:
    """SGD with momentum, or the base that bSAM brings with it."""
    if isinstance(run.recipe.geometry, Precision):
        betas = (run.momentum, 0.999)
        return Variational(model.parameters(), run.lr, betas, samples=samples, prior=run.weight_decay)
    return torch.optim.SGD(
        model.parameters(), lr=run.lr, momentum=run.momentum, weight_decay=run.weight_decay,
        fused=True if run.device.startswith("cuda") else None,  # skips a step by itself, see ``nonfinite`` above
    )


def accuracy(model: nn.Module, split: Split, chunk: int = 1000, prepared: Callable[[Tensor], Tensor] | None = None) -> float:
    """Share of samples whose highest logit is that of the true class, in percent; otherwise as :func:`which_right`."""
    return 100 * int(which_right(model, split, chunk, prepared).sum()) / len(split)


@torch.no_grad()
def which_right(model: nn.Module, split: Split, chunk: int = 1000, prepared: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Whether the highest logit of each sample is that of its true class, on the CPU; in evaluation mode, the model's mode is kept.

    ``prepared`` makes of a chunk of inputs what the network takes, such as :meth:`bisam.training.data.Data.prepared`.
    """
    was_training = model.training
    model.eval()
    parts = zip(split.inputs.split(chunk), split.targets.split(chunk), strict=True)
    right = [_right(model(prepared(inputs) if prepared else inputs), targets) for inputs, targets in parts]
    model.train(was_training)
    return torch.cat(right).cpu()


def _right(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.argmax(1) == targets


def _broken(batch: Batch) -> Tensor | int:
    """How many of the samples that both passes saw are right at w and wrong at w + epsilon, in training mode."""
    batch = batch if batch.chosen is None else batch.chosen
    if batch.at_worst is None:
        return 0
    return (_right(batch.at_w, batch.targets) & ~_right(batch.at_worst, batch.targets)).sum()


def weights_digest(model: nn.Module) -> str:
    """The first 16 digits of a SHA-256 over the bits of all parameters and buffers, to tell runs apart.

    Args:
        model: any module.

    Source:
        Ours.

    Example:
        >>> weights_digest(nn.Linear(2, 2)) == weights_digest(nn.Linear(2, 2))
        False
    """
    digest = hashlib.sha256()
    for name, tensor in _checks.module("model", model).state_dict().items():
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        digest.update(name.encode() + raw)
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _own_randomness(run: Run) -> Iterator[None]:
    with _kept_randomness(run.device):
        torch.manual_seed(run.seed)
        yield


def _kept_randomness(device: str) -> contextlib.AbstractContextManager:
    """What is drawn inside is not seen outside; on every GPU, for manual_seed seeds all of them."""
    used = device != "cpu" or torch.cuda.is_initialized()
    return torch.random.fork_rng(range(torch.cuda.device_count()) if used else [])


@contextlib.contextmanager
def exact_kernels(device: str) -> Iterator[None]:
    """On a GPU: float32 in full (not TF32), and convolutions that add in a fixed order, so that a resumed run has the same bits."""
    if device == "cpu":
        yield
        return
    before = torch.get_float32_matmul_precision()
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)


def _random_state(device: str) -> list[Tensor]:
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.startswith("cuda") else [])


def _set_random_state(states: list[Tensor], device: str) -> None:
    torch.set_rng_state(states[0].cpu())
    if device.startswith("cuda"):
        torch.cuda.set_rng_state(states[1].cpu(), device)


def equal_budget(epochs: int, method: Recipe) -> int:
    """Epochs that cost as many passes as ``epochs`` of a two-pass method: twice as many for the base optimiser."""
    return math.ceil(epochs * 2 / method.passes)
