"""What one step is made with: plain values, which the functions of the other modules are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

from torch import Tensor, nn

from ..axes.memory import Memory
from ..axes.radius import Learner
from ..axes.recipe import Recipe
from ..axes.tensors import Tensors
from .buffers import SharedStatistics, held_buffers
from .modules import distributed, is_graphed, unwrapped
from .perturbation import Displacement
from .record import Outcome
from .sharded import any_sharded


@dataclass
class Step:
    """What one step is made with, and what comes of it.

    Args:
        recipe: the method.
        memory: what the method remembers.
        model: the network.
        parameters: of the base, by the names that the model gives them.
        own_radii: names and radius of every parameter group that is a ball of its own.
        away: where the weights are kept while they are elsewhere.
        scaler: a ``GradScaler``, if the losses are scaled.
        learner: what a learned radius sees of the step.
        weight: factor of the gradient that is added.
        per_worker: every worker climbs by itself.
        record: note what happens.
        others: parameters of the model that require a gradient and are not the base's.
        hold: around the passes that leave no trace, for state that is in no module.
    """

    recipe: Recipe
    memory: Memory
    model: nn.Module
    parameters: Tensors
    own_radii: list[tuple[list[str], float]]
    away: Displacement
    scaler: object = None
    learner: Learner | None = None
    weight: float = 1.0
    per_worker: bool = False
    record: bool = False
    others: list[Tensor] = field(default_factory=list)
    hold: Callable[[], AbstractContextManager] = nullcontext
    outcome: Outcome = field(default_factory=Outcome)

    def __post_init__(self):
        self.rho = self.outcome.rho = self.recipe.radius.now(self.memory)  # of a LossBudget: the budget
        combination = self.recipe.combination
        self.climbs = self.rho != 0 and (combination is None or combination.climbs(self.memory))
        self.shared, self.is_graphed = distributed(self.model), is_graphed(self.model)
        # Whether somebody needs the ascent gradient after the climb, which may otherwise be made in its memory.
        self.keeps_ascent = self.recipe.gradient_at_w == "ascent" or self.record
        self.is_sharded = any_sharded(self.parameters.values())
        self.total, self.mass = 0, 0  # samples, and how much they count together
        self.statistics: SharedStatistics | None = None

    @contextmanager
    def held(self, others: bool = False) -> Iterator[None]:
        """Around every pass but the one that counts: it leaves no trace."""
        with held_buffers(self.model, self.parameters.values(), others), self.hold():
            yield

    def active(self) -> set[str] | None:
        """The names of the parameters that may climb, or ``None`` for all."""
        return self.recipe.geometry.active(unwrapped(self.model), self.memory)

    def is_whole(self, piece) -> bool:
        """Whether a piece is all that the step sees."""
        return len(piece) == self.total

    @property
    def is_joint(self) -> bool:
        """Whether the ascent gradient is that of several workers together."""
        return self.shared is not None and not self.per_worker
