"""The session on a GPU, tried on the CPU: its stages, its queue, the folder that is carried there, and what a bare machine lacks."""

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import os
import re
import shutil
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

import bisam
from bisam.evidence import ledger, places, plans, schema, verify
from bisam.evidence.places import RESULTS
from bisam.gpu import (
    claimed,
    correctness,
    deviations,
    evidence,
    home,
    pack,
    published,
    session,
    speed,
    tiny,
    trust,
    two_devices,
    whole_steps,
)
from bisam.gpu.lines import Item, Stage
from bisam.training import History, Run, checkpoint, data, environment, fit, graphs, models, weights_digest
from bisam.training.data import archive, folder
from bisam.training.run import PRECISIONS
from bisam.training.state import State

ROOT = Path(__file__).resolve().parents[2]
LACKING = ("rich", "scipy", "sklearn", "jsonschema", "matplotlib", "IPython")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def stage_of(folder, name="correctness", **more):
    return Stage(name, folder, quiet=True, tiny=True, **more)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """A network that takes no time, in place of that of the checks."""
    monkeypatch.setitem(models.MODELS, "resnet8", lambda shape, classes: nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, classes)))  # fmt: skip


# -- stage one -----------------------------------------------------------------------------------------------------------------


def chosen(folder, *words):
    return [check for check in correctness.checks(stage_of(folder)) if all(word in check.name for word in words)]


def test_a_tiny_session_makes_one_check_of_each_kind_and_all_that_stage_three_asks_about(tmp_path):
    names = {check.name for check in correctness.checks(stage_of(tmp_path))}
    assert set(correctness.FEW) <= names and {trust.EAGER, trust.SGD, *trust.OF_GRAPHS} <= set(correctness.FEW) and {*trust.RESUMED} <= names


def test_the_first_checks_tell_the_most_and_every_method_is_in_both_precisions(tmp_path):
    names = [check.name for check in correctness.checks(stage_of(tmp_path))]
    assert len(set(names)) == len(names)
    assert {f"step {name} {precision}" for name in bisam.RECIPES for precision in PRECISIONS} <= set(names)
    first = names[:26]
    assert {f"graph {name} bfloat16" for name in ("sgd", "sam", "bisam-log", "bisam-tanh")} <= set(first)  # what the claims ask of a GPU
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
    monkeypatch.setattr(graphs, "graph_of", lambda device: recording.Graph)
    monkeypatch.setattr("bisam._look.is_free", lambda tensor: False)
    assert correctness._answer(check)[0] == "fail"  # a CPU base reads its learning rate, which a graph would keep


def test_a_device_that_computes_otherwise_fails_its_check(tmp_path, monkeypatch):
    calls, after = [], two_devices._after

    def spoiled(name, device, precision):
        model = after(name, device, precision)
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
    correctness.main(Stage("correctness", tmp_path, quiet=True))
    assert [(line["name"], line["result"]) for line in lines(tmp_path / "correctness.jsonl")] == [("breaks", "error"), ("works", "pass")]


@pytest.mark.slow
def test_two_processes_share_a_batch(tmp_path, monkeypatch):
    """That two processes find the same bits is among the checks of the packed folder below."""
    monkeypatch.undo()  # the other processes have the network of the table
    [check] = chosen(tmp_path, "shared")
    assert correctness._answer(check)[0] == "pass"


# -- stage two -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo looks at it
def test_everything_that_is_timed_has_a_line_of_numbers(tmp_path):
    tiny.write(tmp_path)
    speed.main(stage_of(tmp_path, "speed"))
    found = {line.pop("name"): line for line in lines(tmp_path / "speed.jsonl")}
    assert list(found) == [item.name for item in speed.items(stage_of(tmp_path, "speed"))]
    assert "ascent K=10 compiled" in found and not [(name, line["error"]) for name, line in found.items() if "error" in line]
    assert all(number > 0 for line in found.values() for key, number in line.items() if key not in ("took", "graphs"))
    left = json.loads((tmp_path / "found.json").read_text())
    assert left["width"] in (1, 2) and left["graphs"] in (True, False)
    assert set(left["prices"]) == set(left["eager"]) == {"airbench-narrow, 20 a batch"} and min(left["prices"].values()) > 0
    assert evidence._found(stage_of(tmp_path)) == evidence._Found(**left)
    assert found["launches"]["sam no"] > 1.5 * found["launches"]["sgd no"]


def test_every_network_that_the_claims_ask_of_a_gpu_has_a_price_after_stage_two(tmp_path, monkeypatch):
    """With the list of what would be timed; a step takes no time here."""
    timed = []
    monkeypatch.setattr(whole_steps, "_images_a_second", lambda stage, width, run, graphs: timed.append(run) or (1000.0 if graphs else 400.0))
    (tmp_path / "claims.toml").write_bytes((RESULTS / "claims.toml").read_bytes())
    stage = Stage("speed", tmp_path, quiet=True)
    for item in speed.items(stage):
        if item.name.startswith(("side by side", "price")):
            item.run()
    found = evidence._found(stage)
    known = plans.experiments(tmp_path)
    asked = [run for name in claimed.for_gpus(tmp_path) for run in known[name].runs().values() if run.compile == "whole-step"]
    assert asked and {claimed.kind(run) for run in asked} == set(found.prices) == set(found.eager) and found.graphs and found.width == 1
    for run in asked:
        fields = "model", "batch_size", "augment", "precision", "channels_last", "momentum", "weight_decay"
        assert any(all(getattr(run, name) == getattr(one, name) for name in fields) for one in timed)
    assert {run.recipe.name for run in timed} == {"bisam-log"} and {run.label_noise for run in timed} == {0.0}
    queue = evidence.Queue(stage, [], evidence.Way(prices=found.prices))
    [one] = [one for one in plans.plan("gpu_airbench", folder=tmp_path) if one.file == "sgd-noise00-seed0"]
    queue.counts[one.run.data, one.run.train_images] = 45_000
    assert queue.seconds(one) == pytest.approx(40 * 45_000 / 1000 / 2)


def test_a_device_whose_graphs_fail_leaves_the_prices_of_the_eager_step(out, monkeypatch):
    def quick(stage, width, run, graphs):
        if graphs:
            raise RuntimeError("capture failed")
        return 100.0

    monkeypatch.setattr(whole_steps, "_images_a_second", quick)
    speed.main(stage_of(out, "speed", done=frozenset(item.name for item in speed.items(stage_of(out, "speed"))[1:])))
    assert "capture failed" in lines(out / "speed.jsonl")[0]["error"]
    assert evidence._found(stage_of(out)) == evidence._Found(1, False, {}, {"airbench-narrow, 20 a batch": 1 / 200})


def test_the_quickest_width_is_taken_and_no_graph_where_none_is_quicker(out, monkeypatch):
    def found(by_width):
        monkeypatch.setattr(whole_steps, "_images_a_second", lambda stage, width, run, graphs: by_width[width if graphs else 0])
        speed.items(Stage("speed", out, quiet=True))[0].run()
        return evidence._found(stage_of(out))

    kind = "airbench-narrow, 20 a batch"
    assert found({0: 100.0, 1: 200.0, 2: 390.0, 4: 700.0, 8: 710.0}) == evidence._Found(4, True, {kind: 4 / 700 / 2}, {kind: 1 / 200})
    assert not found({0: 300.0, 1: 200.0, 2: 250.0, 4: 260.0, 8: 260.0}).graphs


def test_the_next_session_on_such_a_device_begins_with_what_was_cut(out):
    stage = stage_of(out, "speed")
    every = [item.name for item in speed.items(stage)]
    needed, done, cut = every[:1], every[1:5], every[5:]
    stage.note("session", device="H")
    for name in [*needed, *done]:
        stage.note(name, **({"error": "lost"} if name == done[-1] else {}))
    for device, expected in (("H", needed + done[-1:] + cut + done[:-1]), ("A", every)):
        stage.note("session", device=device)
        speed.main(stage_of(out, "speed", end=0.0))
        assert lines(stage.path)[-1] == {"name": "cut", "left": expected}


def test_what_stage_three_asks_about_is_checked_first_in_every_session(tmp_path):
    stage = Stage("correctness", tmp_path, quiet=True)
    every = [check.name for check in correctness.checks(stage)]
    stage.note("session", device="H")
    for name in every[:40]:
        stage.note(name, result="pass")
    stage.note("session", device="H")
    found = [check.name for check in correctness._ordered(stage)]
    assert found[:26] == every[:26] and found[26:] == every[40:] + every[26:40]
    assert {trust.EAGER, trust.SGD, trust.SIDE_BY_SIDE, "resumed whole-step", *trust.RESUMED} <= set(found[:26])


def test_the_published_way_has_the_gradient_of_ours():
    logits = torch.randn(16, 10, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.arange(16) % 10
    slopes = [torch.autograd.grad(loss(logits, targets), logits)[0] for loss in (published.by_rows, published.at_once)]
    ours = bisam.RECIPES["bisam-log"].ascent.gradient(logits, targets)
    assert all(torch.allclose(slope, ours, atol=1e-7) for slope in slopes)


# -- stage three ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def out(tmp_path):
    tiny.write(tmp_path)
    return tmp_path


def passed(out, *without, **results):
    """Stage one has been here, and all that stage three asks about is right, but for these."""
    names = [trust.EAGER, trust.SGD, trust.SIDE_BY_SIDE, "graph bisam-log bfloat16", "resumed whole-step"]
    answers = {**dict.fromkeys(names, "pass"), **results}
    for name in answers.keys() - set(without):
        stage_of(out).note(name, result=answers[name])


def evidence_stage(out, end=math.inf):
    if not (out / "correctness.jsonl").exists():
        passed(out)
    return stage_of(out, "evidence", root=str(out / "data"), end=end)


def test_the_queue_records_every_run_with_the_bits_of_a_run_alone_in_a_ledger_that_is_sound_at_home(out, tmp_path_factory, monkeypatch):
    passed(out)
    (out / "found.json").write_text('{"width": 3, "graphs": true, "prices": {"airbench-narrow, 20 a batch": 0.01}, "eager": {}}')
    keep_only(monkeypatch, *plans.plan("gpu_tiny", folder=out)[:4])  # one more than stand side by side
    evidence.main(evidence_stage(out))
    assert lines(out / "evidence.jsonl")[0] == {"name": "queue", "runs": 4, "width": 3, "graphs": True, "reasons": []}
    planned = plans.plan("gpu_tiny", folder=out)[:4]
    assert len(planned) == 4 and all(one.recorded for one in planned)
    for one in planned[1:]:
        record = ledger.read(out / "runs" / "gpu_tiny" / f"{one.file}.json")
        alone = fit(one.run, root=str(out / "data"))
        assert record["weights_digest"] == weights_digest(alone.model)
    assert not list((out / "checkpoints").rglob("*.pt"))
    evidence.main(evidence_stage(out))
    assert lines(out / "evidence.jsonl")[-2]["runs"] == 0
    home = tmp_path_factory.mktemp("home")
    (home / "claims.toml").write_text(tiny.CLAIMS)
    (out / "runs").rename(home / "runs")
    assert verify.verify(home).faults == []


def records_of(out):
    return sorted(path.stem for path in out.glob("runs/gpu_tiny/*.json"))


def queue_line(out):
    return [line for line in lines(out / "evidence.jsonl") if line["name"] == "queue"][-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["graph sam float32", "graph vasso bfloat16", *trust.OF_GRAPHS])
@pytest.mark.parametrize("result", ["fail", "error"])
def test_after_a_wrong_answer_about_graphs_runs_are_made_without_one_at_a_time(name, result, out, monkeypatch):
    passed(out, **{name: result})
    (out / "found.json").write_text('{"width": 3, "graphs": true, "prices": {}, "eager": {"airbench-narrow, 20 a batch": 1e-6}}')
    monkeypatch.setattr(graphs, "graph_of", lambda device: pytest.fail("a graph was asked for"))
    one = plans.plan("gpu_tiny", folder=out)[0]
    keep_only(monkeypatch, one)
    evidence.main(evidence_stage(out))
    found = queue_line(out)
    assert (found["graphs"], found["width"]) == (False, 1) and f"without graphs: {name}" in found["reasons"]
    assert records_of(out) == [one.file]


def keep_only(monkeypatch, *wanted):
    planned = evidence._planned
    files = {one.file for one in wanted}
    monkeypatch.setattr(evidence, "_planned", lambda *arguments: [one for one in planned(*arguments) if one.file in files])


def test_what_no_check_has_proven_is_not_used(out):
    passed(out, "graph bisam-log bfloat16", "side by side")
    found = trust.trust(out)
    assert (found.refusal, found.graphs, found.side_by_side) == ("", False, False)
    assert found.reasons == ("without graphs: no check of a graph has passed", "one at a time: side by side")
    stage_of(out).note("graph sam float32", result="pass")
    assert trust.trust(out).graphs and not trust.trust(out).side_by_side
    (out / "found.json").write_text('{"width": 3, "graphs": true, "prices": {"a": 1}, "eager": {"a": 2}}')
    alone = evidence._way(evidence_stage(out), trust.trust(out), [])
    assert (alone.graphs, alone.width, alone.prices) == (True, 1, {"a": 1})
    without = evidence._way(evidence_stage(out), dataclasses.replace(trust.trust(out), graphs=False), [])
    assert (without.graphs, without.width, without.prices) == (False, 1, {"a": 2})


@pytest.mark.parametrize("name", [trust.EAGER, trust.SGD])
@pytest.mark.parametrize("result", ["fail", "error"])
def test_nothing_is_recorded_where_the_step_itself_is_wrong(name, result, out):
    passed(out, **{name: result})
    evidence.main(evidence_stage(out))
    _, refused, *_, end = lines(out / "evidence.jsonl")
    assert (refused["result"], refused["reason"]) == ("refused", f"found wrong: {name}") and end["name"] == "end"
    assert records_of(out) == [] and not (out / "checkpoints").exists()


def test_a_check_of_an_earlier_session_counts_for_nothing(out):
    passed(out)
    stage_of(out).note("session")
    assert trust.trust(out).refusal == f"not checked: {trust.EAGER}"


@pytest.mark.parametrize("result", ["pass", "fail"])
def test_stage_three_asks_the_check_that_it_cannot_do_without(result, out, monkeypatch):
    """Stage one broke off before: then one check is made up, and what it says counts."""
    passed(out, trust.EAGER)
    wrong = [] if result == "pass" else [deviations.Wrong(0.5, "0.5 of the way")]
    monkeypatch.setattr(correctness.trainings, "against_no", lambda stage, graphs: 1 / 0 if graphs else raised(*wrong))
    keep_only(monkeypatch, plans.plan("gpu_tiny", folder=out)[0])
    evidence.main(evidence_stage(out))
    assert [line["result"] for line in lines(out / "correctness.jsonl") if line["name"] == trust.EAGER] == [result]
    assert len(records_of(out)) == (result == "pass")


def raised(*errors):
    for error in errors:
        raise error
    return 0.0


def test_a_method_whose_step_is_another_on_the_device_is_left_out(out, monkeypatch):
    passed(out, **{"step sam float32": "fail", "step bisam-log bfloat16": "fail"})
    keep_only(monkeypatch, *plans.plan("gpu_tiny", folder=out)[:3])  # one of each method
    evidence.main(evidence_stage(out))
    assert {name.rpartition("-seed")[0].removesuffix("-noise40") for name in records_of(out)} == {"sgd", "bisam-log"}
    assert queue_line(out)["reasons"] == ["left out: step sam float32", "in spite of: step bisam-log bfloat16"]


def test_without_a_sound_way_to_resume_no_checkpoint_is_read_or_written(out, monkeypatch):
    passed(out, **{"resumed no": "fail"})
    one = plans.plan("gpu_tiny", folder=out)[0]
    keep_only(monkeypatch, one)
    path = out / "checkpoints" / "gpu_tiny" / f"{one.file}.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no checkpoint")
    evidence.main(evidence_stage(out))
    assert records_of(out) == [one.file] and path.read_bytes() == b"no checkpoint"


class Failing:
    """A graph that cannot be captured."""

    def __init__(self, step, stream, generators=()):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")


def test_a_graph_that_fails_in_stage_three_ends_it_and_the_next_round_goes_on_without(out, monkeypatch):
    monkeypatch.setattr(graphs, "graph_of", lambda device: Failing)
    keep_only(monkeypatch, *plans.plan("gpu_tiny", folder=out)[:2])
    with pytest.raises(RuntimeError, match=r"a graph failed in gpu_tiny/.*without graphs"):
        evidence.main(evidence_stage(out))
    assert records_of(out) == [] and queue_line(out)["graphs"] and lines(out / "evidence.jsonl")[-1]["result"] == "failed"
    evidence.main(evidence_stage(out))
    assert len(records_of(out)) == 2 and not queue_line(out)["graphs"]
    assert "without graphs: this stage has broken off with them" in queue_line(out)["reasons"]
    stage_of(out, "evidence").note("session")  # another session, perhaps another machine: graphs again
    with monkeypatch.context() as patch:
        patch.setattr(evidence, "in_turns", lambda *_, **__: iter(()))
        evidence.main(evidence_stage(out))
    assert queue_line(out)["graphs"]


@pytest.mark.parametrize("error", [FloatingPointError("inf"), data.DataError("gone"), checkpoint.CheckpointError("torn"), OSError("full")], ids=repr)
def test_a_run_that_fails_by_itself_does_not_cost_the_others_their_graphs(error, out, monkeypatch):
    monkeypatch.setattr(graphs, "graph_of", lambda device: Failing)
    assert not evidence._is_of_a_graph(error, "cpu")
    assert evidence._is_of_a_graph(torch.OutOfMemoryError("full"), "cpu")
    monkeypatch.setattr(graphs, "graph_of", lambda device: None)
    assert not evidence._is_of_a_graph(RuntimeError("the machine is gone"), "cpu")


def test_what_is_found_wrong_after_the_records_were_made_is_said_at_the_end(out, staged):
    said = []

    def stand_in(context, stage):
        if stage.name == "evidence":
            passed(out)
            stage.note("queue", runs=6, width=1, graphs=True, reasons=[])
            stage_of(out).note("graph vasso bfloat16", result="fail")
        return "done"

    staged(stand_in)
    session.run(session.Settings(1, out, "cpu", tiny=True), said.append)
    words = "before its records are pooled, look at what was found after they were made: without graphs: graph vasso bfloat16"
    assert [line for line in said if line.startswith("before")] == [words]


def test_a_check_that_loses_the_device_has_its_line_before_the_stage_ends(tmp_path, monkeypatch):
    class Lost(RuntimeError):
        pass

    monkeypatch.setattr(torch, "AcceleratorError", Lost, raising=False)
    monkeypatch.setattr(correctness, "checks", lambda stage: [Item("graph sam float32", lambda: raised(Lost("illegal address")))])
    with pytest.raises(Lost):
        correctness.main(Stage("correctness", tmp_path, quiet=True))
    assert lines(tmp_path / "correctness.jsonl")[0]["result"] == "error" and not trust.trust(tmp_path).graphs


def test_a_run_that_was_cut_goes_on_from_its_checkpoint(out, monkeypatch):
    steps = State.steps

    def second_epoch_fails(self):
        if len(self.history.rows) == 1:
            raise RuntimeError("the machine is gone")
        yield from steps(self)

    keep_only(monkeypatch, *plans.plan("gpu_tiny", folder=out)[:2])
    monkeypatch.setattr(evidence, "EVERY", 0.0)  # these epochs take no time
    with monkeypatch.context() as patch:
        patch.setattr(State, "steps", second_epoch_fails)
        evidence.main(evidence_stage(out))
    assert len(list((out / "checkpoints").rglob("*.pt"))) == 2 and not (out / "runs").exists()
    assert {line["reason"] for line in lines(out / "evidence.jsonl") if "/" in line["name"]} == {"RuntimeError: the machine is gone"}
    evidence.main(evidence_stage(out))
    one = plans.plan("gpu_tiny", folder=out)[0]
    record = ledger.read(out / "runs" / "gpu_tiny" / f"{one.file}.json")
    assert record["weights_digest"] == weights_digest(fit(one.run, root=str(out / "data")).model)


@pytest.fixture
def queue_of(out, monkeypatch):
    """A queue with so many seconds left, at a price of a pass."""

    def made(seconds, price):
        monkeypatch.setattr(Stage, "left", seconds + evidence.BEFORE)
        way = evidence.Way(prices={"airbench-narrow, 20 a batch": price / 108})  # images
        return evidence.Queue(evidence_stage(out), plans.plan("gpu_tiny", folder=out), way)

    return made


def test_what_cannot_end_in_time_begins_only_if_an_epoch_of_it_can(out, queue_of):
    names = [one.run.recipe.name for one in plans.plan("gpu_tiny", folder=out)]
    assert names == ["sgd", "sam", "bisam-log"] * 2
    job = queue_of(seconds=1000, price=10.0).next()  # 4 passes, 60 seconds at the most
    assert job.run.recipe.name == "sgd" and job.path.parent == out / "checkpoints" / "gpu_tiny"
    assert queue_of(seconds=1000, price=400.0).next().run.recipe.name == "sgd"  # an epoch is 600 seconds
    assert queue_of(seconds=1000, price=1000.0).next() is None
    assert queue_of(seconds=-1, price=0.0).next() is None


def test_what_is_left_is_said_in_sessions_at_the_measured_rate(out, queue_of):
    queue = queue_of(seconds=1000, price=10.0)
    queue.way = evidence.Way(width=2, prices=queue.way.prices)
    total = sum(one.passes for one in queue.all)
    assert total == 6 * 4
    assert dict(queue.still_to_do(100.0)) == {"gpu_tiny": {"runs": 6, "passes": 24, "hours": pytest.approx(120 / 3600), "sessions": 2}}
    jobs = [queue.next() for _ in range(3)]
    for job, rows, seconds in zip(jobs, (4, 1, 0), (16.0, 8.0, 0.0), strict=True):  # SGD has four epochs: twice as many
        queue.done(job, History(job.run, [{}] * rows, seconds=seconds))
    assert queue.way.prices["airbench-narrow, 20 a batch"] == pytest.approx(8 / 2 / 108)  # of the last that was begun here
    [(_, found)] = queue.still_to_do(100.0)
    assert (found["runs"], found["passes"]) == (5, 18) and found["hours"] == pytest.approx(18 * 4 / 2 / 3600)
    queue.way.prices.clear()
    assert dict(queue.still_to_do(1.0)) == {"gpu_tiny": {"runs": 5, "passes": 18}}


def test_the_price_of_a_run_that_went_on_from_another_machine_is_not_taken(out, queue_of):
    queue = queue_of(seconds=1000, price=10.0)
    queue._checkpoint(queue.waiting[0]).write_bytes(b"")
    job = queue.next()
    queue.done(job, History(job.run, [{}] * 4, seconds=1.0))
    assert queue.way.prices["airbench-narrow, 20 a batch"] == 10.0 / 108 and len(dict(queue.still_to_do(1.0))["gpu_tiny"]) == 4


def test_the_session_ends_with_what_is_still_to_do(out, staged):
    said = []

    def stand_in(context, stage):
        if stage.name == "evidence":
            stage.note("still to do: gpu_one", runs=97, passes=3500, hours=2.25, sessions=13)
            stage.note("still to do: gpu_two", runs=60, passes=24000)
        return "done"

    staged(stand_in)
    session.run(session.Settings(1, out, "cpu", tiny=True), said.append)
    assert "still to do: gpu_one, 97 runs, 3500 passes over its images: about 2.2 hours of this machine, 13 sessions like this one" in said
    assert "still to do: gpu_two, 60 runs, 24000 passes over its images: not timed here" in said


def test_a_run_is_taken_that_fits_where_the_first_does_not(queue_of):
    queue = queue_of(seconds=1000, price=10.0)
    queue.waiting[0] = plans.Planned("gpu_tiny", "long", queue.waiting[0].run.replace(epochs=1000), False)
    assert queue.next().run.recipe.name == "sam" and queue.waiting[0].file == "long"


def test_experiments_whose_runs_are_not_captured_or_whose_data_is_missing_are_said(out):
    text = (out / "claims.toml").read_text()
    plain = text.replace("gpu_tiny", "gpu_plain").replace('"whole-step"', '"no"')
    more = plain + plain.replace("gpu_plain", "gpu_plain_too") + text.replace("gpu_tiny", "gpu_lost").replace("folder:tiny", "folder:lost")
    (out / "claims.toml").write_text(text + more)
    evidence.main(evidence_stage(out, end=0.0))
    more = [line for line in lines(out / "evidence.jsonl") if line["name"] == "left out"]
    assert len(more) == 1  # a line, however many there are
    assert "compile 'no'" in more[0]["gpu_plain (6 runs), gpu_plain_too (6 runs)"] and "folder:lost" in more[0]["gpu_lost (6 runs)"]
    assert "gpu_tiny" not in str(more)


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


@pytest.mark.parametrize("breaks, rounds", [(1, 2), (9, 3)])
def test_a_last_stage_that_breaks_is_begun_again_as_long_as_that_can_help(breaks, rounds, tmp_path, staged):
    said, begun = [], []
    staged(lambda context, stage: begun.append(stage.name) or ("broken off, exit status 1" if 0 < begun.count("evidence") <= breaks else "done"))
    assert session.run(session.Settings(15, tmp_path, "cpu", tiny=True), said.append) == 1
    assert begun == ["correctness", "speed"] + ["evidence"] * rounds
    assert said.count("stage evidence, round 2: done") == (rounds == 2)


def test_each_stage_has_its_share_of_the_time(tmp_path, staged):
    ends, began = {}, 1e9  # far from now
    staged(lambda context, stage: ends.update({stage.name: stage.end}) or "done")
    session.run(session.Settings(15, tmp_path, "cpu", tiny=True), lambda line: None, began)
    assert {name: end - began for name, end in ends.items()} == {"correctness": 120, "speed": 240, "evidence": 900 - session.SUMMARY}


@pytest.mark.parametrize("content", ["", "{}", '{"prices": 3}', '{"width": 2, "prices": {"mlp": "soon"}}'])
def test_what_stage_two_left_in_pieces_counts_as_nothing(content, tmp_path):
    (tmp_path / "found.json").write_text(content)
    assert evidence._found(stage_of(tmp_path)) == evidence._Found()


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
    folder.pack("folder:tiny", tree, there)
    one, other = (data.load("folder:tiny", root) for root in (tree, there))
    assert one.fingerprint == other.fingerprint and one.classes == other.classes
    assert (there / "tiny.decoded.npz").is_file()  # decoded once


@pytest.mark.parametrize("spoil", ["truncated", "sizes", "no archive"])
def test_a_broken_archive_is_named(spoil, tree, tmp_path):
    path = folder.pack("folder:tiny", tree, tmp_path)
    if spoil == "sizes":
        found = archive.read(path)
        found.sizes[0] += 1
        import numpy

        numpy.savez(path, form=archive.FORM, **found._asdict())
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
    assert {"gpu/run.py", "gpu/README.md", "gpu/bisam/COMMIT", "gpu/bisam/evidence/schema/record.json", "gpu/data/tiny.packed.npz"} <= names
    assert "gpu/results/runs" not in names and (tmp_path / "gpu" / "results" / "recorded.txt").read_text() == "gpu_tiny/done\n"
    assert not [name for name in names if "__pycache__" in name]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious.txt").write_text("mine")
    with pytest.raises(ValueError, match="folder must be empty"):
        pack.pack(tmp_path / "other", tree)
    assert (tmp_path / "other" / "precious.txt").read_text() == "mine"


def test_a_folder_that_is_too_large_is_refused_with_what_makes_it_so(tree, tmp_path, monkeypatch, capsys):
    (tmp_path / "claims.toml").write_text(tiny.CLAIMS)
    (tmp_path / "published.csv").write_text("a" * 3_000_000)
    monkeypatch.setattr(pack, "RESULTS", tmp_path)
    monkeypatch.setattr(pack, "MOST", 3e6)
    assert pack.main(["--folder", str(tmp_path / "gpu"), "--root", str(tree)]) == 1
    said = capsys.readouterr().err
    assert re.search(r"the packed folder must have at most 3 MB.*; got [34]\.\d MB: results/published.csv 3.0 MB, ", said), said
    assert not (tmp_path / "gpu").exists() and not (tmp_path / "gpu.tar.gz").exists()
    monkeypatch.setattr(pack, "MOST", 6e6)
    assert pack.main(["--folder", str(tmp_path / "gpu"), "--root", str(tree)]) == 0


def test_runs_whose_names_were_packed_are_not_run_again(out, monkeypatch):
    monkeypatch.setattr(evidence, "RECORDED", out / "recorded.txt")
    files = [one.file for one in plans.plan("gpu_tiny", folder=out)]
    (out / "recorded.txt").write_text("".join(f"gpu_tiny/{file}\n" for file in files[:4]) + f"other/{files[5]}\n")
    assert [one.file for one in evidence._planned(evidence_stage(out), frozenset())] == files[4:]


def test_the_book_and_the_folder_give_the_same_commands():
    words = re.compile(r"python run\.py[\w \-]+")
    book = {each.strip() for each in words.findall((ROOT / "book" / "gpu.md").read_text())}
    assert book == {each.strip() for each in words.findall(pack.README)} and len(book) == 2


def test_missing_images_are_said_by_the_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "claims.toml").write_text(tiny.CLAIMS)
    (tmp_path / "published.csv").write_text("")
    monkeypatch.setattr(pack, "RESULTS", tmp_path)
    assert pack.main(["--folder", str(tmp_path / "gpu"), "--root", str(tmp_path)]) == 1
    assert "data 'folder:tiny' is not there" in capsys.readouterr().err and not (tmp_path / "gpu").exists()


@pytest.mark.parametrize("mode, said", [("whole-step", False), ("no", True)])
def test_a_folder_without_an_experiment_says_so(mode, said, tree, tmp_path, monkeypatch, capsys):
    (tmp_path / "claims.toml").write_text(tiny.CLAIMS.replace("whole-step", mode))
    (tmp_path / "published.csv").write_text("")
    monkeypatch.setattr(pack, "RESULTS", tmp_path)
    assert pack.main(["--folder", str(tmp_path / "gpu"), "--root", str(tree)]) == 0
    assert ("stage three will have nothing to do" in capsys.readouterr().out) == said


def test_a_packed_package_knows_its_commit(tmp_path, monkeypatch):
    (tmp_path / "COMMIT").write_text("0123456789ab+\n")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "training" / "environment.py"))
    assert environment.commit.__wrapped__() == "0123456789ab+"


# -- the command of the checkout -------------------------------------------------------------------------------------------------


def made(folder, *words):
    shutil.copyfile(ROOT / "Makefile", folder / "Makefile")
    return subprocess.run(["make", "gpu", f"PYTHON={sys.executable}", *words], cwd=folder, capture_output=True, text=True)


def test_make_gpu_installs_nothing_and_takes_the_environment_that_is_there(tmp_path):
    bare = made(tmp_path, "-n", "MINUTES=7", "OUT=there")
    assert bare.returncode == 0 and "install.py" not in bare.stdout
    assert f"{sys.executable} -m bisam.gpu --minutes 7 --out there" in bare.stdout
    (tmp_path / ".venv").mkdir()
    assert f"{sys.executable} -m bisam.gpu" in made(tmp_path, "-n").stdout  # half made, without its stamp
    (tmp_path / ".venv" / "stamp").write_text("")
    assert ".venv/bin/python -m bisam.gpu --minutes 15" in made(tmp_path, "-n").stdout


@pytest.mark.parametrize("python, lacking", [(f"{sys.executable} -I -S", "lacks torch torchvision numpy"), ("no-such-python", "does not run")])
def test_make_gpu_says_what_a_python_lacks(python, lacking, tmp_path):
    found = made(tmp_path, f"PYTHON={python}")
    assert found.returncode == 2 and lacking in found.stderr and "make install" in found.stderr and "Traceback" not in found.stderr


@pytest.mark.slow
def test_make_gpu_runs_where_torch_is_there(tmp_path):
    (tmp_path / "bisam").symlink_to(ROOT / "bisam")
    found = made(tmp_path, "MINUTES=0", "ARGS=--device cpu")
    assert "minutes must be greater than 0" in found.stderr and not (tmp_path / "_build").exists()


# -- a bare machine ------------------------------------------------------------------------------------------------------------

BLOCK = """
import sys
from importlib.machinery import PathFinder

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {lacking!r} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
"""


def needed_by(*names):
    """These distributions and all that they depend on."""
    found, waiting = set(), list(names)
    while waiting:
        name = re.split(r"[^\w.-]", waiting.pop())[0].lower().replace("_", "-")
        if name in found:
            continue
        found.add(name)
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            waiting += [one for one in importlib.metadata.requires(name) or () if "extra ==" not in one]
    return found


def without_all_but(folder, *names):
    """A folder for PYTHONPATH, with which every process has these distributions and what they need, and no other."""
    there, owners = needed_by(*names), importlib.metadata.packages_distributions()
    others = [module for module, of in owners.items() if not there & {one.lower().replace("_", "-") for one in of}]
    lacking = {module for module in others if module != "bisam" and module not in sys.stdlib_module_names}
    assert set(LACKING) <= lacking and not {"torch", "torchvision", "numpy", "PIL", "sympy"} & lacking
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCK.format(lacking=lacking))
    return folder


@pytest.mark.slow
def test_the_packed_folder_runs_all_stages_to_the_end_on_a_bare_machine(tree, tmp_path, monkeypatch):
    (tmp_path / "claims.toml").write_text(tiny.CLAIMS)
    (tmp_path / "published.csv").write_text("")
    monkeypatch.setattr(pack, "RESULTS", tmp_path)
    pack.pack(tmp_path / "gpu", tree)
    here = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    here |= {"PYTHONPATH": str(without_all_but(tmp_path / "bare", "torch", "torchvision", "numpy")), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "run.py", "--minutes", "60", "--out", "out", "--device", "cpu", "--tiny"]  # it ends when it is done
    child = subprocess.run(words, cwd=tmp_path / "gpu", env=here, capture_output=True, text=True)
    assert child.returncode == 0, child.stdout + child.stderr
    out = tmp_path / "gpu" / "out"
    said = child.stdout.splitlines()
    assert [line for line in said if line.startswith("stage ")] == [f"stage {name}: done" for name in session.MAIN]
    assert any("jsonschema is not here" in line for line in said) and "Traceback" not in child.stderr
    found = {name: lines(out / f"{name}.jsonl") for name in session.MAIN}
    assert all(part[0]["name"] == "session" for part in found.values())
    assert [line["result"] for line in found["correctness"][1:]] == ["pass"] * len(correctness.FEW)
    assert "ascent K=10 compiled" in {line["name"] for line in found["speed"]} and not [line for line in found["speed"] if "error" in line]
    assert [line.get("result") for line in found["evidence"][2:-1]] == ["recorded"] * 6 and found["evidence"][-1]["left"] == 0
    there = {path.relative_to(out).parts[0] for path in out.rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert there == {"claims.toml", "correctness.jsonl", "data", "evidence.jsonl", "found.json", "home.tar.gz", "runs", "session.json", "speed.jsonl"}
    records = [ledger.read(path) for path in (out / "runs" / "gpu_tiny").glob("*.json")]  # their form is checked here
    assert len(records) == 6 and {record["environment"]["commit"] for record in records} == {environment.commit()}
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "claims.toml").write_text(tiny.CLAIMS)
    (out / "runs").rename(tmp_path / "home" / "runs")
    assert verify.verify(tmp_path / "home").faults == []


def test_without_the_library_forms_are_not_checked_and_nobody_says_they_are(staged, monkeypatch, tmp_path):
    assert schema.forms_are_checked() and list(schema.faults({})) != []
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(places.LedgerError, match="cannot be verified without the library jsonschema"):
        verify.verify()
    said = []
    staged(lambda context, stage: "done")
    session.run(session.Settings(1, tmp_path, "cpu", tiny=True), said.append)
    assert any("their form is checked at home" in line for line in said)


def test_a_run_of_the_queue_can_be_recorded_with_its_compile():
    assert Run(compile="whole-step").compile in schema.schema()["properties"]["run"]["properties"]["compile"]["enum"]


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


def test_what_is_brought_home_is_small_and_holds_every_record(tmp_path):
    for name in ("runs/a/sam-seed0.json", "speed.jsonl", "claims.toml", "checkpoints/a/sam-seed1.pt", "data/a.npz", "speed.jsonl.lock", home.NAME):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    with tarfile.open(home.pack(tmp_path)) as archive:
        assert archive.getnames() == ["out/claims.toml", "out/runs/a/sam-seed0.json", "out/speed.jsonl"]
        assert archive.extractfile("out/runs/a/sam-seed0.json").read() == b"runs/a/sam-seed0.json"
