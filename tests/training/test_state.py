"""The state of a training: its batches, the ways in which it is computed, and what an epoch adds up."""

import dataclasses
import math
import shutil

import pytest
import torch
from small import TINY, outcome, run

import bisam
from bisam.training import data, evaluation, fit, models, weights_digest
from bisam.training.data import Split
from bisam.training.state import State

pytestmark = pytest.mark.usefixtures("tiny")


class Prepared(torch.nn.Sequential):
    """Keeps what it was prepared with."""

    def prepare(self, images):
        self.seen = images


def test_a_network_is_prepared_with_training_images_before_the_first_step(monkeypatch):
    monkeypatch.setitem(models.MODELS, "prepared", lambda shape, classes: Prepared(*models.mlp(shape, classes, 8)))
    assert torch.equal(State(run(model="prepared"), TINY).model.seen, TINY.train.inputs)


def test_augmentation_changes_what_is_trained_on_and_not_what_is_reported_on(images):
    plain, changed = (State(run(data="images", augment=look), images) for look in ("none", "crop-flip-cutout"))
    index = torch.arange(8)
    seen = changed.batch(changed.train, index, changed.augment).inputs
    assert torch.equal(plain.batch(plain.train, index, plain.augment).inputs, images.prepared(images.train.inputs[:8]))
    assert not torch.equal(seen, images.prepared(images.train.inputs[:8]))
    assert torch.equal(changed.batch(changed.validation, index, None).inputs, images.prepared(images.validation.inputs[:8]))
    assert changed.train.inputs.dtype == torch.uint8 and torch.equal(changed.train.inputs, images.train.inputs)


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


@pytest.mark.parametrize("changes", [{"precision": "bfloat16"}, {"channels_last": True}, pytest.param({"compile": "default"}, marks=pytest.mark.slow)], ids=str)
def test_faster_ways_give_nearly_the_same_network(images, changes, tmp_path):
    if "compile" in changes and shutil.which("c++") is None:
        pytest.skip("torch.compile needs a C++ compiler, and c++ is not there")
    model = "mlp" if "compile" in changes else "small_conv"  # fewer kernels to compile
    wanted = run(data="images", model=model, epochs=2, recipe="bisam-log", batch_size=20)
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


@pytest.mark.parametrize("recipe", ["sam", "bisam-log", "asam", "esam"])
def test_broken_samples_are_those_right_at_w_and_wrong_where_the_climb_ends(recipe, monkeypatch):
    state = State(run(recipe=bisam.recipe(recipe).with_rho(2.0)), TINY)
    passes, counted, broken = [], [], evaluation.broken
    state.model.register_forward_hook(lambda module, inputs, output: passes.append(output.detach()))

    def watched(batch):
        first, second = passes[:2]  # of all samples of the batch: at w, and where the climb ended
        passes.clear()
        assert torch.equal(batch.at_w, first) and torch.equal(batch.at_worst, second)
        right, still = (scores.argmax(1) == batch.targets for scores in (first, second))
        counted.append(int((right & ~still).sum()))
        return broken(batch)

    monkeypatch.setattr(evaluation, "broken", watched)
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


def test_runs_of_one_seed_share_first_weights_order_and_labels_whatever_the_method(monkeypatch):
    seen = []

    def looked_at(state, path=None, **more):
        seen.append((weights_digest(state.model), state.train.targets.tolist(), state.next_order().tolist(), state.next_order().tolist()))

    monkeypatch.setattr("bisam.training.loop.train", looked_at)
    for recipe in ("sgd", "sam", "bisam-log", "asam", "esam", "vasso", "lets-sam"):
        fit(run(recipe=recipe, label_noise=0.4, seed=3))
    assert len(seen) == 7 and all(each == seen[0] for each in seen)
    fit(run(label_noise=0.4, seed=4))
    assert all(one != other for one, other in zip(seen[-1], seen[0], strict=True))
