"""The three stages one after the other, each in a process of its own, and what is to be brought home."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from .. import _checks
from .. import _files as files
from ..evidence import schema
from ..evidence.places import RESULTS
from ..gpu import claimed, correctness, evidence, home, speed, tiny, trust
from ..training import data, environment, processes
from .lines import SESSION, Stage, of_this_session

MAIN = {"correctness": correctness.main, "speed": speed.main, "evidence": evidence.main}
SHARES = {"correctness": 2 / 15, "speed": 4 / 15, "evidence": 1.0}  # of the time, at which each is to be over
GRACE = 2.0  # seconds that a stage has after its time before it is told to end, and again before it is ended
SUMMARY = 3 * GRACE  # seconds before the end for that, and for what is said at the end
ROUNDS = 3  # of the last stage, where it breaks off
WORTHWHILE = 20.0  # seconds for which it is worthwhile to start a process
ROOT = RESULTS.parent / "data"


@dataclass(frozen=True)
class Settings:
    """What a session is to do."""

    minutes: float  # from now until the end
    out: Path  # folder for all that is written; one of an earlier session goes on
    device: str = "cuda"  # or "cpu"
    root: Path = ROOT  # folder of the data sets
    tiny: bool = False  # everything at sizes that take seconds, with data and claims of its own: it measures nothing

    def __post_init__(self):
        _checks.keep(self, _checks.positive, "minutes")
        _checks.keep(self, _checks.path, "out", "root", words="the path of a folder")
        _checks.device("device", self.device)
        _checks.flag("tiny", self.tiny)

    @property
    def seconds(self) -> float:
        return 60 * self.minutes


def run(settings: Settings, say: Callable[[str], object] = print, began: float | None = None) -> int:
    """A whole session; whatever happens to one stage, the next begins. 0 if no stage broke, no check broke and none found a difference, else 1.

    The minutes count from ``began``, a time of ``time.monotonic()``, or from now: importing torch takes seconds of somebody's quarter of an hour.
    """
    began = time.monotonic() if began is None else began
    end = began + settings.seconds - min(SUMMARY, settings.seconds / 20)
    root = _prepared(settings)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # several streams, and the same bits
    say(f"device {_device_name(settings.device)}, torch {torch.__version__}, {settings.minutes:g} minutes, into {settings.out}")
    if not schema.forms_are_checked():
        say("the library jsonschema is not here: records are written with their numbers checked, their form is checked at home by `bisam verify`")
    context = get_context("spawn")
    decoding = _started(context, _decode, root, settings.out)  # meanwhile: it leaves the images on the disk for the last stage
    ends = {}
    for name, share in SHARES.items():
        if name == "evidence":
            decoding.join(max(0.0, end - time.monotonic()))  # otherwise it would be done twice
            decoding.kill()
        stage = Stage(name, settings.out, settings.device, root, min(end, began + share * settings.seconds), settings.tiny)
        ends[name] = _carried_out(context, stage)
        say(f"stage {name}: {ends[name]}")
    ends |= _again(context, stage, ends["evidence"], say)
    for name in ("speed", "correctness"):  # what was cut, in the time that the queue has left over
        done = frozenset(line["name"] for line in of_this_session(settings.out / f"{name}.jsonl"))
        stage = Stage(name, settings.out, settings.device, root, end, settings.tiny, done=done)
        if stage.left > WORTHWHILE and "cut" in done:
            ends[f"{name}, again"] = _carried_out(context, stage)
            say(f"stage {name}, what was cut: {ends[f'{name}, again']}")
    for line in _summary(settings.out, settings.minutes):
        say(line)
    broken = any(word.startswith("broken") for word in ends.values())
    return int(broken or bool({"fail", "error"} & set(_results(settings.out / "correctness.jsonl"))))


def _again(context, stage: Stage, ended: str, say: Callable[[str], object]) -> dict[str, str]:
    """The last stage in another process where one broke off; without graphs if that one had them. How each ended."""
    ends: dict[str, str] = {}
    for number in range(2, ROUNDS + 1):
        if not ended.startswith("broken") or stage.left < WORTHWHILE:
            break
        ended = ends[f"evidence, round {number}"] = _carried_out(context, stage)
        say(f"stage evidence, round {number}: {ended}")
    return ends


def _prepared(settings: Settings) -> str:
    """Makes the folder a ledger, and says what this session runs on, also in the files of the stages; the root of the data."""
    files.check_writable(settings.out / "session.json")
    if settings.tiny:
        tiny.write(settings.out)
    else:
        shutil.copyfile(RESULTS / "claims.toml", settings.out / "claims.toml")
    about = {"minutes": settings.minutes, **environment.environment(settings.device, 0.0)}
    del about["wall_seconds"], about["precision"]  # of a run; each stage has several
    files.write_whole(settings.out / "session.json", json.dumps(about, indent=1))
    (settings.out / "found.json").unlink(missing_ok=True)
    for name in MAIN:  # an earlier session may have been on another machine
        Stage(name, settings.out, quiet=True).note(SESSION, **about)
    return str(settings.out / "data" if settings.tiny else settings.root)


def _device_name(device: str) -> str:
    return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}" if device.startswith("cuda") else "cpu"


def _started(context, target: Callable, *arguments):
    with processes.signals_held_back():
        process = context.Process(target=_child, args=(target, *arguments))
        process.start()
    return process


def _carried_out(context, stage: Stage) -> str:
    """One stage; how it ended in a word or two."""
    if stage.left <= 0:
        return "no time"
    process = _started(context, MAIN[stage.name], stage)
    try:
        process.join(None if math.isinf(stage.end) else max(0.0, stage.left) + GRACE)
        if process.is_alive():
            return "ended, its time was over"
        return "done" if process.exitcode == 0 else f"broken off, exit status {process.exitcode}"
    finally:  # also if this process is told to stop
        if process.is_alive():
            process.terminate()
            process.join(GRACE)
        process.kill()


def _child(target: Callable, *arguments) -> None:
    processes.follow_parent()
    status = 0
    try:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # Ctrl-C stays with the parent, which then says TERM
        with processes.stoppable():
            target(*arguments)
    except processes.Stopped as stop:
        status = 128 + stop.number
    sys.exit(status)  # here, where nothing holds what was interrupted: it says what it leaves undone, and closes its files


def _decode(root: str, out: Path) -> None:
    for name in sorted(claimed.data_of(out)):
        try:
            data.load(name, root)
        except data.DataError as error:
            print(f"[data] {name}: {error}", flush=True)


def _results(path: Path) -> Counter:
    return Counter(line.get("result", "") for line in of_this_session(path))


def _summary(out: Path, minutes: float) -> list[str]:
    """What is said at the end, after what is to be brought home has been packed."""
    packed = home.pack(out)
    counts = {name: [f"{count} {word}" for word, count in _results(out / f"{name}.jsonl").items() if word] for name in MAIN}
    found = [f"{name}: {', '.join(words) or 'see the file'}" for name, words in counts.items()]
    kept = sorted(path for path in out.rglob("*") if path.is_file() and (out / "data") not in path.parents and not path.name.endswith(".lock"))
    groups = Counter()
    for path in kept:
        groups["/".join(path.relative_to(out).parts[:2])] += path.stat().st_size
    return [
        f"-- {minutes:g} minutes are over --", *found, *_still_to_do(out), *_found_too_late(out),
        f"bring home {out}: {len(kept)} files, {sum(groups.values()) / 1e6:.1f} MB in all",
        *(f"  {size / 1e3:10.1f} kB  {name}" for name, size in sorted(groups.items())),
        f"first of all {packed}, {packed.stat().st_size / 1e3:.0f} kB: all records and lines; only the checkpoints are not in it",
        f"at home: tar xzf {home.NAME} && bisam pool out; the same --out goes on from checkpoints/ on the next machine",
    ]  # fmt: skip


def _found_too_late(out: Path) -> list[str]:
    """What a check that was cut, and made up for after the last stage, has to say against its records."""
    lines, now = of_this_session(out / "evidence.jsonl"), trust.trust(out)
    said = {reason for line in lines for reason in (*line.get("reasons", ()), line.get("reason"))}
    recorded = any(line["name"] == "queue" for line in lines)
    late = [reason for reason in now.reasons if recorded and reason not in said and not reason.startswith("one at a time")]
    if now.refusal.startswith("found wrong") and now.refusal not in said:
        late.append(now.refusal)
    return [f"before its records are pooled, look at what was found after they were made: {'; '.join(late)}"] if late else []


def _still_to_do(out: Path) -> list[str]:
    """What the queue has left, an experiment a line."""
    lines = {line["name"]: line for line in of_this_session(out / "evidence.jsonl") if line["name"].startswith(evidence.STILL)}
    return [
        f"{name}, {line['runs']} runs, {line['passes']} passes over its images: "
        + (f"about {line['hours']:.1f} hours of this machine, {line['sessions']} sessions like this one" if "hours" in line else "not timed here")
        for name, line in lines.items()
    ]


def main(arguments: Sequence[str] | None = None, began: float | None = None) -> int:
    """The command line: the status of :func:`run`, 2 for arguments that are refused, 128 and the number of a signal."""
    parser = argparse.ArgumentParser("bisam.gpu", description="check, time and record on a borrowed GPU")
    parser.add_argument("--minutes", type=float, required=True, help="from now until the end")
    parser.add_argument("--out", required=True, help="folder for all that is written; that of an earlier session goes on")
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--root", default=str(ROOT), help="folder of the data sets")
    parser.add_argument("--tiny", action="store_true", help="everything in seconds, to see that it runs; measures nothing")
    given = parser.parse_args(arguments)
    try:
        with processes.stoppable():
            return run(Settings(**vars(given)), lambda line: print(line, flush=True), began)
    except processes.Stopped as stop:
        for line in _summary(Path(given.out), given.minutes):
            print(line, flush=True)
        return 128 + stop.number
    except (TypeError, ValueError, OSError) as error:
        print(f"bisam.gpu: {error}", file=sys.stderr)
        return 2
