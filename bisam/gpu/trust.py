"""What stage three may do, after what stage one has found: with graphs or without, several at a time or one, from checkpoints or anew, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .lines import of_this_session

# Names of checks. The first is the ground of all that is recorded; the others say what may be built upon it.
EAGER = "whole step without graphs against compile no, bisam-log"
SGD = "step sgd float32"  # the step of the base, which every method ends with
SIDE_BY_SIDE = "side by side"
GRAPHS = "graph "  # names of checks of graphs begin so; these are of graphs too:
OF_GRAPHS = (SIDE_BY_SIDE, "resumed whole-step", "a bad step is left out of a graph")
RESUMED = ("resumed no", "resumed whole-step without graphs")


@dataclass(frozen=True)
class Trust:
    """What may be done."""

    refusal: str = ""  # why nothing may be recorded; empty if something may
    graphs: bool = True  # steps may be graphs
    side_by_side: bool = True  # several trainings may go at a time
    checkpoints: bool = True  # a training may go on from a checkpoint
    left_out: frozenset[str] = frozenset()  # methods whose step on this device is not that of the CPU
    reasons: tuple[str, ...] = ()  # for every no among these the check that said it, and what was found wrong and changes nothing here


def trust(folder: Path) -> Trust:
    """What the checks of this session allow. What has not been checked on this machine is not trusted: it costs minutes, and no evidence."""
    answers = [(line["name"], line["result"]) for line in of_this_session(folder / "correctness.jsonl") if "result" in line]
    bad = list(dict.fromkeys(name for name, result in answers if result != "pass"))
    good = {name for name, _ in answers} - set(bad)
    against_graphs = [name for name in bad if name.startswith(GRAPHS) or name in OF_GRAPHS]
    proven = any(name.startswith(GRAPHS) for name in good)
    against_resuming = [name for name in bad if name in RESUMED]
    methods = {name.split()[1]: name for name in bad if name.startswith("step ") and name.endswith(" float32")}
    reasons = [
        *(f"without graphs: {name}" for name in against_graphs),
        *([] if proven or against_graphs else ["without graphs: no check of a graph has passed"]),
        *([] if SIDE_BY_SIDE in good else [f"one at a time: {SIDE_BY_SIDE}"]),
        *(f"without checkpoints: {name}" for name in against_resuming),
        *(f"left out: {name}" for name in methods.values()),
        *(f"in spite of: {name}" for name in bad if name not in {*against_graphs, *against_resuming, *methods.values(), EAGER}),
    ]
    return Trust(
        refusal=_refusal(good, bad), graphs=proven and not against_graphs, side_by_side=SIDE_BY_SIDE in good,
        checkpoints=not against_resuming, left_out=frozenset(methods), reasons=tuple(reasons),
    )  # fmt: skip


def _refusal(good: set[str], bad: list[str]) -> str:
    if wrong := [name for name in (EAGER, SGD) if name in bad]:
        return f"found wrong: {', '.join(wrong)}"
    return "" if EAGER in good else f"not checked: {EAGER}"
