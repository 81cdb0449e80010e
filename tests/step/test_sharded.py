"""Two processes that share the weights (`fully_shard`) or the batch (`no_sync`), against one process with all of both."""

import pytest
import reference
import sharded_training as sharded
import torch

import bisam
from bisam.axes import Adaptive, Lp, Only

SURROGATE = bisam.BISAM_LOG.ascent
# A selection ranks the samples of its own worker, as under DistributedDataParallel, and is no part of this.
WITH_SELECTION = [name for name, recipe in bisam.methods.RECIPES.items() if recipe.selection is not None]
REFUSED = [name for name, recipe in bisam.methods.RECIPES.items() if recipe.radius.learns]
ROWS = {name: bisam.recipe(name) for name in bisam.methods.RECIPES if name not in WITH_SELECTION + REFUSED}
MORE = {
    **{f"{name}, whole batch": bisam.recipe(name).replace(selection=None) for name in ("e-bisam-log", "esam-code")},
    **{f"{name}, another ascent": bisam.recipe(name).with_ascent(SURROGATE, name) for name in ("gsam", "looksam")},
    **{f"p = {p}": bisam.SAM.replace(geometry=Lp(p)) for p in (1, 3)},
    "norm layers, adaptive": bisam.SAM.replace(geometry=Only(Adaptive())),
}
BLOCK = ("sam", "asam", "sam-inf", "vasso", "fsam")
FUNCTIONS = ("sam", "bisam-log", "asam", "vasso", "rsam", "looksam")
PARTS = ("sam", "bisam-log", "asam", "gsam")

MESHED, SHAPES = ("sam", "sam-inf", "rsam"), ((2, 1), (1, 2))
PARALLEL = ("sam", "bisam-log", "asam", "sam-inf", "sam-on", "gsam", "looksam", "rsam", "le-sam")

EQUAL = {
    **{(name, "batch", keep): (recipe, "batch", not keep) for name, recipe in (ROWS | MORE).items() for keep in (False, True)},
    **{(name, "block", True): (bisam.recipe(name), "block", False) for name in BLOCK},
    **{(name, way, True): (bisam.recipe(name), way, False) for name in FUNCTIONS for way in ("ascent", "functions") if name != "looksam" or way != "ascent"},
    **{(name, "closure", False): (bisam.recipe(name), "closure", True) for name in ("sam", "asam", "looksam")},
    **{(name, "accumulation", False): (bisam.recipe(name), "accumulation", True) for name in PARTS},
}
SPREAD = [*((name, "closure") for name in ("sam", "vasso", "gsam")), *((name, style) for name in ("sam", "bisam-log") for style in ("ascent", "functions"))]
JOBS = {
    **{(name, style): (sharded.spread, (bisam.recipe(name), style)) for name, style in SPREAD},
    **{key: (sharded.equal, arguments) for key, arguments in EQUAL.items()},
    **{f"{name} returns": (sharded.returns, (bisam.recipe(name),)) for name in BLOCK},
    **{f"{name} draws": (sharded.drawn, (bisam.recipe(name),)) for name in ("sam", "asam")},
    **{what: (sharded.refused, (what,)) for what in ("flat parameters", "flat parameters, block", "learned radius", "per worker", "unknown model")},
    **{f"{way} in parts": (sharded.accumulated, (way,)) for way in sharded.ACCUMULATED},
    **{(name, shape): (sharded.meshed, (bisam.recipe(name), shape)) for name in MESHED for shape in SHAPES},
    **{f"{name} in parallel": (sharded.in_parallel, (bisam.recipe(name),)) for name in PARALLEL},
    **{f"overflow, {way}": (sharded.overflow, (way,)) for way in ("batch", "block")},
    "two bases": (sharded.two_bases, ()),
    "partial": (sharded.partial, ()),
    "unsynchronised": (sharded.unsynchronised, ()),
    "record": (sharded.record, ()),
    "accident": (sharded.accident, ()),
    "half": (sharded.half, ()),
    "scaled": (sharded.scaled, (1024.0,)),
}

RESUMED = [(name, flat) for name in ("sam", "vasso", "looksam", "le-sam") for flat in (False, True)]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def found(folder):
    saved = {(name, flat): (sharded.resumed, (bisam.recipe(name), folder / f"{name} {flat}", flat)) for name, flat in RESUMED}
    answers = sharded.run(JOBS | saved)

    def answer(key):
        one, two = answers[key]
        for said in (one, two):
            assert not (isinstance(said, str) and said.startswith("Traceback")), said
        return one, two

    return answer


@pytest.mark.parametrize("case", EQUAL, ids=lambda case: f"{case[0]}, {case[1]}{', kept whole' if case[2] else ''}")
def test_shards_on_two_workers_are_one_process(found, case):
    assert max(found(case)) < 1e-6


@pytest.mark.parametrize("case", SPREAD, ids=", ".join)
def test_passes_of_others_on_two_workers_are_one_process(found, case):
    assert max(found(case)) < 1e-6


@pytest.mark.parametrize("name", BLOCK)
def test_passes_in_the_block_see_the_climb_and_shards_are_bitwise_back(found, name):
    for is_back, has_climbed, is_as_before in found(f"{name} returns"):
        assert is_back and has_climbed and is_as_before


@pytest.mark.parametrize("name", ["sam", "asam"])
def test_both_passes_of_a_worker_draw_the_same_masks(found, name):
    assert max(found(f"{name} draws")) < 1e-6


def test_the_record_is_that_of_one_process(found):
    for here, alone in found("record"):
        assert here == pytest.approx(alone, rel=1e-5) and here["length"] == pytest.approx(0.05)


def test_an_accident_on_one_worker_is_one_of_all(found):
    assert found("accident") == ((1, True), (1, True))


def test_half_precision_stays_near_single_precision(found):
    assert max(found("half")) < 5e-3


def test_a_scaler_with_nothing_to_save_changes_nothing(found):
    assert max(found("scaled")) < 1e-6


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("flat parameters", ("FullyShardedDataParallel", "fully_shard")),
        ("flat parameters, block", ("FullyShardedDataParallel", "fully_shard")),
        ("learned radius", ("Learned", "lets-sam", "DistributedDataParallel")),
        ("per worker", ("per_worker", "fully_shard")),
        ("unknown model", ("model", "fully_shard")),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(found, what, words):
    for message, is_untouched in found(what):
        assert all(word in message for word in words) and is_untouched


@pytest.mark.parametrize("way", sharded.ACCUMULATED)
def test_accumulation_with_no_sync_is_one_process(found, way):
    assert max(found(f"{way} in parts")) < 1e-6


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize(("name", "flat"), RESUMED)
def test_a_sharded_training_goes_on_from_its_files(found, folder, name, flat):
    for (through, steps), (again, more) in found((name, flat)):
        assert reference.bits(through) == reference.bits(again) and steps == more == 6
    alone = sharded.half_way(sharded.network(), bisam.recipe(name), slice(None), folder / f"{name} {flat}", flat, is_new=False, alone=True)
    assert alone[1] == 6
    for key, value in through.items():  # the same files, in one process
        torch.testing.assert_close(alone[0][key], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MESHED)
def test_copies_of_shards_are_counted_once(found, name, shape):
    assert max(found((name, shape))) < 1e-6


@pytest.mark.parametrize("name", PARALLEL)
def test_tensor_parallelism_beside_plain_tensors_is_one_process(found, name):
    assert max(found(f"{name} in parallel")) < 1e-6


def test_a_sum_that_is_still_to_be_made_is_made(found):
    assert found("partial") == ([3.0] * 3, [3.0] * 3)


def test_shards_that_get_no_gradient_say_why(found):
    assert all("set_requires_gradient_sync" in said for said in found("unsynchronised"))


@pytest.mark.parametrize("way", ["batch", "block"])
def test_an_overflow_on_one_worker_is_a_skipped_step_of_all(found, way):
    assert found(f"overflow, {way}") == ((True, 512.0, True, 1),) * 2


def test_several_bases_of_shards_are_one_process(found):
    assert max(found("two bases")) < 1e-6
