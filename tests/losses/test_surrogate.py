"""Q: its value, its gradient in closed form, its bounds, and that nothing overflows."""

import itertools
import math

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from bisam import NegLog, Surrogate, Tanh
from bisam.losses import gap, margins, zero_one
from bisam.losses.bounds import GAMMA

BOUNDS = {
    "neg-log": (NegLog(), reference.neg_log(GAMMA)),
    "neg-log, gamma 2": (NegLog(2.0), reference.neg_log(2.0)),
    "tanh": (Tanh(), reference.tanh(0.1)),
    "tanh, alpha 1": (Tanh(1.0), reference.tanh(1.0)),
}
MUS = (1e-3, 1.5, 10.0, 1e3)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

each_bound = pytest.mark.parametrize("bound, formula", BOUNDS.values(), ids=BOUNDS)
each_case = pytest.mark.parametrize("scores, targets", reference.SCORES.values(), ids=reference.SCORES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def tensors(scores, targets, dtype=torch.float64):
    return torch.tensor(scores, dtype=dtype, requires_grad=True), torch.tensor(targets)


def gradient_of(surrogate, logits, targets):
    return torch.autograd.grad(surrogate.per_sample(logits, targets).sum(), logits)[0]


@each_case
def test_margins_are_those_of_the_formula(scores, targets):
    expected = [reference.margins(row, y) for row, y in zip(scores, targets, strict=True)]
    assert margins(*tensors(scores, targets)).tolist() == expected


@each_case
@each_bound
def test_value_and_gradient_are_those_of_the_formula(bound, formula, scores, targets):
    for mu in MUS:
        expected = [reference.q(row, y, formula[0], mu) for row, y in zip(scores, targets, strict=True)]
        found = Surrogate(bound, mu).per_sample(*tensors(scores, targets))
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12, msg=with_mu(mu))
        expected = [reference.q_gradient(row, y, *formula, mu) for row, y in zip(scores, targets, strict=True)]
        found = gradient_of(Surrogate(bound, mu), *tensors(scores, targets))
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-14, msg=with_mu(mu))


def with_mu(mu):
    return lambda words: f"mu {mu}: {words}"


@each_case
@pytest.mark.parametrize("mu", [0.5, 5.0])
def test_gradient_is_what_autograd_makes_of_the_plain_formula(mu, scores, targets):
    logits, targets = tensors(scores, targets)
    for bound, plain in (
        (NegLog(), lambda x: 1 + torch.nn.functional.logsigmoid(x - GAMMA)),
        (Tanh(0.3), lambda x: torch.tanh(0.3 * x)),
    ):
        (expected,) = torch.autograd.grad(reference.q_plain(logits, targets, plain, mu), logits)
        (found,) = torch.autograd.grad(Surrogate(bound, mu)(logits, targets), logits)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


SMALL = {name: case for name, case in reference.SCORES.items() if name != "a thousand classes"}


@pytest.mark.parametrize("scores, targets", SMALL.values(), ids=SMALL)
@each_bound
def test_first_and_second_derivatives_agree_with_finite_differences(bound, formula, scores, targets):
    logits, targets = tensors(scores, targets)
    for mu in (0.5, 5.0):
        assert torch.autograd.gradcheck(lambda x, mu=mu: Surrogate(bound, mu).per_sample(x, targets), logits)
        assert torch.autograd.gradgradcheck(
            lambda x, mu=mu: Surrogate(bound, mu).per_sample(x, targets), logits
        )


@each_case
def test_the_mean_is_the_mean_of_the_samples(scores, targets):
    logits, targets = tensors(scores, targets)
    assert Surrogate()(logits, targets) == Surrogate().per_sample(logits, targets).mean()


@pytest.mark.parametrize("bound, mu", [(NegLog(), 1.5), (Tanh(), 10.0)], ids=["neg-log", "tanh"])
def test_the_quick_mean_of_near_margins_is_the_mean_of_the_samples(bound, mu):
    logits, targets = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 5
    expected = Surrogate(bound, mu).per_sample(logits.double(), targets).mean()
    assert Surrogate(bound, mu)(logits, targets).item() == pytest.approx(expected.item(), rel=1e-6)


@given(
    scores=st.lists(st.floats(-50, 50), min_size=1, max_size=6),
    mu=st.floats(1e-3, 1e3),
    which=st.sampled_from(sorted(BOUNDS)),
)
def test_value_is_within_the_gap_of_the_largest_margin(scores, mu, which):
    bound = BOUNDS[which][0]
    logits, targets = tensors([scores], [0])
    largest = bound(margins(logits, targets)).amax()
    value = Surrogate(bound, mu)(logits, targets)
    assert largest - gap(mu, len(scores)) - 1e-9 <= value <= largest + 1e-9


@given(scores=st.lists(st.floats(-30, 30), min_size=2, max_size=6), shift=st.floats(-30, 30))
def test_gradient_sums_to_zero_and_pulls_the_true_class_down(scores, shift):
    logits, targets = tensors([scores], [1])
    found = gradient_of(Surrogate(), logits, targets)[0]
    assert (
        abs(found.sum()) < 1e-14
        and found[1] <= 0
        and (found[[j for j in range(len(scores)) if j != 1]] >= 0).all()
    )


@each_dtype
@each_bound
def test_nothing_overflows_however_far_apart_the_logits_are(bound, formula, dtype):
    big = torch.finfo(dtype).max
    rows = [[big, -big, 0.0], [-big, big, 0.0], [-big, -big, big], [big, big, big], [0.0, -0.0, big]]
    logits = torch.tensor(rows, dtype=dtype, requires_grad=True)
    for mu, true in itertools.product(MUS, range(3)):
        targets = torch.full((len(rows),), true)
        value = Surrogate(bound, mu).per_sample(logits, targets)
        slope = gradient_of(Surrogate(bound, mu), logits, targets)
        assert not torch.isnan(value).any() and (value <= 1).all() and torch.isfinite(slope).all(), mu
        # The true class is in the sum.
        assert (value >= bound(torch.zeros((), dtype=value.dtype)) - gap(mu, 3) * (1 + 1e-5)).all(), mu


class TooHigh(NegLog):
    """No lower bound: everything 0.1 above NegLog."""

    def __call__(self, x):
        return super().__call__(x) + 0.1


def test_a_phi_that_is_no_lower_bound_shows():
    logits, targets = tensors([[0.0, 0.0, 0.0], [0.0, 60.0, 60.0]], [0, 0])
    for mu in (0.4, 1.5, 30.0):
        found, sound = (Surrogate(phi, mu).per_sample(logits, targets) for phi in (TooHigh(), NegLog()))
        torch.testing.assert_close(found, sound + 0.1, rtol=0, atol=1e-9)
        assert (found > zero_one(logits, targets)).any()


@each_dtype
def test_half_precision_is_computed_in_float32_and_the_gradient_has_the_dtype_of_the_logits(dtype):
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    targets = torch.tensor([0, 1, 2, 3, 0])
    wide = logits.detach().to(torch.promote_types(dtype, torch.float32)).requires_grad_()
    assert torch.equal(Surrogate().per_sample(logits, targets), Surrogate().per_sample(wide, targets))
    found = gradient_of(Surrogate(), logits, targets)
    assert found.dtype == dtype and torch.equal(found, gradient_of(Surrogate(), wide, targets).to(dtype))


@each_bound
def test_one_class_has_nothing_to_lose(bound, formula):
    logits, targets = tensors([[3.0], [-1e300]], [0, 0])
    found, at_zero = Surrogate(bound).per_sample(logits, targets), float(bound(torch.zeros((), dtype=torch.float64)))
    if at_zero == 0:
        assert found.tolist() == [0.0, 0.0]  # a tie is exactly no loss
    assert found.tolist() == pytest.approx([at_zero] * 2, rel=4e-16, abs=0)  # two roundings: a power, a logarithm
    assert gradient_of(Surrogate(bound), logits, targets).tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.int64], ids=str)
def test_any_whole_number_type_names_classes(dtype):
    logits, targets = tensors(*reference.SCORES["ties"])
    assert Surrogate()(logits, targets.to(dtype)) == Surrogate()(logits, targets)


def test_logits_and_incoming_gradients_are_not_edited_in_place():
    logits, targets = tensors(*reference.SCORES["right and wrong"])
    upstream = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    before = reference.bits([logits, targets, upstream])
    Surrogate().per_sample(logits, targets).backward(upstream)
    margins(logits, targets)
    assert reference.bits([logits, targets, upstream]) == before
    assert logits._version == targets._version == upstream._version == 0


def test_weighted_samples_get_weighted_gradients():
    logits, targets = tensors(*reference.SCORES["right and wrong"])
    weights = torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64)
    (found,) = torch.autograd.grad((weights * Surrogate().per_sample(logits, targets)).sum(), logits)
    assert torch.equal(found, weights[:, None] * gradient_of(Surrogate(), logits, targets))


@each_bound
def test_works_under_vmap_and_grad_of_torch_func(bound, formula):
    logits, targets = tensors(*reference.SCORES["right and wrong"])
    logits, surrogate = logits.detach(), Surrogate(bound, 2.0)

    def one(row, y):
        return surrogate(row[None], y[None])

    expected = gradient_of(surrogate, logits.clone().requires_grad_(), targets)
    torch.testing.assert_close(torch.func.vmap(one)(logits, targets), surrogate.per_sample(logits, targets))
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(one))(logits, targets), expected)
    torch.testing.assert_close(
        torch.func.grad(lambda x: surrogate(x, targets))(logits), expected / len(logits)
    )


def test_works_under_jacrev_of_grad():
    logits, targets = tensors(*reference.SCORES["right and wrong"])
    expected = torch.autograd.functional.hessian(lambda x: Surrogate()(x, targets), logits)
    found = torch.func.jacrev(torch.func.grad(lambda x: Surrogate()(x, targets)))(logits.detach())
    torch.testing.assert_close(found, expected)


def test_gap_is_log_k_over_mu():
    assert gap(2.0, 10) == math.log(10) / 2 and gap(1.0, 1) == 0


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Surrogate(mu=0), ValueError, r"mu must be greater than 0, got 0"),
        (lambda: Surrogate(mu=-1.5), ValueError, r"mu must be greater than 0, got -1\.5"),
        (lambda: Surrogate(mu=math.nan), ValueError, r"mu must be finite, got nan"),
        (lambda: Surrogate(mu=math.inf), ValueError, r"mu must be finite, got inf"),
        (lambda: Surrogate(mu=True), TypeError, r"mu must be a real number, not True of type bool"),
        (lambda: Surrogate(mu="1"), TypeError, r"mu must be a real number, not '1' of type str"),
        (
            lambda: Surrogate(phi=torch.tanh),
            TypeError,
            r"phi must be a bound with a derivative, .* got <built-in",
        ),
        (lambda: Surrogate(phi="tanh"), TypeError, r"phi must be a bound with a derivative, .* got 'tanh'"),
        (lambda: Surrogate(phi=Tanh), TypeError, r"phi must be .*Tanh\(\).* got <class"),
        (lambda: gap(0.0, 10), ValueError, r"mu must be greater than 0, got 0\.0"),
        (lambda: gap(1.0, 0), ValueError, r"classes must be at least 1, got 0"),
        (lambda: gap(1.0, 2.5), TypeError, r"classes must be a whole number, not 2\.5 of type float"),
    ],
)
def test_a_wrong_parameter_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("mu", [0.1, 0.5, 1.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_class_far_behind_has_no_share_however_small_mu_is(mu, dtype):
    logits = torch.tensor([[0.0] + [-1000.0] * 9], dtype=dtype, requires_grad=True)
    found = Surrogate(NegLog(), mu).per_sample(logits, torch.tensor([0]))
    found.sum().backward()
    assert found.item() == pytest.approx(-math.log(10) / mu, rel=1e-6) and logits.grad.abs().max() < 1e-12
