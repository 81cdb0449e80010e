"""What is asked of an optimiser in a training loop."""

from __future__ import annotations

import dataclasses
import inspect
import io
from collections.abc import Callable

import torch
from torch import nn

from .invariants import ROUNDING, invariant
from .setting import Candidate, N, NotApplicable, flat, gap, largest, net, sam_by_hand, samples

SGD = torch.optim.SGD
MIXED = 1e-3  # what weights may differ by after some steps in half precision, where a rounding more or less is a few thousandths of a gradient


@invariant(0.0)
def moves(candidate: Candidate) -> float:
    """A step moves every weight matrix; without this the other checks would say little. Measured: the number of those that stand still."""
    model = net()
    before = [p.detach().clone() for p in model.parameters()]
    candidate.trained(candidate.made(model), model, range(1))
    return sum(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


@invariant(ROUNDING)
def groups(candidate: Candidate) -> float:
    """A parameter group with a learning rate of 0 stands still. Measured: the largest move in it."""
    model = net()
    before = model[-1].weight.detach().clone()
    params = [{"params": list(model[:-1].parameters())}, {"params": list(model[-1].parameters()), "lr": 0.0}]
    candidate.trained(candidate.made(model, params=params), model)
    return largest(model[-1].weight.detach() - before)


@invariant(ROUNDING)
def frozen(candidate: Candidate) -> float:
    """Parameters without ``requires_grad`` stay, and the others are trained as without them. Measured: the largest difference of a weight.

    Against two plain passes for SAM; for a relative, the largest move of what is frozen.
    """
    return _with_idle(candidate, lambda model: model[0].weight.requires_grad_(False), "0.weight")


@invariant(ROUNDING)
def unused(candidate: Candidate) -> float:
    """Parameters that no pass uses, whose gradient is ``None``, stay, and the others are trained as without them. Measured: as in ``frozen``."""
    return _with_idle(candidate, lambda model: model.register_parameter("spare", nn.Parameter(torch.ones(3).double())), "spare")


def _with_idle(candidate: Candidate, change: Callable[[nn.Module], object], idle: str) -> float:
    one, other = net(), net()
    change(one), change(other)
    before = dict(one.named_parameters())[idle].detach().clone()
    candidate.trained(candidate.made(one), one)
    moved = largest(dict(one.named_parameters())[idle].detach() - before)
    if not candidate.is_sam:
        return moved
    return max(moved, gap(one, sam_by_hand(other, SGD(other.parameters(), lr=0.1), candidate.rho)))


# -- accidents ------------------------------------------------------------------------------------------------------------


@invariant(0.0)
def not_finite(candidate: Candidate) -> float:
    """A gradient that is not finite does not destroy the weights, and training goes on after it; an error is fine. Measured: the weights that are no numbers, or 1 if nothing moves any more.

    This is more than a plain optimiser promises.
    """
    model = net()
    optimizer = candidate.made(model, momentum=0.9)
    candidate.trained(optimizer, model, range(1))
    bad = samples(1)
    bad.inputs[0, 0] = torch.inf
    try:
        candidate.style(optimizer, model, bad)
    except Exception:  # that is one of the two ways; the other is to skip the step
        optimizer.zero_grad()
    before = flat(model)
    if not before.isfinite().all():
        return float((~before.isfinite()).sum())
    candidate.trained(optimizer, model, range(2, 3))
    lost = float((~flat(model).isfinite()).sum())
    return lost or float(torch.equal(flat(model), before))


@invariant(0.0)
def zero_gradient(candidate: Candidate) -> float:
    r"""A gradient of zero has no direction: nothing climbs and nothing moves. Measured: the largest move of a weight.

    Source: :math:`\nabla L / \lVert\nabla L\rVert` is 0 / 0 there, which public implementations keep from being NaN.
    """
    model = net()
    with torch.no_grad():
        model[-1].weight.zero_()
    before = flat(model)[: -model[-1].bias.numel()]  # what comes before the last layer has no gradient
    candidate.style(candidate.made(model, params=list(model[:-1].parameters())), model, samples())
    return largest(flat(model)[: len(before)] - before)


# -- what frameworks do with an optimiser ---------------------------------------------------------------------------------


@invariant(0.0)
def resume(candidate: Candidate) -> float:
    """A run that was saved by ``state_dict`` and resumed ends at the bits of the uncut one. Measured: the largest difference of a weight in float32."""

    def begun():
        model = net(dtype=torch.float32)
        return model, candidate.made(model, momentum=0.9)

    (uncut, whole), (first, before) = begun(), begun()
    candidate.trained(whole, uncut, range(6))
    candidate.trained(before, first, range(3))
    file = io.BytesIO()
    torch.save([first.state_dict(), before.state_dict()], file)
    file.seek(0)
    second, after = begun()
    for part, state in zip((second, after), torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    return gap(candidate.trained(after, second, range(3, 6)), uncut)


@invariant(ROUNDING)
def scheduler(candidate: Candidate) -> float:
    """A scheduler of torch attaches, and what it sets is the learning rate of the next step: at 0 nothing moves. Measured: the largest move then."""
    model = net()
    optimizer = candidate.made(model)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: float(epoch == 0))
    candidate.trained(optimizer, model, range(1))
    decay.step()
    before = flat(model)
    candidate.trained(optimizer, model, range(1, 2))
    return largest(flat(model) - before)


@invariant(ROUNDING)
def accumulation(candidate: Candidate) -> float:
    """A batch in two parts, whose gradients are added up in both passes, makes the step of the whole batch. Measured: the largest difference of a weight."""
    one, other, seen = net(), net(), []
    one.register_forward_pre_hook(lambda model, given: seen.append(len(given[0])))
    optimizer = candidate.made(one)
    for k in range(3):
        candidate.style(optimizer, one, samples(k).in_parts(2))
    if max(seen) == N:
        raise NotApplicable("this style does not go through loss_fn.parts")
    return gap(one, candidate.trained(candidate.made(other), other, range(3)))


@invariant(MIXED)
def bfloat16(candidate: Candidate) -> float:
    """Under autocast in bfloat16 the second pass sees the raised weights. Measured: the largest difference of a weight from two plain passes; for a relative, the weights that are no numbers."""
    return _mixed(candidate, torch.bfloat16)


@invariant(MIXED)
def float16(candidate: Candidate) -> float:
    """With a ``GradScaler`` in float16 the steps are those without one. Measured: as in ``bfloat16``."""
    return _mixed(candidate, torch.float16, scaler=_scaler(candidate, 2.0**8))


@invariant(0.0)
def overflow(candidate: Candidate) -> float:
    """Where scaled gradients overflow, the step is left out, the weights are as before and the scale is halved. Measured: the largest move of a weight, or 1 if the scale stays."""
    model = net(dtype=torch.float32)
    before, scaler = flat(model), _scaler(candidate, 2.0**40)
    candidate.style(candidate.made(model), model, samples(dtype=torch.float32, autocast=torch.float16), scaler=scaler)
    return max(largest(flat(model) - before), float(scaler.get_scale() != 2.0**39))


def _scaler(candidate: Candidate, scale: float) -> torch.amp.GradScaler:
    if "scaler" not in inspect.signature(candidate.style).parameters:
        raise NotApplicable("this style takes no scaler")
    return torch.amp.GradScaler("cpu", init_scale=scale)


def _mixed(candidate: Candidate, dtype: torch.dtype, **more) -> float:
    wide = dataclasses.replace(candidate, rho=10 * candidate.rho)  # far enough to be seen in half precision
    one, other = net(dtype=torch.float32), net(dtype=torch.float32)
    optimizer = wide.made(one)
    for k in range(3):
        wide.style(optimizer, one, samples(k, dtype=torch.float32, autocast=dtype), **more)
    if not candidate.is_sam:
        return float((~flat(one).isfinite()).sum())
    return gap(one, sam_by_hand(other, SGD(other.parameters(), lr=0.1), wide.rho, range(3), autocast=dtype))
