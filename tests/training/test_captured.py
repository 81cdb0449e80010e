"""The whole step as one graph: on the CPU the same bits as the eager step, and in a stand-in for a graph as well."""

import contextlib
import dataclasses
import gc

import pytest
import recording
import torch
from small import of_each_kind
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import bisam
from bisam import RECIPES, _look
from bisam.training import (
    Run,
    augment,
    captured,
    checkpoint,
    data,
    fit,
    graphs,
    models,
    state,
    weights_digest,
)
from bisam.training.evaluation import Sums
from bisam.training.side_by_side import Job, fit_side_by_side, in_turns
from bisam.training.state import State
from bisam.training.workers import Workers

REFUSED = {"esam-code", "lets-sam", "lets-asam", "lets-bisam-log", "lets-bisam-tanh", "looksam", "bsam"}
ACCEPTED = of_each_kind(name for name in RECIPES if name not in REFUSED)


def tiny(n=60, seed=0):
    """Small colour images, so that crops, flips and squares have something to do."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 3, 8, 8), generator=generator, dtype=torch.uint8)
    targets = torch.arange(n) % 4
    pixels[:, 0] = pixels[:, 0] // 4 + (targets * 48).to(torch.uint8)[:, None, None]
    cuts = (slice(0, n - 20), slice(n - 20, n - 10), slice(n - 10, n))
    splits = [data.Split(pixels[cut], targets[cut]) for cut in cuts]
    return data.Data("tiny", 4, *splits, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture(autouse=True)
def little(monkeypatch):
    """A task and networks that take no time."""
    monkeypatch.setattr(data, "load", lambda *_, **__: tiny())
    monkeypatch.setitem(models.MODELS, "mlp", net)
    monkeypatch.setitem(models.MODELS, "small_conv", lambda shape, classes: net(shape, classes, dropout=0.3))


def net(shape, classes, dropout=0.0):
    layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(6 * 36, classes)]
    return nn.Sequential(*layers)


def run_of(name, **changes):
    recipe = bisam.recipe(name) if isinstance(name, str) else name
    if recipe.micro_batch:
        recipe = recipe.replace(micro_batch=4)
    return Run(**{"recipe": recipe, "model": "mlp", "epochs": 2, "batch_size": 8, "label_noise": 0.2, "augment": "crop-flip-cutout", **changes})


def same(one, other):
    assert one.rows == other.rows and one.fitted == other.fitted and one.skipped == other.skipped
    assert weights_digest(one.model) == weights_digest(other.model)
    assert all(torch.equal(one.right[which], other.right[which]) for which in ("selected", "last"))


# -- what can be captured --------------------------------------------------------------------------------------------------


def test_the_recipes_that_are_refused():
    assert {name for name, recipe in RECIPES.items() if captured.refusal(recipe)} == REFUSED


@pytest.mark.parametrize("name", [*sorted(REFUSED), "looksam-bisam-log", "bsam-bisam-tanh"])
def test_a_refused_recipe_is_named_before_anything_begins(name):
    with pytest.raises(ValueError, match=rf"compile must be .* for recipe '{name}': its step cannot be one graph, for .*; got \"whole-step\""):
        Run(recipe=name, compile="whole-step")


@pytest.mark.parametrize("radius", [bisam.Schedule((0, 9), (0.0, 0.1)), bisam.LossBudget(0.1, 0.5, hold=3, total=9)], ids=["schedule", "budget"])
def test_a_radius_that_moves_at_every_step_is_refused(radius):
    assert captured.refusal(bisam.SAM.replace(radius=radius)) == "its radius is another one at every step"
    assert captured.refusal(bisam.SAM.replace(radius=bisam.LossBudget(0.1, 0.5))) is None


def test_tensors_drawn_within_a_choice_of_layers_are_refused_too():
    assert captured.refusal(bisam.SAM.replace(geometry=bisam.Only(bisam.Masked(per="tensor")))) == "the tensors that climb are drawn in Python"


def test_a_combination_of_ones_own_is_asked_what_it_does():
    class Half(bisam.axes.Combination):
        def combined(self, r, p, memory, share=1.0):
            return p

    class Odd(Half):
        climbing_share = 0.5

        def climbs(self, memory):
            return memory.step % 2 == 1

    assert captured.refusal(bisam.SAM.replace(combination=Half())) is None
    assert captured.refusal(bisam.SAM.replace(combination=Odd())) == "its combination looks at the number of the step"


def test_a_base_without_a_climb_is_accepted_whatever_stands_beside_it():
    assert captured.refusal(RECIPES["looksam"].with_rho(0.0)) is None


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(Workers, "wrapped", lambda self, model, device: model)
    with pytest.raises(ValueError, match=r"compile must not be .whole-step. with 2 processes"):
        State(run_of("sam", compile="whole-step"), tiny(), Workers(0, 2))


# -- on the CPU the same bits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACCEPTED)
def test_every_part_of_a_recipe_has_the_bits_of_the_eager_step(name):
    run = run_of(name)
    same(fit(run), fit(run.replace(compile="whole-step")))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgd", "bisam-log", "esam", "gsam-bisam-tanh", "vasso"])
@pytest.mark.parametrize("changes", [
    {"precision": "bfloat16"}, {"augment": "none"}, {"augment": "crop-flip", "channels_last": True}, {"model": "small_conv"}, {"batch_size": 7},
], ids=str)  # fmt: skip
def test_settings_keep_the_bits(name, changes):
    run = run_of(name, **changes)
    same(fit(run), fit(run.replace(compile="whole-step")))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bisam-log", "rsam", "vasso", "late-sam"])
@pytest.mark.parametrize("model", ["mlp", "small_conv"])
def test_a_cut_run_goes_on_with_the_same_bits(name, model, tmp_path):
    run = run_of(name, model=model, epochs=4, compile="whole-step")
    if name == "late-sam":
        run = run.replace(recipe=run.recipe.replace(radius=bisam.Phase(0.05, start=7)))
    whole = fit(run.replace(compile="no"))
    path = tmp_path / "run.pt"
    for stop in (1, 1, None):
        history = fit(run, path, stop_after=stop)
    same(whole, history)


def test_checkpoints_hold_the_learning_rate_as_a_number(tmp_path):
    run, path = run_of("sam", compile="whole-step"), tmp_path / "run.pt"
    fit(run, path, stop_after=1)
    found = checkpoint.read(path, run.identity())
    assert isinstance(found["optimizer"]["param_groups"][0]["lr"], float)
    assert found["optimizer"]["param_groups"][0]["lr"] == found["schedule"]["_last_lr"][0] == 0.05


def test_a_step_that_is_not_finite_is_told_as_always(monkeypatch):
    spoiled = tiny()
    spoiled = dataclasses.replace(spoiled, train=data.Split(spoiled.prepared(spoiled.train.inputs).fill_(torch.nan), spoiled.train.targets))
    monkeypatch.setattr(data, "load", lambda *_, **__: spoiled)
    with pytest.raises(FloatingPointError, match=r"epoch 1 of 2, lr 0\.1: the ascent and descent gradient of sam holds inf or NaN"):
        fit(run_of("sam", compile="whole-step", augment="none"))


# -- a graph that replays operations alone ---------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch):
    """The CPU does as a GPU would: no look at numbers, a fused base that skips by itself, no short cut for near margins."""
    monkeypatch.setattr(_look, "is_free", lambda tensor: False)
    monkeypatch.setattr(state, "base_optimizer", lambda run, model, samples: torch.optim.SGD(
        model.parameters(), lr=run.lr, momentum=run.momentum, weight_decay=run.weight_decay, fused=True))  # fmt: skip
    create = state.SharpnessAware
    monkeypatch.setattr(state, "SharpnessAware", lambda *args, **options: create(*args, **{**options, "nonfinite": "skip"}))


def graphed(run, monkeypatch, **options):
    """The run with a graph in place of all steps but the first, and how often one was captured."""
    before = recording.Graph.captured
    with monkeypatch.context() as patch:
        patch.setattr(graphs, "graph_of", lambda device: recording.Graph)
        history = fit(run, **options)
    return history, recording.Graph.captured - before


GRAPHED = [name for name in ACCEPTED if not name.endswith("tanh") and not name.startswith(("late", "sam-every", "gsam"))]


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHED)
def test_a_graph_has_the_bits_of_the_eager_step(name, gpu, monkeypatch):
    run = run_of(name, compile="whole-step", epochs=3)
    history, count = graphed(run, monkeypatch)
    same(fit(run), history)
    assert count == 1  # for three epochs of five steps and three learning rates


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"precision": "bfloat16"}, {"augment": "none"}, {"momentum": 0.0}, {"channels_last": True}], ids=str)
@pytest.mark.parametrize("name", ["bisam-log", "sgd"])
def test_a_graph_keeps_the_bits_in_other_settings(name, changes, gpu, monkeypatch):
    run = run_of(name, compile="whole-step", **changes)
    same(fit(run), graphed(run, monkeypatch)[0])


@pytest.mark.parametrize("radius, graphs", [
    (bisam.ByLearningRate(0.4, 0.02), 3), (bisam.Phase(0.3, start=9), 2), (bisam.Phase(0.3, every=2), 2), (bisam.Constant(0.3), 1),
], ids=["by-learning-rate", "late", "every-other", "constant"])  # fmt: skip
def test_each_value_of_the_radius_has_a_graph(radius, graphs, gpu, monkeypatch):
    run = run_of(bisam.BISAM_LOG.replace(radius=radius), compile="whole-step", epochs=3)
    history, count = graphed(run, monkeypatch)
    same(fit(run), history)
    assert count == graphs


def test_a_resumed_run_captures_again_and_keeps_the_bits(gpu, monkeypatch, tmp_path):
    run = run_of("vasso", compile="whole-step", epochs=3)
    graphed(run, monkeypatch, checkpoint_path=tmp_path / "run.pt", stop_after=1)
    history, count = graphed(run, monkeypatch, checkpoint_path=tmp_path / "run.pt")
    same(fit(run), history)
    assert count == 1


@pytest.mark.parametrize("name", ["bisam-log", "vasso"])
def test_a_graph_leaves_out_a_step_that_is_not_finite_and_counts_it(name, gpu, monkeypatch):
    spoiled = tiny()
    ready = spoiled.prepared(spoiled.train.inputs).clone()
    ready[torch.randperm(40, generator=torch.Generator().manual_seed(0))[-1]] = torch.nan  # in the last step of the first epoch, a replay
    spoiled = dataclasses.replace(spoiled, train=data.Split(ready, spoiled.train.targets))
    monkeypatch.setattr(data, "load", lambda *_, **__: spoiled)
    monkeypatch.setattr(State, "_check_finite", lambda self: None)
    monkeypatch.setitem(models.MODELS, "mlp", lambda shape, classes: nn.Sequential(nn.Flatten(), nn.Linear(192, classes)))
    run = run_of(name, compile="whole-step", epochs=3, augment="none")
    history, _ = graphed(run, monkeypatch)
    assert history.skipped == 3 and all(torch.isfinite(p).all() for p in history.model.parameters())
    assert weights_digest(history.model) == weights_digest(fit(run).model)


def test_a_graph_of_a_gpu_knows_the_generators_and_is_captured_without_collecting_garbage(monkeypatch):
    asked = []

    class Stub:
        def register_generator_state(self, generator):
            asked.append(generator)

        def replay(self):
            asked.append("replay")

    @contextlib.contextmanager
    def capture(graph, stream):
        asked.append((stream, gc.isenabled()))
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Stub)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    generator = torch.Generator()
    graphs.CudaGraph(lambda: asked.append("step"), "stream", [generator]).replay()
    assert asked == [generator, ("stream", False), "step", "replay"] and gc.isenabled()
    with pytest.raises(KeyError), graphs.nothing_collected():
        raise KeyError
    assert gc.isenabled()
    assert graphs.graph_of(torch.device("cuda")) is graphs.CudaGraph and graphs.graph_of(torch.device("cpu")) is None


class OneForAll(dict):
    """A store of graphs that gives the first of them for every radius."""

    def __contains__(self, radius):
        return len(self) > 0

    def __getitem__(self, radius):
        return next(iter(self.values()))


def planted(fault, monkeypatch):
    """Errors that only a replay shows: the value of one moment is kept for all later ones."""
    whole = captured.WholeStep
    if fault == "learning rate":
        @contextlib.contextmanager
        def as_a_number(self, lr):
            self.state.optimizer.param_groups[0]["lr"] = lr
            yield

        monkeypatch.setattr(whole, "_lr_on_device", as_a_number)
    if fault == "place":
        monkeypatch.setattr(whole, "_changed", lambda self, inputs, data, generator: self.state.augment.changed(
            inputs, data, {name: every[int(self._place)] for name, every in self._drawn.items()}))  # fmt: skip
    if fault == "radius":
        begin = whole.__init__
        monkeypatch.setattr(whole, "__init__", lambda self, *given: begin(self, *given) or setattr(self, "_graphs", OneForAll()))
    if fault == "memory":
        monkeypatch.setattr(bisam.axes.memory.Memory, "keep_in", lambda self, before: None)


@pytest.mark.slow
@pytest.mark.parametrize("fault, name", [
    ("learning rate", "sam"), ("place", "sam"), ("radius", "gsam"), ("memory", "vasso"), (None, "sam"), (None, "gsam"), (None, "vasso"),
])  # fmt: skip
def test_the_stand_in_shows_what_a_graph_has_kept_of_its_first_moment(fault, name, gpu, monkeypatch):
    run = run_of(name, compile="whole-step", epochs=3)
    right = weights_digest(fit(run).model)
    with monkeypatch.context() as patch:
        planted(fault, patch)
        assert weights_digest(fit(run).model) == right  # an eager step hides it
        found = weights_digest(graphed(run, patch)[0].model)
    assert (found == right) == (fault is None)


LOOKS_ON_A_CPU = {"euclidean_norm", "_is_beyond_range", "in_range", "check_range"}  # each asks for the device first


@pytest.mark.slow
@pytest.mark.parametrize("name", [*GRAPHED, "gsam", "gsam-bisam-log", "sam-every-k"])
def test_no_number_is_read_while_a_step_is_captured(name, gpu, monkeypatch):
    monkeypatch.setattr(recording.Graph, "looks", set())
    _, count = graphed(run_of(name, compile="whole-step", precision="bfloat16"), monkeypatch)
    assert count and recording.Graph.looks <= LOOKS_ON_A_CPU


class Places(TorchDispatchMode):
    """Notes the functions of the package that touch memory of the CPU."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if any(tensor.device.type == "cpu" for tensor in recording.tensors((args, kwargs or {}, result))):
            self.found.add(recording.caller())
        return result


@pytest.mark.slow
@pytest.mark.parametrize("name", ACCEPTED)
def test_a_step_stays_on_its_device(name, monkeypatch):
    """On the meta device there are shapes and no numbers: whoever asks for one gets an error. And nothing is sent there from the CPU."""
    monkeypatch.setattr(bisam.axes.memory.Memory, "generator", lambda self, device: None)  # that device draws nothing, and takes no generator
    model, task, row = net((3, 8, 8), 4).to("meta"), tiny(), augment.AUGMENTATIONS["crop-flip-cutout"]
    recipe = run_of(name).recipe
    opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), recipe, nonfinite="skip", seed=0)
    images, targets = torch.empty(8, 3, 8, 8, dtype=torch.uint8, device="meta"), torch.empty(8, dtype=torch.int64, device="meta")
    drawn = {which: targets for which in ("top", "left", "flip", "row", "column", "hit")}
    for _ in range(3):
        sums = Sums(torch.device("meta"))
        with Places() as places:
            batch = bisam.Batch(model, row.changed(images, task, drawn), targets)
            before = opt.memory.snapshot()
            loss = opt.step(batch)
            opt.memory.keep_in(before)
            sums.add(batch, loss)
    assert places.found <= {"are_unheld"}  # which counts the references of an empty tensor of its own


def test_the_meta_device_gives_no_number():
    with pytest.raises(RuntimeError, match="meta"):
        bool(torch.ones(3, device="meta").sum() > 0)


@pytest.mark.parametrize("number", [
    lambda batch: float(batch.at_w.sum()), lambda batch: bool((batch.at_w > 0).any()), lambda batch: batch.at_w.max().item(),
])  # fmt: skip
def test_the_stand_in_sees_who_reads_a_number(number, gpu, monkeypatch):
    add = Sums.add
    monkeypatch.setattr(Sums, "add", lambda self, batch, loss: add(self, batch, loss) or number(batch))
    monkeypatch.setattr(recording.Graph, "looks", set())
    graphed(run_of("sam", compile="whole-step"), monkeypatch)
    assert "WholeStep._step" in recording.Graph.looks


# -- side by side ----------------------------------------------------------------------------------------------------------


RUNS = [run_of(name, compile="whole-step", seed=seed, epochs=epochs) for name, seed, epochs in (
    ("sgd", 0, 4), ("bisam-log", 0, 2), ("rsam", 1, 3), ("gsam", 2, 2))]  # fmt: skip


def test_runs_side_by_side_have_the_bits_of_runs_alone(gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(graphs, "graph_of", lambda device: recording.Graph)
    paths = [tmp_path / f"{k}.pt" for k in range(len(RUNS))]
    random = torch.get_rng_state()
    together = fit_side_by_side(RUNS, paths)
    assert torch.equal(torch.get_rng_state(), random)
    for k, (run, history) in enumerate(zip(RUNS, together, strict=True)):
        same(fit(run, tmp_path / f"alone{k}.pt"), history)
        mine, alone = (checkpoint.read(path, run.identity()) for path in (paths[k], tmp_path / f"alone{k}.pt"))
        assert all(torch.equal(one, other) for one, other in zip(mine["randomness"][0], alone["randomness"][0], strict=True))


def test_a_run_that_was_cut_alone_goes_on_beside_others(tmp_path):
    fit(RUNS[2], tmp_path / "cut.pt", stop_after=1)
    together = fit_side_by_side(RUNS[1:3], [None, tmp_path / "cut.pt"])
    same(fit(RUNS[2]), together[1])
    assert len(together[1].rows) == 3


def test_a_lane_takes_the_next_job_and_outlives_one_that_fails(monkeypatch, tmp_path):
    (tmp_path / "broken.pt").write_bytes(b"no checkpoint")
    jobs = [Job(RUNS[0]), Job(RUNS[1], tmp_path / "broken.pt"), Job(RUNS[1]), Job(RUNS[3])]
    asked = []
    found = list(in_turns((asked.append(job) or job for job in jobs), width=2))
    assert [job for job, _ in found[:1]] == [jobs[1]] and isinstance(found[0][1], checkpoint.CheckpointError)
    assert {id(job) for job, history in found[1:] if history.finished} == {id(jobs[k]) for k in (0, 2, 3)}
    assert asked == jobs


def test_without_graphs_nothing_is_captured_and_the_bits_are_the_same(gpu, monkeypatch):
    monkeypatch.setattr(graphs, "graph_of", lambda device: recording.Graph)
    found = {}
    for captures in (False, True):
        before = recording.Graph.captured
        [(_, found[captures])] = in_turns([Job(RUNS[1], graphs=captures)], 1)
        assert (recording.Graph.captured > before) == captures
    same(found[False], found[True])


@pytest.mark.parametrize("changes", [{"graphs": 1}, {"every": -1.0}, {"every": "soon"}], ids=str)
def test_a_job_with_a_wrong_argument_is_refused_by_name(changes):
    with pytest.raises((TypeError, ValueError), match=f"^{next(iter(changes))} must be"):
        Job(RUNS[0], **changes)


def test_checkpoints_are_as_far_apart_as_is_asked_and_the_last_epoch_in_time_leaves_one(monkeypatch, tmp_path):
    path, written, write = tmp_path / "run.pt", [], checkpoint.write
    monkeypatch.setattr(checkpoint, "write", lambda path, run, state, made_on: written.append(len(state["rows"])) or write(path, run, state, made_on))
    [(_, whole)] = in_turns([Job(RUNS[0], path, every=1e9)], 1)
    assert written == [] and len(whole.rows) == 4
    with monkeypatch.context() as patch:
        patch.setattr("bisam.training.loop.late", lambda state, *_: len(state.history.rows) == 3)
        [(_, cut)] = in_turns([Job(RUNS[0], path, every=1e9)], 1)
    assert written == [3] and len(cut.rows) == 3
    [(_, resumed)] = in_turns([Job(RUNS[0], path, every=1e-9)], 1)
    assert written == [3, 4]
    same(resumed, whole)


def test_no_epoch_begins_when_the_time_is_over(tmp_path):
    [(_, history)] = in_turns([Job(RUNS[0], tmp_path / "run.pt")], 1, end=0.0)
    assert history.rows == [] and not history.finished


@pytest.mark.parametrize("runs, words", [
    ([run_of("sam")], r'run must have compile "whole-step"'),
    ([run_of("sam", compile="whole-step", model="small_conv")], "draws dropout masks"),
    ([], "at least one run, got 0 for 0"),
])  # fmt: skip
def test_runs_that_cannot_stand_side_by_side_are_refused(runs, words):
    with pytest.raises(ValueError, match=words):
        fit_side_by_side(runs)


# -- augmentation in two parts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_draws_made_before_change_images_as_draws_made_at_once(name):
    task, row = tiny(), augment.AUGMENTATIONS[name]
    inputs = task.train.inputs[:8]
    at_once = row(inputs, task, torch.Generator().manual_seed(3))
    drawn = row.draws(8, 8, 8, torch.Generator().manual_seed(3))
    assert torch.equal(row.changed(inputs, task, drawn), at_once)
