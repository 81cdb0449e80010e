r"""The tasks: one class of several for a sample, pixel or token, and questions with two answers.

A sample is a row in image classification, a pixel or a token is one in dense prediction, and each label is one, with two classes,
where labels are independent.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks, _look
from .._kinds import kind
from .rows import Rows, Task
from .targets import are_soft, check_distributions

__all__ = ["Binary", "Multiclass"]


@kind("Multiclass")
@dataclass(frozen=True)
class Multiclass(Task):
    r"""One class of K for each sample, pixel or token.

    .. math:: F_{rj} = f_{rj} - f_{r y_r}, \qquad L = \frac{\sum_r c_{y_r}\,\ell(f_r, y_r)}{\sum_r c_{y_r}}

    Targets are class numbers, or distributions over the classes: tensors of floating point in the shape of the logits.

    Args:
        axis: where the classes are among the axes of the logits: 1 for ``(n, K)`` and images ``(n, K, H, W)``, -1 for tokens
            ``(n, L, K)``. ``None`` finds it from the shape of class numbers.
        ignore_index: a class number whose rows are left out, such as -100 or 255.
        weight: weights of the K classes, a tensor or numbers, 0 or greater, as in ``torch.nn.CrossEntropyLoss(weight=...)``: of class numbers the sum of the
            losses is divided by the sum of the weights, of distributions by the number of rows.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range.

    Example:
        >>> from bisam import CrossEntropy
        >>> logits, labels = torch.zeros(2, 5, 4), torch.tensor([[3, 1, 0, 2, -100], [2, -100, -100, -100, -100]])
        >>> Multiclass(ignore_index=-100).mean(CrossEntropy(), logits, labels)   # log 4
        tensor(1.3863)
    """

    axis: int | None = None
    ignore_index: int | None = None
    weight: tuple[float, ...] | None = None

    def __post_init__(self):
        if self.axis is not None and (type(self.axis) is not int or self.axis not in (1, -1)):
            raise ValueError(f"axis must be 1, -1 or None, got {_checks.shown(self.axis)}")
        if self.ignore_index is not None and type(self.ignore_index) is not int:
            raise TypeError(f"ignore_index must be a class number or None, got {_checks.shown(self.ignore_index)}")
        if self.weight is not None and isinstance(self.weight, Tensor):  # a class of torch is looked at only where it is needed
            object.__setattr__(self, "weight", self.weight.tolist())
        _checks.keep(self, _checks.optional, "weight", of=_checks.each, each_of=_checks.nonnegative)

    def weight_shape(self, targets: Tensor) -> tuple[int, ...]:
        if not are_soft(targets):
            return tuple(targets.shape)
        axis = (self.axis or 1) % targets.ndim
        return tuple(n for k, n in enumerate(targets.shape) if k != axis)

    def check(self, targets: Tensor) -> None:
        if not isinstance(targets, Tensor):
            raise TypeError(f"targets must be a tensor of class numbers, got {type(targets).__name__}")
        if are_soft(targets) and targets.ndim > 1:
            if self.ignore_index is not None:
                raise ValueError("ignore_index must be None for targets that are distributions; give such rows a weight of 0 with weights=...")
            if targets.ndim > 2 and self.axis is None:
                raise ValueError(f"axis must be given, 1 or -1, for targets that are distributions of shape {tuple(targets.shape)}: task=bisam.Multiclass(axis=...)")
            if _look.is_free(targets) and targets.numel():
                check_distributions(targets, self.axis or 1)
        elif are_soft(targets) or targets.is_complex() or targets.dtype == torch.bool:
            raise TypeError(
                f"targets must hold whole class numbers (torch.int64), got {targets.dtype} of shape {tuple(targets.shape)}; "
                "for one logit or independent labels give task=bisam.Binary()"
            )
        elif targets.ndim == 2 and targets.shape[1] == 1 and self.axis is None:
            raise ValueError(f"targets must have shape ({len(targets)},), one class number a sample; got {tuple(targets.shape)}: squeeze(1)")

    def flat(self, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        if are_soft(targets):
            targets = _classes_last(targets, self.axis or 1)
            return targets, _of_rows(weights, len(targets))
        found = targets if targets.ndim == 1 else targets.reshape(-1)
        weights = _of_rows(weights, len(found))
        if self.ignore_index is None:
            return found, weights
        counts = found != self.ignore_index
        return found.masked_fill(~counts, 0), counts.float() if weights is None else weights * counts

    def rows(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Rows:
        rows = super().rows(logits, targets, weights)
        if self.ignore_index is None:
            return rows
        # What is left out must have a loss that is finite: the class with the highest score has one.
        true = torch.where(rows.weights > 0, rows.targets, rows.logits.detach().argmax(-1).to(rows.targets.dtype))
        return Rows(rows.logits, true, rows.weights, rows.classes)

    def scores(self, logits: Tensor, targets: Tensor) -> Tensor:
        axis = self._axis_of(logits, targets)
        if logits.shape[axis] < 2:
            raise ValueError(
                f"the model must return logits of two classes or more, got shape {tuple(logits.shape)}: for one logit give task=bisam.Binary()"
            )
        if self.weight is not None and len(self.weight) != logits.shape[axis]:
            raise ValueError(f"weight must hold one number for each of the {logits.shape[axis]} classes, got {len(self.weight)}")
        return _classes_last(logits, axis)

    def _axis_of(self, logits: Tensor, targets: Tensor) -> int:
        """The axis of the classes, or an error that gives the shapes."""
        shape, wanted = tuple(logits.shape), tuple(targets.shape)
        if are_soft(targets):
            if shape == wanted:
                return self.axis or 1
            raise ValueError(f"the model must return logits of the shape of the targets, {wanted}, got {shape}")
        fits = [axis for axis in (1, -1) if len(shape) > 1 and wanted == shape[:axis] + shape[axis:][1:]]
        if len(shape) == 2 and fits:
            return 1
        allowed = fits if self.axis is None else [axis for axis in fits if axis == self.axis]
        if len(allowed) == 1:
            return allowed[0]
        if fits and self.axis is None:
            raise ValueError(f"axis must be given, 1 or -1: logits of shape {shape} and targets of shape {wanted} can be read in both ways")
        rest = "".join(f", {n}" for n in wanted[1:])
        other = f" or ({wanted[0]}{rest}, K) for targets of shape {wanted}" if rest else ""
        squeeze = ": squeeze(1) the targets" if len(wanted) > 2 and wanted[1] == 1 else ""
        raise ValueError(f"the model must return logits of shape ({wanted[0]}, K{rest}){other}, got {shape}{squeeze}")

    def classes(self, like: Tensor) -> Tensor | None:
        return None if self.weight is None else _vector(self.weight, torch.promote_types(like.dtype, torch.float32), like.device)


@kind("Binary")
@dataclass(frozen=True)
class Binary(Task):
    r"""One logit z for a question with the answers 0 and 1: one question a sample, or independent labels.

    .. math::
        \begin{gathered}
        f = (0, z), \qquad \ell^{ce} = \log(1 + e^{-z}) \text{ at } y = 1, \\
        q = \frac1\mu \log \frac{e^{\mu\phi(0)} + e^{\mu\phi(-z)}}{2} \text{ at } y = 1, \quad z \to -z \text{ at } y = 0
        \end{gathered}

    Two classes of which one has the score 0: cross-entropy is ``binary_cross_entropy_with_logits``, and Q stays at or below the 0-1
    loss. Over independent labels the mean is that over all of them, and what Q stays below is the share of wrong ones, the Hamming loss.

    Args:
        ignore_index: a target whose rows are left out, such as -1.
        pos_weight: weight of the answer 1, a number, or a tensor or numbers, one a label, as in ``torch.nn.BCEWithLogitsLoss(pos_weight=...)``.

    Targets have the shape of the logits (a column ``(n, 1)`` may be ``(n,)`` on either side), any type of number, from 0 to 1.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range.

    Example:
        >>> from bisam import CrossEntropy
        >>> z, y = torch.tensor([[0.5], [-1.0]]), torch.tensor([1, 0])
        >>> found = Binary().mean(CrossEntropy(), z, y)
        >>> torch.allclose(found, torch.nn.functional.binary_cross_entropy_with_logits(z[:, 0], y.float()))
        True
    """

    ignore_index: int | None = None
    pos_weight: float | tuple[float, ...] | None = None

    def __post_init__(self):
        if self.ignore_index is not None:
            _checks.real("ignore_index", self.ignore_index)
        if isinstance(self.pos_weight, Tensor) and self.pos_weight.ndim > 1:
            raise ValueError(
                "pos_weight must be a number, or one number for each label, the last axis of the logits; "
                f"got {_checks.shown(self.pos_weight)}: flatten it, and move the labels last"
            )
        if isinstance(self.pos_weight, Tensor):
            object.__setattr__(self, "pos_weight", self.pos_weight.tolist())
        if isinstance(self.pos_weight, (list, tuple)):
            _checks.keep(self, _checks.each, "pos_weight", each_of=_checks.nonnegative)
        else:
            _checks.keep(self, _checks.optional, "pos_weight", of=_checks.nonnegative)

    def check(self, targets: Tensor) -> None:
        if not isinstance(targets, Tensor) or targets.is_complex():
            raise TypeError(f"targets must be a tensor of numbers from 0 to 1, got {_checks.shown(targets)}")
        if not _look.is_free(targets) or not targets.numel():
            return
        counted = targets if self.ignore_index is None else targets[targets != self.ignore_index]
        low, high = (float(bound) for bound in torch.aminmax(counted.float())) if counted.numel() else (0.0, 0.0)
        if not (low >= 0 and high <= 1):
            raise ValueError(f"targets must be from 0 to 1, or ignore_index = {self.ignore_index}; got {low if not low >= 0 else high:g}")

    def flat(self, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        y = targets.to(torch.promote_types(targets.dtype, torch.float32)) if are_soft(targets) else targets.float()
        counts = None if self.ignore_index is None else (targets != self.ignore_index).reshape(-1)
        y = y if counts is None else y.masked_fill(targets == self.ignore_index, 0.0)
        weights = _of_rows(weights, y.numel())
        if counts is not None:
            weights = counts.float() if weights is None else weights * counts
        return torch.stack([1 - y, y], -1).reshape(-1, 2), weights

    def classes(self, like: Tensor) -> Tensor | None:
        """The weights of the two answers: one pair for all rows, shape ``(2,)``, or one a row, shape ``(m, 2)``."""
        if self.pos_weight is None:
            return None
        dtype = torch.promote_types(like.dtype, torch.float32)
        if not isinstance(self.pos_weight, tuple):
            return _vector((1.0, self.pos_weight), dtype, like.device)
        of_labels = _vector(self.pos_weight, dtype, like.device).repeat(len(like) // len(self.pos_weight))
        return torch.stack([torch.ones_like(of_labels), of_labels], -1)

    def scores(self, logits: Tensor, targets: Tensor) -> Tensor:
        columns = {(*targets.shape, 1), tuple(targets.shape[:-1]) if targets.ndim > 1 and targets.shape[-1] == 1 else None}
        if logits.shape != targets.shape and tuple(logits.shape) not in columns:
            raise ValueError(f"the model must return logits of the shape of the targets, {tuple(targets.shape)}, got {tuple(logits.shape)}")
        if isinstance(self.pos_weight, tuple) and len(self.pos_weight) != targets.shape[-1]:
            raise ValueError(f"pos_weight must hold one number for each of the {targets.shape[-1]} labels, got {len(self.pos_weight)}")
        z = logits.reshape(-1)
        return torch.stack([torch.zeros_like(z), z], -1)


def _classes_last(tensor: Tensor, axis: int) -> Tensor:
    """Shape (m, K); the tensor itself if it has it."""
    return tensor if tensor.ndim == 2 else tensor.movedim(axis, -1).reshape(-1, tensor.shape[axis])


def _of_rows(weights: Tensor | None, rows: int) -> Tensor | None:
    """Weights of samples or rows as those of rows."""
    if weights is None:
        return None
    flat = weights.reshape(-1)
    return flat if len(flat) == rows else flat.repeat_interleave(rows // len(flat))


@functools.lru_cache(maxsize=64)
def _vector(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers as a tensor, made once: a GPU would wait for them at every step."""
    return torch.tensor(numbers, dtype=dtype, device=device)
