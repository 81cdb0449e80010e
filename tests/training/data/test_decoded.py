"""Decoded images that are kept beside their tree."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from written import (
    as_torchvision,
    pixels_of,
    write_tree,
)

from bisam.training.data import folder, images, load, loading


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
    images.keep(path, "key", whole)
    again = images.kept(path, "key")
    assert again.classes == 3 and all(map(torch.equal, again[1:], whole[1:]))
    assert images.kept(path, "other") is None and images.kept(tmp_path / "y.npz", "key") is None
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


@pytest.mark.slow
def test_two_processes_that_decode_at_once_both_succeed(tmp_path):
    write_tree(tmp_path, n=400, tested=200)
    code = f"from bisam.training import data; print(data.load('folder:flowers', {str(tmp_path)!r}).fingerprint)"
    children = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = [child.communicate()[0].strip() for child in children]
    assert [child.returncode for child in children] == [0, 0] and found[0] == found[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flowers", "flowers.decoded.npz"]
    assert load("folder:flowers", tmp_path).fingerprint == found[0]


def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch):
    write_tree(tmp_path)

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load("folder:flowers", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["flowers"]
