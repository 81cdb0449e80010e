"""What a step of a recipe costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .recipe import Recipe

# The share of a forward and of a backward pass in a forward-backward pass: the backward pass has two products
# of matrices where the forward pass has one.
FORWARD, BACKWARD = 1 / 3, 2 / 3


def passes_of(recipe: Recipe) -> float:
    """Forward-backward passes a step in a long training, 1 for the base optimiser alone."""
    if recipe.radius.rho == 0:
        return 1
    selection, combination = recipe.selection, recipe.combination
    chosen = 1.0 if selection is None else selection.fraction
    seen = chosen if selection is not None and selection.when == "before" else 1.0  # by the first pass
    first, second = seen * recipe.ascent_steps, chosen
    first += FORWARD * (seen < 1)  # the ranking before the climb sees the whole batch
    second += FORWARD * (chosen < 1 and seen == 1)  # and so does the ranking after it
    if recipe.start is not None:  # the first pass is elsewhere; what is said of w takes a forward pass there
        first += FORWARD * seen
    if recipe.gradient_at_w != "ascent":  # half of a backward pass are the gradients of the weights
        first -= (1 - recipe.geometry.drawn_share) * FORWARD * seen
    if recipe.gradient_at_w == "descent":
        second += BACKWARD * seen
    every = 1 / (recipe.radius.climbing_share * (1 if combination is None else combination.climbing_share))
    total = (first + second + every - 1) / every + recipe.radius.extra_passes
    return int(total) if total == int(total) else total
