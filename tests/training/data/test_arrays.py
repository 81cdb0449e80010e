"""Files of arrays."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from written import (
    letters,
    rows,
    rows_of_both,
    splits_of,
    write_arrays,
    write_tree,
)

from bisam.training.data import DataError, load


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_without_a_test_split_half_of_the_images_are_one(channels, tmp_path):
    images, labels = letters(channels=channels)
    write_arrays(tmp_path, images=images, labels=labels)
    task = load("file:letters", tmp_path, split_seed=1)
    assert (task.name, task.classes, task.shape) == ("file:letters", 3, (channels or (1,)) + (6, 4))
    assert [len(split) for split in splits_of(task)] == [15, 1, 15]
    whole = [image for split in splits_of(task) for image in rows(split.inputs, split.targets)]
    assert sorted(whole) == rows(torch.tensor(images), torch.tensor(labels))
    other = load("file:letters", tmp_path, split_seed=2)
    assert torch.equal(other.test.inputs, task.test.inputs) and not torch.equal(other.train.inputs, task.train.inputs)


def test_a_test_split_that_is_given_stays_as_it_is(tmp_path):
    (images, labels), (test, test_labels) = letters(), letters(9, seed=1)
    write_arrays(tmp_path, images=images, labels=labels, test_images=test, test_labels=test_labels.astype(np.uint8))
    task = load("file:letters", tmp_path)
    assert rows_of_both(task) == rows(torch.tensor(images), torch.tensor(labels))
    assert torch.equal(task.test.inputs, torch.tensor(test)[:, None]) and task.test.targets.tolist() == test_labels.tolist()


@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint64", ">i4", "int32"])
def test_labels_of_any_whole_kind_and_other_arrays_are_taken(kind, tmp_path):
    images, labels = letters()
    write_arrays(tmp_path, images=images, labels=labels.astype(kind), names=np.array(["a", "b", "c"]))
    assert load("file:letters", tmp_path).classes == 3


def test_a_tree_and_a_file_of_one_name_leave_each_other_alone(tmp_path):
    images, labels = letters()
    path = write_arrays(tmp_path, name="flowers", images=images, labels=labels)
    write_tree(tmp_path)
    before = path.read_bytes()
    assert load("folder:flowers", tmp_path).shape == (3, 5, 6) and path.read_bytes() == before
    assert load("file:flowers", tmp_path).shape == (1, 6, 4)


def test_a_file_that_changes_is_read_again(tmp_path):
    for seed in (0, 1):
        images, labels = letters(seed=seed)
        write_arrays(tmp_path, images=images, labels=labels)
        os.utime(tmp_path / "letters.npz", (seed, seed))
        assert rows_of_both(load("file:letters", tmp_path))[0] in rows(torch.tensor(images), torch.tensor(labels))


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"images": letters()[0]}, "holds no array 'labels'; it holds images"),
        ({"images": letters()[0].astype(float), "labels": letters()[1]}, r"images must be uint8 of shape .*, got torch.float64 \(31, 6, 4\)"),
        ({"images": letters(channels=(2,))[0], "labels": letters()[1]}, r"images must be .* \(n, 1 or 3, height, width\), got torch.uint8 \(31, 2, 6, 4\)"),
        ({"images": letters()[0], "labels": letters(30)[1]}, r"labels must be 31 whole numbers from 0, one an image; got torch.int64 \(30,\)"),
        ({"images": letters()[0], "labels": letters()[1] - 1}, "labels must be 31 whole numbers from 0"),
        ({"images": letters()[0], "labels": letters()[1] / 2}, "labels must be 31 whole numbers"),
        ({"images": letters()[0], "labels": letters()[1] * 0}, r"labels must be 0 \.\. K - 1 with at least two classes"),
        ({"images": letters()[0], "labels": letters()[1] * 10**9}, r"each of them there; they run to 2000000000, 3 of them"),
        ({"images": letters()[0], "labels": letters()[1], "test_images": letters()[0]}, "holds no array 'test_labels'"),
        (
            {"images": letters()[0], "labels": letters()[1], "test_images": letters(channels=(3,))[0], "test_labels": letters()[1]},
            r"images have shape \(1, 6, 4\) and test_images \(3, 6, 4\); they must agree",
        ),
    ],
)
def test_wrong_arrays_are_named(arrays, message, tmp_path):
    write_arrays(tmp_path, **arrays)
    with pytest.raises(DataError, match=message):
        load("file:letters", tmp_path)


def test_a_file_that_is_none_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no file .*letters.npz. Needed are arrays `images`"):
        load("file:letters", tmp_path)
    (tmp_path / "letters.npz").write_bytes(b"PK but no archive")
    with pytest.raises(DataError, match=r"letters.npz cannot be read as arrays"):
        load("file:letters", tmp_path)


# The file of the experiments on MNIST
def test_digits_of_the_package_become_arrays_and_others_are_refused(tmp_path, capsys):
    sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))
    import mnist10k

    draw, images = np.random.default_rng(0), []
    (tmp_path / "src" / "digits").mkdir(parents=True)
    for digit in range(10):
        pixels = draw.integers(0, 256, (2, 28, 28))
        images.append(pixels)
        rounded = [round(float(value), 3) for value in pixels.reshape(-1) / 255]
        (tmp_path / "src" / "digits" / f"{digit}.json").write_text(json.dumps({"data": rounded}))
    found, labels = mnist10k.arrays(tmp_path)
    assert found.dtype == np.uint8 and (found == np.concatenate(images)).all() and labels.tolist() == [digit for digit in range(10) for _ in range(2)]
    assert mnist10k.main(str(tmp_path), str(tmp_path / "out.npz")) == 1
    assert "those of the records have bc6b63550c8a82f6" in capsys.readouterr().err and not (tmp_path / "out.npz").exists()
