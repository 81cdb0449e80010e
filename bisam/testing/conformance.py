"""The conformance test itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable

import torch

from .. import _checks
from . import formula, loop  # noqa: F401  which fill the table of invariants
from .invariants import INVARIANTS, Invariant
from .report import FAILED, NOT_APPLICABLE, PASSED, Outcome, Report
from .setting import Candidate, NotApplicable

__all__ = ["check"]


def check(
    optimizer_factory: Callable,
    style: Callable,
    *,
    rho: float = 0.05,
    is_sam: bool = True,
    only: Iterable[str] | None = None,
) -> Report:
    r"""Asks of an optimiser what is published about SAM, and what a training loop needs.

    .. math:: w_{t+1} = \mathrm{base}\big(w_t, \nabla L(w_t + \epsilon_t)\big), \qquad
        \epsilon_t = \rho\,\nabla L(w_t) / \lVert\nabla L(w_t)\rVert_2

    Everything is made on small networks on the CPU, in seconds; nothing is timed. What the candidate raises is an outcome, with its
    message. The random state is as before.

    Args:
        optimizer_factory: ``optimizer_factory(params, base_cls, rho=..., **base_kwargs)`` returns the candidate around
            ``base_cls(params, **base_kwargs)``; ``params`` is a list of parameters or of groups. If it takes ``model``, it is given the
            network as well.
        style: how it is driven: one of this room, such as :func:`~bisam.testing.styles.two_steps`, or a function
            ``step(optimizer, model, loss_fn)`` of your own.
        rho: the radius of the checks.
        is_sam: whether the formula above is that of the candidate. For a relative with another formula the checks of the formula do
            not apply, and all others do.
        only: names of checks, if not all.

    Returns:
        A :class:`~bisam.testing.report.Report`.

    Raises:
        TypeError, ValueError: an argument that is none of these; a name that no check has.

    Source:
        Foret et al. (2021), algorithm 1, for the formula; each check has its own.

    Example:
        >>> from bisam import SAM, SharpnessAware, testing
        >>> def sam(params, base_cls, rho, **kwargs):
        ...     return SharpnessAware(base_cls(params, **kwargs), SAM.with_rho(rho))
        >>> report = check(sam, testing.batch, only=("length", "weights_back"))
        >>> print(report["weights_back"])
        weights_back: passed, 0.0e+00 (at most 0)
        >>> report.raise_if_failed()
    """
    candidate = Candidate(
        _checks.part("optimizer_factory", optimizer_factory, Callable, "a class or function (params, base_cls, rho=..., **base_kwargs)"),
        _checks.function("style", style, "a function step(optimizer, model, loss_fn)"),
        _checks.positive("rho", rho),
        _checks.flag("is_sam", is_sam),
    )
    names = list(INVARIANTS) if only is None else [_checks.choice("only", name, tuple(INVARIANTS)) for name in only]
    return Report([_outcome(INVARIANTS[name], candidate) for name in names])


def _outcome(invariant: Invariant, candidate: Candidate) -> Outcome:
    name, limit = invariant.name, invariant.limit
    if invariant.is_of_the_formula and not candidate.is_sam:
        return Outcome(name, NOT_APPLICABLE, said="it asks for the formula of SAM")
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            measured = float(invariant.measure(candidate))
    except NotApplicable as reason:
        return Outcome(name, NOT_APPLICABLE, said=str(reason))
    except Exception as error:  # whatever a candidate does, the other checks go on
        return Outcome(name, FAILED, said=f"{type(error).__name__}: {_first_line(error)}")
    return Outcome(name, PASSED if measured <= limit else FAILED, measured, limit)


def _first_line(error: Exception) -> str:
    line = (str(error).splitlines() or [""])[0]
    return "".join(filter(str.isprintable, line))[: _checks.SHOWN]
