"""What claims are called: words for methods, data, place and epoch, and no two alike within an experiment."""

import dataclasses
import re
from collections import Counter

import pytest

from bisam.evidence import listing
from bisam.notebook import labels

CLAIMS = {claim.id: claim for claim in listing.claims()}


@pytest.mark.parametrize("id, words", [
    ("digits/log-over-sam-noise40-last", "BiSAM (-log) over SAM, digits, 40 % wrong labels, last epoch"),
    ("power_mnist/sam-over-sgd-epochs-noise00", "SAM over SGD at equal epochs, MNIST, clean labels, last epoch"),
    ("power_mnist/sam-over-sgd-noise00", "SAM over SGD at equal passes, MNIST, clean labels, last epoch"),
    ("first_run/sam-last", "SAM over SGD, digits, 40 % wrong labels, last epoch"),
    ("jpeg/e", "SAM (with Cutout) over SAM (without Cutout), JPEG copy of CIFAR-10, ResNet-8, chosen epoch"),
    ("jpeg/e-log", "BiSAM (-log) over SAM, JPEG copy of CIFAR-10, ResNet-8, without Cutout, chosen epoch"),
    ("jpeg/a", "SAM (unsmoothed climb) over SAM, JPEG copy of CIFAR-10, ResNet-8, with Cutout, chosen epoch"),
    ("control/c", "SAM (WRN-34-2) over SAM (WRN-28-2), CIFAR-10, chosen epoch"),
    ("control/g", "BiSAM (-log) over SAM, CIFAR-10, ResNet-56, average of 6 splits, chosen epoch"),
    ("better_climb/sharper-over-log-broken", "BiSAM (-log, sharper bound) over BiSAM (-log), digits, 40 % wrong labels, broken samples"),
    ("T1/average/sam-over-sgd", "SAM over SGD, CIFAR-10, average of 5 networks, chosen epoch"),
    ("T4/pets/bisam-log-over-sam", "BiSAM (-log) over SAM, Oxford-IIIT Pets, ViT-B/16, chosen epoch"),
])  # fmt: skip
def test_a_label_says_what_is_compared_and_where(id, words):
    assert labels.label(CLAIMS[id]) == words


def test_within_an_experiment_no_two_claims_have_the_same_label():
    found = Counter((claim.experiment, labels.label(claim)) for claim in CLAIMS.values())
    assert [key for key, count in found.items() if count > 1] == []


def test_no_label_holds_the_name_of_a_recipe_a_field_or_a_file():
    names = re.compile(r"bisam-|sam-|_|folder:|file:|cifar10|rho|noise[0-9]|-over-")
    assert [words for words in map(labels.label, CLAIMS.values()) if names.search(words)] == []


def test_parts_that_a_caption_says_are_left_out_of_the_rows():
    claim = CLAIMS["digits/log-over-sam-noise40-last"]
    assert labels.label(claim, without=("data", "noise", "epoch")) == "BiSAM (-log) over SAM"
    assert labels.label(claim, without=labels.PARTS) == ""
    with pytest.raises(ValueError, match="a part in without must be one of methods, data"):
        labels.label(claim, without=("radius",))
    with pytest.raises(TypeError, match="claim must be a Claim"):
        labels.label("digits/log-over-sam-noise40-last")


def test_a_network_without_a_name_of_its_own_is_called_as_it_is():
    claim = dataclasses.replace(CLAIMS["T1/resnet56/sam-over-sgd"], at={"model": "my_net"})
    assert labels.label(claim) == "SAM over SGD, CIFAR-10, my_net, chosen epoch"
