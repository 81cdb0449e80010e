"""``bisam train``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path

from .. import files


def words(parser: argparse.ArgumentParser) -> None:
    from ..train import Run

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
    from ..ledger import environment
    from ..train import Run, fit, weights_digest

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
