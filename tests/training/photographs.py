"""Small photographs of many sizes, drawn from a seed, in the layouts of the published sets."""

import numpy as np
import scipy.io
from PIL import Image

CLASSES = ("n01", "n02", "n03")


def photograph(path, target, draw, size=None):
    """Colours that tell the class, under noise."""
    height, width = draw.integers(20, 60, 2) if size is None else size
    pixels = draw.integers(0, 90, (height, width, 3)) + np.array([(0, 80, 160), (160, 0, 80), (80, 160, 0), (40, 40, 150)])[target % 4]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype("uint8")).save(path)


def write_imagenet(root, train=14, val=4, classes=CLASSES):
    draw = np.random.default_rng(0)
    for part, n in (("train", train), ("val", val)):
        for target, label in enumerate(classes):
            for k in range(n):
                photograph(root / "imagenet" / part / label / f"{label}_{k}.JPEG", target, draw)
    return root / "imagenet"


def write_folder(root, size=None, train=14, test=4, suffix="png"):
    draw = np.random.default_rng(0)
    for part, n in (("train", train), ("test", test)):
        for target, label in enumerate(CLASSES):
            for k in range(n):
                photograph(root / "own" / part / label / f"{k}.{suffix}", target, draw, size)
    return root / "own"


def write_flowers(root, train=9, valid=6, test=9, classes=3):
    base, draw, n = root / "flowers-102", np.random.default_rng(0), train + valid + test
    labels = np.arange(n) % classes
    for k, target in enumerate(labels):
        photograph(base / "jpg" / f"image_{k + 1:05d}.jpg", target, draw)
    order = draw.permutation(n) + 1
    parts = np.split(order, [train, train + valid])
    scipy.io.savemat(base / "imagelabels.mat", {"labels": labels[None] + 1})
    scipy.io.savemat(base / "setid.mat", dict(zip(("trnid", "valid", "tstid"), parts, strict=True)))
    return base


def write_pets(root, train=15, test=6, classes=3):
    base, draw = root / "oxford-iiit-pet", np.random.default_rng(0)
    for file, n in (("trainval", train), ("test", test)):
        rows = []
        for k in range(n):
            name = f"Great_Pyrenees_{file}_{k}"
            photograph(base / "images" / f"{name}.jpg", k % classes, draw)
            rows.append(f"{name} {k % classes + 1} {k % 2 + 1} 1")
        (base / "annotations").mkdir(exist_ok=True)
        (base / "annotations" / f"{file}.txt").write_text("\n".join(rows) + "\n")
    return base
