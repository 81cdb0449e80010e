"""Small files of every kind of source, of the names and the format of the real ones."""

import gzip
import hashlib
import pickle
import struct

import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision.transforms import functional

from bisam.training.data import fetched

SPLITS = ("train", "validation", "test")

KINDS = {
    "mnist": (10, (1, 28, 28), 60), "fashion-mnist": (10, (1, 28, 28), 60),
    "cifar10": (10, (3, 32, 32), 100), "cifar100": (100, (3, 32, 32), 100),
}  # fmt: skip


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


def write_any(name, root, monkeypatch):
    if name.startswith("cifar"):
        return write_cifar(root, name, monkeypatch)
    return write_fashion(root, monkeypatch, packed=name.endswith("gz"), called=fetched.FETCHED[name.removesuffix(".gz")])


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


def as_torchvision(tree, part):
    folder = torchvision.datasets.ImageFolder(tree / part)
    return torch.stack([functional.pil_to_tensor(image) for image, _ in folder]), torch.tensor(folder.targets)


def write_arrays(root, name="letters", **arrays):
    path = root / f"{name}.npz"
    np.savez(path, **arrays)
    return path


def letters(n=31, channels=(), seed=0):
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (n, *channels, 6, 4), dtype=np.uint8), np.arange(n) % 3


def rows(inputs, targets):
    return sorted((bytes(x.contiguous().numpy()), int(y)) for x, y in zip(inputs, targets, strict=True))


def rows_of_both(task):
    """Training and validation images together."""
    return sorted(rows(task.train.inputs, task.train.targets) + rows(task.validation.inputs, task.validation.targets))


def splits_of(task):
    return [getattr(task, name) for name in SPLITS]
