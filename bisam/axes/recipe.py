r"""Methods as rows of choices: what is raised, in which set, which way, how far, on which samples, and what descends.

.. math::
    \epsilon = \arg\max_{\|\epsilon\| \le \rho} \langle \nabla_w A(w), \epsilon\rangle, \qquad
    w \leftarrow \mathrm{base}\big(w, \nabla_w L(w + \epsilon)\big)

A recipe names the ascent loss A, the descent loss L, the ball and its radius, and the choices along the other axes, whose
neutral element is ``None``. Varying one is ``replace``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .. import _checks
from .._kinds import LATER, built, kind, plain
from ..losses.cross_entropy import CrossEntropy
from ..losses.loss import Loss
from .balls import L2
from .combination import Combination
from .cost import passes_of
from .direction import Direction
from .geometry import Geometry
from .radius import Constant, Radius
from .selection import Selection
from .start import Start

__all__ = ["SAM", "Recipe"]

FACTORS = ("both", "jacobian")


@kind("Recipe")
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
        ascent_steps: gradients that the climb takes in turn, each at the point that the one before led to; every one of these points is in the ball, and a mask
            over coordinates is drawn for each.
        factors: of the descent gradient :math:`J(w)^\top \ell'(f_w)`, with the Jacobian J of the logits, those that are taken at
            :math:`w + \epsilon`: ``"both"``, or ``"jacobian"``, which leaves the slope of the loss for the logits as it is at w.

    Raises:
        TypeError, ValueError: a field that is not of its axis, or fields that exclude each other.

    Example:
        >>> wide = SAM.replace(radius=Constant(0.2))
        >>> wide.radius.rho, wide.passes
        (0.2, 2)
    """

    name: str
    ascent: Loss | None = None
    descent: Loss = dataclasses.field(default_factory=CrossEntropy)
    geometry: Geometry = dataclasses.field(default_factory=L2)
    radius: Radius = dataclasses.field(default_factory=lambda: Constant(0.0))
    start: Start | None = None
    direction: Direction | None = None
    selection: Selection | None = None
    micro_batch: int | None = None
    combination: Combination | None = None
    same_noise: bool = True
    ascent_steps: int = dataclasses.field(default=1, metadata=LATER)
    factors: str = dataclasses.field(default="both", metadata=LATER)

    def __post_init__(self):
        _checks.line("name", self.name)
        for field, axis, words in _AXES:
            value = getattr(self, field)
            if value is not None or field not in _OPTIONAL:
                _checks.protocol(field, value, axis, words)
        if self.selection is not None:
            _checks.choice("selection: when", self.selection.when, ("before", "after"))
            _checks.share("selection: fraction", self.selection.fraction)
        _checks.keep(self, _checks.optional, "micro_batch", of=_checks.whole)
        _checks.flag("same_noise", self.same_noise)
        _checks.keep(self, _checks.whole, "ascent_steps")
        _checks.choice("factors", self.factors, FACTORS)
        self._check_products()

    def _check_products(self) -> None:
        """Refuses choices that exclude each other, whatever the model."""
        if self.radius.rho == 0:
            return  # no climb: the base alone
        for field in ("direction", "combination"):
            part = getattr(self, field)
            if self.micro_batch is not None and part is not None and part.has_one_climb:
                raise ValueError(
                    f"micro_batch must be None with {field} {type(part).__name__}, which remembers one climb a step; got {self.micro_batch}"
                )
        if self.combination is not None and self.combination.climbing_share < 1 and self.radius.climbing_share < 1:
            raise ValueError(
                f"radius must climb in every step with combination {type(self.combination).__name__}, which leaves steps out itself; "
                f"got {_short(self.radius)}"
            )
        if self.ascent_steps > 1:
            self._check_alone("ascent_steps", "start", "direction", "combination")
        if self.factors == "jacobian":
            self._check_alone("factors", "selection")
        self.radius.check_recipe(self)

    def _check_alone(self, field: str, *others: str) -> None:
        """Refuses the choices that a field does not go with; a radius that is learned goes with none of these."""
        for other in others:
            if getattr(self, other) is not None:
                raise ValueError(f"{other} must be None with {field}={getattr(self, field)!r}, got {_short(getattr(self, other))}")
        if self.radius.at_w is not None or self.radius.learns:
            raise ValueError(f"radius must need no gradient at w with {field}={getattr(self, field)!r}, got {_short(self.radius)}")

    @property
    def raised(self) -> Loss:
        """The loss that the perturbation raises, ``ascent`` or the descent loss if that is ``None``."""
        return self.descent if self.ascent is None else self.ascent

    @property
    def gradient_at_w(self) -> str | None:
        """The gradient at w that is needed beside the climb, ``"ascent"``, ``"descent"``, or ``None``."""
        needed = self.radius.at_w or (self.combination.at_w if self.combination is not None else None)
        return "ascent" if needed == "descent" and self.raised is self.descent else needed

    @property
    def has_one_climb(self) -> bool:
        """Whether something is remembered of the climb, so that a step must have one climb for the whole batch."""
        return any(part is not None and part.has_one_climb for part in (self.direction, self.combination))

    @property
    def passes(self) -> float:
        """Forward-backward passes a step in a long training, 1 for the base optimiser alone and 2 for SAM.

        A forward pass counts a third, a backward pass two thirds; passes over a part of the batch count that part.
        """
        return passes_of(self)

    @property
    def choices(self) -> dict[str, str]:
        """The axes on which the recipe differs from the base optimiser, each with its choice in short."""
        fields = [field.name for field in dataclasses.fields(self) if field.name not in ("name", "descent", "same_noise")]
        neutral = Recipe("")
        found = {name: _short(getattr(self, name)) for name in fields if getattr(self, name) != getattr(neutral, name)}
        return {"ascent": "the descent loss", **found} if self.radius.rho else {}

    def with_ascent(self, ascent: Loss, name: str) -> Recipe:
        """A copy that raises another loss, such as a :class:`~bisam.losses.surrogate.Surrogate`, under a name of its own."""
        selection = None if self.selection is None else self.selection.with_ascent(ascent)
        return self.replace(name=name, ascent=ascent, selection=selection)

    def with_rho(self, rho: float) -> Recipe:
        """A copy with another radius of the same kind, or largest or first radius of one that changes; 0 is the base optimiser.

        Raises:
            TypeError, ValueError: the recipe has no radius, or ``rho`` is out of the range of its kind.
        """
        rho = _checks.nonnegative("rho", rho)
        if rho == 0:
            return self.replace(radius=Constant(0.0))
        if self.radius.rho == 0:
            raise ValueError(f"rho must be 0 for the recipe {self.name}, got {rho}; use another recipe, such as sam")
        return self.replace(radius=self.radius.with_rho(rho))

    def check_base(self, base: torch.optim.Optimizer) -> None:
        """A ``TypeError`` or ``ValueError`` if the recipe cannot work with this base optimiser."""
        if self.radius.rho == 0:
            return  # no climb: the base alone, whatever it is
        if any(group.get("maximize", False) for group in base.param_groups):
            raise ValueError("base must not have maximize=True: the climb would lead where the base wants to go; minimise the negative loss")
        for part in (self.geometry, self.radius, self.start, self.combination):
            if part is not None:
                part.check_base(base, self.name)

    def replace(self, **changes) -> Recipe:
        """A copy with some fields changed."""
        if "rho" in changes:
            raise TypeError("rho is changed by recipe.with_rho(rho), or given as radius=bisam.Constant(rho)")
        return dataclasses.replace(self, **changes)

    def __call__(self, *_, **__):
        raise TypeError(f"a recipe makes no optimiser by itself: opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), {self.name!r})")

    def to_dict(self) -> dict:
        """All choices as plain values, ready for JSON; :meth:`from_dict` turns them back."""
        return plain(self)

    @staticmethod
    def from_dict(choices: dict) -> Recipe:
        """The recipe that :meth:`to_dict` wrote: name of a field to its plain value, a part again a dictionary, with its class as ``kind``.

        Raises:
            TypeError, ValueError: something else than such a dictionary; a field that is unknown or out of range.
        """
        _checks.part("choices", choices, dict, "a dictionary as Recipe.to_dict() makes it")
        found = built(choices)
        if not isinstance(found, Recipe):
            raise ValueError(f"choices must be those of kind 'Recipe', got those of kind {choices['kind']!r}")
        return found


_tables: list[Callable[[str], Recipe]] = []


def by_name(table: Callable[[str], Recipe]) -> Callable[[str], Recipe]:
    """Decorates the function that finds a recipe by its name; the methods, which come after this room, hand it in."""
    _tables[:] = [table]
    return table


def as_recipe(recipe: Recipe | str) -> Recipe:
    """The recipe itself, or that of a name."""
    if isinstance(recipe, str):
        return _tables[0](recipe)
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe must be a bisam.Recipe, such as bisam.SAM, or the name of one (a radius is rho=0.05); got {_checks.shown(recipe)}")
    return recipe


_AXES = (  # field, protocol, and what an error message says is allowed
    ("ascent", Loss, "a loss such as CrossEntropy() or Surrogate()"),
    ("descent", Loss, "a loss such as CrossEntropy()"),
    ("geometry", Geometry, "a set such as L2()"),
    ("radius", Radius, "a radius such as Constant(0.05)"),
    ("start", Start, "a choice such as RandomStart(), or None"),
    ("direction", Direction, "a choice such as Averaged(0.0, 1.0, decay=0.6), or None"),
    ("selection", Selection, "a choice such as MostSensitive(0.5), or None"),
    ("combination", Combination, "a choice such as Decomposed(alpha=0.4), or None"),
)
_OPTIONAL = ("ascent", "start", "direction", "selection", "combination")


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


# The row that the others vary; the default of the optimiser.
SAM = Recipe("sam", radius=Constant(0.05))  # Foret et al. 2021 for CIFAR-10; Xie et al. 2024 for both CIFARs
