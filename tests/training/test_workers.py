"""Several processes on one training, as torchrun starts them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import bisam
from bisam.training.workers import Workers

pytestmark = pytest.mark.usefixtures("tiny")

TOGETHER = """
import sys
from pathlib import Path
import torch
from bisam import recipe
from bisam.training import Run, fit
torch.set_num_threads(1)
out, name, stop, per_worker = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4] == "True"
run = Run(data="digits", model="mlp", recipe=recipe(name), epochs=2, batch_size=100, lr=0.05, label_noise=0.2, per_worker=per_worker)
history = fit(run, out / "run.pt", stop_after=stop or None)
if torch.distributed.is_initialized():
    raise SystemExit("the group was left open")
import os
torch.save({"weights": history.model.state_dict(), "rows": history.rows}, out / f"rank{os.environ.get('RANK', 0)}.pt")
"""


def together(folder, name, stop=0, processes=2, per_worker=False, expect=0):
    script = folder / "together.py"
    script.write_text(TOGETHER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else [sys.executable]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(bisam.__file__).parents[1])}
    words = [*launch, str(script), str(folder), name, str(stop), str(per_worker)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=1800)
    assert (done.returncode == 0) == (expect == 0), done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(processes)] if expect == 0 else done.stderr


@pytest.mark.slow
def test_two_processes_under_torchrun_come_to_the_weights_of_one_and_go_on_where_they_were_cut(tmp_path):
    for folder in ("one", "two", "parts"):
        (tmp_path / folder).mkdir()
    (alone,) = together(tmp_path / "one", "bisam-log", processes=1)
    first, second = together(tmp_path / "two", "bisam-log")
    together(tmp_path / "parts", "bisam-log", stop=1)
    resumed, _ = together(tmp_path / "parts", "bisam-log")
    for name, expected in alone["weights"].items():
        torch.testing.assert_close(first["weights"][name], expected, rtol=0, atol=1e-6)
        assert torch.equal(first["weights"][name], second["weights"][name])
        assert torch.equal(first["weights"][name], resumed["weights"][name])
    assert first["rows"] == second["rows"] == resumed["rows"]
    for mine, theirs in zip(first["rows"], alone["rows"], strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)


@pytest.mark.slow
def test_under_torchrun_the_climb_may_be_each_workers_own(tmp_path):
    for folder in ("joint", "own"):
        (tmp_path / folder).mkdir()
    joint, own = together(tmp_path / "joint", "sam"), together(tmp_path / "own", "sam", per_worker=True)
    assert all(torch.equal(own[0]["weights"][name], own[1]["weights"][name]) for name in own[0]["weights"])
    assert any(not torch.allclose(own[0]["weights"][name], joint[0]["weights"][name], atol=1e-6) for name in own[0]["weights"])


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(ValueError, match="batch_size must be a multiple of the 3 processes, got 8"):
        Workers(0, 3).check(8)
