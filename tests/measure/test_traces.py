"""Estimates of the trace: right on average, and by the seed alone."""

import math

import numpy
import pytest
import torch
from small_nets import CE, dense_hessian, net, samples

from bisam.measure import trace


@pytest.mark.parametrize("estimator", ["hutch++", "xtrace", "hutchinson"])
def test_trace_estimators_are_right_on_average(estimator):
    model, (x, y) = net(hidden=9), samples()
    exact = float(dense_hessian(model, x, y).trace())
    found = [trace(model, CE, x, y, products=18, estimator=estimator, seed=s) for s in range(30)]
    error = numpy.std(found, ddof=1) / math.sqrt(len(found))
    assert 0 < error < 0.2 * abs(exact)
    assert abs(numpy.mean(found) - exact) < 4 * error


def test_trace_depends_on_the_seed_alone():
    model, (x, y) = net(hidden=9), samples()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = [trace(model, CE, x, y, products=9, seed=s) for s in (0, 1)]
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(4)
    assert [trace(model, CE, x, y, products=9, seed=s) for s in (0, 1)] == first
    assert first[0] != first[1]
    assert trace(model, CE, x, y, products=9) == trace(model, CE, x, y, products=11)  # whole thirds are spent
