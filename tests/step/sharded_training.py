"""What each of two processes does for `test_sharded.py`: trains models of `fully_shard` and in one piece, and says how far they are apart."""

import copy
import tempfile
import traceback
import warnings
from contextlib import nullcontext
from pathlib import Path

import reference
import torch
import torch.distributed.checkpoint
from torch import distributed, multiprocessing, nn
from torch.distributed.checkpoint import state_dict as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import bisam
from bisam import Batch, SharpnessAware
from bisam.axes.shards import local
from bisam.step.gradients import take

X = torch.randn(6, 12, 8, generator=torch.Generator().manual_seed(1))
Y = torch.arange(12) % 5


def network(dropout=0.0):
    """Sizes that two workers cannot share evenly, and a layer that one of them has nothing of."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 17), nn.LayerNorm(17), nn.Tanh(), nn.Linear(17, 1), nn.Linear(1, 5))
    return nn.Sequential(*model[:3], nn.Dropout(dropout), *model[3:]) if dropout else model


def shard(model, **options):
    for layer in model:
        if list(layer.parameters()):
            fully_shard(layer, **options)
    return fully_shard(model, **options)


def wrapped(model, recipe, **choices):
    needs_variational = recipe.name == "bsam"
    base = bisam.Variational(model.parameters(), lr=0.1, samples=100) if needs_variational else None
    base = base or torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return SharpnessAware(base, recipe, **{"seed": 0, **choices})


def weights(model):
    return {name: (p.full_tensor() if hasattr(p, "full_tensor") else p).detach().clone() for name, p in model.named_parameters()}


def gap(model, other):
    one, two = weights(model), weights(other)
    return max((one[name] - two[name]).abs().max().item() for name in one)


def by_batch(model, recipe, part, **choices):
    opt = wrapped(model, recipe, **choices)
    for k in range(6):
        opt.step(Batch(model, X[k][part], Y[part]))
    return opt


def by_block(model, recipe, part):
    opt = wrapped(model, recipe)
    for x in X:
        opt.zero_grad()
        recipe.raised(model(x[part]), Y[part]).backward()
        leave_gathered(model, x[part])
        with opt.perturbed(model):
            recipe.descent(model(x[part]), Y[part]).backward()
        opt.step()
    return opt


def by_ascent(model, recipe, part):
    opt = wrapped(model, recipe)
    for x in X:
        opt.zero_grad()
        leave_gathered(model, x[part])
        with opt.perturbed(model, ascent=lambda x=x: recipe.raised(model(x[part]), Y[part])):
            recipe.descent(model(x[part]), Y[part]).backward()
        opt.step()
    return opt


def by_functions(model, recipe, part):
    opt = wrapped(model, recipe)
    for x in X:
        leave_gathered(model, x[part])
        ascent, descent = (lambda loss=loss, x=x: loss(model(x[part]), Y[part]) for loss in (recipe.raised, recipe.descent))
        opt.step(ascent=ascent, descent=descent, model=model)
    return opt


def by_closure(model, recipe, part):
    opt = wrapped(model, recipe)
    for x in X:

        def closure(x=x):
            opt.zero_grad()
            loss = recipe.descent(model(x[part]), Y[part])
            loss.backward()
            return loss

        opt.step(closure, model=model)
    return opt


def leave_gathered(model, x):
    """A pass without a backward pass, after which weights stay gathered that are not to be freed after a pass."""
    with torch.no_grad():
        model(x)


def by_accumulation(model, recipe, part):
    opt = wrapped(model, recipe)
    for k in range(0, 6, 2):
        opt.zero_grad()
        for x in X[k : k + 2]:
            opt.backward(Batch(model, x[part], Y[part]), weight=0.5)
        opt.step()
    return opt


STYLES = {
    "batch": by_batch, "block": by_block, "ascent": by_ascent, "functions": by_functions, "closure": by_closure,
    "accumulation": by_accumulation,
}  # fmt: skip


def equal(rank, recipe, style, reshard):
    """How far two workers end from one process with the whole batch."""
    model, one = shard(network(), reshard_after_forward=reshard), network()
    STYLES[style](model, recipe, slice(rank, None, 2))
    STYLES[style](one, recipe, slice(None))
    return gap(model, one)


def spread(rank, recipe, style):
    """The same for the parts of a batch, under ``DistributedDataParallel``."""
    model, one = nn.parallel.DistributedDataParallel(network()), network()
    STYLES[style](model, recipe, slice(rank, None, 2))
    STYLES[style](one, recipe, slice(None))
    return gap(model.module, one)


def returns(rank, recipe):
    """Whether the shards are back to the bit, and the climb is seen by the passes inside."""
    model = shard(network(), reshard_after_forward=False)
    opt, (x, y) = wrapped(model, recipe), (X[0][rank::2], Y[rank::2])
    before = held(model)
    with torch.no_grad():
        loss = recipe.raised(model(x), y)
    with opt.perturbed(model, ascent=lambda: recipe.raised(model(x), y)):
        inside = recipe.raised(model(x), y).detach()
    after = held(model)
    with torch.no_grad():
        again = recipe.raised(model(x), y)
    return before == after, bool(inside != loss), bool(again == loss)


def record(rank):
    """What is recorded of a step, here and in one process."""
    found = []
    for model, part in ((shard(network()), slice(rank, None, 2)), (network(), slice(None))):
        opt = by_batch(model, bisam.SAM, part, record=True)
        found.append({key: value for key, value in opt.last.to_dict().items() if "loss" not in key and "rise" not in key})
    return found


def accident(rank):
    """One worker meets a number that is not finite: both skip the step."""
    model = shard(network())
    opt = wrapped(model, bisam.SAM, nonfinite="skip")
    before, x = weights(model), X[0][rank::2].clone()
    x[0, 0] = torch.inf if rank == 1 else 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opt.step(Batch(model, x, Y[rank::2]))
    return opt.skipped, reference.bits(before) == reference.bits(weights(model))


def held(model):
    return reference.bits([local(p) for p in model.parameters()])


def refused(rank, what):
    """The error that a worker meets, and whether its weights are as before."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    whole = what in ("flat parameters", "flat parameters, block")
    model = FullyShardedDataParallel(network(), device_id=torch.device("cpu"), use_orig_params=True) if whole else shard(network())
    recipe = bisam.recipe("lets-sam") if what == "learned radius" else bisam.SAM
    opt, batch = wrapped(model, recipe, per_worker=what == "per worker"), Batch(model, X[0], Y)
    before = held(model)
    try:
        if what.endswith("block"):
            with opt.perturbed(model):
                pass
        elif what == "unknown model":
            opt.step(lambda: None)
        else:
            opt.step(batch, validation=batch if recipe.radius.learns else None)
    except (TypeError, ValueError) as error:
        return str(error), before == held(model)
    return "", False


def half(rank):
    """How far a training in bfloat16 is from that in float32, with and without shards."""
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    model, one = shard(network(), mp_policy=policy), network()
    by_batch(model, bisam.SAM, slice(rank, None, 2))
    by_batch(one, bisam.SAM, slice(None))
    return gap(model, one)


def drawn(rank, recipe):
    """Noise of the model differs between workers; that both passes draw the same is seen by the loss at a radius of almost 0."""
    model = shard(network(dropout=0.5))
    opt = wrapped(model, recipe.with_rho(1e-12), record=True)
    torch.manual_seed(rank)
    opt.step(Batch(model, X[0][rank::2], Y[rank::2]))
    return abs(opt.last.loss_rise)


def scaled(rank, factor):
    """A scaler that has nothing to save changes nothing."""
    models = [shard(network()), network()]
    for model, part in zip(models, (slice(rank, None, 2), slice(None)), strict=True):
        opt, scaler = wrapped(model, bisam.SAM), torch.amp.GradScaler("cpu", init_scale=factor)
        for k in range(3):
            opt.step(Batch(model, X[k][part], Y[part]), scaler=scaler)
            scaler.update()
    return gap(*models)


def half_way(model, recipe, part, folder, flat, is_new, alone=False):
    """A training whose second half goes on from files; the first half, and that second half, are made where they are new."""
    opt = wrapped(model, recipe)
    asked = dcp.StateDictOptions(flatten_optimizer_state_dict=flat)

    def walk(numbers):
        for k in numbers:
            opt.step(Batch(model, X[k][part], Y[part]))

    if is_new:
        walk(range(3))
    found = dict(zip(("model", "opt"), dcp.get_state_dict(model, opt, options=asked), strict=True))
    if is_new:
        distributed.checkpoint.save(found, checkpoint_id=folder)
    else:
        distributed.checkpoint.load(found, checkpoint_id=folder, no_dist=alone)
        dcp.set_state_dict(model, opt, model_state_dict=found["model"], optim_state_dict=found["opt"], options=asked)
    walk(range(3, 6))
    return weights(model), opt.memory.step


def resumed(rank, recipe, folder, flat):
    """Where a sharded training ends, and one that goes on from its files."""
    ends = []
    for is_new in (True, False):
        ends.append(half_way(shard(network()), recipe, slice(rank, None, 2), folder, flat, is_new))
        distributed.barrier()
    return ends


def overflow(rank, way):
    """One worker overflows: both skip the step and lower the scale, and the next step is made."""
    model, scaler, loss = shard(network()), torch.amp.GradScaler("cpu", init_scale=1024.0), nn.functional.cross_entropy
    opt, before = wrapped(model, bisam.recipe("vasso")), held(model)
    x, y = X[0][rank::2].clone(), Y[rank::2]
    x[0, 0] = torch.inf if rank == 1 else 0.0
    if way == "block":
        with opt.perturbed(model, ascent=lambda: loss(model(x), y), scaler=scaler):
            scaler.scale(loss(model(x), y)).backward()
        scaler.step(opt)
    else:
        opt.step(Batch(model, x, y), scaler=scaler)
    scaler.update()
    is_skipped, scale = before == held(model), scaler.get_scale()
    opt.zero_grad()
    opt.step(Batch(model, X[1][rank::2], y), scaler=scaler)
    return is_skipped, scale, before != held(model), opt.memory.step


def two_bases(rank):
    """Two optimisers and one climb, of shards and in one process."""
    models = []
    for model, part in ((shard(network()), slice(rank, None, 2)), (network(), slice(None))):
        matrices, others = ([p for p in model.parameters() if (p.ndim == 2) == is_matrix] for is_matrix in (True, False))
        bases = [torch.optim.SGD(matrices, lr=0.1, momentum=0.9), torch.optim.AdamW(others, lr=0.01)]
        opt = SharpnessAware(bases, bisam.recipe("asam"))
        for x in X:
            opt.step(Batch(model, x[part], Y[part]))
        models.append(model)
    return gap(*models)


def accumulated(rank, style):
    """`DistributedDataParallel` with `no_sync` in all but the last part of a batch, against one process."""
    model, one, recipe = nn.parallel.DistributedDataParallel(network()), network(), bisam.SAM
    inner = copy.deepcopy(model.module)
    for net, part in ((model, slice(rank, None, 2)), (one, slice(None))):
        opt = wrapped(net, recipe)
        for k in range(0, 6, 2):
            ACCUMULATED[style](net, opt, [(x[part], Y[part]) for x in X[k : k + 2]])
    assert gap(inner, one) > 1e-3
    return gap(model.module, one)


def unsynced(net, waits):
    return net.no_sync() if waits and hasattr(net, "no_sync") else nullcontext()


def together(net, samples, loss):
    """The gradient of the mean over some batches, which the workers share in the last pass."""
    for k, (x, y) in enumerate(samples):
        with unsynced(net, k < len(samples) - 1):
            (loss(net(x), y) / len(samples)).backward()


def sum_in_block(net, opt, samples):
    opt.zero_grad()
    together(net, samples, opt.recipe.descent)
    with opt.perturbed(net):
        together(net, samples, opt.recipe.descent)
    opt.step()


def sum_of_parts(net, opt, samples):
    opt.zero_grad()
    for k, (x, y) in enumerate(samples):
        with unsynced(net, k < len(samples) - 1):
            opt.backward(Batch(net, x, y), weight=1 / len(samples))
    opt.step()


def one_list(net, opt, samples):
    opt.step([Batch(net, x, y) for x, y in samples])


ACCUMULATED = {"block": sum_in_block, "parts": sum_of_parts, "list": one_list}


def meshed(rank, recipe, shape):
    """Copies of shards, or shards of copies: `fully_shard` with a mesh of two axes."""
    model, one = shard(network(), mesh=init_device_mesh("cpu", shape, mesh_dim_names=("copies", "shards"))), network()
    by_batch(model, recipe, slice(rank, None, 2))
    by_batch(one, recipe, slice(None))
    return gap(model, one)


def in_parallel(rank, recipe):
    """Tensor parallelism: both workers see the whole batch, and one layer is whole on each, as a plain tensor."""
    models = []
    for is_spread in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 6), nn.LayerNorm(6), nn.Linear(6, 5))
        if is_spread:
            plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
            model = parallelize_module(model, init_device_mesh("cpu", (2,)), plan)
        by_batch(model, recipe, slice(None))
        models.append(model)
    return gap(*models)


def partial(rank):
    """A gradient whose sum over the workers is still to be made is made before the climb."""
    mesh = init_device_mesh("cpu", (2,))
    parameter = nn.Parameter(distribute_tensor(torch.zeros(3), mesh, [Replicate()]))
    parameter.grad = DTensor.from_local(torch.full((3,), rank + 1.0), mesh, [Partial()])
    return take({"w": parameter})["w"].to_local().tolist()


def unsynchronised(rank):
    """What is said where the shards are to get no gradients."""
    model = shard(network())
    opt = wrapped(model, bisam.SAM)
    model.set_requires_gradient_sync(False)
    try:
        opt.step(Batch(model, X[0], Y))
    except RuntimeError as error:
        return str(error)


def worker(rank, folder, jobs):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found = {}
    for name, (job, arguments) in jobs.items():
        try:
            found[name] = job(rank, *arguments)
        except Exception:  # told by the test that asks for it
            found[name] = traceback.format_exc()
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def run(jobs):
    """What every job gives in each of the two processes."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(worker, args=(folder, jobs), nprocs=2)
        one, two = (torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(2))
    return {name: (one[name], two[name]) for name in jobs}
