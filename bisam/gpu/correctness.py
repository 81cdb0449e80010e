"""Stage one: does the GPU compute what the CPU computes, a graph what the eager step does, and a second process what the first does?"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import captured, data, memory, models, processes, train
from ..batch import Batch
from ..optimizer import SharpnessAware
from ..radius import Learned, Phase
from ..recipe import RECIPES, Recipe
from ..side_by_side import Job, in_turns
from ..train import PRECISIONS, Run, weights_digest
from ..workers import workers
from .lines import Stage

__all__ = ["Check", "checks", "main"]

EXACT = 1e-3  # of the length of the update: float32 on two kinds of machine, which add in different orders
ROUNDED = 3.0  # times as far from float32 as the CPU's own bfloat16 is, and no more
PATIENCE = 60  # seconds for what other processes are to answer
FIRST = ("bisam-log", "sam", "bisam-tanh", "sgd", "asam", "esam", "gsam", "vasso", "rsam", "msam", "ksam", "lets-sam", "bsam")
GRAPHED = ("bisam-log", "sam", "sgd", "bisam-tanh", "vasso", "esam", "gsam", "rsam", "late-sam", "a-bisam-log", "msam", "ksam", "le-sam", "sam-on")


class Wrong(Exception):
    """A check that has run to its end and found a difference that should not be."""


@dataclasses.dataclass(frozen=True)
class Check:
    """One question, and a function that answers it.

    Args:
        name: in the file.
        run: returns the largest deviation, or raises what is wrong.

    Source:
        Ours.

    Example:
        >>> Check("nothing", lambda: 0.0).run()
        0.0
    """

    name: str
    run: Callable[[], float]


def main(stage: Stage) -> None:
    """All checks in the order of what they tell, until the time is over.

    Args:
        stage: where to write and until when.

    Source:
        Ours.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     main(Stage("correctness", Path(folder), end=time.monotonic(), quiet=True))
        ...     "cut" in (Path(folder) / "correctness.jsonl").read_text()
        True
    """
    with train.exact_kernels(stage.device):
        for check in stage.in_time(checks(stage)):
            started = time.monotonic()
            result, deviation, reason = _answer(check)
            stage.note(check.name, result=result, deviation=deviation, seconds=time.monotonic() - started, reason=reason)


def _answer(check: Check) -> tuple[str, float | None, str | None]:
    try:
        return "pass", check.run(), None
    except Wrong as error:
        return "fail", error.args[0], error.args[1]
    except Exception as error:
        if isinstance(error, getattr(torch, "AcceleratorError", ())):
            raise  # the device is lost to this process
        return "error", None, f"{type(error).__name__}: {error}"[:500]


def checks(stage: Stage) -> list[Check]:
    """What is asked, the most telling first: few methods in every way, then the other methods, then what takes long.

    Args:
        stage: the device, and whether sizes are tiny.

    Source:
        Ours.

    Example:
        >>> names = [check.name for check in checks(Stage("correctness", Path(".")))]
        >>> names[0], len([name for name in names if name.startswith("step ")]) == 2 * len(RECIPES)
        ('step bisam-log float32', True)
    """
    rows = [*FIRST, *(name for name in RECIPES if name not in FIRST)]

    def steps(names) -> list[Check]:
        return [Check(f"step {name} {p}", lambda name=name, p=p: _step(stage, name, p)) for name in names for p in PRECISIONS]

    def graphs(names, precision: str, model: str = "resnet8") -> list[Check]:
        words = f"{precision}{'' if model == 'resnet8' else ' ' + model}"
        return [Check(f"graph {n} {words}", lambda n=n: _graph(stage, n, precision, model)) for n in names]

    return [
        *steps(FIRST[:4]),
        *graphs(GRAPHED[:2], "float32"), *graphs(GRAPHED[:2], "bfloat16"),
        Check("graph against compile no, bisam-log", lambda: _graph_against_no(stage)),
        *(Check(f"scaler float16 {name}", lambda name=name: _scaler(stage, name)) for name in ("sam", "bisam-log")),
        Check("scaler float16 overflow", lambda: _overflow(stage)),
        *(Check(f"resumed {mode}", lambda mode=mode: _resumed(stage, mode)) for mode in ("whole-step", "no")),
        *graphs(["bisam-log"], "bfloat16", "airbench-narrow"),
        *(Check(f"twice the same bits {net}", lambda net=net: _twice(stage, net)) for net in ("airbench-narrow", "resnet8")),
        Check("side by side", lambda: _side_by_side(stage)),
        Check("a bad step is left out of a graph", lambda: _bad_step(stage)),
        *graphs(["bisam-log"], "bfloat16", "vgg19-bn"),  # with dropout masks that both passes draw
        *graphs(GRAPHED[2:], "bfloat16"),
        Check("two processes", lambda: _two_processes(stage)),
        Check("a batch shared by two processes", lambda: _shared_batch(stage)),
        *steps(rows[4:]),
        *graphs(GRAPHED[2:], "float32"),
    ]  # fmt: skip


# -- a step on two devices ---------------------------------------------------------------------------------------------------


def _step(stage: Stage, name: str, precision: str) -> float:
    """Two steps of a method on the device, and as the CPU makes them in float32; the difference as a share of what the steps did."""
    steps = 2
    start = _weights(_net())
    exact = _weights(_after(name, "cpu", "float32", steps))
    there = _weights(_after(name, stage.device, precision, steps))
    deviation = _distance(there, exact, start)
    if precision == "float32":
        return _at_most(deviation, EXACT, "of the update, against the CPU")
    own = _distance(_weights(_after(name, "cpu", precision, steps)), exact, start)
    return _at_most(deviation, ROUNDED * own + 0.02, f"of the update; bfloat16 on the CPU is {own:.3g} away from float32")


def _at_most(deviation: float, most: float, words: str) -> float:
    if not deviation <= most:
        raise Wrong(deviation, f"{deviation:.3g} {words}; at most {most:.3g} was expected")
    return deviation


def _net(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return models.build("resnet8", (3, 16, 16), 10)


def _after(name: str, device: str, precision: str, steps: int) -> nn.Module:
    model = _net().to(device)
    recipe = _exercised(RECIPES[name])
    run = Run(recipe=recipe, lr=0.05, batch_size=32, device=device)
    opt = SharpnessAware(train._base(run, model, 1000), recipe, seed=0, nonfinite="skip" if device != "cpu" else "raise")
    generator = torch.Generator().manual_seed(1)
    with drawn_on_the_cpu():
        for _ in range(steps):
            batch, lesson = (_batch(model, device, precision, generator) for _ in range(2))
            opt.step(batch, validation=lesson if isinstance(recipe.radius, Learned) else None)
    return model


def _batch(model: nn.Module, device: str, precision: str, generator: torch.Generator) -> Batch:
    inputs, targets = torch.randn(32, 3, 16, 16, generator=generator), torch.randint(10, (32,), generator=generator)
    return Batch(model, inputs.to(device), targets.to(device), PRECISIONS[precision])


def _exercised(recipe: Recipe) -> Recipe:
    """The method with settings at which two steps show what it does."""
    if isinstance(recipe.radius, Phase):
        recipe = recipe.replace(radius=Phase(recipe.radius.rho, start=1))
    return recipe.replace(micro_batch=8) if recipe.micro_batch else recipe


@contextlib.contextmanager
def drawn_on_the_cpu() -> Iterator[None]:
    """Masks and random starts come from one generator on the CPU, so that two devices climb the same way.

    Source:
        Ours.

    Example:
        >>> with drawn_on_the_cpu():
        ...     torch.rand(2, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([2])
    """
    mine, rand, randn = memory.Memory.generator, torch.rand, torch.randn

    def here(draw):
        def drawn(*shape, generator=None, device=None, **more):
            if generator is None:
                return draw(*shape, device=device, **more)
            return draw(*shape, generator=generator, **more).to(device or "cpu")

        return drawn

    memory.Memory.generator = lambda self, device: mine(self, torch.device("cpu"))
    torch.rand, torch.randn = here(rand), here(randn)
    try:
        yield
    finally:
        memory.Memory.generator, torch.rand, torch.randn = mine, rand, randn


def _weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().double().cpu() for p in model.parameters()]


def _distance(one: list[Tensor], other: list[Tensor], start: list[Tensor]) -> float:
    """Of two places, as a share of the way from the start to the second."""
    apart, way = (torch.cat([(a - b).flatten() for a, b in zip(*pair, strict=True)]).norm() for pair in ((one, other), (other, start)))
    return float(apart / way)


# -- whole trainings ---------------------------------------------------------------------------------------------------------


def task(side: int = 16, images: int = 320, others: int = 60) -> data.Data:
    """Coloured noise with a trace of its class, of which a network can learn something.

    Args:
        side: height and width.
        images: to train on.
        others: to validate and to test, each.

    Source:
        Ours.

    Example:
        >>> task(8, 50).shape
        (3, 8, 8)
    """
    generator = torch.Generator().manual_seed(0)
    splits = []
    for n in (images, others, others):
        targets = torch.arange(n) % 10
        pixels = torch.randint(0, 256, (n, 3, side, side), generator=generator, dtype=torch.uint8)
        pixels[:, 0] = pixels[:, 0] // 2 + (12 * targets).to(torch.uint8)[:, None, None]
        splits.append(data.Split(pixels, targets))
    return data.Data("noise", 10, *splits, mean=(0.5,) * 3, std=(0.25,) * 3)


def _run(stage: Stage, name: str = "bisam-log", precision: str = "float32", model: str = "resnet8", **more) -> Run:
    recipe = RECIPES[name]
    if isinstance(recipe.radius, Phase):
        recipe = recipe.replace(radius=Phase(recipe.radius.rho, start=7))
    recipe = recipe.replace(micro_batch=16) if recipe.micro_batch else recipe
    settings = {"epochs": 3, "batch_size": 32, "lr": 0.05, "augment": "crop-flip-cutout", "compile": "whole-step", **more}
    return Run(recipe=recipe, precision=precision, model=model, device=stage.device, **settings)


def trained(run: Run, path: Path | None = None, stop_after: int | None = None, there: data.Data | None = None) -> train.History:
    """:func:`bisam.fit` on a task that is at hand.

    Args:
        run: what to do; its ``data`` is not looked at.
        path: of the checkpoint.
        stop_after: so many epochs.
        there: the task; small noise by default.

    Source:
        Ours.

    Example:
        >>> len(trained(Run(model="mlp", epochs=2, batch_size=80), there=task(8, 160)).rows)
        2
    """
    there = there or task(32 if run.model == "vgg19-bn" else 16)
    with workers(run.device) as here, train._own_randomness(run), train.exact_kernels(run.device):
        return train._train(train._State(run, there, here), path, False, stop_after, None, None)


@contextlib.contextmanager
def _without_graphs() -> Iterator[None]:
    there = captured.graph_of
    captured.graph_of = lambda device: None
    try:
        yield
    finally:
        captured.graph_of = there


def _same(one: train.History, other: train.History, words: str) -> float:
    """Zero, or what is wrong: weights and rows must agree to the bit."""
    apart = max(float((a.double() - b.double()).abs().max()) for a, b in zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True))
    if weights_digest(one.model) != weights_digest(other.model) or one.rows != other.rows:
        raise Wrong(apart, f"{words} differ: largest difference of a weight {apart:.3g}")
    return apart


def _graph(stage: Stage, name: str, precision: str, model: str) -> float:
    run = _run(stage, name, precision, model)
    if model != "resnet8":
        run = run.replace(epochs=1)
    with _without_graphs():
        eager = trained(run)
    return _same(trained(run), eager, "the graph and the eager step")


def _twice(stage: Stage, model: str) -> float:
    run = _run(stage, precision="bfloat16", model=model, compile="no", epochs=1)
    return _same(trained(run), trained(run), "two trainings that are the same")


def _graph_against_no(stage: Stage) -> float:
    """The learning rate of the eager loop is a number in double precision, that of a graph a tensor in single: the last bits may differ."""
    run = _run(stage, epochs=1)
    one, other = trained(run), trained(run.replace(compile="no"))
    start = _weights(trained(run.replace(lr=1e-30)).model)
    return _at_most(_distance(_weights(one.model), _weights(other.model), start), EXACT, "of the way of an epoch")


def _resumed(stage: Stage, mode: str) -> float:
    run = _run(stage, "vasso", compile=mode)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.pt"
        trained(run, path, stop_after=1)
        return _same(trained(run, path), trained(run), "the resumed and the uncut run")


def _side_by_side(stage: Stage) -> float:
    runs = [_run(stage, name, seed=seed) for name, seed in (("sgd", 0), ("sam", 1), ("bisam-log", 2))]
    there, load = task(), data.load
    data.load = lambda *args, **more: there
    try:
        found = {job.run.seed: outcome for job, outcome in in_turns([Job(run) for run in runs], len(runs))}
    finally:
        data.load = load
    for outcome in found.values():
        if isinstance(outcome, Exception):
            raise outcome
    return max(_same(found[run.seed], trained(run), f"{run.recipe.name} beside others and alone") for run in runs)


def _bad_step(stage: Stage) -> float:
    """A NaN among the images: the weights stay finite, and every epoch counts one step that was left out."""
    whole = task()
    inputs = whole.prepared(whole.train.inputs).clone()
    inputs[int(torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))[-1])] = torch.nan  # in the last step of the first epoch
    run = _run(stage, "vasso", augment="none", epochs=1, model="mlp")
    spoiled = dataclasses.replace(whole, train=data.Split(inputs, whole.train.targets))
    try:
        trained(run, there=spoiled)
    except FloatingPointError as error:
        words = "1 steps met" if stage.is_cuda else "inf or NaN"  # the CPU looks at once
        return 0.0 if words in str(error) else _at_most(1.0, 0.0, str(error))
    raise Wrong(1.0, "nobody has noticed the NaN")


# -- scalers -----------------------------------------------------------------------------------------------------------------


def _scaled(stage: Stage, name: str, scale: float, steps: int) -> tuple[nn.Module, torch.amp.GradScaler]:
    model = _net().to(stage.device)
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), RECIPES[name], seed=0)
    scaler, generator = torch.amp.GradScaler(stage.device.partition(":")[0], init_scale=scale), torch.Generator().manual_seed(1)
    for _ in range(steps):
        batch = _batch(model, stage.device, "float32", generator)
        batch.autocast = torch.float16
        opt.step(batch, scaler=scaler)
        scaler.update()
    return model, scaler


def _scaler(stage: Stage, name: str) -> float:
    start, scaled = _weights(_net()), _weights(_scaled(stage, name, 2.0**12, 2)[0])
    model, generator = _net().to(stage.device), torch.Generator().manual_seed(1)
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), RECIPES[name], seed=0)
    for _ in range(2):
        opt.step(_batch(model, stage.device, "float32", generator))
    return _at_most(_distance(scaled, _weights(model), start), 0.1, "of the update, against float32")


def _overflow(stage: Stage) -> float:
    """A scale beyond float16: the weights stay where they are, to the bit, and the scale comes down."""
    model, scaler = _scaled(stage, "bisam-log", 2.0**60, 2)
    moved = max(float((a - b).abs().max()) for a, b in zip(_weights(model), _weights(_net()), strict=True))
    if moved or scaler.get_scale() >= 2.0**60:
        raise Wrong(moved, f"weights moved by {moved:.3g}, and the scale is {scaler.get_scale():g}")
    return moved


# -- processes ---------------------------------------------------------------------------------------------------------------


def _two_processes(stage: Stage) -> float:
    run = _run(stage)
    mine = weights_digest(trained(run).model)
    theirs = _spawned(_digest, [(run, {})] * 2)
    if set(theirs) != {mine}:
        raise Wrong(float("nan"), f"weights {mine} here, {', '.join(theirs)} in two processes at once")
    return 0.0


def _shared_batch(stage: Stage) -> float:
    """Two processes with half of every batch each, averaged through gloo, without batch norm, which would see half a batch."""
    run = _run(stage, model="mlp", compile="no", epochs=1)
    with tempfile.NamedTemporaryFile() as meeting:
        there = [{"RANK": str(k), "LOCAL_RANK": str(k), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "BISAM_MEETING": meeting.name} for k in range(2)]
        device = "cuda" if stage.is_cuda else "cpu"
        found = _spawned(_weights_of_all, [(run.replace(device=device), one) for one in there])
    start = _weights(trained(run.replace(lr=1e-30)).model)
    alone = _weights(trained(run).model)
    return _at_most(max(_distance([torch.from_numpy(w) for w in weights], alone, start) for weights in found), EXACT, "of the way of an epoch, against one process")


def _spawned(target: Callable, arguments: list[tuple]) -> list:
    with ProcessPoolExecutor(len(arguments), get_context("spawn"), processes.follow_parent) as pool:
        with processes.signals_held_back():  # this starts processes
            asked = [pool.submit(_within, target, *each) for each in arguments]
        try:
            return [future.result(timeout=PATIENCE) for future in asked]
        finally:
            for process in list((pool._processes or {}).values()):
                process.kill()


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
        return [weight.numpy() for weight in _weights(trained(run).model)]
    finally:
        torch.distributed.destroy_process_group()
