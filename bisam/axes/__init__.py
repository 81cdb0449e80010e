"""One file an axis: the choices that a method is made of, and the recipe that holds one of each."""

from .combination import Decomposed, Look
from .direction import Averaged, RandomStart
from .geometry import L2, Adaptive, Lp, Unnormalised
from .masks import Masked, Only
from .memory import Memory
from .radius import ByLearningRate, Constant, Learned, LossBudget, Phase, Schedule
from .recipe import Recipe
from .selection import MostSensitive, TopK

__all__ = [
    "L2", "Adaptive", "Averaged", "ByLearningRate", "Constant", "Decomposed", "Learned", "Look", "LossBudget", "Lp", "Masked",
    "Memory", "MostSensitive", "Only", "Phase", "RandomStart", "Recipe", "Schedule", "TopK", "Unnormalised",
]  # fmt: skip
