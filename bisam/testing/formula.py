"""What is asked of the climb and of the way back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .invariants import ROUNDING, invariant
from .setting import HIDDEN, Candidate, NotApplicable, flat, furthest, gap, largest, net, sam_by_hand, samples

SGD = torch.optim.SGD



@invariant(ROUNDING)
def radius_0(candidate: Candidate) -> float:
    r"""With radius 0 the optimiser is its base: :math:`\rho = 0 \Rightarrow w_{t+1} = \mathrm{base}(w_t, \nabla L(w_t))`. Measured: the largest difference of a weight.

    Source: Foret et al. (2021), eq. 1 at :math:`\rho = 0`.
    """
    one, other = net(), net()
    try:
        optimizer = candidate.made(one, rho=0.0, momentum=0.9)
    except ValueError as error:
        raise NotApplicable(f"rho = 0 is refused: {error}") from None
    base = SGD(other.parameters(), lr=0.1, momentum=0.9)
    for k in range(5):
        base.zero_grad()
        samples(k)(other).backward()
        base.step()
    return gap(candidate.trained(optimizer, one), other)


@invariant(1e-6, formula=True)
def length(candidate: Candidate) -> float:
    r"""The climb has the length of the radius: :math:`\lVert\epsilon\rVert_2 = \rho`. Measured: :math:`\lvert\lVert\epsilon\rVert_2 / \rho - 1\rvert`.

    Source: Foret et al. (2021), eq. 2 with p = 2.
    """
    return abs(furthest(candidate, net(), samples()).norm().item() / candidate.rho - 1)


@invariant(1e-6, formula=True)
def scale(candidate: Candidate) -> float:
    r"""The climb does not depend on the scale of the loss: :math:`\epsilon(1000\,L) = \epsilon(L)`. Measured: the largest difference, over the radius.

    Source: Foret et al. (2021), eq. 2, which is homogeneous of degree 0 in the gradient.
    """
    plain, steep = (furthest(candidate, nn.Sequential(*net(), GradientTimes(factor)), samples()) for factor in (1.0, 1000.0))
    return largest(plain - steep) / candidate.rho


def _against_sam(candidate: Candidate, base: type, **settings) -> float:
    one, other = net(), net()
    expected = sam_by_hand(other, base(other.parameters(), **settings), candidate.rho)
    return gap(candidate.trained(candidate.made(one, base, **settings), one), expected)


@invariant(ROUNDING, formula=True)
def sgd(candidate: Candidate) -> float:
    """Five steps around SGD are those of two plain passes in float64. Measured: the largest difference of a weight.

    Source: Foret et al. (2021), algorithm 1.
    """
    return _against_sam(candidate, SGD, lr=0.1)


@invariant(ROUNDING, formula=True)
def momentum(candidate: Candidate) -> float:
    """The same around SGD with momentum and weight decay, neither of which sees the first pass. Measured: the largest difference of a weight.

    Source: Foret et al. (2021), algorithm 1.
    """
    return _against_sam(candidate, SGD, lr=0.1, momentum=0.9, weight_decay=0.01)


@invariant(ROUNDING, formula=True)
def adamw(candidate: Candidate) -> float:
    """The same around AdamW, whose second moments come from the second pass alone. Measured: the largest difference of a weight.

    Source: Foret et al. (2021), algorithm 1.
    """
    return _against_sam(candidate, torch.optim.AdamW, lr=0.01)


@invariant(ROUNDING, formula=True)
def one_ball(candidate: Candidate) -> float:
    """All parameter groups are in one ball, and each has its own learning rate. Measured: the largest difference of a weight from two plain passes.

    Source: Foret et al. (2021), eq. 2, whose norm is over all weights.
    """
    one, other = net(), net()
    expected = sam_by_hand(other, SGD(_groups(other), lr=0.1), candidate.rho)
    return gap(candidate.trained(candidate.made(one, params=_groups(one)), one), expected)


# -- what has to be as before ---------------------------------------------------------------------------------------------


@invariant(0.0)
def weights_back(candidate: Candidate) -> float:
    r"""The climb is taken back to the last bit: :math:`(w + \epsilon) \to w`, here with a learning rate of 0. Measured: the largest difference of a weight in float32.

    Source: Foret et al. (2021), algorithm 1, whose update starts from :math:`w_t`; :math:`(w + \epsilon) - \epsilon` is another number in floating point.
    """
    model = net(dtype=torch.float32)
    before = flat(model)
    candidate.trained(candidate.made(model, lr=0.0), model)
    return largest(flat(model) - before)


@invariant(ROUNDING)
def batch_norm(candidate: Candidate) -> float:
    r"""Running means move once a step, by the pass at w: :math:`\mu \leftarrow 0.9\,\mu + 0.1\,\bar x`. Measured: the largest difference; for a relative, from the nearest of its passes.

    Source: Foret et al. (2021) train so; Müller et al. (2023) look at what the layers do in SAM.
    """
    model, means = net(nn.BatchNorm1d(HIDDEN)), []
    model[1].register_forward_pre_hook(lambda layer, given: means.append(given[0].detach().mean(0)))
    candidate.trained(candidate.made(model), model, range(1))
    passes = means[:1] if candidate.is_sam else means
    return min(largest(model[1].running_mean - 0.1 * mean) for mean in passes)


@invariant(0.0)
def dropout(candidate: Candidate) -> float:
    """All passes of a step draw the same masks, so that both are of one loss. Measured: the largest share of units that differ.

    Source: Foret et al. (2021), eq. 1, where one L is raised and lowered; their own runs drew new masks.
    """
    model, masks = net(nn.Dropout(0.5)), []
    model[1].register_forward_hook(lambda layer, given, out: masks.append(out == 0))
    candidate.trained(candidate.made(model), model, range(1))
    others = [mask for mask in masks[1:] if mask.shape == masks[0].shape]
    if not others:
        raise NotApplicable("no two passes see the whole batch")
    return max((mask != masks[0]).double().mean().item() for mask in others)


def _groups(model: nn.Sequential) -> list[dict]:
    return [{"params": list(model[:-1].parameters())}, {"params": list(model[-1].parameters()), "lr": 0.01}]


class GradientTimes(nn.Module):
    """The identity, whose gradient is multiplied: what comes before it sees another scale of the loss."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return _Times.apply(x, self.factor)


class _Times(torch.autograd.Function):
    @staticmethod
    def forward(context, x, factor):
        context.factor = factor
        return x.clone()

    @staticmethod
    def backward(context, g):
        return g * context.factor, None
