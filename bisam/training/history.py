"""What a training leaves: a row an epoch, the trained network with a digest of it, and the epoch that the protocol reports."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .. import _checks
from .run import Run

__all__ = ["History", "weights_digest"]


@dataclass
class History:
    r"""What a training left: one row an epoch, and the trained model.

    A row holds ``epoch`` (from 1), ``lr``, ``train_loss`` (mean over the epoch of the descent loss of each batch at the w of its step),
    ``train_accuracy`` (at these same w, on the labels trained on), ``broken`` (how many training samples were right at the w of their step and
    wrong where its descent gradient was taken, see :class:`~bisam.step.batch.Batch`; with ``TopK`` among the chosen; 0 where nothing climbs), in
    the epochs that are evaluated ``validation_accuracy`` and ``test_accuracy``, and where the radius is learned ``rho``, the radius after the
    last step of the epoch. Accuracies are in percent.

    Args:
        run: what was done.
        rows: one an epoch.
        skipped: steps that were left out because a gradient was not finite.
        seconds: wall time of the epochs.
        model: the network with its weights after the last epoch.
        right: which test images are right, a boolean tensor of shape (m,) in the order of the test split: ``"selected"`` at
            :attr:`selected_epoch`, ``"last"`` after the last epoch that was done.
        steps: of the optimiser, in all epochs that were done.
        fitted: accuracy on all training images with the labels trained on, in evaluation mode, unaugmented, after the last epoch of the run;
            ``None`` before.

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
    steps: int = 0

    @property
    def finished(self) -> bool:
        """Whether all epochs of the run are done, or it has ended early."""
        return len(self.rows) == self.run.epochs or self.ended_early

    @property
    def ended_early(self) -> bool:
        """Whether the last ``patience`` evaluations have not raised the validation value that chooses the epoch."""
        if self.run.patience is None or not (seen := self._evaluated()):
            return False
        return sum(row["epoch"] > self.selected_epoch for row in seen) >= self.run.patience

    @property
    def selected_epoch(self) -> int:
        """The earliest epoch of the highest validation value among those evaluated, which is what the protocol reports."""
        seen, name = self._evaluated(), f"validation_{self.run.select}"
        if not seen:
            raise ValueError(f"no epoch has been evaluated yet: {len(self.rows)} are done, the first is evaluated after {self.run.evaluate_every}")
        return max(seen, key=lambda row: (row[name], -row["epoch"]))["epoch"]

    def _evaluated(self) -> list[dict]:
        return [row for row in self.rows if f"validation_{self.run.select}" in row]

    @property
    def metrics(self) -> list[str]:
        """What was measured of the test split, accuracy first."""
        return list(dict.fromkeys(name.removeprefix("test_") for row in self.rows for name in row if name.startswith("test_")))

    def final(self, name: str) -> dict[str, float]:
        """A metric of the test split, in percent: ``selected_test_NAME`` at the chosen epoch and ``last_test_NAME`` after the last one.

        Example:
            >>> rows = [{"epoch": 1, "validation_accuracy": 90, "test_accuracy": 88, "test_f1": 80}]
            >>> History(Run(epochs=1), rows).final("f1")
            {'selected_test_f1': 80, 'last_test_f1': 80}
        """
        return {f"selected_test_{name}": self.rows[self.selected_epoch - 1][f"test_{name}"], f"last_test_{name}": self.curve(f"test_{name}")[-1]}

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


def weights_digest(model: nn.Module) -> str:
    """The first 16 digits of a SHA-256 over the bits of all parameters and buffers, to tell runs apart.

    Args:
        model: any module.

    Example:
        >>> weights_digest(nn.Linear(2, 2)) == weights_digest(nn.Linear(2, 2))
        False
    """
    _checks.needs("numpy", extra="train")
    digest = hashlib.sha256()
    for name, tensor in _checks.module("model", model).state_dict().items():
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        digest.update(name.encode() + raw)
    return digest.hexdigest()[:16]
