"""A whole ledger, looked through to its end: the list of claims, every file, and what the records say of each other."""

from __future__ import annotations

import contextlib
import hashlib
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .. import _checks
from .. import _files as files
from ..axes.radius import Constant, Learned
from ..evidence import ledger
from ..evidence import record as _record
from ..methods.table import SGD
from ..training import Run
from ..training.data import DataError
from .experiments import RESULTS, Experiment, LedgerError, listed
from .published import TableError, read_rows

__all__ = ["Verified", "verify"]

BESIDE = ("claims.toml", "published.csv", "benchmarks.json", "runs")  # what a ledger holds; and a text that says what it is
CHANCE = 3  # epochs whose rounded numbers may agree by chance
LEFT = (".part", ".probe", ".tmp", ".lock", "~", ".swp")  # endings of what writers and editors leave behind


@dataclass
class Verified:
    """What was looked at, and everything that is wrong.

    Args:
        records: how many files were read.
        experiments: how many of the list are sound.
        claims: how many of the list are sound.
        faults: a line each: the path within the ledger, a colon, what is wrong.

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

    The list of claims must be sound, and so must a published table that lies beside it. Each record must have the form of its
    schema and agree with itself, lie in the folder of its experiment, and be one of the runs that are planned there. Records of the
    same data must have one fingerprint, and no two that trained differently the same weights. There is nothing else in ``runs``.

    Args:
        folder: the ledger, with ``claims.toml`` and ``runs``.
        progress: show a bar on the terminal.

    Raises:
        LedgerError: there is no such folder. Whatever is wrong inside it is returned.

    Example:
        >>> verify(RESULTS).faults
        []
    """
    folder = _checks.path("folder", folder, "the path of a folder")
    _checks.flag("progress", progress)
    if not folder.is_dir():
        raise LedgerError(f"{folder} is no folder with a ledger")
    if not _record.forms_are_checked():
        raise LedgerError("folder cannot be verified without the library jsonschema, which compares a record with its schema")
    found, plans = Verified(), {}
    table = _table_faults(folder / "published.csv")
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
    found.faults += _strays(folder)
    books = _books(folder, found)
    records: dict[str, dict] = {}
    with _bar(sum(map(len, books.values())), progress) as advance:
        for name, paths in books.items():
            sound = {}
            for path in paths:
                if (record := _read(folder, path, found)) is not None:
                    sound[path.stem] = record
                advance(name)
            if name in plans:
                found.faults += _departures(plans[name], sound)
            elif wrongly_described is not None and name not in wrongly_described:
                found.faults.append(f"runs/{name}: is no experiment of claims.toml")
            records |= {f"runs/{name}/{file}.json": _gist(record) for file, record in sound.items()}
    found.faults += [*_other_data(records), *_same_weights(records), *_same_curves(records)]
    return found


# -- files ------------------------------------------------------------------------------------------------------------


def _table_faults(path: Path) -> list[str]:
    """What is wrong with the ledger's own published table; it need not have one."""
    try:
        if _kind(path) == "link":
            return [f"{path}: {_what(path)}"]
        read_rows(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"{path}: cannot be read: {error.strerror}"]
    except TableError as error:
        return [str(error)]
    return []


def _strays(folder: Path) -> Iterator[str]:
    """What lies beside the list and the records, and does not belong there."""
    inside, fault = _inside(folder)
    if fault:
        yield f"the ledger {fault}"
    for path in inside:
        if path.name not in BESIDE and not path.name.startswith("README"):
            yield f"{_shown(path.name)}: {_what(path)}"


def _books(folder: Path, found: Verified) -> dict[str, list[Path]]:
    """The files of records by the name of their folder; everything else is noted."""
    books: dict[str, list[Path]] = {}
    homes, fault = _inside(folder / "runs")
    found.faults += [f"runs: {fault}"] if fault else []
    for home in homes:
        place = f"runs/{_shown(home.name)}"
        if fault := _place_fault(home, "folder") or _name_fault(home.name):
            found.faults.append(f"{place}: {fault}")
            continue
        books[home.name] = []
        inside, fault = _inside(home)
        if fault:
            found.faults.append(f"{place}: {fault}")
            continue
        for path in inside:
            fault = _place_fault(path, "file") or (_what(path) if path.suffix != ".json" else _name_fault(path.stem))
            if fault:
                found.faults.append(f"{place}/{_shown(path.name)}: {fault}")
            else:
                books[home.name].append(path)
        if not inside:
            found.faults.append(f"{place}: holds no record")
    return books


def _inside(folder: Path) -> tuple[list[Path], str | None]:
    """What a folder holds, and why that cannot be said; a folder that is not there holds nothing."""
    try:
        return sorted(folder.iterdir()), None
    except FileNotFoundError:
        return [], None
    except NotADirectoryError:
        return [], "is no folder"
    except OSError as error:
        return [], f"cannot be read: {error.strerror}"


def _kind(path: Path) -> str:
    mode = path.lstat().st_mode
    return "link" if stat.S_ISLNK(mode) else "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def _place_fault(path: Path, kind: str) -> str | None:
    """Why nothing of that kind is at a place: it is another thing, or nobody may look."""
    try:
        return None if _kind(path) == kind else _what(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _what(path: Path) -> str:
    """What a thing is that has no place in a ledger."""
    try:
        kind = _kind(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if kind == "link":
        return "is a link; a ledger holds files"
    if path.name.endswith(LEFT):
        return "was left behind by a writer that did not end well, or is still at work"
    if kind == "folder":
        return "is a folder where none belongs"
    return "is no file of a ledger"


def _name_fault(name: str) -> str | None:
    try:
        files.safe_name("the name", name)
    except ValueError as error:
        return str(error)
    return None


def _shown(name: str) -> str:
    return name if name.isprintable() else repr(name)


def _read(folder: Path, path: Path, found: Verified) -> dict | None:
    """A sound record, or ``None`` with what is wrong noted."""
    found.records += 1
    reading = ledger.Reading(path)
    found.faults += [f"{path.relative_to(folder).as_posix()}: {fault}" for fault in reading.faults]
    return None if reading.faults else reading.record


def _departures(plan: Experiment, sound: dict[str, dict]) -> list[str]:
    try:
        return [f"runs/{plan.name}/{file}.json: {wrong}" for file, wrong in ledger.departures(plan, sound)]
    except (ValueError, TypeError, DataError) as error:  # fields that are right one by one, and describe no run together
        return [f"claims.toml: experiment {plan.name}: {error}"]


# -- what records say of each other -----------------------------------------------------------------------------------


def _gist(record: dict) -> dict:
    """What is compared across experiments."""
    run = _record.run_of(record)
    return {
        "data": (run.data, run.train_images, run.test_images, run.split_seed),
        "fingerprint": record["data_fingerprint"],
        "digest": record["weights_digest"],
        "training": _training(run),
        "seed": run.seed,
        "drawn": hashlib.sha256(repr((run.replace(seed=0).to_dict(), sorted(record["curve"].items()))).encode()).digest(),
        "epochs": run.epochs,
    }


def _training(run: Run) -> Run:
    """A run without what leaves the weights as they are: two of the same training may have the same bits."""
    recipe = run.recipe.replace(name="")
    if isinstance(recipe.radius, Learned) and recipe.radius.rate == 0:
        recipe = recipe.replace(radius=Constant(recipe.radius.rho))
    if isinstance(recipe.radius, Constant) and recipe.radius.rho == 0:
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


@contextlib.contextmanager
def _bar(total: int, show: bool) -> Iterator[Callable[[str], None]]:
    if not show:
        yield lambda note: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("records"), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=total, note="")
        yield lambda note: bar.update(task, advance=1, note=note)
