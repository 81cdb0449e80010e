"""What the records of a ledger say of each other: other data under one name, and copies."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator

from ..axes.radius import Constant
from ..methods.table import SGD
from ..training import Run
from .record import run_of

CHANCE = 3  # epochs whose rounded numbers may agree by chance


def gist(record: dict) -> dict:
    """What is compared across experiments."""
    run = run_of(record)
    return {
        "data": (run.data, run.train_images, run.test_images, run.split_seed),
        "fingerprint": record["data_fingerprint"],
        "digest": record["weights_digest"],
        "training": training(run),
        "seed": run.seed,
        "drawn": hashlib.sha256(repr((run.replace(seed=0).to_dict(), sorted(record["curve"].items()))).encode()).digest(),
        "epochs": run.epochs,
    }


def training(run: Run) -> Run:
    """A run without what leaves the weights as they are: two of the same training may have the same bits."""
    recipe = run.recipe.replace(name="")
    if recipe.radius.learns and recipe.radius.rate == 0:
        recipe = recipe.replace(radius=Constant(recipe.radius.rho))
    if recipe.radius == Constant(0.0):
        recipe = SGD.replace(name="", descent=recipe.descent)
    reading = run.noise_reading if run.label_noise else "other"
    return run.replace(
        recipe=recipe, noise_reading=reading, validation_noise=False, test_images=None, channels_last=False, compile="no", per_worker=False,
    )  # fmt: skip


def other_data(records: dict[str, dict]) -> Iterator[str]:
    """Records of the same data whose fingerprint is not that of most of them."""
    groups: dict[tuple, list[str]] = defaultdict(list)
    for path, gist in records.items():
        groups[gist["data"]].append(path)
    for data, paths in groups.items():
        prints = Counter(records[path]["fingerprint"] for path in paths)
        usual = prints.most_common(1)[0][0]
        for path in paths:
            if (own := records[path]["fingerprint"]) != usual:
                yield f"{path}: data_fingerprint is {own}, but {prints[usual]} of {len(paths)} records of {data[0]} have {usual}"


def same_weights(records: dict[str, dict]) -> Iterator[str]:
    """Records that trained differently and yet have the same bits: one of them is a copy."""
    first: dict[str, str] = {}
    for path, gist in records.items():
        other = first.setdefault(gist["digest"], path)
        if gist["training"] != records[other]["training"]:
            here, there = (_leaves(records[one]["training"].to_dict()) for one in (path, other))
            names = [name for name in {**here, **there} if here.get(name) != there.get(name)]
            yield f"{path}: has the weights of {other}, bit for bit, though {', '.join(names)} {'differ' if len(names) > 1 else 'differs'}"


def same_curves(records: dict[str, dict]) -> Iterator[str]:
    """Records of one experiment that differ in the seed alone and yet agree in every epoch: one of them is a copy.

    A few epochs of a small task may agree by chance.
    """
    first: dict[tuple, str] = {}
    for path, gist in records.items():
        if gist["epochs"] <= CHANCE:
            continue
        other = first.setdefault((path.rsplit("/", 1)[0], gist["drawn"]), path)
        if gist["seed"] != records[other]["seed"]:
            yield f"{path}: has the curve of {other} in all {gist['epochs']} epochs, though the seeds differ"


def _leaves(tree: dict, path: str = "") -> dict[str, object]:
    found = {}
    for name, value in tree.items():
        found |= _leaves(value, f"{path}{name}.") if isinstance(value, dict) else {path + name: value}
    return found
