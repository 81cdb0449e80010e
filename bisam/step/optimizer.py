r"""The step of every method: climb from w to the edge of the ball, take the gradient there, let the base move w.

.. math:: \epsilon_t = \arg\max_{\|\epsilon\| \le \rho} \langle \nabla A(w_t), \epsilon\rangle, \qquad
    w_{t+1} = \mathrm{base}\big(w_t, \nabla L(w_t + \epsilon_t)\big)

This module is the outside: an optimiser like any other of torch. What happens between the two points is in
:mod:`bisam.step.two_pass`.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .. import _checks
from ..axes.combination import Decomposed, Look
from ..axes.geometry import Tensors, euclidean_norm
from ..axes.memory import Memory
from ..axes.radius import Learned
from ..axes.recipe import SAM, Recipe
from .batch import Batch, Noise, Statistics, is_replayed, unwrapped
from .hypergradient import Lesson
from .perturbation import Displacement
from .record import Diagnostics
from .two_pass import Ascent, Outcome, own_radii

__all__ = ["SharpnessAware"]


class SharpnessAware(torch.optim.Optimizer):
    r"""Any torch optimiser, with its gradient taken at the worst point nearby.

    .. math:: w_{t+1} = \mathrm{base}\big(w_t, \nabla L(w_t + \epsilon_t)\big), \qquad
        \epsilon_t = \arg\max_{\|\epsilon\| \le \rho} \langle \nabla A(w_t), \epsilon\rangle

    Three styles. :meth:`step` takes a :class:`~bisam.step.batch.Batch` and does all. :meth:`backward` does all but the base's step, as
    ``loss.backward()`` would, so that gradients can be clipped, accumulated or unscaled before ``step()``. And in
    :meth:`perturbed` the loop is yours: it is the block in which the weights stand at :math:`w_t + \epsilon_t`.

    The wrapper stores no weights and shares the base's parameter groups and state, so schedulers attach to either. A
    group with a ``"rho"`` of its own is a ball of its own: its part of the climb has that length.

    Args:
        base: the optimiser that moves the weights.
        recipe: what is raised, where, how far, and what descends.
        nonfinite: what to do when a gradient of either pass holds inf or NaN. ``"raise"`` raises; ``"skip"`` skips
            the step, counts it in ``skipped`` and warns the first time. The weights are back in both cases. On a GPU
            the look at the gradients makes the program wait once a step, except for ``"skip"`` with a fused base
            (``torch.optim.SGD(fused=True)`` and the like), which skips by itself, without a warning; the running
            statistics of batch norm then keep what the bad pass has put into them.
        seed: of what the recipe draws (masks, random starts); ``None`` takes torch's initial seed.
        per_worker: under ``DistributedDataParallel`` every worker climbs with the gradient of its own share of the batch,
            which is mSAM; otherwise all climb with the gradient of the joint batch.
        record: keep in ``last`` what happened in the last step. It costs a copy of the gradients and one read.

    Raises:
        TypeError, ValueError: a base that is no optimiser, not the one that the recipe needs, or one that maximises (the
            climb would lead where it wants to go); an unknown ``nonfinite``; something that is no recipe.

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

    # GradScaler would otherwise ask the base, whose own way of unscaling knows nothing of two passes.
    _step_supports_amp_scaling = False

    def __init__(
        self,
        base: torch.optim.Optimizer,
        recipe: Recipe = SAM,
        *,
        nonfinite: str = "raise",
        seed: int | None = None,
        per_worker: bool = False,
        record: bool = False,
    ):
        if not isinstance(base, torch.optim.Optimizer) or isinstance(base, SharpnessAware):
            raise TypeError(f"base must be a torch optimiser that is not wrapped yet, got {type(base).__name__}")
        if isinstance(base, torch.optim.LBFGS):
            raise TypeError("base must make its step from one gradient; LBFGS evaluates the loss itself")
        _checks.choice("nonfinite", nonfinite, ("raise", "skip"))
        _checks.flag("per_worker", per_worker)
        _checks.flag("record", record)
        seed = torch.initial_seed() % 2**63 if seed is None else _checks.whole("seed", seed, least=0)
        # Optimizer.__init__ is left out on purpose: it would make a second set of parameter groups.
        state = {"recipe": recipe, "nonfinite": nonfinite, "per_worker": per_worker, "record": record}
        self.__setstate__({"base": base, "memory": Memory(base, seed), "skipped": 0, **state})

    @property
    def recipe(self) -> Recipe:
        """The method; another one can be put in its place between two steps, and takes over what it can remember."""
        return self._recipe

    @recipe.setter
    def recipe(self, recipe: Recipe) -> None:
        if not isinstance(recipe, Recipe):
            raise TypeError(f"recipe must be a bisam.Recipe, such as bisam.SAM; got {_checks.shown(recipe)}")
        recipe.check_base(self.base)
        self._recipe = recipe

    # -- the step -------------------------------------------------------------------------------------------------

    def step(
        self,
        batch: Batch | list[Batch] | None = None,
        *,
        validation: Batch | None = None,
        scaler=None,
        closure: Callable[[], None] | None = None,
    ) -> Tensor | None:
        """One update of the weights.

        Args:
            batch: what to descend on; several batches are the parts of one. Without one this is the last line of the
                other two styles: the base moves the weights by the gradients that they have left.
            validation: the batch for a learned radius, and only for that.
            scaler: a ``GradScaler`` for float16; call its ``update()`` afterwards.
            closure: for frameworks that run their hooks in one, as Lightning does; without a batch, and it must not
                compute a loss.

        Returns:
            The descent loss at w before the update, a scalar without a graph; ``None`` without a batch.

        Raises:
            TypeError: ``batch`` is not a :class:`~bisam.step.batch.Batch`, ``validation`` is missing or not wanted,
                ``scaler`` is none, or ``closure`` computes a loss.
            ValueError: no parameter of the model requires a gradient; a base that maximises.
            RuntimeError: no batch, and no ``perturbed`` block or ``backward`` since the last step.
            FloatingPointError: a gradient is not finite and ``nonfinite="raise"``; the weights are as before.
        """
        scaler = _enabled(scaler)
        if batch is None:
            self._step_after_block(closure)
            return None
        if closure is not None:
            raise TypeError("closure must be left out of step(batch), which makes both passes itself")
        self._check(batch, validation)  # before the gradients are cleared
        self.zero_grad()
        loss = self.backward(batch, validation=validation, scaler=scaler)
        if scaler is None:
            self._move()
        else:
            scaler.unscale_(self)
            scaler.step(self)
        return loss

    def backward(
        self,
        batch: Batch | list[Batch],
        *,
        validation: Batch | None = None,
        scaler=None,
        weight: float = 1.0,
    ) -> Tensor:
        r"""Both passes, but not the base's step: adds the gradient at :math:`w + \epsilon` to those of the parameters.

        As after ``loss.backward()``, the gradients can now be clipped or looked at; ``step()`` moves the weights. Called
        several times before a step, the gradients add up: with ``weight=1/k`` for k parts of a batch this is mSAM. The
        same parts in one list climb together.

        Args:
            batch: what to descend on; several batches are the parts of one, with one climb.
            validation: the batch for a learned radius, and only for that.
            scaler: a ``GradScaler``; the gradients left are scaled, so that ``scaler.unscale_(opt)`` can follow.
            weight: factor of the gradient that is added.

        Returns:
            The descent loss at w, a scalar without a graph.

        Raises:
            TypeError, FloatingPointError: as in :meth:`step`.
        """
        pieces, scaler = self._check(batch, validation), _enabled(scaler)
        weight = _checks.positive("weight", weight)
        model, earlier = pieces[0].model, self._take()
        if not earlier:
            self._drop_handed()  # of gradients that were cleared without a step
        elif self._lesson is not None:
            self._add(earlier, 1.0)
            raise RuntimeError(
                "a learned radius needs the whole batch in one call before the step: opt.backward([part, part], ...)"
            )
        moment = self.memory.now()
        lesson = Lesson(pieces, validation) if isinstance(self.recipe.radius, Learned) else None
        statistics = Statistics(model)
        try:
            outcome = Ascent(self, model, scaler, lesson, weight).of_batch(pieces)
            self._finish(outcome, moment, scaler, statistics)
        except BaseException:
            self.base.zero_grad()
            self.memory.back_to(moment)
            self._add(earlier, 1.0)
            raise
        self._add(earlier, weight)
        self._lesson = lesson if outcome.is_kept else None
        self._licensed = True
        return outcome.loss

    def _step_after_block(self, closure: Callable[[], None] | None = None) -> None:
        if not self._licensed:
            raise RuntimeError(
                "step() without a batch must follow a `with opt.perturbed(model):` block or opt.backward(batch); "
                "otherwise the base optimiser would run alone under another name"
            )
        if closure is not None and _called(closure) is not None:
            raise TypeError("closure must not compute a loss: its gradient would replace the one at the worst point")
        self._move()

    def _move(self) -> None:
        """The base's step; what the recipe does before and after it hangs on the base, whoever steps it."""
        self.base.step()
        torch.clear_autocast_cache()  # a step without a climb may stand in an autocast context as well

    def _before_base(self) -> None:
        if self._inside:
            raise RuntimeError(
                "the base must be stepped after the `with opt.perturbed(model):` block, not inside it: "
                "the weights stand elsewhere there and are put back at its end"
            )
        if not self._licensed:
            return
        if hasattr(self.recipe.combination, "before_base"):
            self.recipe.combination.before_base(dict(self.named_parameters(self._names)), self.memory)
        if self._alarm is not None:
            self.base.grad_scale, self.base.found_inf = None, self._alarm

    def _after_base(self) -> None:
        alarm, self._alarm = self._alarm, None
        if alarm is not None and "found_inf" in self.base.__dict__:
            del self.base.grad_scale, self.base.found_inf
            if self._skipped_there is None:
                self._skipped_there = torch.zeros_like(alarm)
            self._skipped_there.add_(alarm)  # in place: a captured step finds it there again
        if not self._licensed:
            return
        self._licensed = False
        lesson, self._lesson = self._lesson, None
        try:
            if lesson is not None and self.recipe.radius.is_due(self.memory):
                self.recipe.radius.update(lesson.hypergradient(self), self.memory)
        finally:  # the weights have moved, whatever the validation batch does
            if hasattr(self.recipe.geometry, "after_step"):
                names = [name for name, _ in self.named_parameters(self._names)]
                self.recipe.geometry.after_step(names, self.memory)
            self.memory.step += 1

    @contextmanager
    def perturbed(self, model: nn.Module, noise: Noise | None = None) -> Iterator[None]:
        r"""Inside, the weights stand at :math:`w + \epsilon`; after it they are bitwise back, come what may.

        The gradients found on entering are those of the ascent loss: the climb uses them up, so that after the block
        the parameters hold the gradients computed inside it, and only those.

        Args:
            model: its buffers (batch-norm statistics) are held during the block.
            noise: a :class:`~bisam.step.batch.Noise` taken before the first pass; the block then draws the same dropout masks.
                Needed if the model draws noise, unless the recipe says ``same_noise=False``.

        Raises:
            RuntimeError: no parameter has a gradient: call ``backward`` on the ascent loss first.
            TypeError: ``model`` is no module, or ``noise`` is none.
            ValueError: another model than the one whose parameters the base holds; the model draws dropout masks and
                ``noise`` was not given; the recipe does more than climb between two passes of yours, and needs :meth:`step`
                or :meth:`backward`.
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
        known = self._check_block(model, noise)
        self._check_outside()
        self._names = known
        gradient = self._take()
        if is_replayed(model):
            gradient = {name: g.clone() for name, g in gradient.items()}
        if not gradient:
            raise RuntimeError(
                "no parameter of the base optimiser has a gradient: call backward() on the ascent loss first, "
                "of a model whose parameters the base holds"
            )
        moment = self.memory.now()
        try:
            with Ascent(self, model).block(gradient, noise if self.recipe.same_noise else None) as outcome:
                self._inside = True
                yield
        except BaseException:
            self.memory.back_to(moment)
            raise
        finally:
            self._inside = False
        self._finish(outcome, moment)
        self._licensed = True

    def _check_block(self, model: nn.Module, noise: Noise | None) -> dict[Tensor, str]:
        """The names of the model's parameters, or an error before anything is touched."""
        recipe, known = self.recipe, names_of(_checks.module("model", model))
        if not any(parameter in known for group in self.param_groups for parameter in group["params"]):
            raise ValueError("model must be the one whose parameters the base holds; none of this model's are among them")
        if noise is not None:
            _checks.part("noise", noise, Noise, "a bisam.Noise")
        extra = [field for field in ("start", "selection", "micro_batch") if getattr(recipe, field) is not None]
        extra += ["radius"] if isinstance(recipe.radius, Learned) else []
        if isinstance(recipe.combination, Look) or recipe.gradient_at_w == "descent":
            extra.append("combination")
        if extra:
            raise ValueError(
                f"the {extra[0]} of recipe {recipe.name!r} takes more than two passes of the same batch; "
                "use opt.step(batch) or opt.backward(batch)"
            )
        if noise is None and recipe.same_noise and draws_noise(model):
            raise ValueError(
                "noise must be given for a model with active dropout: take noise = bisam.Noise(device) before the "
                "first pass and call perturbed(model, noise); or use a recipe with same_noise=False"
            )
        return known

    # -- accidents ------------------------------------------------------------------------------------------------

    def _finish(self, outcome: Outcome, moment: dict, scaler=None, statistics: Statistics | None = None) -> None:
        """Looks whether all was finite. If not, the gradients go, and what the recipe remembered of this step."""
        norms = {"ascent": outcome.size, "descent": euclidean_norm(self._gradients())}
        norms = {name: norm for name, norm in norms.items() if norm is not None}
        self.last = Diagnostics.of(outcome, norms, self, scaler) if self.record else None
        device = norms["descent"].device  # the ascent may have drawn no tensor, and its norm is then on the CPU
        if device.type == "meta":
            return  # there are shapes and no numbers
        finite = torch.isfinite(torch.stack([norm.detach().to(device) for norm in norms.values()])).all()
        if scaler is not None:
            self._tell_the_scaler(outcome)
            if self.memory.now() and not finite:  # the scaler will skip the step, and knows nothing of the memory
                self.memory.back_to(moment)
                outcome.is_kept = False
            return
        if self.nonfinite == "skip" and self._base_can_skip(device) and self._memory_can_go_back(moment):
            self.memory.back_where(~finite, moment)
            alarm = (~finite).to(torch.float32)  # read by the base on the device; nobody waits for it
            self._alarm = alarm if self._alarm is None else torch.maximum(self._alarm, alarm)  # of any part
            return
        if finite:
            return
        if statistics is not None:
            statistics.mend()
        self.zero_grad()
        self.memory.back_to(moment)
        outcome.is_kept = False
        bad = " and ".join(name for name, norm in norms.items() if not torch.isfinite(norm))
        message = f"the {bad} gradient of {self.recipe.name} holds inf or NaN; the weights are as before the step"
        if self.nonfinite == "raise":
            raise FloatingPointError(message + "; look for inf or NaN among the inputs and logits")
        self.skipped += 1
        if self.skipped == 1:
            message += "; the step is skipped, later ones are only counted"
            warnings.warn(message, RuntimeWarning, stacklevel=_levels_to_the_caller())

    def _base_can_skip(self, device: torch.device) -> bool:
        """Whether a bad step can be left to a fused base, without waiting for the device to say that it is bad.

        Not in its first step, which would leave its momentum unset.
        """
        if looking_is_free(device):
            return False
        moved = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        keeps_nothing = all(group.get("momentum") == 0 for group in self.param_groups)
        return all(group.get("fused") for group in self.param_groups) and (keeps_nothing or all(p in self.state for p in moved))

    def _memory_can_go_back(self, moment: dict) -> bool:
        """Whether what a bad step has left in the memory can be taken back on the device: averages that were there before it."""
        recipe = self.recipe
        if not isinstance(recipe.combination, (Decomposed, type(None))) or isinstance(recipe.radius, Learned):
            return False
        kept, before = self.memory.of("direction"), moment.get("direction", {})
        return all(name in before and before[name].shape == average.shape for name, average in kept.items())

    @property
    def skipped(self) -> int:
        """How many steps were skipped because a gradient was not finite."""
        return self._skipped + (0 if self._skipped_there is None else int(self._skipped_there))

    @skipped.setter
    def skipped(self, count: int) -> None:
        self._skipped, self._skipped_there = count, None

    def _tell_the_scaler(self, outcome: Outcome) -> None:
        """Passes an overflow of the first pass on to the gradients of the second, where the scaler looks for it."""
        gradients = list(self._gradients().values())
        if outcome.size is not None and gradients:
            alarm = torch.where(torch.isfinite(outcome.size), 1.0, torch.nan)
            gradients[0].mul_(alarm.to(gradients[0]))

    # -- gradients and parameters -----------------------------------------------------------------------------------

    def _check(self, batch: object, validation: object) -> list[Batch]:
        """The parts of the batch, or an error before anything is touched."""
        pieces = batch if isinstance(batch, list) else [batch]
        if not pieces or not all(isinstance(piece, Batch) for piece in pieces):
            got = next((type(piece).__name__ for piece in pieces if not isinstance(piece, Batch)), "an empty list")
            raise TypeError(f"step needs a bisam.Batch(model, inputs, targets), got {got}; or a list of batches")
        model = pieces[0].model
        if not isinstance(model, nn.Module):  # its parameters and buffers have to be found
            raise TypeError(f"the model of the batch must be a torch.nn.Module, got {type(model).__name__}")
        if any(piece.model is not model for piece in pieces):
            raise TypeError("the parts of a batch must have the same model")
        learns = isinstance(self.recipe.radius, Learned)
        if not isinstance(validation, Batch) if learns else validation is not None:
            wanted = "must be a bisam.Batch" if learns else "must be left out"
            raise TypeError(f"validation {wanted} for recipe {self.recipe.name!r}, got {type(validation).__name__}")
        if learns and validation.model is not model:
            raise TypeError("validation must be a batch of the same model as the training batch")
        if pieces[0].inputs.device.type == "meta" and (learns or self.record):
            field = "recipe must have no learned radius" if learns else "record must be False"
            raise ValueError(f"{field} on the meta device, where there are shapes and no numbers")
        self._check_outside()
        self._names = names_of(model)
        return pieces

    def _check_outside(self) -> None:
        self.recipe.check_base(self.base)  # its groups may have changed
        if self._inside:
            raise RuntimeError("a `with opt.perturbed(model):` block must be left before the next step or block begins")
        if not torch.is_grad_enabled():
            raise RuntimeError("gradients must be enabled for a step; leave torch.no_grad() or inference_mode() first")
        for g, rho in own_radii(self).items():
            if _checks.nonnegative(f"rho of parameter group {g}", rho) > 0 and self.recipe.radius.rho == 0:
                raise ValueError(
                    f"rho of parameter group {g} must be 0 for recipe {self.recipe.name!r}, which has no radius; "
                    f"got {rho!r}"
                )

    def named_parameters(self, names: dict[Tensor, str]) -> Iterator[tuple[str, Tensor]]:
        """The base's parameters by the names that the model gives them; by place for those that it does not hold."""
        for g, group in enumerate(self.param_groups):
            for k, parameter in enumerate(group["params"]):
                yield names.get(parameter, f"parameter {k} of group {g}"), parameter

    def _gradients(self) -> Tensors:
        found = {name: p.grad for name, p in self.named_parameters(self._names) if p.grad is not None}
        for name, gradient in found.items():
            if gradient.is_sparse:
                raise TypeError(f"parameter {name} has a sparse gradient; use sparse=False in its embedding")
            if gradient.is_complex():
                raise TypeError(f"parameter {name} is complex ({gradient.dtype}); the climb is defined for real parameters")
        return found

    def _take(self) -> Tensors:
        """The gradients by name; the parameters have none afterwards."""
        # A view is one of a buffer that several workers share, and that the next backward pass writes to.
        found = {name: g.clone() if g._is_view() else g for name, g in self._gradients().items()}
        self.base.zero_grad()
        return found

    def _add(self, earlier: Tensors, weight: float) -> None:
        """Puts gradients from before back, and adds what is new."""
        if not earlier and weight == 1:
            return
        for name, parameter in self.named_parameters(self._names):
            if parameter.grad is not None and weight != 1:
                parameter.grad.mul_(weight)
            if name in earlier:
                parameter.grad = earlier[name] if parameter.grad is None else earlier[name].add_(parameter.grad)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients of all parameters."""
        self.base.zero_grad(set_to_none)
        self._alarm = None
        self._drop_handed()

    def _drop_handed(self) -> None:
        if hasattr(self.recipe.combination, "before_base"):
            self.memory.of("combination").clear()

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
        """The base's state, with the count of skipped steps and what the recipe remembers beside it."""
        return {**self.base.state_dict(), "sharpness_aware": {"skipped": self.skipped, "memory": self.memory.save()}}

    def load_state_dict(self, state_dict: dict) -> None:
        """Loads what :meth:`state_dict` wrote, or the state of the base alone."""
        _checks.part("state_dict", state_dict, dict, "what state_dict() returns")
        if not {"state", "param_groups"} <= set(state_dict):
            raise ValueError(f"state_dict must hold state and param_groups, got {_checks.shown(list(state_dict))}")
        own = state_dict.get("sharpness_aware", {})
        self.base.load_state_dict({key: value for key, value in state_dict.items() if key != "sharpness_aware"})
        self.skipped = own.get("skipped", 0)
        self.memory.load(own.get("memory", {}))

    def __getattr__(self, name: str):
        if name.startswith("__") or "base" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.base, name)  # hooks and whatever else the base offers

    def __getstate__(self) -> dict:
        # Not the whole __dict__: a scheduler wraps `step` in a local function, which cannot be pickled.
        kept = ("base", "recipe", "nonfinite", "per_worker", "record", "skipped")
        return {**{key: getattr(self, key) for key in kept}, "memory": (self.memory.seed, self.memory.save())}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update({name: value for name, value in state.items() if name not in ("recipe", "skipped")})
        self.recipe, self.skipped = state["recipe"], state["skipped"]
        if isinstance(self.memory, tuple):
            seed, saved = self.memory
            self.memory = Memory(self.base, seed)
            self.memory.load(saved)
        self.last: Diagnostics | None = None
        self._licensed, self._lesson, self._names, self._alarm = False, None, {}, None
        self.displacement = Displacement()
        self._inside = False
        # However the base is stepped, one block licenses one step. The hooks do not keep the wrapper alive.
        before, after = weakref.WeakMethod(self._before_base), weakref.WeakMethod(self._after_base)
        for hook in (
            self.base.register_step_pre_hook(lambda *_: before()() if before() else None),
            self.base.register_step_post_hook(lambda *_: after()() if after() else None),
        ):
            weakref.finalize(self, hook.remove)

    def __repr__(self) -> str:
        return f"SharpnessAware({self.recipe.name}, {self.base!r})"


def _called(closure: Callable):
    _checks.function("closure", closure, "a function without arguments")
    try:
        return closure()
    except Exception as error:
        error.add_note("closure was called without arguments")
        raise


def _enabled(scaler):
    """The scaler, or ``None`` for one that is switched off and so looks at no gradient."""
    if scaler is not None and not isinstance(scaler, torch.amp.GradScaler):
        _checks.part("scaler", scaler, ("is_enabled", "scale", "unscale_", "step", "update"), "a torch.amp.GradScaler")
    return scaler if scaler is not None and scaler.is_enabled() else None


def looking_is_free(device: torch.device) -> bool:
    """Whether reading a number does not make the program wait for a device."""
    return device.type == "cpu"


def names_of(model: nn.Module) -> dict[Tensor, str]:
    """The parameters of a model by name, the same whether it is wrapped for several workers, compiled or bare."""
    return {parameter: name for name, parameter in unwrapped(model).named_parameters()}


def draws_noise(model: nn.Module) -> bool:
    """Whether a pass through the model draws random numbers, as far as its modules show."""
    return any(module.training and _noise_of(module) > 0 for module in model.modules())


def _noise_of(module: nn.Module) -> float:
    if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
        return module.dropout
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p
    return float(isinstance(module, nn.RReLU))


def _levels_to_the_caller() -> int:
    """How far up the stack the code that uses this package is, for a warning to point to."""
    level, frame = 1, sys._getframe(1)
    package = __name__.rpartition(".")[0]
    while frame.f_back and frame.f_globals.get("__name__", "").startswith((package, "contextlib")):
        level, frame = level + 1, frame.f_back
    return level
