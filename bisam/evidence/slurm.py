"""What Slurm says: which jobs it has, or why it says nothing."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

__all__ = ["ClusterError", "Job", "jobs", "said"]

PATIENCE = 60.0  # seconds for an answer of the controller; its clients try again by themselves meanwhile


class ClusterError(RuntimeError):
    """Slurm or submitit is not there, does not answer, or refuses; the message says what to do."""


@dataclass(frozen=True)
class Job:
    """One task of a job array as ``squeue`` shows it.

    Example:
        >>> Job("bisam-T1-0a1b2c3d", "17", 3, "PENDING", "(Priority)", "0:00").is_running
        False
    """

    name: str
    array: str
    index: int
    state: str
    where: str
    elapsed: str

    @property
    def is_running(self) -> bool:
        """Whether it has a node, if only to clear it."""
        return self.state in ("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")

    @property
    def id(self) -> str:
        """What ``scancel`` and ``scontrol`` call it."""
        return f"{self.array}_{self.index}"


def jobs() -> list[Job]:
    """All jobs of this user that are queued or running, every task of an array by itself; a job without an array is its own task 0.

    Raises:
        ClusterError: there is no Slurm on this machine, or its controller does not answer.

    Example:
        >>> try:
        ...     found = jobs()
        ... except ClusterError:
        ...     found = []
        >>> isinstance(found, list)
        True
    """
    found = []
    for line in said("squeue", "--me", "--noheader", "--array", "--format=%j|%F|%K|%T|%R|%M").splitlines():
        name, array, index, state, where, elapsed = line.rsplit("|", 5)
        found.append(Job(name, array, int(index) if index.isdigit() else 0, state, where, elapsed))
    return found


def said(*words: str, hint: str = "; `scontrol ping` asks the controller of Slurm whether it is there") -> str:
    """What a command of Slurm prints.

    Args:
        words: the command and its arguments.
        hint: ends the message where the command fails.

    Raises:
        ClusterError: the command is not on this machine, fails, or does not answer within a minute.

    Example:
        >>> said("true")
        ''
    """
    try:
        ended = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    except FileNotFoundError:
        raise ClusterError(f"{words[0]} is not on this machine: log in to one from which jobs are submitted to Slurm") from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{words[0]} has no answer after {PATIENCE:g} s{hint}") from None
    if ended.returncode:
        raise ClusterError(f"{words[0]} fails: {last_line(ended.stderr)}{hint}")
    return ended.stdout or ended.stderr


def last_line(text: str) -> str:
    """What an error ends with, which is mostly what is wrong."""
    return (text.strip().splitlines() or ["without a word"])[-1]
