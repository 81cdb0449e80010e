"""What holds for every test: one thread, a fixed seed, the same Hypothesis examples in every run."""

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("bisam", max_examples=60, deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("bisam")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
