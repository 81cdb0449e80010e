"""What a pass may move beside the weights, as it was before: buffers, frozen parameters, attributes of modules."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable
from functools import cache
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

# How frozen parameters were left by the last held pass, and whether they have moved in one, by module and name.
_SEEN: WeakKeyDictionary[nn.Module, dict[str, tuple[tuple, bool]]] = WeakKeyDictionary()

_OF_ALL_MODULES = frozenset(vars(nn.Module()))
_VALUES = (Tensor, int, float, str, tuple, list, dict, deque, set, type(None))
_FILL = {list: list.extend, deque: deque.extend, set: set.update, dict: dict.update, OrderedDict: OrderedDict.update, defaultdict: dict.update}


class Snapshot:
    """Copies of tensors, to write them back: those of one type and device at one go."""

    def __init__(self, tensors: list[Tensor]):
        groups: dict[tuple, list[Tensor]] = {}
        for tensor in tensors:
            groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        self._groups = [(group, [torch.empty_like(tensor, requires_grad=False) for tensor in group]) for group in groups.values()]
        with torch.no_grad():
            for group, copies in self._groups:
                torch._foreach_copy_(copies, group)

    def restore(self) -> None:
        """Writes the copies back."""
        with torch.no_grad():
            for group, copies in self._groups:
                torch._foreach_copy_(group, copies)


class Before:
    """The state of a model before a pass.

    Args:
        model: it and the modules inside it are met now.
        own: the parameters that an optimiser moves, which are left alone unless they are frozen; ``None`` for all that require a gradient.
        in_block: whether code of others runs inside, and not the model alone.
    """

    def __init__(self, model: nn.Module, own: Iterable[Tensor] | None, in_block: bool):
        self._met: set[nn.Module] = set()
        self._buffers: list[tuple[dict, dict]] = []
        self._attributes: list[Attributes] = []
        self._snapshots: list[Snapshot] = []
        self.frozen = Frozen(own, in_block)
        self.meet(model, with_attributes=True)

    def meet(self, model: nn.Module, with_attributes: bool = False) -> None:
        """Remembers a module and those inside it, unless it was met before."""
        if model in self._met:
            return  # the quick answer in a block, at every call of every module
        tensors: list[Tensor] = []
        modules = list(model.modules())
        for module in modules:  # it grows
            if module in self._met:
                continue
            self._met.add(module)
            if module._buffers:
                self._buffers.append((module._buffers, dict(module._buffers)))
                tensors += [buffer for buffer in module._buffers.values() if buffer is not None]
            if module._parameters:
                tensors += self.frozen.meet(module)
            if with_attributes and not _is_torchs(type(module)):
                self._attributes.append(Attributes(module))
                tensors += self._attributes[-1].tensors
                modules += [inner for hidden in self._attributes[-1].hidden for inner in hidden.modules()]
        self._snapshots.append(Snapshot([tensor for tensor in tensors if _can_be_written(tensor)]))

    def put_back(self) -> None:
        """All is as it was, and in the same memory."""
        self.frozen.come_home()
        for snapshot in self._snapshots:
            snapshot.restore()
        self.frozen.note()
        for now, before in self._buffers:
            for name in set(now.keys()) - before.keys():
                del now[name]
            for name, buffer in before.items():  # those of a scripted module are no dictionary
                now[name] = buffer
        for attributes in self._attributes:
            attributes.put_back()


class Attributes:
    """The attributes of one module that are plain values, and what the containers among them hold."""

    def __init__(self, module: nn.Module):
        self._now, self._before = vars(module), dict(vars(module))
        self._known = [(n, v) for n, v in self._before.items() if n not in _OF_ALL_MODULES and isinstance(v, _VALUES)]
        self._contents = [(value, value.copy()) for _, value in self._known if type(value) in _FILL]
        entries = [entry for _, value in self._known for entry in _entries(value)] + list(self._before.values())
        self.hidden = [entry for entry in entries if isinstance(entry, nn.Module)]  # a teacher that is to be no part of the model
        self.tensors = [value for _, value in self._known if type(value) is Tensor and value.layout is torch.strided]

    def put_back(self) -> None:
        """They refer to what they did; a plain value that was not there is gone."""
        for name in self._now.keys() - self._before.keys():
            if isinstance(self._now[name], _VALUES):
                del self._now[name]
        self._now.update(self._known)
        for container, content in self._contents:
            container.clear()
            _FILL[type(container)](container, content)


class Frozen:
    """Frozen parameters, which a forward pass may move all the same, as that of a momentum encoder does.

    Copied are those that have moved since the last held pass, as they do in the first pass of a step, and those that have moved in one.
    Those that were never met are watched: they are copied when somebody is about to write to them. The others take no memory.
    """

    def __init__(self, own: Iterable[Tensor] | None, in_block: bool):
        self._own = None if own is None else {id(parameter) for parameter in own}
        self._in_block = in_block  # whether code of others runs inside, which may write to them beside the model
        self._met: list[tuple[dict, str, Tensor, tuple]] = []
        self._homes: dict[Tensor, Tensor] = {}  # the memory that they come back to, of those that may move
        self._watched: dict[int, list[Tensor]] = {}  # by the address of their memory
        self._caught: dict[Tensor, Snapshot] = {}
        self._movers: set[Tensor] = set()
        self._surprises: list[str] = []

    def meet(self, module: nn.Module) -> list[Tensor]:
        """Takes note of the frozen parameters of a module; returns those that are to be copied."""
        copied, seen = [], None
        for name, parameter in module._parameters.items():
            if parameter is None or (parameter.requires_grad and (self._own is None or id(parameter) in self._own)):
                continue
            if parameter.is_inference() or nn.parameter.is_lazy(parameter):
                continue
            seen = _SEEN.setdefault(module, {}) if seen is None else seen
            state = _state(parameter)
            self._met.append((seen, name, parameter, state))
            last, is_mover = seen.get(name, (state, False))
            if name not in seen and _is_plain(parameter):
                self._watched.setdefault(parameter.untyped_storage()._cdata, []).append(parameter)
            elif is_mover or last != state:
                copied.append(parameter)
            else:
                continue
            self._homes[parameter] = parameter.data
        return copied

    @property
    def has_unknown(self) -> bool:
        """Whether some have to be watched."""
        return bool(self._watched)

    def about_to_be_written(self, tensor: Tensor) -> None:
        """Copies the watched parameters in whose memory a tensor is."""
        for parameter in self._watched.pop(tensor.untyped_storage()._cdata, ()) if _is_plain(tensor) else ():
            self._caught[parameter] = Snapshot([parameter])
            self._movers.add(parameter)  # also where it gets no new version

    def come_home(self) -> None:
        """Those that may have moved are in the memory in which they were, with what was caught; says which should not have."""
        for seen, name, parameter, state in self._met:
            if _state(parameter) == state:
                continue
            self._movers.add(parameter)
            is_of_the_block = self._in_block and name in seen and seen[name][0] == state  # the first pass has not moved it
            if parameter not in self._homes or is_of_the_block:
                self._surprises.append(f"{name} of shape {tuple(parameter.shape)}")
            if parameter in self._homes and parameter.data_ptr() != state[-1]:
                parameter.data = self._homes[parameter]
        for snapshot in self._caught.values():
            snapshot.restore()

    def note(self) -> None:
        """How they are left, to find what moves until the next held pass."""
        for seen, name, parameter, _ in self._met:
            is_mover = parameter in self._movers
            if name not in seen or is_mover or parameter in self._homes:
                seen[name] = _state(parameter), is_mover or (name in seen and seen[name][1])

    def check(self) -> None:
        """An error where something has moved that was not copied, or that only the code of a block has moved."""
        if self._surprises:
            raise RuntimeError(
                f"{self._surprises[0]} is no parameter that the optimiser moves, yet has moved between the two passes and not in the first: move it "
                "after opt.step(), or in every forward pass"
            )


class Watch(TorchDispatchMode):
    """Inside, frozen parameters are copied just before somebody writes to them, in whatever way."""

    supports_higher_order_operators = True

    def __init__(self, frozen: Frozen):
        super().__init__()
        self._frozen = frozen

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        options = options or {}
        for argument in function._schema.arguments if hasattr(function, "_schema") else ():
            if argument.alias_info is not None and argument.alias_info.is_write:
                place = function._schema.arguments.index(argument)
                value = arguments[place] if place < len(arguments) else options.get(argument.name)
                for tensor in value if isinstance(value, (list, tuple)) else [value]:
                    if isinstance(tensor, Tensor):
                        self._frozen.about_to_be_written(tensor)
        return function(*arguments, **options)


def _state(parameter: Tensor) -> tuple:
    """What changes when a tensor is written to, or looks at other memory."""
    return id(parameter), parameter._version, parameter.data_ptr() if _is_plain(parameter) else 0


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided


def _can_be_written(tensor: Tensor) -> bool:
    """Not one that the first pass will make, nor an expanded one, whose entries share memory, nor one of inference mode: no pass changes those."""
    if nn.parameter.is_lazy(tensor):
        return False
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        return False
    return tensor.layout != torch.strided or all(s or n < 2 for s, n in zip(tensor.stride(), tensor.shape, strict=True))


def _entries(value: object) -> Iterable:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, (tuple, list, set, deque)) else ()


@cache
def _is_torchs(kind: type) -> bool:
    """Whether a class of modules is torch's own, all of whose state is in buffers and parameters."""
    return all(base.__module__.partition(".")[0] in ("torch", "builtins", "typing", "abc") for base in kind.__mro__)
