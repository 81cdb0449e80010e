"""Verdicts: recomputed from the files by another way, on cases with known answers, and against the published table."""

import csv
import functools
import itertools
import json
import tomllib

import pytest
import records
from scipy import stats

from bisam import ledger, report
from bisam.experiments import RESULTS, Claim
from bisam.report import PUBLISHED_AS, decide, decisions, markdown, published, published_effect, series, write
from bisam.statistics import VERDICTS

LIST = tomllib.loads((RESULTS / "claims.toml").read_text())


@functools.cache
def raw(experiment):
    return [json.loads(path.read_text()) for path in (RESULTS / "runs" / experiment).glob("*.json")]


@pytest.fixture(scope="module")
def found():
    return {decision.claim.id: decision for decision in decisions()}


def independent(claim):
    """The verdict of a claim from the JSON files, without the code that is tested."""
    numbers = {}
    for entry in raw(claim["experiment"]):
        radius = entry["run"]["recipe"]["radius"]
        run = {**entry["run"], "rho": radius.get("rho"), "rate": radius.get("rate")}
        numbers[run["recipe"]["name"], run["seed"], *(str(run[key]) for key in axes(claim))] = entry["final"].get(claim["metric"])
    here = [str(value) for value in place(claim).values()]
    there = [str(value) for value in {**place(claim), **claim.get("against", {})}.values()]
    seeds = [key[1] for key in numbers if key[0] == claim["ours"] and list(key[2:]) == here]
    differences = [
        numbers[claim["ours"], seed, *here] - numbers[claim["theirs"], seed, *there]
        for seed in seeds if (claim["theirs"], seed, *there) in numbers
    ]  # fmt: skip
    if not differences:
        return "not attempted", []
    n, mean = len(differences), sum(differences) / len(differences)
    if n < 6:
        return "not resolved", differences
    low, high = stats.t.interval(0.95, n - 1, mean, stats.sem(differences)) if any(differences) else (0, 0)
    extreme = sum(
        abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= abs(sum(differences)) - 1e-9
        for signs in itertools.product((1, -1), repeat=n)
    )  # fmt: skip
    if extreme / 2**n >= 0.05 or low <= 0 <= high:
        return "not resolved", differences
    return ("holds" if mean > 0 else "refuted"), differences


def place(claim):
    return {**({"label_noise": claim["label_noise"]} if "label_noise" in claim else {}), **claim.get("at", {})}


def axes(claim):
    return list(place(claim))


@pytest.mark.parametrize("claim", [c for c in LIST["claim"] if c["experiment"] and not c.get("published")], ids=lambda c: c["id"])
def test_every_verdict_follows_from_the_files(claim, found):
    decision, (expected, differences) = found[claim["id"]], independent(claim)
    assert decision.verdict == expected
    assert (0 if decision.result is None else decision.result.pairs) == (len(differences) if len(differences) > 1 else 0)


def test_claims_have_names_of_their_own_and_are_falsifiable():
    ids = [claim["id"] for claim in LIST["claim"]]
    assert len(set(ids)) == len(ids)
    assert all(claim["statement"].endswith(".") and "than" in claim["statement"] for claim in LIST["claim"])


def test_every_cell_of_the_accuracy_tables_with_a_bisam_method_is_claimed():
    with open(RESULTS / "published.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "bisam-early-version"]
    methods = {name: key for key, name in PUBLISHED_AS.items()}
    claimed = {(c.published.get("table"), c.ours, *sorted(c.published.items())) for c in ledger.claims() if c.published}
    wanted = [
        row for row in rows
        if row["table"] in ("T1", "T2", "T5", "T6", "T7", "T8", "T9", "T3", "T4") and "BiSAM" in row["method"]
        and row["model"] != "Average"
    ]  # fmt: skip
    # T7 and T8 repeat the columns of T5 and T6 beside the new one.
    wanted = [row for row in wanted if not (row["table"] in ("T7", "T8") and "(-log)" in row["method"])]
    for row in wanted:
        assert any(
            table == row["table"] and ours == methods[row["method"]] and all(row[k] == v for k, v in columns)
            for table, ours, *columns in claimed
        ), row  # fmt: skip


def test_the_words_of_a_published_claim_fit_its_number():
    for claim in ledger.claims():
        if claim.published:
            effect = published_effect(claim)
            word = "is more accurate" if effect > 1e-9 else "is less accurate" if effect < -1e-9 else "is not more or less accurate"
            assert word in claim.statement, claim.id


def test_a_published_effect_is_the_difference_of_two_cells():
    claim = next(c for c in ledger.claims() if c.id == "T1/resnet56/bisam-log-over-sam")
    cells = {row["method"]: row["mean"] for row in published(table="T1", model="Resnet-56")}
    assert published_effect(claim) == pytest.approx(cells["BiSAM (-log)"] - cells["SAM"])
    assert published_effect(ledger.claims("first_run")[0]) is None
    vague = Claim("c", "", "s.", "sam", "sgd", "last_test_accuracy", published={"table": "T1"})
    with pytest.raises(ledger.LedgerError, match="has 6 published rows for sam"):
        published_effect(vague)


def recorded(folder, accuracies, fields, **claim):
    """A ledger with one claim, SAM over SGD, and the records of these accuracies by method, place of the grid and seed."""
    (folder / "claims.toml").write_text(
        '[experiment.e]\ntitle = "t"\nscale = "paper"\nmethods = ["sam", "sgd"]\nschema = 2\nseeds = 20\nepochs = 2\nbudget = "same"\n'
        f'{fields}\n[[claim]]\nid = "c"\nexperiment = "e"\nstatement = "s."\nours = "sam"\ntheirs = "sgd"\n'
        'metric = "last_test_accuracy"\n' + "\n".join(f"{key} = {value}" for key, value in claim.items())
    )
    experiment = ledger.experiment("e", folder)
    (folder / "runs" / "e").mkdir(parents=True)
    for (method, *place, seed), value in accuracies.items():
        run = experiment.run(method, seed, **dict(zip(experiment.grid, place, strict=True)))
        entry = records.sound(run, value, schema=2)
        (folder / "runs" / "e" / f"{'-'.join((method, *place, f'seed{seed}'))}.json").write_text(json.dumps(entry))
    return ledger.claims("e", folder)[0]


def made(folder, differences, effect=None):
    """A ledger in which ours and theirs differ by these numbers, seed by seed."""
    ours = {("sam", seed): 90 + difference for seed, difference in enumerate(differences)}
    theirs = {("sgd", seed): 90 for seed in range(len(differences))}
    published = {} if effect is None else {"published": '{ table = "T1", model = "Resnet-56" }'}
    return recorded(folder, ours | theirs, 'settings = { data = "digits", model = "mlp" }', **published)


@pytest.mark.parametrize("differences, verdict", [
    ([], "not attempted"), ([1.0], "not resolved"), ([1.0, 1.1, 0.9, 1.0, 1.0], "not resolved"),
    ([1.0, 1.1, 0.9, 1.0, 1.0, 1.2], "holds"), ([-1.0, -1.1, -0.9, -1.0, -1.0, -1.2], "refuted"),
    ([1.0, -1.1, 0.9, -1.0, 1.0, -0.8], "not resolved"), ([0.0] * 8, "not resolved"),
])  # fmt: skip
def test_known_answers_for_a_claim_of_our_own(tmp_path, differences, verdict):
    assert decide(made(tmp_path, differences), tmp_path).verdict == verdict


@pytest.mark.parametrize("shift, verdict", [(0.0, "reproduced"), (0.5, "direction only"), (-0.5, "not reproduced")])
def test_known_answers_for_a_published_claim(tmp_path, shift, verdict, monkeypatch):
    differences = [0.08 + shift + step for step in (-0.02, 0.03, 0.0, -0.01, 0.02, -0.03, 0.01)]
    found = decide(made(tmp_path, differences, effect=True), tmp_path)
    assert found.published == pytest.approx(0.08, abs=1e-9) and found.verdict == verdict in VERDICTS


def test_a_published_difference_of_nothing_has_no_direction_to_reproduce(tmp_path, monkeypatch):
    claim = made(tmp_path, [1.0, 1.1, 0.9, 1.0, 1.0, 1.2], effect=True)
    monkeypatch.setattr(report, "published_effect", lambda claim: 0.0)
    assert decide(claim, tmp_path).verdict == "holds"


def test_a_claim_may_compare_two_places(tmp_path):
    claim = made(tmp_path, [1.0] * 6)
    records = ledger.load("e", tmp_path)
    assert series(records, "sam", "last_test_accuracy", {"model": "mlp"}) == dict.fromkeys(range(6), 91.0)
    assert series(records, "sam", "last_test_accuracy", {"model": "other"}) == {}
    assert series(records, "sam", "last_test_accuracy", {"rho": 0.05}) == dict.fromkeys(range(6), 91.0)
    assert claim.other_place == {}


def averaged(folder, accuracies, **claim):
    """A ledger of three networks, with a claim about their average."""
    return recorded(folder, accuracies, 'axes = { model = ["mlp", "resnet8", "small_conv"] }\nsettings = { data = "digits" }', **claim)


def test_a_claim_about_an_average_pairs_the_seeds_that_are_there_for_every_network(tmp_path):
    ours = {("sam", "mlp", k): 90.0 + k for k in range(10)} | {("sam", "small_conv", k): 95.0 - k for k in range(9)}
    ours |= {("sam", "resnet8", k): 80.0 for k in range(10)}
    theirs = {("sgd", "mlp", k): 90.0 for k in range(8)} | {("sgd", "small_conv", k): 92.0 + 0.1 * k for k in range(10)}
    theirs |= {("sgd", "resnet8", k): 79.0 for k in range(10) if k != 3}
    found = decide(averaged(tmp_path, ours | theirs, over='["model"]'), tmp_path)
    seeds = [0, 1, 2, 4, 5, 6, 7]  # SGD lacks a network at 3, 8 and 9
    differences = [(90 + k + 95 - k + 80) / 3 - (90 + 92 + 0.1 * k + 79) / 3 for k in seeds]
    assert found.result.pairs == 7 and found.result.mean == pytest.approx(sum(differences) / 7)
    low, high = stats.t.interval(0.95, 6, sum(differences) / 7, stats.sem(differences))
    assert (found.result.low, found.result.high) == pytest.approx((low, high)) and found.verdict == "holds"
    assert decisions("e", tmp_path) == [found]


def test_an_average_is_over_axes_that_the_grid_has_and_the_claim_leaves_open(tmp_path):
    claim = averaged(tmp_path, {("sam", "mlp", 0): 90.0}, over='["label_noise"]')
    with pytest.raises(ledger.LedgerError, match="claim c: over names 'label_noise'; the grid of e has model"):
        decide(claim, tmp_path)
    with pytest.raises(ValueError, match="over must name axes that have no place in claim c, got 'model'"):
        Claim("c", "e", "s.", "sam", "sgd", "last_test_accuracy", at={"model": "mlp"}, over=["model"])


@pytest.mark.parametrize("ending", [".md", ".json", ".csv"])
def test_the_state_is_written_in_three_formats(tmp_path, ending):
    found = decisions("first_run")
    write(found, tmp_path / "deep" / f"claims{ending}")
    text = (tmp_path / "deep" / f"claims{ending}").read_text()
    assert all(decision.claim.id in text for decision in found)
    if ending == ".json":
        assert [row["verdict"] for row in json.loads(text)] == [decision.verdict for decision in found]
    with pytest.raises(ValueError, match=r"output must be one of \.md, \.json, \.csv; got '\.doc'"):
        write(found, tmp_path / "x.doc")


def test_the_table_counts_its_verdicts(found):
    lines = markdown(found.values()).splitlines()
    assert len(lines) == len(LIST["claim"]) + 4 and lines[-1].startswith(f"{len(LIST['claim'])} claims: ")
    assert sum(int(part.split()[0]) for part in lines[-1].split(": ")[1].split(", ")) == len(LIST["claim"])
