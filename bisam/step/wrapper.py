"""One optimiser to the outside: groups, state and hooks are those of the base that is wrapped."""

from __future__ import annotations

import torch

from .. import _checks
from ..axes.recipe import Recipe, as_recipe
from . import checkpoints, doors
from .record import Diagnostics


class Wrapper(torch.optim.Optimizer):
    """Torch's interface around a ``base``. It has no groups and no state of its own, but what the method remembers in ``memory``."""

    @property
    def param_groups(self) -> list[dict]:
        """The base's parameter groups, one set also after loading a state."""
        return self.base.param_groups

    @property
    def state(self) -> dict:
        """The base's state, such as momentum."""
        return self.base.state

    @property
    def defaults(self) -> dict:
        """The base's defaults."""
        return self.base.defaults

    @property
    def recipe(self) -> Recipe:
        """The method; another one can be put in its place between two steps, and takes over what it can remember."""
        return self._recipe

    @recipe.setter
    def recipe(self, recipe: Recipe | str) -> None:
        recipe = as_recipe(recipe)
        recipe.check_base(self.base)
        self._recipe = recipe

    @property
    def rho(self) -> float:
        """The radius of the recipe; another one can be set between two steps."""
        return self.recipe.radius.rho

    @rho.setter
    def rho(self, rho: float) -> None:
        self.recipe = self.recipe.with_rho(rho)

    def add_param_group(self, param_group: dict) -> None:
        """Adds parameters to the base, and so to this optimiser."""
        self.base.add_param_group(param_group)

    def state_dict(self) -> dict:
        """The base's state, with the count of skipped steps and what the recipe remembers beside it, or on it where that would be lost."""
        own, saved = {"skipped": self.skipped, "memory": self.memory.save()}, self.base.state_dict()
        if checkpoints.is_asked():
            return checkpoints.loaded(saved, self.base, self.memory, self.recipe, own)
        return {**saved, checkpoints.KEY: own}

    def load_state_dict(self, state_dict: dict) -> None:
        """Loads what :meth:`state_dict` wrote, or the state of the base alone."""
        _checks.part("state_dict", state_dict, dict, "what state_dict() returns")
        if not {"state", "param_groups"} <= set(state_dict):
            raise ValueError(f"state_dict must hold state and param_groups, got {_checks.shown(list(state_dict))}")
        doors.check_state(state_dict)
        saved, own, named = checkpoints.unloaded(state_dict, self.base)
        if own is None and self.memory.step > 0 and checkpoints.is_asked():
            raise ValueError(
                "state_dict must hold what the recipe remembers, and has the state of the base alone: call get_state_dict of this "
                "optimiser first, as for a load in place, or load into opt.base"
            )
        own = saved.pop(checkpoints.KEY, {}) if own is None else own
        self.base.load_state_dict(saved)
        self.skipped = own.get("skipped", 0)
        self.memory.load(own.get("memory", {}))
        self.memory.named = {**self.memory.named, **named}

    def _initialised(self) -> bool:
        """Whether it is ``torch.distributed.checkpoint`` that wants a step, to have an empty state made, which is there then."""
        if not checkpoints.is_initialising(self.base):
            return False
        checkpoints.initialise(self.base, self.recipe)
        return True

    @property
    def skipped(self) -> int:
        """How many steps were skipped because a gradient was not finite."""
        return self._nonfinite.skipped

    @skipped.setter
    def skipped(self, count: int) -> None:
        self._nonfinite.skipped = count

    @property
    def nonfinite(self) -> str:
        """``"raise"`` or ``"skip"``, for a gradient that is not finite."""
        return self._nonfinite.mode

    @nonfinite.setter
    def nonfinite(self, mode: str) -> None:
        self._nonfinite.mode = _checks.choice("nonfinite", mode, ("raise", "skip"))

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Asked by a ``GradScaler`` before its step. It would otherwise ask the base, whose own way of unscaling knows nothing of two passes."""
        self._turn.check_scaler()
        return False

    @property
    def last(self) -> Diagnostics | None:
        """The record of the last step, where one is kept."""
        return self._judgement.last

    def __getattr__(self, name: str):
        if name.startswith("__") or "base" not in self.__dict__:
            raise AttributeError(name)
        try:
            return getattr(self.base, name)  # hooks and whatever else the base offers
        except AttributeError:
            raise AttributeError(doors.attribute(name) or f"{type(self).__name__!r} object has no attribute {name!r}") from None
