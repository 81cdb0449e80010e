"""The whole step, in units of what no method with a climb can avoid: two passes and the base's update."""

from __future__ import annotations

from collections.abc import Iterator

import methods
import models
from harness import Candidate, Case, Settings

RECIPES = ("sam", "bisam-log", "bisam-tanh", "asam")
SLOW_TO_TIME = ("esam", "msam", "gsam", "looksam")  # left out of a quick run, as is the network below
SLOW_NET = "vgg"


def cases(settings: Settings, nets: dict[str, models.Net] | None = None) -> Iterator[Case]:
    """One case for each network and batch."""
    for net in (nets or models.nets(settings.device)).values():
        if not (settings.quick and net.name == SLOW_NET):
            yield _case(settings, net)


def _case(settings: Settings, net: models.Net) -> Case:
    ours = methods.recipes(RECIPES if settings.quick else RECIPES + SLOW_TO_TIME)
    skipped = {f"bisam {name}": "left out of a quick run" for name in SLOW_TO_TIME if settings.quick}
    others, absent = methods.peers()
    found = []
    for name, method in {"floor": methods.two_passes, **ours, **others}.items():
        step = method(*net.on(settings.device, settings.seed))  # each has a model of its own
        found.append(Candidate(name, step, period=methods.period(name), optional=name in others))
    facts = {**models.size(net.build()), "batch": net.batch}
    unit = "floor: two forward-backward passes with cross-entropy, one fused SGD step"
    return Case("step", net.name, unit, found, skipped | absent, facts)
