"""The networks of the benchmark, and random batches of the right shape for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bisam.training.models import cifar_resnet
from bisam.training.models import mlp as hidden_layers

CLASSES = 10


@dataclass(frozen=True)
class Net:
    """A network with the batch that it is timed on."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]  # of one sample
    batch: int

    def on(self, device: str, seed: int) -> tuple[nn.Module, Tensor, Tensor]:
        """The network and one batch; the same weights and samples for the same seed."""
        torch.manual_seed(seed)
        model = self.build().to(device)
        inputs = torch.randn(self.batch, *self.shape, device=device)
        return model, inputs, torch.randint(CLASSES, (self.batch,), device=device)


def resnet20() -> nn.Module:
    """ResNet-20 for 32x32 images, 0.27 million parameters in many small tensors."""
    return cifar_resnet((3, 32, 32), CLASSES, depth=20)


def vgg() -> nn.Module:
    """A plain stack of convolutions with batch norm, VGG-11 of half its width: 2.3 million parameters."""
    layers: list[nn.Module] = []
    before = 3
    for width in (32, "pool", 64, "pool", 128, 128, "pool", 256, 256, "pool", 256, 256, "pool"):
        if width == "pool":
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before, CLASSES))


def mlp() -> nn.Module:
    """Three hidden layers of 2048: 14.7 million parameters in eight tensors, so that passes over them are felt."""
    return hidden_layers((3072,), CLASSES, width=2048, depth=3)


def nets(device: str) -> dict[str, Net]:
    """The networks by name; on a CPU the convolutional ones see smaller batches, to keep the runs short."""
    images, batch = (3, 32, 32), 64 if device == "cpu" else 128
    rows = (
        Net("resnet-20", resnet20, images, batch), Net("vgg", vgg, images, batch),
        Net("mlp", mlp, (3072,), 128), Net("mlp, small batch", mlp, (3072,), 16),
    )  # fmt: skip
    return {row.name: row for row in rows}


def many_and_large(nets: dict[str, Net]) -> list[Net]:
    """One network of many small tensors and one of few large ones, where they are among these; otherwise all."""
    return [nets[name] for name in ("resnet-20", "mlp") if name in nets] or list(nets.values())


def size(model: nn.Module) -> dict[str, int]:
    """Numbers and tensors that the parameters are."""
    sizes = [parameter.numel() for parameter in model.parameters()]
    return {"parameters": sum(sizes), "tensors": len(sizes)}
