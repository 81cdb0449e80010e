"""What a training says as it goes: each epoch once, wherever it was cut, and nothing that moves a bit of it."""

import csv
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from bisam._progress import MOST_LINES, epochs_bar
from bisam.cli import main
from bisam.training import Run, checkpoint, environment, fit, metrics, models, weights_digest
from bisam.training.metrics import EventFiles, Log, Table, earlier_rows

ROOT = Path(__file__).resolve().parents[2]
RUN = Run(model="mlp", epochs=3)
ROWS = [{"epoch": 1, "lr": 0.1, "train_loss": 1 / 3}, {"epoch": 2, "lr": 0.05, "train_loss": 0.25, "test_accuracy": 90.0}]
WORDS = ["train", "--model", "mlp", "--epochs", "3", "--output"]


def outcome(history):
    return weights_digest(history.model), history.rows, history.fitted


# -- on_epoch ---------------------------------------------------------------------------------------------------------


def test_on_epoch_has_a_copy_of_each_row_that_the_call_finishes(tmp_path):
    seen, path = [], tmp_path / "run.pt"
    fit(RUN, path, stop_after=1, on_epoch=seen.append)
    history = fit(RUN, path, on_epoch=seen.append)
    assert seen == history.rows and [row["epoch"] for row in seen] == [1, 2, 3]
    assert not any(one is other for one, other in zip(seen, history.rows, strict=True))


def test_the_checkpoint_has_the_epoch_that_on_epoch_hears_of(tmp_path):
    path, kept = tmp_path / "run.pt", []
    fit(RUN, path, on_epoch=lambda row: kept.append(len(earlier_rows(path, RUN))))
    assert kept == [1, 2, 3]


def disturbing(row):
    torch.manual_seed(row["epoch"])
    torch.rand(5)
    row.clear()


def failing(row):
    raise OSError("no network")


def test_what_on_epoch_draws_and_changes_moves_no_bit(tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "dropping", lambda shape, classes: models.mlp(shape, classes, 16, dropout=0.5))
    run = RUN.replace(model="dropping", recipe="vasso")
    assert outcome(fit(run, tmp_path / "run.pt", on_epoch=disturbing)) == outcome(fit(run))


def test_on_epoch_leaves_the_random_state_of_the_training_alone(monkeypatch):
    states = []
    monkeypatch.setattr("bisam.training.loop.late", lambda *_: states.append(torch.get_rng_state()) or False)
    fit(RUN, on_epoch=disturbing)
    fit(RUN)
    assert all(torch.equal(one, other) for one, other in zip(states[:3], states[3:], strict=True))


def test_an_error_in_on_epoch_is_a_warning_and_the_training_goes_on():
    with pytest.warns(RuntimeWarning, match="on_epoch failed after epoch [123] with OSError: no network; the training goes on"):
        history = fit(RUN, on_epoch=failing)
    assert outcome(history) == outcome(fit(RUN))


def test_what_stops_the_process_stops_the_training(tmp_path):
    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(RUN, tmp_path / "run.pt", on_epoch=stop)
    assert len(earlier_rows(tmp_path / "run.pt", RUN)) == 1


@pytest.mark.parametrize("wrong", [5, "print", dict])
def test_an_on_epoch_that_is_no_function_is_refused(wrong):
    with pytest.raises(TypeError, match="on_epoch must be a function of the row of an epoch"):
        fit(RUN, on_epoch=wrong)


# -- the table --------------------------------------------------------------------------------------------------------


def read(path):
    remark, *lines = path.read_text().splitlines(keepends=True)
    assert remark.startswith(metrics.REMARK)
    return json.loads(remark.removeprefix(metrics.REMARK)), list(csv.DictReader(io.StringIO("".join(lines))))


def test_a_table_holds_every_number_to_its_last_bit_and_the_environment(tmp_path):
    made_on = environment.environment("cpu", 3.0)
    Table(tmp_path / "metrics.csv", made_on)(ROWS)
    there, rows = read(tmp_path / "metrics.csv")
    assert there == {name: value for name, value in made_on.items() if name != "wall_seconds"}
    assert [float(row["train_loss"]) for row in rows] == [1 / 3, 0.25] and [row["test_accuracy"] for row in rows] == ["", "90.0"]


def test_a_table_that_has_the_rows_is_left_alone_and_another_is_mended(tmp_path):
    path = tmp_path / "metrics.csv"
    Table(path, {"threads": 1}).complete(ROWS)
    Table(path, {"threads": 2}).complete(ROWS)
    assert read(path)[0] == {"threads": 1}
    path.write_bytes(b"\xff\xfe")
    Table(path, {"threads": 2}).complete(ROWS)
    assert read(path)[0] == {"threads": 2} and len(read(path)[1]) == 2


def test_a_cut_training_has_each_epoch_once_whatever_became_of_its_table(tmp_path, capsys):
    assert main([*WORDS, str(tmp_path / "whole")]) == 0
    uncut = (tmp_path / "whole" / "metrics.csv").read_bytes()
    spoilt = {"gone": None, "behind": b"epoch\n", "ahead": uncut + b"4,0,0,0,0,0,0\n"}
    for name, content in spoilt.items():
        folder = tmp_path / name
        fit(RUN, folder / "checkpoint.pt", stop_after=2)
        if content is not None:
            (folder / "metrics.csv").write_bytes(content)
        assert main([*WORDS, str(folder)]) == 0
        assert (folder / "metrics.csv").read_bytes() == uncut, name
    history = json.loads((tmp_path / "whole" / "history.json").read_text())
    _, rows = read(tmp_path / "whole" / "metrics.csv")
    assert [{name: float(value) for name, value in row.items()} for row in rows] == history["rows"]


def test_a_training_that_is_finished_gets_its_table(tmp_path, capsys):
    fit(RUN, tmp_path / "checkpoint.pt")
    assert main([*WORDS, str(tmp_path)]) == 0 and len(read(tmp_path / "metrics.csv")[1]) == 3


@pytest.mark.slow
def test_a_killed_training_leaves_whole_lines_and_goes_on_without_doubles(tmp_path, capsys):
    words = ["train", "--model", "mlp", "--epochs", "30", "--output"]
    command = [sys.executable, "-m", "bisam.cli", *words, str(tmp_path / "cut")]
    here = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    victim, table = subprocess.Popen(command, env=here, stderr=subprocess.PIPE, text=True), tmp_path / "cut" / "metrics.csv"
    for line in victim.stderr:
        if "epoch 5 of 30" in line:
            break
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    before = read(table)[1]
    assert 4 <= len(before) < 30 and [int(row["epoch"]) for row in before] == list(range(1, len(before) + 1))
    assert not (tmp_path / "cut" / "history.json").exists()
    said = []
    for place in ("cut", "whole"):
        assert main([*words, str(tmp_path / place)]) == 0
        said.append(capsys.readouterr().out.splitlines()[:3])
    assert said[0] == said[1] and any("weights" in line for line in said[0])  # the same bits
    assert read(table)[1] == read(tmp_path / "whole" / "metrics.csv")[1]


def test_a_table_that_cannot_be_written_is_said_before_any_work(tmp_path, capsys):
    (tmp_path / "metrics.csv").mkdir()
    assert main([*WORDS, str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"bisam: {tmp_path / 'metrics.csv'}: cannot be written: it is a folder\n" and os.listdir(tmp_path) == ["metrics.csv"]


def test_a_table_that_fails_on_the_way_costs_no_epoch_and_is_named_at_the_end(tmp_path, capsys, monkeypatch):
    real = metrics.files.write_whole

    def full(path, data):
        if Path(path).name == "metrics.csv":
            raise OSError(28, "No space left on device", str(path))
        real(path, data)

    monkeypatch.setattr(metrics.files, "write_whole", full)
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        assert main([*WORDS, str(tmp_path)]) == 1
    assert f"bisam: {tmp_path / 'metrics.csv'}: No space left on device" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "history.json").read_text())["rows"]) == 3


# -- event files ------------------------------------------------------------------------------------------------------


class Writer:
    """What of ``SummaryWriter`` is used; each has a file of its own."""

    def __init__(self, folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.file = Path(folder) / f"events.out.tfevents.{len(list(Path(folder).parent.glob('*')))}.{os.urandom(4).hex()}"
        self.file.write_text("")

    def add_scalar(self, name, value, step):
        with self.file.open("a") as file:
            file.write(f"{name} {value} {step}\n")

    def add_text(self, name, text):
        self.add_scalar(name, json.dumps(text), 0)

    def flush(self):
        pass

    close = flush


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(metrics, "_is_there", lambda package: True)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))


def events(folder):
    return sorted(line for file in (folder / "tensorboard").iterdir() for line in file.read_text().splitlines() if not line.startswith("environment"))


def test_event_files_hold_each_epoch_once_wherever_the_training_was_cut(stand_in, tmp_path, capsys, monkeypatch):
    assert main([*WORDS, str(tmp_path / "whole"), "--tensorboard"]) == 0
    assert len(events(tmp_path / "whole")) == 3 * (len(read(tmp_path / "whole" / "metrics.csv")[1][0]) - 1)
    with monkeypatch.context() as patch:
        patch.setattr("bisam.training.fit", lambda *given, **named: fit(*given, **{**named, "stop_after": 2}))
        main([*WORDS, str(tmp_path / "cut"), "--tensorboard"])
    assert main([*WORDS, str(tmp_path / "cut"), "--tensorboard"]) == 0
    assert events(tmp_path / "cut") == events(tmp_path / "whole")
    main([*WORDS, str(tmp_path / "late")])
    for _ in range(2):
        assert main([*WORDS, str(tmp_path / "late"), "--tensorboard"]) == 0
        assert events(tmp_path / "late") == events(tmp_path / "whole")


def test_without_tensorboard_event_files_are_refused_before_any_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(metrics, "_is_there", lambda package: False)
    for words, package in ((["--tensorboard"], "tensorboard"), (["--wandb", "mine"], "wandb")):
        assert main([*WORDS, str(tmp_path / "run"), *words]) == 2
        assert f"{package} must be installed" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_tracked_training_sends_each_epoch_once_to_one_run_wherever_it_was_cut(tmp_path, capsys, monkeypatch):
    sent, begun = {}, []

    class Tracking:
        def __init__(self, name):
            self.name = name
            self.step = max(sent.get(name, {-1: None})) + 1

        def log(self, row, step):
            assert step not in sent.setdefault(self.name, {})
            sent[self.name][step] = row

        def finish(self):
            begun[-1]["finished"] = True

    def init(**given):
        begun.append(given)
        return Tracking(given["id"])

    module = types.SimpleNamespace(init=init)
    monkeypatch.setattr(metrics, "_is_there", lambda package: True)
    monkeypatch.setitem(sys.modules, "wandb", module)
    with monkeypatch.context() as patch:
        patch.setattr("bisam.training.fit", lambda *given, **named: fit(*given, **{**named, "stop_after": 2}))
        main([*WORDS, str(tmp_path), "--wandb", "mine"])
    for _ in range(2):
        assert main([*WORDS, str(tmp_path), "--wandb", "mine"]) == 0
    rows = json.loads((tmp_path / "history.json").read_text())["rows"]
    (name,) = sent
    assert name == (tmp_path / "wandb" / "wandb-id.txt").read_text().strip()
    assert sent[name] == {row["epoch"]: {name: row[name] for name in row if name != "epoch"} for row in rows}
    assert begun[0]["project"] == "mine" and begun[0]["config"]["run"]["model"] == "mlp" and begun[-1]["finished"] and "finished" not in begun[0]


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_itself_reads_the_event_files(tmp_path, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(RUN, tmp_path / "checkpoint.pt", stop_after=2)
    for _ in range(2):
        assert main([*WORDS, str(tmp_path), "--tensorboard"]) == 0
    there = EventAccumulator(str(tmp_path / "tensorboard"))
    there.Reload()
    history = json.loads((tmp_path / "history.json").read_text())
    for name in ("train_loss", "test_accuracy"):
        found = [(event.step, event.value) for event in there.Scalars(name)]
        assert found == [(row["epoch"], pytest.approx(row[name])) for row in history["rows"]]


# -- the environment and the lines ------------------------------------------------------------------------------------


def test_every_file_of_a_training_says_what_it_ran_on(tmp_path, capsys):
    main([*WORDS, str(tmp_path)])
    stored = json.loads((tmp_path / "history.json").read_text())["environment"]
    here = {name: value for name, value in environment.environment("cpu", 0.0).items() if name != "wall_seconds"}
    for found in (stored, checkpoint.made_on(tmp_path / "checkpoint.pt"), read(tmp_path / "metrics.csv")[0]):
        assert {name: value for name, value in found.items() if name != "wall_seconds"} == here
    assert checkpoint.made_on(tmp_path / "checkpoint.pt")["wall_seconds"] == stored["wall_seconds"]


def test_a_checkpoint_without_an_environment_is_read(tmp_path):
    checkpoint.write(tmp_path / "run.pt", {"seed": 0}, {"a": 1})
    assert checkpoint.made_on(tmp_path / "run.pt") is None and checkpoint.read(tmp_path / "run.pt", {"seed": 0}) == {"a": 1}


def test_without_a_terminal_train_writes_a_line_an_epoch(tmp_path, capsys):
    assert main([*WORDS, str(tmp_path), "--evaluate-every", "2"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": loss")[0] for line in lines] == [f"sam: epoch {k} of 3" for k in (1, 2, 3)]
    assert ["validation" in line for line in lines] == [False, True, True]


@pytest.mark.parametrize("total, done, expected", [
    (3, 1, [2, 3]), (MOST_LINES, 97, [98, 99, 100]), (250, 0, [*range(3, 250, 3), 250]), (250, 5, [*range(6, 250, 3), 250]),
])  # fmt: skip
def test_of_many_epochs_each_kth_and_the_last_are_lines(total, done, expected, capsys):
    with epochs_bar("sam", total, done, show=True) as advance:
        for _ in range(done, total):
            advance({"train_loss": 0.5})
    lines = capsys.readouterr().err.splitlines()
    assert [int(line.split()[2]) for line in lines] == expected and len(lines) <= MOST_LINES


def test_a_log_that_goes_on_asks_for_the_earlier_rows_once():
    asked, seen = [], []
    log = Log(lambda: asked.append(1) or [*ROWS, {"epoch": 3}], [lambda rows: seen.append([row["epoch"] for row in rows])])
    log({"epoch": 3})
    log({"epoch": 4})
    assert asked == [1] and seen == [[1, 2, 3], [1, 2, 3, 4]]


def test_event_files_have_a_folder(tmp_path):
    with pytest.raises(TypeError, match="folder must be the path of a folder"):
        EventFiles(None, {})
