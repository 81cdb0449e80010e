"""What the reader's own runs decide: in the right direction, by the rule of the ledger, and nothing from too few."""

import pytest

from bisam.evidence.statistics import paired
from bisam.notebook.own import own_rows

LOW, HIGH = [90.0, 91.0, 89.5, 90.5, 90.0, 91.5], [92.0, 93.5, 91.0, 92.0, 92.5, 93.0]


@pytest.mark.parametrize("pair, verdict, sign", [(("sam", "sgd"), "better", "+"), (("sgd", "sam"), "worse", "-")])
def test_six_pairs_decide_in_the_direction_of_ours_minus_theirs(pair, verdict, sign):
    (row,) = own_rows({"sgd": LOW, "sam": HIGH}, [pair], {"sgd": "low", "sam": "high"})
    found = paired(HIGH, LOW)
    assert row["comparison"] == ("high minus low" if verdict == "better" else "low minus high") and row["verdict"] == verdict
    assert row["difference"].startswith(f"{sign}{found.mean:.2f} [") and row["p"] == f"{found.p:.3f}" and row["pairs"] == 6
    assert row["detectable"] == f"{found.detectable:.2f}"


def test_fewer_pairs_and_one_run_resolve_nothing():
    for count in (5, 2, 1):
        (row,) = own_rows({"sgd": LOW[:count], "sam": HIGH[:count]}, [("sam", "sgd")])
        assert row["verdict"] == "not resolved" and row["pairs"] == count
    assert row["difference"] == "+2.00, no interval"


@pytest.mark.parametrize("pairs, error", [
    ([("sam", "asam")], "pairs must name methods that values holds numbers of, got 'asam'"), (["sam"], "pairs must be a list of pairs of methods, got"),
    ([("sam", "bisam-log")], "ours and theirs must pair up, got 6 and 2 numbers"),
])  # fmt: skip
def test_pairs_that_cannot_be_compared_are_named(pairs, error):
    with pytest.raises((TypeError, ValueError), match=error):
        own_rows({"sgd": LOW, "sam": HIGH, "bisam-log": [90.0, 91.0]}, pairs)


def test_every_pair_has_a_row_with_the_labels_of_the_methods():
    rows = own_rows({"sgd": LOW, "sam": HIGH}, [("sam", "sgd"), ("sgd", "sam")])
    assert [(row["comparison"], row["pairs"], row["verdict"]) for row in rows] == [("SAM minus SGD", 6, "better"), ("SGD minus SAM", 6, "worse")]
