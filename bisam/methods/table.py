"""The methods, row by row: each default carries its own source."""

from __future__ import annotations

import math

from .. import _checks
from ..axes.balls import L2, Adaptive, Lp, Unnormalised
from ..axes.combination import Decomposed, LookSAM
from ..axes.direction import Averaged
from ..axes.masks import Masked, Only
from ..axes.radius import Constant
from ..axes.recipe import SAM, Recipe, by_name
from ..axes.schedules import ByLearningRate, LossBudget, Phase
from ..axes.selection import MostSensitive, TopK
from ..axes.start import RandomStart
from ..losses.bounds import NegLog, Tanh
from ..losses.surrogate import Surrogate
from .bsam import FirstGradientToBase, Posterior, Precision
from .lets import Learned

__all__ = [
    "ASAM", "ASAM_ALL", "A_BISAM_LOG", "A_BISAM_TANH", "BISAM_LOG", "BISAM_TANH", "BSAM", "ESAM", "ESAM_CODE", "E_BISAM_LOG",
    "E_BISAM_LOG_PRINTED", "E_BISAM_TANH", "E_BISAM_TANH_PRINTED", "FSAM", "GSAM", "J_SAM", "KSAM", "LATE_SAM", "LETS_ASAM", "LETS_BISAM_LOG",
    "LETS_BISAM_TANH", "LETS_SAM", "LE_SAM", "LOOKSAM", "MSAM", "M_BISAM_LOG", "M_BISAM_TANH", "RECIPES", "RSAM", "SAM", "SAM_EVERY_K",
    "SAM_INF", "SAM_ON", "SGD", "VASSO", "is_recipe", "recipe",
]  # fmt: skip

# Without a perturbation every recipe is its base optimiser: SGD, AdamW or whatever is wrapped.
SGD = Recipe("sgd")

# The box: every weight moves by rho, in the direction of its sign. No published run is at hand; this rho
# is ours, a place to begin.
SAM_INF = SAM.replace(name="sam-inf", geometry=Lp(math.inf), radius=Constant(1e-4))

BISAM_LOG = Recipe(
    "bisam-log",
    ascent=Surrogate(
        phi=NegLog(),  # gamma = log(e - 1): Xie et al. 2024, eq. 18 of the early version
        mu=1.5,  # Xie et al. 2024, section 4.1 of the early version; the default of their public code is 1.0
    ),
    radius=Constant(0.05),  # Xie et al. 2024, section 4.1: SAM's value, not tuned again
)

BISAM_TANH = Recipe(
    "bisam-tanh",
    ascent=Surrogate(phi=Tanh(alpha=0.1), mu=10.0),  # Xie et al. 2024, section 4.1
    radius=Constant(0.05),  # Xie et al. 2024, section 4.1
)

ASAM = SAM.replace(
    name="asam",
    geometry=Adaptive(eta=0.01, scaled="weights"),  # Kwon et al. 2021, and their code
    radius=Constant(0.5),  # Kwon et al. 2021 for CIFAR-10; 1.0 for CIFAR-100
)

# The reading of BiSAM's experiments: Xie et al. 2024, section 4.3 and appendix A.1;
# rho is the best of 0.1, 0.5, 1, 2, 3 in this reading.
ASAM_ALL = SAM.replace(name="asam-all", geometry=Adaptive(eta=0.0, scaled="all"), radius=Constant(2.0))
A_BISAM_LOG = BISAM_LOG.replace(name="a-bisam-log", geometry=ASAM_ALL.geometry, radius=ASAM_ALL.radius)
A_BISAM_TANH = BISAM_TANH.replace(name="a-bisam-tanh", geometry=ASAM_ALL.geometry, radius=ASAM_ALL.radius)

# As printed: a mask over coordinates.
ESAM = SAM.replace(
    name="esam",
    geometry=Masked(L2(), keep=0.5),  # Du et al. 2022: 0.5 for WRN, 0.6 for ResNet-18; Xie et al. 2024: 0.5
    selection=MostSensitive(0.5),  # Du et al. 2022; Xie et al. 2024
    radius=Constant(0.05),  # Du et al. 2022 for ResNet-18 (0.1 for WRN); Xie et al. 2024
)

# As in the public code: a mask over tensors, the norm over those that are kept.
ESAM_CODE = ESAM.replace(name="esam-code", geometry=Masked(L2(), keep=0.5, per="tensor"))

E_BISAM_LOG = ESAM.replace(name="e-bisam-log", ascent=BISAM_LOG.ascent)  # Xie et al. 2024, appendix A.2, early version
E_BISAM_TANH = ESAM.replace(name="e-bisam-tanh", ascent=BISAM_TANH.ascent)

# Algorithm 3 of the early version to the letter: divided by 1 - beta, and no norm of the gradient. The
# experiments can hardly have used it; rho keeps its printed value.
_AS_PRINTED = Masked(Unnormalised(), keep=0.5, divisor="dropped")
E_BISAM_LOG_PRINTED = E_BISAM_LOG.replace(name="e-bisam-log-printed", geometry=_AS_PRINTED)
E_BISAM_TANH_PRINTED = E_BISAM_TANH.replace(name="e-bisam-tanh-printed", geometry=_AS_PRINTED)

# Behdin et al. 2023. The size is that of the ImageNet run in Xie et al. 2024: 128 of 512 samples. A batch of
# at most 128 is one part.
MSAM = SAM.replace(name="msam", micro_batch=128)
M_BISAM_LOG = BISAM_LOG.replace(name="m-bisam-log", micro_batch=128)
M_BISAM_TANH = BISAM_TANH.replace(name="m-bisam-tanh", micro_batch=128)

# Wang et al. 2024. The diagonal form is the paper's, as far as its abstract says; rate and limits are ours. The
# rate of LETS-SAM stood a search on digits with wrong labels: at a tenth the accuracy hardly changes, at ten
# times the radius runs into its limits. That of LETS-ASAM comes from single runs. The radius begins at SAM's.
LETS_SAM = SAM.replace(name="lets-sam", radius=Learned(rho=0.05, rate=100.0))
LETS_ASAM = ASAM.replace(name="lets-asam", radius=Learned(rho=0.5, rate=300.0, least=0.01, most=10.0))
LETS_BISAM_LOG = BISAM_LOG.replace(name="lets-bisam-log", radius=LETS_SAM.radius)
LETS_BISAM_TANH = BISAM_TANH.replace(name="lets-bisam-tanh", radius=LETS_SAM.radius)

GSAM = SAM.replace(
    name="gsam",
    # Zhuang et al. 2022, table of hyper-parameters, ResNet-50 on ImageNet
    radius=ByLearningRate(rho=0.04, least=0.02),
    combination=Decomposed(alpha=0.01),
)

# Liu et al. 2022b; scale and reading as in RandomStart; rho is SAM's.
RSAM = SAM.replace(name="rsam", start=RandomStart(scale=0.1))

# Ni et al. 2022; k is not in the texts at hand. Half of the batch costs 4/3 passes, which is about the 65 % of
# SAM's time that the paper reports on ImageNet.
KSAM = SAM.replace(name="ksam", selection=TopK(0.5))

FSAM = SAM.replace(
    name="fsam",
    # Li et al. 2024: sigma = 1 and lambda = 0.9, the defaults of their public code
    direction=Averaged(gradient=1.0, average=-1.0, decay=0.9, lagged=True),
    radius=Constant(0.05),  # the default of their public code
)

# Li and Giannakis 2023: theta = 0.4
VASSO = SAM.replace(name="vasso", direction=Averaged(gradient=0.0, average=1.0, decay=0.6))

# Mueller et al. 2023. The radius is over few weights and has to be larger than SAM's; this one is ours, to be tuned.
SAM_ON = SAM.replace(name="sam-on", geometry=Only(L2(), "norm"), radius=Constant(0.5))

# Wang et al. 2026; budget and cap are ours. The budget is what SAM with rho = 0.05 spends at a gradient of norm 1.
LE_SAM = SAM.replace(name="le-sam", radius=LossBudget(budget=0.05, rho=0.5))

# Zhou et al. 2025: SAM in the last epochs only. The first step with it depends on the length of the training;
# 1000 is a place holder of ours.
LATE_SAM = SAM.replace(name="late-sam", radius=Phase(rho=0.05, start=1000))
SAM_EVERY_K = SAM.replace(name="sam-every-k", radius=Phase(rho=0.05, every=5))

# Liu et al. 2022: k = 5 and alpha = 0.7. Their rho is for large batches; this is SAM's.
LOOKSAM = SAM.replace(name="looksam", combination=LookSAM(every=5, alpha=0.7))

# Baek et al. 2024: the Jacobian of the logits at w + epsilon, the slope of the loss for the logits at w. The control that tells
# whether SAM acts on wrong labels through the weights that the samples get or through the features; rho is SAM's.
J_SAM = SAM.replace(name="j-sam", factors="jacobian")

# Moellenhoff and Khan 2023, CIFAR with a ResNet-18; the base must be bisam.Variational.
BSAM = SAM.replace(
    name="bsam", geometry=Precision(), start=Posterior(), combination=FirstGradientToBase(), radius=Constant(0.01)
)

_ROWS = (
    SGD, SAM, BISAM_LOG, BISAM_TANH, SAM_INF, ASAM, ASAM_ALL, A_BISAM_LOG, A_BISAM_TANH,
    ESAM, ESAM_CODE, E_BISAM_LOG, E_BISAM_TANH, E_BISAM_LOG_PRINTED, E_BISAM_TANH_PRINTED,
    MSAM, M_BISAM_LOG, M_BISAM_TANH, LETS_SAM, LETS_ASAM, LETS_BISAM_LOG, LETS_BISAM_TANH,
    GSAM, RSAM, KSAM, FSAM, VASSO, SAM_ON, LE_SAM, LATE_SAM, SAM_EVERY_K, LOOKSAM, BSAM, J_SAM,
)  # fmt: skip
RECIPES = {row.name: row for row in _ROWS}


@by_name
def recipe(name: str) -> Recipe:
    """The named row of the table of methods, or a row with one of BiSAM's surrogates in its ascent.

    Args:
        name: one of ``RECIPES``, such as ``"sam"`` or ``"a-bisam-log"``; or a row that raises its descent loss, with ``-bisam-log`` or
            ``-bisam-tanh`` behind it, such as ``"gsam-bisam-log"``: nobody has published runs of these.

    Raises:
        ValueError: an unknown name; the message lists those that exist.

    Example:
        >>> recipe("bisam-log").ascent.mu, recipe("gsam-bisam-log").ascent.mu
        (1.5, 1.5)
    """
    found = _found(name)
    if found is None:
        allowed = f"one of {', '.join(RECIPES)}, or a row that raises its descent loss with -bisam-log or -bisam-tanh behind it"
        raise ValueError(f"recipe must be {allowed}; got {_checks.shown(name)}{_meant(name)}")
    return found


def _meant(name: object) -> str:
    """A question with the row that is probably meant: the name in other letters, or the first that begins with it."""
    if not isinstance(name, str) or not name:
        return ""
    plain = name.lower().replace("_", "-")
    meant = plain if is_recipe(plain) else next((row for row in RECIPES if row.startswith(f"{plain}-")), None)
    return f"; did you mean {meant!r}?" if meant else ""


def is_recipe(name: object) -> bool:
    """Whether :func:`recipe` knows a name.

    Args:
        name: such as ``"sam"`` or ``"gsam-bisam-log"``; anything else is no name.

    Example:
        >>> is_recipe("gsam-bisam-log"), is_recipe("bisam-log-bisam-log"), is_recipe(5)
        (True, False, False)
    """
    return _found(name) is not None


def _found(name: object) -> Recipe | None:
    """What :func:`recipe` returns, if it knows the name."""
    if not isinstance(name, str):
        return None
    if name in RECIPES:
        return RECIPES[name]
    for surrogate in (BISAM_LOG, BISAM_TANH):
        row = RECIPES.get(name.removesuffix(f"-{surrogate.name}"))
        if row is not None and row.ascent is None and row.radius.rho:
            return row.with_ascent(surrogate.ascent, name)
    return None
