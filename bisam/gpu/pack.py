"""The folder for a machine without a network: the package, the claims and the images, to be run as it is."""

from __future__ import annotations

import argparse
import shutil
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import torch

from .. import _checks
from .. import _files as files
from ..evidence.places import RESULTS
from ..gpu import claimed, evidence
from ..training import environment
from ..training.data import DataError, archive, folder, sources
from .session import ROOT

PACKAGE = Path(__file__).resolve().parents[1]
BUILD = RESULTS.parent / "_build" / "gpu"

LAUNCHER = '''"""python run.py --minutes 15 --out DIR [--device cpu] [--tiny]"""

import sys
import time
from pathlib import Path

BEGAN = time.monotonic()  # before torch is imported
sys.path.insert(0, str(Path(__file__).resolve().parent))

from bisam.gpu.session import main

if __name__ == "__main__":  # stages are processes that read this file again
    sys.exit(main(began=BEGAN))
'''
README = """# Fifteen minutes on a GPU

Needed are Python 3.11 or newer, torch with CUDA, torchvision and numpy; no network, and nothing is installed.

    python run.py --minutes 15 --out out                      # all of it: what is right, how quick it is, recorded runs
    python run.py --minutes 5 --out try --device cpu --tiny   # that it runs at all, anywhere; ends by itself in about a minute

Lines appear as things are done, and lie in out/*.jsonl at once; a stage that breaks takes no other with it. Ctrl-C ends it cleanly.
The last stage records nothing by a way that the first has not found right on this machine; its line `queue` says which way it takes.
Bring `out` home: `bisam pool out` checks its records and takes them in. The same --out goes on from out/checkpoints on the next machine.
"""

MOST = 60e6  # bytes of the folder
MARK = ".packed"  # in a folder that was written here, which may be replaced
PACKED = {MARK, "README.md", "bisam", "data", "results", "run.py"}


def pack(folder: Path, root: Path = ROOT) -> Path:
    """Writes the folder anew, and a ``.tar.gz`` of it beside it, whose path it returns.

    A DataError says which images are missing, or come out of the packed file otherwise than out of the folder; a ValueError, that the
    folder holds something that no earlier call has written, or would be too large to be carried.
    """
    folder = _checks.path("folder", folder, words="the path of a folder")
    root = _checks.path("root", root, words="the path of a folder")
    _check_replaceable(folder)
    images = sorted(claimed.data_of(RESULTS))
    for name in images:  # before anything is written or replaced
        sources.stamp(name, root)
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(PACKAGE, folder / "bisam", ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "*.part"))
    files.write_whole(folder / "bisam" / "COMMIT", (environment.commit() or "") + "\n")
    (folder / "results").mkdir()
    for name in ("claims.toml", "published.csv"):
        shutil.copyfile(RESULTS / name, folder / "results" / name)
    recorded = [path for name in claimed.for_gpus(RESULTS) for path in sorted((RESULTS / "runs" / name).glob("*.json"))]
    names = "".join(f"{path.parent.name}/{path.stem}\n" for path in recorded)  # what is recorded is not run again
    files.write_whole(folder / "results" / evidence.RECORDED.name, names)
    (folder / "data").mkdir()
    for name in images:
        _pack_images(name, root, folder / "data")
    files.write_whole(folder / MARK, "")
    files.write_whole(folder / "run.py", LAUNCHER)
    files.write_whole(folder / "README.md", README)
    _check_size(folder)
    return _archived(folder)


def _check_size(folder: Path) -> None:
    """A ``ValueError`` if the folder is too large to be carried; then it goes, so that nobody carries it."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    if (size := sum(sizes.values())) <= MOST:
        return
    largest = sorted(sizes, key=sizes.get, reverse=True)[:3]
    said = ", ".join(f"{path.relative_to(folder)} {sizes[path] / 1e6:.1f} MB" for path in largest)
    shutil.rmtree(folder)
    raise ValueError(f"the packed folder must have at most {MOST / 1e6:g} MB, for some places take no more; got {size / 1e6:.1f} MB: {said}")


def _check_replaceable(folder: Path) -> None:
    """A ``ValueError`` unless the folder is not there, is empty, or holds what an earlier call has written and nothing else."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    strange = there - PACKED if MARK in there else there
    if strange or (folder.exists() and not folder.is_dir()):
        names = ", ".join(sorted(strange)[:5]) or "it is no folder"
        raise ValueError(f"folder must be empty, or one that was packed before and holds nothing else; {folder} holds {names}")


def _pack_images(name: str, root: Path, there: Path) -> None:
    """The images in one file, and a look whether the loader makes the same of it."""
    if not name.startswith(sources.FOLDER):
        raise DataError(f"data {name!r} cannot be packed: only trees of images, folder:NAME, are")
    packed = archive.path_of(name.removeprefix(sources.FOLDER), root)
    if not (root / name.removeprefix(sources.FOLDER)).is_dir() and packed.is_file():
        shutil.copyfile(packed, there / packed.name)
        return
    path = folder.pack(name, root, there)
    pixels = torch.from_numpy(archive.decoded(archive.read(path)))
    tree = sources.read(name, root, sources.stamp(name, root))
    if not torch.equal(pixels, torch.cat([tree.train, tree.test])):
        raise DataError(f"data {name!r} is not the same when it is decoded from {path}")


def _archived(folder: Path) -> Path:
    def write(file) -> None:
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=3) as archive:  # JPEGs hardly shrink
            archive.add(folder, arcname=folder.name)

    path = folder.with_name(folder.name + ".tar.gz")
    files.write_whole(path, write)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0, or 1 where something is missing."""
    parser = argparse.ArgumentParser("bisam.gpu.pack", description="write the folder for a machine with a GPU")
    parser.add_argument("--folder", default=str(BUILD / "bisam-gpu"), help="where to")
    parser.add_argument("--root", default=str(ROOT), help="folder of the data sets")
    given = parser.parse_args(arguments)
    try:
        path = pack(Path(given.folder), Path(given.root))
    except (DataError, OSError, ValueError) as error:
        print(f"bisam.gpu.pack: {error}", file=sys.stderr)
        return 1
    size = sum(part.stat().st_size for part in Path(given.folder).rglob("*") if part.is_file())
    print(f"{given.folder}: {size / 1e6:.1f} MB; {path}: {path.stat().st_size / 1e6:.1f} MB")
    if not claimed.data_of(RESULTS):
        print('no experiment of results/claims.toml has machine = "gpu" and compile = "whole-step": stage three will have nothing to do')
    print(f"on the machine: tar xzf {path.name} && cd {Path(given.folder).name} && python run.py --minutes 15 --out out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
