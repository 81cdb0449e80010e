"""Where the numbers of a step are taken: every loss and every logit that a step reports, against the network itself.

A hook writes down where the network is evaluated, on what, and with which random numbers. Then the losses and logits are computed
again, by a copy of the network at the weights that were written down.
"""

import copy
import types

import pytest
import reference
import torch
from torch.nn import functional

import bisam
from bisam import Batch, Learned, LookSAM, Phase, RandomStart, SharpnessAware, TopK
from bisam.step.record import Outcome
from bisam.training import evaluation

SAME = {  # passes where another row has them too, with the tensors of another ball or another ascent loss
    "sam-inf", "asam-all", "a-bisam-log", "a-bisam-tanh", "e-bisam-tanh", "e-bisam-log-printed", "e-bisam-tanh-printed", "lets-asam", "lets-bisam-tanh",
    "m-bisam-tanh",
}  # fmt: skip
ROWS = {
    **{name: row for name, row in bisam.RECIPES.items() if name not in SAME},
    **{name: bisam.recipe(name) for name in ("rsam-bisam-tanh", "bsam-bisam-log")},
    "late-sam": bisam.methods.LATE_SAM.replace(radius=Phase(0.05, start=2)),
    "late-sam-bisam-log": bisam.recipe("late-sam-bisam-log").replace(radius=Phase(0.05, start=1, every=2)),
    "looksam": bisam.LOOKSAM.replace(combination=LookSAM(every=2)),
    **{name: bisam.recipe(name).replace(micro_batch=8) for name in ("msam", "m-bisam-log")},
    "ksam in parts": bisam.methods.KSAM.replace(micro_batch=8),
    "rsam in parts": bisam.methods.RSAM.replace(micro_batch=8),
    "rsam, start not kept": bisam.methods.RSAM.replace(start=RandomStart(0.1, kept=False)),
    "rsam with a ranking": bisam.methods.RSAM.replace(selection=TopK(0.5)),
    "rsam on the most sensitive": bisam.methods.RSAM.replace(selection=bisam.MostSensitive(0.5)),
    "lets, exact": bisam.methods.LETS_SAM.replace(radius=Learned(0.05, 1.0, form="exact")),
}
N, STEPS = 16, 3


def wrapped(model, recipe):
    if isinstance(recipe.geometry, bisam.methods.Precision):
        base = bisam.Variational(model.parameters(), lr=0.05, samples=100)  # few: its draws lead far from w
    else:
        base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return SharpnessAware(base, recipe, seed=5, record=True)


class Recorder:
    """Notes weights and inputs of every pass until the base moves."""

    def __init__(self, model, opt):
        self.model, self.calls, self.is_on = model, [], True
        model.register_forward_pre_hook(self.note)
        opt.base.register_step_pre_hook(lambda *_: setattr(self, "is_on", False))

    def note(self, model, inputs):
        if self.is_on:
            weights = [p.detach().clone() for p in model.parameters()]
            self.calls.append(types.SimpleNamespace(weights=weights, x=inputs[0].clone()))

    def begin(self):
        self.calls, self.is_on = [], True
        self.before = [p.detach().clone() for p in self.model.parameters()]
        self.random = torch.get_rng_state()

    def logits(self, weights, x, random=None):
        """What the network says at these weights, with the masks that it draws from this random state."""
        twin = copy.deepcopy(self.model)
        twin._forward_pre_hooks.clear()
        with torch.random.fork_rng(), torch.no_grad():
            torch.set_rng_state(self.random if random is None else random)
            for p, value in zip(twin.parameters(), weights, strict=True):
                p.copy_(value)
            found = twin.train()(x)
            return found, torch.get_rng_state()


def loss(logits, y):
    return functional.cross_entropy(logits, y)


def wrong(logits, y):
    return (logits.argmax(1) != y).double().mean()


def close(found, wanted):
    torch.testing.assert_close(torch.as_tensor(found, dtype=torch.float64), torch.as_tensor(wanted, dtype=torch.float64), rtol=1e-11, atol=1e-13)


def part_sizes(recipe, climbs):
    return [recipe.micro_batch] * (N // recipe.micro_batch) if climbs and recipe.micro_batch else [N]


@pytest.mark.parametrize("name", ["sam", "bisam-log", "gsam", "gsam-bisam-log", "looksam-bisam-tanh", "asam", "lets-bisam-log by differences"])
def test_the_norm_of_the_ascent_gradient_is_of_that_alone(name):
    recipe = bisam.recipe(name.removesuffix(" by differences"))
    if name.endswith("differences"):
        recipe = recipe.replace(radius=Learned(0.05, 1.0, form="difference"))
    torch.manual_seed(4)
    model = reference.net("plain")
    batch = Batch(model, *reference.samples(0, N))
    recipe.raised(model(batch.inputs), batch.targets).backward()
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    wanted = recipe.geometry.dual_norm({n: p.grad.clone() for n, p in model.named_parameters()}, weights)
    opt = wrapped(model, recipe)
    opt.step(batch, **({"validation": batch} if isinstance(recipe.radius, Learned) else {}))
    close(opt.last.ascent_norm, wanted)


def test_a_gradient_beside_the_climb_is_looked_at_also_where_nothing_climbs():
    some, bad = torch.tensor(2.0), torch.tensor(torch.nan)
    for dual_norm, beside, is_finite in ((some, None, True), (some, bad, False), (bad, some, False), (None, some, True), (None, bad, False)):
        assert bool(Outcome(dual_norm=dual_norm, beside=beside).first_norm.isfinite()) == is_finite
    assert Outcome().first_norm is None


def test_the_cosine_is_with_the_ascent_gradient_of_the_whole_batch_also_of_uneven_parts():
    torch.manual_seed(4)
    model = reference.net("plain")
    batch = Batch(model, *reference.samples(0, N))
    g = torch.cat([g.flatten() for g in torch.autograd.grad(loss(model(batch.inputs), batch.targets), model.parameters())])
    opt = wrapped(model, bisam.recipe("msam").replace(micro_batch=11))
    opt.backward(batch)
    p = torch.cat([p.grad.flatten() for p in model.parameters()])
    close(opt.last.cosine, torch.nn.functional.cosine_similarity(g, p, dim=0))


@pytest.mark.parametrize("name, kind", [*((name, "norm and dropout") for name in ROWS), ("bisam-log", "norm")])
def test_every_reported_number_is_where_it_says(name, kind):
    recipe = ROWS[name]
    torch.manual_seed(4)
    model = reference.net(kind)
    opt = wrapped(model, recipe)
    recorder = Recorder(model, opt)
    for k in range(STEPS):
        x, y = reference.samples(k, N)
        batch = Batch(model, x, y)
        more = {"validation": Batch(model, *reference.samples(100 + k, N))} if isinstance(recipe.radius, Learned) else {}
        recorder.begin()
        returned = opt.step(batch, **more)
        climbs = opt.last.length is not None
        at_w, seen = [], []
        random = recorder.random
        for share_x in x.split(part_sizes(recipe, climbs)):
            start = random
            here, random = recorder.logits(recorder.before, share_x, start)
            at_w.append(here)
            mine = [call for call in recorder.calls if any((call.x[0] == row).all() for row in share_x)]
            places = [int((share_x == row).all(1).nonzero()) for row in mine[-1].x]  # those of the last pass
            if not isinstance(recipe.selection, TopK):
                places = list(range(len(share_x)))
            both = share_x[places], recorder.logits(recorder.before, share_x[places], start)[0]
            there, _ = recorder.logits(mine[-1].weights, both[0], start)
            assert climbs == any(not torch.equal(a, b) for a, b in zip(mine[-1].weights, recorder.before, strict=True)) or name == "sgd"
            seen.append((len(share_x) / N, both[1], there, [len(torch.cat(at_w)) - len(share_x) + place for place in places]))
        close(batch.at_w, torch.cat(at_w))
        wanted = sum(len(part) / N * loss(part, targets) for part, targets in zip(at_w, y.split([len(p) for p in at_w]), strict=True))
        close(returned, wanted)
        close(opt.last.loss, wanted)
        if not climbs:
            assert batch.at_worst is None and opt.last.loss_rise is None and evaluation.broken(batch) == 0
            continue
        for field, measure in (("loss_rise", loss), ("zero_one_rise", wrong)):
            rise = sum(share * (measure(there, y[at]) - measure(here, y[at])) for share, here, there, at in seen)
            close(getattr(opt.last, field), rise)
        at_worst = torch.cat([there for _, _, there, _ in seen])
        rows = torch.tensor([place for _, _, _, at in seen for place in at])
        if isinstance(recipe.selection, TopK):
            assert batch.at_worst is None
            close(batch.chosen.at_worst, at_worst)
            assert torch.equal(batch.chosen.inputs, x[rows]) and torch.equal(batch.chosen.targets, y[rows])
        else:
            close(batch.at_worst, at_worst)
            assert batch.chosen is None
        here = torch.cat([here for _, here, _, _ in seen])
        broken = (here.argmax(1) == y[rows]) & (at_worst.argmax(1) != y[rows])
        assert int(evaluation.broken(batch)) == int(broken.sum())


@pytest.mark.parametrize("name", ["rsam", "rsam-bisam-tanh", "bsam", "bsam-bisam-log", "rsam in parts"])
def test_the_look_at_w_leaves_no_trace_and_draws_the_numbers_of_the_first_pass(name):
    recipe = ROWS[name].replace(same_noise=False)  # the second pass draws on: two passes of numbers a step, not three
    model, plain = reference.net("norm and dropout"), reference.net("norm and dropout")
    opt = wrapped(model, recipe)
    parts = part_sizes(recipe, True)
    torch.manual_seed(0)
    x, y = reference.samples(0, N)
    opt.step(Batch(model, x, y))
    after = torch.get_rng_state()
    assert model[1].num_batches_tracked == 1
    torch.manual_seed(0)
    for part in x.split(parts):
        plain(part), plain(part)
    assert torch.equal(after, torch.get_rng_state())


@pytest.mark.parametrize("name", ["sam", "rsam", "bsam", "esam"])
def test_a_list_of_batches_reports_like_its_parts(name):
    model = reference.net("norm and dropout")
    opt = wrapped(model, ROWS[name])
    recorder = Recorder(model, opt)
    x, y = reference.samples(0, N)
    pieces = [Batch(model, x[:6], y[:6]), Batch(model, x[6:], y[6:])]
    recorder.begin()
    returned = opt.step(pieces)
    random, total = recorder.random, 0.0
    for piece in pieces:
        wanted, random = recorder.logits(recorder.before, piece.inputs, random)
        close(piece.at_w, wanted)
        total += len(piece) / N * loss(wanted, piece.targets)
    close(returned, total)
    rise = sum(len(p) / N * (loss(p.at_worst, p.targets) - loss(p.at_w, p.targets)) for p in pieces)
    close(opt.last.loss_rise, rise)


@pytest.mark.parametrize("name", ["looksam", "sam", "ksam"])
def test_a_batch_that_is_used_again_keeps_nothing_of_the_step_before(name):
    model = reference.net("norm")
    opt = wrapped(model, ROWS[name])
    batch = Batch(model, *reference.samples(0, N))
    opt.step(batch)
    assert batch.at_worst is not None or batch.chosen is not None
    opt.recipe = bisam.SGD
    opt.step(batch)
    assert batch.at_worst is None and batch.chosen is None
