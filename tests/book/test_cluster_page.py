"""The page on clusters: its commands can be given, and its words and numbers are those of the commands."""

import re
import shlex
from collections import defaultdict
from pathlib import Path

import pytest

from bisam.cli import COMMANDS, main
from bisam.commands import cluster
from bisam.evidence.arrays import Found
from bisam.evidence.sbatch import Options

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "book" / "cluster.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.replace("\\\n", "").splitlines()]
WORDS = [words for words in (shlex.split(line, comments=True) for line in LINES) if words]


@pytest.mark.slow
@pytest.mark.parametrize("words", [words[1:] for words in WORDS if words[0] == "bisam"], ids=" ".join)
def test_a_command_of_the_page_is_taken(words, monkeypatch, tmp_path):
    """With a look at what it would do in place of doing it; a GPU that is not there is the one thing that may be refused."""
    seen = []
    monkeypatch.setattr(cluster, "submitted", lambda arguments, planned, settings, device: seen.append(cluster.options_of(arguments)) or 0)
    monkeypatch.setattr(cluster, "find", lambda folder, planned=(): seen.append(planned) or defaultdict(lambda: Found("recorded")))
    monkeypatch.setattr(cluster, "cancel", lambda folder, planned: seen.append(planned) or [])
    here = [str(tmp_path / word.lstrip("/")) if word.startswith("/project") else word for word in words]
    if "--cluster" not in words and words[0] == "reproduce":
        here = [word for word in (*here, "--plan") if "cuda" not in word and word != "--device"]
    assert main(here) == 0 and (len(seen) == 1 or "--plan" in here)


def test_the_page_shows_every_command_that_a_cluster_has():
    given = {" ".join(words[1:3]) for words in WORDS if words[0] == "bisam"}
    assert {"cluster status", "cluster cancel", "reproduce T1"} <= given and "cluster" in COMMANDS


def test_options_and_defaults_are_those_of_the_command():
    for name in re.findall(r"`--([a-z-]+)", PAGE.partition("## One training")[0]):
        assert name.replace("-", "_") in (*cluster.ONLY, "cluster", "workers", "root", "minutes", "help"), name
    assert f"in minutes, {Options().minutes} by default" in PAGE and f"begins, {Options().grace:g} by default" in PAGE


def test_the_words_for_what_has_become_of_a_run_are_those_of_status():
    table = PAGE.partition("| word | meaning |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| ([a-z ]+) \|", table, re.MULTILINE)) == set(cluster.KINDS)
