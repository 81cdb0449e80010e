"""Tasks by name: the root, the division into splits, and what a choice of images means."""

import os

import pytest
import torch
from written import (
    splits_of,
    write_cifar,
    write_tree,
)

from bisam.training import data
from bisam.training.data import DataError, check_name, digits, load


def test_an_unknown_task_is_named():
    with pytest.raises(ValueError, match=r"data must be one of digits.*; got 'emnist'"):
        load("emnist")


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_the_division_is_the_documented_one(seed, tmp_path, monkeypatch):
    train, labels, _, _ = write_cifar(tmp_path, "cifar10", monkeypatch)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(seed))
    task = load("cifar10", tmp_path, split_seed=seed)
    assert torch.equal(task.train.inputs, torch.tensor(train)[order[:90]])
    assert torch.equal(task.validation.targets, torch.tensor(labels)[order[90:]])


def test_fewer_images_are_taken_before_the_division(tmp_path, monkeypatch):
    train, _, test, test_labels = write_cifar(tmp_path, "cifar10", monkeypatch)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(3))
    task = load("cifar10", tmp_path, train_images=47, test_images=7, split_seed=3)
    assert [len(split) for split in splits_of(task)] == [43, 4, 7]
    assert torch.equal(task.train.inputs, torch.tensor(train)[order[:43]])
    assert torch.equal(task.validation.inputs, torch.tensor(train)[order[43:47]])
    first = torch.randperm(20, generator=torch.Generator().manual_seed(0))[:7]
    assert torch.equal(task.test.inputs, torch.tensor(test)[first])
    assert torch.equal(task.test.targets, torch.tensor(test_labels)[first])
    assert torch.equal(load("cifar10", tmp_path, test_images=7, split_seed=4).test.inputs, task.test.inputs)


def test_a_task_is_kept_until_its_files_change(tmp_path, monkeypatch):
    write_cifar(tmp_path, "cifar10", monkeypatch)
    first = load("cifar10", tmp_path)
    assert load("cifar10", str(tmp_path)) is first
    os.utime(tmp_path / "cifar-10-batches-py" / "data_batch_3", ns=(1, 1))
    assert load("cifar10", tmp_path) is not first


def test_the_root_is_the_argument_else_the_variable_else_data(tmp_path, monkeypatch):
    for n, place in enumerate(("argument", "variable", "data")):
        write_tree(tmp_path / place, tested=n + 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BISAM_DATA", raising=False)
    assert len(load("folder:flowers").test) == 6
    monkeypatch.setenv("BISAM_DATA", str(tmp_path / "variable"))
    assert len(load("folder:flowers").test) == 4
    assert len(load("folder:flowers", "argument").test) == 2
    monkeypatch.setenv("BISAM_DATA", "")
    assert len(load("folder:flowers").test) == 6


def test_ten_training_images_are_the_least(tmp_path):
    write_tree(tmp_path, n=4)
    with pytest.raises(DataError, match=r"data 'folder:flowers' in .* has 8 training images; at least 10 are needed"):
        load("folder:flowers", tmp_path)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"train_images": 25}, ValueError, r"train_images must be at most 24, the images there are; got 25"),
        ({"test_images": 13}, ValueError, r"test_images must be at most 12, the images there are; got 13"),
        ({"train_images": 9}, ValueError, r"train_images must be at least 10, got 9"),
        ({"test_images": 0}, ValueError, r"test_images must be at least 1, got 0"),
        ({"train_images": 12.0}, TypeError, r"train_images must be a whole number, not 12\.0 of type float"),
        ({"split_seed": -1}, ValueError, r"split_seed must be at least 0, got -1"),
        ({"split_seed": "0"}, TypeError, r"split_seed must be a whole number, not '0' of type str"),
        ({"root": 3}, TypeError, r"root must be the path of a folder, not 3 of type int"),
    ],
)
def test_a_wrong_argument_of_load_is_named(options, error, message, tmp_path):
    write_tree(tmp_path)
    with pytest.raises(error, match=message):
        load("folder:flowers", **{"root": tmp_path, **options})


@pytest.mark.parametrize("options", [{"train_images": 100}, {"test_images": 100}, {"split_seed": 1}])
def test_a_fixed_split_cannot_be_chosen(options):
    with pytest.raises(ValueError, match=rf"{next(iter(options))} must be left out for data 'digits'"):
        load("digits", **options)
    assert load("digits", root="anywhere", split_seed=0) is digits()


def test_names_that_are_allowed():
    for name in (*data.DATA, "folder:cifar10-jpeg", "folder:v1.2_x", "file:mnist10k"):
        assert check_name(name) == name
    for name in ("folder:", "folder:../x", "folder:a/b", "folder:.hidden", "file:", "file:a/b", "cifar", "", None, 3, ["digits"]):
        with pytest.raises(ValueError, match=r"one of digits, mnist, fashion-mnist, cifar10, cifar100, imagenet, flowers102, pets, folder:NAME or file:NAME"):
            check_name(name)
    with pytest.raises(ValueError, match=r"data must be one of"):
        load("folder:../flowers")


def test_the_entries_of_the_table_make_their_task(tmp_path, monkeypatch):
    write_cifar(tmp_path, "cifar10", monkeypatch)
    monkeypatch.setenv("BISAM_DATA", str(tmp_path))
    assert data.DATA["digits"]() is digits() and data.DATA["cifar10"]() is load("cifar10")
