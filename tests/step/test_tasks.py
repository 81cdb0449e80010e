"""Every recipe on every kind of target: the weights are those of a step whose losses are written out for that target."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import bisam
from bisam import Batch
from bisam.losses import Loss

N, K = 8, 4


def net(outputs=K):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Tanh(), nn.Dropout(0.2), nn.Linear(7, outputs)).double()


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(seed, *shape, missing=None):
    y = torch.randint(K, shape, generator=torch.Generator().manual_seed(seed))
    if missing is not None:
        y.view(-1)[::3] = missing
    return y


def q(f, t, surrogate):
    """Q of rows f for distributions t, by its formula, with a graph."""
    margin = f.unsqueeze(1) - f.unsqueeze(2)
    phi = surrogate.phi
    values = 1 - functional.softplus(phi.gamma - margin) if isinstance(phi, bisam.NegLog) else torch.tanh(phi.alpha * margin)
    return (t * (torch.logsumexp(surrogate.mu * values, 2) - torch.log(torch.tensor(float(f.shape[1])))) / surrogate.mu).sum(1)


def rows_of(f, y):
    """Q of class numbers, with what is below 0 left out."""
    f, y = f.reshape(-1, f.shape[-1]), y.reshape(-1)
    return f[y >= 0], functional.one_hot(y[y >= 0], f.shape[-1]).double()


MIXED = drawn(1, N, K).softmax(1)
PIXELS, TOKENS = classes(2, N, 3, 2, missing=-100), classes(3, N, 6, missing=-100)
LABELS, SOFT_LABELS = (drawn(4, N, 3) > 0).double(), drawn(5, N, 3).sigmoid()
WEIGHT, COUNTS, Y = torch.tensor([0.2, 1.0, 3.0, 0.5], dtype=torch.float64), drawn(6, N).abs(), classes(7, N)
ROW = torch.arange(N)


def binary_q(z, y, surrogate):
    z, y = z.reshape(-1), y.reshape(-1)
    return q(torch.stack([0 * z, z], 1), torch.stack([1 - y, y], 1), surrogate)


def weighted(values, weights):
    return (values * weights).sum() / weights.sum()


# The shape of an input, what a batch is told, cross-entropy as torch has it, and Q by the formula; both of the logits of the model.
KINDS = {
    "mixup": ((N, 5), {"targets": MIXED}, lambda f: functional.cross_entropy(f, MIXED), lambda f, s: q(f, MIXED, s).mean()),
    "pixels": (
        (N, 3, 2, 5), {"targets": PIXELS, "task": bisam.Multiclass(ignore_index=-100), "forward": lambda m, x: m(x).movedim(-1, 1)},
        lambda f: functional.cross_entropy(f.movedim(-1, 1), PIXELS), lambda f, s: q(*rows_of(f, PIXELS), s).mean(),
    ),
    "tokens": (
        (N, 6, 5), {"targets": TOKENS, "task": bisam.Multiclass(axis=-1, ignore_index=-100)},
        lambda f: functional.cross_entropy(f.flatten(0, 1), TOKENS.flatten()), lambda f, s: q(*rows_of(f, TOKENS), s).mean(),
    ),
    "one logit": (
        (N, 5), {"targets": LABELS[:, 0], "task": bisam.Binary(), "forward": lambda m, x: m(x)[:, :1]},
        lambda f: functional.binary_cross_entropy_with_logits(f[:, 0], LABELS[:, 0]), lambda f, s: binary_q(f[:, 0], LABELS[:, 0], s).mean(),
    ),
    "labels": (
        (N, 5), {"targets": SOFT_LABELS, "task": bisam.Binary(), "forward": lambda m, x: {"logits": m(x)[:, :3]}},
        lambda f: functional.binary_cross_entropy_with_logits(f[:, :3], SOFT_LABELS), lambda f, s: binary_q(f[:, :3], SOFT_LABELS, s).mean(),
    ),
    "class weights": (
        (N, 5), {"targets": Y, "task": bisam.Multiclass(weight=WEIGHT)},
        lambda f: functional.cross_entropy(f, Y, WEIGHT), lambda f, s: weighted(q(f, functional.one_hot(Y, K).double(), s), WEIGHT[Y]),
    ),
    "sample weights": (
        (N, 5), {"targets": Y, "weights": COUNTS},
        lambda f: weighted(functional.cross_entropy(f, Y, reduction="none"), COUNTS), lambda f, s: weighted(q(f, functional.one_hot(Y, K).double(), s), COUNTS),
    ),
    "an extra term": (
        (N, 5), {"targets": Y, "extra": lambda outputs, batch: outputs.square().mean() + sum(p.norm() for p in batch.model.parameters())}, None, None,
    ),
}  # fmt: skip


class Written(Loss):
    """A loss of the whole batch, written out: every sample is given the mean."""

    def __init__(self, of_logits, shape):
        self.of_logits, self.shape = of_logits, shape

    def values(self, logits, targets):
        return self.of_logits(logits[:, :-1].reshape(*self.shape, K)).expand(len(logits))


def trained(recipe, batch_of, steps=3):
    model, ends = net(), []
    base = bisam.Variational(model.parameters(), lr=0.1, samples=100) if recipe.name == "bsam" else torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    opt = bisam.SharpnessAware(base, recipe, seed=1)
    torch.manual_seed(3)
    for k in range(steps):
        loss = opt.step(batch_of(model, k), validation=batch_of(model, 9) if recipe.radius.learns else None)
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()] + [loss.reshape(1)]))
    return torch.stack(ends)


WHOLE = [r for r in bisam.RECIPES.values() if r.selection is None and r.micro_batch is None]
WHOLE += [bisam.recipe("gsam-bisam-log"), bisam.recipe("looksam-bisam-tanh")]


@pytest.mark.parametrize("kind", [name for name, made in KINDS.items() if made[2]])
@pytest.mark.parametrize("recipe", WHOLE, ids=[r.name for r in WHOLE])
def test_every_recipe_makes_the_step_of_the_losses_as_they_are_written(recipe, kind):
    shape, told, ce, written_q = KINDS[kind]
    flat = {"targets": torch.zeros(N, dtype=torch.int64), "forward": lambda m, x: functional.pad(m(x).reshape(N, -1), (0, 1))}
    by_hand = recipe.replace(
        descent=Written(ce, shape[:-1]),
        ascent=None if recipe.ascent is None else Written(lambda f: written_q(f, recipe.ascent), shape[:-1]),
    )
    found = trained(recipe, lambda m, k: Batch(m, drawn(k + 20, *shape), **told))
    expected = trained(by_hand, lambda m, k: Batch(m, drawn(k + 20, *shape), **flat))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


# J-SAM takes of a loss its slope for the logits, and a loss that reads the weights has more than that: there only the extra term is exact.
READ_WEIGHTS = [r for r in WHOLE if r.factors == "both"]


@pytest.mark.parametrize("recipe", READ_WEIGHTS, ids=[r.name for r in READ_WEIGHTS])
def test_extra_terms_are_part_of_the_descent_loss_alone(recipe):
    """A penalty of the weights, given as an extra term and as a part of the loss."""
    held = {}

    class Penalised(Loss):
        def values(self, logits, targets):
            return functional.cross_entropy(logits, targets, reduction="none") + sum(p.norm() for p in held["model"].parameters())

    def batch_of(model, k, **more):
        held["model"] = model
        return Batch(model, drawn(k + 20, N, 5), Y, **more)

    found = trained(recipe, lambda m, k: batch_of(m, k, extra=lambda outputs, batch: sum(p.norm() for p in batch.model.parameters())))
    expected = trained(recipe.replace(descent=Penalised()), batch_of)
    if recipe.start is not None:  # the loss of ours reads the weights where they stand, which is not at w when the step takes note of it
        found, expected = found[:, :-1], expected[:, :-1]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def plain_step(model, x, loss_of, ascent_of, rho=0.05, lr=0.1, chosen=None):
    """SAM in plain torch; returns the samples that the step was made on."""
    parameters = list(model.parameters())
    state = torch.get_rng_state()
    places = ROW if chosen is None else chosen(model(x))
    torch.set_rng_state(state)
    if chosen is not None:
        x = x[places]
    gradient = torch.autograd.grad(ascent_of(model(x), places), parameters)
    size = torch.cat([g.flatten() for g in gradient]).norm()
    with torch.no_grad():
        before = [p.clone() for p in parameters]
        for p, g in zip(parameters, gradient, strict=True):
            p.add_(rho / size * g)
    torch.set_rng_state(state)
    gradient = torch.autograd.grad(loss_of(model(x), places), parameters)
    with torch.no_grad():
        for p, b, g in zip(parameters, before, gradient, strict=True):
            p.copy_(b - lr * g)
    return places


def test_a_selection_ranks_samples_by_the_losses_of_their_tokens():
    x, mask = drawn(11, N, 6, 5), TOKENS >= 0
    model = net()
    model[3].p = 0.0

    def each(f, places):
        return functional.cross_entropy(f.movedim(-1, 1), TOKENS[places], reduction="none").sum(1)

    def mean(f, places):
        return each(f, places).sum() / mask[places].sum()

    found, twin = copy.deepcopy(model), copy.deepcopy(model)
    opt = bisam.SharpnessAware(torch.optim.SGD(found.parameters(), lr=0.1), bisam.recipe("ksam"))
    batch = Batch(found, x, TOKENS, task=bisam.Multiclass(-1, -100))
    opt.step(batch)
    places = plain_step(twin, x, mean, mean, chosen=lambda f: each(f, ROW).topk(N // 2).indices.sort().values)
    assert torch.equal(batch.chosen.targets, TOKENS[places])
    for a, b in zip(found.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["msam", "m-bisam-log"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("an extra term",)])
def test_parts_with_a_climb_each_count_as_much_as_their_rows(name, kind):
    """The sum over the parts of their share times the gradient at their own worst point."""
    shape, told, _, _ = KINDS[kind]
    recipe, x = bisam.recipe(name).replace(micro_batch=3), drawn(12, *shape)
    model = net()
    model[3].p = 0.0
    whole = Batch(model, x, **told)
    opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), recipe)
    opt.backward(whole)
    found = [p.grad.clone() for p in model.parameters()]
    one = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), recipe.replace(micro_batch=None))
    expected, parts = 0.0, whole.split(3)
    assert [len(part) for part in parts] == [3, 3, 2]
    for part in parts:
        one.zero_grad()
        one.backward(part)
        share = part.mass / sum(p.mass for p in parts)
        expected = [share * p.grad + (0 if isinstance(expected, float) else e) for p, e in zip(model.parameters(), expected or [0] * 99, strict=False)]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("name", ["sam", "bisam-log", "gsam-bisam-log", "esam", "ksam-bisam-log", "sgd"])
def test_a_list_of_parts_is_the_batch_in_its_losses(kind, name):
    shape, told, _, _ = KINDS[kind]
    recipe, x, grads = bisam.recipe(name), drawn(13, *shape), []
    if recipe.selection is not None:
        recipe = recipe.replace(selection=None, geometry=bisam.L2())
    for cut in (N, 3):
        model = net()
        model[3].p = 0.0
        opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), recipe)
        loss = opt.backward(Batch(model, x, **told).split(cut))
        grads.append([loss, *(p.grad.clone() for p in model.parameters())])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_the_record_knows_every_kind():
    for shape, told, *_ in KINDS.values():
        model = net()
        opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), bisam.BISAM_LOG.with_rho(0.5), record=True)
        batch = Batch(model, drawn(14, *shape), **told)
        loss = opt.step(batch)
        assert opt.last.loss == pytest.approx(float(loss)) and 0 <= abs(opt.last.zero_one_rise) <= 1
        rise = batch.mean(recipe_loss := bisam.CrossEntropy(), batch.at_worst) - batch.mean(recipe_loss, batch.at_w)
        extra = batch.terms["at_worst"] - batch.terms["at_w"] if batch.terms else 0.0
        assert opt.last.loss_rise == pytest.approx(float(rise + extra), abs=1e-12)


# -- inputs and outputs of any structure ------------------------------------------------------------------------------------


class Two(nn.Module):
    """Takes two inputs, and returns what it is told."""

    def __init__(self, outputs):
        super().__init__()
        self.net, self.outputs = net(), outputs

    def forward(self, a, b, scale=1.0):
        return self.outputs(scale * self.net(a + b))


class Named(tuple):
    """A named tuple would do as well."""

    @property
    def logits(self):
        return self[1]


A, B = drawn(15, N, 5), drawn(16, N, 5)
STRUCTURES = {
    "a tuple": ((A, B), None, lambda f: f),
    "a list": ([A, B], None, lambda f: f),
    "a dictionary": ({"a": A, "b": B, "scale": 1.0}, None, lambda f: {"loss": None, "logits": f}),
    "with an attribute": ((A, B), None, lambda f: Named((None, f))),
    "through forward": ({"first": A, "second": [B]}, lambda m, i: m(i["first"], *i["second"])[1], lambda f: (None, f)),
}


@pytest.mark.parametrize("inputs, forward, outputs", STRUCTURES.values(), ids=STRUCTURES)
@pytest.mark.parametrize("name", ["sam", "bisam-log", "ksam", "esam", "msam", "rsam"])
def test_inputs_of_any_structure_make_the_same_step(inputs, forward, outputs, name):
    recipe, ends = bisam.recipe(name), []
    recipe = recipe.replace(micro_batch=3) if recipe.micro_batch else recipe
    for given in ((A + B,), (inputs, forward, outputs)):
        torch.manual_seed(0)
        model = net() if len(given) == 1 else Two(outputs)
        opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), recipe, seed=0)
        torch.manual_seed(1)
        opt.step(Batch(model, given[0], Y, forward=given[1] if len(given) > 1 else None))
        ends.append([p.detach() for p in model.parameters()])
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b)


WRONG = {
    "two tensors": (lambda f: (f, f), r"got tuple of 2; name them: forward=lambda model, inputs: model\(inputs\)\[0\]"),
    "a dictionary": (lambda f: {"out": f}, r"got dict with 'out'; name them: forward="),
}


@pytest.mark.parametrize("outputs, message", WRONG.values(), ids=WRONG)
def test_outputs_without_logits_are_not_guessed(outputs, message):
    with pytest.raises(ValueError, match=message):
        Batch(Two(outputs), (A, B), Y).logits()


def contrastive(model, x):
    """Which of the others of its batch a sample belongs to."""
    z = model(x)
    return z @ z.flip(0).T


@pytest.mark.parametrize("name", ["sam", "bisam-log", "gsam"])
def test_logits_that_depend_on_the_batch_are_fine_where_no_sample_is_taken_out(name):
    model = net()
    opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), bisam.recipe(name))
    assert torch.isfinite(opt.step(Batch(model, A, ROW, forward=contrastive)))


@pytest.mark.parametrize("name", ["ksam", "esam", "msam"])
def test_ranking_or_cutting_a_batch_on_which_the_logits_depend_is_refused(name):
    model, recipe = net(), bisam.recipe(name)
    recipe = recipe.replace(micro_batch=3) if recipe.micro_batch else recipe
    before = [p.detach().clone() for p in model.parameters()]
    opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), recipe)
    with pytest.raises(ValueError, match=r"depend on the whole batch|of a part of the batch"):
        opt.step(Batch(model, A, ROW, forward=contrastive))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_samples_cannot_be_taken_out_of_what_has_none():
    class Graph:
        nodes = A

    batch = Batch(net(), Graph(), Y, forward=lambda m, g: m(g.nodes))
    with pytest.raises(ValueError, match="inputs must hold tensors with one row for each of the 8 samples"):
        batch.subset(torch.tensor([0]))


def test_a_batch_of_which_no_target_counts_is_refused_before_any_work():
    model = net()
    opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="no target of the batch counts"):
        opt.step(Batch(model, A, torch.full((N,), -100), task=bisam.Multiclass(ignore_index=-100)))


def test_one_part_of_which_no_target_counts_adds_nothing():
    model, task = net(), bisam.Multiclass(ignore_index=-100)
    model[3].p = 0.0
    opt, grads = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), bisam.BISAM_LOG), []
    for parts in ([Batch(model, A, Y)], [Batch(model, A, Y, task=task), Batch(model, B, torch.full((N,), -100), task=task)]):
        opt.zero_grad()
        opt.backward(parts)
        grads.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_class_weights_of_the_loss_are_refused_with_the_way():
    with pytest.raises(TypeError, match=r"weight belongs to the task: Batch\(model, inputs, targets, task=bisam\.Multiclass\(weight=\.\.\.\)\)"):
        bisam.CrossEntropy(weight=WEIGHT)
    with pytest.raises(TypeError, match=r"ignore_index belongs to the task"):
        bisam.CrossEntropy(ignore_index=-100)


@pytest.mark.parametrize("y", [0, 1])
def test_one_logit_without_a_task_is_refused(y):
    model = nn.Linear(5, 1).double()
    opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), bisam.BISAM_LOG)
    with pytest.raises(ValueError, match=r"task=bisam\.Binary\(\)"):
        opt.step(Batch(model, A, torch.full((N,), y)))


def test_mixed_precision_rounds_last():
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), bisam.BISAM_LOG)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for told in ({"targets": MIXED[:, :3] / MIXED[:, :3].sum(1, keepdim=True)}, {"targets": LABELS, "task": bisam.Binary(pos_weight=2.0)}):
        before = model.weight.detach().clone()
        loss = opt.step(Batch(model, A.float(), autocast=torch.float16, **told), scaler=scaler)
        scaler.update()
        assert torch.isfinite(loss) and not torch.equal(before, model.weight)


# -- what strangers found ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_class_numbers_of_any_whole_type_have_their_weights(dtype):
    model, losses = nn.Linear(5, K).double(), []
    for y in (Y, Y.to(dtype)):
        opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), bisam.BISAM_LOG)
        opt.zero_grad()
        losses.append((opt.backward(Batch(model, A, y, task=bisam.Multiclass(weight=WEIGHT))), model.weight.grad.clone()))
    assert losses[0][0] == losses[1][0] and torch.equal(losses[0][1], losses[1][1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_can_count(dtype):
    pixels = torch.zeros(2, 256, 256, dtype=torch.int64)
    batch = Batch(nn.Conv2d(1, K, 1), torch.zeros(2, 1, 256, 256), pixels, weights=torch.ones(pixels.shape, dtype=dtype))
    assert batch.mass == pixels.numel()


@pytest.mark.parametrize("pos_weight", [3.0, (3.0, 0.5, 2.0)])
def test_smoothing_and_the_weight_of_yes_go_together(pos_weight):
    z, y = drawn(20, N, 3), (drawn(21, N, 3) > 0).double()
    expected = functional.binary_cross_entropy_with_logits(z, 0.8 * y + 0.1, pos_weight=torch.tensor(pos_weight, dtype=torch.float64))
    torch.testing.assert_close(bisam.Binary(pos_weight=pos_weight).mean(bisam.CrossEntropy(0.2), z, y), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("how", ["a list", "micro_batch"])
@pytest.mark.parametrize("told", [{"task": bisam.Multiclass(ignore_index=-100)}, {"weights": torch.tensor([1.0, 1, 1, 2, 9, 9, 9, 9])}])
def test_extra_terms_count_by_samples_where_losses_count_by_weights(how, told):
    y = torch.tensor([0, 1, 2, -100, -100, 3, -100, -100]) if "task" in told else Y
    model, ends = nn.Linear(5, K).double(), []
    whole = Batch(model, {"input": A}, y, extra=lambda outputs, batch: outputs.square().mean() * 3 + batch.inputs["input"].mean(), **told)
    for recipe, batch in ((bisam.SGD, whole), (bisam.SGD, whole.split(4)) if how == "a list" else (bisam.SAM.replace(micro_batch=4).with_rho(1e-12), whole)):
        opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), recipe)
        opt.zero_grad()
        ends.append([opt.backward(batch), model.weight.grad.clone()])
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_extra_terms_of_a_part_without_labels_are_not_lost_in_silence():
    model, task = nn.Linear(5, K).double(), bisam.Multiclass(ignore_index=-100)
    parts = [Batch(model, A, y, task=task, extra=lambda outputs, batch: outputs.square().mean()) for y in (Y, torch.full((N,), -100))]
    with pytest.raises(ValueError, match="its extra terms would be lost"):
        bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1)).backward(parts)


@pytest.mark.parametrize("style", ["batch", "functions", "block", "ascent", "closure"])
def test_parameters_of_another_optimiser_have_the_gradient_of_the_last_pass(style):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, K)).double()
    opt = bisam.SharpnessAware(torch.optim.SGD(model[0].parameters(), lr=0.1), bisam.SAM, record=True)
    held = []
    model[2].register_full_backward_hook(lambda module, gradient, _: held.append(gradient))

    def loss():
        return functional.cross_entropy(model(A), Y)

    def closure():
        model.zero_grad()
        found = loss()
        found.backward()
        return found

    if style == "batch":
        opt.step(Batch(model, A, Y))
    elif style == "functions":
        opt.step(descent=loss)
    elif style == "closure":
        opt.step(closure)
    else:
        if style == "block":
            loss().backward()
        with opt.perturbed(model, **({"ascent": loss} if style == "ascent" else {})):
            loss().backward()
        opt.step()
    twin = copy.deepcopy(model)  # one step of SAM by hand, with the weights of before
    with torch.no_grad():
        for p in twin[0].parameters():
            p.zero_()
    torch.manual_seed(0)
    twin = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, K)).double()
    slope = torch.autograd.grad(functional.cross_entropy(twin(A), Y), list(twin[0].parameters()))
    size = torch.cat([g.flatten() for g in slope]).norm()
    with torch.no_grad():
        for p, g in zip(twin[0].parameters(), slope, strict=True):
            p.add_(0.05 / size * g)
    functional.cross_entropy(twin(A), Y).backward()
    torch.testing.assert_close(model[2].weight.grad, twin[2].weight.grad)


def test_a_batch_keeps_what_another_optimiser_has_accumulated():
    model = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, K)).double()
    opt = bisam.SharpnessAware(torch.optim.SGD(model[0].parameters(), lr=0.1))
    model[1].bias.grad = torch.full((K,), 7.0, dtype=torch.float64)
    opt.backward(Batch(model, A, Y))
    assert (model[1].bias.grad - 7).abs().max() < 1


@pytest.mark.parametrize("place", ["forward", "extra"])
@pytest.mark.parametrize("recipe", [bisam.SAM, bisam.BISAM_LOG], ids=["sam", "bisam-log"])
def test_statistics_outside_of_the_model_move_once(place, recipe):
    model, norm = nn.Linear(5, K).double(), nn.BatchNorm1d(5, affine=False).double()
    told = {"forward": lambda m, x: m(norm(x))} if place == "forward" else {"extra": lambda outputs, batch: norm(batch.inputs).mean()}
    bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), recipe).step(Batch(model, A, Y, **told))
    assert norm.num_batches_tracked == 1


def test_a_second_block_before_the_step_is_refused():
    model = nn.Linear(5, K).double()
    opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1))

    def block(part):
        functional.cross_entropy(model(A[part]), Y[part]).backward()
        with opt.perturbed(model):
            functional.cross_entropy(model(A[part]), Y[part]).backward()

    block(slice(4))
    with pytest.raises(RuntimeError, match=r"a gradient waits already.*opt\.backward\(\[part, part\]\)"):
        block(slice(4, 8))
    opt.zero_grad()
    block(slice(4, 8))
    opt.step()


@pytest.mark.parametrize("axis", [1, -1])
def test_shares_of_tokens_have_weights_of_tokens(axis):
    shares = drawn(22, N, 6, K).softmax(-1)
    mask = (drawn(23, N, 6) > 0).double()
    f = drawn(24, N, 6, K)
    expected = ((-(shares * f.log_softmax(-1)).sum(-1)) * mask).sum() / mask.sum()
    given = (f, shares) if axis == -1 else (f.movedim(-1, 1), shares.movedim(-1, 1))
    torch.testing.assert_close(bisam.Multiclass(axis).mean(bisam.CrossEntropy(), *given, mask), expected)
    with pytest.raises(ValueError, match=r"weights must have shape \(8,\).*or \(8, 6\)"):
        Batch(nn.Linear(K, K), f, given[1], task=bisam.Multiclass(axis), weights=torch.ones(given[1].shape))


def test_a_label_that_is_left_out_elsewhere_is_an_error_also_where_nobody_looks(monkeypatch):
    monkeypatch.setattr("bisam._look.is_free", lambda tensor: False)
    model = nn.Linear(5, K).double()
    for name in ("sgd", "sam"):
        opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), bisam.recipe(name))
        with pytest.raises((IndexError, ValueError, RuntimeError)):
            opt.backward(Batch(model, A, Y.masked_fill(Y == 1, -100)))


ELSEWHERE = {
    "weight": ({"weight": WEIGHT}, r"weight belongs to the task: .*bisam\.Multiclass\(weight=\.\.\.\)"),
    "pos_weight": ({"pos_weight": 2.0}, r"pos_weight belongs to the task: .*bisam\.Binary"),
    "label_smoothing": ({"label_smoothing": 0.1}, r"label_smoothing belongs to the recipe"),
    "nonsense": ({"nonsense": 1}, "nonsense is no argument of a Batch"),
    "a loss": ({"autocast": nn.CrossEntropyLoss()}, "the losses are those of the recipe"),
}


@pytest.mark.parametrize("told, message", ELSEWHERE.values(), ids=ELSEWHERE)
def test_what_belongs_elsewhere_is_refused_with_the_place(told, message):
    with pytest.raises(TypeError, match=message):
        Batch(nn.Linear(5, K), A.float(), Y, **told)
    with pytest.raises(TypeError, match=r"recipe\.with_rho"):
        bisam.SAM.replace(rho=0.1)
