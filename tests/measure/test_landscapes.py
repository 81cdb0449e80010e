"""Pictures of losses: what is drawn is what a loop over loaded weights finds, and what a rescaling may change."""

import copy
import itertools

import pytest
import torch
from torch import nn

from bisam import BISAM_LOG, CrossEntropy
from bisam.losses import zero_one
from bisam.measure.landscapes import (
    Subspace,
    gaussian,
    landscape,
    line_between,
    normalised,
    plane_through,
    weights_of,
)
from bisam.training import data, models

METRICS = {"ce": CrossEntropy().per_sample, "Q": BISAM_LOG.ascent.per_sample, "0-1": zero_one}
TASK = data.digits()
X, Y = TASK.train.inputs[:60].double(), TASK.train.targets[:60]
GRID = [torch.linspace(-1.5, 1.5, 4), torch.linspace(-1, 1, 3)]


def network(name="small_conv", seed=0):
    """In float64, and with running statistics that are not those of a fresh network."""
    torch.manual_seed(seed)
    model = models.build(name, (1, 8, 8), 10).double()
    model.train()(X)
    return model.eval()


def plane(model, by="filter", vectors="scaled", seeds=(1, 2)):
    w = weights_of(model)
    return Subspace(w, *(normalised(gaussian(model, seed), w, by, vectors) for seed in seeds))


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
            model.train(batch_norm == "estimated")
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


@pytest.mark.parametrize("batch_norm", ["kept", "estimated"])
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
    same(found, loop(model, line, axis, "kept"))
    assert found["0-1"][0] == zero_one(model(X), Y).mean()


def test_the_two_batch_norm_modes_differ_where_there_is_batch_norm():
    for name, differ in (("small_conv", True), ("mlp", False)):
        model = network(name)
        kept, estimated = (
            landscape(model, plane(model), GRID, X, Y, METRICS, batch_norm=mode)["ce"] for mode in ("kept", "estimated")
        )
        assert torch.equal(kept, estimated) is not differ


@pytest.mark.parametrize("options", [{"chunk": 1}, {"chunk": 5}, {"chunk": 1000}, {"batch_size": 7}, {"batch_size": 60}])
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


# -- directions -------------------------------------------------------------------------------------------------------


def test_every_filter_has_the_length_of_its_weights_and_keeps_its_direction():
    model = network()
    w, u = weights_of(model), gaussian(model, 0)
    found = normalised(u, w, vectors="scaled")
    for name in w:
        rows = len(w[name]) if w[name].ndim > 1 else 1
        ours, weight, drawn = (part[name].reshape(rows, -1) for part in (found, w, u))
        torch.testing.assert_close(ours.norm(dim=1), weight.norm(dim=1), rtol=1e-12, atol=1e-15)
        cosine = nn.functional.cosine_similarity(ours, drawn)
        assert ((cosine > 1 - 1e-12) | (weight.norm(dim=1) == 0)).all()
    assert torch.equal(u["0.weight"], gaussian(model, 0)["0.weight"])


def test_other_scales_and_vectors():
    model = network()
    w, u = weights_of(model), gaussian(model, 0)
    whole = normalised(u, w, by="tensor")
    torch.testing.assert_close(whole["0.weight"].norm(), w["0.weight"].norm())
    assert not torch.allclose(whole["0.weight"][0].norm(), w["0.weight"][0].norm(), rtol=1e-3)
    assert torch.equal(normalised(u, w, by="none")["0.weight"], u["0.weight"])
    for by in ("filter", "tensor", "none"):
        zeroed = normalised(u, w, by=by, vectors="zero")
        assert [name for name in w if not zeroed[name].any()] == [name for name in w if w[name].ndim < 2]
    assert torch.equal(normalised(u, w, by="none", vectors="scaled")["10.bias"], u["10.bias"])


def test_zero_weights_and_zero_directions_give_zero_and_no_nan():
    w, zero = {"weight": torch.tensor([[3.0, 4.0], [0.0, 0.0]])}, {"weight": torch.zeros(2, 2)}
    assert torch.equal(normalised(zero, w)["weight"], zero["weight"])
    assert torch.equal(normalised({"weight": torch.ones(2, 2)}, w)["weight"][1], torch.zeros(2))


def test_a_direction_is_shared_by_models_of_any_type():
    one, other = gaussian(network(seed=0).float(), 7), gaussian(network(seed=1), 7)
    for name in one:
        assert one[name].dtype == torch.float32 and other[name].dtype == torch.float64
        assert torch.equal(one[name], other[name].float())
    assert not torch.equal(other["0.weight"], gaussian(network(), 8)["0.weight"])
    entries = torch.cat([part.flatten() for part in other.values()])
    assert abs(entries.mean()) < 0.05 and abs(entries.std() - 1) < 0.05


def test_a_direction_leaves_the_random_state_alone():
    model, state = network(), torch.get_rng_state()
    gaussian(model, 7)
    assert torch.equal(torch.get_rng_state(), state)


def rescaled(model, factor):
    """The same function: the first layer times a factor (a number, or one a unit), the second divided by it."""
    twin = copy.deepcopy(model)
    factor = torch.as_tensor(factor, dtype=torch.float64) * torch.ones(len(model[1].bias), dtype=torch.float64)
    with torch.no_grad():
        twin[1].weight.mul_(factor[:, None])
        twin[1].bias.mul_(factor)
        twin[3].weight.div_(factor)
    torch.testing.assert_close(twin(X), model(X), rtol=1e-12, atol=1e-12)
    return twin


def pictures(model, other, by, vectors="scaled"):
    return [landscape(m, plane(m, by, vectors), GRID, X, Y, METRICS)["ce"] for m in (model, other)]


@pytest.mark.parametrize("factor", [0.01, 3.0, 50.0])
def test_filter_normalised_pictures_survive_the_rescaling_of_a_layer_and_raw_ones_do_not(factor):
    model = network("mlp")
    other = rescaled(model, factor)
    for by in ("filter", "tensor"):
        one, two = pictures(model, other, by)
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)
    one, two = pictures(model, other, "none")
    assert (one / two - 1).abs().max() > 0.05


def test_biases_left_out_of_the_direction_do_not_break_the_invariance():
    model = network("mlp")
    one, two = pictures(model, rescaled(model, 20.0), "filter", vectors="zero")
    torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)  # they are scaled with their layer


def test_a_factor_that_differs_from_unit_to_unit_does_change_the_picture():
    model = network("mlp")
    one, two = pictures(model, rescaled(model, torch.linspace(0.02, 50, 128)), "filter")
    assert (one / two - 1).abs().max() > 0.05


def test_batch_norm_makes_the_scale_of_a_filter_irrelevant():
    model = network()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[3].weight.mul_(torch.linspace(0.5, 20, 32)[:, None, None, None])
    one, two = (landscape(m, plane(m), GRID, X, Y, METRICS, batch_norm="estimated")["ce"] for m in (model, other))
    torch.testing.assert_close(one, two, rtol=1e-2, atol=1e-3)  # up to the eps of batch norm
    one, two = (landscape(m, plane(m, "none"), GRID, X, Y, METRICS, batch_norm="estimated")["ce"] for m in (model, other))
    assert (one / two - 1).abs().max() > 0.05


def test_the_plane_goes_through_its_three_models_and_keeps_distances():
    models_ = [network(seed=seed) for seed in (0, 1, 2)]
    w = [weights_of(m) for m in models_]
    found, corners = plane_through(*w)
    for (a, b), weights in zip(corners, w, strict=True):
        for name, part in found.at(a, b).items():
            torch.testing.assert_close(part, weights[name], rtol=1e-12, atol=1e-12)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        far = torch.cat([(w[i][name] - w[j][name]).flatten() for name in w[0]]).norm()
        torch.testing.assert_close((corners[i] - corners[j]).norm(), far)
    values = landscape(models_[0], found, [corners[:, 0], corners[:, 1]], X, Y, METRICS, batch_norm="estimated")
    for k, model in enumerate(models_):
        wanted = CrossEntropy()(model.train()(X), Y).detach()
        torch.testing.assert_close(values["ce"][k, k], wanted, rtol=1e-11, atol=0)


# -- promises ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_norm", ["kept", "estimated"])
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
    assert coarse[0] == coarse[1] and fine[0] != fine[1]
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
        ({"batch_norm": "eval"}, ValueError, "batch_norm must be one of kept, estimated"),
        ({"batch_norm": "estimated", "batch_size": 10}, ValueError, "batch_size must be None"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"chunk": 0}, ValueError, "chunk must be at least 1"),
        ({"chunk": 2.5}, TypeError, "chunk must be a whole number"),
    ],
)
def test_errors_of_landscape_name_the_argument(changes, error, message):
    with pytest.raises(error, match=message):
        landscape(**{**GOOD, **changes})


def test_errors_of_directions_and_subspaces_name_the_argument():
    w, u = weights_of(MODEL), gaussian(MODEL, 0)
    with pytest.raises(ValueError, match="by must be one of filter, tensor, none"):
        normalised(u, w, by="layer")
    with pytest.raises(ValueError, match="vectors must be one of zero, scaled"):
        normalised(u, w, vectors="keep")
    with pytest.raises(ValueError, match="direction must have the names that weights has"):
        normalised({"weight": torch.ones(2, 2)}, w)
    with pytest.raises(TypeError, match="direction must be a dictionary"):
        normalised(torch.ones(2), w)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        gaussian(MODEL, -1)
    with pytest.raises(ValueError, match=r"along\['1.weight'\] must have shape \(128, 64\), as in origin"):
        Subspace(w, {**u, "1.weight": torch.ones(2, 2)})
    with pytest.raises(ValueError, match="coordinates must be 2"):
        PLANE.at(1.0)
    far = {name: part + 1 for name, part in w.items()}
    for third in (w, far, {name: part + 2 for name, part in w.items()}):
        with pytest.raises(ValueError, match="third must not lie on the line"):
            plane_through(w, far, third)
    with pytest.raises(ValueError, match="third must not lie on the line"):
        plane_through(w, w, far)


def test_no_bar_without_a_terminal(capfd):
    landscape(**GOOD, progress=True)
    assert capfd.readouterr() == ("", "")
