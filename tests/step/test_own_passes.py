"""Passes that are not ours: blocks, closures and functions, for every recipe that needs no more than gradients."""


import pytest
import reference
import torch
from torch import nn

import bisam
from bisam import SAM, Batch, SharpnessAware
from bisam.step import RNGState

EXTRA = ("gsam-bisam-log", "looksam-bisam-log", "vasso-bisam-tanh", "fsam-bisam-log", "rsam-bisam-log", "bsam-bisam-log", "le-sam-bisam-log")
TABLE = {**bisam.RECIPES, **{name: bisam.recipe(name) for name in EXTRA}}
NEED_SAMPLES = [
    name for name, row in TABLE.items() if row.radius.rho and (row.selection or row.micro_batch or row.radius.learns or row.factors != "both")
]
CARRIED = [name for name in TABLE if name not in NEED_SAMPLES]
BOTH_AT_W = [name for name in CARRIED if TABLE[name].ascent is not None and TABLE[name].gradient_at_w == "descent"]
OWN_ASCENT = [name for name in CARRIED if TABLE[name].ascent is not None]


def each(names):
    return pytest.mark.parametrize("recipe", [TABLE[name] for name in names], ids=list(names))


def soon(recipe):
    """A phase that begins within the steps of a test."""
    if hasattr(recipe.radius, "start"):
        return recipe.replace(radius=type(recipe.radius)(recipe.radius.rho, start=2, every=min(2, recipe.radius.every)))
    return recipe


def wrapped(model, recipe=SAM, **options):
    needs = recipe.geometry, recipe.start, recipe.combination
    if any(type(part).__module__.endswith("bsam") for part in needs):
        base = bisam.Variational(model.parameters(), lr=0.05, samples=500)
    else:
        base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    return SharpnessAware(base, soon(recipe), **{"seed": 0, **options})


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def losses(opt, model, k, dtype=torch.float64):
    x, y = reference.samples(k, dtype=dtype)
    return lambda: opt.recipe.raised(model(x), y), lambda: opt.recipe.descent(model(x), y)


# -- the ways to make a step ------------------------------------------------------------------------------------------------


def by_batch(opt, model, k):
    opt.step(Batch(model, *reference.samples(k)))


def by_block(opt, model, k):
    ascent, descent = losses(opt, model, k)
    opt.zero_grad()
    with opt.perturbed(model, ascent=ascent):
        descent().backward()
    opt.step()


def by_block_after_backward(opt, model, k):
    ascent, descent = losses(opt, model, k)
    opt.zero_grad()
    noise = RNGState()
    ascent().backward()
    with opt.perturbed(model, noise):
        descent().backward()
    opt.step()


def closure_of(opt, model, k):
    _, descent = losses(opt, model, k)

    def closure():
        opt.zero_grad()
        loss = descent()
        loss.backward()
        return loss

    return closure


def by_closure(opt, model, k, **options):
    opt.step(closure_of(opt, model, k), model=model if opt.recipe.start is not None else None, **options)


def by_functions(opt, model, k):
    ascent, descent = losses(opt, model, k)
    opt.step(ascent=ascent, descent=descent, model=model)


def by_functions_without_model(opt, model, k):
    ascent, descent = losses(opt, model, k)
    opt.step(ascent=ascent, descent=descent)


def by_descent_alone(opt, model, k):
    opt.step(descent=losses(opt, model, k)[1], model=model if opt.recipe.start is not None else None)


WAYS = {
    by_block: [name for name in CARRIED if name not in BOTH_AT_W],
    by_block_after_backward: [name for name in CARRIED if name not in OWN_ASCENT and TABLE[name].start is None],
    by_closure: [name for name in CARRIED if name not in OWN_ASCENT],
    by_functions: CARRIED,
    by_functions_without_model: [name for name in CARRIED if TABLE[name].start is None],
    by_descent_alone: [name for name in CARRIED if name not in OWN_ASCENT],
}


def trained(recipe, way, kind, steps=6, **options):
    torch.manual_seed(3)
    model = reference.net(kind)
    opt = wrapped(model, recipe, **options)
    for k in range(steps):
        way(opt, model, k)
    return model, opt, torch.get_rng_state()


@pytest.mark.parametrize("kind", ["norm", "norm and dropout"])
@pytest.mark.parametrize("way, name", [(way, name) for way, names in WAYS.items() for name in names], ids=lambda part: getattr(part, "__name__", part))
def test_every_way_makes_the_step_of_a_batch(way, name, kind):
    model, opt, random = trained(TABLE[name], way, kind)
    twin, opt_2, random_2 = trained(TABLE[name], by_batch, kind)
    torch.testing.assert_close(flat(model), flat(twin), rtol=0, atol=1e-12)
    for ours, theirs in zip(model.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert torch.equal(random, random_2) and opt.memory.step == opt_2.memory.step == 6
    if TABLE[name].radius.rho and TABLE[name].geometry.drawn_share == 1:
        assert (flat(model) - flat(trained(bisam.SGD, by_batch, kind)[0])).abs().max() > 1e-7


def test_most_of_the_table_needs_no_more_than_gradients():
    assert len(NEED_SAMPLES) == 15 and BOTH_AT_W == ["gsam-bisam-log", "looksam-bisam-log", "bsam-bisam-log"]


# -- against steps that are written out ----------------------------------------------------------------------------------------


def plain_steps(kind, alpha=0.0, surrogate=None, look_every=1, steps=6, rho=0.05):
    """SAM, BiSAM, GSAM with both, LookSAM: fifteen lines without the library's step."""
    model, cross = reference.net(kind), nn.functional.cross_entropy
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    w, across = list(model.parameters()), None
    for k in range(steps):
        x, y = reference.samples(k)
        r = torch.autograd.grad(cross(model(x), y), w)
        g = r if surrogate is None else torch.autograd.grad(surrogate(model(x), y), w)
        p = r
        if k % look_every == 0:
            climb = reference.l2_step(g, rho)
            before = [part.detach().clone() for part in w]
            for part, e in zip(w, climb, strict=True):
                part.data.add_(e)
            p = torch.autograd.grad(cross(model(x), y), w)
            for part, old in zip(w, before, strict=True):
                part.data.copy_(old)
        inner = lambda a, b: sum((s * t).sum() for s, t in zip(a, b, strict=True))  # noqa: E731
        if look_every > 1 and k % look_every == 0:
            across = [b - inner(p, r) / inner(r, r) * a for a, b in zip(r, p, strict=True)]
        elif look_every > 1:
            p = [a + alpha * (inner(r, r) / inner(across, across)).sqrt() * b for a, b in zip(r, across, strict=True)]
        elif alpha:
            p = [b - alpha * (a - inner(r, p) / inner(p, p) * b) for a, b in zip(r, p, strict=True)]
        for part, slope in zip(w, p, strict=True):
            part.grad = slope
        sgd.step()
    return model


def q_log(logits, targets):
    ascent = bisam.BISAM_LOG.ascent
    return reference.q_plain(logits, targets, lambda x: 1 - torch.log1p(torch.exp(ascent.phi.gamma - x)), ascent.mu)


WRITTEN = {
    "sam": {},
    "bisam-log": {"surrogate": q_log},
    "gsam": {"alpha": 0.3},
    "gsam-bisam-log": {"alpha": 0.3, "surrogate": q_log},
    "looksam": {"alpha": 0.7, "look_every": 3},
    "looksam-bisam-log": {"alpha": 0.7, "look_every": 3, "surrogate": q_log},
}


@pytest.mark.parametrize("way, name", [(way, name) for way, names in WAYS.items() for name in names if name in WRITTEN], ids=lambda part: getattr(part, "__name__", part))
def test_every_way_makes_the_steps_that_are_written_out(way, name):
    recipe = TABLE[name].replace(radius=bisam.Constant(0.05))
    if "gsam" in name:
        recipe = recipe.replace(combination=bisam.Decomposed(0.3))
    if "looksam" in name:
        recipe = recipe.replace(combination=bisam.LookSAM(every=3, alpha=0.7))
    model, _, _ = trained(recipe, way, "plain")
    torch.testing.assert_close(flat(model), flat(plain_steps("plain", **WRITTEN[name])), rtol=0, atol=1e-11)
