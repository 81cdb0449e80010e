"""Products with the Hessian against matrices that are made in other ways, for every kind of layer."""

import copy

import pytest
import torch
from small_nets import CE, F64, dense_ggn, dense_hessian, net, of_vector, samples
from torch import nn

from bisam.measure import top_eigenvalues
from bisam.measure.hessian import matrix_of


class Attention(nn.Module):
    def forward(self, x):
        q = x.view(len(x), 1, 4, 2)
        return nn.functional.scaled_dot_product_attention(q, q, q).flatten(1)


LAYERS = {
    "batch norm, batch": nn.BatchNorm1d(8),
    "batch norm, running": nn.BatchNorm1d(8),
    "layer norm": nn.LayerNorm(8),
    "group norm": nn.GroupNorm(2, 8),
    "instance norm": nn.Sequential(nn.Unflatten(1, (2, 4)), nn.InstanceNorm1d(2), nn.Flatten()),
    "convolution": nn.Sequential(nn.Unflatten(1, (2, 4)), nn.Conv1d(2, 2, 3, padding=1), nn.Flatten()),
    "attention": Attention(),
}


@pytest.mark.parametrize("name", LAYERS)
def test_products_agree_with_differences_of_gradients(name):
    """Independent of second derivatives, which libraries have got wrong for normalisation layers."""
    model = nn.Sequential(nn.Linear(4, 8), LAYERS[name], nn.Tanh(), nn.Linear(8, 3)).double()
    (x, y), how = samples(), {"batch_norm": "batch" if name.endswith("batch") else "running"}
    function, w = of_vector(copy.deepcopy(model).train(name.endswith("batch")), x, lambda logits: CE(logits, y))

    def gradient(at):
        at = at.clone().requires_grad_()
        return torch.autograd.grad(function(at), at)[0]

    step = 1e-5
    rows = [(gradient(w + step * e) - gradient(w - step * e)) / (2 * step) for e in torch.eye(len(w), dtype=F64)]
    values = torch.linalg.eigvalsh(torch.stack(rows)).flip(0)
    assert torch.allclose(top_eigenvalues(model, CE, x, y, 5, tolerance=1e-9, **how), values[:5], atol=1e-5)
    ggn = dense_ggn(copy.deepcopy(model).train(name.endswith("batch")), x)
    found = top_eigenvalues(model, CE, x, y, 5, ggn=True, tolerance=1e-9, **how)
    assert torch.allclose(found, torch.linalg.eigvalsh(ggn).flip(0)[:5], atol=1e-8)


@pytest.mark.parametrize("batch_norm", ["running", "batch"])
def test_batch_norm_uses_the_statistics_that_were_asked_for(batch_norm):
    model, (x, y) = net("norm"), samples()
    for _ in range(3):
        model(2 * x + 1)
    reference = copy.deepcopy(model).train(batch_norm == "batch")
    values = torch.linalg.eigvalsh(dense_hessian(reference, x, y)).flip(0)
    found = top_eigenvalues(model, CE, x, y, 3, batch_norm=batch_norm)
    assert torch.allclose(found, values[:3], atol=1e-9)
    other = top_eigenvalues(model, CE, x, y, 3, batch_norm={"running": "batch", "batch": "running"}[batch_norm])
    assert (found - other).abs().max() > 1e-3
    parts = top_eigenvalues(model, CE, x, y, 3, batch_norm=batch_norm, samples_at_a_time=6)
    assert torch.allclose(parts, found, atol=1e-9) == (batch_norm == "running")


class Tied(nn.Module):
    """One matrix in two places, a frozen bias, and a weight that the output does not depend on."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.two = nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.one.bias.requires_grad_(False)
        self.idle = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.two(self.one(x).tanh())


@pytest.mark.parametrize("ggn", [False, True])
@pytest.mark.parametrize("size", [5, 100])
def test_the_matrix_is_dense_hessian_also_where_weights_are_tied_frozen_or_idle(ggn, size):
    model, (x, y) = Tied().double(), samples()
    how = {"samples_at_a_time": size, "batch_norm": "running", "title": "", "progress": False}
    with matrix_of(model, CE, x, y, ggn=ggn, **how) as matrix:
        found, columns = matrix.dense(), matrix @ torch.eye(22, dtype=F64)
        one = matrix @ columns[:, 3]
    wanted = dense_ggn(model, x) if ggn else dense_hessian(model, x, y)
    assert found.shape == (22, 22) and torch.allclose(found, wanted, atol=1e-12)
    assert torch.allclose(columns, wanted, atol=1e-12) and torch.allclose(one, wanted @ wanted[:, 3], atol=1e-12)


def test_dropout_is_off():
    model, (x, y) = net("dropout").train(), samples()
    values = torch.linalg.eigvalsh(dense_hessian(copy.deepcopy(model).eval(), x, y)).flip(0)
    assert torch.allclose(top_eigenvalues(model, CE, x, y, 3), values[:3], atol=1e-12)


def test_a_gradient_that_does_not_depend_on_the_weights_has_no_curvature():
    model, (x, y) = nn.Linear(4, 3).double(), samples()
    assert top_eigenvalues(model, lambda logits, targets: logits.mean(), x, y, 2).tolist() == [0, 0]
    assert top_eigenvalues(model, lambda logits, targets: logits.mean(), x, y, 2, ggn=True).tolist() == [0, 0]


def test_weights_of_two_types_are_refused():
    model, (x, y) = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3).double()), samples()
    with pytest.raises(ValueError, match="must have one dtype and one device for the Hessian"):
        top_eigenvalues(model, CE, x, y)
