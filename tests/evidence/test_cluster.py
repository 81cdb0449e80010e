"""Runs on a cluster, tried on a Slurm of its own: a node dies, a process is killed, a node is taken back, the time is over, and every record has the bits of a local run."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small_cluster

from bisam.cli import main
from bisam.evidence import arrays
from bisam.evidence.plans import Settings, plan
from bisam.evidence.reproduce import carry_out

pytest.importorskip("submitit", reason="submitit is not installed; pip install 'bisam[cluster]'")
LACKING = small_cluster.lacking()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(LACKING), reason=f"Slurm is not installed here: {', '.join(LACKING)} missing; apt install slurm-wlm munge")]

ROOT = Path(__file__).resolve().parents[2]
TOML = """
[experiment.ten]
title = "Ten runs"
scale = "laptop"
tables = ["T1"]
methods = ["sam", "bisam-log"]
axes = { label_noise = [0.4] }
seeds = 5
epochs = 3
rho = 0.1
budget = "same"
settings = { data = "waiting:points", model = "waiting:mlp", batch_size = 10, lr = 0.1 }

[experiment.one]
title = "One run"
scale = "laptop"
tables = ["T9"]
methods = ["sam"]
seeds = 1
epochs = 3
settings = { data = "waiting:points", model = "waiting:mlp", batch_size = 10, lr = 0.1 }
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with small_cluster.SmallCluster(tmp_path_factory.mktemp("slurm"), nodes=4) as cluster:
        yield cluster


@pytest.fixture
def shared(slurm, tmp_path, monkeypatch):
    """A folder that all nodes see, with a ledger in it; commands that are given here find the small cluster."""
    for name in ("ledger", "gates"):
        (tmp_path / name).mkdir()
    (tmp_path / "ledger" / "claims.toml").write_text(TOML)
    for name, value in {**slurm.environment, "GATES": str(tmp_path / "gates"), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    for name in [each for each in os.environ if each.startswith(("SUBMITIT", "SLURM_JOB", "SLURM_ARRAY"))]:
        monkeypatch.delenv(name)
    yield tmp_path
    slurm.said("scancel", "--me")
    slurm.until(lambda: not slurm.said("squeue", "-h", "--me"))


def command(capsys, *words):
    status = main([*words])
    out = capsys.readouterr()
    assert status == 0, out.err
    return out.out


def reproduce(capsys, shared, *words):
    return command(capsys, "reproduce", *words, "--ledger", str(shared / "ledger"), "--cluster", "slurm")


def cluster(capsys, shared, *words):
    return command(capsys, "cluster", *words, "--ledger", str(shared / "ledger"))


def digests(folder):
    return {path.stem: json.loads(path.read_text())["weights_digest"] for path in folder.glob("runs/*/*.json")}


def job_of(shared):
    """The number of the last job array, and the folder of its logs."""
    array = arrays.arrays(shared / "ledger")[-1]
    return array.job, arrays.folder_of(shared / "ledger", array.name)


def restarts(slurm, task):
    said = slurm.said("scontrol", "show", "job", "-o", task)
    return int(said.partition("Restarts=")[2].split()[0])


def test_ten_runs_end_at_the_bits_of_a_local_run_whatever_happens_to_their_tasks(slurm, shared, capsys):
    """One task has its time over, meanwhile of three others one loses its node, one its process, and one has to make room."""
    reproduce(capsys, shared, "T9", "--time", "1", "--grace", "30")
    late, late_logs = job_of(shared)
    words = ("T1", "--pack", "4", "--retries", "1", "--partition", "low")
    assert "10 runs in 3 tasks of at most 4" in reproduce(capsys, shared, *words)
    job, logs = job_of(shared)

    def told(task):
        return (logs / f"{job}_{task}_0_log.err").read_text()

    # One task a node; each has the checkpoint of an epoch, and is in the middle of the next.
    slurm.until(lambda: all((shared / "gates" / f"{job}_{task}.waits").exists() for task in range(3)))
    assert "10 runs: 0 recorded, 10 running" in cluster(capsys, shared, "status", "T1")
    assert "there is nothing to submit" in reproduce(capsys, shared, *words) and len(arrays.arrays(shared / "ledger")) == 2
    dead, _, taken = (slurm.said("squeue", "-h", "-j", f"{job}_{task}", "-o", "%N").strip() for task in range(3))
    slurm.kill(dead)
    slurm.said("scontrol", "update", f"NodeName={dead}", "State=DOWN", "Reason=power")  # as Slurm does some minutes later
    [victim] = [pid for pid in small_cluster.processes() if is_task(pid, job, 1)]
    os.kill(victim, signal.SIGKILL)  # as a kernel does that is out of memory
    slurm.said("sbatch", "-p", "high", "-w", taken, "--output=/dev/null", "--wrap", "sleep 1")
    slurm.until(lambda: "SIGTERM: the runs end after their epoch" in told(2))
    for task in range(3):
        (shared / "gates" / f"{job}_{task}").touch()

    # The last one does not get on until its time is over.
    slurm.until(lambda: "SIGUSR2: the runs end after their epoch" in (late_logs / f"{late}_0_log.err").read_text())
    (shared / "gates" / f"{late}_0").touch()
    slurm.until(lambda: len(digests(shared / "ledger")) == 11)
    assert "11 runs: 11 recorded" in cluster(capsys, shared, "status")
    assert [restarts(slurm, f"{job}_{task}") for task in range(3)] == [1, 1, 1] and restarts(slurm, late) >= 1
    assert (logs / f"{job}_1.broken").read_text().count("status 137") == 1 and len(list(logs.glob("*.broken"))) == 1
    assert "PREEMPTION" not in told(2) and "cut" in told(2) and not list((shared / "ledger-checkpoints").glob("*/*.pt"))
    assert digests(shared / "ledger") == digests(made_here(shared / "local"))


def made_here(folder):
    """The same runs in a ledger of their own, one after the other in this process."""
    folder.mkdir()
    (folder / "claims.toml").write_text(TOML)
    for table in ("T1", "T9"):
        carry_out(plan(table, folder=folder), Settings(folder=folder, checkpoints=folder / "checkpoints"), progress=False)
    return folder


def is_task(pid, job, index):
    """Whether a process is the one of submitit that works on a task, and not the `srun` that waits for it."""
    said = small_cluster.environment_of(pid)
    mine = said.issuperset([f"SLURM_ARRAY_JOB_ID={job}", f"SLURM_ARRAY_TASK_ID={index}"])
    return mine and Path(f"/proc/{pid}/comm").read_text().startswith("python")


def test_status_cancel_and_another_submission_keep_apart_what_is_queued(slurm, shared, capsys):
    assert "nothing has been submitted" in cluster(capsys, shared, "status")
    held = ("T1", "--pack", "5", "--sbatch", "hold", "--sbatch", "comment=a b")
    shown = reproduce(capsys, shared, *held, "--dry-run")
    assert "task 1: ten/bisam-log-noise40-seed4\n" in shown and "#SBATCH --array=0-1%2\n" in shown and "nothing has been submitted" in shown
    assert not slurm.said("squeue", "-h", "--me") and not arrays.arrays(shared / "ledger")

    reproduce(capsys, shared, *held)
    job, logs = job_of(shared)
    written = (logs / f"{job}_submission.sh").read_text()
    assert "#SBATCH --hold\n" in written and "#SBATCH --comment='a b'\n" in written
    name = re.compile("bisam-T1-[0-9a-f]{8}")
    assert name.sub("", written) in name.sub("", shown)
    assert "10 runs: 0 recorded, 10 queued" in cluster(capsys, shared, "status")
    assert "there is nothing to submit" in reproduce(capsys, shared, *held) and tasks_here(slurm) == 2

    slurm.said("scancel", f"{job}_0")  # by hand
    slurm.until(lambda: tasks_here(slurm) == 1)
    assert "10 runs: 0 recorded, 5 queued, 5 lost" in cluster(capsys, shared, "status")
    assert "5 runs in 1 tasks of at most 5" in reproduce(capsys, shared, *held) and tasks_here(slurm) == 2
    other, _ = job_of(shared)
    reproduce(capsys, shared, "T9", "--sbatch", "hold")
    assert "11 runs: 0 recorded, 11 queued" in cluster(capsys, shared, "status")
    assert f"2 tasks cancelled: {job}_1, {other};" in cluster(capsys, shared, "cancel", "T1")
    slurm.until(lambda: tasks_here(slurm) == 1)
    assert "11 runs: 0 recorded, 1 queued, 10 cancelled" in cluster(capsys, shared, "status")
    assert "1 tasks cancelled" in cluster(capsys, shared, "cancel") and "no task is queued or running" in cluster(capsys, shared, "cancel", "T1")


def tasks_here(slurm):
    return len(slurm.said("squeue", "-h", "-r", "--me").splitlines())


TRAIN = ("--model", "waiting:mlp", "--data", "waiting:points", "--batch-size", "10", "--recipe", "bisam-log", "--epochs", "2", "--threads", "1")


def test_a_training_on_two_nodes_has_the_weights_of_two_processes_started_by_hand(slurm, shared, monkeypatch):
    """The file that the page shows, as it stands."""
    monkeypatch.delenv("GATES")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    script = ROOT / "book" / "code" / "on_nodes.sbatch"
    words = ["sbatch", "--parsable", "--nodes=2", f"--output={shared / 'nodes.out'}", str(script), *TRAIN, "--output", str(shared / "run")]
    job = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    port = small_cluster.free_ports(1)[0]
    by_hand = [started_by_hand(rank, port, shared) for rank in range(2)]
    assert [one.wait(timeout=300) for one in by_hand] == [0, 0], (shared / "hand0.out").read_text()
    slurm.until(lambda: job not in slurm.said("squeue", "-h", "--me", "-o", "%i").split())
    assert weights(shared / "nodes.out") == weights(shared / "hand0.out") != [], (shared / "nodes.out").read_text()
    assert weights(shared / "hand1.out") == []  # the first of the processes reports


def started_by_hand(rank, port, folder):
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    words = [sys.executable, "-m", "bisam.cli", "train", *TRAIN, "--output", str(folder / "hand")]
    with open(folder / f"hand{rank}.out", "wb") as out:
        return subprocess.Popen(words, env={**os.environ, **{name: str(value) for name, value in place.items()}}, stdout=out, stderr=out)


def weights(path):
    return re.findall(r"^weights ([0-9a-f]+)$", path.read_text(), re.MULTILINE)
