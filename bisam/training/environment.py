"""What a run ran on, as far as it can move the bits of what comes out or the time that it takes."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import torch

from .. import _checks
from ..training import models, own_code
from .devices import exact_kernels
from .run import PRECISIONS, Run

__all__ = ["commit", "differences", "environment", "made_on_by", "threads_held"]

# Sets of instructions between which libraries choose; sums come out in another order with another set.
INSTRUCTIONS = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2",
)  # fmt: skip
VARIABLES = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_CORETYPE", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
# What can move the last bits of a run; the rest is written down for the reader.
MOVES_BITS = (
    "torch", "torchvision", "numpy", "processor", "instructions", "capability", "threads", "precision", "matmul_precision", "tf32", "mkldnn",
    "build", "variables", "driver", "cuda", "cudnn", "own", "weights", "transformers",
    "tokenizers",
)  # fmt: skip


LANGUAGE = ("glue:", "parallel:", "encoder")  # what begins so is made by libraries of its own


def environment(device: str, seconds: float, precision: str = "float32") -> dict:
    """What a run of so many seconds ran on: versions, processor or GPU, threads, precision, wall time and the commit of the code.

    Plain values; the page on the form of a record says what each field holds.

    Example:
        >>> environment("cpu", 1.5)["wall_seconds"]
        1.5
    """
    cuda = _checks.device("device", device).startswith("cuda")
    seconds = _checks.nonnegative("seconds", seconds)
    _checks.choice("precision", precision, tuple(PRECISIONS))
    here = f"{platform.machine()} CPU, {torch.get_num_threads()} of {os.cpu_count()} threads"
    with exact_kernels(device):  # as the run saw them
        exact = {"matmul_precision": torch.get_float32_matmul_precision(), "tf32": cuda and torch.backends.cudnn.allow_tf32}
    return {
        "python": platform.python_version(), "implementation": platform.python_implementation(),
        "system": platform.system(), "release": platform.release(),
        "torch": str(torch.__version__),
        **{name: version for name in ("torchvision", "numpy") if (version := _installed(name))},
        "bisam": _version(),
        "processor": _processor(),
        "instructions": _instructions(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(), "threads": torch.get_num_threads(), "interop_threads": torch.get_num_interop_threads(),
        "precision": precision, **exact,
        "mkldnn": torch.backends.mkldnn.is_available(),
        "build": hashlib.sha256(torch.__config__.show().encode()).hexdigest()[:16],
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        **({"driver": _driver(), "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()} if cuda else {}),
        "device": torch.cuda.get_device_name(device) if cuda else here,
        "wall_seconds": round(seconds, 2), "commit": commit(),
    }  # fmt: skip


def made_on_by(run: Run, seconds: float, root: str | Path | None = None) -> dict:
    """What a run ran on, see :func:`environment`; with a network or data that are not ours also ``own``, what their files hold.

    With texts also the versions of ``transformers`` and ``tokenizers``. Of a network that begins with weights of a file also ``weights``, a digest of that, which is read below the root.

    Example:
        >>> list(made_on_by(Run(model="bisam.training.models:mlp"), 1.0)["own"])
        ['bisam.training.models:mlp']
    """
    _checks.part("run", run, Run, "a bisam.training.Run")
    own = own_code.sources(run.model, run.data)
    weights = models.sources(run.model, root)
    reads = run.data.startswith(LANGUAGE) or run.model.startswith(LANGUAGE)
    words = {name: version for name in ("transformers", "tokenizers") if reads and (version := _installed(name))}
    return {**environment(run.device, seconds, run.precision), **({"own": own} if own else {}), **({"weights": weights} if weights else {}), **words}


def differences(there: dict, here: dict) -> list[str]:
    """What can move the last bits of a run and is not the same in the environment of a record and in that of this machine, a sentence each.

    Example:
        >>> differences({"torch": "2.6.0", "threads": 1}, {"torch": "2.7.0", "threads": 1})
        ['The record was made with torch 2.6.0, and this is 2.7.0.']
    """
    for name, one in (("there", there), ("here", here)):
        _checks.part(name, one, dict, "an environment as bisam.training.environment.environment() returns it")
    found = []
    for name in MOVES_BITS:
        if name in there and there[name] != here.get(name):
            found.append(f"The record was made with {_words(name, there[name])}, and this is {_words('', here.get(name))}.")
    kinds = [entry["device"].partition(",")[0] for entry in (there, here) if "device" in entry]
    if len(set(kinds)) > 1:
        found.append(f"The record was made on {kinds[0]}, and this is {kinds[1]}.")
    if "device" in there and "processor" not in there:
        found.append("The record does not say on which kind of processor it was made.")
    return found


@contextlib.contextmanager
def threads_held(count: int | None) -> Iterator[None]:
    """Inside, torch computes with so many threads (``None``: as before): the last bits of sums on a CPU depend on it.

    Example:
        >>> with threads_held(1):
        ...     torch.get_num_threads()
        1
    """
    count, before = _checks.optional("count", count, of=_checks.whole), torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _words(name: str, value: object) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"{name.replace('_', ' ')} {text or 'none'}".strip()


@functools.cache
def commit() -> str | None:
    """The commit of the code, with a plus if files of the package have changed since; ``None`` outside a checkout of it.

    Example:
        >>> commit() is None or len(commit().removesuffix("+")) >= 12
        True
    """
    package = Path(__file__).resolve().parents[1]
    if (package / "COMMIT").is_file():  # a packed folder, which takes it along
        return (package / "COMMIT").read_text(encoding="utf-8").strip() or None
    # A repository that only surrounds an installed package has a commit too, but says nothing about its files.
    if _said("git", "ls-files", "--error-unmatch", "--", "__init__.py", cwd=package) is None:
        return None
    head = _said("git", "rev-parse", "--short=12", "HEAD", cwd=package)
    changed = _said("git", "status", "--porcelain", "--untracked-files=normal", "--", ".", cwd=package)
    return None if head is None or changed is None else head + ("+" if changed else "")


def _said(*words: str, cwd: Path | None = None) -> str | None:
    """What a command prints, or ``None`` if it fails."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # inside a hook they name another place
    try:
        return subprocess.run(words, cwd=cwd, env=own, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _installed(package: str) -> str | None:
    """The version of a package that a training may do without."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _version() -> str:
    from .. import __version__  # the package is whole only after this module

    return __version__


@functools.cache
def _cpuinfo() -> dict[str, str]:
    """The fields of the first processor, where Linux tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    fields = ([part.strip() for part in line.split(":", 1)] for line in reversed(lines) if ":" in line)
    return {name: value for name, value in fields if value}


def _processor() -> str:
    """The real kind of processor, as the system knows it."""
    asked = _said("sysctl", "-n", "machdep.cpu.brand_string") if platform.system() == "Darwin" else None
    there = _cpuinfo()
    fields = ("cpu family", "model", "stepping", "CPU implementer", "CPU part")  # some machines give the name of a whole family
    numbers = [f"{field} {there[field]}" for field in fields if field in there]
    name = there.get("model name") or there.get("cpu model") or asked
    return ", ".join([name or platform.processor() or platform.machine(), *numbers])


def _instructions() -> list[str]:
    there = (_cpuinfo().get("flags") or _cpuinfo().get("Features", "")).split()
    return [name for name in INSTRUCTIONS if name in there]


@functools.cache  # starting the tool takes as long as many steps
def _driver() -> str | None:
    return (_said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") or "").partition("\n")[0] or None
