"""Plants faults in a copy of the tree, one at a time, and says which tests and notebooks notice each.

The faults stand in `mutations.toml` beside this file, each with the witnesses that are expected to notice it. A fault is caught if a test
fails, or if two notebooks do, whose cells nbval compares. The checkout is left alone: the tracked files are copied to a folder of their own, which is
removed at the end. All witnesses are first run without a fault, since one that fails there proves nothing. What is known is kept in
`_build/mutations.json`, so that the same command goes on where it was cut; what a changed file may have changed is run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bisam._files import write_whole
from bisam._progress import bar

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "tools" / "mutations.toml"
MINUTES = 10  # no witness takes as long: one that does hangs
NOTEBOOKS_NEEDED = 2  # without a test; a single notebook may be rewritten
REACHES = ("bisam/", "results/", "book/code/", "pyproject.toml", "tools/execute_notebooks.py")  # what every outcome depends on


class MutationError(Exception):
    """The list, a fault or a witness cannot be used as it is."""


@dataclass(frozen=True)
class Mutation:
    """A planted fault: one place of one file, what is wrong with it in a sentence, and who is expected to notice."""

    name: str
    wrong: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = ()
    notebooks: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The room of the package that the fault is in; ``"records"`` for a record."""
        return self.file.split("/")[1] if self.file.startswith("bisam/") else "records"

    def planted(self, text: str) -> str:
        """The text of the file with the fault; a ``MutationError`` where the place is not there exactly once."""
        if (count := text.count(self.old)) != 1:
            raise MutationError(f"{self.name} is stale: its old text must be in {self.file} exactly once and is there {count} times")
        return text.replace(self.old, self.new)


def mutations(path: Path = LIST) -> dict[str, Mutation]:
    """The list, by name; a ``MutationError`` names an entry that is not complete or that nobody is expected to notice."""
    found: dict[str, Mutation] = {}
    for k, entry in enumerate(tomllib.loads(path.read_text(encoding="utf-8"))["mutation"]):
        title = f"mutation {entry.get('name', k)!r} in {path.name}"
        needed, more = {"name", "wrong", "file", "old", "new"}, {"tests", "notebooks"}
        if not needed <= set(entry) <= needed | more:
            raise MutationError(f"{title} must have {', '.join(sorted(needed))} and may have tests and notebooks; it has {', '.join(entry)}")
        one = Mutation(**{key: tuple(value) if key in more else value for key, value in entry.items()})
        if one.name in found or one.old == one.new:
            raise MutationError(f"{title} must have a name of its own, and a new text that is not the old one")
        if not one.tests and len(one.notebooks) < NOTEBOOKS_NEEDED:
            raise MutationError(f"{title} must name a test or {NOTEBOOKS_NEEDED} notebooks that are expected to notice it")
        found[one.name] = one
    return found


def chosen(names: list[str], known: dict[str, Mutation]) -> list[Mutation]:
    """The mutations with these names, or of these rooms; all without a name."""
    groups = sorted({one.group for one in known.values()})
    for name in names:
        if name not in known and name not in groups:
            raise MutationError(f"a mutation must be one of {', '.join(known)}, or a room: {', '.join(groups)}; got {name!r}")
    return [one for one in known.values() if not names or one.name in names or one.group in names]


def is_test(witness: str) -> bool:
    return witness.startswith("tests/")


def path_of(witness: str) -> str:
    """The file of a test, or of a notebook by its name."""
    return witness.partition("::")[0] if is_test(witness) else f"notebooks/{witness}.ipynb"


def witnesses(one: Mutation, wanted: list[str]) -> list[tuple[str, ...]]:
    """What is run for a mutation: its tests together, then each notebook. ``wanted`` has kinds, files of tests, and names of notebooks."""
    kinds = {"tests": one.tests, "notebooks": one.notebooks}
    named = [name for name in wanted or kinds for name in kinds.get(name, (name,))]
    for name in named:
        if not (ROOT / path_of(name)).is_file():
            raise MutationError(f"a witness must be tests, notebooks, a file below tests/ with or without ::test, or the name of a notebook; got {name!r}")
    tests = tuple(name for name in named if is_test(name))
    return [*([tests] if tests else []), *((name,) for name in named if name not in tests)]


def tracked() -> list[str]:
    """The tracked files that are there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        raise MutationError(f"the tree is copied from a git checkout, and git says: {listed.stderr.strip()}")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def digest(sums: dict[str, str], witness: tuple[str, ...]) -> str:
    """Of the files that the outcome of a witness may depend on: the package, the records, what tests share, and its own."""
    own = {Path(path_of(name)).stem for name in witness}
    found = hashlib.sha256()
    for name, each in sums.items():
        is_of_one = name.endswith(".ipynb") or "/test_" in name or name.startswith("tests/notebook/smoke/")
        is_shared = name.startswith(REACHES) or (name.startswith(("tests/", "notebooks/")) and not is_of_one)
        if is_shared or (is_of_one and Path(name).stem in own):
            found.update(f"{name} {each}\n".encode())
    return found.hexdigest()[:16]


def copied(names: list[str], folder: Path) -> dict[str, str]:
    """Copies the files; their digests."""
    sums = {}
    for name in names:
        content = (ROOT / name).read_bytes()
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        sums[name] = hashlib.sha256(content).hexdigest()
    return sums


def noticed(folder: Path, witness: tuple[str, ...]) -> list[str]:
    """The tests that fail, or the first cell of a notebook."""
    named = list(witness) if is_test(witness[0]) else [path_of(witness[0])]
    flags = ["-q", "--tb=no", "-rfE", "--no-header", "-p", "no:cacheprovider"]
    # The quick tests alone: a fault should be noticed while one works.
    flags += ["-m", "not slow and not book"] if is_test(witness[0]) else ["-x", "--nbval-lax", "--nbval-kernel-startup-timeout=600"]
    # Compiled files are told apart by second and size only, and a fault may change neither: none are written.
    env = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "300"}
    command = [sys.executable, "-m", "pytest", *flags, *named]
    try:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60 * MINUTES)
    except subprocess.TimeoutExpired:
        raise MutationError(f"{path_of(witness[0])} did not end within {MINUTES} minutes") from None
    found = re.findall(r"^(?:FAILED|ERROR) (\S+::Cell \d+|[^\s\[]+)", done.stdout, flags=re.M)
    if done.returncode != (1 if found else 0):  # pytest's status: 0 all passed, 1 some failed, others are accidents
        raise MutationError(f"{path_of(witness[0])} could not be run, pytest ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}")
    return list(dict.fromkeys(found))


class Known:
    """What earlier runs have found, by the fault, the witness and the state of the files; written after each run."""

    def __init__(self, path: Path, sums: dict[str, str], is_fresh: bool = False):
        self.path, self.sums = path, sums
        self.found: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() and not is_fresh else {}

    def get(self, fault: Mutation | None, witness: tuple[str, ...], folder: Path) -> list[str]:
        """The failures, from before or from now, in a folder in which the fault is planted."""
        planted = None if fault is None else [fault.file, fault.old, fault.new]
        what = json.dumps([digest(self.sums, witness), planted, witness])
        if what not in self.found:
            self.found[what] = noticed(folder, witness)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps(self.found, indent=1) + "\n")
        return self.found[what]


def tried(given: list[Mutation], wanted: list[str], known: Known, folder: Path) -> dict[str, dict[str, list[str]]]:
    """Of each mutation each witness with the tests or cells that fail."""
    runs = {one.name: witnesses(one, wanted) for one in given}
    asked = dict.fromkeys(witness for each in runs.values() for witness in each)
    tests = tuple(dict.fromkeys(name for witness in asked for name in witness if is_test(name)))
    clean = [*([tests] if tests else []), *(witness for witness in asked if not is_test(witness[0]))]
    with bar("mutations", len(clean) + sum(map(len, runs.values())), "runs", True, line="{done} of {total}: {note}") as advance:
        for witness in clean:
            if failed := known.get(None, witness, folder):
                raise MutationError(f"a witness must pass without a fault; these fail: {', '.join(failed)}")
            advance(1, note=f"no fault, {path_of(witness[0])}")
        return {one.name: _of_one(one, runs[one.name], known, folder, advance) for one in given}


def _of_one(one: Mutation, runs: list[tuple[str, ...]], known: Known, folder: Path, advance: Callable[..., None]) -> dict[str, list[str]]:
    place, found = folder / one.file, {}
    whole = place.read_text(encoding="utf-8")
    place.write_text(one.planted(whole), encoding="utf-8")
    for witness in runs:
        failed = known.get(one, witness, folder)
        found |= {name: [each for each in failed if not is_test(name) or each.startswith(name.partition("[")[0])] for name in witness}
        advance(1, note=f"{one.name}, {path_of(witness[0])}")
    place.write_text(whole, encoding="utf-8")
    return found


def is_caught(found: dict[str, list[str]]) -> bool:
    """Whether a test failed, or as many notebooks as are needed; all of those that were run, where they are fewer."""
    tests, notebooks = ([bool(failed) for name, failed in found.items() if is_test(name) is kind] for kind in (True, False))
    return any(tests) or sum(notebooks) >= min(NOTEBOOKS_NEEDED, len(notebooks)) > 0


def table(given: list[Mutation], found: dict[str, dict[str, list[str]]]) -> list[str]:
    """The lines of the table: each mutation, and below it who noticed it and who did not."""
    lines = []
    for one in given:
        lines.append(f"{'caught ' if is_caught(found[one.name]) else 'SLIPPED'}  {one.name} ({one.file}): {one.wrong}")
        for name, failed in found[one.name].items():
            by = ", ".join(each.rpartition("::")[2] for each in failed) or "NOTHING"
            lines.append(f"         {path_of(name)}: {by}")
    return lines


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("names", nargs="*", help="of mutations, or of rooms such as step; all if none is named")
    arguments.add_argument("--list", action="store_true", help="print the list and run nothing")
    arguments.add_argument("--witness", action="append", default=[], metavar="W", help="tests, notebooks, a file below tests/ or the name of a notebook; by default those that are expected")
    arguments.add_argument("--fresh", action="store_true", help="forget what earlier runs have found")
    arguments.add_argument("--state", type=Path, default=ROOT / "_build" / "mutations.json", help="the file that this is kept in")
    given = arguments.parse_args()
    try:
        return run(given)
    except MutationError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ncut; the same command goes on from here", file=sys.stderr)
        return 130


def run(given: argparse.Namespace) -> int:
    wanted = chosen(given.names, mutations())
    for one in wanted:  # before any work
        one.planted((ROOT / one.file).read_text(encoding="utf-8"))
        witnesses(one, given.witness)
    if given.list:
        print("\n".join(f"{one.group:9} {one.name:32} {one.wrong}" for one in wanted))
        return 0
    with tempfile.TemporaryDirectory(prefix="bisam-mutations-") as folder:
        known = Known(given.state, copied(tracked(), Path(folder)), given.fresh)
        found = tried(wanted, given.witness, known, Path(folder))
    print("\n".join(table(wanted, found)))
    slipped = [one.name for one in wanted if not is_caught(found[one.name])]
    silent = [f"{name} to {one}" for one, each in found.items() for name, failed in each.items() if not failed and not given.witness]
    print(f"{len(wanted) - len(slipped)} of {len(wanted)} mutations are caught" + (f"; not caught: {', '.join(slipped)}" if slipped else ""))
    if silent:
        print(f"expected to notice, and blind: {'; '.join(silent)}")
    return 1 if slipped or silent else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the copy is removed in any case
    sys.exit(main())
