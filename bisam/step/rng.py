"""The state of torch's random numbers, to draw the same ones again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .. import _checks

__all__ = ["RNGState"]


class RNGState:
    """The random state before a pass, so that another pass can draw the same dropout masks.

    Random numbers that are not drawn from torch's global generators (NumPy's, or a generator of your own) are not
    held.

    Args:
        device: where the model draws; the CPU's generator is always held too.

    Example:
        >>> state = RNGState()
        >>> first = torch.rand(2)
        >>> with state.replayed():
        ...     second = torch.rand(2)
        >>> bool((first == second).all()), bool((first == torch.rand(2)).any())
        (True, False)
    """

    def __init__(self, device: torch.device | str = "cpu"):
        _checks.part("device", device, (torch.device, str), 'a device such as "cpu"')
        try:
            self.device = torch.device(device)
            self._state = self._read()
        except (RuntimeError, AssertionError) as error:  # torch says in both ways that a device is not there
            raise ValueError(f"device must be one that this machine has, got {_checks.shown(device)}: {_checks.shown(error)}") from None

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Draws the same numbers again inside, and goes on outside as if nothing had been drawn."""
        after = self._read()
        self._write(self._state)
        try:
            yield
        finally:
            self._write(after)

    def has_moved(self) -> bool:
        """Whether random numbers have been drawn since."""
        return any(now is not None and not torch.equal(now, then) for now, then in zip(self._read(), self._state, strict=True))

    def _read(self) -> tuple[Tensor, Tensor | None]:
        # Nothing is computed on the meta device, and so nothing is drawn there.
        other = None if self.device.type in ("cpu", "meta") else torch.get_device_module(self.device).get_rng_state(self.device)
        return torch.get_rng_state(), other

    def _write(self, state: tuple[Tensor, Tensor | None]) -> None:
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.get_device_module(self.device).set_rng_state(state[1], self.device)
