"""Tasks and their splits: fingerprints, and images that are scaled."""

import dataclasses

import pytest
import torch
from torchvision.transforms import functional
from written import (
    write_cifar,
)

from bisam.training import data
from bisam.training.data import (
    Split,
    digits,
    load,
)
from bisam.training.data import task as tasks


def test_the_fingerprint_sees_every_number_and_every_class():
    task = digits()
    for changed in (task.test.inputs.clone(), task.test.targets.clone()):
        changed[-1] += 1
        split = Split(changed, task.test.targets) if changed.ndim > 1 else Split(task.test.inputs, changed)
        assert data.Data("digits", 10, task.train, task.validation, split).fingerprint != task.fingerprint
    assert data.Data("digits", 10, task.train, task.test, task.validation).fingerprint != task.fingerprint


def test_moving_a_split_keeps_it():
    split = digits().validation.to("cpu")
    assert torch.equal(split.inputs, digits().validation.inputs) and len(split) == 297


def test_scaling_is_that_of_torchvision_to_the_bit(tmp_path, monkeypatch):
    write_cifar(tmp_path, "cifar10", monkeypatch)
    task = load("cifar10", tmp_path)
    inputs = task.train.inputs.clone()
    for image, prepared in zip(inputs, task.prepared(inputs), strict=True):
        tensor = functional.to_tensor(image.permute(1, 2, 0).numpy())
        assert torch.equal(functional.normalize(tensor, task.mean, task.std), prepared)
    assert torch.equal(inputs, task.train.inputs)


def test_ready_floats_are_handed_back_as_they_are():
    assert digits().prepared(digits().test.inputs) is digits().test.inputs
    assert digits().mean is None and digits().std is None


@pytest.mark.parametrize("change", [{"mean": None}, {"std": (0.5,)}, {"std": (0.5, 0.5, 0.0)}, {"mean": (0.5,) * 4}])
def test_images_need_a_mean_and_a_deviation_for_each_channel(change, tmp_path, monkeypatch):
    write_cifar(tmp_path, "cifar10", monkeypatch)
    with pytest.raises(ValueError, match=r"mean and std must hold a number for each of the 3 channels"):
        dataclasses.replace(load("cifar10", tmp_path), **change)


def test_the_fingerprint_sees_images_division_and_scaling_and_is_made_once(tmp_path, monkeypatch):
    write_cifar(tmp_path, "cifar10", monkeypatch)
    task = load("cifar10", tmp_path)
    variants = [task, load("cifar10", tmp_path, split_seed=1), load("cifar10", tmp_path, train_images=99)]
    variants += [dataclasses.replace(task, mean=(0.5, 0.5, 0.5)), dataclasses.replace(task, std=(0.5, 0.5, 0.5))]
    assert len({variant.fingerprint for variant in variants}) == 5
    monkeypatch.setattr(tasks.hashlib, "sha256", None)
    assert len(task.fingerprint) == 16
