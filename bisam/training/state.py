"""All that changes while training, in one object: its epochs, its steps, and what a checkpoint keeps of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ..step.batch import Batch
from ..step.optimizer import SharpnessAware
from ..training import augment, captured, evaluation, models, resume
from .averaged import averaged
from .bases import base_optimizer
from .checkpoint import CheckpointError
from .data import Data, Split
from .devices import compiled
from .history import History
from .mixup import mixed
from .rng import rng_state, seed_for, set_rng_state
from .run import PRECISIONS, Run, labelled
from .schedules import scheduler
from .stream import Stream
from .suits import check as check_suits
from .workers import Workers

__all__ = ["State"]

class State:
    """A training as it stands, so that saving it is saving everything.

    ``here`` is this process among those that share every batch. With ``graphs``, a whole step is captured where run and device can. Weights of
    networks that are trained already are read below ``root``. ``labels`` take the place of those of the training samples. Streamed images are
    decoded by so many ``loaders``.

    Example:
        >>> from bisam.training import data
        >>> state = State(Run(model="mlp", epochs=2), data.digits())
        >>> state.epoch()["epoch"], len(state.history.rows)
        (1, 1)
    """

    def __init__(
        self, run: Run, task: Data, here: Workers = Workers(0, 1), graphs: bool = True, root: str | Path | None = None,  # noqa: B008  it holds nothing that changes
        labels: Tensor | None = None, loaders: int | None = None,
    ):  # fmt: skip
        self.run, self.workers, self.device, self.root = run, here, torch.device(run.device), root
        self.task = task = check_suits(run, task)
        self.augment = None if isinstance(task.train.inputs, dict) else augment.AUGMENTATIONS.get(run.augment)  # streamed images are changed where they are decoded
        self.stream = Stream(run, task, loaders) if run.loading == "stream" else None
        train = labelled(run, task) if labels is None else Split(task.train.inputs, labels.to(task.train.targets))
        splits = (train, labelled(run, task, "validation"), task.test)
        self.train, self.validation, self.test = (split.to(self.device if self.stream is None else "cpu") for split in splits)
        layout = torch.channels_last if run.channels_last else torch.preserve_format
        self.model = models.build(run.model, task.shape, task.classes, root).to(device=self.device, memory_format=layout)
        if hasattr(self.model, "prepare"):
            self.model.prepare(task.prepared(task.picked(self.train, slice(models.PREPARED))[0]))
        self.network = compiled(here.wrapped(self.model, run.device), run.compile)
        self.optimizer = SharpnessAware(
            base_optimizer(run, self.model, len(self.train)), run.recipe, seed=run.seed, per_worker=run.per_worker,
            # On a GPU nobody waits for the device to hear whether a gradient is finite: it is looked up after the epoch.
            nonfinite="skip" if self.device.type == "cuda" else "raise",
        )
        self.steps_an_epoch = len(self.train) // run.batch_size
        self.schedule = scheduler(run, self.optimizer, run.epochs * self.steps_an_epoch)
        self.averaged = averaged(run, self.model)
        self.order = torch.Generator().manual_seed(run.seed)
        self.validation_draws = torch.Generator().manual_seed(seed_for("lessons", run.seed))  # which validation images teach the radius
        self.augment_draws = torch.Generator().manual_seed(seed_for("looks", run.seed))  # how the training images are changed
        nothing = torch.zeros(evaluation.count_rows(task, task.test), dtype=torch.bool)
        self.history = History(run, model=self.judged, right={"selected": nothing, "last": nothing})
        self.rng: list[Tensor] | None = None  # the random state of torch, where others draw from it between the steps of this training
        self.whole = captured.WholeStep(self, graphs) if run.compile == "whole-step" else None
        if here.rank:
            torch.manual_seed(run.seed + here.rank)  # other dropout masks for the other samples

    @property
    def judged(self) -> nn.Module:
        """The network that is evaluated and kept, which is the one that is trained or has the average of its weights."""
        return self.model if self.averaged is None else self.averaged.module

    def epoch(self) -> dict:
        """One more epoch; its row."""
        for _ in self.steps():
            pass
        return self.history.rows[-1]

    def steps(self) -> Iterator[None]:
        """One more epoch, step by step; its row is there at the end."""
        epoch, lr, seen = len(self.history.rows) + 1, self.schedule.get_last_lr()[0], 0
        self.model.train()
        sums = self.whole.sums if self.whole else evaluation.Sums(self.device)
        try:
            for count in self.whole.epoch(lr) if self.whole else self._each_step(sums):
                seen += count
                yield
            self._check_finite()
        except FloatingPointError as error:
            raise FloatingPointError(f"epoch {epoch} of {self.run.epochs}, lr {lr:g}: {error}") from None
        if self.run.rate_by == "epoch":
            self.schedule.step()
        self.history.skipped = self.optimizer.skipped
        seen = int(self.workers.total(sums.rows)) or seen
        row = {
            "epoch": epoch, "lr": lr,
            "train_loss": float(self.workers.total(sums.loss)) / seen,
            "train_accuracy": 100 * int(self.workers.total(sums.right)) / seen,
            "broken": int(self.workers.total(sums.broken)),
        }  # fmt: skip
        if self.run.recipe.radius.learns:
            row["rho"] = self.optimizer.memory.rho
        self.history.rows.append(row)
        self.history.steps = self.steps_an_epoch * len(self.history.rows)
        if self.run.evaluates(epoch):
            self._evaluate(row)

    def _evaluate(self, row: dict) -> None:
        """Adds to the row of an epoch what the model says about the other two splits."""
        seen = {"validation": self.look(self.validation), "test": self.look(self.test)}
        row.update({f"{split}_{name}": value for split, found in seen.items() for name, value in found.metrics.items()})
        self.history.right["last"] = seen["test"].right
        if self.history.selected_epoch == row["epoch"]:
            self.history.right["selected"] = seen["test"].right

    def _each_step(self, sums: evaluation.Sums) -> Iterator[int]:
        for batch in self._each_batch():
            parts = batch.split(self.part_size)
            sums.add_parts(parts, self._step(parts))
            if self.run.rate_by == "step":
                self.schedule.step()
            if self.averaged is not None:
                self.averaged.update_parameters(self.model)
            yield self.run.batch_size

    def _each_batch(self) -> Iterator[Batch]:
        """This process's share of each batch of the next epoch; streamed, the processes that decode have no other."""
        if self.stream is None:
            return (self.batch(self.train, index, self.augment) for index in self.batches())
        shares = map(self.workers.share, self.batches())
        return itertools.starmap(self._of, self.stream.parts(self.train, shares, len(self.history.rows) + 1))

    def _step(self, parts: list[Batch]) -> Tensor:
        """One step of the optimiser; the gradient that the base is handed may be clipped."""
        batch, validation = parts if len(parts) > 1 else parts[0], self._validation_batch()
        if self.run.clip is None:
            return self.optimizer.step(batch, validation=validation)
        self.optimizer.zero_grad()
        loss = self.optimizer.backward(batch, validation=validation)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.run.clip)
        self.optimizer.step()
        return loss

    @property
    def part_size(self) -> int:
        """Samples that go through the network at a time in this process."""
        return self.run.batch_size // self.run.accumulate // self.workers.size

    def next_order(self) -> Tensor:
        """The order of the training images in the next epoch, on the CPU."""
        return torch.randperm(len(self.train), generator=self.order)

    def batches(self) -> Iterator[Tensor]:
        """The places of the images of each batch of the next epoch."""
        size = self.run.batch_size
        order = self.next_order().to(self.train.targets.device)
        return (order[k : k + size] for k in range(0, len(order) - size + 1, size))

    def batch(self, split: Split, index: Tensor, change: augment.Augment | None) -> Batch:
        """This process's share of some samples; the whole batch is changed before it is shared, to draw the same everywhere."""
        if self.stream is not None:
            return self._of(*self.stream.picked(split, self.workers.share(index)))
        inputs, targets = self.task.picked(split, index)
        inputs = self.task.prepared(inputs) if change is None else change(inputs, self.task, self.augment_draws)
        if self.run.mixup and split is self.train:
            inputs, targets = mixed(inputs, targets, self.run.mixup, self.task.classes, self.augment_draws)
        if self.workers.size > 1:
            share = self.workers.share
            inputs, targets = {name: share(one) for name, one in inputs.items()} if isinstance(inputs, dict) else share(inputs), share(targets)
        return self._of(inputs, targets)

    def _of(self, inputs: Tensor | dict[str, Tensor], targets: Tensor) -> Batch:
        return Batch(self.network, self.laid_out(self.task.prepared(inputs)), targets, PRECISIONS[self.run.precision], task=self.task.task)

    def laid_out(self, inputs: Tensor) -> Tensor:
        """The inputs in the layout that the run asks for."""
        return inputs.contiguous(memory_format=torch.channels_last) if self.run.channels_last else inputs

    def _validation_batch(self) -> Batch | None:
        """A batch of validation images for a learned radius, which must not see test images."""
        if not self.run.recipe.radius.learns:
            return None
        size = min(self.run.batch_size, len(self.validation))
        size -= size % self.workers.size
        index = torch.randperm(len(self.validation), generator=self.validation_draws)[:size].to(self.validation.targets.device)
        return self.batch(self.validation, index, None)

    def _check_finite(self) -> None:
        """On a GPU, where the steps did not look: a ``FloatingPointError`` if a step of this epoch was skipped."""
        if self.optimizer.nonfinite == "skip" and (fresh := self.optimizer.skipped - self.history.skipped):
            raise FloatingPointError(f"{fresh} steps met a gradient that is inf or NaN and were skipped")

    def look(self, split: Split, whole: bool = True) -> evaluation.Seen:
        """What a split says of the network as it is."""
        small = self.task.is_plain and self.stream is None
        chunk = evaluation.CHUNK if small else self.run.batch_size  # a row of tokens takes much more memory than a small image, and so does a photograph
        shared = () if self.stream is None else (self.stream.parts(split, self.workers.shares(len(split), chunk)), self.workers.joined)
        with self.autocast():
            return evaluation.look(self.judged, self.task, split, self.laid_out, chunk, whole, *shared)

    def autocast(self) -> torch.autocast:
        """The precision of the run, around a look at its network."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.run.precision == "bfloat16")

    def close(self) -> None:
        """Ends the processes that decode for this training."""
        if self.stream is not None:
            self.stream.close()

    def save(self) -> dict:
        """What a checkpoint keeps: tensors and plain values. The names stay, for the files of earlier versions."""
        return {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
            **{name: generator.get_state() for name, generator in self._generators()},
            "randomness": self.workers.gathered(self.rng or rng_state(self.run.device)),
            "rows": self.history.rows, "seconds": self.history.seconds, "right": self.history.right,
            **({} if self.averaged is None else {"averaged": self.averaged.state_dict()}),
        }  # fmt: skip

    def _generators(self) -> tuple[tuple[str, torch.Generator], ...]:
        return ("order", self.order), ("lessons", self.validation_draws), ("looks", self.augment_draws)

    def load(self, saved: dict, path: Path | None = None) -> None:
        """Takes over what :meth:`save` wrote. The state is a fresh one; a ``CheckpointError`` leaves it of no use."""
        try:
            resume.check(self, saved)
            self._load(saved)
        except Exception as error:  # also what torch says of random states and of values that have the right form
            why = f": {error}" if isinstance(error, CheckpointError) else f" ({type(error).__name__}: {error})"
            raise CheckpointError(f"checkpoint_path {path} does not fit this run{why}. Delete it to start over") from None

    def _load(self, saved: dict) -> None:
        self.model.load_state_dict(saved["model"])
        if self.averaged is not None:
            self.averaged.load_state_dict(saved["averaged"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        for name, generator in self._generators():
            generator.set_state(saved[name].cpu())
        set_rng_state(saved["randomness"][self.workers.rank], self.run.device)
        self.history.rows, self.history.steps = saved["rows"], self.steps_an_epoch * len(saved["rows"])
        self.history.skipped, self.history.seconds = self.optimizer.skipped, saved["seconds"]
        self.history.right = saved["right"]

    def first_step(self) -> None:
        """One step on the first batch, which makes all that a step makes."""
        self._step(self.batch(self.train, next(self.batches()), self.augment).split(self.part_size))
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
