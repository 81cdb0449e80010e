"""Measures trained networks: how large the term is that a step drops, and what each climb reaches.

Networks are trained as the experiments on digits are (``results/claims.toml``) and stopped on the way. On one batch of training samples each is
perturbed by every climb of the chapter "Better climbs for the inner player", in float64, with the batch statistics of the samples at hand. The rows go to
``results/measured/dropped_term.json``, ``climbs.json`` and ``one_step.json`` after every network; a run that was cut goes on where it was. What was
predicted before the first row is in ``results/measured/predictions.toml``; with ``--outcomes`` the verdicts are printed and nothing is measured.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import measured_files
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from bisam._progress import bar
from bisam.axes.direction import RandomDirection
from bisam.evidence import measured
from bisam.evidence.experiment import method
from bisam.evidence.places import RESULTS
from bisam.losses import CrossEntropy, zero_one
from bisam.measure.held import held
from bisam.training import Run, data, fit, labelled

SEEDS, TRAINED_BY, NOISES, STOPS, EPOCHS = (400, 401, 402), ("sgd", "sam"), (0.0, 0.4), (5, 20), 30
RHO = 0.1  # with which SAM trains
BATCH = 100  # the first samples of the training set
DROPPED = {"climbs": ("sam", "bisam-log", "bisam-tanh", "tanh-rivals"), "radii": (0.01, 0.05, 0.1, 0.3)}
CLIMBS = (
    "none", "sam-random", "sam", "sam-3-steps", "sam-10-steps", "bisam-log", "bisam-tanh", "log-sharper", "log-rivals", "tanh-rivals",
    "tanh-rivals-10-steps", "exact",
)  # fmt: skip
RADII = (0.05, 0.1, 0.3)
WIDTHS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.6)  # of one step of SAM
DRAWS = 10  # random directions that are averaged
SEARCH = 100  # steps of each of the two climbs of "exact"
NETWORK = ("seed", "trained_by", "label_noise", "epoch")
WHAT = {
    "dropped_term": "One row a network, radius and climb. kept: the length of the gradient of cross-entropy at w + e minus that at w. dropped: the "
    "length of what the step leaves out because e moves with w. share: dropped / kept. All on the first 100 training samples, in float64.",
    "climbs": "One row a network, radius and climb: what cross-entropy and the mistakes (in percent) rise by from w to w + e, on the 100 training "
    "samples that the climb saw and on the 297 held-back ones with right labels; aim: the cosine between the gradient of cross-entropy at w + e and "
    "the perturbation of the climb 'exact'. 'none' stays at w, 'sam-random' is the mean of 10 directions.",
    "one_step": "One row a network and radius: the same rises for one step of SAM at the radii of the search for its radius. No prediction is about them.",
}  # fmt: skip

DESCENT = CrossEntropy()


class Point:
    """A trained network in float64 with its weights as one vector, on fixed samples."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor):
        self.model, self.x, self.y = copy.deepcopy(model).double(), x.double(), y
        self.parts = list(self.model.parameters())
        self.w = parameters_to_vector(self.parts).detach().clone()

    def gradient(self, loss, e: Tensor | float = 0.0) -> Tensor:
        """The gradient of a loss at w + e."""
        with self._at(e):
            return flat(torch.autograd.grad(loss(self.model(self.x), self.y), self.parts))

    def hessian_times(self, loss, v: Tensor) -> Tensor:
        """The Hessian of a loss at w, times a vector."""
        with self._at(0.0):
            slope = flat(torch.autograd.grad(loss(self.model(self.x), self.y), self.parts, create_graph=True))
            return flat(torch.autograd.grad(slope @ v, self.parts))

    def value(self, e: Tensor | float = 0.0, x: Tensor | None = None, y: Tensor | None = None) -> tuple[float, float]:
        """Cross-entropy and the percentage of mistakes at w + e, on the samples of the climb or on others."""
        x, y = (self.x, self.y) if x is None else (x.double(), y)
        with self._at(e), torch.no_grad():
            logits = self.model(x)
            return float(DESCENT(logits, y)), 100 * float(zero_one(logits, y).mean())

    def _at(self, e: Tensor | float):
        vector_to_parameters(self.w + e, self.parts)
        return held(self.model, "batch")


def flat(parts) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])


def unit(v: Tensor) -> Tensor:
    return v / v.norm()


def recipe_of(climb: str):
    """The recipe whose climb it is."""
    return method("tanh-rivals").replace(ascent_steps=10) if climb == "tanh-rivals-10-steps" else method(climb)


def perturbations(point: Point, climb: str, rho: float) -> list[Tensor]:
    """Where a climb ends: one perturbation, or several to average over."""
    if climb == "none":
        return [torch.zeros_like(point.w)]
    if climb == "exact":
        return [highest(point, rho)]
    recipe = recipe_of(climb)
    if isinstance(recipe.direction, RandomDirection):
        draw = torch.Generator().manual_seed(0)
        return [rho * unit(torch.randn(point.w.shape, generator=draw, dtype=point.w.dtype)) for _ in range(DRAWS)]
    e = torch.zeros_like(point.w)
    for _ in range(recipe.ascent_steps):
        e = rho * unit(point.gradient(recipe.raised, e))
    return [e]


def highest(point: Point, rho: float) -> Tensor:
    """The point of the ball with the highest cross-entropy that two long projected climbs with shrinking steps have found."""
    starts = perturbations(point, "sam-10-steps", rho)[0], perturbations(point, "sam-random", rho)[0]
    best, where = -float("inf"), starts[0]
    for e in starts:
        for k in range(SEARCH + 1):
            value, _ = point.value(e)
            if value > best:
                best, where = value, e
            e = e + rho * 0.25 * (1 - k / (SEARCH + 1)) * unit(point.gradient(DESCENT, e))
            e = e * min(1.0, rho / float(e.norm()))
    return where


def dropped(point: Point, climb: str, rho: float) -> tuple[Tensor, Tensor]:
    """What the step drops, and what it changes: two vectors."""
    raised = recipe_of(climb).raised
    q = point.gradient(raised)
    there = point.gradient(DESCENT, rho * unit(q))
    across = there - unit(q) * (unit(q) @ there)
    return rho / q.norm() * point.hessian_times(raised, across), there - point.gradient(DESCENT)


def dropped_rows(point: Point) -> Iterator[dict]:
    for radius, climb in itertools.product(DROPPED["radii"], DROPPED["climbs"]):
        left, change = (float(v.norm()) for v in dropped(point, climb, radius))
        yield {"radius": radius, "climb": climb, "kept": change, "dropped": left, "share": left / change}


def climb_rows(point: Point, x: Tensor, y: Tensor, climbs: tuple[str, ...], radii: tuple[float, ...]) -> Iterator[dict]:
    """The rows of one network; ``x``, ``y`` are the held-back samples."""
    here = torch.tensor([*point.value(), *point.value(0.0, x, y)], dtype=torch.float64)
    for radius in radii:
        top = perturbations(point, "exact", radius)[0] if "exact" in climbs else None
        for climb in climbs:
            ends = [top] if climb == "exact" else perturbations(point, climb, radius)
            rises = torch.stack([torch.tensor([*point.value(e), *point.value(e, x, y)], dtype=torch.float64) - here for e in ends]).mean(0)
            aims = [float(unit(point.gradient(DESCENT, e)) @ unit(top)) for e in ends] if top is not None else [0.0]
            names = ("loss_rise", "mistakes_rise", "held_loss_rise", "held_mistakes_rise")
            yield {"radius": radius, "climb": climb, **dict(zip(names, rises.tolist(), strict=True)), "aim": sum(aims) / len(aims)}


def one_step_rows(point: Point, x: Tensor, y: Tensor) -> Iterator[dict]:
    for row in climb_rows(point, x, y, ("sam",), WIDTHS):
        yield {name: value for name, value in row.items() if name != "aim"}


def run_of(trained_by: str, label_noise: float, seed: int) -> Run:
    return Run(method(trained_by).with_rho(RHO) if trained_by != "sgd" else method("sgd"), epochs=EPOCHS, label_noise=label_noise, seed=seed)


def networks(trained_by: str, label_noise: float, seed: int, stops: tuple[int, ...]) -> Iterator[tuple[int, Point]]:
    """A training, stopped at some epochs; the network there, at the first samples of the training set with the labels that it was given."""
    run = run_of(trained_by, label_noise, seed)
    seen = labelled(run, data.digits())
    with tempfile.TemporaryDirectory() as folder:
        before = 0
        for stop in stops:
            history = fit(run, Path(folder) / "run.pt", stop_after=stop - before)
            before = stop
            yield stop, Point(history.model, seen.inputs[:BATCH], seen.targets[:BATCH])


def of_network(point: Point, x: Tensor, y: Tensor) -> dict:
    names = ("loss", "mistakes", "held_loss", "held_mistakes")
    return {**dict(zip(names, (*point.value(), *point.value(0.0, x, y)), strict=True)), "gradient": float(point.gradient(DESCENT).norm())}


def write(name: str, networks: list[dict], rows: list[dict], seconds: float, folder: Path = RESULTS) -> None:
    measured_files.write(name, WHAT[name], networks, rows, seconds, folder, digits=6)


def so_far(name: str, folder: Path) -> tuple[list[dict], list[dict], float]:
    if not (folder / "measured" / f"{name}.json").exists():
        return [], [], 0.0
    found = measured.load(name, folder)
    return found.networks, found.rows, found.environment["wall_seconds"]


def measure(folder: Path, progress: bool) -> None:
    torch.set_num_threads(1)
    split = data.digits().validation
    rows_of = {
        "dropped_term": dropped_rows,
        "climbs": lambda point: climb_rows(point, split.inputs, split.targets, CLIMBS, RADII),
        "one_step": lambda point: one_step_rows(point, split.inputs, split.targets),
    }
    found = {name: so_far(name, folder) for name in rows_of}
    done = {name: {tuple(row[key] for key in NETWORK) for row in nets} for name, (nets, *_) in found.items()}
    plan = list(itertools.product(SEEDS, TRAINED_BY, NOISES))
    there = len(set.intersection(*done.values()))
    with bar("networks", len(plan) * len(STOPS), "networks", progress, done=there, line="{done} of {total} networks") as advance:
        for seed, trained_by, noise in plan:
            if all((seed, trained_by, noise, stop) in keys for stop in STOPS for keys in done.values()):
                continue
            began = time.perf_counter()
            for stop, point in networks(trained_by, noise, seed, STOPS):
                key = (seed, trained_by, noise, stop)
                lacking = [name for name, keys in done.items() if key not in keys]
                which = dict(zip(NETWORK, key, strict=True))
                for name in lacking:
                    nets, rows, seconds = found[name]
                    more = [{**which, **row} for row in rows_of[name](point)]
                    spent, began = time.perf_counter() - began, time.perf_counter()
                    found[name] = [*nets, {**which, **of_network(point, split.inputs, split.targets)}], [*rows, *more], seconds + spent
                    write(name, *found[name], folder)
                if lacking:
                    advance(1)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path, default=RESULTS, help="of the results, in which the folder measured is")
    arguments.add_argument("--outcomes", action="store_true", help="print what became of the predictions, and measure nothing")
    given = arguments.parse_args()
    if not given.outcomes:
        measure(given.folder, progress=True)
    for one in measured.outcomes(given.folder):
        print(f"{one.verdict:13} {one.so:3} of {one.seen:3} (needs {one.prediction.needed})  {one.prediction.id}: {one.prediction.statement}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
