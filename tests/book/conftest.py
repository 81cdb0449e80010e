"""What tests of the book share."""

import pytest
import torch
from built import HTML
from headless import chromium, served


@pytest.fixture
def double():
    """Float64 wherever nothing else is said, and a generator."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch.Generator().manual_seed(0)
    torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def address():
    """Where the built book is served."""
    with served(HTML) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    """One for each file: while it runs, nothing else in the process can have an event loop of its own."""
    with chromium() as browser:
        yield browser
