import base64
import dataclasses
import functools
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest
import records
import torch
from hypothesis import given
from hypothesis import strategies as st

import bisam
from bisam.evidence import claim, ledger, listing, record, recording, schema
from bisam.evidence.experiment import CONTROLS
from bisam.evidence.places import LedgerError
from bisam.methods.table import RECIPES
from bisam.training import Run, data, environment, fit, weights_digest


@pytest.fixture(scope="module")
def history():
    return fit(Run(recipe="bisam-log", model="mlp", epochs=2, label_noise=0.2))


def test_a_record_holds_what_is_needed_to_repeat_the_run(history, tmp_path):
    path = recording.record(history, "try", "one", "smoke", tmp_path)
    entry = ledger.load("try", tmp_path)["one"]
    assert path.name == "one.json"
    again = fit(Run.from_dict(entry["run"]))
    assert again.last_test_accuracy == entry["final"]["last_test_accuracy"]
    assert weights_digest(again.model) == entry["weights_digest"]


def test_a_record_says_which_test_images_are_right_how_well_it_fits_and_what_it_ran_on(history):
    entry = json.loads(json.dumps(recording.entry(history, "try", "smoke")))
    task = data.load("digits")
    right = history.model.eval()(task.test.inputs).argmax(1) == task.test.targets
    assert record.bits(entry, "last").tolist() == right.tolist()
    assert record.bits(entry, "selected").mean() * 100 == pytest.approx(entry["final"]["selected_test_accuracy"])
    assert entry["final"]["train_accuracy"] == history.fitted
    assert entry["final"]["gap"] == history.fitted - history.last_test_accuracy
    there = entry["environment"]
    assert (there["threads"], there["precision"], there["tf32"]) == (torch.get_num_threads(), "float32", False)
    assert there["bisam"] == bisam.__version__ and there["numpy"] == numpy.__version__ and there["cores"] == os.cpu_count()
    if Path("/proc/cpuinfo").exists():
        assert there["processor"].partition(",")[0] in Path("/proc/cpuinfo").read_text()
        assert (" avx2 " in Path("/proc/cpuinfo").read_text()) == ("avx2" in there["instructions"])


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_bits_come_back_as_they_were_packed(right):
    text = record.packed(torch.tensor(right))
    assert record.bits({"right": {"images": len(right), "last": text}}, "last").tolist() == right
    by_hand = "".join("01"[bit] for bit in right).ljust(-(-len(right) // 8) * 8, "0")
    assert base64.b64decode(text) == int(by_hand, 2).to_bytes(len(by_hand) // 8, "big")


@pytest.mark.parametrize("right, message", [
    ({}, "right.last is not in a record of schema 3"),
    ({"images": 3, "last": "4"}, "right.last must be base64"),
    ({"images": 3, "last": "é"}, "right.last must be base64"),
    ({"images": 9, "last": "4A=="}, "right.last must hold 2 bytes for 9 images, got 1"),
    ({"images": 2, "last": "4A=="}, "right.last must end with zeros after the 2 images"),
])  # fmt: skip
def test_bits_that_are_none_are_named(right, message):
    with pytest.raises(LedgerError, match=message):
        record.bits({"schema": 3, "right": right}, "last")


def test_a_history_that_is_not_finished_is_no_record():
    with pytest.raises(ValueError, match="history must be finished: 1 of 2 epochs are done"):
        recording.entry(fit(Run(model="mlp", epochs=2), stop_after=1), "try", "smoke")


def test_an_experiment_of_an_earlier_schema_gets_no_new_records():
    with pytest.raises(LedgerError, match="experiment jpeg has records of schema 2, and this version writes schema 3"):
        recording.check_schema(listing.experiment("jpeg"))
    recording.check_schema(listing.experiment("T1"))


# -- what a run ran on ------------------------------------------------------------------------------------------------


def git(folder, *words):
    subprocess.run(("git", "-c", "user.name=n", "-c", "user.email=e", *words), cwd=folder, check=True, capture_output=True)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the module that asks for the commit, in a package of its own in a repository of its own."""
    (tmp_path / "repo" / "bisam" / "inner").mkdir(parents=True)
    for name in ("__init__.py", "environment.py", "inner/part.py"):
        (tmp_path / "repo" / "bisam" / name).write_text("")
    git(tmp_path / "repo", "init")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "repo" / "bisam" / "training" / "environment.py"))
    environment.commit.cache_clear()
    yield tmp_path / "repo"
    environment.commit.cache_clear()


def test_the_commit_is_that_of_the_whole_package(package):
    assert environment.commit() is None  # a repository that does not hold the package
    git(package, "add", "bisam")
    git(package, "commit", "-m", "m")
    (package / "elsewhere").write_text("not what computes")
    environment.commit.cache_clear()
    clean = environment.commit()
    assert len(clean) == 12 and not clean.endswith("+")
    (package / "bisam" / "inner" / "part.py").write_text("x = 1")
    environment.commit.cache_clear()
    assert environment.commit() == clean + "+"
    git(package, "checkout", "bisam")
    (package / "bisam" / "inner" / "new.py").write_text("")
    environment.commit.cache_clear()
    assert environment.commit() == clean + "+"


def test_a_package_outside_a_checkout_has_no_commit(package):
    shutil.rmtree(package / ".git")
    assert environment.commit() is None


def test_a_gpu_is_named_with_its_driver_and_libraries(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU at {device}")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    asked = []
    monkeypatch.setattr(environment, "_said", lambda *words, **where: asked.append(words[0]) or ("1.2.3\n1.2.3" if words[0] == "nvidia-smi" else None))
    monkeypatch.setattr(environment, "_driver", functools.cache(environment._driver.__wrapped__))
    environment.environment("cuda:0", 1.0)
    there = environment.environment("cuda:0", 2.0, "bfloat16")
    assert (there["device"], there["driver"], there["cuda"]) == ("GPU at cuda:0", "1.2.3", torch.version.cuda)
    assert asked.count("nvidia-smi") == 1  # in a process that trains many runs
    assert (there["tf32"], there["matmul_precision"], there["precision"]) == (False, "highest", "bfloat16") and "cudnn" in there
    record = records.sound(Run(model="mlp", epochs=1, precision="bfloat16"))
    record["run"]["device"], record["environment"] = "cuda:0", json.loads(json.dumps(there))
    assert list(schema.faults(record)) == []


@pytest.mark.parametrize("change, words", [
    ({"processor": "Other"}, "The record was made with processor Other, and this is"),
    ({"instructions": []}, "The record was made with instructions none, and this is"),
    ({"torch": "1.0"}, "The record was made with torch 1.0, and this is"),
    ({"threads": 7}, "The record was made with threads 7, and this is"),
    ({"device": "arm64 CPU, 1 of 2 threads"}, "The record was made on arm64 CPU, and this is"),
])  # fmt: skip
def test_another_machine_is_said_in_a_sentence(change, words):
    here = environment.environment("cpu", 1.0)
    (sentence,) = environment.differences({**here, **change}, here)
    assert sentence.startswith(words) and sentence.endswith(".")
    assert environment.differences({**here, "wall_seconds": 9.0, "commit": None, "cores": 999}, here) == []


def test_a_record_is_never_overwritten(history, tmp_path):
    path = recording.record(history, "try", "one", "smoke", tmp_path)
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="recorded already"):
        recording.record(history, "try", "one", "smoke", tmp_path)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["one.json"]


@pytest.mark.parametrize("change, message", [
    ({"train_loss": float("nan")}, "NaN is no number of JSON"), ({"test_accuracy": 90.1}, "final.*_test_accuracy is 90.1, but right"),
    ({"lr": -1.0}, "curve.lr.1 must be at least 0"),
])  # fmt: skip
def test_what_nobody_could_read_is_not_written(history, change, message, tmp_path):
    wrong = dataclasses.replace(history, rows=[history.rows[0], {**history.rows[1], **change}])
    with pytest.raises(LedgerError, match=f"one.json is not written, for nobody could read it: .*{message}"):
        recording.record(wrong, "try", "one", "smoke", tmp_path)
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("name, file", [
    ("../../evil", "y"), ("a", "../../../y"), ("a", "/tmp/abs"), ("a", "b\n\x1b[31m"), ("", ""), ("a", ""), ("a/b", "y"), (".", "y"), ("a", "..")
])  # fmt: skip
def test_names_that_would_leave_the_ledger_are_refused(history, name, file, tmp_path):
    inside = tmp_path / "deep" / "results"
    inside.mkdir(parents=True)
    with pytest.raises(ValueError, match="must be letters"):
        recording.record(history, name, file, "smoke", inside)
    with pytest.raises(ValueError, match="must be letters"):
        ledger.is_recorded(name, file, inside)
    assert not list(tmp_path.rglob("*.json"))


def test_of_two_writers_at_once_one_wins(history, tmp_path):
    def attempt(_):
        try:
            return recording.record(history, "try", "one", "smoke", tmp_path).name
        except (LedgerError, FileNotFoundError):
            return None

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(attempt, range(2)))
    assert outcomes.count("one.json") == 1
    json.loads((tmp_path / "runs" / "try" / "one.json").read_text())


@pytest.mark.parametrize("content, message", [("{", "no JSON"), ("{}", "lacks schema, experiment")])
def test_a_broken_record_is_named(tmp_path, content, message):
    (tmp_path / "runs" / "try").mkdir(parents=True)
    (tmp_path / "runs" / "try" / "bad.json").write_text(content)
    with pytest.raises(LedgerError, match=f"bad.json.*{message}"):
        ledger.load("try", tmp_path)


def test_every_claim_names_an_experiment_with_its_methods_and_noise():
    for name, experiment in listing.experiments().items():
        for each in listing.claims(name):
            assert {each.ours, each.theirs} <= set(experiment.methods) <= {*RECIPES, *CONTROLS}
            assert sorted((*each.place, *each.over)) == sorted(experiment.grid) and each.statement.endswith(".")
            assert all(value in experiment.grid[axis] for axis, value in each.place.items())


def test_sgd_gets_the_same_passes_as_the_others():
    experiment = listing.experiment("first_run")
    costs = {method: experiment.run(method, 0, label_noise=0.4) for method in experiment.methods}
    assert {run.epochs * run.recipe.passes for run in costs.values()} == {2 * experiment.epochs}


def test_the_recorded_runs_are_those_of_the_plan_and_whole():
    planned = listing.experiment("first_run").runs()
    records = ledger.evidence("first_run")
    assert set(records) == set(planned)
    for name, entry in records.items():
        assert Run.from_dict(entry["run"]) == planned[name], name
        assert len(entry["curve"]["test_accuracy"]) == planned[name].epochs


def test_recorded_finals_follow_from_the_curves():
    for name, entry in ledger.load("first_run").items():
        curve, final = entry["curve"], entry["final"]
        best = curve["validation_accuracy"].index(max(curve["validation_accuracy"]))
        assert final["selected_epoch"] == best + 1, name
        assert final["selected_test_accuracy"] == pytest.approx(curve["test_accuracy"][best], abs=1e-4)
        assert final["last_test_accuracy"] == pytest.approx(curve["test_accuracy"][-1], abs=1e-4)


@pytest.fixture
def ledger_folder(history, tmp_path):
    """A ledger of one experiment with one record that belongs to it."""
    settings = 'data = "digits", model = "mlp", batch_size = 100, lr = 0.1'
    (tmp_path / "claims.toml").write_text(
        f'[experiment.try]\ntitle = "t"\nscale = "smoke"\nmethods = ["bisam-log"]\nlabel_noise = [0.2]\nseeds = 1\n'
        f"epochs = 2\nrho = 0.05\nsettings = {{ {settings} }}\n"
    )
    recording.record(history, "try", "bisam-log-noise20-seed0", "smoke", tmp_path)
    return tmp_path


def test_evidence_is_what_belongs_to_the_experiment_as_it_is_described(ledger_folder):
    assert list(ledger.evidence("try", ledger_folder)) == ["bisam-log-noise20-seed0"]
    claims = ledger_folder / "claims.toml"
    claims.write_text(claims.read_text().replace("rho = 0.05", "rho = 0.2"))
    with pytest.raises(LedgerError, match=r"bisam-log-noise20-seed0\.json is no run of try as claims\.toml describes it now"):
        ledger.evidence("try", ledger_folder)


def test_evidence_from_other_data_is_refused(ledger_folder):
    path = ledger_folder / "runs" / "try" / "bisam-log-noise20-seed0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_fingerprint": "0" * 16}))
    with pytest.raises(LedgerError, match="another schema or other data"):
        ledger.evidence("try", ledger_folder)


def test_an_unknown_experiment_and_a_broken_list_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"experiment must be one of first_run, .*; got 'frist_run'"):
        listing.claims("frist_run")
    (tmp_path / "claims.toml").write_text("[experiment")
    with pytest.raises(LedgerError, match=r"claims\.toml cannot be read"):
        listing.experiments(tmp_path)


@pytest.mark.parametrize("wrong", [{"metric": "lst_test"}, {"ours": "samm"}])
def test_a_claim_about_something_unknown_is_refused(wrong):
    fields = dict(id="c", experiment="e", statement="s.", ours="sam", theirs="sgd", label_noise=0.0, metric="last_test_accuracy")
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be one of"):
        claim.Claim(**(fields | wrong))


@pytest.mark.parametrize("path, value, message", [
    (("final", "last_test_accuracy"), None, "final.last_test_accuracy must be a finite number, got None"),
    (("final", "selected_epoch"), float("nan"), "is no JSON: NaN is no number of JSON"),
    (("curve", "test_accuracy"), [90.0], "curve.test_accuracy must hold 2 numbers, one an epoch, got 1"),
    (("curve", "train_loss"), [1.0, "2"], "curve.train_loss.1 must be a finite number, got '2'"),
    (("environment",), [], "environment must be an object, got \\[\\]"),
])  # fmt: skip
def test_a_record_whose_numbers_do_not_fit_together_is_refused(ledger_folder, path, value, message):
    file = ledger_folder / "runs" / "try" / "bisam-log-noise20-seed0.json"
    entry = json.loads(file.read_text())
    place = entry
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_text(json.dumps(entry))
    with pytest.raises(LedgerError, match=message):
        ledger.evidence("try", ledger_folder)


@pytest.mark.parametrize("name", [name for name, one in {**RECIPES, **CONTROLS}.items() if one.ascent])
def test_an_older_record_says_that_q_has_changed_where_q_is_what_is_climbed(name):
    """Whatever its bound is: the identity, whose Q is a cross-entropy at another temperature, is in the same form."""
    recipe = {**RECIPES, **CONTROLS}[name]
    there = {"schema": 2, "run": {"recipe": recipe.to_dict()}, "environment": {}}
    climbed = isinstance(recipe.ascent, bisam.Surrogate)
    assert bool(recording.reasons(there, there)) == climbed
    assert not recording.reasons({**there, "schema": record.SCHEMA}, there)
