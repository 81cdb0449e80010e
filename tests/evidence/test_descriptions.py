"""Runs as files: what a file may hold, what goes before it, and the same weights from the file alone."""

import dataclasses
import json
import math

import pytest
import torch

import bisam
from bisam import RECIPES
from bisam._kinds import KINDS
from bisam.cli import main
from bisam.evidence import descriptions, ledger, listing, places, plans
from bisam.evidence.descriptions import changed, export, read, recipe_from, value_of
from bisam.evidence.plans import Settings
from bisam.evidence.reproduce import carry_out
from bisam.training import Run, fit

RECORD = places.RESULTS / "runs" / "first_run" / "sam-noise40-seed0.json"
PLAN = """
[experiment.try]
title = "A few runs"
scale = "laptop"
tables = ["T9"]
methods = ["sgd", "bisam-log"]
axes = { label_noise = [0.4] }
seeds = 1
epochs = 2
rho = 0.1
budget = "epochs"
settings = { data = "digits", model = "mlp", batch_size = 100, lr = 0.1 }
"""


def said(capsys, *words):
    status = main(list(words))
    return status, capsys.readouterr()


# -- files ------------------------------------------------------------------------------------------------------------


def test_every_field_and_every_recipe_comes_back_from_a_file(tmp_path):
    odd = {"epochs": 3, "lr": 0.05, "train_images": 200, "channels_last": True, "data": "cifar10", "augment": "crop-flip", "seed": 2**60}
    for k, method in enumerate(RECIPES.values()):
        run = Run(recipe=method, **(odd if k % 2 else {}))
        path = tmp_path / f"{k}.json"
        path.write_text(json.dumps(run.to_dict()))
        assert read(path).run() == run and read(path).threads is None


@pytest.mark.parametrize("text, wanted", [
    ('recipe = "asam"', bisam.ASAM),
    ('[recipe]\nname = "bisam-log"\nrho = 0.2\nascent.mu = 2', bisam.BISAM_LOG.with_rho(0.2).replace(ascent=bisam.Surrogate(bisam.NegLog(), mu=2.0))),
    ('recipe = { name = "sam", descent = { smoothing = 0.1 }, geometry = "Adaptive" }', bisam.SAM.replace(
        descent=bisam.CrossEntropy(0.1), geometry=bisam.Adaptive())),
    ('recipe = { name = "sam", geometry = { kind = "Lp", p = inf } }', bisam.SAM.replace(geometry=bisam.Lp(math.inf))),
    ("", bisam.SAM),
])  # fmt: skip
def test_a_recipe_is_a_name_or_changes_to_a_named_one(text, wanted, tmp_path):
    (tmp_path / "x.toml").write_text(text)
    assert read(tmp_path / "x.toml").run().recipe == wanted


def test_a_record_and_a_history_are_descriptions(tmp_path, capsys):
    found = read(RECORD)
    assert found.run() == Run.from_dict(json.loads(RECORD.read_text())["run"]) and found.threads == 1
    status, _ = said(capsys, "train", "--model", "mlp", "--epochs", "1", "--mu", "2", "--recipe", "bisam-log", "--threads", "1", "--output", str(tmp_path))
    assert status == 0
    history = read(tmp_path / "history.json")
    assert history.run().recipe.ascent.mu == 2 and history.threads == 1


def test_a_record_that_contradicts_itself_is_no_description(tmp_path):
    entry = json.loads(RECORD.read_text())
    entry["final"]["last_test_accuracy"] += 1
    (tmp_path / "x.json").write_text(json.dumps(entry))
    with pytest.raises(ValueError, match=r"x\.json: final\.last_test_accuracy is"):
        read(tmp_path / "x.json")


@pytest.mark.parametrize("name, text, message", [
    ("x.yaml", "", r"the ending of .*x\.yaml must be one of \.json, \.toml; got '\.yaml'"),
    ("x.json", "{", r"x\.json: Expecting"), ("x.toml", "a =", r"x\.toml: Invalid value"), ("x.json", "[1]", "it must be the fields of a run"),
    ("x.json", '{"lr": 1, "lr": 2}', "the key 'lr' is there twice"), ("x.json", '{"lr": NaN}', "NaN is no number"),
    ("x.toml", "lrr = 0.1", "a name among the fields must be one of recipe, data, .*; got 'lrr'"),
    ("x.toml", 'recipe = "samm"', "recipe must be one of .*; got 'samm'"), ("x.toml", "recipe = 5", "recipe must be the name of a recipe, changes"),
    ("x.toml", "recipe = { rho = 0.1 }", "recipe must be one of .*; got None"),
    ("x.toml", 'recipe = { name = "sgd", rho = 0.1 }', "rho must be 0 for the recipe sgd, got 0.1"),
    ("x.toml", 'recipe = { name = "sam", ascent = { mu = 2 } }', "ascent.mu cannot be set, for ascent of the recipe sam is none"),
    ("x.toml", 'recipe = { name = "sam", smoothing = 2 }', "smoothing cannot be set: the recipe sam has name, ascent, descent, .*; got 'smoothing'"),
    ("x.toml", 'recipe = { name = "sam", descent.smoothing = 2 }', r"smoothing must be in \[0, 1\)"),
    ("x.toml", "run = { lr = 0.1 }\nlr = 0.2", "a name beside run must be one of run, threads, .*; got 'lr'"),
    ("x.toml", "run = { lr = 0.1 }\nthreads = 0", "threads must be at least 1"), ("x.toml", "run = 5", "run must be a dictionary"),
    ("x.toml", "a = " + "[" * 20000, "x.toml: "),
])  # fmt: skip
def test_what_is_wrong_in_a_file_is_named_with_the_file(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises((TypeError, ValueError), match=message):
        read(tmp_path / name).run()


def test_a_file_that_is_not_there_or_too_large_is_named(tmp_path, capsys, monkeypatch):
    status, out = said(capsys, "train", "--from", str(tmp_path / "x.json"), "--output", str(tmp_path / "out"))
    assert (status, out.err) == (1, f"bisam: {tmp_path / 'x.json'}: No such file or directory\n") and not (tmp_path / "out").exists()
    (tmp_path / "x.json").write_text("{}" + " " * 100)
    monkeypatch.setattr("bisam.evidence.record.LARGEST", 100)
    with pytest.raises(ValueError, match="has 102 bytes, and a description has at most 100"):
        read(tmp_path / "x.json")


# -- parts of a recipe ------------------------------------------------------------------------------------------------


def leaves(choices, path=()):
    for name, part in choices.items():
        if isinstance(part, dict):
            yield from leaves(part, (*path, name))
        elif name != "kind":
            yield ".".join((*path, name)), part


def test_every_part_of_every_recipe_can_be_set_by_its_name():
    for name, recipe in RECIPES.items():
        found = dict(leaves(recipe.to_dict()))
        assert changed(recipe, found) == recipe and {"radius.rho", "radius.rhos"} & set(found), name
        renamed = changed(recipe, {"same_noise": not found["same_noise"], "name": "other"})
        assert renamed == recipe.replace(name="other", same_noise=not found["same_noise"]), name


def test_a_part_may_be_set_by_its_kind_alone_and_a_name_stays_text():
    assert changed(bisam.SAM, {"geometry": "Adaptive", "name": "Adaptive"}) == bisam.SAM.replace(geometry=bisam.Adaptive(), name="Adaptive")
    assert recipe_from(bisam.ASAM.to_dict()) == bisam.ASAM and KINDS["Adaptive"] is bisam.Adaptive


@pytest.mark.parametrize("text, value", [
    ("2", 2), ("-0.5", -0.5), ("true", True), ("null", None), ("none", None), ("inf", math.inf), ('"2"', "2"), ("[1, 2]", [1, 2]), ("L2", "L2"),
    ("{kind = 'L2'}", {"kind": "L2"}), ('{"kind": "L2"}', {"kind": "L2"}), ("1\ny = 2", "1\ny = 2"), ("", ""), ("[" * 9000, "[" * 9000),
])  # fmt: skip
def test_values_are_json_or_toml_or_text(text, value):
    assert value_of(text) == value and type(value_of(text)) is type(value)


# -- the command ------------------------------------------------------------------------------------------------------


def history_of(capsys, folder, *words):
    status, out = said(capsys, "train", *words, "--output", str(folder))
    assert status == 0, out.err
    return json.loads((folder / "history.json").read_text())


def test_options_go_before_the_file_and_nothing_else_of_it_changes(tmp_path, capsys):
    file = tmp_path / "x.toml"
    file.write_text('model = "mlp"\nepochs = 1\nlr = 0.05\nchannels_last = true\ntrain_images = 5000\nrecipe = { name = "bisam-tanh", rho = 0.2 }')
    words = ["--from", str(file), "--train-images", "all", "--no-channels-last", "--seed", "3", "--smoothing", "0.1", "--mu", "2", "--alpha", "0.2"]
    found = Run.from_dict(history_of(capsys, tmp_path, *words, "--set", "start={kind='RandomStart', scale=0.1}")["run"])
    method = bisam.BISAM_TANH.with_rho(0.2).replace(
        descent=bisam.CrossEntropy(0.1), ascent=bisam.Surrogate(bisam.Tanh(0.2), mu=2.0), start=bisam.RandomStart(0.1))  # fmt: skip
    assert found == Run(recipe=method, model="mlp", epochs=1, lr=0.05, seed=3)


def test_an_option_with_the_value_of_the_default_goes_before_the_file_too(tmp_path, capsys):
    (tmp_path / "x.toml").write_text('model = "mlp"\nepochs = 1\nlr = 0.05\nrecipe = "asam"')
    found = history_of(capsys, tmp_path, "--from", str(tmp_path / "x.toml"), "--lr", "0.1", "--recipe", "sam")["run"]
    assert Run.from_dict(found) == Run(recipe="sam", model="mlp", epochs=1)


@pytest.mark.parametrize("words, message", [
    (["--set", "ascent.mu"], "set must be PART=VALUE, such as ascent.mu=2; got 'ascent.mu'"), (["--set", "=2"], "set must be PART=VALUE"),
    (["--set", "ascent.mu=2", "--mu", "2"], "ascent.mu must be set once"), (["--set", "ascent.mu=2", "--set", "ascent.mu=2"], "ascent.mu must be set once"),
    (["--set", "radius.rho=2", "--rho", "2"], "radius.rho must be set once"), (["--set", "ascent.mu=x"], "mu must be a real number, not 'x'"),
    (["--recipe", "sam", "--mu", "2"], "ascent.mu cannot be set, for ascent of the recipe sam is none"),
    (["--set", "ascent.nu=2"], "ascent of the recipe bisam-log has phi, mu; got 'nu'"), (["--alpha", "2"], "phi of the recipe bisam-log has gamma"),
    (["--threads", "0"], "threads must be at least 1, got 0"), (["--set", "geometry=Adaptive", "--set", "geometry={kind='L3'}"], "geometry must be set once"),
    (["--set", "geometry={kind='L3'}"], "kind must be one of"), (["--set", "radius={kind='L2'}"], "radius must be a radius such as Constant"),
])  # fmt: skip
def test_what_cannot_be_set_is_named_before_any_work(words, message, tmp_path, capsys):
    status, out = said(capsys, "train", "--recipe", "bisam-log", *words, "--output", str(tmp_path / "out"))
    assert status == 2 and message in out.err and not (tmp_path / "out").exists()


def test_the_threads_of_a_description_are_kept_and_given_back(tmp_path, capsys, monkeypatch):
    (tmp_path / "x.toml").write_text('threads = 2\nrun = { model = "mlp", epochs = 1 }')
    seen, before = [], torch.get_num_threads()
    monkeypatch.setattr("bisam.training.fit", lambda *given, **named: (seen.append(torch.get_num_threads()), fit(*given, **named))[1])
    found = history_of(capsys, tmp_path / "a", "--from", str(tmp_path / "x.toml"))
    assert found["environment"]["threads"] == 2 and torch.get_num_threads() == before
    history_of(capsys, tmp_path / "b", "--from", str(tmp_path / "x.toml"), "--threads", "1")
    assert seen == [2, 1]


# -- a plan as files --------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger_folder(tmp_path):
    folder = tmp_path / "ledger"
    folder.mkdir()
    (folder / "claims.toml").write_text(PLAN)
    return folder


def test_a_file_of_a_plan_gives_the_weights_of_the_plan(ledger_folder, tmp_path, capsys):
    planned = plans.plan("T9", folder=ledger_folder)
    paths = export(planned, tmp_path / "files", ledger_folder)
    assert [path.relative_to(tmp_path / "files").as_posix() for path in paths] == [f"try/{one.file}.json" for one in planned]
    carry_out(planned, Settings(folder=ledger_folder, checkpoints=tmp_path / "checkpoints"), progress=False)
    torch.set_num_threads(2)
    try:
        for path in paths:
            status, out = said(capsys, "train", "--from", str(path), "--output", str(tmp_path / path.stem))
            entry = ledger.read(ledger_folder / "runs" / "try" / path.name)
            assert status == 0 and f"weights {entry['weights_digest']}\n" in out.out
    finally:
        torch.set_num_threads(1)


def test_an_exported_file_says_what_it_is_and_where_it_was_written(ledger_folder, tmp_path):
    planned = plans.plan("try", folder=ledger_folder)
    stored = json.loads(export(planned, tmp_path / "files", ledger_folder)[0].read_text())
    assert {name: stored[name] for name in ("experiment", "file", "scale", "threads")} == {
        "experiment": "try", "file": planned[0].file, "scale": "laptop", "threads": 1}  # fmt: skip
    assert stored["environment"]["threads"] == 1 and stored["environment"]["torch"] == torch.__version__


def test_a_file_that_describes_another_run_is_kept(ledger_folder, tmp_path):
    planned = plans.plan("try", folder=ledger_folder)
    first, second = export(planned, tmp_path / "files", ledger_folder)
    before = first.read_bytes()
    second.unlink()
    assert export(planned, tmp_path / "files", ledger_folder) == [first, second] and first.read_bytes() == before
    second.unlink()
    first.write_text(json.dumps(planned[0].run.replace(seed=9).to_dict()))
    with pytest.raises(ValueError, match="is there already and describes another run"):
        export(planned, tmp_path / "files", ledger_folder)
    assert not second.exists() and read(first).run().seed == 9


def test_the_command_exports_and_runs_nothing(tmp_path, capsys):
    status, out = said(capsys, "reproduce", "first_run", "--seeds", "1", "--only", "sam", "--export", str(tmp_path))
    assert status == 0 and out.out.startswith("2 runs written below")
    found = read(tmp_path / "first_run" / "sam-noise40-seed0.json").run()
    assert found == listing.experiment("first_run").runs()["sam-noise40-seed0"]
    (tmp_path / "file").write_text("")
    status, out = said(capsys, "reproduce", "first_run", "--seeds", "1", "--export", str(tmp_path / "file"))
    assert status == 1 and "cannot be written" in out.err


def test_a_description_takes_the_place_of_defaults_only_where_it_says_so():
    assert descriptions.Description().run() == Run()
    for field in dataclasses.fields(Run):
        with pytest.raises((TypeError, ValueError)):
            descriptions.Description({field.name: object()}).run()
