"""What tests of the book share."""

import pytest
import torch


@pytest.fixture
def double():
    """Float64 wherever nothing else is said, and a generator."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch.Generator().manual_seed(0)
    torch.set_default_dtype(before)
