"""What somebody writes who uses the package; a type checker has to agree with every line."""

from pathlib import Path
from typing import assert_type

import torch
from torch import Tensor, nn

import bisam
from bisam.evidence.statistics import Paired, paired
from bisam.losses import margins
from bisam.measure import loss_rise, misclassified
from bisam.notebook.run import run
from bisam.training import History, Run, fit

model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
x, y = torch.randn(16, 6), torch.randint(3, (16,))

# the two lines of a training loop
opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), bisam.BISAM_LOG, rho=0.1, seed=0)
batch = bisam.Batch(model, x, y)
assert_type(opt.step(batch), Tensor | None)  # nothing where a step is skipped
opt.step(batch, ascent=3)  # type: ignore[arg-type]
opt.step([1.0, 2.0])  # type: ignore[list-item]
bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), bisam.BISAM_LOG, rho="0.1")  # type: ignore[arg-type]

# recipes and losses
assert_type(bisam.RECIPES["sam"], bisam.Recipe)
assert_type(bisam.recipe("bisam-tanh"), bisam.Recipe)
own = bisam.Recipe("own", radius=bisam.Constant(0.1), geometry=bisam.Adaptive(), ascent=bisam.Surrogate(bisam.NegLog(), 1.5))
assert_type(own, bisam.Recipe)
assert_type(bisam.Tanh(0.1)(torch.zeros(2)), Tensor)
assert_type(bisam.CrossEntropy().per_sample(model(x), y), Tensor)
assert_type(margins(torch.randn(16, 3), y), Tensor)
bisam.Recipe("own", radius="0.1")  # type: ignore[arg-type]

# measures
rise: float = loss_rise(model, nn.functional.cross_entropy, x, y, rho=0.1)
broken: int = misclassified(model, x, y, {}).broken

# trainings, their evidence, notebooks
assert_type(fit(Run(recipe="sam", epochs=1)), History)
assert_type(paired([1.0, 2.0], [0.5, 0.5]), Paired)
assert_type(run("lower_bounds", {"alpha": "0.2"}), Path)
