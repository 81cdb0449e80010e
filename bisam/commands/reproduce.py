"""``bisam reproduce`` and ``rerun``."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import tempfile
from pathlib import Path


def words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="of a published table (T1, T9, LETS, ...) or of an experiment in results/claims.toml")
    parser.add_argument("--scale", help="smoke (seconds, no evidence), laptop or paper; default: all that the table has")
    parser.add_argument("--seeds", type=int, help="no more than so many seeds")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="methods, models, noise40, ...: parts of the records' names")
    looks = parser.add_mutually_exclusive_group()
    looks.add_argument("--plan", action="store_true", help="show what would be run and what it would cost, and run nothing")
    looks.add_argument("--export", type=Path, metavar="FOLDER", help="write each run as a file for `bisam train --from`, and run nothing")
    parser.add_argument("--workers", type=int, default=1, help="processes at a time on each device, one thread each on a CPU (default 1)")
    said = "cpu (default) or cuda:0, which the processes share; several, as in cuda:0,cuda:1, take runs in turn"
    parser.add_argument("--device", action="append", help=said)
    parser.add_argument("--root", help="folder of the data sets; default: BISAM_DATA, else data")
    parser.add_argument("--minutes", type=float, help="stop cleanly within about this time; the same command goes on later")
    parser.add_argument("--ledger", metavar="FOLDER", help="record there; a folder without a list of claims gets that of this project")
    parser.add_argument("--checkpoints", metavar="FOLDER", help="of unfinished runs; default: _build/checkpoints, or beside another ledger")
    for name in ("precision", "compile"):
        parser.add_argument(f"--{name}", help="another than planned, in a ledger of its own")
    parser.set_defaults(do=_reproduce)


def _reproduce(arguments: argparse.Namespace) -> int:
    from ..evidence.own_ledger import check_planned
    from ..evidence.plans import plan

    settings = _settings(arguments)
    changes = {name: getattr(arguments, name) for name in ("precision", "compile") if getattr(arguments, name) is not None}
    with contextlib.ExitStack() as stack:
        settings = _with_list(arguments, settings, changes, stack)
        planned = plan(arguments.name, arguments.scale, arguments.seeds, arguments.only, settings.folder)
        check_planned(planned, changes, settings.folder)
        return _done(arguments, planned, settings)


def _settings(arguments: argparse.Namespace):
    from ..evidence.plans import Settings

    device = ",".join(map(str, arguments.device or ["cpu"]))
    return Settings(arguments.workers, device, arguments.root, arguments.minutes, **places(arguments))


def places(arguments: argparse.Namespace) -> dict:
    """The ledger and where its unfinished runs are kept: those of another ledger than ours lie beside it."""
    from .. import _checks
    from ..evidence.plans import Settings

    found = {} if arguments.checkpoints is None else {"checkpoints": arguments.checkpoints}
    folder = _checks.optional("ledger", arguments.ledger, of=_checks.path, words="the path of a folder")
    if folder is not None and folder.resolve() != Settings().folder.resolve():
        found = {"folder": folder, "checkpoints": folder.absolute().with_name(f"{folder.absolute().name}-checkpoints"), **found}
    return found


def _with_list(arguments: argparse.Namespace, settings, changes: dict[str, str], stack: contextlib.ExitStack):
    """The settings with a ledger that has a list of claims; one that is only looked at is made in a folder that goes away."""
    from ..evidence.own_ledger import check_settings, derive
    from ..evidence.plans import Settings, plan

    check_settings(changes)
    if (settings.folder / "claims.toml").exists():
        return settings
    results = Settings().folder
    names = dict.fromkeys(one.experiment for one in plan(arguments.name, arguments.scale, arguments.seeds, arguments.only, results))
    looks_only = arguments.plan or arguments.export is not None
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) if looks_only else settings.folder
    without = derive(folder, changes, list(names), results)
    words = f", without {', '.join(without)}" if without else ""
    if not looks_only:
        print(f"{folder / 'claims.toml'} has the experiments and claims of this project{words}")
    return dataclasses.replace(settings, folder=folder)


def _done(arguments: argparse.Namespace, planned: list, settings) -> int:
    from ..evidence.descriptions import export
    from ..evidence.reproduce import carry_out

    if arguments.export is not None:
        paths = export(planned, arguments.export, settings.folder)
        print(f"{len(paths)} runs written below {arguments.export}; `bisam train --from FILE --output FOLDER` makes one")
        return 0
    _print_price(planned, settings, arguments.plan)
    if arguments.plan:
        print("\n".join(f"  {'recorded' if one.recorded else 'to do':8}  {one.experiment}/{one.file}" for one in planned))
        return 0
    outcomes = carry_out(planned, settings)
    print(f"{len(outcomes['recorded'])} runs recorded")
    for name, word in (("cut", "were cut by the time; the same command goes on with them"), ("elsewhere", "are in the hands of another process")):
        if outcomes[name]:
            print(f"{len(outcomes[name])} runs {word}")
    for line in outcomes["failed"]:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if outcomes["failed"] else 0


def _print_price(planned: list, settings, goes_on: bool) -> None:
    """What there is to do and what it will cost; missing data end the command here unless it only plans."""
    from ..evidence.prices import prices
    from ..training.data import DataError

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


def rerun_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", type=Path, help="a JSON file of results/runs")
    parser.add_argument("--root", help="folder of the data sets; default: BISAM_DATA, else data")
    parser.add_argument("--device", help="another than that of the record")
    parser.set_defaults(do=_rerun)


def _rerun(arguments: argparse.Namespace) -> int:
    from ..evidence.reproduce import rerun

    found = rerun(arguments.record, arguments.root, arguments.device, progress=True)
    for name in ("recorded", "again"):
        print(f"{name:9}" + "  ".join(f"{key} {value:g}" for key, value in found[name].items()))
    print("the same data" if found["same_data"] else "OTHER DATA than those of the record")
    print("the same weights, bit for bit" if found["same_bits"] else "other weights in their last bits or more")
    for sentence in [] if found["same_bits"] else found["why"]:
        print(sentence)
    return 0
