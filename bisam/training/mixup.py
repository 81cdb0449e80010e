r"""Mixup: the network is trained on mixtures of two samples, with the classes of both as shares.

.. math:: \tilde x_i = \lambda x_i + (1 - \lambda)\,x_{\pi(i)}, \qquad \tilde y_i = \lambda e_{y_i} + (1 - \lambda)\,e_{y_{\pi(i)}}, \qquad
    \lambda \sim \mathrm{Beta}(\alpha, \alpha)

with one :math:`\lambda` and one permutation :math:`\pi` for a batch. Cross-entropy and Q take shares as the mean over the classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .. import _checks

__all__ = ["mixed"]


def mixed(inputs: Tensor, targets: Tensor, alpha: float, classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A batch of mixtures with their shares.

    Args:
        inputs: samples as a network takes them, floats of shape ``(n, ...)``.
        targets: class numbers, shape ``(n,)``.
        alpha: of the Beta distribution, above 0.
        classes: number of classes K.
        generator: on the CPU, that everything is drawn from.

    Returns:
        The mixtures and their shares, of shape ``(n, K)``.

    Source:
        Zhang et al. (2018), equation (1).

    Example:
        >>> x, shares = mixed(torch.eye(2), torch.tensor([0, 1]), 1.0, 2, torch.Generator().manual_seed(0))
        >>> torch.equal(x, shares), shares.sum(1)
        (True, tensor([1., 1.]))
    """
    numpy = _checks.needs("numpy", extra="train")
    alpha = _checks.positive("alpha", alpha)
    draw = numpy.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    share = float(draw.beta(alpha, alpha))
    other = torch.randperm(len(targets), generator=generator).to(targets.device)
    shares = functional.one_hot(targets.long(), classes).to(inputs.dtype)
    return tuple(share * one + (1 - share) * one[other] for one in (inputs, shares))
