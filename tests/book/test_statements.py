"""Statements of the chapters, in float64: searched for counterexamples at random, and their numbers computed again."""

import math
from pathlib import Path

import pytest
import torch

import bisam

BOOK = Path(__file__).resolve().parents[2] / "book"
DRAWS = 20_000


pytestmark = pytest.mark.usefixtures("double")


def distributions(classes, generator):
    """Label distributions from nearly certain to nearly uniform."""
    power = 0.2 + 5 * torch.rand(DRAWS, 1, generator=generator)
    return (power * torch.rand(DRAWS, classes, generator=generator).log()).softmax(1)


def scores_near(t, generator):
    """Scores of predictors: some at random, some close to t, some that tie two classes of t as cheaply as one can."""
    f = t.log() + 3 * torch.rand(len(t), 1, generator=generator) ** 2 * torch.randn(t.shape, generator=generator)
    tied, order = torch.arange(0, len(t), 3), t.sort(1, descending=True).indices
    for rank in (0, 1):
        f[tied, order[tied, rank]] = ((t[tied, order[tied, 0]] + t[tied, order[tied, 1]]) / 2).log() + 1e-13 * rank
    return f


def floor(noise, classes):
    """The lowest expected cross-entropy with symmetric noise."""
    return -(1 - noise) * math.log(1 - noise) - noise * math.log(noise / (classes - 1))


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_excess_mistakes_stay_below_the_root_of_twice_the_excess_cross_entropy(classes, double):
    t = distributions(classes, double)
    f = scores_near(t, double)
    excess = t.amax(1) - t.gather(1, f.argmax(1, keepdim=True))[:, 0]
    divergence = (t * (t.log() - f.log_softmax(1))).sum(1)
    assert (excess > 1e-3).sum() > 100, "no wrong decisions among the draws"
    assert (divergence - excess**2 / 2 > -1e-14).all()
    assert (divergence - (t - f.softmax(1)).abs().sum(1) ** 2 / 2 > -1e-14).all()  # Pinsker
    wrong = excess > 1e-3
    assert (divergence[wrong] / (excess[wrong] ** 2 / 2)).min() < 1.1  # the constant cannot be much better


def test_no_predictor_comes_below_the_floor(double):
    for classes, noise in ((2, 0.3), (10, 0.4), (10, 0.05)):
        clean = distributions(classes, double)
        given = (1 - noise) * clean + noise / (classes - 1) * (1 - clean)
        best = -(given * given.log()).sum(1)  # at the best prediction there is
        assert (best > floor(noise, classes) - 1e-12).all()
        assert torch.equal(given.argmax(1), clean.argmax(1))


def test_the_numbers_of_the_floor():
    text = " ".join((BOOK / "bisam.md").read_text(encoding="utf-8").split())
    at = floor(0.4, 10)
    assert f"this is {at:.2f}, and divided by $\\log 2$ it is {at / math.log(2):.2f}." in text
    assert "above 2.24 in bits" in (BOOK / "slides" / "deck.md").read_text(encoding="utf-8")
    low, high = 0.01, 0.5
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if floor(middle, 10) < math.log(2) else (low, middle)
    assert 1 / 8 < low < 1 / 7 and f"$\\nu = {low:.3f}$: with one label in seven wrong" in text
    assert floor(0.5, 2) == pytest.approx(math.log(2))


def smooth(parameters, inputs):
    return torch.tanh(inputs @ parameters[:12].view(4, 3)) @ parameters[12:].view(3, 3)


@pytest.mark.parametrize("name, order", [("sam", 2), ("bisam-log", 1), ("bisam-tanh", 1)])
def test_what_the_step_drops(name, order, double):
    """The formula, its order in the radius, and for SAM that it is the error of the climb times the Hessian."""
    inputs, targets = torch.randn(30, 4, generator=double), torch.randint(3, (30,), generator=double)
    w = 0.5 * torch.randn(21, generator=double)
    recipe = bisam.recipe(name)
    raised, lowered = (lambda v, loss=loss: loss(smooth(v, inputs), targets) for loss in (recipe.raised, bisam.CrossEntropy()))
    gradient = torch.func.grad(raised)
    hessian = torch.func.jacrev(gradient)(w)
    g = gradient(w)
    u = g / g.norm()
    across = torch.eye(21) - torch.outer(u, u)
    sizes = []
    for radius in (2e-3, 1e-3):
        at = w.clone().requires_grad_()
        ascent = torch.autograd.grad(raised(at), at, create_graph=True)[0]
        whole = torch.autograd.grad(lowered(at + radius * ascent / ascent.norm()), at)[0]
        kept = torch.func.grad(lowered)(w + radius * u)
        dropped = whole - kept
        torch.testing.assert_close(dropped, radius / g.norm() * hessian @ across @ kept, rtol=1e-6, atol=1e-13)
        sizes.append(dropped.norm())
        climb = radius * u
        for _ in range(50):
            there = gradient(w + climb)
            climb = radius * there / there.norm()
        if name == "sam":
            error = radius**2 / g.norm() * across @ hessian @ u
            assert (climb - radius * u - error).norm() < 0.1 * error.norm()
            worst = torch.func.grad(lowered)(w + climb)
            assert (worst - kept - dropped).norm() < 0.1 * dropped.norm()
    assert math.log2(sizes[0] / sizes[1]) == pytest.approx(order, abs=0.05)
