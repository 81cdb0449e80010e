"""Activations that are computed again in the backward pass: both ways of torch give the steps of a model without them."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import bisam
from bisam import RECIPES, SAM, Batch, Learned, SharpnessAware
from bisam.step.gradients import python_functions

STEPS = 3
# torch says so of each pass that needs no gradient, to rank samples for example.
pytestmark = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")


def samples(step):
    draw = torch.Generator().manual_seed(step)
    return torch.randn(12, 8, generator=draw, dtype=torch.float64), torch.randint(5, (12,), generator=draw)


class Net(nn.Module):
    """Norm layers outside and inside of a block that is computed again, or of one in another."""

    def __init__(self, reentrant=None, depth=1):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm, self.head = nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 5)
        self.block = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.Tanh(), nn.Dropout(0.2))
        self.reentrant, self.depth = reentrant, depth
        self.double()

    def forward(self, x):
        block = self.block
        for _ in range(self.depth if self.reentrant is not None else 0):
            block = self.again(block)
        h = self.stem(x)
        return self.head(self.norm(h + block(h)))

    def again(self, block):
        return lambda h: checkpoint(block, h, use_reentrant=self.reentrant)


def trained(model, recipe, **options):
    torch.manual_seed(1)
    opt = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), recipe, seed=0, **options)
    more = {"validation": Batch(model, *samples(9))} if recipe.radius.learns else {}
    for k in range(STEPS):
        opt.step(Batch(model, *samples(k)), **more)
    return [p.detach() for p in model.parameters()]


def close(one, other):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


BASED = [name for name, recipe in RECIPES.items() if name != "bsam"]  # its base is another


@pytest.mark.parametrize("name", BASED)
@pytest.mark.parametrize("reentrant", [True, False], ids=["re-entrant", "not re-entrant"])
def test_every_recipe_makes_the_steps_of_a_model_without_checkpoints(name, reentrant):
    recipe = RECIPES[name]
    if reentrant and recipe.radius.learns:
        with pytest.raises(ValueError, match=r"model must use torch.utils.checkpoint with use_reentrant=False"):
            trained(Net(True), recipe)
        return
    close(trained(Net(reentrant), recipe), trained(Net(), recipe))


@pytest.mark.parametrize("form", ["exact", "difference", "diagonal"])
def test_a_radius_learns_through_a_checkpoint_and_is_refused_through_one_that_hides_parameters(form):
    recipe = SAM.replace(radius=Learned(0.05, 1.0, form=form))
    close(trained(Net(False), recipe), trained(Net(), recipe))
    model = Net(True)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match="use_reentrant=False"):
        trained(model, recipe)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("reentrant", [True, False])
def test_one_checkpoint_in_another(reentrant):
    recipe = bisam.methods.SAM_ON
    close(trained(Net(reentrant, depth=2), recipe), trained(Net(), recipe))


class Reversible(torch.autograd.Function):
    """A layer that runs a backward pass of its own, as reversible networks do."""

    @staticmethod
    def forward(ctx, h, layer):
        ctx.layer = layer
        ctx.save_for_backward(h)
        with torch.no_grad():
            return h + layer(h)

    @staticmethod
    def backward(ctx, gradient):
        with torch.enable_grad():
            h = ctx.saved_tensors[0].detach().requires_grad_()
            (h + ctx.layer(h)).backward(gradient)
        return h.grad, None


@pytest.mark.parametrize("name", ["sam", "sam-on", "esam", "gsam", "looksam"])
def test_a_function_with_a_backward_pass_of_its_own_hides_no_parameter(name):
    class Hidden(Net):
        def forward(self, x):
            h = self.stem(x)
            return self.head(self.norm(Reversible.apply(h, self.block)))

    model, plain = Hidden(), Net()
    model.block[3].p = plain.block[3].p = 0.0
    close(trained(model, RECIPES[name]), trained(plain, RECIPES[name]))


def test_the_functions_of_a_graph_are_found_wherever_they_are():
    x = torch.ones(2, requires_grad=True)
    assert python_functions(x) == python_functions((x * 2).sum(), None) == set()
    assert python_functions(checkpoint(torch.sin, x, use_reentrant=True).exp().sum()) == {"CheckpointFunctionBackward"}
    assert python_functions(checkpoint(torch.sin, x, use_reentrant=False).exp().sum()) == set()
