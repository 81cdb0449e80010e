"""The chain Q <= 0-1 loss <= cross-entropy / log 2, label smoothing in both conventions, wrong batches."""

import math

import numpy
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bisam import CrossEntropy, NegLog, Surrogate, Tanh
from bisam.losses import margins, zero_one

BOUNDS = (NegLog(), NegLog(2.0), Tanh(), Tanh(2.0))
LOSSES = {"q": Surrogate(), "cross-entropy": CrossEntropy(0.1), "margins": margins, "zero-one": zero_one}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
each_case = pytest.mark.parametrize("scores, targets", reference.SCORES.values(), ids=reference.SCORES)

# Few distinct values make ties; the rest is every finite number of half, single and double precision.
score = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, 65504.0, -65504.0, 3e38, -3e38]),
    st.floats(-20, 20),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)


@st.composite
def batches(draw):
    n, classes = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    scores = draw(arrays(numpy.float64, (n, classes), elements=score))
    targets = draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    return torch.tensor(scores), torch.tensor(targets)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@given(batch=batches(), mu=st.sampled_from([1e-3, 0.7, 1.5, 10.0, 1e3]), bound=st.sampled_from(BOUNDS))
def test_q_is_at_most_the_zero_one_loss_is_at_most_cross_entropy_over_log_2(dtype, batch, mu, bound):
    most = torch.finfo(dtype).max
    logits, targets = batch[0].clamp(-most, most).to(dtype), batch[1]
    lower, upper = (
        Surrogate(bound, mu).per_sample(logits, targets),
        CrossEntropy().per_sample(logits, targets),
    )
    right, wrong = zero_one(logits, targets), zero_one(logits, targets, ties="wrong")
    assert (lower <= right).all() and (right <= wrong).all()  # no tolerance here
    assert (wrong <= upper / math.log(2) + 1e-6).all()
    assert Surrogate(bound, mu)(logits, targets) <= zero_one(logits, targets).mean()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("mu", [1e-3, 1.5, 1e3])
def test_the_bound_holds_among_a_thousand_classes(dtype, mu):
    logits = torch.randn(50, 1000, dtype=dtype, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    targets = torch.cat(
        [logits.argmax(1)[:40], torch.zeros(10, dtype=torch.int64)]
    )  # rounded: ties among the best
    for bound in BOUNDS:
        assert (Surrogate(bound, mu).per_sample(logits, targets) <= zero_one(logits, targets)).all()


def test_cross_entropy_alone_is_no_upper_bound():
    logits, targets = torch.tensor([[0.0, 1e-3]]), torch.tensor([0])
    assert CrossEntropy()(logits, targets) < 0.7 < zero_one(logits, targets).mean()


def test_a_true_class_that_is_ruled_out_is_a_mistake_with_no_margins():
    logits, targets = torch.tensor([[-math.inf, -math.inf, 0.0], [1.0, 0.0, -math.inf]]), torch.tensor([0, 0])
    assert zero_one(logits, targets).tolist() == [1, 0] and CrossEntropy().per_sample(logits, targets)[0] == math.inf
    for undefined in (margins, Surrogate(), Surrogate(Tanh(), mu=1e-3)):
        with pytest.raises(ValueError, match="logits must be finite for the true class; 1 of 2 samples rule theirs out"):
            undefined(logits, targets)
    assert zero_one(torch.full((1, 2), -math.inf), torch.tensor([1])).tolist() == [0]  # a tie


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_mean_of_mistakes_is_not_rounded(dtype):
    logits = torch.tensor([[0.0, 1.0]]).repeat(2049, 1).to(dtype)
    assert zero_one(logits, torch.tensor([0] * 2000 + [1] * 49)).sum() == 2000
    assert zero_one(logits, torch.zeros(2049, dtype=torch.int64)).sum() == 2049


@each_case
@pytest.mark.parametrize("convention", ["all", "others"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_is_that_of_the_formula(smoothing, convention, scores, targets):
    if len(scores[0]) == 1:
        convention = "all"  # with one class there are no others to share with
    expected = [
        reference.cross_entropy(r, y, smoothing, convention) for r, y in zip(scores, targets, strict=True)
    ]
    logits = torch.tensor(scores, dtype=torch.float64)
    found = CrossEntropy(smoothing, convention).per_sample(logits, torch.tensor(targets))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_the_mean_of_cross_entropy_has_the_gradient_of_its_values_to_the_last_bit(dtype, smoothing):
    loss, draw = CrossEntropy(smoothing), torch.Generator().manual_seed(0)
    for n, classes, share in ((1, 2, 1), (7, 3, 1 / 3), (100, 10, 0.7), (333, 100, 1)):
        scores, targets = (3 * torch.randn(n, classes, generator=draw)).to(dtype), torch.randint(classes, (n,), generator=draw)
        ways = [scores.clone().requires_grad_() for _ in range(2)]
        (loss.mean(ways[0], targets) * share).backward()
        (loss.values(ways[1], targets).mean() * share).backward()
        assert torch.equal(ways[0].grad, ways[1].grad)


def test_one_class_has_no_cross_entropy_in_either_convention():
    for convention in ("all", "others"):
        assert CrossEntropy(0.1, convention)(torch.tensor([[2.0]]), torch.tensor([0])) == 0


def test_cross_entropy_of_half_precision_is_computed_in_float32():
    logits = torch.tensor([[60000.0, -60000.0]], dtype=torch.float16)
    assert CrossEntropy()(logits, torch.tensor([1])) == torch.tensor(120000.0)


@each_case
@pytest.mark.parametrize("ties", ["right", "wrong"])
def test_zero_one_is_that_of_the_formula(ties, scores, targets):
    expected = [reference.zero_one(row, y, ties) for row, y in zip(scores, targets, strict=True)]
    assert (
        zero_one(torch.tensor(scores, dtype=torch.float64), torch.tensor(targets), ties).tolist() == expected
    )


@given(batch=batches())
def test_readings_of_ties_differ_exactly_at_ties(batch):
    logits, targets = batch
    top = logits.amax(1) == logits.gather(1, targets[:, None])[:, 0]
    tied = top & ((logits == logits.amax(1, keepdim=True)).sum(1) > 1)
    differ = zero_one(logits, targets) != zero_one(logits, targets, ties="wrong")
    assert torch.equal(differ, tied)


@each_loss
def test_logits_are_not_edited_in_place(loss):
    logits, targets = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([0, 1])
    before = reference.bits([logits, targets])
    loss(logits, targets)
    assert reference.bits([logits, targets]) == before and logits._version == targets._version == 0


X, Y = torch.zeros(2, 3), torch.tensor([0, 2])
WRONG = {
    "class too high": (
        X,
        torch.tensor([0, 3]),
        ValueError,
        r"targets must be in 0 \.\. 2 .*3 columns.* got 3",
    ),
    "class -100": (X, torch.tensor([-100, 0]), ValueError, r"targets must be in 0 \.\. 2 .* got -100"),
    "float classes": (
        X,
        torch.tensor([0.0, 1.0]),
        TypeError,
        r"targets must hold whole .*int64.* got torch\.float32",
    ),
    "bool classes": (
        X,
        torch.tensor([True, False]),
        TypeError,
        r"targets must hold whole .* got torch\.bool",
    ),
    "a list of classes": (X, [0, 2], TypeError, r"targets must be a tensor of class numbers, got list"),
    "probabilities": (
        X,
        torch.zeros(2, 3, dtype=torch.int64),
        ValueError,
        r"targets must have shape \(2,\).*\(2, 3\)",
    ),
    "too few classes": (X, torch.tensor([0]), ValueError, r"targets must have shape \(2,\).* got \(1,\)"),
    "empty batch": (X[:0], Y[:0], ValueError, r"logits must have shape \(n, K\) with n > 0.* got \(0, 3\)"),
    "no classes": (X[:, :0], Y, ValueError, r"logits must have shape .* K > 0, got \(2, 0\)"),
    "one row": (X[0], Y, ValueError, r"logits must have shape \(n, K\).* got \(3,\)"),
    "images": (X[None], Y, ValueError, r"logits must have shape \(n, K\).* got \(1, 2, 3\)"),
    "whole scores": (X.long(), Y, TypeError, r"logits must be a floating-point tensor.* got torch\.int64"),
    "a list of scores": ([[0.0] * 3] * 2, Y, TypeError, r"logits must be a floating-point tensor.* got list"),
    "NaN": (X * math.nan, Y, ValueError, r"logits must not hold NaN or \+inf; 6 of 6 do"),
    "infinite": (X + math.inf, Y, ValueError, r"logits must not hold NaN or \+inf; 6 of 6 do"),
}


@each_loss
@pytest.mark.parametrize("logits, targets, error, message", WRONG.values(), ids=WRONG)
def test_a_wrong_batch_is_named(loss, logits, targets, error, message):
    with pytest.raises(error, match=message):
        loss(logits, targets)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: CrossEntropy(1.0), ValueError, r"smoothing must be in \[0, 1\), got 1\.0"),
        (lambda: CrossEntropy(-0.1), ValueError, r"smoothing must be in \[0, 1\), got -0\.1"),
        (lambda: CrossEntropy(math.nan), ValueError, r"smoothing must be finite, got nan"),
        (lambda: CrossEntropy(True), TypeError, r"smoothing must be a real number, not True of type bool"),
        (lambda: CrossEntropy("0.1"), TypeError, r"smoothing must be a real number, not '0\.1' of type str"),
        (
            lambda: CrossEntropy(0.1, "torch"),
            ValueError,
            r"convention must be one of all, others; got 'torch'",
        ),
        (
            lambda: CrossEntropy(0.9, "others")(X, Y),
            ValueError,
            r"smoothing must be at most .* 0\.667 .*K = 3.* got 0\.9",
        ),
        (lambda: zero_one(X, Y, ties="both"), ValueError, r"ties must be one of right, wrong; got 'both'"),
    ],
)
def test_a_wrong_parameter_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
