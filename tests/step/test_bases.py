"""Several optimisers as one base: one climb over all their parameters, and one step of all for one gradient."""

import copy
import pickle

import pytest
import reference
import torch
from torch import nn

import bisam
from bisam import SAM, Batch, SharpnessAware

NAMES = ("sam", "bisam-log", "asam", "esam", "gsam", "looksam", "vasso", "sam-on", "msam")
LOSS = nn.functional.cross_entropy


def parts(model):
    matrices = [p for p in model.parameters() if p.ndim == 2]
    return matrices, [p for p in model.parameters() if p.ndim != 2]


def muon_and_adam(model):
    matrices, others = parts(model)
    return [torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(others, lr=0.01)]


def two_sgd(model):
    return [torch.optim.SGD(group, lr=0.1, momentum=0.9) for group in parts(model)]


def one_sgd(model):
    return torch.optim.SGD([{"params": group} for group in parts(model)], lr=0.1, momentum=0.9)


def net(kind="norm"):
    return reference.net(kind, torch.float32)


def samples(k=0):
    return reference.samples(k, dtype=torch.float32)


def weights(model):
    return reference.bits(list(model.parameters()))


def take_steps(opt, model, numbers):
    for k in numbers:
        opt.step(Batch(model, *samples(k)))


def block(opt, model, k=0):
    x, y = samples(k)
    opt.zero_grad()
    LOSS(model(x), y).backward()
    with opt.perturbed(model):
        LOSS(model(x), y).backward()


# -- one climb --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["batch", "block"])
def test_muon_and_adam_climb_once_over_all_parameters(way):
    model = net()
    opt = SharpnessAware(muon_and_adam(model), SAM, record=True)
    for k in range(3):
        take_steps(opt, model, [k]) if way == "batch" else block(opt, model, k)
        assert opt.last.length == pytest.approx(0.05, rel=1e-5)
        if way == "block":
            opt.step()
    assert opt.memory.step == 3


@pytest.mark.parametrize("name", NAMES)
def test_two_of_a_kind_are_one_with_two_groups_to_the_bit(name):
    model, twin, recipe = net(), net(), bisam.recipe(name)
    take_steps(SharpnessAware(two_sgd(model), recipe, seed=0), model, range(6))
    take_steps(SharpnessAware(one_sgd(twin), recipe, seed=0), twin, range(6))
    assert weights(model) == weights(twin)


def test_a_list_of_one_is_that_one():
    model = net()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    assert SharpnessAware([sgd]).base is sgd


def test_groups_with_a_radius_are_balls_of_their_own_and_the_rho_of_adadelta_is_none():
    model = net()
    matrices, others = parts(model)
    bases = [torch.optim.Adadelta(matrices, lr=0.1), torch.optim.SGD([{"params": others, "rho": 0.2}], lr=0.1)]
    opt, (x, y) = SharpnessAware(bases, SAM), samples()
    before = [p.detach().clone() for p in matrices], [p.detach().clone() for p in others]
    LOSS(model(x), y).backward()
    with opt.perturbed(model):
        lengths = [
            torch.cat([(p - old).flatten() for p, old in zip(group, olds, strict=True)]).norm().item()
            for group, olds in zip((matrices, others), before, strict=True)
        ]
        LOSS(model(x), y).backward()
    assert lengths == pytest.approx([0.05, 0.2], rel=1e-4)


# -- one gradient, one step --------------------------------------------------------------------------------------------------


def test_members_stepped_by_hand_are_one_step():
    model, twin = net(), net()
    opt, other = (SharpnessAware(muon_and_adam(m), bisam.recipe("vasso")) for m in (model, twin))
    for k in range(3):
        block(opt, model, k)
        block(other, twin, k)
        for member in reversed(opt.base.members):
            member.step()
        other.step()
        assert opt.memory.step == other.memory.step == k + 1
    assert weights(model) == weights(twin)


def test_the_rest_is_stepped_by_the_wrapper():
    model, twin = net(), net()
    opt, other = (SharpnessAware(muon_and_adam(m)) for m in (model, twin))
    block(opt, model)
    block(other, twin)
    opt.base.members[0].step()
    opt.step()
    other.step()
    assert weights(model) == weights(twin) and opt.memory.step == 1
    with pytest.raises(RuntimeError, match="without a batch"):
        opt.step()


def test_a_member_moves_once_with_one_gradient():
    model = net()
    opt = SharpnessAware(muon_and_adam(model))
    block(opt, model)
    muon, adam = opt.base.members
    muon.step()
    before = weights(model)
    with pytest.raises(RuntimeError, match="Muon has made its step with this gradient; next is that of AdamW"):
        muon.step()
    assert weights(model) == before
    adam.step()


def test_a_step_that_one_member_alone_makes_ends_with_the_next_gradient():
    model = net()
    opt = SharpnessAware(muon_and_adam(model))
    for k in range(2):
        block(opt, model, k)
        opt.base.members[0].step()
    block(opt, model, 2)
    assert opt.memory.step == 2
    opt.step()
    assert opt.memory.step == 3


def test_no_member_moves_inside_the_block():
    model = net()
    opt, (x, y) = SharpnessAware(muon_and_adam(model)), samples()
    LOSS(model(x), y).backward()
    with opt.perturbed(model):
        for member in opt.base.members:
            with pytest.raises(RuntimeError, match="not inside it"):
                member.step()
        LOSS(model(x), y).backward()
    opt.step()


# -- what other code does with an optimiser ------------------------------------------------------------------------------------


def go_on(opt, model):
    take_steps(opt, model, range(3, 6))
    return weights(model), reference.bits(opt.state_dict())


@pytest.mark.parametrize("name", ["sam", "vasso", "esam", "looksam"])
def test_a_copy_a_pickle_and_a_resumed_run_go_on_to_the_bit(name, tmp_path):
    model, recipe = net(), bisam.recipe(name)
    opt = SharpnessAware(muon_and_adam(model), recipe, seed=3)
    take_steps(opt, model, range(3))
    copies = [copy.deepcopy((model, opt)), pickle.loads(pickle.dumps((model, opt)))]
    torch.save([model.state_dict(), opt.state_dict()], tmp_path / "run.pt")
    fresh = net()
    resumed = SharpnessAware(muon_and_adam(fresh), recipe, seed=9)
    for part, saved in zip((fresh, resumed), torch.load(tmp_path / "run.pt"), strict=True):
        part.load_state_dict(saved)
    end = go_on(opt, model)
    assert all(go_on(other, twin) == end for twin, other in [*copies, (fresh, resumed)])


def test_members_get_their_own_dictionaries():
    model, fresh = net(), net()
    opt = SharpnessAware(muon_and_adam(model))
    take_steps(opt, model, range(2))
    other = SharpnessAware(muon_and_adam(fresh))
    other.load_state_dict(opt.state_dict())
    for one, two in zip(opt.base.members, other.base.members, strict=True):
        assert reference.bits(one.state_dict()) == reference.bits(two.state_dict())
    with pytest.raises(ValueError, match="2 parameter groups"):
        other.base.load_state_dict(opt.base.members[0].state_dict())


@pytest.mark.parametrize("where", ["wrapper", "members"])
def test_schedulers_reach_the_members(where):
    model = net()
    opt = SharpnessAware(muon_and_adam(model))
    held = [opt] if where == "wrapper" else opt.base.members
    schedulers = [torch.optim.lr_scheduler.StepLR(one, step_size=1, gamma=0.5) for one in held]
    for k in range(2):
        take_steps(opt, model, [k])
        for scheduler in schedulers:
            scheduler.step()
    assert [member.param_groups[0]["lr"] for member in opt.base.members] == pytest.approx([0.005, 0.0025])


@pytest.mark.parametrize("way", ["batch", "by hand"])
def test_a_scaler_with_nothing_to_save_changes_nothing(way):
    ends = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
        model = net()
        opt = SharpnessAware(two_sgd(model))
        for k in range(3):
            batch = Batch(model, *samples(k))
            if scaler is None or way == "batch":
                opt.step(batch, scaler=scaler)
            else:
                opt.zero_grad()
                opt.backward(batch, scaler=scaler)
                scaler.unscale_(opt)
                scaler.step(opt)
            if scaler is not None:
                scaler.update()
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*ends, rtol=0, atol=1e-6)


def test_an_overflow_skips_the_step_of_all_members():
    model = net()
    opt, scaler = SharpnessAware(muon_and_adam(model)), torch.amp.GradScaler("cpu", init_scale=1024.0)
    before, (x, y) = weights(model), samples()
    x[0, 0] = torch.inf
    opt.step(Batch(model, x, y), scaler=scaler)
    scaler.update()
    assert weights(model) == before and scaler.get_scale() == 512.0


def test_what_is_not_finite_is_a_skipped_step_of_all():
    model = net()
    opt = SharpnessAware(muon_and_adam(model), nonfinite="skip")
    before, (x, y) = weights(model), samples()
    x[0, 0] = torch.inf
    with pytest.warns(RuntimeWarning, match="skipped"):
        opt.step(Batch(model, x, y))
    assert weights(model) == before and opt.skipped == 1


def test_groups_state_and_defaults_are_those_of_the_members():
    model = net()
    opt = SharpnessAware(muon_and_adam(model))
    take_steps(opt, model, [0])
    muon, adam = opt.base.members
    assert opt.param_groups[0] is muon.param_groups[0] and opt.param_groups[1] is adam.param_groups[0]
    assert all(opt.state[p] is muon.state[p] for p in muon.param_groups[0]["params"])
    assert opt.defaults["lr"] == 0.02 and "betas" not in opt.defaults and "Muon" in repr(opt)
    opt.zero_grad()
    assert all(p.grad is None for p in model.parameters())


# -- what is refused ---------------------------------------------------------------------------------------------------------


def test_a_parameter_in_two_bases_is_refused_by_name():
    model = net()
    named = torch.optim.SGD(model.named_parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"0.weight of group 0 of SGD .base 1. is parameter 0 of group 0 of Muon .base 0."):
        SharpnessAware([torch.optim.Muon(parts(model)[0]), named])


@pytest.mark.parametrize("wrong", [[], (), [SAM], {"a": 1}, [None]])
def test_what_is_no_optimiser_is_refused(wrong):
    with pytest.raises(TypeError, match="base must be a torch optimiser"):
        SharpnessAware(wrong)


def test_members_must_be_bases_themselves():
    model = net()
    matrices, others = parts(model)
    sgd = torch.optim.SGD(matrices, lr=0.1)
    with pytest.raises(TypeError, match="not wrapped yet"):
        SharpnessAware([SharpnessAware(sgd), torch.optim.SGD(others)])
    with pytest.raises(TypeError, match="LBFGS"):
        SharpnessAware([sgd, torch.optim.LBFGS(others)])
    with pytest.raises(TypeError, match=r"bisam\.Variational"):
        SharpnessAware([sgd, bisam.Variational(others)], bisam.recipe("bsam"))
    opt = SharpnessAware([sgd, torch.optim.AdamW(others)])
    with pytest.raises(TypeError, match="add_param_group of SGD or AdamW"):
        opt.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    with pytest.raises(TypeError, match="closure"):
        opt.base.step(lambda: None)


@pytest.mark.parametrize("second", ["block", "batch"])
def test_two_wrappers_of_one_model_do_not_climb_on_each_other(second):
    model, (x, y) = net(), samples()
    muon, adam = (SharpnessAware(base) for base in muon_and_adam(model))
    LOSS(model(x), y).backward()
    before = weights(model)
    with pytest.raises(RuntimeError, match=r"SharpnessAware\(\[muon, adamw\], recipe\)"), muon.perturbed(model):
        if second == "block":
            with adam.perturbed(model):
                pass
        else:
            adam.step(Batch(model, x, y))
    assert weights(model) == before
    block(muon, model)  # nothing is left open
    muon.step()
