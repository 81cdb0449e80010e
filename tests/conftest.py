"""What holds for every test: one thread, a fixed seed, the same Hypothesis examples in every run."""

import atexit
import gc

import pytest


def pytest_collection():
    """Before the tests are imported; a process that hands them out to others collects none and needs none of it."""
    import hypothesis
    import torch

    torch.set_num_threads(1)
    hypothesis.settings.register_profile("bisam", max_examples=60, deadline=None, derandomize=True, database=None)
    hypothesis.settings.load_profile("bisam")
    # Collecting makes half a million objects that all stay: looking for garbage among them takes seconds and finds none.
    gc.disable()
    atexit.register(gc.unfreeze)


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def seeded():
    """Of an accelerator that is not there torch would keep every seed, with the whole stack of the call, for the day it comes."""
    import torch

    return torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed


@pytest.fixture(autouse=True)
def seed(seeded):
    seeded(0)
