"""The list of claims: whatever is mistyped is refused with the entry and the field named, and nothing is decided from it."""

import dataclasses
import re
import tomllib

import pytest

from bisam.evidence import decisions, listing
from bisam.evidence.claim import Claim, Family
from bisam.evidence.experiment import Experiment
from bisam.evidence.form import KINDS, OWN
from bisam.evidence.listing import listed
from bisam.evidence.places import RESULTS, LedgerError

HEAD = """
[family.f]
title = "t"
why = "w"

"""
PLAN = """
[experiment.try]
title = "A few runs"
scale = "laptop"
methods = ["sgd", "sam", "bisam-log"]
seeds = 6
epochs = 2
rho = 0.1
label_noise = [0.0, 0.4]
axes = { lr = [0.1, 0.2] }
radius = { bisam-log = 0.2 }
settings = { data = "digits", model = "mlp" }
tables = ["T1"]
"""
CLAIM = """
[[claim]]
id = "T1/try"
experiment = "try"
statement = "BiSAM is more accurate than SAM."
ours = "bisam-log"
theirs = "sam"
metric = "last_test_accuracy"
at = { label_noise = 0.4 }
over = ["lr"]
published = { table = "T1", dataset = "CIFAR-10", model = "Resnet-56" }
"""
GOOD = HEAD + PLAN + CLAIM


@pytest.fixture
def faults(tmp_path):
    """What is wrong with a text; the functions that read the list refuse it for the first of it."""

    def answer(text):
        (tmp_path / "claims.toml").write_text(text)
        found = listed(tmp_path).faults
        for reader in (listing.experiments, listing.claims, listing.families) if found else ():
            with pytest.raises(LedgerError) as refused:
                reader(folder=tmp_path)
            assert str(refused.value).startswith(f"{tmp_path / 'claims.toml'}: {found[0]}")
        return found

    return answer


def test_the_list_that_is_changed_is_good(faults, tmp_path):
    assert faults(GOOD) == []
    assert len(listing.claims("try", tmp_path)) == 1 and decisions.decisions(folder=tmp_path)[0].claim.id == "T1/try"


def test_nothing_is_wrong_in_the_list_of_the_project():
    raw = tomllib.loads((RESULTS / "claims.toml").read_text())
    assert listed().faults == []
    assert len(listing.claims()) == len(raw["claim"]) >= 198
    assert list(listing.experiments()) == list(raw["experiment"]) and len(raw["experiment"]) >= 32


def test_every_field_has_a_kind():
    for kind in (Experiment, Claim, Family):
        assert {part.type for part in dataclasses.fields(kind)} <= set(KINDS)
        assert set(OWN[kind.__name__]) <= {part.name for part in dataclasses.fields(kind)}


# -- fields -----------------------------------------------------------------------------------------------------------

WRONG = {"str": ["5", "true", "[]", "{}", '"a\\u001b[31m"', '"a\\nb"', '" a"'], "int": ['"5"', "1.5", "true", "[1]", "inf", f"{2**64}"],
         "float": ['"5"', "true", "nan", "inf", "[1.0]", "{}", "1e301"], "float | None": ['"5"', "true", "nan", "-inf", "[1.0]", "{}"],
         "dict": ["5", '"a"', "[]", "{ a = { b = 1 } }", "{ a = nan }", '{ a = "\\u0007" }', "2026-01-01"],
         "tuple[str, ...]": ["5", '"sam"', "[5]", '["sam", "sam"]', '["a\\tb"]', "{}"],
         "tuple[float, ...]": ["0.4", '["0.4"]', "[nan]", "[0.4, 0.4]", "[true]"], "bool": ["1", '"true"']}  # fmt: skip


def changed(kind, name, value):
    """The good list with one field of one entry set to a TOML value, or left out."""
    head, part = {Experiment: ("[experiment.try]", PLAN), Claim: ("[[claim]]", CLAIM), Family: ("[family.f]", HEAD)}[kind]
    kept = [line for line in part.splitlines() if not line.startswith(f"{name} =")]
    place = kept.index(head) + 1
    lines = [*kept[:place], *([f"{name} = {value}"] if value is not None else []), *kept[place:]]
    return GOOD.replace(part, "\n".join(lines) + "\n")


@pytest.mark.parametrize("kind, name, values", [
    (kind, part.name, WRONG[part.type]) for kind in (Experiment, Claim, Family) for part in dataclasses.fields(kind) if part.name != "name"
])  # fmt: skip
def test_a_value_of_another_kind_is_named(kind, name, values, faults):
    for value in values:
        wrong = faults(changed(kind, name, value))
        assert any(name in line and line.split()[0].strip(":") in ("experiment", "claim", "family") for line in wrong), (value, wrong)


@pytest.mark.parametrize("kind, name", [
    (kind, part.name) for kind in (Experiment, Claim, Family) for part in dataclasses.fields(kind)
    if part.name != "name" and part.default is dataclasses.MISSING and part.default_factory is dataclasses.MISSING
])  # fmt: skip
def test_a_missing_field_is_named(kind, name, faults):
    assert any(line.endswith(f": {name} is missing") for line in faults(changed(kind, name, None)))


@pytest.mark.parametrize("kind", [Experiment, Claim, Family])
def test_an_unknown_field_is_named(kind, faults):
    (wrong,) = faults(changed(kind, "label_nois", "0.4"))
    assert "'label_nois' is no field; there are " in wrong


@pytest.mark.parametrize("kind, name, value, message", [
    (Experiment, "title", '""', "title must not be empty"), (Experiment, "methods", "[]", "methods must not be empty"),
    (Experiment, "methods", '["sgd", "samm"]', "must be one of"), (Experiment, "scale", '"huge"', "scale must be one of smoke, laptop, paper"),
    (Experiment, "budget", '"time"', "budget must be one of"), (Experiment, "seeds", "0", "seeds must be at least 1"),
    (Experiment, "seeds", "100000000", "seeds must be at most"), (Experiment, "epochs", "-1", "epochs must be at least 1"),
    *((Experiment, "epochs", str(value), "try: epochs must be at least 1 and at most 1000000") for value in (0, 1_000_001, 2**62, 2**63 - 1)),
    *((Experiment, "first_seed", str(value), "try: first_seed must leave the last of 6 seeds below 2") for value in (2**63 - 1, 2**63 - 5)),
    *((Experiment, name, text, "try: .*epochs") for value in (0, 10**6 + 1, 2**63 - 1, 1.5, '"9"') for name, text in (
        ("settings", f"{{ epochs = {value} }}"), ("axes", f"{{ lr = [0.1, 0.2], epochs = [2, {value}] }}"))),
    (Experiment, "first_seed", "-1", "first_seed must be at least 0"), (Experiment, "schema", "4", "schema must be one of 1, 2, 3"),
    (Experiment, "rho", "-0.1", "rho"), (Experiment, "rate", "-1.0", "rate"), (Experiment, "smoothing", "1.0", "smoothing"),
    (Experiment, "convention", '"some"', "convention must be one of"), (Experiment, "label_noise", "[1.0]", "label_noise must be in"),
    (Experiment, "tables", '["T99"]', "tables must be one of"), (Experiment, "radius", "{ bisam-log = -1 }", "rho"),
    (Experiment, "radius", "{ sam-inf = 0.1 }", "radius is given for sam-inf, which is none of its methods"),
    (Experiment, "axes", "{ lrr = [0.1, 0.2] }", "axis must be one of"), (Experiment, "axes", "{ lr = [] }", "axes must not be empty as lr"),
    (Experiment, "axes", "{ lr = 0.1 }", "axes must be a list"), (Experiment, "axes", "{ lr = [0.1, 0.1] }", "axes must hold nothing twice"),
    (Experiment, "axes", '{ lr = ["fast"] }', "lr must be a real number"), (Experiment, "axes", "{ lr = [0.1], rho = [0.1] }", "rho must be given once"),
    (Experiment, "axes", '{ lr = [0.1, 0.2], model = ["mlp"] }', "model must be given once"),
    (Experiment, "axes", "{ lr = [0.1, 0.2], label_noise = [0.1] }", "label_noise must be given once"),
    (Experiment, "label_noise", "[0.4, 0.401]", "axes have values whose records would have one name"),
    (Experiment, "axes", '{ data = ["folder:a b"] }', "data"), (Experiment, "settings", '{ model = "mlpp" }', "model must be one of"),
    (Experiment, "settings", "{ momentum = 2.0 }", "momentum"), (Experiment, "settings", "{ seed = 3 }", "must be one of|axis"),
    (Experiment, "settings", "{ rho = 0.2 }", "rho must be given once"),
    (Claim, "id", '""', "id"), (Claim, "id", '"a//b"', "id"), (Claim, "id", '"a b"', "id"), (Claim, "statement", '""', "statement must not be empty"),
    (Claim, "ours", '"samm"', "ours must be one of"), (Claim, "theirs", '"sam-inf"', "theirs must be a method of try"),
    (Claim, "ours", '"sam"', "ours and theirs must differ, got sam twice"), (Claim, "metric", '"accuracy"', "metric must be one of"),
    (Claim, "experiment", '"tri"', "experiment must be one of try; got 'tri'"),
    (Claim, "at", "{ labelnoise = 0.4 }", "at names 'labelnoise'; the grid of try has label_noise, lr"),
    (Claim, "at", "{ label_noise = 0.5 }", "at says label_noise 0.5; the grid of try has 0.0, 0.4"),
    (Claim, "at", "{}", "at or over must name label_noise, an axis of try"), (Claim, "over", "[]", "at or over must name lr, an axis of try"),
    (Claim, "over", '["lr", "rho"]', "over names 'rho'"), (Claim, "over", '["lr", "label_noise"]', "over must name axes that have no place"),
    (Claim, "against", "{ rho = 0.1 }", "against names 'rho'"), (Claim, "against", "{ label_noise = 0.1 }", "against says label_noise 0.1"),
    (Claim, "label_noise", "0.4", "label_noise must be given once"), (Claim, "family", '"g"', "family must be one of f; got 'g'"),
    (Claim, "published", '{ tabel = "T1" }', "published column must be one of"), (Claim, "published", '{ table = "T99" }', "published"),
    (Claim, "published", '{ table = "T1" }', "published rows for bisam-log"), (Claim, "published", "{ table = 1 }", "published"),
    (Claim, "published_as", '{ ours = "SAM" }', "published_as must not call ours by the name of sam"),
    (Claim, "published_as", '{ theirs = "BiSAM (-log)" }', "published_as must not call theirs by the name of bisam-log"),
    (Claim, "published_as", '{ ours = "SAM", theirs = "BiSAM (-log)" }', "published_as must not call theirs by the name of bisam-log"),
    (Claim, "published_as", '{ ours = "SGD", theirs = "SGD" }', "has one row for both, SGD"),
    (Claim, "published_as", '{ ours = "SAMM" }', "published rows for bisam-log"),
])  # fmt: skip
def test_a_value_that_is_not_allowed_is_named(kind, name, value, message, faults):
    wrong = faults(changed(kind, name, value))
    assert any(re.search(message, line) for line in wrong), wrong


# -- the whole --------------------------------------------------------------------------------------------------------


WHOLE = {
    "empty": ("", "there is no experiment"), "no experiment": (HEAD, "there is no experiment"),
    "unknown table": (GOOD + "[experiments.a]\nx = 1\n", "'experiments' is no table of a list of claims"),
    "ids twice": (GOOD + CLAIM, "claim T1/try: id is that of an earlier claim"),
    "a table of no tables": ("experiment = 5\n", "experiment must be a table of tables, got 5"),
    "a list": ("[[experiment]]\nx = 1\n", "experiment must be a table of tables"),
    "an entry that is none": ("[experiment]\ntry = 5\n", "experiment try must be a table, got 5"),
    "claims that are no list": (PLAN + "[claim]\nid = 1\n", "claim must be a list of tables"),
    "claims of no tables": ("claim = [5]\n" + PLAN, "claim None must be a table, got 5"),
    "a name that leaves": (GOOD.replace("[experiment.try]", '[experiment."../../evil"]'), "experiment '../../evil': the name must be letters"),
    "an absolute name": (GOOD.replace("[experiment.try]", '[experiment."/tmp/x"]'), "experiment '/tmp/x': the name must be"),
    "a name of nothing": (GOOD.replace("[experiment.try]", '[experiment.""]'), "experiment '': the name must be"),
    "a name with an escape": (GOOD.replace("[experiment.try]", '[experiment."a\\u001b"]'), r"experiment 'a\x1b': the name must be"),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_the_list_as_a_whole(name, faults):
    text, message = WHOLE[name]
    wrong = faults(text)
    assert any(line.startswith(message) for line in wrong), wrong


@pytest.mark.parametrize("content", [b"[experiment", b"\xff\xfe", b"a = " + b"9" * 5000, b"a = " + b"[" * 20000], ids=["toml", "utf8", "digits", "deep"])
def test_a_file_that_is_no_toml_is_named(content, tmp_path):
    (tmp_path / "claims.toml").write_bytes(content)
    with pytest.raises(LedgerError, match=r"claims\.toml cannot be read"):
        listing.experiments(tmp_path)


def test_no_file_is_named(tmp_path):
    with pytest.raises(LedgerError, match=r"claims\.toml cannot be read: No such file"):
        listing.claims(folder=tmp_path)


def test_all_faults_are_found_and_what_is_sound_is_kept(faults, tmp_path):
    text = GOOD + CLAIM.replace("T1/try", "a").replace('"sam"', '"samm"') + CLAIM.replace("T1/try", "b").replace("0.4", "0.7")
    text += PLAN.replace("experiment.try", "experiment.worse").replace("seeds = 6", "seeds = 0").replace("0.1, 0.2", "0.1, 0.1")
    assert len(faults(text)) == 4
    found = listed(tmp_path).entries
    assert list(found["experiment"]) == ["try"] and [claim.id for claim in found["claim"]] == ["T1/try", "b"]


def test_a_caller_cannot_change_the_list_of_others(tmp_path):
    (tmp_path / "claims.toml").write_text(GOOD)
    listing.experiments(tmp_path).clear()
    listing.claims(folder=tmp_path).clear()
    assert listing.experiments(tmp_path) and listing.claims(folder=tmp_path)
    (tmp_path / "claims.toml").write_text(GOOD.replace("seeds = 6", "seeds = 7"))
    assert listing.experiment("try", tmp_path).seeds == 7


@pytest.mark.parametrize("name", ["SGD", "SAM", "BiSAM (-log)", "anything"])
def test_a_published_name_without_a_published_number_is_refused(name, faults):
    bare = changed(Claim, "published", None)
    assert faults(bare) == []
    wrong = faults(bare + f'published_as = {{ ours = "{name}" }}\n')
    assert "claim T1/try: published_as must not be given without published" in wrong


@pytest.mark.parametrize("name, value", [("epochs", 1_000_000), ("first_seed", 2**63 - 6)])
def test_the_largest_number_makes_runs(name, value, faults, tmp_path):
    assert faults(changed(Experiment, name, str(value))) == []
    assert len(listing.experiment("try", tmp_path).runs()) == 72


def test_a_claim_about_nothing_that_was_run_names_no_experiment(faults):
    bare = 'experiment = ""\n'
    assert faults(GOOD.replace('experiment = "try"\n', bare).replace("at = { label_noise = 0.4 }\n", "").replace('over = ["lr"]\n', "")) == []
