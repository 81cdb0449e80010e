"""`torch.distributed.checkpoint` with a wrapper: what it asks for, what it keeps, and that a training goes on from it to the bit."""

import copy
import itertools
import warnings

import pytest
import reference
import torch
from torch.distributed import checkpoint
from torch.distributed.checkpoint import state_dict as dcp

import bisam
from bisam import Batch, SharpnessAware
from bisam.axes import Direction
from bisam.step.checkpoints import is_initialising

NAMES = ("sam", "bisam-log", "esam", "esam-code", "vasso", "fsam", "looksam", "late-sam", "sam-every-k", "rsam", "gsam", "lets-sam")
BASES = {
    "momentum": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    "adam": lambda model: torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.01)),
    "list": lambda model: [
        torch.optim.Muon([p for p in model.parameters() if p.ndim == 2], lr=0.02),
        torch.optim.AdamW([p for p in model.parameters() if p.ndim != 2], lr=0.01),
    ],
}
OPTIONS = {
    "plain": {},
    "full": {"full_state_dict": True},
    "on the cpu": {"full_state_dict": True, "cpu_offload": True},
    "flat": {"flatten_optimizer_state_dict": True},
}

# torch itself loads no full state without a tensor, and no flat one of an optimiser without state: the second is refused, below.
CASES = itertools.product(("sam", "esam-code", "vasso", "looksam"), BASES, OPTIONS)
FRESH = [case for case in CASES if case[1] != "sgd" or case[2] == "plain" or (case[0] in ("sam", "esam-code") and case[2] == "flat")]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def net():
    return reference.net("norm", torch.float32)


def made(name, base="momentum", seed=0):
    model, recipe = net(), bisam.recipe(name) if isinstance(name, str) else name
    if recipe.name == "bsam":
        return model, SharpnessAware(bisam.Variational(model.parameters(), lr=0.1, samples=100), recipe, seed=seed)
    return model, SharpnessAware(BASES[base](model), recipe, seed=seed)


def take_steps(model, opt, numbers):
    for k in numbers:
        batch = Batch(model, *reference.samples(k, dtype=torch.float32))
        opt.step(batch, validation=batch if opt.recipe.radius.learns else None)


def end(model, opt):
    """Where a training ends, with all that it would go on from."""
    take_steps(model, opt, range(4, 9))
    return reference.bits(list(model.parameters())), reference.bits(opt.memory.save()), opt.skipped


def used(name, base="momentum", seed=3):
    model, opt = made(name, base, seed)
    take_steps(model, opt, range(4))
    opt.skipped = 2
    return model, opt


@pytest.mark.parametrize(("name", "base", "options"), FRESH)
def test_a_fresh_wrapper_goes_on_to_the_bit(name, base, options):
    asked = dcp.StateDictOptions(**OPTIONS[options])
    model, opt = used(name, base)
    saved = dcp.get_state_dict(model, opt, options=asked)
    saved = [torch.utils._pytree.tree_map_only(torch.Tensor, torch.clone, part) for part in saved]
    fresh, other = made(name, base)
    dcp.set_state_dict(fresh, other, model_state_dict=saved[0], optim_state_dict=saved[1], options=asked)
    assert end(fresh, other) == end(model, opt)


@pytest.mark.parametrize("name", [*NAMES, "bsam"])
@pytest.mark.parametrize("flat", [False, True], ids=["", "flat"])
def test_a_load_in_place_from_files_goes_on_to_the_bit(name, flat, tmp_path):
    asked = dcp.StateDictOptions(flatten_optimizer_state_dict=flat)
    model, opt = used(name)
    first = dict(zip(("model", "opt"), dcp.get_state_dict(model, opt, options=asked), strict=True))
    checkpoint.save(first, checkpoint_id=tmp_path, no_dist=True)
    fresh, other = made(name)
    second = dict(zip(("model", "opt"), dcp.get_state_dict(fresh, other, options=asked), strict=True))
    checkpoint.load(second, checkpoint_id=tmp_path, no_dist=True)
    dcp.set_state_dict(fresh, other, model_state_dict=second["model"], optim_state_dict=second["opt"], options=asked)
    assert end(fresh, other) == end(model, opt)


@pytest.mark.parametrize("flat", [False, True], ids=["", "flat"])
def test_a_used_wrapper_is_taken_back(flat):
    asked = dcp.StateDictOptions(flatten_optimizer_state_dict=flat)
    model, opt = used("vasso")
    saved = [torch.utils._pytree.tree_map_only(torch.Tensor, torch.clone, part) for part in dcp.get_state_dict(model, opt, options=asked)]
    first = end(model, opt)
    dcp.set_state_dict(model, opt, model_state_dict=saved[0], optim_state_dict=saved[1], options=asked)
    assert opt.memory.step == 4 and end(model, opt) == first


@pytest.mark.parametrize("base", ["momentum", "sgd"])  # the count of steps of Adam begins at 1 then, with or without a wrapper
@pytest.mark.parametrize("name", ["sam", "esam-code", "vasso", "looksam"])
def test_being_asked_changes_no_training(name, base):
    model, opt = made(name, base)
    twin, other = made(name, base)
    before = reference.bits(list(model.parameters()))
    dcp.get_state_dict(model, opt)
    assert opt.memory.step == 0 and reference.bits(list(model.parameters())) == before
    for k in range(4):
        take_steps(model, opt, [k])
        dcp.get_state_dict(model, opt)
        take_steps(twin, other, [k])
    assert end(model, opt) == end(twin, other)


@pytest.mark.parametrize("name", ["sam", "vasso"])
def test_the_state_is_saved_again_before_the_first_step(name):
    model, opt = used(name)
    one = net()
    for _ in range(2):
        saved = dcp.get_state_dict(model, opt)
        one, other = made(name)
        dcp.set_state_dict(one, other, model_state_dict=saved[0], optim_state_dict=saved[1])
        if model is not one:
            first = model, opt
            model, opt = one, other
    assert opt.memory.step == 4 and first[1].memory.step == 4
    assert end(one, other) == end(*used(name))


def test_the_state_of_a_plain_base_is_loaded():
    model, opt = made("sam")
    twin, sgd = net(), None
    sgd = BASES["momentum"](twin)
    twin(torch.randn(4, 4)).sum().backward()
    sgd.step()
    sgd.zero_grad()
    dcp.set_optimizer_state_dict(model, opt, dcp.get_optimizer_state_dict(twin, sgd))
    assert opt.memory.step == 0
    assert reference.bits([opt.state[p]["momentum_buffer"] for p in model.parameters()]) == reference.bits(
        [sgd.state[p]["momentum_buffer"] for p in twin.parameters()]
    )


def test_the_state_of_a_plain_base_does_not_silence_a_used_wrapper():
    model, opt = used("sam")
    twin = net()
    plain = dcp.get_optimizer_state_dict(twin, BASES["momentum"](twin))
    with pytest.raises(ValueError, match=r"what the recipe remembers.*opt\.base"):
        dcp.set_optimizer_state_dict(model, opt, plain)
    assert opt.memory.step == 4


def test_what_is_dropped_on_the_way_is_an_error():
    asked = dcp.StateDictOptions(flatten_optimizer_state_dict=True)
    model, opt = used("vasso", "sgd")
    saved = dcp.get_optimizer_state_dict(model, opt, options=asked)
    fresh, other = made("vasso", "sgd")
    with pytest.raises(ValueError, match=r"direction of the recipe.*flatten_optimizer_state_dict=False"):
        dcp.set_optimizer_state_dict(fresh, other, saved, options=asked)


class Counting(Direction):
    """Remembers a number, a flag and a tensor that is no parameter's."""

    def filtered(self, gradient, memory):
        kept = memory.state("direction")
        kept["steps"] = kept.get("steps", 0) + 1
        kept["past"] = torch.cat([kept.get("past", torch.zeros(0)), torch.ones(1)])
        return gradient


def test_what_parts_of_ones_own_remember_is_kept():
    recipe = bisam.SAM.replace(name="counting", direction=Counting())
    model, opt = used(recipe)
    fresh, other = made(recipe)
    saved = dcp.get_state_dict(model, opt)
    dcp.set_state_dict(fresh, other, model_state_dict=saved[0], optim_state_dict=saved[1])
    assert other.memory.state("direction")["steps"] == 4 and len(other.memory.state("direction")["past"]) == 4


def test_the_plain_state_is_as_it_was():
    model, opt = used("vasso")
    saved = opt.state_dict()
    assert set(saved) == {"state", "param_groups", "sharpness_aware"}
    assert not [key for values in [*saved["state"].values(), *saved["param_groups"]] for key in values if "sharpness" in key]
    dcp.get_state_dict(model, opt)  # leaves names for a later load, which no plain load takes over
    fresh, other = made("vasso")
    fresh.load_state_dict(model.state_dict())
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert end(fresh, other) == end(model, opt)


def test_an_initialising_step_is_known_by_its_zeros():
    model, opt = made("sam")
    assert not is_initialising(opt.base)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    assert not is_initialising(opt.base)
    with pytest.raises(RuntimeError, match="without a batch"):
        opt.step()
    opt.param_groups[0]["lr"] = 0.0
    assert is_initialising(opt.base)
    next(model.parameters()).grad.fill_(1.0)
    assert not is_initialising(opt.base)


def test_gradients_that_wait_are_left_alone():
    model, opt = made("sam")
    opt.backward(Batch(model, *reference.samples(0, dtype=torch.float32)))
    before = reference.bits([p.grad for p in model.parameters()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.get_state_dict(model, opt)
    assert reference.bits([p.grad for p in model.parameters()]) == before
    opt.step()
    assert opt.memory.step == 1
