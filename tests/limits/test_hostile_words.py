"""The command line, one word at a time replaced by something wrong: an exit status, and a short error that names the argument."""

import dataclasses
import io
import os
import re
import sys

import pytest

from bisam import cli
from bisam.evidence import places
from bisam.training import Run

WORDS = [
    "", " ", "x", "-1", "0", "nan", "inf", "-inf", "1e400", "1" * 400, "1" * 5000, "2.5", "0x10", "\udcff", "a\nb", "\x1b[31m", "é", "/",
    "..", "a" * 300, "a" * 100_000, "/proc/version/x", "--", "-p", "True", "[]", "%s", "{0}", "'", "cuda:9", "cuda:99999999999999",
]  # fmt: skip
RECORD = str(places.RESULTS / "runs" / "first_run" / "sam-noise40-seed0.json")


def option(base, word):
    return lambda value: [*base, f"{word}={value}"]


def commands():
    """A command line for a value, and the words of which an error must name one."""
    tiny = ["train", "--model", "mlp", "--epochs", "1", "--batch-size", "1000", "--output", "out"]
    for field in dataclasses.fields(Run):
        if field.type != "bool":
            word = "--" + field.name.replace("_", "-")
            yield f"train {word}", option(tiny, word), (field.name, word)
    for word in ("--rho", "--minutes", "--root", "--threads"):
        yield f"train {word}", option(tiny, word), (word[2:],)
    for word in ("--smoothing", "--mu", "--alpha"):
        yield f"train {word}", option([*tiny, "--recipe", "bisam-tanh"], word), (word[2:],)
    yield "train --set", option(tiny, "--set"), ("set",)
    yield "train --set descent.smoothing", lambda value: [*tiny, "--set", f"descent.smoothing={value}"], ("smoothing", "set")
    yield "train --from", option(tiny, "--from"), ("from", "ending", "path")
    # The value is looked at before the name, which is wrong as well, so that nothing runs.
    carried = ("--ledger", "--checkpoints", "--precision", "--compile")
    for word in ("--scale", "--seeds", "--workers", "--device", "--root", "--minutes", "--only", *carried):
        yield f"reproduce {word}", option(["reproduce", "nothing"], word), (word[2:], "name")
    yield "reproduce --export", option(["reproduce", "nothing"], "--export"), ("export", "name")
    yield "train --output", option(["train", "--epochs", "0"], "--output"), ("output", "epochs")
    yield "reproduce NAME", lambda value: ["reproduce", "--", value], ("name",)
    yield "rerun RECORD", lambda value: ["rerun", "--", value], ("record", "read", "path")
    yield "report EXPERIMENT", lambda value: ["report", "--", value], ("experiment",)
    yield "report --output", option(["report", "nothing"], "--output"), ("output", "experiment")
    yield "notebook NAME", lambda value: ["notebook", "--list", "--", value], ("name", "notebook")
    yield "notebook -p KEY", lambda value: ["notebook", "lower_bounds", "-p", value, "1"], ("-p", "parameter")
    yield "notebook -p VALUE", lambda value: ["notebook", "lower_bounds", "-p", "alpha", value, "-p", "mu_log", "-1"], ("-p", "alpha", "mu_log")
    for word in ("--scale", "--output"):
        yield f"notebook {word}", option(["notebook", "lower_bounds", "-p", "mu_log", "-1"], word), (word[2:], "mu_log")
    yield "notebook --figures", option(["notebook", "lower_bounds", "-p", "mu_log", "-1"], "--figures"), ("figures", "mu_log")
    yield "notebook --sweep", option(["notebook", "lower_bounds", "-p", "mu_log", "-1"], "--sweep"), ("sweep", "mu_log")
    yield "notebook --sweep VALUES", lambda value: ["notebook", "lower_bounds", f"--sweep=alpha={value}", "-p", "mu_log", "-1"], ("sweep", "alpha", "mu_log")
    yield "notebook --workers", option(["notebook", "lower_bounds", "-p", "mu_log", "-1"], "--workers"), ("workers", "mu_log")
    yield "compare RUN", lambda value: ["compare", "--", value, value], ("run", "RUN", "read", "path", "one", "other")
    yield "COMMAND", lambda value: [value], ("COMMAND",)


COMMANDS = {title: (line, names) for title, line, names in commands()}
# These take every word that can be in a path: the folder of the data sets is not looked at where the data are shipped.
TAKEN = {("train --root", word) for word in WORDS}


@pytest.mark.slow
@pytest.mark.parametrize("title", COMMANDS)
def test_a_wrong_word_ends_in_a_status_and_a_short_error_that_names_it(title, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line, names = COMMANDS[title]
    wrong = []
    for word in WORDS:
        try:
            status = cli.main(line(word))
        except SystemExit as end:  # argparse's own
            status = end.code
        said = capsys.readouterr().err
        named = any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", said) for name in names)
        fine = status in (1, 2) and named and len(said) < 4000 and "\x1b" not in said
        if not fine and not (status == 0 and ((title, word) in TAKEN or _is_a_number(word))):
            wrong.append((word[:30], status, said[-300:]))
    assert not wrong


def _is_a_number(word):
    try:
        return float(word) >= 0
    except ValueError:
        return False


def test_a_path_of_bytes_that_are_no_text_is_printed(tmp_path, monkeypatch):
    """To an output that takes nothing but text, as the one that Python opens."""
    monkeypatch.chdir(tmp_path)
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", output)
    words = ["train", "--model", "mlp", "--epochs", "1", "--batch-size", "1000", "--output", os.fsdecode(b"\xff")]
    assert cli.main(words) == 0
    output.flush()
    assert b"udcff/history.json" in output.buffer.getvalue()
