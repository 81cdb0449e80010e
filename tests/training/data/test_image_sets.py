"""Published sets of photographs: the layouts of their archives, and all that can be wrong with them."""

import re
import shutil
from pathlib import Path

import photographs
import pytest
import scipy.io
import torch
import torchvision

from bisam.training import Run
from bisam.training.data import DataError, check_loading, load

WRITE = {"imagenet": photographs.write_imagenet, "flowers102": photographs.write_flowers, "pets": photographs.write_pets}
FETCH = {
    "flowers102": r'python -c "import torchvision; torchvision\.datasets\.Flowers102\(.*, download=True\)"',
    "pets": r'python -c "import torchvision; torchvision\.datasets\.OxfordIIITPet\(.*, download=True\)"',
    "imagenet": r"log in at https://image-net\.org, put ILSVRC2012_img_train\.tar, .*torchvision\.datasets\.ImageNet\(",
}


def streamed(name, root, **more):
    return load(name, root, loading="stream", **more)


def pairs(task, *splits):
    """What a task says of its files: name and class of each."""
    return sorted(
        (task.files[number], target)
        for split in (getattr(task, one) for one in splits)
        for number, target in zip(split.inputs.tolist(), split.targets.tolist(), strict=True)
    )


@pytest.mark.parametrize("name", WRITE)
def test_a_set_has_three_splits_of_images_of_one_size(name, tmp_path):
    WRITE[name](tmp_path)
    task = streamed(name, tmp_path)
    assert task.shape == (3, 224, 224) and task.classes == 3
    whole = len(task.train) + len(task.validation)
    assert len(task.validation) == whole // 10 and whole == {"imagenet": 42, "flowers102": 15, "pets": 15}[name]
    assert len({*pairs(task, "train", "validation", "test")}) == whole + len(task.test)
    images, targets = streamed(name, tmp_path, image_size=32).picked(task.test, torch.tensor([1, 0]))
    assert images.shape == (2, 3, 32, 32) and images.dtype == torch.uint8 and torch.equal(targets, task.test.targets[[1, 0]])
    assert len(streamed(name, tmp_path, train_images=10, test_images=3).test) == 3


def test_imagenet_is_read_as_by_torchvision(tmp_path):
    tree = photographs.write_imagenet(tmp_path)
    task = streamed("imagenet", tmp_path)
    for split, folder in ((("train", "validation"), "train"), (("test",), "val")):
        assert pairs(task, *split) == sorted(torchvision.datasets.ImageFolder(tree / folder).samples)


def test_pets_are_read_as_by_torchvision(tmp_path):
    photographs.write_pets(tmp_path)
    task = streamed("pets", tmp_path)
    theirs = torchvision.datasets.OxfordIIITPet(tmp_path, split="test", download=False)
    look = torchvision.transforms.v2.functional.pil_to_tensor
    assert [target for _, target in theirs] == task.test.targets.tolist()
    for k, (image, _) in enumerate(theirs):
        with_theirs = torchvision.transforms.Compose([torchvision.transforms.Resize(256), torchvision.transforms.CenterCrop(224)])(image)
        assert torch.equal(task.picked(task.test, slice(k, k + 1))[0][0], look(with_theirs))


def test_flowers_are_read_as_by_torchvision(tmp_path, monkeypatch):
    base = photographs.write_flowers(tmp_path)
    kind = torchvision.datasets.Flowers102
    monkeypatch.setattr(kind, "_file_dict", {name: (file, None) for name, (file, _) in kind._file_dict.items()})
    task = streamed("flowers102", tmp_path)
    theirs = {part: kind(tmp_path, split=part, download=False) for part in ("train", "val", "test")}
    files = {part: [(str(file), label) for file, label in zip(one._image_files, one._labels, strict=True)] for part, one in theirs.items()}
    assert {label for _, label in files["test"]} == {0, 1, 2}
    assert pairs(task, "test") == sorted(files["test"])
    assert pairs(task, "train", "validation") == sorted(files["train"] + files["val"])
    assert all(str(base) in file for file in task.files)


def test_the_fingerprint_is_of_names_sizes_and_classes(tmp_path):
    for place in ("here", "there"):
        photographs.write_imagenet(tmp_path / place)
    here = streamed("imagenet", tmp_path / "here")
    assert here.fingerprint == streamed("imagenet", tmp_path / "there", image_size=32).fingerprint
    assert here.fingerprint != streamed("imagenet", tmp_path / "here", split_seed=1).fingerprint
    first = tmp_path / "there" / "imagenet" / "train" / "n01" / "n01_0.JPEG"
    first.write_bytes(first.read_bytes() + b"0")
    assert streamed("imagenet", tmp_path / "there").fingerprint != here.fingerprint
    first.rename(first.with_name("n01_other.JPEG"))
    (tmp_path / "here" / "imagenet" / "val" / "n03").rename(tmp_path / "here" / "imagenet" / "val" / "n04")
    (tmp_path / "here" / "imagenet" / "train" / "n03").rename(tmp_path / "here" / "imagenet" / "train" / "n04")
    assert len({here.fingerprint, *(streamed("imagenet", tmp_path / place).fingerprint for place in ("here", "there"))}) == 3


@pytest.mark.parametrize("name", WRITE)
def test_what_is_not_there_ends_with_what_fetches_it(name, tmp_path):
    with pytest.raises(DataError, match=rf"data '{name}' is not there: no (file|folder) .*BISAM_DATA.*{FETCH[name]}"):
        streamed(name, tmp_path)
    base = WRITE[name](tmp_path)
    gone = {"imagenet": base / "val", "flowers102": base / "setid.mat", "pets": base / "annotations" / "test.txt"}[name]
    gone.rename(tmp_path / "away")
    with pytest.raises(DataError, match=rf"no (file|folder) {re.escape(str(gone))} .*{FETCH[name]}"):
        streamed(name, tmp_path)


@pytest.mark.parametrize("name", ["flowers102", "pets"])
def test_an_image_that_a_list_names_must_be_there(name, tmp_path):
    base = WRITE[name](tmp_path)
    image = next((base / ("jpg" if name == "flowers102" else "images")).iterdir())
    image.unlink()
    with pytest.raises(DataError, match=rf"no file {image} .*{FETCH[name]}"):
        streamed(name, tmp_path)


@pytest.mark.parametrize("name", WRITE)
def test_an_empty_image_is_named_before_training(name, tmp_path):
    image = next(WRITE[name](tmp_path).rglob("*.[jJ]*"))
    image.write_bytes(b"")
    with pytest.raises(DataError, match=rf"image {image} is empty"):
        streamed(name, tmp_path)


def test_an_archive_that_is_not_unpacked_is_named(tmp_path):
    tree = photographs.write_imagenet(tmp_path)
    (tree / "train" / "n04.tar").write_bytes(b"0")
    with pytest.raises(DataError, match=rf"{tree}/train holds archives that are not unpacked, 1 of them, such as n04\.tar\. .*{FETCH['imagenet']}"):
        streamed("imagenet", tmp_path)


@pytest.mark.parametrize("part", ["train", "val"])
def test_images_in_no_folder_of_a_class_are_named(part, tmp_path):
    tree = photographs.write_imagenet(tmp_path)
    for label in photographs.CLASSES:
        for image in (tree / part / label).iterdir():
            image.rename(tree / part / image.name)
        (tree / part / label).rmdir()
    with pytest.raises(DataError, match=rf"{tree}/{part} holds \d+ images in no folder of their class, such as n01_0\.JPEG; they must be sorted"):
        streamed("imagenet", tmp_path)


def test_a_class_that_is_missing_or_empty_is_named(tmp_path):
    tree = photographs.write_imagenet(tmp_path)
    shutil.move(tree / "val" / "n02", tmp_path / "n02")
    with pytest.raises(DataError, match=r"only in train: n02; only in val: none; in both: 2\. Needed are"):
        streamed("imagenet", tmp_path)
    (tree / "val" / "n02").mkdir()
    with pytest.raises(DataError, match=rf"{tree}/val/n02 holds no image"):
        streamed("imagenet", tmp_path)


@pytest.mark.parametrize("file", ["setid.mat", "imagelabels.mat"])
def test_a_truncated_list_of_flowers_is_named(file, tmp_path):
    path = photographs.write_flowers(tmp_path) / file
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(DataError, match=rf"{path} cannot be used: it is truncated or corrupt .*Delete it\. Fetch it with"):
        streamed("flowers102", tmp_path)


def test_flowers_whose_numbers_fit_nothing_are_named(tmp_path):
    base = photographs.write_flowers(tmp_path)
    scipy.io.savemat(base / "setid.mat", {"trnid": [1, 2], "valid": [3, 25], "tstid": [4]})
    with pytest.raises(DataError, match=r"valid must name images 1 \.\. 24, those of imagelabels\.mat; it runs to 25"):
        streamed("flowers102", tmp_path)
    scipy.io.savemat(base / "setid.mat", {"trnid": [1, 4], "valid": [7], "tstid": [2]})
    with pytest.raises(DataError, match=r"its classes must be 1 \.\. K, two at least, each among the training images; 1 are"):
        streamed("flowers102", tmp_path)


@pytest.mark.parametrize(("text", "why"), [("", "it is empty"), ("one 1 1 1\ntwo\n", "line 2 must begin with"), ("one 1 1 1\ntwo x\n", "line 2")])
def test_a_broken_list_of_pets_is_named(text, why, tmp_path):
    path = photographs.write_pets(tmp_path) / "annotations" / "trainval.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"{path} cannot be used: {why}"):
        streamed("pets", tmp_path)


def test_a_folder_of_ones_own_is_streamed_with_its_own_size_or_another(tmp_path):
    tree = photographs.write_folder(tmp_path, size=(20, 24))
    task = streamed("folder:own", tmp_path)
    assert task.shape == (3, 20, 24) and streamed("folder:own", tmp_path, image_size=16).shape == (3, 16, 16)
    held = load("folder:own", tmp_path)  # the same images, decoded at once
    for split in ("train", "validation", "test"):
        ours, theirs = getattr(task, split), getattr(held, split)
        assert torch.equal(task.picked(ours, slice(None))[0], theirs.inputs) and torch.equal(ours.targets, theirs.targets)
    assert (tree.with_name("own.decoded.npz")).exists()
    odd = tree / "test" / "n02" / "2.png"
    photographs.photograph(odd, 1, photographs.np.random.default_rng(1), size=(21, 24))
    with pytest.raises(DataError, match=rf"image {odd} has 21 x 24 pixels and others 20 x 24; all images must have one size, or image_size be given"):
        task.picked(task.test, slice(None))


def test_a_broken_image_is_named_where_it_is_met(tmp_path):
    photographs.write_imagenet(tmp_path)
    task = streamed("imagenet", tmp_path, image_size=16)
    path = task.files[int(task.train.inputs[0])]
    content = Path(path).read_bytes()
    for broken in (content[: len(content) // 2], b"no image"):
        Path(path).write_bytes(broken)
        with pytest.raises(DataError, match=rf"image {path} is truncated or corrupt .*Restore it or take it away"):
            task.picked(task.train, slice(1))


@pytest.mark.parametrize(("fields", "said"), [
    ({"data": "pets"}, "loading must be \"stream\" for data 'pets'"),
    ({"data": "digits", "loading": "stream"}, "loading must be \"device\" for data 'digits': streamed are imagenet, flowers102, pets and folder:NAME"),
    ({"data": "folder:own", "image_size": 32}, 'image_size must be left out with loading "device"'),
    ({"data": "pets", "loading": "stream", "pool": 2}, 'pool must be 1 with loading "stream"'),
    ({"data": "pets", "loading": "stream", "augment": "crop-flip"}, 'augment must be "none" or \'resized-crop\' with loading "stream"'),
    ({"data": "pets", "loading": "stream", "compile": "whole-step"}, 'compile must not be "whole-step" with loading "stream"'),
    ({"augment": "resized-crop"}, 'augment must be left out with loading "device"'),
    ({"data": "pets", "loading": "disk"}, "loading must be one of device, stream"),
    ({"data": "pets", "loading": "stream", "image_size": 0}, "image_size must be at least 1"),
])  # fmt: skip
def test_what_does_not_go_with_the_loading_is_refused_by_name(fields, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Run(**fields)


def test_the_sets_have_no_other_loading():
    check_loading("imagenet", "stream", 64)
    with pytest.raises(ValueError, match='loading must be "stream"'):
        load("imagenet")
