r"""Which samples the gradients are taken on: all, those that the climb hits hardest, or those with the largest loss.

.. math:: \mathcal B^+ = \text{the } k \text{ samples of the batch with the largest } s_i, \qquad
    k = \max\big(1, \operatorname{round}(f\,n)\big)
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from .. import _checks
from .._kinds import kind

__all__ = ["MostSensitive", "Selection", "TopK"]


def highest(scores: Tensor, fraction: float) -> Tensor:
    """The places of the highest scores, in the order of the batch: exactly max(1, round(fraction n)), also where some tie.

    Among equal ones the earlier sample is taken; NaN counts as largest.

    >>> highest(torch.tensor([1.0, 3.0, 3.0, 2.0]), fraction=0.5), highest(torch.zeros(5), fraction=0.6)
    (tensor([1, 2]), tensor([0, 1, 2]))
    """
    k = max(1, round(fraction * len(scores)))
    order = torch.sort(scores.detach(), descending=True, stable=True).indices
    return order[:k].sort().values


class Selection(Protocol):
    """The axis of selection: the samples that the gradients are taken on.

    A selection of your own is a subclass with ``fraction``, ``when`` and :meth:`chosen`.

    Example:
        >>> class FirstHalf(Selection):
        ...     fraction, when = 0.5, "before"
        ...
        ...     def chosen(self, at_w, at_worst, targets, ascent, descent):
        ...         return torch.arange(len(targets) // 2)
        >>> FirstHalf().chosen(torch.zeros(4, 2), None, torch.zeros(4), None, None)
        tensor([0, 1])
    """

    fraction: float = 1.0  #: the share of the samples that are chosen; with 1 nothing is ranked
    when: str = "after"  #: ranked ``"before"`` the climb, for both passes, or ``"after"`` it, for the descent

    @abstractmethod
    def chosen(self, at_w: Tensor, at_worst: Tensor | None, targets: Tensor, ascent, descent) -> Tensor:
        r"""The places of the chosen samples, in the order of the batch.

        Args:
            at_w, at_worst: logits at w and at :math:`w + \epsilon` as the model gives them; before the climb the second are ``None``.
            targets: those of the batch.
            ascent, descent: the two losses; their ``values(logits, targets)`` are those of the samples, whatever the rows of the task.
        """

    def with_ascent(self, ascent) -> Selection:
        """The selection that goes with another ascent loss."""
        return self


@kind("MostSensitive")
@dataclass(frozen=True)
class MostSensitive(Selection):
    r"""Descends on the samples whose ascent loss the climb has raised most.

    .. math:: s_i = a_i(w + \epsilon) - a_i(w)

    Ranking costs one more forward pass, at :math:`w + \epsilon`; the descent pass then sees the chosen samples only.

    Args:
        fraction: share f of the samples that descend, in (0, 1].

    Raises:
        TypeError, ValueError: ``fraction`` is not a number in (0, 1].

    Source:
        Du et al. (2022), section 3.2, "sharpness-sensitive data selection"; Xie et al. (2024), algorithm 3 of the early
        version, where a is Q.

    Example:
        >>> from bisam import CrossEntropy
        >>> right, torn = torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([[9.0, 0.0], [1.0, 0.0]])
        >>> MostSensitive(0.5).chosen(right, torn, torch.tensor([0, 0]), CrossEntropy(), CrossEntropy())
        tensor([1])
    """

    fraction: float = 0.5

    def __post_init__(self):
        _checks.keep(self, _checks.share, "fraction")

    def chosen(self, at_w: Tensor, at_worst: Tensor | None, targets: Tensor, ascent, descent) -> Tensor:
        return highest(ascent.values(at_worst, targets) - ascent.values(at_w, targets), self.fraction)


@kind("TopK")
@dataclass(frozen=True)
class TopK(Selection):
    r"""Climbs and descends on the samples with the largest loss at w only.

    Ranking is one forward pass of the whole batch. Q ranks samples last that are right by a wide margin, and gives no
    gradient to those that are wrong by a wide margin, so that by ``"ascent"`` the climb may be on samples which do
    not pull; ``"gradient"`` ranks by how much they do.

    Args:
        fraction: share k / n of the samples, in (0, 1].
        by: what is ranked: the ``"descent"`` loss, the ``"ascent"`` loss, or ``"gradient"``, the norm of the ascent
            loss' gradient for the logits of the sample.

    Raises:
        TypeError, ValueError: ``fraction`` is not a number in (0, 1]; an unknown ``by``.

    Source:
        Ni et al. (2022). The texts at hand leave open k and whether both passes use the same samples; here they do.

    Example:
        >>> TopK(0.5).fraction
        0.5
    """

    fraction: float = 0.5
    by: str = "descent"
    when = "before"

    def __post_init__(self):
        _checks.keep(self, _checks.share, "fraction")
        _checks.choice("by", self.by, ("descent", "ascent", "gradient"))

    def chosen(self, at_w: Tensor, at_worst: Tensor | None, targets: Tensor, ascent, descent) -> Tensor:
        if self.by != "gradient":
            loss = descent if self.by == "descent" else ascent
            return highest(loss.values(at_w.detach(), targets), self.fraction)
        leaf = at_w.detach().requires_grad_()
        with torch.enable_grad():
            ascent.values(leaf, targets).sum().backward()
        return highest(torch.linalg.vector_norm(leaf.grad.reshape(len(leaf), -1), dim=1), self.fraction)

    def with_ascent(self, ascent) -> TopK:
        """Ranked by the gradient: a bounded loss has none where it is largest."""
        return replace(self, by="gradient")
