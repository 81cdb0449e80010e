"""Labels that are wrong on purpose."""


import pytest
import torch

from bisam.training.data import symmetric_noise

CLEAN = torch.arange(1000) % 10


@pytest.mark.parametrize("reading", ["other", "any"])
@pytest.mark.parametrize("rate", [0.0, 0.001, 0.0016, 0.2, 0.55, 0.999])
def test_only_the_stated_share_is_redrawn(rate, reading):
    noisy = symmetric_noise(CLEAN, rate, 10, seed=0, reading=reading)
    changed = int((noisy != CLEAN).sum())
    assert changed == round(rate * 1000) if reading == "other" else changed <= round(rate * 1000)
    assert noisy.dtype == torch.int64 and noisy.min() >= 0 and noisy.max() < 10


def test_other_never_draws_the_true_class_and_any_does_one_time_in_k():
    rates = []
    for reading in ("other", "any"):
        wrong = [
            float((symmetric_noise(CLEAN, 0.5, 10, seed, reading) != CLEAN).float().mean())
            for seed in range(20)
        ]
        rates.append(wrong)
    assert rates[0] == pytest.approx([0.5] * 20)
    assert sum(rates[1]) / 20 == pytest.approx(0.45, abs=0.01) and max(rates[1]) < 0.5


def test_new_classes_are_uniform_over_the_wrong_ones():
    drawn = torch.cat([symmetric_noise(CLEAN * 0 + 3, 0.9, 4, seed) for seed in range(10)])
    counts = drawn.bincount(minlength=4)
    assert counts[3] == 1000 and (counts[:3] - 3000).abs().max() < 250


def test_the_seed_decides():
    draws = [symmetric_noise(CLEAN, 0.3, 10, seed).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_noise_leaves_the_given_labels_and_the_random_state_alone():
    given, state = CLEAN.clone(), torch.get_rng_state()
    symmetric_noise(given, 0.5, 10, seed=3)
    assert torch.equal(given, CLEAN) and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((CLEAN, 1.0, 10, 0), ValueError, r"rate must be in \[0, 1\), got 1\.0"),
        ((CLEAN, -0.1, 10, 0), ValueError, r"rate must be in \[0, 1\), got -0\.1"),
        ((CLEAN, float("nan"), 10, 0), ValueError, r"rate must be finite, got nan"),
        ((CLEAN, "0.1", 10, 0), TypeError, r"rate must be a real number, not '0\.1' of type str"),
        ((CLEAN, 0.1, 1, 0), ValueError, r"classes must be at least 2, got 1"),
        ((CLEAN, 0.1, 9, 0), ValueError, r"targets must be in 0 \.\. 8 .* got 9"),
        ((CLEAN, 0.1, 10, -1), ValueError, r"seed must be at least 0, got -1"),
        ((CLEAN, 0.1, 10, 0.5), TypeError, r"seed must be a whole number, not 0\.5 of type float"),
        ((CLEAN, 0.1, 10, 0, "true"), ValueError, r"reading must be one of other, any; got 'true'"),
        (
            (CLEAN.float(), 0.1, 10, 0),
            TypeError,
            r"targets must hold whole class numbers .* got torch\.float32",
        ),
        ((CLEAN.tolist(), 0.1, 10, 0), TypeError, r"targets must be a tensor of class numbers, got list"),
        ((CLEAN[:0], 0.1, 10, 0), ValueError, r"targets must hold at least one sample, got an empty batch"),
    ],
)
def test_a_wrong_argument_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        symmetric_noise(*arguments)
