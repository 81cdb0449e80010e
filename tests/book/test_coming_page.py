"""The page for those who come from another SAM: every block runs, and the lines of others end at the weights of ours."""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import bisam

PAGE = (Path(__file__).resolve().parents[2] / "book" / "coming_from_another_sam.md").read_text(encoding="utf-8")
ALL = {block.partition("\n")[0].removeprefix("# "): block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)}
BLOCKS = {name: block for name, block in ALL.items() if name != "here, skorch"}  # which needs skorch
CLASSES = 4


class SAM(torch.optim.Optimizer):
    """The interface of others: two steps, or a closure for the second pass."""

    def __init__(self, params, base_optimizer, rho, **kwargs):
        super().__init__(params, {"rho": rho, **kwargs})
        self.base_optimizer = base_optimizer(self.param_groups, **kwargs)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self, zero_grad):
        params = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.sqrt(sum(p.grad.square().sum() for p in params))
        self.before = [(p, p.clone()) for p in params]
        for p in params:
            p.add_(p.grad * (self.param_groups[0]["rho"] / (norm + 1e-12)))
        self.zero_grad()

    @torch.no_grad()
    def second_step(self, zero_grad):
        for p, old in self.before:
            p.copy_(old)
        self.base_optimizer.step()
        self.zero_grad()

    def step(self, closure):
        self.first_step(True)
        closure()
        self.second_step(True)


def run(name, *between):
    """The weights after a block, on a network and batches that are always the same, and the names that it leaves."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), *between, nn.Tanh(), nn.Linear(8, CLASSES))
    loader = [(torch.randn(12, 6), torch.randint(CLASSES, (12,))) for _ in range(4)]
    names = {
        "torch": torch, "bisam": bisam, "SAM": SAM, "model": model, "loader": loader, "loss_fn": nn.functional.cross_entropy,
        "x": loader[0][0], "classes": CLASSES,
    }  # fmt: skip
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    exec(BLOCKS[name], names)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert after.isfinite().all() and not torch.equal(after, before)
    return after, names


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_runs(name):
    run(name)


PAIRS = [
    ("theirs", "here"), ("theirs", "here, any loss"), ("theirs", "here, both passes in the loop"),
    ("theirs, a closure", "here, a closure"), ("theirs, a closure", "here"),
    ("here, BiSAM", "here, BiSAM with passes of your own"),
]  # fmt: skip


@pytest.mark.parametrize("left, right", PAIRS)
def test_pairs_end_at_the_same_weights(left, right):
    one, other = run(left)[0], run(right)[0]
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert (one - run("here, BiSAM" if "BiSAM" not in left else "here")[0]).abs().max() > 1e-4


@pytest.mark.filterwarnings("ignore")
def test_skorch_makes_the_steps_of_a_plain_loop():
    skorch = pytest.importorskip("skorch", reason="skorch is not installed, so its loop cannot be run")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, CLASSES))
    twin, x, y = copy.deepcopy(model), torch.randn(40, 6), torch.randint(CLASSES, (40,))
    names = {"torch": torch, "bisam": bisam, "model": model, "NeuralNetClassifier": skorch.NeuralNetClassifier}
    exec(ALL["here, skorch"], names)
    net = names["net"].set_params(batch_size=20, max_epochs=2, train_split=None, verbose=0)
    net.fit(x, y)
    opt = bisam.SharpnessAware(torch.optim.SGD(twin.parameters(), lr=0.1), "sam")
    for _ in range(2):
        for part in ((x[:20], y[:20]), (x[20:], y[20:])):
            opt.step(bisam.Batch(twin, *part))
    assert all(torch.equal(a, b) for a, b in zip(net.module_.parameters(), twin.parameters(), strict=True))


def test_batch_norm_needs_no_line_here():
    _, names = run("here", nn.BatchNorm1d(8))
    assert names["model"][1].num_batches_tracked == 4


def test_their_lines_on_batch_norm_do_no_harm_in_a_block():
    def train(set_momentum):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, CLASSES))
        opt, x, y = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1)), torch.randn(12, 6), torch.randint(CLASSES, (12,))
        for _ in range(3):
            set_momentum(model[1], 0.1)
            nn.functional.cross_entropy(model(x), y).backward()
            with opt.perturbed(model):
                set_momentum(model[1], 0)
                nn.functional.cross_entropy(model(x), y).backward()
            opt.step()
            opt.zero_grad()
        return model.state_dict()

    theirs, plain = train(lambda norm, momentum: setattr(norm, "momentum", momentum)), train(lambda norm, momentum: None)
    assert all(torch.equal(theirs[name], plain[name]) for name in plain)


def test_one_climb_is_over_the_parameters_of_both_optimisers():
    _, names = run("here, two optimisers and one climb")
    opt = names["opt"]
    opt.record = True
    opt.step(bisam.Batch(names["model"], *names["loader"][0]))
    assert opt.last.length == pytest.approx(0.05, rel=1e-4)


def test_every_recipe_that_is_named_is_there():
    names = set(re.findall(r'"([a-z-]+)"', PAGE)) - {"rho"}
    assert {"sam", "asam", "asam-all", "fsam", "esam-code", "sam-every-k", "bisam-log", "weights"} == names
    assert all(bisam.recipe(name) for name in names - {"weights"})
    constants = set(re.findall(r"`bisam\.([A-Z_]+)`", PAGE))
    assert {"GSAM", "LOOKSAM", "ESAM"} == constants and all(isinstance(getattr(bisam, name), bisam.Recipe) for name in constants)


def test_the_numbers_that_are_named_are_those_of_the_rows():
    assert bisam.GSAM.combination.alpha == 0.01 and "the row has 0.01" in PAGE
    assert bisam.LOOKSAM.combination.every == 5 and "every fifth step" in PAGE
    assert bisam.ASAM.geometry == bisam.Adaptive(eta=0.01, scaled="weights")
    assert bisam.recipe("asam-all").geometry == bisam.Adaptive(eta=0.0, scaled="all")
