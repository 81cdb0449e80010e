"""The digits that scikit-learn ships, and their splits."""


import pytest
import torch
from sklearn.datasets import load_digits
from written import (
    SPLITS,
)

from bisam.training.data import digits


def pixels(split):
    """The images as scikit-learn ships them, whole numbers from 0 to 16, one a row, with the class behind."""
    images = load_digits().data
    train = digits().train.inputs.double()
    step = (train.max() - train.min()) / images.max()
    grey = ((split.inputs.double() - train.min()) / step).round().long().reshape(len(split), -1)
    return [tuple(row) for row in torch.cat([grey, split.targets[:, None]], 1).tolist()]


def test_sizes_shapes_and_types():
    task = digits()
    assert [len(getattr(task, name)) for name in SPLITS] == [1000, 297, 500]
    assert (task.name, task.classes, task.shape) == ("digits", 10, (1, 8, 8))
    assert all(getattr(task, name).inputs.dtype == torch.float32 for name in SPLITS)
    assert all(getattr(task, name).targets.dtype == torch.int64 for name in SPLITS)


def test_the_splits_together_are_all_images_each_once():
    raw = load_digits()
    shipped = [(*map(int, image), int(y)) for image, y in zip(raw.data, raw.target, strict=True)]
    assert sorted(row for name in SPLITS for row in pixels(getattr(digits(), name))) == sorted(shipped)


def test_each_split_has_the_classes_in_the_proportions_of_the_whole():
    whole = torch.tensor(load_digits().target).bincount() / 1797
    for name in SPLITS:
        split = getattr(digits(), name)
        assert ((split.targets.bincount() - whole * len(split)).abs() <= 1.5).all()


def test_training_images_have_mean_zero_and_deviation_one():
    inputs = digits().train.inputs.double()
    assert float(inputs.mean()) == pytest.approx(0, abs=1e-6) and float(inputs.std()) == pytest.approx(
        1, abs=1e-4
    )
    assert abs(float(digits().test.inputs.double().mean())) > 1e-6  # its own mean has not been taken out


def test_the_split_is_the_same_in_every_run():
    first, again = digits(), digits.__wrapped__()
    assert again is not first and again.fingerprint == first.fingerprint == "28f2d7b2e458c832"
