"""The network for pairs of sentences: sizes, what each place may see, greedy decoding, and a step of every kind with its rows and its noise."""

import copy

import pytest
import small
import texts
import torch
from torch.nn import functional

import bisam
from bisam.training import data, models
from bisam.training.data.bytepairs import BEGIN, END, PAD
from bisam.training.models.seq2seq import Seq2Seq, seq2seq, sinusoids

SHAPE = {"source": (9,), "target_in": (9,)}
TASK = bisam.Multiclass(axis=-1, ignore_index=-100)


def net(vocabulary=40, **changes):
    return Seq2Seq(vocabulary, **{"width": 16, "heads": 2, "layers": 2, "hidden": 24, **changes})


def pairs(n=4, vocabulary=40, seed=0, lengths=(3, 7)):
    """Sources, what has been said, and what comes next, of several lengths."""
    draw = torch.Generator().manual_seed(seed)
    rows = [[torch.randint(END + 1, vocabulary, (int(torch.randint(*lengths, (), generator=draw)),), generator=draw).tolist() for _ in range(n)] for _ in range(2)]
    source, target = rows
    inputs = {"source": data.tokens.padded([[*row, END] for row in source], PAD), "target_in": data.tokens.padded([[BEGIN, *row] for row in target], PAD)}
    return inputs, data.tokens.padded([[*row, END] for row in target], -100)


def wider(inputs, targets, more=3):
    """The same pairs with more padding."""
    return {name: functional.pad(part, (0, more)) for name, part in inputs.items()}, functional.pad(targets, (0, more), value=-100)


@pytest.mark.parametrize("name, width, layers, hidden", [("seq2seq_small", 256, 3, 1024), ("seq2seq_tiny", 32, 1, 64)])
def test_sizes_by_arithmetic(name, width, layers, hidden):
    attention, norm = 4 * width * width + 4 * width, 2 * width
    forward = 2 * width * hidden + hidden + width
    expected = 100 * width + layers * (attention + forward + 2 * norm + 2 * attention + forward + 3 * norm) + 2 * norm
    with torch.device("meta"):
        found = models.build(name, SHAPE, 100)
    assert sum(weight.numel() for weight in found.parameters()) == expected


def test_positions_are_sines_and_cosines():
    found = sinusoids(7, 6)
    for place in range(7):
        for pair in range(3):
            angle = torch.tensor(place / 10_000 ** (2 * pair / 6))
            torch.testing.assert_close(found[place, 2 * pair : 2 * pair + 2], torch.stack([angle.sin(), angle.cos()]), rtol=0, atol=1e-6)


def test_layers_begin_with_numbers_of_their_own():
    found = net().encoder.layers
    assert not torch.equal(found[0].linear1.weight, found[1].linear1.weight)


def test_numbers_come_from_the_global_random_state(seeded):
    found = []
    for seed in (0, 0, 1):
        seeded(seed)
        found.append(net().state_dict())
    assert small.weights_digest(net().eval()) and all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert not torch.equal(found[0]["embedding.weight"], found[2]["embedding.weight"]) and "positions" not in found[0]


def test_padding_is_seen_by_nobody():
    model, (inputs, targets) = net().eval(), pairs()
    there = targets != -100
    plain, padded = model(**inputs), model(**wider(inputs, targets)[0])[:, : targets.shape[1]]
    torch.testing.assert_close(plain[there], padded[there])
    other = {**inputs, "source": inputs["source"].flip(1)}
    assert not torch.allclose(plain[there], model(**other)[there], atol=1e-3)


def test_a_place_sees_the_whole_source_and_of_the_translation_what_is_before_it():
    model, (inputs, _) = net().double().eval(), pairs(2, lengths=(6, 7))
    plain = model(**inputs)
    said = inputs["target_in"].clone()
    said[:, 4] = 39 - said[:, 4]
    moved = (model(inputs["source"], said) - plain).abs().amax((0, 2))
    assert moved[:4].max() == 0 and moved[4:].min() > 1e-6
    source = inputs["source"].clone()
    source[:, 5] = 39 - source[:, 5]
    assert (model(source, inputs["target_in"]) - plain).abs().amax(2).min() > 1e-9


def test_the_embedding_is_the_output_layer():
    model, (inputs, _) = net(40).eval(), pairs(vocabulary=30)
    before = model(**inputs).detach()
    with torch.no_grad():
        model.embedding.weight[35] = 0  # a token of no sentence here
    after = model(**inputs)
    assert before[..., 35].all() and not after[..., 35].any() and torch.equal(before[..., :35], after[..., :35])


# -- greedy decoding -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def taught():
    """A network that has learnt to say a sentence backwards."""
    torch.manual_seed(0)
    model, optimizer = net(12, dropout=0.0, width=32), None
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    inputs, _ = pairs(64, 12, lengths=(2, 5))
    rows = [[number for number in row if number > END][::-1] for row in inputs["source"].tolist()]
    said, asked = data.tokens.padded([[BEGIN, *row] for row in rows], PAD), data.tokens.padded([[*row, END] for row in rows], -100)
    for _ in range(80):
        loss = functional.cross_entropy(model(inputs["source"], said).flatten(0, 1), asked.flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), inputs["source"], asked


def test_a_translation_ends_where_the_network_ends_it(taught):
    model, source, asked = taught
    found = model.decode(source)
    wanted = asked.masked_fill(asked == -100, PAD)
    right = [row[: len(other)] == other for row, other in zip(found.tolist(), wanted[:, : found.shape[1]].tolist(), strict=True)]
    assert sum(right) > 40, "it has not learnt it"
    for row in found.tolist():
        assert END not in row or set(row[row.index(END) + 1 :]) <= {PAD}
        assert BEGIN not in row and PAD not in row[: row.index(END)] if END in row else PAD not in row


def test_a_translation_takes_the_highest_score_at_every_place(taught):
    model, source, _ = taught
    found = model.decode(source)
    said = functional.pad(found[:, :-1], (1, 0), value=BEGIN)
    scores = model(source, said)
    scores[..., :END] = -torch.inf
    there = found != PAD
    assert torch.equal(scores.argmax(-1)[there], found[there])


def test_a_sentence_is_translated_alike_alone_and_among_others(taught):
    model, source, _ = taught
    together = model.decode(source)
    for k in (0, 7, 30):
        alone = model.decode(source[k : k + 1, : int((source[k] != PAD).sum())])[0].tolist()
        assert alone == together[k, : len(alone)].tolist() and not together[k, len(alone) :].any()


def test_a_translation_has_so_many_tokens_at_most_and_the_mode_is_kept():
    model, (inputs, _) = net().train(), pairs()
    assert model.decode(inputs["source"], most=3).shape[1] <= 3 and model.training
    assert model.decode(inputs["source"]).shape[1] <= 2 * inputs["source"].shape[1] + 8
    with pytest.raises(ValueError, match="most must be at least 1, got 0"):
        model.decode(inputs["source"], most=0)


# -- steps ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [bisam.CrossEntropy(), bisam.Surrogate(bisam.NegLog()), bisam.Surrogate(bisam.Tanh())], ids=["ce", "log", "tanh"])
def test_the_value_of_a_batch_is_the_mean_over_its_tokens_and_padding_changes_nothing(loss):
    model, (inputs, targets) = net().eval(), pairs()
    batch, padded = (bisam.Batch(model, *each, task=TASK) for each in ((inputs, targets), wider(inputs, targets)))
    logits, there = batch.logits(), targets != -100
    alone = torch.stack([loss(row[None], true[None]) for row, true in zip(logits[there], targets[there], strict=True)])
    assert 0 < len(alone) < targets.numel()
    torch.testing.assert_close(batch.mean(loss, logits), alone.mean())
    torch.testing.assert_close(padded.mean(loss, padded.logits()), alone.mean())
    assert int(batch.mass) == int(padded.mass) == len(alone)


@pytest.mark.parametrize("name", ["sam", "asam", "bisam-log", "bisam-tanh", "lets-bisam-log"])
def test_a_step_of_every_kind_moves_every_weight(name):
    model, (inputs, targets) = net(dropout=0.2), pairs()
    before = copy.deepcopy(model.state_dict())
    opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), name)
    learns, radii = bisam.recipe(name).radius.learns, set()
    for seed in range(2):
        validation = bisam.Batch(model, *pairs(seed=seed + 5), task=TASK) if learns else None
        loss = opt.step(bisam.Batch(model, inputs, targets, task=TASK), validation=validation)
        radii.add(opt.memory.rho)
    assert loss.isfinite() and (len(radii) == 2 or not learns)
    # The rows of tokens of which there are none here move by the output layer.
    assert all(after.isfinite().all() and not torch.equal(after, before[key]) for key, after in model.state_dict().items())


def test_both_passes_have_the_same_masks_and_radius_zero_is_the_base_to_the_bit(seeded):
    inputs, targets = pairs()
    small.check_masks(lambda: net(dropout=0.3), lambda model: bisam.Batch(model, inputs, targets, task=TASK), seeded)


def test_second_derivatives_exist():
    model, (inputs, targets) = net(dropout=0.2), pairs()
    loss = bisam.Batch(model, inputs, targets, task=TASK)
    first = torch.autograd.grad(loss.mean(bisam.CrossEntropy(), loss.logits()), list(model.parameters()), create_graph=True)
    sum(part.square().sum() for part in first).backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize("call, message", [
    (lambda: seq2seq((1, 8, 8), 40), r"shape must be that of pairs of sentences, \{'source': \(S,\), 'target_in': \(L,\)\}, for a seq2seq network; got \(1, 8, 8\)"),
    (lambda: seq2seq({"input_ids": (9,)}, 40), r"shape must be that of pairs of sentences.*; got \{'input_ids': \(9,\)\}"),
    (lambda: seq2seq(SHAPE, 2), "vocabulary must be at least 3, for padding, beginning and end; got 2"),
    (lambda: seq2seq({"source": (9, 2), "target_in": (9,)}, 40), r"shape must have 1 entries, got \(9, 2\)"),
    (lambda: net(width=18, heads=4), "width must be even and a multiple of heads = 4, got 18"),
    (lambda: net(dropout=1.0), r"dropout must be in \[0, 1\), got 1.0"),
    (lambda: net(positions=4).eval()(**pairs()[0]), "sentences must have at most 4 tokens, got"),
    (lambda: models.build("seq2seq_tiny", (3, 32, 32), 10), "shape must be that of pairs of sentences"),
])  # fmt: skip
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_task_of_the_files_goes_through(tmp_path):
    task = data.load(texts.write_parallel(tmp_path), tmp_path)
    model = models.build("seq2seq_tiny", task.shape, task.classes)
    inputs, targets = task.picked(task.train, torch.arange(6))
    assert model(**inputs).shape == (*targets.shape, task.classes)
    assert 0 <= task.measured(model.eval(), task.test, None)["bleu"] < 50
