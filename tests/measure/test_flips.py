"""Decisions that a perturbation turns."""

import pytest
import torch
from small_nets import F64
from torch import nn

import bisam
from bisam.measure import misclassified


def test_flips_on_a_case_made_by_hand():
    model = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0], [0.0]]))  # class 0 where x > 0
    x = torch.tensor([[1.0], [2.0], [-1.0], [-3.0], [0.0]], dtype=F64)
    y = torch.tensor([0, 1, 0, 1, 1])  # right, wrong, wrong, right, a tie: right
    turned = {"weight": torch.tensor([[-2.0], [0.0]], dtype=F64)}  # class 0 where x < 0
    flips = misclassified(model, x, y, turned, samples_at_a_time=2)
    assert (flips.broken, flips.mended, flips.wrong, flips.n) == (2, 2, 2, 5) and flips.wrong_there == 2
    shifted = {"weight": torch.tensor([[0.0], [5.0]], dtype=F64)}  # class 1 where x > 0
    assert misclassified(model, x[:2], y[:2], shifted) == bisam.measure.Flips(broken=1, mended=1, wrong=1, n=2)
    one, other = (misclassified(model, x[k : k + 1], y[k : k + 1], shifted) for k in (0, 1))
    assert (one.broken, one.mended, one.wrong_there) == (1, 0, 1) and (other.broken, other.mended, other.wrong_there) == (0, 1, 0)
    none = misclassified(model, x, y, {"weight": torch.zeros(2, 1, dtype=F64)})
    assert (none.broken, none.mended, none.wrong) == (0, 0, 2)
    with pytest.raises(ValueError, match="perturbation must hold at least one tensor"):
        misclassified(model, x, y, {})
