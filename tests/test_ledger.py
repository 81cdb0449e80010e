import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from bisam import ledger
from bisam.ledger import LedgerError
from bisam.recipe import RECIPES
from bisam.train import Run, fit


@pytest.fixture(scope="module")
def history():
    return fit(Run(recipe="bisam-log", model="mlp", epochs=2, label_noise=0.2))


def test_a_record_holds_what_is_needed_to_repeat_the_run(history, tmp_path):
    path = ledger.record(history, "try", "one", "smoke", tmp_path)
    entry = ledger.load("try", tmp_path)["one"]
    assert path.name == "one.json" and set(ledger.FIELDS) <= set(entry)
    again = fit(Run.from_dict(entry["run"]))
    assert again.last_test_accuracy == entry["final"]["last_test_accuracy"]
    assert ledger.weights_digest(again.model) == entry["weights_digest"]


def test_a_record_is_never_overwritten(history, tmp_path):
    path = ledger.record(history, "try", "one", "smoke", tmp_path)
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="recorded already"):
        ledger.record(history, "try", "one", "smoke", tmp_path)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["one.json"]


def test_of_two_writers_at_once_one_wins(history, tmp_path):
    def attempt(_):
        try:
            return ledger.record(history, "try", "one", "smoke", tmp_path).name
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
    for name, experiment in ledger.experiments().items():
        for claim in ledger.claims(name):
            assert {claim.ours, claim.theirs} <= set(experiment.methods) <= set(RECIPES)
            assert claim.label_noise in experiment.label_noise and claim.statement.endswith(".")


def test_sgd_gets_the_same_passes_as_the_others():
    experiment = ledger.experiment("first_run")
    costs = {method: experiment.run(method, 0.4, 0) for method in experiment.methods}
    assert {run.epochs * run.recipe.passes for run in costs.values()} == {2 * experiment.epochs}


def test_the_recorded_runs_are_those_of_the_plan_and_whole():
    planned = ledger.experiment("first_run").runs()
    records = ledger.load("first_run")
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
