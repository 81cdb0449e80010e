"""A task, networks and runs that train in milliseconds, and what two equal trainings share."""

import dataclasses
import math
import signal
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from bisam import RECIPES, SAM, SharpnessAware
from bisam.training import Run, models, weights_digest
from bisam.training.data import Data, Split

NETS = ("small_conv", "mlp", "dropping")


def blobs(n, seed):
    """Four by four pixels of three classes that overlap."""
    draw = torch.Generator().manual_seed(seed)
    targets = torch.arange(n) % 3
    return Split(torch.randn(n, 1, 4, 4, generator=draw) + 0.7 * (targets - 1)[:, None, None, None], targets)


TINY = Data("tiny", 3, blobs(47, 0), blobs(30, 1), blobs(30, 2))


def run(**changes):
    return Run(**{"data": "tiny", "model": "mlp", "epochs": 4, "batch_size": 8, "lr": 0.05, **changes})


def outcome(history):
    """All that two equal trainings share."""
    right = {which: bits.tolist() for which, bits in history.right.items()}
    return weights_digest(history.model), history.rows, history.skipped, right, history.fitted


def with_norm(shape, classes):
    """A network with batch norm and dropout."""
    inside = [nn.Linear(math.prod(shape), 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, classes)]
    return nn.Sequential(nn.Flatten(), *inside)


def dropping(shape, classes):
    """A perceptron with dropout."""
    return models.mlp(shape, classes, 16, dropout=0.5)


def kinds(recipe):
    """The axes of a recipe with the classes of their parts, and with the numbers and switches that are no parts."""
    values = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe) if field.name != "name"}
    return {(axis, type(value) if dataclasses.is_dataclass(value) else value) for axis, value in values.items()}


def check_masks(make, batch_of, seeded):
    """Both passes of a network with dropout draw the same masks, and a radius of zero is the base to the bit."""
    found = {}
    for name, recipe in (("base", "sgd"), ("zero", SAM.with_rho(0.0)), ("too small", SAM.with_rho(1e-30)), ("climbs", "sam")):
        seeded(0)
        model = make()
        opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), recipe)
        for _ in range(3):
            batch = batch_of(model)
            opt.step(batch)
        found[name] = weights_digest(model)
        if name == "too small":  # to move a weight: the second pass is the first one again
            assert torch.equal(batch.at_w, batch.at_worst) and not torch.equal(batch.at_w, batch.logits())
    assert found["base"] == found["zero"] == found["too small"] != found["climbs"]


def of_each_kind(names):
    """Of some recipes the first with each part: what a training has to carry depends on the parts, not on the row."""
    found, seen = [], set()
    for name in names:
        if not kinds(RECIPES[name]) <= seen:
            found.append(name)
            seen |= kinds(RECIPES[name])
    return found


CHILD = """
import os, signal, sys
import small, torch
from bisam import SharpnessAware
from bisam.training import data, fit, models
torch.set_num_threads(1)  # as in this process: the order of sums depends on it
data.DATA["tiny"] = lambda: small.TINY
models.MODELS["dropping"] = small.dropping


def dying(where, name, count):
    call, calls = getattr(where, name), []
    def dies(*arguments, **named):
        calls.append(0)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **named)
    setattr(where, name, dies)

places = {"save": torch, "step": SharpnessAware}
for moment, count, recipe, path in zip(*[iter(sys.argv[1:])] * 4):
    if (child := os.fork()) == 0:  # nothing has been computed yet: no thread of torch's is there to be lost
        dying(places.get(moment, os), moment, int(count))
        fit(small.run(recipe=recipe), path)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def killed(cases):
    """Trains in processes of their own, one a case of (function, call, recipe, path): each kills itself at that call of the function."""
    words = [str(word) for case in cases for word in case]
    done = subprocess.run([sys.executable, "-c", CHILD, *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    assert [int(line) for line in done.stdout.split()] == [-signal.SIGKILL] * len(cases), done.stderr
