"""Loops that step the base themselves, mix styles, nest blocks, or meet bad luck: nothing goes wrong without a word."""

import copy
import io

import pytest
import reference
import torch
from torch import nn

import bisam
from bisam import SAM, Batch, Constant, Learned, Phase, SharpnessAware


def sgd(model, **more):
    return torch.optim.SGD(model.parameters(), lr=0.1, **more)


def batch(model, k=0):
    return Batch(model, *reference.samples(k))


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def bits(model):
    return reference.bits(list(model.parameters()))


# -- whoever steps the base ------------------------------------------------------------------------------------------------

STEPPED = {
    "vasso": bisam.methods.VASSO,
    "phase": SAM.replace(radius=Phase(0.05, start=2, every=2)),
    "schedule": SAM.replace(radius=bisam.Schedule((0, 4), (0.0, 0.2))),
    "esam-code": bisam.methods.ESAM_CODE,
    "bsam": bisam.methods.BSAM,
    "lets": bisam.methods.LETS_SAM.replace(radius=Learned(0.05, rate=10.0)),
}


@pytest.mark.parametrize("recipe", STEPPED.values(), ids=STEPPED)
def test_a_step_of_the_base_is_a_step_of_the_method(recipe):
    results = []
    for who in ("wrapper", "base"):
        model = reference.net("norm")
        base = bisam.Variational(model.parameters(), samples=500) if recipe.name == "bsam" else sgd(model, momentum=0.9)
        opt = SharpnessAware(base, recipe, seed=3)
        for k in range(6):
            more = {"validation": batch(model, 50 + k)} if isinstance(recipe.radius, Learned) else {}
            opt.backward(batch(model, k), **more)
            opt.step() if who == "wrapper" else base.step()
            base.zero_grad()
        assert opt.memory.step == 6
        results.append(reference.bits([model.state_dict(), opt.state_dict()]))
    assert results[0] == results[1]


def test_a_fused_base_that_is_stepped_directly_skips_as_well(monkeypatch):
    monkeypatch.setattr("bisam._look.is_free", lambda tensor: False)
    model = reference.net()
    base = sgd(model, momentum=0.9, fused=True)
    opt = SharpnessAware(base, nonfinite="skip")
    opt.step(batch(model))
    before = bits(model)
    x, y = reference.samples(1)
    opt.zero_grad()
    opt.backward(Batch(model, x * torch.nan, y))
    base.step()
    assert bits(model) == before and opt.skipped == 1


def test_a_scaler_that_is_switched_off_does_not_switch_the_guard_off():
    model = reference.net()
    opt, (x, y) = SharpnessAware(sgd(model)), reference.samples()
    before = bits(model)
    with pytest.raises(FloatingPointError, match="holds inf or NaN"):
        opt.step(Batch(model, x * torch.nan, y), scaler=torch.amp.GradScaler("cpu", enabled=False))
    assert bits(model) == before
    opt.step(Batch(model, x, y), scaler=torch.amp.GradScaler("cpu", enabled=False))
    assert bits(model) != before


# -- accumulation of what is handed on ---------------------------------------------------------------------------------------


def precisions(model, opt):
    return torch.cat([opt.base.precision(p).flatten() for p in model.parameters()])


def variational(model):
    recipe = bisam.methods.BSAM.replace(start=None)
    return SharpnessAware(bisam.Variational(model.parameters(), samples=500), recipe, seed=0)


def test_halves_of_the_same_batch_hand_the_same_gradient():
    whole, halves = reference.net(), reference.net()
    one, other = variational(whole), variational(halves)
    one.step(batch(whole))
    for _ in range(2):
        other.backward(batch(halves), weight=0.5)
    other.step()
    torch.testing.assert_close(precisions(whole, one), precisions(halves, other), rtol=1e-12, atol=0)
    torch.testing.assert_close(flat(whole), flat(halves), rtol=1e-12, atol=0)


@pytest.mark.parametrize("clear", [lambda opt: opt.zero_grad(), lambda opt: opt.base.zero_grad()], ids=["opt", "base"])
def test_what_was_cleared_is_not_handed(clear):
    one, other = reference.net(), reference.net()
    plain, cleared = variational(one), variational(other)
    plain.backward(batch(one, 1))
    cleared.backward(batch(other, 0))
    clear(cleared)
    cleared.backward(batch(other, 1))
    plain.step(), cleared.step()
    assert torch.equal(precisions(one, plain), precisions(other, cleared))


@pytest.mark.parametrize("name", ["vasso", "fsam", "looksam"])
def test_what_remembers_a_climb_wants_the_whole_batch_at_once(name):
    model = reference.net()
    opt = SharpnessAware(sgd(model), bisam.recipe(name))
    opt.backward(batch(model), weight=0.5)
    left = reference.bits([p.grad for p in model.parameters()])
    with pytest.raises(RuntimeError, match=f"'{name}' remembers one climb a step, and needs the whole batch in one call"):
        opt.backward(batch(model, 1), weight=0.5)
    assert reference.bits([p.grad for p in model.parameters()]) == left
    opt.step()
    opt.backward([batch(model), batch(model, 1)])
    opt.step()


def test_a_learned_radius_wants_the_whole_batch_at_once():
    model = reference.net()
    opt = SharpnessAware(sgd(model), bisam.methods.LETS_SAM)
    opt.backward(batch(model), validation=batch(model, 9), weight=0.5)
    left = reference.bits([p.grad for p in model.parameters()])
    with pytest.raises(RuntimeError, match="'lets-sam' remembers one climb a step, and needs the whole batch in one call"):
        opt.backward(batch(model, 1), validation=batch(model, 9), weight=0.5)
    assert reference.bits([p.grad for p in model.parameters()]) == left
    opt.step()


# -- parameters in odd places -------------------------------------------------------------------------------------------------


class Hidden(nn.Module):
    """A network with a layer that its own list of parameters does not know."""

    def __init__(self):
        super().__init__()
        self.body, self.extra = reference.net(), [reference.net()]

    def forward(self, x):
        return self.body(x) + self.extra[0](x)


@pytest.mark.parametrize("name", ["sam", "rsam", "esam-code", "vasso", "asam"])
def test_a_parameter_that_the_model_does_not_name_is_refused_and_is_where_it_was(name):
    model = Hidden()
    base = torch.optim.SGD([*model.parameters(), *model.extra[0].parameters()], lr=0.1)
    opt, before = SharpnessAware(base, bisam.recipe(name), seed=0), (bits(model), bits(model.extra[0]))
    with pytest.raises(ValueError, match=r"model must hold all parameters of the base that lead to the loss.*ModuleList"):
        opt.backward(batch(model))
    assert (bits(model), bits(model.extra[0])) == before
    model.extra = nn.ModuleList(model.extra)
    opt.backward(batch(model))
    assert bits(model.extra[0]) == before[1]
    assert all(p.grad is not None for p in model.extra[0].parameters())


@pytest.mark.parametrize("case", ["all", "norm layers", "a group of its own"])
def test_the_exact_hypergradient_where_only_some_weights_climb(case):
    def made(rho):
        model = reference.net("norm").eval()
        groups = [{"params": model[0].parameters()}, {"params": [*model[1].parameters(), *model[3].parameters()]}]
        if case == "a group of its own":
            groups[1]["rho"] = 0.4
        geometry = bisam.Only() if case == "norm layers" else bisam.L2()
        learning = SAM.replace(geometry=geometry, radius=Learned(rho, rate=1.0, form="exact", least=1e-9, most=1e9))
        return model, SharpnessAware(torch.optim.SGD(groups, lr=0.5), learning)

    def gap(rho):
        model, opt = made(rho)
        opt.step(batch(model), validation=batch(model, 7))
        loss = bisam.CrossEntropy()
        with torch.no_grad():
            (x, y), (u, v) = reference.samples(0), reference.samples(7)
            return 0.5 * float(loss(model(u), v) - loss(model(x), y)) ** 2

    rho, h = 0.3, 1e-5
    model, opt = made(rho)
    opt.step(batch(model), validation=batch(model, 7))
    expected = (gap(rho + h) - gap(rho - h)) / (2 * h)
    assert rho - opt.memory.rho == pytest.approx(expected, rel=1e-5) and abs(expected) > 1e-6


# -- blocks --------------------------------------------------------------------------------------------------------------------


def in_block(inside):
    model = reference.net()
    base = sgd(model)
    opt, (x, y) = SharpnessAware(base), reference.samples()
    before = bits(model)
    SAM.raised(model(x), y).backward()
    with pytest.raises(RuntimeError, match=r"block"), opt.perturbed(model):
        SAM.descent(model(x), y).backward()
        inside(model, base, opt)
    assert bits(model) == before
    opt.step(batch(model))  # and all goes on


def test_stepping_inside_a_block_is_refused():
    in_block(lambda model, base, opt: base.step())


def test_a_step_or_a_block_inside_a_block_is_refused():
    in_block(lambda model, base, opt: opt.step(batch(model)))
    in_block(lambda model, base, opt: opt.backward(batch(model)))
    in_block(lambda model, base, opt: opt.perturbed(model).__enter__())


def test_a_hook_may_keep_the_gradients_that_it_sees():
    for recipe in (SAM, bisam.ASAM, bisam.methods.VASSO):
        model, kept = reference.net(), []
        model[0].weight.register_post_accumulate_grad_hook(lambda p, kept=kept: kept.append((p.grad, p.grad.clone())))
        SharpnessAware(sgd(model), recipe).step(batch(model))
        assert len(kept) == 2 and all(torch.equal(*pair) for pair in kept)


# -- statistics, buffers, logits ------------------------------------------------------------------------------------------------


def test_a_bad_batch_does_not_ruin_the_statistics():
    model, (x, y) = reference.net("norm"), reference.samples()
    opt = SharpnessAware(sgd(model), nonfinite="skip")
    opt.step(Batch(model, x, y))
    before = reference.bits(dict(model.named_buffers()))
    with pytest.warns(RuntimeWarning):
        opt.step(Batch(model, torch.where(x == x[0, 0], torch.nan, x), y))
    assert reference.bits(dict(model.named_buffers())) == before


def test_buffers_that_share_memory_do_no_harm():
    model = reference.net("norm")
    model.register_buffer("wide", torch.ones(1, dtype=torch.float64).expand(4))
    before = bits(model)
    SharpnessAware(sgd(model)).step(batch(model))
    assert bits(model) != before and torch.equal(model.wide, torch.ones(4).double())


@pytest.mark.parametrize("listed", [False, True])
def test_logits_at_w_are_there_after_parts(listed):
    model, (x, y) = reference.net(), reference.samples()
    expected = model(x).detach()
    parts = [Batch(model, x[:5], y[:5]), Batch(model, x[5:], y[5:])] if listed else [Batch(model, x, y)]
    SharpnessAware(sgd(model), SAM.replace(micro_batch=3)).step(parts if listed else parts[0])
    torch.testing.assert_close(torch.cat([part.at_w for part in parts]), expected, rtol=1e-12, atol=1e-14)


# -- what is remembered, and by whom --------------------------------------------------------------------------------------------


def test_the_state_of_a_device_that_is_not_here_waits():
    model = reference.net()
    opt = SharpnessAware(sgd(model), bisam.methods.RSAM, seed=1)
    opt.step(batch(model))
    saved = copy.deepcopy(opt.state_dict())
    elsewhere = saved["sharpness_aware"]["memory"]["generators"]
    elsewhere["cuda:0"] = torch.zeros(16, dtype=torch.uint8)
    other = SharpnessAware(sgd(model), bisam.methods.RSAM)
    other.load_state_dict(saved)
    assert torch.equal(other.state_dict()["sharpness_aware"]["memory"]["generators"]["cuda:0"], elsewhere["cuda:0"])
    other.step(batch(model))


def test_a_precision_in_float32_is_loaded_as_it_was():
    model = reference.net(dtype=torch.bfloat16)
    opt = SharpnessAware(bisam.Variational(model.parameters(), lr=0.1, samples=500), bisam.methods.BSAM, seed=1)
    for k in range(3):
        opt.step(Batch(model, *reference.samples(k, dtype=torch.bfloat16)))
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    other = SharpnessAware(bisam.Variational(model.parameters(), samples=500), bisam.methods.BSAM)
    other.load_state_dict(torch.load(file, weights_only=True))
    for p in model.parameters():
        assert other.base.precision(p).dtype == torch.float32
        assert torch.equal(other.base.precision(p), opt.base.precision(p))


@pytest.mark.parametrize("name", ["vasso", "fsam", "looksam"])
def test_a_new_layer_under_an_old_name_is_another_one(name):
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    opt = SharpnessAware(sgd(model), bisam.recipe(name))
    opt.step(batch(model))
    model[0], model[2] = nn.Linear(4, 7).double(), nn.Linear(7, 3).double()
    opt.base.param_groups[0]["params"] = list(model.parameters())
    opt.step(batch(model, 1))


def test_copies_do_not_outlive_their_parameters():
    model = reference.net()
    opt = SharpnessAware(sgd(model))
    opt.step(batch(model))
    assert len(opt.displacement._copies) == 4
    opt.base.param_groups[0]["params"] = []
    opt.base.state.clear()
    opt.memory.named, opt._given = {}, {}
    del model
    assert len(opt.displacement._copies) == 0


# -- messages ------------------------------------------------------------------------------------------------------------------

RADII = {
    "below zero": (-0.1, ValueError, r"rho of parameter group 0 must be 0 or greater, got -0\.1"),
    "NaN": (float("nan"), ValueError, "rho of parameter group 0 must be finite, got nan"),
    "a word": ("0.1", TypeError, "rho of parameter group 0 must be a real number, not '0.1'"),
    "nothing": (None, TypeError, "rho of parameter group 0 must be a real number, not None"),
}


@pytest.mark.parametrize("rho, error, message", RADII.values(), ids=RADII)
def test_a_wrong_radius_of_a_group_is_named_before_anything_moves(rho, error, message):
    model = reference.net()
    opt, before = SharpnessAware(torch.optim.SGD([{"params": model.parameters(), "rho": rho}], lr=0.1)), bits(model)
    with pytest.raises(error, match=message.replace("'0.1'", r"'0\.1'")):
        opt.step(batch(model))
    assert bits(model) == before


def test_a_radius_of_a_group_may_be_a_tensor_and_needs_a_recipe_that_climbs():
    model = reference.net()
    groups = [{"params": model.parameters(), "rho": torch.tensor(0.2)}]
    opt = SharpnessAware(torch.optim.SGD(groups, lr=0.1), record=True)
    opt.step(batch(model))
    assert opt.last.length == pytest.approx(0.2)
    opt.recipe = SAM.replace(radius=Constant(0))
    with pytest.raises(ValueError, match="rho of parameter group 0 must be 0 for recipe 'sam', which has no radius"):
        opt.step(batch(model))


def test_a_group_of_its_own_has_its_length_under_a_budget_too():
    model = reference.net()
    groups = [{"params": model[0].parameters(), "rho": 0.3}, {"params": model[2].parameters(), "rho": 0.0}]
    opt = SharpnessAware(torch.optim.SGD(groups, lr=0.1), bisam.methods.LE_SAM, record=True)
    opt.step(batch(model))
    assert opt.last.length == pytest.approx(0.3)


def test_other_wrong_uses_are_named():
    model, other = reference.net(), reference.net()
    opt = SharpnessAware(sgd(model), bisam.methods.LETS_SAM)
    with pytest.raises(TypeError, match="validation must be a batch of the same model"):
        opt.step(batch(model), validation=batch(other))
    x, y = reference.samples()
    before = bits(model)
    with pytest.raises(ValueError, match=r"targets must be in 0 \.\. 2"):
        opt.step(batch(model), validation=Batch(model, x, y + 5))
    assert bits(model) == before
    with pytest.raises(RuntimeError, match="gradients must be enabled"), torch.no_grad():
        SharpnessAware(sgd(model)).step(batch(model))
    with pytest.raises(TypeError, match=r"recipe must be a bisam\.Recipe.*got 3"):
        opt.recipe = 3
    with pytest.raises(TypeError, match=r"base must be a bisam\.Variational"):
        opt.recipe = bisam.methods.BSAM
    complex_net = nn.Linear(2, 2, dtype=torch.complex64)
    opt = SharpnessAware(sgd(complex_net))
    complex_net(torch.ones(1, 2, dtype=torch.complex64)).abs().sum().backward()
    with pytest.raises(TypeError, match=r"parameter weight is complex"), opt.perturbed(complex_net):
        pass


def test_a_tiny_gradient_does_not_explode_what_is_decomposed():
    r, p = {"w": torch.tensor([1.0, 1.0])}, {"w": torch.tensor([1e-25, 0.0])}
    combined = bisam.Decomposed(0.5).combined(r, p, None)["w"]
    assert torch.isfinite(combined).all()
