"""The table of methods, variations of its rows, and rows as plain values."""

import dataclasses
import json
import math

import pytest
import torch

import bisam
from bisam import (
    ASAM,
    BISAM_LOG,
    BISAM_TANH,
    L2,
    RECIPES,
    SAM,
    SGD,
    Adaptive,
    Constant,
    CrossEntropy,
    Learned,
    NegLog,
    Recipe,
    Surrogate,
    Tanh,
)
from bisam.methods import A_BISAM_LOG, A_BISAM_TANH, ASAM_ALL

each_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


def test_defaults_are_those_of_the_published_runs():
    assert (SAM.ascent, SAM.radius.rho) == (None, 0.05)
    assert (BISAM_LOG.ascent, BISAM_LOG.radius.rho) == (Surrogate(NegLog(math.log(math.e - 1)), 1.5), 0.05)
    assert (BISAM_TANH.ascent, BISAM_TANH.radius.rho) == (Surrogate(Tanh(0.1), 10.0), 0.05)
    assert (ASAM.geometry, ASAM.radius.rho) == (Adaptive(0.01, "weights"), 0.5)
    for row, plain in ((ASAM_ALL, SAM), (A_BISAM_LOG, BISAM_LOG), (A_BISAM_TANH, BISAM_TANH)):
        assert (row.ascent, row.geometry, row.radius.rho) == (plain.ascent, Adaptive(0.0, "all"), 2.0)
    assert all(row.descent == CrossEntropy() for row in RECIPES.values())
    assert all(row.geometry == L2() for row in (SGD, SAM, BISAM_LOG, BISAM_TANH))
    assert (bisam.ESAM.geometry.keep, bisam.ESAM.selection.fraction, bisam.ESAM.radius.rho) == (0.5, 0.5, 0.05)
    assert bisam.ESAM.geometry.per == "coordinate" and bisam.methods.ESAM_CODE.geometry.per == "tensor"
    printed = RECIPES["e-bisam-log-printed"].geometry
    assert (printed.divisor, printed.inner) == ("dropped", bisam.axes.Unnormalised())
    assert bisam.methods.MSAM.micro_batch == 128 and bisam.methods.LETS_SAM.radius.form == "diagonal"
    assert (bisam.GSAM.combination.alpha, bisam.GSAM.radius.rho, bisam.GSAM.radius.least) == (0.01, 0.04, 0.02)
    assert (bisam.LOOKSAM.combination.every, bisam.LOOKSAM.combination.alpha) == (5, 0.7)
    fsam, vasso = bisam.methods.FSAM.direction, bisam.methods.VASSO.direction
    assert (fsam.gradient, fsam.average, fsam.decay, fsam.lagged) == (1.0, -1.0, 0.9, True)
    assert (vasso.gradient, vasso.average, vasso.decay, vasso.lagged) == (0.0, 1.0, 0.6, False)
    assert bisam.methods.BSAM.radius.rho == 0.01


FAMILY = ["gsam", "rsam", "ksam", "fsam", "vasso", "sam-on", "le-sam", "late-sam", "sam-every-k", "looksam", "bsam", "j-sam"]
NAMES = [
    *("sgd", "sam", "bisam-log", "bisam-tanh", "sam-inf", "asam", "asam-all", "a-bisam-log", "a-bisam-tanh"),
    *("esam", "esam-code", "e-bisam-log", "e-bisam-tanh", "e-bisam-log-printed", "e-bisam-tanh-printed"),
    *("msam", "m-bisam-log", "m-bisam-tanh", "lets-sam", "lets-asam", "lets-bisam-log", "lets-bisam-tanh"),
    *FAMILY,
]


def test_names_are_those_of_the_rows():
    assert list(RECIPES) == NAMES
    assert all(bisam.recipe(name) is row and row.name == name for name, row in RECIPES.items())


def test_a_product_differs_from_its_method_in_the_ascent_loss():
    for name in FAMILY:
        for tail, plain in (("-bisam-log", BISAM_LOG), ("-bisam-tanh", BISAM_TANH)):
            made = bisam.recipe(name + tail)
            back = made.replace(name=name, ascent=None, selection=RECIPES[name].selection)
            assert made.name == name + tail and back == RECIPES[name] and made.ascent == plain.ascent
    for name in ("sgd-bisam-log", "asam-bisam", "bisam-log-bisam-log", "a-bisam-log-bisam-tanh"):
        with pytest.raises(ValueError, match=f"with -bisam-log or -bisam-tanh behind it; got '{name}'"):
            bisam.recipe(name)


# A forward pass is a third of a pass, a backward pass two thirds.
PASSES = {
    "sgd": 1,
    "esam": 1 + 1 / 3 + 1 / 2,
    "e-bisam-log": 1 + 1 / 3 + 1 / 2,
    "esam-code": 5 / 3,  # half of the tensors need no gradient in the first pass: a sixth less
    "lets-sam": 4,
    "lets-bisam-log": 4,
    "gsam": 2,
    "gsam-bisam-log": 2 + 2 / 3,  # one more backward pass, for the gradient of cross-entropy at w
    "ksam": 1 / 3 + 1,
    "sam-every-k": 6 / 5,
    "looksam": 6 / 5,
    "looksam-bisam-log": (2 + 2 / 3 + 4) / 5,
    "rsam": 2 + 1 / 3,  # the first pass is elsewhere; one more forward pass says what the loss at w is
    "bsam": 2 + 1 / 3,
    "bsam-bisam-tanh": 2 + 1 / 3 + 2 / 3,
}


def test_passes_of_the_rows():
    for name, passes in PASSES.items():
        assert bisam.recipe(name).passes == pytest.approx(passes), name
    for name in ("sam", "bisam-log", "asam", "msam", "fsam", "vasso", "sam-on", "le-sam", "late-sam"):
        assert RECIPES[name].passes == 2
    assert all(row.replace(radius=Constant(0)).passes == 1 for row in RECIPES.values())
    exact = bisam.methods.LETS_SAM.replace(radius=bisam.Learned(0.05, 0.1, form="exact", every=2))
    assert exact.passes == pytest.approx(2 + (2 + 1 + 4 / 3) / 2)


def test_what_is_raised_is_the_descent_loss_unless_another_is_named():
    smooth = CrossEntropy(0.1)
    assert SAM.replace(descent=smooth).raised is smooth and BISAM_LOG.raised is BISAM_LOG.ascent


def test_plain_values_survive_json():
    for recipe in RECIPES.values():
        assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_every_choice_is_among_the_plain_values():
    mine = Recipe(
        "mine", Surrogate(Tanh(0.7), 3.0), CrossEntropy(0.2, "others"), L2(), Constant(0.3), same_noise=False
    )
    again = Recipe.from_dict(mine.to_dict())
    assert again == mine and again.descent.convention == "others" and not again.same_noise


def test_replacing_makes_another_row_and_leaves_the_table_alone():
    for name, recipe in RECIPES.items():
        changed = recipe.replace(radius=Constant(0.2), name="other")
        assert changed.radius.rho == 0.2 and RECIPES[name] is recipe != changed, name
        with pytest.raises(dataclasses.FrozenInstanceError):
            recipe.radius = Constant(1.0)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (
            lambda: bisam.recipe("bisam"),
            ValueError,
            r"recipe must be one of sgd, sam, bisam-log, bisam-tanh, sam-inf, .*; got 'bisam'; did you mean 'bisam-log'\?",
        ),
        (lambda: bisam.recipe("BISAM_TANH"), ValueError, r"got 'BISAM_TANH'; did you mean 'bisam-tanh'\?$"),
        (lambda: bisam.recipe("GSAM_bisam_log"), ValueError, r"; did you mean 'gsam-bisam-log'\?$"),
        (lambda: bisam.recipe("samm"), ValueError, r"; got 'samm'$"),
        (lambda: bisam.recipe(""), ValueError, r"; got ''$"),
        (lambda: bisam.recipe(None), ValueError, r"recipe must be one of .*; got None"),
        (lambda: Constant(-0.1), ValueError, r"rho must be 0 or greater, got -0\.1"),
        (lambda: Constant(math.nan), ValueError, r"rho must be finite, got nan"),
        (lambda: Constant(math.inf), ValueError, r"rho must be finite, got inf"),
        (lambda: Constant(True), TypeError, r"rho must be a real number, not True of type bool"),
        (lambda: Constant("0.05"), TypeError, r"rho must be a real number, not '0\.05' of type str"),
        (lambda: SAM.replace(ascent="q"), TypeError, r"ascent must be a loss such as .*, got 'q'"),
        (
            lambda: SAM.replace(ascent=Surrogate),
            TypeError,
            r"ascent must be a loss such as .*Surrogate\(\), got <class",
        ),
        (lambda: SAM.replace(descent=None), TypeError, r"descent must be a loss such as .*, got None"),
        (lambda: SAM.replace(geometry="l2"), TypeError, r"geometry must be a set such as L2\(\), got 'l2'"),
        (lambda: SAM.replace(geometry=L2), TypeError, r"geometry must be a set such as L2\(\), got <class"),
        (lambda: SAM.replace(radius=0.05), TypeError, r"radius must be .* Constant\(0\.05\), got 0\.05"),
        (lambda: SAM.replace(same_noise="no"), TypeError, r"same_noise must be True or False, .*'no'"),
        (
            lambda: Recipe.from_dict({"kind": "Recipee"}),
            ValueError,
            r"kind must be one of .*Recipe.*; got 'Recipee'",
        ),
    ],
)
def test_a_wrong_choice_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_another_radius_is_one_of_the_same_kind():
    assert SAM.with_rho(0.2) == SAM.replace(radius=Constant(0.2))
    assert SAM.with_rho(0.0).passes == 1 and bisam.methods.BSAM.with_rho(0).radius == Constant(0.0)
    assert bisam.methods.SAM_EVERY_K.with_rho(0.2).radius == bisam.Phase(0.2, every=5)
    assert bisam.methods.LETS_SAM.with_rho(0.2).radius == bisam.Learned(0.2, 100.0)
    ramp = SAM.replace(radius=bisam.Schedule((0, 10), (0.0, 0.1)))
    assert ramp.with_rho(0.3).radius.rhos == pytest.approx((0.0, 0.3))
    with pytest.raises(ValueError, match=r"rho must be from least = 0\.001 to most = 1\.0, got 5\.0"):
        bisam.methods.LETS_SAM.with_rho(5.0)
    with pytest.raises(ValueError, match=r"rho must be 0 for the recipe sgd, got 0\.1"):
        SGD.with_rho(0.1)


def test_choices_name_the_axes_on_which_a_row_is_not_the_base():
    assert SGD.choices == {}
    assert SAM.choices == {"ascent": "the descent loss", "radius": "Constant(0.05)"}
    assert RECIPES["e-bisam-tanh-printed"].choices == {
        "ascent": "Surrogate(Tanh(), mu=10)",
        "geometry": "Masked(Unnormalised(), divisor='dropped')",
        "radius": "Constant(0.05)",
        "selection": "MostSensitive()",
    }
    seen = {tuple(sorted({**row.choices, "descent": str(row.descent)}.items())) for row in RECIPES.values()}
    assert len(seen) == len(RECIPES)  # no two rows are the same method


WRONG_PARTS = {
    "keep": (lambda: bisam.Masked(keep=0.0), r"keep must be greater than 0 and at most 1, got 0\.0"),
    "per": (lambda: bisam.Masked(per="layer"), "per must be one of coordinate, tensor; got 'layer'"),
    "dropped": (lambda: bisam.Masked(keep=1.0, divisor="dropped"), "keep must be below 1 with divisor"),
    "layers": (lambda: bisam.Only(layers="conv"), "layers must be one of norm; got 'conv'"),
    "fraction": (lambda: bisam.MostSensitive(0), "fraction must be greater than 0 and at most 1, got 0"),
    "by": (lambda: bisam.TopK(0.5, by="loss"), "by must be one of descent, ascent, gradient; got 'loss'"),
    "direction": (lambda: bisam.Averaged(0, 0, decay=0.5), "gradient and average must not both be 0"),
    "decay": (lambda: bisam.Averaged(0, 1, decay=1.0), r"decay must be in \[0, 1\), got 1\.0"),
    "scale": (lambda: bisam.RandomStart(-1.0), r"scale must be 0 or greater, got -1\.0"),
    "alpha": (lambda: bisam.Decomposed(-0.1), r"alpha must be 0 or greater, got -0\.1"),
    "at_w": (lambda: bisam.Decomposed(0.1, at_w="both"), "at_w must be one of descent, ascent; got 'both'"),
    "every": (lambda: bisam.LookSAM(every=0), "every must be at least 1, got 0"),
    "start": (lambda: bisam.Phase(0.05, start=-1), "start must be at least 0, got -1"),
    "steps": (lambda: bisam.Schedule((5, 5), (0.0, 0.1)), r"steps must rise, got \(5, 5\)"),
    "rhos": (lambda: bisam.Schedule((0, 5), (0.1,)), "rhos must hold one radius for each of the 2 steps, got 1"),
    "least": (lambda: bisam.ByLearningRate(0.1, least=0.2), r"least must be at most rho = 0\.1, got 0\.2"),
    "lr_max": (lambda: bisam.ByLearningRate(0.1, lr_max=0.1, lr_min=0.2), r"lr_max must be above lr_min = 0\.2, got 0\.1"),
    "hold": (lambda: bisam.LossBudget(0.1, 1.0, hold=5), "hold and total must be given together, got 5 and None"),
    "form": (lambda: Learned(0.1, 0.1, form="hessian"), "form must be one of exact, difference, diagonal; got 'hessian'"),
    "micro_batch": (lambda: SAM.replace(micro_batch=0), "micro_batch must be at least 1, got 0"),
    "looks": (lambda: bisam.LOOKSAM.replace(micro_batch=4), "micro_batch must be None with combination LookSAM"),
    "samples": (lambda: bisam.Variational([torch.zeros(1)], samples=0), "samples must be greater than 0, got 0"),
}


@pytest.mark.parametrize("make, message", WRONG_PARTS.values(), ids=WRONG_PARTS)
def test_a_wrong_part_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("field", ["start", "direction", "selection", "combination"])
def test_a_choice_of_another_axis_is_refused(field):
    with pytest.raises(TypeError, match=rf"{field} must be a choice such as .*, or None; got L2\(\)"):
        SAM.replace(**{field: L2()})


def test_bsam_needs_its_own_base():
    with pytest.raises(TypeError, match=r"base must be a bisam.Variational for Precision\(\), .*'bsam'; got SGD"):
        bisam.SharpnessAware(torch.optim.SGD([torch.zeros(1)], lr=0.1), bisam.methods.BSAM)


def test_unknown_fields_are_refused():
    with pytest.raises(TypeError, match="rho"):
        SGD.replace(rho=0.1)
