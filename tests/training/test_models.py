"""The networks: sizes, shapes and topology against others and against formulas, and where their numbers start."""

import math
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from bisam.training.models import (
    MODELS,
    airbench,
    build,
    cifar_resnet,
    densenet121,
    mlp,
    resnet18,
    small_conv,
    vgg19_bn,
    wide_resnet,
)
from bisam.training.models.airbench import Whitening

IMAGE = (3, 32, 32)
AIRBENCH = {"airbench": (32, 96, 128), "airbench-narrow": (24, 48, 64), "airbench-medium": (32, 128, 192), "airbench-wide": (64, 256, 256)}
LEAST = {"vgg19-bn": 32, "densenet121": 8, **dict.fromkeys(AIRBENCH, 9)}  # smallest height and width; 1 for all others
LARGE = {name for name in MODELS if name.startswith("wrn") and name.endswith("-10")}  # only built without numbers
OURS = [name for name in MODELS if name not in ("resnet50", "vit-b-16", "vit-tiny")]  # those of torchvision have a file of their own

each_model = pytest.mark.parametrize("name", OURS)
each_small = pytest.mark.parametrize("name", sorted(set(OURS) - LARGE))


def skeleton(name, shape=IMAGE, classes=10):
    """A network without numbers in it: shapes alone."""
    with torch.device("meta"):
        return build(name, shape, classes)


def count(net):
    return sum(p.numel() for p in net.parameters())


def convolutions(net, size=None):
    found = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    return [m for m in found if size is None or m.kernel_size == (size, size)]


# -- sizes -----------------------------------------------------------------------------------------------------------

COUNTS = {
    "resnet18": 11_173_962, "densenet121": 6_956_298, "resnet8": 75_290,
    "resnet20": 269_722, "resnet32": 464_154, "resnet56": 853_018, "wrn-28-2": 1_467_610, "wrn-28-10": 36_479_194,
    "wrn-34-2": 1_855_578, "wrn-34-10": 46_160_474,
}  # fmt: skip


@pytest.mark.parametrize("name, number", COUNTS.items())
def test_numbers_of_parameters_are_the_published_ones(name, number):
    assert count(skeleton(name)) == number


def test_numbers_of_parameters_for_digits():
    assert [count(skeleton(name, (1, 8, 8))) for name in ("small_conv", "mlp")] == [15418, 26122]


def test_vgg_by_arithmetic():
    widths, inside, total = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8, 3, 0
    for width in widths:
        total += 9 * inside * width + width + 2 * width  # weights, biases, batch norm
        inside = width
    total += 2 * (512 * 512 + 512) + 512 * 10 + 10
    assert count(skeleton("vgg19-bn")) == total == 20_565_834


@pytest.mark.parametrize("depth", [8, 20, 32, 56])
def test_option_b_costs_two_projections_and_their_norms(depth):
    extra = count(skeleton(f"resnet{depth}-b")) - count(skeleton(f"resnet{depth}"))
    assert extra == 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64


@pytest.mark.parametrize("depth", [8, 20, 32, 56])
def test_a_residual_network_has_as_many_layers_as_its_name_says(depth):
    for net in (skeleton(f"resnet{depth}"), skeleton(f"resnet{depth}-b")):
        assert len(convolutions(net, 3)) + 1 == depth and len(net) == 3 + (depth - 2) // 2 + 3


@pytest.mark.parametrize("name, large", [("wrn-28-2", 25), ("wrn-28-10", 25), ("wrn-34-2", 31), ("wrn-34-10", 31)])
def test_the_nets_that_are_called_28_in_the_public_code_have_34_convolutions(name, large):
    net = skeleton(name)
    assert (len(convolutions(net, 3)), len(convolutions(net, 1))) == (large, 3)
    assert len(convolutions(net)) == int(name.split("-")[1])


def test_densenet_has_121_layers():
    net = skeleton("densenet121")
    assert len(convolutions(net)) + 1 == 121 and {m.out_channels for m in convolutions(net, 3)[1:]} == {32}


@pytest.mark.slow
@each_model
def test_classes_and_channels_change_the_ends_alone(name):
    plain, more, grey = skeleton(name), skeleton(name, classes=100), skeleton(name, (1, 32, 32))
    width = [m for m in plain.modules() if isinstance(m, nn.Linear)][-1].in_features
    assert count(more) - count(plain) == 90 * (width + 1)
    first = next(plain.parameters())
    ends = first.numel() * 2 // 3
    if name in AIRBENCH:  # its first layer has a bias alone, and eight outputs a channel
        ends += 16 * 9 * AIRBENCH[name][0]
    assert count(plain) - count(grey) == ends


@pytest.mark.parametrize("name, widths", AIRBENCH.items())
def test_airbench_by_arithmetic(name, widths):
    inside, total = 24, 24  # the bias of the whitening; its kernel is not learned
    for width in widths:
        total += 9 * inside * width + 9 * width**2 + 2 * 2 * width
        inside = width
    assert count(skeleton(name)) == total + 10 * (inside + 1)


# -- shapes ----------------------------------------------------------------------------------------------------------


KINDS = ("small_conv", "mlp", "airbench", "resnet18", "vgg19-bn", "densenet121", "resnet8", "resnet8-b", "wrn-28-2")  # depth and width aside


# Those of the usual shape are among the numbers below, but for the networks that are too large for numbers.
@pytest.mark.parametrize("name, shape, classes", [(name, IMAGE, 10) for name in sorted(LARGE)] + [(name, (1, 33, 47), 1) for name in KINDS])
def test_samples_become_logits(name, shape, classes):
    assert skeleton(name, shape, classes)(torch.zeros(2, *shape, device="meta")).shape == (2, classes)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("shape, classes", [((1, 8, 8), 10), ((3, 4, 12), 4)])
def test_small_samples_become_logits_or_the_shape_is_named(name, shape, classes):
    least = LEAST.get(name, 1)
    called = "airbench" if name in AIRBENCH else name
    if min(shape[1:]) >= least:
        assert skeleton(name, shape, classes)(torch.zeros(2, *shape, device="meta")).shape == (2, classes)
        return
    message = rf"shape must be .* at least {least} for {called}; got \({shape[0]}, {shape[1]}, {shape[2]}\)"
    with pytest.raises(ValueError, match=message):
        skeleton(name, shape, classes)


@each_small
def test_numbers_come_out_of_norms_that_start_as_the_identity(name):
    net = build(name, IMAGE, 10)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            assert (m.weight == 1).all() and (m.bias == 0).all()
        if isinstance(m, nn.Conv2d) and name != "vgg19-bn":
            assert m.bias is None
    logits = net(torch.randn(2, *IMAGE))
    assert logits.shape == (2, 10) and logits.isfinite().all() and (name.startswith("wrn") or logits.std() > 0.01)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: resnet18((32, 32), 10), r"shape must be \(channels, height, width\).*for resnet18; got \(32, 32\)"),
        (lambda: vgg19_bn((3, 28, 28), 10), r"height and width at least 32 for vgg19-bn; got \(3, 28, 28\)"),
        (lambda: densenet121((3, 7, 32), 10), r"height and width at least 8 for densenet121; got \(3, 7, 32\)"),
        (lambda: small_conv("3x32x32", 10), r"shape must be .* for small_conv; got '3x32x32'"),
        (lambda: small_conv((3, 0, 8), 10), r"shape must be at least 1, got 0"),
        (lambda: wide_resnet((0, 32, 32), 10), r"shape must be at least 1, got 0"),
        (lambda: resnet18(IMAGE, 0), r"classes must be at least 1, got 0"),
        (lambda: cifar_resnet(IMAGE, 10, depth=21), r"depth must be 6 n \+ 2 with n at least 1 .*, got 21"),
        (lambda: cifar_resnet(IMAGE, 10, depth=2), r"depth must be 6 n \+ 2 with n at least 1 .*, got 2"),
        (lambda: cifar_resnet(IMAGE, 10, shortcut="C"), r"shortcut must be one of A, B; got 'C'"),
        (lambda: wide_resnet(IMAGE, 10, depth=26), r"depth must be 6 n \+ 4 with n at least 1 .*, got 26"),
        (lambda: wide_resnet(IMAGE, 10, depth=4), r"depth must be 6 n \+ 4 with n at least 1 .*, got 4"),
        (lambda: wide_resnet(IMAGE, 10, width=0), r"width must be at least 1, got 0"),
        (lambda: airbench((3, 8, 32), 10), r"height and width at least 9 for airbench; got \(3, 8, 32\)"),
        (lambda: airbench(IMAGE, 10, widths=(8, 8)), r"widths must be three whole numbers, got \(8, 8\)"),
        (lambda: build("resnet", (1, 8, 8), 10), r"model must be one of small_conv, mlp, airbench, .*; got 'resnet'"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name, value", [("shape", (3, 32.0, 32)), ("classes", 10.0)])
def test_sizes_are_whole_numbers(name, value):
    with pytest.raises(TypeError, match=rf"{name} must be a whole number, not "):
        resnet18(**{"shape": IMAGE, "classes": 10, name: value})


# -- a layer that is fitted to the images --------------------------------------------------------------------------


def photos(n=200, seed=0):
    """Images whose neighbouring pixels and channels agree, as those of photographs do."""
    rough = torch.randn(n, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    return functional.avg_pool2d(rough, 3, stride=1) + rough.mean(1, keepdim=True)[:, :, 1:-1, 1:-1]


def covariance(maps):
    flat = maps.transpose(0, 1).flatten(1)
    return (flat - flat.mean(1, keepdim=True)) @ (flat - flat.mean(1, keepdim=True)).T / flat.shape[1]


def test_whitening_makes_patches_white():
    layer, images = Whitening(3).double(), photos().double()
    before = covariance(layer(images).detach()[:, :12])
    layer.fit(images)
    after = covariance(layer(images).detach()[:, :12])
    variances = torch.linalg.eigvalsh(before).flip(0)
    torch.testing.assert_close(after, torch.diag(variances / (variances + 5e-4)), rtol=0, atol=1e-5)
    assert (before - torch.diag(before.diagonal())).abs().max() > 0.1 and torch.equal(layer.kernel[:12], -layer.kernel[12:])


def test_whitening_has_signs_of_its_own():
    layer, images = Whitening(3), photos()
    layer.fit(images)
    largest = layer.kernel[:12].flatten(1)
    assert (largest.gather(1, largest.abs().argmax(1, keepdim=True)) > 0).all()


def test_a_kernel_is_computed_once_from_the_same_images(monkeypatch):
    module, computed = sys.modules[Whitening.__module__], []
    whitening = module._whitening
    monkeypatch.setattr(module, "_FITTED", {})
    monkeypatch.setattr(module, "_whitening", lambda images: computed.append(images) or whitening(images))
    one, other, changed = photos(), photos().contiguous(memory_format=torch.channels_last), photos()
    changed[0, 0, 0, 0] += 1e-3
    kernels = []
    for images in (one, other, changed, one.double()):
        layer = Whitening(3).to(images.dtype)
        layer.fit(images)
        kernels.append(layer.kernel)
    assert len(computed) == 3 and torch.equal(kernels[0], kernels[1]) and not torch.equal(kernels[0], kernels[2])
    for k in range(6):
        Whitening(3).fit(one + k)
    assert len(module._FITTED) == module.KEPT and torch.equal(kernels[0], kernel_of(one))


def kernel_of(images):
    layer = Whitening(3)
    layer.fit(images)
    return layer.kernel


def test_the_kernel_is_no_parameter_and_travels_with_the_weights():
    net, other = build("airbench-narrow", IMAGE, 10), build("airbench-narrow", IMAGE, 10)
    assert [name for name, _ in net[0].named_parameters()] == ["bias"]
    before = net[0].kernel.clone()
    net.prepare(torch.randn(50, *IMAGE))
    assert not torch.equal(net[0].kernel, before)
    other.load_state_dict(net.state_dict())
    x = torch.randn(2, *IMAGE)
    assert torch.equal(net.eval()(x), other.eval()(x))


def test_the_convolutions_begin_as_copies():
    net = build("airbench", IMAGE, 10)
    inner = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    x = torch.randn(1, 24, 8, 8)
    assert torch.allclose(inner[0](x)[:, :24], x, atol=1e-6) and not torch.allclose(inner[0](x)[:, 24:], torch.zeros(()))


# -- topology: against torchvision, and against formulas -------------------------------------------------------------


def filled(net, other):
    """Gives both networks the same random numbers, in the order of their parameters, and takes both to float64."""
    for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert mine.shape == theirs.shape
        with torch.no_grad():
            mine.copy_(torch.randn(mine.shape) / math.sqrt(max(1, mine[0].numel())) + (mine.ndim == 1))
            theirs.copy_(mine)
    return net.double(), other.double()


def agree(net, other, side=32, training=True):
    x = torch.randn(3, 3, side, side, dtype=torch.float64)
    torch.testing.assert_close(net.train(training)(x), other.train(training)(x), rtol=1e-9, atol=1e-10)


def test_resnet18_is_that_of_torchvision_behind_another_stem():
    from torchvision.models import resnet18 as theirs

    other = theirs(num_classes=10)
    other.conv1, other.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    net, other = filled(resnet18(IMAGE, 10), other)
    agree(net, other)
    agree(net, other, side=19, training=False)


@pytest.mark.slow
def test_densenet_is_that_of_torchvision_behind_another_stem():
    from torchvision.models import densenet121 as theirs

    other = theirs(num_classes=10)
    other.features.conv0 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    other.features.norm0, other.features.relu0, other.features.pool0 = (nn.Identity() for _ in range(3))
    agree(*filled(densenet121(IMAGE, 10), other))


def test_the_convolutions_of_vgg_are_those_of_torchvision():
    from torchvision.models.vgg import cfgs, make_layers

    features, x = make_layers(cfgs["E"], batch_norm=True), torch.randn(2, *IMAGE, dtype=torch.float64)
    net, other = filled(vgg19_bn(IMAGE, 10)[: len(features)], features)
    assert [type(m) for m in net] == [type(m) for m in other]
    torch.testing.assert_close(net(x), other(x), rtol=1e-9, atol=1e-10)


def test_the_head_of_vgg_and_its_masks():
    net = vgg19_bn(IMAGE, 10)
    kinds = [nn.AdaptiveAvgPool2d, nn.Flatten] + 2 * [nn.Dropout, nn.Linear, nn.ReLU] + [nn.Linear]
    assert [type(m) for m in net[-len(kinds) :]] == kinds
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    head, x = net[-len(kinds) :], torch.randn(2, 512, 1, 1)
    assert not torch.equal(head(x), head(x)) and torch.equal(head.eval()(x), head(x))


class Numbers:
    """Takes the parameters of a network one by one, for a forward pass that is written out."""

    def __init__(self, net):
        self.left = list(net.parameters())

    def conv(self, x, stride=1):
        kernel = self.left.pop(0)
        return functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def norm(self, x):
        scale, shift = self.left.pop(0), self.left.pop(0)
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt() * scale[:, None, None] + shift[:, None, None]

    def logits(self, x):
        weight, bias = self.left
        return x.mean((2, 3)) @ weight.T + bias


def padded(x, channels):
    """Option A, entry by entry: every other row and column, between equal numbers of empty channels."""
    n, inside, height, width = x.shape
    out = torch.zeros(n, channels, math.ceil(height / 2), math.ceil(width / 2), dtype=x.dtype)
    for c in range(inside):
        for row in range(out.shape[2]):
            for column in range(out.shape[3]):
                out[:, c + (channels - inside) // 2, row, column] = x[:, c, 2 * row, 2 * column]
    return out


def narrow(net, x, blocks, option):
    """The residual network for CIFAR, written out."""
    numbers = Numbers(net)
    x = numbers.norm(numbers.conv(x)).relu()
    for channels in (16, 32, 64):
        for block in range(blocks):
            stride = 2 if block == 0 and channels > 16 else 1
            y = numbers.norm(numbers.conv(x, stride)).relu()
            y = numbers.norm(numbers.conv(y))
            if stride == 2:
                x = padded(x, channels) if option == "A" else numbers.norm(numbers.conv(x, 2))
            x = (x + y).relu()
    return numbers.logits(x)


def wide(net, x, units):
    """The wide residual network, written out."""
    numbers = Numbers(net)
    x = numbers.conv(x)
    for group in range(3):
        for unit in range(units):
            stride = 2 if unit == 0 and group > 0 else 1
            y = numbers.norm(x).relu()
            start = y
            y = numbers.norm(numbers.conv(y, stride)).relu()
            y = numbers.conv(y)
            x = (x if unit else numbers.conv(start, stride)) + y
    return numbers.logits(numbers.norm(x).relu())


def scattered(net):
    """Every parameter random, so that a wrong place for any of them shows."""
    for p in net.parameters():
        nn.init.normal_(p, mean=float(p.ndim == 1), std=0.3)
    return net.double()


@pytest.mark.parametrize("option", ["A", "B"])
@pytest.mark.parametrize("depth, side", [(8, 8), (14, 9)])
def test_residual_network_is_the_one_written_out(depth, side, option):
    net, x = scattered(cifar_resnet((3, side, side), 5, depth, option)), torch.randn(3, 3, side, side).double()
    torch.testing.assert_close(net(x), narrow(net, x, (depth - 2) // 6, option), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("depth, width, side", [(10, 1, 8), (16, 2, 9)])
def test_wide_residual_network_is_the_one_written_out(depth, width, side):
    net, x = scattered(wide_resnet((3, side, side), 5, depth, width)), torch.randn(3, 3, side, side).double()
    torch.testing.assert_close(net(x), wide(net, x, (depth - 4) // 6), rtol=1e-9, atol=1e-9)


def test_option_a_is_the_formula_for_odd_sides_too():
    skip = cifar_resnet(IMAGE, 10, depth=8)[4].shortcut
    for height, width in ((8, 8), (7, 5), (1, 2)):
        x = torch.randn(2, 16, height, width)
        assert torch.equal(skip(x), padded(x, 32))


# -- where the numbers start -----------------------------------------------------------------------------------------


def deviation(weight, expected, what):
    """Asserts a standard deviation within five of its own standard errors, and a mean of zero."""
    n = weight.numel()
    assert abs(weight.std() / expected - 1) < 5 / math.sqrt(2 * n), what
    assert abs(weight.mean()) < 5 * expected / math.sqrt(n), what


FANS = {"resnet20": 0, "resnet20-b": 0, "wrn-28-2": 0, "vgg19-bn": 1, "resnet18": 1}  # 0: inputs, 1: outputs


@pytest.mark.parametrize("name, side", FANS.items())
def test_convolutions_start_normal_with_variance_two_over_the_fan(name, side):
    net, scaled = build(name, IMAGE, 10), []
    for index, m in enumerate(convolutions(net)):
        fan = (m.in_channels, m.out_channels)[side] * m.kernel_size[0] ** 2
        deviation(m.weight, math.sqrt(2 / fan), f"convolution {index}")
        scaled.append(m.weight.detach().flatten() * math.sqrt(fan / 2))
    fourth = torch.cat(scaled).pow(4).mean()
    assert abs(fourth - 3) < 0.1, "3 for a normal distribution, 1.8 for a uniform one"


@pytest.mark.parametrize("name", ["resnet20", "resnet20-b"])
def test_the_linear_layer_of_the_narrow_networks_starts_normal(name):
    last = build(name, IMAGE, 100)[-1]
    deviation(last.weight, math.sqrt(2 / 64), "linear")
    assert last.weight.abs().max() > math.sqrt(3 * 2 / 64) and 0 < last.bias.abs().max() <= 1 / 8


@pytest.mark.parametrize("name", ["densenet121", "vgg19-bn", "resnet18"])
def test_the_rest_starts_as_torch_makes_it(name):
    net = build(name, IMAGE, 10)
    left = [m for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv2d)[: 1 + (name == "densenet121")])]
    for m in left:
        bound = 1 / math.sqrt(m.weight[0].numel())
        deviation(m.weight, bound / math.sqrt(3), type(m).__name__)
        assert 0.9 * bound < m.weight.abs().max() <= bound
    assert len(left) == {"densenet121": 121, "vgg19-bn": 3, "resnet18": 1}[name]


def test_biases_of_the_convolutions_of_vgg_start_at_zero():
    found = [m.bias for m in convolutions(vgg19_bn(IMAGE, 10))]
    assert len(found) == 16 and not any(bias.any() for bias in found)


def test_before_its_first_step_a_wide_network_says_nothing_and_only_its_last_layer_learns():
    net, x = build("wrn-28-2", IMAGE, 10), torch.randn(4, *IMAGE)
    logits = net(x)
    assert not logits.any()
    functional.cross_entropy(logits, torch.arange(4)).backward()
    *backbone, weight, bias = (p.grad for p in net.parameters())
    assert weight.any() and bias.any() and not any(g.any() for g in backbone)


@pytest.mark.slow
@each_small
def test_initial_weights_come_from_the_global_random_state(name):
    first, second = build(name, IMAGE, 10), build(name, IMAGE, 10)
    torch.manual_seed(0)  # where the fixture has put it before the first
    again = build(name, IMAGE, 10)
    pairs = list(zip(first.parameters(), second.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(a, c) for a, _, c in pairs) and not all(torch.equal(a, b) for a, b, _ in pairs)


# -- in use ----------------------------------------------------------------------------------------------------------

SMALL = {
    "small_conv": lambda: small_conv((3, 8, 8), 5),
    "mlp": lambda: mlp((3, 8, 8), 5),
    "narrow A": lambda: cifar_resnet((3, 8, 8), 5, depth=8),
    "narrow B": lambda: cifar_resnet((3, 8, 8), 5, depth=8, shortcut="B"),
    "wide": lambda: wide_resnet((3, 8, 8), 5, depth=10, width=1),
    "resnet18": lambda: resnet18((3, 8, 8), 5),
    "densenet121": lambda: densenet121((3, 8, 8), 5),
    "vgg19-bn": lambda: vgg19_bn((3, 32, 32), 5),
}
each_kind = pytest.mark.parametrize("kind", SMALL)


def images(kind, n=4):
    return torch.randn(n, 3, *((32, 32) if kind == "vgg19-bn" else (8, 8)), dtype=torch.float64)


@pytest.mark.slow
@each_kind
def test_every_parameter_has_a_gradient(kind):
    net = SMALL[kind]().double()
    last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    nn.init.normal_(last.weight)  # zero in the wide network, which would stop the rest
    functional.cross_entropy(net(images(kind)), torch.arange(4)).backward()
    # A shift that batch norm takes away again has none: the biases of the convolutions of VGG.
    idle = {id(m.bias) for m in net.modules() if isinstance(m, nn.Conv2d)}
    for name, p in net.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name
        assert (p.grad.abs().max() > 1e-10) != (id(p) in idle), name


LONG = {"resnet18", "densenet121", "vgg19-bn"}  # of the same layers as the others, and many


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow) if kind in LONG else kind for kind in SMALL if kind != "mlp"])  # which flattens at once
def test_channels_last_changes_nothing_and_lasts_to_the_head(kind):
    net, x = SMALL[kind]().double(), images(kind)
    nn.init.normal_([m for m in net.modules() if isinstance(m, nn.Linear)][-1].weight)
    net.eval()
    plain, formats = net(x), []
    net.to(memory_format=torch.channels_last)
    for m in net:
        m.register_forward_hook(lambda m, inputs, output: formats.append(
            output.ndim != 4 or output.is_contiguous(memory_format=torch.channels_last)
        ))  # fmt: skip
    turned = net(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(turned, plain, rtol=1e-10, atol=1e-12)
    assert all(formats) and len(formats) == len(net)


@pytest.mark.slow
@each_kind
def test_a_copy_made_from_the_state_is_the_same_network(kind):
    net, x = SMALL[kind]().double(), images(kind)
    functional.cross_entropy(net(x), torch.arange(4)).backward()  # moves the statistics
    other = SMALL[kind]().double()
    other.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(x), other.eval()(x))


def test_depth_width_and_dropout_of_the_perceptron():
    layers = mlp((1, 8, 8), 10, width=7, depth=3, dropout=0.25)
    assert [layer.out_features for layer in layers if isinstance(layer, nn.Linear)] == [7, 7, 7, 10]
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.25] * 3
    assert not any(isinstance(layer, nn.Dropout) for layer in mlp((1, 8, 8), 10))
