"""Stage two: what a step costs on this device, in seconds and in units of what no two-pass method can avoid."""

from __future__ import annotations

import functools
import time

import torch

from ..evidence.places import RESULTS
from ..gpu import parts, timing, whole_steps
from ..training.devices import exact_kernels
from .claimed import kinds
from .lines import Item, Stage, fresh_first, told


def main(stage: Stage) -> None:
    """All items in the order of what stage three and the reader need most, until the time is over."""
    with exact_kernels(stage.device):
        for item in stage.in_time(fresh_first(items(stage), stage.path, always=len(_of_claims(stage)))):
            started = time.monotonic()
            try:
                found = item.run()
            except Exception as error:
                found = {"error": told(error)}
            stage.note(item.name, **found, took=time.monotonic() - started)
            if stage.is_cuda:
                torch.cuda.empty_cache()


def items(stage: Stage) -> list[Item]:
    """What is measured: how to train what the claims ask of a GPU, whole steps in every mode, the published way, and the parts of a step."""
    nets = ("resnet8", "mlp") if stage.tiny else ("resnet56", "vgg19-bn", "mlp")
    modes = ("whole-step", "no")

    def step(net: str, mode: str, precision: str = "bfloat16") -> Item:
        words = "compiled" if mode == "default" else mode
        return Item(f"step {net} {precision} {words}", functools.partial(whole_steps.whole_steps, stage, net, mode, precision))

    def ascent(classes: int, compiled: bool) -> Item:
        return Item(f"ascent K={classes}{' compiled' if compiled else ''}", functools.partial(parts.ascent, stage, classes, compiled))

    ascents = (10,) if stage.tiny else (10, 100, 1000)
    steps = () if stage.tiny else reversed(nets)
    compiled = [*(ascent(k, True) for k in ascents), *(step(net, "default") for net in steps)]
    return [
        *_of_claims(stage),
        *(step(net, mode) for net in nets for mode in modes),
        *(Item(f"published way {net}", functools.partial(whole_steps.published_way, stage, net)) for net in nets[:2]),
        *(step(nets[0], mode, "float32") for mode in modes),
        Item("launches", lambda: parts.launches(stage, nets[0])),
        *(ascent(k, False) for k in (10, 100, 1000)),
        Item("perturb and restore", lambda: parts.perturb(stage, nets[0])),
        *compiled,  # last, for it takes the compiler a minute
    ]


def _of_claims(stage: Stage) -> list[Item]:
    """How many trainings of the first kind of run go side by side, and the prices of the other kinds."""
    folder = stage.out if (stage.out / "claims.toml").is_file() else RESULTS
    found = [(kind, timing.as_claimed(stage, run)) for kind, run in kinds(folder).items()]
    first = [Item(f"side by side: {kind}", functools.partial(whole_steps.side_by_side, stage, kind, run)) for kind, run in found[:1]]
    return first + [Item(f"price: {kind}", functools.partial(whole_steps.price, stage, kind, run)) for kind, run in found[1:]]
