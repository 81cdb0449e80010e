"""Published and recorded numbers side by side: the right cells, the right intervals, and a page that is there before its records are."""

import dataclasses
import math

import matplotlib
import pytest
from records import sound
from scipy import stats

from bisam.evidence import decisions, ledger, listing, selection
from bisam.evidence.decisions import Decision
from bisam.evidence.published import PUBLISHED_AS
from bisam.evidence.statistics import Paired, paired
from bisam.evidence.summaries import welch
from bisam.methods.table import RECIPES, is_recipe
from bisam.notebook import drawing, effects, tables
from bisam.notebook.effects import Cell, Effect
from bisam.notebook.plots import STYLES, style_of
from bisam.training import History, Run

matplotlib.use("Agg")
NOISY = {"label_noise": 0.4}


@pytest.fixture(scope="module")
def records():
    return ledger.evidence("first_run_second")


@pytest.fixture
def axes():
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def written(axes):
    return [text.get_text() for text in axes.texts]


# -- cells ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell, text", [
    (Cell(94.09, 0.26, 6), "94.09 ± 0.26"), (Cell(94.0), "94.00"), (Cell(-0.004, 0.0, 6), "-0.00 ± 0.00"),
])  # fmt: skip
def test_a_cell_prints_what_is_known(cell, text):
    assert str(cell) == text


def test_the_interval_is_students():
    low, high = Cell(94.09, 0.26, 6).interval
    expected = stats.t.interval(0.95, 5, loc=94.09, scale=0.26 / math.sqrt(6))
    assert (low, high) == pytest.approx(expected)


@pytest.mark.parametrize("cell", [Cell(1.0), Cell(1.0, 0.1), Cell(1.0, 0.1, 1), Cell(1.0, None, 6)])
def test_no_interval_without_a_spread_and_two_runs(cell):
    assert cell.interval is None


def test_published_cells_are_those_of_the_table():
    assert effects.published_cell("bisam-tanh", table="T9", task="label noise 80%") == Cell(48.57, 0.64, 6)
    assert effects.published_cell("sgd", table="NOISE", task="label noise 80%") == Cell(26.2)
    assert effects.published_cell("esam", table="T1", model="Resnet-56") is None


def test_a_cell_that_is_empty_in_the_source_is_none():
    assert effects.published_cell("[LYL + 19]", table="NOISE", task="label noise 80%") is None


def test_published_columns_must_single_out_a_row():
    with pytest.raises(ValueError, match=r"must single out one row, .* has 2 for asam-all"):
        effects.published_cell("asam-all", model="Resnet-56")
    with pytest.raises(ValueError, match="column must be one of"):
        effects.published_cell("sam", tabel="T1")


def test_recorded_cells_hold_mean_and_spread_over_the_seeds(records):
    values = [
        entry["final"]["last_test_accuracy"] for entry in records.values()
        if entry["run"]["recipe"]["name"] == "sam" and entry["run"]["label_noise"] == 0.4
    ]  # fmt: skip
    cell = effects.recorded_cell(records, "sam", "last_test_accuracy", NOISY)
    mean = sum(values) / 10
    assert cell.runs == 10 and cell.mean == pytest.approx(mean)
    assert cell.std == pytest.approx(math.sqrt(sum((value - mean) ** 2 for value in values) / 9))


def test_one_record_has_no_spread_and_none_no_cell(records):
    name, entry = next(iter(records.items()))
    one = effects.recorded_cell({name: entry}, entry["run"]["recipe"]["name"], "last_test_accuracy")
    assert one.runs == 1 and one.std is None
    assert effects.recorded_cell({}, "sam", "last_test_accuracy") is None
    assert effects.recorded_cell(records, "sam", "last_test_accuracy", {"label_noise": 0.1}) is None


# -- differences ----------------------------------------------------------------------------------------------------------


def test_a_published_gap_is_welchs():
    gap = effects.published_gap("bisam-log", "sam", table="T9", task="label noise 40%")
    assert gap == welch(88.71, 0.23, 6, 89.03, 0.09, 6) and gap.high < 0


@pytest.mark.parametrize("method, columns", [
    ("bisam-log", {"table": "NOISE", "task": "label noise 40%"}),  # not in that table
    ("sgd", {"table": "NOISE", "task": "label noise 40%"}),  # one number without a spread
    ("bisam-log", {"table": "T4", "dataset": "Oxford Flowers"}),  # the number of runs is not stated
])  # fmt: skip
def test_no_gap_without_two_cells_with_spreads(method, columns):
    assert effects.published_gap(method, "sam", **columns) is None


def test_an_effect_takes_its_published_columns_from_the_claim_or_from_the_caller():
    claim = next(claim for claim in listing.claims("T9") if claim.id == "T9/noise40/bisam-log-over-sam")
    decision = Decision(claim, "paper", None, -0.32, "not attempted")
    assert effects.effect(decision, "a").published.difference == pytest.approx(-0.32)
    ours = dataclasses.replace(claim, published={})
    assert effects.effect(dataclasses.replace(decision, claim=ours), "a").published is None
    other = effects.effect(dataclasses.replace(decision, claim=ours), "a", table="T9", task="label noise 20%")
    assert other.published.difference == pytest.approx(0.02) and other.method == "bisam-log"


SEEN = Paired(mean=1.0, low=0.2, high=1.8, p=0.031, pairs=6, detectable=1.1)


def test_every_claim_has_a_row_also_without_records():
    rows = tables.state_rows(decisions.decisions("T1"))
    assert len(rows) == 18 and {row["verdict"] for row in rows} == {"not attempted"} and len({row["claim"] for row in rows}) == 18
    assert {row[key] for row in rows for key in ("difference", "p", "q", "could find", "pairs")} == {None}


def decided(low, high, p, word):
    claim = listing.claims("first_run")[0]
    return Decision(claim, "laptop", Paired((low + high) / 2, low, high, p, 10, 1.0), None, word)


def test_what_chance_resolves_is_counted_over_claims_with_records():
    some = [decided(0.1, 1.0, 0.01, "holds")] + 19 * [decided(-1.0, 1.1, 0.9, "not resolved")]
    without = Decision(some[0].claim, "laptop", None, None, "not attempted")
    assert tables.by_chance([*some, without]) == "1 of 20 differences resolved; up to 1.0 expected by chance if none were real"
    assert tables.by_chance([without]) == "no claim has records"


def test_every_method_of_the_experiments_has_a_look_and_its_published_name_as_label():
    used = {name for experiment in listing.experiments().values() for name in experiment.methods}
    assert used <= set(STYLES)
    for name, label in PUBLISHED_AS.items():
        assert STYLES[name].label == label
    looks = [(look.color, look.linestyle, look.marker) for look in STYLES.values()]
    assert len(set(looks)) == len(looks)
    assert len({look.marker for look in STYLES.values()}) == len(STYLES), "told apart without colour"


def test_every_row_of_the_table_has_a_style_and_a_label_of_its_own():
    products = [f"{name}-bisam-{phi}" for name in RECIPES for phi in ("log", "tanh")]
    styles = {name: style_of(name) for name in (*RECIPES, *filter(is_recipe, products))}
    assert len({(styles[name].color, styles[name].linestyle, styles[name].marker) for name in RECIPES}) == len(RECIPES)
    assert len({each.label for each in styles.values()}) == len(styles)
    for name, each in styles.items():
        climbs = "log" if name.endswith("bisam-log") else "tanh" if name.endswith("bisam-tanh") else ""
        assert name in STYLES or each.linestyle == {"log": "--", "tanh": "-.", "": "-"}[climbs] or "printed" in name
    with pytest.raises(ValueError, match="recipe must be one of sgd, sam"):
        style_of("no such method")


# -- runs made here -------------------------------------------------------------------------------------------------------


def history(name, accuracies):
    rows = [
        {"epoch": k + 1, "train_accuracy": a - 10, "validation_accuracy": a - 1, "test_accuracy": a} for k, a in enumerate(accuracies)
    ]
    return History(Run(recipe=name, epochs=len(rows)), rows)


def test_live_runs_are_averaged_over_seeds_and_passes_counted():
    (row,) = tables.live_rows({"esam": [history("esam", [80.0, 60.0]), history("esam", [70.0, 90.0])]})
    assert list(row.values()) == ["ESAM", 2, "3.7", "75.0", "84.0", "85.0", "75.0"]


@pytest.mark.parametrize("text, words", [("sam", ["sam"]), ("sam,sgd", ["sam", "sgd"]), ("sam,  sgd", ["sam", "sgd"])])
def test_methods_are_given_with_commas(text, words):
    assert tables.joined(text) == words


# -- figures --------------------------------------------------------------------------------------------------------------


def test_cells_are_drawn_with_intervals_where_they_exist(axes):
    drawing.draw_cells(axes, {"sam": {0.0: Cell(95.0, 0.2, 6), 20.0: None, 40.0: Cell(90.0)}, "sgd": {0.0: None}})
    (drawn,) = axes.containers
    assert list(drawn.lines[0].get_xdata()) == [0.0, 40.0] and drawn.get_label() == "SAM"
    (segments,) = drawn.lines[2]
    first, second = segments.get_segments()
    assert first[:, 1] == pytest.approx(Cell(95.0, 0.2, 6).interval) and second[:, 1] == pytest.approx([90.0, 90.0])


def test_effects_are_drawn_from_the_top_with_what_could_have_been_found(axes):
    rows = [Effect("a", "sam", None, None, ""), Effect("b", "sam", welch(94.3, 0.3, 6, 94.1, 0.3, 6), SEEN, "holds")]
    drawing.draw_effects(axes, rows, "ours")
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b"] and axes.yaxis_inverted()
    (bar,) = axes.patches
    assert (bar.get_x(), bar.get_width()) == (-1.1, 2.2)
    interval, point, _ = axes.lines
    assert list(interval.get_xdata()) == [0.2, 1.8] and list(interval.get_ydata()) == [1, 1] and list(point.get_xdata()) == [1.0]
    assert not written(axes)


def test_published_effects_have_no_bar(axes):
    drawing.draw_effects(axes, [Effect("b", "sam", welch(94.3, 0.3, 6, 94.1, 0.3, 6), SEEN, "holds")], "published")
    assert not axes.patches and list(axes.lines[1].get_xdata()) == [pytest.approx(0.2)]


def test_curves_are_means_over_the_seeds_and_markers_stand_at_the_chosen_epochs(axes, records):
    drawing.draw_curves(axes, records, ["sgd", "esam"], "test_accuracy", NOISY, marked=True)
    mean, marks = axes.lines
    mine = [e for e in records.values() if e["run"]["recipe"]["name"] == "sgd" and e["run"]["label_noise"] == 0.4]
    assert len(mean.get_xdata()) == 60 and mean.get_xdata()[-1] == 1.0
    assert mean.get_ydata()[-1] == pytest.approx(sum(e["final"]["last_test_accuracy"] for e in mine) / 10)
    assert sorted(marks.get_ydata()) == pytest.approx(sorted(e["final"]["selected_test_accuracy"] for e in mine))


def test_a_curve_may_be_the_difference_of_two(axes, records):
    drawing.draw_curves(axes, records, ["sam"], "train_accuracy - test_accuracy", {"label_noise": 0.0})
    mine = [e["curve"] for e in records.values() if e["run"]["recipe"]["name"] == "sam" and e["run"]["label_noise"] == 0.0]
    expected = sum(curve["train_accuracy"][0] - curve["test_accuracy"][0] for curve in mine) / 10
    assert axes.lines[0].get_ydata()[0] == pytest.approx(expected)


@pytest.mark.parametrize("draw", [
    lambda axes: drawing.draw_cells(axes, {"sam": {0.0: None}}),
    lambda axes: drawing.draw_effects(axes, [Effect("a", "sam", None, None, "")], "ours"),
    lambda axes: drawing.draw_effects(axes, [], "ours"),
    lambda axes: drawing.draw_curves(axes, {}, ["sam"], "test_accuracy"),
])  # fmt: skip
def test_a_figure_without_records_says_so(axes, draw):
    draw(axes)
    assert written(axes) == ["no runs recorded yet"]


def test_the_intervals_of_ours_are_those_of_the_statistics(records):
    ours, theirs = (selection.series(records, name, "last_test_accuracy", NOISY) for name in ("sam", "sgd"))
    result = paired([ours[k] for k in ours], [theirs[k] for k in ours])
    (row,) = tables.effect_rows([Effect("a", "sam", None, result, "holds")])
    assert row["ours"] == f"{result.mean:+.2f} [{result.low:+.2f}, {result.high:+.2f}]"


def test_curves_of_runs_that_are_evaluated_now_and_then_stand_at_their_epochs():
    import matplotlib.pyplot as plt

    entry = sound(Run(model="mlp", epochs=5, evaluate_every=2))
    entry["curve"] |= {"test_accuracy": [80.0, 85.0, 90.0], "validation_accuracy": [1.0, 3.0, 2.0], "train_accuracy": [50.0, 60.0, 70.0, 80.0, 90.0]}
    entry["final"]["selected_epoch"] = 4
    for column, shares, values in (
        ("test_accuracy", [0.4, 0.8, 1.0], [80.0, 85.0, 90.0]), ("train_accuracy", [0.2, 0.4, 0.6, 0.8, 1.0], [50.0, 60.0, 70.0, 80.0, 90.0]),
        ("train_accuracy - test_accuracy", [0.4, 0.8, 1.0], [-20.0, -5.0, 0.0]),
    ):  # fmt: skip
        figure, axes = plt.subplots()
        drawing.draw_curves(axes, {"a": entry}, ["sam"], column, marked=True)
        assert axes.lines[0].get_xdata() == pytest.approx(shares) and axes.lines[0].get_ydata() == pytest.approx(values)
        assert list(axes.lines[1].get_xdata()) == [0.8] and list(axes.lines[1].get_ydata()) == [values[shares.index(0.8)]]
        plt.close(figure)


# -- rows -----------------------------------------------------------------------------------------------------------------


def test_cells_become_rows_with_the_names_of_the_columns():
    rows = tables.grid_rows({"a": {"x": Cell(1.0, 0.5), "y": None}, "b": {"x": "word", "y": Cell(2.0)}}, "labels")
    assert rows == [{"labels": "a", "x": "1.00 ± 0.50", "y": None}, {"labels": "b", "x": "word", "y": "2.00"}]


def test_effects_become_rows_with_a_published_column_only_where_something_is():
    printed = Effect("a", "sam", welch(94.3, 0.3, 6, 94.1, 0.3, 6), None, "not attempted")
    seen = Effect("b", "sam", None, SEEN, "holds")
    first, second = tables.effect_rows([printed, seen], "ours, digits")
    assert first == {
        "comparison": "a", "published": "+0.20 [-0.19, +0.59]", "ours, digits": None, "p": None, "pairs": None, "verdict": "not attempted",
    }  # fmt: skip
    assert second["published"] is None and second["ours, digits"] == "+1.00 [+0.20, +1.80]" and second["pairs"] == 6
    assert "published" not in tables.effect_rows([seen])[0]


def test_claims_become_rows_and_say_how_many_pairs_are_missing():
    done = dataclasses.replace(decided(0.1, 1.0, 0.01, "holds"), q=0.031)
    early = dataclasses.replace(done, claim=dataclasses.replace(done.claim, pairs=40), verdict="not resolved", q=None)
    without = Decision(done.claim, "laptop", None, None, "not attempted")
    first, second, third = tables.state_rows([done, early, without], without=("data", "epoch"), names={})
    assert first == {
        "claim": "SAM over SGD, 40 % wrong labels", "difference": "+0.55 [+0.10, +1.00]", "p": "0.010", "q": "0.031", "could find": "1.00",
        "pairs": 10, "verdict": "holds",
    }  # fmt: skip
    assert second["verdict"] == "not resolved, 10 of 40 pairs so far" and second["q"] is None
    assert [third[key] for key in ("difference", "p", "q", "could find", "pairs")] == 5 * [None]
    assert tables.state_rows([done], names={done.claim.id: "called so"})[0]["claim"] == "called so"
