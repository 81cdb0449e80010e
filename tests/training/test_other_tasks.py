"""Data beyond images with one class: dictionaries of tensors, shares of the classes, a class for each token."""

import math

import pytest
import torch
from small import run
from torch import nn

import bisam
from bisam import CrossEntropy, Multiclass, Surrogate
from bisam.training import data, evaluation, fit, models, weights_digest
from bisam.training.data import Data, Split
from bisam.training.state import State

TOKENS = Multiclass(axis=-1, ignore_index=-100)


class Words(nn.Module):
    """Mean of the embeddings of the words that count."""

    def __init__(self, classes, dropout=0.0):
        super().__init__()
        self.table, self.drop, self.head = nn.Embedding(20, 8), nn.Dropout(dropout), nn.Linear(8, classes)
        self.lengths = []

    def forward(self, ids, mask):
        self.lengths.append(ids.shape[1])
        seen = self.drop(self.table(ids)) * mask.unsqueeze(-1)
        return self.head(seen.sum(1) / mask.sum(1, keepdim=True))


class Tagger(Words):
    def forward(self, ids, mask):
        return self.head(self.table(ids) * mask.unsqueeze(-1))


class Cropped(Data):
    """Columns that are padding in all samples of a batch are left out."""

    def picked(self, split, index):
        inputs, targets = super().picked(split, index)
        longest = int(inputs["mask"].sum(1).max())
        cut = {name: one[:, :longest] for name, one in inputs.items()}
        return cut, targets[:, :longest] if targets.ndim == 2 and not targets.is_floating_point() else targets


def split(n, seed, kind):
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 7, (n,), generator=draw)
    mask = (torch.arange(10) < lengths[:, None]).long()
    ids = torch.randint(1, 20, (n, 10), generator=draw) * mask
    classes = (ids.sum(1) % 3).long()
    targets = {
        "classes": classes, "shares": 0.9 * nn.functional.one_hot(classes, 3).float() + 0.1 / 3,
        "tokens": torch.where(mask.bool(), ids % 3, -100),
    }[kind]  # fmt: skip
    return Split({"ids": ids, "mask": mask}, targets)


def task(kind, cls=Data):
    more = {"task": TOKENS} if kind == "tokens" else {"metrics": ("accuracy", "matthews", "spearman")}
    return cls("words", 3, split(47, 0, kind), split(30, 1, kind), split(30, 2, kind), **more)


@pytest.fixture(params=["classes", "shares", "tokens"])
def kind(request, monkeypatch):
    name = request.param
    monkeypatch.setitem(data.DATA, "words", lambda: task(name))
    monkeypatch.setitem(data.DATA, "cropped", lambda: task(name, Cropped))
    monkeypatch.setitem(models.MODELS, "words", lambda shape, classes: (Tagger if name == "tokens" else Words)(classes))
    monkeypatch.setitem(models.MODELS, "dropping-words", lambda shape, classes: (Tagger if name == "tokens" else Words)(classes, dropout=0.4))
    return name


def words(**more):
    return run(**{"data": "words", "model": "words", **more})


@pytest.mark.parametrize("recipe", ["sgd", "sam", "asam", "bisam-log", "bisam-tanh", "lets-bisam-log", "esam", "ksam", "bsam"])
def test_every_kind_is_trained_and_resumed_to_the_same_bits(kind, recipe, tmp_path):
    whole = fit(words(recipe=recipe, model="dropping-words"))
    for _ in range(4):
        cut = fit(words(recipe=recipe, model="dropping-words"), tmp_path / "run.pt", stop_after=1)
    assert weights_digest(cut.model) == weights_digest(whole.model) and cut.rows == whole.rows
    assert all(math.isfinite(value) for row in whole.rows for value in row.values())
    assert all(0 <= row["test_accuracy"] <= 100 for row in whole.rows)


def test_a_row_says_what_a_loop_written_out_finds(kind):
    wanted = words(recipe="sgd", epochs=1)
    torch.manual_seed(wanted.seed)
    model, there = models.build("words", {}, 3), task(kind)
    opt = torch.optim.SGD(model.parameters(), 0.05, 0.9, weight_decay=5e-4)
    order, total, right, rows = torch.randperm(47, generator=torch.Generator().manual_seed(wanted.seed)), 0.0, 0, 0
    for k in range(0, 40, 8):
        index = order[k : k + 8]
        inputs, targets = {name: one[index] for name, one in there.train.inputs.items()}, there.train.targets[index]
        logits = model(**inputs)
        loss = nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten() if kind != "shares" else targets)
        opt.zero_grad()
        loss.backward()
        opt.step()
        classes = targets.argmax(1) if kind == "shares" else targets
        counts = classes != -100
        right, rows, total = right + int((logits.argmax(-1) == classes)[counts].sum()), rows + int(counts.sum()), total + loss.item() * int(counts.sum())
    history = fit(wanted)
    for mine, theirs in zip(history.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
    assert history.rows[0]["train_loss"] == pytest.approx(total / rows, rel=1e-5)
    assert history.rows[0]["train_accuracy"] == pytest.approx(100 * right / rows)
    classes = there.test.targets.argmax(1) if kind == "shares" else there.test.targets
    seen = (model.eval()(**there.test.inputs).argmax(-1) == classes)[classes != -100]
    assert history.right["last"].tolist() == seen.flatten().tolist()
    assert history.last_test_accuracy == pytest.approx(100 * float(seen.double().mean()))


@pytest.mark.parametrize("recipe", ["sam", "bisam-log", "bisam-tanh"])
def test_columns_that_are_padding_in_all_of_a_batch_can_be_left_out(kind, recipe):
    states = []
    for there in (task(kind), task(kind, Cropped)):
        torch.manual_seed(0)
        states.append(State(words(recipe=recipe), there))
        states[-1].epoch()
    whole, cropped = states
    for mine, theirs in zip(cropped.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
    if kind != "tokens":
        assert set(whole.model.lengths) == {10} and max(cropped.model.lengths) < 10


@pytest.mark.parametrize("loss", [CrossEntropy(), Surrogate(mu=2.0)], ids=["ce", "q"])
def test_q_counts_each_token_once_and_padding_not_at_all(loss):
    draw = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(4, 6, 5, generator=draw), torch.randint(0, 5, (4, 6), generator=draw)
    targets[1, 3:], targets[3, 1:] = -100, -100
    counted = targets != -100
    expected = loss.values(logits[counted], targets[counted]).mean()
    torch.testing.assert_close(TOKENS.mean(loss, logits, targets), expected)
    wider = torch.cat([logits, torch.randn(4, 3, 5, generator=draw)], 1), torch.cat([targets, torch.full((4, 3), -100)], 1)
    torch.testing.assert_close(TOKENS.mean(loss, *wider), expected)


def test_the_climb_breaks_tokens_that_were_right(kind):
    state = State(words(recipe=bisam.SAM.with_rho(3.0), lr=0.3, epochs=20), task(kind))
    counts = [state.epoch() for _ in range(10)]
    assert sum(row["broken"] for row in counts) > 0
    rows = evaluation.count_rows(state.task, state.train)
    assert rows == (47 if kind != "tokens" else int((state.train.targets != -100).sum()))


def test_metrics_are_measured_of_samples_with_one_row(kind):
    row = State(words(), task(kind)).epoch()
    more = set() if kind == "tokens" else {f"{part}_{name}" for part in ("validation", "test") for name in ("matthews", "spearman")}
    assert {name for name in row if name.startswith(("validation", "test"))} == {"validation_accuracy", "test_accuracy"} | more


@pytest.mark.parametrize("fields, message", [
    ({"augment": "flip"}, "augment must be 'none' for data 'words', which are no images; got 'flip'"),
    ({"channels_last": True}, "channels_last must be False for data 'words'"), ({"compile": "default"}, "compile must be 'no' for data 'words'"),
    ({"label_noise": 0.2}, "label_noise must be 0 for data 'words', whose samples have more than a class number"),
])  # fmt: skip
def test_choices_about_images_are_refused(kind, fields, message):
    if kind == "classes" and "label_noise" in fields:
        assert fit(words(epochs=1, **fields)).finished
        return
    with pytest.raises(ValueError, match=message):
        fit(words(**fields))


IDS = torch.zeros(4, 3, dtype=torch.int64)


@pytest.mark.parametrize("inputs, targets, error, message", [
    ({}, torch.zeros(4, dtype=torch.int64), ValueError, "inputs must hold tensors with as many rows each, got none"),
    ({"a": IDS, "b": IDS[:3]}, torch.zeros(4, dtype=torch.int64), ValueError, r"as many rows each, got \{\"inputs\['a'\]\": 4"),
    ({"a": [1]}, torch.zeros(1, dtype=torch.int64), TypeError, r"inputs\['a'\] must be a tensor of samples"),
    ({"a": IDS}, torch.zeros(3, dtype=torch.int64), ValueError, r"targets must have shape \(4,\)"),
    ({"a": IDS}, torch.zeros(3, 3), TypeError, "targets must hold whole class numbers"),
])  # fmt: skip
def test_a_split_that_does_not_fit_is_named(inputs, targets, error, message):
    with pytest.raises(error, match=message):
        Split(inputs, targets)


def test_targets_that_are_none_of_the_task_are_named():
    good = split(6, 0, "tokens")
    for targets, message in (
        (torch.full((6, 10), -100), "must hold one that counts, got only -100"), (torch.full((6, 10), 7), "must be in 0 .. 2"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Data("words", 3, Split(good.inputs, targets), good, good, task=TOKENS)
    shares = split(6, 0, "shares")
    with pytest.raises(ValueError, match=r"must have shape \(n, 4\), a share for each class; got \(6, 3\)"):
        Data("words", 4, shares, shares, shares)
    with pytest.raises(ValueError, match="metrics must begin with 'accuracy'"):
        Data("words", 3, shares, shares, shares, metrics=("f1",))


def test_the_fingerprint_knows_names_tokens_and_the_task():
    there = task("classes")
    renamed = Data("words", 3, *(Split({"ids2": one.inputs["ids"], "mask": one.inputs["mask"]}, one.targets) for one in (there.train, there.validation, there.test)))
    tokens, plain = task("tokens"), task("tokens")
    other = Data("words", 3, tokens.train, tokens.validation, tokens.test, task=Multiclass(axis=-1, ignore_index=-100, weight=(1.0, 2.0, 1.0)))
    assert tokens.fingerprint == plain.fingerprint
    assert len({there.fingerprint, renamed.fingerprint, tokens.fingerprint, other.fingerprint}) == 4
