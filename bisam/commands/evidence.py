"""``bisam evidence``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

from .reproduce import places


def words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, help="stop cleanly within about this time; the same command goes on later")
    parser.add_argument("--cores", type=int, default=1, help="processes at a time, one thread each (default 1)")
    parser.add_argument("--root", help="folder of the data sets; default: BISAM_DATA, else data")
    parser.add_argument("--ledger", type=Path, help="folder with claims.toml and runs; default: results of this project")
    parser.add_argument("--checkpoints", type=Path, help="folder of runs that were cut; default: _build/checkpoints, or beside another ledger")
    parser.add_argument("--plan", action="store_true", help="show the queue and what it would cost, and run nothing")
    parser.set_defaults(do=_evidence)


def _evidence(arguments: argparse.Namespace) -> int:
    from ..evidence.decisions import decisions
    from ..evidence.plans import Settings
    from ..evidence.queue import RULE, queue
    from ..evidence.reproduce import carry_out

    began = time.monotonic()
    settings = Settings(arguments.cores, "cpu", arguments.root, arguments.minutes, **places(arguments))
    jobs, absent = queue(settings)
    print(RULE)
    for name, error in absent.items():
        print(f"{name} is left out: {error}")
    print(f"{len(jobs)} runs are missing, about {sum(job.seconds for job in jobs) / 3600:.2g} hours of one core", flush=True)
    if arguments.plan:
        for job in jobs:
            print(f"  {job.worth:.2e}  {job.seconds:6.0f} s  {job.planned.experiment}/{job.planned.file}  for {len(job.claims)} claims")
        return 0
    before = decisions(folder=settings.folder)
    left = dataclasses.replace(settings, minutes=_left(settings.minutes, began))
    shortest = min((job.timed.epoch_seconds for job in jobs), default=0.0)
    if left.minutes is not None and shortest >= 60 * left.minutes:
        print(f"no run is begun: the shortest epoch takes about {shortest:,.0f} s, and {60 * left.minutes:,.0f} s are left of {settings.minutes:g} minutes")
    try:
        outcomes = carry_out([job.timed for job in jobs], left)
    except KeyboardInterrupt:
        _print_changes(before, settings.folder)
        raise
    _print_changes(before, settings.folder)
    said = {"recorded": "recorded", "cut": "to go, with which the same command goes on", "elsewhere": "in the hands of other processes", "failed": "failed"}
    print(", ".join(f"{len(outcomes[kind])} {words}" for kind, words in said.items() if outcomes[kind] or kind in ("recorded", "cut")))
    for line in outcomes["failed"]:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if outcomes["failed"] else 0


def _left(minutes: float | None, began: float) -> float | None:
    """The minutes less those that it took to put the runs into their order."""
    return None if minutes is None else max(minutes - (time.monotonic() - began) / 60, 1e-9)


def _print_changes(before: list, folder: Path) -> None:
    from ..evidence.decisions import decisions
    from ..evidence.report import changes

    for line in changes(before, decisions(folder=folder)):
        print(line)
