"""Checkpoints: no bit can change unseen, what is no checkpoint is refused, and one training works on one file at a time."""

import itertools
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from small import killed, outcome, run

from bisam import SAM, Constant
from bisam.training import CheckpointError, Run, checkpoint, fit

pytestmark = pytest.mark.usefixtures("tiny")


def flipped(content, draw):
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


def zeroed(content, draw):
    size = len(content) // 100
    place = draw.randrange(len(content) - size)
    return content[:place] + bytes(size) + content[place + size :]


def noisy(content, draw):
    size = len(content) // 100
    place = draw.randrange(len(content) - size)
    return content[:place] + draw.randbytes(size) + content[place + size :]


def cut(content, draw):
    return content[: draw.randrange(len(content))]


def longer(content, draw):
    return content + draw.choice([bytes(1), bytes(1000), content[-71:], content])


def swapped(content, draw):
    a, b = sorted(draw.sample(range(0, len(content) - 128, 64), 2))
    return content[:a] + content[b : b + 64] + content[a + 64 : b] + content[a : a + 64] + content[b + 64 :]


@pytest.mark.parametrize("damage, count", [(flipped, 400), (zeroed, 100), (noisy, 100), (cut, 100), (longer, 20), (swapped, 100)])
def test_damage_anywhere_is_seen(damage, count, sealed, tmp_path, no_training):
    draw, path, unseen = random.Random(0), tmp_path / "run.pt", 0
    for _ in range(count):
        found = damage(sealed, draw)
        if found == sealed:
            continue  # a block of zeros in place of zeros is no damage
        path.write_bytes(found)
        try:
            checkpoint.read(path, run().identity())
            unseen += 1
        except CheckpointError as error:
            assert f"checkpoint_path {path} cannot be read" in str(error) and path.read_bytes() == found
    assert unseen == 0
    with pytest.raises(CheckpointError, match=r"damaged, truncated or no checkpoint of this version\. Delete it to start over"):
        fit(run(), path)


def test_the_seal_covers_the_file_from_its_first_byte_to_its_last(tmp_path):
    path = tmp_path / "small.pt"
    checkpoint.write(path, {"seed": 0}, {"w": torch.ones(3)})
    content = path.read_bytes()
    for place in (*range(0, len(content) - 200, 7), *range(len(content) - 200, len(content))):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        with pytest.raises(CheckpointError, match="cannot be read"):
            checkpoint.read(path, {"seed": 0})
    path.write_bytes(content)
    assert torch.equal(checkpoint.read(path, {"seed": 0})["w"], torch.ones(3))


def test_a_sealed_file_is_an_archive_like_any_other(sealed, tmp_path):
    path = tmp_path / "run.pt"
    path.write_bytes(sealed)
    assert zipfile.ZipFile(path).testzip() is None
    for mapped in (False, True):
        assert len(torch.load(path, weights_only=True, mmap=mapped)["state"]["rows"]) == 2


def test_a_file_without_a_seal_is_refused_whatever_it_holds(sealed, tmp_path, no_training):
    path = tmp_path / "run.pt"
    path.write_bytes(sealed)
    stored = torch.load(path, weights_only=True)
    for form in (checkpoint.FORMAT, 1):
        torch.save({**stored, "format": form}, path)
        with pytest.raises(CheckpointError, match="its seal does not fit"):
            fit(run(), path)


@pytest.mark.parametrize("stored", [[1], {"run": [], "state": {}, "format": checkpoint.FORMAT}, {"run": {}, "state": {}, "format": 99}, {}])
def test_a_sealed_file_of_another_kind_is_refused(stored, tmp_path, monkeypatch, no_training):
    save = torch.save
    monkeypatch.setattr("bisam.training.checkpoint.torch.save", lambda _, archive: save(stored, archive))
    checkpoint.write(tmp_path / "run.pt", {}, {})
    with pytest.raises(CheckpointError, match="cannot be read"):
        fit(run(), tmp_path / "run.pt")


CHANGES = {
    "seed": ({"seed": 1}, r"seed: 0 there, 1 here"),
    "epochs": ({"epochs": 5}, r"epochs: 4 there, 5 here"),
    "recipe": ({"recipe": SAM.replace(radius=Constant(0.1))}, r"\(recipe\.radius\.rho: 0\.05 there, 0\.1 here\)"),
}


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused_and_left_alone(keep, half, request):
    whole = half.read_bytes()
    half.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    left = half.read_bytes()
    request.getfixturevalue("no_training")
    with pytest.raises(
        CheckpointError, match=r"checkpoint_path .*run\.pt cannot be read .*truncated or no checkpoint"
    ):
        fit(run(), half)
    assert half.read_bytes() == left


@pytest.mark.parametrize(
    "content", [b"no checkpoint", {"weights": torch.zeros(2)}, [1, 2]], ids=["text", "dict", "list"]
)
def test_another_file_is_refused(content, tmp_path, no_training):
    path = tmp_path / "run.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        fit(run(), path)


class Trap:
    """A thing whose reading runs code: it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, no_training):
    torch.save({"run": run().to_dict(), "state": Trap(tmp_path / "sprung")}, tmp_path / "run.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        fit(run(), tmp_path / "run.pt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("change, message", CHANGES.values(), ids=CHANGES)
def test_the_checkpoint_of_another_run_is_refused_and_left_alone(change, message, half, request):
    before = half.read_bytes()
    request.getfixturevalue("no_training")
    with pytest.raises(CheckpointError, match=rf"checkpoint_path .* belongs to another run .*{message}"):
        fit(run(**change), half)
    assert half.read_bytes() == before


def test_a_checkpoint_holds_tensors_and_plain_values_only(half):
    stored = torch.load(half, weights_only=True)
    assert Run.from_dict(stored["run"]) == run() and len(stored["state"]["rows"]) == 2


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path, no_training):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.pt").mkdir()
    for path in (
        tmp_path / "file" / "run.pt",
        tmp_path / "file" / "deeper" / "run.pt",
        tmp_path / "folder.pt",
    ):
        with pytest.raises(
            CheckpointError, match=rf"checkpoint_path {path} cannot be written: .*Choose another folder"
        ):
            fit(run(), path)


def test_missing_folders_are_made_and_nothing_else_is_left_in_them(tmp_path):
    fit(run(), tmp_path / "a" / "b" / "run.pt", stop_after=1)
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["run.pt"]


def test_a_disk_that_fills_up_stops_the_training_and_the_old_file_stays(half, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    before = half.read_bytes()
    monkeypatch.setattr("bisam.training.checkpoint.os.fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot be written: .*No space left.* The old file stays"):
        fit(run(), half)
    assert half.read_bytes() == before and list(half.parent.iterdir()) == [half]


def test_a_death_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    class Death(BaseException):
        """Nobody catches it, as nobody catches a kill."""

    def die(*arguments):
        raise Death

    path = tmp_path / "run.pt"
    fit(run(), path, stop_after=2)
    before = path.read_bytes()
    for moment in ("bisam.training.checkpoint.os.fsync", "bisam.training.checkpoint.os.replace"):
        with monkeypatch.context() as patch, pytest.raises(Death):
            patch.setattr(moment, die)
            fit(run(), path)
        assert path.read_bytes() == before
    assert outcome(fit(run(), path)) == outcome(fit(run()))


SLOW = """
import sys, time
import small
from bisam.training import data, fit
from bisam.training.state import State
data.DATA["tiny"] = lambda: small.TINY
steps = State.steps


def slow(self):
    yield from steps(self)
    epoch = self.history.rows[-1]["epoch"]
    print(epoch, flush=True)
    time.sleep(120 if epoch == 2 else 0)
State.steps = slow
fit(small.run(seed=int(sys.argv[2])), sys.argv[1])
"""


@pytest.mark.slow
def test_a_second_training_on_one_checkpoint_is_refused_and_goes_on_when_the_first_is_killed(tmp_path):
    path = tmp_path / "run.pt"
    first = subprocess.Popen([sys.executable, "-c", SLOW, str(path), "0"], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "1\n" and first.stdout.readline() == "2\n"
        (tmp_path / "link.pt").symlink_to(path)
        for seed, name in itertools.product((0, 1), ("run.pt", "link.pt")):  # the same run, and another
            with pytest.raises(CheckpointError, match=f"checkpoint_path {tmp_path / name} is in the hands of another training"):
                fit(run(seed=seed), tmp_path / name)
    finally:
        first.kill()
        first.communicate()
    with pytest.raises(CheckpointError, match="belongs to another run"):
        fit(run(seed=1), path)
    resumed = fit(run(), path)
    assert len(resumed.rows) == 4 and outcome(resumed) == outcome(fit(run()))
    assert sorted(os.listdir(tmp_path)) == ["link.pt", "run.pt"]


def test_the_lock_is_free_after_a_training_whatever_its_end(tmp_path):
    path = tmp_path / "run.pt"
    for _ in range(2):
        with pytest.raises(FloatingPointError):
            fit(run(lr=1e30), path)
    assert len(fit(run(), path).rows) == 4 and os.listdir(tmp_path) == ["run.pt"]


@pytest.mark.slow
def test_a_kill_while_a_checkpoint_is_written_costs_at_most_an_epoch(tmp_path):
    moments = [("save", 2), ("fsync", 1), ("fsync", 2), ("replace", 1), ("replace", 3), ("chmod", 1), ("unlink", 2)]
    paths = [tmp_path / f"{name}{count}" / "run.pt" for name, count in moments]
    killed([(name, count, "bisam-log", path) for (name, count), path in zip(moments, paths, strict=True)])
    whole = outcome(fit(run(recipe="bisam-log")))
    for path in paths:
        assert outcome(fit(run(recipe="bisam-log"), path)) == whole
        assert os.listdir(path.parent) == ["run.pt"]
