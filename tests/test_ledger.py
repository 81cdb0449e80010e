import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from bisam import ledger
from bisam.experiments import CONTROLS
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
            assert {claim.ours, claim.theirs} <= set(experiment.methods) <= {*RECIPES, *CONTROLS}
            assert sorted((*claim.place, *claim.over)) == sorted(experiment.grid) and claim.statement.endswith(".")
            assert all(value in experiment.grid[axis] for axis, value in claim.place.items())


def test_sgd_gets_the_same_passes_as_the_others():
    experiment = ledger.experiment("first_run")
    costs = {method: experiment.run(method, 0, label_noise=0.4) for method in experiment.methods}
    assert {run.epochs * run.recipe.passes for run in costs.values()} == {2 * experiment.epochs}


def test_the_recorded_runs_are_those_of_the_plan_and_whole():
    planned = ledger.experiment("first_run").runs()
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
    ledger.record(history, "try", "bisam-log-noise20-seed0", "smoke", tmp_path)
    return tmp_path


def test_evidence_is_what_belongs_to_the_experiment_as_it_is_described(ledger_folder):
    assert list(ledger.evidence("try", ledger_folder)) == ["bisam-log-noise20-seed0"]
    claims = ledger_folder / "claims.toml"
    claims.write_text(claims.read_text().replace("rho = 0.05", "rho = 0.2"))
    with pytest.raises(LedgerError, match=r"bisam-log-noise20-seed0\.json is no run of try as claims\.toml describes it now"):
        ledger.evidence("try", ledger_folder)


def test_evidence_from_other_data_is_refused(ledger_folder):
    path = ledger_folder / "runs" / "try" / "bisam-log-noise20-seed0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_fingerprint": "other"}))
    with pytest.raises(LedgerError, match="another schema or other data"):
        ledger.evidence("try", ledger_folder)


def test_an_unknown_experiment_and_a_broken_list_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"experiment must be one of first_run, .*; got 'frist_run'"):
        ledger.claims("frist_run")
    (tmp_path / "claims.toml").write_text("[experiment")
    with pytest.raises(LedgerError, match=r"claims\.toml cannot be read"):
        ledger.experiments(tmp_path)


@pytest.mark.parametrize("wrong", [{"metric": "lst_test"}, {"ours": "samm"}])
def test_a_claim_about_something_unknown_is_refused(wrong):
    fields = dict(id="c", experiment="e", statement="s.", ours="sam", theirs="sgd", label_noise=0.0, metric="last_test_accuracy")
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be one of"):
        ledger.Claim(**(fields | wrong))


@pytest.mark.parametrize("path, value, message", [
    (("final", "last_test_accuracy"), None, "final must hold a finite number as last_test_accuracy, got None"),
    (("final", "selected_epoch"), float("nan"), "final must hold a finite number as selected_epoch, got nan"),
    (("curve", "test_accuracy"), [90.0], "curve must hold 2 finite numbers as test_accuracy, one an epoch"),
    (("curve", "train_loss"), [1.0, "2"], "curve must hold 2 finite numbers as train_loss"),
    (("environment",), [], "environment must be an object, got list"),
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
