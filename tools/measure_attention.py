"""Measures where small vision transformers look that were trained by AdamW, SAM and BiSAM, on the same images and with the same seeds.

With ``--search`` it chooses first, on validation data and on seeds of their own, the rate of AdamW, and then the radius of SAM at this rate; the rows
go to ``results/measured/attention_search.json``. Without, it trains every method on every seed and measures the networks after their last epoch:

* ``attention.json``: a row a network and layer, with how concentrated its looks at the test images are, how much ink they see, and how much accuracy is
  lost where the patches are erased that it looks at most;
* ``attention_pairs.json``: a row a pair of networks and layer, with how alike their looks are;
* ``attention_looks.json``: the looks of the first seeds at the first test image of each class.

Each network is kept in the folder of work as soon as it is measured, and a run that was cut goes on where it was. What was predicted before the first of
these rows is in ``results/measured/attention.toml``.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path

import measured_files
import torch
from torch import Tensor, nn

from bisam._progress import bar
from bisam.evidence import measured
from bisam.evidence.experiment import method
from bisam.evidence.places import RESULTS
from bisam.losses import CrossEntropy
from bisam.measure import agreement, attention, concentration, looks
from bisam.measure.held import held
from bisam.training import Run, data, equal_budget, fit

METHODS = (
    "sgd",
    "sgd-equal-epochs",
    "sam",
    "bisam-log",
    "bisam-tanh",
)  # "sgd" is the base alone, here AdamW, with as many passes as SAM
SEEDS, EPOCHS, BATCH = range(800, 810), 15, 25
SEARCH_SEEDS, RATES, RADII = (7200, 7201, 7202), (0.001, 0.002, 0.004), (0.02, 0.05, 0.1)
SIDE, LAYERS = 2, 4  # of a patch in pixels, and of the network
ERASED = 4  # of 16 patches
SHOWN = 3  # seeds whose looks are kept
WHAT = {
    "attention_search": "One row a network of the search: validation accuracy in percent after the last epoch. rho is 0 for AdamW alone.",
    "attention": "networks: accuracy on 500 test images in percent, cross-entropy there, and the points that are lost where 4 of the 16 patches of each image "
    "are erased, drawn at random or those with the most ink. rows: of each layer the mean over the test images of the concentration C and of the ink that a "
    "look sees, over the mean ink of the image; ink_other: the same on the ink of all test images in the mean; lost_most, lost_least: the points that are "
    "lost where the 4 patches are erased that are looked at most or least.",
    "attention_pairs": "One row a pair of networks and layer: the agreement S of their looks, in the mean over the 500 test images.",
    "attention_looks": "One row a network, layer and image, the first test image of each class: the look at the 16 patches in thousandths, row by row.",
}  # fmt: skip


def run_of(name: str, seed: int, lr: float, rho: float) -> Run:
    recipe, epochs = method(name), EPOCHS
    if name == "sgd":
        epochs = equal_budget(EPOCHS, recipe)
    elif name != "sgd-equal-epochs":
        recipe = recipe.with_rho(rho)
    return Run(
        recipe,
        model="vit-tiny",
        base="adamw",
        lr=lr,
        epochs=epochs,
        batch_size=BATCH,
        seed=seed,
        evaluate_every=epochs,
    )


def write(name: str, networks: list[dict], rows: list[dict], seconds: float, folder: Path) -> None:
    measured_files.write(name, WHAT[name], networks, rows, seconds, folder, digits=5)


def patches(images: Tensor) -> Tensor:
    """The ink of every patch, 0 where there is none, over that of a patch of the image in the mean: shape ``(n, 16)``."""
    ink = nn.functional.avg_pool2d(images - images.min(), SIDE).flatten(1)
    return ink / ink.mean(1, keepdim=True)


def erased(images: Tensor, score: Tensor) -> Tensor:
    """The images without the ink of the patches whose score is highest."""
    gone = torch.zeros_like(score).scatter(1, score.topk(ERASED).indices, 1.0)
    size = images.shape[-1] // SIDE
    mask = nn.functional.interpolate(gone.view(-1, 1, size, size), scale_factor=SIDE)
    return torch.where(mask > 0, images.min(), images)


@torch.no_grad()
def of_network(model: nn.Module, x: Tensor, y: Tensor) -> tuple[dict, list[dict], Tensor]:
    """The columns of a network, those of its layers, and its looks, of shape ``(layers, n, 16)``."""
    with held(model, "running"):
        logits = model(x)
        there = float((logits.argmax(1) == y).double().mean())

        def lost(score: Tensor) -> float:
            return 100 * (there - float((model(erased(x, score)).argmax(1) == y).double().mean()))

        ink, draw = patches(x), torch.Generator().manual_seed(0)
        network = {
            "test_accuracy": 100 * there, "test_loss": float(CrossEntropy()(logits, y)),
            "lost_random": lost(torch.rand(ink.shape, generator=draw)), "lost_ink": lost(ink),
        }  # fmt: skip
        maps = attention(model, x)
        seen = torch.stack([looks(maps, layer) for layer in range(len(maps))])
        rows = [
            {
                "layer": layer, "concentration": float(concentration(p).mean()), "ink": float((p * ink).sum(1).mean()),
                "ink_other": float(p.mean(0) @ ink.mean(0)), "lost_most": lost(p), "lost_least": lost(-p),
            }
            for layer, p in enumerate(seen, 1)
        ]  # fmt: skip
    return network, rows, seen


# -- the search -----------------------------------------------------------------------------------------------------------


def chosen(rows: list[dict]) -> tuple[float, float]:
    """The rate of AdamW with the highest mean validation accuracy, and the radius of SAM at it; of equals the smallest. Both 0 while rows lack."""
    found = []
    for name, column, values in (("sgd-equal-epochs", "lr", RATES), ("sam", "rho", RADII)):
        score = {
            v: [row["validation_accuracy"] for row in rows if row["method"] == name and row[column] == v]
            for v in values
        }
        whole = all(len(each) == len(SEARCH_SEEDS) for each in score.values())
        found.append(
            max(values, key=lambda v, score=score: (round(statistics.mean(score[v]), 6), -v))
            if whole
            else 0.0
        )
    return found[0], found[1]


def search(folder: Path, progress: bool) -> None:
    there = folder / "measured" / "attention_search.json"
    before = measured.load("attention_search", folder) if there.exists() else None
    rows, seconds = (before.rows, before.environment["wall_seconds"]) if before else ([], 0.0)
    plans = (
        [("sgd-equal-epochs", v, seed) for v in RATES for seed in SEARCH_SEEDS],
        [("sam", v, seed) for v in RADII for seed in SEARCH_SEEDS],
    )
    with bar(
        "networks",
        sum(map(len, plans)),
        "networks",
        progress,
        done=len(rows),
        line="{done} of {total} networks",
    ) as advance:
        for name, value, seed in (one for plan in plans for one in plan):
            lr, rho = (value, 0.0) if name != "sam" else (chosen(rows)[0], value)
            place = {"seed": seed, "method": name, "lr": lr, "rho": rho}
            if any(place.items() <= row.items() for row in rows):
                continue
            began = time.perf_counter()
            history = fit(run_of(name, seed, lr, rho))
            seconds += time.perf_counter() - began
            rows.append({**place, "validation_accuracy": history.rows[-1]["validation_accuracy"]})
            write("attention_search", [], rows, seconds, folder)
            advance(1)


# -- the measurement ------------------------------------------------------------------------------------------------------


def measure(folder: Path, work: Path, progress: bool) -> None:
    lr, rho = chosen(measured.load("attention_search", folder).rows)
    if not rho:
        raise SystemExit("the search is not whole: run it first, with --search")
    split = data.digits().test
    work.mkdir(parents=True, exist_ok=True)
    plan = list(itertools.product(SEEDS, METHODS))
    there = sum((work / f"{name}-{seed}.pt").exists() for seed, name in plan)
    with bar(
        "networks", len(plan), "networks", progress, done=there, line="{done} of {total} networks"
    ) as advance:
        for seed, name in plan:
            if (work / f"{name}-{seed}.pt").exists():
                continue
            began = time.perf_counter()
            history = fit(run_of(name, seed, lr, rho))
            network, rows, seen = of_network(history.model, split.inputs, split.targets)
            place = {"seed": seed, "method": name}
            network = {**place, "epochs": history.run.epochs, "fitted": history.fitted, **network}
            kept = {
                "network": network,
                "rows": [{**place, **row} for row in rows],
                "looks": seen,
                "seconds": time.perf_counter() - began,
            }
            torch.save(kept, work / f"{name}-{seed}.part")
            (work / f"{name}-{seed}.part").rename(work / f"{name}-{seed}.pt")
            advance(1)
    gather(
        folder, {(name, seed): torch.load(work / f"{name}-{seed}.pt") for seed, name in plan}, split.targets
    )


def gather(folder: Path, kept: dict[tuple[str, int], dict], targets: Tensor) -> None:
    seconds = sum(one["seconds"] for one in kept.values())
    networks = [one["network"] for one in kept.values()]
    write("attention", networks, [row for one in kept.values() for row in one["rows"]], seconds, folder)
    pairs = [((name, a), (name, b)) for name in METHODS for a, b in itertools.combinations(SEEDS, 2)]
    pairs += [((METHODS[0], seed), (name, seed)) for name in METHODS[1:] for seed in SEEDS]
    rows = [
        {
            "method": a[0], "seed": a[1], "other": b[0], "other_seed": b[1], "layer": layer + 1,
            "agreement": round(float(agreement(torch.stack([kept[a]["looks"][layer], kept[b]["looks"][layer]])).mean()), 5),
        }
        for a, b in pairs for layer in range(LAYERS)
    ]  # fmt: skip
    write("attention_pairs", [], rows, 0.0, folder)
    images = [int((targets == c).nonzero()[0]) for c in range(10)]
    rows = [
        {"method": name, "seed": seed, "layer": layer + 1, "image": image, "look": " ".join(str(round(1000 * v)) for v in one["looks"][layer, image].tolist())}
        for (name, seed), one in kept.items() if seed in SEEDS[:SHOWN] for layer in range(LAYERS) for image in images
    ]  # fmt: skip
    write("attention_looks", [], rows, 0.0, folder)


def main() -> int:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--folder", type=Path, default=RESULTS, help="of the results, in which the folder measured is"
    )
    arguments.add_argument(
        "--work",
        type=Path,
        default=Path("_build") / "attention",
        help="where the networks are kept that are measured",
    )
    arguments.add_argument(
        "--search", action="store_true", help="choose the rate and the radius, and measure nothing"
    )
    arguments.add_argument("--quiet", action="store_true", help="without a bar")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    if given.search:
        search(given.folder, not given.quiet)
        print("rate {}, radius {}".format(*chosen(measured.load("attention_search", given.folder).rows)))
    else:
        measure(given.folder, given.work, not given.quiet)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
