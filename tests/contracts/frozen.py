"""What six steps of every method leave in the weights: a digest of all bits, and three numbers for machines that round otherwise.

``python tests/contracts/frozen.py`` writes the file again. Do so only where a change is meant to move a number, and say so in
the changelog.
"""

import hashlib
import json
import platform
from pathlib import Path

import torch
from torch import nn

import bisam
from bisam import RECIPES, Batch, SharpnessAware, Variational
from bisam.step import RNGState

FILE = Path(__file__).with_name("frozen.json")
STEPS, SAMPLES, FEATURES, CLASSES = 6, 160, 6, 4  # 160 samples are two parts of m-SAM's 128


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 10), nn.Tanh(), nn.Linear(10, CLASSES))


def with_norm_and_dropout() -> nn.Module:
    return nn.Sequential(
        *(nn.Linear(FEATURES, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Dropout(0.3), nn.Linear(10, 8), nn.LayerNorm(8)),
        *(nn.ReLU(), nn.Linear(8, CLASSES)),
    )


NETS = {"plain": plain, "norm and dropout": with_norm_and_dropout}
BASES = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=1e-3),
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=0.01, weight_decay=0.1),
    "variational": lambda weights: Variational(weights, lr=0.1, samples=1000),
}
COMPOSED = ("gsam", "rsam", "ksam", "fsam", "vasso", "sam-on", "le-sam", "late-sam", "sam-every-k", "looksam", "bsam")
STYLES = ("step", "backward", "block")


def cases() -> list[tuple[str, str, str, str, str]]:
    """Recipe, net, base, style of loop and dtype."""
    found = []
    names = [*RECIPES, *(f"{name}-{surrogate}" for name in COMPOSED for surrogate in ("bisam-log", "bisam-tanh"))]
    for name in names:
        bases = ("variational",) if name.startswith("bsam") else ("sgd", "adamw")
        found += [(name, net, base, "step", "float64") for net in NETS for base in bases]
        found += [(name, "norm and dropout", bases[0], style, "float64") for style in ("backward", "block")]
        found += [(name, "norm and dropout", bases[0], "step", "float32")]
    return found


def after(name: str, net: str, base: str, style: str, dtype: str) -> dict:
    """The digest of the weights and buffers after the steps, or the words of a refusal."""
    torch.manual_seed(0)
    model = NETS[net]().to(getattr(torch, dtype))
    inputs = torch.randn(2 * STEPS, SAMPLES, FEATURES, dtype=torch.float64).to(getattr(torch, dtype))
    targets = torch.randint(CLASSES, (2 * STEPS, SAMPLES))
    recipe = bisam.recipe(name)
    if recipe.radius.rho and hasattr(recipe.radius, "start"):
        recipe = recipe.replace(radius=type(recipe.radius)(recipe.radius.rho, start=2, every=recipe.radius.every))
    opt = SharpnessAware(BASES[base](model.parameters()), recipe, seed=1)
    learns = type(recipe.radius).__name__ == "Learned"
    try:
        for k in range(STEPS):
            batch = Batch(model, inputs[k], targets[k])
            validation = {"validation": Batch(model, inputs[STEPS + k], targets[STEPS + k])} if learns else {}
            _one_step(opt, batch, validation, style)
    except ValueError as error:
        return {"refused": str(error)}
    tensors = [tensor for tensor in model.state_dict().values()]
    digest = hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)).hexdigest()
    flat = torch.cat([tensor.double().flatten() for tensor in tensors])
    waves = [torch.cos(torch.arange(len(flat), dtype=torch.float64) * rate) for rate in (0.0, 0.7, 1.9)]
    return {"sha256": digest, "numbers": [float(flat @ wave) for wave in waves]}


def _one_step(opt, batch: Batch, validation: dict, style: str) -> None:
    if style == "step":
        opt.step(batch, **validation)
        return
    opt.zero_grad()
    if style == "backward":
        half = SAMPLES // 2
        parts = [Batch(batch.model, x, y) for x, y in zip(batch.inputs.split(half), batch.targets.split(half), strict=True)]
        if validation or opt.recipe.has_one_climb:
            opt.backward(parts, **validation)
        else:
            for part in parts:
                opt.backward(part, weight=0.5)
    else:
        with _climbed(opt, batch):
            opt.recipe.descent(batch.model(batch.inputs), batch.targets).backward()
    opt.step()


def _climbed(opt, batch: Batch):
    if opt.recipe.ascent is not None or opt.recipe.start is not None:
        return opt.perturbed(batch.model, ascent=lambda: opt.recipe.raised(batch.model(batch.inputs), batch.targets))
    noise = RNGState()
    opt.recipe.descent(batch.model(batch.inputs), batch.targets).backward()
    return opt.perturbed(batch.model, noise)


def key(case: tuple[str, ...]) -> str:
    return " | ".join(case)


def machine() -> str:
    """What the last bits of a product of matrices depend on."""
    return f"torch {torch.__version__.partition('+')[0]}, {torch.backends.cpu.get_cpu_capability()}, {_processor()}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {key(case): after(*case) for case in cases()}
    FILE.write_text(json.dumps({"machine": machine(), "after": found}, indent=0) + "\n")
    print(f"{len(found)} cases, {sum('refused' in entry for entry in found.values())} of them refused")
