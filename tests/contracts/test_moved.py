"""Every public name of version 0.1.0 works, or fails with one sentence whose import works."""

import importlib
import re

import pytest
import torch

import bisam
from bisam import _moved

NAMES = """
    ASAM ASAM_ALL A_BISAM_LOG A_BISAM_TANH BISAM_LOG BISAM_TANH BSAM ESAM ESAM_CODE E_BISAM_LOG E_BISAM_TANH FSAM GSAM KSAM LATE_SAM
    LETS_SAM LE_SAM LOOKSAM MSAM M_BISAM_LOG M_BISAM_TANH RECIPES RSAM Recipe SAM SAM_EVERY_K SAM_ON SGD VASSO recipe
    L2 Adaptive Averaged Batch ByLearningRate Constant CrossEntropy Decomposed Diagnostics Flips Handed History Learned Look LossBudget
    Lp Masked MostSensitive NegLog Noise Only Phase Posterior Precision RandomStart Run Schedule SharpnessAware Surrogate Tanh TopK
    Unnormalised Variational climb fit gap held_buffers loss_rise m_sharpness margins misclassified spectral_density step
    top_eigenvalues trace zero_one Subspace landscape line_between plane_through
""".split()  # noqa: SIM905
MODULES = """
    ascent augment batch bounds captured checkpoint cli combination commands crossed data decisions descriptions diagnostics direction
    displacement environment experiments files geometry gpu hypergradient landscapes ledger losses masks memory metrics models needed
    notebook optimizer own_code own_ledger parameters plans plots pooling power prices processes progress published queue radius recipe
    report reproduce selection sharpness side_by_side statistics surrogate tables train variational verdicts verify workers
""".split()  # noqa: SIM905


def check(error, name):
    """The error is one line that begins with the old name and ends with an import; what that imports is there."""
    found = re.fullmatch(rf"bisam\.{name} has moved: ((?:from [\w.]+ )?import [\w.]+)", str(error.value))
    assert found, str(error.value)
    exec(found[1], {})


@pytest.mark.parametrize("name", NAMES)
def test_an_old_name_works_or_says_where_it_is(name):
    if name in dir(bisam):
        assert name not in _moved.NAMES and (name in bisam.__all__ or name == "step")
        return
    with pytest.raises(AttributeError) as asked:
        getattr(bisam, name)
    check(asked, name)
    with pytest.raises(ImportError) as imported:
        exec(f"from bisam import {name}", {})
    check(imported, name)


@pytest.mark.parametrize("name", MODULES)
def test_an_old_module_is_there_or_says_where_it_is(name):
    if name not in _moved.MODULES:
        importlib.import_module(f"bisam.{name}")
        return
    for statement in (f"import bisam.{name}", f"from bisam.{name} import anything", f"import bisam.{name}.deeper"):
        with pytest.raises(ModuleNotFoundError) as imported:
            exec(statement, {})
        check(imported, name)
    if not hasattr(bisam, name):  # bisam.recipe was and is a function
        with pytest.raises(AttributeError) as asked:
            getattr(bisam, name)
        check(asked, name)


def test_only_old_names_are_listed():
    assert set(_moved.NAMES) <= set(NAMES) and set(_moved.MODULES) <= set(MODULES)


def test_the_step_function_says_that_it_is_the_heaviside_function_now():
    with pytest.raises(TypeError, match=r"room of the step: from bisam\.losses import heaviside$"):
        bisam.step(torch.zeros(1))


def test_a_name_that_never_was_fails_as_everywhere():
    with pytest.raises(AttributeError, match="module 'bisam' has no attribute 'nothing'"):
        _ = bisam.nothing
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'bisam\.nothing'"):
        importlib.import_module("bisam.nothing")


def test_a_room_that_is_not_loaded_says_how_to_load_it(monkeypatch):
    for room in _moved.LATER:
        importlib.import_module(f"bisam.{room}")
        monkeypatch.delattr(bisam, room)
        with pytest.raises(AttributeError, match=rf"not loaded by `import bisam`: import bisam\.{room}$"):
            getattr(bisam, room)
