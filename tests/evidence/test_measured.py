"""The rows of results/measured: their form, that the tool gives them again, and what became of the predictions."""

import itertools
import json
import shutil
import statistics

import pytest
import torch
from scripts import tool
from torch.func import functional_call

from bisam.evidence import measured
from bisam.evidence.places import RESULTS, LedgerError
from bisam.measure.held import held
from bisam.training import data, environment

TOOL = tool("measure_networks")
DROPPED, CLIMBS, ONE = (measured.load(name) for name in ("dropped_term", "climbs", "one_step"))
KEYS = {*itertools.product(TOOL.SEEDS, TOOL.TRAINED_BY, TOOL.NOISES, TOOL.STOPS)}


def network(row):
    return tuple(row[name] for name in TOOL.NETWORK)


@pytest.fixture(scope="module")
def early():
    """A network of the first training, after the first stop."""
    ((_, point),) = TOOL.networks(TOOL.TRAINED_BY[0], TOOL.NOISES[0], TOOL.SEEDS[0], TOOL.STOPS[:1])
    return point


def test_every_network_radius_and_climb_is_there_once():
    kinds = (DROPPED, TOOL.DROPPED["radii"], TOOL.DROPPED["climbs"]), (CLIMBS, TOOL.RADII, TOOL.CLIMBS), (ONE, TOOL.WIDTHS, ("sam",))
    for found, radii, climbs in kinds:
        assert len(found.networks) == len(KEYS) and {network(row) for row in found.networks} == KEYS
        places = [(*network(row), row["radius"], row["climb"]) for row in found.rows]
        assert len(places) == len(set(places))
        assert set(places) == {(*key, radius, climb) for key in KEYS for radius in radii for climb in climbs}


def test_the_rows_fit_together():
    for row in DROPPED.rows:
        assert row["kept"] > 0 and row["dropped"] >= 0
        assert row["share"] == pytest.approx(row["dropped"] / row["kept"], rel=1e-4)
    here = {network(row): row for row in CLIMBS.networks}
    for row in CLIMBS.rows:
        assert -1 <= row["aim"] <= 1
        before = here[network(row)]
        for part in ("", "held_"):
            assert before[f"{part}loss"] + row[f"{part}loss_rise"] > 0
            assert -1e-6 <= before[f"{part}mistakes"] + row[f"{part}mistakes_rise"] <= 100 + 1e-6
        if row["climb"] == "none":
            assert row["loss_rise"] == row["mistakes_rise"] == row["held_loss_rise"] == 0
    rises = {(*network(row), row["radius"], row["climb"]): row["loss_rise"] for row in CLIMBS.rows}
    for (*place, climb), rise in rises.items():
        assert climb != "sam-10-steps" or rise <= rises[(*place, "exact")], "the search begins where ten steps end"


def test_one_step_is_the_same_climb_in_both_files():
    rises = {(*network(row), row["radius"]): row["loss_rise"] for row in CLIMBS.rows if row["climb"] == "sam"}
    both = [(row, rises[(*network(row), row["radius"])]) for row in ONE.rows if row["radius"] in TOOL.RADII]
    assert len(both) == 2 * len(KEYS)
    for row, rise in both:
        assert row["loss_rise"] == pytest.approx(rise, rel=1e-3, abs=1e-6)


def test_the_tool_gives_a_network_again(early):
    """To rounding where nothing differs that moves bits, and roughly elsewhere: the training is in float32."""
    same = not environment.differences(CLIMBS.environment, environment.environment("cpu", 0.0))
    tolerance = 1e-3 if same else 0.5
    held_back = data.digits().validation
    key = (TOOL.SEEDS[0], TOOL.TRAINED_BY[0], TOOL.NOISES[0], TOOL.STOPS[0])
    kept = {(row["radius"], row["climb"]): row for row in DROPPED.rows if network(row) == key}
    for row in TOOL.dropped_rows(early):
        assert row["share"] == pytest.approx(kept[row["radius"], row["climb"]]["share"], rel=tolerance)
    kept = {(row["radius"], row["climb"]): row for row in CLIMBS.rows if network(row) == key}
    for row in TOOL.climb_rows(early, held_back.inputs, held_back.targets, ("none", "sam-random", "sam", "bisam-log", "tanh-rivals"), (0.1,)):
        assert row["loss_rise"] == pytest.approx(kept[0.1, row["climb"]]["loss_rise"], rel=tolerance, abs=1e-9 if same else 0.05)


@pytest.mark.parametrize("climb", TOOL.DROPPED["climbs"])
def test_what_is_dropped_is_what_autograd_finds_through_the_climb(early, climb):
    raised, shapes = TOOL.recipe_of(climb).raised, [(name, p.shape, p.numel()) for name, p in early.model.named_parameters()]

    def named(w):
        parts = w.split([size for *_, size in shapes])
        return {name: part.view(shape) for (name, shape, _), part in zip(shapes, parts, strict=True)}

    w = early.w.clone().requires_grad_()
    with held(early.model, "batch"):
        (q,) = torch.autograd.grad(raised(functional_call(early.model, named(w), (early.x,)), early.y), w, create_graph=True)
        e = 0.1 * q / q.norm()
        loss = TOOL.DESCENT(functional_call(early.model, named(w + e), (early.x,)), early.y)
        (whole,) = torch.autograd.grad(loss, w)
    left, change = TOOL.dropped(early, climb, 0.1)
    there = early.gradient(TOOL.DESCENT, e.detach())
    torch.testing.assert_close(whole - there, left, rtol=1e-9, atol=1e-9 * float(left.norm()))
    torch.testing.assert_close(change, there - early.gradient(TOOL.DESCENT))


def test_climbs_end_where_they_should(early):
    for climb in TOOL.CLIMBS[1:-1]:
        for e in TOOL.perturbations(early, climb, 0.1):
            assert float(e.norm()) == pytest.approx(0.1)
    one = TOOL.perturbations(early, "sam", 0.1)[0]
    again = 0.1 * TOOL.unit(early.gradient(TOOL.DESCENT, 0.1 * TOOL.unit(early.gradient(TOOL.DESCENT, one))))
    torch.testing.assert_close(TOOL.perturbations(early, "sam-3-steps", 0.1)[0], again)


# -- predictions ----------------------------------------------------------------------------------------------------------


def test_every_prediction_is_decided_from_the_rows():
    found = measured.outcomes()
    assert len({one.prediction.id for one in found}) == len(found) > 10
    for one in found:
        assert one.verdict in ("holds", "fails") and one.seen == one.prediction.cells


def test_an_outcome_is_what_counting_by_hand_gives():
    (one,) = (each for each in measured.outcomes() if each.prediction.id == "climbs/steps10-loss")
    so = 0
    for trained_by, noise, epoch, radius in itertools.product(TOOL.TRAINED_BY, TOOL.NOISES, TOOL.STOPS, TOOL.RADII):
        place = {"trained_by": trained_by, "label_noise": noise, "epoch": epoch, "radius": radius}
        of = {
            climb: statistics.median(row["loss_rise"] for row in CLIMBS.rows if row["climb"] == climb and all(row[k] == v for k, v in place.items()))
            for climb in ("sam", "sam-10-steps")
        }
        so += of["sam-10-steps"] > of["sam"]
    assert one.so == so


def prediction(**changes):
    fields = {"id": "p", "statement": "s.", "rows": "climbs", "of": "x", "larger": {"climb": "a"}, "smaller": {"climb": "b"}, "needed": 1, "cells": 2}
    return measured.Prediction(**(fields | changes))


def rows(**values):
    place = {"trained_by": "sgd", "label_noise": 0.0, "epoch": 5}
    return [{**place, "radius": radius, "climb": name[0], "x": x} for name, xs in values.items() for radius, x in zip((0.1, 0.3), xs, strict=True)]


def test_cells_factors_numbers_and_radii_count_as_they_say():
    some = rows(a=(1.0, 4.0), b=(2.0, 1.0))
    assert measured.outcome(prediction(), some) == measured.Outcome(prediction(), so=1, seen=2)
    assert measured.outcome(prediction(times=5.0), some).so == 0
    assert measured.outcome(prediction(smaller=0.5), some).so == 2
    assert measured.outcome(prediction(larger=3.0, smaller={"climb": "a"}), some).so == 1
    both = prediction(larger={"climb": "a", "radius": 0.3}, smaller={"climb": "a", "radius": 0.1}, cells=1)
    assert measured.outcome(both, some) == measured.Outcome(both, so=1, seen=1)
    assert measured.outcome(prediction(radius=0.3, cells=1), some).so == 1
    assert measured.outcome(prediction(), rows(a=(1.0, 4.0))).verdict == "not measured"


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"needed": 3}, "needed must be at most cells"), ({"larger": {"method": "a"}}, "a key of larger"), ({"times": 0.0}, "times"),
     ({"smaller": "b"}, "smaller"), ({"of": 5}, "of")],
)  # fmt: skip
def test_a_wrong_prediction_is_refused_by_the_name_of_its_field(changes, words):
    with pytest.raises((TypeError, ValueError), match=words):
        prediction(**changes)


def test_a_column_that_rows_do_not_have_is_refused_by_name():
    with pytest.raises(ValueError, match="of must be one of"):
        measured.cells(rows(a=(1.0, 4.0)), "y")
    with pytest.raises(ValueError, match="a column of by must be one of"):
        measured.cells(rows(a=(1.0, 4.0)), "x", by=("seed",))
    with pytest.raises(TypeError, match="rows"):
        measured.cells(5, "x")


def test_a_file_of_another_form_is_an_error_that_names_it(tmp_path):
    place = tmp_path / "measured"
    place.mkdir()
    with pytest.raises(LedgerError, match=r"climbs\.json cannot be read"):
        measured.load("climbs", tmp_path)
    for text in ("[]", "{", '{"what": "", "environment": {}, "networks": {"columns": ["a"], "values": [[1, 2]]}, "rows": {"columns": [], "values": []}}'):
        (place / "climbs.json").write_text(text, encoding="utf-8")
        with pytest.raises(LedgerError, match="does not have the form"):
            measured.load("climbs", tmp_path)
    one = json.loads((RESULTS / "measured" / "climbs.json").read_text(encoding="utf-8"))
    one["rows"]["values"][0][-1] = float("nan")
    (place / "climbs.json").write_text(json.dumps(one), encoding="utf-8")
    with pytest.raises(LedgerError, match="finite"):
        measured.load("climbs", tmp_path)
    (place / "predictions.toml").write_text("[[prediction]]\nid = 'a'\n", encoding="utf-8")
    with pytest.raises(LedgerError, match="list of predictions"):
        measured.predictions(tmp_path)


# -- the tool -------------------------------------------------------------------------------------------------------------


def test_a_run_that_was_cut_goes_on_where_it_was(tmp_path, monkeypatch):
    small = {"SEEDS": (1, 2), "TRAINED_BY": ("sgd",), "NOISES": (0.4,), "STOPS": (1,), "EPOCHS": 1, "RADII": (0.1,), "WIDTHS": (0.1,), "SEARCH": 1}
    for name, value in {**small, "CLIMBS": ("none", "sam", "exact"), "DROPPED": {"climbs": ("sam",), "radii": (0.1,)}}.items():
        monkeypatch.setattr(TOOL, name, value)
    TOOL.measure(tmp_path, progress=False)
    whole = {name: measured.load(name, tmp_path) for name in TOOL.WHAT}
    assert [len(whole[name].rows) for name in ("dropped_term", "climbs", "one_step")] == [2, 6, 2]
    shutil.rmtree(tmp_path / "measured")
    monkeypatch.setattr(TOOL, "SEEDS", (1,))
    TOOL.measure(tmp_path, progress=False)
    monkeypatch.setattr(TOOL, "SEEDS", (1, 2))
    TOOL.measure(tmp_path, progress=False)
    for name, found in whole.items():
        again = measured.load(name, tmp_path)
        assert (again.rows, again.networks) == (found.rows, found.networks)
