"""``bisam notebook``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..notebook import parameters
from ..notebook.find import find, names
from ..notebook.run import run


def words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="of the notebook, or its file; without it, all are listed")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="a parameter")
    parser.add_argument("--scale", help="short for -p scale: smoke (seconds), laptop (minutes), paper (a GPU)")
    said = "executed notebook; default: _build/notebooks/NAME.ipynb, with the parameters in the name and a number where that is there already"
    parser.add_argument("--output", type=Path, help=said)
    parser.add_argument("--force", action="store_true", help="an output that is there is replaced")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="also write the figures there, as SVG and PDF")
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
    print(run(arguments.name, given, arguments.output, replace=arguments.force, figures=arguments.figures))
    return 0
