"""Sweeps: checked before they run, gathered on one page, and gone on with where they were cut."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from brief import code, write

from bisam import cli
from bisam.notebook import side_by_side, sweep
from bisam.notebook.declarations import ParameterError, declared
from bisam.notebook.executed import TABLE

LOGGED = "with open('log', 'a') as log: log.write(f'{n}{word} ')"
CLAIM = f"display({{'{TABLE}': {{'name': 'claims', 'rows': [{{'claim': 'n is below 2', 'yours': str(n < 2), 'agrees': n < 2}}]}}}}, raw=True)"
LIVE = f"display({{'{TABLE}': {{'name': 'your runs', 'rows': [{{'method': 'sam', 'gap': n / 2}}, {{'method': 'sgd <1>', 'gap': None}}]}}}}, raw=True)"
FIGURE = code(
    "import matplotlib.pyplot as plt\nplt.plot([n])\nplt.show()", "fig", mystnb={"figure": {"name": "fig-n", "caption": "N."}, "image": {"alt": "n"}}
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def log(folder):
    found = sorted((folder / "log").read_text().split())
    (folder / "log").write_text("")
    return found


def test_a_sweep_is_gathered_and_only_what_is_missing_is_run(here, capsys):
    write(here, LOGGED, CLAIM, LIVE, FIGURE, code("print('n is', n)", "said", ["nbval-check-output"]))
    words = ["notebook", "small", "--sweep", "n=1:3", "--sweep", "word=a,b", "--workers", "2"]
    assert cli.main(words) == 0
    said = capsys.readouterr()
    folder = here / "_build" / "notebooks" / "small-sweep-n-word"
    assert said.out == f"{folder.relative_to(here) / 'index.html'}\n"
    assert said.err.startswith("small: 4 runs; no time is known\n") and "small: 4 of 4 runs, small-n=2" in said.err
    assert log(here) == ["1a", "1b", "2a", "2b"]
    rows = table(folder / "results.csv")
    assert [(row["n"], row["word"], row["status"], row["n is below 2"]) for row in rows] == [
        ("1", "a", "done", "True"), ("1", "b", "done", "True"), ("2", "a", "done", "False"), ("2", "b", "done", "False"),
    ]  # fmt: skip
    assert [row["n"] + row["word"] + row["yours"] for row in table(folder / "claims.csv")] == ["1aTrue", "1bTrue", "2aFalse", "2bFalse"]
    found = json.loads((folder / "results.json").read_text())
    assert [run["parameters"] for run in found] == [{"n": n, "word": word} for n in (1, 2) for word in "ab"] and found[0]["checked"] == {"said": "n is 1\n"}
    page = (folder / "index.html").read_text()
    assert page.count("<img") == 4 and page.count("class=differs") == 2 and page.count(">n is 2\n<") == 2 and "n = 2, word = b: n" in page
    assert "<tr><td>2</td><td>b</td><td>sam</td><td>1.0</td></tr>\n<tr><td>2</td><td>b</td><td>sgd &lt;1&gt;</td>" in page
    assert (folder / "your-runs.csv").read_text().startswith("n,word,method,gap\n1,a,sam,0.5\n1,a,sgd <1>,\n")
    assert all((folder / name).exists() for name in ("figures/fig-n-small-n=2-word=b.png", "runs/small-n=2-word=b.ipynb", "runs/small.ipynb"))
    assert cli.main([*words, "--sweep", "n=1"]) == 2 and "n must be given once, got it in two sweeps" in capsys.readouterr().err

    assert cli.main(["notebook", "small", "--sweep", "word=a,b", "--sweep", "n=0:3"]) == 0
    assert log(here) == ["0a", "0b"] and "small: 6 runs, 4 of them done" in capsys.readouterr().err
    write(here, LOGGED, "print('another')")
    assert cli.main([*words[:4], "--sweep", "word=a"]) == 0
    assert log(here) == ["1a", "2a"] and "Left out: 4 runs of an earlier version" in (folder / "index.html").read_text()


def test_a_run_that_fails_is_said_and_does_not_stop_the_others(here, capsys):
    write(here, LOGGED, "assert n != 1, 'no luck'")
    words = ["notebook", "small", "--sweep", "n=0:3", "--output", "out"]
    assert cli.main(words) == 1
    assert "small: cell 3 of small failed with AssertionError: no luck\n" in capsys.readouterr().err
    assert [row["status"] for row in table(here / "out" / "results.csv")] == ["done", "done", "cell 3 of small failed with AssertionError: no luck"]
    assert "AssertionError: no luck" in (here / "out" / "index.html").read_text() and (here / "out" / "runs" / "small.partial.ipynb").exists()
    assert log(here) == ["0a", "1a", "2a"]
    assert cli.main(words) == 1 and log(here) == ["1a"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_is_stopped_or_killed_goes_on(number, here, capsys):
    write(here, LOGGED, "import pathlib, time\ntime.sleep(600 if n == 2 and not pathlib.Path('free').exists() else 0)")
    words = ["notebook", "small", "--sweep", "n=0:4", "--output", "out", "--workers", "2"]
    with subprocess.Popen([sys.executable, "-m", "bisam", *words], stderr=subprocess.PIPE, text=True) as process:
        while not (here / "log").exists() or len((here / "log").read_text().split()) < 4:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        while not (here / "out" / "runs" / "small-n=3.ipynb").exists():
            time.sleep(0.1)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    if number == signal.SIGINT:
        assert process.returncode == 130 and "stopped; 3 of 4 runs are done and in out; the same command goes on with the others\n" in said
        assert (here / "out" / "index.html").exists() and (here / "out" / "runs" / "small-n=2.partial.ipynb").exists()
    (here / "free").touch()
    log(here)
    assert cli.main(words) == 0 and log(here) == ["2a"]
    kept = {path.name for path in (here / "out" / "runs").glob("[a-z]*.ipynb")}
    assert kept == {"small.ipynb", "small-n=0.ipynb", "small-n=2.ipynb", "small-n=3.ipynb"}
    assert len(table(here / "out" / "results.csv")) == 4


def test_a_run_in_the_hands_of_another_command_is_left_to_it(here, capsys):
    from bisam import _files as files

    write(here, LOGGED)
    folder = sweep.opened(here / "out", "small")
    with files.held(folder / "runs" / ".small-n=2.ipynb.lock"):
        assert cli.main(["notebook", "small", "--sweep", "n=1,2", "--output", "out"]) == 1
    assert "small-n=2: another command that runs now has it in hand" in capsys.readouterr().err and log(here) == ["1a"]


def test_a_full_disk_stops_a_sweep_and_says_how_to_go_on(here, capsys, monkeypatch):
    write(here, LOGGED)
    folder, real = sweep.opened(here / "out", "small"), os.replace

    def full(source, target):
        if str(target).endswith("n=2.ipynb"):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr("bisam._files.os.replace", full)
    assert cli.main(["notebook", "small", "--sweep", "n=1,2,3", "--output", "out"]) == 1
    said = capsys.readouterr().err
    assert "small-n=2.ipynb cannot be written: No space left on device" in said and "1 of 3 runs are done and in out; the same command goes on" in said
    assert log(here) == ["1a", "2a"] and (folder / "index.html").exists()


# -- what is asked for --------------------------------------------------------------------------------------------------

KNOWN = declared(
    'n: int = 1  # n; allowed: [0, 900]\nrho: float = 0.1  # radius; allowed: [0, 2]\nmethods: str = "sam"  # methods; allowed: some of sgd, sam\n'
    'file: str = "a"  # a file; allowed: any'
)


@pytest.mark.parametrize("text, values", [
    ("n=0:5", ["0", "1", "2", "3", "4"]), ("n=9:0:-4", ["9", "5", "1"]), ("n=3,5", ["3", "5"]), ("rho=0.1, 0.2", ["0.1", "0.2"]),
    ("methods=sgd;sgd, sam", ["sgd", "sgd, sam"]), ("methods=sgd,sam", ["sgd,sam"]), ("file=a,b", ["a", "b"]), ("file=a,b;c", ["a,b", "c"]),
])  # fmt: skip
def test_values_of_an_axis(text, values):
    assert sweep.axis(KNOWN, text) == (text.partition("=")[0], values)


@pytest.mark.parametrize("text, message", [
    ("rho", "sweep must be NAME=VALUES, such as rho=0.1,0.2,0.4 or seed=0:5; got 'rho'"), ("rho=", "got 'rho='"),
    ("rhoo=1", "there is no parameter rhoo to sweep; there are:\n  n: int"), ("n=5:0", "'5:0', which are 0"), ("n=0:9:0", "which are 0"),
    ("n=0:99999999999", "between 1 and 10000 values"), ("rho=0.1,0.10", "sweep rho must have each value once, got 0.1 twice"),
])
def test_an_axis_that_is_wrong_is_refused(text, message):
    with pytest.raises(ParameterError) as caught:
        sweep.axis(KNOWN, text)
    assert message in str(caught.value)


@pytest.mark.parametrize("words, message", [
    (["--sweep", "n=1,x"], "n must be of type int, got 'x'"), (["--sweep", "n=8:11"], "n must be in [0, 9], got 10"),
    (["--sweep", "n=1,2", "-p", "n", "3"], "n must be given once, got it in a sweep and by -p"),
    (["--sweep", "n=0:9", "--sweep", "word=" + ",".join(f"w{k}" for k in range(23))], "sweep has 207 runs; more than 200 need --yes"),
    (["--workers", "2"], "workers must be 1 without a sweep, got 2"), (["--sweep", "n=1", "--workers", "0"], "workers must be at least 1, got 0"),
    (["--sweep", "n=1", "--force"], "force must be left out with a sweep"), (["--sweep", "n=1", "--figures", "x"], "figures must be left out"),
    (["--sweep", "n=1", "--output", "notebooks"], "output notebooks must be empty or a sweep of small, and holds something else"),
    (["--sweep", "n=1", "--output", "notebooks/small.ipynb"], "must be a folder for a sweep, and is a file"),
])
def test_a_sweep_that_is_wrong_is_refused_before_anything_runs(words, message, here, capsys):
    write(here, LOGGED)
    assert cli.main(["notebook", "small", *words]) in (1, 2)
    assert message in capsys.readouterr().err and not (here / "log").exists() and sorted(os.listdir(here)) == ["notebooks"]


def test_a_sweep_of_another_notebook_is_left_alone(here, capsys):
    write(here, LOGGED)
    sweep.opened(Path("out"), "another")
    assert cli.main(["notebook", "small", "--sweep", "n=1", "--output", "out"]) == 1
    assert "output out must be empty or a sweep of small, and is one of another" in capsys.readouterr().err


def test_cores_are_shared_unless_somebody_has_said_how(here, monkeypatch):
    monkeypatch.setattr(side_by_side.os, "cpu_count", lambda: 8)
    write(here, "import os\nopen(f'threads{n}', 'w').write(os.environ.get('OMP_NUM_THREADS', 'unset'))")
    for given, found in (("3", "3"), (None, "4")):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if given:
            monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert cli.main(["notebook", "small", "--sweep", "n=1", "--output", f"out{found}", "--workers", "2"]) == 0
        assert (here / "threads1").read_text() == found
