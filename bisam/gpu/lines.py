"""What a stage knows of its task, its time, and the file that it writes: one line of JSON for everything that is done, at once."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import _checks

__all__ = ["Stage"]


@dataclass
class Stage:
    """One stage: on which device, until when, and where to.

    Args:
        name: of the stage, and of its file ``NAME.jsonl``.
        out: folder of all that is written.
        device: ``"cpu"`` or a CUDA device.
        root: folder of the data sets, see :func:`bisam.data.load`.
        end: time of ``time.monotonic()`` at which it must be over; all processes of a machine share that clock.
        tiny: sizes at which everything is tried in seconds and nothing is measured.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range.

    Source:
        Ours.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Stage("try", Path(folder), quiet=True).note("step", seconds=0.5)
        ...     print((Path(folder) / "try.jsonl").read_text().strip())
        {"name": "step", "seconds": 0.5}
    """

    name: str
    out: Path
    device: str = "cpu"
    root: str | None = None
    end: float = math.inf
    tiny: bool = False
    quiet: bool = False

    def __post_init__(self):
        _checks.line("name", self.name)
        self.out = _checks.path("out", self.out, words="the path of a folder")
        _checks.device("device", self.device)

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()

    @property
    def is_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")

    def wait(self) -> None:
        """Returns when the device has done all that it was given."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def note(self, name: str, **values) -> None:
        """Writes a line, on the disk when this returns, and shows it."""
        line = json.dumps({"name": name, **{key: _plain(value) for key, value in values.items()}})
        with open(self.out / f"{self.name}.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        if not self.quiet:
            shown = ", ".join(f"{key} {_short(value)}" for key, value in values.items() if value is not None)
            print(f"[{self.name}] {name}: {shown}", flush=True)


def _plain(value: object) -> object:
    """JSON has no infinity and no NaN."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
