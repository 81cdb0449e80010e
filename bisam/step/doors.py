"""The lines of other implementations of SAM, each refused with the line that does the same here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from .. import _checks

_BLOCK = """
    with opt.perturbed(model):
        loss_fn(model(x), y).backward()
    opt.step(); opt.zero_grad()"""
_ATTRIBUTES = {
    **dict.fromkeys(
        ("first_step", "ascent_step", "perturb_weights"),
        f"after the first backward pass a block is both steps, and the second backward pass stands in it:{_BLOCK}",
    ),
    **dict.fromkeys(
        ("second_step", "descent_step", "un_perturb", "unperturb"),
        f"the end of a block puts the weights back, and the base moves them after it:{_BLOCK}",
    ),
    **dict.fromkeys(
        ("_grad_norm", "grad_norm"), "SharpnessAware(base, recipe, record=True) keeps the norms of each step: opt.last.ascent_norm"
    ),
    **dict.fromkeys(("base_optimizer", "optimizer"), "the base is opt.base; schedulers attach to opt as well"),
    **dict.fromkeys(
        ("disable_running_stats", "enable_running_stats"), "leave the line out: the second pass does not count in the statistics of batch norm"
    ),
    **dict.fromkeys(
        ("set_closure", "update_rho_t", "gradient_decompose"),
        "the recipe bisam.GSAM does this in opt.step(bisam.Batch(model, x, y)), and its radius follows the learning rate",
    ),
}


def attribute(name: str) -> str | None:
    """What to write instead of an attribute that optimisers of others have; ``None`` for any other name."""
    return f"opt.{name} is of another implementation of SAM; here {_ATTRIBUTES[name]}" if name in _ATTRIBUTES else None


def checked_base(base: object, recipe: object, rho: float | None, theirs: Mapping[str, object], wrapper: type) -> torch.optim.Optimizer:
    """The base itself, or a ``TypeError`` with the lines that replace those of others, for a base that is none and for arguments that are not ours."""
    if isinstance(base, torch.optim.Optimizer):
        if isinstance(base, torch.optim.LBFGS):
            raise TypeError("base must make its step from one gradient; LBFGS evaluates the loss itself")
        if isinstance(base, wrapper):
            raise TypeError(f"base must be a torch optimiser that is not wrapped yet, got {type(base).__name__}")
        if hasattr(base, "first_step") and hasattr(base, "second_step"):
            raise TypeError(f"base must be the optimiser that moves the weights; {type(base).__name__} makes two passes itself")
        for name, value in theirs.items():
            raise TypeError(_argument(name, value, base))
        return base
    wanted = f"base must be a torch optimiser that is not wrapped yet, got {type(base).__name__}"
    if isinstance(base, type) or not (theirs or isinstance(recipe, type) or _are_parameters(base)):
        raise TypeError(wanted)
    made = theirs.get("base_optimizer", recipe)
    made = f"torch.optim.{made.__name__}" if isinstance(made, type) else "torch.optim.SGD"
    settings = ", ".join(f"{name}={value!r}" for name, value in theirs.items() if name not in ("base_optimizer", "adaptive"))
    method, usual = ('"asam-all"', 2.0) if theirs.get("adaptive") else ('"sam"', 0.05)
    raise TypeError(
        f"{wanted}; make it first, and wrap it then:\n"
        f"    base = {made}(model.parameters(), {_checks.plain(settings or 'lr=0.1')})\n"
        f"    opt = bisam.SharpnessAware(base, {method}, rho={_checks.shown(usual if rho is None else rho)})"
    )


def check_state(state_dict: Mapping[str, object]) -> None:
    """A ``ValueError`` for what another implementation has saved: its groups would be taken for balls of their own."""
    groups = [group for group in state_dict["param_groups"] if isinstance(group, Mapping)]
    if "sharpness_aware" not in state_dict and any("adaptive" in group and "rho" in group for group in groups):
        raise ValueError(
            "state_dict must be of this optimiser or of its base, and that of another SAM is neither: opt.load_state_dict(theirs.base_optimizer.state_dict()) "
            "takes over the state of its base, after `for group in theirs.param_groups: del group['rho'], group['adaptive']`"
        )


def _argument(name: str, value: object, base: torch.optim.Optimizer) -> str:
    if name == "adaptive":
        instead = 'is a recipe: bisam.SharpnessAware(base, "asam-all", rho=2.0), or bisam.ASAM, which has the eta of its paper' if value else "can be left out"
        return f"adaptive={_checks.shown(value)} {instead}"
    if name in base.defaults:
        return f"{name} is of the base: {type(base).__name__}(model.parameters(), {name}={_checks.shown(value)})"
    return f"{name} is no argument of SharpnessAware; those are base, recipe, rho, nonfinite, seed, per_worker, record and hold"


def _are_parameters(base: object) -> bool:
    """What others take in this place: parameters, groups of them, or the generator of them."""
    if isinstance(base, (list, tuple)):
        return bool(base) and all(isinstance(entry, (Tensor, Mapping)) for entry in base)
    return isinstance(base, nn.Module) or (isinstance(base, Iterable) and not isinstance(base, (str, bytes, Mapping, Tensor)))


def instead_of_a_batch(given: object) -> str:
    """What to write where ``step`` was given something else than a batch; empty if nobody can know."""
    if isinstance(given, Tensor) and given.ndim == 0:
        return (
            f"; a loss cannot be evaluated again at w + eps: opt.step(bisam.Batch(model, x, y)) does, and after loss.backward() so does a block{_BLOCK}"
        )
    if isinstance(given, (tuple, list)) and len(given) == 2 and all(isinstance(entry, Tensor) for entry in given):
        return "; with the (inputs, targets) of a loader: opt.step(bisam.Batch(model, *batch))"
    if isinstance(given, Mapping):
        return '; with the dictionary of a loader: opt.step(bisam.Batch(model, batch["inputs"], batch["labels"]))'
    if isinstance(given, Tensor):
        return "; the tensor is its inputs or its targets: opt.step(bisam.Batch(model, x, y))"
    return ""
