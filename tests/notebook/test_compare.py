"""Two executed notebooks side by side."""

import json

import pytest
from brief import code, prose, write

from bisam import cli
from bisam.notebook.compare import compare
from bisam.notebook.executed import TABLE
from bisam.notebook.run import run

CLAIMS = f"display({{'{TABLE}': {{'name': 'claims', 'rows': [{{'claim': 'n', 'yours': str(n), 'stated': '1', 'agrees': n == 1}}, {{'claim': 'same', 'yours': 'yes', 'stated': 'yes', 'agrees': True}}]}}}}, raw=True)"
OTHER = f"display({{'{TABLE}': {{'name': 'live', 'rows': [{{'method': 'sam', 'mean': n}}]}}}}, raw=True)"
SAID = code("print('first line')\nprint('n is', n)", "said", ["nbval-check-output"])
FIGURE = "import matplotlib.pyplot as plt\nplt.plot([n, 1])\nplt.show()"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, CLAIMS, OTHER, prose("## Verdict", "v"), SAID, FIGURE)
    return [run("small", given, progress=False) for given in ({}, {"n": "2"}, {})]


def test_what_differs_is_said_and_nothing_else(runs, capsys):
    assert cli.main(["compare", str(runs[0]), str(runs[1])]) == 0
    said = capsys.readouterr().out
    one, two, *rest = said.rstrip().split("\n\n")[0].splitlines()
    assert one == f"1  {runs[0]}" and two == f"2  {runs[1]}" and not rest
    assert "parameter  1  2\nn          1  2\n" in said
    assert "claim    1    2  stated\nn        1    2       1  differs\nsame   yes  yes     yes\n" in said
    assert "table live\n  -method = sam, mean = 1\n  +method = sam, mean = 2\n" in said
    assert "cell said, Verdict\n   first line\n  -n is 1\n  +n is 2\n" in said
    assert "figures that differ: cell-c4\n" in said
    made = [json.loads(path.read_text())["metadata"]["bisam"]["run"] for path in runs]
    assert f"seconds    {made[0]['seconds']}" in said or made[0]["seconds"] == made[1]["seconds"]
    assert "torch" not in said and "commit" not in said


def test_two_equal_runs_differ_in_nothing_but_time(runs):
    said = compare(runs[0], runs[2])
    assert "no parameter differs" in said and "no checked line differs" in said and said.endswith("no figure differs")
    assert "differs\n" not in said.replace("no parameter differs\n", "").replace("no checked line differs\n", "")


def test_versions_and_commits_that_differ_are_said(runs):
    stored = json.loads(runs[2].read_text())
    stored["metadata"]["bisam"]["run"]["versions"]["torch"] = "1.0"
    stored["metadata"]["bisam"]["run"]["commit"] = "0123456789ab"
    runs[2].write_text(json.dumps(stored))
    said = compare(runs[0], runs[2])
    assert "  1.0\n" in said and "  0123456789ab\n" in said


def test_what_is_no_notebook_is_refused(runs, capsys):
    runs[1].write_text("{")
    assert cli.main(["compare", str(runs[0]), str(runs[1])]) == 1
    assert f"bisam: {runs[1]} must be an executed notebook" in capsys.readouterr().err
    assert cli.main(["compare", str(runs[0]), "nothing.ipynb"]) == 1
    assert "bisam: nothing.ipynb cannot be read: No such file or directory" in capsys.readouterr().err
