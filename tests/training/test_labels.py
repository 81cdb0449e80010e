"""The labels that a run sees: noise where it is asked for, and nowhere else."""


import pytest
import torch
from small import TINY, run

from bisam.training import Run, data, labelled
from bisam.training.state import State

pytestmark = pytest.mark.usefixtures("tiny")


def test_noise_is_in_the_training_labels_alone():
    state = State(run(label_noise=0.2), TINY)
    assert int((state.train.targets != TINY.train.targets).sum()) == round(0.2 * 47)
    assert torch.equal(state.train.inputs, TINY.train.inputs)
    assert torch.equal(state.validation.targets, TINY.validation.targets)
    assert torch.equal(state.test.targets, TINY.test.targets)


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
