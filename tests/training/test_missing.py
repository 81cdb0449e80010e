"""Packages that a training may do without: each is asked for where it is needed, and its absence names the extra that brings it."""

import sys

import photographs
import pytest
import torch
from small import run

from bisam.training import Run, data, environment, fit, models, weights_digest
from bisam.training.data import Data, Split, bytepairs, optical_digits, parallel


@pytest.fixture
def without(monkeypatch):
    """Takes packages away: importing one of them fails, as where it is not installed."""

    def take(*names):
        for name in (known for known in list(sys.modules) if known.partition(".")[0] in names):
            monkeypatch.delitem(sys.modules, name)
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return take


@pytest.mark.usefixtures("tiny")
def test_a_training_on_data_of_ones_own_needs_torch_alone_and_says_its_epochs_in_lines(without, tmp_path, capfd):
    without("torchvision", "sklearn", "scipy", "rich", "PIL")
    assert fit(run(epochs=2), tmp_path / "run.pt", progress=True).finished
    assert [line.partition(": loss")[0] for line in capfd.readouterr().err.splitlines()] == ["sam: epoch 1 of 2", "sam: epoch 2 of 2"]


@pytest.mark.parametrize("package, what", [
    ("sklearn", lambda folder: optical_digits.digits.__wrapped__()),
    ("torchvision", lambda folder: data.load("mnist", folder)),
    ("torchvision", lambda folder: data.load("cifar10", folder)),
    ("numpy", lambda folder: data.load("file:letters", folder)),
    ("numpy", lambda folder: weights_digest(torch.nn.Linear(2, 2))),
    ("numpy", lambda folder: Data("two", 2, *[Split(torch.eye(2), torch.tensor([0, 1]))] * 3).fingerprint),
])  # fmt: skip
def test_what_is_missing_is_named_with_its_extra(package, what, without, tmp_path):
    (tmp_path / "letters.npz").touch()
    without(package)
    with pytest.raises(ModuleNotFoundError, match=rf'{package} is needed here .* pip install "bisam\[train\]"'):
        what(tmp_path)


@pytest.mark.parametrize("package, what", [
    ("tokenizers", lambda folder: data.load("glue:rte:small", folder)),
    ("tokenizers", lambda folder: bytepairs.trained(["ein Hund"])),
    ("sacrebleu", lambda folder: parallel.bleu(["a dog"], ["a dog"])),
    ("transformers", lambda folder: models.build("encoder:small", {"input_ids": (9,)}, 2, folder)),
])  # fmt: skip
def test_what_texts_lack_is_named_with_their_extra(package, what, without, tmp_path):
    for file in ("glue/RTE/train.tsv", "glue/RTE/dev.tsv", "small/tokenizer.json", "small/config.json"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    without(package)
    with pytest.raises(ModuleNotFoundError, match=rf'{package} is needed here .* pip install "bisam\[language\]"'):
        what(tmp_path)


def test_a_tree_of_images_asks_for_pillow(without, tmp_path):
    for place in ("train/daisy", "train/rose", "test/daisy", "test/rose"):
        (tmp_path / "flowers" / place).mkdir(parents=True)
        (tmp_path / "flowers" / place / "one.png").touch()
    without("PIL")
    with pytest.raises(ModuleNotFoundError, match=r'PIL is needed here .* pip install "bisam\[train\]"'):
        data.load("folder:flowers", tmp_path)


def test_the_environment_leaves_out_what_is_not_installed(monkeypatch):
    def version(name):
        raise environment.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(environment, "_version", lambda: "0")
    monkeypatch.setattr(environment.importlib.metadata, "version", version)
    assert not {"torchvision", "numpy"} & set(environment.environment("cpu", 0.0))


@pytest.mark.parametrize("package", ["torchvision", "PIL"])
def test_photographs_that_nothing_can_decode_name_the_extra_before_any_step(package, without, tmp_path, no_training):
    photographs.write_imagenet(tmp_path)
    without(package)
    streamed = Run(data="imagenet", loading="stream", image_size=16, model="mlp", batch_size=8, epochs=1)
    with pytest.raises(ModuleNotFoundError, match=rf'{package}.*pip install "bisam\[train\]"'):
        fit(streamed, root=tmp_path, loaders=2)
