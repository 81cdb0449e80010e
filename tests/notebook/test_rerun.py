"""Reruns: where they run, what comes out under which name, and what is kept when they end badly."""

import contextlib
import errno
import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from brief import code, printed, prose, write

from bisam import cli
from bisam.notebook import estimate, executed, outputs
from bisam.notebook.declarations import declared
from bisam.notebook.execution import Execution
from bisam.notebook.find import NotebookError
from bisam.notebook.run import run
from bisam.notebook.watch import Feed, watched

BUILT = Path("_build") / "notebooks"
TABLE = f'display({{"{executed.TABLE}": {{"name": "claims", "rows": [{{"claim": "n is small", "yours": n, "agrees": n < 5}}]}}}}, raw=True)'


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextlib.contextmanager
def command(*words):
    with subprocess.Popen([sys.executable, "-m", "bisam", "notebook", *words], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as one:
        yield one
        one.kill()


def await_file(path, process):
    while not path.exists() or not path.read_text():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)


def test_a_rerun_is_named_by_its_parameters_runs_where_it_was_asked_for_and_says_how_it_was_made(here, capsys):
    body = 'import os, sys\nprint(n, word, os.getcwd(), sys.executable)'
    write(here, body, code("print(n)", "said", ["nbval-check-output"]), TABLE, kernel="of-somebody-else")
    assert cli.main(["notebook", "small", "-p", "n", "3", "-p", "word", "a"]) == 0
    said = capsys.readouterr()
    path = here / BUILT / "small-n=3.ipynb"
    assert said.out == f"{BUILT / 'small-n=3.ipynb'}\n" and said.err.startswith("small: no time is known\nsmall: cell ")
    assert printed(path) == f"3 a {here} {sys.executable}\n3\n"
    stored = json.loads(path.read_text())
    made = stored["metadata"]["bisam"]["run"]
    assert stored["metadata"]["kernelspec"]["name"] == "python3" and made["complete"] and made["cells"] == [5, 5]
    assert made["parameters"] == {"n": 3, "word": "a"} and made["given"] == {"n": 3} and made["seconds"] > 0
    assert {"bisam", "torch", "python", "numpy"} <= made["versions"].keys() and made["versions"]["python"] == platform.python_version()
    last = "".join(stored["cells"][-1]["source"])
    assert "`bisam notebook small -p n 3`" in last and f"python {platform.python_version()}" in last and "n = 3, word = 'a'" in last
    assert platform.node() not in path.read_text()
    found = json.loads((here / BUILT / "small-n=3.data" / "run.json").read_text())
    assert found["tables"] == {"claims": [{"claim": "n is small", "yours": 3, "agrees": True}]} and found["checked"] == {"said": "3\n"}
    assert (here / BUILT / "small-n=3.data" / "claims.csv").read_text() == "claim,yours,agrees\nn is small,3,True\n"
    assert sorted(os.listdir(here / BUILT)) == ["small-n=3.data", "small-n=3.ipynb"]


def test_an_output_that_is_there_is_replaced_only_where_that_is_asked_for(here, capsys):
    path = write(here, "print(n)")
    first, second = (run("small", {}, progress=False) for _ in range(2))
    assert (first, second) == (BUILT / "small.ipynb", BUILT / "small-2.ipynb")
    before = first.read_text()
    assert cli.main(["notebook", "small", "--output", str(first)]) == 1
    assert f"output {first} is there already; --force replaces it" in capsys.readouterr().err and first.read_text() == before
    write(here, "print('again', n)")
    assert cli.main(["notebook", str(path), "--output", str(first), "--force"]) == 0
    assert printed(first) == "again 1\n"


def test_two_reruns_at_once_both_survive(here):
    write(here, "import time\ntime.sleep(1)\nprint(n)")
    found = []
    both = [threading.Thread(target=lambda: found.append(run("small", {}, progress=False))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(path.name for path in found) == ["small-2.ipynb", "small.ipynb"]
    assert [printed(path) for path in found] == ["1\n", "1\n"]


@pytest.mark.parametrize("accident, message", [
    ("raise RuntimeError('no luck')", "cell 3 of small failed with RuntimeError: no luck"),
    ("import os\nos.kill(os.getpid(), 9)", "the kernel died in cell 3 of small; something killed it, or the memory was full"),
])
def test_what_ends_badly_leaves_the_old_output_and_keeps_what_has_run(accident, message, here, capsys):
    write(here, "print('first', n)", accident, "print('never')")
    (here / "out.ipynb").write_text("old")
    assert cli.main(["notebook", "small", "--output", "out.ipynb", "--force"]) == 1
    said = capsys.readouterr().err
    assert f"bisam: {message}\nwhat has run, up to cell 2 of 4, is in out.partial.ipynb; the same command begins again\n" in said
    assert "Traceback" not in said and (here / "out.ipynb").read_text() == "old"
    assert printed(here / "out.partial.ipynb") == "first 1\n"
    made = executed.read(here / "out.partial.ipynb").made
    assert not made["complete"] and made["cells"] == [2, 4]
    write(here, "print('mended')")
    assert cli.main(["notebook", "small", "--output", "out.ipynb", "--force"]) == 0
    assert sorted(os.listdir(here)) == ["notebooks", "out.data", "out.ipynb"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_kernel_and_keeps_what_has_run(number, here):
    write(here, "import os\nopen('kernel', 'w').write(str(os.getpid()))\nprint('first')", "open('there', 'w').write('1')\nimport time\ntime.sleep(600)")
    (here / "out.ipynb").write_text("old")
    with command("small", "--output", "out.ipynb", "--force") as process:
        await_file(here / "there", process)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1].splitlines()
        assert process.returncode == 128 + number
    assert said[-1] == "bisam: stopped; what has run, up to cell 2 of 3, is in out.partial.ipynb; the same command begins again"
    assert not any("Traceback" in line for line in said)
    assert printed(here / "out.partial.ipynb") == "first\n" and (here / "out.ipynb").read_text() == "old"
    assert not os.path.exists(f"/proc/{(here / 'kernel').read_text()}")


@pytest.mark.slow
def test_a_command_that_is_killed_leaves_no_kernel_and_no_lock(here):
    write(here, "import os\nopen('kernel', 'w').write(str(os.getpid()))\nimport time\ntime.sleep(600 if n else 0)")
    with command("small") as process:
        await_file(here / "kernel", process)
    kernel, until = Path(f"/proc/{(here / 'kernel').read_text()}"), 100
    while kernel.exists() and until:
        until -= 1
        time.sleep(0.1)
    assert until
    assert run("small", {"n": "0"}, BUILT / "small.ipynb", progress=False).exists()


def test_a_full_disk_leaves_the_old_output_and_is_said(here, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write(here, "print(n)")
    (here / "out.ipynb").write_text("old")
    monkeypatch.setattr("bisam._files.os.replace", full)
    assert cli.main(["notebook", "small", "--output", "out.ipynb", "--force"]) == 1
    said, why = capsys.readouterr().err, "cannot be written: No space left on device"
    assert f"bisam: output out.ipynb {why}; what has run cannot be kept: " in said and f"out.partial.ipynb {why}\n" in said
    assert (here / "out.ipynb").read_text() == "old" and sorted(os.listdir(here)) == ["notebooks", "out.ipynb"]


def test_a_place_that_is_filled_while_the_notebook_runs_is_left_alone(here, capsys):
    write(here, "open('out.ipynb', 'w').write('of somebody else')")
    assert cli.main(["notebook", "small", "--output", "out.ipynb"]) == 1
    assert "output out.ipynb cannot be written: File exists; what has run, up to cell 2 of 2, is in out.partial.ipynb; " in capsys.readouterr().err
    assert (here / "out.ipynb").read_text() == "of somebody else" and printed(here / "out.partial.ipynb") == ""


LONG_CELL = """
from bisam._progress import epochs_bar
with epochs_bar("sam", total=3, done=0, show=False) as advance:
    for epoch in range(3):
        advance({"train_loss": 0.5})
        import time
        time.sleep(0.5)
"""


def test_trainings_inside_a_cell_are_seen_and_nothing_of_it_is_stored(here, capsys):
    import nbformat

    feed = Feed(here / "feed")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(LONG_CELL)])
    one = Execution(notebook, here, {**os.environ, "BISAM_PROGRESS": str(feed.path)})
    one.start()
    watched(one, "small", feed, True, every=0)
    said = capsys.readouterr().err
    assert one.trouble is None and not notebook.cells[0].outputs
    assert "small: in cell 1, sam: 1/3 epochs, loss 0.500\n" in said and said.endswith("small: cell 1 of 1\n")


def test_a_feed_takes_whole_lines_and_no_nonsense(here):
    feed = Feed(here / "feed")
    assert feed.latest() == ""
    line = '{"title": "sam", "done": 2, "total": null, "unit": "runs", "note": ""}'
    feed.path.write_text("nonsense\n" + line)
    assert feed.latest() == ""
    feed.path.write_text("nonsense\n" + line + "\n")
    assert feed.latest() == "sam: 2 runs"
    feed.forget()
    assert feed.latest() == ""


FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"


def test_figures_are_written_as_vectors_and_the_notebook_keeps_png(here):
    write(here, code(FIGURE, "fig", mystnb={"figure": {"name": "fig-line", "caption": "A line."}, "image": {"alt": "a line"}}))
    path = run("small", {}, progress=False, figures=here / "drawn")
    (picture,) = executed.read(path).figures
    assert (picture.name, picture.caption, picture.alt) == ("fig-line", "A line.", "a line") and picture.kind == "png" and picture.content.startswith(b"\x89PNG")
    assert "svg" not in path.read_text() and "application/pdf" not in path.read_text()
    assert "<svg" in (here / "drawn" / "fig-line.svg").read_text() and (here / "drawn" / "fig-line.pdf").read_bytes().startswith(b"%PDF")


# -- names and times ----------------------------------------------------------------------------------------------------

TWO = declared('n: int = 1  # n; allowed: [0, 9]\nmethods: str = "sam"  # methods; allowed: any')


@pytest.mark.parametrize("values, name", [
    ({}, "small"), ({"n": 1}, "small"), ({"n": 2}, "small-n=2"), ({"methods": "sgd", "n": 2}, "small-n=2-methods=sgd"),
])
def test_names_come_from_the_parameters_that_are_not_at_their_defaults(values, name):
    assert outputs.stem("small", TWO, values) == name


def test_names_of_different_parameters_differ_and_can_be_files():
    texts = ["sgd, sam", "sgd,sam", "/tmp/a", "/tmp-a", "x" * 300, "x" * 301, "é", "è", "..", "a\nb"]
    names = [outputs.stem("small", TWO, {"methods": text}) for text in texts]
    assert len(set(names)) == len(texts)
    assert all(re.fullmatch(r"small-methods=[A-Za-z0-9_.+=-]*", name) and len(name) < 140 for name in names)


def test_the_time_is_that_of_the_stored_execution(tmp_path):
    path = write(tmp_path, "n")
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "status.json").write_text('{"small": {"wall_seconds": 61.7}}')
    (tmp_path / "tests" / "notebook" / "smoke").mkdir(parents=True)
    (tmp_path / "tests" / "notebook" / "smoke" / "small.json").write_text('{"seconds": 3.2}')
    assert estimate.seconds(path, "laptop", "laptop") == 61.7 and estimate.seconds(path, "smoke", "laptop") == 3.2
    assert estimate.seconds(path, "paper", "laptop") is None
    said = estimate.words(path, "laptop", "laptop", ["seeds", "epochs"])
    assert said == "small: about 62 s, as long as the stored execution took at scale laptop; more seeds or epochs take longer in proportion"
    (tmp_path / "book" / "status.json").write_text("[")
    assert estimate.words(path, "laptop", "laptop") == "small: no time is known for scale laptop"


@pytest.mark.parametrize("content, message", [
    ("{", "must be an executed notebook"), ('{"nbformat": 3}', "format 3"), ("[]", "must be an executed notebook"), (None, "cannot be read"),
])
def test_what_is_no_executed_notebook_is_refused_by_its_path(content, message, tmp_path):
    if content is not None:
        (tmp_path / "x.ipynb").write_text(content)
    with pytest.raises(NotebookError, match=rf"x\.ipynb.*{message}"):
        executed.read(tmp_path / "x.ipynb")


def test_a_page_that_papermill_has_made_is_read_with_its_parameters(tmp_path):
    path = write(tmp_path, prose("## Verdict", "v"), code("1", "one", ["nbval-check-output"]))
    stored = json.loads(path.read_text())
    stored["metadata"]["papermill"] = {"parameters": {"n": 4}}
    stored["cells"][2]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["better\n"]}]
    path.write_text(json.dumps(stored))
    found = executed.read(path)
    assert found.parameters == {"n": 4, "word": "a"} and found.checked == {"one": ("Verdict", "better\n")} and found.made == {}
