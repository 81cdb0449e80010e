"""A stand-in for a CUDA graph: it notes every operation of torch in one call of a function, and runs them again on the same memory.

Nothing else comes back in a replay, as on a GPU: no line of Python, no number that Python held, no tensor that is made anew. And as on
a GPU the call itself leaves all memory as it was.
"""

import sys
from typing import ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

LOOKS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default, torch.ops.aten.equal.default}  # numbers for Python


def tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def place(tensor):
    return tensor.untyped_storage()._cdata


def caller():
    """The function of the package that is at work."""
    frame = sys._getframe()
    while not frame.f_globals["__name__"].startswith("bisam."):
        frame = frame.f_back
    return frame.f_code.co_qualname.partition(".<locals>")[0]


class Recording(TorchDispatchMode):
    """Notes what runs inside; ``before`` has the memory that was there already, as it was."""

    def __init__(self):
        super().__init__()
        self.operations, self.before, self.own, self.looks = [], {}, set(), set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation in LOOKS:
            self.looks.add(caller())
        # Aliases: what Python calls a tensor may look at other memory later.
        args, kwargs = tree_map_only(torch.Tensor, torch.ops.aten.detach.default, (args, kwargs or {}))
        given = {place(tensor): tensor.untyped_storage() for tensor in tensors((args, kwargs))}
        for where in given.keys() - self.own - self.before.keys():
            self.before[where] = given[where], given[where].clone()
        found = operation(*args, **kwargs)
        fresh = [tensor.detach() if place(tensor) not in given else None for tensor in tensors(found)]  # no view, nothing in place
        self.own |= {place(tensor) for tensor in fresh if tensor is not None}
        self.operations.append((operation, args, kwargs, fresh))
        return found


class Graph:
    """What stands in for :class:`bisam.training.graphs.CudaGraph`."""

    captured = 0  # in all, for tests that count
    looks: ClassVar[set] = set()  # functions of the package that gave a number to Python meanwhile

    def __init__(self, step, stream, generators=()):
        Graph.captured += 1
        states = [generator.get_state() for generator in generators]
        with Recording() as recording:
            step()
        self.operations = recording.operations
        Graph.looks |= recording.looks
        for storage, content in recording.before.values():
            storage.copy_(content)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)

    @torch.no_grad()
    def replay(self):
        for operation, args, kwargs, fresh in self.operations:
            again = tensors(operation(*args, **kwargs))
            for home, value in zip(fresh, again, strict=True):
                if home is not None:
                    home.copy_(value)
