"""A task of a job array, without a cluster: what it does, and how it ends when it is told to."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bisam import _files
from bisam.evidence.places import LedgerError
from bisam.evidence.task import Task, is_cancelled, told_to_stop

pytest.importorskip("submitit", reason="submitit is not installed; pip install 'bisam[cluster]'")

ROOT = Path(__file__).resolve().parents[2]
TOML = """
[experiment.try]
title = "A few runs"
scale = "laptop"
tables = ["T1"]
methods = ["sgd", "sam"]
axes = { label_noise = [0.4] }
seeds = 1
epochs = EPOCHS
budget = "same"
settings = { data = "waiting:points", model = "waiting:mlp", batch_size = 10 }
"""
ENDLESS = 10**6  # epochs
SCRIPT = """
if __name__ == "__main__":  # the others begin with this file too
    from bisam.evidence.task import Task
    print({task!r}())
"""


def task_of(folder, epochs, workers=1, seconds=1e6):
    folder.mkdir(exist_ok=True)
    (folder / "claims.toml").write_text(TOML.replace("EPOCHS", str(epochs)))
    runs = (("try", "sgd-noise40-seed0"), ("try", "sam-noise40-seed0"))
    return Task(runs, str(folder), str(folder / "checkpoints"), None, workers, "cpu", seconds)


def test_a_task_records_what_is_missing_and_nothing_twice(tmp_path):
    task = dataclasses.replace(task_of(tmp_path, 1), loaders=2)  # for other tasks of the plan: nothing is streamed here
    assert task()["recorded"] == ["sgd-noise40-seed0", "sam-noise40-seed0"]
    assert task() == {"recorded": [], "cut": [], "elsewhere": [], "failed": []}


def test_a_node_that_does_not_see_the_ledger_says_so(tmp_path):
    task = task_of(tmp_path, 1)
    (tmp_path / "claims.toml").unlink()
    with pytest.raises(LedgerError, match=r"claims.toml is not there on .*: the ledger must lie in a folder that all nodes share"):
        task()


def test_a_run_that_the_ledger_no_longer_plans_is_named(tmp_path):
    task = task_of(tmp_path, 1)
    (tmp_path / "claims.toml").write_text(TOML.replace("EPOCHS", "1").replace('"sgd", ', ""))
    with pytest.raises(ValueError, match="file must be one of sam-noise40-seed0; got 'sgd-noise40-seed0'"):
        task()


def test_a_task_does_not_end_well_without_its_records(tmp_path):
    """Another node may still hold a run, and then die: the task comes back for it."""
    task = task_of(tmp_path, 1)
    (tmp_path / "checkpoints" / "try").mkdir(parents=True)
    with _files.held(tmp_path / "checkpoints" / "try" / "sgd-noise40-seed0.lock"), pytest.raises(LedgerError, match="sgd-noise40-seed0: another process has it in hand"):
        task()
    assert (tmp_path / "runs" / "try" / "sam-noise40-seed0.json").exists()


def test_a_task_whose_time_is_over_keeps_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setenv("BISAM_BEGAN", str(float(Path("/proc/uptime").read_text().split()[0]) - 50))
    assert task_of(tmp_path, ENDLESS, seconds=50.0)()["cut"] == ["sgd-noise40-seed0", "sam-noise40-seed0"]
    assert (tmp_path / "checkpoints" / "try" / "sgd-noise40-seed0.pt").exists()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2"])
def test_a_signal_ends_a_task_after_its_epoch(name, tmp_path):
    task, checkpoint = task_of(tmp_path, ENDLESS), tmp_path / "checkpoints" / "try" / "sgd-noise40-seed0.pt"

    def send():
        while threading.main_thread().is_alive() and not checkpoint.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), getattr(signal, name))

    with told_to_stop():  # a signal that came too late for the task would end the tests
        threading.Thread(target=send, daemon=True).start()
        assert task()["cut"] == ["sgd-noise40-seed0", "sam-noise40-seed0"]
    assert checkpoint.exists()


@pytest.mark.slow
def test_a_signal_to_all_processes_of_a_task_ends_it_cleanly(tmp_path):
    """A cluster signals them all; those that work side by side hear of it from the first."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(task=task_of(tmp_path, ENDLESS, workers=2)))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    with open(tmp_path / "out", "wb") as out:
        running = subprocess.Popen([sys.executable, str(script)], env=environment, stdout=out, stderr=out, start_new_session=True)
    while running.poll() is None and len(list((tmp_path / "checkpoints").glob("try/*.pt"))) < 2:
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGUSR2)
    assert running.wait(timeout=300) == 0, (tmp_path / "out").read_text()
    assert "'failed': []" in (tmp_path / "out").read_text() and "2 cut" in (tmp_path / "out").read_text()


def test_what_is_cancelled_does_not_come_back(tmp_path, monkeypatch):
    assert not is_cancelled()  # in no job
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for state, expected in (("RUNNING", False), ("COMPLETING", True), ("", True)):
        (tmp_path / "squeue").write_text(f"#!/bin/sh\necho $4 > {tmp_path}/asked\necho $3 >> {tmp_path}/asked\necho {state}\n")
        (tmp_path / "squeue").chmod(0o755)
        assert is_cancelled() is expected and "--jobs=7\n" in (tmp_path / "asked").read_text()
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert is_cancelled() and "--jobs=7_2\n" in (tmp_path / "asked").read_text()  # 7 alone would be all of them
    (tmp_path / "squeue").write_text("#!/bin/sh\nexit 1\n")
    assert not is_cancelled()
