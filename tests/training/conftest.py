"""Fixtures of the tests of trainings."""

import pytest
import small
import torch

from bisam.training import data, fit, models
from bisam.training.data import Data, Split


@pytest.fixture
def tiny(monkeypatch):
    """A task and a network with dropout that train in milliseconds."""
    monkeypatch.setitem(data.DATA, "tiny", lambda: small.TINY)
    monkeypatch.setitem(models.MODELS, "dropping", small.dropping)


@pytest.fixture
def no_training(monkeypatch):
    """Any step would be one too many."""
    monkeypatch.setattr("bisam.training.state.State.steps", lambda self: pytest.fail("training has started"))


@pytest.fixture(scope="session")
def sealed(tmp_path_factory):
    """The bytes of the checkpoint of half a training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(data.DATA, "tiny", lambda: small.TINY)
        path = tmp_path_factory.mktemp("checkpoint") / "run.pt"
        fit(small.run(), path, stop_after=2)
    return path.read_bytes()


@pytest.fixture
def half(sealed, tmp_path):
    """The checkpoint of half a training."""
    path = tmp_path / "run.pt"
    path.write_bytes(sealed)
    return path


@pytest.fixture
def images(monkeypatch):
    """A task of uint8 images, large enough to be augmented."""
    draw = torch.Generator().manual_seed(0)

    def part(n):
        targets = torch.arange(n) % 3
        shades = (40 + 80 * targets)[:, None, None, None] + torch.randint(0, 40, (n, 3, 16, 16), generator=draw)
        return Split(shades.to(torch.uint8), targets)

    task = Data("images", 3, part(40), part(20), part(20), (0.5,) * 3, (0.25,) * 3)
    monkeypatch.setitem(data.DATA, "images", lambda: task)
    return task
