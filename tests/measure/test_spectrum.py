"""The density of the spectrum against a known one."""

import pytest
import torch
from small_nets import output, quadratic

from bisam.measure import spectral_density


def test_spectral_density_is_the_smoothed_spectrum():
    given = torch.cat([torch.full((20,), 10.0), torch.linspace(-1, 1, 180)])
    model, x, y = quadratic(given)
    grid, density = spectral_density(model, output, x, y, products=24, repeats=20)
    area = torch.cumulative_trapezoid(density, grid)
    assert float(area[-1]) == pytest.approx(1, abs=0.02)
    below = float(area[int((grid < 5).sum()) - 1])
    assert below == pytest.approx(0.9, abs=0.02)  # a share of 20 / 200 sits at 10
    mean = float(torch.trapezoid(density * grid, grid))
    assert mean == pytest.approx(float(given.mean()), abs=0.15)
    assert grid[0] < -1 and grid[-1] > 10
    few = {"products": 24, "repeats": 2}
    first, again = (spectral_density(model, output, x, y, **few)[1] for _ in range(2))
    assert torch.equal(first, again)


def test_spectral_density_says_when_it_broke_down():
    model, x, y = quadratic(torch.zeros(100))
    with pytest.raises(FloatingPointError, match="distinct eigenvalues"):
        spectral_density(model, output, x, y)
