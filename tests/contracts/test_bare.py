"""With torch and nothing else: the two lines of the README train by every method, and what needs more names its extra."""

import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import bisam

LACKING = ("IPython", "PIL", "jsonschema", "matplotlib", "numpy", "papermill", "rich", "scipy", "sklearn", "torchvision")
BARE = f"""
import sys
from importlib.machinery import PathFinder

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {LACKING} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
"""
README = Path(__file__).resolve().parents[2] / "README.md"
BASE, BATCH = "torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)", "opt.step(bisam.Batch(model, x, y))"
EVERY_METHOD = """
import json, torch, bisam
from torch import nn

moved = {}
for name, row in bisam.RECIPES.items():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))
    before = [p.detach().clone() for p in model.parameters()]
    loader = [(torch.randn(16, 6), torch.randint(3, (16,))) for _ in range(2)]
    lines = LINES.replace("bisam.BISAM_LOG", "row")
    if name.startswith("bsam"):
        lines = lines.replace(BASE, "bisam.Variational(model.parameters(), lr=0.1, samples=32)")
    if name.startswith("lets"):
        lines = lines.replace(BATCH, BATCH[:-1] + ", validation=bisam.Batch(model, x, y))")
    exec(lines)
    moved[name] = [bool(torch.isfinite(p).all()) and not torch.equal(p, old) for p, old in zip(model.parameters(), before)]
print(json.dumps(moved))
"""


def run(code):
    """A fresh Python in which torch finds none of the other packages."""
    return subprocess.run([sys.executable, "-W", "ignore", "-c", BARE + code], capture_output=True, text=True)


@functools.cache
def said_there():
    """All methods in one process, which prints which parameters each of them has moved; then what needs more, and what is said."""
    lines = re.search(r"```python\n(import torch, bisam\n.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert BASE in lines and BATCH in lines and "bisam.BISAM_LOG" in lines
    ended = run(f"LINES, BASE, BATCH, CALLS = {lines!r}, {BASE!r}, {BATCH!r}, {CALLS!r}\n{EVERY_METHOD}{AT_ONCE}")
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()[-2:]]


def test_the_two_lines_train_by_every_method():
    moved, _ = said_there()
    assert list(moved) == list(bisam.RECIPES) and all(all(parameters) for parameters in moved.values()), moved


CALLS = {
    "nothing": """
import torch, bisam
from bisam.measure import trace
trace(torch.nn.Linear(6, 3), bisam.CrossEntropy(), torch.randn(9, 6), torch.randint(3, (9,)), products=9)
""",
    "train": "from bisam.training import Run, fit\nfit(Run(epochs=1))",
    "measure": """
import torch, bisam
from bisam.measure import top_eigenvalues
top_eigenvalues(torch.nn.Linear(60, 3), bisam.CrossEntropy(), torch.randn(9, 60), torch.randint(3, (9,)))
""",
}
AT_ONCE = """
import json, traceback

said = {}
for extra, call in CALLS.items():
    try:
        exec(call)
    except Exception as error:
        said[extra] = traceback.format_exception_only(error)[-1].strip()
print(json.dumps(said))
"""


def test_a_trace_needs_torch_alone_and_what_needs_more_ends_with_a_sentence_that_names_the_extra():
    """All in one process: a package that is missed stays away."""
    _, said = said_there()
    assert set(said) == set(CALLS) - {"nothing"}, said
    for extra, last in said.items():
        assert last.startswith("ModuleNotFoundError: ") and last.endswith(f'pip install "bisam[{extra}]"'), last
