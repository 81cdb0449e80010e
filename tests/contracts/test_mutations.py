"""The planted faults: all can be planted today, each has a witness that is there, and the runner says who noticed and who did not."""

import ast
import itertools
import json

import pytest
from scripts import ROOT, tool

THE_TOOL = tool("mutations")
KNOWN = THE_TOOL.mutations()
ENTRY = 'name = "a"\nwrong = "It is."\nfile = "bisam/axes/start.py"\nold = "kept"\nnew = "left"\ntests = ["tests/axes/test_recipe.py::test_x"]\n'


def test_there_are_faults_in_every_room_that_computes():
    rooms = {one.group for one in KNOWN.values()}
    assert len(KNOWN) >= 30 and {"losses", "axes", "step", "methods", "measure", "training", "evidence", "records"} <= rooms


@pytest.mark.parametrize("one", KNOWN.values(), ids=KNOWN)
def test_a_fault_can_be_planted(one):
    whole = (ROOT / one.file).read_text(encoding="utf-8")
    planted = one.planted(whole)
    if one.file.endswith(".py"):
        ast.parse(planted)
    assert planted != whole and len(planted) == len(whole) - len(one.old) + len(one.new)
    assert one.wrong[0].isupper() and one.wrong.endswith(".") and "\n" not in one.wrong


@pytest.mark.parametrize("one", KNOWN.values(), ids=KNOWN)
def test_its_witnesses_are_there(one):
    for path, named in ((name.partition("::")[0], name.partition("::")[2].partition("[")[0]) for name in one.tests):
        functions = [node.name for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
        assert named in functions, f"{path} has no {named}"
    assert all((ROOT / "notebooks" / f"{name}.ipynb").is_file() for name in one.notebooks)


@pytest.mark.parametrize("text, error", [
    ("a left a", "b is stale: its old text must be in bisam/x.py exactly once and is there 0 times"),
    ("kept, kept", "b is stale: its old text must be in bisam/x.py exactly once and is there 2 times"),
])  # fmt: skip
def test_a_stale_fault_is_named(text, error):
    with pytest.raises(THE_TOOL.MutationError, match=error):
        THE_TOOL.Mutation("b", "It is.", "bisam/x.py", "kept", "left").planted(text)


@pytest.mark.parametrize("before, after, error", [
    ('old = "kept"\n', "", "mutation 'a' in list.toml must have file, name, new, old, wrong and may have tests and notebooks"),
    ('new = "left"', 'new = "kept"', "mutation 'a' in list.toml must have a name of its own, and a new text that is not the old one"),
    ('tests = ["tests/axes/test_recipe.py::test_x"]', 'notebooks = ["lemma"]', "must name a test or 2 notebooks that are expected to notice it"),
])  # fmt: skip
def test_an_entry_that_is_not_complete_is_named(before, after, error, tmp_path):
    (tmp_path / "list.toml").write_text("[[mutation]]\n" + ENTRY)
    assert list(THE_TOOL.mutations(tmp_path / "list.toml")) == ["a"]
    (tmp_path / "list.toml").write_text("[[mutation]]\n" + ENTRY.replace(before, after))
    with pytest.raises(THE_TOOL.MutationError, match=error):
        THE_TOOL.mutations(tmp_path / "list.toml")


def test_names_and_rooms_choose_and_others_are_named():
    assert [one.name for one in THE_TOOL.chosen(["noise-seed", "no-climb"], KNOWN)] == ["no-climb", "noise-seed"]
    assert {one.group for one in THE_TOOL.chosen(["losses"], KNOWN)} == {"losses"} and len(THE_TOOL.chosen([], KNOWN)) == len(KNOWN)
    with pytest.raises(THE_TOOL.MutationError, match=r"a mutation must be one of .*no-climb.*, or a room: .*losses.*; got 'no_climb'"):
        THE_TOOL.chosen(["no_climb"], KNOWN)


def test_witnesses_are_those_of_the_fault_or_those_that_are_asked_for():
    one = THE_TOOL.Mutation("b", "It is.", "bisam/x.py", "kept", "left", ("tests/a.py::test_a", "tests/b.py::test_b"), ("lemma", "family"))
    here = THE_TOOL.Mutation(**{**one.__dict__, "tests": ("tests/conftest.py", "tests/scripts.py")})
    assert THE_TOOL.witnesses(here, []) == [("tests/conftest.py", "tests/scripts.py"), ("lemma",), ("family",)]
    assert THE_TOOL.witnesses(one, ["notebooks", "lower_bounds"]) == [("lemma",), ("family",), ("lower_bounds",)]
    assert THE_TOOL.witnesses(one, ["tests/scripts.py"]) == [("tests/scripts.py",)]
    for wrong in ("frist_run", "tests/nowhere.py"):
        with pytest.raises(THE_TOOL.MutationError, match=f"a witness must be tests, notebooks, .* or the name of a notebook; got '{wrong}'"):
            THE_TOOL.witnesses(one, [wrong])


@pytest.mark.parametrize("failed, caught", [
    ({"tests/a.py::test_a": ["x"]}, True), ({"tests/a.py::test_a": []}, False), ({"tests/a.py::test_a": [], "lemma": ["x"], "family": ["x"]}, True),
    ({"tests/a.py::test_a": [], "lemma": ["x"], "family": []}, False), ({"lemma": ["x"]}, True), ({"lemma": []}, False),
])  # fmt: skip
def test_a_test_or_two_notebooks_catch_a_fault(failed, caught):
    assert THE_TOOL.is_caught(failed) is caught


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Two faults, whose witnesses are played: what fails by the text of the file."""
    given = [KNOWN["no-climb"], KNOWN["noise-seed"]]
    calls = []
    fails = {"no-climb": ["tests/contracts/test_contracts.py::test_the_record_shows_that_the_method_is_on"], "noise-seed": []}

    def played(folder, witness):
        planted = [one.name for one in given if (folder / one.file).read_text() != (ROOT / one.file).read_text()]
        calls.append(planted)
        return fails.get("".join(planted), [])

    monkeypatch.setattr(THE_TOOL, "noticed", played)
    monkeypatch.setattr(THE_TOOL, "tracked", lambda: sorted({one.file for one in given}))

    def run(*more):
        calls.clear()
        monkeypatch.setattr("sys.argv", ["mutations.py", "no-climb", "noise-seed", "--witness", "tests", "--state", str(tmp_path / "state.json"), *more])
        return THE_TOOL.main(), list(calls)

    run.fails, run.state = fails, tmp_path / "state.json"
    return run


def test_a_fault_that_nobody_notices_is_printed_and_is_an_error(runs, capsys):
    before = [(ROOT / KNOWN[name].file).read_bytes() for name in ("no-climb", "noise-seed")]
    assert runs() == (1, [[], ["no-climb"], ["noise-seed"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("caught   no-climb (bisam/step/climb.py): The perturbation is found")
    assert any("tests/contracts/test_contracts.py: test_the_record_shows_that_the_method_is_on" in line for line in lines)
    assert any(line.startswith("SLIPPED  noise-seed") for line in lines) and lines[-1] == "1 of 2 mutations are caught; not caught: noise-seed"
    assert [(ROOT / KNOWN[name].file).read_bytes() for name in ("no-climb", "noise-seed")] == before


def test_what_is_known_is_not_run_again(runs, capsys):
    runs.fails["noise-seed"] = list(KNOWN["noise-seed"].tests)
    assert runs()[0] == 0 and len(json.loads(runs.state.read_text())) == 3
    assert runs() == (0, []) and "2 of 2 mutations are caught" in capsys.readouterr().out
    assert len(runs("--fresh")[1]) == 3


def test_a_cut_run_goes_on(runs, monkeypatch, capsys):
    played, count = THE_TOOL.noticed, itertools.count()

    def cut(folder, witness):
        if next(count) == 2:
            raise KeyboardInterrupt
        return played(folder, witness)

    monkeypatch.setattr(THE_TOOL, "noticed", cut)
    assert runs()[0] == 130 and "the same command goes on from here" in capsys.readouterr().err
    assert runs()[1] == [["noise-seed"]]


def test_a_witness_that_fails_without_a_fault_proves_nothing(runs, capsys):
    runs.fails[""] = ["tests/contracts/test_contracts.py::test_x"]
    assert runs() == (2, [[]])
    assert "failed: a witness must pass without a fault; these fail: tests/contracts/test_contracts.py::test_x" in capsys.readouterr().err


def test_the_digest_follows_the_package_and_the_witness_and_no_other_test():
    sums = {"bisam/x.py": "1", "tests/a/test_a.py": "2", "tests/a/test_b.py": "3", "tests/small.py": "4", "notebooks/lemma.ipynb": "5", "README.md": "6"}

    def moved(name, witness):
        return THE_TOOL.digest({**sums, name: "another"}, witness) != THE_TOOL.digest(sums, witness)

    witness = ("tests/a/test_a.py::test_x",)
    assert [name for name in sums if moved(name, witness)] == ["bisam/x.py", "tests/a/test_a.py", "tests/small.py"]
    assert [name for name in sums if moved(name, ("lemma",))] == ["bisam/x.py", "tests/small.py", "notebooks/lemma.ipynb"]


@pytest.mark.slow
def test_a_real_fault_is_noticed_by_a_real_test(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sys.argv", ["mutations.py", "epoch-by-test", "--witness", KNOWN["epoch-by-test"].tests[0], "--state", str(tmp_path / "state.json")])
    assert THE_TOOL.main() == 0
    assert "test_the_selected_epoch_is_the_earliest_best" in capsys.readouterr().out
