"""Tasks against plain formulas in float64 and against torch's own losses: values, means, gradients, and the bound that Q is."""

import math

import pytest
import torch
from torch.nn import functional

import bisam
from bisam.losses import Loss, Rows, Task, zero_one

CE, SURROGATES = bisam.CrossEntropy(), (bisam.BISAM_LOG.ascent, bisam.BISAM_TANH.ascent, bisam.Surrogate(bisam.NegLog(2.0), mu=0.7))
IDS = ("log", "tanh", "other")


def draw(seed, *shape, dtype=torch.float64, scale=3.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def shares(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).pow(3)


def distributions(seed, n, classes, nonzero=None):
    t = shares(seed, n, classes)
    if nonzero is not None:
        t = t * torch.zeros(n, classes).scatter(1, t.topk(nonzero).indices, 1.0)
    return t / t.sum(1, keepdim=True)


def q_of(phi, mu, f, true):
    """Q of one row by its formula, a list of numbers and a class; nothing is shared with the library but phi."""
    terms = [math.exp(mu * float(phi(torch.tensor(value - f[true], dtype=torch.float64)))) for value in f]
    return math.log(sum(terms) / len(terms)) / mu


def formula(q, f, t):
    """The same as a graph: phi of torch operations, autograd does the rest."""
    margin = f.unsqueeze(1) - f.unsqueeze(2)  # [row, true class, other class]
    if isinstance(q.phi, bisam.NegLog):
        phi = 1 - functional.softplus(q.phi.gamma - margin)
    else:
        phi = torch.tanh(q.phi.alpha * margin)
    each = (torch.logsumexp(q.mu * phi, 2) - math.log(f.shape[1])) / q.mu
    return (t * each).sum(1)


@pytest.mark.parametrize("q", SURROGATES, ids=IDS)
@pytest.mark.parametrize("nonzero", [1, 2, None])
def test_q_of_a_distribution_is_the_mean_over_the_classes(q, nonzero):
    f, t = draw(0, 9, 5), distributions(1, 9, 5, nonzero)
    found = q.per_sample(f, t)
    by_hand = [sum(float(t[i, k]) * q_of(q.phi, q.mu, f[i].tolist(), k) for k in range(5)) for i in range(9)]
    torch.testing.assert_close(found, torch.tensor(by_hand, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(q(f, t), found.mean())


@pytest.mark.parametrize("q", SURROGATES, ids=IDS)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 3e-6), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_the_gradient_of_a_distribution_is_that_of_the_formula(q, dtype, tolerance):
    f, t = draw(2, 8, 6).to(dtype), distributions(3, 8, 6)
    exact = f.double().clone().requires_grad_()
    formula(q, exact, t).mean().backward()
    leaf = f.clone().requires_grad_()
    q(leaf, t.to(dtype) if dtype is torch.float64 else t.float()).backward()
    torch.testing.assert_close(leaf.grad.double(), exact.grad, rtol=tolerance, atol=tolerance / 50)
    torch.testing.assert_close(q.gradient(f, t).double(), exact.grad, rtol=tolerance, atol=tolerance / 50)


@pytest.mark.parametrize("q", SURROGATES, ids=IDS)
def test_a_distribution_can_be_differentiated_twice_and_taken_apart(q):
    f, t = draw(4, 3, 4), distributions(5, 3, 4)
    assert torch.autograd.gradgradcheck(lambda f: q(f, t), (f.clone().requires_grad_(),))
    torch.testing.assert_close(torch.func.grad(lambda f: q.values(f, t).mean())(f), q.gradient(f, t), rtol=1e-9, atol=1e-12)


def test_a_certain_distribution_is_its_class():
    f, y = draw(6, 50, 7), torch.arange(50) % 7
    for loss in (CE, bisam.CrossEntropy(0.1), bisam.CrossEntropy(0.1, "others"), *SURROGATES):
        torch.testing.assert_close(loss.per_sample(f, functional.one_hot(y, 7).double()), loss.per_sample(f, y))


def test_many_classes_come_in_parts(monkeypatch):
    from bisam.losses import targets

    f, t = draw(7, 6, 11), distributions(8, 6, 11)
    whole = SURROGATES[0](f, t)
    monkeypatch.setattr(targets, "ENTRIES", 150)
    assert len(list(targets.slots(t))) > 4
    torch.testing.assert_close(SURROGATES[0](f, t), whole)


@pytest.mark.parametrize("seed", range(20))
def test_q_stays_below_the_expected_zero_one_loss_and_cross_entropy_above(seed):
    classes = 2 + seed % 6
    f, t = draw(seed, 200, classes, scale=10.0 ** (seed % 3 - 1)), distributions(seed + 99, 200, classes, 2 if seed % 2 else None)
    f[::7] = f[::7].round()  # ties
    for ties in ("right", "wrong"):
        expected = zero_one(f, t, ties)
        by_hand = torch.stack([zero_one(f, torch.full((200,), k), ties) for k in range(classes)], 1)
        torch.testing.assert_close(expected, (t * by_hand).sum(1))
        for q in SURROGATES:
            assert (q.per_sample(f, t) <= expected + 1e-12).all()
        assert (expected <= CE.per_sample(f, t) / math.log(2) + 1e-12).all()


# -- against torch's own losses ---------------------------------------------------------------------------------------------

WEIGHT = (0.5, 2.0, 1.0, 0.2)


def hard(*shape):
    y = torch.randint(4, shape, generator=torch.Generator().manual_seed(9))
    y.view(-1)[::5] = -100
    return y


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("shape", [(12,), (4, 6), (3, 5, 2)], ids=["samples", "a row", "pixels"])
@pytest.mark.parametrize("axis", [1, -1, None])
def test_multiclass_cross_entropy_is_that_of_torch(smoothing, weight, ignored, shape, axis):
    y = hard(*shape) if ignored else hard(*shape).clamp(min=0)
    f = draw(10, shape[0], 4, *shape[1:])
    w = None if weight is None else torch.tensor(weight, dtype=torch.float64)
    expected = functional.cross_entropy(f, y, w, label_smoothing=smoothing)
    task = bisam.Multiclass(axis, -100 if ignored else None, weight)
    given = f.movedim(1, -1) if axis == -1 else f
    torch.testing.assert_close(task.mean(bisam.CrossEntropy(smoothing), given, y), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
@pytest.mark.parametrize("shape", [(12,), (4, 6), (3, 5, 2)], ids=["samples", "a row", "pixels"])
def test_distributions_are_those_of_torch(smoothing, weight, shape):
    f = draw(11, shape[0], 4, *shape[1:])
    t = shares(12, *f.shape)
    t = t / t.sum(1, keepdim=True)
    w = None if weight is None else torch.tensor(weight, dtype=torch.float64)
    expected = functional.cross_entropy(f, t, w, label_smoothing=smoothing)
    task = bisam.Multiclass(1, weight=torch.tensor(weight) if weight else None)
    torch.testing.assert_close(task.mean(bisam.CrossEntropy(smoothing), f, t), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pos_weight", [None, 3.0, (0.5, 2.0, 4.0)])
@pytest.mark.parametrize("kind", [torch.float64, torch.int64, torch.bool, "soft"])
def test_binary_cross_entropy_is_that_of_torch(pos_weight, kind):
    z, y = draw(13, 8, 3), shares(14, 8, 3)
    y = y if kind == "soft" else (y > 0.1).to(kind)
    factor = None if pos_weight is None else torch.tensor(pos_weight, dtype=torch.float64)
    expected = functional.binary_cross_entropy_with_logits(z, y.double(), pos_weight=factor)
    torch.testing.assert_close(bisam.Binary(pos_weight=pos_weight).mean(CE, z, y).double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("logits, targets", [((8,), (8,)), ((8, 1), (8,)), ((8,), (8, 1)), ((8, 1), (8, 1)), ((2, 1, 3, 4), (2, 1, 3, 4))])
def test_one_logit_may_be_a_column(logits, targets):
    z, y = draw(15, *logits), (shares(16, *targets) > 0.1).long()
    found = bisam.Binary().mean(CE, z, y)
    torch.testing.assert_close(found.double(), functional.binary_cross_entropy_with_logits(z.reshape(-1), y.reshape(-1).double()))


def test_labels_that_are_unknown_are_left_out():
    z, y = draw(17, 6, 3), (shares(18, 6, 3) > 0.1).double()
    known = shares(19, 6, 3) > 0.05
    expected = functional.binary_cross_entropy_with_logits(z[known], y[known])
    assert not known.all()
    torch.testing.assert_close(bisam.Binary(ignore_index=-1).mean(CE, z, y.masked_fill(~known, -1)), expected)


@pytest.mark.parametrize("q", SURROGATES, ids=IDS)
def test_q_of_independent_labels_is_below_the_hamming_loss(q):
    z, y = draw(20, 40, 5), (shares(21, 40, 5) > 0.1).long()
    rows = bisam.Binary().rows(z, y)
    found, signs = rows.values(q).view(40, 5), 1.0 - 2 * y
    by_hand = [[q_of(q.phi, q.mu, [0.0, float(s * v)], 0) for v, s in zip(line, sign, strict=True)] for line, sign in zip(z, signs, strict=True)]
    torch.testing.assert_close(found, torch.tensor(by_hand, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    wrong = ((z > 0) != (y > 0)).double()
    assert (found <= wrong + 1e-12).all() and rows.mean(q) <= wrong.mean()


@pytest.mark.parametrize("loss", [CE, *SURROGATES], ids=["ce", *IDS])
def test_samples_that_count_twice_are_there_twice(loss):
    f, y = draw(22, 5, 4), torch.tensor([0, 1, 2, 3, 0])
    counts = torch.tensor([2, 0, 1, 3, 1])
    again = torch.arange(5).repeat_interleave(counts)
    for task in (bisam.Multiclass(), bisam.Multiclass(weight=WEIGHT)):
        torch.testing.assert_close(task.mean(loss, f, y, counts), task.mean(loss, f[again], y[again]))


@pytest.mark.parametrize("q", SURROGATES, ids=IDS)
@pytest.mark.parametrize("soft", [False, True])
def test_the_closed_gradient_of_weighted_rows_is_that_of_the_mean(q, soft):
    y = torch.arange(7) % 4
    t = distributions(24, 7, 4) if soft else y
    rows = Rows(draw(23, 7, 4).requires_grad_(), t, shares(25, 7), torch.tensor(WEIGHT, dtype=torch.float64))
    (expected,) = torch.autograd.grad(rows.mean(q), rows.logits)
    torch.testing.assert_close(rows.gradient(q, 8.0), 8 * expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", [CE, *SURROGATES], ids=["ce", *IDS])
def test_what_is_left_out_has_no_say_even_where_its_scores_are_ruled_out(loss):
    f, y = draw(26, 6, 4), torch.tensor([0, -100, 2, -100, 3, 1])
    kept = y >= 0
    expected = loss(f[kept], y[kept])
    f = f.clone()
    f[1, 0] = -math.inf
    f = f.requires_grad_()
    found = bisam.Multiclass(ignore_index=-100).mean(loss, f, y)
    found.backward()
    torch.testing.assert_close(found, expected)
    assert torch.isfinite(f.grad).all() and not f.grad[~kept].any()


def test_rows_that_are_all_left_out_have_no_loss_and_no_gradient():
    f = draw(27, 3, 4).requires_grad_()
    found = bisam.Multiclass(ignore_index=-100).mean(CE, f, torch.full((3,), -100))
    found.backward()
    assert found == 0 and not f.grad.any()


class Beaten(Loss):
    """A loss of one's own that knows nothing of weights."""

    def values(self, logits, targets):
        own = (logits * targets).sum(1) if targets.is_floating_point() else logits.gather(1, targets.unsqueeze(1)).squeeze(1)
        return logits.amax(1) - own


def test_a_loss_of_ones_own_is_weighted_as_cross_entropy_is():
    f, y, w = draw(28, 6, 4), torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor(WEIGHT, dtype=torch.float64)
    expected = (Beaten().values(f, y) * w[y]).sum() / w[y].sum()
    torch.testing.assert_close(bisam.Multiclass(weight=w).mean(Beaten(), f, y), expected)


class Ordinal(Task):
    """Classes 0 .. K in order, one logit a threshold."""

    def flat(self, targets, weights=None):
        return (targets.unsqueeze(1) > torch.arange(3)).long().flatten(), None

    def scores(self, logits, targets):
        return torch.stack([torch.zeros_like(logits), logits], -1).flatten(0, 1)


def test_a_task_of_ones_own_is_two_methods():
    z, y = draw(29, 5, 3), torch.tensor([0, 1, 2, 3, 3])
    passed = (y.unsqueeze(1) > torch.arange(3)).double()
    torch.testing.assert_close(Ordinal().mean(CE, z, y), functional.binary_cross_entropy_with_logits(z, passed))


# -- what is refused ----------------------------------------------------------------------------------------------------------

F, Y = draw(30, 6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
REFUSED = {
    "shares that sum to 2": (bisam.Multiclass(), F, 2 * distributions(0, 6, 4), "targets of floating point must be distributions"),
    "a share below 0": (bisam.Multiclass(), F, distributions(0, 6, 4) - 0.1, "targets of floating point must be distributions"),
    "floating class numbers": (bisam.Multiclass(), F, Y.float(), r"targets must hold whole class numbers .* task=bisam\.Binary\(\)"),
    "one logit": (bisam.Multiclass(), F[:, :1], Y.clamp(max=0), r"two classes or more, got shape \(6, 1\): for one logit give task=bisam\.Binary\(\)"),
    "an axis that could be two": (bisam.Multiclass(), draw(0, 2, 3, 3), torch.zeros(2, 3, dtype=torch.int64), "axis must be given, 1 or -1: logits"),
    "distributions of pixels": (bisam.Multiclass(), draw(0, 2, 4, 3), distributions(0, 8, 3).view(2, 4, 3), "axis must be given, 1 or -1, for targets"),
    "three weights": (bisam.Multiclass(weight=(1, 2, 3)), F, Y, "weight must hold one number for each of the 4 classes, got 3"),
    "a class that is ignored elsewhere": (bisam.Multiclass(), F, Y.masked_fill(Y == 1, -100), r"targets must be in 0 \.\. 3 .* got -100"),
    "shares and an ignored class": (bisam.Multiclass(ignore_index=0), F, distributions(0, 6, 4), "ignore_index must be None"),
    "another shape": (bisam.Multiclass(), F, Y.view(2, 3), r"logits of shape \(2, K, 3\) or \(2, 3, K\) for targets of shape \(2, 3\), got \(6, 4\)"),
    "labels outside 0 and 1": (bisam.Binary(), F, torch.full((6, 4), 2), "targets must be from 0 to 1, .* got 2"),
    "labels of another shape": (bisam.Binary(), F, torch.zeros(6, 3), r"logits of the shape of the targets, \(6, 3\), got \(6, 4\)"),
    "two label weights": (bisam.Binary(pos_weight=(1, 2)), F, torch.zeros(6, 4), "pos_weight must hold one number for each of the 4 labels, got 2"),
}


@pytest.mark.parametrize("task, logits, targets, message", REFUSED.values(), ids=REFUSED)
def test_what_is_no_target_is_refused_by_name(task, logits, targets, message):
    with pytest.raises((ValueError, TypeError), match=message):
        task.mean(CE, logits, targets)


@pytest.mark.parametrize("weights", [torch.ones(5), -torch.ones(6), torch.zeros(6), torch.full((6,), math.nan)])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match="weights must"):
        bisam.Multiclass().mean(CE, F, Y, weights)


@pytest.mark.parametrize("task", [bisam.Multiclass(1, -100, WEIGHT), bisam.Binary(-1, (1.0, 2.0)), bisam.Binary(pos_weight=2.0)])
def test_a_task_is_plain_values(task):
    from bisam._kinds import built, plain

    assert built(plain(task)) == task and hash(task)
