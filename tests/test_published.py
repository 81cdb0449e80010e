"""Numbers that the chapters quote from papers are those of the shipped table."""

import csv
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def rows(**wanted):
    with (ROOT / "results" / "published.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if all(row[key] == value for key, value in wanted.items())]


def test_every_published_number_is_a_number_with_its_source():
    assert len(rows()) > 300
    for row in rows():
        assert row["source"] and row["table"] and row["metric"]
        assert row["mean"] or row["note"], "a cell that is empty in the source says so"
        float(row["mean"] or 0)


def test_the_batch_size_experiment_in_the_chapter_on_sam():
    chapter = " ".join((ROOT / "book" / "sam.md").read_text(encoding="utf-8").split())
    quoted = re.search(r"test accuracy is ([\d., and]+) %", chapter)
    published = [row["mean"] for row in rows(source="sam-slides", metric="test_accuracy_percent") if "batch" in row["method"]]
    assert re.findall(r"\d+\.\d", quoted[1]) == published
