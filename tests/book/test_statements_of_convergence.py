"""The theorems of the pages on convergence and on the edge of stability, in float64, with code that the pages do not share."""

import math

import pytest
import torch

import bisam

pytestmark = pytest.mark.usefixtures("double")


def uniform(generator, low, high):
    return low + (high - low) * float(torch.rand((), generator=generator))


def test_the_bound_on_the_mean_squared_gradient_holds_exactly_in_expectation(double):
    """One weight, two batches, all paths of the coin enumerated: nothing is left to sampling."""
    largest = 0.0
    for _ in range(300):
        c = torch.rand(2, generator=double)
        c = c / c.max()  # curvatures; the largest is 1
        a, p = 3 * torch.randn(2, generator=double), uniform(double, 0, 1)
        eta, rho, steps = uniform(double, 1e-3, 1), 10 ** uniform(double, -2, 1), 6
        kind = int(4 * uniform(double, 0, 1))
        chance = torch.tensor([p, 1 - p])
        best = (chance * c * a).sum() / (chance * c).sum()
        loss = lambda w: float((chance * c * (w - a) ** 2).sum() / 2)  # noqa: B023, E731
        whole = lambda w: float((chance * c * (w - a)).sum())  # noqa: B023, E731
        paths, left, variance = [(1.0, 2.0)], 0.0, 0.0
        for _ in range(steps):
            ahead = []
            for weight, w in paths:
                g = whole(w)
                left += weight * g**2 / steps
                variance = max(variance, float((chance * (c * (w - a) - g) ** 2).sum()))
                for k in range(2):
                    slope = float(c[k] * (w - a[k]))
                    e = rho * (math.copysign(1, slope), -math.copysign(1, slope), -math.copysign(1, g), 0.0)[kind]
                    ahead.append((weight * float(chance[k]), w - eta * float(c[k]) * (w + e - float(a[k]))))
            paths = ahead
        rho *= kind < 3
        right = 2 * (loss(2.0) - loss(best)) / (eta * steps) + rho**2 + eta * (math.sqrt(variance) + rho) ** 2
        largest = max(largest, left / right)
    assert 0.5 < largest <= 1


@pytest.mark.parametrize("eta", [0.05, 0.3, 1.0])
def test_a_fixed_radius_on_a_parabola(eta):
    c, rho = 0.9, 0.4
    theta = eta * c
    for start in (0.013, 0.5, -7.0):
        up = down = start
        for _ in range(2000):
            up -= eta * c * (up + math.copysign(rho, up))
            down -= eta * c * (down - math.copysign(rho, down))
        assert math.isclose(abs(up), theta / (2 - theta) * rho) and math.isclose(abs(down), rho)


def test_mini_batches_displace_sam(double):
    """The second moment about w*, computed on a fine grid of densities, stays below the limit of the recursion."""
    for _ in range(200):
        v, p = uniform(double, 0.5, 5), uniform(double, 0.5, 0.99)
        rho = uniform(double, 0, 0.999) * min((1 - p) * v / max(2 * p - 1, 1e-9), 3.0)
        eta, c = uniform(double, 0.01, 0.99), 1.0
        rest = (1 - p) * v - (2 * p - 1) * rho
        w = torch.linspace(-3 * v, 4 * v, 701)
        after = 0.0
        for a, chance in ((0.0, p), (v, 1 - p)):
            after = after + chance * (w - eta * c * (w - a + rho * (w - a).sign()) - rest) ** 2
        bound = (1 - 2 * eta * c + 2 * (eta * c) ** 2) * (w - rest) ** 2 + 2 * (eta * c * (v + rho)) ** 2
        assert (after <= bound + 1e-12).all()


def test_the_cycles_of_sam_on_a_quadratic(double):
    for _ in range(200):
        d = 2 + int(4 * uniform(double, 0, 1))
        curvature = (0.05 + torch.rand(d, generator=double)).sort(descending=True).values
        eta, rho = uniform(double, 0.05, 0.99) * 2 / float(curvature[0]), 10 ** uniform(double, -2, 1)

        def step(w, curvature=curvature, eta=eta, rho=rho):
            g = curvature * w
            return w - eta * curvature * (w + rho * g / g.norm())

        for k in range(d):
            theta = eta * curvature[k]
            w = torch.zeros(d)
            w[k] = theta / (2 - theta) * rho
            assert torch.allclose(step(w), -w)
            assert math.isclose(eta * curvature[k] * (1 + rho * curvature[k] / (curvature * w).norm()), 2)
            matrix = torch.autograd.functional.jacobian(step, w)
            x = curvature / curvature[k]
            factors = 1 - theta * x - (2 - theta) * x**2
            factors[k] = 1 - theta
            assert torch.allclose(matrix, torch.diag(factors), atol=1e-9)
            assert bool(factors.abs().max() < 1) == (k == 0)


@pytest.mark.parametrize("name", ["sam", "bisam-log", "bisam-tanh"])
def test_the_jacobian_of_the_step(name, double):
    x, y = torch.randn(12, 3, generator=double), torch.randint(4, (12,), generator=double)
    recipe = bisam.recipe(name)
    w = torch.randn(12, generator=double)
    eta, rho = 0.7, 0.3

    def losses(v):
        f = torch.tanh(x @ v.view(4, 3).T) * 2
        return recipe.raised(f, y), recipe.descent(f, y)

    def gradient(v, which):
        return torch.autograd.grad(losses(v)[which], v, create_graph=True)[0]

    def step(v):
        q = gradient(v, 0)
        at = v + rho * q / q.norm()
        return v - eta * gradient(at, 1)

    at = w.requires_grad_()
    found = torch.autograd.functional.jacobian(step, at)
    hessian = torch.autograd.functional.hessian
    q = gradient(at, 0).detach()
    unit = q / q.norm()
    across = torch.eye(12) - torch.outer(unit, unit)
    inner = torch.eye(12) + rho / q.norm() * across @ hessian(lambda v: losses(v)[0], at.detach())
    stated = torch.eye(12) - eta * hessian(lambda v: losses(v)[1], at.detach() + rho * unit) @ inner
    assert torch.allclose(found, stated, atol=1e-9)
