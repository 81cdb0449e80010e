"""`import bisam` is quick and works on a bare training machine."""

import subprocess
import sys

import bisam

HEAVY = (
    "sklearn",
    "scipy",
    "rich",
    "matplotlib",
    "torchvision",
    "papermill",
    "pandas",
    "IPython",
    "nbformat",
)


def test_heavy_libraries_wait_until_they_are_needed():
    code = f"import sys, bisam, bisam.training.train; print(*(name for name in {HEAVY} if name in sys.modules))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.split() == []


def test_every_public_name_is_there():
    assert all(hasattr(bisam, name) for name in bisam.__all__)
    assert len(set(bisam.__all__)) == len(bisam.__all__)


def test_nothing_private_is_public():
    assert not [name for name in bisam.__all__ if name.startswith("_")]
