"""Whoever comes from another implementation of SAM meets the line that does the same here, and that line does it."""

import re

import pytest
import torch
from torch import nn

import bisam
from bisam import SAM, SharpnessAware

X = torch.linspace(-1, 1, 24).reshape(6, 4)
Y = torch.tensor([0, 1, 2, 0, 1, 2])


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def sgd(model, **more):
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, **more})


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


# -- a recipe by its name, and its radius ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", bisam.RECIPES)
def test_a_name_is_the_row_of_the_table(name):
    base = bisam.Variational(net().parameters(), lr=0.1, samples=6) if name.startswith("bsam") else sgd(net())
    assert SharpnessAware(base, name).recipe is bisam.RECIPES[name]


def test_a_product_has_a_name_too():
    assert SharpnessAware(sgd(net()), "gsam-bisam-log").recipe == bisam.recipe("gsam-bisam-log")


def test_an_unknown_name_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match="recipe must be one of sgd, sam"):
        SharpnessAware(sgd(net()), "samm")


def test_another_recipe_can_be_put_in_by_its_name():
    opt = SharpnessAware(sgd(net()))
    opt.recipe = "bisam-log"
    assert opt.recipe is bisam.BISAM_LOG


@pytest.mark.parametrize("recipe", ["sam", SAM, "asam", "le-sam", bisam.GSAM], ids=str)
def test_rho_is_the_radius_of_the_recipe(recipe):
    wanted = bisam.recipe(recipe) if isinstance(recipe, str) else recipe
    opt = SharpnessAware(sgd(net()), recipe, rho=0.3)
    assert opt.recipe == wanted.with_rho(0.3) and opt.rho == 0.3


def test_a_radius_that_is_set_is_that_of_the_next_step():
    model = net()
    opt = SharpnessAware(sgd(model), record=True)
    for rho in (0.05, 0.2):
        opt.rho = rho
        opt.step(bisam.Batch(model, X, Y))
        assert opt.last.length == pytest.approx(rho, rel=1e-5)


@pytest.mark.parametrize("rho, error", [("wide", TypeError), (-0.1, ValueError), (float("nan"), ValueError)])
def test_a_wrong_radius_is_refused_by_name(rho, error):
    with pytest.raises(error, match=r"^rho must be"):
        SharpnessAware(sgd(net()), rho=rho)
    with pytest.raises(error, match=r"^rho must be"):
        SharpnessAware(sgd(net())).rho = rho


# -- their constructors ---------------------------------------------------------------------------------------------------

THEIRS = {
    "davda54/sam": lambda p: SharpnessAware(p, torch.optim.SGD, lr=0.1, momentum=0.9),
    "by keyword": lambda p: SharpnessAware(p, base_optimizer=torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9),
    "adaptive": lambda p: SharpnessAware(p, torch.optim.SGD, rho=2.0, adaptive=True, lr=0.1, momentum=0.9),
    "AdamW": lambda p: SharpnessAware(p, torch.optim.AdamW, lr=0.01),
    "parameters alone": lambda p: SharpnessAware(p),
    "another radius": lambda p: SharpnessAware(p, torch.optim.SGD, rho=0.1, lr=0.1),
}


@pytest.mark.parametrize("name", THEIRS)
def test_their_constructor_is_answered_with_two_lines_that_run(name):
    model = net()
    with pytest.raises(TypeError, match="base must be a torch optimiser that is not wrapped yet, got") as refused:
        THEIRS[name](model.parameters())
    lines = [line.strip() for line in str(refused.value).splitlines()[1:]]
    assert len(lines) == 2
    names = {"torch": torch, "bisam": bisam, "model": model}
    exec("\n".join(lines), names)
    assert isinstance(names["opt"], SharpnessAware)
    assert type(names["base"]) is (torch.optim.AdamW if name == "AdamW" else torch.optim.SGD)
    assert names["opt"].recipe.geometry == (bisam.methods.ASAM_ALL if name == "adaptive" else SAM).geometry
    assert names["opt"].rho == {"adaptive": 2.0, "another radius": 0.1}.get(name, 0.05)
    if name == "davda54/sam":
        assert names["base"].defaults["momentum"] == 0.9


def test_a_network_is_answered_so_too():
    with pytest.raises(TypeError, match=r"got Sequential; make it first"):
        SharpnessAware(net())


@pytest.mark.parametrize("base", [5, "sgd", None, torch.optim.SGD, [], {}])
def test_what_nobody_can_mean_is_refused_in_one_line(base):
    with pytest.raises(TypeError, match=r"^base must be a torch optimiser that is not wrapped yet, got \w+$"):
        SharpnessAware(base)


def test_a_recipe_in_the_place_of_their_class_says_what_to_call():
    model = net()
    with pytest.raises(TypeError, match="a recipe makes no optimiser by itself") as refused:
        SAM(model.parameters(), torch.optim.SGD, lr=0.1)
    names = {"torch": torch, "bisam": bisam, "model": model}
    exec(str(refused.value).partition(": ")[2], names)
    assert names["opt"].recipe is SAM


def test_an_optimiser_that_makes_two_passes_itself_is_no_base():
    class TheirSAM(torch.optim.SGD):
        def first_step(self): ...
        def second_step(self): ...

    with pytest.raises(TypeError, match="TheirSAM makes two passes itself"):
        SharpnessAware(TheirSAM(net().parameters(), lr=0.1))


@pytest.mark.parametrize("given, words", [
    ({"adaptive": True}, r'adaptive=True is a recipe: bisam\.SharpnessAware\(base, "asam-all", rho=2\.0\), or bisam\.ASAM'),
    ({"adaptive": False}, "adaptive=False can be left out"),
    ({"lr": 0.1}, r"lr is of the base: SGD\(model\.parameters\(\), lr=0\.1\)"),
    ({"perturb_eps": 1e-12}, "perturb_eps is no argument of SharpnessAware; those are base, recipe, rho"),
])  # fmt: skip
def test_their_arguments_are_answered(given, words):
    with pytest.raises(TypeError, match=words):
        SharpnessAware(sgd(net()), **given)


def test_their_adaptive_step_is_that_of_the_recipe_that_is_named():
    """Written from the public code: e = rho w^2 g / || |w| g ||, over all parameters."""
    one, other = net(), net()
    opt, base = SharpnessAware(sgd(one), "asam-all", rho=2.0), sgd(other)
    for _ in range(3):
        opt.step(bisam.Batch(one, X, Y))
        base.zero_grad()
        nn.functional.cross_entropy(other(X), Y).backward()
        with torch.no_grad():
            before = [p.clone() for p in other.parameters()]
            norm = torch.sqrt(sum((p * p.grad).square().sum() for p in other.parameters()))
            for p in other.parameters():
                p.add_(p.square() * p.grad * (2.0 / norm))
        base.zero_grad()
        nn.functional.cross_entropy(other(X), Y).backward()
        with torch.no_grad():
            for p, old in zip(other.parameters(), before, strict=True):
                p.copy_(old)
        base.step()
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(one.parameters(), other.parameters(), strict=True))


# -- their attributes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["first_step", "second_step", "ascent_step", "descent_step"])
def test_their_steps_are_answered_with_a_block_that_runs(name):
    one, other = net(), net()
    opt, twin = SharpnessAware(sgd(one)), SharpnessAware(sgd(other))
    with pytest.raises(AttributeError, match=rf"opt\.{name} is of another implementation of SAM; here") as refused:
        getattr(opt, name)
    loss_fn = nn.functional.cross_entropy
    loss_fn(one(X), Y).backward()
    code = str(refused.value).partition(":\n")[2]
    exec(re.sub("^    ", "", code, flags=re.M), {"opt": opt, "model": one, "loss_fn": lambda out, y: loss_fn(out, Y), "x": X, "y": Y})
    twin.step(bisam.Batch(other, X, Y))
    assert same(one, other) and not same(one, net())


@pytest.mark.parametrize("name, words", [
    ("_grad_norm", "record=True"), ("base_optimizer", r"opt\.base"), ("disable_running_stats", "leave the line out"),
    ("enable_running_stats", "leave the line out"), ("set_closure", r"bisam\.GSAM"), ("update_rho_t", "follows the learning rate"),
])  # fmt: skip
def test_their_other_attributes_are_answered(name, words):
    with pytest.raises(AttributeError, match=words):
        getattr(SharpnessAware(sgd(net())), name)


def test_whoever_asks_whether_an_attribute_is_there_hears_no():
    opt = SharpnessAware(sgd(net()))
    assert not hasattr(opt, "first_step") and not hasattr(opt, "never_heard_of") and hasattr(opt, "register_step_pre_hook")
    with pytest.raises(AttributeError, match="'SharpnessAware' object has no attribute 'never_heard_of'"):
        opt.never_heard_of  # noqa: B018


def test_what_the_base_offers_itself_is_the_bases():
    class Odd(torch.optim.SGD):
        def first_step(self):
            return "its own"

    assert SharpnessAware(Odd(net().parameters(), lr=0.1)).first_step() == "its own"


# -- what is given to a step ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given, words", [
    (lambda model: nn.functional.cross_entropy(model(X), Y), r"got Tensor; .*a loss cannot be evaluated again at w \+ eps"),
    (lambda model: (X, Y), r"got tuple; .*opt\.step\(bisam\.Batch\(model, \*batch\)\)"),
    (lambda model: [X, Y], r"got Tensor; .*opt\.step\(bisam\.Batch\(model, \*batch\)\)"),
    (lambda model: (model(X), Y), r"got tuple; .*opt\.step\(bisam\.Batch\(model, \*batch\)\)"),
    (lambda model: {"inputs": X, "labels": Y}, r'got dict; .*batch\["inputs"\], batch\["labels"\]'),
    (lambda model: X, r"got Tensor; .*opt\.step\(bisam\.Batch\(model, x, y\)\)"),
    (lambda model: 5, r"got int; or a list of batches$"),
])  # fmt: skip
@pytest.mark.parametrize("call", ["step", "backward"])
def test_what_is_no_batch_is_answered(call, given, words):
    model = net()
    with pytest.raises(TypeError, match=r"step needs a bisam\.Batch\(model, inputs, targets\), " + words):
        getattr(SharpnessAware(sgd(model)), call)(given(model))
    assert same(model, net())


@pytest.mark.parametrize("given", [lambda model: (X, Y, model), lambda model: (model(X), Y, None)], ids=["the model last", "logits for the model"])
def test_a_batch_in_another_order_is_answered(given):
    with pytest.raises(TypeError, match=r"model must be callable, and comes first: Batch\(model, inputs, targets\), got tensor"):
        bisam.Batch(*given(net()))


# -- what they have saved -------------------------------------------------------------------------------------------------


class TheirSAM(torch.optim.Optimizer):
    """The constructor of davda54/sam, whose groups are those of its base."""

    def __init__(self, params, base_optimizer, rho=0.05, adaptive=False, **kwargs):
        super().__init__(params, {"rho": rho, "adaptive": adaptive, **kwargs})
        self.base_optimizer = base_optimizer(self.param_groups, **kwargs)
        self.param_groups = self.base_optimizer.param_groups


def test_the_state_of_another_sam_is_answered_and_that_of_its_base_goes_on():
    model, twin = net(), net()
    theirs, plain = TheirSAM(model.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9), sgd(twin, momentum=0.9)
    for one, base in ((model, theirs.base_optimizer), (twin, plain)):
        nn.functional.cross_entropy(one(X), Y).backward()
        base.step()
        base.zero_grad()
    opt, other = SharpnessAware(sgd(model, momentum=0.9)), SharpnessAware(plain)
    before = opt.state_dict()
    with pytest.raises(ValueError, match=r"state_dict must be of this optimiser or of its base, and that of another SAM is neither") as refused:
        opt.load_state_dict(theirs.state_dict())
    assert opt.state_dict() == before
    line, loop = re.search(r": (opt\.load_state_dict\(.*?\)\)) .*`(.*)`", str(refused.value)).groups()
    exec(f"{loop}\n{line}", {"opt": opt, "theirs": theirs})
    for one, each in ((model, opt), (twin, other)):
        each.step(bisam.Batch(one, X, Y))
    assert same(model, twin) and not any("rho" in group for group in opt.param_groups)


def test_a_group_with_a_radius_of_its_own_is_still_loaded():
    opt = SharpnessAware(torch.optim.SGD([{"params": list(net().parameters()), "rho": 0.2}], lr=0.1))
    opt.load_state_dict(opt.state_dict())
    assert opt.param_groups[0]["rho"] == 0.2


def test_a_radius_in_the_place_of_a_recipe_is_answered():
    with pytest.raises(TypeError, match=r"a radius is rho=0\.05\); got 0\.1"):
        SharpnessAware(sgd(net()), 0.1)
