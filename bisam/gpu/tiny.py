"""A ledger and images that take seconds, to see that everything runs."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from .. import _files as files
from ..training.data import archive

CLAIMS = '''# Sizes that take seconds; nothing is claimed.
[experiment.gpu_tiny]
title = "Three methods for a few steps, to see that everything runs"
scale = "paper"
machine = "gpu"
methods = ["sgd", "sam", "bisam-log"]
seeds = 2
epochs = 2
label_noise = [0.4]

[experiment.gpu_tiny.settings]
data = "folder:tiny"
model = "airbench-narrow"
batch_size = 20
lr = 0.01
precision = "bfloat16"
compile = "whole-step"
augment = "crop2-flip"
'''


def write(out: Path) -> None:
    """Puts the list of experiments into a folder, and the images below ``data``."""
    from PIL import Image

    generator, images = torch.Generator().manual_seed(0), []
    for n, is_train in ((120, True), (30, False)):
        for k in range(n):
            pixels = torch.randint(0, 128, (3, 12, 12), generator=generator, dtype=torch.uint8)
            pixels[0] += 40 * (k % 3)
            raw = io.BytesIO()
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(raw, "jpeg")
            images.append((raw.getvalue(), k % 3, is_train))
    (out / "data").mkdir(parents=True, exist_ok=True)
    archive.write(archive.path_of("tiny", out / "data"), images)
    files.write_whole(out / "claims.toml", CLAIMS)
