"""The settings that tools/corners.py tries: true to the declarations, and a setting that fails is named."""

import random

import nbformat
import pytest
from scripts import tool

from bisam.notebook.declarations import declared

CELL = """scale: str = "laptop"  # how much; allowed: smoke, laptop, paper
rho: float = 0.3  # radius; allowed: (0, 2]
seeds: int = 0  # runs, 0: by scale; allowed: 0 or [2, 50)
methods: str = "all"  # which; allowed: some of all, sgd, sam
root: str = ""  # data; allowed: empty or a folder; only at: paper
"""


@pytest.fixture
def corners():
    return tool("corners")


def test_a_corner_takes_one_parameter_to_an_end_that_is_allowed(corners):
    found = list(corners.corners(declared(CELL)))
    assert found[0] == {}
    assert {"rho": 2.0} in found and {"seeds": 2} in found and {"seeds": 49} in found and {"methods": "sam"} in found
    assert all(len(setting) == 1 for setting in found[1:]) and not any("root" in setting or "scale" in setting for setting in found)
    (just_inside,) = [setting["rho"] for setting in found if 0 < setting.get("rho", 0) < 1]
    assert just_inside < 1e-5


def test_random_points_are_allowed_and_differ(corners):
    known, draw = declared(CELL), random.Random(0)
    points = [corners.point(known, "smoke", draw) for _ in range(50)]
    assert all(corners.is_allowed(known, point) and point["scale"] == "smoke" for point in points)
    assert len({str(point) for point in points}) > 20


@pytest.mark.slow
def test_a_setting_that_fails_is_named(corners, tmp_path, monkeypatch, capsys):
    cells = [
        nbformat.v4.new_code_cell('scale: str = "laptop"  # how much; allowed: smoke, laptop\nn: int = 1  # divisor; allowed: [0, 2]'),
        nbformat.v4.new_code_cell("print(1 / n)"),
    ]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "small.ipynb")
    monkeypatch.setattr("sys.argv", ["corners.py", str(tmp_path / "small.ipynb")])
    assert corners.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("ok") for line in lines) == 2
    assert [line for line in lines if line.startswith("FAILED") and "-p n 0" in line] and any("ZeroDivisionError" in line for line in lines)
