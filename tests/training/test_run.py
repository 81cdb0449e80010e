"""Descriptions of runs: every field is checked, and plain values say all of it."""

import json
import math

import pytest
import torch
from small import run

from bisam import BISAM_LOG, SAM, SGD, CrossEntropy, NegLog, Surrogate
from bisam.training import Run, equal_budget

pytestmark = pytest.mark.usefixtures("tiny")

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


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for device in ("cuda", "cuda:0"):
        with pytest.raises(ValueError, match=rf"device '{device}' is not there: torch finds no CUDA device"):
            Run(device=device)
