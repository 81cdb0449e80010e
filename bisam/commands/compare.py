"""``bisam compare``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..notebook.compare import compare


def words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("one", type=Path, metavar="RUN", help="an executed notebook: a rerun, a run of a sweep, or a page of the book")
    parser.add_argument("other", type=Path, metavar="RUN", help="another")
    parser.set_defaults(do=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    print(compare(arguments.one, arguments.other))
    return 0
