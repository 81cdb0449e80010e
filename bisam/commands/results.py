"""``bisam report``, ``verify``, ``pool`` and ``methods``."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import _checks
from ..evidence import report
from ..evidence.decisions import decisions
from ..evidence.places import RESULTS
from ..evidence.pooling import pool
from ..evidence.verify import verify
from ..methods.table import RECIPES
from ..notebook.lines import table
from .reproduce import print_changes


def words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", nargs="?", help="only the claims of this one")
    parser.add_argument("--ledger", type=Path, metavar="FOLDER", help="with claims.toml and runs; default: results of this project")
    parser.add_argument("--output", type=Path, help="also write it: .md, .json or .csv")
    parser.set_defaults(do=_report)


def _report(arguments: argparse.Namespace) -> int:
    if arguments.output:
        _checks.choice("output", arguments.output.suffix, report.FORMATS)  # before the work
    found = decisions(arguments.experiment, arguments.ledger or RESULTS)
    if arguments.output:
        report.write(found, arguments.output)
    print(report.markdown(found))
    return 0


def verify_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, help="with claims.toml and runs; default: results of this project")
    parser.set_defaults(do=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    found = verify(arguments.folder or RESULTS, progress=True)
    for fault in found.faults:
        print(fault)
    print(found)
    return 1 if found.faults else 0


def pool_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="the other ledger, a folder with runs in it")
    parser.add_argument("--ledger", type=Path, metavar="FOLDER", help="that takes the records in; default: results of this project")
    parser.set_defaults(do=_pool)


def _pool(arguments: argparse.Namespace) -> int:
    folder = arguments.ledger or RESULTS
    before = decisions(folder=folder)
    found = pool(arguments.source, folder)
    for line in found.refused:
        print("refused: " + "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in line))  # names of files may hold anything
    print(found)
    print_changes(before, folder)
    return 1 if found.refused else 0


def methods_words(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(do=_methods)


def _methods(arguments: argparse.Namespace) -> int:
    rows = []
    for row in RECIPES.values():
        choices = ", ".join(f"{axis} {choice}" for axis, choice in row.choices.items())
        rows.append((row.name, f"{row.passes:.2f}", choices or "none"))
    print(table(("recipe", "passes", "choices beside the base optimiser"), rows, ("<", "  >", "  <")))
    return 0
