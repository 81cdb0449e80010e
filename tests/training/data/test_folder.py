"""Folders with one class each."""


import pytest
import torch
import torchvision
from PIL import Image
from written import (
    as_torchvision,
    rows,
    rows_of_both,
    write_tree,
)

from bisam.training.data import DataError, folder, load, loading


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
