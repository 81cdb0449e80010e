"""The loop: the same bits each time, cut or not, and a clean end whatever ends it."""

import itertools

import pytest
import torch
from small import NETS, TINY, killed, of_each_kind, outcome, run, with_norm

from bisam import BISAM_LOG, RECIPES, SharpnessAware
from bisam.training import Run, data, fit, models, weights_digest

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["sgd", "sam", "bisam-log", "bisam-tanh"])
@pytest.mark.parametrize("model", NETS)
def test_the_same_run_gives_the_same_bits_whatever_the_callers_random_state(model, recipe):
    first = fit(run(model=model, recipe=recipe))
    torch.manual_seed(99)
    assert outcome(fit(run(model=model, recipe=recipe))) == outcome(first)


@pytest.fixture(scope="module")
def plain():
    """The weights that the run ends with of which one field is changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(data.DATA, "tiny", lambda: TINY)
        return weights_digest(fit(run()).model)


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
def test_every_field_has_an_effect(change, plain):
    assert weights_digest(fit(run(**change)).model) != plain


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path):
    path, wanted = tmp_path / "run.pt", run(recipe="vasso")
    killed([("step", 13, "vasso", path)])
    assert len(torch.load(path, weights_only=True)["state"]["rows"]) == 2  # five steps an epoch
    resumed = fit(wanted, path)
    assert [row["epoch"] for row in resumed.rows] == [1, 2, 3, 4] and outcome(resumed) == outcome(fit(wanted))


@pytest.mark.parametrize("recipe", [*of_each_kind(RECIPES), "vasso", "esam-code"])
def test_every_part_of_a_recipe_trains_and_in_parts_ends_at_the_same_bits(recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "norm", with_norm)
    wanted, path = run(recipe=recipe, model="norm", epochs=3), tmp_path / "run.pt"
    whole = fit(wanted)
    assert whole.rows[-1]["train_loss"] < whole.rows[0]["train_loss"]
    fit(wanted, path, stop_after=1)
    assert outcome(fit(wanted, path)) == outcome(whole)


@pytest.mark.parametrize("look", ["none", "crop-flip", "crop-flip-cutout"])
def test_augmented_training_in_parts_ends_at_the_same_bits(images, tmp_path, look):
    wanted = run(data="images", augment=look, epochs=3, recipe="bisam-log")
    whole = fit(wanted)
    for _ in range(3):
        parts = fit(wanted, tmp_path / "run.pt", stop_after=1)
    assert outcome(parts) == outcome(whole)
    assert outcome(fit(wanted.replace(seed=1))) != outcome(whole)


def test_a_cut_before_the_first_evaluation_is_resumed_exactly(tmp_path):
    wanted, path = run(epochs=5, evaluate_every=4), tmp_path / "cut.pt"
    for _ in range(5):
        history = fit(wanted, path, stop_after=1)
    assert outcome(history) == outcome(fit(wanted))


@pytest.mark.parametrize("cut", (1, 3, 5))
def test_a_cut_run_keeps_the_bits_of_the_chosen_epoch(cut, tmp_path):
    whole = fit(run(epochs=6, model="dropping"))
    fit(run(epochs=6, model="dropping"), tmp_path / "c.pt", stop_after=cut)
    assert outcome(fit(run(epochs=6, model="dropping"), tmp_path / "c.pt")) == outcome(whole)
    assert outcome(fit(run(epochs=6, model="dropping"), tmp_path / "c.pt")) == outcome(whole)  # nothing left to do


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


def test_a_run_out_of_time_ends_cleanly_and_goes_on(tmp_path):
    whole, path = fit(run()), tmp_path / "run.pt"
    cut = fit(run(), path, minutes=1e-5)
    assert not cut.finished and len(cut.rows) <= 1
    assert outcome(fit(run(), path)) == outcome(whole) and fit(run(), path, minutes=10).finished


def test_a_run_that_is_told_to_stop_ends_after_its_epoch_and_goes_on(tmp_path):
    whole, path, asked = fit(run()), tmp_path / "run.pt", []
    cut = fit(run(), path, stop=lambda: asked.append(None) or len(asked) == 3)
    assert len(cut.rows) == 2 and not cut.finished and len(asked) == 3
    assert fit(run(), path, stop=lambda: True).rows == cut.rows
    assert outcome(fit(run(), path, stop=lambda: False)) == outcome(whole)


def test_digits_are_learnt():
    history = fit(Run(recipe="bisam-log", epochs=3, batch_size=100))
    assert (
        history.selected_test_accuracy > 90
        and history.rows[-1]["train_loss"] < history.rows[0]["train_loss"] / 2
    )


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"stop_after": 0}, ValueError, r"stop_after must be at least 1, got 0"),
        ({"stop": True}, TypeError, r"stop must be a function that says whether to stop, got True of type bool"),
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
