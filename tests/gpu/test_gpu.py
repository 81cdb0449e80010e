"""What a GPU does otherwise, by stand-ins on the CPU: graphs that write over what they returned, and more devices than one."""

import dataclasses
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import reference
import torch
import torch.distributed as dist
from torch import nn

import bisam
from bisam import Batch, SharpnessAware
from bisam.axes.memory import Memory
from bisam.evidence import plans, reproduce
from bisam.gpu import two_devices
from bisam.step import modules
from bisam.training import Run
from bisam.training.devices import exact_kernels
from bisam.training.rng import seeded_rng
from bisam.training.workers import workers

# -- a CUDA graph returns the same memory in every replay --------------------------------------------------------------------


class Replay(torch.autograd.Function):
    """A linear layer whose scores and gradients live where those of the pass before lived."""

    @staticmethod
    def forward(ctx, x, weight, pool):
        ctx.save_for_backward(x)
        ctx.pool = pool
        return pool.written("scores", x @ weight.T)

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return None, ctx.pool.written("slope", slope.T @ x), None


class Replayed(nn.Module):
    """A network that writes over what it returned when it is called again; ``is_graph`` switches that on."""

    def __init__(self, is_graph):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 5, generator=generator))
        self.is_graph, self.pool = is_graph, {}

    def written(self, name, value):
        if not self.is_graph:
            return value
        memory = self.pool.setdefault((name, value.shape), torch.empty_like(value))
        return memory.copy_(value).data  # a tensor that does not know when its memory changes

    def forward(self, x):
        if self.is_graph:
            for memory in self.pool.values():
                memory.fill_(torch.nan)  # what an earlier pass returned is gone
        return Replay.apply(x, self.weight, self)


def course(recipe, is_graph, micro_batches=1):
    """Weights, losses and what the batches remember over three steps."""
    model, found = Replayed(is_graph), []
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), recipe, seed=0)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        pieces = [
            Batch(model, torch.randn(8, 5, generator=generator), torch.randint(0, 3, (8,), generator=generator))
            for _ in range(micro_batches)
        ]
        lesson = Batch(model, torch.randn(8, 5, generator=generator), torch.randint(0, 3, (8,), generator=generator))
        taught = {"validation": lesson} if isinstance(recipe.radius, bisam.Learned) else {}
        loss = opt.step(pieces if micro_batches > 1 else pieces[0], **taught)
        found += [loss, *(piece.at_w for piece in pieces), *(p.at_worst for p in pieces if p.at_worst is not None)]
    return [model.weight.detach(), *found]


GRAPHS = ["sgd", "sam", "bisam-log", "asam", "esam", "ksam", "gsam", "gsam-bisam-log", "looksam", "vasso", "fsam", "msam", "lets-sam"]


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_may_write_over_what_it_returned(name, micro_batches, monkeypatch):
    recipe = bisam.recipe(name)
    if name == "msam":
        recipe = recipe.replace(micro_batch=4)
    if name == "lets-sam":
        recipe = recipe.replace(radius=dataclasses.replace(recipe.radius, form="difference"))
    monkeypatch.setattr("bisam.step.step.is_graphed", lambda model: True)
    for mine, theirs in zip(course(recipe, True, micro_batches), course(recipe, False, micro_batches), strict=True):
        assert torch.equal(mine, theirs)


def test_the_block_of_a_loop_that_is_not_ours_keeps_the_first_gradient_too(monkeypatch):
    def weights(is_graph):
        model = Replayed(is_graph)
        opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), bisam.GSAM)
        x, y = torch.randn(8, 5, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3
        nn.functional.cross_entropy(model(x), y).backward()
        with opt.perturbed(model):
            nn.functional.cross_entropy(model(x), y).backward()
        opt.base.step()
        return model.weight.detach()

    assert not torch.equal(weights(True), weights(False))
    monkeypatch.setattr("bisam.step.step.is_graphed", lambda model: True)
    assert torch.equal(weights(True), weights(False))


def test_without_copies_the_stand_in_spoils_a_gradient_that_is_kept():
    assert not torch.equal(course(bisam.GSAM, True)[0], course(bisam.GSAM, False)[0])


def test_only_a_compiled_network_on_a_gpu_is_replayed():
    model = reference.net()
    assert not modules.is_graphed(model) and not modules.is_graphed(torch.compile(model, backend="eager"))
    model.register_parameter("there", OnGpu(torch.zeros(1)))
    assert modules.is_graphed(torch.compile(model, backend="eager")) and not modules.is_graphed(model)
    assert modules.is_graphed(nn.Sequential(torch.compile(model, backend="eager")))  # a part is enough
    model.compile(backend="eager")
    assert modules.is_graphed(model) and modules.is_graphed(nn.Sequential(model))


class OnGpu(nn.Parameter):
    """A parameter that says that it is on a GPU."""

    is_cuda = True


# -- several processes --------------------------------------------------------------------------------------------------------


def test_a_wrapper_of_several_workers_is_seen_through_a_compiled_one(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        model = reference.net()
        wrapped = nn.parallel.DistributedDataParallel(model)
        assert modules.distributed(wrapped) is wrapped is modules.distributed(torch.compile(wrapped, backend="eager"))
        assert modules.distributed(model) is None is modules.distributed(torch.compile(model, backend="eager"))
    finally:
        dist.destroy_process_group()


@pytest.fixture
def cluster(monkeypatch):
    """Two GPUs, by all appearances; what is asked of torch is noted."""
    asked = {}
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", lambda device: asked.update(device=device))
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    monkeypatch.setattr("bisam.training.workers._meeting_place", lambda: (dist.HashStore(), 3, 4))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, *, store, rank, world_size: asked.update(backend=backend, met_as=(rank, world_size)))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: asked.update(left=True))
    monkeypatch.setattr(dist, "get_rank", lambda: 3)
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)
    monkeypatch.setenv("WORLD_SIZE", "4")
    return asked


@pytest.mark.parametrize("processes, rank, expected", [
    (2, 1, {"device": 1, "backend": "cpu:gloo,cuda:nccl"}), (4, 3, {"device": 1, "backend": "gloo"}), (1, 0, {"device": 0, "backend": "cpu:gloo,cuda:nccl"}),
])  # fmt: skip
def test_each_process_takes_a_gpu_of_its_own(cluster, monkeypatch, processes, rank, expected):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    with workers("cuda") as here:
        assert (here.rank, here.size) == (3, 4)
    assert cluster == {**expected, "met_as": (3, 4), "left": True}


def test_several_processes_cannot_take_one_numbered_gpu(cluster, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r'device must be "cuda" for 2 processes on one machine.*got .cuda:1.'), workers("cuda:1"):
        pass
    assert cluster == {}
    with workers("cpu"):
        pass
    assert cluster == {"backend": "gloo", "met_as": (3, 4), "left": True}


# -- another GPU goes on -------------------------------------------------------------------------------------------------------


def test_a_checkpoint_belongs_to_a_run_on_any_gpu_and_not_on_the_cpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    run = Run(model="mlp")
    first, second, any_of_them = (run.replace(device=device).identity() for device in ("cuda:0", "cuda:1", "cuda"))
    assert first == second == any_of_them != run.identity() == run.to_dict()


def test_what_a_recipe_draws_goes_on_on_another_device_of_the_same_kind():
    base = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    here = Memory(base, seed=3)
    torch.rand(5, generator=here.generator(torch.device("cpu")))
    there = Memory(base, seed=3)
    there.load(here.save())
    drawn = torch.rand(5, generator=there.generator(torch.device("cpu", 0)))  # a name that was not saved
    assert torch.equal(drawn, torch.rand(5, generator=here.generator(torch.device("cpu"))))
    several = Memory(base, seed=3)
    several.load({**here.save(), "generators": {"cuda:0": torch.zeros(16), "cuda:1": torch.ones(16)}})
    assert several._saved_for(torch.device("cuda", 1)) == "cuda:1" and several._saved_for(torch.device("cuda", 2)) is None
    assert several._saved_for(torch.device("cpu")) is None


def test_what_a_recipe_remembers_is_loaded_to_where_the_weights_are():
    """`meta` stands for a GPU: a checkpoint is read on the CPU, and a step beside it would find tensors on two devices."""
    saved = {"step": 3, "seed": 3, "kept": {"direction": {"w": torch.ones(2)}, "radius": {"rho": 0.1}, "geometry": {"active": {"w": True}}}}
    there = Memory(torch.optim.SGD([nn.Parameter(torch.zeros(2, device="meta"))], lr=0.1), seed=0)
    there.load(saved)
    assert there.state("direction")["w"].device.type == "meta" and there.rho == 0.1 and there.state("geometry")["active"] == {"w": True}
    here = Memory(torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1), seed=0)
    here.load(saved)
    assert torch.equal(here.state("direction")["w"], torch.ones(2)) and here.state("direction")["w"] is not saved["kept"]["direction"]["w"]
    split = Memory(torch.optim.SGD([nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, device="meta"))], lr=0.1), seed=0)
    split.load(saved)  # which tensor belongs where is known only when a step names them
    assert split.state("direction")["w"].device.type == "cpu"


def test_a_step_that_is_left_out_goes_back_to_what_was_loaded_elsewhere():
    memory = Memory(torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1), seed=0)
    memory.state("direction")["w"] = torch.zeros(2, dtype=torch.float64)
    memory.restore_where(torch.tensor(True), {"direction": {"w": torch.ones(2)}})  # of another dtype, as of another device
    assert torch.equal(memory.state("direction")["w"], torch.ones(2, dtype=torch.float64))


def test_the_network_of_the_comparison_has_no_kinks():
    """With a ReLU, a batch in four is a thousand times further away: then a right step on a GPU looks wrong."""
    kinds = {type(module).__name__ for module in two_devices._net().modules()}
    assert kinds == {"Sequential", "Conv2d", "BatchNorm2d", "GELU", "AvgPool2d", "Flatten", "Linear"}


# -- float32 is float32 -----------------------------------------------------------------------------------------------------------


def test_a_training_on_a_gpu_uses_no_tf32_and_adds_in_a_fixed_order():
    def flags():
        cudnn = torch.backends.cudnn
        return cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, torch.get_float32_matmul_precision()

    before = flags()
    torch.set_float32_matmul_precision("high")
    try:
        outside = flags()
        with pytest.raises(KeyError), exact_kernels("cuda:1"):
            assert flags() == (True, False, True, False, "highest")
            raise KeyError
        assert flags() == outside
        with exact_kernels("cpu"):
            assert flags() == outside
    finally:
        torch.set_float32_matmul_precision(before[-1])


# -- a sweep over several GPUs -------------------------------------------------------------------------------------------------


class Pool(ThreadPoolExecutor):
    """Processes that are threads: what is handed to a device can be seen."""

    _processes = None

    def __init__(self, workers, context, initializer):
        super().__init__(workers)


@pytest.fixture
def sweep(monkeypatch, tmp_path):
    """What each of two GPUs was given, in order; each run lasts as long as its number of epochs says."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr(reproduce, "ProcessPoolExecutor", Pool)
    handed, busy, most, lock, turns = [], Counter(), Counter(), threading.Lock(), threading.Barrier(4, timeout=60)

    def do(one, settings, end, stop):
        with lock:
            handed.append(settings.device)
            busy[settings.device] += 1
            most[settings.device] = max(most[settings.device], busy[settings.device])
        turns.wait()  # four at a time, two on each: without that this ends in an error
        with lock:
            busy[settings.device] -= 1
        if one.run.seed % 2:
            raise RuntimeError("no luck")
        return "recorded"

    monkeypatch.setattr(reproduce, "_do", do)
    monkeypatch.setattr(reproduce, "_found", lambda one, settings: "")
    return handed, most


def test_runs_are_handed_to_the_devices_in_turn_and_each_has_its_workers(sweep, tmp_path):
    handed, most = sweep
    planned = [dataclasses.replace(one, recorded=False) for one in plans.plan("digits_fresh")[:12]]
    settings = plans.Settings(workers=2, device="cuda:0,cuda:1", checkpoints=tmp_path)
    outcomes = reproduce.carry_out(planned, settings, progress=False)
    assert len(outcomes["recorded"]) + len(outcomes["failed"]) == 12 and sorted(handed[:4]) == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]
    assert Counter(handed) == {"cuda:0": 6, "cuda:1": 6} and most == {"cuda:0": 2, "cuda:1": 2}


@pytest.mark.parametrize("device", ["cuda:0,cuda:0", "cuda,cuda:1", "cpu,cuda:0", "cuda:0,cpu", "cuda:0,", ",", "cuda:0, cuda:1", "cuda:0,cuda:2", None])
def test_devices_that_are_no_list_of_gpus_are_refused(device, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ValueError, match="device"):
        plans.Settings(device=device)


# -- accidents -----------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(torch, "AcceleratorError"), reason="this version of torch has no error of its own for a lost GPU")
def test_a_gpu_that_is_lost_ends_the_sweep_and_a_full_one_does_not():
    for error, is_fatal in ((torch.AcceleratorError("device-side assert"), True), (torch.OutOfMemoryError("full"), False)):
        future = Future()
        future.set_exception(error)
        if is_fatal:
            with pytest.raises(torch.AcceleratorError):
                reproduce._outcome(future.result)
        else:
            assert reproduce._outcome(future.result) == "failed: full"


def test_a_fused_base_that_keeps_nothing_can_skip_from_its_first_step(monkeypatch):
    monkeypatch.setattr("bisam._look.is_free", lambda tensor: False)
    model = reference.net()
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1, fused=True), nonfinite="skip")
    before = [p.detach().clone() for p in model.parameters()]
    x, y = reference.samples(0)
    opt.step(Batch(model, x * torch.nan, y))
    assert opt.skipped == 1 and all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def test_the_random_state_of_every_gpu_is_left_as_it_was(monkeypatch):
    forked = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: False)
    monkeypatch.setattr("torch.random.fork_rng", lambda devices: forked.append(list(devices)) or torch.no_grad())
    for device, used in (("cpu", False), ("cpu", True), ("cuda:1", False)):
        monkeypatch.setattr("torch.cuda.is_initialized", lambda used=used: used)
        with seeded_rng(0, device):
            pass
    assert forked == [[], [0, 1], [0, 1]]
