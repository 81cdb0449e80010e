"""Verdicts: recomputed from the files by another way, on cases with known answers, and against the published table."""

import base64
import csv
import dataclasses
import functools
import json
import re
import tomllib

import numpy
import pytest
import records
from scipy import stats

from bisam.evidence import ledger, listing, places
from bisam.evidence.claim import Claim
from bisam.evidence.decisions import decide, decisions
from bisam.evidence.experiment import Experiment
from bisam.evidence.places import RESULTS
from bisam.evidence.published import PUBLISHED_AS, published, published_difference, published_effect
from bisam.evidence.report import markdown, write
from bisam.evidence.selection import series
from bisam.evidence.summaries import welch
from bisam.evidence.verdicts import NOT_IN_FAMILY, OWN, VERDICTS

made_up = records.sound
LIST = tomllib.loads((RESULTS / "claims.toml").read_text())
MINE = [claim for claim in LIST["claim"] if claim["experiment"] and not claim.get("published") and not claim.get("over")]


@functools.cache
def raw(experiment):
    return [{**json.loads(path.read_text()), "file": path.stem} for path in (RESULTS / "runs" / experiment).glob("*.json")]


@pytest.fixture(scope="module")
def found():
    return {decision.claim.id: decision for decision in decisions()}


def independent(claim):
    """The verdict of a claim by both rules, alone, and the largest p, from the JSON files, without the code that is tested."""
    numbers, fitted, right = {}, {}, {}
    for entry in raw(claim["experiment"]):
        radius = entry["run"]["recipe"]["radius"]
        run = {**entry["run"], "rho": radius.get("rho"), "rate": radius.get("rate")}
        if axis := re.search(r"-epochs(\d+)-", entry["file"]):  # a budget doubles them for SGD
            run["epochs"] = int(axis[1])
        key = run["recipe"]["name"], run["seed"], *(str(run[axis]) for axis in axes(claim))
        numbers[key] = entry["final"].get(claim["metric"])
        last = entry["final"].get("train_accuracy", entry["curve"]["train_accuracy"][-1])
        fitted[key] = last / (1 - run["label_noise"])
        if "right" in entry and claim["metric"].endswith("_accuracy"):  # which images are right says nothing of other scores
            packed = entry["right"][claim["metric"].split("_")[0]]
            right[key] = numpy.unpackbits(numpy.frombuffer(base64.b64decode(packed), numpy.uint8))[: entry["right"]["images"]].astype(int)
    here = [str(value) for value in place(claim).values()]
    there = [str(value) for value in {**place(claim), **claim.get("against", {})}.values()]
    seeds = [key[1] for key in numbers if key[0] == claim["ours"] and list(key[2:]) == here]
    seeds = [seed for seed in seeds if (claim["theirs"], seed, *there) in numbers]
    differences = [numbers[claim["ours"], seed, *here] - numbers[claim["theirs"], seed, *there] for seed in seeds]
    if len(differences) < 2:
        word = "not resolved" if differences else "not attempted"
        return word, word, None, differences
    n, mean = len(differences), sum(differences) / len(differences)
    low, high = stats.t.interval(0.95, n - 1, mean, stats.sem(differences)) if any(differences) else (0, 0)
    extreme = flipped(differences)
    resolved = n >= 6 and extreme < 0.05 and not low <= 0 <= high
    old = ("holds" if mean > 0 else "refuted") if resolved else "not resolved"
    sides = ((claim["ours"], here), (claim["theirs"], there))
    means = [sum(fitted[method, seed, *at] for seed in seeds) / n for method, at in sides]
    fits = claim["metric"] == "broken" or min(means) >= claim.get("fitted", 90)
    largest = max(extreme, stats.ttest_1samp(differences, 0).pvalue if any(differences) else 1)
    if len(right) == len(numbers):
        largest = max(largest, over_images(*(numpy.array([right[method, seed, *at] for seed in seeds]) for method, at in sides)))
    enough = n >= max(claim.get("pairs", 0), 12 if claim.get("rule") == 2 else 6)
    new = old if largest < 0.05 and enough else "not resolved"
    return old, new if fits else "not in regime", largest if fits and enough else None, differences


def flipped(differences):
    """The share of sign patterns whose sum is as far from zero as the observed one: the sums and how often each comes, difference by difference."""
    whole = [round(1e9 * d) for d in differences]
    counts = {0: 1}
    for d in whole:
        counts = {
            total: counts.get(total - d, 0) + counts.get(total + d, 0)
            for total in {*(known + d for known in counts), *(known - d for known in counts)}
        }
    return sum(count for total, count in counts.items() if abs(total) >= abs(sum(whole))) / 2 ** len(whole)


def over_images(ours, theirs):
    """The p of the mean difference when seeds and images are both drawn: two-way random effects, written out."""
    d = ours - theirs
    n, m = d.shape
    total, seeds, images, rest = d.mean(), 0.0, 0.0, 0.0
    for row in d:
        seeds += m * (row.mean() - total) ** 2 / (n - 1)
    for mean in d.mean(0):
        images += n * (mean - total) ** 2 / (m - 1)
    for row in d:
        rest += ((row - row.mean() - d.mean(0) + total) ** 2).sum() / ((n - 1) * (m - 1))
    if images <= rest:
        return 0.0  # the images add nothing to what the seeds say
    square = seeds + images - rest
    freedom = square**2 / (seeds**2 / (n - 1) + images**2 / (m - 1) + rest**2 / ((n - 1) * (m - 1)))
    return 2 * stats.t.sf(abs(total) / (square / (n * m)) ** 0.5, freedom)


@functools.cache
def by_hand():
    """All claims that have no published number: id to verdicts, with Benjamini and Hochberg's steps written out."""
    found = {claim["id"]: independent(claim) for claim in MINE}
    final = {name: alone for name, (_, alone, _, _) in found.items()}
    for family in {claim["family"] for claim in MINE}:
        ranked = sorted((found[c["id"]][2], c["id"]) for c in MINE if c["family"] == family and found[c["id"]][2] is not None)
        waiting = [c["id"] for c in MINE if c["family"] == family and len(found[c["id"]][3]) < c.get("pairs", 0)]
        ranked = sorted(ranked + [(1.0, "")] * len(waiting))
        kept = max((k for k, (p, _) in enumerate(ranked, 1) if p <= 0.05 * k / len(ranked)), default=0)
        for _, name in ranked[kept:]:
            if name and final[name] != "not resolved":
                final[name] = NOT_IN_FAMILY
    return {name: (*found[name], final[name]) for name in found}


def place(claim):
    return {**({"label_noise": claim["label_noise"]} if "label_noise" in claim else {}), **claim.get("at", {})}


def axes(claim):
    return list(place(claim))


@pytest.mark.slow
def test_every_verdict_follows_from_the_files(found):
    assert len(MINE) > 100
    for name, (before, alone, _, differences, within) in by_hand().items():
        decision = found[name]
        assert (decision.before, decision.alone, decision.verdict) == (before, alone, within), name
        assert (0 if decision.result is None else decision.result.pairs) == (len(differences) if len(differences) > 1 else 0), name


@pytest.mark.slow
def test_what_is_recorded_shows_every_verdict_of_our_own(found):
    assert {*OWN, NOT_IN_FAMILY} == {decision.verdict for decision in found.values()}


def test_claims_have_names_of_their_own_and_are_falsifiable():
    ids = [claim["id"] for claim in LIST["claim"]]
    assert len(set(ids)) == len(ids)
    assert all(claim["statement"].endswith(".") and "than" in claim["statement"] for claim in LIST["claim"])


def test_every_cell_of_the_accuracy_tables_with_a_bisam_method_is_claimed():
    with open(RESULTS / "published.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "bisam-early-version"]
    claimed = [
        (c.published.get("table"), c.published_as.get("ours", PUBLISHED_AS.get(c.ours)), *sorted(c.published.items()))
        for c in listing.claims() if c.published
    ]  # fmt: skip
    wanted = [
        row for row in rows
        if row["table"] in ("T1", "T2", "T5", "T6", "T7", "T8", "T9", "T3", "T4") and "BiSAM" in row["method"]
        and row["model"] != "Average"
    ]  # fmt: skip
    # T7 and T8 repeat the columns of T5 and T6 beside the new one.
    wanted = [row for row in wanted if not (row["table"] in ("T7", "T8") and "(-log)" in row["method"])]
    for row in wanted:
        assert any(
            table == row["table"] and ours == row["method"] and all(row[k] == v for k, v in columns)
            for table, ours, *columns in claimed
        ), row  # fmt: skip


def test_the_words_of_a_published_claim_fit_its_number():
    for claim in listing.claims():
        if claim.published:
            effect = published_effect(claim)
            word = "is more accurate" if effect > 1e-9 else "is less accurate" if effect < -1e-9 else "is not more or less accurate"
            assert word in claim.statement, claim.id


def test_a_published_effect_is_the_difference_of_two_cells():
    claim = next(c for c in listing.claims() if c.id == "T1/resnet56/bisam-log-over-sam")
    cells = {row["method"]: row["mean"] for row in published(table="T1", model="Resnet-56")}
    assert published_effect(claim) == pytest.approx(cells["BiSAM (-log)"] - cells["SAM"])
    assert published_effect(listing.claims("first_run")[0]) is None
    vague = Claim("c", "", "s.", "sam", "sgd", "last_test_accuracy", published={"table": "T1"})
    with pytest.raises(places.LedgerError, match="has 6 published rows for sam"):
        published_effect(vague)


def recorded(folder, accuracies, fields, trained=99.0, right=None, **claim):
    """A ledger with one claim, SAM over SGD, and the records of these accuracies by method, place of the grid and seed.

    ``right`` maps a method and a seed to the test images that are right.
    """
    (folder / "claims.toml").write_text(
        '[experiment.e]\ntitle = "t"\nscale = "paper"\nmethods = ["sam", "sgd"]\nseeds = 20\nepochs = 2\nbudget = "same"\n'
        f"schema = {2 if right is None else 3}\n"
        f'{fields}\n[[claim]]\nid = "c"\nexperiment = "e"\nstatement = "s."\nours = "sam"\ntheirs = "sgd"\n'
        'metric = "last_test_accuracy"\n' + "\n".join(f"{key} = {value}" for key, value in claim.items())
    )
    experiment = listing.experiment("e", folder)
    (folder / "runs" / "e").mkdir(parents=True)
    for (method, *place, seed), value in accuracies.items():
        run = experiment.run(method, seed, **dict(zip(experiment.grid, place, strict=True)))
        bits = None if right is None else right[method, seed]
        entry = records.sound(run, value, schema=2 if bits is None else 3, images=500 if bits is None else len(bits))
        entry["curve"]["train_accuracy"][-1] = trained
        if bits is not None:
            packed = base64.b64encode(numpy.packbits(bits)).decode()
            entry["right"] = {"images": len(bits), "selected": packed, "last": packed}
        (folder / "runs" / "e" / f"{'-'.join((method, *place, f'seed{seed}'))}.json").write_text(json.dumps(entry))
    return listing.claims("e", folder)[0]


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
def test_known_answers_for_a_published_claim(tmp_path, shift, verdict):
    differences = [0.08 + shift + step for step in (-0.02, 0.03, 0.0, -0.01, 0.02, -0.03, 0.01)]
    found = decide(made(tmp_path, differences, effect=True), tmp_path)
    assert found.published == pytest.approx(0.08, abs=1e-9) and found.before == found.verdict == verdict in VERDICTS


def test_a_difference_that_only_the_published_error_makes_compatible_is_reproduced(tmp_path):
    differences = [0.28 + step for step in (-0.02, 0.03, 0.0, -0.01, 0.02, -0.03, 0.01)]  # published 0.08 with an error of 0.14
    found = decide(made(tmp_path, differences, effect=True), tmp_path)
    assert (found.before, found.verdict) == ("direction only", "reproduced")


def test_a_wide_interval_that_holds_the_published_number_earns_no_reproduction(tmp_path):
    found = decide(made(tmp_path, [0.9, 0.05, 1.5, 0.6, 0.1, 0.3, 0.02, 0.5], effect=True), tmp_path)
    assert found.result.low < 0.08 < found.result.high and found.result.detectable > 0.08
    assert (found.before, found.verdict) == ("reproduced", "direction only")


def test_a_published_difference_of_nothing_is_not_reproduced_by_a_difference(tmp_path):
    claim = made(tmp_path, [1.0, 1.1, 0.9, 1.0, 1.0, 1.2], effect=True)
    tie = dataclasses.replace(claim, published={"table": "T7", "model": "DenseNet-121"}, published_as={"ours": "ASAM", "theirs": "A-BiSAM (-log)"})
    assert decide(tie, tmp_path).published == 0 and decide(tie, tmp_path).verdict == "not reproduced"


@pytest.mark.parametrize("fitted, settings, claim, verdict", [
    (89.9, "", {}, "not in regime"), (90.0, "", {}, "holds"), (47.3, "", {"fitted": 0}, "holds"), (94.0, "", {"fitted": 95}, "not in regime"),
    (53.9, "label_noise = 0.4, ", {}, "not in regime"), (54.1, "label_noise = 0.4, ", {}, "holds"), (100.0, "label_noise = 0.4, ", {}, "holds"),
])  # fmt: skip
def test_what_has_not_fitted_is_not_in_regime(tmp_path, fitted, settings, claim, verdict):
    accuracies = {(method, seed): 90.0 + shift + seed / 10 for method, shift in (("sam", 1.0), ("sgd", 0.0)) for seed in range(6)}
    claim = recorded(tmp_path, accuracies, f'settings = {{ {settings}data = "digits", model = "mlp" }}', trained=fitted, **claim)
    found = decide(claim, tmp_path)
    assert found.verdict == verdict and found.before == "holds"
    assert found.fit.ours == found.fit.theirs == pytest.approx(fitted)
    assert found.fit.gap == pytest.approx(fitted - (91 + 0.25))


def test_records_that_do_not_say_how_far_they_fitted_decide_nothing_about_accuracy(tmp_path, monkeypatch):
    claim, evidence = made(tmp_path, [1.0, 1.1, 0.9, 1.0, 1.0, 1.2]), ledger.evidence

    def without(name, folder):
        return {file: {**entry, "curve": {}} for file, entry in evidence(name, folder).items()}

    monkeypatch.setattr(ledger, "evidence", without)
    found = decide(claim, tmp_path)
    assert (found.before, found.verdict) == ("holds", "not resolved") and "fit unknown" in found.marks


def test_a_claim_of_the_new_rule_needs_twelve_pairs(tmp_path):
    eleven = [1.0 + k / 10 for k in range(11)]
    old = made(tmp_path, eleven)
    new = decide(dataclasses.replace(old, rule=2), tmp_path)
    assert (new.before, new.verdict) == ("holds", "not resolved") and "few pairs" in new.marks
    assert decide(old, tmp_path).verdict == "holds" and "few pairs" in decide(old, tmp_path).marks


def test_test_images_widen_the_interval_and_can_undo_a_verdict(tmp_path):
    draw, images = numpy.random.default_rng(0), 500
    hard = draw.random(images)  # ours is right on some images that theirs is not, the same ones with every seed
    theirs = {("sgd", k): hard + 0.02 * draw.normal(size=images) < 0.7 for k in range(12)}
    ours = {("sam", k): hard + 0.3 * (numpy.arange(images) % 7 == 0) - 0.06 + 0.02 * draw.normal(size=images) < 0.7 for k in range(12)}
    right = ours | theirs
    accuracies = {key: 100 * bits.mean() for key, bits in right.items()}
    claim = recorded(tmp_path, accuracies, 'settings = { data = "digits", model = "mlp" }', right=right)
    found = decide(claim, tmp_path)
    assert found.result.images.images == images and "seeds only" not in found.marks
    assert found.result.images.mean == pytest.approx(found.result.mean)
    low, high = found.result.widest
    assert low < found.result.low and high > found.result.high
    assert low < 0 < high and (found.before, found.verdict) == ("holds" if found.result.mean > 0 else "refuted", "not resolved")


def test_both_epochs_and_both_budgets_stand_beside_a_claim(tmp_path):
    accuracies = {("sam", k): 91.0 + k / 10 for k in range(6)} | {("sgd", k): 90.0 for k in range(6)}
    claim = recorded(tmp_path, accuracies, 'settings = { data = "digits", model = "mlp" }')
    assert set(decide(claim, tmp_path).beside) == {"chosen epoch"}, "with budget same there is one SGD"
    text = (tmp_path / "claims.toml").read_text()
    both = text.replace('["sam", "sgd"]', '["sam", "sgd", "sgd-equal-epochs"]').replace('budget = "same"\n', "")
    (tmp_path / "claims.toml").write_text(both)
    plan = listing.experiment("e", tmp_path)
    assert (plan.run("sgd", 0).epochs, plan.run("sgd-equal-epochs", 0).epochs, plan.run("sam", 0).epochs) == (4, 2, 2)
    for path in (tmp_path / "runs" / "e").glob("sgd-*.json"):
        entry = json.loads(path.read_text())
        entry["run"] = plan.run("sgd-equal-epochs", entry["run"]["seed"]).to_dict()
        (path.parent / path.name.replace("sgd-", "sgd-equal-epochs-")).write_text(json.dumps(entry))
        path.unlink()
    other = dataclasses.replace(claim, theirs="sgd-equal-epochs")
    assert decide(claim, tmp_path).verdict == "not attempted", "no record has SGD at equal passes"
    found = decide(other, tmp_path)
    assert found.verdict == "holds" and found.beside["equal passes"] is None and found.beside["chosen epoch"].pairs == 6


@pytest.mark.parametrize("claim, fields, message", [
    ({"family": '"g"'}, "", "claim c: family must be one of none; got 'g'"),
    ({"rule": 2}, "seeds = 11", "claim c: rule 2 needs 12 seeds, e plans 11"),
    ({"rule": 2}, "seeds = 12", "must have both sgd and sgd-equal-epochs"),
])  # fmt: skip
def test_a_claim_of_the_new_rule_that_plans_too_little_is_refused(tmp_path, claim, fields, message):
    made(tmp_path, [])
    text = (tmp_path / "claims.toml").read_text().replace("seeds = 20", fields or "seeds = 20")
    (tmp_path / "claims.toml").write_text(text + "\n" + "\n".join(f"{key} = {value}" for key, value in claim.items()))
    with pytest.raises(places.LedgerError, match=message):
        listing.claims("e", tmp_path)


@pytest.mark.slow
def test_a_family_takes_in_the_claims_of_other_experiments(found):
    one = next(claim for claim in listing.claims("digits_validation") if claim.family == "bisam-over-sam")
    assert decide(one).q == found[one.id].q == decisions("digits_validation")[0].q


def test_a_claim_may_compare_two_places(tmp_path):
    claim = made(tmp_path, [1.0] * 6)
    records = ledger.load("e", tmp_path)
    assert series(records, "sam", "last_test_accuracy", {"model": "mlp"}) == dict.fromkeys(range(6), 91.0)
    assert series(records, "sam", "last_test_accuracy", {"model": "other"}) == {}
    assert series(records, "sam", "last_test_accuracy", {"rho": 0.05}) == dict.fromkeys(range(6), 91.0)
    assert claim.other_place == {}


def test_epochs_that_a_budget_doubles_are_found_by_their_place_in_the_plan():
    plan = Experiment("e", "t", "laptop", ("sgd", "sam"), 2, 5, axes={"epochs": [1, 2]}, settings={"data": "digits", "model": "mlp"})
    records = {
        file: made_up(run, {1: 80.0, 2: 90.0}[plan.places()[file]["epochs"]] + (run.recipe.name == "sam"), experiment="e", scale="laptop")
        for file, run in plan.runs().items()
    }
    assert [records[f"sgd-epochs{k}-seed0"]["run"]["epochs"] for k in (1, 2)] == [2, 4]
    for epochs, accuracy in ((1, 80.0), (2, 90.0)):
        found = [series(records, name, "last_test_accuracy", {"epochs": epochs}, plan) for name in ("sgd", "sam")]
        assert found == [dict.fromkeys(range(2), accuracy), dict.fromkeys(range(2), accuracy + 1)]
    assert series(records, "sgd", "last_test_accuracy", {"epochs": 1}) == {}  # without the plan it is what was run


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
    with pytest.raises(places.LedgerError, match="claim c: over names 'label_noise'; the grid of e has model"):
        averaged(tmp_path, {("sam", "mlp", 0): 90.0}, over='["label_noise"]')
    with pytest.raises(ValueError, match="over must name axes that have no place in claim c, got 'model'"):
        Claim("c", "e", "s.", "sam", "sgd", "last_test_accuracy", at={"model": "mlp"}, over=["model"])


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".md", ".json", ".csv"])
def test_the_state_is_written_in_three_formats(found, tmp_path, ending):
    found = [each for each in found.values() if each.claim.experiment == "first_run"]
    write(found, tmp_path / "deep" / f"claims{ending}")
    text = (tmp_path / "deep" / f"claims{ending}").read_text()
    assert all(decision.claim.id in text for decision in found)
    if ending == ".json":
        assert [row["verdict"] for row in json.loads(text)] == [decision.verdict for decision in found]
    with pytest.raises(ValueError, match=r"output must be one of \.md, \.json, \.csv; got '\.doc'"):
        write(found, tmp_path / "x.doc")


@pytest.mark.slow
def test_the_table_counts_its_verdicts(found):
    lines = markdown(list(found.values())).splitlines()
    recorded = sum(decision.result is not None for decision in found.values())
    assert len(lines) == (2 + len(LIST["claim"])) + 1 + (2 + recorded) + 1 + 2
    assert lines[-1].startswith(f"{len(LIST['claim'])} claims: ") and lines[-2].startswith("By the rule of 0.1.0: ")
    for line in lines[-2:]:
        assert sum(int(part.split()[0]) for part in line.split(": ")[1].split(", ")) == len(LIST["claim"])


@pytest.mark.slow
def test_both_rules_and_what_stands_beside_are_in_every_format(found, tmp_path):
    found = [each for each in found.values() if each.claim.experiment == "jpeg_long"]
    write(found, tmp_path / "c.json")
    row = next(row for row in json.loads((tmp_path / "c.json").read_text()) if row["id"] == "jpeg_long/sam-over-sgd")
    assert (row["verdict"], row["rule_of_0.1.0"], row["marks"]) == ("not in regime", "refuted", "few pairs, seeds only")
    assert row["train_ours"] < 60 and row["fitted"] == 90 and row["other_epoch_difference"] < 0 and row["other_budget_difference"] is None
    text = markdown(found)
    assert "| not in regime | refuted |" in text and "equal epochs: not run" in text and "last epoch: -7.88 [-9.55, -6.20]" in text
    write(found, tmp_path / "c.csv")
    (one, *_) = csv.DictReader((tmp_path / "c.csv").read_text().splitlines())
    assert one["rule_of_0.1.0"] == "refuted"


@pytest.mark.parametrize("statement", ["a | b", "a\\| b", "two\nlines", "a\x1b[31m b", "a\r| b", "tab\there", "a\u2028b"])
def test_no_statement_breaks_the_table(statement, tmp_path):
    decision = decide(made(tmp_path, [1.0, 1.2, 0.9]), tmp_path)
    odd = dataclasses.replace(decision, claim=dataclasses.replace(decision.claim, statement=statement))
    lines, plain = markdown([odd]).splitlines(), markdown([decision]).splitlines()
    assert len(lines) == len(plain) and all(line.isprintable() for line in lines)
    cells = [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines]
    assert cells == [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in plain]


def test_what_too_few_pairs_can_detect_is_no_number_in_a_file(tmp_path):
    claim = made(tmp_path, [1.0, 1.2, 0.9])
    write([decide(claim, tmp_path)], tmp_path / "c.json")
    assert json.loads((tmp_path / "c.json").read_text(), parse_constant=pytest.fail)[0]["detectable"] is None


@pytest.mark.parametrize("columns, message", [
    ({"table": "T99"}, "table must be one of T1, .*NOISE.*; got 'T99'"), ({"method": "SAM2"}, "method must be one of .*SAM.*; got 'SAM2'"),
    ({"model": "resnet56"}, "model must be one of .*Resnet-56.*; got 'resnet56'"), ({"tabel": "T1"}, "column must be one of source, table"),
])  # fmt: skip
def test_a_value_that_no_row_has_is_refused_with_those_that_exist(columns, message):
    with pytest.raises(ValueError, match=message):
        published(**columns)


def test_the_published_error_is_welchs_where_it_is_printed():
    by_id = {claim.id: claim for claim in listing.claims()}
    found = published_difference(by_id["T1/resnet56/bisam-log-over-sam"])
    assert found.comparison == welch(94.28, 0.31, 6, 94.09, 0.26, 6) and found.effect == pytest.approx(0.19)
    assert published_difference(by_id["T4/pets/bisam-log-over-sam"]).comparison is None, "the number of runs is not printed"
    assert published_difference(by_id["first_run/sam-last"]) is None


@pytest.mark.parametrize("name, effect", [
    ("slides/cifar10-100", 0.84), ("slides/cifar100-400", -29.11), ("slides/noise80", 51.7), ("slides/batch-8-over-256", 13.3),
])  # fmt: skip
def test_the_slides_are_claims_about_printed_numbers_and_errors_count_the_other_way(name, effect):
    claim = next(claim for claim in listing.claims() if claim.id == name)
    found = published_difference(claim)
    assert found.effect == pytest.approx(effect) and found.comparison is None


def test_control_g_is_about_all_splits_and_top_5_about_top_5():
    by_id = {claim.id: claim for claim in listing.claims()}
    assert by_id["control/g"].over == ("split_seed",)
    for claim in by_id.values():
        top5 = claim.published.get("metric") == "top5_accuracy_percent"
        assert top5 == (claim.metric == "selected_test_top5_accuracy"), claim.id


def test_an_experiment_that_was_recorded_in_part_says_why():
    for name, plan in listing.experiments().items():
        recorded = len(list((RESULTS / "runs" / name).glob("*.json")))
        waited_for = {claim.experiment for claim in listing.claims() if claim.pairs}  # nothing is judged before it is whole
        assert bool(plan.stopped) == (0 < recorded < len(plan.runs()) and name not in waited_for), name
