"""Numbers become plain numbers, objects become parts, and an error can always be said."""

import json
import math
import os
import subprocess
import sys
from fractions import Fraction

import numpy
import pytest
import reference
import torch
from torch import nn

import bisam
import bisam.training
from bisam import Batch, SharpnessAware, _checks
from bisam.notebook import declarations, parameters
from bisam.notebook.declarations import ParameterError

NUMBERS = {"numpy float": numpy.float32(0.5), "fraction": Fraction(1, 2), "numpy double": numpy.float64(0.5)}
PARTS = {
    "constant": lambda x: bisam.Constant(x), "schedule": lambda x: bisam.Schedule([numpy.int64(1), 5], [x, 1]),
    "by learning rate": lambda x: bisam.ByLearningRate(x, x, lr_max=x * 2, lr_min=x), "phase": lambda x: bisam.Phase(x, numpy.int64(3), numpy.int64(2)),
    "budget": lambda x: bisam.LossBudget(x, x, numpy.int64(2), numpy.int64(5)), "learned": lambda x: bisam.Learned(x, x, least=x, most=x),
    "masked": lambda x: bisam.Masked(keep=x), "adaptive": lambda x: bisam.Adaptive(x), "lp": lambda x: bisam.Lp(x + 1),
    "averaged": lambda x: bisam.Averaged(x, x, x), "start": lambda x: bisam.RandomStart(x), "sensitive": lambda x: bisam.MostSensitive(x),
    "top": lambda x: bisam.TopK(x), "decomposed": lambda x: bisam.Decomposed(x), "look": lambda x: bisam.LookSAM(numpy.int64(3), x),
    "augment": lambda x: bisam.training.augment.Augment(numpy.int64(1), cutout_probability=x), "run": lambda x: bisam.training.Run(lr=x, momentum=x, weight_decay=x, seed=numpy.int64(3)),
}  # fmt: skip


def leaves(value):
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, (list, tuple)) else [value]


@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_part_keeps_plain_numbers(part, number):
    kept = [value for value in leaves(vars(part(number))) if not isinstance(value, (str, bisam.Recipe, bisam.L2))]
    assert kept and all(type(value) in (int, float, bool, type(None)) for value in kept), kept
    assert 0.5 in kept or 1.5 in kept


@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
def test_a_description_can_be_written_as_json_whatever_its_numbers_are(number):
    recipe = bisam.BISAM_LOG.replace(
        ascent=bisam.Surrogate(mu=number), descent=bisam.CrossEntropy(number), radius=bisam.Schedule((0, 9), (number, 1)), micro_batch=numpy.int64(4),
    )
    written = json.dumps(bisam.training.Run(recipe, lr=number).to_dict(), allow_nan=False)
    back = bisam.training.Run.from_dict(json.loads(written))
    assert back == bisam.training.Run(recipe, lr=0.5) and back.recipe.ascent.mu == 0.5


@pytest.mark.parametrize("check", [_checks.real, _checks.positive, _checks.nonnegative, _checks.fraction, _checks.share, _checks.whole])
@pytest.mark.parametrize("value", [10**400, -(10**400), 10**5000, math.nan, math.inf, numpy.float64("nan"), Fraction(10**400)], ids=_checks.shown)
def test_a_number_out_of_reach_is_refused_by_name(check, value):
    with pytest.raises((TypeError, ValueError), match=r"^size must be") as caught:
        check("size", value)
    assert len(str(caught.value)) < 300


def test_a_value_is_shown_in_short_whatever_it_is():
    class Mute:
        def __repr__(self):
            raise RuntimeError("no")

    assert _checks.shown(Mute()) == "<Mute, whose repr fails with RuntimeError>"
    assert "whose repr fails with ValueError" in _checks.shown(10**5000)
    assert len(_checks.shown("x" * 10**6)) <= _checks.SHOWN and _checks.shown("\ud800").isprintable()
    assert _checks.shown(torch.zeros(100, 100)) == "tensor of shape (100, 100), torch.float32"


@pytest.mark.parametrize("name", ["inf", "kind", "x"])
def test_the_name_of_a_recipe_comes_back_as_text(name):
    assert bisam.Recipe.from_dict(json.loads(json.dumps(bisam.SAM.replace(name=name).to_dict()))).name == name


# -- the step -------------------------------------------------------------------------------------------------------------


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), lr=0.1, **options)


@pytest.mark.parametrize("when", ["from the beginning", "in a later group", "set later"])
def test_a_base_that_maximises_is_refused_before_work_starts(when):
    model, other = reference.net(), nn.Linear(2, 2)
    base = sgd(model, maximize=when == "from the beginning")
    with pytest.raises(ValueError, match="base must not have maximize=True"):
        opt = SharpnessAware(base, bisam.SAM)
        if when == "in a later group":
            opt.add_param_group({"params": other.parameters(), "maximize": True})
        else:
            base.param_groups[0]["maximize"] = True
        opt.step(Batch(model, *reference.samples()))
    assert SharpnessAware(base, bisam.SGD).recipe is bisam.SGD  # the base alone climbs where it wants to


def test_another_model_is_refused_in_a_block():
    opt, other = SharpnessAware(sgd(reference.net()), bisam.ASAM), reference.net()
    with pytest.raises(ValueError, match="model must be the one whose parameters the base holds"), opt.perturbed(other):
        pass


@pytest.mark.parametrize("recipe", [bisam.SAM, bisam.SGD, bisam.methods.KSAM, bisam.BISAM_LOG], ids=lambda recipe: recipe.name)
def test_a_frozen_model_gets_an_error_that_says_what_to_do(recipe):
    model = reference.net().requires_grad_(False)
    with pytest.raises(ValueError, match=r"model must have a parameter that requires a gradient.*requires_grad_\(True\)"):
        SharpnessAware(sgd(model), recipe).step(Batch(model, *reference.samples()))


def test_a_scaler_of_another_make_needs_the_methods_of_one():
    class Half:
        def scale(self, loss):
            return loss

    model = reference.net()
    with pytest.raises(TypeError, match=r"scaler must be a torch\.amp\.GradScaler"):
        SharpnessAware(sgd(model)).step(Batch(model, *reference.samples()), scaler=Half())


def test_a_failing_network_says_what_it_was_given():
    model = reference.net()
    with pytest.raises(RuntimeError) as caught:
        SharpnessAware(sgd(model)).step(Batch(model, torch.zeros(8, 7).double(), torch.zeros(8, dtype=torch.int64)))
    assert caught.value.__notes__ == ["the model was given inputs of shape (8, 7), torch.float64"]


@pytest.mark.parametrize("name", ["sgd", "sam", "bisam-log", "asam", "gsam", "esam", "ksam", "msam", "fsam", "le-sam", "looksam"])
def test_a_step_on_the_meta_device_has_shapes_and_no_numbers(name):
    with torch.device("meta"):
        model = nn.Linear(4, 3)
        batch = Batch(model, torch.zeros(8, 4), torch.zeros(8, dtype=torch.int64))
    recipe = bisam.recipe(name)
    if name == "esam":  # its mask is drawn
        recipe = recipe.replace(geometry=bisam.L2())
    loss = SharpnessAware(sgd(model), recipe).step(batch)
    assert loss.device.type == "meta" and batch.at_w.shape == (8, 3) and model.weight.device.type == "meta"


@pytest.mark.parametrize("name, options, message", [
    ("sam", {"record": True}, "record must be False on the meta device"),
    ("lets-sam", {}, "recipe must have no learned radius on the meta device"),
    ("rsam", {}, "device meta draws no random numbers"),
])
def test_what_needs_numbers_is_refused_on_the_meta_device(name, options, message):
    with torch.device("meta"):
        model = nn.Linear(4, 3)
        batch = Batch(model, torch.zeros(8, 4), torch.zeros(8, dtype=torch.int64))
    more = {"validation": batch} if name == "lets-sam" else {}
    with pytest.raises(ValueError, match=message):
        SharpnessAware(sgd(model), bisam.recipe(name), **options).step(batch, **more)


@pytest.mark.parametrize("group", [{"lr": -1}, {"betas": (0.9,)}, {"samples": 0}, {"prior": math.nan}, {"precision": 0}, {"damping": "x"}])
def test_a_group_of_the_variational_base_is_checked_and_not_added(group):
    base = bisam.Variational(reference.net().parameters())
    with pytest.raises((TypeError, ValueError), match=next(iter(group))):
        base.add_param_group({"params": [nn.Parameter(torch.zeros(1))], **group})
    assert len(base.param_groups) == 1


# -- parameters of notebooks ----------------------------------------------------------------------------------------------

NO_LITERALS = ["f()", "(" * 300 + "1" + ")" * 300, "-" * 100_000 + "1", "1" * 5000, "[", "lambda:0", "'a", "{**{}}", "__import__('os')"]


@pytest.mark.parametrize("default", NO_LITERALS, ids=lambda default: default[:10])
def test_a_default_that_is_no_literal_is_refused_by_name(default):
    with pytest.raises(ParameterError, match=r"default of n|not a declaration") as caught:
        declarations.declared(f"n: int = {default}  # seeds; allowed: any")
    assert len(str(caught.value)) < 400


def test_a_default_may_hold_a_number_sign_and_quotes():
    cell = '''a: str = "x # y"  # help; allowed: any\nb: str = 'it\\'s'  # help\nc: float = -1e-3  # h\nd: int = 1_000  # h'''
    assert [one.default for one in declarations.declared(cell).values()] == ["x # y", "it's", -1e-3, 1000]


def test_a_name_is_declared_once():
    with pytest.raises(ParameterError, match="n is declared twice"):
        declarations.declared("n: int = 1  # a\nn: int = 2  # b")


@pytest.mark.parametrize("allowed", ["[a, 1]", "(0, nan]", "[1,2,3"])
def test_an_interval_has_numbers_as_its_ends(allowed):
    try:
        declarations.Parameter("n", "int", 1, "h", allowed)
    except ParameterError as error:
        assert "allowed of n must have numbers as its ends" in str(error)
    else:
        assert allowed == "[1,2,3"  # a list of three words


NO_NOTEBOOKS = {
    "no file": None, "no JSON": "{", "not text": b"\xff\xfe", "a list": "[]", "no cells": '{"nbformat": 4}', "cells of numbers": '{"nbformat": 4, "cells": [1]}',
    "no format": '{"cells": []}', "format 3": '{"nbformat": 3, "worksheets": []}', "no source": '{"nbformat": 4, "cells": [{"metadata": {}}]}',
    "no metadata": '{"nbformat": 4, "cells": [{"source": ""}]}', "nested": "[" * 100_000, "source of numbers": '{"nbformat": 4, "cells": [{"metadata": {}, "source": [1]}]}',
    "no tag": '{"nbformat": 4, "cells": []}', "bad cell": '{"nbformat": 4, "cells": [{"metadata": {"tags": ["parameters"]}, "source": "import os"}]}',
}  # fmt: skip


@pytest.mark.parametrize("text", NO_NOTEBOOKS.values(), ids=NO_NOTEBOOKS)
def test_a_file_that_is_no_notebook_is_refused_by_its_path(text, tmp_path):
    path = tmp_path / "odd.ipynb"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ParameterError, match=r"odd\.ipynb"):
        parameters.from_notebook(path)


@pytest.mark.slow
def test_a_long_line_is_read_in_a_time_that_grows_with_its_length():
    """The limit ends what hangs: in the square of the length, a line of this length took hours."""
    program = (
        "from bisam.notebook.declarations import LINE\n"
        "n = 1_000_000\n"
        "for line in (\"a: str = '\" + ' ' * n + \"'#\", 'a: str = \"' + '\\\\\\\\' * n, 'a: int = ' + '1 ' * n, 'a: int = 1' + ' ' * n + '#', 'a' * n):\n"
        "    assert not LINE.match(line)\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=1800, env=environment)


def test_a_package_that_is_missing_is_named_with_the_extra_that_brings_it(monkeypatch):
    assert _checks.needs("json.decoder", extra="measure") is json.decoder
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ModuleNotFoundError, match=r'^scipy is needed here .*: pip install "bisam\[measure\]"$'):
        _checks.needs("scipy", extra="measure")
