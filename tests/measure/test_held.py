"""Measuring changes nothing, also when it fails; bad input is named; what is missing is named."""

import copy
import math
import sys
from types import SimpleNamespace

import pytest
import torch
from small_nets import CE, net, samples
from torch import nn

import bisam
from bisam import Adaptive, Batch
from bisam.measure import (
    climb,
    loss_rise,
    m_sharpness,
    misclassified,
    spectral_density,
    top_eigenvalues,
    trace,
)


class Exploding(nn.Module):
    """Fails in the n-th forward pass."""

    def __init__(self, at):
        super().__init__()
        self.counter = SimpleNamespace(left=at)  # not an attribute of the module, which a measure leaves as it was

    def forward(self, x):
        self.counter.left -= 1
        if self.counter.left == 0:
            raise RuntimeError("it went off")
        return x


MEASURES = {
    "loss_rise": lambda m, x, y, **more: loss_rise(m, CE, x, y, 0.3, steps=3, **more),
    "adaptive": lambda m, x, y, **more: loss_rise(m, CE, x, y, 0.3, Adaptive(), **more),
    "m_sharpness": lambda m, x, y, **more: m_sharpness(m, CE, x, y, 0.3, 4, **more),
    "climb": lambda m, x, y, **more: climb(m, CE, x, y, 0.3, **more),
    "misclassified": lambda m, x, y, **more: misclassified(
        m, x, y, {n: torch.ones_like(p) for n, p in m.named_parameters()}, **more
    ),
    "top_eigenvalues": lambda m, x, y, **more: top_eigenvalues(m, CE, x, y, 2, **more),
    "trace": lambda m, x, y, **more: trace(m, CE, x, y, products=6, **more),
    "density": lambda m, x, y, **more: spectral_density(m, CE, x, y, products=6, repeats=2, **more),
}


def everything(model):
    tensors = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters()), torch.get_rng_state()]
    modes = [module.training for module in model.modules()]
    tracked = [m.track_running_stats for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
    places = [p.data_ptr() for p in [*model.parameters(), *model.buffers()]]
    return [t.detach().clone() for t in tensors], modes, tracked, places


def same(a, b):
    return all(map(torch.equal, a[0], b[0])) and a[1:] == b[1:]


def exercised(at=10**9):
    model = nn.Sequential(
        nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), Exploding(at), nn.Linear(16, 3)
    ).double()
    x, y = samples()
    CE(model.train()(x) if at > 10**8 else nn.Sequential(*model[:4], model[5])(x), y).backward()
    model[3].eval()  # a mode of its own
    model[0].bias.requires_grad_(False)
    return model, x, y


@pytest.mark.parametrize("batch_norm", ["running", "batch"])
@pytest.mark.parametrize("name", MEASURES)
def test_measuring_changes_nothing(name, batch_norm):
    model, x, y = exercised()
    before = everything(model)
    MEASURES[name](model, x, y, batch_norm=batch_norm, samples_at_a_time=6)
    assert same(before, everything(model))
    with torch.no_grad():  # as evaluation code would call it
        MEASURES[name](model, x, y, batch_norm=batch_norm, samples_at_a_time=6)
    assert same(before, everything(model))


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("name", MEASURES)
def test_failing_changes_nothing(name, at):
    model, x, y = exercised(at)
    before = everything(model)
    with pytest.raises(RuntimeError, match="it went off"):
        MEASURES[name](model, x, y, batch_norm="batch", samples_at_a_time=6)
    assert same(before, everything(model))


def test_measuring_in_between_leaves_a_training_as_it_was():
    def trained(measured):
        torch.manual_seed(0)
        model, (x, y) = net("norm"), samples()
        opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), bisam.SAM)
        for _ in range(3):
            opt.step(Batch(model, x, y))
            if measured:
                for measure in MEASURES.values():
                    measure(model, x, y)
        return [p.detach().clone() for p in model.state_dict().values()]

    assert all(map(torch.equal, trained(False), trained(True)))


def test_bad_input_is_named():
    model, (x, y) = net(), samples()
    cases = {
        "rho": lambda: loss_rise(model, CE, x, y, -1),
        "steps": lambda: loss_rise(model, CE, x, y, 0.1, steps=0),
        "steps must be 1": lambda: loss_rise(model, CE, x, y, 0.1, bisam.axes.Unnormalised(), steps=2),
        "geometry": lambda: loss_rise(model, CE, x, y, 0.1, bisam.Masked()),
        "geometry must be a ball": lambda: loss_rise(model, CE, x, y, 0.1, bisam.L2),
        "m must be at most 12": lambda: m_sharpness(model, CE, x, y, 0.1, 13),
        "m must be at least 1": lambda: m_sharpness(model, CE, x, y, 0.1, 0),
        "pair up": lambda: loss_rise(model, CE, x, y[:3], 0.1),
        "at least one sample": lambda: loss_rise(model, CE, x[:0], y[:0], 0.1),
        "x must be a tensor": lambda: loss_rise(model, CE, [1], y, 0.1),
        "samples_at_a_time": lambda: loss_rise(model, CE, x, y, 0.1, samples_at_a_time=0),
        "chunk is now called samples_at_a_time": lambda: trace(model, CE, x, y, chunk=5),
        'batch_norm="kept" is now called batch_norm="running"': lambda: loss_rise(model, CE, x, y, 0.1, batch_norm="kept"),
        "batch_norm": lambda: loss_rise(model, CE, x, y, 0.1, batch_norm="train"),
        "reduction": lambda: loss_rise(model, nn.CrossEntropyLoss(reduction="sum"), x, y, 0.1),
        "reduction='sum'": lambda: trace(model, nn.CrossEntropyLoss(reduction="sum"), x, y),
        "scalar": lambda: loss_rise(model, CE.per_sample, x, y, 0.1),
        "loss must be a function": lambda: loss_rise(model, 3, x, y, 0.1),
        "k must be at most 43": lambda: top_eigenvalues(model, CE, x, y, 44),
        "which": lambda: top_eigenvalues(model, CE, x, y, which="LA"),
        "ggn": lambda: top_eigenvalues(model, CE, x, y, ggn=1),
        "tolerance": lambda: top_eigenvalues(model, CE, x, y, tolerance=0),
        "estimator": lambda: trace(model, CE, x, y, estimator="guess"),
        "products must be at least 3": lambda: trace(model, CE, x, y, products=2),
        "products must be below 43": lambda: spectral_density(model, CE, x, y, products=43),
        "seed": lambda: trace(model, CE, x, y, seed=-1),
        "must name parameters": lambda: misclassified(model, x, y, {"nobody": x}),
        "must have shape": lambda: misclassified(model, x, y, {"0.weight": x}),
        "running statistics": lambda: loss_rise(
            nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), model), CE, x, y, 0.1
        ),
    }
    for message, case in cases.items():
        with pytest.raises((ValueError, TypeError), match=message):
            case()
    with pytest.raises(ValueError, match="requires a gradient"):
        loss_rise(copy.deepcopy(model).requires_grad_(False), CE, x, y, 0.1)


def test_what_is_not_finite_is_not_a_number_to_report():
    model, (x, y) = net(), samples()
    with torch.no_grad():
        model[2].weight.fill_(math.inf)
    with pytest.raises((FloatingPointError, ValueError), match=r"finite|NaN"):
        loss_rise(model, nn.CrossEntropyLoss(), x, y, 0.1)
    with pytest.raises(FloatingPointError, match="not finite"):
        top_eigenvalues(model, nn.CrossEntropyLoss(), x, y)


def test_progress_is_silent_off_a_terminal(capfd):
    model, (x, y) = net(), samples()
    quiet, shown = (loss_rise(model, CE, x, y, 0.1, steps=2, progress=progress) for progress in (False, True))
    trace(model, CE, x, y, progress=True)
    m_sharpness(model, CE, x, y, 0.1, 4, progress=True)
    assert quiet == shown and capfd.readouterr() == ("", "")


def test_without_scipy_the_error_names_the_extra_and_the_rest_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.sparse.linalg", None)
    model, (x, y) = net(hidden=9), samples()
    assert loss_rise(model, CE, x, y, 0.1) > 0 and math.isfinite(trace(model, CE, x, y, products=6))
    for needy in (top_eigenvalues, spectral_density):
        with pytest.raises(ModuleNotFoundError, match=r'pip install "bisam\[measure\]"'):
            needy(model, CE, x, y)
