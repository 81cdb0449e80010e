"""Installs the built wheel alone into an empty environment, beside the torch of this one, and uses it: import, two lines of training, the command."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import zip_site

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "_build" / "dist"
LINES = """
import importlib.resources, sys, torch, bisam
model = torch.nn.Linear(4, 3)
before = model.weight.detach().clone()
opt = bisam.SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.1), bisam.BISAM_LOG)
loss = opt.step(bisam.Batch(model, torch.randn(8, 4), torch.randint(3, (8,))))
assert not torch.equal(before, model.weight) and loss.isfinite()
assert importlib.resources.files("bisam").joinpath("py.typed").is_file()
assert bisam.__file__.startswith(sys.prefix), bisam.__file__
print(f"bisam {bisam.__version__}: a step is done, loss {loss.item():.3f}")
"""


def main() -> int:
    wheel = DIST / f"bisam-{zip_site.version()}-py3-none-any.whl"
    if not wheel.exists():
        print(f"==> failed: {wheel} is not there: `make dist` builds it", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="bisam-") as folder:
        bin_ = made(Path(folder) / "empty", wheel)
        for words in ([bin_ / "python", "-W", "error", "-c", LINES], [bin_ / "bisam", "--help"]):
            ended = subprocess.run(words, cwd=folder, env=bare(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if ended.returncode:
                print(f"==> failed: the wheel does not work in an empty environment:\n{ended.stdout}", file=sys.stderr)
                return 1
            print(f"==> {ended.stdout.strip().splitlines()[0]}")
    return 0


def made(folder: Path, wheel: Path) -> Path:
    """An environment with the wheel and no more of its own. The packages of this one follow after it, without its editable packages: torch is large."""
    venv.create(folder, with_pip=True)
    bin_ = folder / "bin"
    subprocess.run([bin_ / "python", "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)], check=True, env=bare())
    there, here = (site_of(python) for python in (bin_ / "python", Path(sys.executable)))
    Path(there, "beside.pth").write_text(here + "\n")  # a .pth file adds a folder, and does not read the .pth files in it
    return bin_


def site_of(python: Path) -> str:
    words = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return subprocess.run(words, check=True, env=bare(), capture_output=True, text=True).stdout.strip()


def bare() -> dict[str, str]:
    """The environment without what leads Python to this checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


if __name__ == "__main__":
    sys.exit(main())
