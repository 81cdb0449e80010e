"""Experiments as data: what is run, what is claimed about it, and how that will be decided, all written before the runs."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .. import _checks
from ..axes.radius import Learned
from ..axes.recipe import Recipe
from ..evidence import claims as _claims
from ..losses.bounds import Identity
from ..losses.cross_entropy import CrossEntropy
from ..losses.surrogate import Surrogate
from ..methods.table import BISAM_LOG, RECIPES, SAM, SGD
from ..training import Run, equal_budget
from .verdicts import FEWEST

__all__ = [
    "CONTROLS", "RESULTS", "SCALES", "Claim", "Experiment", "Family", "LedgerError", "claims", "experiment", "experiments", "families", "listed",
    "method",
]  # fmt: skip

RESULTS = Path(__file__).resolve().parents[2] / "results"
SCALES = ("smoke", "laptop", "paper")
METRICS = ("selected_test_accuracy", "last_test_accuracy", "selected_test_top5_accuracy", "broken")
BUDGETS = ("passes", "epochs", "same")
MACHINES = ("cpu", "gpu")
FITTED = 90.0  # percent of the labels that can be fitted, which a claim about accuracy needs both methods to have fitted
EQUAL_EPOCHS = "sgd-equal-epochs"  # SGD under a name of its own, whose epochs are never doubled
DATA_AXES = ("data", "train_images", "test_images", "split_seed", "pool")  # what the fingerprint of the data depends on
MOST_SEEDS, MOST_RUNS = 10_000, 100_000  # all runs of an experiment are held in memory

# What lies between SAM and BiSAM (-log) beside the bound: its ascent has no label smoothing, and a temperature. A control
# changes one of the two. And SGD with the epochs of a two-pass method, beside the SGD that has its passes.
CONTROLS = {
    control.name: control
    for control in (
        SAM.replace(name="sam-unsmoothed", ascent=CrossEntropy()),
        BISAM_LOG.replace(name="sam-temperature", ascent=Surrogate(Identity(), mu=BISAM_LOG.ascent.mu)),
        SGD.replace(name=EQUAL_EPOCHS),
    )
}


class LedgerError(RuntimeError):
    """A list of claims or a record that cannot be read, is there already, or does not have the agreed form."""


def method(name: str) -> Recipe:
    """The recipe of that name, a row of the table of methods or one of the controls.

    Args:
        name: one of ``bisam.RECIPES`` or ``CONTROLS``.

    Raises:
        ValueError: an unknown name; the message lists those that exist.

    Example:
        >>> method("sam-unsmoothed").ascent.smoothing, method("sam").ascent
        (0.0, None)
    """
    known = {**RECIPES, **CONTROLS}
    return known[_checks.choice("method", name, tuple(known))]


@dataclass(frozen=True)
class Experiment:
    """A set of runs that belong together: every method at every place of a grid, with every seed.

    With ``budget = "passes"`` every method gets as many epochs as cost the same passes, so that the base optimiser alone gets
    twice those of a two-pass method; with ``"epochs"``, as in the published runs, the base gets twice as many and all others
    the same; with ``"same"`` all get the same. The control ``"sgd-equal-epochs"`` has the epochs of a two-pass method always.

    Args:
        name: what it is called in ``results/claims.toml``.
        title: one line that says what it is.
        scale: ``"smoke"``, ``"laptop"`` or ``"paper"``.
        methods: names of recipes or controls.
        seeds: how many, counted from ``first_seed``.
        epochs: of a two-pass method.
        axes: field of :class:`~bisam.training.Run`, ``"rho"``, or ``"rate"``, to the values that it takes.
        settings: fields of :class:`~bisam.training.Run` that all runs share.
        rho: radius of every method that climbs; ``None`` leaves each its own.
        radius: method to its radius, where it is another.
        rate: of a learned radius; ``None`` leaves each its own.
        label_noise: short for the axis of that name.
        smoothing: label smoothing of the descent loss of all methods; an ascent loss of its own has none.
        convention: of the smoothing, see :class:`~bisam.losses.cross_entropy.CrossEntropy`.
        budget: ``"passes"``, ``"epochs"`` or ``"same"``.
        first_seed: the first of the seeds.
        tables: the published tables that it bears upon.
        stopped: why runs of the plan were left out; empty if nothing was. The plan stays as it was.
        schema: the form of its records, see ``bisam.evidence.ledger.SCHEMA``; older records are kept as experiments of their own.
        machine: on what its runs are made by the queue, ``"cpu"`` or ``"gpu"``; by default those of scale ``"paper"`` need a GPU.
        fingerprint: of the data, see ``bisam.training.data.Task``, so that its first run is not made on others either; empty leaves it to that run.

    Raises:
        TypeError, ValueError: a field that is not as above, or a run that :class:`~bisam.training.Run` refuses.

    Example:
        >>> first = experiment("first_run")
        >>> first.run("sgd", label_noise=0.4, seed=0).epochs, first.run("sam", label_noise=0.4, seed=0).epochs
        (60, 30)
    """

    name: str
    title: str
    scale: str
    methods: tuple[str, ...]
    seeds: int
    epochs: int
    axes: dict = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    rho: float | None = None
    radius: dict = field(default_factory=dict)
    rate: float | None = None
    label_noise: tuple[float, ...] = ()
    smoothing: float = 0.0
    convention: str = "all"
    budget: str = "passes"
    first_seed: int = 0
    tables: tuple[str, ...] = ()
    stopped: str = ""
    schema: int = 3
    machine: str = ""
    fingerprint: str = ""

    def __post_init__(self):
        _checks.choice("scale", self.scale, SCALES)
        object.__setattr__(self, "machine", self.machine or ("gpu" if self.scale == "paper" else "cpu"))
        _checks.choice("machine", self.machine, MACHINES)
        _checks.choice("budget", self.budget, BUDGETS)
        for name in ("seeds", "epochs"):
            _checks.whole(name, getattr(self, name))
        for name in (*self.methods, *self.radius):
            method(name)
        for axis in (*self.axes, *self.settings):
            _checks.choice("axis", axis, _claims.AXES)
        if self.fingerprint and not re.fullmatch("[0-9a-f]{16}", self.fingerprint):
            raise ValueError(f"fingerprint must be 16 hexadecimal digits in experiment {self.name!r}, got {self.fingerprint!r}")
        if self.fingerprint and (moving := [axis for axis in self.axes if axis in DATA_AXES]):
            raise ValueError(f"fingerprint must be left out in experiment {self.name!r}, whose axis {moving[0]!r} has several data")
        if self.seeds > MOST_SEEDS:
            raise ValueError(f"seeds must be at most {MOST_SEEDS} in experiment {self.name!r}, got {self.seeds}")
        if not 0 <= self.first_seed <= 2**63 - self.seeds:
            raise ValueError(f"first_seed must leave the last of {self.seeds} seeds below 2**63 in experiment {self.name!r}, got {self.first_seed}")
        if (count := self.seeds * len(self.methods) * math.prod(map(len, self.grid.values()))) > MOST_RUNS:
            raise ValueError(f"methods, axes and seeds must make at most {MOST_RUNS} runs in experiment {self.name!r}, got {count}")

    @property
    def grid(self) -> dict[str, tuple]:
        """Axis to its values; the axes of one value are part of the settings."""
        noise = {"label_noise": self.label_noise} if self.label_noise else {}
        return {**noise, **{name: tuple(values) for name, values in self.axes.items()}}

    def run(self, name: str, seed: int, epochs: int | None = None, **place) -> Run:
        """One run: a method with a seed at a place of the grid, with the experiment's number of epochs or another."""
        chosen, fields = method(name), {**self.settings, **place}
        if self.smoothing:
            chosen = chosen.replace(descent=CrossEntropy(self.smoothing, self.convention))
        rho = fields.pop("rho", self.radius.get(name, self.rho))
        if rho is not None and chosen.radius.rho:
            chosen = chosen.with_rho(rho)
        rate = fields.pop("rate", self.rate)
        if rate is not None and isinstance(chosen.radius, Learned):
            chosen = chosen.replace(radius=dataclasses.replace(chosen.radius, rate=rate))
        length = fields.pop("epochs", self.epochs)
        return Run(recipe=chosen, epochs=self._epochs(epochs or length, chosen), seed=seed, **fields)

    def _epochs(self, epochs: int, chosen: Recipe) -> int:
        equal = chosen.name != EQUAL_EPOCHS and (self.budget == "passes" or (self.budget == "epochs" and chosen.passes == 1))
        return equal_budget(epochs, chosen) if equal else epochs

    def cells(self) -> dict[str, dict[str, str]]:
        """The words that each record's name is made of, method, place and seed, by that name; seed by seed, so that any part is paired."""
        found = {}
        for seed, values, name in self._grid():
            words = {"method": name, **dict(zip(self.grid, map(label, self.grid, values), strict=True)), "seed": f"seed{seed}"}
            found["-".join(words.values())] = words
        return found

    def places(self) -> dict[str, dict]:
        """Where each record stands in the grid, axis to value, by its name: what a budget makes of the epochs is not a place."""
        values = (dict(zip(self.grid, values, strict=True)) for _, values, _ in self._grid())
        return dict(zip(self.cells(), values, strict=True))

    def runs(self) -> dict[str, Run]:
        """All runs, by the name of their record, in the order of :meth:`cells`."""
        runs = (self.run(name, seed, **dict(zip(self.grid, values, strict=True))) for seed, values, name in self._grid())
        return dict(zip(self.cells(), runs, strict=True))

    def _grid(self) -> list[tuple[int, tuple, str]]:
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        return list(itertools.product(seeds, itertools.product(*self.grid.values()), self.methods))


def label(axis: str, value) -> str:
    """A value in the name of a record: ``noise40``, and for the other axes the value alone, with its axis if it is a number."""
    if axis == "label_noise":
        return f"noise{round(100 * value):02d}"
    text = str(value).replace(":", "_")
    return text if isinstance(value, str) else f"{axis.replace('_', '')}{text}"


@dataclass(frozen=True)
class Claim:
    r"""One falsifiable sentence, with the comparison that decides it: ``ours`` minus ``theirs`` in ``metric``.

    Args:
        id: unique, begins with the experiment or the table.
        experiment: whose runs decide it; empty for a claim that nothing here can decide yet.
        statement: the sentence.
        ours: a method.
        theirs: another.
        metric: what is compared: ``"selected_test_accuracy"``, ``"last_test_accuracy"``, or ``"broken"``, the samples that were
            right at w and wrong at :math:`w + \epsilon`, mean over the epochs. ``"selected_test_top5_accuracy"`` is what a published
            table prints and no record of ours has.
        at: the place of the grid, axis to value.
        against: where ``theirs`` stands at another place, the axes that differ.
        over: axes of the grid to average over, seed by seed; a seed counts once both methods have it at all their values.
        label_noise: short for that axis in ``at``.
        published: where ``results/published.csv`` has the two numbers: columns to values, without the method; empty for a claim of ours.
        published_as: what the published table calls ``ours`` and ``theirs``, where it is not the usual name.
        rule: under which it was written: 1, or 2 since 2026-11-28, see :mod:`bisam.evidence.verdicts`.
        family: of claims that ask one question, see :class:`Family`; empty for a secondary claim, which is judged alone.
        pairs: how many it is judged at, all seeds of its experiment; with fewer it stands as not resolved, so that nobody can stop when he
            likes what he sees.
        fitted: percentage of the labels that can be fitted, which both methods must have fitted at the end; ``None`` means 90 for a
            claim about accuracies and none for others.

    Raises:
        ValueError: an unknown method, metric or rule, an axis in ``over`` that has its place in ``at``, a percentage outside of [0, 100].

    Example:
        >>> claim = claims("first_run")[0]
        >>> claim.ours, claim.theirs, claim.metric
        ('sam', 'sgd', 'last_test_accuracy')
    """

    id: str
    experiment: str
    statement: str
    ours: str
    theirs: str
    metric: str
    at: dict = field(default_factory=dict)
    against: dict = field(default_factory=dict)
    over: tuple[str, ...] = ()
    label_noise: float | None = None
    published: dict = field(default_factory=dict)
    published_as: dict = field(default_factory=dict)
    rule: int = 1
    family: str = ""
    pairs: int = 0
    fitted: float | None = None

    def __post_init__(self):
        for name in ("ours", "theirs"):
            _checks.choice(name, getattr(self, name), (*RECIPES, *CONTROLS))
        _checks.choice("metric", self.metric, METRICS)
        if _checks.whole("rule", self.rule) not in FEWEST:
            raise ValueError(f"rule must be one of {', '.join(map(str, FEWEST))}; got {self.rule} in claim {self.id}")
        _checks.whole("pairs", self.pairs, least=0)
        if self.fitted is not None and not 0 <= _checks.real("fitted", self.fitted) <= 100:
            raise ValueError(f"fitted must be a percentage in [0, 100], got {self.fitted} in claim {self.id}")
        for side in self.published_as:
            _checks.choice("published_as", side, ("ours", "theirs"))
        object.__setattr__(self, "over", tuple(self.over))
        for axis in self.over:
            if axis in self.other_place:
                raise ValueError(f"over must name axes that have no place in claim {self.id}, got {axis!r}")

    @property
    def place(self) -> dict:
        """Where ours stands, axis to value, the noise included."""
        return {**({} if self.label_noise is None else {"label_noise": self.label_noise}), **self.at}

    @property
    def other_place(self) -> dict:
        """Where theirs stands."""
        return {**self.place, **self.against}

    @property
    def needed(self) -> float:
        """Percentage of the labels that can be fitted, which both methods must have fitted; 0 without a precondition."""
        if self.fitted is not None:
            return self.fitted
        return 0.0 if self.metric == "broken" else FITTED

    @property
    def fewest(self) -> int:
        """Pairs that it needs under the rule that it was written under, or more where it says so."""
        return max(FEWEST[self.rule], self.pairs)


@dataclass(frozen=True)
class Family:
    """Claims that ask one question, within which false discoveries are controlled.

    Args:
        name: what claims call it.
        title: the question.
        why: what belongs to it, and why together.

    Example:
        >>> families()["sam-over-sgd"].title
        'Is SAM more accurate than SGD at a small scale?'
    """

    name: str
    title: str
    why: str


@functools.lru_cache(maxsize=16)
def _listed(text: str) -> _claims.Listed:
    return _claims.listed(tomllib.loads(text), {"family": Family, "experiment": Experiment}, Claim, _rule_faults)


def listed(folder: Path = RESULTS) -> _claims.Listed:
    """What ``claims.toml`` holds, with everything that is wrong in it.

    Args:
        folder: the ledger.

    Returns:
        ``entries``, the tables of families and experiments by name and the list of claims, without those that are wrong; and
        ``faults``, a line each.

    Raises:
        LedgerError: the file cannot be read, or is no TOML.

    Example:
        >>> listed().faults
        []
    """
    path = _checks.path("folder", folder, "the path of a folder") / "claims.toml"
    try:
        return _listed(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LedgerError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, or numbers and depths beyond reason
        raise LedgerError(f"{path} cannot be read: {error}") from None


def _entries(folder: Path, table: str) -> dict | list:
    """The entries of a list in which nothing is wrong."""
    found = listed(folder)
    if found.faults:
        more = f" (and {len(found.faults) - 1} more; `bisam verify` lists all)" if len(found.faults) > 1 else ""
        raise LedgerError(f"{folder / 'claims.toml'}: {found.faults[0]}{more}")
    return found.entries[table].copy()


def experiments(folder: Path = RESULTS) -> dict[str, Experiment]:
    """All experiments of ``claims.toml``, by name.

    Args:
        folder: the ledger.

    Example:
        >>> experiments()["first_run"].seeds
        10
    """
    return _entries(folder, "experiment")


def experiment(name: str, folder: Path = RESULTS) -> Experiment:
    """The named experiment.

    Args:
        name: one of :func:`experiments`.
        folder: the ledger.

    Raises:
        ValueError: an unknown name; the message lists those that exist.

    Example:
        >>> experiment("first_run").methods[0]
        'sgd'
    """
    known = experiments(folder)
    return known[_checks.choice("experiment", name, tuple(known))]


def claims(name: str | None = None, folder: Path = RESULTS) -> list[Claim]:
    """The claims that the named experiment decides, or all.

    Args:
        name: of the experiment.
        folder: the ledger.

    Example:
        >>> {claim.experiment for claim in claims("first_run")}
        {'first_run'}
    """
    if name is not None:
        experiment(name, folder)
    return [claim for claim in _entries(folder, "claim") if name in (None, claim.experiment)]


def families(folder: Path = RESULTS) -> dict[str, Family]:
    """The families of claims in ``claims.toml``, by name.

    Args:
        folder: the ledger.

    Example:
        >>> "bisam-over-sam" in families()
        True
    """
    return _entries(folder, "family")


def _rule_faults(claim: Claim, plan: Experiment | None, known: dict[str, Family]) -> Iterator[str]:
    """A family that is not named, and a claim of rule 2 whose experiment plans too little for it."""
    if claim.family and claim.family not in known:
        yield f"family must be one of {', '.join(known) or 'none'}; got {claim.family!r}"
    if claim.pairs and plan is not None and claim.pairs != plan.seeds:
        yield f"pairs must be all {plan.seeds} seeds of {plan.name}, or be left out; got {claim.pairs}"
    if claim.rule < 2 or plan is None:
        return
    if plan.seeds < FEWEST[claim.rule]:
        yield f"rule {claim.rule} needs {FEWEST[claim.rule]} seeds, {plan.name} plans {plan.seeds}"
    one_pass = {method(name).passes == 1 for name in (claim.ours, claim.theirs)}
    if len(one_pass) == 2 and (plan.budget == "same" or not {"sgd", EQUAL_EPOCHS} <= set(plan.methods)):
        yield (
            f"rule {claim.rule} compares a method of one pass with one of more at equal passes and at equal epochs; "
            f"{plan.name} must have both sgd and {EQUAL_EPOCHS}, and a budget that is not 'same'"
        )
