"""Training: the same bits each time, cut or not; whole checkpoints; a test split that chooses nothing."""

import dataclasses
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import reference
import torch
from torch import nn

import bisam
from bisam import BISAM_LOG, RECIPES, SAM, SGD, Constant, CrossEntropy, NegLog, SharpnessAware, Surrogate
from bisam.training import (
    History,
    Run,
    accuracy,
    data,
    equal_budget,
    evaluation,
    fit,
    labelled,
    models,
    sums,
    weights_digest,
)
from bisam.training.checkpoint import CheckpointError
from bisam.training.data import Data, Split
from bisam.training.state import State
from bisam.training.workers import Workers

NETS = ("small_conv", "mlp", "dropping")


def blobs(n, seed):
    """Four by four pixels of three classes that overlap."""
    draw = torch.Generator().manual_seed(seed)
    targets = torch.arange(n) % 3
    return Split(torch.randn(n, 1, 4, 4, generator=draw) + 0.7 * (targets - 1)[:, None, None, None], targets)


TINY = Data("tiny", 3, blobs(47, 0), blobs(30, 1), blobs(30, 2))


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """A task and a network with dropout that train in milliseconds."""
    monkeypatch.setitem(data.DATA, "tiny", lambda: TINY)
    monkeypatch.setitem(
        models.MODELS, "dropping", lambda shape, classes: models.mlp(shape, classes, 16, dropout=0.5)
    )


def run(**changes):
    return Run(**{"data": "tiny", "model": "mlp", "epochs": 4, "batch_size": 8, "lr": 0.05, **changes})


def outcome(history):
    """All that two equal trainings share."""
    right = {which: bits.tolist() for which, bits in history.right.items()}
    return weights_digest(history.model), history.rows, history.skipped, right, history.fitted


# -- the same bits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["sgd", "sam", "bisam-log", "bisam-tanh"])
@pytest.mark.parametrize("model", NETS)
def test_the_same_run_gives_the_same_bits_whatever_the_callers_random_state(model, recipe):
    first = fit(run(model=model, recipe=recipe))
    torch.manual_seed(99)
    assert outcome(fit(run(model=model, recipe=recipe))) == outcome(first)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"lr": 0.01},
        {"momentum": 0.5},
        {"weight_decay": 0.1},
        {"batch_size": 9},
        {"recipe": "sgd"},
        {"recipe": BISAM_LOG},
        {"label_noise": 0.2},
        {"epochs": 5},
    ],
    ids=str,
)
def test_every_field_has_an_effect(change):
    assert weights_digest(fit(run(**change)).model) != weights_digest(fit(run()).model)


@pytest.mark.parametrize("model", NETS)
@pytest.mark.parametrize("cuts", [(1,), (3,), (1, 1), (2, 1, 1)])
def test_a_training_in_parts_ends_at_the_same_bits(cuts, model, tmp_path):
    whole, path = fit(run(model=model, label_noise=0.2)), tmp_path / "run.pt"
    for k, cut in enumerate(cuts, start=1):
        part = fit(run(model=model, label_noise=0.2), path, stop_after=cut)
        assert len(part.rows) == sum(cuts[:k])
        torch.manual_seed(k)  # the state of the caller is not that of the training
    assert outcome(fit(run(model=model, label_noise=0.2), path)) == outcome(whole)


def test_a_finished_training_is_read_back_and_not_trained_again(tmp_path):
    path = tmp_path / "run.pt"
    first, written = fit(run(), path), (tmp_path / "run.pt").read_bytes()
    again = fit(run(), path)
    assert (
        outcome(again) == outcome(first) and again.seconds == first.seconds and path.read_bytes() == written
    )


@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_callers_random_state_is_left_alone(checkpointed, tmp_path):
    state = torch.get_rng_state()
    fit(run(model="dropping"), tmp_path / "run.pt" if checkpointed else None)
    assert torch.equal(torch.get_rng_state(), state)


def test_progress_changes_nothing(capfd):
    assert outcome(fit(run(), progress=True)) == outcome(fit(run()))
    assert [line.partition(" of 4: loss")[0] for line in capfd.readouterr().err.splitlines()] == [f"sam: epoch {k}" for k in (1, 2, 3, 4)]


# The child ends itself by SIGKILL at a stated step, so that nothing depends on how fast the machine is.
CHILD = """
import os, signal, sys
import sys
sys.path.insert(0, "..")  # the references of the tests
import test_train, torch
from bisam import SharpnessAware
from bisam.training import data
from bisam.training import fit

steps, step = [], SharpnessAware.step

def killing(self, batch=None, **more):
    steps.append(batch)
    if len(steps) == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, **more)

torch.set_num_threads(1)  # as in this process: the order of sums depends on it
data.DATA["tiny"] = lambda: test_train.TINY
SharpnessAware.step = killing
fit(test_train.run(recipe=sys.argv[2]), sys.argv[1])
"""


@pytest.mark.parametrize("recipe", ["sam", "vasso", "lets-bisam-log", "esam-code", "bsam"])
def test_a_killed_training_goes_on_to_the_same_bits(recipe, tmp_path):
    path, wanted = tmp_path / "run.pt", run(recipe=recipe)
    killed = subprocess.run([sys.executable, "-c", CHILD, str(path), recipe], cwd=Path(__file__).parent)
    assert killed.returncode == -signal.SIGKILL
    assert len(torch.load(path, weights_only=True)["state"]["rows"]) == 2  # five steps an epoch
    resumed = fit(wanted, path)
    assert [row["epoch"] for row in resumed.rows] == [1, 2, 3, 4] and outcome(resumed) == outcome(fit(wanted))


def with_norm(shape, classes):
    """A network with batch norm and dropout."""
    inside = [nn.Linear(math.prod(shape), 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, classes)]
    return nn.Sequential(nn.Flatten(), *inside)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains_and_in_parts_ends_at_the_same_bits(recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "norm", with_norm)
    wanted, path = run(recipe=recipe, model="norm", epochs=3), tmp_path / "run.pt"
    whole = fit(wanted)
    assert whole.rows[-1]["train_loss"] < whole.rows[0]["train_loss"]
    fit(wanted, path, stop_after=1)
    assert outcome(fit(wanted, path)) == outcome(whole)


def test_a_learned_radius_has_a_column_of_its_own():
    history = fit(run(epochs=3).replace(recipe=bisam.methods.LETS_SAM.replace(radius=bisam.Learned(0.05, rate=10.0))))
    radii = history.curve("rho")
    assert len({0.05, *radii}) == 4 and all(0.001 <= rho <= 1 for rho in radii)
    still = fit(run(epochs=3).replace(recipe=bisam.methods.LETS_SAM.replace(radius=bisam.Learned(0.05, rate=0.0))))
    assert still.curve("rho") == [0.05, 0.05, 0.05]


def test_a_learned_radius_sees_validation_images_and_no_test_images(monkeypatch):
    learned = run(recipe="lets-sam").replace(recipe=bisam.methods.LETS_SAM.replace(radius=bisam.Learned(0.05, rate=10.0)))
    weights = weights_digest(fit(learned).model)
    assert weights != weights_digest(fit(run(recipe="sam")).model)
    other = Split(TINY.test.inputs.flip(0), TINY.test.targets)
    monkeypatch.setitem(data.DATA, "tiny", lambda: dataclasses.replace(TINY, test=other))
    assert weights_digest(fit(learned).model) == weights
    other = Split(TINY.validation.inputs.flip(0), TINY.validation.targets)
    monkeypatch.setitem(data.DATA, "tiny", lambda: dataclasses.replace(TINY, validation=other))
    assert weights_digest(fit(learned).model) != weights


def test_a_death_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    class Death(BaseException):
        """Nobody catches it, as nobody catches a kill."""

    def die(*arguments):
        raise Death

    path = tmp_path / "run.pt"
    fit(run(), path, stop_after=2)
    before = path.read_bytes()
    for moment in ("bisam.training.checkpoint.os.fsync", "bisam.training.checkpoint.os.replace"):
        with monkeypatch.context() as patch, pytest.raises(Death):
            patch.setattr(moment, die)
            fit(run(), path)
        assert path.read_bytes() == before
    assert outcome(fit(run(), path)) == outcome(fit(run()))


# -- checkpoints -----------------------------------------------------------------------------------


@pytest.fixture
def no_training(monkeypatch):
    """Any step would be one too many."""
    monkeypatch.setattr("bisam.training.state.State.steps", lambda self: pytest.fail("training has started"))


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "run.pt"
    fit(run(), path, stop_after=2)
    return path


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused_and_left_alone(keep, checkpoint, request):
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    left = checkpoint.read_bytes()
    request.getfixturevalue("no_training")
    with pytest.raises(
        CheckpointError, match=r"checkpoint_path .*run\.pt cannot be read .*truncated or no checkpoint"
    ):
        fit(run(), checkpoint)
    assert checkpoint.read_bytes() == left


@pytest.mark.parametrize(
    "content", [b"no checkpoint", {"weights": torch.zeros(2)}, [1, 2]], ids=["text", "dict", "list"]
)
def test_another_file_is_refused(content, tmp_path, no_training):
    path = tmp_path / "run.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        fit(run(), path)


class Trap:
    """A thing whose reading runs code: it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, no_training):
    torch.save({"run": run().to_dict(), "state": Trap(tmp_path / "sprung")}, tmp_path / "run.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        fit(run(), tmp_path / "run.pt")
    assert not (tmp_path / "sprung").exists()


CHANGES = {
    "seed": ({"seed": 1}, r"seed: 0 there, 1 here"),
    "epochs": ({"epochs": 5}, r"epochs: 4 there, 5 here"),
    "recipe": ({"recipe": SAM.replace(radius=Constant(0.1))}, r"\(recipe\.radius\.rho: 0\.05 there, 0\.1 here\)"),
}


@pytest.mark.parametrize("change, message", CHANGES.values(), ids=CHANGES)
def test_the_checkpoint_of_another_run_is_refused_and_left_alone(change, message, checkpoint, request):
    before = checkpoint.read_bytes()
    request.getfixturevalue("no_training")
    with pytest.raises(CheckpointError, match=rf"checkpoint_path .* belongs to another run .*{message}"):
        fit(run(**change), checkpoint)
    assert checkpoint.read_bytes() == before


def test_a_checkpoint_holds_tensors_and_plain_values_only(checkpoint):
    stored = torch.load(checkpoint, weights_only=True)
    assert Run.from_dict(stored["run"]) == run() and len(stored["state"]["rows"]) == 2


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path, no_training):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.pt").mkdir()
    for path in (
        tmp_path / "file" / "run.pt",
        tmp_path / "file" / "deeper" / "run.pt",
        tmp_path / "folder.pt",
    ):
        with pytest.raises(
            CheckpointError, match=rf"checkpoint_path {path} cannot be written: .*Choose another folder"
        ):
            fit(run(), path)


def test_missing_folders_are_made_and_nothing_else_is_left_in_them(tmp_path):
    fit(run(), tmp_path / "a" / "b" / "run.pt", stop_after=1)
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["run.pt"]


def test_a_disk_that_fills_up_stops_the_training_and_the_old_file_stays(checkpoint, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    before = checkpoint.read_bytes()
    monkeypatch.setattr("bisam.training.checkpoint.os.fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot be written: .*No space left.* The old file stays"):
        fit(run(), checkpoint)
    assert checkpoint.read_bytes() == before and list(checkpoint.parent.iterdir()) == [checkpoint]


# -- what a history says ---------------------------------------------------------------------------


def test_a_row_holds_what_the_page_says():
    history = fit(run(epochs=3))
    names = {"epoch", "lr", "train_loss", "train_accuracy", "broken", "validation_accuracy", "test_accuracy"}
    assert all(set(row) == names for row in history.rows) and history.curve("epoch") == [1, 2, 3]
    assert history.curve("lr") == pytest.approx(
        [0.05 * (1 + math.cos(math.pi * e / 3)) / 2 for e in range(3)]
    )
    assert (
        history.rows[-1]["test_accuracy"] == accuracy(history.model, TINY.test) == history.last_test_accuracy
    )
    assert history.rows[-1]["validation_accuracy"] == accuracy(history.model, TINY.validation)
    assert history.skipped == 0 and history.seconds > 0


def test_the_first_row_is_that_of_a_loop_written_out():
    torch.manual_seed(3)
    model = models.build("mlp", TINY.shape, 3)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    order, losses, right = torch.randperm(47, generator=torch.Generator().manual_seed(3)), [], 0
    for k in range(5):  # 47 images make five batches of 8; the last 7 are left out
        x, y = TINY.train.inputs[order[8 * k : 8 * k + 8]], TINY.train.targets[order[8 * k : 8 * k + 8]]
        sgd.zero_grad()
        logits = model(x)
        loss = nn.functional.cross_entropy(logits, y)
        loss.backward()
        sgd.step()
        losses.append(loss.item())
        right += int((logits.argmax(1) == y).sum())
    history = fit(run(model="mlp", recipe=SGD, epochs=1, seed=3))
    assert weights_digest(history.model) == weights_digest(model)
    assert history.rows[0]["train_loss"] == pytest.approx(sum(losses) / 5, rel=1e-6)
    assert history.rows[0]["train_accuracy"] == pytest.approx(100 * right / 40)


# -- epochs that are evaluated ------------------------------------------------------------------------------------------


def test_only_some_epochs_are_evaluated_and_the_last_one_always():
    every, third = fit(run(epochs=8)), fit(run(epochs=8, evaluate_every=3))
    assert weights_digest(third.model) == weights_digest(every.model) and third.fitted == every.fitted
    assert [row["epoch"] for row in third.rows if "test_accuracy" in row] == [3, 6, 8]
    for mine, other in zip(third.rows, every.rows, strict=True):
        assert mine == {name: other[name] for name in mine} and (set(mine) == set(other) or mine["epoch"] not in (3, 6, 8))
    assert third.last_test_accuracy == every.last_test_accuracy and torch.equal(third.right["last"], every.right["last"])
    best = max((3, 6, 8), key=lambda epoch: (every.rows[epoch - 1]["validation_accuracy"], -epoch))
    assert third.selected_epoch == best and third.selected_test_accuracy == every.rows[best - 1]["test_accuracy"]
    assert 100 * int(third.right["selected"].sum()) / 30 == third.selected_test_accuracy
    assert len(third.curve("test_accuracy")) == 3 and len(third.curve("train_loss")) == 8


def test_what_is_not_evaluated_yet_has_no_chosen_epoch():
    cut = fit(run(epochs=4, evaluate_every=3), stop_after=2)
    with pytest.raises(ValueError, match="no epoch has been evaluated yet: 2 are done, the first is evaluated after 3"):
        print(cut.selected_epoch)


def test_a_cut_before_the_first_evaluation_is_resumed_exactly(tmp_path):
    wanted, path = run(epochs=5, evaluate_every=4), tmp_path / "cut.pt"
    for _ in range(5):
        history = fit(wanted, path, stop_after=1)
    assert outcome(history) == outcome(fit(wanted))


class Prepared(torch.nn.Sequential):
    """Keeps what it was prepared with."""

    def prepare(self, images):
        self.seen = images


def test_a_network_is_prepared_with_training_images_before_the_first_step(monkeypatch):
    monkeypatch.setitem(models.MODELS, "prepared", lambda shape, classes: Prepared(*models.mlp(shape, classes, 8)))
    assert torch.equal(State(run(model="prepared"), TINY).model.seen, TINY.train.inputs)


def test_accuracy_counts_in_chunks_in_evaluation_mode_and_keeps_the_mode():
    model = fit(run(model="dropping")).model.train()
    split, model_2 = TINY.test, fit(run(model="dropping")).model.eval()
    expected = 100 * float((model_2(split.inputs).argmax(1) == split.targets).double().mean())
    for chunk in (1, 7, 1000):
        assert accuracy(model, split, chunk) == pytest.approx(expected) and model.training


@pytest.mark.parametrize("changes", [{}, {"model": "dropping"}, {"model": "small_conv"}, {"label_noise": 0.4, "seed": 5}], ids=str)
def test_a_history_knows_which_test_images_are_right_at_the_chosen_epoch_and_after_the_last(changes):
    history = fit(run(epochs=6, **changes))
    until = fit(run(epochs=6, **changes), stop_after=history.selected_epoch)
    for which, one in (("selected", until), ("last", history)):
        expected = one.model.eval()(TINY.test.inputs).argmax(1) == TINY.test.targets
        assert torch.equal(history.right[which], expected) and expected.dtype == torch.bool
    assert 100 * int(history.right["selected"].sum()) / 30 == history.selected_test_accuracy
    assert 100 * int(history.right["last"].sum()) / 30 == history.last_test_accuracy


def test_of_equal_validation_accuracies_the_bits_are_those_of_the_earliest(monkeypatch):
    scores = {0: [0, 1, 1, 0, 1], 1: [0, 1, 0, 1, 0]}  # of the validation and the test split, an epoch each
    calls = []

    def scripted(model, split, chunk=1000, prepared=None):
        part = 0 if torch.equal(split.inputs, TINY.validation.inputs) else 1
        calls.append(part)
        return torch.tensor([bool(scores[part][calls.count(part) - 1])] * 2 + [part == 1 and calls.count(1) == 2])

    monkeypatch.setattr(evaluation, "which_right", scripted)
    state = State(run(epochs=6), TINY)
    for _ in range(5):
        state.epoch()
    assert state.history.selected_epoch == 2 and state.history.right["selected"].tolist() == [True, True, True]
    assert state.history.right["last"].tolist() == [False] * 3


@pytest.mark.parametrize("model", ["mlp", "dropping", "small_conv"])
def test_the_fit_is_measured_on_all_training_images_after_the_last_epoch(model):
    history = fit(run(model=model, label_noise=0.4))
    split = labelled(history.run, TINY)
    assert not torch.equal(split.targets, TINY.train.targets)
    right = history.model.eval()(split.inputs).argmax(1) == split.targets
    assert history.fitted == 100 * int(right.sum()) / 47
    assert fit(run(model=model, label_noise=0.4), stop_after=3).fitted is None


@pytest.mark.parametrize("model", ["dropping", "small_conv"])
def test_measuring_the_fit_draws_nothing_and_moves_no_bit(model, monkeypatch):
    measured = fit(run(model=model))
    plain = evaluation.which_right
    monkeypatch.setattr(evaluation, "which_right", lambda model, split, *rest, **named: (
        torch.zeros(len(split), dtype=torch.bool) if len(split) == 47 else plain(model, split, *rest, **named)))  # fmt: skip
    left_out = fit(run(model=model))
    assert outcome(left_out)[:4] == outcome(measured)[:4] and left_out.fitted == 0.0 < measured.fitted
    assert measured.model.training == left_out.model.training


@pytest.mark.parametrize("cut", range(1, 6))
def test_a_cut_run_keeps_the_bits_of_the_chosen_epoch(cut, tmp_path):
    whole = fit(run(epochs=6, model="dropping"))
    fit(run(epochs=6, model="dropping"), tmp_path / "c.pt", stop_after=cut)
    assert outcome(fit(run(epochs=6, model="dropping"), tmp_path / "c.pt")) == outcome(whole)
    assert outcome(fit(run(epochs=6, model="dropping"), tmp_path / "c.pt")) == outcome(whole)  # nothing left to do


def test_the_selected_epoch_is_the_earliest_best():
    rows = [
        {"epoch": k, "validation_accuracy": v, "test_accuracy": t}
        for k, v, t in ((1, 50, 9), (2, 70, 3), (3, 70, 8))
    ]
    history = History(run(), rows)
    assert (history.selected_epoch, history.selected_test_accuracy, history.last_test_accuracy) == (2, 3, 8)


def test_the_test_split_chooses_nothing(monkeypatch):
    worse = Split(TINY.test.inputs, TINY.test.targets.roll(1))
    monkeypatch.setitem(data.DATA, "permuted", lambda: dataclasses.replace(TINY, test=worse))
    plain, permuted = fit(run()), fit(run(data="permuted"))
    assert weights_digest(plain.model) == weights_digest(permuted.model)
    assert plain.selected_epoch == permuted.selected_epoch
    assert plain.curve("validation_accuracy") == permuted.curve("validation_accuracy")
    assert plain.curve("test_accuracy") != permuted.curve("test_accuracy")


def test_noise_is_in_the_training_labels_alone():
    state = State(run(label_noise=0.2), TINY)
    assert int((state.train.targets != TINY.train.targets).sum()) == round(0.2 * 47)
    assert torch.equal(state.train.inputs, TINY.train.inputs)
    assert torch.equal(state.validation.targets, TINY.validation.targets)
    assert torch.equal(state.test.targets, TINY.test.targets)


@pytest.mark.parametrize("recipe", ["sgd", "sam", "bisam-log"])
def test_a_training_that_diverges_says_in_which_epoch(recipe):
    with pytest.raises(
        FloatingPointError, match=rf"epoch 1 of 4, lr 1e\+30: the .* gradient of {recipe} holds inf or NaN"
    ):
        fit(run(recipe=recipe, lr=1e30))


def test_a_training_that_diverges_keeps_its_checkpoint(tmp_path, monkeypatch):
    path, step, calls = tmp_path / "run.pt", SharpnessAware.step, itertools.count(1)

    def diverging(self, batch, **more):
        if next(calls) == 12:  # five steps an epoch
            raise FloatingPointError("the gradient holds inf")
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(SharpnessAware, "step", diverging)
        with pytest.raises(FloatingPointError, match=r"epoch 3 of 4, lr 0\.025: the gradient holds inf"):
            fit(run(), path)
    assert len(torch.load(path, weights_only=True)["state"]["rows"]) == 2
    assert outcome(fit(run(), path)) == outcome(fit(run()))


def test_digits_are_learnt():
    history = fit(Run(recipe="bisam-log", epochs=3, batch_size=100))
    assert (
        history.selected_test_accuracy > 90
        and history.rows[-1]["train_loss"] < history.rows[0]["train_loss"] / 2
    )


# -- descriptions of runs --------------------------------------------------------------------------

RUNS = {"defaults": Run(), "another": Run(recipe="bisam-tanh", label_noise=0.4, noise_reading="any", seed=7)}


@pytest.mark.parametrize("one", RUNS.values(), ids=RUNS)
def test_plain_values_survive_json(one):
    assert Run.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_a_recipe_of_ones_own_survives_json():
    own = BISAM_LOG.replace(
        name="own", ascent=Surrogate(NegLog(0.8), 5.0), descent=CrossEntropy(0.1, "others")
    )
    assert Run.from_dict(json.loads(json.dumps(Run(recipe=own).to_dict()))).recipe == own


def test_replacing_makes_another_run_that_is_checked():
    assert Run().replace(seed=3) == Run(seed=3) != Run()
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        Run().replace(seed=-1)


def test_a_recipe_may_be_given_by_name():
    assert Run(recipe="bisam-log") == Run(recipe=BISAM_LOG)


@pytest.mark.parametrize(
    "epochs, recipe, expected", [(10, SAM, 10), (10, SGD, 20), (1, BISAM_LOG, 1), (7, SGD, 14)]
)
def test_an_equal_budget_counts_passes(epochs, recipe, expected):
    assert equal_budget(epochs, recipe) == expected


WRONG = [
    ({"recipe": "bisam"}, ValueError, r"recipe must be one of sgd, sam, .*; got 'bisam'"),
    ({"recipe": 3}, TypeError, r"recipe must be a bisam\.Recipe or one of sgd, .*; got 3"),
    ({"data": "emnist"}, ValueError, r"data must be one of digits.*; got 'emnist'"),
    ({"model": "resnet"}, ValueError, r"model must be one of small_conv, .*; got 'resnet'"),
    ({"epochs": 0}, ValueError, r"epochs must be at least 1, got 0"),
    ({"epochs": 2.5}, TypeError, r"epochs must be a whole number, not 2\.5 of type float"),
    ({"epochs": True}, TypeError, r"epochs must be a whole number, not True of type bool"),
    ({"batch_size": -8}, ValueError, r"batch_size must be at least 1, got -8"),
    ({"lr": 0.0}, ValueError, r"lr must be greater than 0, got 0\.0"),
    ({"lr": math.nan}, ValueError, r"lr must be finite, got nan"),
    ({"lr": "0.1"}, TypeError, r"lr must be a real number, not '0\.1' of type str"),
    ({"momentum": 1.0}, ValueError, r"momentum must be in \[0, 1\), got 1\.0"),
    ({"weight_decay": -1e-4}, ValueError, r"weight_decay must be 0 or greater, got -0\.0001"),
    ({"label_noise": 1.0}, ValueError, r"label_noise must be in \[0, 1\), got 1\.0"),
    ({"noise_reading": "some"}, ValueError, r"noise_reading must be one of other, any; got 'some'"),
    ({"seed": -1}, ValueError, r"seed must be at least 0, got -1"),
    ({"seed": 0.5}, TypeError, r"seed must be a whole number, not 0\.5 of type float"),
    ({"device": "gpu"}, ValueError, r'device must be "cpu" or a CUDA device .* got \'gpu\''),
    ({"device": "cpux"}, ValueError, r'device must be "cpu" or a CUDA device .* got \'cpux\''),
    ({"device": 0}, ValueError, r'device must be "cpu" or a CUDA device .* got 0'),
]


@pytest.mark.parametrize(
    "fields, error, message", WRONG, ids=lambda value: str(value) if isinstance(value, dict) else ""
)
def test_a_wrong_field_is_named(fields, error, message):
    with pytest.raises(error, match=message):
        Run(**fields)


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for device in ("cuda", "cuda:0"):
        with pytest.raises(ValueError, match=rf"device '{device}' is not there: torch finds no CUDA device"):
            Run(device=device)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"stop_after": 0}, ValueError, r"stop_after must be at least 1, got 0"),
        ({"stop_after": 1.5}, TypeError, r"stop_after must be a whole number, not 1\.5 of type float"),
    ],
)
def test_a_wrong_way_to_stop_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        fit(run(), **arguments)


@pytest.mark.usefixtures("no_training")
def test_a_batch_larger_than_the_training_split_is_named():
    with pytest.raises(ValueError, match=r"batch_size must be at most 47, the training images; got 48"):
        fit(run(batch_size=48))


# -- digests ---------------------------------------------------------------------------------------


def test_the_digest_sees_every_bit_of_weights_and_buffers():
    digests = [weights_digest(reference.net("norm"))]
    for name, change in (
        ("0.bias", -0.0),
        ("1.running_mean", 1e-300),
        ("1.num_batches_tracked", 1),
        ("3.weight", 0.5),
    ):
        model = reference.net("norm")
        with torch.no_grad():
            dict(model.state_dict())["0.bias"].zero_()
            digests.append(weights_digest(model))
            model.state_dict()[name].fill_(change)
        digests.append(weights_digest(model))
    assert digests[1] == digests[3] == digests[5] == digests[7] and len(set(digests)) == 6


def test_the_digest_does_not_depend_on_how_tensors_lie_in_memory():
    model, twin = reference.net(), reference.net()
    twin[0].weight.data = twin[0].weight.data.T.contiguous().T
    assert weights_digest(model) == weights_digest(twin)


# -- images, noise, precision, time ------------------------------------------------------------------------------------


@pytest.fixture
def images(monkeypatch):
    """A task of uint8 images, large enough to be augmented."""
    draw = torch.Generator().manual_seed(0)

    def part(n):
        targets = torch.arange(n) % 3
        shades = (40 + 80 * targets)[:, None, None, None] + torch.randint(0, 40, (n, 3, 16, 16), generator=draw)
        return Split(shades.to(torch.uint8), targets)

    task = Data("images", 3, part(40), part(20), part(20), (0.5,) * 3, (0.25,) * 3)
    monkeypatch.setitem(data.DATA, "images", lambda: task)
    return task


@pytest.mark.parametrize("look", ["none", "crop-flip", "crop-flip-cutout"])
def test_augmented_training_in_parts_ends_at_the_same_bits(images, tmp_path, look):
    wanted = run(data="images", augment=look, epochs=3, recipe="bisam-log")
    whole = fit(wanted)
    for _ in range(3):
        parts = fit(wanted, tmp_path / "run.pt", stop_after=1)
    assert outcome(parts) == outcome(whole)
    assert outcome(fit(wanted.replace(seed=1))) != outcome(whole)


def test_augmentation_changes_what_is_trained_on_and_not_what_is_reported_on(images):
    plain, changed = (State(run(data="images", augment=look), images) for look in ("none", "crop-flip-cutout"))
    index = torch.arange(8)
    seen = changed.batch(changed.train, index, changed.augment).inputs
    assert torch.equal(plain.batch(plain.train, index, plain.augment).inputs, images.prepared(images.train.inputs[:8]))
    assert not torch.equal(seen, images.prepared(images.train.inputs[:8]))
    assert torch.equal(changed.batch(changed.validation, index, None).inputs, images.prepared(images.validation.inputs[:8]))
    assert changed.train.inputs.dtype == torch.uint8 and torch.equal(changed.train.inputs, images.train.inputs)


def test_the_order_of_the_images_does_not_follow_the_noise():
    task = data.digits()
    state = State(Run(data="digits", model="mlp", label_noise=0.4), task)
    wrong = state.train.targets != task.train.targets
    first = [int(wrong[index].sum()) for index in state.batches()]
    assert sum(first) == 400 and min(first) > 20 and max(first) < 60  # 40 expected in each batch of 100


def test_the_labels_that_a_run_sees_can_be_had():
    wanted = run(label_noise=0.2, validation_noise=True, seed=4)
    state = State(wanted, TINY)
    for part in ("train", "validation"):
        assert torch.equal(labelled(wanted, TINY, part).targets, getattr(state, part).targets)
    assert labelled(run(), TINY) is TINY.train
    with pytest.raises(ValueError, match="part must be one of train, validation; got 'test'"):
        labelled(wanted, TINY, "test")


def test_noise_in_the_validation_labels_is_by_choice():
    state = State(run(label_noise=0.2, validation_noise=True), TINY)
    assert int((state.validation.targets != TINY.validation.targets).sum()) == round(0.2 * 30)
    assert torch.equal(state.test.targets, TINY.test.targets)


@pytest.mark.parametrize("changes", [{"precision": "bfloat16"}, {"channels_last": True}, {"compile": "default"}], ids=str)
def test_faster_ways_give_nearly_the_same_network(images, changes, tmp_path):
    if "compile" in changes and shutil.which("c++") is None:
        pytest.skip("torch.compile needs a C++ compiler, and c++ is not there")
    wanted = run(data="images", model="small_conv", epochs=2, recipe="bisam-log", batch_size=20)
    plain, other = fit(wanted), fit(wanted.replace(**changes), tmp_path / "run.pt")
    assert other.finished and set(other.model.state_dict()) == set(plain.model.state_dict())
    for before, after in zip(plain.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(after, before, rtol=0.1, atol=0.05, check_stride=False)
    assert outcome(fit(wanted.replace(**changes), tmp_path / "run.pt")) == outcome(other)  # nothing left to do


def test_bfloat16_is_really_used(images):
    seen = []
    state = State(run(data="images", precision="bfloat16"), images)
    state.model.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    state.epoch()
    assert set(seen) == {torch.bfloat16}


def test_a_run_out_of_time_ends_cleanly_and_goes_on(tmp_path):
    whole, path = fit(run()), tmp_path / "run.pt"
    cut = fit(run(), path, minutes=1e-5)
    assert not cut.finished and len(cut.rows) <= 1
    assert outcome(fit(run(), path)) == outcome(whole) and fit(run(), path, minutes=10).finished


@pytest.mark.parametrize("recipe", ["sam", "bisam-log", "asam", "esam"])
def test_broken_samples_are_those_right_at_w_and_wrong_where_the_climb_ends(recipe, monkeypatch):
    state = State(run(recipe=bisam.recipe(recipe).with_rho(2.0)), TINY)
    passes, counted, broken = [], [], sums.broken
    state.model.register_forward_hook(lambda module, inputs, output: passes.append(output.detach()))

    def watched(batch):
        first, second = passes[:2]  # of all samples of the batch: at w, and where the climb ended
        passes.clear()
        assert torch.equal(batch.at_w, first) and torch.equal(batch.at_worst, second)
        right, still = (scores.argmax(1) == batch.targets for scores in (first, second))
        counted.append(int((right & ~still).sum()))
        return broken(batch)

    monkeypatch.setattr(sums, "broken", watched)
    assert state.epoch()["broken"] == sum(counted) > 0


def test_nothing_is_broken_where_nothing_climbs():
    assert fit(run(recipe="sgd", epochs=1)).curve("broken") == [0]


def test_where_the_device_is_not_waited_for_a_bad_gradient_is_found_after_the_epoch(monkeypatch):
    state = State(run(), TINY)
    state.optimizer.nonfinite = "skip"
    with torch.no_grad():
        next(state.model.parameters()).fill_(math.inf)
    with pytest.warns(RuntimeWarning, match="skipped"), pytest.raises(
        FloatingPointError, match=r"epoch 1 of 4, lr 0\.05: 5 steps met a gradient that is inf or NaN and were skipped"
    ):
        state.epoch()


@pytest.mark.parametrize("wrong, error, message", [
    ({"augment": "mixup"}, ValueError, "augment must be one of none, flip, .*; got 'mixup'"),
    ({"precision": "float16"}, ValueError, "precision must be one of float32, bfloat16; got 'float16'"),
    ({"compile": "yes"}, ValueError, "compile must be one of no, default, reduce-overhead, whole-step; got 'yes'"),
    ({"channels_last": 1}, TypeError, "channels_last must be True or False"),
    ({"train_images": 0}, ValueError, "train_images must be at least 1"), ({"split_seed": -1}, ValueError, "split_seed must be at least 0"),
])  # fmt: skip
def test_new_fields_are_checked(wrong, error, message):
    with pytest.raises(error, match=message):
        run(**wrong)


# -- several processes -------------------------------------------------------------------------------------------------

TOGETHER = """
import sys
from pathlib import Path
import torch
from bisam import recipe
from bisam.training import Run, fit
torch.set_num_threads(1)
out, name, stop, per_worker = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4] == "True"
run = Run(data="digits", model="mlp", recipe=recipe(name), epochs=2, batch_size=100, lr=0.05, label_noise=0.2, per_worker=per_worker)
history = fit(run, out / "run.pt", stop_after=stop or None)
if torch.distributed.is_initialized():
    raise SystemExit("the group was left open")
import os
torch.save({"weights": history.model.state_dict(), "rows": history.rows}, out / f"rank{os.environ.get('RANK', 0)}.pt")
"""


def together(folder, name, stop=0, processes=2, per_worker=False, expect=0):
    script = folder / "together.py"
    script.write_text(TOGETHER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else [sys.executable]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(bisam.__file__).parents[1])}
    words = [*launch, str(script), str(folder), name, str(stop), str(per_worker)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=1800)
    assert (done.returncode == 0) == (expect == 0), done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(processes)] if expect == 0 else done.stderr


@pytest.mark.slow
def test_two_processes_under_torchrun_come_to_the_weights_of_one_and_go_on_where_they_were_cut(tmp_path):
    for folder in ("one", "two", "parts"):
        (tmp_path / folder).mkdir()
    (alone,) = together(tmp_path / "one", "bisam-log", processes=1)
    first, second = together(tmp_path / "two", "bisam-log")
    together(tmp_path / "parts", "bisam-log", stop=1)
    resumed, _ = together(tmp_path / "parts", "bisam-log")
    for name, expected in alone["weights"].items():
        torch.testing.assert_close(first["weights"][name], expected, rtol=0, atol=1e-6)
        assert torch.equal(first["weights"][name], second["weights"][name])
        assert torch.equal(first["weights"][name], resumed["weights"][name])
    assert first["rows"] == second["rows"] == resumed["rows"]
    for mine, theirs in zip(first["rows"], alone["rows"], strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)


@pytest.mark.slow
def test_under_torchrun_the_climb_may_be_each_workers_own(tmp_path):
    for folder in ("joint", "own"):
        (tmp_path / folder).mkdir()
    joint, own = together(tmp_path / "joint", "sam"), together(tmp_path / "own", "sam", per_worker=True)
    assert all(torch.equal(own[0]["weights"][name], own[1]["weights"][name]) for name in own[0]["weights"])
    assert any(not torch.allclose(own[0]["weights"][name], joint[0]["weights"][name], atol=1e-6) for name in own[0]["weights"])


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(ValueError, match="batch_size must be a multiple of the 3 processes, got 8"):
        Workers(0, 3).check(8)
