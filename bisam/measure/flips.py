"""What a perturbation of the weights does to the decisions: right to wrong, and wrong to right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import _checks
from ..axes.tensors import Tensors
from ..losses.cross_entropy import zero_one
from ..step.modules import unwrapped
from .batches import Batches, batches, check_classes, outputs_of
from .held import held, moved

__all__ = ["Flips", "misclassified"]


@dataclass(frozen=True)
class Flips:
    r"""What a perturbation does to the decisions about n samples.

    Args:
        broken: right at w, wrong at :math:`w + \epsilon`.
        mended: wrong at w, right at :math:`w + \epsilon`.
        wrong: wrong at w.
        n: number of samples.

    Source:
        Xie et al. (2024), figure 2, for ``broken``; they do not define their count, and this is one reading of it.

    Example:
        >>> Flips(broken=3, mended=1, wrong=10, n=100).wrong_there
        12
    """

    broken: int
    mended: int
    wrong: int
    n: int

    @property
    def wrong_there(self) -> int:
        r"""Wrong at :math:`w + \epsilon`."""
        return self.wrong + self.broken - self.mended


@_checks.renamed(chunk="samples_at_a_time")
def misclassified(
    model: nn.Module, x: Tensor, y: Tensor, perturbation: Tensors, *, samples_at_a_time: int = 1000, batch_norm: str = "running",
) -> Flips:  # fmt: skip
    r"""Counts the samples that a perturbation of the weights turns from right to wrong, and from wrong to right.

    .. math:: \#\big\{i : \ell^{01}_i(w) = 0,\ \ell^{01}_i(w + \epsilon) = 1\big\}, \qquad
        \#\big\{i : \ell^{01}_i(w) = 1,\ \ell^{01}_i(w + \epsilon) = 0\big\}

    A sample whose true class ties for the highest score counts as right.

    Args:
        model: the network; ``model(x)`` are logits, shape ``(n, K)``.
        x: samples, shape ``(n, ...)``.
        y: true classes, shape ``(n,)``, whole numbers.
        perturbation: name of a parameter to tensor of its shape, such as :func:`climb` returns; others stay where they are.
        samples_at_a_time, batch_norm: as in :func:`loss_rise`.

    Raises:
        TypeError, ValueError: an argument of the wrong type or out of range; an unknown name or another shape.

    Example:
        >>> model = nn.Linear(1, 2, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[1.0], [0.0]]))  # class 0 where x is positive
        >>> x, y = torch.tensor([[2.0], [-1.0]]), torch.tensor([0, 0])
        >>> misclassified(model, x, y, {"weight": torch.tensor([[-2.0], [0.0]])})
        Flips(broken=1, mended=1, wrong=1, n=2)
    """
    parts, model = batches(x, y, samples_at_a_time), unwrapped(_checks.module("model", model))
    _checks.labels(y, len(x), "y")
    known = dict(model.named_parameters())
    if not _checks.tensors("perturbation", perturbation):
        raise ValueError("perturbation must hold at least one tensor, got an empty dictionary")
    for name, move in perturbation.items():
        if name not in known:
            raise ValueError(f"perturbation must name parameters of the model, among them {', '.join(list(known)[:5])}; got {name!r}")
        if move.shape != known[name].shape:
            raise ValueError(f"perturbation of {name} must have shape {tuple(known[name].shape)}, got {tuple(move.shape)}")
    weights = {name: known[name] for name in perturbation}
    with held(model, batch_norm), torch.no_grad():
        before = _mistakes(model, parts)
        with moved(weights, perturbation):
            after = _mistakes(model, parts)
    return Flips(int((after & ~before).sum()), int((before & ~after).sum()), int(before.sum()), len(x))


def _mistakes(model: nn.Module, parts: Batches) -> Tensor:
    found = []
    for inputs, targets in parts:
        logits = outputs_of(model, inputs)
        check_classes(logits, targets)
        try:
            found.append(zero_one(logits, targets))
        except (TypeError, ValueError) as error:
            error.add_note("the logits are those of model for x, the targets are y")
            raise
    return torch.cat(found).bool()
