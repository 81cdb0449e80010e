"""Encoders from a folder: which numbers come from where, what is refused, and a step of every kind."""

import json
import shutil
import warnings

import pytest
import small
import texts
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
)

import bisam
from bisam.training import data, models
from bisam.training.data import DataError
from bisam.training.data.tokens import TokenShape, Vocabulary

SHAPE = {"input_ids": (12,), "attention_mask": (12,), "token_type_ids": (12,)}
NARROW = {"hidden_size": 16, "dim": 16, "hidden_dim": 24, "embedding_size": 8, "num_attention_heads": 2, "n_heads": 2, "intermediate_size": 24, "max_position_embeddings": 128}
SIZE = len(texts.SPECIAL) + len(texts.WORDS)


@pytest.fixture
def there(tmp_path):
    texts.write_encoder(tmp_path)
    return tmp_path


def build(root, classes=3, shape=SHAPE):
    return models.build("encoder:small", shape, classes, root)


def batch_of(model, n=6, seed=0, classes=2):
    model = nn.Identity() if model is None else model
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, SIZE, (n, 12), generator=draw)
    mask = (torch.arange(12) < torch.randint(4, 13, (n, 1), generator=draw)).long()
    return bisam.Batch(model, {"input_ids": ids * mask, "attention_mask": mask}, torch.arange(n) % classes)


def test_the_body_is_that_of_the_file_and_the_head_comes_from_the_random_state(there, seeded):
    body = AutoModel.from_pretrained(there / "small", local_files_only=True).state_dict()
    nets = []
    for seed in (0, 0, 1):
        seeded(seed)
        nets.append(build(there).net)
    first, same, other = nets
    assert first.classifier.out_features == 3 and torch.equal(first.classifier.weight, same.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    # The head for masked words has no pooling layer: this one begins afresh.
    read = {name for name in first.bert.state_dict() if not name.startswith("pooler")}
    assert all(torch.equal(first.bert.state_dict()[name], body[name]) and torch.equal(other.bert.state_dict()[name], body[name]) for name in read)
    assert torch.equal(first.bert.pooler.dense.weight, same.bert.pooler.dense.weight)
    assert not torch.equal(first.bert.pooler.dense.weight, other.bert.pooler.dense.weight)


def test_what_the_file_holds_does_not_move_the_random_state(there, seeded):
    after = []
    for _ in range(2):
        seeded(0)
        build(there)
        after.append(torch.rand(3))
        BertForMaskedLM(BertConfig.from_pretrained(there / "small")).save_pretrained(there / "small")
    assert torch.equal(*after)


def test_a_head_of_the_file_is_left_there(there, seeded):
    config = BertConfig.from_pretrained(there / "small", num_labels=3)
    trained = BertForSequenceClassification(config)
    trained.save_pretrained(there / "small")
    seeded(0)
    for classes in (3, 2):
        found = build(there, classes).net
        assert found.classifier.out_features == classes and not torch.equal(found.classifier.weight, trained.classifier.weight[:classes])
        assert torch.equal(found.bert.pooler.dense.weight, trained.bert.pooler.dense.weight)


def test_weights_in_the_older_form_are_read(there):
    weights = AutoModel.from_pretrained(there / "small", local_files_only=True).state_dict()
    (there / "small" / "model.safetensors").unlink()
    torch.save(weights, there / "small" / "pytorch_model.bin")
    assert torch.equal(build(there).net.bert.embeddings.word_embeddings.weight, weights["embeddings.word_embeddings.weight"])


def test_half_precision_in_the_file_becomes_float32(there):
    BertForMaskedLM.from_pretrained(there / "small").to(torch.bfloat16).save_pretrained(there / "small")
    assert {weight.dtype for weight in build(there).parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", ["distilbert", "roberta", "electra", "albert"])
def test_other_kinds_of_encoders_are_read_whole(kind, tmp_path):
    config = AutoConfig.for_model(kind, vocab_size=SIZE, num_hidden_layers=2, n_layers=2, **NARROW)
    theirs = AutoModelForMaskedLM.from_config(config)
    theirs.save_pretrained(tmp_path / "small")
    found, body = build(tmp_path).net.base_model.state_dict(), theirs.base_model.state_dict()
    assert body and all(torch.equal(found[name], part) for name, part in body.items())
    assert build(tmp_path)(**batch_of(None).inputs, token_type_ids=torch.zeros(6, 12, dtype=torch.int64)).shape == (6, 3)


def test_logits_are_those_of_transformers_and_inputs_it_does_not_know_are_left_out(there):
    model = build(there).eval()
    inputs = batch_of(model).inputs
    expected = model.net(**inputs).logits
    assert torch.equal(model(**inputs, spare=torch.zeros(6)), expected) and expected.shape == (6, 3)


def test_dropout_is_as_the_config_has_it(tmp_path):
    texts.write_encoder(tmp_path, hidden_dropout_prob=0.25, attention_probs_dropout_prob=0.35)
    assert {m.p for m in build(tmp_path).modules() if isinstance(m, nn.Dropout)} == {0.25, 0.35}


def test_nothing_is_said_and_warnings_are_as_before(there, capfd, seeded):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled(), list(warnings.filters)
    build(there)
    assert capfd.readouterr() == ("", "") and (logging.get_verbosity(), logging.is_progress_bar_enabled(), list(warnings.filters)) == before


# -- where network and data meet ---------------------------------------------------------------------------------------


def test_data_and_network_of_one_folder_go_together(there):
    task = data.load(texts.write_glue(there), there)
    model = models.build("encoder:small", task.shape, task.classes, there)
    inputs, targets = task.picked(task.train, torch.arange(5))
    assert model(**inputs).shape == (5, 2) and len(targets) == 5
    assert models.build("encoder-tiny", task.shape, task.classes).net.config.vocab_size == SIZE


def test_another_vocabulary_is_refused(there):
    task = data.load(texts.write_glue(there), there)
    texts.write_encoder(there, "other")
    texts.write_tokeniser(there / "other", texts.WORDS[::-1])
    with pytest.raises(ValueError, match=r"model 'encoder:other' must have the vocabulary that the data were made with, 20 tokens; its own .* Name the same folder"):
        models.build("encoder:other", task.shape, 2, there)
    texts.write_encoder(there, "larger", vocab_size=SIZE + 4)
    models.build("encoder:larger", task.shape, 2, there)  # rows that no token uses, as published encoders have
    (there / "larger" / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"model 'encoder:larger' must have the vocabulary that the data were made with, 20 tokens; its own has 24"):
        models.build("encoder:larger", task.shape, 2, there)
    texts.write_encoder(there, "smaller", vocab_size=SIZE - 2)
    with pytest.raises(ValueError, match=r"model 'encoder:smaller' must have the vocabulary"):
        models.build("encoder:smaller", task.shape, 2, there)


def test_too_many_tokens_are_refused(there):
    with pytest.raises(ValueError, match=r"shape must have at most 128 tokens for encoder:small, got 129"):
        build(there, shape={"input_ids": (129,)})


@pytest.mark.parametrize("name, shape, message", [
    ("encoder:small", (3, 32, 32), r"shape must be that of tokens, \{'input_ids': \(L,\), ...\}, for encoder:small; got \(3, 32, 32\)"),
    ("encoder-tiny", {"source": (9,)}, r"shape must be that of tokens.*for encoder-tiny; got \{'source': \(9,\)\}"),
    ("encoder-tiny", {"input_ids": (9,)}, "shape must have the vocabulary of a tokeniser for encoder-tiny"),
    ("encoder:small", {"input_ids": (9, 9)}, r"shape must have 1 entries, got \(9, 9\)"),
    ("encoder:", SHAPE, r"model must be one of small_conv, .* encoder-tiny, .*encoder:FOLDER, .*or MODULE:FUNCTION; got 'encoder:'"),
    ("encoder:../x", SHAPE, r"model must be one of .*; got 'encoder:\.\./x'"),
    ("mlp", SHAPE, r"shape must be a tuple"),
    ("small_conv", SHAPE, r"shape must be \(channels, height, width\)"),
])  # fmt: skip
def test_a_shape_or_a_name_that_does_not_fit_is_named(name, shape, message, there):
    with pytest.raises((ValueError, TypeError), match=message):
        models.build(name, shape, 2, there)


# -- what the folder may lack --------------------------------------------------------------------------------------------


def damaged(folder, change):
    """An encoder after a change of its folder."""
    change(folder)
    return folder.parent


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def without_a_layer(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))


def wider(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))


def decoder(folder):
    GPT2LMHeadModel(GPT2Config(vocab_size=SIZE, n_embd=8, n_layer=1, n_head=2, n_positions=16)).save_pretrained(folder)


@pytest.mark.parametrize("change, message", [
    (shutil.rmtree, r"model 'encoder:small' is not there: no file .*small/config\.json\. Needed are config\.json, tokenizer\.json and model\.safetensors .*hf download .*--local-dir .*small"),
    (lambda folder: (folder / "model.safetensors").unlink(), r"neither model\.safetensors nor pytorch_model\.bin is in .*small\. Fetch"),
    (cut, r"model\.safetensors is truncated or corrupt \(.*\)\. Fetch an encoder"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b"nothing"), r"model\.safetensors is truncated or corrupt"),
    (without_a_layer, r"model\.safetensors lacks \d+ of the weights that config\.json asks for, such as encoder\.layer\.2\."),
    (wider, r"model\.safetensors (lacks \d+ of the weights that config\.json asks for|is truncated or corrupt)"),
    (lambda folder: (folder / "config.json").write_text("{"), r"config\.json cannot be read \("),
    (lambda folder: (folder / "config.json").write_text('{"model_type": "none"}'), r"config\.json cannot be read \(ValueError"),
    (decoder, r"holds 'gpt2', which is no encoder that transformers can classify with"),
])  # fmt: skip
def test_what_is_wrong_with_a_folder_is_said(change, message, there):
    with pytest.raises(DataError, match=message):
        build(damaged(there / "small", change))


def test_the_weights_of_a_file_have_a_digest(there):
    first = models.sources("encoder:small", there)
    assert list(first) == ["encoder:small"] and len(first["encoder:small"]) == 16
    texts.write_encoder(there)
    assert models.sources("encoder:small", there) != first and models.sources("encoder-tiny") == models.sources("mlp") == {}
    (there / "small" / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"neither model\.safetensors nor"):
        models.sources("encoder:small", there)


# -- steps ---------------------------------------------------------------------------------------------------------------


def tiny():
    return models.build("encoder-tiny", TokenShape(SHAPE, Vocabulary(SIZE, "0")), 2)


@pytest.mark.parametrize("name", ["sam", "asam", "bisam-log", "bisam-tanh", "lets-bisam-log"])
def test_a_step_of_every_kind_moves_every_weight(name):
    model = tiny()
    before = {key: part.clone() for key, part in model.named_parameters()}
    opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), name)
    learns, radii = bisam.recipe(name).radius.learns, set()
    for seed in range(2):
        loss = opt.step(batch_of(model, seed=seed), validation=batch_of(model, seed=9 + seed) if learns else None)
        radii.add(opt.memory.rho)
    assert loss.isfinite() and (len(radii) == 2 or not learns)
    moved = {key: not torch.equal(part, before[key]) for key, part in model.named_parameters()}
    assert all(part.isfinite().all() for part in model.parameters()) and all(moved.values()), [key for key, has in moved.items() if not has]


def test_both_passes_have_the_same_masks_and_radius_zero_is_the_base_to_the_bit(seeded):
    small.check_masks(tiny, batch_of, seeded)


def test_shares_of_grades_are_targets_of_every_loss():
    model = tiny()
    batch = batch_of(models.build("encoder-tiny", TokenShape(SHAPE, Vocabulary(SIZE, "0")), 6))
    shares = data.glue.grades([0.0, 1.5, 2.25, 3.8, 5.0, 4.4])
    batch = bisam.Batch(batch.model, batch.inputs, shares)
    opt = bisam.SharpnessAware(torch.optim.SGD(batch.model.parameters(), lr=0.1), "bisam-log")
    assert opt.step(batch).isfinite() and model is not batch.model
