r"""The step of every method: climb from w to the edge of the ball, take the gradient there, let the base move w.

.. math:: \epsilon_t = \arg\max_{\|\epsilon\| \le \rho} \langle \nabla A(w_t), \epsilon\rangle, \qquad
    w_{t+1} = \mathrm{base}\big(w_t, \nabla L(w_t + \epsilon_t)\big)

This module is the outside: an optimiser like any other of torch, with its state, and with the rule that every step of the base
uses up one gradient that was made for it. What happens between the two points is in :mod:`bisam.step.two_pass`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from .. import _checks
from ..axes.memory import Memory
from ..axes.recipe import SAM, Recipe, as_recipe
from ..axes.tensors import Tensors
from . import gradients
from .bases import begin, joined, listed
from .batch import Batch
from .buffers import Statistics
from .doors import checked_base
from .groups import own_radii
from .modules import is_graphed, names_of
from .nonfinite import NonFinite, tell_the_scaler, total_of, what_is_bad
from .perturbation import Displacement
from .record import Diagnostics
from .refusals import called, check_block, check_moment, checked_batch, enabled
from .rng import RNGState
from .sharded import drop_copies
from .step import Step
from .two_pass import at_worst_point, gradient_at_worst_point
from .wrapper import Wrapper

__all__ = ["SharpnessAware"]


class SharpnessAware(Wrapper):
    r"""Any torch optimiser, with its gradient taken at the worst point nearby.

    .. math:: w_{t+1} = \mathrm{base}\big(w_t, \nabla L(w_t + \epsilon_t)\big), \qquad
        \epsilon_t = \arg\max_{\|\epsilon\| \le \rho} \langle \nabla A(w_t), \epsilon\rangle

    Three styles. :meth:`step` takes a :class:`~bisam.step.batch.Batch` and does all. :meth:`backward` does all but the base's step, as
    ``loss.backward()`` would, so that gradients can be clipped, accumulated or unscaled before ``step()``. And in
    :meth:`perturbed` the loop is yours: it is the block in which the weights stand at :math:`w_t + \epsilon_t`.

    The wrapper stores no weights and shares the base's parameter groups and state, so schedulers attach to either. A
    group with a ``"rho"`` of its own is a ball of its own: its part of the climb has that length.

    Args:
        base: the optimiser that moves the weights; or several, in a list, each with its share of the parameters: one climb over all.
        recipe: what is raised, where, how far, and what descends; a name such as ``"bisam-log"`` stands for that row of the table.
        rho: another radius than that of the recipe, as in :meth:`~bisam.axes.recipe.Recipe.with_rho`.
        nonfinite: what to do when a gradient of either pass holds inf or NaN. ``"raise"`` raises; ``"skip"`` skips
            the step, counts it in ``skipped`` and warns the first time. The weights are back in both cases. On a GPU
            the look at the gradients makes the program wait once a step, except for ``"skip"`` with a fused base
            (``torch.optim.SGD(fused=True)`` and the like), which skips by itself, without a warning; the running
            statistics of batch norm then keep what the bad pass has put into them. A skipped step counts in the schedules of the
            recipe, where one that a ``GradScaler`` skips does not.
        seed: of what the recipe draws (masks, random starts); ``None`` takes torch's initial seed.
        per_worker: under ``DistributedDataParallel`` every worker climbs with the gradient of its own share of the batch,
            which is mSAM; otherwise all climb with the gradient of the joint batch.
        record: keep in ``last`` what happened in the last step. It costs a copy of the gradients and one read.
        hold: a function that returns a context manager, entered around every pass but the first of a step, to put back what a forward
            pass moves beside the state of modules, which :func:`~bisam.step.buffers.held_buffers` holds: a queue outside of them, say.

    Raises:
        TypeError, ValueError: a base that is no optimiser, not the one that the recipe needs, or one that maximises (the
            climb would lead where it wants to go); an unknown ``nonfinite``; something that is no recipe; an argument of another implementation.

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

        >>> queue = []  # that the forward pass feeds, outside of all modules
        >>> @contextmanager
        ... def held():
        ...     before = list(queue)
        ...     yield
        ...     queue[:] = before
        >>> opt = SharpnessAware(sgd, BISAM_LOG, hold=held)
    """

    # GradScaler would otherwise ask the base, whose own way of unscaling knows nothing of two passes.
    _step_supports_amp_scaling = False

    def __init__(
        self,
        base: torch.optim.Optimizer | list[torch.optim.Optimizer],
        recipe: Recipe | str = SAM,
        *,
        rho: float | None = None,
        nonfinite: str = "raise",
        seed: int | None = None,
        per_worker: bool = False,
        record: bool = False,
        hold: Callable[[], AbstractContextManager] = nullcontext,
        **theirs,
    ):
        base = joined([checked_base(member, recipe, rho, theirs, SharpnessAware) for member in listed(base)])
        recipe = as_recipe(recipe) if rho is None else as_recipe(recipe).with_rho(rho)
        _checks.choice("nonfinite", nonfinite, ("raise", "skip"))
        _checks.flag("per_worker", per_worker)
        _checks.flag("record", record)
        _checks.part("hold", hold, Callable, "a function that returns a context manager")
        seed = torch.initial_seed() % 2**63 if seed is None else _checks.whole("seed", seed, least=0)
        # Optimizer.__init__ is left out on purpose: it would make a second set of parameter groups.
        state = {"base": base, "recipe": recipe, "nonfinite": nonfinite, "per_worker": per_worker, "record": record, "hold": hold}
        self.__setstate__({**state, "memory": Memory(base, seed), "skipped": 0})

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
        scaler = enabled(scaler)
        if batch is None:
            self._step_after_block(closure)
            return None
        if closure is not None:
            raise TypeError("closure must be left out of step(batch), which makes both passes itself")
        self._checked(batch, validation)  # before the gradients are cleared
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
            TypeError, ValueError, FloatingPointError: as in :meth:`step`.
            RuntimeError: a second call before ``step()`` with a recipe that remembers one climb a step.
        """
        pieces, scaler = self._checked(batch, validation), enabled(scaler)
        weight = _checks.positive("weight", weight)
        model, parameters = pieces[0].model, self._parameters(pieces[0].model)
        earlier = gradients.take(parameters)
        if not earlier:
            self._forget()  # of gradients that were cleared without a step
        elif self._is_ready and (self.recipe.radius.learns or self.recipe.has_one_climb):
            gradients.add(parameters, earlier, 1.0)
            raise RuntimeError(
                f"recipe {self.recipe.name!r} remembers one climb a step, and needs the whole batch in one call before it: "
                "opt.backward([part, part], ...)"
            )
        moment, statistics = self.memory.snapshot(), Statistics(model)
        step = self._new_step(model, parameters, scaler=scaler, weight=weight)
        step.learner = self.recipe.radius.learner(pieces, validation, self.recipe.descent, self.memory)
        try:
            gradient_at_worst_point(step, pieces)
            is_kept = self._judged(step, moment, statistics)
        except BaseException:
            self.base.zero_grad()
            self.memory.restore(moment)
            gradients.add(parameters, earlier, 1.0)
            raise
        gradients.add(parameters, earlier, weight)
        self._learner = step.learner if is_kept else None
        self._is_ready = True
        return step.outcome.loss

    def _new_step(self, model: nn.Module, parameters: Tensors, **more) -> Step:
        begin(self.base)
        self._given, self.memory.named = parameters, parameters
        return Step(
            recipe=self.recipe,
            memory=self.memory,
            model=model,
            parameters=parameters,
            own_radii=own_radii(self.base, parameters),
            away=self.displacement,
            per_worker=self.per_worker,
            record=self.record,
            hold=self.hold,
            **more,
        )

    def _step_after_block(self, closure: Callable[[], None] | None = None) -> None:
        if not self._is_ready:
            raise RuntimeError(
                "step() without a batch must follow a `with opt.perturbed(model):` block or opt.backward(batch); "
                "otherwise the base optimiser would run alone under another name"
            )
        if closure is not None and called(closure) is not None:
            raise TypeError("closure must not compute a loss: its gradient would replace the one at the worst point")
        self._move()

    def _move(self) -> None:
        """The base's step; what the recipe does before and after it hangs on the base, whoever steps it."""
        self.base.step()
        drop_copies()  # a step without a climb may stand in an autocast context as well

    def _before_base(self) -> None:
        if self._is_inside:
            raise RuntimeError(
                "the base must be stepped after the `with opt.perturbed(model):` block, not inside it: "
                "the weights stand elsewhere there and are put back at its end"
            )
        if not self._is_ready:
            return
        if self.recipe.combination is not None:
            self.recipe.combination.before_base(self._given, self.memory)
        self._nonfinite.before_base()

    def _after_base(self) -> None:
        self._nonfinite.after_base()
        if not self._is_ready:
            return
        self._is_ready = False
        learner, self._learner = self._learner, None
        try:
            if learner is not None:
                with self.hold():
                    learner.moved(self._given, self.memory)
        finally:  # the weights have moved, whatever the validation batch does
            self.recipe.geometry.after_step(list(self._given), self.memory)
            self.memory.step += 1

    @contextmanager
    def perturbed(self, model: nn.Module, noise: RNGState | None = None) -> Iterator[None]:
        r"""Inside, the weights stand at :math:`w + \epsilon`; after it they are bitwise back, come what may.

        The gradients found on entering are those of the ascent loss: the climb uses them up, so that after the block
        the parameters hold the gradients computed inside it, and only those.

        Args:
            model: its buffers (batch-norm statistics) are held during the block; those of your first pass are not mended if it was not finite.
            noise: a :class:`~bisam.step.rng.RNGState` taken before the first pass; the block then draws the same dropout masks.
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
        check_block(self.recipe, self.param_groups, model, noise)
        check_moment(self.recipe, self.base, self._is_inside, self.per_worker, model)
        parameters = self._parameters(model)
        gradient = gradients.take(parameters)
        if is_graphed(model):
            gradient = {name: g.clone() for name, g in gradient.items()}
        if not gradient:
            raise RuntimeError(
                "no parameter of the base optimiser has a gradient: call backward() on the ascent loss first, "
                "of a model whose parameters the base holds"
            )
        moment, step = self.memory.snapshot(), self._new_step(model, parameters)
        try:
            with at_worst_point(step, gradient, noise if self.recipe.same_noise else None):
                self._is_inside = True
                yield
        except BaseException:
            self.memory.restore(moment)
            raise
        finally:
            self._is_inside = False
        self._judged(step, moment)
        self._is_ready = True

    # -- accidents ------------------------------------------------------------------------------------------------

    def _judged(self, step: Step, moment: dict, statistics: Statistics | None = None) -> bool:
        """Whether all was finite. If not, the gradients go, and what the recipe remembered of this step."""
        found, size = gradients.gradients(step.parameters), step.outcome.first_norm
        if self.record:
            scale = 1.0 if step.scaler is None else step.scaler.get_scale()
            self.last = Diagnostics.of(step.outcome, found, step=self.memory.step, skipped=self.skipped, scale=scale)
        if step.scaler is None:
            learns = step.learner is not None
            is_fine = self._nonfinite.is_fine(found, size, self.recipe.name, self.memory, moment, learns, statistics)
            if not is_fine:
                self.zero_grad()
                self.memory.restore(moment)
            return is_fine
        tell_the_scaler(size, found)
        if self.memory.snapshot() and what_is_bad(total_of(found, size), found, size):
            self.memory.restore(moment)  # the scaler will skip the step, and knows nothing of the memory
            return False
        return True

    # -- gradients and parameters -----------------------------------------------------------------------------------

    def _checked(self, batch: object, validation: object) -> list[Batch]:
        pieces = checked_batch(self.recipe, batch, validation, self.record)
        check_moment(self.recipe, self.base, self._is_inside, self.per_worker, pieces[0].model)
        return pieces

    def _parameters(self, model: nn.Module) -> Tensors:
        """The base's parameters by the names that the model gives them; by place for those that it does not hold."""
        return dict(gradients.named_parameters(self.param_groups, names_of(model)))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients of all parameters."""
        self.base.zero_grad(set_to_none)
        self._nonfinite.clear()
        self._forget()

    def _forget(self) -> None:
        if self.recipe.combination is not None:
            self.recipe.combination.forget(self.memory)

    # -- what is pickled, and what hangs on the base --------------------------------------------------------------------

    def __getstate__(self) -> dict:
        # Not the whole __dict__: a scheduler wraps `step` in a local function, which cannot be pickled.
        kept = ("base", "recipe", "nonfinite", "per_worker", "record", "hold", "skipped")
        return {**{key: getattr(self, key) for key in kept}, "memory": (self.memory.seed, self.memory.save())}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update({name: state[name] for name in ("base", "per_worker", "record")})
        self.hold = state.get("hold", nullcontext)
        self._nonfinite = NonFinite(state["nonfinite"], self.base)
        self.recipe, self.skipped = state["recipe"], state["skipped"]
        self.memory = state["memory"]
        if isinstance(self.memory, tuple):
            seed, saved = self.memory
            self.memory = Memory(self.base, seed)
            self.memory.load(saved)
        self.last: Diagnostics | None = None
        self.displacement = Displacement()
        self._is_ready = self._is_inside = False  # whether a gradient waits for the base; whether a block is open
        self._learner, self._given = None, {}
        # However the base is stepped, one gradient is good for one step. The hooks do not keep the wrapper alive.
        before, after = weakref.WeakMethod(self._before_base), weakref.WeakMethod(self._after_base)
        for hook in (
            self.base.register_step_pre_hook(lambda *_: before()() if before() else None),
            self.base.register_step_post_hook(lambda *_: after()() if after() else None),
        ):
            weakref.finalize(self, hook.remove)

    def __repr__(self) -> str:
        return f"SharpnessAware({self.recipe.name}, {self.base!r})"
