"""Runs what is missing of an experiment, several processes at a time, and records each run as it ends."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import torch

from . import _checks, ledger

__all__ = ["record_missing"]


def record_missing(name: str, workers: int = 1) -> int:
    """Runs and records every run of an experiment that has no record yet; a second call runs nothing.

    Args:
        name: of the experiment, in ``results/claims.toml``.
        workers: processes at a time, one thread each, so that results do not depend on how many there are.

    Returns:
        How many runs were recorded now.

    Raises:
        ValueError: an unknown experiment, or less than one worker.
        LedgerError: a record that is there does not belong to the experiment as it is described now.

    Source:
        Ours.

    Example:
        >>> record_missing("an unknown one")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: experiment must be one of first_run, ...; got 'an unknown one'
    """
    from rich.progress import Progress

    _checks.whole("workers", workers)
    there = ledger.evidence(name)
    missing = [file for file in ledger.experiment(name).runs() if file not in there]
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))
    with Progress() as bar, pool:
        task = bar.add_task(f"recording {name}", total=len(missing))
        for future in as_completed([pool.submit(_record_one, name, file) for file in missing]):
            future.result()
            bar.advance(task)
    return len(missing)


def _record_one(name: str, file: str) -> None:
    from .train import fit

    experiment = ledger.experiment(name)
    ledger.record(fit(experiment.runs()[file]), name, file, experiment.scale)
