"""What runs cost on a card: their arithmetic over a rate, and what is said where no price can be had."""

import pytest

from bisam.cli import main
from bisam.evidence import cards
from bisam.evidence.needed import flop_of_run, hours_of_run
from bisam.evidence.plans import Planned
from bisam.training import Run

WIDE = Run(recipe="sam", data="cifar10", model="wrn-34-10", epochs=2, precision="bfloat16")


def planned(run, recorded=False):
    return Planned("try", "one", run, recorded)


def test_hours_are_the_operations_over_the_rate():
    found = cards.cost([planned(WIDE), planned(WIDE.replace(seed=1)), planned(WIDE.replace(seed=2), recorded=True)], "H100")
    assert found.flop == 2 * flop_of_run(WIDE)
    assert found.hours == pytest.approx(found.flop / (1e12 * cards.rate(WIDE, "H100")) / 3600) and not found.unknown


def test_a_network_of_table_10_costs_on_its_card_what_the_table_says():
    for model in ("resnet56", "densenet121", "wrn-34-10"):
        run = WIDE.replace(model=model)
        assert cards.cost([planned(run)], "A100").hours == pytest.approx(hours_of_run(run))
    assert cards.cost([planned(WIDE)], "H100").hours < cards.cost([planned(WIDE)], "A100").hours
    # without TF32 the peak is below the rate of the table
    exact = WIDE.replace(precision="float32")
    assert cards.rate(exact, "A100") == pytest.approx(0.35 * 19.5) and cards.cost([planned(exact)], "A100").hours > hours_of_run(exact)


def test_large_layers_reach_the_share_of_the_peak():
    assert cards.rate(Run(model="mlp", precision="bfloat16"), "H100") == pytest.approx(0.35 * 989.4)


def test_data_of_unknown_size_have_no_price_and_say_why(tmp_path):
    found = cards.cost([planned(Run(data="folder:mine")), planned(WIDE)], "L4", root=str(tmp_path))
    assert list(found.unknown) == ["folder:mine"] and "is not there" in found.unknown["folder:mine"] and found.flop == flop_of_run(WIDE)


def test_the_plan_prices_a_table_on_a_card_without_its_data(tmp_path, capsys):
    assert main(["reproduce", "T1", "--scale", "paper", "--plan", "--card", "H100", "--root", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "T1: 2.2e+19 operations, about" in said and "hours of one H100" in said and "at most 35% of its 67 (float32) or 989.4 (bfloat16)" in said


@pytest.mark.parametrize("words, message", [
    (["--card", "H100"], "card must go with --plan"), (["--plan", "--card", "H1000"], "invalid choice: 'H1000'"),
])  # fmt: skip
def test_a_card_without_a_plan_or_that_nobody_knows_is_refused(words, message, capsys):
    try:
        status = main(["reproduce", "first_run", *words])
    except SystemExit as ended:
        status = ended.code
    assert status == 2 and message in capsys.readouterr().err
