"""The ``bisam`` command."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import sys
from pathlib import Path

from . import __version__
from .commands import cluster, compare, notebook, reproduce, results, train
from .evidence.places import LedgerError
from .evidence.slurm import ClusterError
from .notebook.find import NotebookError
from .training.checkpoint import CheckpointError
from .training.data import DataError
from .training.processes import stoppable
from .training.workers import check_alone


def main(words: list[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 done, 1 it failed on the way, 2 it was asked wrongly, 128 + n signal n stopped it."""
    try:
        with stoppable():
            return _status(words)
    except KeyboardInterrupt as stop:
        said = "; ".join(getattr(stop, "__notes__", [])) or "what was finished is kept, and the same command goes on where it can"
        return _fail(f"stopped; {said}", 128 + getattr(stop, "number", signal.SIGINT))
    except BrokenPipeError:  # nobody reads on, as after `| head`
        _drop_output()
        return 128 + signal.SIGPIPE


def _status(words: list[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a path may hold bytes that are no text
    given = sys.argv[1:] if words is None else words
    if given[:1] == ["record"]:
        return _fail("record is now `bisam reproduce NAME`, which takes the same options", 2)
    arguments = _parser().parse_args(given)
    try:
        if arguments.command not in SHARED:
            check_alone(arguments.command)
        _look_here()
        status = arguments.do(arguments)
        sys.stdout.flush()  # here, where an error can still be said
        return status
    except BrokenPipeError:
        raise
    except (ValueError, TypeError) as error:  # ParameterError is a ValueError
        return _fail(error, 2)
    except (NotebookError, CheckpointError, ClusterError, DataError, LedgerError, FloatingPointError, ModuleNotFoundError) as error:
        return _fail(error, 1)
    except OSError as error:
        return _fail(_words(error), 1)


def _look_here() -> None:
    """Modules of one's own are found in the folder where the command is given, after all others; workers look there too."""
    with contextlib.suppress(OSError):  # a folder that is gone
        if (here := os.getcwd()) not in sys.path:
            sys.path.append(here)


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


COMMANDS = {
    "notebook": (notebook.words, "run a notebook of the book with your parameters"),
    "compare": (compare.words, "show what differs between two executed notebooks"),
    "train": (train.words, "train one network and keep its checkpoint"),
    "reproduce": (reproduce.words, "run what is missing of a published table or an experiment and record it"),
    "evidence": (reproduce.evidence_words, "work through all missing runs, most valuable first, and record them"),
    "rerun": (reproduce.rerun_words, "train again what a record describes, and compare"),
    "cluster": (cluster.words, "show or cancel the jobs that `reproduce --cluster` has submitted"),
    "report": (results.words, "the state of every claim, computed from the records"),
    "verify": (results.verify_words, "look through a whole ledger and list everything that is wrong"),
    "pool": (results.pool_words, "take in the records of another ledger, and compare the runs that both have"),
    "methods": (results.methods_words, "list the methods and their settings"),
}
SHARED = ("train",)  # commands that several processes of torchrun do together


class _Parser(argparse.ArgumentParser):
    """Its errors are short whatever was typed, and an option that gets ``--`` has got nothing."""

    def error(self, message: str):
        said = _printable(message)
        super().error(said if len(said) <= 1000 else f"{said[:500]} ... {said[-300:]}")

    def parse_known_args(self, args=None, namespace=None):
        found, rest = super().parse_known_args(args, namespace)
        for name, value in vars(found).items():
            if value == [] and isinstance(self.get_default(name), (str, Path, type(None))) and name not in ("only", "p", "sweep"):
                self.error(f"argument --{name.replace('_', '-')}: expected one argument")
        return found, rest


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="bisam", description="Sharpness-aware training: run, train, record.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, (words, said) in COMMANDS.items():
        words(commands.add_parser(name, help=said))
    return parser


if __name__ == "__main__":
    sys.exit(main())
