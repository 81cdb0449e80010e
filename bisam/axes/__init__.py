"""The axes of a method: for each its protocol and the choices along it, and the recipe that holds one of each."""

from .balls import L2, Adaptive, Lp, Unnormalised
from .combination import Combination, Decomposed, LookSAM
from .direction import Averaged, Direction, RandomDirection
from .geometry import Ball, Geometry
from .masks import Masked, Only
from .memory import Memory
from .radius import Constant, Radius
from .recipe import Recipe
from .schedules import ByLearningRate, LossBudget, Phase, Schedule
from .selection import MostSensitive, Selection, TopK
from .start import RandomStart, Start

__all__ = [
    "L2", "Adaptive", "Averaged", "Ball", "ByLearningRate", "Combination", "Constant", "Decomposed", "Direction", "Geometry", "LookSAM",
    "LossBudget", "Lp", "Masked", "Memory", "MostSensitive", "Only", "Phase", "Radius", "RandomDirection", "RandomStart", "Recipe", "Schedule",
    "Selection", "Start", "TopK", "Unnormalised",
]  # fmt: skip
