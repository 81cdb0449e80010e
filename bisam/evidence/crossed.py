"""Seeds and test images crossed: how sure a mean difference is when both are a sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .. import _checks

__all__ = ["ALPHA", "Crossed", "crossed"]

ALPHA = 0.05  # level of every interval and test: ours, fixed before any run


@dataclass(frozen=True)
class Crossed:
    """The mean difference of two methods over seeds and test images, in points, with its standard error, two-sided p and 95 % interval.

    Example:
        >>> Crossed(mean=1.0, error=0.4, freedom=20.0, p=0.02, low=0.2, high=1.8, images=500).images
        500
    """

    mean: float
    error: float
    freedom: float
    p: float
    low: float
    high: float
    images: int


def crossed(ours, theirs) -> Crossed:
    r"""The mean difference over seeds and test images, as a sample of both.

    .. math::
        d_{ki} = \mu + \alpha_k + \beta_i + \epsilon_{ki}, \qquad
        \operatorname{var}(\bar d) = \frac{M_\alpha + \max(0,\, M_\beta - M_\epsilon)}{n m}

    with the mean squares :math:`M` of seeds, images and the rest; the interval is never narrower than that over seeds alone.

    Args:
        ours: which test images are right, of shape (n, m), one row a seed; booleans, or shares if several networks are averaged.
        theirs: of the other method, with the same seeds and images in the same order.

    Raises:
        TypeError, ValueError: no arrays of finite numbers of one shape, or fewer than two seeds or images.

    Source:
        Two-way random effects by the method of moments, Searle, Casella & McCulloch (1992), chapter 4; degrees of freedom by
        Satterthwaite (1946).

    Example:
        >>> result = crossed([[True, True, False, True], [True, True, True, True]], [[True, False, False, True]] * 2)
        >>> result.mean, result.low < 0 < result.high
        (37.5, True)
    """
    stats = _checks.needs("scipy.stats", extra="train")
    first, second = _shares("ours", ours), _shares("theirs", theirs)
    if first.shape != second.shape or first.ndim != 2 or min(first.shape) < 2:
        raise ValueError(f"ours and theirs must be of one shape, 2 seeds and 2 images at least, got {first.shape} and {second.shape}")
    n, m = first.shape
    d = 100 * (first - second)
    mean, by_seed, by_image = float(d.mean()), d.mean(1), d.mean(0)
    rest = ((d - by_seed[:, None] - by_image + mean) ** 2).sum() / ((n - 1) * (m - 1))
    seeds, images = m * by_seed.var(ddof=1), n * by_image.var(ddof=1)
    total, freedom = seeds, n - 1.0
    if images > rest:
        total = seeds + images - rest
        freedom = total**2 / (seeds**2 / (n - 1) + images**2 / (m - 1) + rest**2 / ((n - 1) * (m - 1)))
    halves, p = [], []
    for square, df in ((seeds, n - 1.0), (total, freedom)):  # a few more degrees of freedom must not make it narrower
        error = math.sqrt(square / (n * m))
        halves.append(error * student(df))
        p.append(float(2 * stats.t.sf(abs(mean) / error, df)) if error else float(mean == 0))
    half = max(halves)
    return Crossed(mean, error, float(freedom), max(p), mean - half, mean + half, m)


def student(freedom: float) -> float:
    """The quantile of Student's distribution by which a standard error becomes half an interval."""
    return float(_checks.needs("scipy.stats", extra="train").t.ppf(1 - ALPHA / 2, freedom))


def _shares(name: str, value: object) -> object:
    """An array of finite floats, made of booleans or of numbers."""
    numpy = _checks.needs("numpy", extra="train")
    try:
        found = numpy.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # rows of different lengths, or a tensor that cannot be an array
        found = numpy.asarray(None)
    if found.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be an array of booleans or numbers, one row a seed; got {_checks.shown(value)}")
    if not numpy.isfinite(found).all():
        raise ValueError(f"{name} must be finite, got {_checks.shown(value)}")
    return found.astype(float)
