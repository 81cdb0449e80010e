"""The ``bisam`` command."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import json
import os
import signal
import sys
from pathlib import Path

from . import __version__, files, parameters
from .notebook import NotebookError, find, names, run
from .processes import stoppable
from .recipe import RECIPES


def main(words: list[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 done, 1 it failed on the way, 2 it was asked wrongly, 128 + n signal n stopped it."""
    try:
        with stoppable():
            return _status(words)
    except KeyboardInterrupt as stop:
        return _fail("stopped; what was finished is kept, and the same command goes on where it can", 128 + getattr(stop, "number", signal.SIGINT))
    except BrokenPipeError:  # nobody reads on, as after `| head`
        _drop_output()
        return 128 + signal.SIGPIPE


def _status(words: list[str] | None) -> int:
    from .checkpoint import CheckpointError
    from .data import DataError
    from .ledger import LedgerError

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a path may hold bytes that are no text
    arguments = _parser().parse_args(words)
    try:
        status = arguments.do(arguments)
        sys.stdout.flush()  # here, where an error can still be said
        return status
    except BrokenPipeError:
        raise
    except (ValueError, TypeError) as error:  # ParameterError is a ValueError
        return _fail(error, 2)
    except (NotebookError, CheckpointError, DataError, LedgerError, FloatingPointError) as error:
        return _fail(error, 1)
    except OSError as error:
        return _fail(_words(error), 1)


def _words(error: OSError) -> str:
    """What went wrong with which file; only printed text and what libraries put aside have none."""
    if error.filename:
        return f"{error.filename}: {error.strerror}"
    if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO):
        return str(error)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    _drop_output()
    return f"standard output or a temporary file: {error.strerror}"


def _drop_output() -> None:
    """What is left to print goes nowhere; Python would try once more at its end, and complain."""
    with contextlib.suppress(OSError, ValueError):  # a stream that is no file has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: object, status: int) -> int:
    print(f"bisam: {_printable(message)}", file=sys.stderr)
    return status


def _printable(message: object) -> str:
    """A message without the characters that steer a terminal, which may have been typed as a name."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in str(message))


class _Parser(argparse.ArgumentParser):
    """Its errors are short whatever was typed, and an option that gets ``--`` has got nothing."""

    def error(self, message: str):
        said = _printable(message)
        super().error(said if len(said) <= 1000 else f"{said[:500]} ... {said[-300:]}")

    def parse_known_args(self, args=None, namespace=None):
        found, rest = super().parse_known_args(args, namespace)
        for name, value in vars(found).items():
            if value == [] and isinstance(self.get_default(name), (str, Path, type(None))) and name not in ("only", "p"):
                self.error(f"argument --{name.replace('_', '-')}: expected one argument")
        return found, rest


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="bisam", description="Sharpness-aware training: run, train, record.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _notebook_words(commands.add_parser("notebook", help="run a notebook of the book with your parameters"))
    _train_words(commands.add_parser("train", help="train one network and keep its checkpoint"))
    _reproduce_words(commands.add_parser("reproduce", help="run what is missing of a published table and record it"))
    _record_words(commands.add_parser("record", help="run what is missing of an experiment and record it"))
    _evidence_words(commands.add_parser("evidence", help="work through all missing runs, most valuable first, and record them"))
    _rerun_words(commands.add_parser("rerun", help="train again what a record describes, and compare"))
    _report_words(commands.add_parser("report", help="the state of every claim, computed from the records"))
    _verify_words(commands.add_parser("verify", help="look through a whole ledger and list everything that is wrong"))
    commands.add_parser("methods", help="list the methods and their settings").set_defaults(do=_methods)
    return parser


# -- notebook ---------------------------------------------------------------------------------------------------------


def _notebook_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="of the notebook; without it, all are listed")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="a parameter")
    parser.add_argument("--scale", help="short for -p scale: smoke (seconds), laptop (minutes), paper (a GPU)")
    parser.add_argument("--output", type=Path, help="executed notebook; default _build/notebooks/NAME.ipynb")
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
    print(run(arguments.name, given, arguments.output))
    return 0


# -- train ------------------------------------------------------------------------------------------------------------


def _train_words(parser: argparse.ArgumentParser) -> None:
    from .train import Run

    for field in dataclasses.fields(Run):
        word = "--" + field.name.replace("_", "-")
        if field.type == "bool":
            parser.add_argument(word, action="store_true")
            continue
        kind = {"int": int, "int | None": int, "float": float}.get(field.type, str)
        default = "sam" if field.name == "recipe" else field.default
        parser.add_argument(word, type=kind, default=default, help="all by default" if default is None else f"default {default}")
    parser.add_argument("--rho", type=float, help="radius, in place of the recipe's")
    parser.add_argument("--root", help="folder of the data sets; default: BISAM_DATA, else data")
    parser.add_argument("--minutes", type=float, help="stop cleanly within about this time; the same command goes on later")
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoint.pt and history.json")
    parser.set_defaults(do=_train)


def _train(arguments: argparse.Namespace) -> int:
    from .ledger import environment
    from .train import Run, fit, weights_digest

    written = arguments.output / "history.json"
    wanted = Run(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Run)})
    if arguments.rho is not None:
        wanted = wanted.replace(recipe=wanted.recipe.with_rho(arguments.rho))
    if not int(os.environ.get("RANK", 0)):  # of several processes the first one reports
        files.check_writable(written)
    history = fit(
        wanted, arguments.output / "checkpoint.pt", root=arguments.root, progress=True, minutes=arguments.minutes
    )
    if int(os.environ.get("RANK", 0)):
        return 0
    if not history.finished:
        print(f"{len(history.rows)} of {wanted.epochs} epochs done; the same command goes on from {arguments.output / 'checkpoint.pt'}")
        return 0
    summary = {
        "run": wanted.to_dict(), "rows": history.rows, "skipped": history.skipped, "seconds": history.seconds,
        "environment": environment(wanted.device, history.seconds, wanted.precision),
    }
    files.write_whole(written, json.dumps(summary, indent=1) + "\n")
    print(f"test accuracy {history.selected_test_accuracy:.2f} % at epoch {history.selected_epoch}, chosen by validation")
    print(f"test accuracy {history.last_test_accuracy:.2f} % after the last of {wanted.epochs} epochs")
    print(f"weights {weights_digest(history.model)}")
    print(written)
    return 0


# -- reproduce, record, rerun, report ----------------------------------------------------------------------------------


def _reproduce_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="of a published table (T1, T9, LETS, ...) or of an experiment in results/claims.toml")
    parser.add_argument("--scale", help="smoke (seconds, no evidence), laptop or paper; default: all that the table has")
    parser.add_argument("--seeds", type=int, help="no more than so many seeds")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="methods, models, noise40, ...: parts of the records' names")
    parser.add_argument("--plan", action="store_true", help="show what would be run and what it would cost, and run nothing")
    _carrying_words(parser)
    parser.set_defaults(do=_reproduce)


def _record_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="of an experiment in results/claims.toml")
    _carrying_words(parser)
    parser.set_defaults(do=_reproduce, scale=None, seeds=None, only=[], plan=False)


def _carrying_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, default=1, help="processes at a time, one thread each on a CPU (default 1)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda:0, which the processes share")
    parser.add_argument("--root", help="folder of the data sets; default: BISAM_DATA, else data")
    parser.add_argument("--minutes", type=float, help="stop cleanly within about this time; the same command goes on later")


def _reproduce(arguments: argparse.Namespace) -> int:
    from .reproduce import Settings, carry_out, plan

    settings = Settings(arguments.workers, arguments.device, arguments.root, arguments.minutes)
    planned = plan(arguments.name, arguments.scale, arguments.seeds, arguments.only)
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
    from .data import DataError
    from .reproduce import prices

    found = prices(planned, settings)
    known = {place: price for place, price in found.items() if not isinstance(price, DataError)}
    for name in dict.fromkeys(one.experiment for one in planned):
        mine = [one for one in planned if one.experiment == name]
        passes = sum(one.passes for one in mine if not one.recorded)
        own = [price for place, price in known.items() if place[0] == name]
        price = f", about {sum(own):.2g} hours of one process" if own else ""
        print(f"{name}: {sum(one.recorded for one in mine)} of {len(mine)} runs recorded, {passes:,.0f} passes over the images to go{price}")
    if known:
        words = f"hours with {settings.workers} processes on {settings.device}, from a few timed steps of each network"
        print(f"about {sum(known.values()) / settings.workers:.2g} {words}{', without what follows' if len(known) < len(found) else ''}")
    missing = {data: error for (_, data), error in found.items() if isinstance(error, DataError)}
    for data, error in missing.items():
        if not goes_on:
            raise error
        print(f"how long the runs on {data} take cannot be said: {error}")


def _evidence_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, help="stop cleanly within about this time; the same command goes on later")
    parser.add_argument("--cores", type=int, default=1, help="processes at a time, one thread each (default 1)")
    parser.add_argument("--root", help="folder of the data sets; default: BISAM_DATA, else data")
    parser.add_argument("--ledger", type=Path, help="folder with claims.toml and runs; default: results of this project")
    parser.add_argument("--checkpoints", type=Path, help="folder of runs that were cut; default: _build/checkpoints of this project")
    parser.add_argument("--plan", action="store_true", help="show the queue and what it would cost, and run nothing")
    parser.set_defaults(do=_evidence)


def _evidence(arguments: argparse.Namespace) -> int:
    from .decisions import decisions
    from .queue import RULE, changes, queue
    from .reproduce import Settings, carry_out

    places = {name: value for name, value in (("folder", arguments.ledger), ("checkpoints", arguments.checkpoints)) if value is not None}
    settings = Settings(arguments.cores, "cpu", arguments.root, arguments.minutes, **places)
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
    outcomes = carry_out([job.planned for job in jobs], settings)
    for line in changes(before, decisions(folder=settings.folder)):
        print(line)
    print(f"{len(outcomes['recorded'])} runs recorded, {len(outcomes['cut'])} to go; the same command goes on with them")
    for line in outcomes["failed"]:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if outcomes["failed"] else 0


def _rerun_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", type=Path, help="a JSON file of results/runs")
    parser.add_argument("--root", help="folder of the data sets; default: BISAM_DATA, else data")
    parser.add_argument("--device", help="another than that of the record")
    parser.set_defaults(do=_rerun)


def _rerun(arguments: argparse.Namespace) -> int:
    from .reproduce import rerun

    found = rerun(arguments.record, arguments.root, arguments.device, progress=True)
    for name in ("recorded", "again"):
        print(f"{name:9}" + "  ".join(f"{key} {value:g}" for key, value in found[name].items()))
    print("the same data" if found["same_data"] else "OTHER DATA than those of the record")
    print("the same weights, bit for bit" if found["same_bits"] else "other weights in their last bits or more")
    for sentence in [] if found["same_bits"] else found["why"]:
        print(sentence)
    return 0


def _report_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", nargs="?", help="only the claims of this one")
    parser.add_argument("--output", type=Path, help="also write it: .md, .json or .csv")
    parser.set_defaults(do=_report)


def _report(arguments: argparse.Namespace) -> int:
    from .report import decisions, markdown, write

    found = decisions(arguments.experiment)
    if arguments.output:
        write(found, arguments.output)
    print(markdown(found))
    return 0


def _verify_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, help="with claims.toml and runs; default: results of this project")
    parser.set_defaults(do=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    from .experiments import RESULTS
    from .verify import verify

    found = verify(arguments.folder or RESULTS, progress=True)
    for fault in found.faults:
        print(fault)
    print(found)
    return 1 if found.faults else 0


# -- methods ----------------------------------------------------------------------------------------------------------


def _methods(arguments: argparse.Namespace) -> int:
    width = max(map(len, RECIPES))
    print(f"{'recipe':{width}}  passes  choices beside the base optimiser")
    for row in RECIPES.values():
        choices = ", ".join(f"{axis} {choice}" for axis, choice in row.choices.items())
        print(f"{row.name:{width}}  {row.passes:6.2f}  {choices or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
