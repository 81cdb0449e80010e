"""``bisam reproduce --cluster slurm`` and ``bisam cluster``."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .. import _checks
from ..evidence.arrays import find, place
from ..evidence.cluster import Request, cancel, preview, submit, to_submit
from ..evidence.plans import Planned, Settings, plan
from ..evidence.prices import hours
from ..evidence.sbatch import Options
from ..evidence.slurm import ClusterError

KINDS = ("recorded", "running", "queued", "lost", "cancelled", "not submitted")
NAMED = ("partition", "account", "gres", "constraint")  # options of sbatch with an option of their own
ONLY = ("pack", "time", "grace", "retries", "at_once", *NAMED, "sbatch", "dry_run")  # take part on a cluster alone


def submit_words(parser: argparse.ArgumentParser) -> None:
    """The options that `reproduce` has for a cluster."""
    group = parser.add_argument_group("on a cluster")
    group.add_argument("--cluster", choices=("slurm",), help="submit what is missing as one job array, and return")
    group.add_argument("--pack", type=int, help="runs a task of the array (default 1); --workers of them go side by side")
    group.add_argument("--time", type=int, metavar="MINUTES", help="time limit of a task, which then comes back by itself (default 60)")
    group.add_argument("--grace", type=float, metavar="SECONDS", help="before the end of that time no other epoch begins (default 90)")
    group.add_argument("--retries", type=int, help="how often a task comes back that broke off (default 2)")
    group.add_argument("--at-once", type=int, metavar="TASKS", help="no more than so many tasks at a time")
    for name in NAMED:
        group.add_argument(f"--{name}", help="as sbatch has it")
    group.add_argument("--sbatch", action="append", metavar="OPTION=VALUE", help="any other option of sbatch, such as qos=long; OPTION alone without a value")
    group.add_argument("--dry-run", action="store_true", default=None, help="show the plan, how it is packed and the file for sbatch; submit nothing")


def check_alone(arguments: argparse.Namespace) -> None:
    """A ``ValueError`` for an option that would not take part: one of the cluster without it, or one that has no place there."""
    given = [name for name in ONLY if getattr(arguments, name) is not None]
    if arguments.cluster is None and given:
        raise ValueError(f"{given[0].replace('_', '-')} takes part only on a cluster: add --cluster slurm, or leave it out")
    if arguments.cluster is None:
        return
    others = {"minutes": "--time is the time limit of a task", "plan": "--dry-run shows the plan", "export": "it runs nothing"}
    for name, instead in others.items():
        if getattr(arguments, name):
            raise ValueError(f"{name} has no place on a cluster: {instead}")


def options_of(arguments: argparse.Namespace) -> Options:
    """What the words say about tasks and the job array."""
    found = {name: getattr(arguments, name) for name in NAMED if getattr(arguments, name) is not None}
    for word in arguments.sbatch or ():
        name, _, value = word.partition("=")
        if name in NAMED:
            raise ValueError(f"sbatch must not set {name}: --{name} sets it")
        if name in found:
            raise ValueError(f"sbatch {_checks.plain(name)} must be set once")
        found[name] = value
    given = {name: getattr(arguments, name) for name in ("pack", "grace", "retries", "at_once") if getattr(arguments, name) is not None}
    minutes = {} if arguments.time is None else {"minutes": _checks.whole("time", arguments.time)}
    return Options(**given, **minutes, sbatch=found)


def submitted(arguments: argparse.Namespace, planned: Sequence[Planned], settings: Settings, device: str) -> int:
    """What ``bisam reproduce --cluster slurm`` does with a plan."""
    request = Request(arguments.name, settings, options_of(arguments), device)
    if arguments.dry_run:
        packs = to_submit(planned, request)
        text = preview(packs, request)
        _print_packs(planned, packs, request)
        for number, pack in enumerate(packs):
            print("\n".join(f"  task {number}: {one.experiment}/{one.file}" for one in pack))
        print(f"\n{text}\nnothing has been submitted" if text else "there is nothing to submit")
        return 0
    number, packs = submit(planned, request)
    _print_packs(planned, packs, request)
    if number is None:
        print("there is nothing to submit")
        return 0
    print(f"job {number} submitted; `bisam cluster status{_of_ledger(settings)}` says how far it is")
    return 0


def _of_ledger(settings: Settings) -> str:
    return "" if settings.folder == Settings().folder else f" --ledger {settings.folder}"


def _print_packs(planned: Sequence[Planned], packs: Sequence[Sequence[Planned]], request: Request) -> None:
    print(_counted(find(request.settings.folder, planned).values()))
    runs, options = [one for pack in packs for one in pack], request.options
    if not runs:
        return
    at_once = "" if options.at_once is None else f", {options.at_once} at a time"
    print(f"{len(runs)} runs in {len(packs)} tasks of at most {options.pack}{at_once}, {request.processes} side by side, {options.minutes} minutes at a time")
    passes = sum(one.passes for one in runs)
    if request.device == "cpu":
        took = hours(runs, request.settings)
        print(f"{passes:,.0f} passes over the images, about {took:.2g} hours of one processor like this one, {took / len(packs) / request.processes:.2g} a task")
    else:
        print(f"{passes:,.0f} passes over the images; how long they take on {request.device} of a node cannot be timed here;")
        print(f"`bisam reproduce {request.name} --plan --card CARD` has the hours of a named card by their arithmetic")


def _counted(found) -> str:
    counts = Counter(one.kind for one in found)
    return f"{sum(counts.values())} runs: " + ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind] or kind == "recorded")


def words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("status", "cancel"), help="show what has become of the runs, or cancel the tasks that are queued or running")
    parser.add_argument("name", nargs="?", help="of a table or an experiment; default: all runs that were submitted")
    parser.add_argument("--ledger", type=Path, metavar="FOLDER", help="folder with claims.toml and runs; default: results of this project")
    parser.set_defaults(do=_cluster)


def _cluster(arguments: argparse.Namespace) -> int:
    folder = Settings().folder if arguments.ledger is None else _checks.path("ledger", arguments.ledger, "the path of a folder")
    if not (folder / "claims.toml").is_file():
        raise ClusterError(f"ledger {folder} is not there: it has no claims.toml. Name the folder that `bisam reproduce --ledger` has made, as this machine sees it")
    planned = None if arguments.name is None else plan(arguments.name, folder=folder)
    return _status(folder, planned) if arguments.what == "status" else _cancel(folder, planned)


def _status(folder: Path, planned: Sequence[Planned] | None) -> int:
    found = find(folder, planned or ())
    if planned is not None:
        found = {key: found[key] for key in ((one.experiment, one.file) for one in planned)}
    if not found:
        print(f"nothing has been submitted from {folder}: {place(folder) / 'state.json'} names no job")
        return 0
    print(_counted(found.values()))
    for kind in KINDS[1:-1]:
        for (name, file), one in found.items():
            if one.kind == kind:
                print(f"  {kind:9}  {name}/{file}  {_where(one)}")
    if any(one.kind in ("lost", "cancelled") for one in found.values()):
        print("`bisam reproduce` with the same options submits again what is lost or cancelled; it goes on from its checkpoints")
    return 0


def _where(one) -> str:
    if one.job is None:
        return f"its job is gone; it has said: {one.log}" if one.log is not None and one.log.exists() else "its job is gone"
    return f"job {one.job.id} {one.job.where}{f' for {one.job.elapsed}' if one.job.is_running else ''}"


def _cancel(folder: Path, planned: Sequence[Planned] | None) -> int:
    ids = cancel(folder, planned)
    print(f"{len(ids)} tasks cancelled: {', '.join(ids)}; records and checkpoints stay" if ids else "no task is queued or running")
    return 0
