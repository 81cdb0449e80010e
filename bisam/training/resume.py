"""Whether a training may go on from a saved state: it must look like one of the same run, in everything but its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..axes.radius import Constant
from .checkpoint import CheckpointError, check_form

if TYPE_CHECKING:
    from .state import State

HISTORY = ("rows",)  # what the first step does not make, and what is checked by itself
COUNTS = ("epoch", "broken")
COLUMNS = (*COUNTS, "lr", "train_loss", "train_accuracy")
EVALUATED = ("validation", "test")


def check(state: State, saved: object) -> None:
    """A ``CheckpointError`` unless what was saved has the form of this state, which makes a step to show it and must be loaded after that."""
    if not isinstance(saved, dict) or not set(HISTORY) <= set(saved):
        raise CheckpointError(f"state must hold {', '.join(HISTORY)}")
    there = saved.get("randomness")
    if isinstance(there, list) and len(there) != state.workers.size:
        raise CheckpointError(
            f"it was written by {len(there)} processes and can only be continued by as many; "
            f"this is a training with {state.workers.size}"
        )
    form = _form(state, saved)
    check_form(*({name: part for name, part in one.items() if name not in HISTORY} for one in (saved, form)))
    _check_rows(saved["rows"], state)
    if saved["seconds"] < 0:
        raise CheckpointError(f"state.seconds must be 0 or greater, got {saved['seconds']!r}")
    stands, each = saved["schedule"]["last_epoch"], 1 if state.run.rate_by == "epoch" else state.steps_an_epoch
    if stands != each * len(saved["rows"]):
        raise CheckpointError(f"state.schedule stands at {state.run.rate_by} {stands}, state.rows at {each * len(saved['rows'])}")


def _form(state: State, saved: dict) -> dict:
    """What is saved after one step. Where a radius begins at 0 there are two forms: before and after the first climb."""
    optimizer, recipe = state.optimizer, state.optimizer.recipe
    waits = not recipe.radius.learns and recipe.radius.rho != 0 and recipe.radius.now(optimizer.memory) == 0
    state.first_step()
    form = state.save()
    if waits and _remembered(saved) > _remembered(form):
        optimizer.recipe, optimizer.memory.step = recipe.replace(radius=Constant(recipe.radius.rho)), 0
        state.first_step()
        optimizer.recipe, form = recipe, state.save()
    return form


def _remembered(state: object) -> int:
    """How many things a method remembers in a saved state; 0 if the state has another form."""
    for name in ("optimizer", "sharpness_aware", "memory"):
        state = state.get(name) if isinstance(state, dict) else None
    parts = [state.get(name) for name in ("kept", "generators")] if isinstance(state, dict) else []
    return sum(len(part) for part in parts if isinstance(part, dict))


def _check_rows(rows: object, state: State) -> None:
    """A ``CheckpointError`` unless there is one row an epoch, with all columns and finite numbers."""
    run = state.run
    if not isinstance(rows, list) or not 0 < len(rows) <= run.epochs:
        got = f"{len(rows)} of them" if isinstance(rows, list) else type(rows).__name__
        raise CheckpointError(f"state.rows must be a list of 1 to {run.epochs} epochs, got {got}")
    names = (*COLUMNS, "rho") if run.recipe.radius.learns else COLUMNS
    form = {name: 0 if name in COUNTS else 0.0 for name in names}
    whole = {**form, **{f"{split}_{name}": 0.0 for split in EVALUATED for name in state.task.metrics}}
    for k, row in enumerate(rows):
        check_form(row, whole if run.evaluates(k + 1) else form, f"state.rows.{k}")
        if row["epoch"] != k + 1:
            raise CheckpointError(f"state.rows.{k}.epoch must be {k + 1}, got {row['epoch']!r}")
