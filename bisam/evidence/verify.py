"""A whole ledger, looked through to its end: the list of claims, every file, and what the records say of each other."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .. import _checks
from .._progress import bar
from ..axes.radius import Constant
from ..methods.table import SGD
from ..training import Run
from ..training.data import DataError
from . import ledger, schema
from .experiment import Experiment
from .listing import listed
from .places import RESULTS, LedgerError, check_there
from .published import TableError
from .record import run_of
from .strays import books, measured_faults, strays, table_faults

__all__ = ["Verified", "verify"]

CHANCE = 3  # epochs whose rounded numbers may agree by chance


@dataclass
class Verified:
    """How many records were read, and how many experiments and claims of the list are sound; ``faults`` has a line for each fault.

    Example:
        >>> str(Verified(records=2, experiments=1, claims=0))
        '2 records, 1 experiment, 0 claims: nothing is wrong'
    """

    records: int = 0
    experiments: int = 0
    claims: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        looked = ", ".join(_count(getattr(self, name), name[:-1]) for name in ("records", "experiments", "claims"))
        return f"{looked}: {_count(len(self.faults), 'fault') if self.faults else 'nothing is wrong'}"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def verify(folder: Path = RESULTS, progress: bool = False) -> Verified:
    """Reads a whole ledger, this one or another's, and says everything that is wrong with it.

    The list of claims must be sound, and a published table beside it. Each record must have the form of its schema, agree with
    itself, lie in the folder of its experiment, and be one of the runs that are planned there. Records of the same data must have
    one fingerprint, and no two that trained differently the same weights. There is nothing else in ``runs``.

    Args:
        folder: the ledger, with ``claims.toml`` and ``runs``.
        progress: show a bar on the terminal.

    Raises:
        LedgerError: there is no such folder. Whatever is wrong inside it is returned.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     str(verify(Path(folder)))
        '0 records, 0 experiments, 0 claims: 1 fault'
    """
    folder = _checks.path("folder", folder, "the path of a folder")
    _checks.flag("progress", progress)
    check_there(folder)
    if not folder.is_dir():
        raise LedgerError(f"{folder} is no folder with a ledger")
    if not schema.forms_are_checked():
        raise LedgerError("folder cannot be verified without the library jsonschema, which compares a record with its schema")
    found, plans = Verified(), {}
    table = table_faults(folder / "published.csv")
    found.faults += [fault.removeprefix(f"{folder}/") for fault in table]
    try:
        claimed = listed(folder)
        plans, found.claims = claimed.entries["experiment"], len(claimed.entries["claim"])
        found.experiments = len(plans)
        found.faults += [f"claims.toml: {fault}" for fault in claimed.faults]
        wrongly_described = claimed.left_out
    except TableError as error:  # that of the project, by which claims are read
        said = table and folder.resolve() == RESULTS.resolve()
        found.faults += [] if said else [f"claims.toml: cannot be read with the table of the project: {error}"]
        wrongly_described = None
    except LedgerError as error:
        found.faults.append(f"claims.toml: {str(error).removeprefix(str(folder / 'claims.toml')).strip()}")
        wrongly_described = None  # nothing can be said of what is planned
    strays(folder, found.faults)
    found.faults += measured_faults(folder)
    files = books(folder, found.faults)
    records: dict[str, dict] = {}
    with bar("", sum(map(len, files.values())), "records", progress) as advance:
        for name, paths in files.items():
            sound = {}
            for path in paths:
                record, wrong = ledger.looked_through(path)
                found.records += 1
                found.faults += [f"{path.relative_to(folder).as_posix()}: {fault}" for fault in wrong]
                if not wrong:
                    sound[path.stem] = record
                advance(note=name)
            if name in plans:
                found.faults += _departures(plans[name], sound)
            elif wrongly_described is not None and name not in wrongly_described:
                found.faults.append(f"runs/{name}: is no experiment of claims.toml")
            records |= {f"runs/{name}/{file}.json": _gist(record) for file, record in sound.items()}
    found.faults += [*_other_data(records), *_same_weights(records), *_same_curves(records)]
    return found


def _departures(plan: Experiment, sound: dict[str, dict]) -> list[str]:
    try:
        return [f"runs/{plan.name}/{file}.json: {wrong}" for file, wrong in ledger.departures(plan, sound)]
    except (ValueError, TypeError, DataError) as error:  # fields that are right one by one, and describe no run together
        return [f"claims.toml: experiment {plan.name}: {error}"]


# -- what records say of each other ------------------------------------------------------------------------------------


def _gist(record: dict) -> dict:
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


def _other_data(records: dict[str, dict]) -> Iterator[str]:
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


def _same_weights(records: dict[str, dict]) -> Iterator[str]:
    """Records that trained differently and yet have the same bits: one of them is a copy."""
    first: dict[str, str] = {}
    for path, gist in records.items():
        other = first.setdefault(gist["digest"], path)
        if gist["training"] != records[other]["training"]:
            here, there = (_leaves(records[one]["training"].to_dict()) for one in (path, other))
            names = [name for name in {**here, **there} if here.get(name) != there.get(name)]
            yield f"{path}: has the weights of {other}, bit for bit, though {', '.join(names)} {'differ' if len(names) > 1 else 'differs'}"


def _same_curves(records: dict[str, dict]) -> Iterator[str]:
    """Records of one experiment that differ in the seed alone and yet agree in every epoch: one of them is a copy."""
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
