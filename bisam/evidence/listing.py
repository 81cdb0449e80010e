"""What results/claims.toml lists: experiments, families and claims, each checked, and each beside those that it names."""

from __future__ import annotations

import functools
import reprlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .. import _checks
from .. import _files as files
from .claim import Claim, Family
from .experiment import EQUAL_EPOCHS, Experiment, method
from .form import made
from .places import RESULTS, LedgerError, check_there
from .published import PUBLISHED_AS, TableError, published_effect
from .verdicts import FEWEST

__all__ = ["claims", "experiment", "experiments", "families"]


@dataclass
class Listed:
    """What a list of claims holds, and everything that is wrong with it."""

    entries: dict[str, dict | list] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)  # experiments that are described, but wrongly


def listed(folder: Path = RESULTS) -> Listed:
    """What ``claims.toml`` holds; a ``LedgerError`` if it cannot be read, or is no TOML."""
    path = _checks.path("folder", folder, "the path of a folder") / "claims.toml"
    check_there(path.parent)
    try:
        return _listed(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # also no UTF-8, no TOML, or numbers and depths beyond reason
        raise LedgerError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


@functools.lru_cache(maxsize=16)
def _listed(text: str) -> Listed:
    """The entries of a list, without those that are wrong, and what is wrong."""
    raw = tomllib.loads(text)
    found = Listed(faults=[f"{name!r} is no table of a list of claims" for name in raw if name not in ("family", "experiment", "claim")])
    families = found.entries["family"] = _named(raw.get("family", {}), "family", Family, found.faults)
    plans = found.entries["experiment"] = _named(raw.get("experiment", {}), "experiment", Experiment, found.faults)
    if not raw.get("experiment"):
        found.faults.append("there is no experiment")
    elif isinstance(raw["experiment"], dict):
        found.left_out = set(raw["experiment"]) - set(plans)
    found.entries["claim"] = _claims(raw.get("claim", []), found.faults)
    for one in found.entries["claim"]:
        if one.experiment not in found.left_out:  # which is said already
            wrong = [*_strangers(one, plans), *_rule_faults(one, plans.get(one.experiment), families)]
            found.faults += [f"claim {one.id}: {fault}" for fault in wrong]
    return found


def _entries(folder: Path, table: str) -> dict | list:
    """The entries of a list in which nothing is wrong."""
    found = listed(folder)
    if found.faults:
        more = f" (and {len(found.faults) - 1} more; `bisam verify` lists all)" if len(found.faults) > 1 else ""
        raise LedgerError(f"{folder / 'claims.toml'}: {found.faults[0]}{more}")
    return found.entries[table].copy()


def experiments(folder: Path = RESULTS) -> dict[str, Experiment]:
    """All experiments of ``claims.toml``, by name.

    Args:
        folder: the ledger.

    Example:
        >>> experiments()["first_run"].seeds
        10
    """
    return _entries(folder, "experiment")


def experiment(name: str, folder: Path = RESULTS) -> Experiment:
    """The named experiment.

    Args:
        name: one of :func:`experiments`; of another a ``ValueError`` says which exist.
        folder: the ledger.

    Example:
        >>> experiment("first_run").methods[0]
        'sgd'
    """
    known = experiments(folder)
    return known[_checks.choice("experiment", name, tuple(known))]


def claims(name: str | None = None, folder: Path = RESULTS) -> list[Claim]:
    """The claims that the named experiment decides, or all.

    Args:
        name: of the experiment.
        folder: the ledger.

    Example:
        >>> {claim.experiment for claim in claims("first_run")}
        {'first_run'}
    """
    if name is not None:
        experiment(name, folder)
    return [claim for claim in _entries(folder, "claim") if name in (None, claim.experiment)]


def families(folder: Path = RESULTS) -> dict[str, Family]:
    """The families of claims in ``claims.toml``, by name.

    Args:
        folder: the ledger.

    Example:
        >>> "bisam-over-sam" in families()
        True
    """
    return _entries(folder, "family")


def _named(raw: object, table: str, kind: type, faults: list[str]) -> dict:
    if not isinstance(raw, dict):
        faults.append(f"{table} must be a table of tables, got {reprlib.repr(raw)}")
        return {}
    found = {}
    for name, fields in raw.items():
        try:
            files.safe_name("the name", name)
        except ValueError as error:
            faults.append(f"{table} {name!r}: {error}")
            continue
        if (one := made(kind, f"{table} {name}", fields, faults, name=name)) is not None:
            found[name] = one
    return found


def _claims(raw: object, faults: list[str]) -> list[Claim]:
    if not isinstance(raw, list):
        faults.append(f"claim must be a list of tables, [[claim]], got {reprlib.repr(raw)}")
        return []
    found: dict[str, Claim] = {}
    for number, fields in enumerate(raw, 1):
        id = fields.get("id") if isinstance(fields, dict) else None
        shown = id or number if isinstance(id, str) and id.isprintable() else repr(id)
        one = made(Claim, f"claim {shown}", fields, faults)
        if one is not None and found.setdefault(one.id, one) is not one:
            faults.append(f"claim {one.id}: id is that of an earlier claim")
    return list(found.values())


def _strangers(claim: Claim, plans: dict[str, Experiment]) -> Iterator[str]:
    """Where a claim speaks of what its experiment, or the published table, does not have."""
    if claim.label_noise is not None and "label_noise" in claim.at:
        yield "label_noise must be given once, by itself or in at"
    if claim.ours == claim.theirs and claim.place == claim.other_place:
        yield f"ours and theirs must differ, got {claim.ours} twice at one place"
    if claim.published_as and not claim.published:
        yield "published_as must not be given without published"
    for side, other in (("ours", claim.theirs), ("theirs", claim.ours)):
        if claim.ours != claim.theirs and claim.published_as.get(side) == PUBLISHED_AS.get(other, other):
            yield f"published_as must not call {side} by the name of {other}, got {claim.published_as[side]!r}"
    try:
        published_effect(claim)
    except TableError:  # no fault of the claim
        raise
    except (RuntimeError, ValueError, TypeError) as error:
        yield f"published {str(error).removeprefix(f'claim {claim.id}: ')}"
    if claim.experiment in plans:
        yield from _off_the_grid(claim, plans[claim.experiment])
    elif claim.experiment:
        yield f"experiment must be one of {', '.join(plans)}; got {claim.experiment!r}"


def _off_the_grid(claim: Claim, plan: Experiment) -> Iterator[str]:
    """Methods, axes and values that the experiment of a claim does not have."""
    for name in ("ours", "theirs"):
        if getattr(claim, name) not in plan.methods:
            yield f"{name} must be a method of {plan.name}: {', '.join(plan.methods)}; got {getattr(claim, name)!r}"
    axes = ", ".join(plan.grid) or "no axis"
    for name, place in (("at", claim.place), ("against", claim.against)):
        for axis, value in place.items():
            if axis not in plan.grid:
                yield f"{name} names {axis!r}; the grid of {plan.name} has {axes}"
            elif value not in plan.grid[axis]:
                yield f"{name} says {axis} {value!r}; the grid of {plan.name} has {', '.join(map(str, plan.grid[axis]))}"
    for axis in claim.over:
        if axis not in plan.grid:
            yield f"over names {axis!r}; the grid of {plan.name} has {axes}"
    for axis in plan.grid:
        if axis not in (*claim.place, *claim.over) or axis not in (*claim.other_place, *claim.over):
            yield f"at or over must name {axis}, an axis of {plan.name}"


def _rule_faults(claim: Claim, plan: Experiment | None, known: dict[str, Family]) -> Iterator[str]:
    """A family that is not there, and a claim of rule 2 whose experiment plans too little for it."""
    if claim.family and claim.family not in known:
        yield f"family must be one of {', '.join(known) or 'none'}; got {claim.family!r}"
    if claim.pairs and plan is not None and claim.pairs != plan.seeds:
        yield f"pairs must be all {plan.seeds} seeds of {plan.name}, or be left out; got {claim.pairs}"
    if claim.rule < 2 or plan is None:
        return
    if plan.seeds < FEWEST[claim.rule]:
        yield f"rule {claim.rule} needs {FEWEST[claim.rule]} seeds, {plan.name} plans {plan.seeds}"
    one_pass = {method(name).passes == 1 for name in (claim.ours, claim.theirs)}
    if len(one_pass) == 2 and (plan.budget == "same" or not {"sgd", EQUAL_EPOCHS} <= set(plan.methods)):
        yield (
            f"rule {claim.rule} compares a method of one pass with one of more at equal passes and at equal epochs; "
            f"{plan.name} must have both sgd and {EQUAL_EPOCHS}, and a budget that is not 'same'"
        )
