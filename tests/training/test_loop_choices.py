"""Base, schedule, clipping, parts, average, metrics and early end: each as a loop written out has it, resumed to the same bits, and refused where idle."""

import copy
import dataclasses
import json
import math

import pytest
import torch
from sklearn import metrics as sklearn_metrics
from small import TINY, outcome, run
from torch import nn

from bisam import SAM, SharpnessAware
from bisam.evidence import ledger, recording
from bisam.step.batch import Batch
from bisam.training import Run, bases, choices, fit, models, scores, weights_digest
from bisam.training.data import Split
from bisam.training.schedules import factor
from bisam.training.state import State

pytestmark = pytest.mark.usefixtures("tiny")
MUON = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
DEEP = {"model": "deep"}
EACH = [
    {"base": "adamw"}, pytest.param({"base": "muon", **DEEP}, marks=MUON), {"schedule": "linear", "rate_by": "step", "warmup": 7},
    {"schedule": "step", "milestones": (0.4, 0.7)}, {"rate_by": "step"}, {"clip": 0.1}, {"accumulate": 4}, {"ema": 0.9}, {"mixup": 0.4}, {"bootstrap": True},
    {"metrics": ("matthews",), "select": "matthews"}, {"base": "adamw", "beta2": 0.99, "ema": 0.5, "clip": 1.0, "accumulate": 2, "schedule": "constant"},
]  # fmt: skip


@pytest.fixture(autouse=True)
def deep(monkeypatch):
    monkeypatch.setitem(models.MODELS, "deep", lambda shape, classes: nn.Sequential(
        nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, classes)))  # fmt: skip


def by_hand(wanted, optimizers, after=lambda model, step: None, before=lambda model, step: None):
    """A loop over the tiny task as the run orders it, with plain torch around the wrapper."""
    torch.manual_seed(wanted.seed)
    model = models.build(wanted.model, TINY.shape, 3)
    members = optimizers(model)
    opt = SharpnessAware(members, wanted.recipe, seed=wanted.seed)
    generator, step = torch.Generator().manual_seed(wanted.seed), 0
    for _ in range(wanted.epochs):
        order = torch.randperm(47, generator=generator)
        for k in range(0, 40, 8):
            index = order[k : k + 8]
            before(members, step)
            opt.zero_grad()
            opt.backward(Batch(model, TINY.train.inputs[index], TINY.train.targets[index]))
            after(model, step)
            opt.step()
            step += 1
    return model


def test_adamw_is_that_of_torch():
    wanted = run(recipe="bisam-log", base="adamw", lr=0.01, beta2=0.98, weight_decay=0.1, schedule="constant")
    model = by_hand(wanted, lambda model: torch.optim.AdamW(model.parameters(), 0.01, (0.9, 0.98), weight_decay=0.1))
    assert weights_digest(fit(wanted).model) == weights_digest(model)


@MUON
def test_muon_moves_the_matrices_inside_and_adamw_the_rest():
    wanted = run(base="muon", lr=0.02, momentum=0.9, weight_decay=0.1, schedule="constant", **DEEP)

    def members(model):
        inside = [model[1].weight, model[3].weight]  # the last map gives the logits
        rest = [model[1].bias, model[3].bias, model[5].weight, model[5].bias]
        muon = torch.optim.Muon(inside, 0.02, 0.1, 0.9, adjust_lr_fn="match_rms_adamw")
        return [muon, torch.optim.AdamW(rest, 0.02, (0.9, 0.999), weight_decay=0.1)]

    assert weights_digest(fit(wanted).model) == weights_digest(by_hand(wanted, members))


@MUON
def test_muon_leaves_tables_kernels_and_the_last_map_alone_and_needs_a_matrix():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.kernel = nn.Embedding(5, 4), nn.Conv2d(1, 4, 3)
            self.inside, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    net = Net()
    assert [id(p) for p in bases.matrices(net)] == [id(net.inside.weight)]
    with pytest.raises(ValueError, match='base must be "sgd" or "adamw" for model \'small_conv\''):
        State(run(model="small_conv", base="muon"), TINY)


def test_a_torch_without_muon_is_told(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(ValueError, match=r'base must be "sgd" or "adamw" with torch .*, which has no Muon; torch 2.9 has it'):
        State(run(base="muon", **DEEP), TINY)


def test_each_base_brings_its_published_settings_and_a_change_of_base_too():
    assert (run(lr=None).lr, Run().momentum, Run().weight_decay) == (0.1, 0.9, 5e-4)
    for base, values in choices.BASES.items():
        wanted, changed = Run(base=base), Run(lr=0.3).replace(base=base) if base != "sgd" else Run()
        assert {name: getattr(wanted, name) for name in values} == {name: getattr(changed, name) for name in values} == values
    assert Run(base="adamw", lr=0.2).replace(seed=3).lr == 0.2 and Run().replace(base="adamw", lr=0.2).lr == 0.2


@pytest.mark.parametrize("schedule", choices.SCHEDULES)
def test_the_rate_of_every_step_is_the_one_that_the_formula_gives(schedule, monkeypatch):
    more = {"schedule": schedule, "warmup": 4, "rate_by": "step", **({"milestones": (0.25, 0.5), "decay": 0.3} if schedule == "step" else {})}
    state, seen = State(run(**more), TINY), []
    monkeypatch.setattr(state, "_step", lambda parts, plain=state._step: (seen.append(state.optimizer.param_groups[0]["lr"]), plain(parts))[1])
    for _ in range(4):
        state.epoch()
    expected = [0.05 * (t + 1) / 4 for t in range(4)]
    for t in range(4, 20):
        u = (t - 4) / 16
        shape = {"cosine": (1 + math.cos(math.pi * u)) / 2, "linear": 1 - u, "constant": 1.0, "step": 0.3 ** ((u >= 0.25) + (u >= 0.5))}
        expected.append(0.05 * shape[schedule])
    assert seen == pytest.approx(expected, abs=1e-12)
    assert state.history.curve("lr") == pytest.approx(expected[::5], abs=1e-12)


def test_the_linear_schedule_is_that_of_a_well_known_library_from_its_second_step_on():
    optimization = pytest.importorskip("transformers.optimization", reason="transformers is not installed")
    theirs = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = optimization.get_linear_schedule_with_warmup(theirs, 5, 20)
    rates = []
    for _ in range(20):
        rates.append(schedule.get_last_lr()[0])
        theirs.step()
        schedule.step()
    ours = [factor(Run(schedule="linear", rate_by="step", warmup=5), t, 20) for t in range(20)]
    assert rates[0] == 0 and ours[5:] == pytest.approx(rates[5:])  # theirs has a first step of rate 0, and so rises a step later
    assert ours[:4] == pytest.approx(rates[1:5])


def test_the_base_is_handed_a_clipped_gradient_and_the_climb_is_not():
    wanted, lengths = run(recipe=SAM.with_rho(0.5), clip=0.05, schedule="constant"), []

    def clipped(model, step):
        lengths.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.05)))

    model = by_hand(wanted, lambda model: torch.optim.SGD(model.parameters(), 0.05, 0.9, weight_decay=5e-4), after=clipped)
    assert max(lengths) > 0.05 and weights_digest(fit(wanted).model) == weights_digest(model)
    state, climbs = State(wanted, TINY), []
    state.optimizer.record = True
    for _ in state.steps():
        climbs.append(state.optimizer.last.length)
    assert climbs == pytest.approx([0.5] * 5, rel=1e-5)


@pytest.mark.parametrize("recipe", ["sgd", "sam", "asam", "bisam-log", "bisam-tanh"])
def test_a_batch_in_parts_is_the_whole_batch(recipe):
    sizes, whole = [], fit(run(recipe=recipe))
    state = State(run(recipe=recipe, accumulate=4), TINY)
    state.model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])) if module.training else None)
    for _ in range(4):
        state.epoch()
    assert set(sizes) == {2}
    for mine, theirs in zip(state.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-6)
    for mine, theirs in zip(state.history.rows, whole.rows, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)


def test_what_is_evaluated_and_kept_is_the_average_of_the_weights():
    wanted, averages = run(recipe="sam", ema=0.8, schedule="constant"), []

    def after(model, step):
        if step:
            averages.append(copy.deepcopy(model.state_dict()))  # before the step that follows: after the one before

    model = by_hand(wanted, lambda model: torch.optim.SGD(model.parameters(), 0.05, 0.9, weight_decay=5e-4), after=after)
    averages.append(model.state_dict())
    expected = averages[0]
    for weights in averages[1:]:
        expected = {name: 0.8 * value + 0.2 * weights[name] for name, value in expected.items()}
    history, plain = fit(wanted), fit(wanted.replace(ema=None))
    for name, value in history.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)
    assert weights_digest(plain.model) == weights_digest(model) != weights_digest(history.model)
    right = (history.model.eval()(TINY.test.inputs).argmax(1) == TINY.test.targets).double().mean()
    assert history.last_test_accuracy == pytest.approx(100 * float(right))


@pytest.mark.parametrize("more", EACH, ids=lambda more: "-".join(more))
def test_a_training_that_was_cut_goes_on_to_the_same_bits(more, tmp_path):
    wanted = run(recipe="bisam-log", **more)
    whole = fit(wanted)
    for _ in range(4 * wanted.trainings):
        cut = fit(wanted, tmp_path / "run.pt", stop_after=1)
    assert outcome(cut) == outcome(whole) and cut.steps == whole.steps == 20


@pytest.mark.parametrize("more", EACH, ids=lambda more: "-".join(more))
def test_a_run_says_its_choices_in_its_record_and_is_read_back(more, tmp_path):
    wanted = Run(recipe="sam", model="mlp", epochs=2, **{name: value for name, value in more.items() if name != "model"})
    assert Run.from_dict(json.loads(json.dumps(wanted.to_dict()))) == wanted
    (tmp_path / "claims.toml").write_text('[experiment.try]\ntitle = "t"\nscale = "smoke"\nmethods = ["sam"]\nseeds = 1\nepochs = 2\n')
    path = recording.record(fit(wanted), "try", "one", "smoke", tmp_path)
    found = ledger.read(path)
    for name, value in more.items():
        if name != "model":
            assert found["run"][name] == (list(value) if isinstance(value, tuple) else value)
    assert set(Run().to_dict()) == set(found["run"]) - set(more) | {"model"}


@pytest.mark.parametrize("change, message", [
    ({"lr": [0.1, 0.06]}, "curve.lr is 0.06 at epoch 2"), ({"steps": 23}, "final.steps is 23, which is no multiple of the 2 epochs"),
    ({"steps": None}, "final.steps is missing: run.rate_by is step"),
])  # fmt: skip
def test_a_rate_that_does_not_follow_from_the_schedule_is_named(change, message, tmp_path):
    (tmp_path / "claims.toml").write_text('[experiment.try]\ntitle = "t"\nscale = "smoke"\nmethods = ["sam"]\nseeds = 1\nepochs = 2\n')
    path = recording.record(fit(Run(model="mlp", epochs=2, rate_by="step", schedule="linear")), "try", "one", "smoke", tmp_path)
    found = json.loads(path.read_text())
    assert found["final"]["steps"] == 20 and found["curve"]["lr"] == [0.1, 0.05]
    found["curve"]["lr"] = change.get("lr", found["curve"]["lr"])
    found["final"] = {name: value for name, value in {**found["final"], **change}.items() if value is not None and name != "lr"}
    path.write_text(json.dumps(found))
    with pytest.raises(ledger.LedgerError, match=message):
        ledger.read(path)


@pytest.mark.parametrize("recipe", ["sgd", "sam", "bisam-log", "esam", "ksam"])
def test_mixup_trains_on_mixtures_with_the_shares_of_their_classes(recipe, monkeypatch):
    batches = []
    state = State(run(recipe=recipe, mixup=0.5), TINY)
    monkeypatch.setattr(state, "_step", lambda parts, plain=state._step: (batches.extend(parts), plain(parts))[1])
    for _ in range(4):
        state.epoch()
    shares, order = [], torch.Generator().manual_seed(0)
    for k, batch in enumerate(batches):
        if k % 5 == 0:
            indices = torch.randperm(47, generator=order)
        index = indices[8 * (k % 5) : 8 * (k % 5) + 8]
        x, y = TINY.train.inputs[index], nn.functional.one_hot(TINY.train.targets[index], 3).float()
        share, other = mixture(batch.inputs, x)
        shares.append(share)
        torch.testing.assert_close(batch.targets, share * y + (1 - share) * y[other], rtol=0, atol=1e-4)
    assert len(set(shares)) == 20 and min(shares) < 0.2 and max(shares) > 0.8  # Beta(1/2, 1/2) is heavy at both ends
    assert all(0 <= row["train_accuracy"] <= 100 and math.isfinite(row["train_loss"]) for row in state.history.rows)


def mixture(mixed, x):
    """The share and the order of the second samples that make a batch of mixtures: of each sample the pair that explains it exactly."""
    share, order = 1.0, []
    for i in range(8):
        way = {j: (x[j] - x[i]).flatten() for j in range(8) if j != i}
        gone = (mixed[i] - x[i]).flatten()
        misses = {j: float((gone - slope(gone, way[j]) * way[j]).norm()) for j in way}
        j = min(misses, key=misses.get)
        if misses[j] < 1e-4 and float(gone.norm()) > 1e-5:
            share = 1 - slope(gone, way[j])
        order.append(j if float(gone.norm()) > 1e-5 else i)  # else it was mixed with itself
    return share, torch.tensor(order)


def slope(a, b):
    return float(a @ b / (b @ b))


def test_the_second_network_learns_what_the_first_one_says(tmp_path):
    wanted = run(recipe="sam", bootstrap=True, label_noise=0.3, epochs=6)
    first = fit(wanted.replace(bootstrap=False))
    said = first.model.eval()(TINY.train.inputs).argmax(1)
    assert not torch.equal(said, TINY.train.targets)
    taught = dataclasses.replace(TINY, train=Split(TINY.train.inputs, said))
    torch.manual_seed(wanted.seed)
    by_hand = State(wanted.replace(bootstrap=False, label_noise=0.0), taught)
    for _ in range(6):
        by_hand.epoch()
    rows = []
    history = fit(wanted, tmp_path / "run.pt", on_epoch=rows.append)
    assert weights_digest(history.model) == weights_digest(by_hand.model) != weights_digest(first.model)
    assert history.rows == by_hand.history.rows == rows and history.fitted == pytest.approx(100 * float(
        (history.model.eval()(TINY.train.inputs).argmax(1) == said).double().mean()))  # fmt: skip
    assert {one.name for one in tmp_path.iterdir() if one.suffix != ".lock"} == {"run.pt", "run.pt.first"}
    assert outcome(fit(wanted, tmp_path / "run.pt")) == outcome(history)


def test_the_first_of_two_trainings_goes_on_where_it_was_cut_and_takes_its_time_from_both(tmp_path):
    wanted, whole = run(bootstrap=True), fit(run(bootstrap=True))
    lengths = []
    for _ in range(4):
        cut = fit(wanted, tmp_path / "run.pt", stop_after=3)
        lengths.append(len(cut.rows))
    assert lengths == [0, 2, 4, 4] and outcome(cut) == outcome(whole)  # four epochs each: three, then one and two, then two
    assert not fit(wanted, tmp_path / "other.pt", minutes=1e-9).rows


def test_metrics_are_those_of_the_library():
    draw = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(50, 2, generator=draw), torch.randint(0, 2, (50,), generator=draw)
    said = logits.argmax(1).numpy()
    assert scores.score("f1", logits, targets) == pytest.approx(100 * sklearn_metrics.f1_score(targets, said))
    assert scores.score("matthews", logits, targets) == pytest.approx(100 * sklearn_metrics.matthews_corrcoef(targets, said))
    wide = torch.randn(40, 9, generator=draw)
    classes = torch.randint(0, 9, (40,), generator=draw)
    expected = sklearn_metrics.top_k_accuracy_score(classes, wide.numpy(), k=5, labels=range(9))
    assert scores.score("top5_accuracy", wide, classes) == pytest.approx(100 * expected)


def test_correlations_are_of_the_mean_grades():
    targets = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]])
    logits = torch.tensor([[5.0, 0, 0], [0, 5, 0], [0, 5, 5], [0, 0, 5]])
    assert scores.score("spearman", logits, targets) == pytest.approx(100.0)
    assert 99 < scores.score("pearson", logits, targets) < 100
    assert scores.score("pearson", torch.zeros(4, 3), targets) == 0.0  # of a constant there is none


@pytest.mark.parametrize("name, logits, message", [
    ("top5_accuracy", torch.zeros(2, 5), "it needs more than 5"), ("f1", torch.zeros(2, 3), "it is that of class 1 of two"),
    ("bleu", torch.zeros(2, 2), "data that can measure it do so themselves"), ("f1", None, "one row of logits a sample"),
    ("mean", torch.zeros(2, 2), "name must be one of accuracy, top5_accuracy"),
])  # fmt: skip
def test_a_metric_that_a_task_does_not_have_is_named(name, logits, message):
    with pytest.raises(ValueError, match=message):
        scores.score(name, logits, torch.tensor([0, 1]))


def test_the_epoch_is_chosen_by_the_metric_that_the_run_names():
    by_accuracy, by_matthews = fit(run(metrics=("matthews",))), fit(run(metrics=("matthews",), select="matthews"))
    assert by_accuracy.rows == by_matthews.rows and by_matthews.metrics == ["accuracy", "matthews"]
    curve = by_matthews.curve("validation_matthews")
    assert by_matthews.selected_epoch == 1 + curve.index(max(curve))
    assert by_matthews.final("matthews")["last_test_matthews"] == by_matthews.rows[-1]["test_matthews"]
    with pytest.raises(ValueError, match="select must be one of accuracy for data 'tiny', or be among metrics; got 'matthews'"):
        fit(run(select="matthews"))


def test_a_run_with_patience_ends_where_nothing_has_improved_and_stays_ended(tmp_path):
    long = run(epochs=60, lr=0.3, patience=3)
    history, plain = fit(long, tmp_path / "run.pt"), fit(long.replace(patience=None))
    done, curve = len(history.rows), plain.curve("validation_accuracy")
    best = [curve.index(max(curve[: k + 1])) for k in range(60)]
    assert done == next(k for k in range(60) if k - best[k] >= 3) + 1 < 60 and history.finished and history.fitted is not None
    assert history.rows == plain.rows[:done] and history.selected_epoch == done - 3
    assert outcome(fit(long, tmp_path / "run.pt")) == outcome(history)
    for _ in range(done):
        cut = fit(long, tmp_path / "other.pt", stop_after=1)
    assert outcome(cut) == outcome(history)


def test_the_record_of_a_run_that_ended_early_must_have_ended_there(tmp_path):
    (tmp_path / "claims.toml").write_text('[experiment.try]\ntitle = "t"\nscale = "smoke"\nmethods = ["sam"]\nseeds = 1\nepochs = 40\n')
    path = recording.record(fit(Run(model="mlp", epochs=40, patience=2)), "try", "one", "smoke", tmp_path)
    found = ledger.read(path)
    done = len(found["curve"]["lr"])
    assert done < 40 and found["final"]["selected_epoch"] == done - 2
    found["run"]["patience"] = 3
    path.write_text(json.dumps(found))
    with pytest.raises(ledger.LedgerError, match=r"curve has 2 evaluations after the chosen epoch, and run.patience is 3"):
        ledger.read(path)


@pytest.mark.parametrize("fields, message", [
    ({"base": "adam"}, "base must be one of sgd, adamw, muon; got 'adam'"), ({"recipe": "bsam", "base": "adamw"}, "base must be left out with recipe 'bsam'"),
    ({"beta2": 0.9}, 'beta2 must be left out with base "sgd"'), ({"warmup": 5}, 'warmup must be left out with rate_by "epoch"'),
    ({"milestones": (0.5,)}, "milestones must be left out with schedule 'cosine'"), ({"decay": 0.5}, "decay must be left out without milestones"),
    ({"schedule": "step"}, "milestones must hold at least one share"), ({"schedule": "step", "milestones": (0.5, 0.2)}, "milestones must rise"),
    ({"schedule": "step", "milestones": (1.0,)}, "milestones must be greater than 0 and less than 1"),
    ({"schedule": "constant", "rate_by": "step"}, 'rate_by must be left out with schedule "constant" and no warmup'),
    ({"schedule": "poly"}, "schedule must be one of cosine, linear, step, constant"), ({"rate_by": "batch"}, "rate_by must be one of epoch, step"),
    ({"clip": 0.0}, "clip must be greater than 0"), ({"accumulate": 3, "batch_size": 100}, "accumulate must divide batch_size, 100; got 3"),
    ({"ema": 1.0}, "ema must be greater than 0 and less than 1"), ({"patience": 0}, "patience must be at least 1"),
    ({"metrics": ("f1", "f1")}, "metrics must begin with 'accuracy' and hold every name once"), ({"select": "loss"}, "select must be one of accuracy"),
    *(({"compile": "whole-step", **more}, f'{next(iter(more))} must be left out with compile "whole-step"') for more in (
        {"clip": 1.0}, {"ema": 0.9}, {"accumulate": 2}, {"base": "adamw"}, {"rate_by": "step"}, {"mixup": 0.2}, {"bootstrap": True})),
    ({"mixup": -0.1}, "mixup must be 0 or greater"),
])  # fmt: skip
def test_a_choice_that_is_none_or_would_be_idle_is_refused(fields, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Run(**fields)
