"""Tasks of GLUE: their files, their division, their tokens and targets, and what is said where something is wrong."""

import os
import re

import pytest
import texts
import torch

from bisam.training.data import DataError, check_name, glue, load

METRICS = {"cola": ["matthews"], "mrpc": ["f1"], "sts-b": ["pearson", "spearman"]}


@pytest.mark.parametrize("task", glue.TASKS)
def test_every_task_is_read_as_its_files_are_made(task, tmp_path):
    name = texts.write_glue(tmp_path, task)
    found = load(name, tmp_path)
    assert (found.name, found.classes, [len(split) for split in (found.train, found.validation, found.test)]) == (name, 6 if task == "sts-b" else 2, [36, 4, 12])
    assert found.metrics == ("accuracy", *METRICS.get(task, []))
    assert set(found.shape) == set(found.test.inputs) == {"input_ids", "attention_mask", "token_type_ids"}
    rows, form = texts.rows_of(task, 12, seed=2), glue.TASKS[task]
    words = [*texts.SPECIAL, *texts.WORDS]
    for k, row in enumerate(rows):
        said = [f"[CLS] {row[form.texts[0]]} [SEP]", *[f"{row[column]} [SEP]" for column in form.texts[1:]]]
        numbers, there = [words.index(word) for word in " ".join(said).split()], found.test.inputs["attention_mask"][k].bool()
        assert found.test.inputs["input_ids"][k][there].tolist() == numbers and not found.test.inputs["input_ids"][k][~there].any()
        assert found.test.inputs["token_type_ids"][k].sum() == (len(said[1].split()) if len(said) > 1 else 0)
        if form.labels:
            assert int(found.test.targets[k]) == form.labels.index(row[form.label])


def test_names_that_are_allowed():
    for name in ("glue:cola:minilm", "glue:sts-b:bert-base.v2"):
        assert check_name(name) == name
    for name in ("glue:cola", "glue:stsb:minilm", "glue:cola:", "glue:cola:../x", "glue:cola:a/b", "glue::minilm", "glue:sstx2:minilm"):
        with pytest.raises(ValueError, match=r"glue:TASK:FOLDER with TASK one of cola, mrpc, rte, sts-b, sst-2, qnli, wnli, or MODULE:FUNCTION; got"):
            check_name(name)


def test_grades_have_the_score_as_their_mean():
    scores = [0.0, 0.4, 1.0, 2.75, 3.8, 4.999, 5.0]
    shares = glue.grades(scores)
    assert shares.dtype == torch.float32 and (shares >= 0).all() and (shares > 0).sum(1).max() == 2
    torch.testing.assert_close(shares.double().sum(1), torch.ones(7, dtype=torch.float64), rtol=0, atol=1e-7)
    torch.testing.assert_close(shares.double() @ torch.arange(6.0, dtype=torch.float64), torch.tensor(scores, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(shares[4], torch.tensor([0, 0, 0, 0.2, 0.8, 0]))


def test_scores_of_the_files_become_shares(tmp_path):
    targets = load(texts.write_glue(tmp_path, "sts-b"), tmp_path).test.targets
    assert targets.shape == (12, 6) and targets[1].tolist() == [0.5, 0.5, 0, 0, 0, 0] and targets[10].tolist() == [0, 0, 0, 0, 0, 1]


def test_the_division_is_that_of_images(tmp_path):
    name = texts.write_glue(tmp_path)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))[:31]
    labels = torch.arange(40) % 2
    found = load(name, tmp_path, train_images=31, test_images=5, split_seed=3)
    assert torch.equal(found.train.targets, labels[order[:28]]) and torch.equal(found.validation.targets, labels[order[28:]])
    tested = torch.randperm(12, generator=torch.Generator().manual_seed(0))[:5]
    whole = load(name, tmp_path)
    width = found.test.inputs["input_ids"].shape[1]
    assert torch.equal(found.test.inputs["input_ids"], whole.test.inputs["input_ids"][tested, :width])
    assert torch.equal(load(name, tmp_path, test_images=5, split_seed=4).test.targets, found.test.targets)


def test_a_batch_is_as_wide_as_its_longest_sample(tmp_path):
    found = load(texts.write_glue(tmp_path), tmp_path)
    lengths = found.train.inputs["attention_mask"].sum(1)
    shortest = lengths.argsort()[:3]
    inputs, targets = found.picked(found.train, shortest)
    assert {part.shape for part in inputs.values()} == {(3, int(lengths[shortest].max()))} and torch.equal(targets, found.train.targets[shortest])
    assert lengths[shortest].max() < lengths.max() == found.train.inputs["input_ids"].shape[1]
    assert found.shape["input_ids"] == (max(int(split.inputs["attention_mask"].sum(1).max()) for split in (found.train, found.validation, found.test)),)


def test_a_sample_is_cut_at_128_tokens(tmp_path):
    name, rows = texts.write_glue(tmp_path), texts.rows_of("rte", 40)
    rows[0][1] = "dog " * 200
    texts.write_rows(tmp_path / "glue" / "RTE" / "train.tsv", "rte", rows)
    assert load(name, tmp_path).shape["input_ids"] == (glue.LONGEST,) == (128,)


def test_quotes_and_a_mark_at_the_beginning_are_what_they_are(tmp_path):
    name, rows = texts.write_glue(tmp_path, "mrpc"), texts.rows_of("mrpc", 12)
    rows[0][3], rows[5][3] = '" the dog', 'the " dog'
    texts.write_rows(tmp_path / "glue" / "MRPC" / "dev.tsv", "mrpc", rows, mark="\ufeff")
    found = load(name, tmp_path).test
    assert len(found) == 12 and found.inputs["input_ids"][0, 1] == len(texts.SPECIAL) + texts.WORDS.index('"')


def test_a_task_is_kept_until_a_file_changes(tmp_path):
    name = texts.write_glue(tmp_path)
    first = load(name, tmp_path)
    assert load(name, str(tmp_path)) is first
    for file in ("glue/RTE/train.tsv", "glue/RTE/dev.tsv", "small/tokenizer.json"):
        os.utime(tmp_path / file, ns=(1, 1))
        again = load(name, tmp_path)
        assert again is not first and again.fingerprint == first.fingerprint
        first = again


@pytest.mark.parametrize("options, message", [
    ({"train_images": 41}, "train_images must be at most 40, the rows there are; got 41"),
    ({"test_images": 13}, "test_images must be at most 12, the rows there are; got 13"),
    ({"pool": 2}, "pool must be left out for data 'glue:rte:small', which has no pixels; got 2"),
])  # fmt: skip
def test_a_choice_that_cannot_be_made_is_named(options, message, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)):
        load(texts.write_glue(tmp_path), tmp_path, **options)


def test_ten_rows_are_the_least(tmp_path):
    with pytest.raises(DataError, match=r"data 'glue:rte:small' in .* has 9 training rows; at least 10 are needed"):
        load(texts.write_glue(tmp_path, n=9), tmp_path)


@pytest.mark.parametrize("task, file, fetch", [
    ("qnli", "QNLI/train.tsv", r"curl -L -o QNLI.zip https://dl\.fbaipublicfiles\.com/glue/data/QNLIv2\.zip && unzip QNLI\.zip -d .*/glue$"),
    ("cola", "CoLA/dev.tsv", r"curl -L -o CoLA.zip https://dl\.fbaipublicfiles\.com/glue/data/CoLA\.zip"),
    ("mrpc", "MRPC/train.tsv", r"https://gluebenchmark\.com/tasks says how they are made"),
])  # fmt: skip
def test_a_file_that_is_missing_is_named_with_the_way_to_get_it(task, file, fetch, tmp_path):
    name = texts.write_glue(tmp_path, task)
    (tmp_path / "glue" / file).unlink()
    with pytest.raises(DataError, match=rf"data '{name}' is not there: no file .*/glue/{file}\. Needed are train\.tsv and dev\.tsv of GLUE .*{fetch}"):
        load(name, tmp_path)


def test_a_tokeniser_that_is_missing_or_broken_is_named(tmp_path):
    name = texts.write_glue(tmp_path)
    path = tmp_path / "small" / "tokenizer.json"
    path.write_text(path.read_text()[:200])
    with pytest.raises(DataError, match=r"small/tokenizer\.json is no tokeniser, or truncated .* hf download "):
        load(name, tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"no file .*small/tokenizer\.json; small in the name is the folder of the encoder .* hf download "):
        load(name, tmp_path)


def broken(task, change):
    """Ten rows after a change."""
    rows = texts.rows_of(task, 10)
    change(rows)
    return rows


@pytest.mark.parametrize("task, change, message", [
    ("rte", lambda rows: rows[3].pop(), r"train\.tsv must have 4 columns; 1 of 10 lines have another number, the first is line 5 with 3\. Mend it"),
    ("cola", lambda rows: (rows[3].append("x"), rows[7].pop()), r"must have 4 columns; 2 of 10 lines have another number, the first is line 4 with 5\."),
    ("sst-2", lambda rows: rows[9].append("0"), r"must have 2 columns; 1 of 10 lines .* the first is line 11 with 3"),
    ("qnli", lambda rows: rows[2].__setitem__(3, "neutral"), r"train\.tsv, line 4: a label must be one of entailment, not_entailment; got 'neutral'"),
    ("cola", lambda rows: rows[2].__setitem__(1, "2"), r"train\.tsv, line 3: a label must be one of 0, 1; got '2'"),
    ("sts-b", lambda rows: rows[2].__setitem__(9, "5.1"), r"train\.tsv, line 4: a score must be from 0 to 5; got '5\.1'"),
    ("sts-b", lambda rows: rows[2].__setitem__(9, "nan"), r"train\.tsv, line 4: a score must be from 0 to 5; got 'nan'"),
    ("sts-b", lambda rows: rows[2].__setitem__(9, "good"), r"train\.tsv, line 4: a score must be from 0 to 5; got 'good'"),
    ("wnli", lambda rows: rows.clear(), r"train\.tsv has no rows below its header"),
])  # fmt: skip
def test_a_broken_line_is_counted_and_named(task, change, message, tmp_path):
    name = texts.write_glue(tmp_path, task)
    texts.write_rows(tmp_path / "glue" / glue.TASKS[task].folder / "train.tsv", task, broken(task, change))
    with pytest.raises(DataError, match=message):
        load(name, tmp_path)


def test_a_header_that_is_missing_is_not_taken_for_a_row(tmp_path):
    name = texts.write_glue(tmp_path)
    path = tmp_path / "glue" / "RTE" / "dev.tsv"
    path.write_text(path.read_text().partition("\n")[2])
    with pytest.raises(DataError, match=r"dev\.tsv must begin with the names of its columns, 'index sentence1 sentence2 label'; got '0-0 "):
        load(name, tmp_path)
