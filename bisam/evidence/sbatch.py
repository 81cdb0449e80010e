"""What is asked of ``sbatch``: how runs become tasks, and one job array of them, through submitit."""

from __future__ import annotations

import functools
import math
import re
import shlex
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import _checks
from .slurm import ClusterError, last_line, said

__all__ = ["Options", "executor", "sbatch_file", "submitted"]

OWN = {
    "array": "the plan makes it", "output": "logs lie beside the state file", "error": "logs lie beside the state file", "open-mode": "logs go on after a requeue",
    "signal": "--grace sets it", "requeue": "a task has to come back", "no-requeue": "a task has to come back", "job-name": "jobs are found by it",
    "wrap": "a task is its own script", "nodes": "a task is one process on one node", "ntasks": "a task is one process on one node",
    "ntasks-per-node": "a task is one process on one node", "parsable": "the answer is read here", "test-only": "--dry-run asks for it",
    "wait": "the ledger says what is done", "chdir": "a task works where the command was given", "help": "it submits nothing", "usage": "it submits nothing",
    "version": "it submits nothing", "uid": "jobs are found by their user", "get-user-env": "a task has the environment of this shell", "clusters": "one cluster has one ledger",
    "cpus-per-task": "--workers and --loaders set it", "time": "--time sets it", "export": "a task has the environment of this shell",
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """How runs become tasks of a job array, and what the array asks of the cluster.

    Args:
        pack: runs a task.
        minutes: the time limit of a task, as Slurm has it; a whole number.
        grace: seconds before the end of that time at which a task begins no other epoch, and is sent ``USR2``.
        retries: how often a task comes back that ended with an error or was killed; what the cluster takes away comes back without end.
        at_once: tasks that run at a time; all if ``None``.
        sbatch: options of ``sbatch`` by their long names without dashes, such as ``{"partition": "gpu"}``; an option without a value has ``""``.

    Raises:
        TypeError, ValueError: a wrong argument, or an option of ``sbatch`` that is set here in another way.

    Example:
        >>> Options(pack=4, sbatch={"gres": "gpu:1"}).minutes
        60
    """

    pack: int = 1
    minutes: int = 60
    grace: float = 90.0
    retries: int = 2
    at_once: int | None = None
    sbatch: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        _checks.keep(self, _checks.whole, "pack", "minutes")
        _checks.keep(self, _checks.whole, "retries", least=0)
        _checks.keep(self, _checks.nonnegative, "grace")
        _checks.keep(self, _checks.optional, "at_once", of=_checks.whole)
        if self.grace >= 60 * self.minutes:
            raise ValueError(f"grace must be below the {60 * self.minutes} seconds of a task, got {self.grace:g}")
        for name, value in _checks.part("sbatch", self.sbatch, dict, "a dictionary from options of sbatch to their values").items():
            check_option(name, value)


def check_option(name: object, value: object) -> None:
    """A ``ValueError`` unless an option of ``sbatch`` can stand in a line of its file and is not ours."""
    if not re.fullmatch("[a-z][a-z-]*", _checks.text("sbatch", name)):
        raise ValueError(f"sbatch must name an option by its long name without dashes, such as qos; got {_checks.shown(name)}")
    if name in OWN:
        raise ValueError(f"sbatch must not set {name}: {OWN[name]}")
    _checks.line(f"sbatch {name}", value)


def check_sbatch(options: Options) -> None:
    """A ``ValueError`` for an option that this ``sbatch`` does not have."""
    known = set(re.findall(r"--([a-z][a-z-]*)", said("sbatch", "--help")))
    for name in options.sbatch:
        if name not in known:
            raise ValueError(f"sbatch must name an option that `sbatch --help` lists; got {name!r}")


def _parameters(options: Options, name: str, workers: int, folder: Path) -> dict:
    """What submitit writes into the head of the file, and around its command."""
    return {
        "job_name": name, "time": options.minutes, "cpus_per_task": workers, "signal_delay_s": math.ceil(options.grace), "wckey": None,
        "array_parallelism": options.at_once or 2**31, "additional_parameters": {"requeue": True, **{key: value or True for key, value in options.sbatch.items()}},
        # Slurm 22.05 and later take no processors from the file into a step.
        "srun_args": [f"--cpus-per-task={workers}"],
        "setup": ["export BISAM_BEGAN=$(cut -d' ' -f1 /proc/uptime)  # the time limit counts from here"],
        "teardown": _again(options.retries, folder),
    }  # fmt: skip


def _again(retries: int, folder: Path) -> list[str]:
    """A task that broke off asks to come back, so often; 255 says that it has asked already, and one that was cancelled stays away."""
    log = f'{shlex.quote(str(folder))}/"$task.broken"'
    return [
        "ended=$?",
        'case "$ended" in 0 | 255) exit "$ended" ;; esac',
        # The number of one task of an array is also that of the array, so tasks are named in full.
        'task="$SLURM_JOB_ID"; [ -z "$SLURM_ARRAY_JOB_ID" ] || task="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"',
        'if [ "$(squeue -h -j "$task" -o %T)" = RUNNING ]; then',
        f'  echo "$(date) status $ended on $SLURMD_NODENAME" >> {log}',
        f'  if [ "$(wc -l < {log})" -le {retries} ]; then scontrol requeue "$task"; fi',
        "fi",
        'exit "$ended"',
    ]


@functools.cache
def executor_class() -> type:
    """submitit's executor, which can also say what it would submit."""
    slurm = _checks.needs("submitit.slurm.slurm", "cluster")

    class Executor(slurm.SlurmExecutor):
        def text(self, count: int) -> str:
            """The file that an array of so many tasks is submitted with; a single task is no array."""
            self.parameters.update({"map_count": count} if count > 1 else {})
            return self._make_submission_file_text(self._submitit_command_str, "")

    return Executor


def executor(options: Options, name: str, workers: int, folder: Path):
    """submitit's executor with all that is asked of the cluster, after a look whether both are there and know the options.

    Args:
        options: what the array asks of the cluster.
        name: of the job, by which it is found again.
        workers: processors a task.
        folder: for what a task is made of and what it prints; all nodes must see it.

    Raises:
        ClusterError: Slurm is missing.
        ModuleNotFoundError: submitit is missing.
        ValueError: ``sbatch`` has no option of that name.

    Example:
        >>> executor(Options(), "bisam-T1", 0, Path("jobs"))
        Traceback (most recent call last):
        ValueError: workers must be at least 1, got 0
    """
    parameters = _parameters(_checks.part("options", options, Options, "Options"), _checks.line("name", name), _checks.whole("workers", workers), folder)
    kind = executor_class()
    check_sbatch(options)  # also that Slurm is here at all
    made = kind(_checks.path("folder", folder, "the path of a folder"), max_num_timeout=10**6)  # a task that comes back after its time has got on
    made.update_parameters(**parameters)
    return made


def sbatch_file(count: int, executor) -> str:
    """The text of the file that so many tasks would be submitted with, after Slurm has said that it would take it.

    Args:
        count: tasks.
        executor: what :func:`executor` returned.

    Raises:
        ClusterError: Slurm does not answer, or would not take the array.

    Example:
        >>> sbatch_file(0, None)
        Traceback (most recent call last):
        ValueError: count must be at least 1, got 0
    """
    count = _checks.whole("count", count)
    text = _made("executor", executor).text(count)
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(text)
        file.flush()
        said("sbatch", "--test-only", file.name, hint=_hint(count))
    return text


def submitted(tasks: Sequence[Callable[[], object]], executor) -> str:
    """Submits tasks as one job array, a single one as a job, and returns its number.

    Args:
        tasks: what is called on a node, each of which can be pickled.
        executor: what :func:`executor` returned.

    Raises:
        ClusterError: Slurm does not answer or does not take the array.

    Example:
        >>> submitted([], None)
        Traceback (most recent call last):
        ValueError: tasks must hold at least one, got none
    """
    if not _checks.sequence("tasks", tasks):
        raise ValueError("tasks must hold at least one, got none")
    _made("executor", executor)
    try:
        return executor.submit_array(list(tasks))[0].job_id.partition("_")[0]
    except RuntimeError as error:  # of submitit, with what sbatch has said
        raise ClusterError(f"sbatch fails: {last_line(str(error))}{_hint(len(tasks))}") from None


def _made(name: str, value: object):
    return _checks.part(name, value, ("text", "submit_array"), "what executor() returns")


def _hint(count: int) -> str:
    return f". There are {count} tasks; a larger --pack makes them fewer" if count > 1 else ""
