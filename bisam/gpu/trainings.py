"""Short trainings that must end at the same bits: captured and eager, cut and uncut, side by side and alone, in one process and in two."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from ..methods.table import RECIPES
from ..training import History, Run, data, processes, weights_digest
from ..training.devices import exact_kernels
from ..training.loop import train
from ..training.rng import seeded_rng
from ..training.side_by_side import Job, in_turns
from ..training.state import State
from ..training.workers import workers
from .deviations import Wrong, at_most, distance, same, weights_of
from .lines import Stage
from .two_devices import EXACT, exercised

PATIENCE = 120  # seconds for what other processes are to answer


def task(side: int = 16, images: int = 320, others: int = 60) -> data.Data:
    """Coloured noise with a trace of its class, of which a network can learn something."""
    generator = torch.Generator().manual_seed(0)
    splits = []
    for n in (images, others, others):
        targets = torch.arange(n) % 10
        pixels = torch.randint(0, 256, (n, 3, side, side), generator=generator, dtype=torch.uint8)
        pixels[:, 0] = pixels[:, 0] // 2 + (12 * targets).to(torch.uint8)[:, None, None]
        splits.append(data.Split(pixels, targets))
    return data.Data("noise", 10, *splits, mean=(0.5,) * 3, std=(0.25,) * 3)


def run_of(stage: Stage, name: str = "bisam-log", precision: str = "float32", model: str = "resnet8", **more) -> Run:
    recipe = exercised(RECIPES[name], start=7, micro_batch=16)
    settings = {"epochs": 3, "batch_size": 32, "lr": 0.05, "augment": "crop-flip-cutout", "compile": "whole-step", **more}
    return Run(recipe=recipe, precision=precision, model=model, device=stage.device, **settings)


def trained(run: Run, path: Path | None = None, stop_after: int | None = None, there: data.Data | None = None, graphs: bool = True) -> History:
    """:func:`bisam.training.fit` on a task that is at hand, small noise by default; the run's own data are not looked at."""
    there = there or task(32 if run.model == "vgg19-bn" else 16)
    with workers(run.device) as here, seeded_rng(run.seed, run.device), exact_kernels(run.device):
        return train(State(run, there, here, graphs), path, stop_after=stop_after)


def graph(stage: Stage, name: str, precision: str, model: str) -> float:
    run = run_of(stage, name, precision, model)
    if model != "resnet8":
        run = run.replace(epochs=1)
    return same(trained(run), trained(run, graphs=False), "the graph and the eager step")


def twice(stage: Stage, model: str) -> float:
    run = run_of(stage, precision="bfloat16", model=model, compile="no", epochs=1)
    return same(trained(run), trained(run), "two trainings that are the same")


def against_no(stage: Stage, graphs: bool) -> float:
    """The ordinary loop has its learning rate as a number in double precision, the whole step as a tensor in single: the last bits may differ."""
    run = run_of(stage, epochs=1)
    one, other = trained(run, graphs=graphs), trained(run.replace(compile="no"))
    start = weights_of(trained(run.replace(lr=1e-30)).model)
    return at_most(distance(weights_of(one.model), weights_of(other.model), start), EXACT, "of the way of an epoch")


def resumed(stage: Stage, mode: str, graphs: bool = True) -> float:
    run = run_of(stage, "vasso", compile=mode)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.pt"
        trained(run, path, stop_after=1, graphs=graphs)
        return same(trained(run, path, graphs=graphs), trained(run, graphs=graphs), "the resumed and the uncut run")


def side_by_side(stage: Stage) -> float:
    runs = [run_of(stage, name, seed=seed) for name, seed in (("sgd", 0), ("sam", 1), ("bisam-log", 2))]
    there, load = task(), data.load
    data.load = lambda *args, **more: there
    try:
        found = {job.run.seed: outcome for job, outcome in in_turns([Job(run) for run in runs], len(runs))}
    finally:
        data.load = load
    for outcome in found.values():
        if isinstance(outcome, Exception):
            raise outcome
    return max(same(found[run.seed], trained(run), f"{run.recipe.name} beside others and alone") for run in runs)


def bad_step(stage: Stage) -> float:
    """A NaN among the images: the weights stay finite, and every epoch counts one step that was left out."""
    whole = task()
    inputs = whole.prepared(whole.train.inputs).clone()
    inputs[int(torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))[-1])] = torch.nan  # in the last step of the first epoch
    run = run_of(stage, "vasso", augment="none", epochs=1, model="mlp")
    spoiled = dataclasses.replace(whole, train=data.Split(inputs, whole.train.targets))
    try:
        trained(run, there=spoiled)
    except FloatingPointError as error:
        words = "1 steps met" if stage.is_cuda else "inf or NaN"  # the CPU looks at once
        return 0.0 if words in str(error) else at_most(1.0, 0.0, str(error))
    raise Wrong(1.0, "nobody has noticed the NaN")


def two_processes(stage: Stage) -> float:
    run = run_of(stage)
    mine = weights_digest(trained(run).model)
    theirs = _spawned(_digest, [(run,)] * 2)
    if set(theirs) != {mine}:
        raise Wrong(float("nan"), f"weights {mine} here, {', '.join(theirs)} in two processes at once")
    return 0.0


def shared_batch(stage: Stage) -> float:
    """Two processes with half of every batch each, averaged through gloo, without batch norm, which would see half a batch."""
    run = run_of(stage, model="mlp", compile="no", epochs=1)
    with tempfile.NamedTemporaryFile() as meeting:
        there = run.replace(device="cuda" if stage.is_cuda else "cpu")
        found = _spawned(_weights_of_all, [(there, rank, meeting.name) for rank in range(2)])
    start = weights_of(trained(run.replace(lr=1e-30)).model)
    alone = weights_of(trained(run).model)
    apart = max(distance([torch.from_numpy(w) for w in weights], alone, start) for weights in found)
    return at_most(apart, EXACT, "of the way of an epoch, against one process")


def _spawned(target: Callable, arguments: list[tuple]) -> list:
    with ProcessPoolExecutor(len(arguments), get_context("spawn"), processes.follow_parent) as pool, processes.kill_started():
        with processes.signals_held_back():  # this starts processes
            asked = [pool.submit(target, *each) for each in arguments]
        return [future.result(timeout=PATIENCE) for future in asked]


def _digest(run: Run) -> str:
    return weights_digest(trained(run).model)


def _weights_of_all(run: Run, rank: int, meeting: str) -> list:  # of arrays, which need no shared memory on their way
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    if run.device == "cuda":
        torch.cuda.set_device(rank % torch.cuda.device_count())
    own = run.device == "cuda" and torch.cuda.device_count() >= 2
    backend = "cpu:gloo,cuda:nccl" if own else "gloo"
    torch.distributed.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=2)
    try:
        return [weight.numpy() for weight in weights_of(trained(run).model)]
    finally:
        torch.distributed.destroy_process_group()
