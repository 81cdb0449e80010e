"""What a training says of itself as it goes: a row an epoch in a table, in the event files of TensorBoard, and to Weights & Biases."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import _checks
from .. import _files as files
from ..training import checkpoint
from .run import Run

__all__ = ["EventFiles", "Log", "Table", "Tracked", "earlier_rows"]

REMARK = "# environment: "


class Log:
    """Keeps logs of a training up to date: the ``on_epoch`` of :func:`bisam.training.fit`.

    A log ends with the same rows, each once, wherever the training was cut.

    Args:
        earlier: returns the rows of the epochs before this call of :func:`bisam.training.fit`, from its checkpoint; asked only where there are some.
        logs: each is called with all rows after every epoch.

    Example:
        >>> from bisam.training import fit
        >>> counts = []
        >>> _ = fit(Run(model="mlp", epochs=2), on_epoch=Log(list, [lambda rows: counts.append(len(rows))]))
        >>> counts
        [1, 2]
    """

    def __init__(self, earlier: Callable[[], list[dict]], logs: Sequence[Callable[[list[dict]], object]]):
        self.earlier = _checks.function("earlier", earlier, "a function that returns rows") if earlier is not list else list
        self.logs = [_checks.function("logs", one, "a function of all rows") for one in _checks.sequence("logs", logs)]
        self.rows: list[dict] = []

    def __call__(self, row: dict) -> None:
        before = row["epoch"] - 1
        if len(self.rows) != before:
            self.rows = self.earlier()[:before]
        self.rows.append(row)
        for log in self.logs:
            log(self.rows)


def earlier_rows(path: str | Path, run: Run) -> list[dict]:
    """The rows that the checkpoint of a run holds; errors as from :func:`bisam.training.checkpoint.read`.

    Example:
        >>> import tempfile
        >>> from bisam.training import fit
        >>> run = Run(model="mlp", epochs=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = fit(run, Path(folder) / "run.pt", stop_after=1)
        ...     len(earlier_rows(Path(folder) / "run.pt", run))
        1
    """
    path, run = _checks.path("path", path), _checks.part("run", run, Run, "a bisam.training.Run")
    return checkpoint.read(path, run.identity()).get("rows", [])


class Table:
    """Writes rows as a file of comma-separated values, in one piece each time.

    The first line begins with ``#`` and says, as JSON, what the training was made on, without the time, see
    :func:`bisam.training.environment.environment`; the second has the names of the columns. A column that an epoch does not have is empty
    there. ``pandas.read_csv(path, comment="#")`` reads it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Table(Path(folder) / "metrics.csv", {"threads": 1})([{"epoch": 1, "lr": 0.1}])
        ...     print((Path(folder) / "metrics.csv").read_text())
        # environment: {"threads": 1}
        epoch,lr
        1,0.1
        <BLANKLINE>
    """

    def __init__(self, path: str | Path, made_on: dict):
        self.path = _checks.path("path", path)
        _checks.part("made_on", made_on, dict, "a dictionary of plain values")
        self.made_on = {name: value for name, value in made_on.items() if name != "wall_seconds"}

    def __call__(self, rows: list[dict]) -> None:
        files.write_whole(self.path, f"{REMARK}{json.dumps(self.made_on)}\n{_lines(rows)}")

    def complete(self, rows: list[dict]) -> None:
        """Writes the rows if the file does not have them; it stays as it is if it does, whatever wrote it."""
        try:
            there = self.path.read_text(encoding="utf-8").partition("\n")[2]
        except (OSError, ValueError):
            there = None
        if there != _lines(rows):
            self(rows)


def _lines(rows: list[dict]) -> str:
    text, columns = io.StringIO(), dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class EventFiles:
    """Writes rows as event files of TensorBoard, a scalar a column at the step of the epoch, and as a text what the training was made on.

    The first rows of a process take the place of the event files that are there: they hold the same epochs again, each once. Without
    tensorboard there is a ``ValueError``.

    Example:
        >>> try:
        ...     EventFiles(5, {})
        ... except TypeError as error:
        ...     print(str(error)[:38])
        folder must be the path of a folder, n
    """

    PATTERN = "events.out.tfevents.*"

    def __init__(self, folder: str | Path, made_on: dict):
        self.folder, self.writer = _checks.path("folder", folder, "the path of a folder"), None
        self.made_on = _checks.part("made_on", made_on, dict, "a dictionary of plain values")
        _check_there("tensorboard", "for event files")

    def __call__(self, rows: list[dict]) -> None:
        new = rows[-1:]
        if self.writer is None:
            self.writer, new = self._fresh(), rows
        for row in new:
            for name, value in row.items():
                if name != "epoch":
                    self.writer.add_scalar(name, value, row["epoch"])
        self.writer.flush()

    def _fresh(self):
        from torch.utils.tensorboard import SummaryWriter

        for old in self.folder.glob(self.PATTERN):
            old.unlink()
        writer = SummaryWriter(str(self.folder))
        writer.add_text("environment", f"```json\n{json.dumps(self.made_on, indent=1)}\n```")
        return writer

    def complete(self, rows: list[dict]) -> None:
        """Writes the rows if there are no event files; closes them."""
        if self.writer is None and not any(self.folder.glob(self.PATTERN)):
            self(rows)
        if self.writer is not None:
            self.writer.close()


class Tracked:
    """Sends rows to Weights & Biases, each at the step of its epoch; how they get there is what the variable WANDB_MODE says, also without a network.

    A training that goes on goes on with the same tracked run, whose name lies in the folder. Without wandb there is a ``ValueError``.

    Args:
        project: the project there.
        folder: where its files go, and the name of the run.
        described: what was run and what on, plain values.

    Example:
        >>> try:
        ...     Tracked("mine", 5, {})
        ... except TypeError as error:
        ...     print(str(error)[:38])
        folder must be the path of a folder, n
    """

    def __init__(self, project: str, folder: str | Path, described: dict):
        self.project, self.folder = _checks.line("project", project), _checks.path("folder", folder, "the path of a folder")
        self.described, self.run = _checks.part("described", described, dict, "a dictionary of plain values"), None
        _check_there("wandb", "to track a training")

    def __call__(self, rows: list[dict]) -> None:
        if self.run is None:
            self._begin()
        for row in rows:
            if row["epoch"] >= self.next:
                self.run.log({name: value for name, value in row.items() if name != "epoch"}, step=row["epoch"])
        self.next = rows[-1]["epoch"] + 1

    def _begin(self) -> None:
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        name = self.folder / "wandb-id.txt"
        if not name.exists():
            files.write_whole(name, f"{secrets.token_hex(8)}\n")
        self.run = wandb.init(
            project=self.project, id=name.read_text(encoding="utf-8").strip(), dir=str(self.folder), config=self.described, resume="allow"
        )
        self.next = self.run.step

    def complete(self, rows: list[dict]) -> None:
        """Sends what is missing, and says that the training is done."""
        self(rows)
        self.run.finish()


def _is_there(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _check_there(package: str, purpose: str) -> None:
    if not _is_there(package):
        raise ValueError(f"{package} must be installed {purpose}: pip install {package}, or leave it out; metrics.csv has the same rows")
