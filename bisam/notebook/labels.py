"""What a claim is called in tables and figures: a few words that say the methods, the data, the place and the epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from .. import _checks
from ..evidence.claim import Claim
from ..evidence.experiment import EQUAL_EPOCHS, Experiment
from ..evidence.listing import experiments
from ..evidence.places import RESULTS
from ..evidence.published import published
from .plots import style_of

__all__ = ["PARTS", "label"]

PARTS = ("methods", "data", "network", "noise", "place", "epoch")

DATA = {
    "digits": "digits", "file:mnist10k": "MNIST", "folder:cifar10-jpeg": "JPEG copy of CIFAR-10", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100",
    "imagenet": "ImageNet", "flowers102": "Oxford Flowers", "pets": "Oxford-IIIT Pets", "parallel:multi30k": "Multi30k", "parallel:iwslt14": "IWSLT'14",
    "parallel:number-words": "number words",
    **{f"glue:{task}": words for task, words in (("cola", "CoLA"), ("mrpc", "MRPC"), ("rte", "RTE"), ("sts-b", "STS-B"), ("sst-2", "SST-2"), ("qnli", "QNLI"), ("wnli", "WNLI"))},
}  # fmt: skip
NETWORKS = {  # the small network of the digits needs no name
    "small_conv": "", "densenet121": "DenseNet-121", "resnet8": "ResNet-8", "resnet18": "ResNet-18", "resnet20": "ResNet-20",
    "resnet32": "ResNet-32", "resnet56": "ResNet-56", "vgg19-bn": "VGG19-BN", "wrn-28-2": "WRN-28-2", "wrn-34-2": "WRN-34-2",
    "wrn-34-10": "WRN-34-10", "airbench-narrow": "narrow Airbench", "airbench-medium": "medium Airbench", "airbench-wide": "wide Airbench",
    "mlp": "perceptron", "resnet50": "ResNet-50", "vit-b-16:imagenet": "ViT-B/16", "encoder:minilm": "small encoder", "encoder:deberta": "DeBERTa",
    "seq2seq_small": "transformer", "seq2seq_tiny": "small transformer",
}  # fmt: skip
MEASURED = {
    "accuracy": "", "top5_accuracy": ", top 5", "f1": ", F1", "matthews": ", Matthews", "pearson": ", Pearson", "spearman": ", Spearman", "bleu": ", BLEU",
}  # fmt: skip
EPOCHS = {
    **{f"selected_test_{metric}": f"chosen epoch{words}" for metric, words in MEASURED.items()},
    **{f"last_test_{metric}": f"last epoch{words}" for metric, words in MEASURED.items()},
    "broken": "broken samples",
}
BASES = {"sgd": "SGD", "adamw": "AdamW", "muon": "Muon"}
PLACES: Mapping[str, Callable[[object], str]] = {  # axis of a grid to what a value of it is called
    "augment": lambda name: "with Cutout" if "cutout" in name else "without Cutout",
    "batch_size": lambda size: f"batch size {size}",
    "bootstrap": lambda twice: "with bootstrap" if twice else "without bootstrap",
    "epochs": lambda count: f"{count} epochs",
    "lr": lambda rate: f"rate {rate:g}",
    "mixup": lambda alpha: "with Mixup" if alpha else "without Mixup",
    "model": lambda name: NETWORKS.get(name, name),
    "rho": lambda radius: f"radius {radius:g}",
    "validation_noise": lambda noisy: "wrong validation labels" if noisy else "right validation labels",
}
AVERAGED = {"model": "networks", "split_seed": "splits"}


def label(claim: Claim, without: Iterable[str] = (), folder: Path = RESULTS) -> str:
    """What a claim compares, in words: the methods, the data, the network, the wrong labels, the rest of the place, and the epoch.

    Within an experiment no two claims have the same label.

    Args:
        claim: one of :func:`bisam.evidence.listing.claims`.
        without: parts to leave out, of ``PARTS``, because all rows of a table share them and its caption says so.
        folder: the ledger.

    Raises:
        TypeError, ValueError: no claim, or an unknown part.

    Example:
        >>> from bisam.evidence.listing import claims
        >>> log = next(claim for claim in claims("digits") if claim.id == "digits/log-over-sam-noise40-last")
        >>> label(log)
        'BiSAM (-log) over SAM, digits, 40 % wrong labels, last epoch'
        >>> label(log, without=("data", "epoch"))
        'BiSAM (-log) over SAM, 40 % wrong labels'
    """
    claim = _checks.part("claim", claim, Claim, "a Claim")
    left_out = [_checks.choice("a part in without", part, PARTS) for part in without]
    known = experiments(folder)
    parts = _parts(claim, known[claim.experiment]) if claim.experiment in known else _printed(claim)
    return ", ".join(words for part, words in parts.items() if words and part not in left_out)


def _parts(claim: Claim, plan: Experiment) -> dict[str, str]:
    where = {**plan.settings, **claim.place}
    averaged = [f"average of {len(plan.grid[axis])} {AVERAGED.get(axis, axis)}" for axis in claim.over]
    network = "" if "model" in claim.against else NETWORKS.get(where.get("model"), where.get("model", ""))
    told = [name for name in ("augment", "batch_size", "bootstrap", "epochs", "lr", "mixup", "rho") if name in claim.place] + ["validation_noise"] * ("validation_noise" in where)
    return {
        "methods": _methods(claim, plan),
        "data": _data(where.get("data", "digits")),
        "network": network,
        "noise": _noise(where.get("label_noise")),
        "place": ", ".join([*averaged, *(PLACES[name](where[name]) for name in told if name not in claim.against)]),
        "epoch": EPOCHS[claim.metric],
    }


def _data(name: str) -> str:
    """A data set; of a task of GLUE without the folder of its tokeniser."""
    return DATA.get(name) or DATA.get(":".join(name.split(":")[:2]), name)


def _methods(claim: Claim, plan: Experiment | None) -> str:
    sides = []
    for name, place in ((claim.ours, claim.place), (claim.theirs, claim.other_place)):
        known = plan if claim.ours != claim.theirs else None  # of one method with itself the budget says nothing
        sides.append(_with(_method(name, known), [PLACES[axis](place[axis]) for axis in claim.against]))
    return " over ".join(sides)


def _with(method: str, words: list[str]) -> str:
    """A method with more words in its brackets, so that no comma stands outside of them."""
    if not words:
        return method
    before = f"{method[:-1]}, " if method.endswith(")") else f"{method} ("
    return f"{before}{', '.join(words)})"


def _method(name: str, plan: Experiment | None) -> str:
    """The label of a method; the base alone with its budget where the experiment has it at two."""
    base = BASES["sgd" if plan is None else plan.settings.get("base", "sgd")]  # a method is compared with itself around SGD alone
    if name == EQUAL_EPOCHS:
        return f"{base} at equal epochs"
    if name == "sgd" and plan is not None and EQUAL_EPOCHS in plan.methods:
        return f"{base} at equal passes"
    if name == "sgd":
        return base
    known, comma, more = style_of(name).label.rpartition(", ")
    return _with(known, [more]) if comma and not more.endswith(")") else style_of(name).label


def _noise(share: float | None) -> str:
    if share is None:
        return ""
    return f"{100 * share:.0f} % wrong labels" if share else "clean labels"


def _printed(claim: Claim) -> dict[str, str]:
    """The parts of a claim without an experiment, from the table that it bears upon."""
    row = next(iter(published(**claim.published)), {}) if claim.published else {}
    return {"methods": _methods(claim, None), "data": row.get("dataset", ""), "epoch": EPOCHS[claim.metric]}
