"""``bisam train``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path

from .. import _checks, training
from .. import _files as files
from ..evidence import descriptions
from ..training import Run
from ..training.choices import BASES
from ..training.environment import made_on_by, threads_held
from ..training.metrics import EventFiles, Log, Table, Tracked, earlier_rows

LISTS = {"tuple[float, ...]": float, "tuple[str, ...]": str}
# What a field is that is left out and has no value of its own.
UNSET = {
    **dict.fromkeys(("train_images", "test_images"), "all by default"),
    **{name: ", ".join(f"{values[name]:g} for {base}" for base, values in BASES.items()) for name in BASES["sgd"]},
    "image_size": "the data's own by default",
    **dict.fromkeys(("clip", "ema", "patience"), "none by default"),
}
SHORT = {"smoothing": "descent.smoothing", "mu": "ascent.mu", "alpha": "ascent.phi.alpha"}  # parts of a recipe with an option of their own


def words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="a run as JSON or TOML, or a record; the options below go before it")
    for field in dataclasses.fields(Run):
        _field_word(parser, field)
    parser.add_argument("--rho", type=float, help="radius, in place of the recipe's")
    for name, path in SHORT.items():
        parser.add_argument(f"--{name}", type=float, help=f"short for --set {path}=...")
    parser.add_argument("--set", dest="settings", action="append", metavar="PART=VALUE", help="of the recipe, such as ascent.mu=2")
    parser.add_argument("--root", help="folder of the data sets; default: BISAM_DATA, else data")
    parser.add_argument("--loaders", type=int, help="processes that decode images, with --loading stream; default: as many as cores, at most 8")
    parser.add_argument("--threads", type=int, help="of the processor; default: those of the file, else torch's choice")
    parser.add_argument("--minutes", type=float, help="stop cleanly within about this time; the same command goes on later")
    parser.add_argument("--tensorboard", action="store_true", help="also write event files, into OUTPUT/tensorboard")
    parser.add_argument("--wandb", metavar="PROJECT", help="also send the rows to a project of Weights & Biases, files in OUTPUT/wandb")
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoint.pt, metrics.csv (a row an epoch) and history.json")
    parser.set_defaults(do=_train)


def _field_word(parser: argparse.ArgumentParser, field: dataclasses.Field) -> None:
    """An option for a field of a run, absent where it is not given: what a file says must stay."""
    word, default = "--" + field.name.replace("_", "-"), "sam" if field.name == "recipe" else field.default
    if field.type == "bool":
        parser.add_argument(word, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS)
        return
    if field.type in LISTS:
        parser.add_argument(word, type=LISTS[field.type], nargs="*", default=argparse.SUPPRESS, help="none by default")
        return
    kind = {"int": int, "int | None": _number_or_none, "float": float, "float | None": _real_or_none}.get(field.type, str)
    parser.add_argument(word, type=kind, default=argparse.SUPPRESS, help=UNSET[field.name] if default is None else f"default {default}")


def _number_or_none(text: str) -> int | None:
    return None if text in ("all", "none") else int(text)


def _real_or_none(text: str) -> float | None:
    return None if text == "none" else float(text)


_number_or_none.__name__, _real_or_none.__name__ = "int", "float"  # argparse names them in its errors


def _train(arguments: argparse.Namespace) -> int:
    wanted, threads = _wanted(arguments)
    with threads_held(threads):
        return _trained(wanted, arguments)


def _trained(wanted: Run, arguments: argparse.Namespace) -> int:
    written, file, first = arguments.output / "history.json", arguments.output / "checkpoint.pt", not int(os.environ.get("RANK", 0))
    logs = _logs(wanted, arguments, written) if first else []  # of several processes the first one reports
    follow = Log(lambda: earlier_rows(file, wanted), logs)
    how = {"progress": True, "minutes": arguments.minutes, "loaders": arguments.loaders}
    history = training.fit(wanted, file, root=arguments.root, on_epoch=follow, **how)
    if not first:
        return 0
    if not history.finished:
        print(f"{len(history.rows)} of {wanted.epochs} epochs done; the same command goes on from {file}")
        return 0
    made_on = made_on_by(wanted, history.seconds, arguments.root)
    summary = {"run": wanted.to_dict(), "rows": history.rows, "skipped": history.skipped, "seconds": history.seconds, "environment": made_on}
    files.write_whole(written, json.dumps(summary, indent=1) + "\n")
    for log in logs:
        log.complete(history.rows)
    print(f"test accuracy {history.selected_test_accuracy:.2f} % at epoch {history.selected_epoch}, chosen by validation")
    print(f"test accuracy {history.last_test_accuracy:.2f} % after the last of {wanted.epochs} epochs")
    print(f"weights {training.weights_digest(history.model)}")
    print(written)
    return 0


def _logs(wanted: Run, arguments: argparse.Namespace, written: Path) -> list:
    """What is written an epoch; whatever cannot be written is said here, before any work."""
    made_on, table = made_on_by(wanted, 0.0, arguments.root), written.with_name("metrics.csv")
    events = [EventFiles(written.with_name("tensorboard"), made_on)] if arguments.tensorboard else []
    if arguments.wandb is not None:
        events.append(Tracked(arguments.wandb, written.with_name("wandb"), {"run": wanted.to_dict(), "environment": made_on}))
    for path in (written, table):
        files.check_writable(path)
    return [Table(table, made_on), *events]


def _wanted(arguments: argparse.Namespace) -> tuple[Run, int | None]:
    """The run that the file and the options describe, the options over the file, and the number of threads."""
    settings = _settings(arguments)
    found = descriptions.Description() if arguments.source is None else descriptions.read(arguments.source)
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Run) if hasattr(arguments, field.name)}
    wanted = found.run(**given)
    if settings:
        wanted = wanted.replace(recipe=descriptions.changed(wanted.recipe, settings))
    if arguments.rho is not None:
        wanted = wanted.replace(recipe=wanted.recipe.with_rho(arguments.rho))
    return wanted, _checks.optional("threads", found.threads if arguments.threads is None else arguments.threads, of=_checks.whole)


def _settings(arguments: argparse.Namespace) -> dict[str, object]:
    """The parts of the recipe that are set, by their dotted names, each once."""
    found = {path: getattr(arguments, name) for name, path in SHORT.items() if getattr(arguments, name) is not None}
    for pair in arguments.settings or ():
        path, equals, text = str(pair).partition("=")
        if not (path and equals):
            raise ValueError(f"set must be PART=VALUE, such as ascent.mu=2; got {_checks.shown(pair)}")
        if path in found or (path == "radius.rho" and arguments.rho is not None):
            raise ValueError(f"{_checks.plain(path)} must be set once")
        found[path] = descriptions.value_of(text)
    return found
