"""``bisam reproduce``, ``evidence`` and ``rerun``."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import tempfile
import time
from pathlib import Path

from .. import _checks
from ..evidence import cards, own_ledger, reproduce
from ..evidence.decisions import decisions
from ..evidence.descriptions import export
from ..evidence.plans import Settings, plan
from ..evidence.prices import prices
from ..evidence.queue import RULE, queue
from ..evidence.report import changes
from ..training.data import DataError
from . import cluster


def words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="of a published table (T1, T9, LETS, ...) or of an experiment in results/claims.toml")
    parser.add_argument("--scale", help="smoke (seconds, no evidence), laptop or paper; default: all that the table has")
    parser.add_argument("--seeds", type=int, help="no more than so many seeds")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="methods, models, noise40, ...: parts of the records' names")
    looks = parser.add_mutually_exclusive_group()
    looks.add_argument("--plan", action="store_true", help="show what would be run and what it would cost, and run nothing")
    looks.add_argument("--export", type=Path, metavar="FOLDER", help="write each run as a file for `bisam train --from`, and run nothing")
    parser.add_argument("--card", choices=cards.CARDS, help="with --plan: hours of this card by the arithmetic of the runs; nothing is timed, no data needed")
    parser.add_argument("--workers", type=int, default=1, help="processes at a time on each device, one thread each on a CPU (default 1)")
    parser.add_argument("--loaders", type=int, help="processes that decode images for each process, where runs stream them")
    said = "cpu (default) or cuda:0, which the processes share; several, as in cuda:0,cuda:1, take runs in turn"
    parser.add_argument("--device", action="append", help=said)
    parser.add_argument("--root", help="folder of the data sets; default: BISAM_DATA, else data")
    parser.add_argument("--minutes", type=float, help="stop cleanly within about this time; the same command goes on later")
    parser.add_argument("--ledger", metavar="FOLDER", help="record there; a folder without a list of claims gets that of this project")
    parser.add_argument("--checkpoints", metavar="FOLDER", help="of unfinished runs; default: _build/checkpoints, or beside another ledger")
    for name in ("precision", "compile"):
        parser.add_argument(f"--{name}", help="another than planned, in a ledger of its own")
    cluster.submit_words(parser)
    parser.set_defaults(do=_reproduce)


def _reproduce(arguments: argparse.Namespace) -> int:
    cluster.check_alone(arguments)
    device = ",".join(map(str, arguments.device or ["cpu"]))
    if arguments.card is not None and not arguments.plan:
        raise ValueError(f"card must go with --plan, which says what the runs would cost on it; got {arguments.card} alone")
    here = device if arguments.cluster is None else "cpu"  # the devices of a task are those of its node
    settings = Settings(arguments.workers, here, arguments.root, arguments.minutes, **_places(arguments), loaders=arguments.loaders)
    others = {name: getattr(arguments, name) for name in ("precision", "compile") if getattr(arguments, name) is not None}
    with contextlib.ExitStack() as stack:
        settings = _with_list(arguments, settings, others, stack)
        planned = plan(arguments.name, arguments.scale, arguments.seeds, arguments.only, settings.folder)
        own_ledger.check_planned(planned, others, settings.folder)
        if arguments.cluster is not None:
            return cluster.submitted(arguments, planned, settings, device)
        return _done(arguments, planned, settings)


def _places(arguments: argparse.Namespace) -> dict:
    """The ledger and where its unfinished runs are kept: those of another ledger than ours lie beside it."""
    found = {} if arguments.checkpoints is None else {"checkpoints": arguments.checkpoints}
    folder = _checks.optional("ledger", arguments.ledger, of=_checks.path, words="the path of a folder")
    if folder is not None and folder.resolve() != Settings().folder.resolve():
        found = {"folder": folder, "checkpoints": folder.absolute().with_name(f"{folder.absolute().name}-checkpoints"), **found}
    return found


def _with_list(arguments: argparse.Namespace, settings: Settings, others: dict[str, str], stack: contextlib.ExitStack) -> Settings:
    """The settings with a ledger that has a list of claims; one that is only looked at is made in a folder that goes away."""
    own_ledger.check_settings(others)
    if (settings.folder / "claims.toml").exists():
        return settings
    results = Settings().folder
    names = dict.fromkeys(one.experiment for one in plan(arguments.name, arguments.scale, arguments.seeds, arguments.only, results))
    looks_only = arguments.plan or arguments.export is not None or arguments.dry_run
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) if looks_only else settings.folder
    without = own_ledger.derive(folder, others, list(names), results)
    if not looks_only:
        words = f", without {', '.join(without)}" if without else ""
        print(f"{folder / 'claims.toml'} has the experiments and claims of this project{words}")
    return dataclasses.replace(settings, folder=folder)


def _done(arguments: argparse.Namespace, planned: list, settings: Settings) -> int:
    if arguments.export is not None:
        paths = export(planned, arguments.export, settings.folder)
        print(f"{len(paths)} runs written below {arguments.export}; `bisam train --from FILE --output FOLDER` makes one")
        return 0
    if arguments.card is not None:
        _print_cost(planned, arguments.card, settings.root)
    else:
        _print_price(planned, settings, arguments.plan)
    if arguments.plan:
        print("\n".join(f"  {'recorded' if one.recorded else 'to do':8}  {one.experiment}/{one.file}" for one in planned))
        return 0
    outcomes = reproduce.carry_out(planned, settings)
    print(f"{len(outcomes['recorded'])} runs recorded")
    for name, word in (("cut", "were cut by the time; the same command goes on with them"), ("elsewhere", "are in the hands of another process")):
        if outcomes[name]:
            print(f"{len(outcomes[name])} runs {word}")
    return _failures(outcomes)


def _failures(outcomes: dict) -> int:
    for line in outcomes["failed"]:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if outcomes["failed"] else 0


def _print_cost(planned: list, card: str, root: str | None) -> None:
    """What the runs of each experiment would cost on a card, from their arithmetic."""
    for name in dict.fromkeys(one.experiment for one in planned):
        found = cards.cost([one for one in planned if one.experiment == name], card, root)
        print(f"{name}: {found.flop:.2g} operations, about {found.hours:,.0f} hours of one {card}")
        for data, why in found.unknown.items():
            print(f"  without the runs on {data}: {why}")
    peak = cards.CARDS[card]
    print(f"at most {cards.SHARE:.0%} of its {peak['float32']:g} (float32) or {peak['bfloat16']:g} (bfloat16) TFLOP/s; networks of table 10 as its seconds on an A100 say")


def _print_price(planned: list, settings: Settings, goes_on: bool) -> None:
    """What there is to do and what it will cost; missing data end the command here unless it only plans."""
    found = prices(planned, settings)
    known = {place: price for place, price in found.items() if not isinstance(price, DataError)}
    for name in dict.fromkeys(one.experiment for one in planned):
        mine = [one for one in planned if one.experiment == name]
        passes = sum(one.passes for one in mine if not one.recorded)
        own = [price for place, price in known.items() if place[0] == name]
        price = f", about {sum(own):.2g} hours of one process" if own else ""
        print(f"{name}: {sum(one.recorded for one in mine)} of {len(mine)} runs recorded, {passes:,.0f} passes over the images to go{price}")
    if known:
        processes = settings.workers * len(settings.devices)
        words = f"hours with {processes} processes on {settings.device}, from a few timed steps of each network"
        print(f"about {sum(known.values()) / processes:.2g} {words}{', without what follows' if len(known) < len(found) else ''}")
    missing = {data: error for (_, data), error in found.items() if isinstance(error, DataError)}
    for data, error in missing.items():
        if not goes_on:
            raise error
        print(f"how long the runs on {data} take cannot be said: {error}")


def evidence_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, help="stop cleanly within about this time; the same command goes on later")
    parser.add_argument("--cores", type=int, default=1, help="processes at a time, one thread each (default 1)")
    parser.add_argument("--root", help="folder of the data sets; default: BISAM_DATA, else data")
    parser.add_argument("--ledger", type=Path, help="folder with claims.toml and runs; default: results of this project")
    parser.add_argument("--checkpoints", type=Path, help="folder of runs that were cut; default: _build/checkpoints, or beside another ledger")
    parser.add_argument("--plan", action="store_true", help="show the queue and what it would cost, and run nothing")
    parser.set_defaults(do=_evidence)


def _evidence(arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    settings = Settings(arguments.cores, "cpu", arguments.root, arguments.minutes, **_places(arguments))
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
    if settings.minutes is not None:  # less those that it took to put the runs into their order
        left = max(settings.minutes - (time.monotonic() - began) / 60, 1e-9)
        shortest = min((job.timed.epoch_seconds for job in jobs), default=0.0)
        if shortest >= 60 * left:
            print(f"no run is begun: the shortest epoch takes about {shortest:,.0f} s, and {60 * left:,.0f} s are left of {settings.minutes:g} minutes")
        settings = dataclasses.replace(settings, minutes=left)
    try:
        outcomes = reproduce.carry_out([job.timed for job in jobs], settings)
    except KeyboardInterrupt:
        print_changes(before, settings.folder)
        raise
    print_changes(before, settings.folder)
    said = {"recorded": "recorded", "cut": "to go, with which the same command goes on", "elsewhere": "in the hands of other processes", "failed": "failed"}
    print(", ".join(f"{len(outcomes[kind])} {words}" for kind, words in said.items() if outcomes[kind] or kind in ("recorded", "cut")))
    return _failures(outcomes)


def print_changes(before: list, folder: Path) -> None:
    """What the records of a ledger decide otherwise than they did before."""
    for line in changes(before, decisions(folder=folder)):
        print(line)


def rerun_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", type=Path, help="a JSON file of results/runs")
    parser.add_argument("--root", help="folder of the data sets; default: BISAM_DATA, else data")
    parser.add_argument("--device", help="another than that of the record")
    parser.set_defaults(do=_rerun)


def _rerun(arguments: argparse.Namespace) -> int:
    found = reproduce.rerun(arguments.record, arguments.root, arguments.device, progress=True)
    for name in ("recorded", "again"):
        print(f"{name:9}" + "  ".join(f"{key} {value:g}" for key, value in found[name].items()))
    print("the same data" if found["same_data"] else "OTHER DATA than those of the record")
    print("the same weights, bit for bit" if found["same_bits"] else "other weights in their last bits or more")
    for sentence in [] if found["same_bits"] else found["why"]:
        print(sentence)
    return 0
