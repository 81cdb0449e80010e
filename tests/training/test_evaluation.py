"""Which samples are right: one function decides, and a tie is right where nothing else is said."""

import pytest
import torch
from small import TINY, run
from torch import nn

from bisam import Batch
from bisam.losses import zero_one
from bisam.training import accuracy, fit, which_right
from bisam.training.evaluation import broken, is_right

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def tied():
    """Scores of few values, so that most rows have a tie."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 3, (500, 4), generator=draw).float(), torch.randint(4, (500,), generator=draw)


def test_a_tie_is_right_as_in_the_zero_one_loss(tied):
    assert torch.equal(is_right(*tied), zero_one(*tied) == 0)
    assert (is_right(*tied) != is_right(*tied, ties="first")).float().mean() > 0.1


def test_the_other_reading_is_that_of_argmax(tied):
    logits, targets = tied
    assert torch.equal(is_right(logits, targets, ties="first"), logits.argmax(1) == targets)
    with pytest.raises(ValueError, match="ties must be one of right, first; got 'wrong'"):
        is_right(logits, targets, ties="wrong")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_scores_without_a_tie_have_one_reading(dtype):
    logits = torch.stack([torch.randperm(10) for _ in range(50)]).to(dtype)
    targets = torch.arange(50) % 10
    assert torch.equal(is_right(logits, targets), is_right(logits, targets, ties="first"))


def test_a_score_that_is_not_finite_is_no_highest_one():
    logits = torch.tensor([[torch.nan, 0.0], [torch.inf, 0.0], [-torch.inf, 0.0]])
    assert is_right(logits, torch.zeros(3, dtype=torch.int64)).tolist() == [False, True, False]


def test_a_tie_is_not_broken_by_the_order_of_the_classes():
    batch = Batch(nn.Flatten(), torch.zeros(2, 2), torch.tensor([0, 1]))
    batch.at_w, batch.at_worst = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.ones(2, 2)
    assert int(broken(batch)) == 0 and int(broken(batch, ties="first")) == 1


def test_an_accuracy_is_that_of_the_one_class_that_is_answered():
    silent = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    nn.init.zeros_(silent[1].weight)
    nn.init.zeros_(silent[1].bias)
    share = 100 * float((TINY.test.targets == 0).double().mean())
    assert accuracy(silent, TINY.test) == pytest.approx(share) and accuracy(silent, TINY.test, ties="right") == 100
    assert int(which_right(silent, TINY.test).sum()) == int((TINY.test.targets == 0).sum())


def test_accuracy_counts_in_chunks_in_evaluation_mode_and_keeps_the_mode():
    model = fit(run(model="dropping")).model.train()
    split, model_2 = TINY.test, fit(run(model="dropping")).model.eval()
    expected = 100 * float((model_2(split.inputs).argmax(1) == split.targets).double().mean())
    for chunk in (1, 7, 1000):
        assert accuracy(model, split, chunk) == pytest.approx(expected) and model.training
