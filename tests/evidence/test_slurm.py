"""What is refused before anything is submitted, with commands of Slurm that are stood in for by small scripts."""

import json
import re
import sys

import pytest

from bisam.cli import main
from bisam.evidence import arrays, sbatch, slurm
from bisam.evidence.cluster import Request
from bisam.evidence.plans import Settings
from bisam.evidence.sbatch import Options
from bisam.evidence.slurm import Job

pytest.importorskip("submitit", reason="submitit is not installed; pip install 'bisam[cluster]'")

TOML = """
[experiment.try]
title = "A few runs"
scale = "laptop"
tables = ["T1"]
methods = ["sgd", "sam"]
axes = { label_noise = [0.4] }
seeds = 2
epochs = 2
rho = 0.1
settings = { data = "digits", model = "mlp" }
"""
SAID = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "claims.toml").write_text(TOML)
    return tmp_path / "ledger"


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts scripts in the place of Slurm's commands; at first all of them work, on an empty queue."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def put(name, script):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    for name in ("squeue", "srun", "scontrol", "scancel"):
        put(name, "")
    put("sbatch", 'case "$*" in *--help*) echo "      --qos=qos  quality"; echo "      --partition=p  --gres=list";; *--test-only*) ;; *) echo "Submitted batch job 7";; esac')
    return put


def ask(capsys, folder, *words):
    status = main(["reproduce", "T1", "--ledger", str(folder), *words])
    return status, capsys.readouterr()


@pytest.mark.parametrize("words, message", [
    (["--pack", "2"], "pack takes part only on a cluster: add --cluster slurm, or leave it out"),
    (["--at-once", "2"], "at-once takes part only on a cluster"),
    (["--dry-run"], "dry-run takes part only on a cluster"),
    (["--cluster", "slurm", "--minutes", "3"], "minutes has no place on a cluster: --time is the time limit of a task"),
    (["--cluster", "slurm", "--plan"], "plan has no place on a cluster: --dry-run shows the plan"),
    (["--cluster", "slurm", "--export", "runs"], "export has no place on a cluster"),
    (["--cluster", "slurm", "--pack", "0"], "pack must be at least 1, got 0"),
    (["--cluster", "slurm", "--workers", "2"], "workers must be at most the 1 runs that a task holds (--pack), got 2"),
    (["--cluster", "slurm", "--pack", "2", "--device", "cuda:0,cuda:1", "--workers", "2"], "workers must be at most the 2 runs that a task holds (--pack), got 4"),
    (["--cluster", "slurm", "--gres", "gpu:1"], "device must be a GPU such as cuda:0 where gres asks for one, which would stand idle; got 'cpu'"),
    (["--cluster", "slurm", "--sbatch", "gpus=1"], "device must be a GPU such as cuda:0 where gpus asks for one"),
    (["--cluster", "slurm", "--device", "tpu"], "device must be \"cpu\", or GPUs as a task numbers them, such as cuda:0; got 'tpu'"),
    (["--cluster", "slurm", "--time", "0"], "time must be at least 1, got 0"),
    (["--cluster", "slurm", "--time", "1", "--grace", "60"], "grace must be below the 60 seconds of a task, got 60"),
    (["--cluster", "slurm", "--retries", "-1"], "retries must be at least 0, got -1"),
    (["--cluster", "slurm", "--at-once", "0"], "at_once must be at least 1, got 0"),
    (["--cluster", "slurm", "--sbatch", "array=1-3"], "sbatch must not set array: the plan makes it"),
    (["--cluster", "slurm", "--sbatch", "time=3"], "sbatch must not set time: --time sets it"),
    (["--cluster", "slurm", "--sbatch", "partition=gpu"], "sbatch must not set partition: --partition sets it"),
    (["--cluster", "slurm", "--sbatch", "qos=a", "--sbatch", "qos=b"], "sbatch qos must be set once"),
    (["--cluster", "slurm", "--sbatch", "Q=a"], "sbatch must name an option by its long name without dashes, such as qos; got 'Q'"),
    (["--cluster", "slurm", "--sbatch", "qos=a\n#SBATCH --wrap=b"], "sbatch qos must be text of one line that can be printed"),
    (["--cluster", "slurm", "--partition", "a\nb"], "sbatch partition must be text of one line that can be printed"),
    (["--cluster", "slurm", "--sbatch", "colour=red"], "sbatch must name an option that `sbatch --help` lists; got 'colour'"),
    (["--cluster", "slurm", "--root", "/not/there"], "root must be a folder that is there, and that all nodes share; got '/not/there'"),
])  # fmt: skip
def test_what_would_not_take_part_is_refused_by_name_and_nothing_is_submitted(words, message, folder, stand_in, capsys):
    status, out = ask(capsys, folder, *words)
    assert status == 2 and message in out.err and arrays.arrays(folder) == []


def test_several_processes_of_torchrun_submit_nothing(folder, stand_in, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, out = ask(capsys, folder, "--cluster", "slurm")
    assert status == 2 and "reproduce must be started once, not as 2 processes by torchrun" in out.err


def test_without_slurm_or_submitit_it_is_said_which_is_missing(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    status, out = ask(capsys, folder, "--cluster", "slurm")
    assert status == 1 and "sbatch is not on this machine: log in to one from which jobs are submitted to Slurm" in out.err
    assert arrays.arrays(folder) == []
    sbatch.executor_class.cache_clear()
    for name in ("submitit", "submitit.slurm", "submitit.slurm.slurm"):
        monkeypatch.setitem(sys.modules, name, None)
    status, out = ask(capsys, folder, "--cluster", "slurm")
    assert status == 1 and 'pip install "bisam[cluster]"' in out.err and arrays.arrays(folder) == []


def test_data_that_are_not_there_are_said_before_anything_is_submitted(folder, stand_in, tmp_path, capsys):
    (folder / "claims.toml").write_text(TOML.replace("digits", "cifar10"))
    status, out = ask(capsys, folder, "--cluster", "slurm", "--root", str(tmp_path))
    assert status == 1 and "data 'cifar10' is not there" in out.err and arrays.arrays(folder) == []


def test_a_controller_that_does_not_answer_ends_every_command(folder, stand_in, capsys, monkeypatch):
    assert ask(capsys, folder, "--cluster", "slurm")[0] == 0
    kept = (arrays.place(folder) / "state.json").read_text()
    stand_in("squeue", f"echo '{SAID}' >&2; exit 1")
    for words in (["reproduce", "T1", "--cluster", "slurm"], ["cluster", "status"], ["cluster", "cancel"]):
        status = main([*words, "--ledger", str(folder)])
        assert status == 1 and f"squeue fails: {SAID}; `scontrol ping` asks" in capsys.readouterr().err
    stand_in("squeue", "while :; do :; done")
    monkeypatch.setattr(slurm, "PATIENCE", 0.2)
    assert main(["cluster", "status", "--ledger", str(folder)]) == 1 and "squeue has no answer after 0.2 s" in capsys.readouterr().err
    assert (arrays.place(folder) / "state.json").read_text() == kept


def test_what_sbatch_refuses_is_said_and_not_noted(folder, stand_in, capsys):
    refuses = 'case "$*" in *--help*) ;; *) echo "sbatch: error: Batch job submission failed: Invalid job array specification" >&2; exit 1;; esac'
    stand_in("sbatch", refuses)
    for words in ([], ["--dry-run"]):
        status, out = ask(capsys, folder, "--cluster", "slurm", *words)
        assert status == 1 and "Invalid job array specification. There are 4 tasks; a larger --pack makes them fewer" in out.err
    assert arrays.arrays(folder) == []


def test_a_job_is_found_by_its_name_also_if_its_number_was_never_noted(folder, stand_in, capsys):
    """As after a kill between sbatch and the second writing of the state file."""
    ask(capsys, folder, "--cluster", "slurm", "--pack", "2")
    path = arrays.place(folder) / "state.json"
    state = json.loads(path.read_text())
    state["arrays"][0]["job"] = None
    path.write_text(json.dumps(state))
    name = state["arrays"][0]["name"]
    stand_in("squeue", f"echo '{name}|9|0|PENDING|(Resources)|0:00'; echo '{name}|9|1|RUNNING|n3|1:02'; echo 'a|b|9|0|RUNNING|n1|9:00'")
    assert slurm.jobs()[:2] == [Job(name, "9", 0, "PENDING", "(Resources)", "0:00"), Job(name, "9", 1, "RUNNING", "n3", "1:02")]
    status, out = ask(capsys, folder, "--cluster", "slurm")
    assert status == 0 and "4 runs: 0 recorded, 2 running, 2 queued\nthere is nothing to submit" in out.out
    assert main(["cluster", "status", "--ledger", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "  queued     try/sgd-noise40-seed0  job 9_0 (Resources)\n" in said and "  running    try/sgd-noise40-seed1  job 9_1 n3 for 1:02\n" in said


def test_a_task_has_a_processor_for_each_process():
    request = Request("T1", Settings(workers=2, loaders=3), Options(pack=4), "cuda:0,cuda:1")
    assert (request.processes, request.processors) == (4, 16)


def test_two_submissions_at_a_time_are_one_too_many(folder, stand_in, capsys):
    with arrays.alone(folder):
        status, out = ask(capsys, folder, "--cluster", "slurm")
    assert status == 1 and "another command submits or cancels jobs of" in out.err


@pytest.mark.parametrize("text", ["", "{", '{"form": 2, "arrays": []}', '{"form": 1}', '{"form": 1, "arrays": [{}]}', '{"form": 1, "arrays": [{"name": 1}]}'])
def test_a_damaged_state_file_is_said_and_left_alone(text, folder, stand_in, capsys):
    path = arrays.place(folder) / "state.json"
    path.parent.mkdir()
    path.write_text(text)
    for words in (["reproduce", "T1", "--cluster", "slurm"], ["cluster", "status"], ["cluster", "cancel"]):
        assert main([*words, "--ledger", str(folder)]) == 1
        assert f"{path} cannot be read" in capsys.readouterr().err and path.read_text() == text


def test_a_ledger_that_is_not_there_is_said(tmp_path, capsys):
    for what in ("status", "cancel"):
        assert main(["cluster", what, "--ledger", str(tmp_path / "none")]) == 1
        assert "is not there: it has no claims.toml" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_file_asks_for_what_the_words_say(folder, stand_in, capsys):
    words = ["--pack", "2", "--workers", "2", "--time", "30", "--grace", "45", "--retries", "0", "--at-once", "1", "--device", "cuda:0", "--gres", "gpu:1"]
    status, out = ask(capsys, folder, "--cluster", "slurm", "--dry-run", *words, "--partition", "gpu", "--sbatch", "qos=long")
    assert status == 0, out.err
    for line in ("array=0-1%1", "cpus-per-task=2", "gres=gpu:1", "partition=gpu", "qos=long", "requeue", "signal=USR2@45", "time=30"):
        assert f"#SBATCH --{line}\n" in out.out
    assert "-le 0 ]; then scontrol requeue" in out.out and " --cpus-per-task=2 " in out.out and "wckey" not in out.out
    assert "cannot be timed here" in out.out and re.search(r"4 runs in 2 tasks of at most 2, 1 at a time, 2 side by side, 30 minutes at a time", out.out)
