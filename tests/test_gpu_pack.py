"""The session on a GPU, tried on the CPU: its stages, its queue, the folder that is carried there, and what a bare machine lacks."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import recording
import torch
from torch import nn

from bisam import (
    _archive,
    _images,
    _record,
    captured,
    data,
    environment,
    ledger,
    plans,
    train,
    verify,
)
from bisam.gpu import correctness, evidence, pack, published, session, speed, tiny, two_devices
from bisam.gpu.lines import Item, Stage
from bisam.train import Run

ROOT = Path(__file__).resolve().parents[1]
LACKING = ("rich", "scipy", "sklearn", "jsonschema", "matplotlib", "IPython")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def stage_of(folder, name="correctness", **more):
    return Stage(name, folder, quiet=True, tiny=True, **more)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """A network that takes no time, in place of that of the checks."""
    monkeypatch.setitem(train.models.MODELS, "resnet8", lambda shape, classes: nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, classes)))  # fmt: skip


# -- stage one -----------------------------------------------------------------------------------------------------------------


def chosen(folder, *words):
    return [check for check in correctness.checks(stage_of(folder)) if all(word in check.name for word in words)]


def test_the_first_checks_tell_the_most_and_every_method_is_in_both_precisions(tmp_path):
    names = [check.name for check in correctness.checks(stage_of(tmp_path))]
    assert len(set(names)) == len(names)
    assert {f"step {name} {precision}" for name in train.RECIPES for precision in train.PRECISIONS} <= set(names)
    first = names[:24]
    assert all(any(word in name for name in first) for word in ("step bisam-log", "graph sam", "scaler", "resumed", "side by side"))


@pytest.mark.parametrize("name", [
    "step esam float32", "step bsam bfloat16", "step lets-sam float32", "graph bisam-log bfloat16", "scaler float16 bisam-log",
    "scaler float16 overflow", "resumed whole-step", "side by side", "a bad step is left out of a graph", "graph against compile no, bisam-log",
])  # fmt: skip
def test_a_check_passes_where_both_devices_are_one(name, tmp_path, monkeypatch):
    [check] = [check for check in correctness.checks(stage_of(tmp_path)) if check.name == name]
    result, deviation, reason = correctness._answer(check)
    assert (result, reason) == ("pass", None) and deviation < 0.1


def test_a_graph_that_keeps_what_should_change_fails_its_check(tmp_path, monkeypatch):
    [check] = chosen(tmp_path, "graph vasso bfloat16")
    monkeypatch.setattr(captured, "graph_of", lambda device: recording.Graph)
    monkeypatch.setattr("bisam.surrogate._near_margins", lambda *_: None)
    assert correctness._answer(check)[0] == "fail"  # a CPU base reads its learning rate, which a graph would keep


def test_a_device_that_computes_otherwise_fails_its_check(tmp_path, monkeypatch):
    calls, after = [], two_devices._after

    def spoiled(name, device, precision, steps):
        model = after(name, device, precision, steps)
        calls.append(device)
        if len(calls) == 2:  # the one that stands for the device
            with torch.no_grad():
                next(model.parameters()).mul_(1.01)
        return model

    monkeypatch.setattr(two_devices, "_after", spoiled)
    result, deviation, reason = correctness._answer(chosen(tmp_path, "step sam float32")[0])
    assert result == "fail" and deviation > two_devices.EXACT and "of the update, against the CPU" in reason


def test_an_error_in_a_check_is_a_line_and_the_next_one_runs(tmp_path, monkeypatch):
    listed = [Item("breaks", lambda: 1 / 0), Item("works", lambda: 0.0)]
    monkeypatch.setattr(correctness, "checks", lambda stage: listed)
    correctness.main(stage_of(tmp_path))
    assert [(line["name"], line["result"]) for line in lines(tmp_path / "correctness.jsonl")] == [("breaks", "error"), ("works", "pass")]


@pytest.mark.slow
def test_two_processes_find_the_same_bits_and_share_a_batch(tmp_path, monkeypatch):
    monkeypatch.undo()  # the other processes have the network of the table
    for check in [*chosen(tmp_path, "two processes"), *chosen(tmp_path, "shared")]:
        assert correctness._answer(check)[0] == "pass", check.name


# -- stage two -----------------------------------------------------------------------------------------------------------------


def test_everything_that_is_timed_has_a_line_of_numbers(tmp_path):
    speed.main(stage_of(tmp_path, "speed"))
    found = {line.pop("name"): line for line in lines(tmp_path / "speed.jsonl")}
    assert list(found) == [item.name for item in speed.items(stage_of(tmp_path, "speed"))]
    assert not [(name, line["error"]) for name, line in found.items() if "error" in line]
    assert all(number > 0 for line in found.values() for key, number in line.items() if key != "took")
    left = json.loads((tmp_path / "found.json").read_text())
    assert left["width"] in (1, 2) and set(left["prices"]) == {"airbench-narrow", "resnet8", "mlp"} and min(left["prices"].values()) > 0
    assert evidence._found(stage_of(tmp_path)) == (left["width"], left["prices"])
    assert found["launches"]["sam no"] > 1.5 * found["launches"]["sgd no"]


def test_the_published_way_has_the_gradient_of_ours():
    logits = torch.randn(16, 10, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.arange(16) % 10
    slopes = [torch.autograd.grad(loss(logits, targets), logits)[0] for loss in (published.by_rows, published.at_once)]
    ours = train.RECIPES["bisam-log"].ascent.gradient(logits, targets)
    assert all(torch.allclose(slope, ours, atol=1e-7) for slope in slopes)


# -- stage three ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def out(tmp_path):
    tiny.write(tmp_path)
    return tmp_path


def evidence_stage(out, end=math.inf):
    return stage_of(out, "evidence", root=str(out / "data"), end=end)


def test_the_queue_records_every_run_with_the_bits_of_a_run_alone(out):
    (out / "found.json").write_text('{"width": 3, "prices": {"airbench-narrow": 0.01}}')
    evidence.main(evidence_stage(out))
    planned = plans.plan("gpu_tiny", folder=out)
    assert len(planned) == 6 and all(one.recorded for one in planned)
    for one in planned[:3]:
        record = ledger.read(out / "runs" / "gpu_tiny" / f"{one.file}.json")
        alone = train.fit(one.run, root=str(out / "data"))
        assert record["weights_digest"] == train.weights_digest(alone.model)
    assert not list((out / "checkpoints").rglob("*.pt"))
    evidence.main(evidence_stage(out))
    assert lines(out / "evidence.jsonl")[-2]["runs"] == 0


def test_a_ledger_with_what_came_home_is_sound(out, tmp_path_factory):
    evidence.main(evidence_stage(out))
    home = tmp_path_factory.mktemp("home")
    (home / "claims.toml").write_text(tiny.CLAIMS)
    (out / "runs").rename(home / "runs")
    assert verify.verify(home).faults == []


def test_a_run_that_was_cut_goes_on_from_its_checkpoint(out, monkeypatch):
    steps = train._State.steps

    def second_epoch_fails(self):
        if len(self.history.rows) == 1:
            raise RuntimeError("the machine is gone")
        yield from steps(self)

    with monkeypatch.context() as patch:
        patch.setattr(train._State, "steps", second_epoch_fails)
        evidence.main(evidence_stage(out))
    assert len(list((out / "checkpoints").rglob("*.pt"))) == 6 and not (out / "runs").exists()
    assert {line.get("reason") for line in lines(out / "evidence.jsonl")[1:-1]} == {"RuntimeError: the machine is gone"}
    evidence.main(evidence_stage(out))
    one = plans.plan("gpu_tiny", folder=out)[0]
    record = ledger.read(out / "runs" / "gpu_tiny" / f"{one.file}.json")
    assert record["weights_digest"] == train.weights_digest(train.fit(one.run, root=str(out / "data")).model)


@pytest.fixture
def queue_of(out, monkeypatch):
    """A queue with so many seconds left, at a price of a pass."""

    def made(seconds, price):
        monkeypatch.setattr(Stage, "left", seconds + evidence.BEFORE)
        return evidence.Queue(evidence_stage(out), plans.plan("gpu_tiny", folder=out), {"airbench-narrow": price / 108})  # images

    return made


def test_what_cannot_end_in_time_begins_only_if_an_epoch_of_it_can(out, queue_of):
    names = [one.run.recipe.name for one in plans.plan("gpu_tiny", folder=out)]
    assert names == ["sgd", "sam", "bisam-log"] * 2
    job = queue_of(seconds=1000, price=10.0).next()  # 4 passes, 60 seconds at the most
    assert job.run.recipe.name == "sgd" and job.path.parent == out / "checkpoints" / "gpu_tiny"
    assert queue_of(seconds=1000, price=400.0).next().run.recipe.name == "sgd"  # an epoch is 600 seconds
    assert queue_of(seconds=1000, price=1000.0).next() is None
    assert queue_of(seconds=-1, price=0.0).next() is None


def test_a_run_is_taken_that_fits_where_the_first_does_not(queue_of):
    queue = queue_of(seconds=1000, price=10.0)
    queue.waiting[0] = plans.Planned("gpu_tiny", "long", queue.waiting[0].run.replace(epochs=1000), False)
    assert queue.next().run.recipe.name == "sam" and queue.waiting[0].file == "long"


def test_experiments_whose_runs_are_not_captured_or_whose_data_is_missing_are_said(out):
    text = (out / "claims.toml").read_text()
    plain = text.replace("gpu_tiny", "gpu_plain").replace('"whole-step"', '"no"')
    more = plain + text.replace("gpu_tiny", "gpu_lost").replace("folder:tiny", "folder:lost")
    (out / "claims.toml").write_text(text + more)
    evidence.main(evidence_stage(out, end=0.0))
    found = {line["name"]: line.get("reason", "") for line in lines(out / "evidence.jsonl")}
    assert "compile 'no'" in found["gpu_plain"] and "folder:lost" in found["gpu_lost"] and "gpu_tiny" not in found


# -- the session ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def staged(monkeypatch):
    """Puts a function in the place of the processes of the stages; nothing is decoded meanwhile."""

    def put(stand_in):
        monkeypatch.setattr(session, "_started", lambda *_: SimpleNamespace(join=lambda seconds: None, kill=lambda: None))
        monkeypatch.setattr(session, "_carried_out", stand_in)

    return put


def test_a_stage_that_breaks_takes_no_other_with_it(tmp_path, staged):
    said = []
    staged(lambda context, stage: "broken off, exit status 3" if stage.name == "speed" else "done")
    assert session.run(session.Settings(1, tmp_path, "cpu", tiny=True), said.append) == 1
    ends = [line for line in said if line.startswith("stage ")]
    assert ends == ["stage correctness: done", "stage speed: broken off, exit status 3", "stage evidence: done"]


def test_each_stage_has_its_share_of_the_time(tmp_path, staged):
    ends, began = {}, 1e9  # far from now
    staged(lambda context, stage: ends.update({stage.name: stage.end}) or "done")
    session.run(session.Settings(15, tmp_path, "cpu", tiny=True), lambda line: None, began)
    assert {name: end - began for name, end in ends.items()} == {"correctness": 120, "speed": 240, "evidence": 900 - session.SUMMARY}


@pytest.mark.parametrize("content", ["", "{}", '{"prices": 3}', '{"width": 2, "prices": {"mlp": "soon"}}'])
def test_what_stage_two_left_in_pieces_counts_as_nothing(content, tmp_path):
    (tmp_path / "found.json").write_text(content)
    assert evidence._found(stage_of(tmp_path)) == (1, {})


def test_what_was_cut_is_done_in_the_time_that_is_left(tmp_path, staged):
    asked = []

    def stand_in(context, stage):
        asked.append((stage.name, stage.done))
        for name in {"first", "second"} - stage.done if stage.name == "speed" else ():
            if name == "first" or stage.done:
                stage.note(name, took=1.0)
        if stage.name == "speed" and not stage.done:
            stage.note("cut", left=["second"])
        return "done"

    staged(stand_in)
    for _ in range(2):  # a second session with the same folder begins anew
        asked.clear()
        assert session.run(session.Settings(15, tmp_path, "cpu", tiny=True), lambda line: None) == 0
        assert asked == [("correctness", frozenset()), ("speed", frozenset()), ("evidence", frozenset()), ("speed", frozenset({"first", "cut"}))]


def test_every_session_says_its_machine_in_each_file_and_is_judged_by_its_own_lines(tmp_path, staged):
    for name in session.MAIN:
        (tmp_path / f"{name}.jsonl").write_text('{"name": "old", "result": "fail"}\n{"name": "torn')
    staged(lambda context, stage: stage.note("new", result="pass") or "done")
    said = []
    assert session.run(session.Settings(1, tmp_path, "cpu", tiny=True), said.append) == 0
    assert "correctness: 1 pass" in said and not [line for line in said if "fail" in line]
    for name in session.MAIN:
        torn, begin, new = (tmp_path / f"{name}.jsonl").read_text().splitlines()[-3:]
        assert torn == '{"name": "torn' and json.loads(new)["name"] == "new"
        here = environment.environment("cpu", 0.0)
        assert json.loads(begin) == {"name": "session", "minutes": 1.0, **{k: here[k] for k in here if k not in ("wall_seconds", "precision")}}
    staged(lambda context, stage: stage.note("new", result="fail") or "done")
    assert session.run(session.Settings(1, tmp_path, "cpu", tiny=True), said.append) == 1


@pytest.mark.slow
def test_a_signal_ends_the_session_and_all_that_it_has_started(tmp_path):
    command = [sys.executable, "-m", "bisam.gpu", "--minutes", "10", "--out", str(tmp_path), "--device", "cpu", "--tiny"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}) as child:
        while not child.stdout.readline().startswith("[correctness]"):
            pass
        child.send_signal(signal.SIGTERM)
        rest = child.stdout.read()
    assert child.returncode == 128 + signal.SIGTERM and "bring home" in rest and "Traceback" not in rest
    begin, first, *_, last = lines(tmp_path / "correctness.jsonl")
    assert begin["name"] == "session" and first["result"] == "pass" and last["name"] == "cut" and first["name"] not in last["left"]


@pytest.mark.parametrize("words, said", [
    (["--minutes", "0"], "minutes must be greater than 0"), (["--minutes", "1", "--device", "tpu"], "device must be"),
])  # fmt: skip
def test_bad_arguments_end_with_a_line(words, said, tmp_path, capsys):
    assert session.main([*words, "--out", str(tmp_path / "new")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "new").exists()


# -- the folder ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path):
    """A few JPEGs in folders, two classes."""
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    for part, label, k in ((part, label, k) for part, n in (("train", 9), ("test", 4)) for label in "ab" for k in range(n)):
        path = tmp_path / "data" / "tiny" / part / label / f"{k}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (12, 12, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(path)
    return tmp_path / "data"


def test_a_packed_tree_is_the_same_task(tree, tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    _images.pack("folder:tiny", tree, there)
    one, other = (data.load("folder:tiny", root) for root in (tree, there))
    assert one.fingerprint == other.fingerprint and one.classes == other.classes
    assert (there / "tiny.decoded.npz").is_file()  # decoded once


@pytest.mark.parametrize("spoil", ["truncated", "sizes", "no archive"])
def test_a_broken_archive_is_named(spoil, tree, tmp_path):
    path = _images.pack("folder:tiny", tree, tmp_path)
    if spoil == "sizes":
        archive = _archive.read(path)
        archive.sizes[0] += 1
        import numpy

        numpy.savez(path, form=_archive.FORM, **archive._asdict())
    else:
        path.write_bytes(path.read_bytes()[:-2000] if spoil == "truncated" else b"no archive")
    with pytest.raises(data.DataError, match=r"tiny\.packed\.npz is truncated or corrupt"):
        data.load("folder:tiny", tmp_path)


def test_the_folder_holds_all_and_is_replaced_by_the_next(tree, tmp_path, monkeypatch):
    results = tmp_path / "results"
    (results / "runs" / "gpu_tiny").mkdir(parents=True)
    (results / "runs" / "gpu_tiny" / "done.json").write_text("{}")
    (results / "claims.toml").write_text(tiny.CLAIMS)
    (results / "published.csv").write_text("")
    monkeypatch.setattr(pack, "RESULTS", results)
    for _ in range(2):
        archive = pack.pack(tmp_path / "gpu", tree)
    with tarfile.open(archive) as packed:
        names = set(packed.getnames())
    assert {"gpu/run.py", "gpu/README.md", "gpu/bisam/COMMIT", "gpu/bisam/schema/record.json", "gpu/data/tiny.packed.npz"} <= names
    assert "gpu/results/runs/gpu_tiny/done.json" in names and not [name for name in names if "__pycache__" in name]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious.txt").write_text("mine")
    with pytest.raises(ValueError, match="folder must be empty"):
        pack.pack(tmp_path / "other", tree)
    assert (tmp_path / "other" / "precious.txt").read_text() == "mine"


def test_missing_images_are_said_by_the_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "claims.toml").write_text(tiny.CLAIMS)
    (tmp_path / "published.csv").write_text("")
    monkeypatch.setattr(pack, "RESULTS", tmp_path)
    assert pack.main(["--folder", str(tmp_path / "gpu"), "--root", str(tmp_path)]) == 1
    assert "data 'folder:tiny' is not there" in capsys.readouterr().err


@pytest.mark.parametrize("mode, said", [("whole-step", False), ("no", True)])
def test_a_folder_without_an_experiment_says_so(mode, said, tree, tmp_path, monkeypatch, capsys):
    (tmp_path / "claims.toml").write_text(tiny.CLAIMS.replace("whole-step", mode))
    (tmp_path / "published.csv").write_text("")
    monkeypatch.setattr(pack, "RESULTS", tmp_path)
    assert pack.main(["--folder", str(tmp_path / "gpu"), "--root", str(tree)]) == 0
    assert ("stage three will have nothing to do" in capsys.readouterr().out) == said


def test_a_packed_package_knows_its_commit(tmp_path, monkeypatch):
    (tmp_path / "COMMIT").write_text("0123456789ab+\n")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    assert environment.commit.__wrapped__() == "0123456789ab+"


# -- a bare machine ------------------------------------------------------------------------------------------------------------

BARE = f"""
import sys
for name in {LACKING}:
    sys.modules[name] = None
from pathlib import Path
from bisam.gpu import evidence, session, tiny
from bisam.gpu.lines import Stage
import bisam.gpu.correctness, bisam.gpu.speed
out = Path(sys.argv[1])
tiny.write(out)
evidence.main(Stage("evidence", out, root=str(out / "data"), tiny=True))
from bisam import Run, fit
fit(Run(data="folder:tiny", model="mlp", epochs=1, batch_size=20), root=out / "data", progress=True)
"""


def test_a_run_is_recorded_where_nothing_but_torch_is_there(tmp_path):
    words, there = [sys.executable, "-c", BARE, str(tmp_path)], {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.run(words, cwd=ROOT, env=there, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert len(list((tmp_path / "runs" / "gpu_tiny").glob("*.json"))) == 6
    assert "sam: epoch 1 of 1: loss" in child.stderr  # progress in lines
    for path in (tmp_path / "runs" / "gpu_tiny").glob("*.json"):
        ledger.read(path)  # the form is checked here


def test_without_the_library_forms_are_not_checked_and_nobody_says_they_are(staged, monkeypatch, tmp_path):
    assert _record.forms_are_checked() and list(_record.faults({})) != []
    monkeypatch.setattr(_record, "jsonschema", None)
    with pytest.raises(ledger.LedgerError, match="cannot be verified without the library jsonschema"):
        verify.verify()
    said = []
    staged(lambda context, stage: "done")
    session.run(session.Settings(1, tmp_path, "cpu", tiny=True), said.append)
    assert any("their form is checked at home" in line for line in said)


def test_a_run_of_the_queue_can_be_recorded_with_its_compile():
    assert Run(compile="whole-step").compile in _record.schema()["properties"]["run"]["properties"]["compile"]["enum"]


@pytest.mark.parametrize("name", ["bisam/gpu/x.py", ".git/config", "out/runs/r.json"])
def test_a_folder_with_anything_of_ones_own_is_not_replaced(name, tmp_path):
    """A checkout has a folder bisam/gpu too, and records lie in a packed folder after a session."""
    own = tmp_path / "gpu" / name
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    if name.startswith("out"):
        (tmp_path / "gpu" / pack.MARK).write_text("")
    with pytest.raises(ValueError, match=rf"folder must be empty, or one that was packed before and holds nothing else; .* holds {re.escape(name.split('/')[0])}"):
        pack.pack(tmp_path / "gpu", tmp_path)
    assert own.read_text() == "mine"
