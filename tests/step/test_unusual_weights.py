"""Weights that are not plain ones: tied, computed from others, made in the first pass; against a loop that knows nothing of the library."""

import contextlib

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from bisam import RECIPES, SAM, Batch, SharpnessAware
from bisam.step import RNGState

CROSS_ENTROPY = nn.functional.cross_entropy
STEPS = 4


def samples(step):
    draw = torch.Generator().manual_seed(step)
    return torch.randn(12, 6, generator=draw, dtype=torch.float64), torch.randint(6, (12,), generator=draw)


class Tied(nn.Module):
    """The weight of the first layer is that of the last one too."""

    def __init__(self):
        super().__init__()
        self.encode, self.norm, self.decode = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 6)
        self.decode.weight = self.encode.weight

    def forward(self, x):
        return self.decode(self.norm(torch.tanh(self.encode(x))))


def tied_to_a_table():
    """The first name of the weight has no "weight" in it, and so ASAM does not scale it."""
    model = Tied()
    weight = model.encode.weight
    del model.encode, model.decode, model.norm
    model.table = weight
    model.encode, model.norm, model.decode = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 6)
    model.encode.weight = model.decode.weight = model.table
    return model


class Marked(nn.Parameter):
    """A parameter in a class of its own."""


def of(change):
    def made():
        model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 6))
        change(model)
        return model

    return made


def in_a_subclass(model):
    model[0].weight = Marked(model[0].weight.detach().clone())


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight.tanh()


NETS = {
    "tied": Tied,
    "tied to a table": tied_to_a_table,
    "weight norm": of(lambda model: parametrizations.weight_norm(model[0])),
    "weight norm by a hook": of(lambda model: nn.utils.weight_norm(model[0])),
    "spectral norm": of(lambda model: parametrizations.spectral_norm(model[0])),
    "spectral norm by a hook": of(lambda model: nn.utils.spectral_norm(model[0])),
    "orthogonal": of(lambda model: parametrizations.orthogonal(model[3])),
    "two parametrisations": of(lambda model: parametrize.register_parametrization(parametrizations.spectral_norm(model[0]), "weight", Doubled())),
    "parametrised bias": of(lambda model: parametrize.register_parametrization(model[0], "bias", Doubled())),
    "a subclass": of(in_a_subclass),
    "lazy": lambda: nn.Sequential(nn.LazyLinear(6), nn.LazyBatchNorm1d(), nn.Tanh(), nn.LazyLinear(6)),
}  # fmt: skip


def net(kind):
    torch.manual_seed(0)
    return NETS[kind]().double()


def climbs(name, path, model):
    norm = model.norm if isinstance(model, Tied) else model[1]
    return name != "sam-on" or any(path is p for p in norm.parameters())


def plain_steps(model, name, lr=0.1):
    """SAM and its relatives in float64, with the names that torch gives to parameters."""
    recipe = RECIPES[name]
    ascent, rho = recipe.ascent or CROSS_ENTROPY, recipe.radius.rho
    for k in range(STEPS):
        x, y = samples(k)
        loss = ascent(model(x), y)
        named = dict(model.named_parameters())
        g = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
        g = {n: part for n, part in g.items() if climbs(name, named[n], model)}
        axis = {n: named[n].detach().abs() + 0.01 if name == "asam" and "weight" in n else 1.0 for n in g}
        size = sum((axis[n] * part).square().sum() for n, part in g.items()).sqrt()
        before = [t.detach().clone() for t in [*named.values(), *model.buffers()]]
        with torch.no_grad():
            for n, part in g.items():
                named[n] += rho * axis[n] ** 2 * part / size
        slopes = torch.autograd.grad(CROSS_ENTROPY(model(x), y), list(named.values()))
        with torch.no_grad():
            for tensor, value in zip([*named.values(), *model.buffers()], before, strict=True):
                tensor.copy_(value)
            for p, slope in zip(named.values(), slopes, strict=True):
                p -= lr * slope


def by_step(opt, model, x, y):
    opt.step(Batch(model, x, y))


def by_block(opt, model, x, y):
    opt.zero_grad()
    noise = RNGState()
    CROSS_ENTROPY(model(x), y).backward()
    with opt.perturbed(model, noise):
        CROSS_ENTROPY(model(x), y).backward()
    opt.step()


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated", "ignore:Lazy modules are a new feature")
@pytest.mark.parametrize(
    "name, style, cached",
    [(name, by_step, cached) for name in ("sam", "bisam-log", "asam", "sam-on") for cached in (False, True)]
    + [(name, by_block, False) for name in ("sam", "asam", "sam-on")],
)
@pytest.mark.parametrize("kind", NETS)
def test_the_steps_are_those_of_a_plain_loop(kind, name, style, cached):
    model, plain = net(kind), net(kind)
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), RECIPES[name])
    torch.manual_seed(1)
    for k in range(STEPS):
        with parametrize.cached() if cached else contextlib.nullcontext():
            style(opt, model, *samples(k))
    torch.manual_seed(1)
    plain_steps(plain, name)
    for (n, a), b in zip(model.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10, msg=lambda text, n=n: f"{n}: {text}")


@pytest.mark.parametrize("name", ["esam", "ksam", "rsam"])
def test_a_pass_that_only_looks_leaves_nothing_in_the_cache_of_parametrisations(name):
    recipe, ends = RECIPES[name], []
    for cached in (False, True):
        model = net("weight norm")
        opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), recipe, seed=0)
        for k in range(STEPS):
            with parametrize.cached() if cached else contextlib.nullcontext():
                opt.step(Batch(model, *samples(k)))
        ends.append([p.detach() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_lazy_modules_are_made_before_a_step_in_parts():
    model = net("lazy")
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), SAM.replace(micro_batch=4))
    with pytest.raises(ValueError, match=r"call model\(inputs\) once before it"):
        opt.step(Batch(model, *samples(0)))
    model(samples(0)[0])
    opt.step(Batch(model, *samples(0)))
