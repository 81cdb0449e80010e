"""Every public callable, one argument at a time replaced by something wrong: it works, or an error names the argument.

The table holds a call that works for every public name. Each argument of it is replaced by each of the hostile values. What
comes must be a result, or a TypeError or ValueError (or the module's own error) in whose message the argument is named; where a
network, a loss or a metric of the caller fails on what it was given, its own error comes, with a note that names the argument.
"""

import dataclasses
import importlib
import inspect
import math
import re
import tempfile
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy
import pytest
import torch
from torch import nn

import bisam
import bisam.measure
import bisam.training
from bisam import _files as files
from bisam.evidence import (
    arrays,
    claim,
    cluster,
    crossed,
    decisions,
    descriptions,
    earlier_rule,
    experiment,
    ledger,
    listing,
    own_ledger,
    places,
    plans,
    power,
    prices,
    published,
    report,
    reproduce,
    sbatch,
    selection,
    statistics,
    summaries,
    verdicts,
    verify,
)
from bisam.notebook import declarations, find, own, page, parameters, plots, results
from bisam.notebook import run as notebook
from bisam.training import augment, checkpoint, data, environment, metrics, models, own_code, processes

# Of these rooms and modules every public name is called. Of those that read and write the records (experiments, ledger, report,
# reproduce, checkpoint) the table has what people call with arguments of their own.
MODULES = (
    "bisam", "bisam._files", "bisam.losses", "bisam.axes", "bisam.step", "bisam.methods", "bisam.measure",
    "bisam.training", "bisam.training.augment", "bisam.training.data", "bisam.training.environment", "bisam.training.metrics",
    "bisam.training.models", "bisam.training.own_code", "bisam.training.processes",
    "bisam.evidence.crossed", "bisam.evidence.decisions", "bisam.evidence.descriptions", "bisam.evidence.own_ledger", "bisam.evidence.plans",
    "bisam.evidence.power", "bisam.evidence.prices", "bisam.evidence.published", "bisam.evidence.statistics", "bisam.evidence.verdicts",
    "bisam.evidence.verify", "bisam.notebook.find", "bisam.notebook.own", "bisam.notebook.page", "bisam.notebook.parameters", "bisam.notebook.plots",
    "bisam.notebook.results", "bisam.notebook.run",
)  # fmt: skip
OWN = (declarations.ParameterError, find.NotebookError, data.DataError, places.LedgerError, checkpoint.CheckpointError, FloatingPointError)


# -- what is wrong --------------------------------------------------------------------------------------------------------


class Silent:
    """Cannot be shown."""

    def __repr__(self):
        raise RuntimeError("no repr")


class Long:
    """Is shown at great length."""

    def __repr__(self):
        return "long " * 10_000


class Odd:
    """Can neither be compared nor tested for truth."""

    def __eq__(self, other):
        raise RuntimeError("no comparison")

    def __bool__(self):
        raise RuntimeError("no truth")

    __hash__ = object.__hash__


SMALL = bisam.training.Run(model="mlp", epochs=1, batch_size=1000)


def hostile():
    """Fresh values, by name."""
    model = nn.Linear(2, 2)
    return {
        "None": None, "True": True, "5": 5, "-1": -1, "0": 0, "2.5": 2.5, "10**400": 10**400, "-10**400": -(10**400), "10**5000": 10**5000,
        "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "1e308": 1e308, "complex": 1 + 2j,
        "fraction": Fraction(1, 3), "decimal": Decimal("0.1"),
        "numpy float": numpy.float32(0.5), "numpy int": numpy.int64(3), "numpy bool": numpy.bool_(True), "numpy nan": numpy.float64("nan"),
        "array": numpy.array([1.0, 2.0]), "array of nothing": numpy.array(0.5),
        "text": "x", "no text": "", "half a pair": "\ud800", "a zero byte": "a\0b", "two lines": "a\nb", "long text": "y" * 10_000,
        "bytes": b"x", "path": Path("x"), "a folder": Path("/"),
        "list": [], "list of None": [None], "dict": {}, "dict of 1": {"a": 1}, "dict of object": {object(): object()}, "tuple": (), "set": {1},
        "object": object(), "class": int, "function": lambda *_: None, "range": range(3), "generator": (k for k in "ab"),
        "silent": Silent(), "long": Long(), "odd": Odd(),
        "scalar": torch.tensor(0.5), "empty": torch.zeros(0), "empty rows": torch.zeros(0, 4), "3 axes": torch.zeros(2, 3, 4),
        "nan tensor": torch.full((6, 4), math.nan), "whole": torch.zeros(6, 4, dtype=torch.int64), "complex tensor": torch.zeros(6, 4, dtype=torch.complex64),
        "bool tensor": torch.zeros(6, dtype=torch.bool), "half": torch.zeros(6, 4, dtype=torch.float16), "bytes tensor": torch.zeros(6, 4, dtype=torch.uint8),
        "classes": torch.full((6,), 99), "minus": torch.full((6,), -1),
        "module": model, "module class": nn.Linear, "parameter": nn.Parameter(torch.zeros(2)), "optimiser": torch.optim.SGD(model.parameters(), lr=0.1),
        "dtype": torch.int64, "device": torch.device("cpu"), "generator of torch": torch.Generator(),
        "recipe": bisam.SAM, "set of bisam": bisam.L2(), "loss": bisam.CrossEntropy(), "radius": bisam.Constant(0.1), "run": SMALL,
    }  # fmt: skip


# -- what is right --------------------------------------------------------------------------------------------------------


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))


X, Y = torch.linspace(-1, 1, 24).reshape(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
LOGITS = torch.linspace(-1, 1, 18).reshape(6, 3)
CE = bisam.CrossEntropy()
IMAGES = data.Split(torch.zeros(6, 1, 4, 4), Y)
TASK = data.Data("tiny", 3, IMAGES, IMAGES, IMAGES)
GREY = data.Split(torch.zeros(6, 1, 4, 4, dtype=torch.uint8), Y)
SAMPLES = {"x": X, "y": Y}


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def wrapped(**options):
    model = net()
    return bisam.SharpnessAware(sgd(model), **{"recipe": bisam.SAM, **options}), model


def step(batch=..., **more):
    opt, model = wrapped()
    return opt.step(bisam.Batch(model, X, Y) if batch is ... else batch, **more)


def learned(validation=...):
    opt, model = wrapped(recipe=bisam.methods.LETS_SAM)
    return opt.step(bisam.Batch(model, X, Y), validation=bisam.Batch(model, X, Y) if validation is ... else validation)


def backward(batch=..., **more):
    opt, model = wrapped()
    return opt.backward(bisam.Batch(model, X, Y) if batch is ... else batch, **more)


def perturbed(model=..., **more):
    opt, own = wrapped()
    CE(own(X), Y).backward()
    with opt.perturbed(own if model is ... else model, **more):
        pass


def closing(closure):
    opt, model = wrapped()
    opt.backward(bisam.Batch(model, X, Y))
    opt.step(closure=closure)


def held(model):
    with bisam.step.held_buffers(model):
        pass


def weights():
    return {name: p.detach() for name, p in net().named_parameters()}


def landscape(**more):
    model = net()
    w = bisam.measure.weights_of(model)
    line = bisam.measure.Subspace(w, {name: torch.ones_like(p) for name, p in w.items()})
    given = {"model": model, "subspace": line, "coordinates": [torch.zeros(1)], "inputs": X, "targets": Y, "metrics": {"ce": CE.per_sample}}
    return bisam.measure.landscape(**{**given, **more})


def group(**more):
    base = bisam.Variational([nn.Parameter(torch.zeros(2))])
    base.add_param_group({"params": [nn.Parameter(torch.zeros(2))], **more})


def run_notebook(**given):
    """The notebook runs only if all that is given is right; the last of it is wrong, so that it never does."""
    try:
        notebook.run(**{"name": "lower_bounds", "given": {"alpha": "-1"}, **given})
    except declarations.ParameterError as error:
        if "alpha must be in" not in str(error):
            raise


def held_lock(path):
    with files.held(path):
        pass


def replaced(**changes):
    return bisam.SAM.replace(**changes)


NOWHERE = Path(tempfile.mkdtemp())
CHECKPOINT = NOWHERE / "there.pt"
checkpoint.write(CHECKPOINT, bisam.training.Run().to_dict(), {"a": 1})
ROWS, DESCRIPTION = NOWHERE / "rows.pt", NOWHERE / "run.json"
checkpoint.write(ROWS, SMALL.identity(), {"rows": []})
DESCRIPTION.write_text("{}")
(NOWHERE / "claims.toml").write_text(
    '[experiment.try]\ntitle = "a small one"\nscale = "smoke"\nmethods = ["sam"]\nseeds = 1\nepochs = 1\n', encoding="utf-8"
)
CLAIM = claim.Claim("try/c", "try", "SAM is better.", "sam", "sgd", "last_test_accuracy", published={"table": "T1", "model": "Resnet-56"})
RECORDS = ledger.load("first_run")
PAIRED = statistics.paired([1.0, 2.0, 3.0, 2.0, 1.0, 2.0], [1.0, 2.5, 2.0, 1.0, 0.0, 1.0])
CANNOT = {"path": "cannot be written"}
WELCH = summaries.welch(1, 1, 3, 2, 1, 3)
FIT = {field.name: 95.0 for field in dataclasses.fields(verdicts.Fit)}
RHO = {"rho": 0.1}
SHARP = {"model": net, "loss": CE, **SAMPLES}
HESSIAN = {**SHARP, "ggn": False, "samples_at_a_time": 6, "batch_norm": "running", "seed": 0, "progress": False}
RISE = {**SHARP, "rho": 0.1, "geometry": None, "steps": 1, "samples_at_a_time": 6, "batch_norm": "running", "progress": False}
DECLARED = "n: int = 3  # seeds; allowed: [1, 9]"

def attends():
    """A network with a layer of attention."""
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return torch.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)


# Name to a call that works and its arguments; an argument that is a function of ours (net, ...) is made afresh.
GOOD = {
    "bisam.Constant": (bisam.Constant, RHO),
    "bisam.Schedule": (bisam.Schedule, {"steps": (0, 10), "rhos": (0.0, 0.1)}),
    "bisam.Schedule steps": (lambda step: bisam.Schedule((step, 9), (0.1, 0.2)), {"step": 0}, {"step": "steps"}),
    "bisam.Schedule rhos": (lambda rho: bisam.Schedule((0, 9), (0.1, rho)), {"rho": 0.1}, {"rho": "rhos"}),
    "bisam.ByLearningRate": (bisam.ByLearningRate, {"rho": 0.1, "least": 0.0, "lr_max": None, "lr_min": 0.0}),
    "bisam.Phase": (bisam.Phase, {"rho": 0.1, "start": 0, "every": 1}),
    "bisam.LossBudget": (bisam.LossBudget, {"budget": 0.1, "rho": 0.1, "hold": 1, "total": 5}),
    "bisam.Learned": (bisam.Learned, {"rho": 0.1, "rate": 1.0, "form": "exact", "every": 1, "least": 0.01, "most": 1.0}),
    "bisam.L2": (bisam.L2, {}),
    "bisam.axes.Unnormalised": (bisam.axes.Unnormalised, {}),
    "bisam.Lp": (bisam.Lp, {"p": 2.0}),
    "bisam.Adaptive": (bisam.Adaptive, {"eta": 0.01, "scaled": "all"}),
    "bisam.Masked": (bisam.Masked, {"inner": bisam.L2(), "keep": 0.5, "per": "tensor", "divisor": "kept"}),
    "bisam.Only": (bisam.Only, {"inner": bisam.L2(), "layers": "norm"}),
    "bisam.Averaged": (bisam.Averaged, {"gradient": 1.0, "average": 1.0, "decay": 0.5, "lagged": False, "start": "zero"}),
    "bisam.RandomStart": (bisam.RandomStart, {"scale": 0.1, "kept": True}),
    "bisam.MostSensitive": (bisam.MostSensitive, {"fraction": 0.5}),
    "bisam.TopK": (bisam.TopK, {"fraction": 0.5, "by": "descent"}),
    "bisam.Decomposed": (bisam.Decomposed, {"alpha": 0.1, "at_w": "ascent"}),
    "bisam.LookSAM": (bisam.LookSAM, {"every": 2, "alpha": 0.1, "at_w": "ascent"}),
    "bisam.methods.FirstGradientToBase": (bisam.methods.FirstGradientToBase, {"at_w": "ascent"}),
    "bisam.methods.Posterior": (bisam.methods.Posterior, {}),
    "bisam.methods.Precision": (bisam.methods.Precision, {}),
    "bisam.Variational": (
        lambda params=..., **more: bisam.Variational([nn.Parameter(torch.zeros(2))] if params is ... else params, **more),
        {"params": ..., "lr": 0.1, "betas": (0.9, 0.9), "samples": 10, "prior": None, "damping": 0.1, "precision": 1.0},
    ),
    "bisam.Variational beta": (lambda beta: bisam.Variational([nn.Parameter(torch.zeros(2))], betas=(0.9, beta)), {"beta": 0.9}, {"beta": "betas"}),
    "bisam.Variational.add_param_group": (group, {"lr": 0.1, "betas": (0.9, 0.9), "samples": 10, "prior": 0.1, "damping": 0.1, "precision": 1.0}),
    "bisam.NegLog": (bisam.NegLog, {"gamma": 1.0}),
    "bisam.Tanh": (bisam.Tanh, {"alpha": 1.0}),
    "bisam.CrossEntropy": (bisam.CrossEntropy, {"smoothing": 0.1, "convention": "all"}),
    "bisam.CrossEntropy.per_sample": (CE.per_sample, {"logits": LOGITS, "targets": Y}),
    "bisam.CrossEntropy.__call__": (CE, {"logits": LOGITS, "targets": Y}),
    "bisam.Surrogate": (bisam.Surrogate, {"phi": bisam.NegLog(), "mu": 1.0, "form": "boltzmann", "over": "rivals"}),
    "bisam.Surrogate.per_sample": (bisam.Surrogate().per_sample, {"logits": LOGITS, "targets": Y}),
    "bisam.Surrogate.__call__": (bisam.Surrogate(), {"logits": LOGITS, "targets": Y}),
    "bisam.losses.gap": (bisam.losses.gap, {"mu": 1.0, "classes": 3}),
    "bisam.losses.margins": (bisam.losses.margins, {"logits": LOGITS, "targets": Y}),
    "bisam.Multiclass": (bisam.Multiclass, {"axis": 1, "ignore_index": -100, "weight": (1.0, 2.0, 0.5)}),
    "bisam.Multiclass.mean": (bisam.Multiclass().mean, {"loss": CE, "logits": LOGITS, "targets": Y, "weights": None}),
    "bisam.Binary": (bisam.Binary, {"ignore_index": -1, "pos_weight": 2.0}),
    "bisam.losses.zero_one": (bisam.losses.zero_one, {"logits": LOGITS, "targets": Y, "ties": "right"}),
    "bisam.Recipe": (bisam.Recipe, {field.name: getattr(bisam.SAM, field.name) for field in dataclasses.fields(bisam.Recipe)}),
    "bisam.Recipe.replace": (replaced, {field.name: getattr(bisam.SAM, field.name) for field in dataclasses.fields(bisam.Recipe)}),
    "bisam.Recipe.with_rho": (bisam.SAM.with_rho, RHO),
    "bisam.Recipe.from_dict": (bisam.Recipe.from_dict, {"choices": bisam.SAM.to_dict()}),
    "bisam.Recipe.from_dict, a field": (
        lambda mu: bisam.Recipe.from_dict({**bisam.BISAM_LOG.to_dict(), "ascent": {"kind": "Surrogate", "mu": mu}}), {"mu": 1.0}, {"mu": "choices"},
    ),
    "bisam.recipe": (bisam.recipe, {"name": "sam"}, {"name": "recipe"}),
    "bisam.Batch": (
        bisam.Batch, {"model": net, "inputs": X, "targets": Y, "autocast": None, "task": bisam.Multiclass(), "forward": None, "weights": None, "extra": None},
    ),
    "bisam.Batch.subset": (lambda places: bisam.Batch(net(), X, Y).subset(places), {"places": torch.tensor([0, 2])}),
    "bisam.Batch.split": (lambda size: bisam.Batch(net(), X, Y).split(size), {"size": 2}),
    "bisam.Batch.logits": (lambda inputs, targets: bisam.Batch(net(), inputs, targets).logits(), {"inputs": X, "targets": Y}),
    "bisam.step.RNGState": (bisam.step.RNGState, {"device": "cpu"}),
    "bisam.step.held_buffers": (held, {"model": net}),
    "bisam.SharpnessAware": (
        lambda base=..., **more: bisam.SharpnessAware(sgd(net()) if base is ... else base, **more),
        {"base": ..., "recipe": bisam.SAM, "rho": None, "nonfinite": "raise", "seed": None, "per_worker": False, "record": False},
    ),
    "bisam.SharpnessAware.step": (step, {"validation": None, "scaler": None, "closure": None}),
    "bisam.SharpnessAware.step, learned": (learned, {"validation": ...}),
    "bisam.SharpnessAware.step, list": (lambda batch=...: step(batch if batch is ... else [batch]), {"batch": ...}, {"batch": "Batch"}),
    "bisam.SharpnessAware.step, closure": (closing, {"closure": None}),
    "bisam.SharpnessAware.backward": (backward, {"batch": ..., "validation": None, "scaler": None, "weight": 1.0}, {"batch": "Batch"}),
    "bisam.SharpnessAware.perturbed": (perturbed, {"model": ..., "noise": None}),
    "bisam.SharpnessAware.load_state_dict": (lambda state_dict: wrapped()[0].load_state_dict(state_dict), {"state_dict": wrapped()[0].state_dict()}),
    "bisam.axes.memory.Memory": (lambda base, seed: bisam.axes.memory.Memory(base, seed), {"base": sgd(net()), "seed": 0}),
    "bisam.measure.kl_inverse": (bisam.measure.kl_inverse, {"share": 0.2, "budget": 0.1}),
    "bisam.measure.loss_rise": (bisam.measure.loss_rise, RISE),
    "bisam.measure.loss_rise of mean squares": (bisam.measure.loss_rise, {**SAMPLES, "model": net, "loss": nn.MSELoss(), "y": LOGITS, "rho": 0.1}),
    "bisam.measure.m_sharpness": (bisam.measure.m_sharpness, {**RISE, "m": 3}),
    "bisam.measure.climb": (bisam.measure.climb, RISE),
    "bisam.measure.misclassified": (
        bisam.measure.misclassified, {"model": net, **SAMPLES, "perturbation": {"0.bias": torch.ones(3)}, "samples_at_a_time": 6, "batch_norm": "running"},
    ),
    "bisam.measure.misclassified, an entry": (
        lambda move: bisam.measure.misclassified(net(), X, Y, {"0.bias": move}), {"move": torch.ones(3)}, {"move": "perturbation"},
    ),
    "bisam.measure.top_eigenvalues": (bisam.measure.top_eigenvalues, {**HESSIAN, "k": 1, "which": "largest", "tolerance": 1e-3}),
    "bisam.measure.trace": (bisam.measure.trace, {**HESSIAN, "products": 60, "estimator": "hutch++"}),
    "bisam.measure.spectral_density": (bisam.measure.spectral_density, {**HESSIAN, "products": 3, "repeats": 1, "points": 8}),
    "bisam.measure.Subspace": (bisam.measure.Subspace, {"origin": weights(), "along": weights(), "across": None}),
    "bisam.measure.Subspace.at": (lambda a: bisam.measure.Subspace(weights(), weights()).at(a), {"a": 0.5}, {"a": "coordinates"}),
    "bisam.measure.line_between": (bisam.measure.line_between, {"start": weights(), "end": weights()}),
    "bisam.measure.plane_through": (
        bisam.measure.plane_through, {name: {"w": torch.tensor(w)} for name, w in (("first", [0.0, 0.0]), ("second", [3.0, 0.0]), ("third", [1.0, 2.0]))},
    ),
    "bisam.measure.landscape": (
        landscape,
        {"model": net, "subspace": ..., "coordinates": [torch.zeros(1)], "inputs": X, "targets": Y, "metrics": {"ce": CE.per_sample},
         "batch_norm": "running", "points_at_a_time": 1, "samples_at_a_time": None, "dtype": None, "progress": False},
    ),
    "bisam.measure.landscape, a metric": (lambda metric: landscape(metrics={"own": metric}), {"metric": CE.per_sample}, {"metric": "metrics"}),
    "bisam.measure.landscape, an axis": (lambda axis: landscape(coordinates=[axis]), {"axis": torch.zeros(1)}, {"axis": "coordinates"}),
    "bisam.measure.weights_of": (bisam.measure.weights_of, {"model": net}),
    "bisam.measure.gaussian": (bisam.measure.gaussian, {"model": net, "seed": 0}),
    "bisam.measure.normalised": (bisam.measure.normalised, {"direction": weights(), "weights": weights(), "by": "filter", "vectors": "zero"}),
    "bisam.training.Run": (bisam.training.Run, {field.name: getattr(bisam.training.Run(), field.name) for field in dataclasses.fields(bisam.training.Run)}),
    "bisam.training.Run.replace": (bisam.training.Run().replace, {"epochs": 3, "lr": 0.1}),
    "bisam.training.Run.task": (bisam.training.Run().task, {"root": None}),
    "bisam.training.Run.from_dict": (bisam.training.Run.from_dict, {"fields": bisam.training.Run().to_dict()}),
    "bisam.training.History.curve": (bisam.training.History(bisam.training.Run(epochs=1), [{"epoch": 1}]).curve, {"name": "epoch"}),
    "bisam.training.labelled": (bisam.training.labelled, {"run": bisam.training.Run(), "task": TASK, "part": "train"}),
    "bisam.training.weights_digest": (bisam.training.weights_digest, {"model": net}),
    "bisam.training.data.Split": (data.Split, {"inputs": X, "targets": Y}),
    "bisam.training.data.Data": (
        data.Data, {"name": "d", "classes": 3, "train": GREY, "validation": GREY, "test": GREY, "mean": (0.5,), "std": (0.5,)},
    ),
    "bisam.training.data.Data.prepared": (data.Data("d", 3, GREY, GREY, GREY, (0.5,), (0.5,)).prepared, {"inputs": GREY.inputs}),
    "bisam.training.data.check_name": (data.check_name, {"name": "digits"}, {"name": "data"}),
    "bisam.training.data.check_loading": (
        data.check_loading, {"name": "pets", "loading": "stream", "image_size": 32, "pool": 1}, {"name": "data"},
    ),
    "bisam.training.data.load": (
        data.load, {"name": "digits", "root": None, "train_images": None, "test_images": None, "split_seed": 0, "pool": 1, "loading": "device",
                    "image_size": None},
        {"name": "data"},
    ),
    "bisam.training.data.pooled": (data.pooled, {"images": torch.zeros(2, 1, 4, 4, dtype=torch.uint8), "pool": 2}),
    "bisam.training.data.symmetric_noise": (data.symmetric_noise, {"targets": Y, "rate": 0.5, "classes": 3, "seed": 0, "reading": "any"}),
    "bisam.training.augment.Augment": (augment.Augment, {"crop": 1, "flip": True, "cutout": 2, "cutout_probability": 0.5}),
    "bisam.training.augment.Augment.__call__": (
        augment.Augment(1, True, 2), {"inputs": IMAGES.inputs, "data": TASK, "generator": torch.Generator},
    ),
    "bisam.training.models.build": (models.build, {"name": "mlp", "shape": (1, 4, 4), "classes": 3, "root": None}, {"name": "model"}),
    "bisam.training.models.sources": (models.sources, {"name": "mlp", "root": None}, {"name": "model"}),
    "bisam.training.models.mlp": (models.mlp, {"shape": (4,), "classes": 3, "width": 2, "depth": 1, "dropout": 0.1}),
    "bisam.training.models.mlp, a size": (lambda size: models.mlp((size, 2), 3), {"size": 2}, {"size": "shape"}),
    "bisam.training.models.small_conv": (models.small_conv, {"shape": (1, 4, 4), "classes": 3, "width": 2}),
    "bisam.notebook.plots.style_of": (plots.style_of, {"method": "sam"}, {"method": "recipe"}),
    "bisam.notebook.results.Results": (results.Results, {"rows": [{"K": 3}], "caption": "Classes.", "formats": {}}),
    "bisam.notebook.results.show": (results.show, {"rows": [{"K": 3}], "caption": "Classes.", "formats": None}),
    "bisam.notebook.results.display": (results.display, {"found": results.Results([{"K": 3}], "Classes."), "text": "K = 3"}),
    "bisam.training.fit": (
        bisam.training.fit,
        {"run": SMALL, "checkpoint_path": None, "root": None, "progress": False, "stop_after": None,
         "minutes": None, "loaders": None},
        {"checkpoint_path": "checkpoint"},
    ),
    "bisam.notebook.run.run": (run_notebook, {"name": "lower_bounds", "output": None, "progress": False, "replace": False, "figures": None, "html": False}, {"name": "notebook"}),
    "bisam.notebook.find.find": (find.find, {"name": "first_run"}, {"name": "notebook"}),
    "bisam.notebook.declarations.Parameter": (declarations.Parameter, {"name": "n", "kind": "int", "default": 3, "help": "h", "allowed": "[1, 9]"}),
    "bisam.notebook.declarations.Parameter.check": (declarations.declared(DECLARED)["n"].check, {"value": 3}, {"value": "n"}),
    "bisam.notebook.parameters.check": (parameters.check, {"parameters": declarations.declared(DECLARED), "values": {"n": 3}},
                               {"parameters": "parameter", "values": "parameter"}),
    "bisam.notebook.page.begin": (page.begin, {"namespace": {"In": [DECLARED], "n": 3}, "name": "first_run"}),
    "bisam.notebook.page.Page.claims": (page.begin({"In": [DECLARED], "n": 3}, "first_run").claims, {"rows": {"a": (True, True)}}),
    "bisam.notebook.page.publish": (page.publish, {"name": "claims", "rows": [{"claim": "a"}]}),
    "bisam.notebook.own.own_rows": (own.own_rows, {"values": {"sam": [1.0, 2.0], "sgd": [1.0, 2.5]}, "pairs": [("sam", "sgd")], "names": {"sam": "SAM"}}),
    "bisam.notebook.declarations.declared": (declarations.declared, {"source": DECLARED}),
    "bisam.notebook.parameters.from_notebook": (parameters.from_notebook, {"path": find.find("first_run")}),
    "bisam.notebook.parameters.from_text": (parameters.from_text, {"parameters": declarations.declared(DECLARED), "given": {"n": "3"}},
                                   {"parameters": "parameter", "given": "parameter"}),
    "bisam.notebook.parameters.from_text, a value": (
        lambda value: parameters.from_text(declarations.declared(DECLARED), {"n": value}), {"value": "3"}, {"value": "n"},
    ),
    "bisam.notebook.parameters.table": (parameters.table, {"parameters": declarations.declared(DECLARED)}),
    "bisam.evidence.statistics.paired": (statistics.paired, {"ours": [1.0, 2.0, 3.0], "theirs": [1.0, 2.5, 2.0]}),
    "bisam.evidence.summaries.welch": (summaries.welch, {"mean1": 1.0, "std1": 1.0, "n1": 3, "mean2": 1.0, "std2": 1.0, "n2": 3}),
    "bisam.evidence.summaries.pooled": (summaries.pooled, {"comparisons": [summaries.welch(1, 1, 3, 2, 1, 3)] * 2}),
    "bisam.evidence.experiment.method": (experiment.method, {"name": "sam"}, {"name": "method"}),
    "bisam.evidence.listing.experiments": (listing.experiments, {"folder": NOWHERE}, {"folder": "claims"}),
    "bisam.evidence.listing.experiment": (listing.experiment, {"name": "try", "folder": NOWHERE}, {"name": "experiment", "folder": "claims"}),
    "bisam.evidence.listing.claims": (listing.claims, {"name": "try", "folder": NOWHERE}, {"name": "experiment", "folder": "claims"}),
    "bisam.evidence.ledger.is_recorded": (ledger.is_recorded, {"name": "first_run", "file": "x", "folder": places.RESULTS}),
    "bisam.evidence.ledger.load": (ledger.load, {"name": "nothing", "folder": places.RESULTS}),
    "bisam.evidence.ledger.read": (ledger.read, {"path": places.RESULTS / "runs" / "first_run" / "sam-noise40-seed0.json"},
                          {"path": "read"}),
    "bisam.training.environment.environment": (environment.environment, {"device": "cpu", "seconds": 1.0, "precision": "float32"}),
    "bisam.training.environment.differences": (environment.differences, {"there": {"torch": "1"}, "here": {"torch": "2"}}),
    "bisam.evidence.published.published": (published.published, {"table": "T1"}),
    "bisam.evidence.published.published_effect": (published.published_effect, {"claim": CLAIM}),
    "bisam.evidence.published.published_difference": (published.published_difference, {"claim": CLAIM}),
    "bisam.evidence.selection.entries": (selection.entries, {"records": RECORDS, "method": "sam", "place": {"label_noise": 0.4}}),
    "bisam.evidence.selection.series": (
        selection.series, {"records": RECORDS, "method": "sam", "metric": "last_test_accuracy", "place": {"label_noise": 0.4}},
    ),
    "bisam.evidence.decisions.decide": (decisions.decide, {"claim": CLAIM, "folder": NOWHERE}, {"folder": "claims"}),
    "bisam.evidence.decisions.decisions": (decisions.decisions, {"name": "try", "folder": NOWHERE}, {"name": "experiment", "folder": "claims"}),
    "bisam.evidence.report.counted": (report.counted, {"words": ["holds"]}),
    "bisam.evidence.report.markdown": (report.markdown, {"found": []}),
    "bisam.evidence.report.write": (report.write, {"found": [], "path": NOWHERE / "claims.csv"}, {"path": "output"}),
    "bisam.evidence.crossed.crossed": (crossed.crossed, {"ours": [[True, False], [True, True]], "theirs": [[False, False], [True, False]]}),
    "bisam.evidence.power.power": (power.power, {"effect": 1.2, "pairs": 6, "fewest": 6}),
    "bisam.evidence.power.detectable": (power.detectable, {"pairs": 6, "chance": 0.8, "fewest": 6}),
    "bisam.evidence.power.unpaired_detectable": (power.unpaired_detectable, {"comparison": WELCH, "chance": 0.8}),
    "bisam.evidence.verdicts.Published": (verdicts.Published, {"effect": 0.2, "comparison": WELCH}),
    "bisam.evidence.verdicts.Fit": (verdicts.Fit, FIT),
    "bisam.evidence.verdicts.direction": (verdicts.direction, {"ours": PAIRED, "fewest": 6}),
    "bisam.evidence.verdicts.prediction_interval": (verdicts.prediction_interval, {"ours": PAIRED, "published": verdicts.Published(0.2, WELCH)}),
    "bisam.evidence.verdicts.verdict": (
        verdicts.verdict, {"ours": PAIRED, "published": verdicts.Published(0.2, WELCH), "fewest": 6, "fit": verdicts.Fit(**FIT)},
    ),
    "bisam.evidence.statistics.within_family": (statistics.within_family, {"p": [0.01, 0.04]}),
    "bisam.evidence.earlier_rule.earlier_verdict": (earlier_rule.earlier_verdict, {"ours": PAIRED, "published_effect": 0.2}),
    "bisam.evidence.verify.verify": (verify.verify, {"folder": NOWHERE, "progress": False}),
    "bisam._files.safe_name": (files.safe_name, {"what": "file", "name": "a-b"}, {"name": "file"}),
    "bisam._files.check_writable": (files.check_writable, {"path": NOWHERE / "a"}, CANNOT),
    "bisam._files.write_whole": (files.write_whole, {"path": NOWHERE / "a", "data": "{}"}, CANNOT),
    "bisam._files.write_new": (
        lambda path=None, data="{}": files.write_new(Path(tempfile.mkdtemp()) / "a" if path is None else path, data), {"path": ..., "data": "{}"}, CANNOT,
    ),
    "bisam._files.held": (held_lock, {"path": NOWHERE / "lock"}, CANNOT),
    "bisam.measure.attention": (bisam.measure.attention, {"model": attends, "inputs": torch.zeros(1, 3, 8)}),
    "bisam.measure.looks": (bisam.measure.looks, {"maps": torch.full((1, 1, 1, 3, 3), 1 / 3), "layer": -1}),
    "bisam.measure.concentration": (bisam.measure.concentration, {"p": torch.full((1, 2), 0.5)}),
    "bisam.measure.agreement": (bisam.measure.agreement, {"looks": torch.full((2, 1, 2), 0.5)}),
    "bisam.training.processes.Stopped": (processes.Stopped, {"number": 15}),
    "bisam.training.environment.made_on_by": (environment.made_on_by, {"run": SMALL, "seconds": 1.0, "root": None}),
    "bisam.training.environment.threads_held": (lambda count: environment.threads_held(count).__enter__(), {"count": 1}),
    "bisam.training.models.check_name": (models.check_name, {"name": "mlp"}, {"name": "model"}),
    "bisam.training.models.from_file": (models.from_file, {"name": "mlp"}, {"name": "model"}),
    "bisam.training.models.find": (models.find, {"name": "mlp"}, {"name": "model"}),
    "bisam.evidence.descriptions.Description": (descriptions.Description, {"fields": {"epochs": 1}, "threads": 1}, {"fields": "a name among the fields"}),
    "bisam.evidence.descriptions.read": (descriptions.read, {"path": DESCRIPTION}, {"path": "the ending"}),
    "bisam.evidence.descriptions.recipe_from": (descriptions.recipe_from, {"value": "sam"}, {"value": "recipe"}),
    "bisam.evidence.descriptions.changed": (descriptions.changed, {"method": bisam.SAM, "settings": {"radius.rho": 0.2}}, {"settings": "cannot be set"}),
    "bisam.evidence.descriptions.changed, a value": (lambda value: descriptions.changed(bisam.SAM, {"radius.rho": value}), {"value": 0.2}, {"value": "rho"}),
    "bisam.evidence.descriptions.value_of": (descriptions.value_of, {"text": "2"}),
    "bisam.evidence.descriptions.export": (descriptions.export, {"planned": [], "folder": NOWHERE, "results": NOWHERE}),
    "bisam.evidence.own_ledger.derive": (
        own_ledger.derive, {"folder": NOWHERE / "own", "settings": {"precision": "bfloat16"}, "names": (), "results": NOWHERE}, {"results": "claims"},
    ),
    "bisam.evidence.own_ledger.check_planned": (own_ledger.check_planned, {"planned": [], "settings": {}, "folder": NOWHERE}),
    "bisam.training.own_code.path_of": (own_code.path_of, {"kind": "model", "name": "a.b:c"}),
    "bisam.training.own_code.names": (own_code.names, {"kind": "model"}),
    "bisam.training.own_code.function": (own_code.function, {"kind": "model", "path": "bisam.training.models:mlp"}),
    "bisam.training.own_code.sources": (own_code.sources, {"model": "mlp", "data": "digits"}),
    "bisam.training.metrics.Log": (metrics.Log, {"earlier": net, "logs": []}),
    "bisam.training.metrics.Table": (metrics.Table, {"path": NOWHERE / "m.csv", "made_on": {}}),
    "bisam.training.metrics.earlier_rows": (metrics.earlier_rows, {"path": ROWS, "run": SMALL}, {"path": "checkpoint_path", "run": "checkpoint_path"}),
    "bisam.training.checkpoint.made_on": (checkpoint.made_on, {"path": CHECKPOINT}, {"path": "checkpoint_path"}),
    "bisam.evidence.plans.Settings": (
        plans.Settings, {"workers": 1, "device": "cpu", "root": None, "minutes": None, "folder": NOWHERE, "checkpoints": NOWHERE},
    ),
    "bisam.evidence.plans.Planned": (
        plans.Planned, {"experiment": "try", "file": "sam", "run": SMALL, "recorded": False, "words": {}},
    ),
    "bisam.evidence.plans.plan": (
        plans.plan, {"name": "try", "scale": None, "seeds": None, "only": (), "folder": NOWHERE}, {"folder": "claims"},
    ),
    "bisam.evidence.plans.home": (plans.home, {"chosen": listing.experiment("try", NOWHERE), "folder": NOWHERE}),
    "bisam.evidence.sbatch.Options": (sbatch.Options, {"pack": 1, "minutes": 60, "grace": 9.0, "retries": 2, "at_once": None, "sbatch": {}}),
    "bisam.evidence.cluster.Request": (cluster.Request, {"name": "T1", "settings": plans.Settings(), "options": sbatch.Options(), "device": "cpu"}),
    "bisam.evidence.cluster.submit": (cluster.submit, {"planned": [], "request": cluster.Request("T1", plans.Settings(), sbatch.Options())}),
    "bisam.evidence.cluster.to_submit": (cluster.to_submit, {"planned": [], "request": cluster.Request("T1", plans.Settings(), sbatch.Options())}),
    "bisam.evidence.cluster.preview": (cluster.preview, {"packs": [], "request": cluster.Request("T1", plans.Settings(), sbatch.Options())}),
    "bisam.evidence.cluster.cancel": (cluster.cancel, {"folder": NOWHERE, "planned": None}),
    "bisam.evidence.arrays.find": (arrays.find, {"folder": NOWHERE, "planned": []}, {"folder": "claims"}),
    "bisam.evidence.arrays.place": (arrays.place, {"folder": NOWHERE}),
    "bisam.evidence.prices.hours": (prices.hours, {"planned": [], "settings": plans.Settings()}),
    "bisam.evidence.prices.prices": (prices.prices, {"planned": [], "settings": plans.Settings()}),
    "bisam.evidence.reproduce.carry_out": (reproduce.carry_out, {"planned": [], "settings": plans.Settings(), "progress": False}),
    "bisam.training.checkpoint.check_writable": (checkpoint.check_writable, {"path": NOWHERE / "c.pt"}, {"path": "checkpoint_path"}),
    "bisam.training.checkpoint.read": (checkpoint.read, {"path": CHECKPOINT, "run": bisam.training.Run().to_dict()}, {"path": "checkpoint_path", "run": "checkpoint_path"}),
    "bisam.training.checkpoint.write": (checkpoint.write, {"path": NOWHERE / "d.pt", "run": bisam.training.Run().to_dict(), "state": {}}, {"path": "checkpoint_path"}),
}


def on_meta(name):
    """A large network without its weights."""

    def made(**given):
        with torch.device("meta"):
            return getattr(models, name)(**given)

    return made


IMAGE_NETS = {
    "airbench": {"widths": (8, 8, 8)}, "cifar_resnet": {"depth": 8, "shortcut": "A"}, "densenet121": {}, "resnet18": {}, "resnet50": {}, "vgg19_bn": {}, "vit_b_16": {}, "vit_tiny": {},
    "wide_resnet": {"depth": 10, "width": 1},
}  # fmt: skip
GOOD |= {f"bisam.training.models.{name}": (on_meta(name), {"shape": (3, 32, 32), "classes": 3, **more}) for name, more in IMAGE_NETS.items()}


# Public names without a call in the table, and why.
NOT_CALLED = {
    "holds what the library has made, and is given back as it is": (
        "bisam.step.Diagnostics", "bisam.measure.Flips", "bisam.training.History", "bisam.notebook.plots.MethodStyle", "bisam.evidence.crossed.Crossed", "bisam.evidence.statistics.Paired",
        "bisam.evidence.summaries.Unpaired", "bisam.evidence.summaries.Pooled", "bisam.evidence.decisions.Decision", "bisam.evidence.verify.Verified",
        "bisam.notebook.page.Page", "bisam.losses.Rows",
    ),
    "takes nothing": (
        "bisam.notebook.results.is_notebook",
        "bisam.axes.RandomDirection", "bisam.training.data.digits", "bisam.notebook.find.checkout", "bisam.notebook.find.names", "bisam.notebook.plots.style", "bisam.losses.bounds.Identity", "bisam.training.environment.commit",
        "bisam.training.processes.follow_parent", "bisam.training.processes.kill_started", "bisam.training.processes.signals_held_back", "bisam.training.processes.stoppable",
    ),
    "a formula on a tensor, inside every pass": ("bisam.losses.bounds.heaviside", "bisam.axes.tensors.euclidean_norm", "bisam.axes.tensors.dot"),
    "answers whether whatever it is asked about has a form": ("bisam.training.own_code.is_path", "bisam.methods.is_recipe"),
    "needs a library that is not always there": ("bisam.training.metrics.EventFiles", "bisam.training.metrics.Tracked"),
    "is given what a run holds, which was checked when it was made": (
        "bisam.training.accuracy", "bisam.training.equal_budget", "bisam.training.which_right",
    ),
    "takes runs, each of which is checked when it is made": ("bisam.training.fit_side_by_side",),
    "a type to inherit from": ("bisam.losses.bounds.Bound",),
}
# What some arguments take among the hostile values.
ACCEPTED = {
    ("bisam.Constant", "rho"): ["5", "0", "2.5", "1e308", "fraction", "numpy float", "numpy int"],
    ("bisam.Learned", "rho"): ["fraction", "numpy float"],
    ("bisam.Lp", "p"): ["5", "2.5", "inf", "1e308", "numpy int"],
    ("bisam.TopK", "fraction"): ["fraction", "numpy float"],
    ("bisam.Phase", "every"): ["5", "numpy int"],
    ("bisam.Masked", "inner"): ["set of bisam"],
    ("bisam.Recipe", "name"): ["text", "no text"],
    ("bisam.Recipe", "ascent"): ["None", "loss"],
    ("bisam.Recipe", "descent"): ["loss"],
    ("bisam.Recipe", "geometry"): ["set of bisam"],
    ("bisam.Recipe", "radius"): ["radius"],
    ("bisam.Recipe", "start"): ["None"],
    ("bisam.Recipe", "micro_batch"): ["None", "5", "numpy int"],
    ("bisam.Recipe", "same_noise"): ["True"],
    ("bisam.Recipe", "ascent_steps"): ["5", "numpy int"],
    ("bisam.Recipe.from_dict", "choices"): [],
    ("bisam.SharpnessAware", "recipe"): ["recipe"],
    ("bisam.SharpnessAware.step", "validation"): ["None"],
    ("bisam.SharpnessAware.step", "scaler"): ["None"],
    ("bisam.SharpnessAware.perturbed", "model"): [],
    ("bisam.Variational", "betas"): [],
    ("bisam.measure.misclassified", "perturbation"): [],
    ("bisam.training.Run", "recipe"): ["recipe"],
    ("bisam.training.Run", "momentum"): ["None", "0", "fraction", "numpy float"],
    ("bisam.training.Run.from_dict", "fields"): [],
    ("bisam.training.models.mlp", "depth"): ["5", "0", "numpy int"],
    ("bisam.training.data.Data", "classes"): ["5", "numpy int"],
    ("bisam.training.fit", "progress"): ["True"],
}


def fresh(value):
    return value() if any(value is maker for maker in (net, attends, torch.Generator)) else value


def message_of(error):
    """What an error says, with its notes; some cannot even be shown."""
    try:
        return "\n".join([str(error), *getattr(error, "__notes__", ())])
    except Exception as other:
        return f"cannot be shown: {type(other).__name__}"


def outcome(name, argument, value):
    """``"accepted"``, ``"clear"``, or what is wrong with the error."""
    call, given, *called = GOOD[name]
    words = {argument, (called[0] if called else {}).get(argument, argument)}
    arguments = {key: fresh(default) for key, default in given.items() if default is not ...}
    arguments[argument] = value
    try:
        call(**arguments)
    except Exception as error:
        said = message_of(error)
        named = any(re.search(rf"\b{re.escape(word)}\b", said) for word in words)
        own = (*OWN, OSError) if name.startswith("bisam._files.") else OWN  # a file system's own error comes with the path
        foreign = bool(getattr(error, "__notes__", ()))  # a network's, a loss's or a metric's own error
        if named and (isinstance(error, (TypeError, ValueError, *own)) or foreign) and len(said) < 2000:
            return "clear"
        return f"{type(error).__name__}: {said[:150]!r}"
    return "accepted"


def resolved(name):
    """The thing of that dotted name."""
    module, _, attribute = name.rpartition(".")
    owner = resolved(module) if module else None
    return getattr(owner, attribute) if hasattr(owner, attribute) else importlib.import_module(name)


def test_all_public_callables_are_called():
    titles = [*GOOD, *(name for names in NOT_CALLED.values() for name in names)]
    known = [resolved(re.match(r"[\w.]+", title)[0]) for title in titles]
    missing = set()
    for module in MODULES:
        owner = resolved(module)
        for name in owner.__all__:
            part = getattr(owner, name)
            is_error = inspect.isclass(part) and issubclass(part, Exception)
            is_type = getattr(part, "_is_protocol", False)  # to inherit from
            is_row = isinstance(part, bisam.Recipe)  # which can be called only to hear what to call instead
            if callable(part) and not is_error and not is_type and not is_row and not any(part is one for one in known):
                missing.add(f"{module}.{name}")
    assert not missing


def test_the_call_that_works_works():
    for call, given, *_ in GOOD.values():
        call(**{key: fresh(value) for key, value in given.items() if value is not ...})  # an error has the call in its traceback


@pytest.mark.slow
def test_a_wrong_value_is_taken_or_refused_by_name(tmp_path, monkeypatch):
    counts, obscure = {"accepted": 0, "clear": 0, "obscure": 0}, []
    for k, (name, (_, given, *_)) in enumerate(GOOD.items()):
        folder = tmp_path / str(k)  # some of the values are fine paths
        folder.mkdir()
        monkeypatch.chdir(folder)
        for argument in given:
            for title, value in hostile().items():
                found = outcome(name, argument, value)
                counts[found if found in counts else "obscure"] += 1
                if found not in counts:
                    obscure.append(f"{name}({argument}={title}): {found}")
    assert not obscure, f"{sum(counts.values())} calls: {counts}\n" + "\n".join(obscure)
    assert sum(counts.values()) > 20_000 and counts["accepted"] < counts["clear"] / 20, counts


@pytest.mark.parametrize("name, argument", ACCEPTED)
def test_what_is_accepted_is_what_was_looked_at(name, argument, tmp_path, monkeypatch):
    """The values that each argument takes, looked through by eye; a new one has to be looked at too."""
    monkeypatch.chdir(tmp_path)
    found = [title for title, value in hostile().items() if outcome(name, argument, value) == "accepted"]
    assert found == ACCEPTED[name, argument]
