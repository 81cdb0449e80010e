"""The command line as a stranger meets it: what is wrong is said in one message, with a non-zero exit."""

import contextlib
import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from bisam import RECIPES
from bisam.cli import main
from bisam.training import Run, environment, fit

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
FAST = ["--model", "mlp", "--epochs", "3", "--recipe", "bisam-log"]


def said(capsys, *words):
    status = main(list(words))
    return status, capsys.readouterr()


def test_train_writes_a_history_and_says_where(tmp_path, capsys):
    status, out = said(capsys, "train", *FAST, "--output", str(tmp_path / "run"))
    assert status == 0 and "history.json" in out.out
    stored = json.loads((tmp_path / "run" / "history.json").read_text())
    assert len(stored["rows"]) == 3 and stored["run"]["recipe"]["name"] == "bisam-log"


@pytest.mark.parametrize("words, message", [
    (["--recipe", "bisam"], "recipe must be one of sgd, sam, bisam-log, bisam-tanh, sam-inf,"),
    (["--rho", "-0.1"], "rho must be 0 or greater, got -0.1"),
    (["--recipe", "sgd", "--rho", "0.1"], "rho must be 0 for the recipe sgd, got 0.1"),
    (["--seed", "99999999999999999999"], "seed must be below 2^63"),
    (["--lr", "0"], "lr must be greater than 0, got 0.0"),
    (["--label-noise", "1.5"], r"label_noise must be in [0, 1), got 1.5"),
    (["--epochs", "0"], "epochs must be at least 1, got 0"),
    (["--batch-size", "5000"], "batch_size must be at most 1000"),
    (["--data", "emnist"], "got 'emnist'"),
    (["--device", "tpu"], "device must be"),
])
def test_wrong_settings_end_before_any_work(tmp_path, capsys, words, message):
    status, out = said(capsys, "train", *words, "--output", str(tmp_path / "run"))
    assert status == 2 and message in out.err and not out.out
    assert not (tmp_path / "run" / "history.json").exists()


def test_a_folder_that_cannot_be_written_is_said_before_any_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    status, out = said(capsys, "train", *FAST, "--output", str(tmp_path / "file" / "run"))
    assert status == 1 and "cannot be written" in out.err and str(tmp_path / "file" / "run") in out.err


def test_a_truncated_checkpoint_is_said_and_left_alone(tmp_path, capsys):
    said(capsys, "train", *FAST, "--output", str(tmp_path))
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:1000])
    status, out = said(capsys, "train", *FAST, "--output", str(tmp_path))
    assert status == 1 and "truncated" in out.err and "Delete it to start over" in out.err
    assert file.stat().st_size == 1000


def test_another_runs_checkpoint_is_refused_with_what_differs(tmp_path, capsys):
    said(capsys, "train", *FAST, "--output", str(tmp_path))
    status, out = said(capsys, "train", *FAST, "--seed", "5", "--output", str(tmp_path))
    assert status == 1 and "seed: 0 there, 5 here" in out.err


def test_a_diverging_training_says_where(tmp_path, capsys):
    status, out = said(capsys, "train", *FAST, "--lr", "1e30", "--output", str(tmp_path))
    assert status == 1 and "epoch 1 of 3" in out.err and "inf or NaN" in out.err


def test_a_history_says_what_it_was_made_on(tmp_path, capsys):
    said(capsys, "train", *FAST, "--output", str(tmp_path))
    stored = json.loads((tmp_path / "history.json").read_text())
    assert stored["environment"] == environment.environment("cpu", stored["seconds"]) and sorted(os.listdir(tmp_path)) == ["checkpoint.pt", "history.json", "metrics.csv"]


@contextlib.contextmanager
def full_disk(most):
    """No file can grow beyond so many bytes, which is what a full disk does to a writer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("done", ["nothing", "an epoch", "all"])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_disk_that_takes_no_more_loses_nothing_and_the_file_is_named(done, read_only, tmp_path, capsys, monkeypatch):
    words = ["train", *FAST, "--output", str(tmp_path)]
    if done == "an epoch":
        fit(Run(model="mlp", epochs=3, recipe="bisam-log"), tmp_path / "checkpoint.pt", stop_after=1)
    if done == "all":
        said(capsys, *words)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with monkeypatch.context() as patch, contextlib.nullcontext() if read_only else full_disk(100):
        if read_only:  # as root, who runs some of these tests, nothing is closed to writing
            refused = OSError(errno.EROFS, os.strerror(errno.EROFS))
            patch.setattr("bisam._files.os.replace", lambda *_: (_ for _ in ()).throw(refused))
        status, out = said(capsys, *words)
    why = os.strerror(errno.EROFS if read_only else errno.EFBIG)
    place = {
        "nothing": f"checkpoint_path {tmp_path / 'checkpoint.pt'} cannot be written: {why}. Nothing was kept",
        "an epoch": f"checkpoint_path {tmp_path / 'checkpoint.pt'} cannot be written: {why}. The old file stays",
        "all": f"{tmp_path / 'history.json'}: cannot be written: {why}",
    }[done]
    assert (status, out.err, out.out) == (1, f"bisam: {place}\n", "")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert said(capsys, *words)[0] == 0


def test_a_history_that_cannot_be_written_is_said_before_any_work(tmp_path, capsys):
    (tmp_path / "history.json").mkdir()
    status, out = said(capsys, "train", *FAST, "--output", str(tmp_path))
    assert status == 1 and out.err == f"bisam: {tmp_path / 'history.json'}: cannot be written: it is a folder\n" and not out.out
    assert os.listdir(tmp_path) == ["history.json"]


def test_the_command_record_names_the_one_that_took_its_place(capsys):
    assert main(["record", "first_run", "--workers", "2"]) == 2
    said = capsys.readouterr()
    assert said.err == "bisam: record is now `bisam reproduce NAME`, which takes the same options\n" and not said.out


def test_methods_lists_every_recipe(capsys):
    status, out = said(capsys, "methods")
    assert status == 0 and all(name in out.out for name in RECIPES)


# -- notebooks ----------------------------------------------------------------------------------------------------------


def test_notebook_without_a_name_lists_all(capsys):
    status, out = said(capsys, "notebook")
    assert status == 0 and out.out.split() == sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def test_notebook_list_shows_the_parameters(capsys):
    status, out = said(capsys, "notebook", "lower_bounds", "--list")
    assert status == 0 and "alpha: float = 0.1" in out.out and "allowed: (0, 100]" in out.out


@pytest.mark.parametrize("words, message", [
    (["nowhere"], "there is no notebook nowhere; there are: attention, better_climb, bisam_step"),
    (["lower_bounds", "-p", "alhpa", "1"], "there is no parameter alhpa; there are:\n  scale: str"),
    (["lower_bounds", "-p", "alpha", "-1"], "alpha must be in (0, 100], got -1.0"),
    (["lower_bounds", "-p", "alpha", "steep"], "alpha must be of type float, got 'steep'"),
    (["lower_bounds", "-p", "alpha", "1", "-p", "alpha", "2"], "alpha must be given once, got 1 and 2"),
    (["lower_bounds", "--scale", "huge"], "scale must be one of smoke, laptop, paper; got 'huge'"),
])
def test_a_wrong_notebook_or_parameter_ends_before_the_first_cell(tmp_path, capsys, words, message):
    status, out = said(capsys, "notebook", *words, "--output", str(tmp_path / "out.ipynb"))
    assert status in (1, 2) and message in out.err
    assert not (tmp_path / "out.ipynb").exists()


def test_an_output_that_cannot_be_written_is_said_before_the_first_cell(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    status, out = said(capsys, "notebook", "lower_bounds", "--output", str(tmp_path / "file" / "out.ipynb"))
    assert status == 1 and "cannot be written" in out.err


def write_notebook(folder, body):
    cells = [
        {"cell_type": "code", "id": "a", "metadata": {"tags": ["parameters"]}, "source": "n: int = 1  # n; allowed: [0, 9]",
         "outputs": [], "execution_count": None},
        {"cell_type": "code", "id": "b", "metadata": {}, "source": body, "outputs": [], "execution_count": None},
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    (folder / "notebooks").mkdir()
    stored = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (folder / "notebooks" / "small.ipynb").write_text(json.dumps(stored))


@pytest.mark.slow
def test_plain_papermill_meets_the_same_checks(tmp_path):
    check = "from bisam.notebook import page\npage.begin(globals(), 'small')\nopen('ran', 'w')"
    write_notebook(tmp_path, check)
    command = [sys.executable, "-m", "papermill", "notebooks/small.ipynb", "out.ipynb", "-p"]
    ended = subprocess.run([*command, "epochz", "3"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 1 and "there is no parameter epochz" in ended.stderr
    assert not (tmp_path / "ran").exists()
    subprocess.run([*command, "n", "3"], cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "ran").exists()
