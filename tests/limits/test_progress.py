"""One bar for all: drawn on a terminal, silent or in lines elsewhere, and an error that says what it needs."""

import sys

import pytest

from bisam._progress import bar, epochs_bar


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # what rich asks for


@pytest.mark.parametrize("total, count", [(3, "2/3 runs"), (None, "2 runs")])
def test_on_a_terminal_it_is_drawn(terminal, total, count, capsys):
    with bar("climb", total, "runs", show=True) as advance:
        advance()
        advance(1, note="so far")
    drawn = capsys.readouterr().err
    assert "climb" in drawn and count in drawn and "so far" in drawn


def test_epochs_are_drawn_with_their_loss(terminal, capsys):
    with epochs_bar("sam", total=4, done=2, show=True) as advance:
        advance({"train_loss": 0.5, "validation_accuracy": 90.0})
    drawn = capsys.readouterr().err
    assert "3/4 epochs" in drawn and "loss 0.500  validation 90.0 %" in drawn


def test_elsewhere_it_is_silent_or_a_line(capsys):
    with bar("climb", 2, "runs", show=True) as advance:
        advance()
    with bar("climb", 2, "runs", show=False, line="{note}") as advance:
        advance(1, note="unseen")
    assert capsys.readouterr() == ("", "")
    with bar("climb", 5, "runs", show=True, done=1, line="{title}: {done} of {total}, {note}") as advance:
        advance(2, note="two at once")
    assert capsys.readouterr() == ("", "climb: 3 of 5, two at once\n")


def test_without_rich_lines_are_written_and_a_bar_says_what_it_needs(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with bar("climb", 1, "runs", show=True, line="{done}") as advance:
        advance()
    assert capsys.readouterr().err == "1\n"
    with bar("climb", 1, "runs", show=False), pytest.raises(ModuleNotFoundError, match=r"bisam\[measure\]"):
        bar("climb", 1, "runs", show=True).__enter__()


def test_show_is_true_or_false():
    with pytest.raises(TypeError, match="progress must be True or False"):
        bar("climb", 1, "runs", show=1).__enter__()
