"""Augmentation of a batch against torchvision and a slow reference, image by image, draw by draw."""

import itertools

import pytest
import torch
import torchvision
from scipy import stats
from torchvision.transforms import functional

from bisam.training import augment
from bisam.training.augment import AUGMENTATIONS, Augment
from bisam.training.data import Data, Split, digits

SIZE = 32
ALL = pytest.mark.parametrize("name", AUGMENTATIONS)
KINDS = pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=["uint8", "float32"])
CHANNELS = pytest.mark.parametrize("channels", [1, 3])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n, channels=3, height=SIZE, width=SIZE, dtype=torch.uint8):
    """No pixel is 0 in uint8, so that padding shows."""
    drawn = torch.randint(1, 256, (n, channels, height, width), generator=seeded(7), dtype=torch.uint8)
    return drawn if dtype == torch.uint8 else drawn.to(dtype) / 100 - 1


def task(inputs):
    split, channels = Split(inputs, torch.zeros(len(inputs), dtype=torch.int64)), inputs.shape[1]
    if inputs.dtype != torch.uint8:
        return Data("floats", 2, split, split, split)
    return Data("images", 2, split, split, split, mean=(0.4, 0.5, 0.6)[:channels], std=(0.2, 0.25, 0.3)[:channels])


def slow_cutout(image, side, row, column):
    """One image, one pixel at a time."""
    image = image.clone()
    for i, j in itertools.product(range(image.shape[1]), range(image.shape[2])):
        if row - side // 2 <= i < row - side // 2 + side and column - side // 2 <= j < column - side // 2 + side:
            image[:, i, j] = 0
    return image


def scaled(inputs, data):
    """As torchvision does it."""
    if inputs.dtype != torch.uint8:
        return inputs
    return torch.stack([functional.normalize(functional.convert_image_dtype(x), data.mean, data.std) for x in inputs])


def counts_of(batch):
    """How often each different image is there, by its pixels."""
    found = {}
    for image in batch:
        key = tuple(image.reshape(-1).tolist())
        found[key] = found.get(key, 0) + 1
    return found


def alike(ours, theirs):
    """The p-value that two counts over the same outcomes have one distribution."""
    assert set(ours) == set(theirs)
    return stats.chi2_contingency([[ours[key] for key in ours], [theirs[key] for key in ours]]).pvalue


@KINDS
@CHANNELS
def test_every_crop_is_that_of_torchvision(channels, dtype):
    corners = torch.tensor(list(itertools.product(range(9), repeat=2)))
    batch = images(len(corners), channels, dtype=dtype)
    found = augment._cropped(batch, 4, corners[:, 0], corners[:, 1])
    for image, crop, (top, left) in zip(batch, found, corners.tolist(), strict=True):
        assert torch.equal(crop, functional.crop(functional.pad(image, 4), top, left, SIZE, SIZE))


def test_crops_of_images_that_are_not_square():
    batch = images(4, height=5, width=9)
    top, left = torch.tensor([0, 4, 1, 2]), torch.tensor([4, 0, 2, 3])
    for k, crop in enumerate(augment._cropped(batch, 2, top, left)):
        assert torch.equal(crop, functional.crop(functional.pad(batch[k], 2), int(top[k]), int(left[k]), 5, 9))


@pytest.mark.parametrize("side", [1, 2, 3, 16, 70])
def test_every_square_is_that_of_the_slow_reference(side):
    batch = images(48, height=6, width=8, dtype=torch.float32)
    centres = torch.tensor(list(itertools.product(range(6), range(8))))
    found = augment._cut_out(batch, side, centres[:, 0], centres[:, 1], torch.ones(48, dtype=torch.int64))
    for image, cut, (row, column) in zip(batch, found, centres.tolist(), strict=True):
        assert torch.equal(cut, slow_cutout(image, side, row, column))
    untouched = augment._cut_out(batch, side, centres[:, 0], centres[:, 1], torch.zeros(48, dtype=torch.int64))
    assert torch.equal(untouched, batch)


@KINDS
@CHANNELS
@ALL
def test_the_whole_is_its_parts_one_image_at_a_time(name, channels, dtype):
    batch, row = images(40, channels, dtype=dtype), AUGMENTATIONS[name]
    data = task(batch)
    drawn = row.draws(40, SIZE, SIZE, seeded(3))
    expected = []
    for k, image in enumerate(batch):
        if row.crop:
            image = functional.crop(functional.pad(image, row.crop), int(drawn["top"][k]), int(drawn["left"][k]), SIZE, SIZE)
        if row.flip and drawn["flip"][k]:
            image = functional.hflip(image)
        image = scaled(image[None], data)[0]
        if row.cutout and drawn["hit"][k]:
            image = slow_cutout(image, 16, int(drawn["row"][k]), int(drawn["column"][k]))
        expected.append(image)
    found = row(batch, data, seeded(3))
    assert torch.equal(found, torch.stack(expected)) and found.dtype == torch.float32
    assert name == "none" or not torch.equal(found, scaled(batch, data))


def test_crops_and_flips_have_the_distribution_of_torchvision():
    inputs = images(1, 1, 4, 4).expand(9000, -1, -1, -1)
    data = task(inputs)
    transform = torchvision.transforms.Compose([
        torchvision.transforms.RandomCrop(4, padding=2), torchvision.transforms.RandomHorizontalFlip()
    ])
    theirs = torch.stack([transform(image) for image in inputs])
    ours = counts_of(Augment(crop=2, flip=True)(inputs, data, seeded()))
    assert len(ours) == 5 * 5 * 2
    assert alike(ours, counts_of(scaled(theirs, data))) > 0.01
    assert stats.chisquare(list(ours.values())).pvalue > 0.01  # uniform over corners and flips together


def test_padding_by_four_reaches_all_corners_equally_often_and_independently_of_the_flip():
    drawn = AUGMENTATIONS["crop-flip-cutout"].draws(40_000, SIZE, SIZE, seeded())
    joint = (drawn["top"] * 9 + drawn["left"]) * 4 + drawn["flip"] * 2 + drawn["hit"]
    assert stats.chisquare(joint.bincount(minlength=9 * 9 * 4)).pvalue > 0.01
    assert stats.chisquare((drawn["row"] * SIZE + drawn["column"]).bincount(minlength=SIZE * SIZE)).pvalue > 0.01
    for first, second in itertools.combinations(drawn, 2):
        assert abs(torch.corrcoef(torch.stack([drawn[first], drawn[second]]).double())[0, 1]) < 0.02


@pytest.mark.parametrize("probability", [0.5, 1.0, 0.2])
def test_squares_are_as_frequent_as_those_of_the_slow_reference(probability):
    height, width, side, n = 5, 4, 3, 8000
    inputs = torch.ones(n, 1, height, width)
    found = counts_of(Augment(cutout=side, cutout_probability=probability)(inputs, task(inputs), seeded()))
    expected = {} if probability == 1 else {tuple([1.0] * height * width): n * (1 - probability)}
    for row, column in itertools.product(range(height), range(width)):
        key = tuple(slow_cutout(inputs[0], side, row, column).reshape(-1).tolist())
        expected[key] = expected.get(key, 0) + n * probability / (height * width)
    assert set(found) == set(expected)
    assert stats.chisquare([found[key] for key in expected], list(expected.values())).pvalue > 0.01


@ALL
def test_the_same_state_gives_the_same_batch_and_other_states_another(name):
    batch, row = images(16), AUGMENTATIONS[name]
    data, draw = task(batch), seeded(5)
    first, state = row(batch, data, draw), draw.get_state()
    second = row(batch, data, draw)
    draw.set_state(state)
    assert torch.equal(row(batch, data, draw), second)
    assert torch.equal(row(batch, data, seeded(5)), first)
    assert torch.equal(first, second) == (name == "none")


@ALL
def test_draws_do_not_depend_on_the_kind_of_the_images(name):
    states = []
    for channels, dtype in ((1, torch.uint8), (3, torch.uint8), (3, torch.float32)):
        batch, draw = images(6, channels, dtype=dtype), seeded()
        AUGMENTATIONS[name](batch, task(batch), draw)
        states.append(draw.get_state())
    assert torch.equal(states[0], states[1]) and torch.equal(states[0], states[2])
    assert torch.equal(states[0], seeded().get_state()) == (name == "none")


@KINDS
@ALL
def test_the_data_and_the_random_state_of_the_caller_stay_as_they_are(name, dtype):
    batch = images(16, dtype=dtype)
    given, data, state = batch.clone(), task(batch), torch.get_rng_state()
    AUGMENTATIONS[name](batch, data, seeded())
    assert torch.equal(batch, given) and torch.equal(torch.get_rng_state(), state)


def test_padding_is_black_before_scaling_and_squares_are_the_mean():
    white = torch.full((64, 1, 8, 8), 255, dtype=torch.uint8)
    data = task(white)
    found = Augment(crop=4, cutout=2, cutout_probability=1.0)(white, data, seeded())
    black, bright = (0 - 0.4) / 0.2, (1 - 0.4) / 0.2
    assert found.unique().tolist() == pytest.approx([black, 0, bright], abs=1e-6)


def test_ready_floats_pass_through_or_are_padded_with_zero():
    data = digits()
    batch = data.train.inputs[:32]
    assert AUGMENTATIONS["none"](batch, data, seeded()) is batch
    found = Augment(crop=8)(batch, data, seeded())
    assert (found == 0).flatten(1).any(1).float().mean() > 0.9 and not (batch == 0).any()


def test_views_and_strided_batches_are_read_right():
    batch = images(8)
    sparse = batch.repeat_interleave(2, 0)[::2].to(memory_format=torch.channels_last)
    row = AUGMENTATIONS["crop-flip-cutout"]
    assert torch.equal(row(sparse, task(batch), seeded()), row(batch, task(batch), seeded()))


def test_the_named_rows():
    assert list(AUGMENTATIONS) == ["none", "flip", "crop2", "crop2-flip", "crop-flip", "crop-flip-cutout"]
    assert AUGMENTATIONS["crop-flip-cutout"] == Augment(crop=4, flip=True, cutout=16, cutout_probability=0.5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@ALL
def test_a_gpu_gets_the_same_batch_without_being_waited_for(name):
    batch, row = images(128), AUGMENTATIONS[name]
    data, there = task(batch), batch.cuda()
    row(there, data, seeded())  # mean and deviation are copied once
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = row(there, data, seeded())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.allclose(found.cpu(), row(batch, data, seeded()), atol=1e-6)
    assert torch.equal(found.cpu() == 0, row(batch, data, seeded()) == 0)


@pytest.mark.parametrize(
    "fields, error, message",
    [
        ({"crop": -1}, ValueError, r"crop must be at least 0, got -1"),
        ({"crop": 4.0}, TypeError, r"crop must be a whole number, not 4\.0 of type float"),
        ({"flip": 1}, TypeError, r"flip must be True or False, got 1"),
        ({"cutout": -16}, ValueError, r"cutout must be at least 0, got -16"),
        ({"cutout": True}, TypeError, r"cutout must be a whole number, not True of type bool"),
        ({"cutout_probability": 0.0}, ValueError, r"cutout_probability must be greater than 0 and at most 1, got 0\.0"),
        ({"cutout_probability": 1.1}, ValueError, r"cutout_probability must be .* got 1\.1"),
    ],
)
def test_a_wrong_field_is_named(fields, error, message):
    with pytest.raises(error, match=message):
        Augment(**fields)


BATCH = images(4)


class Elsewhere(torch.Generator):
    """Says that it lives on a GPU, on every machine."""

    device = torch.device("cuda:0")


@ALL
@pytest.mark.parametrize(
    "inputs, data, generator, error, message",
    [
        (BATCH[:0], task(BATCH), seeded(), ValueError, r"got an empty batch of shape \(0, 3, 32, 32\)"),
        (BATCH[0], task(BATCH), seeded(), ValueError, r"inputs must have shape \(n, .*width\), got \(3, 32, 32\)"),
        (BATCH.tolist(), task(BATCH), seeded(), TypeError, r"inputs must be a tensor of images, got list"),
        (BATCH.long(), task(BATCH), seeded(), TypeError, r"must be a tensor of uint8 or of floats, got torch\.int64"),
        (BATCH[:, :1], task(BATCH), seeded(), ValueError, r"inputs must have shape \(n, 3, .* got \(4, 1, 32, 32\)"),
        (BATCH, digits(), seeded(), TypeError, r"inputs must be floats: data 'digits' has no mean and std"),
        (BATCH, "cifar10", seeded(), TypeError, r"data must be a bisam\.training\.data\.Data, got str"),
        (BATCH, task(BATCH), 0, TypeError, r"generator must be a torch\.Generator, got int"),
        (BATCH, task(BATCH), Elsewhere(), ValueError, r"generator must be on the CPU, .* it is on cuda:0"),
    ],
    ids=["empty", "one image", "list", "int64", "channels", "no mean", "name", "seed", "device"],
)  # fmt: skip
def test_a_wrong_argument_is_named(name, inputs, data, generator, error, message):
    with pytest.raises(error, match=message):
        AUGMENTATIONS[name](inputs, data, generator)
