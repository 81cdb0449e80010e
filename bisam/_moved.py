"""What version 0.1.0 called otherwise: each old name fails with one sentence that gives the import of today."""

from __future__ import annotations

import sys
from types import ModuleType

# Room to names that were at the top of the package.
_NAMES = {
    "axes": "Unnormalised",
    "losses": "gap margins zero_one",
    "measure": "Flips Subspace climb landscape line_between loss_rise m_sharpness misclassified plane_through spectral_density top_eigenvalues trace",
    "methods": "ASAM_ALL A_BISAM_LOG A_BISAM_TANH BSAM ESAM_CODE E_BISAM_LOG E_BISAM_TANH FSAM KSAM LATE_SAM LETS_SAM LE_SAM MSAM M_BISAM_LOG "
    "M_BISAM_TANH Posterior Precision RSAM SAM_EVERY_K SAM_ON VASSO",
    "step": "Diagnostics held_buffers",
    "training": "History Run fit",
}
# Room to modules that have kept their names. `bisam.losses`, `bisam.notebook` and `bisam.step` are rooms now and still there.
_MODULES = {
    "axes": "combination direction geometry masks memory radius selection",
    "evidence": "crossed decisions descriptions ledger needed own_ledger plans pooling power prices published queue report reproduce statistics "
    "verdicts verify",
    "losses": "bounds surrogate",
    "notebook": "parameters plots tables",
    "step": "batch optimizer",
    "training": "augment captured checkpoint data environment metrics models own_code processes side_by_side workers",
}

# Name at the top of the package to the import of today.
NAMES = {
    **{name: f"from bisam.{room} import {name}" for room, names in _NAMES.items() for name in names.split()},
    "Noise": "from bisam.step import RNGState",
    "Look": "from bisam import LookSAM",
    "Handed": "from bisam.methods import FirstGradientToBase",
}
# Module to the module of today.
MODULES = {
    **{name: f"bisam.{room}.{name}" for room, names in _MODULES.items() for name in names.split()},
    "ascent": "bisam.step.two_pass", "diagnostics": "bisam.step.record", "displacement": "bisam.step.perturbation",
    "experiments": "bisam.evidence.listing", "files": "bisam._files", "hypergradient": "bisam.methods.lets", "landscapes": "bisam.measure",
    "progress": "bisam._progress", "recipe": "bisam.methods", "sharpness": "bisam.measure", "train": "bisam.training",
    "variational": "bisam.methods.bsam",
}  # fmt: skip

# Rooms that `import bisam` leaves alone, since they need more than torch.
LATER = ("measure", "testing", "training", "evidence", "notebook", "gpu", "commands")


def sentence(name: str) -> str | None:
    """Where ``bisam.<name>`` of version 0.1.0 is to be found, or ``None`` if it had no such name."""
    if name in NAMES:
        return f"bisam.{name} has moved: {NAMES[name]}"
    if name in MODULES:
        return f"bisam.{name} has moved: import {MODULES[name]}"
    return None


def attribute(name: str):
    """What ``bisam.<name>`` does where there is no such name."""
    if name in LATER:
        raise AttributeError(f"bisam.{name} is not loaded by `import bisam`: import bisam.{name}")
    raise AttributeError(sentence(name) or f"module 'bisam' has no attribute {name!r}")


class Finder:
    """Is asked last for a module, and says where one of version 0.1.0 has gone."""

    @staticmethod
    def find_spec(fullname: str, path=None, target=None) -> None:
        package, _, name = fullname.partition(".")
        if package == "bisam" and (said := sentence(name)):
            # Without the name of the module: `from bisam import fit` would swallow an error that has it.
            raise ModuleNotFoundError(said)


class Room(ModuleType):
    """The room ``bisam.step``, whose name was that of a function."""

    def __call__(self, *_, **__):
        raise TypeError("bisam.step was the Heaviside function and is now the room of the step: from bisam.losses import heaviside")


sys.meta_path.append(Finder)
