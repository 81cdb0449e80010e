"""The published trainings on photographs, ImageNet from scratch and a transformer that is fine-tuned, end to end on small stand-ins.

All numbers are the published ones, but for the size of images, network and batch, and where it is said the number of epochs.
"""

import dataclasses

import photographs
import pytest
import small

from bisam import RECIPES
from bisam.evidence import ledger, recording
from bisam.losses.bounds import Tanh
from bisam.losses.cross_entropy import CrossEntropy
from bisam.training import Run, fit
from bisam.training.schedules import factor

CLASSES = tuple(f"n0{k}" for k in range(6))  # more than five, for the top-5 accuracy


def with_mu(name, mu, alpha=None):
    """A recipe of BiSAM with another temperature, and of tanh with another slope."""
    recipe = RECIPES[name]
    phi = recipe.ascent.phi if alpha is None else Tanh(alpha)
    return recipe.replace(ascent=dataclasses.replace(recipe.ascent, phi=phi, mu=mu))


SCRATCH = {"sam": RECIPES["msam"], "log": with_mu("m-bisam-log", 5.0), "tanh": with_mu("m-bisam-tanh", 20.0, 0.1)}
FROM_SCRATCH = Run(
    data="imagenet", loading="stream", augment="resized-crop", model="resnet50", epochs=90, batch_size=512, lr=0.2, momentum=0.9, weight_decay=5e-4,
    schedule="cosine", rate_by="epoch", metrics=("top5_accuracy",),
)  # fmt: skip
TUNED = {"sam": RECIPES["sam"], "log": with_mu("bisam-log", 4.0), "tanh": with_mu("bisam-tanh", 20.0)}
FINE_TUNING = Run(
    data="flowers102", loading="stream", augment="resized-crop", model="vit-b-16:imagenet", base="adamw", lr=1e-4, momentum=0.9, beta2=0.999, weight_decay=0.0,
    batch_size=512, schedule="linear", rate_by="step", warmup=100, clip=1.0,
)  # fmt: skip


def recorded(history, root, folder):
    """The record of a training, as it is read again."""
    return ledger.read(recording.record(history, "try", history.run.recipe.name, "smoke", folder, root))


@pytest.mark.parametrize("method", SCRATCH)
def test_imagenet_from_scratch(method, tmp_path):
    photographs.write_imagenet(tmp_path, train=4, val=1, classes=CLASSES)
    smoothed = SCRATCH[method].replace(descent=CrossEntropy(smoothing=0.1), micro_batch=2)
    run = FROM_SCRATCH.replace(recipe=smoothed, batch_size=8, image_size=32, epochs=2)
    found = recorded(fit(run, root=tmp_path, loaders=0), tmp_path, tmp_path)
    said = found["run"]
    assert said["recipe"]["descent"]["smoothing"] == 0.1 and said["recipe"]["radius"]["rho"] == 0.05 and said["recipe"]["micro_batch"] == 2
    assert (said["lr"], said["momentum"], said["weight_decay"], said["model"], said["loading"]) == (0.2, 0.9, 5e-4, "resnet50", "stream")
    assert "schedule" not in said and "rate_by" not in said  # the cosine by the epoch
    assert found["curve"]["lr"] == [0.2, 0.1]
    ascent = said["recipe"]["ascent"]
    wanted = {"sam": None, "log": (5.0, None), "tanh": (20.0, 0.1)}[method]
    assert (ascent if wanted is None else (ascent["mu"], ascent["phi"].get("alpha"))) == wanted
    assert {"selected_test_top5_accuracy", "last_test_top5_accuracy"} <= found["final"].keys()
    assert found["final"]["last_test_top5_accuracy"] >= found["final"]["last_test_accuracy"]
    assert Run.from_dict(said) == run


@pytest.mark.parametrize(("data", "method"), [("flowers102", "sam"), ("flowers102", "log"), ("pets", "log"), ("pets", "tanh")])
def test_a_transformer_is_fine_tuned(data, method, tmp_path):
    write = photographs.write_flowers if data == "flowers102" else photographs.write_pets
    write(tmp_path)
    recipe = with_mu("bisam-log", 6.0) if (data, method) == ("pets", "log") else TUNED[method]
    run = FINE_TUNING.replace(recipe=recipe, data=data, model="vit-tiny", image_size=32, batch_size=8, warmup=2, epochs=10)
    history = fit(run, tmp_path / "run.pt", root=tmp_path, loaders=0)
    assert history.steps == 10
    rates = history.curve("lr")  # one step an epoch: two of warm-up, then a line down to zero after the last
    assert rates == pytest.approx([0.5e-4, 1e-4, *(1e-4 * (1 - k / 8) for k in range(8))])
    found = recorded(history, tmp_path, tmp_path)
    said = found["run"]
    assert (said["base"], said["lr"], said["weight_decay"], said["clip"], said["schedule"], said["rate_by"]) == ("adamw", 1e-4, 0.0, 1.0, "linear", "step")
    mu = {"sam": None, "log": 4.0 if data == "flowers102" else 6.0, "tanh": 20.0}[method]
    assert (said["recipe"]["ascent"] or {}).get("mu") == mu and Run.from_dict(said) == run
    assert found["final"]["steps"] == 10


def test_a_transformer_that_is_cut_goes_on_to_the_same_bits(tmp_path):
    photographs.write_flowers(tmp_path)
    run = FINE_TUNING.replace(recipe=TUNED["log"], model="vit-tiny", image_size=32, batch_size=8, warmup=2, epochs=4, ema=0.9)
    whole = small.outcome(fit(run, root=tmp_path, loaders=0))
    fit(run, tmp_path / "run.pt", root=tmp_path, loaders=2, stop_after=2)
    assert small.outcome(fit(run, tmp_path / "run.pt", root=tmp_path, loaders=0)) == whole


def test_the_published_fine_tuning_has_a_hundred_steps_of_warm_up_in_five_hundred():
    rates = [FINE_TUNING.lr * factor(FINE_TUNING, t, 500) for t in range(500)]
    assert rates[0] == pytest.approx(1e-6) and max(rates) == rates[99] == rates[100] == 1e-4 and rates[-1] == pytest.approx(1e-4 / 400)
