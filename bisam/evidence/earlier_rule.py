"""Rule 1, that of version 0.1.0: kept, so that old verdicts can be computed beside new ones."""

from __future__ import annotations

from .. import _checks
from .crossed import ALPHA
from .power import FEWEST_PAIRS
from .statistics import Paired

__all__ = ["earlier_verdict"]


def earlier_verdict(ours: Paired | None, published_effect: float | None = None) -> str:
    r"""What rule 1, that of version 0.1.0, says of a claim.

    With the interval :math:`[\ell, h]` and the p of our differences over six pairs or more: a claim of ours holds, is refuted or
    is not resolved. A published effect :math:`e \ne 0` is ``"reproduced"`` if a difference is seen in its direction and
    :math:`\ell \le e \le h`, ``"direction only"`` if it is seen and :math:`e` is left out, ``"not reproduced"`` if the other
    direction is seen, or none and :math:`e` is left out, and else ``"not resolved"``. The published error does not count, and a
    wider interval is more easily "reproduced". An effect of nothing is judged like a claim of ours.

    Args:
        ours: the comparison of our runs; ``None`` if there are none.
        published_effect: the printed difference; ``None`` for a claim of ours.

    Raises:
        TypeError, ValueError: ``ours`` is no :class:`bisam.evidence.statistics.Paired`, or the effect no finite number.

    Example:
        >>> seen = Paired(mean=0.3, low=0.1, high=0.5, p=0.03, pairs=6, detectable=0.3)
        >>> earlier_verdict(seen, 0.2), earlier_verdict(seen, 0.9), earlier_verdict(seen, -0.2), earlier_verdict(None, 0.2)
        ('reproduced', 'direction only', 'not reproduced', 'not attempted')
    """
    effect = 0.0 if published_effect is None else _checks.real("published_effect", published_effect)
    if ours is None:
        return "not attempted"
    _checks.part("ours", ours, Paired, "the Paired that paired() returns, or None")
    if effect == 0:
        return {"better": "holds", "worse": "refuted", "not resolved": "not resolved"}[ours.verdict]
    inside = ours.low <= effect <= ours.high
    if ours.verdict != "not resolved":
        if (ours.verdict == "better") != (effect > 0):
            return "not reproduced"
        return "reproduced" if inside else "direction only"
    nothing_seen = ours.pairs >= FEWEST_PAIRS and ours.low <= 0 <= ours.high and ours.p >= ALPHA
    return "not reproduced" if nothing_seen and not inside else "not resolved"
