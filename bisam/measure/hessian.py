r"""Products with the Hessian of the loss, or with its Gauss-Newton part, without either matrix.

.. math::
    H v = \nabla_w \langle \nabla_w L(w), v \rangle, \qquad
    G v = \frac1n \sum_i J_i^\top\, \nabla_f^2 \ell_i\, J_i v, \qquad J_i = \frac{\partial f_w(x_i)}{\partial w}

All derivatives are taken backward. Forward over backward is the textbook's way, but there torch (2.15) differentiates layer norm,
and batch norm with the statistics of the batch, wrongly and without a word, and group norm not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .. import _checks
from .._progress import bar
from ..step.modules import unwrapped
from .batches import Advance, Batches, Loss, batches, check_loss, count, loss_of, loss_value, outputs_of
from .held import held, trainable

__all__ = ["Matrix", "gauss_newton_products", "hessian_products"]

COLUMNS = 8  # vectors multiplied at one go, which share the first derivatives

Parts = tuple[Tensor, ...]  # a vector in the shapes of the weights
Products = Callable[[nn.Module, Loss, list[Tensor], Tensor, Tensor], Callable[[Parts], Parts]]


def hessian_products(model: nn.Module, loss: Loss, weights: list[Tensor], x: Tensor, y: Tensor) -> Callable[[Parts], Parts]:
    r"""The function :math:`v \mapsto H v` for one batch.

    Args:
        model: the network.
        loss: of outputs and targets, the mean over the samples.
        weights: the parameters to differentiate for; v has their shapes.
        x, y: samples and targets.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> product = hessian_products(model, nn.MSELoss(), [model.weight], torch.tensor([[3.0]]), torch.zeros(1, 1))  # 9 w^2
        >>> product((torch.tensor([[1.0]]),))
        (tensor([[18.]]),)
    """
    gradient = torch.autograd.grad(loss_value(model, loss, x, y), weights, create_graph=True, materialize_grads=True)
    return lambda vector: _derivative(_dot(gradient, vector), weights)


def gauss_newton_products(model: nn.Module, loss: Loss, weights: list[Tensor], x: Tensor, y: Tensor) -> Callable[[Parts], Parts]:
    r"""The function :math:`v \mapsto G v` for one batch.

    Args:
        model, loss, weights, x, y: as in :func:`hessian_products`.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> product = gauss_newton_products(model, nn.MSELoss(), [model.weight], torch.tensor([[3.0]]), torch.zeros(1, 1))
        >>> product((torch.tensor([[1.0]]),))
        (tensor([[18.]]),)
    """
    outputs = outputs_of(model, x)
    slot, at = torch.zeros_like(outputs, requires_grad=True), outputs.detach().requires_grad_()
    pulled = torch.autograd.grad(outputs, weights, slot, create_graph=True, materialize_grads=True)  # J' slot: linear in it
    slope = torch.autograd.grad(loss_of(loss, at, y), at, create_graph=True)

    def product(vector: Parts) -> Parts:
        pushed = _derivative(_dot(pulled, vector), [slot])  # J v
        (bent,) = _derivative(_dot(slope, pushed), [at])
        return torch.autograd.grad(outputs, weights, bent, retain_graph=True, materialize_grads=True)

    return product


def _dot(one: Parts, other: Parts) -> Tensor:
    return sum((a * b).sum() for a, b in zip(one, other, strict=True))


def _derivative(value: Tensor, of: list[Tensor]) -> Parts:
    if not value.requires_grad:  # it does not depend on any of them
        return tuple(torch.zeros_like(part) for part in of)
    return torch.autograd.grad(value, of, retain_graph=True, materialize_grads=True)


class Matrix:
    """The mean over all samples of what a batch's products say, as a symmetric matrix that can only be multiplied.

    Args:
        products: :func:`hessian_products` or :func:`gauss_newton_products`.
        model, loss: the network, and the mean loss over the samples.
        weights: d numbers in all.
        parts: samples and targets in batches.
        advance: called with the number of columns after each product.

    Raises:
        ValueError: weights of several types or on several devices.

    Example:
        >>> model, parts = nn.Linear(1, 1, bias=False), batches(torch.tensor([[3.0], [1.0]]), torch.zeros(2, 1), 1)
        >>> matrix = Matrix(hessian_products, model, nn.MSELoss(), [model.weight], parts, lambda columns: None)
        >>> len(matrix), matrix @ torch.tensor([1.0])
        (1, tensor([10.]))
    """

    def __init__(self, products: Products, model: nn.Module, loss: Loss, weights: list[Tensor], parts: Batches, advance: Advance):
        kinds = {(weight.dtype, weight.device) for weight in weights}
        if len(kinds) > 1:
            found = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
            raise ValueError(f"the weights of model must have one dtype and one device for the Hessian, got {found}")
        ((self.dtype, self.device),) = kinds
        self._of_batch = lambda x, y: products(model, loss, weights, x.to(self.device), y.to(self.device))
        self._weights, self._parts, self._advance = weights, parts, advance
        self.shape = (sum(weight.numel() for weight in weights),) * 2

    def __len__(self) -> int:
        return self.shape[0]

    def __matmul__(self, vectors: Tensor) -> Tensor:
        if vectors.ndim == 1:
            return (self @ vectors.unsqueeze(1)).squeeze(1)
        return torch.cat([self._times(columns) for columns in vectors.split(COLUMNS, dim=1)], dim=1)

    def _times(self, columns: Tensor) -> Tensor:
        if not columns.isfinite().all():
            raise FloatingPointError("the iteration broke down, as it does where the matrix has few distinct eigenvalues; ask for fewer products")
        total, n = torch.zeros_like(columns), count(self._parts)
        try:
            # The fused kernels of attention have no second derivative.
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
                for x, y in self._parts:
                    product = self._of_batch(x, y)
                    found = [self._flat(product(self._shaped(column))) for column in columns.unbind(1)]
                    total.add_(torch.stack(found, dim=1), alpha=len(x) / n)
        except Exception as error:
            error.add_note("so it was with the second derivatives of loss(model(x), y)")
            raise
        if not total.isfinite().all():
            raise FloatingPointError("a product with the Hessian is not finite: look at the loss and its second derivatives at w")
        self._advance(columns.shape[1])
        return total

    def _shaped(self, vector: Tensor) -> Parts:
        parts = vector.split([weight.numel() for weight in self._weights])
        return tuple(part.view_as(weight) for part, weight in zip(parts, self._weights, strict=True))

    def _flat(self, parts: Parts) -> Tensor:
        return torch.cat([part.detach().reshape(-1) for part in parts])

    def dense(self) -> Tensor:
        """The whole matrix, made symmetric, in float64 on the CPU."""
        whole = (self @ torch.eye(len(self), device=self.device, dtype=self.dtype)).double().cpu()
        return (whole + whole.T) / 2


@contextmanager
def matrix_of(
    model: nn.Module, loss: Loss, x: Tensor, y: Tensor, *, ggn: bool, samples_at_a_time: int, batch_norm: str, title: str, progress: bool,
) -> Iterator[Matrix]:  # fmt: skip
    """The Hessian of the mean loss, or its Gauss-Newton part, with model and buffers held still; ``title`` is that of the bar."""
    parts, model = batches(x, y, samples_at_a_time), unwrapped(_checks.module("model", model))
    products = gauss_newton_products if _checks.flag("ggn", ggn) else hessian_products
    check_loss(loss)
    weights = list(trainable(model).values())
    with held(model, batch_norm), bar(title, None, "products", progress) as advance:
        yield Matrix(products, model, loss, weights, parts, advance)
