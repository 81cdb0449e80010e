"""Where passes of others can go wrong: losses that are missing, scalers, noise, gradients that nobody has made."""

import copy
import itertools
import pickle

import pytest
import reference
import torch
from torch import nn

import bisam
from bisam import SAM, Batch, CrossEntropy, SharpnessAware
from bisam.axes import Unnormalised
from bisam.methods import BSAM, FSAM, LE_SAM, LETS_SAM, LOOKSAM, MSAM, RSAM, VASSO
from bisam.step import RNGState
from bisam.step.closures import joined

CE = CrossEntropy()


def wrapped(model, recipe=SAM, **options):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    base = bisam.Variational(model.parameters(), lr=0.05, samples=500) if recipe.name.startswith("bsam") else sgd
    return SharpnessAware(base, recipe, **{"seed": 0, **options})


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def loss_of(opt, model, k=0, dtype=torch.float64, raised=False):
    x, y = reference.samples(k, dtype=dtype)
    return lambda: (opt.recipe.raised if raised else opt.recipe.descent)(model(x), y)


def made(recipe=SAM, kind="plain", **options):
    model = reference.net(kind)
    opt = wrapped(model, recipe, **options)
    return model, opt, loss_of(opt, model)


def closing(opt, loss, scaler=None, calls=None):
    def closure():
        opt.zero_grad()
        value = loss()
        (value if scaler is None else scaler.scale(value)).backward()
        if calls is not None:
            calls.append(value.item())
        return value

    return closure


# -- what a recipe needs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bisam-log", "bisam-tanh", "a-bisam-log", "vasso-bisam-log", "gsam-bisam-log", "rsam-bisam-log"])
def test_a_loss_that_is_raised_and_not_given_is_asked_for(name):
    model, opt, loss = made(bisam.recipe(name))
    loss().backward()
    gradients = reference.bits([p.grad for p in model.parameters()])
    with pytest.raises(ValueError, match=r"ascent must be given for recipe '.*perturbed\(model, ascent=lambda: opt\.recipe\.ascent"), opt.perturbed(model):
        pass
    assert reference.bits([p.grad for p in model.parameters()]) == gradients  # nothing was touched
    with pytest.raises(ValueError, match=r"a closure has one loss, and cannot serve recipe .*opt\.step\(ascent=lambda"):
        opt.step(closing(opt, loss))
    with pytest.raises(ValueError, match=r"ascent must be given beside descent for recipe"):
        opt.step(descent=loss)
    assert torch.equal(flat(model), flat(reference.net()))


def test_a_radius_of_zero_asks_for_nothing_and_an_equal_loss_is_no_other():
    for recipe in (bisam.BISAM_LOG.with_rho(0), SAM.replace(ascent=CrossEntropy())):
        model, opt, loss = made(recipe)
        loss().backward()
        with opt.perturbed(model):
            loss().backward()
        opt.step()
        opt.step(closing(opt, loss))


@pytest.mark.parametrize("recipe", [MSAM, bisam.ESAM, LETS_SAM], ids=lambda recipe: recipe.name)
def test_what_needs_samples_is_refused_in_every_form(recipe):
    model, opt, loss = made(recipe)
    loss().backward()
    for form in (lambda: opt.perturbed(model).__enter__(), lambda: opt.step(closing(opt, loss)), lambda: opt.step(descent=loss)):
        with pytest.raises(ValueError, match=r"(micro_batch|selection|radius) of recipe .* needs the batch itself, which a (block|closure|function)"):
            form()


def test_what_needs_both_gradients_at_w_or_another_place_is_told_the_form():
    model, opt, loss = made(bisam.recipe("gsam-bisam-log"))
    with pytest.raises(ValueError, match=r"opt\.step\(ascent=\.\.\., descent=\.\.\.\)"), opt.perturbed(model, ascent=loss):
        pass
    model, opt, loss = made(RSAM)
    loss().backward()
    with pytest.raises(ValueError, match="first gradient is not taken at w"), opt.perturbed(model):
        pass
    with pytest.raises(ValueError, match=r"model must be given to step"):
        opt.step(descent=loss)


def test_an_ascent_is_refused_where_it_would_cost_something():
    model, opt, loss = made()
    loss().backward()
    with pytest.raises(ValueError, match=r"no parameter has a gradient, which would be lost: call opt\.zero_grad\(\)"), opt.perturbed(model, ascent=loss):
        pass
    opt.zero_grad()
    with pytest.raises(ValueError, match="noise must be left out with ascent"), opt.perturbed(model, RNGState(), ascent=loss):
        pass


@pytest.mark.parametrize("wrong", [lambda: None, lambda: 1.0, lambda: torch.zeros(()), lambda: torch.ones(2, requires_grad=True)])
@pytest.mark.parametrize("form", ["block", "ascent", "descent"])
def test_a_function_that_returns_no_loss_is_named(form, wrong):
    model, opt, loss = made(bisam.BISAM_LOG)
    before = flat(model)
    with pytest.raises(TypeError, match=rf"{'descent' if form == 'descent' else 'ascent'} must return a loss, a scalar tensor"):
        if form == "block":
            opt.perturbed(model, ascent=wrong).__enter__()
        else:
            opt.step(**{"ascent": loss, "descent": loss, form: wrong})
    assert torch.equal(flat(model), before) and all(p.grad is None for p in model.parameters())
    assert opt.step(ascent=loss, descent=loss) > 0


@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"ascent": lambda: None}, "descent must be given beside ascent"),
        ({"model": nn.Linear(2, 2)}, "model must be left out"),
        ({"batch": Batch(nn.Linear(2, 2), torch.eye(2), torch.tensor([0, 1])), "descent": lambda: None}, r"descent must be left out of step\(batch\)"),
        ({"closure": lambda: None, "descent": lambda: None}, r"descent must be left out of step\(closure\)"),
        ({"descent": 3}, "descent must be a function"),
        ({"closure": 3}, "closure must be a function"),
        ({"descent": lambda: None, "model": 3}, "model must be"),
        ({"descent": lambda: None, "validation": 3}, "validation must be left out"),
    ],
)
def test_arguments_that_exclude_each_other_are_named(arguments, error):
    _, opt, _ = made()
    with pytest.raises(TypeError, match=error):
        opt.step(**arguments)


@pytest.mark.parametrize("recipe", [SAM, RSAM, VASSO, bisam.GSAM, BSAM], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("on_call", [1, 2, 3])
def test_weights_and_memory_are_back_where_a_function_raises(recipe, on_call):
    model, opt, loss = made(recipe, "norm")
    opt.step(Batch(model, *reference.samples(7)))
    before, kept, count = reference.bits(list(model.parameters())), reference.bits(opt.memory.snapshot()), itertools.count(1)

    def fails():
        value = loss()
        if next(count) == on_call:
            raise ZeroDivisionError
        return value

    for form in (
        lambda: opt.step(ascent=fails, descent=fails, model=model),
        lambda: opt.step(closing(opt, fails), model=model),
        lambda: opt.perturbed(model, ascent=fails).__enter__(),
    ):
        count = itertools.count(1)
        try:
            form()
        except ZeroDivisionError:
            assert reference.bits(list(model.parameters())) == before and reference.bits(opt.memory.snapshot()) == kept
            assert not opt.displacement.is_away
        else:  # not so many calls
            return


# -- the block and a scaler ---------------------------------------------------------------------------------------------------

SIZED = {
    "le-sam": LE_SAM, "unnormalised": SAM.replace(geometry=Unnormalised()), "vasso": VASSO, "fsam": FSAM, "bsam": BSAM,
    "sam": SAM, "bisam-log": bisam.BISAM_LOG, "looksam": LOOKSAM, "gsam": bisam.GSAM, "gsam-bisam-log": bisam.recipe("gsam-bisam-log"),
}  # fmt: skip


def scaled_block(opt, model, scaler, k):
    opt.zero_grad()
    descent = loss_of(opt, model, k)
    with opt.perturbed(model, ascent=loss_of(opt, model, k, raised=True), scaler=scaler):
        scaler.scale(descent()).backward()
    scaler.step(opt)
    scaler.update()


def scaled_block_after_backward(opt, model, scaler, k):
    opt.zero_grad()
    descent = loss_of(opt, model, k)
    scaler.scale(descent()).backward()
    with opt.perturbed(model, scaler=scaler):
        scaler.scale(descent()).backward()
    opt.step(scaler=scaler)
    scaler.update()


def scaled_closure(opt, model, scaler, k):
    opt.step(closing(opt, loss_of(opt, model, k), scaler), scaler=scaler, model=model)
    scaler.update()


def scaled_functions(opt, model, scaler, k):
    opt.step(ascent=loss_of(opt, model, k, raised=True), descent=loss_of(opt, model, k), scaler=scaler, model=model)
    scaler.update()


SCALED = (scaled_block, scaled_block_after_backward, scaled_closure, scaled_functions)


def can(way, recipe):
    if way is scaled_functions:
        return True
    if way is scaled_block:
        return recipe.gradient_at_w != "descent"
    return recipe.ascent is None and (recipe.start is None or way is scaled_closure)


@pytest.mark.parametrize("way, name", [(way, name) for way in SCALED for name in SIZED if can(way, SIZED[name])], ids=lambda part: getattr(part, "__name__", part))
def test_a_scaler_changes_nothing_in_any_form(way, name):
    model, twin, lengths = reference.net(), reference.net(), []
    opt, opt_2 = (wrapped(net, SIZED[name], record=True) for net in (model, twin))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    for k in range(7):
        way(opt, model, scaler, k)
        opt_2.step(Batch(twin, *reference.samples(k)))
        lengths.append((opt.last.length, opt_2.last.length))
    torch.testing.assert_close(flat(model), flat(twin), rtol=0, atol=1e-12)
    assert all(one == other is None or one == pytest.approx(other, rel=1e-9) for one, other in lengths)


def overflowing(way, recipe, scaler, **options):
    """Twelve steps in float16 that begin with overflows: scales and weights on the way."""
    torch.manual_seed(0)
    model, found = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)), []
    opt = wrapped(model, recipe, **options)
    for k in range(12):
        x, y = reference.samples(k, dtype=torch.float32)

        def loss(raised, x=x, y=y):
            with torch.autocast("cpu", torch.float16):
                return (recipe.raised if raised else recipe.descent)(model(x), y)

        way(opt, model, scaler, loss, Batch(model, x, y, autocast=torch.float16))
        found.append((scaler.get_scale(), flat(model)))
    return found, opt


def of_batch(opt, model, scaler, loss, batch):
    opt.step(batch, scaler=scaler)
    scaler.update()


def of_block(opt, model, scaler, loss, batch):
    opt.zero_grad()
    with opt.perturbed(model, ascent=lambda: loss(True), scaler=scaler):
        scaler.scale(loss(False)).backward()
    scaler.unscale_(opt)
    scaler.step(opt)
    scaler.update()


def of_block_that_knows_no_scaler(opt, model, scaler, loss, batch):
    opt.zero_grad()
    scaler.scale(loss(True)).backward()
    with opt.perturbed(model):
        scaler.scale(loss(False)).backward()
    scaler.unscale_(opt)
    scaler.step(opt)
    scaler.update()


def of_closure(opt, model, scaler, loss, batch):
    opt.step(closing(opt, lambda: loss(False), scaler), scaler=scaler)
    scaler.update()


def of_functions(opt, model, scaler, loss, batch):
    opt.step(ascent=lambda: loss(True), descent=lambda: loss(False), scaler=scaler)
    scaler.update()


@pytest.mark.parametrize("mode", ["raise", "skip"])
@pytest.mark.parametrize("name, way", [
    *itertools.product(["sam", "looksam", "gsam"], [of_block, of_block_that_knows_no_scaler, of_closure, of_functions]),
    *itertools.product(["vasso", "le-sam"], [of_block, of_closure, of_functions]),
    ("bisam-log", of_block), ("bisam-log", of_functions), ("gsam-bisam-log", of_functions),
], ids=lambda part: getattr(part, "__name__", part))  # fmt: skip
def test_float16_goes_through_overflows_as_with_a_batch(name, way, mode):
    found, opt = overflowing(way, SIZED[name], torch.amp.GradScaler("cpu", init_scale=2.0**22), nonfinite=mode)
    expected, opt_2 = overflowing(of_batch, SIZED[name], torch.amp.GradScaler("cpu", init_scale=2.0**22), nonfinite=mode)
    scales = [scale for scale, _ in expected]
    assert [scale for scale, _ in found] == scales and scales[0] < 2.0**22 and scales[-1] == scales[-2]
    torch.testing.assert_close(found[-1][1], expected[-1][1], rtol=0, atol=2e-3)
    assert opt.memory.step == opt_2.memory.step < 12 and opt.skipped == 0


@pytest.mark.parametrize("name", ["le-sam", "unnormalised", "vasso", "fsam"])
def test_a_scaler_that_a_block_was_not_told_of_is_noticed_where_it_matters(name):
    model, opt, loss = made(SIZED[name])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaler.scale(loss()).backward()
    with opt.perturbed(model):
        scaler.scale(loss()).backward()
    with pytest.raises(ValueError, match=r"scaler must be given to the block, opt\.perturbed\(model, scaler=scaler\), for recipe"):
        scaler.step(opt)
    assert torch.equal(flat(model), flat(reference.net()))
    opt.zero_grad()
    scaler.update(2.0**10)
    scaled_block(opt, model, scaler, 1)


def test_a_scaler_after_a_backward_that_knew_of_none_is_refused():
    model, opt, _ = made()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaler.scale(torch.ones(()))
    opt.backward(Batch(model, *reference.samples()))
    with pytest.raises(ValueError, match=r"scaler must be given to backward\(batch, scaler=scaler\)"):
        scaler.step(opt)
    opt.step()  # unscaled, as they are, they are right
    opt.zero_grad()
    off = torch.amp.GradScaler("cpu", enabled=False)
    opt.backward(Batch(model, *reference.samples()))
    off.step(opt)


@pytest.mark.parametrize("on_pass, which", [(1, "ascent"), (2, "descent")])
def test_an_accident_without_a_scaler_ends_at_the_step_that_names_the_scaler(on_pass, which):
    model, opt, loss = made()
    count = itertools.count(1)
    model[0].weight.register_hook(lambda g: g * torch.inf if next(count) == on_pass else g)
    loss().backward()
    with opt.perturbed(model):
        loss().backward()
    with pytest.raises(FloatingPointError, match=f"the {which} gradient of sam holds inf or NaN") as caught:
        opt.step()
    assert "perturbed(model, scaler=scaler)" in caught.value.__notes__[0]
    assert torch.equal(flat(model), flat(reference.net())) and all(p.grad is None for p in model.parameters())
    with pytest.raises(RuntimeError, match="must follow"):
        opt.step()


@pytest.mark.parametrize("on_pass", [1, 2])
def test_a_fused_base_skips_a_block_without_anybody_looking(on_pass, monkeypatch):
    monkeypatch.setattr("bisam._look.is_free", lambda tensor: False)  # as on a GPU
    model = reference.net(dtype=torch.float32)
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True), nonfinite="skip")
    count = itertools.count(1)
    model[0].weight.register_hook(lambda g: g * torch.inf if next(count) == on_pass + 4 else g)
    before = []
    for k in range(4):
        x, y = reference.samples(k, dtype=torch.float32)
        opt.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        with opt.perturbed(model):
            nn.functional.cross_entropy(model(x), y).backward()
        opt.step()
        before.append(flat(model))
    assert torch.equal(before[1], before[2]) and not torch.equal(before[2], before[3])
    assert opt.skipped == 1 and opt.memory.step == 4


# -- noise --------------------------------------------------------------------------------------------------------------------


class Noisy(nn.Module):
    """Draws without a layer of torch that says so."""

    def __init__(self, kind, seen):
        super().__init__()
        self.kind, self.head = kind, nn.Linear(4, 3).double()
        self.register_forward_hook(lambda *_: seen.append(self.kept))

    def forward(self, x):
        kept = {
            "dropout": lambda: nn.functional.dropout(torch.ones_like(x), 0.5, self.training),
            "depth": lambda: (torch.rand(len(x), 1) > 0.5).to(x).expand_as(x),
            "noise": lambda: torch.randn_like(x),
            "attention": lambda: nn.functional.scaled_dot_product_attention(x[None], x[None], x[None], dropout_p=0.5)[0],
        }[self.kind]()
        self.kept = kept.detach()
        return self.head(x * kept)


@pytest.mark.parametrize("kind", ["dropout", "depth", "noise", "attention"])
def test_noise_that_no_layer_shows_is_noticed_and_every_way_out_works(kind):
    seen = []
    model = Noisy(kind, seen)
    opt, before = wrapped(model), flat(model)
    loss = loss_of(opt, model)
    loss().backward()
    with pytest.raises(ValueError, match=r"noise must be given.*RNGState.*ascent=lambda.*same_noise=False"), opt.perturbed(model):
        loss().backward()
    assert torch.equal(flat(model), before) and all(p.grad is None for p in model.parameters())
    with pytest.raises(RuntimeError, match="must follow"):
        opt.step()

    def by_noise():
        noise = RNGState()
        loss().backward()
        with opt.perturbed(model, noise):
            loss().backward()
        opt.step()

    def by_ascent():
        with opt.perturbed(model, ascent=loss):
            loss().backward()
        opt.step()

    for way in (by_noise, by_ascent, lambda: opt.step(closing(opt, loss)), lambda: opt.step(descent=loss), lambda: opt.step(ascent=loss, descent=loss)):
        opt.zero_grad()
        seen.clear()
        way()
        assert len(seen) == 2 and torch.equal(*seen)
    opt.recipe = SAM.replace(same_noise=False)
    seen.clear()
    opt.zero_grad()
    loss().backward()
    with opt.perturbed(model):
        loss().backward()
    opt.step()
    assert not torch.equal(*seen)


@pytest.mark.parametrize("form", ["closure", "functions"])
def test_random_numbers_go_on_as_after_one_pass(form):
    _, opt, loss = made(kind="dropout")
    with torch.random.fork_rng():
        loss()
        expected = torch.get_rng_state()
    opt.step(closing(opt, loss)) if form == "closure" else opt.step(ascent=loss, descent=loss)
    assert torch.equal(torch.get_rng_state(), expected)


# -- gradients that nobody has made -----------------------------------------------------------------------------------------------


def test_a_block_without_a_backward_is_no_step():
    for inside in (lambda loss, opt: loss(), lambda loss, opt: (loss().backward(), opt.zero_grad()), lambda loss, opt: None):
        model, opt, loss = made(VASSO)
        loss().backward()
        with opt.perturbed(model):
            inside(loss, opt)
        scaler = torch.amp.GradScaler("cpu")
        scaler.scale(torch.ones(()))
        for step in (opt.step, opt.base.step, lambda o=opt, s=scaler: s.step(o)):
            with pytest.raises(RuntimeError, match=r"no gradient was left by the `with opt\.perturbed\(model\):` block: call backward"):
                step()
        assert torch.equal(flat(model), flat(reference.net())) and not opt.memory.snapshot()


@pytest.mark.parametrize("who", ["opt", "base", "model"])
def test_gradients_that_are_cleared_before_the_step_are_missed(who):
    for way in ("block", "backward"):
        model, opt, loss = made()
        if way == "block":
            loss().backward()
            with opt.perturbed(model):
                loss().backward()
        else:
            opt.backward(Batch(model, *reference.samples()))
        {"opt": opt, "base": opt.base, "model": model}[who].zero_grad()
        with pytest.raises(RuntimeError, match=r"zero_grad\(\) has cleared the gradient that the block or backward\(\) had left"):
            opt.step()
        opt.step(Batch(model, *reference.samples()))


def test_gradients_that_are_cleared_before_the_block_are_missed():
    model, opt, loss = made()
    loss().backward()
    opt.zero_grad()
    with pytest.raises(RuntimeError, match=r"no parameter .* has a gradient: call backward\(\) .* and zero_grad\(\) before that"), opt.perturbed(model):
        pass


def test_the_base_alone_does_not_step_under_the_name_of_a_recipe():
    model, opt, loss = made()
    loss().backward()
    with pytest.raises(RuntimeError, match=r"by opt\.step\(\): alone it would make its own step under the name of 'sam'; .*bisam\.SGD"):
        opt.base.step()
    assert torch.equal(flat(model), flat(reference.net()))
    opt.recipe = bisam.SGD
    opt.base.step()
    assert not torch.equal(flat(model), flat(reference.net()))


def test_of_two_wrappers_either_may_step_the_base_that_they_share():
    model, opt, loss = made()
    other = SharpnessAware(opt.base, VASSO)
    for one in (opt, other):
        one.step(Batch(model, *reference.samples()))
        one.step(closing(one, loss))
    with pytest.raises(RuntimeError, match="alone it would make its own step"):
        opt.base.step()


def test_a_step_that_moves_nothing_makes_the_state_of_the_base():
    model, opt, _ = made()
    for group in opt.param_groups:
        group["lr"] = 0.0
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    opt.base.step()
    assert len(opt.base.state) == 4


# -- closures ---------------------------------------------------------------------------------------------------------------------


def test_a_closure_is_called_twice_where_the_step_climbs_and_its_first_loss_comes_back():
    model, opt, loss = made(LOOKSAM.replace(combination=bisam.LookSAM(every=3)))
    for k in range(6):
        calls, here = [], loss().item()
        assert opt.step(closing(opt, loss, calls=calls)).item() == calls[0] == here
        assert len(calls) == (2 if k % 3 == 0 else 1)
    calls = []
    SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), bisam.SGD).step(closing(opt, loss, calls=calls))
    assert len(calls) == 1


def test_parts_and_clipping_inside_a_closure():
    model, twin = reference.net(), reference.net()
    opt, opt_2 = wrapped(model), wrapped(twin)
    for k in range(4):
        x, y = reference.samples(k)

        def closure(x=x, y=y):
            opt.zero_grad()
            total = 0
            for part in (slice(0, 3), slice(3, 8)):
                loss = CE(model(x[part]), y[part]) * len(y[part]) / 8
                loss.backward()
                total += loss.detach()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            return total

        opt.step(closure)
        opt_2.zero_grad()
        opt_2.backward(Batch(twin, x, y))
        nn.utils.clip_grad_norm_(twin.parameters(), 0.1)
        opt_2.step()
    torch.testing.assert_close(flat(model), flat(twin), rtol=0, atol=1e-12)


@pytest.mark.parametrize("clear", ["opt", "base", "model"])
def test_a_closure_clears_as_it_likes_and_one_that_does_not_is_told(clear):
    model, opt, loss = made()
    clearing = {"opt": opt, "base": opt.base, "model": model}[clear]

    def closure():
        clearing.zero_grad()
        value = loss()
        value.backward()
        return value

    for _ in range(3):
        opt.step(closure)
    loss().backward()
    before = flat(model)

    def keeping():
        value = loss()
        value.backward()
        return value

    with pytest.raises(RuntimeError, match=r"the closure must clear the gradients itself, by opt\.zero_grad\(\)"):
        opt.step(keeping)
    assert torch.equal(flat(model), before)
    opt.zero_grad()
    opt.step(closure)


def test_a_closure_without_a_backward_is_told():
    _, opt, loss = made()
    with pytest.raises(RuntimeError, match="must compute the loss, call backward"):
        opt.step(lambda: loss())


def test_the_passes_of_a_closure_hold_every_module_that_runs():
    encoder, decoder = reference.net("norm"), nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3)).double()
    opt = SharpnessAware(torch.optim.SGD([*encoder.parameters(), *decoder.parameters()], lr=0.1))
    x, y = reference.samples()
    loss = nn.CrossEntropyLoss()
    for k, form in enumerate((lambda: opt.step(closing(opt, lambda: loss(decoder(encoder(x)), y))), lambda: opt.step(descent=lambda: loss(decoder(encoder(x)), y)))):
        form()
        assert encoder[1].num_batches_tracked == decoder[0].num_batches_tracked == k + 1


def test_the_modules_that_run_are_those_outside():
    model, decoder, loss = reference.net("norm"), nn.Linear(2, 2), nn.CrossEntropyLoss()
    assert joined([model, loss]) is model and joined([model[0], model]) is model
    assert list(joined([model, loss, decoder])) == [model, decoder]
    assert len(joined([])) == 0 and not nn.modules.module._global_forward_pre_hooks


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("is_given", [True, False])
def test_the_closure_of_a_compiled_model_makes_one_graph(is_given):
    torch.compiler.reset()
    graphs, model, twin = [], reference.net("norm"), reference.net("norm")
    compiled = torch.compile(model, backend=lambda graph, _: (graphs.append(graph), graph.forward)[1])
    decoder, decoder_2 = (nn.Sequential(nn.BatchNorm1d(3)).double() for _ in range(2))
    opt, opt_2 = wrapped(nn.ModuleList([model, decoder])), wrapped(nn.ModuleList([twin, decoder_2]))
    for k in range(4):
        x, y = reference.samples(k)
        loss, loss_2 = (lambda n=n, d=d, x=x, y=y: CE(d(n(x)), y) for n, d in ((compiled, decoder), (twin, decoder_2)))
        opt.step(closing(opt, loss), model=nn.ModuleList([compiled, decoder]) if is_given else None)
        opt_2.step(closing(opt_2, loss_2))
    torch.testing.assert_close(flat(model), flat(twin), rtol=0, atol=1e-10)
    assert len(graphs) == 1 and model[1].num_batches_tracked == decoder[0].num_batches_tracked == 4
    assert not nn.modules.module._global_forward_pre_hooks


@pytest.mark.parametrize("recipe", [VASSO, FSAM, LOOKSAM], ids=lambda recipe: recipe.name)
def test_what_is_remembered_goes_by_the_names_of_the_model_in_every_form(recipe):
    model, twin = reference.net(), reference.net()
    opt, opt_2 = wrapped(model, recipe), wrapped(twin, recipe)
    for k in range(6):
        loss = loss_of(opt, model, k)
        [lambda: opt.step(closing(opt, loss)), lambda: opt.step(descent=loss), lambda k=k: opt.step(Batch(model, *reference.samples(k)))][k % 3]()  # noqa: B023
        opt_2.step(Batch(twin, *reference.samples(k)))
    torch.testing.assert_close(flat(model), flat(twin), rtol=0, atol=1e-12)
    assert set(opt.memory.snapshot()) == set(opt_2.memory.snapshot())


def test_sam_on_finds_its_norm_layers_among_the_modules_that_run():
    model, twin = reference.net("norm"), reference.net("norm")
    opt, opt_2 = (wrapped(net, bisam.methods.SAM_ON, record=True) for net in (model, twin))
    opt.step(closing(opt, loss_of(opt, model)))
    opt_2.step(Batch(twin, *reference.samples()))
    assert opt.last.length == pytest.approx(opt_2.last.length) == pytest.approx(0.5)


def test_a_step_or_a_block_inside_a_closure_is_refused():
    model, opt, loss = made()
    for inside in (lambda: opt.step(Batch(model, *reference.samples())), opt.base.step, lambda: opt.perturbed(model).__enter__()):

        def closure(inside=inside):
            value = closing(opt, loss)()
            inside()
            return value

        with pytest.raises(RuntimeError, match="block"):
            opt.step(closure)
        assert torch.equal(flat(model), flat(reference.net()))


def test_schedulers_copies_and_pickles_go_on_with_closures():
    model, opt, loss = made(VASSO)
    schedule = torch.optim.lr_scheduler.StepLR(opt, 1, 0.5)
    for _ in range(3):
        opt.step(closing(opt, loss))
        schedule.step()
    assert opt.param_groups[0]["lr"] == 0.1 * 0.125
    twin_model, twin = copy.deepcopy((model, opt))
    again_model, again = pickle.loads(pickle.dumps((model, opt)))
    for net, one in ((model, opt), (twin_model, twin), (again_model, again)):
        one.step(closing(one, loss_of(one, net)))
    assert torch.equal(flat(model), flat(twin_model)) and torch.equal(flat(model), flat(again_model))
