"""What a loader gives: a tensor, or a tuple, list or dictionary with tensors in it. Some of its samples, and how a model takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from .. import _checks


def given(model: Callable, inputs: object) -> object:
    """What a model makes of inputs: a dictionary is given by name, a tuple or list one by one."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)


def tensors_in(inputs: object) -> Iterator[Tensor]:
    """The tensors, in order."""
    if isinstance(inputs, Tensor):
        yield inputs
    elif isinstance(inputs, (Mapping, tuple, list)):
        for part in inputs.values() if isinstance(inputs, Mapping) else inputs:
            yield from tensors_in(part)


def picked(inputs: object, n: int, pick: Callable[[Tensor], Tensor]) -> object:
    """The same structure with ``pick`` done to each tensor that has one row a sample, n of them; all else is shared by the samples."""
    if isinstance(inputs, Tensor):
        return pick(inputs) if inputs.ndim and len(inputs) == n else inputs
    if isinstance(inputs, Mapping):
        return {name: picked(part, n, pick) for name, part in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return tuple(picked(part, n, pick) for part in inputs)
    return inputs


def shown(inputs: object) -> str:
    """What the tensors are, for an error message."""
    found = [f"shape {tuple(tensor.shape)}, {tensor.dtype}" for tensor in tensors_in(inputs)]
    return ", ".join(found[:6]) or type(inputs).__name__


def logits_of(outputs: object) -> Tensor | None:
    """The logits among what a model has returned: a tensor, or what is called ``logits`` there; ``None`` if there is none."""
    if not isinstance(outputs, Tensor):
        outputs = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    return outputs if isinstance(outputs, Tensor) else None


def check_inputs(inputs: object, has_forward: bool) -> None:
    """Something with tensors in it; whatever ``forward`` takes, if there is one."""
    if isinstance(inputs, Tensor) and inputs.ndim == 0:
        raise ValueError("inputs must have shape (n, ...), one row a sample; got ()")
    if inputs is None or (next(tensors_in(inputs), None) is None and not has_forward):
        raise TypeError(
            f"inputs must be a tensor, or a tuple, list or dictionary with tensors, or something that forward=... takes; got {_checks.shown(inputs)}"
        )


def check_names(theirs: dict, autocast: object) -> None:
    """An error for what belongs elsewhere, with the place."""
    for name in theirs:
        if name in ("weight", "ignore_index", "pos_weight"):
            task = "Binary" if name == "pos_weight" else "Multiclass"
            raise TypeError(f"{name} belongs to the task: Batch(model, inputs, targets, task=bisam.{task}({name}=...)); weights=... are those of samples")
        if name in ("label_smoothing", "smoothing", "loss", "loss_fn", "criterion"):
            raise TypeError(f"{name} belongs to the recipe: recipe.replace(descent=bisam.CrossEntropy(smoothing=...))")
        raise TypeError(f"{name} is no argument of a Batch, which takes model, inputs, targets, autocast, task, forward, weights and extra")
    if callable(autocast):
        raise TypeError(f"autocast must be a dtype, got {_checks.shown(autocast)}: the losses are those of the recipe, recipe.replace(descent=...)")


def check_lengths(inputs: object, targets: Tensor) -> None:
    """One entry of the targets a sample, and no graph."""
    if targets.ndim == 0:
        raise ValueError("targets must have shape (n, ...), one entry a sample; got ()")
    if len(targets) == 0:
        raise ValueError("targets must hold at least one sample, got an empty batch")
    if targets.requires_grad:
        raise ValueError("targets must not require a gradient; detach them")
    if isinstance(inputs, Tensor) and len(inputs) != len(targets):
        n = len(inputs)
        raise ValueError(f"targets must have shape ({n},), or ({n}, ...) for shares, pixels and tokens; got {tuple(targets.shape)} for {n} inputs")


def said(outputs: object) -> str:
    """What a model has returned, and the way to its logits."""
    kind = type(outputs).__name__
    if isinstance(outputs, Mapping):
        return f"{kind} with {', '.join(map(repr, outputs))}; name them: forward=lambda model, inputs: model(inputs)[...]"
    if isinstance(outputs, (tuple, list)):
        return f"{kind} of {len(outputs)}; name them: forward=lambda model, inputs: model(inputs)[0]"
    return kind
