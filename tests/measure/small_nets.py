"""Networks small enough for a dense Hessian, quadratics of known spectrum, and the dense matrices themselves."""

import torch
from torch import nn

import bisam

F64 = torch.float64
CE = bisam.CrossEntropy()


def net(kind="plain", inputs=4, hidden=5, classes=3):
    """Few enough weights for a dense Hessian; tanh, so that it exists everywhere."""
    middle = {"plain": [], "norm": [nn.BatchNorm1d(hidden)], "dropout": [nn.Dropout(0.5)]}[kind]
    return nn.Sequential(nn.Linear(inputs, hidden), *middle, nn.Tanh(), nn.Linear(hidden, classes)).double()


def samples(n=12, inputs=4, classes=3, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, inputs, generator=draw, dtype=F64), torch.randint(classes, (n,), generator=draw)


class Quadratic(nn.Module):
    """One weight vector w; the loss is w' A w / 2 whatever the samples."""

    def __init__(self, matrix, start):
        super().__init__()
        self.w, self.matrix = nn.Parameter(start.clone()), matrix

    def forward(self, x):
        return (self.w @ self.matrix @ self.w / 2).expand(len(x), 1)


def output(logits, targets):
    return logits.mean()


def quadratic(eigenvalues, seed=0):
    d = len(eigenvalues)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=F64)).Q
    matrix = rotation @ torch.diag(torch.as_tensor(eigenvalues, dtype=F64)) @ rotation.T
    start = torch.randn(d, generator=torch.Generator().manual_seed(seed + 1), dtype=F64)
    return Quadratic(matrix, start), torch.zeros(3, 1, dtype=F64), torch.zeros(3)


def of_vector(model, x, loss):
    """The loss as a function of all trainable weights in one vector, and that vector."""
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    sizes = [w.numel() for w in weights.values()]

    def function(vector):
        parts = {name: part.view_as(w) for (name, w), part in zip(weights.items(), vector.split(sizes), strict=True)}
        return loss(torch.func.functional_call(model, parts, (x,)))

    return function, torch.cat([w.detach().flatten() for w in weights.values()])


def dense_hessian(model, x, y, loss=CE):
    """Row by row with plain autograd."""
    function, w = of_vector(model, x, lambda logits: loss(logits, y))
    w.requires_grad_()
    (g,) = torch.autograd.grad(function(w), w, create_graph=True)
    return torch.stack([torch.autograd.grad(entry, w, retain_graph=True)[0] for entry in g])


def dense_ggn(model, x):
    """J' (diag p - p p') J, averaged: the Hessian of cross-entropy for the logits, written out."""
    function, w = of_vector(model, x, lambda logits: logits)
    jacobian = torch.autograd.functional.jacobian(function, w)
    p = function(w).detach().softmax(1)
    middle = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    return torch.einsum("nid,nij,nje->de", jacobian, middle, jacobian) / len(x)
