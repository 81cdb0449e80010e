"""Two processes on one GPU: each by itself, and both with half of every batch."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from ..training import Run, processes, weights_digest
from .deviations import Wrong, at_most, distance, weights_of
from .lines import Stage
from .trainings import run_of, trained
from .two_devices import EXACT

PATIENCE = 120  # seconds for what other processes are to answer


def two_processes(stage: Stage) -> float:
    run = run_of(stage)
    mine = weights_digest(trained(run).model)
    theirs = _spawned(_digest, [(run, {})] * 2)
    if set(theirs) != {mine}:
        raise Wrong(float("nan"), f"weights {mine} here, {', '.join(theirs)} in two processes at once")
    return 0.0


def shared_batch(stage: Stage) -> float:
    """Two processes with half of every batch each, averaged through gloo, without batch norm, which would see half a batch."""
    run = run_of(stage, model="mlp", compile="no", epochs=1)
    with tempfile.NamedTemporaryFile() as meeting:
        there = [{"RANK": str(k), "LOCAL_RANK": str(k), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "BISAM_MEETING": meeting.name} for k in range(2)]
        device = "cuda" if stage.is_cuda else "cpu"
        found = _spawned(_weights_of_all, [(run.replace(device=device), one) for one in there])
    start = weights_of(trained(run.replace(lr=1e-30)).model)
    alone = weights_of(trained(run).model)
    apart = max(distance([torch.from_numpy(w) for w in weights], alone, start) for weights in found)
    return at_most(apart, EXACT, "of the way of an epoch, against one process")


def _spawned(target: Callable, arguments: list[tuple]) -> list:
    with ProcessPoolExecutor(len(arguments), get_context("spawn"), processes.follow_parent) as pool, processes.kill_started():
        with processes.signals_held_back():  # this starts processes
            asked = [pool.submit(_within, target, *each) for each in arguments]
        return [future.result(timeout=PATIENCE) for future in asked]


def _within(target: Callable, run: Run, environment: dict) -> object:
    os.environ.update(environment)
    return target(run)


def _digest(run: Run) -> str:
    return weights_digest(trained(run).model)


def _weights_of_all(run: Run) -> list:  # of arrays, which need no shared memory on their way
    if run.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    own = run.device == "cuda" and torch.cuda.device_count() >= 2
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if own else "gloo", init_method=f"file://{os.environ['BISAM_MEETING']}",
        rank=int(os.environ["RANK"]), world_size=2,
    )  # fmt: skip
    try:
        return [weight.numpy() for weight in weights_of(trained(run).model)]
    finally:
        torch.distributed.destroy_process_group()
