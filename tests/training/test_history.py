"""What a history says: rows, the epoch that the protocol chooses, which test images are right, and the fit."""

import dataclasses
import math

import pytest
import torch
from small import TINY, outcome, run
from torch import nn

import bisam
from bisam import SGD
from bisam.training import History, accuracy, data, evaluation, fit, labelled, models, weights_digest
from bisam.training.data import Split
from bisam.training.state import State

pytestmark = pytest.mark.usefixtures("tiny")


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

    def scripted(model, task, split, *more):
        part = 0 if torch.equal(split.inputs, TINY.validation.inputs) else 1
        calls.append(part)
        right = torch.tensor([bool(scores[part][calls.count(part) - 1])] * 2 + [part == 1 and calls.count(1) == 2])
        return evaluation.Seen(right, {"accuracy": 100 * int(right.sum()) / 3})

    monkeypatch.setattr(evaluation, "look", scripted)
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
    plain = evaluation.look
    monkeypatch.setattr(evaluation, "look", lambda model, task, split, *rest: (
        evaluation.Seen(None, {"accuracy": 0.0}) if len(split) == 47 else plain(model, task, split, *rest)))  # fmt: skip
    left_out = fit(run(model=model))
    assert outcome(left_out)[:4] == outcome(measured)[:4] and left_out.fitted == 0.0 < measured.fitted
    assert measured.model.training == left_out.model.training


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


def test_a_learned_radius_has_a_column_of_its_own():
    history = fit(run(epochs=3).replace(recipe=bisam.methods.LETS_SAM.replace(radius=bisam.Learned(0.05, rate=10.0))))
    radii = history.curve("rho")
    assert len({0.05, *radii}) == 4 and all(0.001 <= rho <= 1 for rho in radii)
    still = fit(run(epochs=3).replace(recipe=bisam.methods.LETS_SAM.replace(radius=bisam.Learned(0.05, rate=0.0))))
    assert still.curve("rho") == [0.05, 0.05, 0.05]
