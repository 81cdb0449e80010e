"""Measures what a step costs beyond its floor. See README.md in this folder for what each number means.

    python benchmarks/bench.py --quick
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler writes a line at each start and stop

import ascent
import kernels
import memory
import methods
import perturb
import step
import torch
from harness import Case, Settings, Timer, measure, write
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from bisam._files import check_writable

GROUPS = {
    "ascent": ascent.cases, "perturb": perturb.cases, "step": step.cases, "kernels": kernels.cases,
    "memory": memory.cases,
}
OUT = Path(__file__).resolve().parents[1] / "results" / "benchmarks.json"
ROUNDS = {False: 30, True: 7}


def main(words: list[str] | None = None) -> int:
    """Runs the benchmark and returns its exit status: 0 done, 1 it failed on the way, 2 it was asked wrongly."""
    given = _parser().parse_args(words)
    try:
        groups, out = _asked(given)
    except (ValueError, OSError) as error:
        return _fail(error, 2)
    if given.threads:
        torch.set_num_threads(given.threads)
    rounds = given.rounds or ROUNDS[given.quick]
    settings = Settings(device=given.device, rounds=rounds, quick=given.quick)
    try:
        found = run({name: GROUPS[name](settings) for name in groups}, settings)
        print_tables(found)
        if out:
            write(out, report(found, settings, groups))
    except OSError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail("stopped; nothing was written", 130)
    if out:
        print(f"written to {given.out or 'results/benchmarks.json'}")
    else:
        print("no file written; --out FILE.json writes one")
    return 0


def run(cases: dict[str, Iterator[Case]], settings: Settings, timer: Timer | None = None) -> list[dict]:
    """Measures the cases of each group in turn, which are made one by one: the models of a case are gone before the next is made."""
    timer = timer or Timer(wait=torch.cuda.synchronize if settings.device == "cuda" else lambda: None)
    found = []
    with _progress(settings.rounds) as start:
        for group in cases.values():
            for case in group:
                found.append(measure(case, settings, timer, start(f"{case.group} {case.name}")))
                del case
    return found


def report(found: list[dict], settings: Settings, groups: list[str]) -> dict:
    """Everything that is written: the machine, the settings, the numbers. No names of hosts, users or folders."""
    cuda = settings.device == "cuda"
    cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    machine = {
        "python": platform.python_version(), "torch": torch.__version__, "threads": torch.get_num_threads(),
        "cores": os.cpu_count(), "device": torch.cuda.get_device_name() if cuda else cpu, **methods.peer_versions(),
    }
    asked = {**vars(settings), "groups": groups, "base": methods.BASE}
    return {"machine": machine, "settings": asked, "cases": found}


def print_tables(found: list[dict]) -> None:
    """One table for each case, and below it what was left out and why."""
    console = Console()
    for case in found:
        facts = ", ".join(f"{name} {value:,}" for name, value in case["facts"].items())
        counted = case["kind"] == "count"
        caption = case["unit"] if counted else f"1 = {case['unit']}"
        table = Table(title=f"{case['group']}: {case['name']} ({facts})", caption=caption, title_justify="left")
        for heading in ("", *(("value", "ratio", "more") if counted else ("median ms", "ratio", "quartiles"))):
            table.add_column(heading, justify="right" if heading else "left")
        for name, numbers in case["candidates"].items():
            table.add_row(name, *(_count_cells(numbers) if counted else _time_cells(numbers)))
        console.print(table)
        for name, reason in case["skipped"].items():
            console.print(f"  left out: {name}: {reason}", highlight=False, markup=False, soft_wrap=True)


def _time_cells(numbers: dict) -> tuple[str, ...]:
    lower, upper = numbers["quartiles"]
    return f"{1e3 * numbers['seconds']:.4g}", f"{numbers['ratio']:.3f}", f"{lower:.3f} .. {upper:.3f}"


def _count_cells(numbers: dict) -> tuple[str, ...]:
    return f"{numbers['value']:.4g}", f"{numbers['ratio']:.3f}", f"{numbers['more']:.4g}"


@contextmanager
def _progress(rounds: int) -> Iterator[Callable[[str], Callable[[int], None]]]:
    """A bar over the rounds of the case at hand; where no terminal is, a line for each case."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("rounds"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=rounds)

        def start(title: str) -> Callable[[int], None]:
            if not console.is_terminal:
                print(f"{title} ...", file=sys.stderr, flush=True)
            bar.update(task, description=title, completed=0)
            return lambda done: bar.update(task, completed=done)

        yield start


def _asked(given: argparse.Namespace) -> tuple[list[str], Path | None]:
    """The groups to run and the file to write; raises if something that was asked for cannot be had."""
    for name in ("threads", "rounds"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if given.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device must be cpu here, got 'cuda': torch finds no CUDA device")
    groups = list(GROUPS) if given.only is None else [word.strip() for word in given.only.split(",")]
    for word in groups:
        if word not in GROUPS:
            raise ValueError(f"only must name some of {', '.join(GROUPS)}; got {word!r}")
    groups = [name for name in GROUPS if name in groups]
    # Part of the numbers, or hasty ones, do not take the place of the full set unless that is asked for.
    out = given.out or (OUT if groups == list(GROUPS) and not given.quick else None)
    if out:
        check_writable(out)
    return groups, out


def _fail(message: object, status: int) -> int:
    print(f"bench: {message}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description="Measure what a step costs beyond its floor.")
    parser.add_argument("--quick", action="store_true", help="7 rounds instead of 30, nothing compiled, fewer whole steps")
    parser.add_argument("--threads", type=int, help="of torch on the CPU (torch's own choice if left out)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", metavar="GROUPS", help=f"some of {','.join(GROUPS)}, with commas between")
    parser.add_argument("--rounds", type=int, help="samples of each candidate")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.json",
        help="where the numbers go; a file there is replaced (results/benchmarks.json if left out; a run that is "
        "quick or partial then writes no file)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
