r"""Methods as rows of choices: what is raised, in which set, which way, how far, on which samples, and what descends.

.. math::
    \epsilon = \arg\max_{\|\epsilon\| \le \rho} \langle \nabla_w A(w), \epsilon\rangle, \qquad
    w \leftarrow \mathrm{base}\big(w, \nabla_w L(w + \epsilon)\big)

A recipe names the ascent loss A, the descent loss L, the ball and its radius, and the choices along the other axes, whose
neutral element is ``None``. Varying one is ``replace``.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from dataclasses import dataclass

import torch

from . import _checks
from .bounds import Identity, NegLog, Tanh
from .combination import Decomposed, Look
from .direction import Averaged, RandomStart
from .geometry import L2, Adaptive, Lp, Unnormalised
from .losses import CrossEntropy
from .masks import Masked, Only
from .radius import ByLearningRate, Constant, Learned, LossBudget, Phase, Schedule
from .selection import MostSensitive, TopK
from .surrogate import Surrogate
from .variational import Handed, Posterior, Precision, Variational

__all__ = [
    "ASAM", "ASAM_ALL", "A_BISAM_LOG", "A_BISAM_TANH", "BISAM_LOG", "BISAM_TANH", "BSAM", "ESAM", "ESAM_CODE", "E_BISAM_LOG",
    "E_BISAM_TANH", "FSAM", "GSAM", "KSAM", "LATE_SAM", "LETS_SAM", "LE_SAM", "LOOKSAM", "MSAM", "M_BISAM_LOG", "M_BISAM_TANH", "RECIPES",
    "RSAM", "SAM", "SAM_EVERY_K", "SAM_ON", "SGD", "VASSO", "Recipe", "recipe",
]  # fmt: skip

# The share of a forward and of a backward pass in a forward-backward pass: the backward pass has two products
# of matrices where the forward pass has one.
FORWARD, BACKWARD = 1 / 3, 2 / 3


@dataclass(frozen=True)
class Recipe:
    r"""One method, as choices along independent axes.

    Args:
        name: what it is called in tables, commands and records.
        ascent: the loss that the perturbation raises; ``None`` raises the descent loss, as SAM does.
        descent: the loss whose gradient at :math:`w + \epsilon` moves the weights.
        geometry: the shape of the set that the perturbation moves in.
        radius: its size; ``Constant(0)`` is the base optimiser, at the cost of one pass, whatever the other fields.
        start: where the ascent gradient is taken, if not at w; a forward pass at w is then added, for the loss and logits there.
        direction: what is made of the ascent gradient before the climb.
        selection: which samples the gradients are taken on, if not on all.
        micro_batch: samples that share one climb, if not the whole batch does; the gradients of the parts are averaged.
        combination: what is made of the gradients at the two points, if not that at :math:`w + \epsilon` alone.
        same_noise: both passes draw the same dropout masks. The published runs drew fresh ones: turn it off
            to do as they did.

    Raises:
        TypeError, ValueError: a field that is not of its axis, or fields that exclude each other.

    Source:
        The axes are ours; each method's row cites its own paper.

    Example:
        >>> wide = SAM.replace(radius=Constant(0.2))
        >>> wide.radius.rho, wide.passes
        (0.2, 2)
    """

    name: str
    ascent: Surrogate | CrossEntropy | None = None
    descent: CrossEntropy = dataclasses.field(default_factory=CrossEntropy)
    geometry: L2 | Lp | Adaptive | Unnormalised | Masked | Only | Precision = dataclasses.field(default_factory=L2)
    radius: Constant | Schedule | ByLearningRate | Phase | LossBudget | Learned = dataclasses.field(
        default_factory=lambda: Constant(0.0)
    )
    start: RandomStart | Posterior | None = None
    direction: Averaged | None = None
    selection: MostSensitive | TopK | None = None
    micro_batch: int | None = None
    combination: Decomposed | Look | Handed | None = None
    same_noise: bool = True

    def __post_init__(self):
        _checks.line("name", self.name)
        for field, method, words in _AXES:
            value = getattr(self, field)
            if value is not None or field not in _OPTIONAL:
                _checks.part(field, value, (method,), words)
        _checks.a_set("geometry", self.geometry)
        if not hasattr(self.radius, "rho"):
            raise TypeError(f"radius must be a radius with a rho, got {_checks.shown(self.radius)}")
        _checks.keep(self, _checks.optional, "micro_batch", of=_checks.whole)
        _checks.flag("same_noise", self.same_noise)
        if isinstance(self.combination, Look) and self.micro_batch is not None:
            raise ValueError("combination Look remembers one direction a step; micro_batch must be None with it")

    @property
    def raised(self) -> Surrogate | CrossEntropy:
        """The loss that the perturbation raises, ``ascent`` or the descent loss if that is ``None``."""
        return self.descent if self.ascent is None else self.ascent

    @property
    def gradient_at_w(self) -> str | None:
        """The gradient at w that is needed beside the climb, ``"ascent"``, ``"descent"``, or ``None``."""
        needed = getattr(self.combination, "at_w", None)
        if isinstance(self.radius, Learned) and self.radius.form == "difference":
            needed = "descent"
        return "ascent" if needed == "descent" and self.raised is self.descent else needed

    @property
    def passes(self) -> float:
        """Forward-backward passes a step on average, 1 for the base optimiser alone and 2 for SAM.

        A forward pass counts a third, a backward pass two thirds; passes over a part of the batch count that part.
        A method that begins late or looks every k-th step counts as in a long training.
        """
        return _passes(self)

    @property
    def choices(self) -> dict[str, str]:
        """The axes on which the recipe differs from the base optimiser, each with its choice in short."""
        fields = [field.name for field in dataclasses.fields(self) if field.name not in ("name", "descent", "same_noise")]
        neutral = Recipe("")
        found = {name: _short(getattr(self, name)) for name in fields if getattr(self, name) != getattr(neutral, name)}
        return {"ascent": "the descent loss", **found} if self.radius.rho else {}

    def with_rho(self, rho: float) -> Recipe:
        """A copy with another radius of the same kind; 0 is the base optimiser.

        Args:
            rho: the radius, or for a radius that changes its largest or first value.

        Raises:
            TypeError, ValueError: the recipe has no radius, or ``rho`` is out of the range of its kind.
        """
        rho = _checks.nonnegative("rho", rho)
        if rho == 0:
            return self.replace(radius=Constant(0.0))
        if self.radius.rho == 0:
            raise ValueError(f"rho must be 0 for the recipe {self.name}, got {rho}; use another recipe, such as sam")
        if isinstance(self.radius, Schedule):
            scale = rho / self.radius.rho
            return self.replace(radius=Schedule(self.radius.steps, tuple(scale * r for r in self.radius.rhos)))
        return self.replace(radius=dataclasses.replace(self.radius, rho=rho))

    def check_base(self, base: torch.optim.Optimizer) -> None:
        """A ``TypeError`` or ``ValueError`` if the recipe cannot work with this base optimiser."""
        if self.radius.rho == 0:
            return  # no climb: the base alone, whatever it is
        if any(group.get("maximize", False) for group in base.param_groups):
            raise ValueError(
                "base must not have maximize=True: the climb would lead where the base wants to go; minimise the negative loss"
            )
        own = [part for part in (self.geometry, self.start, self.combination) if isinstance(part, _OF_VARIATIONAL)]
        if own and not isinstance(base, Variational):
            raise TypeError(
                f"base must be a bisam.Variational for {type(own[0]).__name__}(), as in recipe {self.name!r}; "
                f"got {type(base).__name__}"
            )

    def replace(self, **changes) -> Recipe:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict:
        """All choices as plain values, ready for JSON; :meth:`from_dict` turns them back."""
        return _plain(self)

    @staticmethod
    def from_dict(choices: dict) -> Recipe:
        """The recipe that :meth:`to_dict` wrote.

        Args:
            choices: name of a field to its plain value; a part is again such a dictionary, with its class as ``kind``.

        Raises:
            TypeError, ValueError: something else than such a dictionary; a field that is unknown or out of range.
        """
        _checks.part("choices", choices, dict, "a dictionary as Recipe.to_dict() makes it")
        found = _built(choices)
        if not isinstance(found, Recipe):
            raise ValueError(f"choices must be those of kind 'Recipe', got those of kind {choices['kind']!r}")
        return found


_AXES = (
    ("ascent", "values", "a loss such as CrossEntropy() or Surrogate()"),
    ("descent", "values", "a loss such as CrossEntropy()"),
    ("radius", "now", "a radius such as Constant(0.05)"),
    ("start", "offset", "a choice such as RandomStart(), or None"),
    ("direction", "filtered", "a choice such as Averaged(0.0, 1.0, decay=0.6), or None"),
    ("selection", "chosen", "a choice such as MostSensitive(0.5), or None"),
    ("combination", "combined", "a choice such as Decomposed(alpha=0.4), or None"),
)
_OPTIONAL = ("ascent", "start", "direction", "selection", "combination")
_OF_VARIATIONAL = (Precision, Posterior, Handed)


def _passes(recipe: Recipe) -> float:
    if recipe.radius.rho == 0:
        return 1
    first, second = 1.0, 1.0
    if isinstance(recipe.selection, TopK):
        first = recipe.selection.fraction + FORWARD  # the ranking sees the whole batch
        second = recipe.selection.fraction
    if isinstance(recipe.selection, MostSensitive):
        second = FORWARD + recipe.selection.fraction
    if recipe.start is not None:  # the first pass is elsewhere; what is said of w takes a forward pass there
        first += FORWARD * (recipe.selection.fraction if isinstance(recipe.selection, TopK) else 1)
    if isinstance(recipe.geometry, Masked) and recipe.geometry.per == "tensor":
        first -= (1 - recipe.geometry.keep) * FORWARD  # half of the backward pass: the gradients of the weights
    if recipe.gradient_at_w == "descent":
        second += BACKWARD
    climbing = first + second
    every = getattr(recipe.combination, "every", 1) * (recipe.radius.every if isinstance(recipe.radius, Phase) else 1)
    total = (climbing + every - 1) / every
    if isinstance(recipe.radius, Learned):
        hessian = {"exact": 1 + 2 * BACKWARD}.get(recipe.radius.form, 0)
        total += (2 + hessian) / recipe.radius.every
    return int(total) if total == int(total) else total


# Without a perturbation every recipe is its base optimiser: SGD, AdamW or whatever is wrapped.
SGD = Recipe("sgd")

SAM = Recipe(
    "sam",
    radius=Constant(0.05),  # Foret et al. 2021 for CIFAR-10; Xie et al. 2024 for both CIFARs
)

# The box: every weight moves by rho, in the direction of its sign. No published run
# is at hand; this rho is ours, a place to begin.
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
    ascent=Surrogate(
        phi=Tanh(alpha=0.1),  # Xie et al. 2024, section 4.1
        mu=10.0,  # Xie et al. 2024, section 4.1
    ),
    radius=Constant(0.05),  # Xie et al. 2024, section 4.1
)

ASAM = SAM.replace(
    name="asam",
    # Kwon et al. 2021, and the default of their public code
    geometry=Adaptive(eta=0.01, scaled="weights"),
    radius=Constant(0.5),  # Kwon et al. 2021 for CIFAR-10; 1.0 for CIFAR-100
)

# The reading of BiSAM's experiments: Xie et al. 2024, section 4.3 and
# appendix A.1; rho is the best of 0.1, 0.5, 1, 2, 3 in this reading.
ASAM_ALL = SAM.replace(
    name="asam-all",
    geometry=Adaptive(eta=0.0, scaled="all"),
    radius=Constant(2.0),
)

A_BISAM_LOG = BISAM_LOG.replace(
    name="a-bisam-log",
    geometry=ASAM_ALL.geometry,  # Xie et al. 2024, section 4.3
    radius=ASAM_ALL.radius,
)

A_BISAM_TANH = BISAM_TANH.replace(
    name="a-bisam-tanh",
    geometry=ASAM_ALL.geometry,  # Xie et al. 2024, section 4.3
    radius=ASAM_ALL.radius,
)

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

# Algorithm 3 of the early version to the letter: divided by 1 - beta, and no norm of
# the gradient. The experiments can hardly have used it; rho keeps its printed value.
_AS_PRINTED = Masked(Unnormalised(), keep=0.5, divisor="dropped")
E_BISAM_LOG_PRINTED = E_BISAM_LOG.replace(name="e-bisam-log-printed", geometry=_AS_PRINTED)
E_BISAM_TANH_PRINTED = E_BISAM_TANH.replace(name="e-bisam-tanh-printed", geometry=_AS_PRINTED)

# Behdin et al. 2023. The size is that of the ImageNet run in Xie et al. 2024: 128 of
# 512 samples. A batch of at most 128 is one part.
MSAM = SAM.replace(name="msam", micro_batch=128)
M_BISAM_LOG = BISAM_LOG.replace(name="m-bisam-log", micro_batch=128)
M_BISAM_TANH = BISAM_TANH.replace(name="m-bisam-tanh", micro_batch=128)

# Wang et al. 2024. The diagonal form is the paper's, as far as its abstract says; rate
# and limits are ours. The rate of LETS-SAM stood a search on digits with wrong labels: at
# a tenth the accuracy hardly changes, at ten times the radius runs into its limits. That
# of LETS-ASAM comes from single runs. The radius begins at SAM's.
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

# Ni et al. 2022; k is not in the texts at hand. Half of the batch costs 4/3 passes,
# which is about the 65 % of SAM's time that the paper reports on ImageNet.
KSAM = SAM.replace(name="ksam", selection=TopK(0.5))

FSAM = SAM.replace(
    name="fsam",
    # Li et al. 2024: sigma = 1 and lambda = 0.9, the defaults of their public code
    direction=Averaged(gradient=1.0, average=-1.0, decay=0.9, lagged=True),
    radius=Constant(0.05),  # the default of their public code
)

VASSO = SAM.replace(
    name="vasso",
    # Li and Giannakis 2023: theta = 0.4
    direction=Averaged(gradient=0.0, average=1.0, decay=0.6),
)

# Mueller et al. 2023. The radius is over few weights and has to be larger than
# SAM's; this value is ours, to be tuned.
SAM_ON = SAM.replace(name="sam-on", geometry=Only(L2(), "norm"), radius=Constant(0.5))

# Wang et al. 2026; budget and cap are ours. The budget is what SAM with rho = 0.05
# spends at a gradient of norm 1.
LE_SAM = SAM.replace(name="le-sam", radius=LossBudget(budget=0.05, rho=0.5))

# Zhou et al. 2025: SAM in the last epochs only. The first step with it depends on the
# length of the training; 1000 is a place holder of ours.
LATE_SAM = SAM.replace(name="late-sam", radius=Phase(rho=0.05, start=1000))
SAM_EVERY_K = SAM.replace(name="sam-every-k", radius=Phase(rho=0.05, every=5))

# Liu et al. 2022: k = 5 and alpha = 0.7. Their rho is for large batches; this is SAM's.
LOOKSAM = SAM.replace(name="looksam", combination=Look(every=5, alpha=0.7))

# Moellenhoff and Khan 2023, CIFAR with a ResNet-18; the base must be bisam.Variational.
BSAM = SAM.replace(
    name="bsam",
    geometry=Precision(),
    start=Posterior(),
    combination=Handed(),
    radius=Constant(0.01),
)

# Methods that climb cross-entropy in their papers, and here may climb Q as well.
_COMBINABLE = (GSAM, RSAM, KSAM, FSAM, VASSO, SAM_ON, LE_SAM, LATE_SAM, SAM_EVERY_K, LOOKSAM, BSAM)


def _products(row: Recipe) -> tuple[Recipe, Recipe]:
    """A method with the two surrogates in its ascent; nobody has published runs of these."""
    by = TopK(row.selection.fraction, by="gradient") if isinstance(row.selection, TopK) else row.selection
    return tuple(
        row.replace(name=f"{row.name}-{bisam.name}", ascent=bisam.ascent, selection=by) for bisam in (BISAM_LOG, BISAM_TANH)
    )


RECIPES = {
    row.name: row
    for row in (
        *(SGD, SAM, BISAM_LOG, BISAM_TANH, SAM_INF, ASAM, ASAM_ALL, A_BISAM_LOG, A_BISAM_TANH),
        *(ESAM, ESAM_CODE, E_BISAM_LOG, E_BISAM_TANH, E_BISAM_LOG_PRINTED, E_BISAM_TANH_PRINTED),
        *(MSAM, M_BISAM_LOG, M_BISAM_TANH, LETS_SAM, LETS_ASAM, LETS_BISAM_LOG, LETS_BISAM_TANH),
        *(variant for row in _COMBINABLE for variant in (row, *_products(row))),
    )
}


def recipe(name: str) -> Recipe:
    """The named row of the table of methods.

    Args:
        name: one of ``RECIPES``, such as ``"sam"`` or ``"a-bisam-log"``.

    Raises:
        ValueError: an unknown name; the message lists those that exist.

    Source:
        The table in this module, where each default carries its own.

    Example:
        >>> recipe("bisam-log").ascent.mu
        1.5
    """
    return RECIPES[_checks.choice("recipe", name, tuple(RECIPES))]


KINDS = {  # of the parts that a recipe is made of, by the name that to_dict() gives them
    part.__name__: part
    for part in (
        *(Recipe, Surrogate, CrossEntropy, Identity, NegLog, Tanh),
        *(L2, Lp, Adaptive, Unnormalised, Masked, Only, Precision),
        *(Constant, Schedule, ByLearningRate, Phase, LossBudget, Learned),
        *(RandomStart, Posterior, Averaged, MostSensitive, TopK, Decomposed, Look, Handed),
    )
}


def _short(part) -> str:
    """A choice as it would be written, without the fields that have their default values."""
    if not dataclasses.is_dataclass(part):
        return f"{part:g}" if isinstance(part, float) else repr(part)
    given = []
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        if value != default:
            given.append(_short(value) if field.default is dataclasses.MISSING and not given else f"{field.name}={_short(value)}")
    return f"{type(part).__name__}({', '.join(given)})"


def _plain(value):
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        if value == math.inf:
            return "inf"  # JSON has no infinity
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    if not dataclasses.is_dataclass(value):
        return value
    fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return {"kind": type(value).__name__, **fields}


def _built(value):
    if isinstance(value, str):
        return math.inf if value == "inf" else value
    if not isinstance(value, dict):
        return value
    kind = _checks.choice("choices: kind", value.get("kind"), tuple(KINDS))
    known = [field.name for field in dataclasses.fields(KINDS[kind])]
    for name in value:
        if name != "kind":
            _checks.choice(f"choices of kind {kind!r}", name, known)
    # A name stays text, also if it reads "inf".
    return KINDS[kind](**{name: part if name == "name" else _built(part) for name, part in value.items() if name != "kind"})
