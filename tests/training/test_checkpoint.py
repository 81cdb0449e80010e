"""Checkpoints: no bit can change unseen, no state of another form is trained on, and one training works on one file at a time."""

import copy
import math
import os
import random
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from test_train import TINY, outcome, run, tiny  # noqa: F401  the last one is a fixture that every test uses

import bisam
from bisam.training import checkpoint, fit
from bisam.training import resume as _resume
from bisam.training.checkpoint import CheckpointError
from bisam.training.state import State


@pytest.fixture
def no_training(monkeypatch):
    """Any epoch would be one too many."""
    monkeypatch.setattr("bisam.training.state.State.steps", lambda self: pytest.fail("training has started"))


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """The bytes of a checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(bisam.training.data.DATA, "tiny", lambda: TINY)
        path = tmp_path_factory.mktemp("checkpoint") / "run.pt"
        fit(run(), path, stop_after=2)
    return path.read_bytes()


# -- the seal ---------------------------------------------------------------------------------------------------------


def flipped(content, draw):
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


def zeroed(content, draw):
    size = len(content) // 100
    place = draw.randrange(len(content) - size)
    return content[:place] + bytes(size) + content[place + size :]


def noisy(content, draw):
    size = len(content) // 100
    place = draw.randrange(len(content) - size)
    return content[:place] + draw.randbytes(size) + content[place + size :]


def cut(content, draw):
    return content[: draw.randrange(len(content))]


def longer(content, draw):
    return content + draw.choice([bytes(1), bytes(1000), content[-71:], content])


def swapped(content, draw):
    a, b = sorted(draw.sample(range(0, len(content) - 128, 64), 2))
    return content[:a] + content[b : b + 64] + content[a + 64 : b] + content[a : a + 64] + content[b + 64 :]


@pytest.mark.parametrize("damage, count", [(flipped, 400), (zeroed, 100), (noisy, 100), (cut, 100), (longer, 20), (swapped, 100)])
def test_damage_anywhere_is_seen(damage, count, sealed, tmp_path, no_training):
    draw, path, unseen = random.Random(0), tmp_path / "run.pt", 0
    for _ in range(count):
        found = damage(sealed, draw)
        if found == sealed:
            continue  # a block of zeros in place of zeros is no damage
        path.write_bytes(found)
        try:
            checkpoint.read(path, run().identity())
            unseen += 1
        except CheckpointError as error:
            assert f"checkpoint_path {path} cannot be read" in str(error) and path.read_bytes() == found
    assert unseen == 0
    with pytest.raises(CheckpointError, match=r"damaged, truncated or no checkpoint of this version\. Delete it to start over"):
        fit(run(), path)


def test_the_seal_covers_the_file_from_its_first_byte_to_its_last(tmp_path):
    path = tmp_path / "small.pt"
    checkpoint.write(path, {"seed": 0}, {"w": torch.ones(3)})
    content = path.read_bytes()
    for place in (*range(0, len(content) - 200, 7), *range(len(content) - 200, len(content))):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        with pytest.raises(CheckpointError, match="cannot be read"):
            checkpoint.read(path, {"seed": 0})
    path.write_bytes(content)
    assert torch.equal(checkpoint.read(path, {"seed": 0})["w"], torch.ones(3))


def test_a_sealed_file_is_an_archive_like_any_other(sealed, tmp_path):
    path = tmp_path / "run.pt"
    path.write_bytes(sealed)
    assert zipfile.ZipFile(path).testzip() is None
    for mapped in (False, True):
        assert len(torch.load(path, weights_only=True, mmap=mapped)["state"]["rows"]) == 2


def test_a_file_without_a_seal_is_refused_whatever_it_holds(sealed, tmp_path, no_training):
    path = tmp_path / "run.pt"
    path.write_bytes(sealed)
    stored = torch.load(path, weights_only=True)
    for form in (checkpoint.FORMAT, 1):
        torch.save({**stored, "format": form}, path)
        with pytest.raises(CheckpointError, match="its seal does not fit"):
            fit(run(), path)


@pytest.mark.parametrize("stored", [[1], {"run": [], "state": {}, "format": checkpoint.FORMAT}, {"run": {}, "state": {}, "format": 99}, {}])
def test_a_sealed_file_of_another_kind_is_refused(stored, tmp_path, monkeypatch, no_training):
    save = torch.save
    monkeypatch.setattr("bisam.training.checkpoint.torch.save", lambda _, archive: save(stored, archive))
    checkpoint.write(tmp_path / "run.pt", {}, {})
    with pytest.raises(CheckpointError, match="cannot be read"):
        fit(run(), tmp_path / "run.pt")


# -- the form ---------------------------------------------------------------------------------------------------------


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
@pytest.mark.parametrize("recipe", ["sgd", "vasso", "bsam", "lets-bisam-log", "esam-code"])
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
        try_out(place, lambda inner, key: inner.pop(key))
        for wrong in wrong_values(inside(state, place)):
            try_out(place, lambda inner, key, wrong=wrong: inner.__setitem__(key, wrong))
            tried += 1
    assert not taken and tried > 500
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
def test_what_is_wrong_is_named_and_the_file_stays(name, change, message, tmp_path, no_training, sealed):
    path, identity = tmp_path / "run.pt", run().identity()
    path.write_bytes(sealed)
    state = checkpoint.read(path, identity)
    checkpoint.write(path, identity, {**state, name: change(state[name])})
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=message):
        fit(run(), path)
    assert path.read_bytes() == before


def test_the_columns_that_are_checked_are_those_that_are_written():
    for recipe, more in (("sam", ()), ("lets-sam", ("rho",))):
        row = State(run(recipe=recipe), TINY).epoch()
        assert set(row) == {*_resume.COLUMNS, *_resume.EVALUATED, *more} and all(type(row[name]) is int for name in _resume.COUNTS)


def test_columns_of_an_epoch_that_is_not_evaluated():
    assert set(State(run(evaluate_every=2), TINY).epoch()) == set(_resume.COLUMNS)


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


# -- one at a time ----------------------------------------------------------------------------------------------------

SLOW = """
import sys, time
import sys
sys.path.insert(0, "..")  # the references of the tests
import test_train
from bisam.training import data, fit
from bisam.training.state import State
data.DATA["tiny"] = lambda: test_train.TINY
steps = State.steps
def slow(self):
    yield from steps(self)
    epoch = self.history.rows[-1]["epoch"]
    print(epoch, flush=True)
    time.sleep(120 if epoch == 2 else 0)
State.steps = slow
fit(test_train.run(seed=int(sys.argv[2])), sys.argv[1])
"""


@pytest.mark.parametrize("seed", [0, 1], ids=["the same run", "another run"])
def test_a_second_training_on_one_checkpoint_is_refused_and_goes_on_when_the_first_is_killed(seed, tmp_path):
    path = tmp_path / "run.pt"
    first = subprocess.Popen([sys.executable, "-c", SLOW, str(path), "0"], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "1\n" and first.stdout.readline() == "2\n"
        (tmp_path / "link.pt").symlink_to(path)
        for name in ("run.pt", "link.pt"):
            with pytest.raises(CheckpointError, match=f"checkpoint_path {tmp_path / name} is in the hands of another training"):
                fit(run(seed=seed), tmp_path / name)
    finally:
        first.kill()
        first.communicate()
    if seed == 0:
        resumed = fit(run(), path)
        assert len(resumed.rows) == 4 and outcome(resumed) == outcome(fit(run()))
    else:
        with pytest.raises(CheckpointError, match="belongs to another run"):
            fit(run(seed=seed), path)
    assert sorted(os.listdir(tmp_path)) == ["link.pt", "run.pt"]


def test_the_lock_is_free_after_a_training_whatever_its_end(tmp_path):
    path = tmp_path / "run.pt"
    for _ in range(2):
        with pytest.raises(FloatingPointError):
            fit(run(lr=1e30), path)
    assert len(fit(run(), path).rows) == 4 and os.listdir(tmp_path) == ["run.pt"]


# -- killed while writing ---------------------------------------------------------------------------------------------

DYING = """
import os, random, signal, sys
import sys
sys.path.insert(0, "..")  # the references of the tests
import test_train, torch
from bisam import _files as files
from bisam.training import data
from bisam.training import fit
torch.set_num_threads(1)
data.DATA["tiny"] = lambda: test_train.TINY
name, count = sys.argv[2], int(sys.argv[3])
where, call = (torch, torch.save) if name == "save" else (os, getattr(os, name))
calls = []
def dying(*arguments, **named):
    calls.append(0)
    if len(calls) == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return call(*arguments, **named)
setattr(where, name, dying)
fit(test_train.run(recipe="bisam-log"), sys.argv[1])
"""


@pytest.mark.parametrize("moment, count", [("save", 2), ("fsync", 1), ("fsync", 2), ("replace", 1), ("replace", 3), ("chmod", 1), ("unlink", 2)])
def test_a_kill_while_a_checkpoint_is_written_costs_at_most_an_epoch(moment, count, tmp_path):
    path = tmp_path / "run.pt"
    killed = subprocess.run([sys.executable, "-c", DYING, str(path), moment, str(count)], cwd=Path(__file__).parent)
    assert killed.returncode == -signal.SIGKILL
    assert outcome(fit(run(recipe="bisam-log"), path)) == outcome(fit(run(recipe="bisam-log")))
    assert os.listdir(tmp_path) == ["run.pt"]
