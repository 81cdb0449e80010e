"""`import bisam` is torch and the floors up to the methods; the words it gives fit on one screen."""

import functools
import subprocess
import sys

import bisam

FLOORS = ("losses", "axes", "step", "methods")  # what `import bisam` may load, beside the ground modules
HEAVY = (
    "sklearn", "scipy", "rich", "jsonschema", "matplotlib", "torchvision", "papermill", "pandas", "IPython", "nbformat",
)  # fmt: skip


IMPORTS = ("import torch", "import bisam", "import bisam.measure, bisam.training")


@functools.cache
def loaded_after():
    """The modules that a fresh Python has loaded after each of the imports, one after the other."""
    code = "import sys\n" + "\n".join(f"{words}\nprint(*sys.modules)" for words in IMPORTS)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return dict(zip(IMPORTS, map(str.split, said.splitlines()), strict=True))


def test_the_package_loads_its_floors_and_torch():
    loaded = loaded_after()["import bisam"]
    own = [name.split(".") for name in loaded if name.startswith("bisam.")]
    assert not [parts for parts in own if parts[1] not in FLOORS and not parts[1].startswith("_")]
    assert 20 < len(own) < 70, len(own)
    assert not {name.partition(".")[0] for name in loaded} & set(HEAVY)


def test_nothing_is_loaded_that_torch_does_not_load_itself():
    """Of other distributions; the standard library is quick."""
    with_torch = {name.partition(".")[0] for name in loaded_after()["import torch"]}
    ours = {name.partition(".")[0] for name in loaded_after()["import bisam"]}
    assert ours - with_torch - set(sys.stdlib_module_names) == {"bisam"}


def test_heavy_libraries_wait_until_they_are_needed():
    assert not {name.partition(".")[0] for name in loaded_after()[IMPORTS[-1]]} & set(HEAVY)


def test_every_public_name_is_there_and_they_are_few():
    for room in (bisam, *(getattr(bisam, floor) for floor in FLOORS)):
        assert all(hasattr(room, name) for name in room.__all__)
        assert len(set(room.__all__)) == len(room.__all__) and not [name for name in room.__all__ if name.startswith("_")]
    assert 30 <= len(bisam.__all__) <= 38


def test_every_name_of_the_package_is_one_of_a_floor():
    for name in bisam.__all__:
        assert any(getattr(getattr(bisam, floor), name, None) is getattr(bisam, name) for floor in FLOORS), name
