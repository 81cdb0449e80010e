"""The README: its code runs, its rooms are those of the package in their order, and the files and words it names are there."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest
import torch
from torch import nn

import bisam
from bisam.training import own_code

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROOMS = ["losses", "axes", "step", "methods", "measure", "testing", "training", "evidence", "notebook", "gpu", "commands"]


def test_the_blocks_of_python_run_one_after_the_other(capsys):
    torch.manual_seed(0)
    model, x, y = nn.Linear(6, 3), torch.randn(8, 6), torch.randint(3, (8,))
    names = {"model": model, "loader": [(x, y)] * 2}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        names["batch"] = bisam.Batch(model, x, y)
        exec(block, names)
    assert names["recipe"].passes == 2 and torch.isfinite(names["loss"]) and len(names["history"].rows) == 2
    assert "test_accuracy" in capsys.readouterr().out  # of on_epoch=print


def test_the_rooms_stand_in_the_order_of_imports():
    section = README.partition("## Find your way")[2].partition("| to find |")[0]
    named = [room for line in section.splitlines() if line.startswith("| `") for room in re.findall(r"`(\w+)`", line.split(" | ")[0])]
    assert named == ROOMS


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_every_file_that_is_named_is_there(text):
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    paths = re.findall(r"`((?:bisam|book|notebooks|results|benchmarks|tests|tools)/[\w./-]*)`", prose)
    assert len(paths) > 5
    for path in paths:
        assert (ROOT / path).exists(), path


def test_each_line_of_algorithm_1_is_in_the_file_that_is_named():
    rows = re.findall(r"\| [\d].*?\| `([\w.]+)` \| `(\S+)` \|", README)
    assert len(rows) == 5
    for function, file in rows:
        assert f"def {function.rpartition('.')[2]}(" in (ROOT / file).read_text(encoding="utf-8")


def test_numbers_and_names_are_those_of_the_package():
    assert f"Any of {len(bisam.RECIPES)} methods" in README
    assert all(f"`{group}`" in README for group in own_code.GROUPS.values())
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    table = README.partition("| extra |")[2].partition("\n\n")[0]
    assert {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.split(" | ")[0])} == set(extras)


def test_the_tests_that_contributors_are_told_of_are_there():
    names = set(re.findall(r"`(test_\w+)`", CONTRIBUTING))
    defined = {name for path in (ROOT / "tests").rglob("*.py") for name in re.findall(r"def (test_\w+)\(", path.read_text(encoding="utf-8"))}
    assert len(names) > 8 and names <= defined


def test_the_members_of_each_protocol_are_those_that_it_has():
    rows = re.findall(r"^\| [\w, ]+ \| `bisam\.(\w+)\.(\w+)` \| (.+) \| (.+) \|$", CONTRIBUTING, re.MULTILINE)
    assert len(rows) == 8
    for room, name, needed, others in rows:
        protocol = getattr(importlib.import_module(f"bisam.{room}"), name)
        values = {key for key in protocol.__annotations__ if not hasattr(protocol, key)}  # without a default
        assert set(re.findall(r"`(\w+)`", needed)) == {*protocol.__abstractmethods__, *values}
        assert all(hasattr(protocol, other) for other in re.findall(r"`(\w+)`", others))
