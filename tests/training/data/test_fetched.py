"""The files that torchvision fetches, and files of these that are broken."""

import gzip
import hashlib
import re
import struct

import pytest
import torch
import torchvision
from torchvision.transforms import functional
from written import (
    KINDS,
    rows,
    rows_of_both,
    splits_of,
    write_any,
    write_cifar,
    write_fashion,
)

from bisam.training.data import (
    DataError,
    fetched,
    load,
)

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
