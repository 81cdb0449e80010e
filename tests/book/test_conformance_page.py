"""The page on what implementations of SAM are asked: its checks are those of the package, and what is recorded of ours is what comes out."""

import json
import re
from pathlib import Path

import scripts

from bisam import testing
from bisam.testing.invariants import INVARIANTS

ROOT = Path(__file__).resolve().parents[2]
OUTCOMES = json.loads((ROOT / "book" / "conformance.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "book" / "conformance.md").read_text(encoding="utf-8")


def test_every_check_stands_on_the_page_once():
    table = PAGE.partition("| checks |")[2].partition("\n\n")[0]
    assert re.findall(r"`(\w+)`", re.sub(r"\| [^|]*\|$", "|", table, flags=re.M)) == list(INVARIANTS)


def test_every_style_of_the_page_is_there():
    named = set(re.findall(r"`testing\.(\w+)`", PAGE))
    assert {"two_steps", "backward_then_closure", "closure", "batch", "block", "function"} == named
    assert all(callable(getattr(testing, name)) for name in named)


def test_the_outcomes_are_of_every_check_and_say_when_and_with_what():
    for name, run in OUTCOMES.items():
        assert list(run["checks"]) == list(INVARIANTS), name
        assert {"version", "style", "date", "torch", "python"} < set(run)
        assert {check["verdict"] for check in run["checks"].values()} <= {"passed", "failed", "not applicable"}


def test_no_check_of_ours_has_failed():
    """tests/testing asks the same questions of today's code."""
    own = [run for name, run in OUTCOMES.items() if name.startswith("bisam")]
    assert len(own) >= 2 and all(check["verdict"] != "failed" for run in own for check in run["checks"].values())


def test_the_tables_have_a_column_for_each_and_a_row_for_each_check():
    one, other = scripts.tool("build_book").conformance_table().split("\n\n")[:2]
    assert one.splitlines()[0].count("|") + other.splitlines()[0].count("|") == len(OUTCOMES) + 4
    rows = [[line.split("`")[1] for line in table.splitlines() if line.startswith("| `")] for table in (one, other)]
    assert rows[0] == list(INVARIANTS)
    assert rows[1] == [name for name in INVARIANTS if not INVARIANTS[name].is_of_the_formula and name not in ("float16", "overflow")]


def test_the_recipes_that_are_compared_are_named_with_how_close_they_are():
    """Six make the steps of ours; the page names the two that do not."""
    compared = {name: run["beside"] for name, run in OUTCOMES.items() if run["beside"]}
    close = {name for name, beside in compared.items() if beside["difference"] < 1e-7}
    assert close == {
        "davda54/sam, SAM", "pytorch_optimizer, SAM", "pytorch_optimizer, GSAM", "pytorch_optimizer, FriendlySAM", "Composer, SAM",
        "sam-pytorch, SAM",
    }  # fmt: skip
    assert set(compared) - close == {"pytorch_optimizer, LookSAM", "torchzero, SAM"}
    assert "*From ours*" in PAGE and "tensor by tensor" in PAGE
