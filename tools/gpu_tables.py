"""The tables of the page on borrowed GPUs, from the lines that the stages wrote there: `book/MACHINE/*.jsonl`."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINES = ROOT / "book"
NETWORKS = {"resnet56": "ResNet-56", "vgg19-bn": "VGG19-BN", "mlp": "perceptron"}
WAYS = {"whole-step": "one graph", "no": "eager"}


def tables() -> dict[str, str]:
    """Name of a file to the table in it."""
    return {"gpu_steps.md": steps("h200"), "gpu_side_by_side.md": side_by_side("h200")}


def lines(machine: str, stage: str) -> dict[str, dict]:
    """What a stage has measured there, by name."""
    found = (json.loads(line) for line in (LINES / machine / f"{stage}.jsonl").read_text(encoding="utf-8").splitlines())
    return {line["name"]: line for line in found}


def steps(machine: str) -> str:
    """A row for each network, precision and way: milliseconds of a step, and its price in floors."""
    rows = ["| network | precision | way | floor, ms | SAM, ms | BiSAM (-log), ms | SAM in floors | BiSAM over SAM |", f"| --- | --- | --- |{' ---: |' * 5}"]
    found = lines(machine, "speed")
    for name, line in found.items():
        if name.startswith("step ") and "floor" in line:
            _, net, precision, way = name.split()
            numbers = [f"{1000 * line[key]:.2f}" for key in ("floor", "sam", "bisam-log")]
            ratios = [f"{line['sam in floors']:.2f}", f"{line['bisam-log'] / line['sam']:.3f}"]
            rows.append(f"| {' | '.join([NETWORKS[net], precision, WAYS[way], *numbers, *ratios])} |")
    for name, line in found.items():
        if name.startswith("published way "):
            net = name.removeprefix("published way ")
            numbers = [f"{1000 * line[key]:.2f}" for key in ("sam", "bisam")]
            cells = [NETWORKS[net], "float32", "loop of the public code", "", *numbers, "", f"{line['ratio']:.3f}"]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def side_by_side(machine: str) -> str:
    """Images a second of the first experiment, by how many trainings go at a time."""
    rows = ["| trainings at a time | images a second |", "| --- | ---: |"]
    found = next(line for name, line in lines(machine, "speed").items() if name.startswith("side by side"))
    for key, value in found.items():
        if key.startswith("images a second"):
            way = key.removeprefix("images a second, ")
            words = {"eager": "1, eager", "1": "1, a graph"}.get(way, f"{way}, each a graph")
            rows.append(f"| {words} | {value:,.0f} |")
    return "\n".join(rows) + "\n"
