"""Attention maps against the formula, and what is said of distributions over patches."""

import math

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from bisam.measure import agreement, attention, concentration, looks


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return VisionTransformer(image_size=8, patch_size=2, num_layers=2, num_heads=2, hidden_dim=12, mlp_dim=16, num_classes=3, dropout=0.3)


@pytest.fixture(scope="module")
def images():
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_the_first_map_is_the_softmax_of_queries_and_keys(vit, images):
    found = attention(vit, images)
    assert found.shape == (2, 5, 2, 17, 17)
    vit.eval()
    with torch.no_grad():
        tokens = torch.cat([vit.class_token.expand(5, -1, -1), vit._process_input(images)], 1) + vit.encoder.pos_embedding
        block = vit.encoder.layers[0]
        projected = block.ln_1(tokens) @ block.self_attention.in_proj_weight.T + block.self_attention.in_proj_bias
        query, key, _ = (part.view(5, 17, 2, 6).transpose(1, 2) for part in projected.chunk(3, -1))
        expected = (query @ key.transpose(-1, -2) / math.sqrt(6)).softmax(-1)
    torch.testing.assert_close(found[0], expected)


def test_a_look_leaves_the_network_and_the_random_state_as_they_were(vit, images):
    vit.train()
    before, state = {name: value.clone() for name, value in vit.state_dict().items()}, torch.get_rng_state()
    one, two = attention(vit, images), attention(vit, images)
    assert torch.equal(one, two) and torch.equal(state, torch.get_rng_state()) and vit.training
    assert all(torch.equal(value, vit.state_dict()[name]) for name, value in before.items())
    assert not any(module._forward_pre_hooks for module in vit.modules()) and torch.backends.mha.get_fastpath_enabled()


def test_a_failing_network_leaves_no_hook(vit):
    with pytest.raises(Exception, match=r"shape|size|Wrong"):
        attention(vit, torch.zeros(2, 3, 9, 9))
    assert not any(module._forward_pre_hooks for module in vit.modules()) and torch.backends.mha.get_fastpath_enabled()


def test_looks_are_those_of_the_class_token_at_the_patches(vit, images):
    maps = attention(vit, images)
    found = looks(maps)
    torch.testing.assert_close(found.sum(1), torch.ones(5))
    mean = maps[1].mean(1)[:, 0, 1:]
    torch.testing.assert_close(found, mean / mean.sum(1, keepdim=True))
    assert not torch.allclose(looks(maps, 0), found)


def test_concentration_is_0_for_an_even_look_and_1_for_one_patch():
    even, one, half = torch.full((1, 16), 1 / 16), torch.eye(16)[:1], torch.cat([torch.full((1, 4), 0.25), torch.zeros(1, 12)], 1)
    assert [round(float(concentration(p)), 6) for p in (even, one, half)] == [0.0, 1.0, 0.5]


def test_agreement_is_the_mean_over_pairs_and_does_not_depend_on_their_order():
    draw = torch.Generator().manual_seed(2)
    p = torch.rand(3, 4, 9, generator=draw).softmax(-1)
    pairs = [agreement(p[[i, j]]) for i, j in ((0, 1), (0, 2), (1, 2))]
    torch.testing.assert_close(agreement(p), torch.stack(pairs).mean(0))
    torch.testing.assert_close(agreement(p), agreement(p.flip(0)))
    assert float(agreement(torch.stack([p[0], p[0]])).min()) > 1 - 1e-6 and float(agreement(p).max()) < 1


@pytest.mark.parametrize("call, message", [
    (lambda: attention(nn.Linear(2, 2), torch.zeros(1, 2)), "model must hold modules torch.nn.MultiheadAttention, got Linear without one"),
    (lambda: looks(torch.zeros(2, 3)), r"maps must be a tensor of floats of shape \(layers, n, heads, L, L\)"), (lambda: concentration(torch.ones(3, 1)), "two tokens at least"),
    (lambda: agreement(torch.full((1, 2, 4), 0.25)), "looks must be of two networks at least, got 1"),
])  # fmt: skip
def test_what_cannot_be_looked_at_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_layer_with_a_mask_is_refused():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x, mask=nn.Transformer.generate_square_subsequent_mask(x.shape[1]))

    with pytest.raises(ValueError, match="model must attend to all tokens, got a layer with a mask"):
        attention(Masked(), torch.randn(2, 4, 8))
