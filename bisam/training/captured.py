r"""The whole training step as one CUDA graph: both passes, the climb, the base's step and the sums, and no Python between them.

.. math:: (w, m, \text{sums}) \;\leftarrow\; \mathrm{step}\big(w, m, \text{sums};\; \text{order}[t],\ \text{draws}[t],\ \eta\big), \qquad
    t \leftarrow t + 1

A graph runs the kernels of one step again and again, on the same memory. What changes from step to step lives in tensors that stay where they
are and are filled once an epoch: the order of the images, what augmentation drew, the learning rate, and the number t of the step, which picks its
row of the first two. Python only asks for the next replay. On the CPU the same code runs eagerly, through the same tensors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .. import _checks
from ..axes.recipe import Recipe
from ..training import graphs as cuda_graphs
from .evaluation import Sums

__all__ = ["WholeStep", "check", "refusal"]

# Steps that are made eagerly before one is captured: they make momentum, copies of the weights, handles of libraries. From the second on the
# base skips bad steps by itself, so that the third is as all later ones.
WARM_UP = 3
KEPT = 2  # graphs at a time: a radius that is switched on and off has two


def refusal(recipe: Recipe) -> str | None:
    """Why the steps of a recipe cannot be one graph, or ``None`` if they can.

    A graph has no branches and reads no number back. A radius may change from epoch to epoch, or be switched on and off: there is a graph for
    each of its values.

    Example:
        >>> from bisam import RECIPES
        >>> refusal(RECIPES["bisam-log"]), refusal(RECIPES["looksam"])
        (None, 'its combination looks at the number of the step')
    """
    radius, combination = recipe.radius, recipe.combination
    if radius.rho == 0:
        return None
    reasons = {
        "its radius is learned, from numbers that Python reads after every step": radius.learns,
        "its radius is another one at every step": radius.changes_each_step,
        "its combination looks at the number of the step": combination is not None and combination.climbing_share < 1,
        "its base optimiser cannot leave out a step that is not finite without being told": combination is not None and combination.hands_over,
        "the tensors that climb are drawn in Python": recipe.geometry.is_drawn,
    }
    return next((why for why, holds in reasons.items() if holds), None)


def check(recipe: Recipe) -> None:
    """A ``ValueError`` if the steps of a recipe cannot be one graph, which says why and what to use instead.

    Example:
        >>> from bisam import RECIPES
        >>> check(RECIPES["sam"])
    """
    if why := refusal(recipe):
        raise ValueError(
            f'compile must be "no", "default" or "reduce-overhead" for recipe {recipe.name!r}: its step cannot be one graph, for {why}; '
            'got "whole-step"'
        )


class WholeStep:
    """The steps of a training through tensors that stay where they are; a ``ValueError`` where several processes share the batches.

    Args:
        state: of the training; its generators draw what they draw for eager steps, in the same order.
        graphs: capture where the device can; without, every step is eager, through the same tensors and with the same numbers.

    Example:
        >>> from bisam.training import Run, fit
        >>> run = Run(recipe="bisam-log", model="mlp", epochs=2)
        >>> fit(run.replace(compile="whole-step")).rows == fit(run).rows
        True
    """

    def __init__(self, state, graphs: bool = True):
        if state.workers.size > 1:
            raise ValueError(f'compile must not be "whole-step" with {state.workers.size} processes: a graph would have to wait for the others')
        size, device = state.run.batch_size, state.device
        self.state, self.sums = state, Sums(state.device)
        self.steps = len(state.train) // size
        self._place = torch.zeros(1, dtype=torch.int64, device=device)  # t
        self._order = torch.zeros(self.steps, size, dtype=torch.int64, device=device)
        self._lr = torch.zeros((), device=device)
        self._drawn: dict[str, Tensor] = {}
        self._graph, self._side = cuda_graphs.graph_of(device) if _checks.flag("graphs", graphs) else None, cuda_graphs.side_stream(device)
        self._graphs: dict[float, object] = {}
        self._eager = Counter()

    def epoch(self, lr: float) -> Iterator[int]:
        """One epoch; yields after every step how many samples it saw, while the device may still be at work on it."""
        self._fill(lr)
        with self._lr_on_device(lr):
            for _ in range(self.steps):
                self._next()
                yield self._order.shape[1]

    def _fill(self, lr: float) -> None:
        """What the epoch needs, sent to the device at once."""
        state, (steps, size) = self.state, self._order.shape
        self.sums.clear()
        self._place.zero_()
        self._lr.fill_(lr)
        _send(state.next_order()[: steps * size].view(steps, size), self._order)
        height_width = state.train.inputs.shape[-2:]
        draws = [state.augment.draws(size, *height_width, state.augment_draws) for _ in range(steps)]
        for name in draws[0]:
            every = torch.stack([each[name] for each in draws])
            if name not in self._drawn:
                self._drawn[name] = torch.empty_like(every, device=state.device)
            _send(every, self._drawn[name])

    @contextmanager
    def _lr_on_device(self, lr: float) -> Iterator[None]:
        """Inside, the base holds its learning rate as a tensor; outside, where schedules and checkpoints see it, as a number."""
        optimizer = self.state.optimizer
        optimizer.memory.known_lr = lr
        for group in optimizer.param_groups:
            group["lr"] = self._lr
        try:
            yield
        finally:
            optimizer.memory.known_lr = None
            for group in optimizer.param_groups:
                group["lr"] = lr

    def _next(self) -> None:
        """One more step of the run: eager, or a replay."""
        memory = self.state.optimizer.memory
        done, radius = memory.step, self.state.run.recipe.radius.now(memory)
        if self._graph is None or self._eager[radius > 0] < WARM_UP:
            self._eager[radius > 0] += 1
            with cuda_graphs.aside(self._side):
                self._step()
        else:
            if radius not in self._graphs:
                self._capture(radius)
                memory.step = done  # what was captured has not been done
            self._graphs[radius].replay()
        memory.step = done + 1  # a replay does not count by itself

    def _capture(self, radius: float) -> None:
        generators = self.state.optimizer.memory.generators(self.state.device)
        while len(self._graphs) >= KEPT:  # the oldest is let go with its memory before the next takes some
            del self._graphs[next(iter(self._graphs))]
        self.state.optimizer.zero_grad()
        self._graphs[radius] = self._graph(self._step, self._side, generators)

    def _step(self) -> None:
        """What is captured. It reads and writes nothing but memory that is there before and after."""
        state, memory = self.state, self.state.optimizer.memory
        batch = state.batch(state.train, self._order.index_select(0, self._place)[0], self._changed)
        before = memory.snapshot()
        loss = state.optimizer.step(batch)
        memory.keep_in(before)
        self.sums.add(batch, loss)
        self._place.add_(1)

    def _changed(self, inputs: Tensor, data, generator: torch.Generator) -> Tensor:
        """The images as augmentation leaves them, from draws that were made before; the generator is not asked."""
        drawn = {name: every.index_select(0, self._place)[0] for name, every in self._drawn.items()}
        return self.state.augment.changed(inputs, data, drawn)


def _send(values: Tensor, there: Tensor) -> None:
    """Overwrites a tensor on a device, in one copy that neither side waits for."""
    there.copy_(values.pin_memory() if there.is_cuda else values, non_blocking=there.is_cuda)
