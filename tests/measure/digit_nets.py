"""Networks on digits, and what is drawn of them."""

import torch

from bisam import BISAM_LOG, CrossEntropy
from bisam.losses import zero_one
from bisam.measure import Subspace, gaussian, normalised, weights_of
from bisam.training import data, models

METRICS = {"ce": CrossEntropy().per_sample, "Q": BISAM_LOG.ascent.per_sample, "0-1": zero_one}
TASK = data.digits()
X, Y = TASK.train.inputs[:60].double(), TASK.train.targets[:60]
GRID = [torch.linspace(-1.5, 1.5, 4), torch.linspace(-1, 1, 3)]


def network(name="small_conv", seed=0):
    """In float64, and with running statistics that are not those of a fresh network."""
    torch.manual_seed(seed)
    model = models.build(name, (1, 8, 8), 10).double()
    model.train()(X)
    return model.eval()


def plane(model, by="filter", vectors="scaled", seeds=(1, 2)):
    w = weights_of(model)
    return Subspace(w, *(normalised(gaussian(model, seed), w, by, vectors) for seed in seeds))
