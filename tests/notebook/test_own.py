"""What the reader's own runs decide: in the right direction, by the rule of the ledger, and nothing from too few."""

import pytest

from bisam.evidence.statistics import paired
from bisam.notebook.own import own, own_rows

LOW, HIGH = [90.0, 91.0, 89.5, 90.5, 90.0, 91.5], [92.0, 93.5, 91.0, 92.0, 92.5, 93.0]


@pytest.mark.parametrize("pair, verdict, sign", [(("sam", "sgd"), "better", "+"), (("sgd", "sam"), "worse", "-")])
def test_six_pairs_decide_in_the_direction_of_ours_minus_theirs(pair, verdict, sign):
    text = own({"sgd": LOW, "sam": HIGH}, [pair], {"sgd": "low", "sam": "high"})
    row = text.splitlines()[1]
    assert row.startswith("high minus low" if verdict == "better" else "low minus high") and row.endswith(verdict)
    found = paired(HIGH, LOW)
    assert f"{sign}{found.mean:.2f}" in row and f"{found.p:.3f}" in row and text.splitlines()[-1] == "your runs"


def test_fewer_pairs_and_one_run_resolve_nothing_and_say_so():
    for count in (5, 2, 1):
        text = own({"sgd": LOW[:count], "sam": HIGH[:count]}, [("sam", "sgd")])
        assert text.splitlines()[1].endswith("not resolved") and text.endswith("fewer than 6 pairs resolve nothing, however large the difference")


@pytest.mark.parametrize("pairs, error", [
    ([("sam", "asam")], "pairs must name methods that values holds numbers of, got 'asam'"), (["sam"], "pairs must be a list of pairs of methods, got"),
    ([("sam", "bisam-log")], "ours and theirs must pair up, got 6 and 2 numbers"),
])  # fmt: skip
def test_pairs_that_cannot_be_compared_are_named(pairs, error):
    with pytest.raises((TypeError, ValueError), match=error):
        own({"sgd": LOW, "sam": HIGH, "bisam-log": [90.0, 91.0]}, pairs)


def test_rows_hold_what_the_lines_say():
    rows = own_rows({"sgd": LOW, "sam": HIGH}, [("sam", "sgd"), ("sgd", "sam")])
    assert [(row["comparison"], row["pairs"], row["verdict"]) for row in rows] == [("SAM minus SGD", 6, "better"), ("SGD minus SAM", 6, "worse")]
    lines = own({"sgd": LOW, "sam": HIGH}, [("sam", "sgd"), ("sgd", "sam")]).splitlines()
    assert all(str(value) in line for row, line in zip(rows, lines[1:], strict=False) for value in row.values())
    with pytest.raises(ValueError, match="pairs must name methods"):
        own_rows({"sgd": LOW}, [("sam", "sgd")])
