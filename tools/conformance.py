"""Asks public implementations of SAM the questions of `bisam.testing`, and writes what came out to `book/conformance.json`.

    python tools/conformance.py [--path FOLDER ...] [--sam-py FILE]

Asked is what can be imported, also from the folders that are given (`pip install --no-deps --target FOLDER PACKAGE`). `--sam-py` is the file
`sam.py` of the repository davda54/sam, which is no package. What is not there keeps its earlier outcome.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.metadata
import importlib.util
import json
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

import bisam
from bisam import testing
from bisam.testing.setting import Candidate, gap, net

ROOT = Path(__file__).resolve().parents[1]
OUTCOMES = ROOT / "book" / "conformance.json"


@dataclass(frozen=True)
class Peer:
    """One implementation: where it is, how it is made and driven."""

    distribution: str
    module: str
    factory: callable
    style: callable
    is_sam: bool = True
    version: str | None = None  # of what is no distribution
    beside: bisam.Recipe = bisam.SAM  # ours that ought to make the same steps


def from_class(name: str, **more):
    """The factory of a class that takes parameters, the class of its base and the settings of both."""

    def factory(module):
        def made(params, base_cls, rho, **kwargs):
            return getattr(module, name)(params, base_cls, rho=rho, **more, **kwargs)

        return made

    return factory


def around_a_base(module):
    """sam-pytorch: parameters and a base that is made."""
    return lambda params, base_cls, rho, **kwargs: module.SAM(params, base_cls(params, **kwargs), rho=rho)


def around_a_base_alone(module):
    """Composer of MosaicML: a base that is made."""
    return lambda params, base_cls, rho, **kwargs: module.SAMOptimizer(base_cls(params, **kwargs), rho=rho)


def with_a_model(module):
    """WSAM of pytorch_optimizer."""
    return lambda params, base_cls, rho, model, **kwargs: module.WSAM(model, params, base_cls, rho=rho, **kwargs)


def constant_radius(module):
    """GSAM of pytorch_optimizer, with a radius that stays."""

    class Constant:
        def __init__(self, rho):
            self.rho = rho

        def step(self):
            return self.rho

    def made(params, base_cls, rho, model, **kwargs):
        return module.GSAM(params, base_cls(params, **kwargs), model, Constant(rho))

    return made


def modular(module):
    """torchzero: an optimiser of modules, the last of which is the base."""

    def made(params, base_cls, rho, **kwargs):
        return module.Optimizer(params, module.m.SAM(rho=rho), module.m.Wrap(base_cls, **kwargs))

    return made


def returning_a_pair(optimizer, model, loss_fn):
    """GSAM of pytorch_optimizer evaluates a function that returns outputs and loss."""

    def evaluate():
        optimizer.zero_grad()
        total = sum(_with_gradient(part(model)) for part in loss_fn.parts)
        return None, total

    with torch.enable_grad():
        optimizer.step(torch.enable_grad()(evaluate))


def told_whether_to_differentiate(optimizer, model, loss_fn):
    """torchzero: a closure with the argument ``backward``."""

    def evaluate(backward=True):
        if not backward:
            return loss_fn(model)
        optimizer.zero_grad()
        return sum(_with_gradient(part(model)) for part in loss_fn.parts)

    optimizer.step(evaluate)


def told_of_workers(optimizer, model, loss_fn):
    """Composer: a closure that is also told whether workers are to share gradients, and where losses go."""

    def evaluate(**_):
        optimizer.zero_grad()
        return sum(_with_gradient(part(model)) for part in loss_fn.parts)

    optimizer.step(evaluate)


def _with_gradient(loss):
    loss.backward()
    return loss.detach()


def ours(module):
    def made(params, base_cls, rho, **kwargs):
        return module.SharpnessAware(base_cls(params, **kwargs), module.SAM.with_rho(rho))

    return made


GSAM = bisam.SAM.replace(name="gsam with alpha 0.4", combination=bisam.Decomposed(alpha=0.4))
LOOKSAM = bisam.LOOKSAM.replace(name="looksam in every second step", combination=bisam.LookSAM(every=2, alpha=0.7))
PEERS = {
    "bisam, a batch": Peer("bisam", "bisam", ours, testing.batch),
    "bisam, a block": Peer("bisam", "bisam", ours, testing.block),
    "davda54/sam, SAM": Peer("davda54/sam", "sam.py", from_class("SAM"), testing.two_steps, version="3c3afdb"),
    "pytorch_optimizer, SAM": Peer("pytorch_optimizer", "pytorch_optimizer", from_class("SAM"), testing.backward_then_closure),
    "pytorch_optimizer, GSAM": Peer("pytorch_optimizer", "pytorch_optimizer", constant_radius, returning_a_pair, is_sam=False, beside=GSAM),
    "pytorch_optimizer, WSAM": Peer("pytorch_optimizer", "pytorch_optimizer", with_a_model, testing.closure, is_sam=False, beside=None),
    "pytorch_optimizer, LookSAM": Peer("pytorch_optimizer", "pytorch_optimizer", from_class("LookSAM", k=2), testing.backward_then_closure, is_sam=False, beside=LOOKSAM),
    "pytorch_optimizer, FriendlySAM": Peer("pytorch_optimizer", "pytorch_optimizer", from_class("FriendlySAM"), testing.backward_then_closure, is_sam=False, beside=bisam.recipe("fsam")),
    "Composer, SAM": Peer("mosaicml", "composer.algorithms.sam.sam", around_a_base_alone, told_of_workers),
    "sam-pytorch, SAM": Peer("sam-pytorch", "sam", around_a_base, testing.closure),
    "torchzero, SAM": Peer("torchzero", "torchzero", modular, told_whether_to_differentiate),
}  # fmt: skip


def imported(peer: Peer, sam_py: Path | None):
    """The module of a peer, or ``None`` if it is not there."""
    if peer.module.endswith(".py"):
        if sam_py is None:
            return None
        spec = importlib.util.spec_from_file_location("sam_of_davda54", sam_py)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    try:
        return importlib.import_module(peer.module)
    except ModuleNotFoundError as error:  # of itself, or of what it needs
        print(f"{peer.module}: {error}", file=sys.stderr)
        return None


def trained(factory, style) -> torch.nn.Module:
    """A network after six steps."""
    model, candidate = net(), Candidate(factory, style, rho=0.05, is_sam=False)
    return candidate.trained(candidate.made(model), model, range(6))


def difference(peer: Peer, module) -> dict | None:
    """The largest difference of a weight, in float64, from six steps of our recipe."""
    if peer.beside is None or peer.module == "bisam":
        return None

    def own(params, base_cls, rho, **kwargs):
        return bisam.SharpnessAware(base_cls(params, **kwargs), peer.beside, rho=rho)

    found = gap(trained(peer.factory(module), peer.style), trained(own, testing.batch))
    return {"recipe": peer.beside.name, "difference": found}


def asked(peer: Peer, module) -> dict:
    report = testing.check(peer.factory(module), peer.style, is_sam=peer.is_sam)
    return {
        "version": peer.version or importlib.metadata.version(peer.distribution),
        "style": peer.style.__name__,
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
        "beside": difference(peer, module),
        "checks": report.to_dict(),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", action="append", default=[], help="a folder with installed packages")
    parser.add_argument("--sam-py", type=Path, help="sam.py of davda54/sam")
    given = parser.parse_args(arguments)
    sys.path += given.path
    torch.set_num_threads(1)
    earlier = json.loads(OUTCOMES.read_text(encoding="utf-8")) if OUTCOMES.exists() else {}
    found = {}
    for name, peer in PEERS.items():
        module = imported(peer, given.sam_py)
        if module is not None:
            found[name] = asked(peer, module)
        elif name in earlier:
            found[name] = earlier[name]
        print(f"{name}: {_in_short(found[name]) if name in found else 'is not installed'}")
    OUTCOMES.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _in_short(outcome: dict) -> str:
    failed = [name for name, check in outcome["checks"].items() if check["verdict"] == "failed"]
    return f"version {outcome['version']}, {'not as asked: ' + ', '.join(failed) if failed else 'all as asked'}"


if __name__ == "__main__":
    main()
