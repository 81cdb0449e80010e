"""All that changes while training, in one object: its epochs, its steps, and what a checkpoint keeps of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ..methods.bsam import needs_variational
from ..methods.variational import Variational
from ..step.batch import Batch
from ..step.optimizer import SharpnessAware
from ..training import augment, captured, evaluation, models, resume
from .checkpoint import CheckpointError
from .data import Data, Split
from .devices import compiled
from .history import History
from .rng import rng_state, seed_for, set_rng_state
from .run import PRECISIONS, Run, labelled
from .workers import Workers

__all__ = ["State"]


def base_optimizer(run: Run, model: nn.Module, samples: int) -> torch.optim.Optimizer:
    """SGD with momentum, or the base that bSAM brings with it."""
    if needs_variational(run.recipe):
        return Variational(model.parameters(), run.lr, (run.momentum, 0.999), samples=samples, prior=run.weight_decay)
    return torch.optim.SGD(
        model.parameters(), lr=run.lr, momentum=run.momentum, weight_decay=run.weight_decay,
        fused=True if run.device.startswith("cuda") else None,  # skips a step by itself, see ``nonfinite`` below
    )  # fmt: skip


class State:
    """A training as it stands, so that saving it is saving everything.

    ``here`` is this process among those that share every batch. With ``graphs``, a whole step is captured where run and device can.

    Example:
        >>> from bisam.training import data
        >>> state = State(Run(model="mlp", epochs=2), data.digits())
        >>> state.epoch()["epoch"], len(state.history.rows)
        (1, 1)
    """

    def __init__(self, run: Run, task: Data, here: Workers = Workers(0, 1), graphs: bool = True):  # noqa: B008  it holds nothing that changes
        self.run, self.workers, self.device = run, here, torch.device(run.device)
        self.task, self.augment = task, augment.AUGMENTATIONS[run.augment]
        splits = (labelled(run, task), labelled(run, task, "validation"), task.test)
        self.train, self.validation, self.test = (split.to(self.device) for split in splits)
        layout = torch.channels_last if run.channels_last else torch.preserve_format
        self.model = models.build(run.model, task.shape, task.classes).to(device=self.device, memory_format=layout)
        if hasattr(self.model, "prepare"):
            self.model.prepare(task.prepared(self.train.inputs[:models.PREPARED]))
        self.network = compiled(here.wrapped(self.model, run.device), run.compile)
        self.optimizer = SharpnessAware(
            base_optimizer(run, self.model, len(self.train)), run.recipe, seed=run.seed, per_worker=run.per_worker,
            # On a GPU nobody waits for the device to hear whether a gradient is finite: it is looked up after the epoch.
            nonfinite="skip" if self.device.type == "cuda" else "raise",
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=run.epochs)
        self.order = torch.Generator().manual_seed(run.seed)
        self.validation_draws = torch.Generator().manual_seed(seed_for("lessons", run.seed))  # which validation images teach the radius
        self.augment_draws = torch.Generator().manual_seed(seed_for("looks", run.seed))  # how the training images are changed
        nothing = torch.zeros(len(self.test), dtype=torch.bool)
        self.history = History(run, model=self.model, right={"selected": nothing, "last": nothing})
        self.rng: list[Tensor] | None = None  # the random state of torch, where others draw from it between the steps of this training
        self.whole = captured.WholeStep(self, graphs) if run.compile == "whole-step" else None
        if here.rank:
            torch.manual_seed(run.seed + here.rank)  # other dropout masks for the other samples

    def late(self, began: float, longest: float, minutes: float | None) -> bool:
        """Whether one more epoch would outlast the time, by the clock of the first process."""
        if minutes is None:
            return False
        return self.workers.gathered(time.perf_counter() - began + longest > 60 * minutes)[0]

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
        self.schedule.step()
        self.history.skipped = self.optimizer.skipped
        row = {
            "epoch": epoch, "lr": lr,
            "train_loss": float(self.workers.total(sums.loss)) / seen,
            "train_accuracy": 100 * int(self.workers.total(sums.right)) / seen,
            "broken": int(self.workers.total(sums.broken)),
        }  # fmt: skip
        if self.run.recipe.radius.learns:
            row["rho"] = self.optimizer.memory.rho
        self.history.rows.append(row)
        if self.run.evaluates(epoch):
            self._evaluate(row)

    def _evaluate(self, row: dict) -> None:
        """Adds to the row of an epoch what the model says about the other two splits."""
        right = self.right(self.test)
        row["validation_accuracy"] = self.accuracy(self.validation)
        row["test_accuracy"] = 100 * int(right.sum()) / len(right)
        self.history.right["last"] = right
        if self.history.selected_epoch == row["epoch"]:
            self.history.right["selected"] = right

    def _each_step(self, sums: evaluation.Sums) -> Iterator[int]:
        for index in self.batches():
            batch = self.batch(self.train, index, self.augment)
            sums.add(batch, self.optimizer.step(batch, validation=self._validation_batch()))
            yield len(index)

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
        inputs = split.inputs[index]
        inputs = self.task.prepared(inputs) if change is None else change(inputs, self.task, self.augment_draws)
        mine = self.workers.share(torch.arange(len(index), device=index.device)) if self.workers.size > 1 else slice(None)
        return Batch(self.network, self.laid_out(inputs[mine]), split.targets[index[mine]], PRECISIONS[self.run.precision])

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

    def accuracy(self, split: Split) -> float:
        """Of the network as it is, in percent."""
        return 100 * int(self.right(split).sum()) / len(split)

    def right(self, split: Split) -> Tensor:
        """Which samples of a split the network gets right, as it is."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.run.precision == "bfloat16"):
            return evaluation.which_right(self.model, split, prepared=lambda inputs: self.laid_out(self.task.prepared(inputs)))

    def save(self) -> dict:
        """What a checkpoint keeps: tensors and plain values. The names stay, for the files of earlier versions."""
        return {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
            **{name: generator.get_state() for name, generator in self._generators()},
            "randomness": self.workers.gathered(self.rng or rng_state(self.run.device)),
            "rows": self.history.rows, "seconds": self.history.seconds, "right": self.history.right,
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
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        for name, generator in self._generators():
            generator.set_state(saved[name].cpu())
        set_rng_state(saved["randomness"][self.workers.rank], self.run.device)
        self.history.rows = saved["rows"]
        self.history.skipped, self.history.seconds = self.optimizer.skipped, saved["seconds"]
        self.history.right = saved["right"]

    def first_step(self) -> None:
        """One step on the first batch, which makes all that a step makes."""
        self.optimizer.step(self.batch(self.train, next(self.batches()), self.augment), validation=self._validation_batch())
