"""Images that are decoded while the network trains: the bits, the processes that decode, and what becomes of them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import photographs
import pytest
import small
import torch
import torchvision

import bisam
from bisam import SharpnessAware
from bisam.evidence import ledger, recording
from bisam.evidence.plans import Settings, plan
from bisam.evidence.reproduce import carry_out, rerun
from bisam.training import DataError, Run, evaluation, fit
from bisam.training.data import load
from bisam.training.data.streamed import MEAN, STD, Look
from bisam.training.stream import Stream

RUN = Run(
    recipe="bisam-log", data="imagenet", loading="stream", image_size=16, augment="resized-crop", model="small_conv", epochs=3, batch_size=8,
    lr=0.05, label_noise=0.2,
)  # fmt: skip

PLAIN = RUN.replace(model="mlp")  # without batch norm, whose statistics are those of a process


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    photographs.write_imagenet(root)
    return root


@pytest.fixture(scope="module")
def alone(root):
    """The training that decodes in its own process."""
    return small.outcome(fit(RUN, root=root, loaders=0))


@pytest.mark.parametrize("loaders", [1, 3])
def test_the_number_of_processes_that_decode_moves_no_bit(loaders, root, alone):
    before = torch.get_rng_state()
    assert small.outcome(fit(RUN, root=root, loaders=loaders)) == alone
    assert torch.equal(torch.get_rng_state(), before) and not active_children()


def test_dropout_masks_do_not_hang_on_who_decodes(root, tiny):
    run = RUN.replace(model="dropping", epochs=1)
    assert small.outcome(fit(run, root=root, loaders=0)) == small.outcome(fit(run, root=root, loaders=2))


def test_streamed_and_on_the_device_are_one_training(tmp_path, monkeypatch):
    monkeypatch.setattr("bisam.training.data.loading.statistics", lambda images: (MEAN, STD))
    photographs.write_folder(tmp_path, size=(12, 10))
    run = RUN.replace(data="folder:own", image_size=None, augment="none", epochs=2)
    held = small.outcome(fit(run.replace(loading="device"), root=tmp_path))
    assert small.outcome(fit(run, root=tmp_path, loaders=0)) == held


def test_streamed_and_on_the_device_are_one_training_with_dropout_too(tmp_path, monkeypatch, tiny):
    monkeypatch.setattr("bisam.training.data.loading.statistics", lambda images: (MEAN, STD))
    photographs.write_folder(tmp_path, size=(12, 10))
    run = RUN.replace(data="folder:own", image_size=None, augment="none", epochs=2, model="dropping")
    held = small.outcome(fit(run.replace(loading="device"), root=tmp_path))
    assert small.outcome(fit(run, root=tmp_path, loaders=0)) == small.outcome(fit(run, root=tmp_path, loaders=1)) == held


def test_what_is_augmented_is_what_torchvision_makes_of_a_seed(root):
    tools = torchvision.transforms.v2
    task = load("imagenet", root, loading="stream", image_size=24)
    path = task.files[5]
    image = torchvision.datasets.folder.pil_loader(path)
    with torch.random.fork_rng([]):
        torch.manual_seed(17)
        theirs = tools.Compose([tools.RandomResizedCrop(24), tools.RandomHorizontalFlip(), tools.PILToTensor()])(image)
    assert torch.equal(Look(24, 24).at(path, 17), theirs)
    assert torch.equal(Look(24, 24).at(path), tools.Compose([tools.Resize(27), tools.CenterCrop(24), tools.PILToTensor()])(image))
    pixels = task.prepared(Look(24, 24).at(path)[None])[0]
    scaled = tools.Compose([tools.ToImage(), tools.ToDtype(torch.float32, scale=True), tools.Resize(27), tools.CenterCrop(24)])(image)
    torch.testing.assert_close(pixels, tools.functional.normalize(scaled, MEAN, STD), rtol=0, atol=0.02)


def test_an_image_has_another_look_in_each_epoch_and_run_and_the_same_in_each_process(root):
    task = load("imagenet", root, loading="stream", image_size=24)
    looks = [task.drawn(3, seed, epoch) for seed, epoch in ((0, 1), (0, 2), (1, 1), (0, None))]
    assert all(not torch.equal(looks[a], looks[b]) for a in range(4) for b in range(a))
    torch.rand(3)
    assert torch.equal(task.drawn(3, 0, 1), looks[0]) and not torch.equal(task.drawn(4, 0, 1), looks[0])
    stream = Stream(RUN.replace(image_size=24), task, 2)
    (images, targets), *_ = stream.parts(task.train, [torch.tensor([1, 0])], epoch=2)
    assert torch.equal(images[1], task.drawn(int(task.train.inputs[0]), 0, 2)) and torch.equal(targets, task.train.targets[[1, 0]])
    (images, _), *_ = stream.parts(task.train, [torch.tensor([1, 0])])
    assert torch.equal(images, task.picked(task.train, torch.tensor([1, 0]))[0])
    stream.close()


def test_a_round_that_was_left_does_not_come_back_in_the_next(root):
    task = load("imagenet", root, loading="stream", image_size=16)
    stream = Stream(RUN, task, 2)
    places = list(torch.arange(24).split(2))
    next(stream.parts(task.train, places))
    found = [targets for _, targets in stream.parts(task.train, places[5:])]
    assert torch.equal(torch.cat(found), task.train.targets[10:24])
    stream.close()
    assert not active_children()


@pytest.mark.parametrize("loaders", [0, 2])
def test_a_broken_image_ends_the_training_with_its_path_and_no_process_stays(loaders, tmp_path):
    tree = photographs.write_imagenet(tmp_path)
    path = tree / "val" / "n02" / "n02_1.JPEG"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=rf"^image {path} is truncated or corrupt \(.*\)\. Restore it or take it away$"):
        fit(RUN, root=tmp_path, loaders=loaders)
    assert not active_children()


def test_an_interrupt_ends_the_processes_whoever_keeps_its_traceback(root, monkeypatch):
    step, calls = SharpnessAware.step, []

    def interrupted(*arguments, **named):
        calls.append(len(active_children()))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(*arguments, **named)

    monkeypatch.setattr(SharpnessAware, "step", interrupted)
    with pytest.raises(KeyboardInterrupt) as kept:
        fit(RUN, root=root, loaders=2)
    assert not active_children() and calls == [2, 2, 2] and kept.tb is not None


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no process can be killed here")
def test_a_process_that_is_killed_from_outside_ends_the_training_with_what_to_do(root, tmp_path, monkeypatch):
    step, calls = SharpnessAware.step, []

    def killing(*arguments, **named):
        calls.append(0)
        for process in active_children() if len(calls) == 7 else ():  # in the second epoch
            os.kill(process.pid, signal.SIGKILL)
        return step(*arguments, **named)

    monkeypatch.setattr(SharpnessAware, "step", killing)
    with pytest.raises(DataError, match=r"a process that decodes images has ended by itself \(DataLoader worker .*take fewer loaders"):
        fit(RUN.replace(epochs=50), tmp_path / "run.pt", root=root, loaders=2)
    assert not active_children()
    assert len(fit(RUN.replace(epochs=50), tmp_path / "run.pt", root=root, loaders=0, stop_after=1).rows) == 2


def test_a_learned_radius_looks_at_validation_images_as_they_are(root):
    run = RUN.replace(recipe="lets-bisam-log", epochs=1)
    assert small.outcome(fit(run, root=root, loaders=0)) == small.outcome(fit(run, root=root, loaders=1))


def test_a_network_that_looks_at_images_before_the_first_step_gets_them(root):
    run = RUN.replace(model="airbench-narrow", image_size=32, epochs=1, batch_size=32)
    assert fit(run, root=root, loaders=0).finished


@pytest.mark.parametrize(("run", "loaders", "said"), [
    (Run(), 2, "loaders must be left out with loading 'device', where no image is decoded while training; got 2"),
    (RUN, -1, "loaders must be at least 0, got -1"),
])  # fmt: skip
def test_processes_that_would_decode_nothing_are_refused(run, loaders, said, no_training):
    with pytest.raises(ValueError, match=said):
        fit(run, loaders=loaders)


def test_what_needs_a_tensor_of_images_says_so(root):
    task = load("imagenet", root, loading="stream", image_size=16)
    with pytest.raises(ValueError, match="split must hold its samples as a tensor of shape"):
        evaluation.accuracy(torch.nn.Flatten(), task.test)


def test_a_record_says_that_images_were_streamed(root, tmp_path):
    history = fit(RUN.replace(epochs=1), root=root, loaders=0)
    path = recording.record(history, "try", "one", "smoke", tmp_path, root)
    found = ledger.read(path)
    assert found["run"]["loading"] == "stream" and found["run"]["image_size"] == 16
    assert Run.from_dict(found["run"]) == history.run
    assert found["data_fingerprint"] == load("imagenet", root, loading="stream").fingerprint
    for field, value in (("loading", "device"), ("loading", "disk"), ("image_size", 0), ("augment", "crop-flip")):
        path.write_text(json.dumps({**found, "run": {**found["run"], field: value}}))
        with pytest.raises(ledger.LedgerError, match=rf"run\.{field}|run describes no run"):
            ledger.read(path)


TRAIN = """
import os, sys
import test_stream, torch
from bisam import SharpnessAware
from bisam.training import fit
torch.set_num_threads(1)
step, calls = SharpnessAware.step, []
def dies(*arguments, **named):
    calls.append(0)
    if len(calls) == int(sys.argv[3]):
        os.kill(os.getpid(), 9)
    return step(*arguments, **named)
SharpnessAware.step = dies
fit(test_stream.RUN, sys.argv[2], root=sys.argv[1], loaders=2)
"""


def environment():
    path = os.pathsep.join([str(Path(bisam.__file__).parents[1]), str(Path(__file__).parent)])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


@pytest.mark.slow
def test_a_training_that_is_killed_goes_on_elsewhere_to_the_same_bits(tmp_path, alone):
    here, there = tmp_path / "here", tmp_path / "there"
    photographs.write_imagenet(here)
    done = subprocess.run([sys.executable, "-c", TRAIN, here, here / "run.pt", "8"], env=environment(), capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    shutil.copytree(here, there)
    shutil.rmtree(here)
    with pytest.raises(RuntimeError, match="belongs to another run"):
        fit(RUN.replace(augment="none"), there / "run.pt", root=there)
    assert small.outcome(fit(RUN, there / "run.pt", root=there, loaders=1)) == alone


def children(pid):
    """The processes that a process has started, as far as Linux knows them."""
    try:
        return [int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()]
    except OSError:
        return []


def lives(pid):
    """Whether a process is there and no mere entry that nobody has asked about."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_stays_when_a_training_is_told_to_end(number, root, tmp_path):
    words = ["train", "--data", "imagenet", "--loading", "stream", "--image-size", "64", "--augment", "resized-crop", "--model", "resnet20", "--epochs", "999"]
    words += ["--batch-size", "8", "--loaders", "3", "--root", str(root), "--output", str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-m", "bisam", *words], env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert until(lambda: len(children(process.pid)) == 3 or process.poll() is not None) and process.poll() is None, process.stderr.read()
        started = children(process.pid)
        assert until((tmp_path / "checkpoint.pt").exists)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            os.kill(process.pid, number)
        said = process.communicate(timeout=60)[1]
        assert process.returncode in (128 + number, -number)
        assert until(lambda: not any(map(lives, started)))
        assert "Traceback" not in said and ("stopped; " in said or number == signal.SIGKILL)
    finally:
        process.kill()


TOGETHER = """
import os, sys
from pathlib import Path
import test_stream, torch
from bisam.training import fit
from bisam.training.data.streamed import Streamed
torch.set_num_threads(1)
drawn, seen = Streamed.drawn, []
def counted(self, number, seed, epoch):
    seen.append((number, epoch))
    return drawn(self, number, seed, epoch)
Streamed.drawn = counted
out = Path(sys.argv[2])
for cut in (1, None):
    history = fit(test_stream.PLAIN, out / "run.pt", root=sys.argv[1], loaders=0, stop_after=cut)
torch.save({"weights": history.model.state_dict(), "rows": history.rows, "right": history.right, "seen": seen}, out / f"rank{os.environ['RANK']}.pt")
"""


@pytest.mark.slow
def test_two_processes_under_torchrun_decode_a_share_each_and_come_to_the_weights_of_one(root, tmp_path):
    history = fit(PLAIN, root=root, loaders=0)
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*launch, str(script), str(root), str(tmp_path)], env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    for name, expected in history.model.state_dict().items():
        torch.testing.assert_close(first["weights"][name], expected, rtol=0, atol=1e-5)
        assert torch.equal(first["weights"][name], second["weights"][name])
    for mine, theirs in zip(first["rows"], history.rows, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)
    assert all(torch.equal(first["right"][which], history.right[which]) for which in ("selected", "last"))
    for epoch in (1, 2, 3):
        ours = [{number for number, when in one["seen"] if when == epoch} for one in (first, second)]
        assert [len(one) for one in ours] == [16, 16] and not ours[0] & ours[1]
    tested = [sum(when is None for _, when in one["seen"]) for one in (first, second)]
    assert tested == [3 * (2 + 6) + 19, 3 * (2 + 6) + 19]


PLAN = """
[experiment.photographs]
title = "Photographs that are streamed."
scale = "laptop"
methods = ["sam", "sgd"]
seeds = 1
epochs = 1
budget = "same"

[experiment.photographs.settings]
data = "imagenet"
loading = "stream"
image_size = 16
augment = "resized-crop"
model = "small_conv"
batch_size = 8
"""


@pytest.mark.slow
def test_an_experiment_streams_its_images_in_processes_beside_each_other(root, tmp_path):
    (tmp_path / "claims.toml").write_text(PLAN)
    settings = Settings(2, root=str(root), folder=tmp_path, checkpoints=tmp_path / "checkpoints", loaders=1)
    outcomes = carry_out(plan("photographs", folder=tmp_path), settings, progress=False)
    assert sorted(outcomes["recorded"]) == ["sam-seed0", "sgd-seed0"] and not outcomes["failed"]
    found = rerun(tmp_path / "runs" / "photographs" / "sam-seed0.json", str(root))
    assert found["same_bits"] and found["same_data"] and found["why"] == []


def test_an_experiment_without_such_images_has_nothing_to_decode(tmp_path):
    (tmp_path / "claims.toml").write_text(PLAN.replace('data = "imagenet"\nloading = "stream"\nimage_size = 16\naugment = "resized-crop"\n', ""))
    settings = Settings(folder=tmp_path, checkpoints=tmp_path / "checkpoints", loaders=1)
    with pytest.raises(ValueError, match="loaders must be left out where no missing run streams its images; got 1"):
        carry_out(plan("photographs", folder=tmp_path), settings, progress=False)


def test_an_experiment_whose_photographs_are_not_there_ends_before_any_run(tmp_path):
    (tmp_path / "claims.toml").write_text(PLAN)
    settings = Settings(root=str(tmp_path), folder=tmp_path, checkpoints=tmp_path / "checkpoints")
    with pytest.raises(DataError, match="data 'imagenet' is not there"):
        carry_out(plan("photographs", folder=tmp_path), settings, progress=False)
