"""Loops that are not ours: the questions of `notebooks/in_your_own_loop.ipynb`, for more recipes and in worse conditions."""

import contextlib
import copy
import importlib.util
import io
import itertools
import json
import math
import sys
from pathlib import Path

import pytest
import reference
import torch
from blocks import climbed
from torch import nn

import bisam
import bisam.training.data
from bisam import SAM, Batch, Constant, SharpnessAware
from bisam.losses.loss import Loss
from bisam.methods.lets import Learned

CODE = Path(__file__).resolve().parents[2] / "book" / "code"
NAMES = ("sam", "bisam-log", "asam", "esam", "gsam", "looksam", "vasso", "lets-sam")
RECIPES = {name: bisam.recipe(name) for name in NAMES}
SPELLED = ("sam", "bisam-log", "asam", "gsam", "vasso")  # those whose step is two passes over the same batch
NORMALISED = ("sam", "bisam-log", "asam", "gsam")
KINDS = ("plain", "norm", "norm and dropout")


def each(names=NAMES):
    return pytest.mark.parametrize("recipe", [bisam.recipe(name) for name in names], ids=list(names))


def wrapped(model, recipe=SAM, lr=0.1, **options):
    sgd = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    return SharpnessAware(sgd, recipe, **{"seed": 0, **options})


def extra(opt, model, dtype=torch.float64):
    """What a learned radius asks for beside the batch."""
    if not isinstance(opt.recipe.radius, Learned):
        return {}
    return {"validation": Batch(model, *reference.samples(99, n=16, dtype=dtype))}


def take_steps(opt, model, numbers=range(6), n=8, dtype=torch.float64, each_step=lambda: None, **options):
    for k in numbers:
        opt.step(Batch(model, *reference.samples(k, n, dtype), **options), **extra(opt, model, dtype))
        each_step()


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def weights_of(model):
    return reference.bits(list(model.parameters()))


def close(model, other, atol=1e-12):
    torch.testing.assert_close(flat(model), flat(other), rtol=0, atol=atol)


def trained(recipe, kind="plain", dtype=torch.float64, **options):
    model = reference.net(kind, dtype)
    take_steps(wrapped(model, recipe), model, dtype=dtype, **options)
    return model


# -- 1: the three styles ------------------------------------------------------------------------------------------------


@each()
@pytest.mark.parametrize("kind", KINDS)
def test_backward_and_step_are_the_one_step_to_the_bit(recipe, kind):
    ends = []
    for in_two in (False, True):
        torch.manual_seed(3)
        model = reference.net(kind)
        opt = wrapped(model, recipe)
        for k in range(6):
            batch = Batch(model, *reference.samples(k))
            if in_two:
                opt.zero_grad()
                opt.backward(batch, **extra(opt, model))
                opt.step()
            else:
                opt.step(batch, **extra(opt, model))
        ends.append(reference.bits([model.state_dict(), opt.state_dict(), torch.get_rng_state()]))
    assert ends[0] == ends[1]


@each(SPELLED)
@pytest.mark.parametrize("kind", KINDS)
def test_the_block_is_the_one_step_to_the_bit(recipe, kind):
    ends = []
    for spelled in (False, True):
        torch.manual_seed(3)
        model = reference.net(kind)
        opt = wrapped(model, recipe)
        for k in range(6):
            x, y = reference.samples(k)
            if spelled:
                opt.zero_grad()
                with climbed(opt, model, x, y):
                    recipe.descent(model(x), y).backward()
                opt.step()
            else:
                opt.step(Batch(model, x, y))
        ends.append(reference.bits([model.state_dict(), opt.state_dict(), torch.get_rng_state()]))
    assert ends[0] == ends[1]


# -- 2: autocast ----------------------------------------------------------------------------------------------------------


AROUND = {
    "by the batch": (torch.bfloat16, contextlib.nullcontext),
    "by a context": (None, lambda: torch.autocast("cpu", torch.bfloat16)),
    "by both": (torch.bfloat16, lambda: torch.autocast("cpu", torch.bfloat16)),
}


@each()
@pytest.mark.parametrize("way, whole_loop", [("by the batch", False), ("by a context", False), ("by both", True)])
def test_in_bfloat16_the_climb_raises_the_loss_as_in_float32(recipe, way, whole_loop):
    inner, around = AROUND[way]

    def rises(autocast, context):
        model, found = reference.net(dtype=torch.float32), []
        opt = wrapped(model, recipe.replace(radius=wide(recipe)), record=True)
        with context() if whole_loop else contextlib.nullcontext():
            for k in range(6):
                batch = Batch(model, *reference.samples(k, 64, torch.float32), autocast=autocast)
                with contextlib.nullcontext() if whole_loop else context():
                    opt.step(batch, **extra(opt, model, torch.float32))
                found.append(opt.last.loss_rise)
        return found

    for low, full in zip(rises(inner, around), rises(None, contextlib.nullcontext), strict=True):
        assert low is full is None or (low > 0.01 and low == pytest.approx(full, rel=0.25))


def wide(recipe):
    """A radius that bfloat16 can see on a small network."""
    return Learned(rho=0.5, rate=0.01) if isinstance(recipe.radius, Learned) else Constant(0.5)


@each((*NAMES, "sgd"))
def test_a_pass_after_the_step_in_the_same_autocast_context_sees_the_new_weights(recipe):
    model, (x, _) = reference.net(dtype=torch.float32), reference.samples(dtype=torch.float32)
    opt = wrapped(model, recipe, lr=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        for k in range(3):
            take_steps(opt, model, numbers=[k], dtype=torch.float32)
            seen = model(x)
            torch.clear_autocast_cache()
            assert torch.equal(seen, model(x))


@each(SPELLED)
def test_the_block_may_stand_in_an_autocast_context(recipe):
    model = reference.net(dtype=torch.float32)
    opt = wrapped(model, recipe.replace(radius=wide(recipe)))
    for k in range(4):
        x, y = reference.samples(k, 64, torch.float32)
        opt.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            at_w = recipe.raised(model(x), y).detach()
            with climbed(opt, model, x, y):
                recipe.descent(model(x), y).backward()
                there = recipe.raised(model(x), y)
            assert there > at_w + 0.01
            assert torch.equal(recipe.raised(model(x), y), at_w)
        opt.step()


# -- 3: GradScaler --------------------------------------------------------------------------------------------------------


def scaled_step(opt, model, scaler, k, max_norm=None, dtype=torch.float32, **options):
    batch = Batch(model, *reference.samples(k, dtype=dtype), **options)
    if max_norm is None:
        opt.step(batch, scaler=scaler, **extra(opt, model, dtype))
    else:
        opt.zero_grad()
        opt.backward(batch, scaler=scaler, **extra(opt, model, dtype))
        scaler.unscale_(opt)
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        scaler.step(opt)
    scaler.update()


@each()
@pytest.mark.parametrize("max_norm", [None, 0.1], ids=["step", "clipped"])
def test_a_scaler_that_has_nothing_to_save_changes_nothing(recipe, max_norm):
    model, twin = reference.net(), reference.net()
    opt, opt_2 = wrapped(model, recipe), wrapped(twin, recipe)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**7)  # powers of two change no digit
    for k in range(6):
        scaled_step(opt, model, scaler, k, max_norm, torch.float64)
        opt_2.zero_grad()
        opt_2.backward(Batch(twin, *reference.samples(k)), **extra(opt_2, twin))
        if max_norm is not None:
            nn.utils.clip_grad_norm_(twin.parameters(), max_norm)
        opt_2.step()
    close(model, twin, atol=1e-13)
    assert (opt.memory.rho or 0) == pytest.approx(opt_2.memory.rho or 0, rel=1e-9)


@each()
def test_float16_with_a_scaler_stays_near_float32(recipe):
    model, full = reference.net(dtype=torch.float32), reference.net(dtype=torch.float32)
    opt, opt_full, scaler = wrapped(model, recipe), wrapped(full, recipe), torch.amp.GradScaler("cpu")
    for k in range(6):
        scaled_step(opt, model, scaler, k, 0.5, autocast=torch.float16)
        batch = Batch(full, *reference.samples(k, dtype=torch.float32))
        opt_full.zero_grad()
        opt_full.backward(batch, **extra(opt_full, full, torch.float32))
        nn.utils.clip_grad_norm_(full.parameters(), 0.5)
        opt_full.step()
    moved = (flat(full) - flat(reference.net(dtype=torch.float32))).norm()
    # Which samples ESAM takes can hang on the last digit of a loss; the others differ by rounding alone.
    assert (flat(model) - flat(full)).norm() < (0.5 if recipe.selection else 0.05) * moved


def poison(model, passes, value=torch.inf):
    """Multiplies a gradient by inf in the given backward passes, counted from 1."""
    count = itertools.count(1)
    return model[0].weight.register_hook(lambda g: g * value if next(count) in passes else g)


@pytest.mark.slow
@each()
@pytest.mark.parametrize("on_pass", [1, 2])
@pytest.mark.parametrize("max_norm", [None, 1.0], ids=["step", "clipped"])
def test_an_overflow_in_either_pass_alone_is_a_skipped_step_and_nothing_else(recipe, on_pass, max_norm):
    model, twin = reference.net(), reference.net()
    opt, opt_2 = wrapped(model, recipe), wrapped(twin, recipe)
    scaler, scaler_2 = (torch.amp.GradScaler("cpu", init_scale=2.0**10) for _ in range(2))
    for k in range(5):  # LookSAM climbs again in step 5
        scaled_step(opt, model, scaler, k, max_norm, torch.float64)
        scaled_step(opt_2, twin, scaler_2, k, max_norm, torch.float64)
    before, momentum = weights_of(model), reference.bits(opt.base.state_dict())
    kept, steps = reference.bits(opt.memory.snapshot()), opt.memory.step
    hook = poison(model, {on_pass})
    scaled_step(opt, model, scaler, 5, max_norm, torch.float64)
    hook.remove()
    assert weights_of(model) == before and reference.bits(opt.base.state_dict()) == momentum
    assert scaler.get_scale() == 2.0**9 and opt.memory.step == steps
    assert reference.bits(opt.memory.snapshot()) == kept
    for k in range(6, 9):
        scaled_step(opt, model, scaler, k, max_norm, torch.float64)
        scaled_step(opt_2, twin, scaler_2, k, max_norm, torch.float64)
    assert flat(model).isfinite().all() and weights_of(model) != before
    if recipe.selection is None:  # ESAM has drawn one mask more
        close(model, twin, atol=1e-12)


# -- 4: accumulation ------------------------------------------------------------------------------------------------------


@each([name for name in NAMES if name != "esam"])  # ESAM takes its share of the samples from every part
@pytest.mark.parametrize("size", [4, 3, 1], ids=lambda size: f"parts of {size}")
def test_a_list_of_parts_is_the_whole_batch(recipe, size):
    model = reference.net()
    opt = wrapped(model, recipe)
    for k in range(6):
        opt.step(Batch(model, *reference.samples(k)).split(size), **extra(opt, model))
    close(model, trained(recipe))


@each(("sam", "bisam-log", "asam", "esam", "gsam"))
@pytest.mark.parametrize("size", [4, 3], ids=["even", "ragged"])
def test_parts_that_climb_by_themselves_are_micro_batches(recipe, size):
    model = reference.net()
    opt = wrapped(model, recipe)
    for k in range(6):
        opt.zero_grad()
        for part in Batch(model, *reference.samples(k)).split(size):
            opt.backward(part, weight=len(part) / 8)
        opt.step()
    close(model, trained(recipe.replace(micro_batch=size)))
    assert (flat(model) - flat(trained(recipe))).abs().max() > 1e-6


@pytest.mark.parametrize("bad", [0, 1])
def test_a_bad_part_spoils_the_step_and_not_the_weights_also_where_nobody_looks(bad, monkeypatch):
    monkeypatch.setattr("bisam._look.is_free", lambda tensor: False)  # as on a GPU
    model = reference.net(dtype=torch.float32)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    opt = SharpnessAware(sgd, SAM, nonfinite="skip")
    take_steps(opt, model, [0], dtype=torch.float32)
    before = weights_of(model)
    opt.zero_grad()
    for k in range(2):
        hook = poison(model, {1, 2} if k == bad else set())
        opt.backward(Batch(model, *reference.samples(k, dtype=torch.float32)), weight=0.5)
        hook.remove()
    opt.step()
    assert weights_of(model) == before and opt.skipped == 1
    take_steps(opt, model, [1], dtype=torch.float32)
    assert weights_of(model) != before and opt.skipped == 1


def test_gradients_of_another_loss_add_up_with_those_of_backward():
    model, (x, y) = reference.net(), reference.samples()
    opt = wrapped(model)
    opt.backward(Batch(model, x, y))
    alone = [p.grad.clone() for p in model.parameters()]
    opt.zero_grad()
    sum(p.square().sum() for p in model.parameters()).backward()
    opt.backward(Batch(model, x, y), weight=0.25)
    for p, g in zip(model.parameters(), alone, strict=True):
        torch.testing.assert_close(p.grad, 2 * p.detach() + 0.25 * g)


# -- 5: clipping ----------------------------------------------------------------------------------------------------------


@each()
def test_what_is_clipped_is_what_the_base_is_given(recipe):
    model = reference.net()
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.5), recipe)
    for k in range(6):
        before = flat(model)
        opt.zero_grad()
        opt.backward(Batch(model, *reference.samples(k)), **extra(opt, model))
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        opt.step()
        assert norm > 0.01 and float((flat(model) - before).norm()) == pytest.approx(0.005, rel=1e-3)


@each(NORMALISED)
def test_clipping_the_ascent_gradient_moves_nothing(recipe):
    ends = []
    for bound in (1e-4, math.inf):
        model, (x, y) = reference.net(), reference.samples()
        opt = wrapped(model, recipe.replace(combination=None, ascent=None, descent=recipe.raised))
        recipe.raised(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), bound)
        with opt.perturbed(model):
            recipe.descent(model(x), y).backward()
        opt.step()
        ends.append(model)
    close(*ends)


# -- 6: schedules ---------------------------------------------------------------------------------------------------------


@each()
def test_a_scheduler_on_the_wrapper_is_one_on_the_base(recipe):
    ends = []
    for attach in (lambda opt: opt, lambda opt: opt.base):
        model = reference.net()
        opt = wrapped(model, recipe)
        schedule = torch.optim.lr_scheduler.OneCycleLR(attach(opt), max_lr=0.2, total_steps=10)
        rates = []
        take_steps(opt, model, each_step=lambda s=schedule, o=opt, r=rates: (s.step(), r.append(o.param_groups[0]["lr"])))
        ends.append((rates, reference.bits([model.state_dict(), opt.state_dict()])))
    assert ends[0] == ends[1] and len(set(ends[0][0])) == 6


@each([name for name in NAMES if name not in ("lets-sam", "looksam")])  # the one learns its radius, the other leaves steps out itself
def test_radii_that_change_while_training(recipe):
    schedules = {
        bisam.Schedule((1, 3), (0.0, 0.2)): [0, 0, 0.1, 0.2, 0.2, 0.2],
        bisam.Phase(0.1, start=0, every=5): [0.1, 0, 0, 0, 0, 0.1],
        bisam.ByLearningRate(rho=0.1): [0.1, 0.05, 0.025, 0.0125, 0.00625, 0.003125],
    }
    for radius, expected in schedules.items():
        model, found = reference.net(), []
        opt = wrapped(model, recipe.replace(radius=radius), record=True)
        schedule = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
        take_steps(opt, model, each_step=lambda f=found, o=opt, s=schedule: (f.append(o.last.rho), s.step()))
        assert found == pytest.approx(expected)


def test_a_recipe_can_be_replaced_between_two_steps():
    model, twin = reference.net(), reference.net()
    opt, opt_2 = wrapped(model), wrapped(twin, SAM.replace(radius=bisam.Schedule((2, 3), (0.05, 0.3))))
    take_steps(opt, model, range(3))
    opt.recipe = opt.recipe.replace(radius=Constant(0.3))
    take_steps(opt, model, range(3, 6))
    take_steps(opt_2, twin)
    close(model, twin)


# -- 7: groups ------------------------------------------------------------------------------------------------------------


def moved_by_layer(opt, model, recipe):
    """The length of the climb in each of the two linear layers."""
    (x, y), before = reference.samples(), [flat(model[0]), flat(model[2])]
    with climbed(opt, model, x, y):
        found = [float((flat(model[k]) - old).norm()) for k, old in zip((0, 2), before, strict=True)]
    opt.zero_grad()
    return found


@each(("sam", "bisam-log", "vasso"))
def test_groups_are_balls_of_their_own(recipe):
    model = reference.net()
    groups = [{"params": model[0].parameters(), "rho": 0.3}, {"params": model[2].parameters(), "lr": 0.01}]
    opt = SharpnessAware(torch.optim.SGD(groups, lr=0.1), recipe)
    assert moved_by_layer(opt, model, recipe) == pytest.approx([0.3, 0.05], rel=1e-9)
    opt.param_groups[0]["rho"] = 0.0
    assert moved_by_layer(opt, model, recipe) == pytest.approx([0, 0.05], rel=1e-9)


@each()
def test_a_group_without_radius_is_trained_all_the_same(recipe):
    model = reference.net()
    groups = [{"params": model[0].parameters(), "rho": 0.0}, {"params": model[2].parameters()}]
    opt = SharpnessAware(torch.optim.SGD(groups, lr=0.1), recipe, seed=0)
    start = [flat(model[0]), flat(model[2])]
    take_steps(opt, model)
    assert all((flat(model[k]) != old).all() for k, old in zip((0, 2), start, strict=True))


@each()
def test_layers_that_thaw_are_added_and_frozen_ones_stay(recipe):
    model = reference.net()
    model[0].requires_grad_(False)
    opt = SharpnessAware(torch.optim.SGD(model[2].parameters(), lr=0.1, momentum=0.9), recipe, seed=0)
    frozen = weights_of(model[0])
    take_steps(opt, model, range(5))
    assert weights_of(model[0]) == frozen
    model[0].requires_grad_(True)
    opt.add_param_group({"params": model[0].parameters(), "lr": 0.01})
    take_steps(opt, model, range(5, 10))
    assert weights_of(model[0]) != frozen and flat(model).isfinite().all()


# -- 8: weight decay ------------------------------------------------------------------------------------------------------


@each(NORMALISED)
@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.AdamW])
def test_weight_decay_of_the_base_is_no_part_of_the_climb(recipe, base):
    ends = []
    for decay in (0.0, 10.0):
        model, (x, y) = reference.net(), reference.samples()
        opt = SharpnessAware(base(model.parameters(), lr=0.1, weight_decay=decay), recipe)
        with climbed(opt, model, x, y):
            ends.append(flat(model))
    assert torch.equal(*ends) and not torch.equal(ends[0], flat(reference.net()))


# -- 9: any loss ----------------------------------------------------------------------------------------------------------


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.one, self.two = reference.net(), nn.Linear(3, 1).double(), nn.Linear(3, 2).double()

    def forward(self, x):
        hidden = self.body(x)
        return {"one": self.one(hidden), "two": self.two(hidden)}


def objective(outputs, y):
    target = y.double()
    return outputs["one"].squeeze(1).sub(target).square().mean() + 0.3 * outputs["two"].exp().mean()


def test_any_output_and_any_loss_go_through_the_block():
    model = TwoHeads()
    twin = copy.deepcopy(model)
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.05))
    for k in range(5):
        x, y = reference.samples(k)
        opt.zero_grad()
        objective(model(x), y).backward()
        with opt.perturbed(model):
            objective(model(x), y).backward()
        opt.step()
        names = dict(twin.named_parameters())

        def forward(weights, x=x, names=names):
            return torch.func.functional_call(twin, dict(zip(names, weights, strict=True)), (x,))

        def loss(outputs, y=y):
            return objective(outputs, y)

        new = reference.sharpness_aware_step(list(names.values()), forward, loss, loss, rho=0.05, lr=0.05)
        with torch.no_grad():
            for p, value in zip(names.values(), new, strict=True):
                p.copy_(value)
    close(model, twin)


# -- 10: batch norm and dropout -------------------------------------------------------------------------------------------


@each()
@pytest.mark.parametrize("in_parts", [False, True], ids=["whole", "in a list"])
def test_statistics_and_random_numbers_go_on_as_after_one_pass(recipe, in_parts):
    model = reference.net("norm and dropout")
    opt = wrapped(model, recipe)
    for k in range(6):
        twin = copy.deepcopy(model)
        batch, state = Batch(model, *reference.samples(k)), torch.get_rng_state()
        parts = batch.split(4) if in_parts else [batch]
        opt.step(parts, **extra(opt, model))
        after = torch.get_rng_state()
        torch.set_rng_state(state)
        for part in parts:
            twin(part.inputs)
        assert torch.equal(torch.get_rng_state(), after)
        assert model[1].num_batches_tracked == k + 1
        if not in_parts:
            assert reference.bits(list(model.buffers())) == reference.bits(list(twin.buffers()))


@each()
@pytest.mark.parametrize("same_noise", [True, False])
def test_all_passes_of_a_step_draw_the_same_masks_or_fresh_ones(recipe, same_noise):
    model, masks = reference.net("dropout"), []
    opt = wrapped(model, recipe.replace(same_noise=same_noise))
    take_steps(opt, model, range(1), n=32)
    model[2].register_forward_hook(lambda module, inputs, out: masks.append(out == 0))
    take_steps(opt, model, [5], n=32)
    if recipe.combination is not None and hasattr(recipe.combination, "every"):
        assert len(masks) == 1  # no climb in this step
        return
    first, second = masks[:2]
    assert first.any() and torch.equal(first, second) == same_noise


# -- 11: several processes --------------------------------------------------------------------------------------------------


def shown(name):
    if str(CODE) not in sys.path:
        sys.path.insert(0, str(CODE))  # new processes have to find the file as well
    return importlib.import_module(name)


JOBS = {
    f"{name}, {'own' if own else 'joint'}{', views' if views else ''}": (
        RECIPES[name], {"per_worker": own}, {"gradient_as_bucket_view": views},
    )
    for name, own, views in itertools.product(NAMES, (False, True), (False, True))
}  # fmt: skip


class Accident(Loss):
    """Cross-entropy, but for the first batch of the second worker."""

    def __init__(self):
        self.calls = 0

    def values(self, logits, targets):
        self.calls += 1
        is_here = self.calls == 1 and torch.distributed.get_rank() == 1
        return nn.functional.cross_entropy(logits, targets, reduction="none") * (torch.inf if is_here else 1)


for name in ("sam", "vasso", "looksam"):
    choices = {"per_worker": True, "nonfinite": "skip"}
    JOBS[f"{name}, accident"] = (RECIPES[name].replace(ascent=Accident()), choices, {})


def digits():
    x, y = bisam.training.data.digits().train.inputs, bisam.training.data.digits().train.targets
    return list(zip(x[:560].split(80), y[:560].split(80), strict=True))


@pytest.fixture(scope="module")
def workers():
    return shown("two_workers").train(digits(), JOBS)


def in_one_process(recipe):
    two_workers = shown("two_workers")
    model = two_workers.network()
    opt = SharpnessAware(two_workers.sgd_of(model), recipe, seed=0)
    for x, y in digits():
        batch = Batch(model, x, y)
        opt.step(batch)
    return model.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_workers_end_at_the_same_bits(workers, job):
    one, two = workers[job]
    assert reference.bits(one) == reference.bits(two)
    start = shown("two_workers").network().state_dict()
    assert all(part.isfinite().all() and not torch.equal(part, start[name]) for name, part in one.items())


@pytest.mark.slow
@each(("sam", "vasso", "looksam"))
def test_an_accident_in_the_first_pass_of_one_worker_is_one_of_all(workers, recipe):
    one, two = workers[f"{recipe.name}, accident"]
    assert reference.bits(one) == reference.bits(two)
    assert all(part.isfinite().all() for part in one.values())
    assert reference.bits(one) != reference.bits(workers[f"{recipe.name}, own"][0])


@pytest.mark.slow
@pytest.mark.parametrize("views", ["", ", views"], ids=["", "bucket views"])
@each(("sam", "bisam-log", "asam", "gsam", "looksam", "vasso"))
def test_workers_that_climb_together_are_one_process(workers, recipe, views):
    for name, value in in_one_process(recipe).items():
        torch.testing.assert_close(workers[f"{recipe.name}, joint{views}"][0][name], value, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("views", ["", ", views"], ids=["", "bucket views"])
@each(("sam", "bisam-log", "asam"))
def test_workers_that_climb_by_themselves_are_micro_batches(workers, recipe, views):
    joint = in_one_process(recipe)
    for name, value in in_one_process(recipe.replace(micro_batch=40)).items():
        found = workers[f"{recipe.name}, own{views}"][0][name]
        torch.testing.assert_close(found, value, rtol=0, atol=1e-6)
        assert (found - joint[name]).abs().max() > 1e-5


# -- 12: torch.compile ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@each(("bisam-log", "esam", "looksam", "lets-sam"))  # each looks at the model in another way
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_compiled_model_makes_the_same_steps_and_is_traced_once(recipe):
    torch.compiler.reset()
    model, twin = reference.net("norm"), reference.net("norm")
    compiled = torch.compile(model, backend="aot_eager")
    opt, opt_2 = wrapped(model, recipe), wrapped(twin, recipe)
    for k in range(8):
        # The first step of ESAM also looks without gradients, and on half of the samples; LETS on other samples.
        warming = 2 if recipe.name in ("esam", "lets-sam") else 1
        with torch.compiler.set_stance("default" if k < warming else "fail_on_recompile"):
            opt.step(Batch(compiled, *reference.samples(k)), **extra(opt, compiled))
        opt_2.step(Batch(twin, *reference.samples(k)), **extra(opt_2, twin))
    close(model, twin, atol=1e-10)
    assert model[1].num_batches_tracked == 8


# -- 13: save, stop, go on ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@each()
@pytest.mark.parametrize("scaled, cut", [(False, 4), (True, 1), (True, 5)])
def test_a_resumed_run_ends_at_the_same_bits(recipe, cut, scaled):
    def begin():
        model = reference.net("norm and dropout", torch.float32)
        opt = wrapped(model, recipe, seed=None)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=10)
        return model, opt, cosine, torch.amp.GradScaler("cpu", growth_interval=3, enabled=scaled)

    def go_on(run, numbers):
        model, opt, cosine, scaler = run
        for k in numbers:
            if scaled:
                scaled_step(opt, model, scaler, k)
            else:
                take_steps(opt, model, [k], dtype=torch.float32)
            cosine.step()

    uncut, first = begin(), begin()
    torch.manual_seed(5)
    go_on(uncut, range(9))
    torch.manual_seed(5)
    go_on(first, range(cut))
    file = io.BytesIO()
    torch.save([*(part.state_dict() for part in first), torch.get_rng_state()], file)
    del first
    torch.manual_seed(6)  # another process
    second = begin()
    file.seek(0)
    *states, state = torch.load(file, weights_only=True)
    for part, saved in zip(second, states, strict=True):
        part.load_state_dict(saved)
    torch.set_rng_state(state)
    go_on(second, range(cut, 9))
    one, two = ([reference.bits(part.state_dict()) for part in run] for run in (uncut, second))
    assert one == two


# -- 14: frameworks -----------------------------------------------------------------------------------------------------------


def samples(n=230):
    """Digits for the frameworks; the last batch of 50 is smaller."""
    return bisam.training.data.digits().train.inputs[:n], bisam.training.data.digits().train.targets[:n]


def needs(package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed, so its loop cannot be run; pip install '.[loops]'")


class Calm:
    """Frameworks warn of much that is not about this project."""

    pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # noqa: RUF012


class TestLightning(Calm):
    @pytest.fixture(autouse=True)
    def lightning(self):
        needs("lightning")

    @each([name for name in NAMES if name != "lets-sam"])  # the module shown has no validation batch to learn from
    def test_it_makes_the_steps_of_a_plain_loop(self, recipe, tmp_path):
        x, y = samples()
        module, trainer = shown("with_lightning").train(recipe, torch.utils.data.TensorDataset(x, y), tmp_path, seed=0)
        torch.manual_seed(0)
        net = shown("with_lightning").network()
        opt = SharpnessAware(torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), recipe, seed=0)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=2)
        for _ in range(2):
            for inputs, targets in zip(x.split(50), y.split(50), strict=True):
                opt.zero_grad()
                opt.backward(Batch(net, inputs, targets))
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                opt.step()
            cosine.step()
        close(module.net, net, atol=1e-7)
        assert trainer.global_step == 10 and trainer.optimizers[0].memory.step == 10

    def test_a_run_goes_on_from_its_checkpoint(self, tmp_path):
        x, y = samples()
        dataset, shown_here = torch.utils.data.TensorDataset(x, y), shown("with_lightning")
        uncut, _ = shown_here.train(bisam.methods.VASSO, dataset, tmp_path / "a", epochs=2)
        _, trainer = shown_here.train(bisam.methods.VASSO, dataset, tmp_path / "b", epochs=2, stop_after=1)
        path = tmp_path / "half.ckpt"
        trainer.save_checkpoint(path)
        resumed, _ = shown_here.train(bisam.methods.VASSO, dataset, tmp_path / "c", epochs=2, go_on_from=path)
        assert weights_of(resumed.net) == weights_of(uncut.net)

    def test_a_limit_of_steps_is_kept(self, tmp_path):
        dataset = torch.utils.data.TensorDataset(*samples())
        _, trainer = shown("with_lightning").train(SAM, dataset, tmp_path, max_steps=7)
        assert trainer.global_step == 7

    @each(("sam", "asam", "gsam", "looksam", "vasso"))
    @pytest.mark.parametrize("dropout", [0.0, 0.5])
    def test_automatic_optimisation_needs_no_line_of_ours(self, recipe, dropout, tmp_path):
        class Automatic(shown("with_lightning").Classifier):
            def __init__(self, *args):
                super().__init__(*args)
                self.automatic_optimization = True
                self.net.insert(3, nn.Dropout(dropout))

            def training_step(self, batch, k):
                x, y = batch
                return nn.functional.cross_entropy(self.net(x), y)

            def on_train_epoch_end(self):
                pass

        x, y = samples()
        module, trainer = shown("with_lightning").train(recipe, torch.utils.data.TensorDataset(x, y), tmp_path, module=Automatic, seed=0)
        assert trainer.global_step == 10 and trainer.optimizers[0].memory.step == 10
        torch.manual_seed(0)
        net = shown("with_lightning").network()
        net.insert(3, nn.Dropout(dropout))
        opt = SharpnessAware(torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), recipe, seed=0)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=2)
        for _ in range(2):
            torch.empty((), dtype=torch.int64).random_() if dropout else None  # the seed that a loader draws
            for inputs, targets in zip(x.split(50), y.split(50), strict=True):
                opt.step(Batch(net, inputs, targets))
            cosine.step()
        if not dropout:
            close(module.net, net, atol=1e-7)

    def test_accumulation_by_automatic_optimisation_is_refused(self, tmp_path):
        class Automatic(shown("with_lightning").Classifier):
            def __init__(self, *args):
                super().__init__(*args)
                self.automatic_optimization = True

            def training_step(self, batch, k):
                return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

            def on_train_epoch_end(self):
                pass

        with pytest.raises(RuntimeError, match="the closure must clear the gradients itself"):
            shown("with_lightning").train(
                SAM, torch.utils.data.TensorDataset(*samples()), tmp_path, module=Automatic, accumulate_grad_batches=2
            )


class TestTrainer(Calm):
    @pytest.fixture(autouse=True)
    def transformers(self):
        needs("transformers")
        needs("accelerate")

    @each(SPELLED)
    def test_it_makes_the_steps_of_a_plain_loop(self, recipe, tmp_path):
        shown_here, seen = shown("with_hf_trainer"), []

        class Watched(shown_here.Classifier):
            def forward(self, x, labels=None):
                seen.append((x, labels))
                return super().forward(x, labels)

        torch.manual_seed(0)
        model = Watched(dropout=0.0)
        net = copy.deepcopy(model.net)
        _, trainer = shown_here.train(recipe, shown_here.Named(*samples()), tmp_path, model=model, seed=0)
        assert trainer.state.global_step == 10 and len(seen) == 20
        opt = SharpnessAware(torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), recipe, seed=0)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=10)
        for x, y in seen[::2]:
            opt.zero_grad()
            opt.backward(Batch(net, x, y))
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            opt.step()
            cosine.step()
        close(model.net, net, atol=1e-6)

    def test_both_passes_draw_the_same_masks(self, tmp_path):
        shown_here, masks = shown("with_hf_trainer"), []
        torch.manual_seed(0)
        model = shown_here.Classifier(dropout=0.5)
        model.net[3].register_forward_hook(lambda module, inputs, out: masks.append(out == 0))
        shown_here.train(SAM, shown_here.Named(*samples()), tmp_path, model=model)
        pairs = list(zip(masks[::2], masks[1::2], strict=True))
        assert len(pairs) == 10 and all(torch.equal(*pair) for pair in pairs)
        assert not torch.equal(masks[0], masks[2])

    def test_in_bfloat16_the_second_pass_sees_other_weights(self, tmp_path):
        shown_here = shown("with_hf_trainer")
        _, trainer = shown_here.train(SAM, shown_here.Named(*samples()), tmp_path, bf16=True)
        last = trainer.optimizer.optimizer.last
        assert last.length == pytest.approx(0.05, rel=1e-3) and last.cosine < 0.9999

    @pytest.mark.parametrize("option", [{"gradient_accumulation_steps": 2}, {"fp16": True}], ids=["accumulation", "fp16"])
    def test_what_it_cannot_do_is_refused(self, option, tmp_path):
        shown_here = shown("with_hf_trainer")
        with pytest.raises(ValueError, match=r"gradient_accumulation_steps must be 1|fp16"):
            shown_here.train(SAM, shown_here.Named(*samples()), tmp_path, **option)


# -- 15: is it on? --------------------------------------------------------------------------------------------------------------


@each()
def test_the_record_is_a_line_of_a_log_and_shows_that_the_method_is_on(recipe):
    model, rows = reference.net(), []
    opt = wrapped(model, recipe, record=True)
    take_steps(opt, model, n=32, each_step=lambda: rows.append(opt.last.to_dict()))
    assert [row["step"] for row in json.loads(json.dumps(rows))] == list(range(6))
    climbing = [row for row in rows if row["rho"] > 0]
    assert len(climbing) == (2 if recipe.name == "looksam" else 6)
    for row in climbing:
        assert row["loss_rise"] > 0 and row["length"] > 0 and row["ascent_norm"] > 0
        assert row["cosine"] < 1 - 1e-9 and math.isfinite(row["descent_norm"])


# -- 17: what is refused ----------------------------------------------------------------------------------------------------------


def test_a_closure_that_computes_nothing_runs_and_one_that_computes_a_loss_is_refused():
    model, calls = reference.net(), []
    opt, batch = wrapped(model), Batch(model, *reference.samples())
    opt.backward(batch)
    opt.step(closure=lambda: calls.append("ran"))
    assert calls == ["ran"]
    with pytest.raises(RuntimeError, match=r"no parameter .* has a gradient after the first pass: .* must follow a block"):
        opt.step(closure=lambda: calls.append("ran again"))
    before = weights_of(model)
    opt.backward(batch)
    with pytest.raises(TypeError, match="closure must not compute a loss"):
        opt.step(closure=lambda: torch.zeros(()))
    with pytest.raises(TypeError, match=r"closure must be left out of step\(batch\)"):
        opt.step(batch, closure=lambda: None)
    assert calls == ["ran", "ran again"] and weights_of(model) == before
