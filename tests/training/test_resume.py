"""No state of another form is trained on, and one that fits goes on where it was cut."""

import copy
import math

import pytest
import torch
from small import TINY, outcome, run

import bisam
from bisam.training import (
    CheckpointError,
    checkpoint,
    fit,
    resume,
)
from bisam.training.state import State

pytestmark = pytest.mark.usefixtures("tiny")


def places(tree, path=()):
    """All keys and entries of a state, from the root on."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, (list, tuple)) else ():
        yield (*path, key)
        yield from places(tree[key], (*path, key))


def inside(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def wrong_values(value):
    """What could stand in the place of a value and has another type, shape or length, or is not finite."""
    others = (None, "x", b"x", 5, -1.5, True, [], [1], {}, {"more": 1}, torch.zeros(3), torch.tensor(math.nan))
    yield from (other for other in others if type(other) is not type(value))
    if isinstance(value, torch.Tensor):
        yield from (value.double() if value.dtype != torch.float64 else value.float(), value[None], value.flatten()[:-1], value.tolist())
        if value.is_floating_point():
            yield from (torch.full_like(value, bad) for bad in (math.nan, math.inf, -math.inf))
            yield torch.where(torch.arange(value.numel()).view(value.shape) == value.numel() - 1, math.nan, value)
    elif isinstance(value, (list, tuple)):
        yield from (value[:-1], [*value, value[-1]], dict(enumerate(value))) if value else ([1],)
    elif isinstance(value, dict):
        yield from ({**value, "more": 1}, list(value), {f"{key}?": one for key, one in value.items()} or {"more": 1})
    elif isinstance(value, float):
        yield from (math.nan, math.inf, -math.inf)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["vasso", "bsam", "lets-bisam-log", "esam-code"])
def test_a_state_of_another_form_is_refused_whatever_is_wrong_with_it(recipe, tmp_path):
    wanted, path, tried, taken = run(recipe=recipe, model="dropping"), tmp_path / "run.pt", 0, []
    fit(wanted, path, stop_after=2)
    state = checkpoint.read(path, wanted.identity())

    def try_out(place, change):
        broken = copy.deepcopy(state)
        change(inside(broken, place[:-1]), place[-1])
        try:
            State(wanted, TINY).load(broken, path)
            taken.append((place, inside(broken, place[:-1])))
        except CheckpointError as error:
            assert f"checkpoint_path {path} does not fit this run" in str(error)

    for place in places(state):
        if isinstance(inside(state, place[:-1]), tuple):
            continue  # a tuple as a whole is replaced above it
        own = ("optimizer",) if recipe == "bsam" else ("optimizer", "sharpness_aware")  # a base of its own, or a memory
        if recipe != "vasso" and place[: len(own)] != own:
            continue  # what else there is in a state is the same with every recipe
        try_out(place, lambda inner, key: inner.pop(key))
        for wrong in wrong_values(inside(state, place)):
            try_out(place, lambda inner, key, wrong=wrong: inner.__setitem__(key, wrong))
            tried += 1
    assert not taken and tried > {"vasso": 500, "bsam": 200}.get(recipe, 100)
    State(wanted, TINY).load(state, path)


@pytest.mark.parametrize("name, change, message", [
    ("rows", lambda rows: rows[::-1], r"state\.rows\.0\.epoch must be 1, got 2"),
    ("rows", lambda rows: rows[:1], r"state\.schedule stands at epoch 2, state\.rows at 1"),
    ("rows", lambda rows: rows * 3, r"state\.rows must be a list of 1 to 4 epochs, got 6 of them"),
    ("rows", lambda rows: [], r"state\.rows must be a list of 1 to 4 epochs, got 0 of them"),
    ("rows", lambda rows: [{**rows[0], "lr": math.nan}, rows[1]], r"state\.rows\.0\.lr must be finite, got nan"),
    ("seconds", lambda seconds: -seconds, r"state\.seconds must be 0 or greater"),
    ("model", lambda model: {**model, "1.weight": torch.zeros(2)}, r"state\.model must be"),
    ("order", lambda state: torch.zeros_like(state), r"does not fit this run \(RuntimeError"),
])  # fmt: skip
def test_what_is_wrong_is_named_and_the_file_stays(name, change, message, half, no_training):
    path, identity = half, run().identity()
    state = checkpoint.read(path, identity)
    checkpoint.write(path, identity, {**state, name: change(state[name])})
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=message):
        fit(run(), path)
    assert path.read_bytes() == before


def test_the_columns_that_are_checked_are_those_that_are_written():
    for recipe, more in (("sam", ()), ("lets-sam", ("rho",))):
        row = State(run(recipe=recipe), TINY).epoch()
        looks = {f"{split}_accuracy" for split in resume.EVALUATED}
        assert set(row) == {*resume.COLUMNS, *looks, *more} and all(type(row[name]) is int for name in resume.COUNTS)


def test_columns_of_an_epoch_that_is_not_evaluated():
    assert set(State(run(evaluate_every=2), TINY).epoch()) == set(resume.COLUMNS)


@pytest.mark.slow
@pytest.mark.parametrize("radius", [
    bisam.Schedule((5, 10), (0.0, 0.2)), bisam.Phase(0.1, start=7), bisam.Phase(0.1, start=2, every=3),
], ids=repr)  # fmt: skip
@pytest.mark.parametrize("recipe", ["vasso", "esam-code", "rsam"])
def test_a_method_whose_first_climb_comes_later_goes_on_from_before_it_and_from_after_it(recipe, radius, tmp_path):
    wanted = run(recipe=bisam.recipe(recipe).replace(radius=radius))
    whole = outcome(fit(wanted))
    for cut in (1, 2, 3):
        fit(wanted, tmp_path / f"{cut}.pt", stop_after=cut)
        assert outcome(fit(wanted, tmp_path / f"{cut}.pt")) == whole
