r"""What is measured of a classifier beside its accuracy, all in percent, through scikit-learn and SciPy.

.. math:: F_1 = \frac{2\,\mathrm{TP}}{2\,\mathrm{TP} + \mathrm{FP} + \mathrm{FN}}, \qquad
    \mathrm{MCC} = \frac{\mathrm{TP}\cdot\mathrm{TN} - \mathrm{FP}\cdot\mathrm{FN}}
    {\sqrt{(\mathrm{TP}+\mathrm{FP})(\mathrm{TP}+\mathrm{FN})(\mathrm{TN}+\mathrm{FP})(\mathrm{TN}+\mathrm{FN})}}
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .. import _checks
from ..losses.targets import are_soft

__all__ = ["METRICS", "checked", "score"]

TOP = 5


def _top5(logits: Tensor, targets: Tensor) -> float:
    if logits.shape[1] <= TOP:
        raise ValueError(f"metrics must leave out 'top5_accuracy' for {logits.shape[1]} classes: it needs more than {TOP}")
    return float((logits.topk(TOP).indices == _classes(targets).unsqueeze(1)).any(1).double().mean())


def _f1(logits: Tensor, targets: Tensor) -> float:
    if logits.shape[1] != 2:
        raise ValueError(f"metrics must leave out 'f1' for {logits.shape[1]} classes: it is that of class 1 of two")
    found = _checks.needs("sklearn.metrics", extra="train").f1_score(_classes(targets).numpy(), logits.argmax(1).numpy(), zero_division=0.0)
    return float(found)


def _matthews(logits: Tensor, targets: Tensor) -> float:
    return float(_checks.needs("sklearn.metrics", extra="train").matthews_corrcoef(_classes(targets).numpy(), logits.argmax(1).numpy()))


def _correlation(name: str) -> Callable[[Tensor, Tensor], float]:
    def found(logits: Tensor, targets: Tensor) -> float:
        stats = _checks.needs("scipy.stats", extra="train")
        ours, theirs = _grades(logits.double().softmax(1)), _grades(targets)
        if bool((ours == ours[0]).all()) or bool((theirs == theirs[0]).all()):
            return 0.0  # of a constant there is no correlation; libraries say NaN
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SciPy's word about values that are nearly constant
            return float(getattr(stats, name)(ours.numpy(), theirs.numpy()).statistic)

    return found


# What a metric makes of logits (n, K) and of targets, class numbers (n,) or shares (n, K), on the CPU, as a share or a coefficient.
METRICS: dict[str, Callable[[Tensor, Tensor], float] | None] = {
    "accuracy": lambda logits, targets: float((logits.argmax(1) == _classes(targets)).double().mean()),
    "top5_accuracy": _top5,
    "f1": _f1,
    "matthews": _matthews,
    "pearson": _correlation("pearsonr"),
    "spearman": _correlation("spearmanr"),
    "bleu": None,  # of translations that a network writes, see Data.measured
}


def _classes(targets: Tensor) -> Tensor:
    return targets.argmax(1) if are_soft(targets) else targets.long()


def _grades(of: Tensor) -> Tensor:
    """The mean class of each sample, where classes are grades; class numbers are their own."""
    return of.double() @ torch.arange(of.shape[1], dtype=torch.float64) if of.is_floating_point() else of.double()


def checked(name: str, metrics: Sequence[str]) -> tuple[str, ...]:
    """Names of metrics, ``"accuracy"`` first and each once; a ``ValueError`` that lists those there are.

    Example:
        >>> checked("metrics", ("accuracy", "f1"))
        ('accuracy', 'f1')
    """
    found = tuple(_checks.sequence(name, metrics))
    for one in found:
        _checks.choice(f"a name in {name}", one, tuple(METRICS))
    if found[:1] != ("accuracy",) or len(set(found)) != len(found):
        raise ValueError(f"{name} must begin with 'accuracy' and hold every name once, got {_checks.shown(metrics)}")
    return found


def score(name: str, logits: Tensor | None, targets: Tensor) -> float:
    r"""One metric, in percent.

    Args:
        name: one of ``METRICS`` but ``"bleu"``. Of two classes ``"f1"`` is that of class 1. ``"pearson"`` and ``"spearman"`` take the classes as
            grades :math:`0, \dots, K - 1`: of a prediction the mean grade :math:`\sum_j j\,\mathrm{softmax}(f)_j`.
        logits: scores, shape ``(n, K)``, on the CPU.
        targets: class numbers, shape ``(n,)``, or distributions over the classes, shape ``(n, K)``.

    Raises:
        ValueError: an unknown name, a metric that these classes do not have, or logits that are missing.

    Example:
        >>> logits, targets = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 1, 0])
        >>> round(score("accuracy", logits, targets), 1), round(score("f1", logits, targets), 1), round(score("matthews", logits, targets), 1)
        (66.7, 66.7, 50.0)
    """
    measure = METRICS[_checks.choice("name", name, tuple(METRICS))]
    if measure is None:
        raise ValueError(f"metrics must leave out {name!r}: data that can measure it do so themselves")
    if logits is None:
        raise ValueError(f"metrics must leave out {name!r}: it is of one row of logits a sample, and a sample of these data has several")
    return 100 * measure(logits.float(), targets)
