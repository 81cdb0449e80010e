"""No leaf of a record can be wrong without a word: each is removed, given another type, pushed out of range and changed."""

import base64
import copy
import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest
import records
from hypothesis import given
from hypothesis import strategies as st
from scripts import tool

from bisam.evidence import ledger, record, recording, schema
from bisam.evidence.places import LedgerError
from bisam.training import Run, fit

RUN = Run(recipe="lets-bisam-log", model="mlp", epochs=2, label_noise=0.2)
GOOD = records.sound(RUN, 90.2, experiment="try", scale="smoke")
GOOD["environment"]["variables"] = {"OPENBLAS_CORETYPE": "Haswell"}  # one on every machine, whatever is set there
EARLY = {schema: records.sound(Run(recipe="sam", model="mlp", epochs=3), 90.2, schema, "try", "smoke") for schema in (1, 2)}
for name in ("final", "curve"):
    del EARLY[1][name]["broken"]

# A value of the right type and range that differs cannot be told from the right one: nothing else in the record depends on it.
FREE = {
    "weights_digest", "data_fingerprint", "scale", "final.skipped", "curve.train_loss", "curve.train_accuracy", "curve.rho",
    "curve.validation_accuracy",  # as long as the best stays the best
    *(f"environment.{name}" for name in (
        "python", "implementation", "system", "release", "torch", "torchvision", "numpy", "bisam", "processor", "instructions", "capability",
        "interop_threads", "matmul_precision", "tf32", "mkldnn", "build", "wall_seconds", "commit", "variables.OPENBLAS_CORETYPE",
    )),
    *(f"run.{name}" for name in (
        "batch_size", "momentum", "weight_decay", "label_noise", "noise_reading", "seed", "augment", "split_seed", "train_images",
        "validation_noise", "channels_last", "compile", "per_worker", "data", "model", "pool",
    )),
    "run.recipe",  # another method is a run as well
}  # fmt: skip
# The first two are 1 where they are left out, as in records from before they were there; a variable that is not set is not there.
OPTIONAL = {"run.pool", "run.evaluate_every", "environment.variables.OPENBLAS_CORETYPE"}
NULL = {"run.train_images", "run.test_images", "environment.commit", "run.recipe.start", "run.recipe.direction", "run.recipe.selection",
        "run.recipe.micro_batch", "run.recipe.combination"}  # fmt: skip


def leaves(tree, path=()):
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, (*path, key))
    else:
        yield path


def dotted(path):
    return ".".join(str(part) for part in path if not isinstance(part, int))


def put(record, path, value):
    changed = copy.deepcopy(record)
    place = changed
    for part in path[:-1]:
        place = place[part]
    if value is put:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return changed


def at(record, path):
    for part in path:
        record = record[part]
    return record


@pytest.fixture
def refused(tmp_path):
    """Whether the reader refuses a record, and names the file."""
    file = tmp_path / "runs" / "try" / "one.json"
    file.parent.mkdir(parents=True)

    def answer(record):
        file.write_text(record if isinstance(record, str) else json.dumps(record))
        try:
            ledger.read(file)
        except LedgerError as error:
            assert str(error).startswith(str(file)), error
            return True
        return False

    return answer


LEAVES = list(leaves(GOOD))


def test_the_record_that_is_changed_is_good_and_has_all_parts(refused):
    made = recording.entry(fit(RUN), "try", "smoke")
    assert not refused(GOOD) and not refused(made)
    shapes = [{dotted(path) for path in leaves(one) if "variables" not in path} for one in (GOOD, made)]
    assert shapes[0] == shapes[1] and len(LEAVES) > 90
    assert not any(map(refused, EARLY.values()))


@pytest.mark.slow
@pytest.mark.parametrize("path", LEAVES, ids=lambda path: ".".join(map(str, path)))
def test_no_leaf_can_be_wrong_in_silence(path, refused):
    value, name = at(GOOD, path), dotted(path)
    if "instructions" not in path and name not in OPTIONAL:
        assert refused(put(GOOD, path, put)), "removed"
    wrong = [{}, [], [value], float("nan"), float("inf"), -float("inf"), 10**400, "a\x1b[31m", "a\n", "", -1, 1e301, -0.5]
    wrong += ["x"] if not isinstance(value, str) else [0, 1.5]
    wrong += [True, False] if not isinstance(value, bool) else [0, 1]
    wrong += [None] if name not in NULL else []
    if "recipe" in path:
        wrong.remove(1e301)  # finite is all that is asked of a choice
    if "instructions" in path:
        wrong = [one for one in wrong if not isinstance(one, str)]  # free words
    if "variables" in path:
        wrong.remove("")  # set to nothing
    for other in wrong:
        assert refused(put(GOOD, path, other)), other


@pytest.mark.parametrize("path", [p for p in LEAVES if "recipe" not in p], ids=lambda path: ".".join(map(str, path)))
def test_only_what_is_free_can_be_another_value(path, refused):
    value, name = at(GOOD, path), dotted(path)
    if isinstance(value, bool):
        others = [not value]
    elif isinstance(value, int | float):
        others = [value + 1, value - 0.25 if isinstance(value, float) else max(value - 1, 0)]
    else:
        others = ["float64", "0" * 16, "cpu:0", f"{value}x"] if isinstance(value, str) else [7]
    others = [other for other in others if other != value]
    accepted = [other for other in others if not refused(put(GOOD, path, other))]
    assert not accepted or name in FREE, accepted


def test_what_is_said_to_be_free_is_there():
    assert [name for name in sorted(FREE) if not any(dotted(path).startswith(name) for path in LEAVES)] == []


@pytest.mark.parametrize("schema", [1, 2, 3])
@pytest.mark.parametrize("where", [(), ("run",), ("final",), ("curve",), ("right",), ("environment",), ("run", "recipe"), ("run", "recipe", "radius")])
def test_a_field_that_no_record_has_is_named(where, schema, refused):
    record = GOOD if schema == 3 else EARLY[schema]
    if where == ("right",) and schema < 3:
        assert refused({**record, "right": GOOD["right"]})
        return
    assert refused(put(record, (*where, "extra"), 1))


@pytest.mark.parametrize("schema", [1, 2])
def test_earlier_records_are_checked_as_well(schema, refused):
    record = EARLY[schema]
    for path in leaves(record):
        if path[0] == "run":
            continue
        assert refused(put(record, path, put)), path
        assert refused(put(record, path, {})) and refused(put(record, path, float("nan"))), path
    for name, value in (("selected_epoch", 2), ("selected_test_accuracy", 90.4), ("last_test_accuracy", 90.0)):
        assert refused(put(record, ("final", name), value))


TEXT = json.dumps(GOOD)


@pytest.mark.parametrize("text", {
    "key twice": TEXT[:-1] + ', "scale": "smoke"}',
    "inner key twice": TEXT.replace('"skipped": 0', '"skipped": 0, "skipped": 0'),
    "NaN": TEXT.replace("90.2", "NaN"), "Infinity": TEXT.replace("90.2", "Infinity"), "-Infinity": TEXT.replace("90.2", "-Infinity"),
    "1e999": TEXT.replace('"lr": [0.1', '"lr": [1e999'), "400 digits": TEXT.replace('"skipped": 0', f'"skipped": {"9" * 400}'),
    "5,000 digits": TEXT.replace('"skipped": 0', f'"skipped": {"9" * 5000}'),
    "deep": "[" * 100_000, "deep recipe": TEXT.replace('"recipe": {', '"recipe": {"a": ' + "[" * 50_000 + "]" * 50_000 + ", "),
    "nested recipe": TEXT.replace('"start": null', '"start": ' + '{"kind": "Surrogate", "phi": ' * 300 + "1" + "}" * 300),
    "a list": f"[{TEXT}]", "a number": "5", "null": "null", "nothing": "", "two": TEXT + TEXT, "half": TEXT[: len(TEXT) // 2],
}.items(), ids=lambda item: item[0])  # fmt: skip
def test_a_text_that_is_no_record_is_refused(text, refused):
    assert refused(text[1])


def test_what_is_no_file_of_a_sane_size_is_refused(tmp_path, monkeypatch):
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(LedgerError, match="cannot be read"):
        ledger.read(tmp_path / "folder.json")
    (tmp_path / "latin.json").write_bytes(TEXT.encode().replace(b'"try"', b'"tr\xff"'))
    with pytest.raises(LedgerError, match="is no JSON"):
        ledger.read(tmp_path / "latin.json")
    monkeypatch.setattr(ledger, "LARGEST", 100)
    (tmp_path / "large.json").write_text(TEXT)
    with pytest.raises(LedgerError, match=f"cannot be read: it has {len(TEXT)} bytes, and a record has at most 100"):
        ledger.read(tmp_path / "large.json")


# -- contradictions of several leaves at once ---------------------------------------------------------------------------


def changed(**parts):
    record = copy.deepcopy(GOOD)
    for part, fields in parts.items():
        record[part].update(fields) if isinstance(fields, dict) else record.update({part: fields})
    return record


def moved(text):
    """The same number of bits at other places."""
    raw = base64.b64decode(text)
    return base64.b64encode(b"\x7f" + raw[1:57] + b"\x80" + raw[58:]).decode()


@pytest.mark.parametrize("record, message", [
    (changed(run={"epochs": 3}), "curve.lr must hold 3 numbers, one an epoch, got 2"),
    (changed(curve={"validation_accuracy": [91.0, 92.0]}), "final.selected_epoch is 1, but the curve says 2"),
    (changed(curve={"broken": [3, 4]}), "final.broken is 3.0, but the curve says 3.5"),
    (changed(final={"train_accuracy": 90.0}), r"final.gap is 6.79\d*, but train_accuracy and last_test_accuracy say -0.20"),
    (changed(final={"last_test_accuracy": 90.4}, curve={"test_accuracy": [90.2, 90.4]}), "final.gap is|right.last says 90.2"),
    (changed(curve={"test_accuracy": [90.2, 90.25]}), "last_test_accuracy is 90.2, but the curve says 90.25"),
    (changed(right={"last": GOOD["right"]["last"].replace("/", "A", 1)}), "final.last_test_accuracy is 90.2, but right.last says 89.0"),
    (changed(right={"images": 501}), "final.selected_test_accuracy is 90.2, but right.selected says 90.01"),
    (changed(right={"images": 600}), "right.selected must hold 75 bytes for 600 images, got 63"),
    *((changed(curve={"lr": rates}), f"curve.lr is .* at epoch {epoch}, but run.lr and run.epochs say")
      for rates, epoch in (([0.1, 0.1], 2), ([0.05, 0.1], 1), ([0.1, 0.05002], 2), ([0.1, 0.0], 2), ([0.2, 0.1], 1))),
    (changed(run={"lr": 0.2}), "curve.lr is 0.1 at epoch 1, but run.lr and run.epochs say 0.20000"),
    (changed(curve={"validation_accuracy": [90.0, 91.0]}, final={"selected_epoch": 2}, right={"last": moved(GOOD["right"]["last"])}),
     "right.selected and right.last differ, but final.selected_epoch is the last"),
    (changed(run={"test_images": 400}), "right.images is 500, but run.test_images is 400"),
    (changed(run={"precision": "bfloat16"}), "environment.precision is float32, but run.precision is bfloat16"),
    (changed(run={"device": "cuda:0"}), "environment.driver is missing: run.device is cuda:0"),
    (changed(environment={"cuda": "13.0"}), "environment.cuda must not be there: run.device is cpu"),
    (changed(environment={"threads": 77}), "environment.device must end in ' CPU, 77 of"),
    (changed(experiment="other"), "experiment is other, but the record lies in the folder of try"),
    (changed(run={"recipe": "sam"}), "run.recipe must be an object, got 'sam'"),
    (changed(run={"recipe": {**GOOD["run"]["recipe"], "radius": {"kind": "Nothing"}}}), "run describes no run of this version: choices: kind must be one of"),
    (changed(schema=2), "must not hold right in a record of that schema"),
])  # fmt: skip
def test_contradictions_are_named(record, message, tmp_path):
    file = tmp_path / "runs" / "try" / "one.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(record))
    with pytest.raises(LedgerError, match=message):
        ledger.read(file)


@pytest.mark.parametrize("images, good, others", [
    (3, "4A==", ["4B==", "4C==", "4H==", "4P==", "4A=", "4A==\n", "4A== ", "4A"]), (12, "//A=", ["//B=", "//C=", "//D=", "//A", "//A==", "//A=A==="]),
    (20, "///w", ["///w=", "///w====", "///\nw"]),
])  # fmt: skip
@pytest.mark.parametrize("which", ["selected", "last"])
def test_bits_have_one_text(images, good, others, which):
    assert record.bits({"right": {"images": images, which: good}}, which).sum() == images
    for other in others:
        with pytest.raises(LedgerError, match=f"right.{which} must"):
            record.bits({"right": {"images": images, which: other}}, which)


@pytest.mark.parametrize("place, experiment, scale, message", [
    ("r.json", "first_run", "laptop", None),
    ("r.json", "first_run", "paper", "scale is paper, but first_run is of scale laptop"),
    ("r.json", "other", "laptop", "experiment other is in no list of claims; put the record into the folder runs/other of its ledger"),
    ("own/r.json", "mine", "smoke", None),
    ("own/deep/er/r.json", "mine", "smoke", None),
    ("own/r.json", "first_run", "laptop", "experiment first_run is in no list of claims"),
    ("own/runs/mine/r.json", "first_run", "laptop", "experiment is first_run, but the record lies in the folder of mine"),
    ("own/runs/anything/r.json", "anything", "laptop", None),
])  # fmt: skip
def test_a_record_belongs_where_it_lies(place, experiment, scale, message, tmp_path):
    (tmp_path / "own").mkdir()
    toml = '[experiment.mine]\ntitle = "t"\nscale = "smoke"\nmethods = ["sam"]\nseeds = 1\nepochs = 2\n'
    (tmp_path / "own" / "claims.toml").write_text(toml)
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**GOOD, "experiment": experiment, "scale": scale}))
    if message is None:
        assert ledger.read(file)["experiment"] == experiment
    else:
        with pytest.raises(LedgerError, match=message):
            ledger.read(file)


def test_early_records_may_have_been_put_aside(tmp_path):
    file = tmp_path / "runs" / "try_earlier" / "one.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(EARLY[2]))
    assert ledger.read(file) == EARLY[2]
    file.write_text(json.dumps(GOOD))
    with pytest.raises(LedgerError, match="experiment is try, but"):
        ledger.read(file)


# -- the schema -------------------------------------------------------------------------------------------------------


def test_the_schema_is_one_and_every_field_of_it_is_described():
    jsonschema.Draft202012Validator.check_schema(schema.schema())

    def fields(rule, name):
        if name:
            assert rule["description"], name
        for key, value in rule.get("properties", {}).items():
            fields(value, f"{name}.{key}")

    fields(schema.schema(), "")


STREAMED = {"loading", "image_size"}  # of images that are decoded while training; tests/training/test_stream.py makes such a record


def test_the_page_names_every_field_and_the_package_ships_the_schema():
    root = Path(__file__).resolve().parents[2]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| ([123-]) \| (.+) \|$", tool("record_fields").tables(), re.MULTILINE)
    chosen = RUN.replace(
        base="adamw", beta2=0.99, schedule="step", rate_by="step", warmup=1, milestones=(0.5,), decay=0.2, clip=1.0, accumulate=2, ema=0.9, mixup=0.2, bootstrap=True,
        metrics=("top5_accuracy", "pearson", "spearman", "matthews"), select="matthews", patience=5)  # fmt: skip
    made = [recording.entry(fit(run), "try", "smoke") for run in (RUN, chosen)]
    parts = [*made, *(one[name] for one in made for name in ("run", "final", "curve", "right", "environment"))]
    others = {f"{place}_{name}" for name in ("f1", "bleu") for place in ("validation", "test", "selected_test", "last_test")}  # of other data
    assert {name for name, *_ in rows} == {key for part in parts for key in part} | {"driver", "cuda", "cudnn", "own", "weights", "transformers", "tokenizers", *STREAMED} | others
    assert all(value.strip() and text.endswith(".") for _, value, _, text in rows)
    later = {name for name, _, since, _ in rows if since == "3"}
    assert {"right", "gap", "processor"} <= later and not later & set(EARLY[2]["environment"])
    page = (root / "book" / "record_schema.md").read_text(encoding="utf-8")
    assert "_generated/record_schema.md" in page and "bisam/evidence/schema/record.json" in page
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    assert schema.SCHEMA_FILE.match(f"bisam/evidence/{settings['tool']['setuptools']['package-data']['bisam.evidence'][0]}")


PLAIN = jsonschema.Draft202012Validator(schema.schema())
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-3, 600), st.floats(-1e3, 1e3), st.text(max_size=5), st.just([]), st.just({}),
                   st.lists(st.floats(-10, 110), max_size=3), st.sampled_from(["cpu", "cuda:1", "float32", "0" * 16]))  # fmt: skip
INNER = [*LEAVES, *{path[:k] for path in LEAVES for k in range(1, len(path))}]


@given(st.sampled_from(INNER), VALUES)
def test_the_quick_form_of_the_check_says_what_the_library_says(path, value):
    record = put(GOOD, path, value)
    assert schema._validator().is_valid(record) == PLAIN.is_valid(record)
