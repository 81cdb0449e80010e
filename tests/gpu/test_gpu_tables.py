"""The tables of the page on GPUs are those of the lines that were written there."""

import json
from pathlib import Path

import scripts

ROOT = Path(__file__).resolve().parents[2]


def test_every_row_is_a_line_that_was_measured():
    measured = [json.loads(line) for line in (ROOT / "book" / "h200" / "speed.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in scripts.tool("gpu_tables").steps("h200").splitlines()[2:]]
    whole = [line for line in measured if "floor" in line]
    assert len(rows) == len(whole) + sum(line["name"].startswith("published way") for line in measured) > 8
    for row, line in zip(rows, whole, strict=False):
        assert [float(row[3]), float(row[4]), float(row[6])] == [
            round(1000 * line["floor"], 2), round(1000 * line["sam"], 2), round(line["sam"] / line["floor"], 2)
        ]  # fmt: skip
        assert float(row[7]) == round(line["bisam-log"] / line["sam"], 3)


def test_the_page_counts_the_checks_as_they_were():
    lines = [json.loads(line) for line in (ROOT / "book" / "h200" / "correctness.jsonl").read_text(encoding="utf-8").splitlines()]
    second = max(number for number, line in enumerate(lines) if line["name"] == "session")
    passed = [[line["name"] for line in part if line.get("result") == "pass"] for part in (lines[:second], lines[second:])]
    others = [line["name"] for line in lines[second:] if line.get("result") in ("fail", "error")]
    page = (ROOT / "book" / "gpu.md").read_text(encoding="utf-8")
    assert f"{len(passed[0])} passed" in page and f"made {len(passed[1])} checks" in page and not others
