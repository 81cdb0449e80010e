"""Several optimisers as one base, such as Muon for matrices and AdamW for the rest: one climb over all of their parameters."""

from __future__ import annotations

import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .. import _checks
from .modules import unwrapped


class Bases(torch.optim.Optimizer):
    """Optimisers that move the weights of one model together; made by ``SharpnessAware([muon, adamw])``.

    Groups, state and steps are those of the members, in their order. Whether all are stepped at once or each by hand, one after the
    other: it is one step, of one gradient.

    Args:
        members: optimisers that share no parameter.

    Raises:
        ValueError: a parameter that two of them hold.

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> bases = Bases([torch.optim.SGD([model.weight], lr=0.1), torch.optim.AdamW([model.bias], lr=0.01)])
        >>> [group["lr"] for group in bases.param_groups]
        [0.1, 0.01]
    """

    def __init__(self, members: list[torch.optim.Optimizer]):
        _check_disjoint(members)
        # Optimizer.__init__ is left out on purpose: it would make parameter groups beside those of the members.
        self.__setstate__({"members": list(members)})

    @property
    def param_groups(self) -> list[dict]:
        """The groups of all members."""
        return [group for member in self.members for group in member.param_groups]

    @property
    def state(self) -> dict:
        """The state of all members, by parameter."""
        return defaultdict(dict, {p: state for member in self.members for p, state in member.state.items()})

    @property
    def defaults(self) -> dict:
        """What all members have a default for, with that of the first."""
        first, *others = (member.defaults for member in self.members)
        return {key: value for key, value in first.items() if all(key in other for other in others)}

    def add_param_group(self, param_group: dict) -> None:
        """Refused: only the caller knows which member is to move them."""
        names = " or ".join(type(member).__name__ for member in self.members)
        raise TypeError(f"param_group must be given to the optimiser that is to move it: call add_param_group of {names}")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients of all parameters."""
        for member in self.members:
            member.zero_grad(set_to_none)

    def step(self, closure=None) -> None:
        """The step of every member that has not made it yet."""
        if closure is not None:
            raise TypeError("closure must be left out: several optimisers have one gradient")
        for member in [member for member in self.members if id(member) not in self._stepped]:
            member.step()

    def state_dict(self) -> dict:
        """The state of all members as of one optimiser, and what else a member has to say beside it."""
        state, groups, more = {}, [], []
        for member in self.members:
            saved = member.state_dict()
            first = sum(len(group["params"]) for group in groups)
            groups += [{**group, "params": [first + place for place in group["params"]]} for group in saved["param_groups"]]
            state.update({first + place: value for place, value in saved["state"].items()})
            more.append({key: value for key, value in saved.items() if key not in ("state", "param_groups")})
        return {"state": state, "param_groups": groups, **({"members": more} if any(more) else {})}

    def load_state_dict(self, state_dict: dict) -> None:
        """Gives every member its part of what :meth:`state_dict` wrote."""
        groups, more = list(state_dict["param_groups"]), state_dict.get("members", [{}] * len(self.members))
        wanted = sum(len(member.param_groups) for member in self.members)
        if len(groups) != wanted:
            raise ValueError(f"state_dict must hold {wanted} parameter groups, those of all members; got {len(groups)}")
        for member, extra in zip(self.members, more, strict=True):
            own, groups = groups[: len(member.param_groups)], groups[len(member.param_groups) :]
            places = {name: place for place, name in enumerate(name for group in own for name in group["params"])}
            state = {places[name]: value for name, value in state_dict["state"].items() if name in places}
            own = [{**group, "params": [places[name] for name in group["params"]]} for group in own]
            member.load_state_dict({"state": state, "param_groups": own, **extra})

    def begin(self) -> None:
        """A new gradient is there: each member may be stepped once again. A step that not all have made ends here."""
        if self._stepped:
            self._end()

    def _before(self, member: torch.optim.Optimizer, *_) -> None:
        if id(member) in self._stepped:
            others = " and ".join(type(other).__name__ for other in self.members if id(other) not in self._stepped)
            raise RuntimeError(f"{type(member).__name__} has made its step with this gradient; next is that of {others}")
        if not self._stepped:
            for hook in self._optimizer_step_pre_hooks.values():
                hook(self, (), {})

    def _after(self, member: torch.optim.Optimizer, *_) -> None:
        self._stepped.add(id(member))
        if len(self._stepped) == len(self.members):
            self._end()

    def _end(self) -> None:
        self._stepped.clear()
        for hook in self._optimizer_step_post_hooks.values():
            hook(self, (), {})

    def __getstate__(self) -> dict:
        return {"members": self.members}

    def __setstate__(self, state: dict) -> None:
        self.members, self._stepped = state["members"], set()
        self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks = OrderedDict(), OrderedDict()
        before, after = weakref.WeakMethod(self._before), weakref.WeakMethod(self._after)
        for member in self.members:  # whose hooks do not keep this object alive
            for hook in (
                member.register_step_pre_hook(lambda own, *_: before()(own) if before() else None),
                member.register_step_post_hook(lambda own, *_: after()(own) if after() else None),
            ):
                weakref.finalize(self, hook.remove)

    def __repr__(self) -> str:
        return f"Bases({self.members!r})"


def listed(base: object) -> list:
    """The members of a list of optimisers; anything else in a list of its own."""
    return list(base) if isinstance(base, (list, tuple)) and any(isinstance(one, torch.optim.Optimizer) for one in base) else [base]


def joined(members: list[torch.optim.Optimizer]) -> torch.optim.Optimizer:
    """Several optimisers as one; a single one as it is."""
    return members[0] if len(members) == 1 else Bases(members)


def members_of(base: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """The optimisers that move the weights: several, or the base itself."""
    return base.members if isinstance(base, Bases) else [base]


def begin(base: torch.optim.Optimizer) -> None:
    """A new gradient is on its way."""
    if isinstance(base, Bases):
        base.begin()


def _check_disjoint(members: list[torch.optim.Optimizer]) -> None:
    owners: dict[Tensor, str] = {}
    for k, member in enumerate(members):
        for g, group in enumerate(member.param_groups):
            names = group.get("param_names") or [f"parameter {place}" for place in range(len(group["params"]))]
            for name, parameter in zip(names, group["params"], strict=True):
                here = f"{_checks.plain(name)} of group {g} of {type(member).__name__} (base {k})"
                if parameter in owners:
                    raise ValueError(f"base must hold a parameter once: {here} is {owners[parameter]}")
                owners[parameter] = here


_DISPLACED: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # models whose weights stand elsewhere, in an open block


@contextmanager
def displaced(model: nn.Module) -> Iterator[None]:
    """Around the time in which the weights of a model stand elsewhere, and passes are made that others write."""
    inner = unwrapped(model)
    _DISPLACED.add(inner)
    try:
        yield
    finally:
        _DISPLACED.discard(inner)


def check_in_place(model: nn.Module) -> None:
    """An error for a model that the block of another optimiser has moved: two climbs would be longer than one."""
    if unwrapped(model) in _DISPLACED:
        raise RuntimeError(
            "model is moved already, by the open block of another SharpnessAware: two blocks are two climbs, each of its own length; for one "
            "climb over the parameters of several optimisers give them as a list, SharpnessAware([muon, adamw], recipe)"
        )
