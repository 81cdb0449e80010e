"""An experiment as data: what is run, written before the runs."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from dataclasses import dataclass, field

from .. import _checks
from ..axes.direction import RandomDirection
from ..axes.recipe import Recipe
from ..axes.schedules import Phase
from ..losses.bounds import Identity, Tanh
from ..losses.cross_entropy import CrossEntropy
from ..losses.surrogate import Surrogate
from ..methods.table import BISAM_LOG, RECIPES, SAM, SGD, is_recipe, recipe
from ..training import Run, equal_budget

__all__ = ["CONTROLS", "SCALES", "Experiment", "method"]

SCALES = ("smoke", "laptop", "paper")
BUDGETS = ("passes", "epochs", "same")
MACHINES = ("cpu", "gpu")
AXES = (*(part.name for part in dataclasses.fields(Run) if part.name not in ("recipe", "seed")), "rho", "rate")
EQUAL_EPOCHS = "sgd-equal-epochs"  # SGD under a name of its own, whose epochs are never doubled
DATA_AXES = ("data", "train_images", "test_images", "split_seed", "pool", "loading")  # what the fingerprint of the data depends on
MOST_SEEDS, MOST_RUNS = 10_000, 100_000  # all runs of an experiment are held in memory
# What lies between SAM and BiSAM (-log) beside the bound: its ascent has no label smoothing, and a temperature. A control
# changes one of the two. And SGD with the epochs of a two-pass method, beside the SGD that has its passes. Then the bounds that the chapter
# "Two other lower bounds" proves, climbs that are blind or nearer to the maximum, for "Better climbs for the inner player", and climbs in the last
# third of the 300 steps of the experiments about bases.
CONTROLS = {
    control.name: control
    for control in (
        SAM.replace(name="sam-unsmoothed", ascent=CrossEntropy()),
        BISAM_LOG.replace(name="sam-temperature", ascent=Surrogate(Identity(), mu=BISAM_LOG.ascent.mu)),
        SGD.replace(name=EQUAL_EPOCHS),
        BISAM_LOG.replace(name="log-sharper", ascent=Surrogate(BISAM_LOG.ascent.phi, BISAM_LOG.ascent.mu, form="boltzmann")),
        BISAM_LOG.replace(name="log-rivals", ascent=Surrogate(BISAM_LOG.ascent.phi, BISAM_LOG.ascent.mu, over="rivals")),
        BISAM_LOG.replace(name="tanh-rivals", ascent=Surrogate(Tanh(alpha=1.0), mu=10.0, over="rivals")),
        SAM.replace(name="sam-random", direction=RandomDirection()),
        SAM.replace(name="sam-3-steps", ascent_steps=3),
        SAM.replace(name="sam-10-steps", ascent_steps=10),
        SAM.replace(name="sam-from-step-200", radius=Phase(rho=0.05, start=200)),
        BISAM_LOG.replace(name="bisam-log-from-step-200", radius=Phase(rho=0.05, start=200)),
    )
}


def method(name: str) -> Recipe:
    """The recipe of that name.

    Args:
        name: one of ``bisam.RECIPES`` or ``CONTROLS``.

    Raises:
        ValueError: an unknown name; the message lists those that exist.

    Example:
        >>> method("sam-unsmoothed").ascent.smoothing, method("sam").ascent
        (0.0, None)
    """
    if isinstance(name, str) and name in CONTROLS:
        return CONTROLS[name]
    return recipe(name) if is_recipe(name) else _checks.choice("method", name, (*RECIPES, *CONTROLS))


@dataclass(frozen=True)
class Experiment:
    r"""A set of runs that belong together: every method at every place of a grid, with every seed.

    With ``budget = "passes"`` every method gets as many epochs as cost the same passes; with ``"epochs"``, as in the published
    runs, the base optimiser alone gets twice as many and all others the same; with ``"same"`` all get the same. The control
    ``"sgd-equal-epochs"`` has the epochs of a two-pass method always.

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
        mu: method to the temperature :math:`\mu` of the bound that it raises, where it is another.
        rate: of a learned radius; ``None`` leaves each its own.
        label_noise: short for the axis of that name.
        smoothing: label smoothing of the descent loss of all methods; an ascent loss of its own has none.
        convention: of the smoothing, see :class:`~bisam.losses.cross_entropy.CrossEntropy`.
        budget: ``"passes"``, ``"epochs"`` or ``"same"``.
        first_seed: of the seeds.
        tables: the published tables that it bears upon.
        stopped: why runs of the plan were left out; empty if none was.
        schema: the form of its records, see ``bisam.evidence.record.SCHEMA``; older records are kept as experiments of their own.
        machine: that the queue makes its runs on, ``"cpu"`` or ``"gpu"``; by default those of scale ``"paper"`` need a GPU.
        fingerprint: of the data, see ``bisam.training.data.task.Task``; empty leaves it to the first run.

    Raises:
        TypeError, ValueError: a field that is not as above, or a run that :class:`~bisam.training.Run` refuses.

    Example:
        >>> from bisam.evidence.listing import experiment
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
    mu: dict = field(default_factory=dict)
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
        for name in (*self.methods, *self.radius, *self.mu):
            method(name)
        for name, value in self.mu.items():
            if not hasattr(method(name).ascent, "mu"):
                raise ValueError(f"mu must name methods that raise a bound, got {name!r} in experiment {self.name!r}")
            _checks.positive("mu", value)
        for axis in (*self.axes, *self.settings):
            _checks.choice("axis", axis, AXES)
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
        if name in self.mu:
            chosen = chosen.replace(ascent=dataclasses.replace(chosen.ascent, mu=self.mu[name]))
        rate = fields.pop("rate", self.rate)
        if rate is not None and chosen.radius.learns:
            chosen = chosen.replace(radius=dataclasses.replace(chosen.radius, rate=rate))
        length = fields.pop("epochs", self.epochs)
        epochs = epochs or length
        if chosen.name != EQUAL_EPOCHS and (self.budget == "passes" or (self.budget == "epochs" and chosen.passes == 1)):
            epochs = equal_budget(epochs, chosen)
        return Run(recipe=chosen, epochs=epochs, seed=seed, **fields)

    def cells(self) -> dict[str, dict[str, str]]:
        """The words that each record's name is made of, method, place and seed, by that name; seed by seed, so that any part is paired."""
        words = [
            {"method": name, **{axis: label(axis, value) for axis, value in place.items()}, "seed": f"seed{seed}"}
            for seed, place, name in self._grid()
        ]
        return {"-".join(each.values()): each for each in words}

    def places(self) -> dict[str, dict]:
        """Where each record stands in the grid, axis to value, by its name: what a budget makes of the epochs is not a place."""
        return dict(zip(self.cells(), (place for _, place, _ in self._grid()), strict=True))

    def runs(self) -> dict[str, Run]:
        """All runs, by the name of their record, in the order of :meth:`cells`."""
        return dict(zip(self.cells(), (self.run(name, seed, **place) for seed, place, name in self._grid()), strict=True))

    def _grid(self) -> list[tuple[int, dict, str]]:
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        places = [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]
        return list(itertools.product(seeds, places, self.methods))


def label(axis: str, value) -> str:
    """A value in the name of a record: ``noise40``, and for the other axes the value alone, with its axis if it is a number."""
    if axis == "label_noise":
        return f"noise{round(100 * value):02d}"
    text = str(value).replace(":", "_")
    return text if isinstance(value, str) else f"{axis.replace('_', '')}{text}"
