"""What a method carries from one step to the next: its counters, averages, masks and random numbers."""

from __future__ import annotations

import copy

import torch

from .. import _checks

__all__ = ["Memory"]


class Memory:
    r"""The state of the choices of a recipe, kept by :class:`~bisam.step.optimizer.SharpnessAware` and saved with it.

    The choices themselves are frozen. Whatever changes while training, such as the average :math:`m_t` of a direction or
    the learned radius :math:`\rho_t`, is here, under the name of the axis that it belongs to.

    Args:
        base: the optimiser that moves the weights; its learning rate and state can be looked at.
        seed: of the masks and starts that a method draws. They come from generators of their own, so that a
            training draws the same dropout masks and batches whatever its method draws.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> memory = Memory(torch.optim.SGD([weight], lr=0.1), seed=0)
        >>> memory.state("radius")["rho"] = 0.05
        >>> memory.step, memory.lr, memory.rho
        (0, 0.1, 0.05)
    """

    def __init__(self, base: torch.optim.Optimizer, seed: int):
        self.base = _checks.part("base", base, torch.optim.Optimizer, "a torch optimiser")
        self.seed = _checks.whole("seed", seed, least=0)
        self.step = 0  # steps made so far
        self.known_lr: float | None = None  # the learning rate, while the base holds it as a tensor that must not be read
        self.named: dict[str, torch.Tensor] = {}  # the parameters of the step that is being made
        self._kept: dict[str, dict] = {}
        self._generators: dict[str, torch.Generator] = {}
        self._states: dict[str, torch.Tensor] = {}  # loaded ones, of devices not used yet (or not there)

    def state(self, axis: str) -> dict:
        """The values of one axis. Replace them, never edit a tensor in place: a step that fails is taken back."""
        return self._kept.setdefault(axis, {})

    @property
    def lr(self) -> float:
        """The learning rate of the base's first group, as it is now."""
        return float(self.base.param_groups[0]["lr"]) if self.known_lr is None else self.known_lr

    @property
    def rho(self) -> float | None:
        """The learned radius, where one is learned."""
        return self.state("radius").get("rho")

    def generator(self, device: torch.device) -> torch.Generator:
        """The generator of this memory on a device."""
        key = str(device)
        if key not in self._generators:
            try:
                self._generators[key] = torch.Generator(device).manual_seed(self.seed)
            except RuntimeError as error:
                raise ValueError(f"device {key} draws no random numbers, and the recipe needs some: {error}") from None
            saved = self._saved_for(device)
            if saved is not None:
                self._generators[key].set_state(self._states.pop(saved).cpu())
        return self._generators[key]

    def generators(self, device: torch.device) -> list[torch.Generator]:
        """The generators on a device that have drawn something."""
        return [generator for generator in self._generators.values() if generator.device.type == device.type]

    def _saved_for(self, device: torch.device) -> str | None:
        """The loaded state that a device goes on from: its own, or the only one of its kind, if a training has moved to another GPU."""
        alike = [name for name in self._states if torch.device(name).type == device.type]
        return str(device) if str(device) in alike else alike[0] if len(alike) == 1 else None

    def snapshot(self) -> dict[str, dict]:
        """What is kept at this moment, to come back to."""
        return {axis: dict(values) for axis, values in self._kept.items() if values}

    def restore(self, moment: dict[str, dict]) -> None:
        """Forgets what has been kept since :meth:`snapshot`."""
        self._kept = moment

    def restore_where(self, bad: torch.Tensor, moment: dict[str, dict]) -> None:
        """:meth:`restore` for the tensors that were kept then too, where a tensor on the device says so, without a look at it."""
        for axis, values in self._kept.items():
            homes = moment.get(axis, {})
            there = [name for name, value in values.items() if isinstance(value, torch.Tensor) and name in homes]
            values.update({name: torch.where(bad, homes[name].to(values[name]), values[name]) for name in there})

    def can_be_restored_where(self, moment: dict[str, dict]) -> bool:
        """Whether :meth:`restore_where` would leave what was there then: whatever has changed since is a tensor that was there."""
        return all(_is_like(values[name], moment.get(axis, {}).get(name)) for axis, values in self._kept.items() for name in values)

    def keep_in(self, moment: dict[str, dict]) -> None:
        """Writes the tensors that are kept now into those of an earlier moment, so that the next step finds them where this one did."""
        for axis, values in self._kept.items():
            for name, value in values.items():
                home = moment.get(axis, {}).get(name)
                if isinstance(home, torch.Tensor) and home is not value and home.shape == value.shape:
                    values[name] = home.copy_(value)

    def save(self) -> dict:
        """Everything as tensors and plain values."""
        states = {**self._states, **{device: generator.get_state() for device, generator in self._generators.items()}}
        return {"step": self.step, "seed": self.seed, "kept": self.snapshot(), "generators": states}

    def load(self, saved: dict) -> None:
        """Takes over what :meth:`save` wrote; tensors are copied, to where the weights are."""
        self.step, self.seed = saved.get("step", 0), saved.get("seed", self.seed)
        self._kept = {axis: {name: self._placed(value) for name, value in values.items()} for axis, values in saved.get("kept", {}).items()}
        self._generators = {}
        self._states = dict(saved.get("generators", {}))

    def _placed(self, value: object) -> object:
        """A copy, on the device of the weights; of weights on several devices each is left to what first uses it."""
        devices = {parameter.device for group in self.base.param_groups for parameter in group["params"]}
        copied = copy.deepcopy(value)
        return copied.to(devices.pop()) if isinstance(copied, torch.Tensor) and len(devices) == 1 else copied


def _is_like(value: object, before: object) -> bool:
    if isinstance(value, torch.Tensor):
        return isinstance(before, torch.Tensor) and value.shape == before.shape
    return before is not None and (value is before or value == before)
