"""Slow and obvious versions of the formulas, in double precision, and small cases that several tests share.

Nothing here uses bisam: scores are lists of floats, sums are loops, and a step is written with plain tensors.
"""

import math

import torch
from torch import nn

# -- formulas --------------------------------------------------------------------------------------


def neg_log(gamma):
    """The bound 1 - log(1 + e^(gamma - x)) and its slope."""
    return lambda x: 1 - math.log1p(math.exp(gamma - x)), lambda x: 1 / (1 + math.exp(x - gamma))


def tanh(alpha):
    """The bound tanh(alpha x) and its slope."""
    return lambda x: math.tanh(alpha * x), lambda x: alpha / math.cosh(alpha * x) ** 2


def margins(scores, true):
    """How far each class is above the true one."""
    found = []
    for score in scores:
        found.append(score - scores[true])
    return found


def q(scores, true, phi, mu):
    """The surrogate of one sample: (1 / mu) log((1 / K) sum_j e^(mu phi(F_j)))."""
    heights = [mu * phi(margin) for margin in margins(scores, true)]
    top, total = max(heights), 0.0  # e^1000 is no float: the largest term is taken out of the sum
    for height in heights:
        total += math.exp(height - top)
    return (top + math.log(total / len(scores))) / mu


def q_gradient(scores, true, phi, slope, mu):
    """The derivatives of q for the scores: p_j phi'(F_j), and minus their sum for the true class."""
    margin = margins(scores, true)
    top = max(mu * phi(x) for x in margin)
    total = sum(math.exp(mu * phi(x) - top) for x in margin)
    gradient = [0.0] * len(scores)
    for j, x in enumerate(margin):
        if j != true:
            gradient[j] = math.exp(mu * phi(x) - top) / total * slope(x)
            gradient[true] -= gradient[j]
    return gradient


def cross_entropy(scores, true, smoothing=0.0, convention="all"):
    """-sum_j t_j log p_j, with the smoothed mass shared over all classes or over the wrong ones."""
    top, classes = max(scores), len(scores)
    log_total = top + math.log(sum(math.exp(score - top) for score in scores))
    loss = 0.0
    for j, score in enumerate(scores):
        target = 1 - smoothing if j == true else 0.0
        if convention == "all":
            target += smoothing / classes
        elif j != true:
            target += smoothing / (classes - 1)
        loss -= target * (score - log_total)
    return loss


def zero_one(scores, true, ties="right"):
    """1 if some wrong class scores higher, or as high where ties are wrong; else 0."""
    for j, score in enumerate(scores):
        if j != true and (score > scores[true] or (ties == "wrong" and score == scores[true])):
            return 1.0
    return 0.0


def q_plain(logits, targets, phi, mu):
    """The mean of q as a chain of tensor operations, for autograd to differentiate."""
    total = 0.0
    for scores, true in zip(logits, targets, strict=True):
        total = total + torch.log(torch.exp(mu * phi(scores - scores[true])).mean()) / mu
    return total / len(logits)


def l2_step(gradient, rho):
    """rho times the unit vector along the gradient, a list of tensors."""
    length = math.sqrt(sum(float(entry) ** 2 for part in gradient for entry in part.flatten()))
    return [rho * part / length for part in gradient]


def lp_step(gradient, rho, p):
    """The point of the p-ball of radius rho where <g, epsilon> is largest: loops, and the three cases of p apart."""
    entries = [float(x) for tensor in gradient for x in tensor.detach().flatten()]
    if p == math.inf:
        found = [rho * ((x > 0) - (x < 0)) for x in entries]
    elif p == 1:
        top = max(abs(x) for x in entries)
        ties = sum(abs(x) == top for x in entries)
        found = [rho / ties * ((x > 0) - (x < 0)) if abs(x) == top else 0.0 for x in entries]
    else:
        q = p / (p - 1)
        total = sum(abs(x) ** q for x in entries)
        found = [rho * ((x > 0) - (x < 0)) * abs(x) ** (q - 1) / total ** (1 / p) for x in entries]
    return _shaped(found, gradient)


def adaptive_step(gradient, weights, rho, eta, scaled):
    """rho T^2 g / ||T g||, entry by entry; ``scaled`` says for each tensor whether T is |w| + eta or 1."""
    axes = []
    for weight, is_scaled in zip(weights, scaled, strict=True):
        axes += [abs(float(x)) + eta if is_scaled else 1.0 for x in weight.detach().flatten()]
    entries = [float(x) for tensor in gradient for x in tensor.detach().flatten()]
    size = math.sqrt(sum((t * x) ** 2 for t, x in zip(axes, entries, strict=True)))
    return _shaped([rho * t * t * x / size for t, x in zip(axes, entries, strict=True)], gradient)


def _shaped(entries, like):
    parts, k = [], 0
    for tensor in like:
        parts.append(torch.tensor(entries[k : k + tensor.numel()], dtype=torch.float64).reshape(tensor.shape))
        k += tensor.numel()
    return parts


def sharpness_aware_step(weights, forward, ascent, descent, rho, lr):
    """One step on a list of tensors: climb along the gradient of the ascent loss, descend from there."""
    weights = [w.detach().clone().requires_grad_() for w in weights]
    climb = l2_step(torch.autograd.grad(ascent(forward(weights)), weights), rho)
    worst = [(w + e).detach().requires_grad_() for w, e in zip(weights, climb, strict=True)]
    slope = torch.autograd.grad(descent(forward(worst)), worst)
    return [(w - lr * g).detach() for w, g in zip(weights, slope, strict=True)]


# -- cases -----------------------------------------------------------------------------------------

SCORES = {
    "one sample": ([[0.3, -1.2, 2.0]], [1]),
    "right and wrong": ([[2.0, 0.0, -1.0], [2.0, 0.0, -1.0], [0.1, 0.2, 0.3]], [0, 2, 2]),
    "ties": ([[1.0, 1.0, 0.0], [1.0, 2.0, 2.0], [0.5, 0.5, 0.5]], [0, 1, 2]),
    "one class": ([[1.0], [-3.0]], [0, 0]),
    "far apart": ([[90.0, -90.0, 0.0], [90.0, -90.0, 0.0]], [0, 1]),
    "a thousand classes": ([[math.sin(j) for j in range(1000)], [math.cos(j) for j in range(1000)]], [7, 0]),
}

NETS = ("plain", "norm", "cumulative norm", "dropout", "norm and dropout")


def net(kind="plain", dtype=torch.float64):
    """A small network from 4 numbers to 3 logits, the same at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = [nn.Linear(4, 5)]
        if "norm" in kind:
            layers += [nn.BatchNorm1d(5, momentum=None if kind == "cumulative norm" else 0.1)]
        layers += [nn.Tanh()] + ([nn.Dropout(0.5)] if "dropout" in kind else []) + [nn.Linear(5, 3)]
        return nn.Sequential(*layers).to(dtype)


def samples(k=0, n=8, dtype=torch.float64):
    """The k-th batch for :func:`net`."""
    draw = torch.Generator().manual_seed(k)
    return torch.randn(n, 4, generator=draw).to(dtype), torch.randint(0, 3, (n,), generator=draw)


def bits(thing):
    """Tensors as bytes, at any depth of lists and dictionaries: -0.0 is not 0.0, and NaN is NaN."""
    if isinstance(thing, torch.Tensor):
        return str(thing.dtype), thing.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(thing, dict):
        return {name: bits(part) for name, part in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [bits(part) for part in thing]
    return thing
