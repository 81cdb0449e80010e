"""State that a pass moves: the first pass of a step moves it once, and the others leave no trace, against a loop that copies the whole model."""

import collections
import copy
import pickle
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import nn

import bisam
import bisam.measure
from bisam import BISAM_LOG, SAM, Batch, SharpnessAware
from bisam.methods import LE_SAM, RSAM
from bisam.step import RNGState, held_buffers
from bisam.step import held as held_module

CROSS_ENTROPY = nn.functional.cross_entropy
STEPS = 4


def samples(step):
    draw = torch.Generator().manual_seed(step)
    return torch.randn(12, 6, generator=draw, dtype=torch.float64), torch.randint(3, (12,), generator=draw)


class Stateful(nn.Module):
    """A layer, and a way to change with every forward pass and to let the outcome depend on it."""

    def __init__(self, begin, move):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.norm = nn.Linear(6, 3, dtype=torch.float64), nn.BatchNorm1d(3, dtype=torch.float64)
        self.move = move
        begin(self)

    def forward(self, x):
        return self.norm(self.layer(x)) * (1 + self.move(self, x) / 10)


def recurrent(self, x):
    self.h = torch.tanh(self.h + x.mean()).detach()
    return self.h


def in_place(self, x):
    with torch.no_grad():
        self.h.mul_(0.5).add_(x.mean() + self.layer.weight.mean())
    return self.h.clone()


def through_data(self, x):
    self.h.data.mul_(0.5).add_(x.mean())
    return self.h.clone()


def first_time(self, x):
    self.h = x.mean().detach() if self.h is None else (self.h + self.layer.weight.mean()).detach()
    return self.h


def unset(self, x):
    self.seen = getattr(self, "seen", 0) + 1
    return self.seen


def pointer(self, x):
    self.queue[self.place % 4] = x.mean()
    self.place += 1
    return self.queue.sum() + self.place


def appended(self, x):
    self.queue.append(self.layer.weight.detach().mean().item())
    return sum(self.queue)


def keyed(self, x):
    self.counts[len(self.counts)] = 1.0
    return len(self.counts)


def added(self, x):
    self.counts.add(len(self.counts))
    return len(self.counts)


def tupled(self, x):
    self.h = (self.h[0] + 1, x.mean().detach())
    return self.h[0] + self.h[1]


def flag(self, x):
    self.first = not self.first
    return float(self.first)


def lazily_a_buffer(self, x):
    self.mean = x.mean() if self.mean is None else self.mean * 0.5 + x.mean()
    return self.mean


def setting(**values):
    return lambda self: [setattr(self, name, copy.deepcopy(value)) for name, value in values.items()]


STATES = {
    "recurrent": (setting(h=torch.zeros((), dtype=torch.float64)), recurrent),
    "in place": (setting(h=torch.ones((), dtype=torch.float64)), in_place),
    "through data": (setting(h=torch.ones((), dtype=torch.float64)), through_data),
    "none at first": (setting(h=None), first_time),
    "not there at first": (setting(), unset),
    "queue and pointer": (setting(queue=torch.zeros(4, dtype=torch.float64), place=0), pointer),
    "list": (setting(queue=[]), appended),
    "deque": (lambda self: setattr(self, "queue", collections.deque(maxlen=3)), appended),
    "dictionary": (setting(counts={}), keyed),
    "counter": (setting(counts=collections.OrderedDict()), keyed),
    "set": (setting(counts=set()), added),
    "tuple": (setting(h=(0, 0.0)), tupled),
    "flag": (setting(first=True), flag),
    "buffer that is none": (lambda self: self.register_buffer("mean", None), lazily_a_buffer),
}


def encoder(self):
    self.key = copy.deepcopy(self.layer).requires_grad_(False)
    nn.init.zeros_(self.key.weight)


def unfrozen(self):
    self.key = copy.deepcopy(self.layer)
    nn.init.zeros_(self.key.weight)


def used(self, x):
    return self.key(x).detach()


def lerp(self, x):
    with torch.no_grad():
        for key, value in zip(self.key.parameters(), self.layer.parameters(), strict=True):
            key.lerp_(value, 0.5)
    return used(self, x)


def data(self, x):
    for key, value in zip(self.key.parameters(), self.layer.parameters(), strict=True):
        key.data.mul_(0.5).add_(value.data, alpha=0.5)
    return used(self, x)


def rebound(self, x):
    for key, value in zip(self.key.parameters(), self.layer.parameters(), strict=True):
        key.data = key.data * 0.5 + value.data * 0.5
    return used(self, x)


def at_once(self, x):
    with torch.no_grad():
        torch._foreach_lerp_(list(self.key.parameters()), list(self.layer.parameters()), 0.5)
    return used(self, x)


def by_entry(self, x):
    with torch.no_grad():
        self.key.weight[0] = self.layer.weight[1]
        torch.add(self.key.bias, self.layer.bias, out=self.key.bias)
    return used(self, x)


def reloaded(self, x):
    self.key.load_state_dict({name: 2 * value for name, value in self.layer.state_dict().items()})
    return used(self, x)


ENCODERS = {
    "lerp": (encoder, lerp), "data": (encoder, data), "rebound": (encoder, rebound), "foreach": (encoder, at_once),
    "entries": (encoder, by_entry), "load_state_dict": (encoder, reloaded),
    "requires a gradient": (unfrozen, lerp),
}  # fmt: skip
ALL = {**STATES, **ENCODERS}


def net(kind):
    return Stateful(*ALL[kind])


def own(model):
    return [*model.layer.parameters(), *model.norm.parameters()]


def climbed(model, gradient, rho):
    """A copy of the whole model at the worst point."""
    twin = copy.deepcopy(model)
    size = torch.stack([g.square().sum() for g in gradient]).sum().sqrt()
    with torch.no_grad():
        for p, g in zip(own(twin), gradient, strict=True):
            p.add_(g, alpha=float(rho / size))
    return twin


def plain_steps(model, ascent=CROSS_ENTROPY, rho=0.05, lr=0.1):
    for k in range(STEPS):
        x, y = samples(k)
        gradient = torch.autograd.grad(ascent(model(x), y), own(model))
        twin = climbed(model, gradient, rho)
        slope = torch.autograd.grad(CROSS_ENTROPY(twin(x), y), own(twin))
        with torch.no_grad():
            for p, g in zip(own(model), slope, strict=True):
                p.sub_(g, alpha=lr)


def base(model, lr=0.1):
    return torch.optim.SGD(own(model), lr=lr)


def by_step(model, recipe=SAM):
    opt = SharpnessAware(base(model), recipe)
    for k in range(STEPS):
        opt.step(Batch(model, *samples(k)))


def by_backward(model, recipe=SAM):
    opt = SharpnessAware(base(model), recipe)
    for k in range(STEPS):
        opt.zero_grad()
        opt.backward(Batch(model, *samples(k)))
        opt.step()


def by_closure(model):
    opt = SharpnessAware(base(model), SAM)
    for k in range(STEPS):
        x, y = samples(k)

        def closure(x=x, y=y):
            opt.zero_grad()
            loss = CROSS_ENTROPY(model(x), y)
            loss.backward()
            return loss

        opt.step(closure)


def by_functions(model):
    opt = SharpnessAware(base(model), SAM)
    for k in range(STEPS):
        x, y = samples(k)
        opt.step(descent=lambda x=x, y=y: CROSS_ENTROPY(model(x), y))


def by_block_with_ascent(model):
    opt = SharpnessAware(base(model), SAM)
    for k in range(STEPS):
        x, y = samples(k)
        opt.zero_grad()
        with opt.perturbed(model, ascent=lambda x=x, y=y: CROSS_ENTROPY(model(x), y)):
            CROSS_ENTROPY(model(x), y).backward()
        opt.step()


def by_block(model, steps=STEPS):
    opt = SharpnessAware(base(model), SAM)
    for k in range(steps):
        x, y = samples(k)
        opt.zero_grad()
        CROSS_ENTROPY(model(x), y).backward()
        with opt.perturbed(model):
            CROSS_ENTROPY(model(x), y).backward()
        opt.step()
    return opt


def same(one, other):
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")
    x, _ = samples(99)
    torch.testing.assert_close(one(x), other(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("style", [by_step, by_backward, by_block, by_block_with_ascent, by_closure, by_functions])
@pytest.mark.parametrize("kind", ALL)
def test_state_moves_once_a_step_and_from_w(kind, style):
    model, plain = net(kind), net(kind)
    style(model)
    plain_steps(plain)
    same(model, plain)
    assert model.norm.num_batches_tracked == STEPS + 1


@pytest.mark.parametrize("kind", ALL)
def test_another_ascent_moves_it_once_too(kind):
    model, plain = net(kind), net(kind)
    by_step(model, BISAM_LOG)
    plain_steps(plain, BISAM_LOG.ascent, BISAM_LOG.radius.rho)
    same(model, plain)


class Counting(nn.Module):
    """Counts the passes that move its state, as a number, a buffer, a frozen parameter and a list outside of it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3, dtype=torch.float64)
        self.passes, self.outside = 0, [0]
        self.register_buffer("buffer", torch.zeros(()))
        self.key = nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, x):
        self.passes += 1
        self.buffer += 1
        self.key.data += 1
        self.outside[0] += 1
        return self.layer(x)

    @property
    def counts(self):
        return self.passes, int(self.buffer), int(self.key), self.outside[0]


@pytest.mark.parametrize(
    "recipe, passes",
    [(SAM, 1), (RSAM, 1), (bisam.recipe("esam"), 1), (LE_SAM, 1), (SAM.replace(micro_batch=4), 3), (SAM.with_rho(0), 1)],
    ids=lambda value: getattr(value, "name", value),
)
def test_passes_that_rank_start_elsewhere_or_go_by_parts_leave_no_trace_either(recipe, passes):
    model = Counting()
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), recipe)
    for k in range(3):
        opt.step(Batch(model, *samples(k)))
        assert model.counts == ((k + 1) * passes,) * 4


@pytest.mark.parametrize("name", ["rsam", "lets-sam", "esam", "e-bisam-log", "ksam", "msam"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_moves_once_a_step_whatever_passes_the_recipe_makes(kind, name):
    """It ends where one of the passes from its place at the beginning has put it."""
    recipe = bisam.recipe(name)
    if recipe.micro_batch is not None:
        recipe = recipe.replace(micro_batch=6)
    model, moves = net(kind), []
    move = model.move

    def noted(self, x):
        before = self.key.weight.clone()
        out = move(self, x)
        moves.append((before, self.key.weight.clone()))
        return out

    model.move = noted
    opt = SharpnessAware(base(model), recipe, seed=0)
    more = {"validation": Batch(model, *samples(9))} if recipe.radius.learns else {}
    for k in range(STEPS):
        moves.clear()
        begin = model.key.weight.clone()
        opt.step(Batch(model, *samples(k)), **more)
        ends = [after for _, after in moves]
        assert any(torch.equal(model.key.weight, end) for end in ends) and not torch.equal(model.key.weight, begin)
        if recipe.micro_batch is None:
            assert any(torch.equal(before, begin) and torch.equal(after, model.key.weight) for before, after in moves)


def test_measures_leave_an_encoder_where_it_is():
    model = net("lerp")
    before = [p.clone() for p in model.key.parameters()]
    for _ in range(3):
        bisam.measure.m_sharpness(model, bisam.CrossEntropy(), *samples(0), rho=0.05, m=6, batch_norm="batch")
    assert all(torch.equal(a, b) for a, b in zip(before, model.key.parameters(), strict=True))


def test_frozen_parameters_that_stay_take_no_memory(monkeypatch):
    copied = []
    first = held_module.Snapshot.__init__
    monkeypatch.setattr(held_module.Snapshot, "__init__", lambda self, tensors: copied.extend(tensors) or first(self, tensors))
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3)).double()
    model[0].requires_grad_(False)
    opt = SharpnessAware(torch.optim.SGD(model[1].parameters(), lr=0.1), SAM)
    for k in range(3):
        opt.step(Batch(model, *samples(k)))
    assert copied == []
    with torch.no_grad():
        model[0].bias.add_(1)  # as if a checkpoint were loaded
    opt.step(Batch(model, *samples(3)))
    assert len(copied) == 1 and copied[0] is model[0].bias
    opt.step(Batch(model, *samples(4)))
    assert len(copied) == 1


def test_a_parameter_that_moves_in_the_other_pass_alone_is_named_and_the_weights_are_back():
    model, (x, y) = net("lerp"), samples(1)
    opt = by_block(model, steps=2)
    model.move = used
    opt.step(Batch(model, *samples(2)))
    weights = [p.clone() for p in own(model)]
    CROSS_ENTROPY(model(x), y).backward()
    with pytest.raises(RuntimeError, match=r"weight of shape \(3, 6\) .* move it after opt\.step\(\)"), opt.perturbed(model):
        CROSS_ENTROPY(model(x), y).backward()
        with torch.no_grad():
            model.key.weight.add_(1)
    assert all(torch.equal(a, b) for a, b in zip(weights, own(model), strict=True))


def test_a_compiled_encoder_is_traced_once():
    model, plain = net("lerp"), net("lerp")
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager")
    opt = SharpnessAware(base(model), SAM)
    for k in range(STEPS):
        with torch.compiler.set_stance("default" if k < 1 else "fail_on_recompile"):
            opt.step(Batch(compiled, *samples(k)))
    plain_steps(plain)
    same(model, plain)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize("frozen", [False, True])
def test_a_scripted_model_counts_once(frozen):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    model[0].requires_grad_(not frozen)
    twin = copy.deepcopy(model)
    scripted = torch.jit.script(model)
    for each in (scripted, twin):
        opt = SharpnessAware(torch.optim.SGD(each.parameters(), lr=0.1), SAM)
        for k in range(STEPS):
            opt.step(Batch(each, *samples(k)))
    for a, b in zip(scripted.state_dict().values(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert scripted.state_dict()["1.num_batches_tracked"] == STEPS


@pytest.mark.parametrize("way", ["a wrapper", "in place"])
def test_a_block_around_a_compiled_model_compiles_nothing_again_and_warns_of_nothing(way):
    torch.compiler.reset()
    model, plain = net("in place"), net("in place")
    compiled = torch.compile(model, backend="aot_eager") if way == "a wrapper" else model
    if way == "in place":
        model.compile(backend="aot_eager")
    opt = SharpnessAware(base(model), SAM)
    for k in range(STEPS):
        x, y = samples(k)
        opt.zero_grad()
        with torch.compiler.set_stance("default" if k < 1 else "fail_on_recompile"):
            CROSS_ENTROPY(compiled(x), y).backward()
            with opt.perturbed(compiled):
                CROSS_ENTROPY(compiled(x), y).backward()
        opt.step()
    plain_steps(plain)
    model._compiled_call_impl = None
    same(model, plain)


def test_views_of_a_flat_encoder_come_back_with_it():
    model = nn.Sequential(nn.Linear(3, 2)).requires_grad_(False)
    flat = nn.utils.parameters_to_vector(model.parameters())
    nn.utils.vector_to_parameters(flat, model.parameters())
    before = flat.clone()
    for _ in range(2):
        with held_buffers(model):
            flat.mul_(2)
        assert torch.equal(flat, before) and torch.equal(model[0].bias, before[-2:])
        flat.add_(0)


class Student(nn.Module):
    """A layer that learns from a teacher which is to be no part of it."""

    def __init__(self, hide):
        super().__init__()
        self.layer = nn.Linear(6, 3, dtype=torch.float64)
        hide(self, nn.Sequential(nn.BatchNorm1d(6), Counting()).double())

    def forward(self, x):
        return self.layer(x) + self.teacher_of(self)(x)


HIDDEN = {
    "a list": (lambda self, net: setattr(self, "nets", [net]), lambda self: self.nets[0]),
    "a tuple": (lambda self, net: setattr(self, "nets", (None, net)), lambda self: self.nets[1]),
    "a dictionary": (lambda self, net: setattr(self, "nets", {"teacher": net}), lambda self: self.nets["teacher"]),
    "an attribute that torch does not see": (lambda self, net: object.__setattr__(self, "net", net), lambda self: self.net),
}


@pytest.mark.parametrize("hide, found", HIDDEN.values(), ids=HIDDEN)
def test_a_module_that_is_hidden_in_an_attribute_is_held(hide, found):
    model = Student(hide)
    model.teacher_of = found
    opt = SharpnessAware(torch.optim.SGD(model.layer.parameters(), lr=0.1), SAM)
    for k in range(3):
        opt.step(Batch(model, *samples(k)))
    norm, counting = found(model)
    assert norm.num_batches_tracked == 3 and counting.counts == (3,) * 4


# -- outside the model --------------------------------------------------------------------------------------------------------


class Queue:
    """A queue that no module knows."""

    def __init__(self):
        self.kept, self.held = [], 0

    @contextmanager
    def hold(self):
        before, self.held = list(self.kept), self.held + 1
        try:
            yield
        finally:
            self.kept = before


class Fed(nn.Module):
    def __init__(self, queue):
        super().__init__()
        self.layer, self.queue = nn.Linear(6, 3, dtype=torch.float64), queue

    def forward(self, x):
        out = self.layer(x)
        self.queue.kept.append(out.detach().mean().item())
        return out


def one_block(opt, model, batch):
    CROSS_ENTROPY(model(batch.inputs), batch.targets).backward()
    with opt.perturbed(model):
        CROSS_ENTROPY(model(batch.inputs), batch.targets).backward()
    opt.step()


@pytest.mark.parametrize("recipe, held", [(SAM, 1), (RSAM, 2), (bisam.recipe("esam"), 1), (bisam.recipe("lets-sam"), 2)], ids=lambda value: getattr(value, "name", value))
def test_what_the_user_holds_is_held_around_every_pass_but_the_first(recipe, held):
    queue = Queue()
    model = Fed(queue)
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), recipe, hold=queue.hold)
    more = {"validation": Batch(model, *samples(9))} if recipe.radius.learns else {}
    for k in range(3):
        opt.step(Batch(model, *samples(k)), **more)
    assert len(queue.kept) == 3 and queue.held == 3 * held


def test_the_block_holds_it_as_well():
    queue = Queue()
    model = Fed(queue)
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), SAM, hold=queue.hold)
    one_block(opt, model, Batch(model, *samples(0)))
    assert len(queue.kept) == 1 and queue.held == 1


def test_what_holds_is_copied_with_the_optimiser_and_has_to_be_callable():
    model = nn.Linear(6, 3)
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), SAM, hold=nullcontext)
    assert copy.deepcopy(opt).hold is nullcontext and pickle.loads(pickle.dumps(opt)).hold is nullcontext
    with pytest.raises(TypeError, match=r"hold must be a function that returns a context manager, got 3"):
        SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), SAM, hold=3)


def test_the_buffers_of_another_module_that_runs_in_a_block_are_held():
    inside, outside = nn.Linear(6, 4).double(), nn.Sequential(nn.BatchNorm1d(4, affine=False), nn.Linear(4, 3)).double().requires_grad_(False)
    opt = SharpnessAware(torch.optim.SGD(inside.parameters(), lr=0.1), SAM)
    for k in range(3):
        x, y = samples(k)
        opt.zero_grad()
        CROSS_ENTROPY(outside(inside(x)), y).backward()
        with opt.perturbed(inside):
            CROSS_ENTROPY(outside(inside(x)), y).backward()
        opt.step()
    assert outside[0].num_batches_tracked == 3
    assert not nn.modules.module._global_forward_pre_hooks


def test_noise_and_state_are_both_those_of_the_first_pass():
    model = nn.Sequential(net("in place"), nn.Dropout(0.5))
    opt = SharpnessAware(base(model[0]), SAM)
    noise, (x, y) = RNGState(), samples(0)
    CROSS_ENTROPY(model(x), y).backward()
    state = model[0].h.clone()
    with opt.perturbed(model, noise):
        CROSS_ENTROPY(model(x), y).backward()
    assert torch.equal(model[0].h, state)


# -- a second module ------------------------------------------------------------------------------------------------------------


class Decoded(nn.Module):
    """A model whose last layers are no part of it."""

    def __init__(self, decoder):
        super().__init__()
        self.encoder, self.decode = nn.Linear(6, 4).double(), lambda h: decoder(h)

    def forward(self, x):
        return self.decode(self.encoder(x))


SENTENCE = r"model must hold all parameters of the base that lead to the loss, and parameter 2 of group 0 is not .* torch\.nn\.ModuleList\(\[encoder, decoder\]\)"


def decoder():
    return nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)).double()


@pytest.mark.parametrize("name", ["sam", "bisam-log", "asam", "sam-on", "esam", "gsam", "rsam", "looksam"])
def test_parameters_of_a_module_outside_the_model_are_refused_before_anything_moves(name):
    outside = decoder()
    model = Decoded(outside)
    if name == "sam-on":
        model.norm = nn.BatchNorm1d(3).double()
    parameters = [*model.encoder.parameters(), *outside.parameters(), *(model.norm.parameters() if name == "sam-on" else [])]
    opt = SharpnessAware(torch.optim.SGD(parameters, lr=0.1), bisam.recipe(name))
    before = [p.clone() for p in parameters]
    with pytest.raises(ValueError, match=SENTENCE):
        opt.step(Batch(model, *samples(0)))
    assert all(torch.equal(a, b) for a, b in zip(before, parameters, strict=True)) and opt.memory.step == 0


def in_a_block(opt, model, loss):
    loss().backward()
    with opt.perturbed(model):
        pytest.fail("the block must not be entered")


def in_a_block_with_ascent(opt, model, loss):
    with opt.perturbed(model, ascent=loss):
        pytest.fail("the block must not be entered")


def in_functions(opt, model, loss):
    opt.step(descent=loss, model=model)


def in_a_closure(opt, model, loss):
    def closure():
        opt.zero_grad()
        value = loss()
        value.backward()
        return value

    opt.step(closure, model=model)


@pytest.mark.parametrize("style", [in_a_block, in_a_block_with_ascent, in_functions, in_a_closure])
def test_they_are_refused_where_the_loss_is_ones_own(style):
    encoder, outside = nn.Linear(6, 4).double(), decoder()
    parameters, (x, y) = [*encoder.parameters(), *outside.parameters()], samples(0)
    opt = SharpnessAware(torch.optim.SGD(parameters, lr=0.1), SAM)
    before = [p.clone() for p in parameters]
    with pytest.raises(ValueError, match=SENTENCE):
        style(opt, encoder, lambda: CROSS_ENTROPY(outside(encoder(x)), y))
    assert all(torch.equal(a, b) for a, b in zip(before, parameters, strict=True)) and opt.memory.step == 0
    assert outside[0].num_batches_tracked == 1


def test_parameters_outside_that_take_no_part_are_none_of_its_business():
    model, other = net("recurrent"), decoder()
    opt = SharpnessAware(torch.optim.SGD([*own(model), *other.parameters()], lr=0.1), SAM)
    opt.step(Batch(model, *samples(0)))


def test_one_module_that_holds_all_makes_the_steps_of_one_network():
    encoder, outside, temperature = nn.Linear(6, 4).double(), decoder(), nn.Parameter(torch.ones((), dtype=torch.float64))
    every = nn.ModuleList([encoder, outside, nn.ParameterList([temperature])])
    whole = copy.deepcopy(every)
    opt = SharpnessAware(torch.optim.SGD(every.parameters(), lr=0.1), SAM)
    for k in range(STEPS):
        x, y = samples(k)
        opt.zero_grad()
        CROSS_ENTROPY(outside(encoder(x)) * temperature, y).backward()
        with opt.perturbed(every):
            CROSS_ENTROPY(outside(encoder(x)) * temperature, y).backward()
        opt.step()
    plain = torch.optim.SGD(whole.parameters(), lr=0.1)
    for k in range(STEPS):
        x, y = samples(k)
        gradient = torch.autograd.grad(CROSS_ENTROPY(whole[1](whole[0](x)) * whole[2][0], y), list(whole.parameters()))
        twin = copy.deepcopy(whole)
        size = torch.stack([g.square().sum() for g in gradient]).sum().sqrt()
        with torch.no_grad():
            for p, g in zip(twin.parameters(), gradient, strict=True):
                p.add_(g, alpha=float(0.05 / size))
        slope = torch.autograd.grad(CROSS_ENTROPY(twin[1](twin[0](x)) * twin[2][0], y), list(twin.parameters()))
        for p, g in zip(whole.parameters(), slope, strict=True):
            p.grad = g
        plain.step()
    for a, b in zip(every.state_dict().values(), whole.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
