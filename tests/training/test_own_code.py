"""Networks and data that are not ours: found by their path, refused before work starts, and read without them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bisam.cli import main
from bisam.evidence import ledger, places, recording, reproduce
from bisam.evidence.places import LedgerError
from bisam.evidence.plans import Settings, plan
from bisam.evidence.reproduce import carry_out, rerun
from bisam.evidence.verify import verify
from bisam.training import Run, data, fit, models, own_code, weights_digest
from bisam.training.data import loading

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import torch
from torch import nn
from bisam.training.data import Data, Split

CALLS = []
SHAPES = {"here": 1}

def network(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))

class Net(nn.Linear):
    def __init__(self, shape, classes):
        super().__init__(shape[-1], classes)

def nothing(shape, classes):
    return 5

def unlike(width):
    return nn.Linear(width, 2)

def task(split_seed=0, train_images=None):
    CALLS.append((split_seed, train_images))
    draw = torch.Generator().manual_seed(split_seed)
    targets = torch.arange(60) % 3
    inputs = torch.randn(60, 1, 4, 4, generator=draw) + targets[:, None, None, None]
    parts = [Split(inputs[k::3], targets[k::3].roll(0)) for k in range(3)]
    return Data("mine", 3, *parts)

def everything(**given):
    CALLS.append(given)
    return task()

def no_task():
    return [1, 2]
"""
PLAN = """
[experiment.mine]
title = "Not ours"
scale = "laptop"
tables = ["T9"]
methods = ["sgd", "sam"]
seeds = 1
epochs = 2
settings = { data = "lab_code:task", model = "lab_code:network", batch_size = 5 }
"""


@pytest.fixture(autouse=True)
def lab(tmp_path, monkeypatch):
    """A module that can be imported in this test and in processes that it starts."""
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "lab_code.py").write_text(CODE)
    (tmp_path / "lab" / "broken_code.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path / "lab"))
    loading.own_task.cache_clear()
    own_code._source.cache_clear()
    yield
    sys.modules.pop("lab_code", None)


def mine(**changes):
    return Run(**{"data": "lab_code:task", "model": "lab_code:network", "epochs": 2, "batch_size": 5, **changes})


def test_a_run_with_both_trains_and_the_record_says_so(tmp_path):
    history = fit(mine(), tmp_path / "run.pt")
    path = recording.record(history, "mine", "one", "laptop", tmp_path)
    entry = ledger.read(path)
    assert (entry["run"]["model"], entry["run"]["data"]) == ("lab_code:network", "lab_code:task")
    assert sorted(entry["environment"]["own"]) == ["lab_code:network", "lab_code:task"] and len(entry["environment"]["own"]["lab_code:task"]) == 16
    assert weights_digest(fit(mine(), tmp_path / "run.pt").model) == entry["weights_digest"]
    found = rerun(path)
    assert found["same_bits"] and found["same_data"] and found["why"] == []


def test_another_file_is_said_when_a_record_is_run_again(tmp_path):
    path = recording.record(fit(mine()), "mine", "one", "laptop", tmp_path)
    (tmp_path / "lab" / "lab_code.py").write_text(CODE + "\n# another\n")
    own_code._source.cache_clear()
    assert "own" in rerun(path)["why"][0]


@pytest.mark.slow
def test_a_record_is_read_and_verified_where_the_package_is_not(tmp_path):
    (tmp_path / "claims.toml").write_text(PLAN)
    carry_out(plan("mine", folder=tmp_path), Settings(folder=tmp_path, checkpoints=tmp_path / "checkpoints"), progress=False)
    code = f"""
import sys
from pathlib import Path
from bisam.evidence import ledger, verify
folder = Path({str(tmp_path)!r})
assert len(ledger.evidence("mine", folder)) == 2
assert [fault for fault in verify.verify(folder).faults if "runs" in fault] == []
assert not any("lab_code" in name for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_what_a_record_says_of_its_own_code_must_fit_its_run(tmp_path):
    path = recording.record(fit(mine()), "mine", "one", "laptop", tmp_path)
    entry = json.loads(path.read_text())
    del entry["environment"]["own"]["lab_code:task"]
    path.write_text(json.dumps(entry))
    with pytest.raises(LedgerError, match=r"environment\.own must name lab_code:network, lab_code:task, as run says, got lab_code:network"):
        ledger.read(path)
    ours = json.loads((places.RESULTS / "runs" / "first_run" / "sam-noise40-seed0.json").read_text())
    ours["environment"]["own"] = {"a:b": "0"}
    path.write_text(json.dumps({**ours, "experiment": "mine"}))
    with pytest.raises(LedgerError, match=r"environment\.own must name nothing, as run says, got a:b"):
        ledger.read(path)


@pytest.mark.parametrize("changes, message", [
    ({"model": "no_such_code:f"}, r"model 'no_such_code:f' cannot be imported \(ModuleNotFoundError: No module named 'no_such_code'\)"),
    ({"model": "broken_code:f"}, r"model 'broken_code:f' cannot be imported \(ZeroDivisionError"),
    ({"model": "lab_code:f"}, "model 'lab_code:f' is not there: lab_code has no f; it has .*network"),
    ({"model": "lab_code:SHAPES"}, "model 'lab_code:SHAPES' must be a function, got .*dict"),
    ({"model": "lab_code:unlike"}, "model 'lab_code:unlike' must take the shape of a sample and the number of classes"),
    ({"model": "lab_code:nothing"}, "what model lab_code:nothing returns must be a torch.nn.Module, got 5 of type int"),
    ({"data": "no_such_code:f"}, "data 'no_such_code:f' cannot be imported"), ({"data": "lab_code:f"}, "data 'lab_code:f' is not there"),
    ({"data": "lab_code:no_task"}, r"what data 'lab_code:no_task' returns must be a bisam.training.data.Data, got \[1, 2\]"),
    ({"test_images": 5}, "test_images must be left out for data 'lab_code:task', whose function does not take it; got 5"),
    ({"pool": 2}, "pool must be left out for data 'lab_code:task'"),
])  # fmt: skip
def test_what_is_not_there_or_something_else_is_refused_before_an_epoch(changes, message, tmp_path):
    with pytest.raises((TypeError, ValueError), match=message):
        fit(mine(**changes), tmp_path / "run.pt")
    assert not (tmp_path / "run.pt").exists()


@pytest.mark.parametrize("name", ["model", "data"])
def test_a_run_that_names_it_imports_nothing_and_a_wrong_form_is_refused(name):
    assert getattr(Run(**{name: "no_such_code:f"}), name) == "no_such_code:f" and "no_such_code" not in sys.modules
    for wrong in ("lab_code", "lab_code:", ":f", "lab code:f", "lab_code:f:g", "lab_code:1", "../lab_code:f", "lab_code:f()", "", 5, None):
        with pytest.raises(ValueError, match=f"{name} must be one of .*MODULE:FUNCTION; got"):
            Run(**{name: wrong})


def test_data_get_the_arguments_that_they_take_and_are_loaded_once(tmp_path):
    import lab_code

    task = data.load("lab_code:task", split_seed=3, train_images=20)
    assert task.name == "mine" and data.load("lab_code:task", root="elsewhere", split_seed=3, train_images=20) is task
    data.load("lab_code:everything", root=tmp_path, pool=2)
    first, second, third = lab_code.CALLS
    assert first == (3, 20) and second == {"root": tmp_path, "pool": 2} and third == (0, None)


def test_a_class_and_a_part_of_it_may_be_named():
    assert isinstance(models.build("lab_code:Net", (1, 4, 4), 3), torch.nn.Linear)
    assert own_code.function("model", "lab_code:Net.forward") and models.find("lab_code:network")


# -- entry points -----------------------------------------------------------------------------------------------------


@pytest.fixture
def declared(tmp_path):
    folder = tmp_path / "lab" / "lab_code-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-code\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        "[bisam.models]\nlab-net = lab_code:network\nmlp = lab_code:nothing\nwhole = lab_code\n\n[bisam.data]\nlab-task = lab_code:task [extra]\n"
    )


def test_an_entry_point_becomes_its_path(declared, tmp_path):
    run = mine(data="lab-task", model="lab-net")
    assert run == mine() and Run.from_dict(run.to_dict()) == run and "lab_code" not in sys.modules
    assert own_code.names("model") == ["lab-net", "mlp", "whole"] and data.load("lab-task").name == "mine"
    assert Run(model="mlp").model == "mlp"  # ours go first
    with pytest.raises(ValueError, match=r"model must be one of small_conv, .*lab-net, mlp, whole, or MODULE:FUNCTION; got 'lab-nett'"):
        Run(model="lab-nett")
    with pytest.raises(ValueError, match="model 'whole' is an entry point that must name a function as MODULE:FUNCTION, got 'lab_code'"):
        Run(model="whole")


# -- the commands -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_train_finds_a_module_in_the_folder_where_it_is_started(tmp_path):
    words = ["train", "--model", "lab_code:network", "--data", "lab_code:task", "--epochs", "1", "--batch-size", "5", "--output", str(tmp_path / "out")]
    script = "import sys; sys.path.remove(''); from bisam.cli import main; sys.exit(main(sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", script, *words], cwd=tmp_path / "lab", check=True, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True)
    stored = json.loads((tmp_path / "out" / "history.json").read_text())
    assert sorted(stored["environment"]["own"]) == ["lab_code:network", "lab_code:task"]


@pytest.mark.slow
def test_workers_train_it_too(tmp_path):
    (tmp_path / "claims.toml").write_text(PLAN)
    planned = plan("mine", folder=tmp_path)
    outcomes = carry_out(planned, Settings(workers=2, folder=tmp_path, checkpoints=tmp_path / "checkpoints"), progress=False)
    assert sorted(outcomes["recorded"]) == ["sam-seed0", "sgd-seed0"] and verify(tmp_path).records == 2
    assert not list((tmp_path / "checkpoints" / "mine").iterdir())
    for one in planned:
        entry = json.loads((tmp_path / "runs" / "mine" / f"{one.file}.json").read_text())
        assert entry["weights_digest"] == weights_digest(fit(one.run).model)


@pytest.mark.parametrize("name, wrong", [("model", "lab_code:f"), ("model", "no_such_code:f"), ("data", "lab_code:no_task"), ("data", "no_such_code:f")])
def test_commands_refuse_it_before_any_work(name, wrong, tmp_path, capsys):
    words = ["train", "--epochs", "1", "--output", str(tmp_path / "out"), f"--{name}", wrong]
    assert main(words) == 2 and wrong in capsys.readouterr().err and not (tmp_path / "out" / "history.json").exists()
    (tmp_path / "claims.toml").write_text(PLAN.replace(f'{name} = "lab_code:{"network" if name == "model" else "task"}"', f'{name} = "{wrong}"'))
    settings = Settings(folder=tmp_path, checkpoints=tmp_path / "checkpoints")
    with pytest.raises((TypeError, ValueError), match=wrong):
        reproduce.carry_out(plan("mine", folder=tmp_path), settings, progress=False)
    assert not settings.checkpoints.exists()
