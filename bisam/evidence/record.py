"""One record: its text, the bits of its test images, its run, and how its numbers must fit each other."""

from __future__ import annotations

import base64
import functools
import json
import re
import reprlib
from collections.abc import Iterator

from torch import Tensor

from .. import _checks
from ..axes.recipe import Recipe
from ..training import Run, models, own_code
from ..training.schedules import factor
from .places import LedgerError

__all__ = ["SCHEMA", "bits"]

# 1: the order of the first epoch and the noisy labels came from one permutation. 2: without the bits of the test images, the
# accuracy on the training images and the kind of processor; Q in a form whose last bits differ.
SCHEMA = 3
LARGEST = 2**24  # bytes; the runs of 300 epochs with 50,000 test images stay below a hundredth of it
ROUNDED = 0.5e-5 + 1e-9  # the curve is rounded to 5 digits
WHICH = ("selected", "last")
SPLITS = ("validation", "test")
NO_RUN = "run describes no run of this version"


def packed(right: Tensor) -> str:
    """Bits in the order of the images, eight a byte with the first as the highest, as base64."""
    numpy = _checks.needs("numpy", extra="train")
    return base64.b64encode(numpy.packbits(right.numpy()).tobytes()).decode("ascii")


def bits(record: dict, which: str) -> object:
    """Which of m test images are right: a boolean array of shape (m,), in the order of the test split.

    Args:
        record: of schema 3 or later.
        which: ``"selected"``, at the chosen epoch, or ``"last"``, after the last one.

    Raises:
        LedgerError: the record has no such bits, or they are not of that many images.

    Example:
        >>> bits({"right": {"images": 3, "selected": "oA==", "last": "4A=="}}, "selected").tolist()
        [True, False, True]
    """
    right = record.get("right", {})
    images, text = right.get("images"), right.get(which)
    if images is None or text is None:
        raise LedgerError(f"right.{which} is not in a record of schema {record.get('schema')}: it does not say which images are right")
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, TypeError) as error:
        raise LedgerError(f"right.{which} must be base64: {error}") from None
    if len(raw) != -(-images // 8):
        raise LedgerError(f"right.{which} must hold {-(-images // 8)} bytes for {images} images, got {len(raw)}")
    if base64.b64encode(raw).decode("ascii") != text:
        raise LedgerError(f"right.{which} must be the base64 of its bytes; its last letter holds bits that belong to no byte")
    numpy = _checks.needs("numpy", extra="train")
    found = numpy.unpackbits(numpy.frombuffer(raw, numpy.uint8))
    if found[images:].any():
        raise LedgerError(f"right.{which} must end with zeros after the {images} images")
    return found[:images].astype(bool)


def parsed(text: str) -> object:
    """JSON in its strict sense; a ``ValueError`` for a key that is there twice, NaN, a number beyond all bounds, or depth beyond reason."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number, parse_int=_integer)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return found


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"a number of {len(digits)} digits is beyond all bounds")
    return int(digits)


def done(found: dict) -> int:
    """The epochs that a run has made: fewer than it might where it has ended early."""
    return len(found["curve"]["train_loss"]) if found["run"].get("patience") else found["run"]["epochs"]


def evaluated(found: dict) -> list[int]:
    """The epochs whose values on the other splits are in the record."""
    epochs, every = done(found), found["run"].get("evaluate_every", 1)
    return [*range(every, epochs, every), epochs]


def measured(found: dict) -> list[str]:
    """The metrics of the test split in a record, accuracy first."""
    return [name.removeprefix("test_") for name in found["curve"] if name.startswith("test_")]


def run_of(found: dict) -> Run:
    """The run of a record, on the CPU: the device that it was made on may not be here."""
    return _run_of(json.dumps({**found["run"], "device": "cpu"}))


@functools.lru_cache(maxsize=8192)
def _run_of(text: str) -> Run:
    fields = json.loads(text)
    return Run(**{**fields, "recipe": _recipe_of(json.dumps(fields["recipe"]))})


@functools.lru_cache(maxsize=1024)  # many records share a recipe, and half of the time to read one goes into building it
def _recipe_of(text: str) -> Recipe:
    return Recipe.from_dict(json.loads(text))


def threads(record: dict) -> int:
    """The number of threads that a record was made with, one where it does not say."""
    found = re.search(r"(\d+) of \d+ threads", record["environment"].get("device", ""))
    return record["environment"].get("threads") or int(found[1] if found else 1)


def misfits(found: dict) -> Iterator[str]:
    """What does not fit in a record whose form is right, a line each."""
    wrong = list(_run_misfits(found))
    yield from wrong
    if wrong and wrong[0].startswith(NO_RUN):
        return  # the rest follows from the run
    epochs, curve = done(found), found["curve"]
    looks = {name: len(evaluated(found)) for name in curve if name.startswith(SPLITS)}
    counts = dict.fromkeys(curve, epochs) | looks
    uneven = [name for name, column in curve.items() if len(column) != counts[name]]
    for name in uneven:
        each = "an epoch" if counts[name] == epochs else "an epoch that is evaluated"
        yield f"curve.{name} must hold {counts[name]} numbers, one {each}, got {len(curve[name])}"
    if not uneven:
        yield from _schedule_misfits(found)
        yield from _final_misfits(found)
        if found["schema"] >= 3:
            yield from _right_misfits(found)
    if found["schema"] >= 3:
        yield from _environment_misfits(found)


def _run_misfits(found: dict) -> Iterator[str]:
    try:
        run = run_of(found)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        yield f"{NO_RUN}: {error}"
        return
    if "rho" in found["curve"] and not run.recipe.radius.learns:
        yield "curve.rho must not be there: the radius of this run is not learned"
    if found["schema"] < 3:
        return
    if "rho" not in found["curve"] and run.recipe.radius.learns:
        yield "curve lacks rho, the learned radius"
    again = run.to_dict()
    for name in sorted(set(found["run"]) - set(again)):
        yield f"run.{name} must be left out, as it is at its default"
    for name, value in ((name, value) for name, value in found["run"].items() if name in again):
        here = {key: again[name].get(key) for key in value} if name == "recipe" else again[name]
        if name != "device" and (here != value or type(here) is not type(value)):
            yield f"run.{name} is read as {reprlib.repr(here)}, but says {reprlib.repr(value)}"


def _schedule_misfits(found: dict) -> Iterator[str]:
    """The rate at the first step of each epoch follows from the schedule, and where that goes by steps, from their number."""
    run, steps = found["run"], found["final"].get("steps")
    if (steps is not None) != (run.get("rate_by") == "step"):
        yield f"final.steps {'must be left out' if steps is not None else 'is missing'}: run.rate_by is {run.get('rate_by', 'epoch')}"
        return
    if steps is not None and steps % done(found):
        yield f"final.steps is {steps}, which is no multiple of the {done(found)} epochs"
        return
    each, planned_run = 1 if steps is None else steps // done(found), run_of(found)
    for epoch, value in enumerate(found["curve"]["lr"]):
        planned = run["lr"] * factor(planned_run, each * epoch, each * run["epochs"])
        if not abs(value - planned) <= ROUNDED + 1e-9 * run["lr"]:
            yield f"curve.lr is {value} at epoch {epoch + 1}, but run.lr and run.epochs say {planned:.5f}"
            return


def _final_misfits(found: dict) -> Iterator[str]:
    final, curve, chosen = found["final"], found["curve"], f"validation_{found['run'].get('select', 'accuracy')}"
    if chosen not in curve:
        yield f"curve lacks {chosen}, by which the epoch is chosen"
        return
    best = curve[chosen].index(max(curve[chosen]))
    if (patience := found["run"].get("patience")) is not None:
        yield from _end_misfits(found, len(curve[chosen]) - 1 - best, patience)
    expected = {"selected_epoch": evaluated(found)[best]}
    for name in measured(found):
        expected |= {f"selected_test_{name}": curve[f"test_{name}"][best], f"last_test_{name}": curve[f"test_{name}"][-1]}
    if differing := sorted({name for name in final if "_test_" in name} ^ {name for name in expected if "_test_" in name}):
        yield f"final and curve must hold the same metrics, and one of them lacks {differing[0]}"
        return
    if "broken" in final:
        expected["broken"] = sum(curve["broken"]) / len(curve["broken"])
    if "gap" in final:
        expected["gap"] = final["train_accuracy"] - final["last_test_accuracy"]
    for name, value in expected.items():
        tolerance = 0 if name == "selected_epoch" else 1e-9 * (1 + abs(value)) if name in ("broken", "gap") else ROUNDED
        if not abs(final[name] - value) <= tolerance:
            source = "train_accuracy and last_test_accuracy say" if name == "gap" else "the curve says"
            yield f"final.{name} is {final[name]}, but {source} {value}"


def _end_misfits(found: dict, since: int, patience: int) -> Iterator[str]:
    """Whether a run that may end early has ended where it had to."""
    if since > patience or (since < patience and done(found) < found["run"]["epochs"]):
        yield f"curve has {since} evaluations after the chosen epoch, and run.patience is {patience}"


def _right_misfits(found: dict) -> Iterator[str]:
    final, images = found["final"], found["right"]["images"]
    if found["run"]["test_images"] not in (None, images):
        yield f"right.images is {images}, but run.test_images is {found['run']['test_images']}"
    for which in WHICH:
        try:
            share = 100 * int(bits(found, which).sum()) / images
        except LedgerError as error:
            yield str(error)
            continue
        if abs(share - final[f"{which}_test_accuracy"]) > 1e-9:
            yield f"final.{which}_test_accuracy is {final[f'{which}_test_accuracy']}, but right.{which} says {share}"
    if final["selected_epoch"] == done(found) and found["right"]["selected"] != found["right"]["last"]:
        yield "right.selected and right.last differ, but final.selected_epoch is the last"
    for epoch, value in zip(evaluated(found), found["curve"]["test_accuracy"], strict=True):
        if abs(100 * round(value * images / 100) / images - value) > ROUNDED:
            yield f"curve.test_accuracy is {value} at epoch {epoch}, which is no whole number of {images} images"


def _environment_misfits(found: dict) -> Iterator[str]:
    run, there = found["run"], found["environment"]
    told = {"own": [run[name] for name in ("model", "data") if own_code.is_path(run[name])], "weights": [run["model"]] if models.from_file(run["model"]) else []}
    for part, names in told.items():
        if sorted(there.get(part, {})) != sorted(names):
            yield f"environment.{part} must name {', '.join(names) or 'nothing'}, as run says, got {', '.join(there.get(part, {})) or 'nothing'}"
    if there["precision"] != run["precision"]:
        yield f"environment.precision is {there['precision']}, but run.precision is {run['precision']}"
    on_gpu = run["device"] != "cpu"
    for name in ("driver", "cuda", "cudnn"):
        if on_gpu != (name in there):
            yield f"environment.{name} {'is missing' if on_gpu else 'must not be there'}: run.device is {run['device']}"
    on_cpu = f" CPU, {there['threads']} of {there['cores']} threads"
    if not on_gpu and not there["device"].endswith(on_cpu):
        yield f"environment.device must end in {on_cpu!r}, as cores and threads say, got {there['device']!r}"
