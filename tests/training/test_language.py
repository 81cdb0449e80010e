"""Whole trainings on texts: what their rows hold, what is learnt, and that a cut one goes on to the same bits."""

import pytest
import small
import texts
import torch

from bisam.evidence.needed import flop_of_run
from bisam.training import Run, fit, models
from bisam.training.data import glue


def learnable(root, task="rte", n=64):
    """Pairs whose label is whether the second sentence holds a negation, or of scores how many trees it has."""
    name = texts.write_glue(root, task, n=n, tested=24)
    for part, count, seed in (("train", n, 1), ("dev", 24, 2)):
        rows, form = texts.rows_of(task, count, seed), glue.TASKS[task]
        for k, row in enumerate(rows):
            row[form.texts[-1]] = ("not " if k % 2 else "here ") * 4 if form.labels else "tree " * (k % 6) + "dog"
            row[form.label] = form.labels[k % 2] if form.labels else f"{k % 6}.0"
        texts.write_rows(root / "glue" / form.folder / f"{part}.tsv", task, rows)
    return name


def run(name, model, **changes):
    return Run(**{"data": name, "model": model, "epochs": 3, "batch_size": 8, "base": "adamw", "lr": 3e-3, **changes})


@pytest.mark.parametrize("task, metrics", [("cola", ["matthews"]), ("mrpc", ["f1"]), ("sts-b", ["pearson", "spearman"])])
def test_the_rows_of_a_training_hold_the_metrics_of_its_task(task, metrics, tmp_path):
    history = fit(run(learnable(tmp_path, task), "encoder-tiny", recipe="bisam-log", epochs=6), root=tmp_path)
    for name in ("accuracy", *metrics):
        assert len(history.curve(f"validation_{name}")) == len(history.curve(f"test_{name}")) == 6
    assert history.curve(f"test_{metrics[0]}")[-1] > 60, "it has not learnt it"
    assert history.selected_test_accuracy == history.rows[history.selected_epoch - 1]["test_accuracy"]


def test_an_encoder_of_a_folder_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path):
    texts.write_encoder(tmp_path)
    chosen = run(learnable(tmp_path), "encoder:small", recipe="lets-bisam-log")
    whole = fit(chosen, root=tmp_path)
    fit(chosen, tmp_path / "run.pt", root=tmp_path, stop_after=1)
    cut = fit(chosen, tmp_path / "run.pt", root=tmp_path)
    assert small.outcome(cut) == small.outcome(whole) and whole.model.net.config.vocab_size == len(texts.SPECIAL) + len(texts.WORDS)


def test_an_encoder_of_another_vocabulary_is_refused_before_any_step(tmp_path, no_training):
    texts.write_encoder(tmp_path, "other")
    texts.write_tokeniser(tmp_path / "other", texts.WORDS[::-1])
    with pytest.raises(ValueError, match=r"model 'encoder:other' must have the vocabulary that the data were made with"):
        fit(run(learnable(tmp_path), "encoder:other"), root=tmp_path)


@pytest.mark.parametrize("recipe", ["sam", "bisam-log"])
def test_a_translator_learns_counts_its_tokens_and_goes_on_to_the_same_bits(recipe, tmp_path):
    name = texts.write_parallel(tmp_path, counts=(64, 12, 12))
    chosen = run(name, "seq2seq_tiny", recipe=recipe, metrics=("bleu",), select="bleu")
    whole = fit(chosen, root=tmp_path)
    fit(chosen, tmp_path / "run.pt", root=tmp_path, stop_after=2)
    assert small.outcome(fit(chosen, tmp_path / "run.pt", root=tmp_path)) == small.outcome(whole)
    losses = whole.curve("train_loss")
    assert losses[-1] < 0.8 * losses[0] and len(whole.curve("test_bleu")) == 3
    tokens = int((chosen.task(tmp_path).test.targets != -100).sum())
    assert len(whole.right["last"]) == tokens and whole.last_test_accuracy == pytest.approx(100 * int(whole.right["last"].sum()) / tokens)


def test_half_precision_takes_texts(tmp_path):
    history = fit(run(learnable(tmp_path), "encoder-tiny", precision="bfloat16", epochs=1), root=tmp_path)
    assert torch.tensor(history.curve("train_loss")).isfinite().all()


@pytest.mark.parametrize("name, model, message", [
    ("glue", "mlp", r"shape must be a tuple"), ("glue", "seq2seq_tiny", r"shape must be that of pairs of sentences"),
    ("parallel", "encoder-tiny", r"shape must be that of tokens"), ("parallel", "resnet8", r"shape must be \(channels, height, width\)"),
])  # fmt: skip
def test_data_and_networks_that_do_not_go_together_are_refused(name, model, message, tmp_path, no_training):
    written = {"glue": texts.write_glue, "parallel": texts.write_parallel}[name](tmp_path)
    with pytest.raises((TypeError, ValueError), match=message):
        fit(run(written, model), root=tmp_path)


def test_names_of_files_are_no_paths_of_modules():
    for name in ("encoder:small", "encoder:bert.base"):
        assert models.check_name(name) == name


def test_a_training_of_a_small_encoder_has_a_price(tmp_path):
    one = run(learnable(tmp_path), "encoder-tiny", recipe="sam", epochs=2)
    task = one.task(tmp_path)
    (length,) = task.shape["input_ids"]
    products = 2 * (length * (4 * 32**2 + 2 * 32 * 64) + 2 * length**2 * 32) + 32**2 + 32 * task.classes  # two layers of width 32, and the head
    assert flop_of_run(one, str(tmp_path)) == pytest.approx(3 * 2 * products * len(task.train) * 2 * 2)
