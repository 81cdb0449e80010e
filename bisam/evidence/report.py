"""The state of every claim as text and files: what was found, against what was published, and the verdicts of both rules."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .. import _checks
from .. import _files as files
from .decisions import Decision
from .statistics import Paired

__all__ = ["FORMATS", "changes", "counted", "markdown", "p_value", "signed", "write"]

FORMATS = (".md", ".json", ".csv")
BEFORE = "rule of 0.1.0"
EPOCHS, BUDGETS = ("last epoch", "chosen epoch"), ("equal epochs", "equal passes")


def counted(words: Sequence[str]) -> str:
    """Verdicts and how often each is there.

    Example:
        >>> counted(["holds", "not resolved", "holds"])
        '2 holds, 1 not resolved'
    """
    words = [_checks.text("words", word) for word in _checks.sequence("words", words)]
    return ", ".join(f"{n} {word}" for word, n in sorted(Counter(words).items()))


def p_value(p: float) -> str:
    """A p-value as text, to three decimals; what would read as zero is said to be smaller than a thousandth, since no p-value is zero.

    Args:
        p: from 0 to 1.

    Raises:
        TypeError, ValueError: no number, or one outside of 0 to 1.

    Example:
        >>> p_value(0.0312), p_value(0.00002)
        ('0.031', '<0.001')
    """
    if _checks.nonnegative("p", p) > 1:
        raise ValueError(f"p must be in [0, 1], got {_checks.shown(p)}")
    return f"{p:.3f}" if p >= 0.0005 else "<0.001"


def signed(difference: float, digits: int = 2) -> str:
    """A difference as text, with its sign; what rounds to zero has no sign.

    Args:
        difference: in points or samples.
        digits: behind the point.

    Raises:
        TypeError, ValueError: no number, or digits that are no whole number from 0 to 15.

    Example:
        >>> signed(1.25), signed(-0.004), signed(12.34, 1)
        ('+1.25', '0.00', '+12.3')
    """
    if _checks.whole("digits", digits, 0) > 15:
        raise ValueError(f"digits must be at most 15, got {_checks.shown(digits)}")
    found = f"{_checks.real('difference', difference):+.{digits}f}"
    return found if float(found) else found[1:]


def markdown(found: Sequence[Decision]) -> str:
    """A table of the claims with the verdicts of both rules, one of what stands beside, and lines that count the verdicts.

    Args:
        found: what :func:`bisam.evidence.decisions.decisions` returned.

    Example:
        >>> from bisam.evidence.decisions import decisions
        >>> print("\\n".join(markdown(decisions("first_run")).splitlines()[-2:]))
        By the rule of 0.1.0: 2 holds, 6 not resolved.
        8 claims: 2 holds, 6 not resolved.
    """
    head = ("claim", "scale", "pairs", "difference [95 % interval]", "p", "q", "published", "verdict", BEFORE)
    lines = [_line(head), "| --- | --- | ---: | --- | ---: | ---: | ---: | --- | --- |"]
    beside = [_line(("claim", "training accuracy", "gap", "other epoch", "other budget of SGD", "marks")), "| --- | --- | --- | --- | --- | --- |"]
    for each in _all(found):
        claim, result = each.claim, each.result
        numbers = ("", "", "") if result is None else (str(result.pairs), _gap(result), p_value(result.p))
        q = "" if each.q is None else p_value(each.q)
        effect = "" if each.published is None else f"{each.published:+.2f}"
        lines.append(_line((f"`{claim.id}`: {claim.statement}", each.scale, *numbers, q, effect, each.verdict, each.before)))
        if result is not None:
            beside.append(_line((f"`{claim.id}`", *_fitted(each), *(_beside(each, labels) for labels in (EPOCHS, BUDGETS)), ", ".join(each.marks))))
    return "\n".join((
        *lines, "", *(beside if len(beside) > 2 else ()), "",
        f"By the {BEFORE}: {counted([each.before for each in found])}.",
        f"{len(found)} claims: {counted([each.verdict for each in found])}.",
    ))  # fmt: skip


def _all(found: object, name: str = "found") -> list[Decision]:
    return [_checks.part(name, each, Decision, "a list of Decision, as decisions() returns it") for each in _checks.sequence(name, found)]


def _line(cells: Sequence[str]) -> str:
    """A line of a table; nothing in a cell can end it or begin another."""
    plain = ("".join(sign if sign.isprintable() else " " for sign in cell).replace("\\", "\\\\").replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(plain)} |"


def _gap(result: Paired) -> str:
    low, high = result.widest
    return f"{signed(result.mean)} [{signed(low)}, {signed(high)}]"


def _fitted(each: Decision) -> tuple[str, str]:
    fit = each.fit
    if fit is None:
        return "not recorded", ""
    needed = f", needs {fit.needed:g} % of {min(fit.reachable, fit.their_reachable):g}" if fit.needed else ""
    return f"{fit.ours:.1f} / {fit.theirs:.1f}{needed}", f"{fit.gap:+.1f} / {fit.their_gap:+.1f}"


def _beside(each: Decision, labels: tuple[str, str]) -> str:
    return ", ".join(f"{label}: {'not run' if result is None else _gap(result)}" for label, result in each.beside.items() if label in labels)


def _row(each: Decision) -> dict:
    claim, result, fit = each.claim, each.result, each.fit
    numbers = dict.fromkeys(("difference", "low", "high", "p", "detectable"))
    if result is not None:
        numbers = dict(zip(numbers, (result.mean, *result.widest, result.p, result.detectable), strict=True))
    beside = {}
    for name, labels in (("other_epoch", EPOCHS), ("other_budget", BUDGETS)):
        other = next((part for label, part in each.beside.items() if label in labels), None)
        three = (None, None, None) if other is None else (other.mean, *other.widest)
        beside |= dict(zip((f"{name}_difference", f"{name}_low", f"{name}_high"), three, strict=True))
    row = {
        **{name: getattr(claim, name) for name in ("id", "statement", "ours", "theirs", "metric", "family", "rule")},
        "scale": each.scale, "pairs": 0 if result is None else result.pairs, **numbers,
        "q": each.q, "published": each.published, "verdict": each.verdict, "alone": each.alone, BEFORE.replace(" ", "_"): each.before,
        "train_ours": fit and fit.ours, "train_theirs": fit and fit.theirs, "gap_ours": fit and fit.gap, "gap_theirs": fit and fit.their_gap,
        "fitted": claim.needed, **beside, "marks": ", ".join(each.marks),
    }  # fmt: skip
    return {key: _rounded(value) for key, value in row.items()}


def _rounded(value):
    """Four digits after the point; what is not finite, as the detectable difference of too few pairs, is left out."""
    if not isinstance(value, float):
        return value
    return round(value, 4) if math.isfinite(value) else None


def write(found: Sequence[Decision], path: Path) -> None:
    """Writes the state of the claims, in one piece, in the format that the file's ending names.

    Args:
        found: what :func:`bisam.evidence.decisions.decisions` returned.
        path: ends in ``.md``, ``.json`` or ``.csv``, or a ``ValueError`` says so; replaced.

    Example:
        >>> import tempfile
        >>> from bisam.evidence.decisions import decisions
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(decisions("first_run"), Path(folder) / "claims.csv")
        ...     print((Path(folder) / "claims.csv").read_text()[:30])
        id,statement,ours,theirs,metri
    """
    path = _checks.path("output", path)
    _checks.choice("output", path.suffix, FORMATS)
    found = _all(found)
    rows, text = [_row(each) for each in found], io.StringIO(newline="")
    if path.suffix == ".md":
        text.write(markdown(found) + "\n")
    elif path.suffix == ".json":
        text.write(json.dumps(rows, indent=1, allow_nan=False) + "\n")
    elif rows:
        table = csv.DictWriter(text, rows[0])
        table.writeheader()
        table.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(path, text.getvalue())


def changes(before: Sequence[Decision], after: Sequence[Decision]) -> list[str]:
    """What changed, a line a claim: the pairs and the interval before and after, and the verdict.

    Args:
        before: what :func:`bisam.evidence.decisions.decisions` returned before the runs.
        after: the same after them.

    Example:
        >>> from bisam.evidence.decisions import decisions
        >>> changes(decisions("first_run"), decisions("first_run"))
        []
    """
    known = {each.claim.id: each for each in _all(before, "before")}
    lines = []
    for each in _all(after, "after"):
        old = known.get(each.claim.id)
        if old is None or (_state(old) == _state(each) and old.verdict == each.verdict):
            continue
        verdict = each.verdict if each.verdict == old.verdict else f"{old.verdict} -> {each.verdict.upper()}"
        lines.append(f"{each.claim.id}: {_state(old)} -> {_state(each)}: {'no verdict yet' if each.pairs < each.claim.fewest else verdict}")
    return lines


def _state(each: Decision) -> str:
    if each.result is None:
        return f"{each.pairs} of {each.claim.fewest} pairs"
    asked = f" of {each.claim.pairs}" if each.result.pairs < each.claim.pairs else ""
    return f"{_gap(each.result)} from {each.result.pairs}{asked} pairs"
