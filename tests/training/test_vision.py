"""Networks that torchvision makes, and weights of a file: what stays of them, and all that can be wrong with the file."""

import hashlib
import json

import photographs
import pytest
import torch
import torchvision
from torch.nn import functional

from bisam.evidence import ledger, recording
from bisam.training import DataError, Run, environment, fit, models
from bisam.training.models import build, vision

IMAGE = (3, 32, 32)
FETCH = r"Fetch it with: python -c \"import torchvision; torchvision\.models\.vit_b_16\(weights='IMAGENET1K_V1'\)\""
NAME = "vit-b-16:imagenet"


@pytest.mark.parametrize(("ours", "theirs"), [("resnet50", "resnet50"), ("vit-b-16", "vit_b_16")])
def test_networks_for_photographs_are_those_of_torchvision(ours, theirs):
    with torch.device("meta"):
        shapes = [{name: part.shape for name, part in net.state_dict().items()} for net in (
            build(ours, (3, 224, 224), 1000), getattr(torchvision.models, theirs)(weights=None),
        )]  # fmt: skip
    assert shapes[0] == shapes[1]


def test_they_start_as_those_of_torchvision():
    torch.manual_seed(3)
    ours = build("vit-tiny", IMAGE, 5)
    torch.manual_seed(3)
    theirs = torchvision.models.VisionTransformer(32, 4, 4, 4, 64, 256, num_classes=5)
    assert all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))
    x = torch.randn(2, *IMAGE)
    assert not ours(x).any()  # the last layer begins at zero
    torch.nn.init.normal_(ours.heads.head.weight)
    theirs.heads.head.weight.data.copy_(ours.heads.head.weight)
    assert torch.equal(ours(x), theirs(x)) and ours(x).std() > 0.1


@pytest.mark.parametrize(("shape", "patches"), [((1, 8, 8), 16), ((3, 8, 8), 16), ((2, 16, 16), 16), ((3, 32, 32), 64)])
def test_the_tiny_transformer_chooses_its_patches_by_the_shape(shape, patches):
    net = build("vit-tiny", shape, 4)
    assert net.seq_length == patches + 1 and net.conv_proj.in_channels == shape[0]
    torch.nn.init.normal_(net.heads.head.weight)
    functional.cross_entropy(net(torch.randn(4, *shape)), torch.arange(4)).backward()
    assert all(p.grad.any() for p in net.parameters() if p is not net.heads.head.bias)
    assert not net.conv_proj.bias.any() and abs(float(net.conv_proj.weight.detach().std()) * (shape[0] * net.patch_size**2) ** 0.5 - 1) < 0.15


def test_the_tiny_transformer_learns_the_digits():
    run = Run(recipe="sgd", model="vit-tiny", base="adamw", weight_decay=0.0, rate_by="step", schedule="linear", warmup=10, clip=1.0, lr=3e-3, batch_size=20)
    assert fit(run.replace(epochs=2)).last_test_accuracy > 25  # of ten classes


@pytest.mark.parametrize(("name", "shape", "said"), [
    ("resnet50", (3, 31, 64), r"height and width at least 32 for resnet50; got \(3, 31, 64\)"),
    ("resnet50", (1, 32, 32), r"shape must have 3 channels, red, green and blue, for resnet50; got \(1, 32, 32\)"),
    ("vit-b-16", (1, 32, 32), r"shape must have 3 channels, red, green and blue, for vit-b-16"),
    ("vit-b-16", (3, 40, 40), r"shape must be \(channels, size, size\) for vit-b-16, the size a multiple of 16; got \(3, 40, 40\)"),
    (NAME, (3, 40, 40), r"the size a multiple of 16"),
    ("vit-tiny", (3, 32, 28), r"shape must be \(channels, size, size\) for vit-tiny, the size a multiple of 4; got \(3, 32, 28\)"),
    ("vit-tiny", (3, 9, 9), r"the size a multiple of 2; got \(3, 9, 9\)"),
    ("vit-tiny", (64,), r"shape must be \(channels, height, width\).* for vit-tiny"),
])  # fmt: skip
def test_shapes_that_they_cannot_take_are_named(name, shape, said):
    with pytest.raises(ValueError, match=said):
        build(name, shape, 10)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A transformer of small size in place of the large one, and the folder that torchvision would keep weights in."""
    monkeypatch.setattr(vision, "B_16", {"patch_size": 16, "num_layers": 1, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32})
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path


def keep(folder, monkeypatch, size=64):
    """A file of weights for a thousand classes, named by its digest as torchvision names it."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    net = torchvision.models.VisionTransformer(size, num_classes=1000, **vision.B_16)
    for part in net.parameters():
        torch.nn.init.normal_(part)
    draft = folder / "draft.pth"
    torch.save(net.state_dict(), draft)
    digest = hashlib.sha256(draft.read_bytes()).hexdigest()
    monkeypatch.setattr(vision, "FILE", f"vit_small-{digest[:8]}.pth")
    return net, draft.rename(folder / vision.FILE), digest[:16]


@pytest.mark.parametrize("place", ["weights", "hub/checkpoints"])
def test_weights_of_a_file_are_taken_but_for_the_head_which_is_zero(place, small, monkeypatch):
    net, _, digest = keep(small / place, monkeypatch)
    ours = build(NAME, (3, 64, 64), 7, small)
    theirs = net.state_dict()
    for name, part in ours.state_dict().items():
        assert not part.any() if name.startswith("heads.") else torch.equal(part, theirs[name]), name
    assert ours.heads.head.weight.shape == (7, 16)
    assert models.sources(NAME, small) == {NAME: digest} and models.sources("vit-b-16", small) == {}


def test_embeddings_of_the_places_are_interpolated_for_another_size(small, monkeypatch):
    net, *_ = keep(small / "weights", monkeypatch)
    ours = build(NAME, (3, 96, 96), 7, small)
    before, after = net.encoder.pos_embedding, ours.encoder.pos_embedding
    assert after.shape == (1, 37, 16) and torch.equal(after[:, 0], before[:, 0])
    grids = [part[:, 1:].reshape(1, side, side, 16).permute(0, 3, 1, 2) for part, side in ((before, 4), (after, 6))]
    torch.testing.assert_close(grids[1], functional.interpolate(grids[0], size=6, mode="bicubic", align_corners=True))


def test_whoever_asks_for_shapes_alone_needs_no_file(small):
    with torch.device("meta"):
        assert build(NAME, (3, 64, 64), 7, small).heads.head.weight.shape == (7, 16)


def test_weights_that_are_missing_or_others_end_with_what_fetches_them(small, monkeypatch, tmp_path, no_training):
    with pytest.raises(DataError, match=rf"model '{NAME}' is not there: no file {small}/weights/vit_b_16-c867db91\.pth \(.*BISAM_DATA.*and none {small}/hub/checkpoints/.*{FETCH}"):
        build(NAME, (3, 64, 64), 7, small)
    _, path, _ = keep(small / "weights", monkeypatch)
    content = path.read_bytes()
    for broken in (content[:-100], b"", content[:50] + b"0" + content[51:]):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=rf"model '{NAME}': {path} is truncated, corrupt or another file \(its SHA-256 begins with .*Delete it\. {FETCH}"):
            build(NAME, (3, 64, 64), 7, small)
        photographs.write_imagenet(tmp_path)
        with pytest.raises(DataError, match="truncated, corrupt or another file"):
            fit(Run(data="imagenet", loading="stream", image_size=64, model=NAME, batch_size=8, epochs=1), root=tmp_path, loaders=0)


def test_the_record_has_the_digest_of_the_weights(small, monkeypatch):
    photographs.write_imagenet(small)
    digest = keep(small / "weights", monkeypatch)[2]
    run = Run(data="imagenet", loading="stream", image_size=32, model=NAME, batch_size=8, epochs=1)
    path = recording.record(fit(run, small / "run.pt", root=small, loaders=0), "try", "one", "smoke", small / "ledger", small)
    found = ledger.read(path)
    assert found["environment"]["weights"] == {NAME: digest}
    other = {**found["environment"], "weights": {NAME: "0" * 16}}
    assert any("weights" in line for line in environment.differences(found["environment"], other))
    for weights in ({}, {"vit-b-16": digest}, {NAME: digest, "mlp": digest}, {NAME: digest[:-1]}):
        path.write_text(json.dumps({**found, "environment": {**found["environment"], "weights": weights}}))
        with pytest.raises(ledger.LedgerError, match=r"environment\.weights"):
            ledger.read(path)
