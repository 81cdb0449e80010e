r"""Methods as rows of choices: what is raised, in which set, how far, and what descends.

.. math::
    \epsilon = \arg\max_{\|\epsilon\| \le \rho} \langle \nabla_w A(w), \epsilon\rangle, \qquad
    w \leftarrow \mathrm{base}\big(w, \nabla_w L(w + \epsilon)\big)

A recipe names the ascent loss A, the descent loss L, the ball and its radius. Varying one is ``replace``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from . import _checks
from .bounds import NegLog, Tanh
from .geometry import L2, Adaptive, Lp
from .losses import CrossEntropy
from .radius import Constant
from .surrogate import Surrogate

__all__ = [
    "ASAM", "ASAM_ALL", "A_BISAM_LOG", "A_BISAM_TANH", "BISAM_LOG", "BISAM_TANH", "RECIPES", "SAM", "SGD", "Recipe", "recipe",
]


@dataclass(frozen=True)
class Recipe:
    r"""One method, as choices along independent axes.

    Args:
        name: what it is called in tables, commands and records.
        ascent: the loss that the perturbation raises; ``None`` raises the descent loss, as SAM does.
        descent: the loss whose gradient at :math:`w + \epsilon` moves the weights.
        geometry: the shape of the set that the perturbation moves in.
        radius: its size; ``Constant(0)`` is the base optimiser, at the cost of one pass.
        same_noise: both passes draw the same dropout masks. The published runs drew fresh ones: turn it off
            to do as they did.

    Raises:
        TypeError: a field that is not a loss, geometry or radius.

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
    geometry: L2 | Lp | Adaptive = dataclasses.field(default_factory=L2)
    radius: Constant = dataclasses.field(default_factory=lambda: Constant(0.0))
    same_noise: bool = True

    def __post_init__(self):
        for field in ("ascent", "descent"):
            loss = getattr(self, field)
            if not (_checks.offers(loss, "values") or (loss is None and field == "ascent")):
                raise TypeError(f"{field} must be a loss such as CrossEntropy() or Surrogate(), got {loss!r}")
        if not _checks.offers(self.geometry, "perturbation"):
            raise TypeError(f"geometry must be a set such as L2(), got {self.geometry!r}")
        if isinstance(self.radius, type) or not hasattr(self.radius, "rho"):
            raise TypeError(f"radius must be a radius such as Constant(0.05), got {self.radius!r}")
        if not isinstance(self.same_noise, bool):
            raise TypeError(f"same_noise must be True or False, got {self.same_noise!r}")

    @property
    def raised(self) -> Surrogate | CrossEntropy:
        """The loss that the perturbation raises, ``ascent`` or the descent loss if that is ``None``."""
        return self.descent if self.ascent is None else self.ascent

    @property
    def passes(self) -> int:
        """Forward-backward passes a step, 1 for the base optimiser alone and otherwise 2."""
        return 1 if self.radius.rho == 0 else 2

    def replace(self, **changes) -> Recipe:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict:
        """All choices as plain values, ready for JSON; :meth:`from_dict` turns them back."""
        return _plain(self)

    @staticmethod
    def from_dict(choices: dict) -> Recipe:
        """The recipe that :meth:`to_dict` wrote."""
        return _built(choices)


# Without a perturbation every recipe is its base optimiser: SGD, AdamW or whatever is wrapped.
SGD = Recipe("sgd")

SAM = Recipe(
    "sam",
    radius=Constant(0.05),  # Foret et al. 2021 for CIFAR-10; Xie et al. 2024 for both CIFARs
)

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

RECIPES = {
    row.name: row
    for row in (SGD, SAM, BISAM_LOG, BISAM_TANH, ASAM, ASAM_ALL, A_BISAM_LOG, A_BISAM_TANH)
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


_PARTS = {part.__name__: part for part in (Recipe, Surrogate, CrossEntropy, NegLog, Tanh, L2, Lp, Adaptive, Constant)}


def _plain(value):
    if not dataclasses.is_dataclass(value):
        return value
    fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return {"kind": type(value).__name__, **fields}


def _built(value):
    if not isinstance(value, dict):
        return value
    kind = _checks.choice("kind", value.get("kind"), tuple(_PARTS))
    return _PARTS[kind](**{name: _built(part) for name, part in value.items() if name != "kind"})
