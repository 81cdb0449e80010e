"""Stage one: does the GPU compute what the CPU computes, a graph what the eager step does, and a second process what the first does?"""

from __future__ import annotations

import dataclasses
import time

from ..gpu import trainings, two_devices
from ..methods.table import RECIPES
from ..training.devices import exact_kernels
from ..training.run import PRECISIONS
from .deviations import Wrong
from .lines import Item, Stage, fresh_first, told
from .trust import EAGER, SGD, SIDE_BY_SIDE

FIRST = ("bisam-log", "sam", "bisam-tanh", "sgd", "asam", "esam", "gsam", "vasso", "rsam", "msam", "ksam", "lets-sam", "bsam")
GRAPHED = ("bisam-log", "sam", "sgd", "bisam-tanh", "vasso", "esam", "gsam", "rsam", "late-sam", "a-bisam-log", "msam", "ksam", "le-sam", "sam-on")

FEW = (
    "step bisam-log float32", SGD, EAGER, "graph sam float32", "graph bisam-log bfloat16", "scaler float16 sam", "resumed whole-step", SIDE_BY_SIDE,
    "a bad step is left out of a graph", "two processes",
)  # fmt: skip


def main(stage: Stage) -> None:
    """All checks in the order of what they tell, until the time is over; of a tiny session one of each kind."""
    with exact_kernels(stage.device):
        for check in stage.in_time(_ordered(stage)):
            _carried_out(stage, check)


def _ordered(stage: Stage) -> list[Item]:
    every = [check for check in checks(stage) if not stage.tiny or check.name in FEW]
    needed = next((k for k, check in enumerate(every, 1) if check.name == SIDE_BY_SIDE), 0)
    return fresh_first(every, stage.path, always=needed)


def only(stage: Stage, name: str) -> None:
    """One check, where a later stage needs its answer and this one has not come to it."""
    here = dataclasses.replace(stage, name="correctness")
    with exact_kernels(stage.device):
        _carried_out(here, next(check for check in checks(here) if check.name == name))


def _carried_out(stage: Stage, check: Item) -> None:
    started = time.monotonic()
    try:
        result, deviation, reason = _answer(check)
    except Exception as error:  # the device is lost to this process: also that is an answer, which stage three needs
        stage.note(check.name, result="error", deviation=None, reason=f"{type(error).__name__}: {error}"[:500])
        raise
    stage.note(check.name, result=result, deviation=deviation, seconds=time.monotonic() - started, reason=reason)


def _answer(check: Item) -> tuple[str, float | None, str | None]:
    try:
        return "pass", check.run(), None
    except Wrong as error:
        return "fail", error.args[0], error.args[1]
    except Exception as error:
        return "error", None, told(error)


def checks(stage: Stage) -> list[Item]:
    """What is asked, the most telling first: few methods in every way, then the other methods, then what takes long."""
    rows = [*FIRST, *(name for name in RECIPES if name not in FIRST)]

    def steps(names) -> list[Item]:
        return [Item(f"step {name} {p}", lambda name=name, p=p: two_devices.step(stage, name, p)) for name in names for p in PRECISIONS]

    def graphs(names, precision: str, model: str = "resnet8") -> list[Item]:
        words = f"{precision}{'' if model == 'resnet8' else ' ' + model}"
        return [Item(f"graph {n} {words}", lambda n=n: trainings.graph(stage, n, precision, model)) for n in names]

    return [
        *steps(FIRST[:4]),
        Item(EAGER, lambda: trainings.against_no(stage, graphs=False)),  # before a graph could take the device with it
        *graphs(GRAPHED[:2], "float32"), *graphs(GRAPHED[:4], "bfloat16"),
        Item("graph against compile no, bisam-log", lambda: trainings.against_no(stage, graphs=True)),
        *(Item(f"scaler float16 {name}", lambda name=name: two_devices.scaler(stage, name)) for name in ("sam", "bisam-log")),
        Item("scaler float16 overflow", lambda: two_devices.overflow(stage)),
        *(Item(f"resumed {mode}", lambda mode=mode: trainings.resumed(stage, mode)) for mode in ("whole-step", "no")),
        Item("resumed whole-step without graphs", lambda: trainings.resumed(stage, "whole-step", graphs=False)),
        *graphs(["bisam-log"], "bfloat16", "airbench-narrow"),
        *(Item(f"twice the same bits {net}", lambda net=net: trainings.twice(stage, net)) for net in ("airbench-narrow", "resnet8")),
        Item(SIDE_BY_SIDE, lambda: trainings.side_by_side(stage)),
        Item("a bad step is left out of a graph", lambda: trainings.bad_step(stage)),
        *graphs(["bisam-log"], "bfloat16", "vgg19-bn"),  # with dropout masks that both passes draw
        *graphs(GRAPHED[4:], "bfloat16"),
        Item("two processes", lambda: trainings.two_processes(stage)),
        Item("a batch shared by two processes", lambda: trainings.shared_batch(stage)),
        *steps(rows[4:]),
        *graphs(GRAPHED[2:], "float32"),
    ]  # fmt: skip
