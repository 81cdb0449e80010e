"""What every recipe promises: with batch norm and dropout, with SGD and AdamW, through every accident."""

import copy
import functools
import io
import itertools
import pickle

import pytest
import reference
import torch
from torch import nn

import bisam
from bisam import Batch, Constant, Learned, LookSAM, Phase, SharpnessAware
from bisam.step.perturbation import WORTH_A_LOOK


def exercised(recipe):
    """The row with settings at which a few steps of a few samples show what it does."""
    if recipe.micro_batch is not None:
        recipe = recipe.replace(micro_batch=3)
    if isinstance(recipe.radius, Phase):
        recipe = recipe.replace(radius=Phase(0.05, start=min(1, recipe.radius.start), every=min(2, recipe.radius.every)))
    if isinstance(recipe.combination, LookSAM):
        recipe = recipe.replace(combination=LookSAM(every=2, at_w=recipe.combination.at_w))
    if isinstance(recipe.radius, Learned):
        large = Learned(recipe.radius.rho, 10.0, recipe.radius.form, least=recipe.radius.least, most=recipe.radius.most)
        recipe = recipe.replace(radius=large)
    return recipe


# A row for each kind of part: what a method does is decided axis by axis. What every row does to the last bit is frozen (test_frozen.py).
NAMES = (
    "sgd", "sam", "bisam-log", "sam-inf", "asam", "esam", "esam-code", "e-bisam-tanh-printed", "msam", "lets-sam", "gsam", "rsam", "ksam",
    "vasso", "sam-on", "le-sam", "late-sam", "looksam", "bsam",
)  # fmt: skip
ROWS = {name: exercised(bisam.recipe(name)) for name in NAMES}
VARIANTS = {
    "lets-exact": ROWS["lets-sam"].replace(radius=Learned(0.05, 10.0, form="exact")),
    "lets-difference": exercised(bisam.recipe("lets-bisam-log")).replace(radius=Learned(0.05, 10.0, form="difference")),
    "rsam, start not kept": ROWS["rsam"].replace(start=bisam.RandomStart(0.1, kept=False)),
    "gsam, ascent gradient": bisam.recipe("gsam-bisam-log").replace(combination=bisam.Decomposed(0.4, at_w="ascent")),
    "everything at once": bisam.ASAM.replace(
        ascent=bisam.BISAM_LOG.ascent,
        geometry=bisam.Masked(bisam.ASAM.geometry, 0.7),
        start=bisam.RandomStart(0.05),
        direction=bisam.recipe("fsam").direction,
        selection=bisam.MostSensitive(0.5),
        combination=bisam.Decomposed(0.3),
    ),
    "everything but an average, in parts": bisam.ASAM.replace(
        ascent=bisam.BISAM_LOG.ascent,
        geometry=bisam.Masked(bisam.ASAM.geometry, 0.7),
        start=bisam.RandomStart(0.05),
        selection=bisam.MostSensitive(0.5),
        micro_batch=5,
        combination=bisam.Decomposed(0.3),
    ),
}
ALL = {**ROWS, **VARIANTS}
CLIMBING = {name: row for name, row in ALL.items() if name != "sgd"}
# One for each way through a step, for what does not depend on the parts but on where the step looks for the weights, moves them and puts them back.
WAYS = ("sgd", "sam", "msam", "sam-on", "lets-sam", "looksam", "bsam", "everything at once")
each = pytest.mark.parametrize("name", ALL)
each_climbing = pytest.mark.parametrize("name", CLIMBING)
each_way = pytest.mark.parametrize("name", WAYS)
BASES = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
}


def kinds(choices):
    """The kinds of parts in the plain values of a recipe, with those inside others."""
    found = set()
    for key, value in choices.items():
        found |= kinds(value) if isinstance(value, dict) else {(key, value)} if key in ("kind", "per") else set()
    return found


def test_every_kind_of_part_in_the_table_is_tried_here():
    assert set().union(*(kinds(row.to_dict()) for row in bisam.RECIPES.values())) == set().union(*(kinds(row.to_dict()) for row in ALL.values()))


class Idle(torch.optim.SGD):
    """A base that leaves the weights alone, so that what a step does to them can be seen."""

    def step(self, closure=None):
        pass


class IdleVariational(bisam.Variational):
    """The same for the rows that need their own base."""

    @torch.no_grad()
    def step(self, closure=None):
        pass


def is_variational(recipe):
    return isinstance(recipe.geometry, bisam.methods.Precision)


def wrapped(model, name, base="sgd", **options):
    recipe = ALL[name]
    if is_variational(recipe):
        optimizer = bisam.Variational(model.parameters(), lr=0.05, samples=500)
    else:
        optimizer = BASES[base](model.parameters())
    return SharpnessAware(optimizer, recipe, seed=5, **options)


def idle(model, name, **options):
    kind = IdleVariational if is_variational(ALL[name]) else Idle
    return SharpnessAware(kind(model.parameters(), lr=0.1), ALL[name], seed=5, **options)


def step(opt, model, k, dtype=torch.float64):
    """One step on the k-th batch, with a validation batch for those that learn."""
    more = {}
    if isinstance(opt.recipe.radius, Learned):
        more["validation"] = Batch(model, *reference.samples(100 + k, dtype=dtype))
    return opt.step(Batch(model, *reference.samples(k, dtype=dtype)), **more)


def net_for(name):
    """The little network; with batch norm for the rows that climb with norm layers only."""
    return reference.net("norm" if "sam-on" in name else "plain")


def steps(opt, model, numbers=range(5)):
    return [step(opt, model, k) for k in numbers]


def everything(model, opt):
    return reference.bits([model.state_dict(), opt.state_dict(), torch.get_rng_state()])


def weights(model):
    return reference.bits(list(model.parameters()))


# -- 3. the length of the climb -------------------------------------------------------------------------------------------

BALLS = ["sam", "bisam-log", "msam", "lets-sam", "gsam", "rsam", "ksam", "vasso", "looksam"]


@pytest.mark.parametrize("name", BALLS)
def test_the_climb_in_a_round_ball_has_the_length_of_the_radius(name):
    model = reference.net("norm")
    opt = wrapped(model, name, record=True)
    step(opt, model, 0)
    assert opt.last.length == pytest.approx(opt.last.rho, rel=1e-12) and opt.last.rho > 0


@each_climbing
def test_the_record_shows_that_the_method_is_on(name):
    model = reference.net("norm")
    opt = wrapped(model, name, record=True)
    records = []
    for k in range(6):
        step(opt, model, k)
        records.append(opt.last)
    on = [record for record in records if record.length]
    assert on and all(record.loss_rise is not None and record.cosine < 1 - 1e-9 for record in on)
    # One unlucky mask or start may lead down; the climbs together must not.
    assert sum(record.loss_rise for record in on) > 0
    assert [record.step for record in records] == list(range(6))


# -- 5. the weights are back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, name", [(torch.float32, name) for name in ALL] + [(torch.bfloat16, name) for name in WAYS], ids=str)
def test_weights_are_bitwise_back_and_in_the_same_place(dtype, name):
    model = reference.net("norm and dropout", dtype)
    with torch.no_grad():
        model[0].weight[0] = torch.tensor([-0.0, 0.0, torch.finfo(dtype).smallest_normal / 4, -1e-3])
    opt = idle(model, name)
    before, places = weights(model), [p.data_ptr() for p in model.parameters()]
    for k in range(3):
        step(opt, model, k, dtype)
    assert weights(model) == before and [p.data_ptr() for p in model.parameters()] == places


def test_weights_that_trade_places_with_their_moves_come_home():
    """Large ones look at the memory of the move for a while, instead of being copied."""
    model = nn.Sequential(nn.Linear(4, 2 * WORTH_A_LOOK // 5, dtype=torch.float64), nn.Linear(2 * WORTH_A_LOOK // 5, 3, dtype=torch.float64))
    opt = idle(model, "sam")
    before, places = weights(model), [p.data_ptr() for p in model.parameters()]
    seen = []
    model[0].register_forward_pre_hook(lambda module, inputs: seen.append(module.weight.data_ptr()))
    step(opt, model, 0)
    assert weights(model) == before and [p.data_ptr() for p in model.parameters()] == places
    assert seen[0] == places[0] != seen[1]


@each_climbing
def test_an_error_in_any_pass_leaves_weights_and_memory_as_before(name):
    passes = count_forwards(name)
    for failing in range(1, passes + 1):
        model, calls = reference.net("norm"), itertools.count(1 - forwards_of_steps(name, 2))
        model.register_forward_pre_hook(lambda *_, calls=calls, failing=failing: 1 / 0 if next(calls) == failing else None)
        opt = wrapped(model, name)
        steps(opt, model, range(2))
        before, memory, state = weights(model), opt.memory.save(), reference.bits(opt.base.state_dict())
        with pytest.raises(ZeroDivisionError):
            step(opt, model, 2)
        moved = failing > passes - learning_forwards(name)  # the radius is learned after the base has moved
        if not moved:
            assert weights(model) == before and reference.bits(opt.base.state_dict()) == state
            assert reference.bits(opt.memory.save()["kept"]) == reference.bits(memory["kept"])
        assert opt.memory.step == 2 + moved and not opt.displacement.is_away


def learning_forwards(name):
    return 2 if isinstance(ALL[name].radius, Learned) else 0


def counted(model):
    """A list that grows by one entry with every forward pass."""
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


@functools.cache
def forwards_of_steps(name, numbers):
    """Forward passes of so many steps of a recipe."""
    model = reference.net("norm")
    calls, opt = counted(model), wrapped(model, name)
    steps(opt, model, range(numbers))
    return len(calls)


def count_forwards(name):
    """Forward passes of the third step."""
    return forwards_of_steps(name, 3) - forwards_of_steps(name, 2)


@pytest.mark.parametrize("on_pass, value, name", [(1, torch.inf, name) for name in WAYS] + [(2, torch.nan, name) for name in ALL])
def test_a_gradient_that_is_not_finite_is_skipped_and_leaves_no_trace(on_pass, value, name):
    model, twin = net_for(name), net_for(name)
    opt = wrapped(model, name, nonfinite="skip")
    steps(opt, model, range(2))
    passes = itertools.count(1)
    layer = model[1 if "sam-on" in name else 0]  # one that both passes compute the gradient of
    hook = layer.bias.register_hook(lambda g: g * value if next(passes) == on_pass else g)
    before, memory, state = weights(model), opt.memory.save(), reference.bits(opt.base.state_dict())
    if backward_passes(name) < on_pass:
        pytest.skip(f"{name} has one backward pass in this step")
    with pytest.warns(RuntimeWarning, match="holds inf or NaN"):
        step(opt, model, 2)
    hook.remove()
    assert opt.skipped == 1 and weights(model) == before and reference.bits(opt.base.state_dict()) == state
    assert reference.bits(opt.memory.save()["kept"]) == reference.bits(memory["kept"]) or masks_were_redrawn(name)
    steps(opt, model, range(3, 5))
    assert all(torch.isfinite(p).all() for p in model.parameters())
    other = wrapped(twin, name)
    steps(other, twin)
    assert weights(twin) != weights(model)


def backward_passes(name):
    """Gradients of the first layer in the third step that reach the climb or the base."""
    recipe = ALL[name]
    skips = isinstance(recipe.combination, LookSAM) or isinstance(recipe.radius, Phase)
    if name == "sgd" or (skips and not climbs_in_third(recipe)):
        return 1
    return 2


def climbs_in_third(recipe):
    if isinstance(recipe.combination, LookSAM):
        return True
    return (2 - recipe.radius.start) % recipe.radius.every == 0


def masks_were_redrawn(name):
    return getattr(ALL[name].geometry, "per", None) == "tensor"


@each
def test_a_gradient_that_is_not_finite_raises_where_asked(name):
    model = net_for(name)
    opt = wrapped(model, name)
    steps(opt, model, range(2))
    model[0].bias.register_hook(lambda g: g * torch.nan)
    before, kept = weights(model), reference.bits(opt.memory.save()["kept"])
    with pytest.raises(FloatingPointError, match=rf"gradient of {opt.recipe.name} holds inf or NaN"):
        step(opt, model, 2)
    assert weights(model) == before and opt.memory.step == 2
    assert reference.bits(opt.memory.save()["kept"]) == kept


# -- 6. statistics, logits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, name", [("norm", name) for name in ALL] + [("cumulative norm", name) for name in WAYS])
def test_statistics_move_once_a_step(kind, name):
    model = reference.net(kind)
    opt = idle(model, name)
    expected = copy.deepcopy(model)
    for k in range(3):
        step(opt, model, k)
        expected(reference.samples(k)[0])
    assert int(model[1].num_batches_tracked) == 3
    if ALL[name].start is None:  # else the first pass is somewhere else
        torch.testing.assert_close(model[1].running_mean, expected[1].running_mean, rtol=1e-12, atol=1e-14)
    if ALL[name].start is None and ALL[name].micro_batch is None:
        assert torch.equal(model[1].running_var, expected[1].running_var)


@each
def test_logits_and_batch_are_not_edited(name):
    model, handed = net_for(name), []
    model.register_forward_hook(lambda module, inputs, output: handed.append((output, output.detach().clone())))
    opt, (x, y) = wrapped(model, name), reference.samples()
    before = reference.bits([x, y])
    step(opt, model, 0)
    assert handed and all(torch.equal(*pair) and pair[0]._version == 0 for pair in handed)
    assert reference.bits([x, y]) == before


@each
def test_random_numbers_go_on_as_after_one_pass(name):
    if ALL[name].micro_batch is not None:
        pytest.skip("parts of a batch draw masks of other shapes")
    model = reference.net("norm and dropout")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model(reference.samples(0)[0])
        expected = torch.get_rng_state()
    torch.manual_seed(3)
    step(wrapped(model, name), model, 0)
    assert torch.equal(torch.get_rng_state(), expected)


# -- 7. save, kill, resume; copies ----------------------------------------------------------------------------------------


def through_a_file(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("base, cut, name", [("sgd", 4, name) for name in ALL] + [("adamw", 1, name) for name in WAYS])
def test_a_resumed_training_equals_an_uncut_one(cut, base, name):
    torch.manual_seed(11)
    model = reference.net("norm and dropout")
    opt = wrapped(model, name, base)
    steps(opt, model, range(cut))
    saved = through_a_file([model.state_dict(), opt.state_dict(), torch.get_rng_state()])
    steps(opt, model, range(cut, 8))
    expected = everything(model, opt)

    again = reference.net("norm and dropout")
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.add_(1.0)
    resumed = wrapped(again, name, base)
    steps(resumed, again, [50])  # a memory of its own, which must go
    again.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    torch.set_rng_state(saved[2])
    steps(resumed, again, range(cut, 8))
    assert everything(again, resumed) == expected


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


@pytest.mark.parametrize("copied, name", [(copy.deepcopy, name) for name in ALL] + [(pickled, name) for name in WAYS])
def test_a_copy_goes_on_bit_for_bit_by_itself(copied, name):
    model = net_for(name)
    opt = wrapped(model, name)
    steps(opt, model, range(3))
    model_2, opt_2 = copied((model, opt))
    before = everything(model, opt)
    steps(opt_2, model_2, range(3, 6))
    assert everything(model, opt) == before
    steps(opt, model, range(3, 6))
    assert everything(model, opt) == everything(model_2, opt_2)


# -- 9. passes ------------------------------------------------------------------------------------------------------------


def passes_of(name, numbers, samples=8):
    """Passes as counted by hooks: a third for a forward, two thirds for a backward, by the share of the samples."""
    model, total = net_for(name), [0.0]

    def add(passes):
        total[0] += passes

    def count(module, inputs, output):
        share = len(output) / samples
        add(share / 3)
        if output.requires_grad:
            output.register_hook(lambda g: add(share * 2 / 3))

    model.register_forward_hook(count)
    opt = wrapped(model, name)
    for k in range(numbers):
        step(opt, model, k)
    return total[0] / numbers


@each
def test_passes_are_those_that_the_recipe_says(name):
    recipe = ALL[name]
    if name == "lets-exact":
        pytest.skip("a second derivative is not one backward pass; its share is an estimate")
    if isinstance(recipe.radius, Phase) and recipe.radius.start:
        expected = (1 + 5 * recipe.passes) / 6
    elif masks_were_redrawn(name):
        expected = recipe.passes + (1 - recipe.geometry.keep) / 3  # the saving is within the backward pass
        assert passes_of(name, 6) <= expected + 1e-9
        return
    else:
        expected = recipe.passes
    assert passes_of(name, 6) == pytest.approx(expected, rel=1e-9)


# -- situations in which others fail --------------------------------------------------------------------------------------


class Sometimes(nn.Module):
    """A network with a side branch that takes part only in the passes that are named."""

    def __init__(self, passes):
        super().__init__()
        self.body, self.side = reference.net("norm"), reference.net("norm")
        self.passes, self.calls = passes, itertools.count(1)  # a number would be put back after the later passes

    def forward(self, x):
        return self.body(x) + (self.side(x) if next(self.calls) in self.passes else 0)


@each_climbing
def test_a_branch_of_the_first_pass_only_keeps_its_weights(name):
    model = Sometimes(passes={1})
    opt = idle(model, name)
    before = weights(model)
    steps(opt, model, range(2))
    assert weights(model) == before


@each_climbing
def test_a_branch_of_the_later_passes_only_is_trained_and_comes_back(name):
    model = Sometimes(passes=set(range(2, 100)))
    opt, before = idle(model, name), weights(model)
    steps(opt, model, range(2))
    assert weights(model) == before
    trained = wrapped(model, name)
    steps(trained, model, range(2))
    assert weights(model) != before


@each_way
def test_weights_loaded_after_construction_are_not_reverted(name):
    model, other = reference.net("norm"), reference.net("norm")
    opt = idle(model, name)
    steps(opt, model, range(2))
    nn.init.normal_(other[0].weight)
    model.load_state_dict(other.state_dict())
    steps(opt, model, range(2, 4))
    assert weights(model) == weights(other)


@each_way
def test_frozen_parameters_stay_and_take_no_part(name):
    model = reference.net("norm")
    model[0].weight.requires_grad_(False)
    frozen, rest = reference.bits(model[0].weight), reference.bits(model[3].weight)
    opt = wrapped(model, name)
    steps(opt, model)
    assert reference.bits(model[0].weight) == frozen and reference.bits(model[3].weight) != rest


@each_way
def test_tied_weights_and_empty_groups(name):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 4)).double()
    model[3].weight = model[0].weight
    opt = idle(model, name)
    opt.param_groups.append({**opt.param_groups[0], "params": []})
    before = weights(model)
    steps(opt, model, range(2))
    assert weights(model) == before


@each_way
def test_a_new_group_is_climbed_with_and_trained(name):
    model = nn.Sequential(reference.net("norm"), nn.Linear(3, 3)).double()
    opt = wrapped(nn.Sequential(model[0]), name)
    before = reference.bits(model[1].weight)
    steps(opt, model, range(2))
    assert reference.bits(model[1].weight) == before
    opt.add_param_group({"params": model[1].parameters()})
    steps(opt, model, range(2, 5))
    assert reference.bits(model[1].weight) != before


@each_way
def test_views_and_flattened_buffers_stay_views(name):
    model = reference.net("norm")
    flat = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    nn.utils.vector_to_parameters(flat, model.parameters())  # the parameters are views of one buffer now
    steps(wrapped(model, name), model)
    assert torch.equal(flat, nn.utils.parameters_to_vector(model.parameters()).detach())


@each_way
def test_schedulers_reach_the_base_also_after_loading(name):
    model = reference.net("norm")
    opt = wrapped(model, name)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=5)
    steps(opt, model, range(2))
    opt.load_state_dict(through_a_file(opt.state_dict()))
    schedule.step()
    assert opt.param_groups is opt.base.param_groups and opt.state is opt.base.state
    assert opt.base.param_groups[0]["lr"] == schedule.get_last_lr()[0] != schedule.base_lrs[0]


@each_way
def test_gradients_before_a_step_do_not_count_and_backward_adds(name):
    one, other = reference.net("norm"), reference.net("norm")
    for p in other.parameters():
        p.grad = torch.ones_like(p)
    steps(wrapped(one, name), one, [0])
    steps(wrapped(other, name), other, [0])
    assert weights(one) == weights(other)
    if isinstance(ALL[name].radius, Learned):
        return
    model = reference.net("norm")
    opt = idle(model, name)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    opt.backward(Batch(model, *reference.samples(0)), weight=0.5)
    added = [p.grad - 1 for p in model.parameters()]
    bare = reference.net("norm")
    idle(bare, name).backward(Batch(bare, *reference.samples(0)))
    for part, p in zip(added, bare.parameters(), strict=True):
        torch.testing.assert_close(part, 0.5 * p.grad, rtol=1e-9, atol=1e-12)


@each_way
def test_no_gradient_at_all_is_a_clear_error(name):
    model = reference.net("norm")
    opt = idle(reference.net("norm"), name)  # the base holds other parameters
    if name == "sgd":
        step(opt, model, 0)  # a step of the base, which has nothing to do
        return
    with pytest.raises(RuntimeError, match=r"no parameter of the base optimiser has a gradient"):
        step(opt, model, 0)


@each_climbing
def test_the_radius_zero_is_one_pass(name):
    model = reference.net("norm")
    calls, opt = counted(model), wrapped(model, name)
    opt.recipe = opt.recipe.replace(radius=Constant(0))
    steps(opt, model, range(2))
    assert len(calls) == 2


@pytest.mark.parametrize("name", ["sam", "msam"])
def test_every_piece_of_a_batch_draws_its_own_masks_again(name):
    model, masks = reference.net("dropout"), []
    model[2].register_forward_hook(lambda module, inputs, output: masks.append(output.detach() == 0))
    recipe = ALL[name].replace(micro_batch=4 if name == "msam" else None)
    opt = SharpnessAware(BASES["sgd"](model.parameters()), recipe, seed=0)
    x, y = reference.samples(0)
    opt.step([Batch(model, *part) for part in zip(x.split(4), y.split(4), strict=True)])
    assert len(masks) == 4
    first, second = (masks[:2], masks[2:]) if recipe.micro_batch is None else (masks[::2], masks[1::2])
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert not torch.equal(*first)  # the pieces differ
