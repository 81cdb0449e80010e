"""The digest of a network sees every bit, and nothing but the bits."""


import pytest
import reference
import torch

from bisam.training import weights_digest

pytestmark = pytest.mark.usefixtures("tiny")


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
