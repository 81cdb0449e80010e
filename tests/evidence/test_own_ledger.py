"""A ledger of one's own: the same plan with other settings, and no record under a plan that it does not fit."""

import dataclasses
import json

import pytest

from bisam.cli import main
from bisam.evidence import experiment, ledger, own_ledger, plans, record, reproduce
from bisam.evidence.listing import listed
from bisam.evidence.own_ledger import check_planned, derive
from bisam.evidence.places import RESULTS, LedgerError
from bisam.evidence.plans import plan
from bisam.evidence.verify import verify
from bisam.training import Run

TOML = """
[family.f]
title = "Is it \\"better\\" \\\\ at all?"
why = "w"

[experiment.try]
title = "A few runs"
scale = "laptop"
tables = ["T9"]
methods = ["sgd", "sam", "bisam-log"]
axes = { label_noise = [0.0, 0.4], "lr" = [0.05] }
radius = { bisam-log = 2e-1 }
seeds = 1
epochs = 1
schema = 2
stopped = "The rest was not run."
settings = { data = "digits", model = "mlp", weight_decay = 1e-05 }

[experiment.both]
title = "An axis of precision"
scale = "paper"
tables = ["T1"]
methods = ["sam"]
axes = { precision = ["float32", "bfloat16"] }
seeds = 1
epochs = 1
settings = { data = "digits", model = "mlp" }

[[claim]]
id = "try/log"
experiment = "try"
statement = "BiSAM is “better”."
ours = "bisam-log"
theirs = "sam"
metric = "last_test_accuracy"
at = { label_noise = 0.4 }
over = ["lr"]
family = "f"

[[claim]]
id = "both/sam"
experiment = "both"
statement = "Precision does no harm."
ours = "sam"
theirs = "sam"
metric = "last_test_accuracy"
at = { precision = "bfloat16" }
against = { precision = "float32" }
"""


@pytest.fixture
def results(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "claims.toml").write_text(TOML)
    return tmp_path / "results"


@pytest.mark.parametrize("settings", [{}, {"precision": "bfloat16"}, {"precision": "bfloat16", "compile": "default"}])
def test_the_whole_list_of_the_project_comes_back_with_the_settings(settings, tmp_path):
    assert derive(tmp_path / "new", settings) == []
    here, there = listed(tmp_path / "new"), listed(RESULTS)
    assert here.faults == [] and here.entries["claim"] == there.entries["claim"] and here.entries["family"] == there.entries["family"]
    assert list(here.entries["experiment"]) == list(there.entries["experiment"])
    for name, one in there.entries["experiment"].items():
        wanted = dataclasses.replace(one, settings={**one.settings, **settings}, stopped="", schema=record.SCHEMA)
        assert here.entries["experiment"][name] == wanted
    assert verify(tmp_path / "new").faults == []


def test_what_cannot_be_so_is_left_out_with_its_claims_and_named(results, tmp_path):
    assert derive(tmp_path / "new", {"precision": "bfloat16"}, ["try"], results) == ["both"]
    text = (tmp_path / "new" / "claims.toml").read_text()
    assert "Changed in all of them: precision bfloat16." in text and "# Left out: both, for precision is an axis of both." in text
    found = listed(tmp_path / "new")
    assert found.faults == [] and list(found.entries["experiment"]) == ["try"] and [claim.id for claim in found.entries["claim"]] == ["try/log"]
    assert found.entries["family"] == listed(results).entries["family"]
    with pytest.raises(ValueError, match="compile no and precision float32 cannot be set for both: precision is an axis of both"):
        derive(tmp_path / "other", {"compile": "no", "precision": "float32"}, ["both"], results)
    assert not (tmp_path / "other").exists() and derive(tmp_path / "other", {}, ["both"], results) == []


def test_a_folder_that_holds_other_things_is_left_alone(results, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    with pytest.raises(ValueError, match=r"folder must be a new or an empty one, or a ledger with its claims.toml; .*photos holds other things"):
        derive(tmp_path / "photos", {"precision": "bfloat16"}, [], results)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_a_method_that_refuses_a_setting_is_left_out(results, tmp_path, monkeypatch):
    refused = experiment.Experiment.runs

    def runs(self):
        if self.settings.get("compile") == "default" and "bisam-log" in self.methods:
            raise ValueError("bisam-log cannot be\ncompiled")
        return refused(self)

    monkeypatch.setattr(experiment.Experiment, "runs", runs)
    assert derive(tmp_path / "new", {"compile": "default"}, ["both"], results) == ["try"]
    assert "# Left out: try, for bisam-log cannot be compiled." in (tmp_path / "new" / "claims.toml").read_text()


def test_a_list_that_is_there_is_kept(results, tmp_path):
    before = (results / "claims.toml").read_bytes()
    derive(results, {"precision": "bfloat16"})
    assert (results / "claims.toml").read_bytes() == before
    (results / "claims.toml").write_text(TOML.replace("seeds = 1", "seeds = 0"))
    with pytest.raises(LedgerError, match="seeds must be at least 1"):
        derive(tmp_path / "new", {}, [], results)


@pytest.mark.parametrize("settings, message", [
    ({"lr": 1}, "a name among the settings must be one of precision, compile; got 'lr'"),
    ({"precision": "float8"}, "precision must be one of float32, bfloat16; got 'float8'"), ({"compile": 1}, "compile must be one of no, default"),
])  # fmt: skip
def test_other_settings_are_refused(settings, message, tmp_path):
    for function in (lambda: derive(tmp_path / "new", settings), lambda: check_planned([], settings)):
        with pytest.raises(ValueError, match=message):
            function()
    assert not (tmp_path / "new").exists()


def test_settings_that_may_be_replaced_are_fields_of_a_run():
    assert all(values and {getattr(Run(**{name: value}), name) for value in values} == set(values) for name, values in own_ledger.SETTINGS.items())


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(results, monkeypatch):
    """The command takes the ledger of this test for that of the project."""
    for function in (plan, plans.Settings.__init__):
        monkeypatch.setattr(function, "__defaults__", tuple(results if value == RESULTS else value for value in function.__defaults__))
    return results


def test_another_setting_needs_a_ledger_of_its_own(project, tmp_path, capsys):
    words = ["reproduce", "try", "--precision", "bfloat16"]
    assert main(words) == 2
    said = capsys.readouterr()
    assert "precision must be float32 for try" in said.err and "--ledger FOLDER" in said.err and not said.out and not (project / "runs").exists()
    assert main([*words, "--ledger", str(tmp_path / "mine")]) == 0
    capsys.readouterr()
    records = sorted((tmp_path / "mine" / "runs" / "try").iterdir())
    assert len(records) == 6 and not (project / "runs").exists()
    assert {json.loads(path.read_text())["run"]["precision"] for path in records} == {"bfloat16"}
    assert verify(tmp_path / "mine").faults == [] and len(ledger.evidence("try", tmp_path / "mine")) == 6
    assert main([*words, "--ledger", str(tmp_path / "mine")]) == 0 and "6 of 6 runs recorded" in capsys.readouterr().out
    assert main(["reproduce", "try", "--precision", "float32", "--ledger", str(tmp_path / "mine")]) == 2
    assert "precision must be bfloat16 for try" in capsys.readouterr().err
    assert main(["report", "try", "--ledger", str(tmp_path / "mine")]) == 0 and "try/log" in capsys.readouterr().out


def test_the_planned_setting_may_be_said_and_needs_no_other_ledger(project, capsys):
    assert main(["reproduce", "T9", "--precision", "float32", "--compile", "no", "--plan"]) == 0
    assert "try: 0 of 6" in capsys.readouterr().out


@pytest.mark.parametrize("looks_only", [["--plan"], ["--export"]], ids=str)
def test_a_ledger_that_is_only_looked_at_is_not_made(looks_only, project, tmp_path, capsys):
    words = ["reproduce", "T9", "--precision", "bfloat16", "--ledger", str(tmp_path / "mine"), *looks_only]
    assert main([*words, str(tmp_path / "files")] if looks_only == ["--export"] else words) == 0
    capsys.readouterr()
    assert not (tmp_path / "mine").exists() and (tmp_path / "files").exists() == (looks_only == ["--export"])


@pytest.mark.parametrize("words, message", [
    (["reproduce", "T77"], "name must be one of"), (["reproduce", "try", "--only", "x"], "only must be"),
    (["reproduce", "both"], "precision bfloat16 cannot be set for both"), (["reproduce", "try", "--compile", "x"], "compile must be one of"),
])  # fmt: skip
def test_a_wrong_word_makes_no_ledger(words, message, project, tmp_path, capsys):
    status = 0
    try:
        status = main([*words, "--precision", "bfloat16", "--ledger", str(tmp_path / "mine")])
    except SystemExit as end:
        status = end.code
    assert status == 2 and message in capsys.readouterr().err and not (tmp_path / "mine").exists()


def test_checkpoints_lie_beside_another_ledger_or_where_they_are_told_to(project, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(reproduce, "carry_out", lambda planned, settings: seen.append(settings) or dict.fromkeys(("recorded", "cut", "elsewhere", "failed"), ()))
    monkeypatch.chdir(tmp_path)
    main(["reproduce", "try", "--ledger", "mine"])
    main(["reproduce", "try", "--ledger", "mine", "--checkpoints", "kept"])
    main(["reproduce", "try", "--checkpoints", "kept"])
    main(["reproduce", "try", "--ledger", "results", "--workers", "2"])  # the project's own, by another path
    places = [(str(one.folder), str(one.checkpoints)) for one in seen]
    assert places == [("mine", str(tmp_path / "mine-checkpoints")), ("mine", "kept"), (str(project), "kept"), (str(project), str(plans.CHECKPOINTS))]
    assert [one.workers for one in seen] == [1, 1, 1, 2]
