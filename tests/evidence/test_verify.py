"""A whole ledger is looked through: each kind of fault is planted in a sound one, and is found where it lies."""

import io
import json
import os
import shutil

import pytest
import records

from bisam.axes.radius import Constant
from bisam.cli import main
from bisam.evidence import listing
from bisam.evidence.places import LedgerError
from bisam.evidence.verify import training, verify
from bisam.methods.lets import Learned
from bisam.methods.table import SAM as SAM_
from bisam.training import Run

TOML = """
[family.f]
title = "t"
why = "w"

[experiment.one]
title = "One"
scale = "laptop"
methods = ["sgd", "sam"]
seeds = 2
epochs = 2
rho = 0.1
label_noise = [0.4]
settings = { data = "digits", model = "mlp" }

[experiment.two]
title = "Two"
scale = "smoke"
schema = 2
methods = ["sam"]
seeds = 3
epochs = 3
settings = { data = "folder:away", model = "mlp", train_images = 100 }

[[claim]]
id = "one/sam"
experiment = "one"
statement = "SAM is more accurate than SGD."
ours = "sam"
theirs = "sgd"
metric = "last_test_accuracy"
label_noise = 0.4
"""
SAM = "runs/one/sam-noise40-seed0.json"
TWO = "runs/two/sam-seed0.json"


@pytest.fixture
def folder(tmp_path):
    """A sound ledger of two experiments."""
    home = tmp_path / "ledger"
    home.mkdir()
    (home / "claims.toml").write_text(TOML)
    (home / "README.md").write_text("What this is.")
    for name, plan in listing.experiments(home).items():
        (home / "runs" / name).mkdir(parents=True)
        for k, (file, run) in enumerate(plan.runs().items()):
            found = records.sound(run, 90.0 + 0.2 * k, plan.schema, name, plan.scale)
            if name == "two":
                found["data_fingerprint"] = "a" * 16
            (home / "runs" / name / f"{file}.json").write_text(json.dumps(found))
    return home


def put(folder, path, **parts):
    """Changes parts of a record: a dictionary is merged into the part, another value replaces it."""
    record = json.loads((folder / path).read_text())
    for part, value in parts.items():
        record[part] = {**record[part], **value} if isinstance(value, dict) else value
    (folder / path).write_text(json.dumps(record))


def text(folder, path, old, new):
    content = (folder / path).read_text()
    assert old in content
    (folder / path).write_text(content.replace(old, new, 1))


def copied(folder, source, target, **parts):
    shutil.copy(folder / source, folder / target)
    put(folder, target, **parts)


def again(folder, source, target):
    """The record of another run with the weights of this one."""
    put(folder, target, weights_digest=json.loads((folder / source).read_text())["weights_digest"])


def test_a_sound_ledger_is_sound(folder, capsys):
    found = verify(folder)
    assert found.faults == [] and (found.records, found.experiments, found.claims) == (7, 2, 1)
    assert main(["verify", str(folder)]) == 0
    assert capsys.readouterr().out == "7 records, 2 experiments, 1 claim: nothing is wrong\n"


@pytest.mark.slow
def test_the_ledger_of_the_project_is_sound(capsys):
    assert main(["verify"]) == 0
    assert capsys.readouterr().out.endswith("nothing is wrong\n")


PLANTED = {
    # the list
    "no list": (lambda f: (f / "claims.toml").unlink(), "claims.toml: cannot be read"),
    "a list that is no TOML": (lambda f: text(f, "claims.toml", "[experiment.one]", "[experiment.one"), "claims.toml: cannot be read"),
    "a typo in an experiment": (lambda f: text(f, "claims.toml", "rho = 0.1", "rh = 0.1"), "claims.toml: experiment one: 'rh' is no field"),
    "a typo in a claim": (lambda f: text(f, "claims.toml", 'metric = "last', 'metric = "lst'), "claims.toml: claim one/sam: metric must be one of"),
    "a claim off the grid": (lambda f: text(f, "claims.toml", "label_noise = 0.4", "label_noise = 0.5"), "claims.toml: claim one/sam: at says"),
    "settings that make no run together": (
        lambda f: text(f, "claims.toml", 'methods = ["sgd", "sam"]', 'methods = ["sgd", "sam"]\nradius = { sam = 1e400 }'), "claims.toml: experiment one: radius"),
    # files
    "a stray file": (lambda f: (f / "runs" / "notes.txt").write_text(""), "runs/notes.txt: is no file of a ledger"),
    "a stray file beside the list": (lambda f: (f / "old.toml").write_text(""), "old.toml: is no file of a ledger"),
    "a stray file beside records": (lambda f: (f / "runs/one/plot.png").write_text(""), "runs/one/plot.png: is no file of a ledger"),
    "measured rows that are none": (
        lambda f: ((f / "measured").mkdir(), (f / "measured/climbs.json").write_text("{}")), "measured/climbs.json: ",
    ),
    "predictions that are none": (
        lambda f: ((f / "measured").mkdir(), (f / "measured/predictions.toml").write_text("")), "measured/predictions.toml: ",
    ),
    "a stray file beside measured rows": (
        lambda f: ((f / "measured").mkdir(), (f / "measured/notes.txt").write_text("")), "measured/notes.txt: is no file of a ledger",
    ),
    "a draft": (lambda f: (f / "runs/one/.x.json.7-0123456789abcdef.part").write_text("{"), "runs/one/.x.json.7-0123456789abcdef.part: was left behind"),
    "a lock": (lambda f: (f / "runs/one/x.lock").write_text(""), "runs/one/x.lock: was left behind"),
    "a copy of an editor": (lambda f: (f / "runs/one/x.json~").write_text(""), "runs/one/x.json~: was left behind"),
    "a folder among records": (lambda f: (f / "runs/one/deep.json").mkdir(), "runs/one/deep.json: is a folder where none belongs"),
    "a link": (lambda f: os.symlink(f / SAM, f / "runs/one/link.json"), "runs/one/link.json: is a link"),
    "a dead link": (lambda f: os.symlink("nowhere", f / "runs/one/dead.json"), "runs/one/dead.json: is a link"),
    "a linked folder": (lambda f: os.symlink(f / "runs/one", f / "runs/linked"), "runs/linked: is a link"),
    "an empty folder": (lambda f: (f / "runs/empty").mkdir(), "runs/empty: holds no record"),
    "a folder of no experiment": (lambda f: shutil.copytree(f / "runs/one", f / "runs/three"), "runs/three: is no experiment of claims.toml"),
    "a name with an escape": (lambda f: (f / "runs/one/a\x1b[31m.json").write_text("{}"), r"runs/one/'a\x1b[31m.json': the name must be letters"),
    "a folder with a bad name": (lambda f: (f / "runs/a b").mkdir(), "runs/a b: the name must be letters"),
    "runs is a file": (lambda f: (shutil.rmtree(f / "runs"), (f / "runs").write_text("")), "runs: is no folder"),
    # one record
    "an empty file": (lambda f: (f / SAM).write_text(""), f"{SAM}: is no JSON"),
    "half a file": (lambda f: (f / SAM).write_text((f / SAM).read_text()[:500]), f"{SAM}: is no JSON"),
    "bytes": (lambda f: (f / SAM).write_bytes(b"\xff\xfe"), f"{SAM}: is no JSON"),
    "a key twice": (lambda f: text(f, SAM, '"scale"', '"schema": 3, "scale"'), f"{SAM}: is no JSON: the key 'schema' is there twice"),
    "NaN": (lambda f: put(f, SAM, final={"broken": float("nan")}), f"{SAM}: is no JSON: NaN"),
    "400 digits": (lambda f: text(f, SAM, '"skipped": 0', f'"skipped": {"9" * 400}'), f"{SAM}: is no JSON: a number of 400 digits"),
    "depth": (lambda f: (f / SAM).write_text("[" * 100_000), f"{SAM}: is no JSON: it is nested too deeply"),
    "no object": (lambda f: (f / SAM).write_text("[]"), f"{SAM}: it must be an object"),
    "a field that is missing": (lambda f: put(f, SAM, environment=None), f"{SAM}: environment must be an object"),
    "a field too many": (lambda f: put(f, SAM, note="mine"), f"{SAM}: holds 'note', which no record has"),
    "150 percent": (lambda f: put(f, SAM, final={"last_test_accuracy": 150.0}), f"{SAM}: final.last_test_accuracy must be at most 100"),
    "a final that is not the curve's": (lambda f: put(f, SAM, final={"selected_epoch": 2}), f"{SAM}: final.selected_epoch is 2, but the curve says 1"),
    "bits that are not the accuracy's": (lambda f: text(f, SAM, '"last": "//', '"last": "/A'), f"{SAM}: final.last_test_accuracy is 90.2, but right.last"),
    "a curve that is short": (lambda f: put(f, SAM, curve={"lr": [0.1]}), f"{SAM}: curve.lr must hold 2 numbers"),
    "a run of no method": (lambda f: put(f, SAM, run={"model": "mlpp"}), f"{SAM}: run describes no run of this version: model"),
    "no processor": (lambda f: text(f, SAM, '"processor"', '"prozessor"'), f"{SAM}: environment lacks processor"),
    # a record in its experiment
    "the folder of another": (lambda f: put(f, SAM, experiment="two"), f"{SAM}: experiment is two, but the record lies in the folder of one"),
    "another scale": (lambda f: put(f, SAM, scale="paper"), f"{SAM}: says scale paper, but one is of scale laptop"),
    "another radius": (lambda f: text(f, SAM, '"rho": 0.1', '"rho": 0.2'), f"{SAM}: is no run of one as claims.toml describes it now"),
    "another name": (lambda f: (f / SAM).rename(f / "runs/one/sam-noise40-seed9.json"), "runs/one/sam-noise40-seed9.json: is no run of one"),
    "names exchanged": (lambda f: [(f / SAM).rename(f / "x"), (f / "runs/one/sgd-noise40-seed0.json").rename(f / SAM), (f / "x").unlink()], f"{SAM}: is no run of one"),
    "an earlier schema among later ones": (
        lambda f: (f / SAM).write_text(json.dumps(records.sound(listing.experiment("one", f).runs()["sam-noise40-seed0"], 90.2, 2, "one", "laptop"))),
        f"{SAM}: was made with another schema or other data"),
    "a later schema among earlier ones": (lambda f: text(f, "claims.toml", "schema = 2", "schema = 3"), f"{TWO}: was made with another schema"),
    "other digits": (lambda f: put(f, SAM, data_fingerprint="0" * 16), f"{SAM}: was made with another schema or other data"),
    # records beside each other
    "other data than the others": (lambda f: put(f, TWO, data_fingerprint="b" * 16), f"{TWO}: data_fingerprint is {'b' * 16}, but 2 of 3 records"),
    "a copy with another seed": (lambda f: again(f, SAM, "runs/one/sam-noise40-seed1.json"), f"runs/one/sam-noise40-seed1.json: has the weights of {SAM}, bit for bit"),
    "a copy as another method": (lambda f: again(f, SAM, "runs/one/sgd-noise40-seed0.json"), "runs/one/sgd-noise40-seed0.json: has the weights of "),
    "a curve with another seed": (
        lambda f: put(f, "runs/one/sgd-noise40-seed1.json", **{part: json.loads((f / "runs/one/sgd-noise40-seed0.json").read_text())[part] for part in ("curve", "final", "right")}),
        "runs/one/sgd-noise40-seed1.json: has the curve of runs/one/sgd-noise40-seed0.json in all 4 epochs, though the seeds differ"),
    "another schedule": (lambda f: put(f, SAM, curve={"lr": [0.1, 0.1]}), f"{SAM}: curve.lr is 0.1 at epoch 2, but run.lr and run.epochs say 0.05000"),
    "a copy in another experiment": (lambda f: again(f, SAM, TWO), f"{TWO}: has the weights of {SAM}, bit for bit, though"),
}  # fmt: skip
assert len(PLANTED) >= 25


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_where_it_lies(name, folder, capsys):
    plant, message = PLANTED[name]
    plant(folder)
    found = verify(folder)
    assert any(line.startswith(message) for line in found.faults), found.faults
    assert all(line.isprintable() for line in found.faults)
    assert main(["verify", str(folder)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:-1] == found.faults and lines[-1] == str(found) and "fault" in lines[-1]


def test_all_faults_are_found_in_one_go(folder):
    chosen = ["a typo in a claim", "a stray file", "a draft", "half a file", "a later schema among earlier ones"]
    for name in chosen:
        PLANTED[name][0](folder)
    found = verify(folder)
    assert all(any(line.startswith(PLANTED[name][1]) for line in found.faults) for name in chosen)
    assert len(found.faults) == 4 + 3  # three records of the second experiment have the wrong schema
    assert found.records == 7


def test_several_faults_of_one_record_are_all_said(folder):
    put(folder, SAM, final={"last_test_accuracy": 150.0, "skipped": -1}, weights_digest="none")
    assert len(verify(folder).faults) == 3


def test_an_experiment_that_is_described_wrongly_does_not_make_its_records_strangers(folder):
    text(folder, "claims.toml", "seeds = 2", "seeds = 0")
    assert verify(folder).faults == ["claims.toml: experiment one: seeds must be at least 1, got 0"]


def test_two_records_of_one_training_may_share_their_bits(folder):
    more = "[experiment.three]" + TOML.split("[experiment.one]")[1].split("[experiment.two]")[0]
    more = more.replace('model = "mlp"', 'model = "mlp", validation_noise = true')
    (folder / "claims.toml").write_text(TOML + more)
    plan = listing.experiment("three", folder)
    (folder / "runs" / "three").mkdir()
    for k, (file, run) in enumerate(plan.runs().items()):
        found = records.sound(run, 90.0 + 0.2 * k, 3, "three", "laptop")
        found["weights_digest"] = json.loads((folder / "runs" / "one" / f"{file}.json").read_text())["weights_digest"]
        (folder / "runs" / "three" / f"{file}.json").write_text(json.dumps(found))
    assert verify(folder).faults == []


@pytest.mark.parametrize("one, other, same", [
    ({"recipe": SAM_.replace(radius=Learned(0.1, 0.0))}, {"recipe": SAM_.replace(radius=Constant(0.1))}, True),
    ({"recipe": SAM_.replace(radius=Learned(0.1, 0.5))}, {"recipe": SAM_.replace(radius=Constant(0.1))}, False),
    ({"recipe": SAM_.replace(radius=Constant(0.0))}, {"recipe": "sgd"}, True), ({"recipe": "sam"}, {"recipe": "sgd"}, False),
    ({"noise_reading": "any"}, {"noise_reading": "other"}, True), ({"test_images": 100}, {}, True), ({"seed": 1}, {}, False),
    ({"noise_reading": "any", "label_noise": 0.4}, {"noise_reading": "other", "label_noise": 0.4}, False),
])  # fmt: skip
def test_what_leaves_the_weights_as_they_are(one, other, same):
    assert (training(Run(**one)) == training(Run(**other))) == same


def test_few_epochs_and_other_methods_may_agree(folder):
    one, other = ("runs/one/sam-noise40-seed0.json", "runs/one/sam-noise40-seed1.json")
    put(folder, other, **{part: json.loads((folder / one).read_text())[part] for part in ("curve", "final", "right")})
    assert verify(folder).faults == []  # two epochs


@pytest.mark.parametrize("listing", [False, True], ids=["nothing is allowed", "listing is allowed"])
@pytest.mark.parametrize("locked", ["", "runs", "runs/one", "runs/two"])
def test_a_folder_that_cannot_be_entered_is_a_fault_among_others(locked, listing, folder, monkeypatch, capsys):
    (folder / "old.toml").write_text("")
    (folder / "runs" / "three").mkdir()
    home = str(folder / locked)

    def guarded(real, within):
        def answer(path=".", *args, **options):
            if isinstance(path, str | os.PathLike) and (str(path).startswith(f"{home}/") if within else str(path) == home):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *args, **options)

        return answer

    for module, name in ((os, "stat"), (os, "lstat"), (os, "open"), (io, "open")):
        monkeypatch.setattr(module, name, guarded(getattr(module, name), True))
    if not listing:
        for name in ("listdir", "scandir"):
            monkeypatch.setattr(os, name, guarded(getattr(os, name), False))
    code = main(["verify", str(folder)])
    lines = capsys.readouterr().out.splitlines()
    monkeypatch.undo()
    assert code == 1 and any("cannot be read: Permission denied" in line for line in lines)
    if locked:
        assert "old.toml: is no file of a ledger" in lines
        assert any(line.startswith(f"{locked}: cannot" if not listing else f"{locked}/") for line in lines)
    if locked in ("runs/one", "runs/two"):
        assert "runs/three: holds no record" in lines and lines[-1].startswith("3 rec" if locked == "runs/one" else "4 rec")


def test_a_folder_that_is_not_there_is_named(tmp_path, capsys):
    with pytest.raises(LedgerError, match="nowhere is no folder with a ledger"):
        verify(tmp_path / "nowhere")
    assert main(["verify", str(tmp_path / "nowhere")]) == 1 and "is no folder with a ledger" in capsys.readouterr().err


def test_an_empty_folder_has_no_list(tmp_path):
    assert verify(tmp_path).faults == ["claims.toml: cannot be read: No such file or directory"]


def test_verify_changes_nothing(folder):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    verify(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
