"""Pictures of losses: what is drawn is what a loop over loaded weights finds."""

import copy
import itertools

import pytest
import torch
from digit_nets import GRID, METRICS, X, Y, network, plane
from torch import nn

from bisam import CrossEntropy
from bisam.losses import zero_one
from bisam.measure import Subspace, gaussian, landscape, line_between, weights_of
from bisam.training import models


def loop(model, subspace, grid, batch_norm):
    """The plain reference: load the weights of a point, run the network, take the mean."""
    model = copy.deepcopy(model)
    kept = {name: b.clone() for name, b in model.named_buffers()}
    found = {name: torch.zeros([len(axis) for axis in grid], dtype=torch.float64) for name in METRICS}
    for where in itertools.product(*(range(len(axis)) for axis in grid)):
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(subspace.origin[name])
                for k, axis, direction in zip(where, grid, subspace.axes, strict=True):
                    p.add_(float(axis[k]) * direction[name])
            model.train(batch_norm == "batch")
            logits = model(X)
            for name, b in model.named_buffers():
                b.copy_(kept[name])
        for name, metric in METRICS.items():
            found[name][where] = metric(logits, Y).mean()
    return found


def same(found, wanted, tolerance=1e-11):
    assert set(found) == set(wanted)
    for name in found:
        torch.testing.assert_close(found[name], wanted[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("batch_norm", ["running", "batch"])
@pytest.mark.parametrize("name", ["small_conv", "mlp"])
def test_a_plane_is_what_a_loop_finds(name, batch_norm):
    model = network(name)
    found = landscape(model, plane(model), GRID, X, Y, METRICS, batch_norm=batch_norm)
    same(found, loop(model, plane(model), GRID, batch_norm))
    assert found["ce"].shape == (4, 3)
    assert found["ce"].std() > 1e-3 and 0 < found["0-1"].mean() <= 1


def test_a_line_is_what_a_loop_finds():
    model = network()
    line = line_between(weights_of(model), weights_of(network(seed=5)))
    axis = [torch.tensor([0.0, 0.3, 1.0, 1.2])]
    found = landscape(model, line, axis, X, Y, METRICS)
    same(found, loop(model, line, axis, "running"))
    assert found["0-1"][0] == zero_one(model(X), Y).mean()


def test_the_two_batch_norm_modes_differ_where_there_is_batch_norm():
    for name, differ in (("small_conv", True), ("mlp", False)):
        model = network(name)
        running, batch = (
            landscape(model, plane(model), GRID, X, Y, METRICS, batch_norm=mode)["ce"] for mode in ("running", "batch")
        )
        assert torch.equal(running, batch) is not differ


@pytest.mark.parametrize("options", [{"points_at_a_time": 1}, {"points_at_a_time": 5}, {"points_at_a_time": 1000}, {"samples_at_a_time": 7}, {"samples_at_a_time": 60}])
def test_sizes_of_chunks_change_nothing(options):
    model = network()
    same(
        landscape(model, plane(model), GRID, X, Y, METRICS, **options),
        landscape(model, plane(model), GRID, X, Y, METRICS),
    )


def test_a_quadratic_gives_the_parabola_of_its_hessian():
    torch.manual_seed(3)
    model, x = nn.Linear(5, 1, bias=False).double(), torch.randn(30, 5, dtype=torch.float64)
    y, w = torch.randn(30, dtype=torch.float64), weights_of(model)
    u, v = gaussian(model, 0), gaussian(model, 1)
    metric = {"square": lambda logits, index: (logits.squeeze(1) - y[index]).square()}
    a, b = torch.linspace(-2, 2, 7).double(), torch.linspace(-1, 3, 5).double()
    found = landscape(model, Subspace(w, u, v), [a, b], x, torch.arange(30), metric)["square"]

    def loss(flat):
        return (x @ flat - y).square().mean()

    at = w["weight"][0]
    hessian = torch.autograd.functional.hessian(loss, at)
    slope = torch.autograd.functional.jacobian(loss, at)
    for i, j in itertools.product(range(7), range(5)):
        step = a[i] * u["weight"][0] + b[j] * v["weight"][0]
        wanted = loss(at) + slope @ step + 0.5 * step @ hessian @ step
        assert found[i, j] == pytest.approx(float(wanted), rel=1e-12)


@pytest.mark.parametrize("batch_norm", ["running", "batch"])
def test_the_model_is_left_alone(batch_norm):
    model = network()
    model.train()
    before = copy.deepcopy(model.state_dict())
    landscape(model, plane(model), GRID, X, Y, METRICS, batch_norm=batch_norm, dtype=torch.float32)
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) and value.dtype == before[name].dtype


def test_dropout_is_off_and_nothing_random_is_drawn():
    torch.manual_seed(0)
    model = models.mlp((1, 8, 8), 10, dropout=0.5).double().train()
    state = torch.get_rng_state()
    one, two = (landscape(model, plane(model), GRID, X, Y, METRICS)["ce"] for _ in range(2))
    assert torch.equal(one, two) and torch.equal(torch.get_rng_state(), state)


def test_float64_is_used_when_asked_for():
    model = network("mlp").float()
    axis = [torch.tensor([0.0, 1e-9])]
    line = Subspace(*(plane(model).origin, plane(model).along))
    coarse, fine = (
        landscape(model, line, axis, X.float(), Y, METRICS, dtype=dtype)["ce"] for dtype in (None, torch.float64)
    )
    far = landscape(model.double(), line, [torch.tensor([-1e-6, 1e-6], dtype=torch.float64)], X, Y, METRICS, dtype=torch.float64)["ce"]
    slope = (far[1] - far[0]) / 2e-6
    assert abs((fine[1] - fine[0]) / 1e-9 / slope - 1) < 1e-3
    assert abs((coarse[1] - coarse[0]) / 1e-9 / slope - 1) > 0.1  # the last bit of the loss, or none
    assert coarse.dtype == fine.dtype == torch.float64


def test_where_the_network_overflows_the_picture_is_infinite():
    model = network("mlp").float()
    line = Subspace(weights_of(model), plane(model).along)
    found = landscape(model, line, [torch.tensor([0.0, 1e30])], X.float(), Y, METRICS)
    for values in found.values():
        assert values[0].isfinite() and values[1] == torch.inf


def test_a_tied_weight_moves_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(4, 4, bias=False)
            self.two = self.one

        def forward(self, x):
            return self.two(self.one(x))

    model, x = Tied().double(), torch.randn(6, 4, dtype=torch.float64)
    u = gaussian(model, 0)
    assert list(u) == ["one.weight"]
    line = Subspace(weights_of(model), u)
    found = landscape(model, line, [torch.tensor([0.5])], x, Y[:6] % 4, {"ce": METRICS["ce"]})["ce"]
    w = model.one.weight + 0.5 * u["one.weight"]
    torch.testing.assert_close(found[0], CrossEntropy()(x @ w.T @ w.T, Y[:6] % 4).detach())


MODEL = network("mlp")


PLANE = plane(MODEL)


GOOD = {
    "model": MODEL, "subspace": PLANE, "coordinates": GRID, "inputs": X, "targets": Y, "metrics": METRICS,
}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": "mlp"}, TypeError, "model must be"),
        ({"subspace": PLANE.origin}, TypeError, "subspace must be"),
        ({"model": nn.Linear(2, 2)}, ValueError, "subspace must have the names that model has"),
        ({"coordinates": GRID[:1]}, ValueError, "coordinates must be a list of 2"),
        ({"coordinates": GRID[0]}, ValueError, "coordinates must be a list of 2"),
        ({"coordinates": [GRID[0], torch.tensor([torch.nan])]}, ValueError, "coordinates must hold"),
        ({"coordinates": [GRID[0], torch.zeros(0)]}, ValueError, "coordinates must hold"),
        ({"inputs": [1, 2]}, TypeError, "inputs must be"),
        ({"targets": Y[:5]}, ValueError, "targets must have shape"),
        ({"metrics": {}}, ValueError, "metrics must name"),
        ({"metrics": {"ce": CrossEntropy}}, TypeError, r"metrics\['ce'\] must be a function"),
        ({"metrics": {"ce": CrossEntropy()}}, ValueError, r"metrics\['ce'\] must return one number a sample"),
        ({"batch_norm": "eval"}, ValueError, "batch_norm must be one of running, batch"),
        ({"batch_norm": "estimated"}, ValueError, 'batch_norm="estimated" is now called batch_norm="batch"'),
        ({"chunk": 4}, TypeError, "chunk is now called points_at_a_time"),
        ({"batch_size": 4}, TypeError, "batch_size is now called samples_at_a_time"),
        ({"batch_norm": "batch", "samples_at_a_time": 10}, ValueError, "samples_at_a_time must be None"),
        ({"samples_at_a_time": 0}, ValueError, "samples_at_a_time must be at least 1"),
        ({"points_at_a_time": 0}, ValueError, "points_at_a_time must be at least 1"),
        ({"points_at_a_time": 2.5}, TypeError, "points_at_a_time must be a whole number"),
    ],
)
def test_errors_of_landscape_name_the_argument(changes, error, message):
    with pytest.raises(error, match=message):
        landscape(**{**GOOD, **changes})


def test_no_bar_without_a_terminal(capfd):
    landscape(**GOOD, progress=True)
    assert capfd.readouterr() == ("", "")
