"""The engine: plans, resumed and killed sweeps, several writers, records rerun from their file alone."""

import dataclasses
import json
import os
import re
import time
from pathlib import Path

import pytest
import torch

import bisam
from bisam import commands
from bisam.cli import main
from bisam.evidence import ledger, listing, places, plans, prices, recording, reproduce
from bisam.evidence.places import LedgerError
from bisam.evidence.plans import Settings, plan
from bisam.evidence.prices import hours
from bisam.evidence.reproduce import carry_out, rerun
from bisam.training import Run, captured, data, fit, weights_digest
from bisam.training.augment import AUGMENTATIONS

ROOT = Path(__file__).resolve().parents[2]
TOML = """
[experiment.try]
title = "A few runs"
scale = "laptop"
tables = ["T1", "T9"]
methods = ["sgd", "sam", "bisam-log"]
axes = { label_noise = [0.0, 0.4] }
seeds = 2
epochs = 2
rho = 0.1
budget = "epochs"
settings = { data = "digits", model = "mlp", batch_size = 100, lr = 0.1 }

[experiment.other]
title = "At another scale"
scale = "paper"
tables = ["T1"]
methods = ["sam"]
seeds = 1
epochs = 3
settings = { data = "digits", model = "mlp" }

[[claim]]
id = "try/log"
experiment = "try"
statement = "BiSAM is better."
ours = "bisam-log"
theirs = "sam"
metric = "last_test_accuracy"
at = { label_noise = 0.4 }
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "claims.toml").write_text(TOML)
    return tmp_path


@pytest.fixture
def settings(folder):
    return Settings(folder=folder, checkpoints=folder / "checkpoints")


def files(folder, name="try"):
    return sorted(path.stem for path in (folder / "runs" / name).glob("*"))


# -- plans ------------------------------------------------------------------------------------------------------------


def test_a_table_is_all_experiments_that_bear_upon_it(folder):
    assert {one.experiment for one in plan("T1", folder=folder)} == {"try", "other"}
    assert {one.experiment for one in plan("T9", folder=folder)} == {"try"} == {one.experiment for one in plan("try", folder=folder)}
    assert {one.experiment for one in plan("T1", scale="paper", folder=folder)} == {"other"}


def test_seeds_come_first_so_that_whatever_is_done_is_paired(folder):
    assert [one.run.seed for one in plan("try", folder=folder)] == [0] * 6 + [1] * 6


@pytest.mark.parametrize("only, count", [
    ([], 12), (["sam"], 4), (["sam", "bisam-log"], 8), (["sam", "noise40"], 2), (["noise00", "noise40", "sgd"], 4),
])  # fmt: skip
def test_words_of_one_kind_widen_and_of_two_kinds_narrow(folder, only, count):
    assert len(plan("try", only=only, folder=folder)) == count


@pytest.mark.parametrize("name, only, count", [
    ("T1", ["wrn-34-2", "sam"], 6), ("T1", ["vgg19-bn", "wrn-34-10", "bisam-log"], 12), ("jpeg", ["crop-flip"], 36),
    ("jpeg", ["crop-flip-cutout", "sgd", "sam"], 12), ("LETS", ["rho0.5", "cifar100"], 24), ("digits", ["seed3"], 75),
])  # fmt: skip
def test_words_may_hold_dashes(name, only, count):
    assert len(plan(name, scale=None if name != "T1" and name != "LETS" else "paper", only=only)) == count


@pytest.mark.parametrize("wrong, message", [
    ({"name": "T10"}, "name 'T10' cannot be run: seconds an epoch are measured as ratios by `make bench`"),
    ({"name": "T99"}, "name must be one of try, other, T1, T9; got 'T99'"),
    ({"name": "T9", "scale": "paper"}, "scale must be one of laptop for T9, got 'paper'"),
    ({"name": "T9", "scale": "huge"}, "scale must be one of smoke, laptop, paper; got 'huge'"),
    ({"name": "try", "seeds": 3}, "seeds must be at most 2, as try is described; got 3"),
    ({"name": "try", "only": ["samm"]}, "only must be one of .*sam.*; got 'samm'"),
])  # fmt: skip
def test_what_is_not_there_is_named(folder, wrong, message):
    with pytest.raises(ValueError, match=message):
        plan(folder=folder, **wrong)


@pytest.mark.slow
def test_every_planned_run_of_the_project_can_be_described_and_read_back():
    for experiment in listing.experiments().values():
        for run in experiment.runs().values():
            assert Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_the_budgets_count_what_they_say():
    base = listing.experiment("digits")
    for budget, expected in (("passes", {"sgd": 60, "sam": 30, "lets-sam": 15}), ("epochs", {"sgd": 60, "sam": 30, "lets-sam": 30}),
                             ("same", {"sgd": 30, "sam": 30, "lets-sam": 30})):  # fmt: skip
        one = dataclasses.replace(base, budget=budget)
        assert {name: one.run(name, 0, label_noise=0.0).epochs for name in expected} == expected


def test_the_rate_of_a_learned_radius_is_a_setting_or_an_axis():
    own = bisam.methods.LETS_SAM.radius.rate
    one = listing.experiment("digits")
    assert one.run("lets-sam", 0, label_noise=0.0).recipe.radius.rate == own
    held = dataclasses.replace(one, rate=0.5)
    assert held.run("lets-bisam-log", 0, label_noise=0.0).recipe.radius == bisam.Learned(0.3, 0.5)
    assert held.run("sam", 0, label_noise=0.0) == one.run("sam", 0, label_noise=0.0)
    found = dataclasses.replace(one, label_noise=(), methods=("lets-sam",), seeds=1, axes={"rate": (0.0, 2.0)}).runs()
    assert {name: run.recipe.radius.rate for name, run in found.items()} == {"lets-sam-rate0.0-seed0": 0.0, "lets-sam-rate2.0-seed0": 2.0}


def test_smoothing_is_in_every_descent_and_in_no_ascent_of_its_own():
    one = listing.experiment("digits")
    for name in one.methods:
        recipe = one.run(name, 0, label_noise=0.0).recipe
        assert recipe.descent.smoothing == 0.1 and recipe.descent.convention == "others"
        assert getattr(recipe.raised, "smoothing", 0.0) == (0.1 if name in ("sgd", "sam", "asam-all", "esam", "lets-sam") else 0.0)


def test_cost_is_that_of_the_runs_that_are_missing(folder, settings):
    planned = plan("try", folder=folder)
    all_of_them = hours(planned, settings)
    done = [dataclasses.replace(one, recorded=True) for one in planned[:6]]
    assert hours([*done, *planned[6:]], settings) > 0 and hours(done, settings) == 0
    assert all_of_them < 1
    assert planned[0].passes == planned[1].passes == 4  # SGD has twice the epochs


def test_the_price_follows_the_batch_size(folder, settings, monkeypatch):
    """A step that costs a second and a hundredth of one an image: small batches pay for their many steps."""
    monkeypatch.setattr(prices, "_seconds_of_a_step", lambda run, task, size, root: (7.0, (1 + size / 100) * 1e-3))
    one = plan("try", only=["sam", "noise40"], folder=folder)[0]
    runs = [dataclasses.replace(one, file=f"b{size}", run=one.run.replace(batch_size=size)) for size in (10, 50, 1000)]
    for run, size in zip(runs, (10, 50, 1000), strict=True):
        assert hours([run], settings) == pytest.approx(run.passes * 1000 / size * (1 + size / 100) * 1e-3 / 3600)
    assert hours(runs, settings) == pytest.approx(sum(hours([run], settings) for run in runs))


def test_where_a_step_is_slow_a_few_images_stand_for_it(folder, settings, monkeypatch):
    asked = []
    monkeypatch.setattr(prices, "_seconds_of_a_step", lambda run, task, size, root: (asked.append(size) or 0.0, size * 0.1))
    one = plan("try", only=["sam", "noise40"], folder=folder)[0]
    assert hours([one], settings) == pytest.approx(one.passes * 1000 * 0.1 / 3600) and asked == [32]


def test_what_is_compiled_pays_for_that_once_a_run_and_is_timed_at_its_own_batch_size(folder, settings, monkeypatch):
    asked = []
    monkeypatch.setattr(prices, "_seconds_of_a_step", lambda run, task, size, root: (asked.append(size) or 36.0, size * 0.1))
    one = plan("try", only=["sam", "noise40"], folder=folder)[0]
    compiled = dataclasses.replace(one, run=one.run.replace(compile="default"))
    assert hours([compiled, compiled], settings) == pytest.approx(2 * (0.01 + one.passes * 1000 * 0.1 / 3600)) and asked == [100, 100]


@pytest.mark.parametrize("changes", [{"augment": "crop-flip"}, {"channels_last": True}, {"precision": "bfloat16"}, {"compile": "default"}, {"batch_size": 50}])
def test_runs_that_differ_in_what_a_step_costs_are_timed_apart(changes, folder, settings, monkeypatch):
    timed = []
    monkeypatch.setattr(prices, "_seconds_of_a_step", lambda run, task, size, root: (timed.append(run) or 0.0, 1.0))
    one = plan("try", only=["sam", "noise40"], folder=folder)[0]
    others = [dataclasses.replace(one, run=one.run.replace(**each)) for each in (changes, {"seed": 9}, {"recipe": "asam"}, {"label_noise": 0.2})]
    hours([one, *others], settings)
    assert set(timed) == {one.run, one.run.replace(**changes)}


def test_a_timed_step_is_that_of_a_training(folder, settings, monkeypatch):
    """The network is laid out and compiled, and the pictures are augmented, as in the run; and nothing random is moved."""
    seen, step = [], prices.State.batch
    monkeypatch.setattr(prices.State, "batch", lambda self, split, index, change: (seen.append((len(index), change, self)), step(self, split, index, change))[1])
    monkeypatch.setattr("bisam.training.state.compiled", lambda network, mode: seen.append(mode) or network)
    one = plan("try", only=["sam", "noise40"], folder=folder)[0]
    run = one.run.replace(batch_size=50, augment="crop-flip", channels_last=True, compile="default", model="small_conv", precision="bfloat16")
    before = torch.get_rng_state()
    assert hours([dataclasses.replace(one, run=run)], settings) > 0 and torch.equal(torch.get_rng_state(), before)
    steps = [one for one in seen if one != "default"]
    assert len(seen) - len(steps) == 2 and len(steps) == 8 and {(size, change) for size, change, _ in steps} == {(50, AUGMENTATIONS["crop-flip"])}
    state = steps[0][2]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in state.model.parameters() if weight.ndim == 4)
    assert state.run.precision == "bfloat16" and state.optimizer.recipe == bisam.SGD


def test_data_that_are_missing_are_looked_for_once(folder, settings, monkeypatch):
    asked, task = [], Run.task
    monkeypatch.setattr(Run, "task", lambda self, root=None: asked.append(self.data) or task(self, root))
    there = plan("try", folder=folder)
    lost = [dataclasses.replace(one, run=one.run.replace(data="cifar10", batch_size=10 + k)) for k, one in enumerate(there)]
    found = prices.prices([*lost[:6], *there, *lost[6:]], dataclasses.replace(settings, root=str(folder / "nowhere")))
    assert asked == ["cifar10", "digits"] and found["try", "digits"] > 0 and isinstance(found["try", "cifar10"], data.DataError)


def test_a_step_that_is_one_graph_is_timed_as_such(settings, monkeypatch):
    asked, epoch = [], captured.WholeStep.epoch
    monkeypatch.setattr(captured.WholeStep, "epoch", lambda self, lr: asked.append(lr) or epoch(self, lr))
    for compile, epochs in (("no", 0), ("whole-step", 1)):
        prices.seconds_of_a_pass(Run(model="mlp", batch_size=100, compile=compile), settings)
        assert bool(asked) == bool(epochs)


def test_missing_data_hide_no_other_price(folder, settings, capsys):
    there = plan("try", only=["sam", "noise40"], folder=folder)
    there.append(dataclasses.replace(there[0], experiment="other", file="c", run=there[0].run.replace(data="cifar10")))
    settings = dataclasses.replace(settings, root=str(folder / "nowhere"))
    found = prices.prices(there, settings)
    assert found["try", "digits"] > 0 and isinstance(found["other", "cifar10"], data.DataError)
    with pytest.raises(data.DataError, match="cifar10"):
        hours(there, settings)
    commands.reproduce._print_price(there, settings, goes_on=True)
    said = capsys.readouterr().out
    assert "try: 0 of 2 runs recorded, 8 passes over the images to go, about" in said and "without what follows" in said
    assert "how long the runs on cifar10 take cannot be said: data 'cifar10' is not there" in said


# -- carrying out -----------------------------------------------------------------------------------------------------


def test_what_is_missing_is_run_and_recorded_and_then_nothing_is_left(folder, settings):
    planned = plan("try", only=["sam", "noise40"], folder=folder)
    outcomes = carry_out(planned, settings, progress=False)
    assert outcomes == {"recorded": ["sam-noise40-seed0", "sam-noise40-seed1"], "cut": [], "elsewhere": [], "failed": []}
    assert files(folder) == outcomes["recorded"] and not list((folder / "checkpoints" / "try").iterdir())
    assert all(one.recorded for one in plan("try", only=["sam", "noise40"], folder=folder))
    entry = ledger.read(folder / "runs" / "try" / "sam-noise40-seed1.json")
    direct = fit(planned[1].run)
    assert entry["weights_digest"] == weights_digest(direct.model)
    assert entry["final"]["last_test_accuracy"] == direct.last_test_accuracy


def test_out_of_time_runs_keep_their_checkpoints_and_go_on_to_the_same_bits(folder, settings, monkeypatch):
    long = plan("try", only=["sam", "noise40"], folder=folder)[0]
    with monkeypatch.context() as patch:  # time is up after the first epoch, however fast the machine
        patch.setattr(reproduce, "fit", lambda *given, **named: fit(*given, **{**named, "stop_after": 1}))
        assert carry_out([long], settings, progress=False)["cut"] == ["sam-noise40-seed0"]
    assert not files(folder) and (settings.checkpoints / "try" / "sam-noise40-seed0.pt").exists()
    assert carry_out([long], settings, progress=False)["recorded"] == ["sam-noise40-seed0"]
    assert ledger.read(folder / "runs" / "try" / "sam-noise40-seed0.json")["weights_digest"] == weights_digest(fit(long.run).model)


def test_a_run_that_another_process_has_in_hand_is_left_to_it(folder, settings):
    one = plan("try", only=["sam", "noise40"], folder=folder)[0]
    lock = settings.checkpoints / "try" / f"{one.file}.lock"
    lock.parent.mkdir(parents=True)
    with bisam._files.held(lock) as mine:
        assert mine
        assert carry_out([one], settings, progress=False)["elsewhere"] == [one.file]
    assert carry_out([one], settings, progress=False)["recorded"] == [one.file]


def test_a_run_that_fails_is_named_and_the_others_are_done(folder, settings):
    good, bad = plan("try", only=["sgd", "noise40"], folder=folder)
    bad = dataclasses.replace(bad, run=bad.run.replace(lr=1e30))
    outcomes = carry_out([bad, good], settings, progress=False)
    assert outcomes["recorded"] == [good.file] and files(folder) == [good.file]
    assert len(outcomes["failed"]) == 1
    assert outcomes["failed"][0].startswith(f"{bad.file}: epoch 1 of 4") and "inf or NaN" in outcomes["failed"][0]


def test_a_broken_checkpoint_is_named(folder, settings):
    one = plan("try", only=["sam", "noise40"], folder=folder)[0]
    path = one.checkpoint(settings.checkpoints)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no checkpoint")
    assert f"checkpoint_path {path} cannot be read" in carry_out([one], settings, progress=False)["failed"][0]


def test_missing_data_are_named_before_anything_starts(folder, settings, tmp_path):
    one = plan("try", folder=folder)[0]
    one = dataclasses.replace(one, run=one.run.replace(data="cifar10"))
    with pytest.raises(data.DataError, match="cifar"):
        carry_out([one], dataclasses.replace(settings, root=str(tmp_path / "nowhere")), progress=False)
    assert not (folder / "runs").exists()


def test_without_a_terminal_every_run_that_is_done_is_a_line(folder, settings, capsys):
    good, bad = plan("try", only=["sgd", "noise40"], folder=folder)
    carry_out([dataclasses.replace(bad, run=bad.run.replace(lr=1e30)), good], settings)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"1 of 2: try/{bad.file}: failed: epoch 1") and re.fullmatch(
        rf"2 of 2: try/{good.file}: recorded, \d+\.\d\d % after \d+ s", second
    )
    carry_out([good], settings, progress=False)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("name", ["../../evil", "a/b", "a b", "", ".x", "-x"])
def test_names_that_lead_elsewhere_are_refused_before_any_work(folder, settings, name, monkeypatch):
    (folder / "claims.toml").write_text(TOML.replace("[experiment.other]", f"[experiment.{json.dumps(name)}]"))
    listed = rf"claims\.toml: experiment {re.escape(repr(name))}: the name must be letters, digits"
    with pytest.raises(LedgerError, match=listed):
        plan(name, folder=folder)
    with pytest.raises(LedgerError, match=listed):
        plan("T1", folder=folder)
    (folder / "claims.toml").write_text(TOML)
    one = plan("try", folder=folder)[0]
    for wrong in ({"file": name}, {"experiment": name}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be letters, digits"):
            dataclasses.replace(one, **wrong)
    assert sorted(path.name for path in folder.iterdir()) == ["claims.toml"]


@pytest.mark.parametrize("changes, message", [
    ("seeds = 100000000", "seeds must be at most 10000 in experiment 'other', got 100000000"),
    ("seeds = 10001", "seeds must be at most 10000"),
    ("seeds = 9999\naxes = { lr = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1] }", "must make at most 100000 runs in experiment 'other', got 109989"),
])  # fmt: skip
def test_more_runs_than_memory_holds_are_refused_when_they_are_read(folder, changes, message):
    (folder / "claims.toml").write_text(TOML.replace("seeds = 1\n", changes + "\n"))
    with pytest.raises(LedgerError, match=message):
        plan("other", folder=folder)


def test_smoke_runs_stay_out_of_the_evidence():
    smoke = listing.experiment("smoke")
    assert plans.home(smoke, places.RESULTS) == plans.SMOKE != places.RESULTS
    assert plans.home(listing.experiment("digits"), places.RESULTS) == places.RESULTS
    assert not (places.RESULTS / "runs" / "smoke").exists()


# -- rerun ------------------------------------------------------------------------------------------------------------


def test_a_record_is_run_again_from_its_file_alone_with_one_thread(folder, settings, tmp_path, monkeypatch):
    one = plan("try", only=["bisam-log", "noise40"], folder=folder)[0]
    carry_out([one], settings, progress=False)
    copy = tmp_path / "elsewhere.json"
    copy.write_bytes((folder / "runs" / "try" / f"{one.file}.json").read_bytes())
    found = rerun(copy)
    assert found["same_bits"] and found["same_data"] and found["again"] == found["recorded"] and found["why"] == []
    torch.set_num_threads(2)
    seen = []
    monkeypatch.setattr(reproduce, "fit", lambda *given, **named: (seen.append(torch.get_num_threads()), fit(*given, **named))[1])
    assert rerun(copy)["same_bits"] and seen == [1] and torch.get_num_threads() == 2
    torch.set_num_threads(1)
    entry = json.loads(copy.read_text())
    copy.write_text(json.dumps({**entry, "run": {**entry["run"], "seed": 5}}))
    assert not rerun(copy)["same_bits"]
    other = {"threads": 2, "processor": "Other", "device": entry["environment"]["device"].replace(", 1 of", ", 2 of")}
    copy.write_text(json.dumps({**entry, "environment": {**entry["environment"], **other}}))
    (sentence,) = rerun(copy)["why"]
    assert seen[-1] == 2 and "processor Other" in sentence
    there = {**entry["environment"], "device": "A GPU", "driver": "1.0", "cuda": "13.0", "cudnn": 90000}
    copy.write_text(json.dumps({**entry, "run": {**entry["run"], "device": "cuda:7"}, "environment": there}))
    assert main(["rerun", str(copy)]) == 2  # there is no such device here
    assert rerun(copy, device="cpu")["same_bits"]


@pytest.mark.parametrize("name, words", [
    ("digits/bisam-log-noise40-seed0", ["schema 2: since then Q is computed in another form", "on which kind of processor"]),
    ("digits/sam-temperature-noise00-seed0", ["schema 2: since then Q is computed in another form", "on which kind of processor"]),
    ("digits/sam-noise40-seed0", ["on which kind of processor"]),
])  # fmt: skip
def test_why_the_last_bits_of_an_older_record_may_differ_is_said(name, words, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "fit", lambda run, **named: fit(run.replace(epochs=1)))
    path = places.RESULTS / "runs" / f"{name}.json"
    assert main(["rerun", str(path)]) == 0
    said = capsys.readouterr().out
    assert "other weights in their last bits or more\n" in said
    assert all(word in said for word in words) and ("schema 2" in said) == (len(words) == 2)


def test_missing_runs_of_an_earlier_schema_are_refused_before_they_start(folder, settings):
    (folder / "claims.toml").write_text(TOML.replace('title = "A few runs"', 'title = "A few runs"\nschema = 2'))
    with pytest.raises(LedgerError, match="experiment try has records of schema 2"):
        carry_out(plan("try", folder=folder), settings, progress=False)
    assert not settings.checkpoints.exists()


def test_a_file_that_is_no_record_is_named(tmp_path, capsys):
    path = tmp_path / "x.json"
    path.write_text("{}")
    with pytest.raises(LedgerError, match=r"x\.json lacks schema"):
        rerun(path)
    assert main(["rerun", str(path)]) == 1 and "lacks schema" in capsys.readouterr().err


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def mine(folder, monkeypatch):
    """The command works on the ledger of this test."""
    for function in (plan, Settings.__init__):
        defaults = tuple(folder if value == places.RESULTS else value for value in function.__defaults__)
        defaults = tuple(folder / "checkpoints" if value == ROOT / "_build" / "checkpoints" else value for value in defaults)
        monkeypatch.setattr(function, "__defaults__", defaults)
    return folder


def test_the_command_plans_and_runs(mine, capsys):
    assert main(["reproduce", "T9", "--only", "sam", "noise40", "--plan"]) == 0
    said = capsys.readouterr().out
    assert "try: 0 of 2 runs recorded, 8 passes" in said and "to do     try/sam-noise40-seed0" in said and not files(mine)
    assert main(["reproduce", "T9", "--only", "sam", "noise40"]) == 0
    assert "2 runs recorded" in capsys.readouterr().out and len(files(mine)) == 2
    assert main(["reproduce", "other", "--minutes", "1"]) == 0 and files(mine, "other") == ["sam-seed0"]


def test_a_plan_can_be_seen_without_the_data(capsys, tmp_path):
    assert main(["reproduce", "T1", "--scale", "paper", "--seeds", "1", "--plan", "--root", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "T1: 0 of 20 runs recorded" in said and "cannot be said" in said and "download=True" in said
    assert main(["reproduce", "T1", "--scale", "paper", "--seeds", "1", "--root", str(tmp_path)]) == 1
    assert "download=True" in capsys.readouterr().err


@pytest.mark.parametrize("words, message", [
    (["reproduce", "T77"], "name must be one of"), (["reproduce", "T9", "--workers", "0"], "workers must be"),
    (["reproduce", "T9", "--minutes", "-1"], "minutes must be"), (["reproduce", "T9", "--device", "tpu"], "device must be"),
    (["report", "nothing"], "experiment must be one of"), (["report", "first_run", "--output", "x.doc"], "output must be one of"),
])  # fmt: skip
def test_wrong_words_end_before_any_work(mine, capsys, words, message):
    assert main(words) == 2 and message in capsys.readouterr().err


def test_a_full_disk_leaves_no_half_record(folder, monkeypatch):
    history = fit(Run(model="mlp", epochs=1))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(LedgerError, match=r"cannot be written: .*No space left"):
        recording.record(history, "try", "one", "smoke", folder)
    assert not files(folder)


def test_time_is_looked_at_before_a_run_is_started(folder, settings):
    outcomes = carry_out(plan("try", folder=folder), dataclasses.replace(settings, minutes=1e-9), progress=False)
    assert len(outcomes["cut"]) == 12 and not files(folder)


def test_a_clock_that_is_set_moves_no_limit(folder, settings, monkeypatch):
    """Far back, time would never be up; far ahead, it would be up at once."""
    one = plan("try", only=["sam", "noise40"], folder=folder)
    times = iter([1e9, *[0.0] * 10_000])
    monkeypatch.setattr(time, "time", lambda: next(times))
    assert len(carry_out(one, dataclasses.replace(settings, minutes=1e-9), progress=False)["cut"]) == 2
    times = iter([0.0, *[1e9] * 10_000])
    assert len(carry_out(one, dataclasses.replace(settings, minutes=10), progress=False)["recorded"]) == 2


def test_no_limit_of_time_is_read_from_a_clock_that_can_be_set():
    for path in [*(ROOT / "bisam").rglob("*.py"), *(ROOT / "tools").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        assert not re.search(r"\btime\.time\(|from time import|datetime\.now", path.read_text(encoding="utf-8")), path
