"""The training steps that the chapters show: BiSAM and SAM written out, and their short forms with the library.

Chapters include the lines between the markers. Each function makes the same step as `bisam.SharpnessAware.step`, bit
for bit, on a network without dropout and batch norm.
"""

import torch
from torch.func import functional_call

import bisam


def bisam_step(model, x, y, ascent, descent, sgd, rho):
    """One step of Algorithm 1: `ascent` is raised, `descent` is lowered. With the same loss twice it is SAM."""
    sgd.zero_grad()
    # [start bisam_step]
    # line 3: the gradient of the ascent loss at w
    w = dict(model.named_parameters())
    g = torch.autograd.grad(ascent(model(x), y), list(w.values()))
    # line 4: the point w + epsilon, at the distance rho from w
    scale = rho / torch.stack([part.norm() for part in g]).norm()
    there = {k: p + scale * d for (k, p), d in zip(w.items(), g, strict=True)}
    # line 5: the gradient of the descent loss at that point
    descent(functional_call(model, there, (x,)), y).backward()
    # line 6: the weights move from w, not from w + epsilon
    sgd.step()
    # [end bisam_step]


def sam_step(model, x, y, loss, opt):
    """One step of SAM, spelled out with the block that holds the weights at w + epsilon and brings them back."""
    # [start sam_step]
    opt.zero_grad()                     # opt = bisam.SharpnessAware(sgd, bisam.SAM)
    loss(model(x), y).backward()        # the gradient at w says which way is up
    with opt.perturbed(model):          # climb to w + epsilon ...
        loss(model(x), y).backward()    # ... and take the gradient there
    opt.step()                          # back at w: descend with that gradient
    # [end sam_step]


def train_epoch(model, loader, sgd):
    """One epoch of BiSAM with the library; returns the descent loss of each step."""
    losses = []
    # [start two lines]
    opt = bisam.SharpnessAware(sgd, bisam.BISAM_LOG)
    for x, y in loader:
        loss = opt.step(bisam.Batch(model, x, y))
        # [end two lines]
        losses.append(loss)
    return losses


def control_recipe():
    """SAM whose ascent, like that of BiSAM, is free of label smoothing, while its descent is smoothed."""
    # [start control]
    plain = bisam.CrossEntropy()
    smoothed = bisam.CrossEntropy(smoothing=0.1, convention="others")
    control = bisam.SAM.replace(name="control", ascent=plain, descent=smoothed)
    # [end control]
    return control
