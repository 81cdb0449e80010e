"""The benchmark's arithmetic and words; nothing here is timed."""

import json
import math
from pathlib import Path

import ascent
import bench
import kernels
import memory
import methods
import models
import perturb
import pytest
import step
import torch
from harness import MOST_RUNS, WARM_UP, Candidate, Case, Settings, Timer, measure, sample, timed, write
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
ONCE = Settings(rounds=1, sample_seconds=0.0, quick=True)


class FakeClock:
    """Time passes only when it is told to."""

    def __init__(self):
        self.time = 0.0

    def timer(self, wait=lambda: None):
        return Timer(now=lambda: self.time, wait=wait)

    def spends(self, seconds):
        def run():
            self.time += seconds

        return run


def tiny():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, models.CLASSES))


NETS = {"tiny": models.Net("tiny", tiny, (3, 2, 2), batch=4)}


# -- arithmetic ------------------------------------------------------------------------------------------------------


def test_ratios_are_formed_in_the_round_and_not_from_the_medians():
    numbers = timed([2.0, 30.0, 8.0], reference=[1.0, 10.0, 8.0])
    assert numbers == {"seconds": 8.0, "ratio": 2.0, "quartiles": [1.5, 2.5]}


def test_one_round_has_no_spread():
    assert timed([3.0], [2.0]) == {"seconds": 3.0, "ratio": 1.5, "quartiles": [1.5, 1.5]}


def test_a_slow_round_cancels():
    clock, order = FakeClock(), []

    def works(name, seconds):
        def run():
            order.append(name)
            clock.time += seconds * (100 if len(order) > 20 else 1)

        return run

    case = Case("g", "n", "u", [Candidate("one", works("one", 1.0)), Candidate("three", works("three", 3.0))])
    found = measure(case, Settings(rounds=40, sample_seconds=0.0), clock.timer())["candidates"]["three"]
    assert found["ratio"] == pytest.approx(3) and found["seconds"] == pytest.approx(300)


def test_every_round_has_every_candidate_and_the_order_changes_in_the_same_way_each_time():
    def orders():
        clock, seen = FakeClock(), []
        found = [Candidate(name, lambda name=name: seen.append(name)) for name in "abcd"]
        # Nothing passes while a candidate runs: the clock moves when it is waited for.
        timer = Timer(now=lambda: clock.time, wait=clock.spends(1.0))
        measure(Case("g", "n", "u", found), Settings(rounds=6, sample_seconds=0.0), timer)
        rounds = seen[4 * (WARM_UP + 1):]
        return [tuple(rounds[k:k + 4]) for k in range(0, len(rounds), 4)]

    one, other = orders(), orders()
    assert len(one) == 6 and all(sorted(order) == list("abcd") for order in one)
    assert len(set(one)) > 1 and one == other


def test_a_sample_lasts_long_enough_and_holds_whole_periods():
    clock = FakeClock()
    case = Case("g", "n", "u", [
        Candidate("short", clock.spends(1.0)), Candidate("long", clock.spends(70.0)),
        Candidate("periodic", clock.spends(1.0), period=7),
    ])
    found = measure(case, Settings(rounds=2, sample_seconds=50.0), clock.timer())["candidates"]
    runs = {name: numbers["runs_per_sample"] for name, numbers in found.items()}
    assert 50 <= runs["short"] <= 120 and runs["long"] == 1 and runs["periodic"] >= 50 and runs["periodic"] % 7 == 0
    assert found["periodic"]["ratio"] == pytest.approx(1) and found["long"]["ratio"] == pytest.approx(70)


def test_a_run_that_takes_no_time_at_all_ends_the_search():
    clock = FakeClock()
    case = Case("g", "n", "u", [Candidate("one", clock.spends(1.0)), Candidate("nothing", lambda: None)])
    found = measure(case, Settings(rounds=1, sample_seconds=1.0), clock.timer())["candidates"]["nothing"]
    assert found == {"seconds": 0.0, "ratio": 0.0, "quartiles": [0.0, 0.0], "runs_per_sample": MOST_RUNS}


def test_what_comes_before_is_not_timed_and_the_device_is_waited_for():
    clock, waits = FakeClock(), []
    candidate = Candidate("c", clock.spends(2.0), before=clock.spends(100.0))
    assert sample(candidate, 3, clock.timer(lambda: waits.append(clock.time))) == 2.0
    assert waits == [100.0, 102.0, 202.0, 204.0, 304.0, 306.0]


def test_an_optional_candidate_that_fails_is_left_out_with_its_reason_and_another_is_an_error():
    def fails():
        raise RuntimeError("no luck\nand a long trace")

    clock = FakeClock()
    fine, broken = Candidate("fine", clock.spends(1.0)), Candidate("broken", fails, optional=True)
    found = measure(Case("g", "n", "u", [fine, broken], {"absent": "not here"}), ONCE, clock.timer())
    assert list(found["candidates"]) == ["fine"]
    assert found["skipped"] == {"absent": "not here", "broken": "failed with RuntimeError: no luck"}
    with pytest.raises(RuntimeError, match="no luck"):
        measure(Case("g", "n", "u", [fine, Candidate("broken", fails)]), ONCE, clock.timer())


def test_counts_have_a_ratio_and_a_difference():
    case = Case("g", "n", "u", [Candidate("two", lambda: 2), Candidate("five", lambda: 5)], counts=True)
    found = measure(case, ONCE, FakeClock().timer())
    assert found["kind"] == "count" and found["candidates"]["five"] == {"value": 5, "ratio": 2.5, "more": 3}


def test_a_file_is_replaced_at_once_and_a_failed_write_leaves_it(tmp_path):
    path = tmp_path / "numbers.json"
    write(path, {"a": 1})
    with pytest.raises(TypeError):
        write(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1} and [p.name for p in tmp_path.iterdir()] == ["numbers.json"]


# -- candidates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phi, loss", [(ascent.neg_log, ascent.LOG), (ascent.tanh, ascent.TANH)], ids=["-log", "tanh"])
def test_all_forms_of_one_bound_have_one_gradient(phi, loss):
    def gradient(form, way=ascent.End.through):
        torch.manual_seed(1)
        end = ascent.End(torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 0]))
        for _ in range(2):  # the end of the graph may be gone through again
            way(end, form)()
        return end.below.grad

    expected = gradient(ascent.plain(phi, loss.mu))
    torch.testing.assert_close(gradient(ascent.by_rows(phi, loss.mu)), expected)
    torch.testing.assert_close(gradient(loss), expected)
    if hasattr(loss, "gradient"):
        torch.testing.assert_close(gradient(loss.gradient, ascent.End.straight), expected)


def test_the_networks_have_the_sizes_that_the_readme_names():
    assert models.size(models.resnet20())["parameters"] == 269_722
    assert models.size(models.mlp()) == {"parameters": 14_706_698, "tensors": 8}
    assert models.vgg()(torch.zeros(2, 3, 32, 32)).shape == (2, models.CLASSES)


def test_the_floor_makes_two_passes_and_the_recipes_train_from_the_same_place():
    model, x, y = NETS["tiny"].on("cpu", seed=0)
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    methods.two_passes(model, x, y)()
    assert len(passes) == 2
    other, _, _ = NETS["tiny"].on("cpu", seed=0)
    methods.ours("sam")(other, x, y)()
    torch.testing.assert_close(list(other.parameters()), list(model.parameters()), rtol=0, atol=1e-4)


def test_a_full_run_times_every_recipe_and_whole_periods_of_one_that_climbs_now_and_then():
    (case,) = step.cases(Settings(rounds=1, sample_seconds=0.0), NETS)
    found = measure(case, Settings(rounds=1, sample_seconds=0.0), Timer())
    named = {f"bisam {name}" for name in step.RECIPES + step.SLOW_TO_TIME}
    assert named <= set(found["candidates"]) | set(found["skipped"])
    runs = {name: numbers["runs_per_sample"] for name, numbers in found["candidates"].items()}
    assert runs["floor"] == runs["bisam sam"] == 1
    assert runs.get("bisam looksam", 5) == 5


def test_memory_of_plain_sgd_is_its_gradients_and_its_momentum():
    model, kept = nn.Linear(100, 100), []
    assert memory.peak(lambda: kept.append(torch.empty(1000)) or torch.empty(500), "cpu") == 6000
    model, x, y = models.Net("wide", lambda: nn.Linear(1000, models.CLASSES), (1000,), 1).on("cpu", seed=0)
    train = methods.one_pass(model, x, y)
    assert memory.peak(lambda: [train(), train()], "cpu") / 40_040 == pytest.approx(2, abs=0.02)


def test_only_what_computes_or_copies_is_counted():
    a = torch.ones(3, 4)
    assert kernels.operations(lambda: a.t().reshape(2, 6)[0].unsqueeze(0), "cpu") == 1  # the copy in reshape
    assert kernels.operations(lambda: torch.empty(3).detach().view(3), "cpu") == 0
    assert kernels.operations(lambda: torch._foreach_mul_([torch.empty(3), torch.empty(3)], 2.0), "cpu") == 1
    assert kernels.operations(lambda: float(a.sum()), "cpu") == 1  # a look is free on a CPU
    assert kernels.operations(lambda: a @ a.t(), "cpu") == 1


@pytest.mark.parametrize("layers, more", [
    ([nn.Linear(4, 6)], {"sam": 17, "bisam-log": 32, "bisam-tanh": 33}),
    ([nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6), nn.BatchNorm1d(6)], {"sam": 23, "bisam-log": 38, "bisam-tanh": 39}),
], ids=["without norm layers", "with"])  # fmt: skip
def test_a_step_gives_a_gpu_few_operations_beyond_its_floor(layers, more):
    net = models.Net("small", lambda: nn.Sequential(*layers, nn.Linear(6, models.CLASSES)), (4,), 8)
    found = measure(kernels._case(Settings(rounds=1), net), Settings(rounds=1), Timer())["candidates"]
    assert {name: found[f"bisam {name}"]["value"] - found["floor"]["value"] for name in more} == more


# -- from the command to the file ------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """The command on tiny cases, one sample of one run each."""
    monkeypatch.setattr(bench, "GROUPS", {
        "ascent": lambda settings: ascent.cases(settings, batch=4, classes=(3,)),
        "perturb": lambda settings: perturb.cases(settings, NETS),
        "step": lambda settings: step.cases(settings, NETS),
        "kernels": lambda settings: kernels.cases(settings, NETS),
        "memory": lambda settings: memory.cases(settings, NETS),
    })
    monkeypatch.setattr(bench, "Settings", lambda **asked: Settings(**asked, sample_seconds=0.0))


def test_a_run_writes_every_number_and_nothing_about_the_host(small, tmp_path, capsys):
    out = tmp_path / "new" / "numbers.json"
    assert bench.main(["--quick", "--rounds", "1", "--threads", "1", "--out", str(out)]) == 0
    stored = json.loads(out.read_text())
    assert set(stored) == {"machine", "settings", "cases"} and stored["settings"]["rounds"] == 1
    assert {"python", "torch", "threads", "cores", "device"} <= set(stored["machine"])
    assert [case["group"] for case in stored["cases"]] == list(bench.GROUPS)
    for case in stored["cases"]:
        assert case["candidates"][case["reference"]]["ratio"] == 1
        is_timed = case["kind"] == "time"
        wanted = {"seconds", "ratio", "quartiles", "runs_per_sample"} if is_timed else {"value", "ratio", "more"}
        for numbers in case["candidates"].values():
            assert set(numbers) == wanted and numbers["ratio"] > 0
            assert all(math.isfinite(number) for number in numbers.get("quartiles", [0.0]))
        assert all(isinstance(reason, str) and reason for reason in case["skipped"].values())
    said = capsys.readouterr()
    assert str(tmp_path) not in out.read_text() and "bisam bisam-log" in said.out and "left out: compiled" in said.out


def test_a_quick_or_partial_run_does_not_replace_the_full_set(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "OUT", tmp_path / "benchmarks.json")
    assert bench.main(["--only", "kernels"]) == 0
    assert not list(tmp_path.iterdir()) and "no file written" in capsys.readouterr().out


def test_a_peer_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr(methods.importlib.util, "find_spec", lambda name: None)
    assert methods.peers() == ({}, {"pytorch_optimizer sam": "not installed: pip install pytorch_optimizer"})
    assert methods.peer_versions() == {}


@pytest.mark.parametrize("words, message", [
    (["--only", "step,stride"], "only must name some of ascent, perturb, step, kernels, memory; got 'stride'"),
    (["--only", ""], "only must name some of"),
    (["--threads", "0"], "threads must be at least 1, got 0"),
    (["--rounds", "-3"], "rounds must be at least 1, got -3"),
    (["--out", str(ROOT)], "cannot be written: it is a folder"),
    (["--out", str(ROOT / "README.md" / "numbers.json")], "cannot be written"),
])
def test_wrong_arguments_end_before_any_work(words, message, capsys):
    assert bench.main(words) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and not said.out


@pytest.mark.parametrize("words", [["--device", "tpu"], ["--threads", "two"], ["--fast"]], ids=" ".join)
def test_what_the_parser_refuses_ends_with_its_message(words, capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main(words)
    assert ended.value.code == 2 and words[0] in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_said(capsys):
    assert bench.main(["--device", "cuda"]) == 2
    assert "device must be cpu here" in capsys.readouterr().err
