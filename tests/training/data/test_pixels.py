"""Smaller images, and the mean and deviation that images are scaled with."""


import pytest
import torch
from written import (
    letters,
    splits_of,
    write_arrays,
    write_cifar,
)

from bisam.training import data
from bisam.training.data import Split, load
from bisam.training.data import pixels as scaling


def test_a_channel_of_one_value_becomes_zero():
    images = torch.cat([torch.full((12, 1, 3, 3), 200), torch.randint(0, 256, (12, 1, 3, 3))], 1).to(torch.uint8)
    mean, std = scaling.statistics(images)
    assert (mean[0], std[0]) == (pytest.approx(200 / 255), 1.0)
    split = Split(images, torch.zeros(12, dtype=torch.int64))
    prepared = data.Data("half", 2, split, split, split, mean, std).prepared(images)
    assert prepared[:, 0].abs().max() < 1e-6 and float(prepared[:, 1].std(correction=0)) == pytest.approx(1, abs=1e-5)


def test_mean_and_deviation_are_those_of_the_training_split(tmp_path, monkeypatch):
    write_cifar(tmp_path, "cifar10", monkeypatch)
    task = load("cifar10", tmp_path, split_seed=2)
    scaled = task.train.inputs.double() / 255
    assert task.mean == pytest.approx(scaled.mean((0, 2, 3)).tolist(), abs=1e-12)
    assert task.std == pytest.approx(scaled.std((0, 2, 3), correction=0).tolist(), abs=1e-12)
    assert task.mean != load("cifar10", tmp_path, split_seed=5).mean
    prepared = task.prepared(task.train.inputs).double()
    assert prepared.mean((0, 2, 3)).tolist() == pytest.approx([0] * 3, abs=1e-6)
    assert prepared.std((0, 2, 3)).tolist() == pytest.approx([1] * 3, abs=1e-4)


def test_pooled_pixels_are_means_of_squares_halves_up(tmp_path):
    images = torch.randint(0, 256, (5, 3, 6, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    means = torch.nn.functional.avg_pool2d(images.double(), 2)
    assert torch.equal(data.pooled(images, 2).double(), (means + 0.5).floor()) and data.pooled(images, 1) is images
    assert (means % 1 == 0.5).any()  # so that the rounding was seen


def test_a_task_of_smaller_images(tmp_path):
    images, labels = letters()
    write_arrays(tmp_path, images=images, labels=labels)
    whole, half = load("file:letters", tmp_path), load("file:letters", tmp_path, pool=2)
    assert half.shape == (1, 3, 2) and half.fingerprint != whole.fingerprint
    for mine, other in zip(splits_of(half), splits_of(whole), strict=True):
        assert torch.equal(mine.inputs, data.pooled(other.inputs, 2)) and torch.equal(mine.targets, other.targets)
    with pytest.raises(ValueError, match=r"pool must divide the height and the width of the images, 6 and 4; got 3"):
        load("file:letters", tmp_path, pool=3)
    with pytest.raises(ValueError, match=r"pool must be left out for data 'digits', whose split is fixed; got 2"):
        load("digits", pool=2)
