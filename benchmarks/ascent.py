"""The ascent loss alone: forward and backward from the logits to the layer below them, in cross-entropies."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator

import torch
from harness import Candidate, Case, Settings
from torch import Tensor
from torch.nn import functional

import bisam

Loss = Callable[[Tensor, Tensor], Tensor]

LOG, TANH = bisam.recipe("bisam-log").ascent, bisam.recipe("bisam-tanh").ascent


def cases(settings: Settings, batch: int = 128, classes: tuple[int, ...] = (10, 100, 1000)) -> Iterator[Case]:
    """One case for each number of classes."""
    for k in classes:
        yield _case(settings, batch, k)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The reference: what SAM raises."""
    return functional.cross_entropy(logits, targets, label_smoothing=0.1)


def neg_log(x: Tensor) -> Tensor:
    """The bound -log of BiSAM with its published shift, by autograd."""
    return 1 + functional.logsigmoid(x - math.log(math.e - 1))


def tanh(x: Tensor) -> Tensor:
    """The bound tanh of BiSAM with its published slope, by autograd."""
    return torch.tanh(0.1 * x)


def plain(phi: Callable[[Tensor], Tensor], mu: float) -> Loss:
    """Q as one would write it: all margins at once, the rest left to autograd."""

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        margins = logits - logits.gather(1, targets[:, None])
        return (torch.logsumexp(mu * phi(margins), 1) - math.log(logits.shape[1])).mean() / mu

    return loss


def by_rows(phi: Callable[[Tensor], Tensor], mu: float) -> Loss:
    """Q with a loop over the samples that writes each row of margins into a copy of the logits."""

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        margins = logits.clone()
        for i, target in enumerate(targets):
            margins[i] = logits[i] - logits[i, target]
        return (torch.log(torch.exp(mu * phi(margins)).sum(1)) / mu).mean()

    return loss


class End:
    """The last layer's output as a training step meets it: not a leaf, with a graph that goes on below.

    The graph below is one view, which computes nothing and may be gone through again and again.
    """

    def __init__(self, logits: Tensor, targets: Tensor):
        self.below = logits.requires_grad_()
        self.logits, self.targets = self.below.view_as(self.below), targets

    def through(self, loss: Loss) -> Callable[[], None]:
        """Value of the loss, and its gradient by ``backward``."""

        def run() -> None:
            self.below.grad = None
            loss(self.logits, self.targets).backward()

        return run

    def straight(self, gradient: Loss) -> Callable[[], None]:
        """The gradient in closed form, handed to ``backward`` of the logits; no value."""

        def run() -> None:
            self.below.grad = None
            self.logits.backward(gradient(self.logits, self.targets))

        return run


def no_compiler(device: str) -> str | None:
    """Why ``torch.compile`` cannot be used here, or ``None``."""
    if any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")):
        return None
    return f"torch.compile needs a C++ compiler, also for {device}: there is none"


def _case(settings: Settings, batch: int, classes: int) -> Case:
    torch.manual_seed(settings.seed)
    # Once a block of this size was freed, as in any training, the allocator keeps smaller ones instead of giving them back to
    # the system: page faults would be most of what is measured.
    torch.empty(7 << 20)
    targets = torch.randint(classes, (batch,), device=settings.device)
    end = End(2 * torch.randn(batch, classes, device=settings.device), targets)
    skipped: dict[str, str] = {}
    found = [
        Candidate("cross-entropy", end.through(cross_entropy)),
        Candidate("by rows -log", end.through(by_rows(neg_log, LOG.mu))),
        Candidate("plain -log", end.through(plain(neg_log, LOG.mu))),
        Candidate("plain tanh", end.through(plain(tanh, TANH.mu))),
        *_ours(end, skipped),
        *_compiled(end, settings, skipped),
    ]
    unit = "cross_entropy(label_smoothing=0.1), forward and backward"
    return Case("ascent", f"K = {classes}", unit, found, skipped, {"batch": batch, "classes": classes})


def _ours(end: End, skipped: dict[str, str]) -> Iterator[Candidate]:
    losses = {"-log": LOG, "tanh": TANH, "cross-entropy": bisam.CrossEntropy(smoothing=0.1)}
    for name, loss in losses.items():
        yield Candidate(f"bisam {name}", end.through(loss))
        if loss.gradient(end.logits, end.targets) is None:
            skipped[f"bisam {name}, gradient"] = "this loss has no gradient in closed form"
        else:
            yield Candidate(f"bisam {name}, gradient", end.straight(loss.gradient))


def _compiled(end: End, settings: Settings, skipped: dict[str, str]) -> Iterator[Candidate]:
    losses = {"cross-entropy": cross_entropy, "plain -log": plain(neg_log, LOG.mu), "bisam -log": LOG.__call__, "bisam tanh": TANH.__call__}
    gradients = {"bisam -log, gradient": LOG.gradient, "bisam tanh, gradient": TANH.gradient}
    torch.compiler.reset()  # or the shapes of the cases before count as recompilations, which end in plain Python
    reason = "left out of a quick run" if settings.quick else no_compiler(settings.device)
    for way, forms in ((end.through, losses), (end.straight, gradients)):
        for name, form in forms.items():
            if reason:
                skipped[f"compiled {name}"] = reason
            else:
                yield Candidate(f"compiled {name}", way(torch.compile(form, dynamic=False)), optional=True)
