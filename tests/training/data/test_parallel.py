"""Pairs of sentences: their files, the vocabulary, what is asked at each place, and BLEU."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest
import scripts
import texts
import torch
from torch import nn

from bisam.training.data import DataError, check_name, load, parallel
from bisam.training.data.bytepairs import BEGIN, END, PAD, SPECIAL, trained


@pytest.mark.parametrize("parts", parallel.LAYOUTS)
def test_both_layouts_are_read(parts, tmp_path):
    found = load(texts.write_parallel(tmp_path, parts=parts), tmp_path)
    assert [len(split) for split in (found.train, found.validation, found.test)] == [40, 8, 6]
    assert found.metrics == ("accuracy", "bleu") and found.classes == found.tokenizer.get_vocab_size()
    for split, part in zip((found.train, found.validation, found.test), parts, strict=True):
        german, english = ((tmp_path / "small" / f"{part}.{language}").read_text().splitlines() for language in ("de", "en"))
        assert list(split.references) == english
        for k in range(len(split)):
            target = [number for number in split.targets[k].tolist() if number != -100]
            assert [found.tokenizer.decode(row).strip() for row in (split.inputs["source"][k].tolist(), target)] == [german[k], english[k]]


def test_what_comes_next_is_asked_at_every_place_up_to_the_end(tmp_path):
    split = load(texts.write_parallel(tmp_path), tmp_path).train
    said, asked, source = split.inputs["target_in"], split.targets, split.inputs["source"]
    assert (said[:, 0] == BEGIN).all() and torch.equal(said[:, 1:] == PAD, asked[:, 1:] == -100)
    for row, nexts, read in zip(said.tolist(), asked.tolist(), source.tolist(), strict=True):
        length = len(row) - row.count(PAD)
        assert nexts[: length - 1] == row[1:length] and nexts[length - 1] == END and set(nexts[length:]) <= {-100}
        assert read[len(read) - read.count(PAD) - 1] == END and read.count(END) == nexts.count(END) == 1


def test_a_sentence_is_cut_at_64_tokens_and_its_reference_is_not(tmp_path):
    name, long = texts.write_parallel(tmp_path), "dog " * 100
    for language in ("de", "en"):
        path = tmp_path / "small" / f"test.{language}"
        path.write_text(path.read_text() + long + "\n")
    found = load(name, tmp_path)
    assert found.test.inputs["source"].shape[1] == found.test.targets.shape[1] == parallel.LONGEST == 64
    assert found.test.targets[-1, -1] == END and found.test.references[-1] == long


def test_a_batch_is_as_wide_as_its_longest_pair(tmp_path):
    found = load(texts.write_parallel(tmp_path), tmp_path)
    for index in (torch.tensor([3, 1]), slice(4, 7)):
        inputs, targets = found.picked(found.train, index)
        assert inputs["source"].shape[1] == (found.train.inputs["source"][index] != PAD).sum(1).max()
        assert inputs["target_in"].shape == targets.shape and targets.shape[1] == (found.train.targets[index] != -100).sum(1).max()
        assert torch.equal(targets, found.train.targets[index][:, : targets.shape[1]])


PRINTS = "import sys; from bisam.training.data import bytepairs; print(bytepairs.trained(open(sys.argv[1], encoding='utf-8')).to_str())"


def test_the_same_texts_give_the_same_vocabulary(tmp_path):
    texts.write_parallel(tmp_path, counts=(300, 1, 1))
    lines = [line for language in ("de", "en") for line in (tmp_path / "small" / f"train.{language}").read_text().splitlines()]
    first, again, other = trained(lines), trained(iter(lines)), trained(lines[: len(lines) // 3])
    assert first.to_str() == again.to_str() != other.to_str() and first.get_vocab_size() > 280
    assert [first.id_to_token(k) for k in (PAD, BEGIN, END)] == list(SPECIAL)


@pytest.mark.slow
def test_another_process_with_other_hashes_has_the_same_vocabulary(tmp_path):
    path = tmp_path / "text"
    path.write_text("".join(f"{texts.sentence(torch.Generator().manual_seed(k), texts.GERMAN)}\n" for k in range(300)), encoding="utf-8")
    said = {
        subprocess.run([sys.executable, "-c", PRINTS, path], env={**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": seed}, capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(said) == 1 and len(said.pop()) > 1000


def test_no_letter_is_lost():
    found = trained(["ein Hund"])
    for text in ("Grüße 🐕 “so”  zwei Lücken", "日本", "<end> <pad> x"):
        assert found.decode(found.encode(text, add_special_tokens=False).ids, skip_special_tokens=False).removeprefix(" ") == text


def test_a_mark_of_ours_in_a_text_is_text(tmp_path):
    name = texts.write_parallel(tmp_path)
    for language in ("de", "en"):
        path = tmp_path / "small" / f"test.{language}"
        path.write_text("a <end> b\n" + path.read_text().partition("\n")[2])
    found = load(name, tmp_path).test
    assert (found.inputs["source"][0] == END).sum() == 1 and (found.targets[0] == END).sum() == 1


def test_part_of_the_pairs_keeps_the_vocabulary(tmp_path):
    name = texts.write_parallel(tmp_path)
    whole, part = load(name, tmp_path), load(name, tmp_path, train_images=12, test_images=4, split_seed=5)
    assert [len(split) for split in (part.train, part.validation, part.test)] == [12, 8, 4] and part.classes == whole.classes
    order = torch.randperm(40, generator=torch.Generator().manual_seed(5))[:12]
    assert part.train.references == tuple(whole.train.references[k] for k in order)
    assert torch.equal(part.validation.targets, whole.validation.targets)


@pytest.mark.parametrize("options, message", [
    ({"split_seed": 1}, "split_seed must be left out for data 'parallel:small', whose validation split is a file of its own; got 1"),
    ({"pool": 2}, "pool must be left out for data 'parallel:small', which has no pixels; got 2"),
    ({"train_images": 41}, "train_images must be at most 40, the rows there are; got 41"),
])  # fmt: skip
def test_a_choice_that_would_take_no_part_is_named(options, message, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)):
        load(texts.write_parallel(tmp_path), tmp_path, **options)


def test_names_that_are_allowed():
    assert check_name("parallel:multi30k") == "parallel:multi30k"
    for name in ("parallel:", "parallel:../x", "parallel:a/b"):
        with pytest.raises(ValueError, match="parallel:NAME"):
            check_name(name)


@pytest.mark.parametrize("change, message", [
    (lambda folder: (folder / "valid.en").unlink(), r"no file .*valid\.en\. Needed are train\.de, valid\.de, test\.de or train\.de, val\.de, test_2016_flickr\.de in "),
    (lambda folder: (folder / "train.de").write_text("Ja.\n"), r"train\.de has 1 lines and .*train\.en 40; line by line they must be translations"),
    (lambda folder: (folder / "test.en").write_text(""), r"test\.en is empty"),
    (lambda folder: (folder / "train.de").write_bytes("schön\n".encode("latin-1")), r"train\.de is not text in UTF-8: line 1 holds the byte 0xf6"),
])  # fmt: skip
def test_files_that_do_not_go_together_are_named(change, message, tmp_path):
    name = texts.write_parallel(tmp_path)
    change(tmp_path / "small")
    with pytest.raises(DataError, match=message):
        load(name, tmp_path)


# -- BLEU ----------------------------------------------------------------------------------------------------------------


class Recites(nn.Module):
    """Translates every source that it has seen before into what it should be."""

    def __init__(self, split, change=lambda row: row):
        super().__init__()
        rows = split.targets.masked_fill(split.targets == -100, PAD).tolist()
        self.known = {tuple(source): change(target) for source, target in zip(split.inputs["source"].tolist(), rows, strict=True)}
        self.width, self.widths = split.inputs["source"].shape[1], []

    def decode(self, source):
        self.widths.append(source.shape)
        padded = [[*row, *[PAD] * (self.width - len(row))] for row in source.tolist()]
        return torch.tensor([self.known[tuple(row)] for row in padded])


def test_translations_are_put_back_in_order_and_perfect_ones_have_bleu_100(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "AT_A_TIME", 5)
    found = load(texts.write_parallel(tmp_path, counts=(40, 8, 13)), tmp_path)
    model = Recites(found.test)
    assert found.translated(model, found.test.inputs["source"]) == list(found.test.references)
    assert [rows for rows, _ in model.widths] == [5, 5, 3] and [width for _, width in model.widths] == sorted(width for _, width in model.widths)
    moved = found.test.to("cpu")
    assert found.measured(model, moved, None) == {"bleu": pytest.approx(100)}


def test_a_wrong_word_costs_what_sacrebleu_says(tmp_path):
    import sacrebleu

    found = load(texts.write_parallel(tmp_path, counts=(40, 8, 13)), tmp_path)
    model = Recites(found.test, lambda row: [row[1], *row[1:]])
    said = found.translated(model, found.test.inputs["source"])
    expected = sacrebleu.BLEU(tokenize="13a").corpus_score(said, [list(found.test.references)]).score
    assert 5 < expected < 95 and found.measured(model, found.test, None)["bleu"] == pytest.approx(expected)


def test_bleu_needs_a_network_that_translates(tmp_path):
    found = load(texts.write_parallel(tmp_path), tmp_path)
    with pytest.raises(TypeError, match=r"metrics must leave out 'bleu' for a network that has no decode\(source\).*; got Linear"):
        found.measured(nn.Linear(2, 2), found.test, None)
    assert dataclasses.replace(found, metrics=("accuracy",)).measured(nn.Linear(2, 2), found.test, None) == {}
    with pytest.raises(ValueError, match="references must be one for each of the 2 translations, got 1"):
        parallel.bleu(["a", "b"], ["a"])


# The files of the experiments on number words
@pytest.mark.parametrize(
    ("number", "german", "english"),
    [
        (1, "eins", "one"),
        (17, "siebzehn", "seventeen"),
        (21, "ein und zwanzig", "twenty-one"),
        (60, "sechzig", "sixty"),
        (101, "ein hundert eins", "one hundred and one"),
        (1000, "ein tausend", "one thousand"),
        (4321, "vier tausend drei hundert ein und zwanzig", "four thousand three hundred and twenty-one"),
        (9012, "neun tausend zwölf", "nine thousand and twelve"),
    ],
)
def test_a_number_is_said_in_both_languages(number, german, english):
    words = scripts.tool("number_words")
    assert (words.german(number), words.english(number)) == (german, english)


def test_the_files_of_number_words_are_data_and_no_number_is_in_two_of_them(tmp_path, capsys):
    words = scripts.tool("number_words")
    assert words.main(str(tmp_path / "number-words")) == 0 and capsys.readouterr().out == f"{tmp_path / 'number-words'}\n"
    found = load("parallel:number-words", tmp_path, train_images=40)
    assert (len(found.train), len(found.validation), len(found.test)) == (40, 1000, 999)
    said = [line for split in words.SPLITS for line in (tmp_path / "number-words" / f"{split}.en").read_text(encoding="utf-8").splitlines()]
    assert sorted(said) == sorted(words.english(number) for number in range(1, 10_000)) and len(set(said)) == 9999


def test_other_number_words_than_those_of_the_records_are_not_written(tmp_path, capsys, monkeypatch):
    words = scripts.tool("number_words")
    monkeypatch.setattr(words, "german", str)
    assert words.main(str(tmp_path / "out")) == 1 and not (tmp_path / "out").exists()
    assert f"those of the records have {words.EXPECTED}" in capsys.readouterr().err
