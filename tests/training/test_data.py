"""The digits and their splits, images read from files of each kind, and labels that are wrong on purpose."""

import dataclasses
import gzip
import hashlib
import json
import os
import pickle
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms import functional

from bisam.training import data
from bisam.training.data import (
    DataError,
    Split,
    check_name,
    decoded,
    digits,
    fetched,
    folder,
    images,
    load,
    loading,
    symmetric_noise,
)
from bisam.training.data import pixels as scaling
from bisam.training.data import task as tasks

SPLITS = ("train", "validation", "test")
CLEAN = torch.arange(1000) % 10


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


@pytest.mark.parametrize("reading", ["other", "any"])
@pytest.mark.parametrize("rate", [0.0, 0.001, 0.0016, 0.2, 0.55, 0.999])
def test_only_the_stated_share_is_redrawn(rate, reading):
    noisy = symmetric_noise(CLEAN, rate, 10, seed=0, reading=reading)
    changed = int((noisy != CLEAN).sum())
    assert changed == round(rate * 1000) if reading == "other" else changed <= round(rate * 1000)
    assert noisy.dtype == torch.int64 and noisy.min() >= 0 and noisy.max() < 10


def test_other_never_draws_the_true_class_and_any_does_one_time_in_k():
    rates = []
    for reading in ("other", "any"):
        wrong = [
            float((symmetric_noise(CLEAN, 0.5, 10, seed, reading) != CLEAN).float().mean())
            for seed in range(20)
        ]
        rates.append(wrong)
    assert rates[0] == pytest.approx([0.5] * 20)
    assert sum(rates[1]) / 20 == pytest.approx(0.45, abs=0.01) and max(rates[1]) < 0.5


def test_new_classes_are_uniform_over_the_wrong_ones():
    drawn = torch.cat([symmetric_noise(CLEAN * 0 + 3, 0.9, 4, seed) for seed in range(10)])
    counts = drawn.bincount(minlength=4)
    assert counts[3] == 1000 and (counts[:3] - 3000).abs().max() < 250


def test_the_seed_decides():
    draws = [symmetric_noise(CLEAN, 0.3, 10, seed).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_noise_leaves_the_given_labels_and_the_random_state_alone():
    given, state = CLEAN.clone(), torch.get_rng_state()
    symmetric_noise(given, 0.5, 10, seed=3)
    assert torch.equal(given, CLEAN) and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((CLEAN, 1.0, 10, 0), ValueError, r"rate must be in \[0, 1\), got 1\.0"),
        ((CLEAN, -0.1, 10, 0), ValueError, r"rate must be in \[0, 1\), got -0\.1"),
        ((CLEAN, float("nan"), 10, 0), ValueError, r"rate must be finite, got nan"),
        ((CLEAN, "0.1", 10, 0), TypeError, r"rate must be a real number, not '0\.1' of type str"),
        ((CLEAN, 0.1, 1, 0), ValueError, r"classes must be at least 2, got 1"),
        ((CLEAN, 0.1, 9, 0), ValueError, r"targets must be in 0 \.\. 8 .* got 9"),
        ((CLEAN, 0.1, 10, -1), ValueError, r"seed must be at least 0, got -1"),
        ((CLEAN, 0.1, 10, 0.5), TypeError, r"seed must be a whole number, not 0\.5 of type float"),
        ((CLEAN, 0.1, 10, 0, "true"), ValueError, r"reading must be one of other, any; got 'true'"),
        (
            (CLEAN.float(), 0.1, 10, 0),
            TypeError,
            r"targets must hold whole class numbers .* got torch\.float32",
        ),
        ((CLEAN.tolist(), 0.1, 10, 0), TypeError, r"targets must be a tensor of class numbers, got list"),
        ((CLEAN[:0], 0.1, 10, 0), ValueError, r"targets must hold at least one sample, got an empty batch"),
    ],
)
def test_a_wrong_argument_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        symmetric_noise(*arguments)


def test_an_unknown_task_is_named():
    with pytest.raises(ValueError, match=r"data must be one of digits.*; got 'emnist'"):
        load("emnist")


# Images read from files


class OldType:
    """The type of the numbers as NumPy 1 under Python 2 wrote it into CIFAR's files."""

    def __reduce__(self):
        return np.dtype, ("u1", 0, 0), (3, "|", None, None, None, -1, -1, 0)


class OldArray:
    def __init__(self, array):
        self.array = array

    def __reduce__(self):
        rebuild, start = np.zeros(1).__reduce__()[:2]
        return rebuild, start, (1, self.array.shape, OldType(), False, self.array.tobytes())


def pixels_of(n, channels, size, seed):
    return np.random.default_rng(seed).integers(0, 256, (n, channels, size, size), dtype=np.uint8)


def write_cifar(root, name, monkeypatch, n=100, tested=20):
    """Small files of the names and the format of the real ones, with checksums to match."""
    kind = getattr(torchvision.datasets, fetched.FETCHED[name])
    folder, key, classes = root / kind.base_folder, *{"cifar10": ("labels", 10), "cifar100": ("fine_labels", 100)}[name]
    folder.mkdir(parents=True)
    train, test = pixels_of(n, 3, 32, seed=1), pixels_of(tested, 3, 32, seed=2)
    labels = np.arange(n) % classes, np.arange(tested) % classes

    def write(file, content):
        (folder / file).write_bytes(pickle.dumps(content, protocol=2))
        return [file, hashlib.md5((folder / file).read_bytes()).hexdigest()]

    def batch(images, targets):
        return {"data": OldArray(images.reshape(len(images), -1)), key: targets.tolist()}

    parts = np.array_split(np.arange(n), len(kind.train_list))
    names = [file for file, _ in kind.train_list]
    sums = [write(file, batch(train[part], labels[0][part])) for file, part in zip(names, parts, strict=True)]
    monkeypatch.setattr(kind, "train_list", sums)
    monkeypatch.setattr(kind, "test_list", [write(kind.test_list[0][0], batch(test, labels[1]))])
    meta = write(kind.meta["filename"], {kind.meta["key"]: [f"class {k}" for k in range(classes)]})
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": meta[1]})
    return train, labels[0], test, labels[1]


def write_fashion(root, monkeypatch, packed, n=60, tested=20, called="FashionMNIST"):
    kind, folder, sums = getattr(torchvision.datasets, called), root / called / "raw", []
    folder.mkdir(parents=True)
    train, test = pixels_of(n, 1, 28, seed=1)[:, 0], pixels_of(tested, 1, 28, seed=2)[:, 0]
    arrays = train, (np.arange(n) % 10).astype(np.uint8), test, (np.arange(tested) % 10).astype(np.uint8)
    for (file, _), array in zip(kind.resources, arrays, strict=True):
        raw = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()
        content, name = (gzip.compress(raw), file) if packed else (raw, file.removesuffix(".gz"))
        (folder / name).write_bytes(content)
        sums.append((file, hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(kind, "resources", sums)
    return train[:, None], arrays[1].astype(np.int64), test[:, None], arrays[3].astype(np.int64)


def write_tree(root, name="flowers", classes=("daisy", "rose"), n=12, tested=6, suffix="png", size=(6, 5)):
    """Random images: ``n`` of each class to train on, ``tested`` of each to test."""
    for part, count, seed in (("train", n, 0), ("test", tested, 1)):
        for label in classes:
            folder = root / name / part / label
            folder.mkdir(parents=True)
            for k in range(count):
                draw = np.random.default_rng([seed, k, len(label)])
                image = draw.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(image).save(folder / f"{k:03}.{suffix}")
    return root / name


def rows(inputs, targets):
    return sorted((bytes(x.contiguous().numpy()), int(y)) for x, y in zip(inputs, targets, strict=True))


def rows_of_both(task):
    """Training and validation images together."""
    return sorted(rows(task.train.inputs, task.train.targets) + rows(task.validation.inputs, task.validation.targets))


def splits_of(task):
    return [getattr(task, name) for name in SPLITS]


def write_any(name, root, monkeypatch):
    if name.startswith("cifar"):
        return write_cifar(root, name, monkeypatch)
    return write_fashion(root, monkeypatch, packed=name.endswith("gz"), called=fetched.FETCHED[name.removesuffix(".gz")])


KINDS = {
    "mnist": (10, (1, 28, 28), 60), "fashion-mnist": (10, (1, 28, 28), 60),
    "cifar10": (10, (3, 32, 32), 100), "cifar100": (100, (3, 32, 32), 100),
}  # fmt: skip
each_fetched = pytest.mark.parametrize("kind", [*KINDS, "mnist.gz", "fashion-mnist.gz"])


@each_fetched
def test_files_that_torchvision_fetches_are_read_whole(kind, tmp_path, monkeypatch):
    name = kind.removesuffix(".gz")
    train, labels, test, test_labels = map(torch.tensor, write_any(kind, tmp_path, monkeypatch))
    task = load(name, tmp_path)
    classes, shape, n = KINDS[name]
    assert (task.name, task.classes, task.shape) == (name, classes, shape)
    assert [len(split) for split in splits_of(task)] == [n - n // 10, n // 10, 20]
    assert rows_of_both(task) == rows(train, labels)
    assert torch.equal(task.test.inputs, test) and torch.equal(task.test.targets, test_labels)
    assert all(split.inputs.dtype == torch.uint8 and split.inputs.is_contiguous() for split in splits_of(task))
    assert all(split.targets.dtype == torch.int64 for split in splits_of(task))


@pytest.mark.parametrize("name", KINDS)
def test_images_and_classes_are_those_that_torchvision_hands_out(name, tmp_path, monkeypatch):
    write_any(name, tmp_path, monkeypatch)
    if name.startswith("cifar"):
        with pytest.warns(Warning, match="align"):  # what the old notation of the types makes of today's NumPy
            theirs = getattr(torchvision.datasets, fetched.FETCHED[name])(tmp_path, train=False)
    else:
        theirs = getattr(torchvision.datasets, fetched.FETCHED[name])(tmp_path, train=False)
    ours = load(name, tmp_path).test
    for k, (image, target) in enumerate(theirs):
        assert torch.equal(functional.pil_to_tensor(image), ours.inputs[k]) and target == ours.targets[k]


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


def test_a_channel_of_one_value_becomes_zero():
    images = torch.cat([torch.full((12, 1, 3, 3), 200), torch.randint(0, 256, (12, 1, 3, 3))], 1).to(torch.uint8)
    mean, std = scaling.statistics(images)
    assert (mean[0], std[0]) == (pytest.approx(200 / 255), 1.0)
    split = Split(images, torch.zeros(12, dtype=torch.int64))
    prepared = data.Data("half", 2, split, split, split, mean, std).prepared(images)
    assert prepared[:, 0].abs().max() < 1e-6 and float(prepared[:, 1].std(correction=0)) == pytest.approx(1, abs=1e-5)


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


@pytest.mark.parametrize("name", KINDS)
def test_missing_data_are_named_with_the_command_that_fetches_them(name, tmp_path):
    with pytest.raises(DataError) as caught:
        load(name, tmp_path / "nowhere")
    command = re.search(r'python -c "(.*)"$', str(caught.value)).group(1)
    assert str(tmp_path / "nowhere") in str(caught.value) and "BISAM_DATA" in str(caught.value)
    call = command.removeprefix("import torchvision; ")
    kind = getattr(torchvision.datasets, fetched.FETCHED[name])
    assert call == f"torchvision.datasets.{kind.__name__}({str(tmp_path / 'nowhere')!r}, download=True)"
    compile(command, "command", "exec")


@pytest.mark.parametrize("file", ["data_batch_4", "test_batch", "batches.meta"])
@pytest.mark.parametrize("accident", ["truncated", "changed", "missing"])
def test_a_broken_file_of_cifar_is_named(file, accident, tmp_path, monkeypatch):
    write_cifar(tmp_path, "cifar10", monkeypatch)
    path = tmp_path / "cifar-10-batches-py" / file
    content = path.read_bytes()
    if accident == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-9] if accident == "truncated" else content[:40] + b"x" + content[41:])
    expected = "no file" if accident == "missing" else "is truncated or corrupt|its MD5 sum"
    with pytest.raises(DataError, match=expected) as caught:
        load("cifar10", tmp_path)
    assert str(path) in str(caught.value) and "download=True" in str(caught.value)


def test_files_that_pass_their_checksums_and_cannot_be_read_end_in_the_same_error(tmp_path, monkeypatch):
    write_cifar(tmp_path, "cifar10", monkeypatch)
    path, kind = tmp_path / "cifar-10-batches-py" / "test_batch", torchvision.datasets.CIFAR10
    path.write_bytes(b"no pickle")
    monkeypatch.setattr(kind, "test_list", [["test_batch", hashlib.md5(b"no pickle").hexdigest()]])
    with pytest.raises(DataError, match=r"data 'cifar10' in .* cannot be read \(UnpicklingError"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("stem", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("accident", ["truncated", "empty", "header", "missing"])
def test_a_broken_idx_file_is_named(stem, accident, packed, tmp_path, monkeypatch):
    write_fashion(tmp_path, monkeypatch, packed)
    path = tmp_path / "FashionMNIST" / "raw" / (stem + ".gz" * packed)
    content = path.read_bytes()
    if accident == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": content[:-3], "empty": b"", "header": b"\1" + content[1:]}[accident])
    expected = "no file" if accident == "missing" else "is truncated or corrupt"
    with pytest.raises(DataError, match=expected) as caught:
        load("fashion-mnist", tmp_path)
    assert str(path).removesuffix(".gz") in str(caught.value) and "FashionMNIST(" in str(caught.value)


def test_packed_files_of_the_same_names_from_another_data_set_are_refused(tmp_path, monkeypatch):
    write_fashion(tmp_path, monkeypatch, packed=True)
    path = tmp_path / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    raw = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(raw[:-1] + bytes([raw[-1] ^ 255])))
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz is truncated or corrupt \(its MD5 sum"):
        load("fashion-mnist", tmp_path)


@pytest.mark.parametrize("broken", [lambda raw: raw[:-20], lambda raw: raw[:50] + b"xxxxxxxx" + raw[58:]])
def test_a_packed_file_that_passes_its_checksum_must_still_unpack(broken, tmp_path, monkeypatch):
    write_fashion(tmp_path, monkeypatch, packed=True)
    kind = torchvision.datasets.FashionMNIST
    path = tmp_path / "FashionMNIST" / "raw" / kind.resources[1][0]
    path.write_bytes(broken(gzip.compress(bytes(range(256)) * 40)))
    monkeypatch.setattr(kind, "resources", [kind.resources[0], (path.name, None), *kind.resources[2:]])
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz is truncated or corrupt \("):
        load("fashion-mnist", tmp_path)


@pytest.mark.parametrize(
    "labels, message",
    [
        ([0] * 59, r"has 60 training and 20 test images, but the classes of 59 and 20"),
        ([0] * 59 + [10], r"has classes 0 \.\. 9, but a label 10"),
    ],
)
def test_classes_that_do_not_fit_the_images(labels, message, tmp_path, monkeypatch):
    write_fashion(tmp_path, monkeypatch, packed=False)
    path = tmp_path / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte"
    path.write_bytes(struct.pack(">2I", 0x801, len(labels)) + bytes(labels))
    with pytest.raises(DataError, match=message):
        load("fashion-mnist", tmp_path)


# Folders


def as_torchvision(tree, part):
    folder = torchvision.datasets.ImageFolder(tree / part)
    return torch.stack([functional.pil_to_tensor(image) for image, _ in folder]), torch.tensor(folder.targets)


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG", "bmp"])
def test_a_folder_is_read_as_by_torchvision(suffix, tmp_path):
    tree = write_tree(tmp_path, classes=("rose", "Aster", "daisy"), suffix=suffix)
    (tree / "train" / "rose" / "notes.txt").write_text("no image")
    deeper = tree / "train" / "daisy" / "0-more"
    deeper.mkdir()
    Image.new("L", (6, 5), 77).save(deeper / "grey.png")
    for _ in ("decoded", "kept"):
        task = load("folder:flowers", tmp_path)
        assert rows_of_both(task) == rows(*as_torchvision(tree, "train"))
        assert all(map(torch.equal, (task.test.inputs, task.test.targets), as_torchvision(tree, "test")))
        assert (task.name, task.classes, task.shape, len(task.test)) == ("folder:flowers", 3, (3, 5, 6), 18)
        loading.divided.cache_clear()


def test_the_order_of_the_files_is_that_of_torchvision(tmp_path):
    tree = write_tree(tmp_path, classes=("b", "B", "a b", "a"), n=3)
    for place in ("b/z", "b/a/c", "b/a-c"):
        (tree / "train" / place).mkdir(parents=True)
        Image.new("RGB", (6, 5)).save(tree / "train" / place / "one.webp")
    theirs = torchvision.datasets.ImageFolder(tree / "train").samples
    assert [(file.path, file.target) for file in folder.listing(tree / "train")] == theirs


def test_the_suffixes_are_those_of_torchvision():
    assert folder.SUFFIXES == torchvision.datasets.folder.IMG_EXTENSIONS


def refuse(paths):
    raise AssertionError("decoded again")


def test_decoded_images_are_kept_beside_the_tree(tmp_path, monkeypatch):
    write_tree(tmp_path)
    first = load("folder:flowers", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flowers", "flowers.decoded.npz"]
    loading.divided.cache_clear()
    monkeypatch.setattr(folder, "decode", refuse)
    again = load("folder:flowers", tmp_path)
    assert again is not first and again.fingerprint == first.fingerprint


def test_a_tree_that_moves_takes_its_decoded_images_along(tmp_path, monkeypatch):
    write_tree(tmp_path / "here")
    first = load("folder:flowers", tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.setattr(folder, "decode", refuse)
    assert load("folder:flowers", tmp_path / "there").fingerprint == first.fingerprint


def repaint(path):
    """Another picture in a file of the same size."""
    raw = path.read_bytes()
    path.write_bytes(raw[:-8] + bytes(255 - byte for byte in raw[-8:]))


CHANGES = {
    "added": lambda tree: Image.new("RGB", (8, 5)).save(tree / "train" / "rose" / "new.bmp"),
    "removed": lambda tree: (tree / "train" / "rose" / "003.bmp").unlink(),
    "renamed": lambda tree: (tree / "test" / "rose" / "003.bmp").rename(tree / "test" / "rose" / "zzz.bmp"),
    "to another class": lambda tree: (tree / "test" / "rose" / "003.bmp").rename(tree / "test" / "daisy" / "x.bmp"),
    "repainted": lambda tree: repaint(tree / "train" / "daisy" / "005.bmp"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("process", ["same", "new"])
def test_a_changed_tree_is_decoded_again(change, process, tmp_path):
    tree = write_tree(tmp_path, suffix="bmp", size=(8, 5))
    for path in tree.rglob("*.bmp"):
        os.utime(path, ns=(10**9, 10**9))
    first = load("folder:flowers", tmp_path).fingerprint
    CHANGES[change](tree)
    if process == "new":
        loading.divided.cache_clear()
    task = load("folder:flowers", tmp_path)
    assert task.fingerprint != first
    assert all(map(torch.equal, (task.test.inputs, task.test.targets), as_torchvision(tree, "test")))


ACCIDENTS = {
    "truncated": lambda raw: raw[: len(raw) // 2],
    "empty": lambda raw: b"",
    "one byte": lambda raw: raw[:-400] + bytes([raw[-400] ^ 1]) + raw[-399:],
    "another kind": lambda raw: pickle.dumps({"key": 1}),
}


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_broken_decoded_images_are_made_again(accident, tmp_path, monkeypatch):
    write_tree(tmp_path)
    first, cache = load("folder:flowers", tmp_path).fingerprint, tmp_path / "flowers.decoded.npz"
    whole = cache.read_bytes()
    cache.write_bytes(ACCIDENTS[accident](whole))
    assert cache.read_bytes() != whole
    loading.divided.cache_clear()
    assert load("folder:flowers", tmp_path).fingerprint == first
    loading.divided.cache_clear()
    monkeypatch.setattr(folder, "decode", refuse)
    assert load("folder:flowers", tmp_path).fingerprint == first


def test_decoded_images_come_back_as_they_were_and_only_under_their_key(tmp_path):
    path, pixels, targets = tmp_path / "x.npz", torch.from_numpy(pixels_of(4, 3, 5, seed=0)), torch.tensor([0, 2, 1])
    whole = images.Images(3, pixels[:3], targets, pixels[3:], targets[1:2])
    decoded.keep(path, "key", whole)
    again = decoded.kept(path, "key")
    assert again.classes == 3 and all(map(torch.equal, again[1:], whole[1:]))
    assert decoded.kept(path, "other") is None and decoded.kept(tmp_path / "y.npz", "key") is None
    assert path.stat().st_mode & 0o444 == 0o444  # others may read it too


@pytest.mark.parametrize("accident", ["in the way", "read-only", "full"])
def test_without_a_place_for_decoded_images_there_is_a_warning(accident, tmp_path, monkeypatch):
    write_tree(tmp_path)

    def refused(*args, **options):
        raise OSError(accident)

    if accident == "in the way":
        (tmp_path / "flowers.decoded.npz").mkdir()
    if accident == "read-only":
        monkeypatch.setattr("bisam._files._begun", refused)
    if accident == "full":
        monkeypatch.setattr(np, "savez", refused)
    with pytest.warns(UserWarning, match=r"decoded images cannot be kept in .*flowers\.decoded\.npz"):
        task = load("folder:flowers", tmp_path)
    assert len(task.test) == 12 and not list(tmp_path.rglob("*.part"))


def test_two_processes_that_decode_at_once_both_succeed(tmp_path):
    write_tree(tmp_path, n=400, tested=200)
    code = f"from bisam.training import data; print(data.load('folder:flowers', {str(tmp_path)!r}).fingerprint)"
    children = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = [child.communicate()[0].strip() for child in children]
    assert [child.returncode for child in children] == [0, 0] and found[0] == found[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flowers", "flowers.decoded.npz"]
    assert load("folder:flowers", tmp_path).fingerprint == found[0]


def test_a_wrong_root_and_missing_folders_are_named(tmp_path):
    with pytest.raises(DataError, match=rf"data 'folder:flowers' is not there: no folder {tmp_path}/nowhere\."):
        load("folder:flowers", tmp_path / "nowhere")
    with pytest.raises(DataError, match=rf"no folder {tmp_path}/flowers\..*BISAM_DATA"):
        load("folder:flowers", tmp_path)
    (tmp_path / "flowers" / "train" / "rose").mkdir(parents=True)
    with pytest.raises(DataError, match=rf"no folder {tmp_path}/flowers/test\."):
        load("folder:flowers", tmp_path)


def test_train_and_test_must_have_the_same_classes(tmp_path):
    tree = write_tree(tmp_path, classes=("rose", "daisy", "aster"))
    (tree / "train" / "aster").rename(tree / "train" / "tulip")
    with pytest.raises(DataError, match=r"only in train: tulip; only in test: aster; in both: 2"):
        load("folder:flowers", tmp_path)
    for part in ("train", "test"):
        (tmp_path / "empty" / part).mkdir(parents=True)
    with pytest.raises(DataError, match=r"two classes at least; only in train: none; only in test: none; in both: 0"):
        load("folder:empty", tmp_path)


def test_a_class_without_images_is_named(tmp_path):
    tree = write_tree(tmp_path)
    for part in ("train", "test"):
        (tree / part / "void").mkdir()
    with pytest.raises(DataError, match=rf"{tree}/train/void holds no image that ends in \.jpg, "):
        load("folder:flowers", tmp_path)


@pytest.mark.parametrize("part", ["train", "test"])
def test_images_of_two_sizes_are_named(part, tmp_path):
    tree = write_tree(tmp_path)
    odd = tree / part / "rose" / "odd.png"
    Image.new("RGB", (7, 5)).save(odd)
    with pytest.raises(DataError, match=rf"{odd} has 5 x 7 pixels and {tree}/train/daisy/000\.png 5 x 6; all images"):
        load("folder:flowers", tmp_path)
    assert not (tmp_path / "flowers.decoded.npz").exists()


@pytest.mark.parametrize("suffix, accident", [("jpg", "half"), ("png", "half"), ("jpg", "empty"), ("png", "text")])
def test_a_broken_image_is_named(suffix, accident, tmp_path):
    tree = write_tree(tmp_path, suffix=suffix, size=(40, 40))
    path = tree / "test" / "rose" / f"002.{suffix}"
    content = path.read_bytes()
    path.write_bytes({"half": content[: len(content) // 2], "empty": b"", "text": b"no image"}[accident])
    with pytest.raises(DataError, match=rf"image {path} is truncated or corrupt"):
        load("folder:flowers", tmp_path)
    assert not (tmp_path / "flowers.decoded.npz").exists()


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    tree = write_tree(tmp_path)
    (tree / "train" / "rose" / "lost.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=rf"image {tree}/train/rose/lost\.png cannot be read \(No such file"):
        load("folder:flowers", tmp_path)


def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch):
    write_tree(tmp_path)

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load("folder:flowers", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["flowers"]


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
        with pytest.raises(ValueError, match=r"one of digits, mnist, fashion-mnist, cifar10, cifar100, folder:NAME or file:NAME"):
            check_name(name)
    with pytest.raises(ValueError, match=r"data must be one of"):
        load("folder:../flowers")


def test_the_entries_of_the_table_make_their_task(tmp_path, monkeypatch):
    write_cifar(tmp_path, "cifar10", monkeypatch)
    monkeypatch.setenv("BISAM_DATA", str(tmp_path))
    assert data.DATA["digits"]() is digits() and data.DATA["cifar10"]() is load("cifar10")


# Files of arrays


def write_arrays(root, name="letters", **arrays):
    path = root / f"{name}.npz"
    np.savez(path, **arrays)
    return path


def letters(n=31, channels=(), seed=0):
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (n, *channels, 6, 4), dtype=np.uint8), np.arange(n) % 3


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


# Smaller images


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


# The file of the experiments on MNIST


def test_digits_of_the_package_become_arrays_and_others_are_refused(tmp_path, capsys):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
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
