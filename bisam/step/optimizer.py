r"""The step of every method: climb from w to the edge of the ball, take the gradient there, let the base move w.

.. math:: \epsilon_t = \arg\max_{\|\epsilon\| \le \rho} \langle \nabla A(w_t), \epsilon\rangle, \qquad
    w_{t+1} = \mathrm{base}\big(w_t, \nabla L(w_t + \epsilon_t)\big)

This module is the outside: an optimiser like any other of torch, with its state, and with the rule that every step of the base
uses up one gradient that was made for it. What happens between the two points is in :mod:`bisam.step.two_pass`.
"""

from __future__ import annotations

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
from .block import at_worst_point
from .buffers import Statistics
from .closures import Calls, calls_of, gradient_of_calls
from .doors import checked_base
from .groups import own_radii
from .judgement import Judgement
from .modules import names_of
from .nonfinite import NonFinite
from .perturbation import Displacement
from .refusals import about_scaler, call_hooks, check_block, check_moment, checked_batch, enabled
from .rng import RNGState
from .sharded import drop_copies
from .step import Step
from .turn import EMPTY, UNSCALED, Turn
from .two_pass import gradient_at_worst_point
from .wrapper import Wrapper

__all__ = ["SharpnessAware"]


class SharpnessAware(Wrapper):
    r"""Any torch optimiser, with its gradient taken at the worst point nearby.

    .. math:: w_{t+1} = \mathrm{base}\big(w_t, \nabla L(w_t + \epsilon_t)\big), \qquad
        \epsilon_t = \arg\max_{\|\epsilon\| \le \rho} \langle \nabla A(w_t), \epsilon\rangle

    Three styles. :meth:`step` takes a :class:`~bisam.step.batch.Batch`, a closure or a function for each loss, and does all. :meth:`backward`
    does all but the base's step, as ``loss.backward()`` would, so that gradients can be clipped, accumulated or unscaled before ``step()``.
    And in :meth:`perturbed` the loop is yours: it is the block in which the weights stand at :math:`w_t + \epsilon_t`.

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
        batch: Batch | list[Batch] | Callable[[], object] | None = None,
        *,
        validation: Batch | None = None,
        scaler=None,
        closure: Callable[[], object] | None = None,
        ascent: Callable[[], Tensor] | None = None,
        descent: Callable[[], Tensor] | None = None,
        model: nn.Module | None = None,
    ) -> Tensor | None:
        """One update of the weights.

        Args:
            batch: what to descend on; several batches are the parts of one. Gradients from before are cleared. Or a closure. Without one this is the last line of
                the other two styles: the base moves the weights by the gradients that they have left.
            validation: the batch for a learned radius, and only for that.
            scaler: a ``GradScaler`` for float16; call its ``update()`` afterwards.
            closure: clears the gradients, computes the loss, calls ``backward()`` and returns the loss, as torch's optimisers have it. It is
                called at w and at the worst point, in a step without a climb once. Where a gradient waits already, it must not
                compute a loss: some frameworks run their hooks in one.
            ascent: returns the ascent loss, with its graph and no ``backward()``; the descent loss is raised without it.
            descent: the same of the descent loss. Where the recipe needs its gradient at w too, it is called there as well.
            model: whose state is held while a closure or ``descent`` is called again; ``None`` finds the modules that run by a hook
                on all modules, which a compiled model should be spared.

        Returns:
            The descent loss at w before the update, a scalar without a graph; of functions, what the first pass at w has returned (of
            ``descent``, where it is called there); ``None`` for gradients that wait already.

        Raises:
            TypeError: ``batch`` is not a :class:`~bisam.step.batch.Batch`, ``validation`` is missing or not wanted,
                ``scaler`` is none, a function computes no loss, or two of batch, closure and ``descent`` are given.
            ValueError: no parameter of the model requires a gradient; a base that maximises; functions for a recipe that needs the samples, or
                a loss that is missing.
            RuntimeError: nothing is given, and no ``perturbed`` block or ``backward`` has left a gradient since the last step.
            FloatingPointError: a gradient is not finite and ``nonfinite="raise"``; the weights are as before.
        """
        scaler = enabled(scaler)
        closure, calls = calls_of(self, batch, closure, ascent, descent, model, validation, self._turn)
        if calls is not None:
            if descent is not None:
                self.zero_grad()
            loss = self._backward_of(calls, model, scaler)
        elif closure is not None or batch is None:
            if not self._turn.is_ready and self._initialised():
                return None
            self._turn.check()
            loss = call_hooks(closure)
        else:
            self._checked(batch, validation)  # before the gradients are cleared
            self.zero_grad()
            loss = self.backward(batch, validation=validation, scaler=scaler)
        self._move(scaler)
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
        elif self._turn.is_ready and (self.recipe.radius.learns or self.recipe.has_one_climb):
            gradients.add(parameters, earlier, 1.0)
            raise RuntimeError(
                f"recipe {self.recipe.name!r} remembers one climb a step, and needs the whole batch in one call before it: "
                "opt.backward([part, part], ...)"
            )
        statistics = Statistics(model)
        try:
            with self._judgement.taken_back() as moment:
                step = self._new_step(model, parameters, scaler=scaler, weight=weight)
                step.learner = self.recipe.radius.learner(pieces, validation, self.recipe.descent, self.memory)
                gradient_at_worst_point(step, pieces)
                is_kept = self._judgement.is_fine(step, moment, statistics)
        except BaseException:
            gradients.add(parameters, earlier, 1.0)
            raise
        gradients.add(parameters, earlier, weight)
        self._learner = step.learner if is_kept else None
        self._turn.ready(all(p.grad is None for p in parameters.values()), against_scaler=lambda: UNSCALED if scaler is None else None)
        return step.outcome.loss

    def _backward_of(self, calls: Calls, model: nn.Module | None, scaler) -> object:
        """Both passes, made by functions."""
        check_moment(self.recipe, self.base, self._turn.is_inside, self.per_worker, model)
        with self._judgement.taken_back() as moment, self._turn.inside():
            step, loss = gradient_of_calls(lambda found: self._new_step(found, self._parameters(found), scaler=scaler), calls, model)
            is_fine = self._judgement.is_fine(step, moment)
        self._turn.ready(is_empty=not is_fine and scaler is None)
        return loss

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
            others=self._others,
            hold=self.hold,
            **more,
        )

    def _move(self, scaler=None) -> None:
        """The base's step; what the recipe does before and after it hangs on the base, whoever steps it."""
        if scaler is None:
            self.base.step()
            drop_copies()  # a step without a climb may stand in an autocast context as well
        else:
            scaler.step(self)
            self._turn.clear()  # where it has skipped the step, nothing waits any more

    def _before_base(self) -> None:
        self._turn.check_base(self.recipe)
        if not self._turn.is_ready:
            return
        self._judgement.look_at_last(self._turn)
        if self.recipe.combination is not None:
            self.recipe.combination.before_base(self._given, self.memory)
        self._nonfinite.before_base()

    def _after_base(self) -> None:
        self._nonfinite.after_base()
        if not self._turn.is_ready:
            return
        self._turn.clear()
        learner, self._learner = self._learner, None
        try:
            if learner is not None:
                with self.hold():
                    learner.moved(self._given, self.memory)
        finally:  # the weights have moved, whatever the validation batch does
            self.recipe.geometry.after_step(list(self._given), self.memory)
            self.memory.step += 1

    @contextmanager
    def perturbed(
        self, model: nn.Module, noise: RNGState | None = None, *, ascent: Callable[[], Tensor] | None = None, scaler=None
    ) -> Iterator[None]:
        r"""Inside, the weights stand at :math:`w + \epsilon`; after it they are bitwise back, come what may.

        The gradients found on entering are those of the ascent loss, unless ``ascent`` is given, which the block then calls itself: the
        climb uses them up, so that after the block the parameters hold the gradients computed inside it, and only those. In a step that does
        not climb, ``ascent`` is not called.

        Args:
            model: with all parameters of the base that lead to the loss; its state (batch-norm statistics) is held, not mended if not finite.
            noise: a :class:`~bisam.step.rng.RNGState` taken before the first pass; the block then draws the same dropout masks.
                Needed if the model draws noise, unless the recipe says ``same_noise=False``.
            ascent: returns the ascent loss at w, with its graph and no ``backward()``; in place of a pass of yours before the
                block, and of ``noise``. A recipe that raises a loss of its own, or begins elsewhere than at w, needs it.
            scaler: the ``GradScaler`` whose ``scale()`` the losses have gone through (``ascent`` returns one that has not);
                ``unscale_`` and ``step`` follow after the block.

        Raises:
            RuntimeError: no parameter has a gradient: call ``backward`` on the ascent loss first.
            TypeError: ``model`` is no module, ``noise`` or ``scaler`` is none, ``ascent`` returns no loss.
            ValueError: another model than the one whose parameters the base holds; random numbers are drawn in the block and
                ``noise`` was not given; ``ascent`` is missing; the recipe needs the samples, and :meth:`step` or :meth:`backward`.

        What the block has left is looked at by the step that follows, which raises ``FloatingPointError`` or skips where a gradient
        is not finite (a ``GradScaler`` sees that before), and ``RuntimeError`` where there is none.

        Example:
            >>> from bisam import BISAM_LOG, CrossEntropy
            >>> model = nn.Linear(2, 2)
            >>> sgd = torch.optim.SGD(model.parameters(), lr=0.5)
            >>> opt = SharpnessAware(sgd, BISAM_LOG)
            >>> x, y = torch.eye(2), torch.tensor([0, 1])
            >>> ascent, descent = BISAM_LOG.ascent, CrossEntropy()
            >>> with opt.perturbed(model, ascent=lambda: ascent(model(x), y)):
            ...     descent(model(x), y).backward()
            >>> sgd.step(); sgd.zero_grad()
        """
        check_block(self.recipe, self.param_groups, model, noise, ascent)
        check_moment(self.recipe, self.base, self._turn.is_inside, self.per_worker, model)
        self._turn.begin_block()
        step = self._new_step(model, self._parameters(model), scaler=enabled(scaler))
        self._judgement.clear()
        with self._judgement.taken_back(is_cleared=False) as moment, self._turn.inside(), at_worst_point(step, ascent, noise):
            yield
        if not gradients.gradients(step.parameters):  # the block was there to look
            self.memory.restore(moment)
            self._turn.clear(EMPTY)
        elif step.scaler is not None:
            self._judgement.is_fine(step, moment)
            self._turn.ready()
        else:
            self._judgement.wait(step, moment)
            self._turn.ready(against_scaler=lambda: about_scaler(step))

    def _checked(self, batch: object, validation: object) -> list[Batch]:
        pieces = checked_batch(self.recipe, batch, validation, self.record)
        check_moment(self.recipe, self.base, self._turn.is_inside, self.per_worker, pieces[0].model)
        return pieces

    def _parameters(self, model: nn.Module) -> Tensors:
        """The base's parameters by the names that the model gives them; by place for those that it does not hold."""
        found, self._others = gradients.own_and_others(self.param_groups, names_of(model))
        return found

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients of all parameters."""
        begin(self.base)  # a step that not all of several bases have made ends here
        self.base.zero_grad(set_to_none)
        self._judgement.clear()
        self._turn.cleared()
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
        self._judgement = Judgement(self._nonfinite, self.memory)
        self.displacement = Displacement()
        self._turn = Turn(self.base)
        self._learner, self._given, self._others = None, {}, []
        self._turn.hang_on(self.base, self, self._before_base, self._after_base)

    def __repr__(self) -> str:
        return f"SharpnessAware({self.recipe.name}, {self.base!r})"
