"""Records of several machines: counted by kind, compared, and taken in from another ledger."""

import json
import shutil

import numpy
import pytest
import records

from bisam import cli
from bisam.evidence import ledger, places
from bisam.evidence import machines as kinds
from bisam.evidence.claim import Claim
from bisam.evidence.machines import agreement, machine, machines
from bisam.evidence.plans import plan
from bisam.evidence.pooling import pool

TOML = """
[experiment.e]
title = "A few runs"
scale = "laptop"
methods = ["sgd", "sam"]
seeds = 8
epochs = 2
settings = { data = "digits", model = "mlp" }

[[claim]]
id = "e/sam"
experiment = "e"
statement = "SAM is better."
ours = "sam"
theirs = "sgd"
metric = "last_test_accuracy"
"""
CLAIM = Claim("e/sam", "e", "SAM is better.", "sam", "sgd", "last_test_accuracy")


@pytest.fixture
def two(tmp_path):
    """Two ledgers with the same list."""
    places = [tmp_path / name for name in ("here", "there")]
    for place in places:
        (place / "runs" / "e").mkdir(parents=True)
        (place / "claims.toml").write_text(TOML)
    return places


def write(folder, file, accuracy, processor="one", digest=None, **changes):
    run = next(one.run for one in plan("e", folder=folder) if one.file == file)
    entry = {**records.sound(run, accuracy, experiment="e", scale="laptop"), **changes}
    entry["environment"] = {**entry["environment"], "processor": processor, "wall_seconds": 36.0}
    if digest:
        entry["weights_digest"] = digest
    (folder / "runs" / "e" / f"{file}.json").write_text(json.dumps(entry))


def fill(folder, seeds, processor, higher):
    for seed in seeds:
        write(folder, f"sgd-seed{seed}", 90.0, processor)
        write(folder, f"sam-seed{seed}", 90.0 + higher + 0.2 * (seed % 3), processor)


# -- who made what ------------------------------------------------------------------------------------------------------


def test_machines_are_counted_by_kind(two):
    fill(two[0], range(4), "one", 1.0)
    fill(two[0], range(4, 6), "two", 1.0)
    found = machines(two[0])
    assert [(each.name, each.runs, round(each.hours, 3), each.experiments) for each in found] == [
        ("one", 8, 0.08, ("e",)), ("two", 4, 0.04, ("e",)),
    ]  # fmt: skip


@pytest.mark.parametrize("environment, name", [
    ({"processor": "a processor", "device": "x86_64 CPU, 1 of 2 threads"}, "a processor"),
    ({"processor": "a processor", "device": "a GPU", "cuda": "12.8"}, "a GPU"),
    ({"device": "x86_64 CPU, 1 of 2 threads"}, "x86_64 CPU (kind not recorded)"),
])  # fmt: skip
def test_the_kind_of_a_machine(environment, name):
    assert machine({"environment": environment}) == name


# -- whether they agree ---------------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch):
    """Four pairs of a machine are enough here."""
    monkeypatch.setattr(kinds, "FEWEST", 4)


def test_machines_that_agree_and_machines_that_do_not(two, few):
    fill(two[0], range(4), "one", 1.0)
    assert agreement(CLAIM, ledger.evidence("e", two[0])).p is None
    fill(two[0], range(4, 8), "two", 1.0)
    same = agreement(CLAIM, ledger.evidence("e", two[0]))
    assert [(part.machine, part.pairs) for part in same.parts] == [("one", 4), ("two", 4)] and same.p > 0.1
    assert same.parts[0].mean == pytest.approx(1.15) and same.parts[0].error == pytest.approx(0.0957, abs=1e-3)
    fill(two[0], range(4, 8), "two", 3.0)
    assert agreement(CLAIM, ledger.evidence("e", two[0])).p < 1e-3


@pytest.mark.slow
def test_equal_machines_are_rarely_told_apart():
    draw = numpy.random.default_rng(0)
    small = [kinds._one_difference([list(draw.normal(size=n)) for n in (10, 40)]) < 0.05 for _ in range(2_000)]
    assert 0.03 < sum(small) / len(small) < 0.07
    assert kinds._one_difference([[1.0, 1.0], [0.0, 1.0]]) is None  # a part without a spread


def test_only_pairs_of_one_machine_count(two, few):
    fill(two[0], range(4), "one", 1.0)
    write(two[0], "sam-seed4", 99.0, "two")
    write(two[0], "sgd-seed4", 90.0, "one")
    (part,) = agreement(CLAIM, ledger.evidence("e", two[0])).parts
    assert part.pairs == 4


def test_a_claim_that_averages_is_refused():
    with pytest.raises(ValueError, match="claim must average over no axis, c averages over model"):
        agreement(Claim("c", "e", "s", "sam", "sgd", "last_test_accuracy", over=("model",)), {})


# -- another's records ----------------------------------------------------------------------------------------------------


def test_new_records_are_taken_in_and_those_of_both_compared(two):
    here, there = two
    write(here, "sgd-seed0", 90.0)
    write(here, "sam-seed0", 91.0)
    write(there, "sgd-seed0", 90.0)
    write(there, "sam-seed0", 91.4, "two", digest="0" * 16)
    write(there, "sam-seed1", 92.0, "two")
    kept = (here / "runs" / "e" / "sam-seed0.json").read_bytes()
    found = pool(there, here)
    assert (found.taken, found.same, found.differ, found.refused) == (["e/sam-seed1"], ["e/sgd-seed0"], ["e/sam-seed0"], [])
    assert found.differences == pytest.approx([0.4, 0.0]) and "mean +0.20 points, largest 0.40" in str(found)
    assert (here / "runs" / "e" / "sam-seed0.json").read_bytes() == kept
    new = here / "runs" / "e" / "sam-seed1.json"
    assert json.loads(new.read_text()) == json.loads((there / "runs" / "e" / "sam-seed1.json").read_text())
    assert pool(there, here).taken == []


def test_what_does_not_belong_is_refused_with_its_reason(two):
    here, there = two
    write(here, "sgd-seed0", 90.0)
    write(there, "sam-seed3", 90.0)
    write(there, "sgd-seed1", 90.0, data_fingerprint="0" * 16)
    (there / "runs" / "e" / "sam-seed2.json").write_text("{}")
    shutil.copy(there / "runs" / "e" / "sam-seed3.json", there / "runs" / "e" / "sam-seed4.json")
    (there / "runs" / "unknown").mkdir()
    shutil.copy(there / "runs" / "e" / "sam-seed3.json", there / "runs" / "unknown" / "x.json")
    found = pool(there, here)
    assert found.taken == ["e/sam-seed3"] and len(found.refused) == 4
    for start, reason in (
        ("e/sgd-seed1", "was made with another schema or other data"), ("e/sam-seed2", "lacks"),
        ("e/sam-seed4", "is no run of e"), ("unknown/x", "no experiment of that name"),
    ):  # fmt: skip
        assert any(line.startswith(start) and reason in line for line in found.refused), found.refused
    with pytest.raises(places.LedgerError, match="has no folder runs"):
        pool(here / "runs", here)


def test_a_record_of_other_data_does_not_stand_beside_those_that_are_here(two):
    here, there = two
    write(here, "sgd-seed0", 90.0)
    write(there, "sgd-seed0", 90.0, data_fingerprint="0" * 16)
    assert pool(there, here).refused == ["e/sgd-seed0: it was made with another schema or other data"]


def test_smoke_runs_are_no_evidence(two):
    here, there = two
    for folder in two:
        (folder / "claims.toml").write_text(TOML.replace('scale = "laptop"', 'scale = "smoke"'))
    write(there, "sgd-seed0", 90.0, scale="smoke")
    found = pool(there, here)
    assert found.taken == [] and found.refused == ["e/sgd-seed0: smoke runs are no evidence"]


def test_the_command_says_what_came_in_and_what_changed(two, capsys):
    here, there = two
    fill(here, range(2), "one", 1.0)
    fill(there, range(2, 8), "two", 1.0)
    assert cli.main(["pool", str(there), "--ledger", str(here)]) == 0
    said = capsys.readouterr().out
    assert "12 records taken in" in said and "from 2 pairs -> " in said and "from 8 pairs" in said
    (there / "runs" / "e" / "sam-seed0.json").write_text("")
    assert cli.main(["pool", str(there), "--ledger", str(here)]) == 1 and "refused: e/sam-seed0" in capsys.readouterr().out
