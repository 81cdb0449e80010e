"""One file an axis: its protocol, the choices along it, and the recipe that holds one of each."""

from .combination import Combination, Decomposed, LookSAM
from .direction import Averaged, Direction
from .geometry import L2, Adaptive, Ball, Geometry, Unnormalised
from .lp import Lp
from .masks import Masked, Only
from .memory import Memory
from .radius import ByLearningRate, Constant, LossBudget, Phase, Radius, Schedule
from .recipe import Recipe
from .selection import MostSensitive, Selection, TopK
from .start import RandomStart, Start

__all__ = [
    "L2", "Adaptive", "Averaged", "Ball", "ByLearningRate", "Combination", "Constant", "Decomposed", "Direction", "Geometry", "LookSAM",
    "LossBudget", "Lp", "Masked", "Memory", "MostSensitive", "Only", "Phase", "Radius", "RandomStart", "Recipe", "Schedule", "Selection",
    "Start", "TopK", "Unnormalised",
]  # fmt: skip
