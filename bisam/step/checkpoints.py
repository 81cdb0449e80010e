"""What a recipe remembers, where ``torch.distributed.checkpoint`` keeps it: that takes the state and the groups of an optimiser, and nothing else.

Tensors of a parameter's shape, such as an average of gradients, ride in the state of that parameter, and are cut into shards as it is. The
rest is small and rides in the first group, as one piece.
"""

from __future__ import annotations

import io
import re
import sys

import torch
from torch import Tensor

from ..axes.memory import Memory
from ..axes.recipe import Recipe
from ..axes.shards import local

KEY = "sharpness_aware"
_AXES = ("direction", "combination")


def is_initialising(base: torch.optim.Optimizer) -> bool:
    """Whether a step is the one by which ``torch.distributed.checkpoint`` makes an empty state: every rate and every gradient is 0.

    Asked where no gradient waits for the base, and so the numbers are read in no step of a training.
    """
    if base.state or any(float(group.get("lr", 0.0)) != 0 for group in base.param_groups):
        return False
    gradients = [p.grad for group in base.param_groups for p in group["params"] if p.requires_grad]
    return bool(gradients) and all(g is not None and not local(g).any() for g in gradients)


def initialise(base: torch.optim.Optimizer, recipe: Recipe) -> None:
    """The step that makes an empty state, of which the recipe takes no note."""
    base.step()
    _announce(base, _remembered(recipe))


def is_asked() -> bool:
    """Whether it is ``torch.distributed.checkpoint`` that asks, which would drop what lies beside state and groups."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "torch.distributed.checkpoint.state_dict":
            return True
        frame = frame.f_back
    return False


def loaded(saved: dict, base: torch.optim.Optimizer, memory: Memory, recipe: Recipe, own: dict) -> dict:
    """The state of the base, with what the recipe remembers on board.

    Args:
        saved: what the base has written.
        base: the base.
        memory: of the recipe; a tensor rides with the parameter that its name stood for in the last step.
        recipe: which axes remember something of each parameter: their places are there from the beginning, for a load in place.
        own: what is to be kept beside the state of the base.
    """
    parameters = [p for group in base.param_groups for p in group["params"]]
    kept = {axis: dict(values) for axis, values in own["memory"]["kept"].items()}
    riding = {axis: _by_parameter(kept.get(axis, {}), memory) for axis in {*kept, *_remembered(recipe)}}
    riding = {axis: found for axis, found in riding.items() if found or axis in _remembered(recipe)}
    names = {axis: [name for name, _ in found.values()] for axis, found in riding.items()}
    state = {place: dict(values) for place, values in saved["state"].items()}
    for axis, found in riding.items():
        for place, parameter in enumerate(parameters):
            if parameter.requires_grad:
                value = found[parameter][1] if parameter in found else torch.zeros_like(parameter, requires_grad=False)
                state.setdefault(place, {})[f"{KEY}_{axis}"] = value
        kept[axis] = {name: value for name, value in kept.get(axis, {}).items() if name not in names[axis]}
    _announce(base, list(riding))
    first, *others = saved["param_groups"]
    small = _packed({**own, "memory": {**own["memory"], "kept": kept}, "names": names})
    return {**saved, "state": state, "param_groups": [{**first, KEY: small}, *others]}


def unloaded(state_dict: dict, base: torch.optim.Optimizer) -> tuple[dict, dict | None, dict[str, Tensor]]:
    """The state of the base alone, what rode on it, and the parameters by the names that were kept; the inverse of :func:`loaded`."""
    groups = [{key: value for key, value in group.items() if key != KEY} for group in state_dict["param_groups"]]
    state = {place: _bare(values) for place, values in state_dict["state"].items()}
    state = {place: values for place, values in state.items() if values or not state_dict["state"][place]}
    plain = {**state_dict, "state": state, "param_groups": groups}
    small = next((group[KEY] for group in state_dict["param_groups"] if group.get(KEY)), None)
    if small is None:
        return plain, None, {}
    own, named = torch.load(io.BytesIO(small), weights_only=True), {}
    places = [place for group in groups for place in group["params"]]
    parameters = dict(zip(places, (p for group in base.param_groups for p in group["params"]), strict=False))
    for axis, names in own.pop("names").items():
        known = {_canonical(name): name for name in names}
        values = {place: state_dict["state"].get(place, {}).get(f"{KEY}_{axis}") for place in places}
        found = {known[place]: place for place in places if place in known and isinstance(values[place], Tensor)}
        if len(found) < len(names):
            raise ValueError(
                f"state_dict must hold what the {axis} of the recipe remembers of {len(names)} parameters, and has that of {len(found)}: "
                "torch.distributed.checkpoint drops it where it unflattens for an optimiser without state; use "
                "flatten_optimizer_state_dict=False"
            )
        own["memory"]["kept"].setdefault(axis, {}).update({name: values[place] for name, place in found.items()})
        named.update({name: parameters[place] for name, place in found.items()})
    return plain, own, named


def _remembered(recipe: Recipe) -> list[str]:
    """The axes that remember something of each parameter."""
    return [axis for axis in _AXES if getattr(recipe, axis) is not None and getattr(recipe, axis).has_one_climb]


def _announce(base: torch.optim.Optimizer, axes: list[str]) -> None:
    """Leaves names where the checkpoint looks for those that it has to load, in states that the base has made."""
    base.param_groups[0].setdefault(KEY, b"")
    for values in base.state.values():
        if values:
            values.update({f"{KEY}_{axis}": 0 for axis in axes})


def _by_parameter(values: dict, memory: Memory) -> dict[Tensor, tuple[str, Tensor]]:
    """Name and value for each parameter that has a value of its shape."""
    named = {name: memory.named[name] for name, value in values.items() if isinstance(value, Tensor) and name in memory.named}
    return {p: (name, values[name]) for name, p in named.items() if values[name].shape == p.shape}


def _bare(values: dict) -> dict:
    return {key: value for key, value in values.items() if not str(key).startswith(KEY)}


def _canonical(name: str) -> str:
    """A name as the checkpoint gives it, without the modules that wrap others."""
    return re.sub(r"(_orig_mod|_checkpoint_wrapped_module)\.", "", name)


def _packed(own: dict) -> bytes:
    file = io.BytesIO()
    torch.save(own, file)
    return file.getvalue()
