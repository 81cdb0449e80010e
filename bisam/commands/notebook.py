"""``bisam notebook``."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from .. import _checks
from ..notebook import parameters
from ..notebook.estimate import clock
from ..notebook.find import NotebookError, find, names
from ..notebook.gather import gather
from ..notebook.job import Job
from ..notebook.run import run
from ..notebook.side_by_side import missing, run_all
from ..notebook.sweep import folder_of, opened, plan


def words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="of the notebook, or its file; without it, all are listed")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="a parameter")
    parser.add_argument("--scale", help="short for -p scale: smoke (seconds), laptop (minutes), paper (a GPU)")
    said = "executed notebook; default: _build/notebooks/NAME.ipynb, with the parameters in the name and a number where that is there already; of a sweep the folder"
    parser.add_argument("--output", type=Path, help=said)
    parser.add_argument("--force", action="store_true", help="an output that is there is replaced")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="also write the figures there, as SVG and PDF")
    parser.add_argument("--html", action="store_true", help="also write the executed notebook as one HTML file to read")
    said = "run the notebook for each value, as in rho=0.1,0.2,0.4 or seed=0:5; several of these give the product. The same command goes on where it was cut"
    parser.add_argument("--sweep", action="append", default=[], metavar="KEY=VALUES", help=said)
    parser.add_argument("--workers", type=int, default=1, help="runs of a sweep at a time (default 1)")
    parser.add_argument("--yes", action="store_true", help="a sweep may have more than 200 runs")
    parser.add_argument("--list", action="store_true", help="show the notebook's parameters and run nothing")
    parser.set_defaults(do=_notebook)


def _notebook(arguments: argparse.Namespace) -> int:
    if arguments.name is None:
        print("\n".join(names()))
        return 0
    if arguments.list:
        print(parameters.table(parameters.from_notebook(find(arguments.name))))
        return 0
    pairs = arguments.p + ([] if arguments.scale is None else [["scale", arguments.scale]])
    given = dict(pairs)
    twice = [key for key in given if sum(key == name for name, _ in pairs) > 1]
    if twice:
        raise ValueError(f"{twice[0]} must be given once, got {' and '.join(v for k, v in pairs if k == twice[0])}")
    _checks.whole("workers", arguments.workers)
    if arguments.sweep:
        return _sweep(arguments, given)
    if arguments.workers > 1:
        raise ValueError(f"workers must be 1 without a sweep, got {arguments.workers}")
    print(run(arguments.name, given, arguments.output, replace=arguments.force, figures=arguments.figures, html=arguments.html))
    return 0


def _sweep(arguments: argparse.Namespace, given: dict[str, str]) -> int:
    for word in ("figures", "html"):
        if getattr(arguments, word):
            raise ValueError(f"{word} must be left out with a sweep, which gathers the figures and claims of all runs on its page")
    if arguments.force:
        raise ValueError("force must be left out with a sweep: runs of another version are made anew, and those that are there are kept")
    jobs = plan(arguments.name, given, arguments.sweep, many=arguments.yes)
    name = jobs[0].path.stem
    folder = opened(arguments.output or folder_of(name, jobs, arguments.sweep), name)
    print(_estimate(jobs, folder, arguments.workers), file=sys.stderr, flush=True)
    try:
        failed = run_all(jobs, folder, arguments.workers)
    except BaseException as stop:  # what is done is shown also where the rest was stopped
        with contextlib.suppress(OSError):
            gather(jobs, folder, {})
        if isinstance(stop, OSError):
            raise NotebookError(f"output {stop.filename or folder} {stop.strerror}; {'; '.join(stop.__notes__)}") from None
        raise
    page = gather(jobs, folder, failed)
    for stem, why in failed.items():
        print(f"{stem}: {why}", file=sys.stderr)
    print(page)
    return 1 if failed else 0


def _estimate(jobs: list[Job], folder: Path, workers: int) -> str:
    waiting = missing(jobs, folder)
    there = f", {len(jobs) - len(waiting)} of them done" if len(waiting) < len(jobs) else ""
    times = [job.seconds for job in waiting]
    known = [seconds for seconds in times if seconds is not None]
    took = f"about {clock(sum(known) / workers)} with {workers} at a time" if times and len(known) == len(times) else "no time is known"
    return f"{jobs[0].path.stem}: {len(jobs)} runs{there}" + (f"; {took}" if waiting else "")
