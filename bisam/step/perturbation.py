"""Moving weights away from where they stand, and putting them back: to the bit, and in the same storage."""

from __future__ import annotations

import sys

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..axes.shards import locals_of

# Below so many entries in all, copying costs less than finding out whether it can be avoided.
WORTH_A_LOOK = 1_000_000


class Displacement:
    r"""Parameters that are moved by :math:`\epsilon` and come back exactly.

    .. math:: w \to w + \epsilon \to w

    Subtracting :math:`\epsilon` again would change the last digits, so the old values are kept. There are two ways:

    - The values are copied, the parameters moved in place, and the copies written back. Views of a parameter, flattened
      buffers and captured graphs see the move.
    - Where nobody else sees the storage of a parameter (on the CPU, where this can be found out cheaply), the sum
      :math:`w + \epsilon` is made in the memory of :math:`\epsilon`, and the parameter looks at it until it comes back. Nothing is copied.
    """

    def __init__(self):
        # Copies are kept from step to step: fresh memory costs more than the copying.
        self._copies = WeakTensorKeyDictionary()
        self._away: list[Tensor] = []
        self._homes: list[Tensor] = []
        self._is_copied = False

    @torch.no_grad()
    def leave(self, parameters: list[Tensor]) -> None:
        """Remembers which parameters are to move. Nothing moves yet."""
        self._away = parameters

    @torch.no_grad()
    def add(self, parameters: list[Tensor], moves: list[Tensor]) -> None:
        """Moves parameters, all of those of :meth:`leave` the first time; the memory of the moves belongs to this object from now on."""
        if self._homes or self._is_copied:
            _move(parameters, moves)
        elif len(parameters) == len(self._away) and _may_trade_places(parameters, moves):
            torch._foreach_add_(moves, parameters)
            self._homes = [parameter.data for parameter in parameters]
            _look_at(parameters, moves)
        else:
            self._copy()
            _move(parameters, moves)

    @property
    def is_away(self) -> bool:
        """Whether parameters have left."""
        return bool(self._away)

    def original(self, parameter: Tensor) -> Tensor:
        """The values of a parameter before it left; the parameter itself if it has not."""
        if self._homes or self._is_copied:
            for k, other in enumerate(self._away):
                if other is parameter:
                    return self._homes[k] if self._homes else self._copies[parameter]
        return parameter

    @torch.no_grad()
    def back(self) -> None:
        """Puts the parameters back; if none had left, nothing happens."""
        away, homes = self._away, self._homes
        copied, self._away, self._homes = self._is_copied, [], []
        if homes:
            _look_at(away, homes)
        elif copied:
            _write(away, [self._copies[parameter] for parameter in away])
        self._is_copied = False

    def _copy(self) -> None:
        for parameter in self._away:
            copy = self._copies.get(parameter)
            if copy is None or not _alike(copy, parameter):
                self._copies[parameter] = torch.empty_like(parameter, requires_grad=False)
        if self._away:
            _write([self._copies[parameter] for parameter in self._away], self._away)
        self._is_copied = True


def are_unheld(tensors: dict[str, Tensor]) -> bool:
    """Whether nobody but the dictionary holds the tensors or their memory, so that it may be written to."""
    # The references that a tensor has in here are counted with one that nobody else holds.
    alone = max(sys.getrefcount(tensor) for tensor in {"": torch.empty(0)}.values())
    return all(sys.getrefcount(tensor) <= alone for tensor in tensors.values()) and all(
        _is_alone(tensor) for tensor in tensors.values()
    )


def _move(tensors: list[Tensor], moves: list[Tensor]) -> None:
    torch._foreach_add_(locals_of(tensors), locals_of(moves))


def _write(tensors: list[Tensor], values: list[Tensor]) -> None:
    torch._foreach_copy_(locals_of(tensors), locals_of(values))


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device


def _may_trade_places(parameters: list[Tensor], moves: list[Tensor]) -> bool:
    """Whether each parameter may look at the memory of its move for a while, unseen by anybody else."""
    if sum(parameter.numel() for parameter in parameters) < WORTH_A_LOOK:
        return False
    return all(
        p.device.type == "cpu"
        and type(p.data) is Tensor
        and _alike(p, m)
        and p.is_contiguous()
        and m.is_contiguous()
        and _is_alone(p)
        and _is_alone(m)
        for p, m in zip(parameters, moves, strict=True)
    )


def _is_alone(tensor: Tensor) -> bool:
    """Whether no other tensor shares the memory, as a view or a flattened buffer would."""
    count = getattr(torch._C, "_storage_Use_Count", None)
    if count is None:
        return False
    storage = tensor.untyped_storage()
    return storage.nbytes() == tensor.nbytes and count(storage._cdata) <= 2  # this tensor and the handle just made


def _look_at(parameters: list[Tensor], values: list[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data = value
    # A graph that was built before must not be run backward with the other values unnoticed.
    torch.autograd.graph.increment_version(parameters)
