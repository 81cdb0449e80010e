"""The step: against the reference, through every accident, and to the outside one torch optimiser."""

import copy
import io
import itertools
import pickle

import pytest
import reference
import torch
from blocks import climbed
from torch import nn
from torch.optim import lr_scheduler

from bisam import BISAM_LOG, BISAM_TANH, SAM, SGD, Batch, Constant, CrossEntropy, SharpnessAware
from bisam.losses.loss import Loss

TWO_PASS = {"sam": SAM, "bisam-log": BISAM_LOG, "bisam-tanh": BISAM_TANH}
each_recipe = pytest.mark.parametrize("recipe", TWO_PASS.values(), ids=TWO_PASS)
each_net = pytest.mark.parametrize("kind", reference.NETS)
each_style = pytest.mark.parametrize("style", ["two lines", "spelled out"])
WIDE = SAM.replace(radius=Constant(0.5))


class Idle(torch.optim.SGD):
    """A base that leaves the weights alone, so that what a step does to them can be seen."""

    def step(self, closure=None):
        pass


class Sometimes(nn.Module):
    """A network with a side branch that takes part only in the passes that are named."""

    def __init__(self, passes):
        super().__init__()
        self.body, self.side = reference.net(), reference.net()
        self.passes, self.calls = passes, itertools.count(1)  # a number would be put back after the later passes

    def forward(self, x):
        return self.body(x) + (self.side(x) if next(self.calls) in self.passes else 0)


def momentum_sgd(model, lr=0.1):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)


def wrapped(model, recipe=SAM, **options):
    return SharpnessAware(momentum_sgd(model), recipe, **options)


def spelled_out(opt, model, x, y):
    """The step in the words of the documentation."""
    opt.zero_grad()
    with climbed(opt, model, x, y):
        opt.recipe.descent(model(x), y).backward()
    opt.step()


def take_steps(opt, model, style="two lines", numbers=range(4)):
    for k in numbers:
        x, y = reference.samples(k)
        opt.step(Batch(model, x, y)) if style == "two lines" else spelled_out(opt, model, x, y)


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def weights_of(thing):
    return reference.bits(thing.state_dict())


def poison(model, on_pass, value):
    """Multiplies one gradient of one pass by inf or NaN."""
    passes = itertools.count(1)
    model[0].weight.register_hook(lambda g: g * value if next(passes) == on_pass else g)


# -- the step is the one in the book ---------------------------------------------------------------


@each_recipe
def test_one_step_is_that_of_the_reference(recipe):
    model, (x, y) = reference.net(), reference.samples()
    gamma = torch.log(torch.tensor(torch.e, dtype=torch.float64) - 1)
    phi = {
        "bisam-log": lambda m: 1 - torch.log(1 + torch.exp(gamma - m)),
        "bisam-tanh": lambda m: torch.tanh(0.1 * m),
    }

    def descent(logits):
        return nn.functional.cross_entropy(logits, y)

    def ascent(logits):
        return (
            reference.q_plain(logits, y, phi[recipe.name], recipe.ascent.mu)
            if recipe.ascent
            else descent(logits)
        )

    def forward(weights):
        return torch.tanh(x @ weights[0].T + weights[1]) @ weights[2].T + weights[3]

    expected = reference.sharpness_aware_step(
        list(model.parameters()), forward, ascent, descent, rho=0.05, lr=0.1
    )
    SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), recipe).step(Batch(model, x, y))
    for parameter, value in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=1e-13, atol=1e-14)


@each_recipe
@each_net
def test_two_lines_and_spelled_out_are_the_same_to_the_last_bit(kind, recipe):
    results = []
    for style in ("two lines", "spelled out"):
        torch.manual_seed(5)  # the wrapper takes its own seed from it
        model = reference.net(kind)
        opt = wrapped(model, recipe)
        take_steps(opt, model, style)
        results.append(reference.bits([model.state_dict(), opt.state_dict(), torch.get_rng_state()]))
    assert results[0] == results[1]


@each_recipe
@pytest.mark.parametrize("factor", [1e-6, 1e-3, 7.0, 1e6])
def test_rescaling_the_ascent_loss_changes_nothing(factor, recipe):
    class Scaled(Loss):
        def values(self, logits, targets):
            return factor * recipe.raised.values(logits, targets)

    one, other = reference.net(), reference.net()
    take_steps(wrapped(one, recipe), one)
    take_steps(wrapped(other, recipe.replace(ascent=Scaled())), other)
    torch.testing.assert_close(flat(one), flat(other), rtol=1e-12, atol=1e-14)


@each_recipe
@pytest.mark.parametrize("rho", [1e-3, 0.05, 2.0])
def test_inside_the_block_the_weights_stand_at_distance_rho_along_the_gradient(rho, recipe):
    model, (x, y) = reference.net(), reference.samples()
    opt, start = wrapped(model, recipe.replace(radius=Constant(rho))), flat(model)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(opt.recipe.raised(model(x), y), list(model.parameters()))])
    with climbed(opt, model, x, y):
        climb = flat(model) - start
    assert float(climb.norm()) == pytest.approx(rho, rel=1e-9)
    assert float(climb @ gradient) == pytest.approx(rho * float(gradient.norm()), rel=1e-9)


@each_recipe
def test_the_loss_that_step_returns_is_the_descent_loss_at_w(recipe):
    model, (x, y) = reference.net(), reference.samples()
    expected, logits = CrossEntropy()(model(x), y).detach(), model(x).detach()
    batch = Batch(model, x, y)
    loss = wrapped(model, recipe).step(batch)
    assert torch.equal(loss, expected) and not loss.requires_grad
    assert torch.equal(batch.at_w, logits) and not batch.at_w.requires_grad


def test_gradients_from_before_a_step_do_not_count():
    one, other = reference.net(), reference.net()
    for p in other.parameters():
        p.grad = torch.ones_like(p)
    take_steps(wrapped(one), one)
    take_steps(wrapped(other), other)
    assert weights_of(one) == weights_of(other)


@pytest.mark.parametrize("same_noise", [True, False])
def test_both_passes_draw_the_same_masks_unless_the_recipe_says_otherwise(same_noise):
    model, (x, y), masks = reference.net("dropout"), reference.samples(), []
    model[2].register_forward_hook(lambda module, inputs, output: masks.append(output.detach() == 0))
    wrapped(model, SAM.replace(same_noise=same_noise)).step(Batch(model, x, y))
    assert len(masks) == 2 and masks[0].any() and torch.equal(*masks) == same_noise


@each_style
def test_random_numbers_go_on_after_a_step_as_after_one_pass(style):
    model, (x, _) = reference.net("dropout"), reference.samples()
    with torch.random.fork_rng():
        model(x)
        expected = torch.get_rng_state()
    take_steps(wrapped(model), model, style, numbers=[0])
    assert torch.equal(torch.get_rng_state(), expected)


# -- weights are always back -----------------------------------------------------------------------


@each_style
@each_recipe
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_weights_are_bitwise_back_and_in_the_same_place(dtype, recipe, style):
    model = reference.net("norm", dtype)
    with torch.no_grad():
        model[0].weight[0] = torch.tensor([-0.0, 0.0, torch.finfo(dtype).smallest_normal / 4, -1e-3])
    opt = SharpnessAware(Idle(model.parameters(), lr=0.1), recipe.replace(radius=Constant(0.3)))
    before, places = reference.bits(list(model.parameters())), [p.data_ptr() for p in model.parameters()]
    for k in range(3):
        x, y = reference.samples(k, dtype=dtype)
        opt.step(Batch(model, x, y)) if style == "two lines" else spelled_out(opt, model, x, y)
    assert reference.bits(list(model.parameters())) == before
    assert [p.data_ptr() for p in model.parameters()] == places


def test_weights_and_statistics_are_back_when_the_second_pass_raises():
    model, (x, y) = reference.net("norm"), reference.samples()
    opt, before = wrapped(model, WIDE), reference.bits(list(model.parameters()))
    SAM.raised(model(x), y).backward()
    statistics = reference.bits(list(model.buffers()))
    with pytest.raises(ZeroDivisionError), opt.perturbed(model):
        model(x)
        assert reference.bits(list(model.parameters())) != before
        raise ZeroDivisionError
    assert (
        reference.bits(list(model.parameters())) == before
        and reference.bits(list(model.buffers())) == statistics
    )


@each_recipe
def test_weights_are_back_when_the_model_raises_in_its_second_pass(recipe):
    model, calls = reference.net(), itertools.count(1)

    def fail_in_the_second_pass(module, inputs):
        if next(calls) == 2:
            raise ZeroDivisionError

    model.register_forward_pre_hook(fail_in_the_second_pass)
    opt, before = wrapped(model, recipe), weights_of(model)
    with pytest.raises(ZeroDivisionError):
        take_steps(opt, model)
    assert weights_of(model) == before and not opt.state


def test_a_block_that_raised_is_no_licence_to_step():
    model, (x, y) = reference.net(), reference.samples()
    opt = wrapped(model)
    spelled_out(opt, model, x, y)
    SAM.raised(model(x), y).backward()
    with pytest.raises(ZeroDivisionError), opt.perturbed(model):
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match=r"must follow a `with opt\.perturbed"):
        opt.step()


@each_style
@each_recipe
def test_a_branch_of_the_first_pass_only_keeps_its_weights(recipe, style):
    model = Sometimes(passes={1})
    side, body = weights_of(model.side), weights_of(model.body)
    take_steps(wrapped(model, recipe), model, style, numbers=[0])
    assert weights_of(model.side) == side and weights_of(model.body) != body


@each_style
@each_recipe
def test_a_branch_of_the_second_pass_only_is_moved_by_the_base_from_where_it_stood(recipe, style):
    model = Sometimes(passes={2})  # its first gradient ever arrives in the second pass
    before = copy.deepcopy(list(model.parameters()))
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), recipe)
    take_steps(opt, model, style, numbers=[0])
    for now, then in zip(model.parameters(), before, strict=True):
        assert torch.equal(now, then.add(now.grad, alpha=-0.1)) and now.grad.any()


def test_weights_loaded_after_construction_are_not_reverted():
    model, other = reference.net(), reference.net("plain")
    opt = SharpnessAware(Idle(model.parameters(), lr=0.1))
    take_steps(opt, model)
    nn.init.normal_(other[0].weight)
    model.load_state_dict(other.state_dict())
    take_steps(opt, model)
    assert weights_of(model) == weights_of(other) != weights_of(reference.net())


def test_frozen_parameters_stay_and_take_no_part():
    model, (x, y) = reference.net(), reference.samples()
    model[0].weight.requires_grad_(False)
    frozen, opt, start = reference.bits(model[0].weight), wrapped(model, WIDE), flat(model)
    SAM.raised(model(x), y).backward()
    with opt.perturbed(model):
        assert reference.bits(model[0].weight) == frozen
        assert float((flat(model) - start).norm()) == pytest.approx(0.5)
    take_steps(opt, model)
    assert reference.bits(model[0].weight) == frozen and not torch.equal(flat(model), start)


def test_tied_weights_are_moved_once():
    model, (x, y) = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).double(), reference.samples()
    model[2].weight = model[0].weight
    opt, start = wrapped(model, WIDE), flat(model)
    SAM.raised(model(x), y).backward()
    with opt.perturbed(model):
        assert float((flat(model) - start).norm()) == pytest.approx(0.5)
    assert torch.equal(flat(model), start)


def test_parameters_of_the_same_name_in_two_groups_are_all_moved():
    model, (x, y) = reference.net(), reference.samples()
    groups = [
        {"params": model[0].named_parameters()},
        {"params": model[2].named_parameters()},
    ]  # weight, bias, twice
    opt, start = (
        SharpnessAware(torch.optim.SGD(groups, lr=0.1), WIDE),
        [p.detach().clone() for p in model.parameters()],
    )
    SAM.raised(model(x), y).backward()
    with opt.perturbed(model):
        assert not any(torch.equal(now, then) for now, then in zip(model.parameters(), start, strict=True))
        assert all(p.grad is None for p in model.parameters())


def test_names_and_groups_also_empty_ones_make_no_difference():
    results = []
    for divide in (
        lambda model: model.parameters(),
        lambda model: model.named_parameters(),
        lambda model: [{"params": list(model.parameters())}, {"params": []}],
        lambda model: [{"params": model[2].parameters()}, {"params": model[0].parameters()}],
    ):
        model = reference.net()
        take_steps(SharpnessAware(torch.optim.SGD(divide(model), lr=0.1)), model)
        results.append(flat(model))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("recipe", [SGD, SAM], ids=["one pass", "two passes"])
def test_sparse_gradients_are_named_before_anything_moves(recipe):
    model, y = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Flatten()), torch.tensor([0, 1])
    opt, before = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), recipe), weights_of(model)
    with pytest.raises(TypeError, match=r"parameter 0\.weight has a sparse gradient; use sparse=False"):
        opt.step(Batch(model, torch.tensor([[0], [1]]), y))
    assert weights_of(model) == before


# -- inf and NaN -----------------------------------------------------------------------------------

ACCIDENTS = [
    (SGD, 1, "descent"),
    (SAM, 1, "ascent"),
    (BISAM_LOG, 1, "ascent"),
    (SAM, 2, "descent"),
    (BISAM_LOG, 2, "descent"),
]
each_accident = pytest.mark.parametrize(
    "recipe, on_pass, which", ACCIDENTS, ids=[f"{r.name}, pass {k}" for r, k, _ in ACCIDENTS]
)
each_value = pytest.mark.parametrize("value", [torch.inf, torch.nan])


@each_accident
@each_value
def test_a_gradient_that_is_not_finite_raises_and_leaves_all_as_before(value, recipe, on_pass, which):
    model, twin = reference.net("norm"), reference.net("norm")
    opt = wrapped(model, recipe)
    take_steps(opt, model)
    before, momentum = reference.bits(list(model.parameters())), reference.bits(opt.base.state_dict())
    poison(model, on_pass, value)
    with pytest.raises(
        FloatingPointError, match=rf"the {which}.* gradient of {recipe.name} holds inf or NaN.* as before"
    ):
        take_steps(opt, model)
    assert (
        reference.bits(list(model.parameters())) == before
        and reference.bits(opt.base.state_dict()) == momentum
    )
    assert all(p.grad is None for p in model.parameters()) and opt.skipped == 0
    take_steps(wrapped(twin, recipe), twin, numbers=[0, 1, 2, 3, 0])
    assert reference.bits(list(model.buffers())) == reference.bits(list(twin.buffers()))


@each_accident
@each_value
def test_a_skipped_step_is_counted_and_touches_neither_weights_nor_momentum(value, recipe, on_pass, which):
    model = reference.net()
    opt = wrapped(model, recipe, nonfinite="skip")
    take_steps(opt, model)
    before, momentum = weights_of(model), reference.bits(opt.base.state_dict())
    poison(model, on_pass, value)
    with pytest.warns(
        RuntimeWarning, match=rf"the {which}.* gradient of {recipe.name} holds inf or NaN.*is skipped"
    ):
        take_steps(opt, model, numbers=[4])
    assert opt.skipped == 1 and weights_of(model) == before
    assert reference.bits(opt.base.state_dict()) == momentum
    take_steps(opt, model, numbers=[5])
    assert opt.skipped == 1 and weights_of(model) != before


def test_only_the_first_skipped_step_warns():
    model = reference.net()
    opt = SharpnessAware(torch.optim.AdamW(model.parameters()), nonfinite="skip")
    model[0].weight.register_hook(lambda g: g * torch.nan)
    with pytest.warns(RuntimeWarning, match="later ones are only counted"):
        take_steps(opt, model, numbers=[0])
    take_steps(opt, model)  # a second warning would be an error here
    assert opt.skipped == 5 and not opt.state and weights_of(model) == weights_of(reference.net())


def test_a_skipped_block_leaves_nothing_for_the_base_to_step_with():
    model, (x, y) = reference.net(), reference.samples()
    opt = wrapped(model, nonfinite="skip")
    poison(model, 2, torch.nan)
    with pytest.warns(RuntimeWarning):
        spelled_out(opt, model, x, y)
    assert weights_of(model) == weights_of(reference.net()) and not opt.state


def test_a_large_finite_gradient_in_half_precision_is_no_accident():
    model, (x, y) = (
        reference.net(dtype=torch.float32).to(torch.float16),
        reference.samples(dtype=torch.float16),
    )
    opt = SharpnessAware(Idle(model.parameters()), WIDE)
    model[0].weight.register_hook(lambda g: torch.full_like(g, 60000.0))
    start = flat(model)
    SAM.raised(model(x), y).backward()
    with opt.perturbed(model):
        assert float((flat(model) - start).double().norm()) == pytest.approx(0.5, rel=1e-2)


# -- statistics of norms, gradients of the caller --------------------------------------------------


@each_style
@each_recipe
@pytest.mark.parametrize("kind", ["norm", "cumulative norm", "norm and dropout"])
def test_norm_statistics_move_once_a_step_and_at_w(kind, recipe, style):
    model, (x, _) = reference.net(kind), reference.samples()
    twin = copy.deepcopy(model)
    twin(x)
    take_steps(wrapped(model, recipe), model, style, numbers=[0])
    assert reference.bits(list(model.buffers())) == reference.bits(list(twin.buffers()))
    take_steps(wrapped(model, recipe), model, style, numbers=[1, 2])
    assert model[1].num_batches_tracked == 3


@each_style
@each_recipe
def test_statistics_in_evaluation_mode_do_not_move(recipe, style):
    model = reference.net("norm").eval()
    before = reference.bits(list(model.buffers()))
    take_steps(wrapped(model, recipe), model, style)
    assert reference.bits(list(model.buffers())) == before and not model.training


def test_gradients_that_the_caller_keeps_are_not_edited():
    model, (x, y) = reference.net(), reference.samples()
    opt = wrapped(model)
    CrossEntropy()(model(x), y).backward()
    kept = [p.grad for p in model.parameters()]
    before = reference.bits(kept)
    with opt.perturbed(model):
        CrossEntropy()(model(x), y).backward()
    opt.step()
    assert reference.bits(kept) == before and all(
        p.grad is not g for p, g in zip(model.parameters(), kept, strict=True)
    )


@each_recipe
def test_what_the_model_hands_out_is_not_edited(recipe):
    handed = []
    model, (x, y) = reference.net(), reference.samples()
    model.register_forward_hook(
        lambda module, inputs, output: handed.append((output, output.detach().clone()))
    )
    before = reference.bits([x, y])
    wrapped(model, recipe).step(Batch(model, x, y))
    assert len(handed) == 2 and all(torch.equal(*pair) and pair[0]._version == 0 for pair in handed)
    assert reference.bits([x, y]) == before


# -- to the outside one torch optimiser ------------------------------------------------------------

SCHEDULERS = {
    "cosine": lambda opt: lr_scheduler.CosineAnnealingLR(opt, T_max=6),
    "one cycle": lambda opt: lr_scheduler.OneCycleLR(opt, max_lr=0.2, total_steps=10),
    "lambda": lambda opt: lr_scheduler.LambdaLR(opt, lambda k: 0.5**k),
}
each_scheduler = pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)


@each_scheduler
def test_a_scheduler_on_the_wrapper_acts_as_one_on_the_base(scheduler):
    results = []
    for attach in (lambda opt: opt, lambda opt: opt.base):
        model = reference.net()
        opt = wrapped(model)
        schedule, rates = scheduler(attach(opt)), []
        for k in range(5):
            take_steps(opt, model, numbers=[k])
            schedule.step()
            rates.append(opt.base.param_groups[0]["lr"])
        assert opt.param_groups is opt.base.param_groups and len(set(rates)) > 1
        results.append((rates, weights_of(model)))
    assert results[0] == results[1]


def saved(opt):
    """The state after a trip through a file that may hold only tensors and plain values."""
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(
    "base", [momentum_sgd, lambda m: torch.optim.AdamW(m.parameters())], ids=["sgd", "adamw"]
)
@each_recipe
def test_saving_and_loading_goes_on_bit_for_bit(recipe, base):
    model = reference.net("norm")
    opt = SharpnessAware(base(model), recipe)
    take_steps(opt, model)
    again = copy.deepcopy(model)
    loaded = SharpnessAware(base(again), recipe)
    loaded.load_state_dict(saved(opt))
    take_steps(opt, model), take_steps(loaded, again)
    assert weights_of(model) == weights_of(again) and reference.bits(opt.state_dict()) == reference.bits(
        loaded.state_dict()
    )


def test_wrapper_and_base_share_groups_and_state_also_after_loading():
    model = reference.net()
    opt = wrapped(model)
    take_steps(opt, model)
    opt.load_state_dict(saved(opt))
    assert opt.param_groups is opt.base.param_groups and opt.state is opt.base.state
    opt.param_groups[0]["lr"] = 0.0
    before = weights_of(model)
    take_steps(opt, model)
    assert weights_of(model) == before


def test_a_schedule_goes_on_after_loading():
    model = reference.net()
    opt = wrapped(model)
    schedule = SCHEDULERS["lambda"](opt)
    take_steps(opt, model)
    opt.load_state_dict(saved(opt))
    take_steps(opt, model)
    schedule.step()
    assert opt.base.param_groups[0]["lr"] == pytest.approx(0.05)


def test_the_count_of_skipped_steps_is_saved_and_the_state_of_a_bare_base_loads_too():
    model = reference.net()
    opt = wrapped(model, nonfinite="skip")
    take_steps(opt, model)
    opt.skipped = 3
    other = wrapped(model, nonfinite="skip")
    other.load_state_dict(saved(opt))
    assert other.skipped == 3
    other.load_state_dict(opt.base.state_dict())
    assert other.skipped == 0 and reference.bits(other.base.state_dict()) == reference.bits(
        opt.base.state_dict()
    )


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda thing: pickle.loads(pickle.dumps(thing))}


@pytest.mark.parametrize("scheduled", [False, True], ids=["plain", "with a scheduler"])
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@each_recipe
def test_a_copy_goes_on_bit_for_bit_by_itself(recipe, copied, scheduled):
    model = reference.net()
    opt = wrapped(model, recipe, nonfinite="skip")
    if scheduled:
        SCHEDULERS["cosine"](opt)
    take_steps(opt, model)
    model_2, opt_2 = copied((model, opt))
    assert (opt_2.recipe, opt_2.nonfinite, opt_2.skipped) == (recipe, "skip", 0)
    before = weights_of(model)
    take_steps(opt_2, model_2)
    assert weights_of(model) == before
    take_steps(opt, model)
    assert weights_of(model) == weights_of(model_2) and reference.bits(opt.state_dict()) == reference.bits(
        opt_2.state_dict()
    )


def test_added_parameters_are_climbed_with_and_trained():
    model, extra = reference.net(), reference.net()
    opt = wrapped(model)
    take_steps(opt, model)
    opt.add_param_group({"params": extra.parameters(), "lr": 0.01})
    both, (x, y) = nn.ModuleList([model, extra]), reference.samples()
    start = flat(both)
    SAM.raised(model(x) + extra(x), y).backward()
    with opt.perturbed(both):
        moved = flat(both) != start
        CrossEntropy()(model(x) + extra(x), y).backward()
    opt.step()
    assert moved[len(moved) // 2 :].all() and (flat(extra) != flat(reference.net())).all()
    assert len(opt.base.param_groups) == 2 and opt.base.param_groups[1]["lr"] == 0.01


def test_hooks_of_the_base_run_once_a_step():
    model, calls = reference.net(), []
    opt = wrapped(model)
    opt.register_step_post_hook(lambda *_: calls.append("after"))
    opt.register_step_pre_hook(lambda *_: calls.append("before"))
    take_steps(opt, model, numbers=[0, 1])
    assert calls == ["before", "after"] * 2


def test_the_wrapper_is_an_optimiser_and_says_what_it_wraps():
    opt = wrapped(reference.net(), BISAM_LOG)
    assert isinstance(opt, torch.optim.Optimizer) and repr(opt).startswith("SharpnessAware(bisam-log, SGD (")
    with pytest.raises(AttributeError, match="no_such_thing"):
        opt.no_such_thing  # noqa: B018


# -- wrong use -------------------------------------------------------------------------------------

BASE = momentum_sgd(reference.net())
CONSTRUCTIONS = {
    "a wrapper": (
        lambda: SharpnessAware(SharpnessAware(BASE)),
        TypeError,
        r"base must be .* not wrapped yet, got Sharp",
    ),
    "parameters": (lambda: SharpnessAware([1]), TypeError, r"base must be a torch optimiser .* got list"),
    "a class": (
        lambda: SharpnessAware(torch.optim.SGD),
        TypeError,
        r"base must be a torch optimiser .* got type",
    ),
    "a name": (
        lambda: SharpnessAware(BASE, "samm"),
        ValueError,
        r"recipe must be one of sgd, sam, .* got 'samm'",
    ),
    "a number": (
        lambda: SharpnessAware(BASE, 0.05),
        TypeError,
        r"recipe must be a bisam\.Recipe, .* got 0\.05",
    ),
    "nonfinite": (
        lambda: SharpnessAware(BASE, nonfinite="ignore"),
        ValueError,
        r"nonfinite must be one of raise, skip; got 'ignore'",
    ),
}


@pytest.mark.parametrize("make, error, message", CONSTRUCTIONS.values(), ids=CONSTRUCTIONS)
def test_a_wrong_construction_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "thing, got", [(reference.net(), "Sequential"), (reference.samples(), "tuple"), (3, "int")]
)
def test_step_takes_a_batch_or_a_closure(thing, got):
    model = reference.net()
    with pytest.raises(TypeError, match=rf"step needs a bisam\.Batch\(model, inputs, targets\), got {got}"):
        wrapped(model).step(thing)


def test_step_without_batch_and_without_block_is_refused():
    model, (x, y) = reference.net(), reference.samples()
    opt = wrapped(model)
    with pytest.raises(
        RuntimeError, match=r"step\(\) without a batch must follow a `with opt\.perturbed\(model\):`"
    ):
        opt.step()
    spelled_out(opt, model, x, y)
    with pytest.raises(RuntimeError, match="must follow"):
        opt.step()


def test_perturbed_without_gradients_is_refused():
    model = reference.net()
    with (
        pytest.raises(RuntimeError, match=r"no parameter .*has a gradient: call backward\(\)"),
        wrapped(model).perturbed(model),
    ):
        pass


def test_a_model_whose_parameters_the_base_does_not_hold_is_named():
    model, (x, y) = reference.net(), reference.samples()
    with pytest.raises(RuntimeError, match=r"no parameter .*has a gradient"):
        wrapped(reference.net()).step(Batch(model, x, y))


class Tagger(nn.Module):
    """Words to logits by a recurrent network, whose dropout is a number and no module of its own."""

    def __init__(self, inside):
        super().__init__()
        self.inside, self.head = inside, nn.Linear(4, 3)

    def forward(self, x):
        words = x[:, None, :].expand(-1, 5, -1)
        found = (
            self.inside(words, words, words)
            if isinstance(self.inside, nn.MultiheadAttention)
            else self.inside(words)
        )
        return self.head(found[0][:, -1])


NOISY = {
    "dropout": lambda: reference.net("dropout").float(),
    "alpha dropout": lambda: nn.Sequential(nn.Linear(4, 3), nn.AlphaDropout(0.5)),
    "random slopes": lambda: nn.Sequential(nn.Linear(4, 3), nn.RReLU()),
    "recurrent": lambda: Tagger(nn.LSTM(4, 4, num_layers=2, dropout=0.5, batch_first=True)),
    "attention": lambda: Tagger(nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)),
}


@pytest.mark.parametrize("make", NOISY.values(), ids=NOISY)
def test_a_block_whose_model_draws_noise_needs_the_noise(make):
    model, (x, y) = make(), reference.samples(dtype=torch.float32)
    opt = wrapped(model)
    SAM.raised(model(x), y).backward()
    with (
        pytest.raises(ValueError, match=r"noise must be given .* bisam\.step\.RNGState\(device\) .* same_noise=False"),
        opt.perturbed(model),
    ):
        pass


@pytest.mark.parametrize("make", NOISY.values(), ids=NOISY)
def test_no_noise_is_asked_for_where_none_is_drawn_or_fresh_is_wanted(make):
    x, y = reference.samples(dtype=torch.float32)
    for model, recipe in ((make().eval(), SAM), (make(), SAM.replace(same_noise=False))):
        SAM.raised(model(x), y).backward()
        with wrapped(model, recipe).perturbed(model):
            pass


# -- on devices where looking at a number means waiting ----------------------------------------------------------------------


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
@pytest.mark.parametrize("on_pass", [1, 2])
@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_a_fused_base_skips_without_anybody_looking(make, on_pass, value, monkeypatch):
    monkeypatch.setattr("bisam._look.is_free", lambda tensor: False)
    more = {"momentum": 0.9} if make is torch.optim.SGD else {}
    model = reference.net()
    opt = SharpnessAware(make(model.parameters(), lr=0.1, fused=True, **more), BISAM_LOG, nonfinite="skip")
    take_steps(opt, model, numbers=[0, 1])
    before, state = weights_of(model), reference.bits(opt.base.state_dict()["state"])
    poison(model, on_pass, value)
    take_steps(opt, model, numbers=[2])
    assert weights_of(model) == before and reference.bits(opt.base.state_dict()["state"]) == state
    assert opt.skipped == 1 and opt.state_dict()["sharpness_aware"]["skipped"] == 1
    assert not hasattr(opt.base, "found_inf")
    take_steps(opt, model, numbers=[3])
    assert weights_of(model) != before and opt.skipped == 1


def test_the_first_step_of_a_fused_base_is_looked_at(monkeypatch):
    monkeypatch.setattr("bisam._look.is_free", lambda tensor: False)
    model = reference.net()
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True), nonfinite="skip")
    poison(model, 2, torch.nan)
    with pytest.warns(RuntimeWarning, match="holds inf or NaN"):
        take_steps(opt, model, numbers=[0])
    assert not opt.state and opt.skipped == 1
