r"""What a step did, in a few numbers that show whether a variant is on: gathered while it is made."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from ..axes.tensors import Tensors, dot, euclidean_norm

__all__ = ["Diagnostics"]


@dataclass
class Outcome:
    """What a step has led to, beside the gradients that the parameters hold.

    ``dual_norm`` is that of the ascent gradient, the largest among balls and parts of a batch; ``beside`` the norm of the descent gradient
    at w, where that is taken too. The rest is for a record.
    """

    rho: float = 0.0
    loss: Tensor | None = None
    dual_norm: Tensor | None = None
    beside: Tensor | None = None
    ascent_gradient: Tensors = field(default_factory=dict)
    rise: Tensor | float = 0.0
    zero_one_rise: Tensor | float = 0.0
    length: Tensor | None = None
    has_losses: bool = False

    def note_norm(self, size: Tensor) -> None:
        """Takes note of the norm of one more gradient."""
        self.dual_norm = size if self.dual_norm is None else torch.maximum(self.dual_norm, size)  # keeps a NaN

    @property
    def first_norm(self) -> Tensor | None:
        """A number that is finite if all gradients of the first pass are; ``None`` if there are none."""
        if self.dual_norm is None or self.beside is None:
            return self.beside if self.dual_norm is None else self.dual_norm
        return self.dual_norm + self.beside.to(self.dual_norm)


@dataclass(frozen=True)
class Diagnostics:
    r"""The record of one step; numbers that the style of the loop does not know are ``None``.

    .. math::
        \cos = \frac{\langle g, p\rangle}{\|g\|\,\|p\|}, \qquad \text{loss rise} = L(w + \epsilon) - L(w)

    Args:
        step: how many steps were made before.
        loss: L(w), the descent loss of the batch where the step begins, also where the ascent gradient is taken elsewhere.
        loss_rise: :math:`L(w + \epsilon) - L(w)`, how much higher it is where the descent gradient is taken (with a start that is
            kept, at :math:`w + \delta + \epsilon`); at or below 0 step after step means that the climb does not climb. Over
            the samples that both passes see: with ``TopK`` the chosen ones.
        zero_one_rise: the same of the share of misclassified samples.
        rho: the radius asked for (of a loss budget: the budget).
        length: the Euclidean length of the climb, :math:`\|\epsilon\|_2`, without the random part of a start; for the round ball
            it is rho. Of several climbs in a step (``micro_batch``) it is that of the last.
        ascent_norm: the dual norm of the ascent gradient, where it was taken (with a start, at :math:`w + \delta`); the largest of
            several balls or climbs. 0 means that nothing pulls, and the step was the base's.
        descent_norm: the Euclidean norm of the gradient that this call has made for the base, before a ``weight``.
        cosine: of that gradient p and the ascent gradient g of the whole batch.
        skipped: steps skipped so far because a gradient was not finite.

    Example:
        >>> import torch
        >>> from bisam import SAM, Batch, SharpnessAware
        >>> model = torch.nn.Linear(2, 2)
        >>> opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), SAM, record=True)
        >>> _ = opt.step(Batch(model, torch.eye(2), torch.tensor([0, 1])))
        >>> round(opt.last.length, 4), opt.last.loss_rise > 0
        (0.05, True)
    """

    step: int
    loss: float | None
    loss_rise: float | None
    zero_one_rise: float | None
    rho: float
    length: float | None
    ascent_norm: float | None
    descent_norm: float
    cosine: float | None
    skipped: int

    @classmethod
    def of(cls, outcome: Outcome, gradient: Tensors, *, step: int, skipped: int, scale: float = 1.0) -> Diagnostics:
        """The record of a step that has led to this gradient, which a scaler may have scaled."""
        climbed = outcome.length is not None
        known = outcome.has_losses and climbed
        return cls(
            step=step,
            loss=float(outcome.loss) if outcome.has_losses else None,
            loss_rise=float(outcome.rise) if known else None,
            zero_one_rise=float(outcome.zero_one_rise) if known else None,
            rho=float(outcome.rho) if climbed else 0.0,
            length=float(outcome.length) if climbed else None,
            ascent_norm=None if outcome.dual_norm is None else float(outcome.dual_norm),
            descent_norm=float(euclidean_norm(gradient)) / scale,
            cosine=_cosine(outcome.ascent_gradient, gradient) if climbed else None,
            skipped=skipped,
        )

    def to_dict(self) -> dict:
        """The numbers by name, for a log."""
        return asdict(self)


def _cosine(a, b) -> float | None:
    size = float(dot(a, a)) ** 0.5 * float(dot(b, b)) ** 0.5
    return float(dot(a, b)) / size if size > 0 else None
