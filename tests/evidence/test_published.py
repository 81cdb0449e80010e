"""Numbers that the chapters quote from papers are those of the shipped table."""

import csv
import re
from pathlib import Path

import pytest

from bisam.cli import main
from bisam.evidence import listing
from bisam.evidence import published as table
from bisam.evidence.places import LedgerError

ROOT = Path(__file__).resolve().parents[2]


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


HEAD = ",".join(table.COLUMNS) + "\n"
ROW = "a,T1,t,CIFAR-10,Resnet-56,SAM,test_accuracy_percent,{},{},{},{}\n"


def row(mean="94.1", std="0.2", n_runs="6", note=""):
    return (HEAD + ROW.format("94.0", "", "", "") + ROW.format(mean, std, n_runs, note)).encode()


BROKEN = {
    "nothing": (b"", "row 1 must be the columns"),
    "garbage": (b"\x00\x01garbage", "row 1 must be the columns"),
    "a page": (b"<html>not found</html>\n", "row 1 must be the columns"),
    "a mark at the start": (b"\xef\xbb\xbf" + row(), "row 1 must be the columns"),
    "a column less": (row().replace(b",std", b"", 1), "row 1 must be the columns"),
    "no rows": (HEAD.encode(), "has no rows"),
    "latin-1": (row(note="f\u00fcr").decode().encode("latin-1"), "cannot be read after row .*: 'utf-8' codec"),
    "an open quote": (row() + b'"', "cannot be read after row 3: unexpected end of data"),
    "a short row": (row() + b"a,b\n", "row 4, which must have 11 columns, has 2"),
    "an empty line": (row() + b"\n", "row 4, which must have 11 columns, has 0"),
    "no method": (row().replace(b"SAM", b"", 1), "row 2, column method: must not be empty"),
    "control characters": (row(note="a\x1b[31m"), "row 3, column note: must hold no control characters"),
    "no mean and no word": (row(mean=""), "row 3, column mean: is empty"),
    **{f"mean {value}": (row(mean=value), "row 3, column mean: must be a finite number") for value in (
        "nan", "inf", "-inf", "abc", "1_0", " 94", "94.", "1e5", "9" * 400, "\u0669", "0x10")},
    **{f"std {value}": (row(std=value), "row 3, column std: must be") for value in ("nan", "-0.1", "inf", "x")},
    **{f"n_runs {value}": (row(n_runs=value), "row 3, column n_runs: must be a whole number") for value in ("0", "-6", "6.0", "six", "nan", "9" * 400)},
}  # fmt: skip
broken = pytest.mark.parametrize("content, message", BROKEN.values(), ids=BROKEN)
LIST = (ROOT / "results" / "claims.toml").read_text(encoding="utf-8")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder whose list and table are taken for those of the project."""
    caches = table.rows.cache_clear, listing._listed.cache_clear
    for module in ("places", "published", "verify"):
        monkeypatch.setattr(f"bisam.evidence.{module}.RESULTS", tmp_path)
    (tmp_path / "claims.toml").write_text(LIST, encoding="utf-8")
    for clear in caches:
        clear()
    yield tmp_path
    for clear in caches:
        clear()


def test_the_table_of_the_project_and_a_sound_one_are_read(tmp_path):
    assert len(table.read_rows(ROOT / "results" / "published.csv")) == len(rows()) == len(table.rows())
    (tmp_path / "p.csv").write_bytes(row(std="", n_runs="") + row(mean="", note="blank").split(b"\n", 2)[2])
    assert [one["mean"] for one in table.read_rows(tmp_path / "p.csv")] == ["94.0", "94.1", ""]


@broken
def test_a_broken_table_is_named_with_its_row_and_column(content, message, tmp_path):
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(LedgerError) as refused:
        table.read_rows(tmp_path / "p.csv")
    line = str(refused.value)
    assert line.startswith(f"{tmp_path / 'p.csv'}: ") and re.search(message, line) and line.isprintable()


@pytest.mark.parametrize("content", [BROKEN[name][0] for name in ("nothing", "garbage", "latin-1", "mean nan")] + [None])
@pytest.mark.parametrize("command", ["report", "verify"])
def test_a_broken_table_is_one_line_and_no_fault_of_the_claims(content, command, project, capsys):
    if content is not None:
        (project / "published.csv").write_bytes(content)
    assert main([command, *([str(project)] if command == "verify" else [])]) == 1
    out, err = capsys.readouterr()
    lines = (out + err).splitlines()
    assert len([line for line in lines if "published.csv" in line]) == 1 and len(lines) <= 2
    assert not any("claim T" in line for line in lines)


def test_a_ledger_that_brings_a_broken_table_has_one_fault_more(tmp_path, capsys):
    (tmp_path / "claims.toml").write_text(LIST, encoding="utf-8")
    assert main(["verify", str(tmp_path)]) == 0
    (tmp_path / "published.csv").write_bytes(row(mean="nan"))
    assert main(["verify", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines()[1] == "published.csv: row 3, column mean: must be a finite number, got 'nan'"
