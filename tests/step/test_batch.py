"""Batches that are what they say, and passes that leave no trace in buffers or random numbers."""

import pytest
import reference
import torch
from torch import nn

import bisam
from bisam import Batch
from bisam.step import RNGState, held_buffers

NORMS = ("norm", "cumulative norm")


@pytest.mark.parametrize("kind", NORMS)
def test_held_buffers_are_bitwise_as_before(kind):
    model, (x, _) = reference.net(kind), reference.samples()
    model(x)
    before, places = reference.bits(dict(model.named_buffers())), [b.data_ptr() for b in model.buffers()]
    with held_buffers(model):
        model(x + 1)
        assert reference.bits(dict(model.named_buffers())) != before
    assert reference.bits(dict(model.named_buffers())) == before
    assert [b.data_ptr() for b in model.buffers()] == places


@pytest.mark.parametrize("kind", NORMS)
def test_a_held_pass_computes_the_same_as_a_free_one(kind):
    model, (x, _) = reference.net(kind), reference.samples()
    with held_buffers(model):
        held = model(x)
    assert torch.equal(held, model(x))


@pytest.mark.parametrize("kind", NORMS)
def test_holding_nests_and_the_statistics_move_again_afterwards(kind):
    model, twin, (x, _) = reference.net(kind), reference.net(kind), reference.samples()
    with held_buffers(model):
        with held_buffers(model), held_buffers(model):
            model(x)
        model(x)
    model(x), twin(x)
    assert reference.bits(model.state_dict()) == reference.bits(twin.state_dict())
    assert model[1].num_batches_tracked == 1 and all(m.training for m in model.modules())


def test_buffers_are_back_when_the_pass_raises_and_when_they_were_replaced():
    model, (x, _) = reference.net("norm"), reference.samples()
    mean, before = model[1].running_mean, reference.bits(model.state_dict())
    with pytest.raises(ZeroDivisionError), held_buffers(model):
        model(x)
        model[1].running_mean = torch.ones(5, dtype=torch.float64)
        raise ZeroDivisionError
    assert reference.bits(model.state_dict()) == before and model[1].running_mean is mean


def test_norms_without_statistics_are_no_obstacle():
    model = nn.BatchNorm1d(3, track_running_stats=False)
    with held_buffers(model):
        model(torch.rand(4, 3))
    assert model.running_mean is None


def test_replayed_noise_is_the_same_and_leaves_no_trace():
    noise = RNGState()
    first, after = torch.rand(3), torch.get_rng_state()
    for _ in range(2):
        with noise.replayed():
            assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), after)


def test_noise_is_put_back_when_the_pass_raises():
    noise = RNGState()
    torch.rand(3)
    after = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), noise.replayed():
        torch.rand(1)
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), after)


def test_a_batch_gives_the_logits_of_its_model():
    model, (x, y) = reference.net(), reference.samples()
    batch = Batch(model, x, y)
    assert torch.equal(batch.logits(), model(x)) and batch.logits().requires_grad and batch.at_w is None


def test_a_plain_function_is_a_model_too():
    x, y = reference.samples()
    assert Batch(lambda x: x[:, :3], x, y).logits().shape == (8, 3)


MODEL, (X, Y) = reference.net(), reference.samples()
WRONG = {
    "no model": (None, X, Y, TypeError, r"model must be callable, and comes first: Batch\(model, inputs, targets\), got None of type NoneType"),
    "empty": (MODEL, X[:0], Y[:0], ValueError, r"targets must hold at least one sample, got an empty batch"),
    "too few classes": (MODEL, X, Y[:5], ValueError, r"targets must have shape \(8,\).* got \(5,\)"),
    "one-hot classes": (MODEL, X, Y[:, None], ValueError, r"targets must have shape \(8,\).* got \(8, 1\)"),
    "float classes": (
        MODEL,
        X,
        Y.float(),
        TypeError,
        r"targets must hold whole class numbers .* got torch\.float32",
    ),
    "bool classes": (MODEL, X, Y > 0, TypeError, r"targets must hold whole class numbers .* got torch\.bool"),
    "a list of classes": (
        MODEL,
        X,
        Y.tolist(),
        TypeError,
        r"targets must be a tensor of class numbers, got list",
    ),
    "a number": (MODEL, torch.tensor(1.0), Y, ValueError, r"inputs must have shape \(n, \.\.\.\).* got \(\)"),
}


@pytest.mark.parametrize("model, inputs, targets, error, message", WRONG.values(), ids=WRONG)
def test_a_wrong_batch_is_named_before_any_work(model, inputs, targets, error, message):
    with pytest.raises(error, match=message):
        Batch(model, inputs, targets)


@pytest.mark.parametrize("wrong", [3, 99, -1, -100])
def test_a_class_that_the_model_does_not_have_is_named(wrong):
    with pytest.raises(ValueError, match=rf"targets must be in 0 \.\. 2 .*3 columns.* got {wrong}"):
        Batch(MODEL, X, Y.index_fill(0, torch.tensor([2]), wrong)).logits()


@pytest.mark.parametrize("output, got", [(X[0], r"\(4,\)"), (X[:3], r"\(3, 4\)"), ({"out": X}, "dict with 'out'")])
def test_a_model_that_returns_no_logits_is_named(output, got):
    with pytest.raises(ValueError, match=rf"the model must return logits of shape \(8, K\), got {got}"):
        Batch(lambda x: output, X, Y).logits()


class InOneMemory(torch.autograd.Function):
    """The same numbers, always in the same place, as a captured graph returns them."""

    @staticmethod
    def forward(ctx, logits, memory):
        memory.copy_(logits)
        return memory.detach()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


@pytest.mark.parametrize("name", ["sam", "esam", "ksam", "looksam"])
def test_a_model_may_write_its_logits_over_those_of_the_pass_before(name):
    ends = []
    for memory in (None, torch.zeros(8, 3)):
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        if memory is not None:
            plain = model.forward
            model.forward = lambda x, plain=plain, memory=memory: InOneMemory.apply(plain(x), memory[: len(x)])
        opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.5), bisam.recipe(name).with_rho(0.5), seed=0)
        for k in range(3):
            draw = torch.Generator().manual_seed(k)
            batch = Batch(model, torch.randn(8, 4, generator=draw), torch.randint(3, (8,), generator=draw))
            before = batch.inputs @ model.weight.detach().T + model.bias.detach()
            opt.step(batch)
            torch.testing.assert_close(batch.at_w, before)
        ends.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
