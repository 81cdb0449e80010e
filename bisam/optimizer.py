r"""The step of every method: climb from w to the edge of the ball, take the gradient there, let the base move w.

.. math:: \epsilon_t = \arg\max_{\|\epsilon\| \le \rho} \langle \nabla A(w_t), \epsilon\rangle, \qquad
    w_{t+1} = \mathrm{base}\big(w_t, \nabla L(w_t + \epsilon_t)\big)
"""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from . import _checks
from .batch import Batch, Noise, held_buffers
from .geometry import Tensors, euclidean_norm
from .recipe import SAM, Recipe

__all__ = ["SharpnessAware"]


class SharpnessAware(torch.optim.Optimizer):
    r"""Any torch optimiser, with its gradient taken at the worst point nearby.

    .. math:: w_{t+1} = \mathrm{base}\big(w_t, \nabla L(w_t + \epsilon_t)\big), \qquad
        \epsilon_t = \arg\max_{\|\epsilon\| \le \rho} \langle \nabla A(w_t), \epsilon\rangle

    Two styles. In the first, :meth:`step` takes a :class:`~bisam.batch.Batch` and does all. In the second the loop is yours
    and :meth:`perturbed` is the block in which the weights stand at :math:`w_t + \epsilon_t`.

    The wrapper stores no weights and shares the base's parameter groups and state, so schedulers attach to either.

    Args:
        base: the optimiser that moves the weights.
        recipe: what is raised, where, how far, and what descends.
        nonfinite: what to do when a gradient of either pass holds inf or NaN. ``"raise"`` raises; ``"skip"`` skips
            the step, counts it in ``skipped`` and warns the first time. The weights are back in both cases.

    Raises:
        TypeError, ValueError: a base that is no optimiser, an unknown ``nonfinite``, something that is no recipe.

    Source:
        Foret et al. (2021), algorithm 1; Xie et al. (2024), algorithm 1.

    Example:
        >>> from bisam import Batch, BISAM_LOG
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Linear(2, 2)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.5)
        >>> opt = SharpnessAware(sgd, BISAM_LOG)
        >>> x, y = torch.eye(2), torch.tensor([0, 1])
        >>> losses = [opt.step(Batch(model, x, y)).item() for _ in range(20)]
        >>> losses[0] > 0.6, losses[-1] < 0.2
        (True, True)
    """

    def __init__(self, base: torch.optim.Optimizer, recipe: Recipe = SAM, *, nonfinite: str = "raise"):
        if not isinstance(base, torch.optim.Optimizer) or isinstance(base, SharpnessAware):
            raise TypeError(f"base must be a torch optimiser that is not wrapped yet, got {type(base).__name__}")
        if not isinstance(recipe, Recipe):
            raise TypeError(f"recipe must be a bisam.Recipe, such as bisam.SAM; got {recipe!r}")
        if isinstance(base, torch.optim.LBFGS):
            raise TypeError("base must make its step from one gradient; LBFGS evaluates the loss itself")
        _checks.choice("nonfinite", nonfinite, ("raise", "skip"))
        # Optimizer.__init__ is left out on purpose: it would make a second set of parameter groups.
        self.__setstate__({"base": base, "recipe": recipe, "nonfinite": nonfinite, "skipped": 0})

    # -- the step -------------------------------------------------------------------------------------------------

    def step(self, batch: Batch | None = None) -> Tensor | None:
        """One update of the weights.

        Args:
            batch: what to descend on. Without one this is the last line of the spelled-out style: the base moves
                the weights by the gradients that a :meth:`perturbed` block has left.

        Returns:
            The descent loss at w before the update, a scalar without a graph; ``None`` without a batch.

        Raises:
            TypeError: ``batch`` is not a :class:`~bisam.batch.Batch`.
            RuntimeError: no batch, and no ``perturbed`` block since the last step.
            FloatingPointError: a gradient is not finite and ``nonfinite="raise"``; the weights are as before.
        """
        if batch is None:
            return self._step_after_block()
        if not isinstance(batch, Batch):
            raise TypeError(f"step needs a bisam.Batch(model, inputs, targets), got {type(batch).__name__}")
        if not isinstance(batch.model, nn.Module):  # its parameters and buffers have to be found
            raise TypeError(f"the model of the batch must be a torch.nn.Module, got {type(batch.model).__name__}")
        self.zero_grad()
        loss = self._two_passes(batch) if self.recipe.passes == 2 else self._one_pass(batch)
        self.base.step()
        return loss

    def _two_passes(self, batch: Batch) -> Tensor:
        descent, raised = self.recipe.descent, self.recipe.raised
        noise = batch.noise() if self.recipe.same_noise else None
        logits = batch.logits()
        batch.at_w = logits.detach()
        ascent_loss = raised.values(logits, batch.targets).mean()
        ascent_loss.backward()
        with self._at_worst_point(batch.model, noise):
            descent.values(batch.logits(), batch.targets).mean().backward()
        if raised is descent:
            return ascent_loss.detach()
        return descent.values(batch.at_w, batch.targets).mean()

    def _one_pass(self, batch: Batch) -> Tensor:
        logits = batch.logits()
        batch.at_w = logits.detach()
        loss = self.recipe.descent.values(logits, batch.targets).mean()
        loss.backward()
        self._keep_if_finite({"descent": euclidean_norm(self._gradients(_names(batch.model)))})
        return loss.detach()

    def _step_after_block(self) -> None:
        if not self._climbed:
            raise RuntimeError(
                "step() without a batch must follow a `with opt.perturbed(model):` block; "
                "otherwise the base optimiser would run alone under another name"
            )
        self.base.step()

    @contextmanager
    def perturbed(self, model: nn.Module, noise: Noise | None = None) -> Iterator[None]:
        r"""Inside, the weights stand at :math:`w + \epsilon`; after it they are bitwise back, come what may.

        The gradients found on entering are those of the ascent loss: the climb uses them up, so that after the block
        the parameters hold the gradients computed inside it, and only those.

        Args:
            model: its buffers (batch-norm statistics) are held during the block.
            noise: a :class:`~bisam.batch.Noise` taken before the first pass; the block then draws the same dropout masks.
                Needed if the model draws noise, unless the recipe says ``same_noise=False``.

        Raises:
            RuntimeError: no parameter has a gradient: call ``backward`` on the ascent loss first.
            ValueError: the model draws dropout masks and ``noise`` was not given.
            FloatingPointError: a gradient is not finite and ``nonfinite="raise"``.

        Example:
            >>> from bisam import BISAM_LOG, CrossEntropy
            >>> model = nn.Linear(2, 2)
            >>> sgd = torch.optim.SGD(model.parameters(), lr=0.5)
            >>> opt = SharpnessAware(sgd, BISAM_LOG)
            >>> x, y = torch.eye(2), torch.tensor([0, 1])
            >>> ascent, descent = BISAM_LOG.ascent, CrossEntropy()
            >>> ascent(model(x), y).backward()
            >>> with opt.perturbed(model):
            ...     descent(model(x), y).backward()
            >>> sgd.step(); sgd.zero_grad()
        """
        if noise is None and self.recipe.same_noise and _draws_noise(model):
            raise ValueError(
                "noise must be given for a model with active dropout: take noise = bisam.Noise(device) before the "
                "first pass and call perturbed(model, noise); or use a recipe with same_noise=False"
            )
        with self._at_worst_point(model, noise if self.recipe.same_noise else None):
            yield

    @contextmanager
    def _at_worst_point(self, model: nn.Module, noise: Noise | None) -> Iterator[None]:
        names = _names(model)
        gradient = self._gradients(names)
        if not gradient:
            raise RuntimeError(
                "no parameter of the base optimiser has a gradient: call backward() on the ascent loss first, "
                "of a model whose parameters the base holds"
            )
        weights = {name: parameter for name, parameter in self._named_parameters(names) if name in gradient}
        size = self.recipe.geometry.dual_norm(gradient, weights)
        climb = self.recipe.geometry.perturbation(gradient, weights, self.recipe.radius.rho, size)
        moved = list(weights.values())
        with torch.no_grad():
            start = [weight.clone() for weight in moved]
        self.zero_grad()
        if _is_known_not_finite(size):
            if self.nonfinite == "raise":
                self._keep_if_finite({"ascent": size})
            climb = {}  # the block runs at w, and its gradients are dropped
        try:
            with torch.no_grad():
                if climb:
                    torch._foreach_add_(moved, [climb[name] for name in weights])
            del climb, gradient
            with held_buffers(model), nullcontext() if noise is None else noise.replayed():
                yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(moved, start)
        self._climbed = True
        self._keep_if_finite({"ascent": size, "descent": euclidean_norm(self._gradients())})

    def _keep_if_finite(self, norms: dict[str, Tensor]) -> None:
        """Drops the gradients if a norm is not finite: a base optimiser leaves parameters without one alone."""
        device = next(iter(norms.values())).device
        if torch.isfinite(torch.stack([norm.detach().to(device) for norm in norms.values()])).all():
            return
        self.zero_grad()
        bad = " and ".join(name for name, norm in norms.items() if not torch.isfinite(norm))
        message = f"the {bad} gradient of {self.recipe.name} holds inf or NaN; the weights are as before the step"
        if self.nonfinite == "raise":
            raise FloatingPointError(message + "; look for inf or NaN among the inputs and logits")
        self.skipped += 1
        if self.skipped == 1:
            message += "; the step is skipped, later ones are only counted"
            warnings.warn(message, RuntimeWarning, stacklevel=_levels_to_the_caller())

    def _forget_block(self) -> None:
        self._climbed = False

    # -- parameters -----------------------------------------------------------------------------------------------

    def _named_parameters(self, names: dict[nn.Parameter, str]) -> Iterator[tuple[str, nn.Parameter]]:
        """The base's parameters by the names that the model gives them; by place for those that it does not hold."""
        for g, group in enumerate(self.param_groups):
            for k, parameter in enumerate(group["params"]):
                yield names.get(parameter, f"parameter {k} of group {g}"), parameter

    def _gradients(self, names: dict[nn.Parameter, str] | None = None) -> Tensors:
        found = {name: p.grad for name, p in self._named_parameters(names or {}) if p.grad is not None}
        for name, gradient in found.items():
            if gradient.is_sparse:
                raise TypeError(f"parameter {name} has a sparse gradient; use sparse=False in its embedding")
        return found

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients of all parameters."""
        self.base.zero_grad(set_to_none)

    # -- one optimiser to the outside: groups, state and hooks are the base's ---------------------------------------

    @property
    def param_groups(self) -> list[dict]:
        """The base's parameter groups: one set, also after loading a state."""
        return self.base.param_groups

    @property
    def state(self) -> dict:
        """The base's state, such as momentum."""
        return self.base.state

    @property
    def defaults(self) -> dict:
        """The base's defaults."""
        return self.base.defaults

    def add_param_group(self, param_group: dict) -> None:
        """Adds parameters to the base, and so to this optimiser."""
        self.base.add_param_group(param_group)

    def state_dict(self) -> dict:
        """The base's state with the count of skipped steps beside it."""
        return {**self.base.state_dict(), "sharpness_aware": {"skipped": self.skipped}}

    def load_state_dict(self, state_dict: dict) -> None:
        """Loads what :meth:`state_dict` wrote, or the state of the base alone."""
        own = state_dict.get("sharpness_aware", {})
        self.base.load_state_dict({key: value for key, value in state_dict.items() if key != "sharpness_aware"})
        self.skipped = own.get("skipped", 0)

    def __getattr__(self, name: str):
        if name.startswith("__") or "base" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.base, name)  # hooks and whatever else the base offers

    def __getstate__(self) -> dict:
        # Not the whole __dict__: a scheduler wraps `step` in a local function, which cannot be pickled.
        return {key: self.__dict__[key] for key in ("base", "recipe", "nonfinite", "skipped")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._climbed = False
        # However the base is stepped, one perturbed block licenses one step. The hook does not keep the wrapper alive.
        forget = weakref.WeakMethod(self._forget_block)
        hook = self.base.register_step_post_hook(lambda *_: forget() and forget()())
        weakref.finalize(self, hook.remove)

    def __repr__(self) -> str:
        return f"SharpnessAware({self.recipe.name}, {self.base!r})"


def _names(model: nn.Module) -> dict[nn.Parameter, str]:
    return {parameter: name for name, parameter in model.named_parameters()}


def _is_known_not_finite(number: Tensor) -> bool:
    return number.device.type == "cpu" and not bool(torch.isfinite(number))  # elsewhere the look would stop the device


def _levels_to_the_caller() -> int:
    """How far up the stack the code that uses this module is, for a warning to point to."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__") in (__name__, "contextlib"):
        level, frame = level + 1, frame.f_back
    return level


def _draws_noise(model: nn.Module) -> bool:
    return any(module.training and _noise_of(module) > 0 for module in model.modules())


def _noise_of(module: nn.Module) -> float:
    if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
        return module.dropout
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p
    return float(isinstance(module, nn.RReLU))
