"""Several processes on one training, as torchrun starts them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import bisam
from bisam.training import Run, fit
from bisam.training.workers import Workers

RUN = Run(recipe="bisam-log", model="mlp", epochs=2, batch_size=100, lr=0.05, label_noise=0.2)
CHOICES = {
    "base": "adamw", "lr": 0.01, "schedule": "linear", "rate_by": "step", "warmup": 4, "clip": 0.5, "accumulate": 5, "ema": 0.8, "metrics": ("matthews",),
}  # fmt: skip
TOGETHER = """
import os, sys
from pathlib import Path
import torch
import test_workers
from bisam.training import fit
torch.set_num_threads(1)
for name in sys.argv[1:]:
    out = Path(name)
    is_cut = out.name == "cut" and not (out / "run.pt").exists()  # the second time it goes on
    changes = test_workers.CHOICES if out.name == "choices" else {"per_worker": out.name == "own"}
    history = fit(test_workers.RUN.replace(**changes), out / "run.pt", stop_after=1 if is_cut else None)
    assert history.finished is not is_cut
    if torch.distributed.is_initialized():
        raise SystemExit("the group was left open")
    torch.save({"weights": history.model.state_dict(), "rows": history.rows}, out / f"rank{os.environ['RANK']}.pt")
"""


def together(*folders):
    """What each of two processes has come to in each of the folders, one training after the other."""
    for folder in folders:
        folder.mkdir(exist_ok=True)
    script = folders[0] / "together.py"
    script.write_text(TOGETHER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    path = os.pathsep.join([str(Path(bisam.__file__).parents[1]), str(Path(__file__).parent)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run([*launch, str(script), *map(str, folders)], env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    return [[torch.load(folder / f"rank{rank}.pt") for rank in range(2)] for folder in folders]


@pytest.mark.slow
def test_two_processes_under_torchrun_come_to_the_weights_of_one_and_go_on_where_they_were_cut(tmp_path):
    alone = fit(RUN)
    folders = (tmp_path / name for name in ("two", "own", "cut", "cut", "choices"))
    (first, second), (own, same), (resumed, _), _, (chosen, also) = together(*folders)
    for name, expected in alone.model.state_dict().items():
        torch.testing.assert_close(first["weights"][name], expected, rtol=0, atol=1e-6)
        assert torch.equal(first["weights"][name], second["weights"][name])
        assert torch.equal(first["weights"][name], resumed["weights"][name])
    assert first["rows"] == second["rows"] == resumed["rows"]
    for mine, theirs in zip(first["rows"], alone.rows, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)
    # base, schedule, clipping, parts and the average of the weights are those of one process
    single = fit(RUN.replace(**CHOICES))
    for name, expected in single.model.state_dict().items():
        torch.testing.assert_close(chosen["weights"][name], expected, rtol=0, atol=1e-5)
        assert torch.equal(chosen["weights"][name], also["weights"][name])
    for mine, theirs in zip(chosen["rows"], single.rows, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-3)
    # each climbs by itself, and they still agree, on other weights
    assert all(torch.equal(own["weights"][name], same["weights"][name]) for name in own["weights"])
    assert any(not torch.allclose(own["weights"][name], first["weights"][name], atol=1e-6) for name in own["weights"])


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(ValueError, match="batch_size must be a multiple of the 3 processes, got 8"):
        Workers(0, 3).check(8)
