r"""Which samples the gradients are taken on: all, those that the climb hits hardest, or those with the largest loss.

.. math:: \mathcal B^+ = \text{the } k \text{ samples of the batch with the largest } s_i, \qquad
    k = \max\big(1, \operatorname{round}(\gamma\,n)\big)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks
from .._kinds import kind

__all__ = ["MostSensitive", "TopK"]


def chosen(scores: Tensor, fraction: float) -> Tensor:
    """The places of the highest scores, in the order of the batch: exactly max(1, round(fraction n)), ties included.

    Args:
        scores: one number a sample, shape ``(n,)``; among equal ones the earlier sample is taken, NaN counts as largest.
        fraction: share of the samples, in (0, 1].

    Source:
        Ours; a comparison with the k-th largest value would take too few samples, and none if all tie.

    Example:
        >>> chosen(torch.tensor([1.0, 3.0, 3.0, 2.0]), fraction=0.5)
        tensor([1, 2])
        >>> chosen(torch.zeros(5), fraction=0.6)
        tensor([0, 1, 2])
    """
    k = max(1, round(fraction * len(scores)))
    order = torch.sort(scores.detach(), descending=True, stable=True).indices
    return order[:k].sort().values


@kind("MostSensitive")
@dataclass(frozen=True)
class MostSensitive:
    r"""Descends on the samples whose ascent loss the climb has raised most.

    .. math:: s_i = a_i(w + \epsilon) - a_i(w)

    Ranking costs one more forward pass, at :math:`w + \epsilon`; the descent pass then sees the chosen samples only.

    Args:
        fraction: share :math:`\gamma` of the samples that descend, in (0, 1].

    Raises:
        TypeError, ValueError: ``fraction`` is not a number in (0, 1].

    Source:
        Du et al. (2022), section 3.2, "sharpness-sensitive data selection"; Xie et al. (2024), algorithm 3 of the early
        version, where a is Q.

    Example:
        >>> MostSensitive(0.5).chosen(torch.tensor([0.0, 1.0]), torch.tensor([0.3, 1.1]))
        tensor([0])
    """

    fraction: float = 0.5

    def __post_init__(self):
        _checks.keep(self, _checks.share, "fraction")

    def chosen(self, at_w: Tensor, at_worst: Tensor) -> Tensor:
        """The places of the chosen samples, in the order of the batch.

        Args:
            at_w: ascent losses of the samples at w, shape ``(n,)``.
            at_worst: the same at w + epsilon.
        """
        return chosen(at_worst - at_w, self.fraction)


@kind("TopK")
@dataclass(frozen=True)
class TopK:
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

    def __post_init__(self):
        _checks.keep(self, _checks.share, "fraction")
        _checks.choice("by", self.by, ("descent", "ascent", "gradient"))

    def chosen(self, logits: Tensor, targets: Tensor, ascent, descent) -> Tensor:
        """The places of the chosen samples, in the order of the batch.

        Args:
            logits: at w, shape ``(n, K)``.
            targets: true classes, shape ``(n,)``.
            ascent: the ascent loss.
            descent: the descent loss.
        """
        if self.by != "gradient":
            loss = descent if self.by == "descent" else ascent
            return chosen(loss.values(logits.detach(), targets), self.fraction)
        leaf = logits.detach().requires_grad_()
        with torch.enable_grad():
            ascent.values(leaf, targets).sum().backward()
        return chosen(torch.linalg.vector_norm(leaf.grad, dim=1), self.fraction)
