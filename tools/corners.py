"""Runs notebooks at the corners and at random points of the ranges that their parameters declare, and says which settings fail.

A corner takes one parameter to an end of its interval, or to one value of its list, and leaves the others at their defaults. A random
point draws all of them; what is refused there (a parameter that is not read at the scale) is drawn again. The outputs are thrown away.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bisam.notebook import parameters
from bisam.notebook.declarations import INTERVAL, Parameter, ParameterError
from bisam.notebook.find import NotebookError, find, names
from bisam.notebook.run import run

INSIDE = 1e-6  # how far from an end that does not belong to an interval, as a share of its length


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("names", nargs="*", help="of notebooks; all if none is named")
    arguments.add_argument("--scale", default="smoke", choices=("smoke", "laptop"), help="at which the others stand")
    arguments.add_argument("--random", type=int, default=0, metavar="N", help="random points beside the corners")
    arguments.add_argument("--seed", type=int, default=0, help="of the random points")
    arguments.add_argument("--most", type=int, default=0, metavar="N", help="of all settings of a notebook take N at random; 0: all")
    arguments.add_argument("--leave", action="append", default=[], metavar="KEY", help="a parameter that stays at its default")
    arguments.add_argument("--list", action="store_true", help="show the settings and run nothing")
    given = arguments.parse_args()
    failed = 0
    for name in given.names or names():
        for setting in chosen(name, given):
            words = " ".join(f"-p {key} {shown(value)}" for key, value in setting.items())
            if given.list:
                print(f"{name} {words}")
                continue
            started, said = time.perf_counter(), tried(name, setting)
            failed += said != ""
            print(f"{'FAILED' if said else 'ok':6} {time.perf_counter() - started:6.1f} s  {name} {words}" + (f"\n{said}" if said else ""), flush=True)
    if failed:
        print(f"==> failed: {failed} settings that are allowed do not finish", file=sys.stderr)
    return 1 if failed else 0


def chosen(name: str, given: argparse.Namespace) -> list[dict[str, object]]:
    """The settings of one notebook that are to be run."""
    declared = {key: each for key, each in parameters.from_notebook(find(name)).items() if key not in given.leave}
    draw = random.Random(f"{given.seed} {name}")
    settings = [{**setting, "scale": given.scale} for setting in corners(declared) if is_allowed(declared, {**setting, "scale": given.scale})]
    settings += [point(declared, given.scale, draw) for _ in range(given.random)]
    return draw.sample(settings, given.most) if 0 < given.most < len(settings) else settings


def corners(declared: dict[str, Parameter]) -> Iterator[dict[str, object]]:
    """The defaults, then each parameter at each of its ends."""
    yield {}
    for name, parameter in declared.items():
        for value in ends(parameter):
            if name != "scale" and value != parameter.default:
                yield {name: value}


def ends(parameter: Parameter) -> list[object]:
    """The values at the ends of a range: of an interval both, of a list all, of a choice of several each alone."""
    found: list[object] = []
    for kind in parameter.allowed.split(" or "):
        if interval := INTERVAL.match(kind):
            found += [as_kind(parameter, end(interval, side)) for side in ("low", "high")]
        elif kind in ("a file", "a folder", "any"):
            continue  # nobody can guess one
        elif kind in ("empty", "a device"):
            found.append({"empty": "", "a device": "cpu"}[kind])
        else:
            found += [as_kind(parameter, text) for text in re.split(r",\s*", kind.removeprefix("some of "))]
    return [value for value in dict.fromkeys(found) if fits(parameter, value)]


def end(interval: re.Match, side: str) -> float:
    """One end of an interval; where it does not belong to it, a point just inside."""
    low, high = float(interval["low"]), float(interval["high"])
    if side == "low":
        return low if interval["left"] == "[" else low + INSIDE * (high - low)
    return high if interval["right"] == "]" else high - INSIDE * (high - low)


def as_kind(parameter: Parameter, value: object) -> object:
    if parameter.kind == "int":
        return int(value) if isinstance(value, str) else math.floor(value)
    return float(value) if parameter.kind == "float" else value


def fits(parameter: Parameter, value: object) -> bool:
    try:
        parameter.check(value)
    except ParameterError:
        return False
    return True


def is_allowed(declared: dict[str, Parameter], setting: dict[str, object]) -> bool:
    try:
        parameters.check(declared, setting)
    except ParameterError:
        return False
    return True


def point(declared: dict[str, Parameter], scale: str, draw: random.Random) -> dict[str, object]:
    """A random setting that is allowed."""
    while True:
        setting = {name: drawn(parameter, draw) for name, parameter in declared.items()} | {"scale": scale}
        if is_allowed(declared, setting):
            return {name: value for name, value in setting.items() if value != declared[name].default or name == "scale"}


def drawn(parameter: Parameter, draw: random.Random) -> object:
    """The default in one case out of three, else a value of the range, small numbers as often as large ones."""
    found = ends(parameter)
    if not found or draw.random() < 1 / 3:
        return parameter.default
    interval = INTERVAL.match(parameter.allowed.split(" or ")[-1])
    if interval is None:
        return draw.choice(found)
    low, high = end(interval, "low"), end(interval, "high")
    value = low + (high - low) * draw.random() ** 3
    value = as_kind(parameter, value)
    return value if fits(parameter, value) else parameter.default


def shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value) or "''"


def tried(name: str, setting: dict[str, object]) -> str:
    """What went wrong when a setting was run; empty if nothing."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(name, {key: str(value) for key, value in setting.items()}, Path(folder) / "out.ipynb", progress=False)
        except (NotebookError, ParameterError) as error:
            return str(error)
    return ""


if __name__ == "__main__":
    sys.exit(main())
