"""Tables of results: text for a terminal, markup for a notebook, and the same cells in both."""

import re

import pytest

from bisam.evidence.report import p_value
from bisam.notebook import results
from bisam.notebook.results import Results, display, show

ROWS = [
    {"method": "SAM <b>", "difference": "+0.20 [-0.19, +0.59]", "pairs": 1015, "verdict": "holds"},
    {"method": "BiSAM", "difference": None, "pairs": 6, "verdict": "not resolved within its family"},
    {"method": "ESAM", "difference": "-1.08 [-1.51, -0.66]", "pairs": 40, "verdict": "refuted"},
]


def test_numbers_are_flush_right_and_text_is_not():
    found = Results(ROWS, "Digits.", {"pairs": ",d"})
    assert found.is_number == [False, True, True, False]
    assert str(found).splitlines() == [
        "Digits.",
        "method             difference  pairs  verdict",
        "SAM <b>  +0.20 [-0.19, +0.59]  1,015  holds",
        "BiSAM                       -      6  not resolved within its family",
        "ESAM     -1.08 [-1.51, -0.66]     40  refuted",
    ]


def test_the_markup_has_every_cell_escaped_a_caption_and_worded_verdicts():
    markup = Results(ROWS, 'All "runs" & seeds.', {"pairs": ",d"}).markup()
    for text in ("SAM &lt;b&gt;", "1,015", "-1.08 [-1.51, -0.66]", "✓ holds", "✗ refuted".replace("✗", "✕"), "– not resolved within its family"):
        assert text in markup
    assert "<b>" not in markup and "<caption>All &quot;runs&quot; &amp; seeds.</caption>" in markup
    assert [markup.count(f'verdict verdict-{kind}"') for kind in ("good", "bad", "open")] == [1, 1, 1]
    assert 'tabindex="0"' in markup and 'role="region"' in markup and "sortable" in markup


@pytest.mark.parametrize("word, kind", [("holds", "good"), ("refuted", "bad"), ("fails", "bad"), ("undecided", "open")])
def test_a_verdict_is_marked_by_its_kind(word, kind):
    assert f'verdict-{kind}"' in Results([{"prediction": "One.", "verdict": word}], "Predictions.").markup()


def test_only_what_occurs_has_a_rule_and_sentences_keep_their_width():
    markup = Results([{"what": "a sentence of some length", "n": 3, "m": 4, "verdict": "holds"}], "Rules.").markup()
    assert markup.count("min-width: 11em") == 1 and "td.col0 {\nmin-width" in markup
    assert markup.count("text-align: right") == 2 and markup.count(".verdict-good {") == 1 and ".verdict-bad" not in markup


def test_the_markup_is_the_same_in_every_run_and_its_own_on_a_page():
    one, again, other = (Results(ROWS, caption).markup() for caption in ("One.", "One.", "Another."))
    names = [markup.partition('<table id="')[2].partition('"')[0] for markup in (one, other)]
    assert one == again and names[0] != names[1] and all(name.startswith("T_") for name in names)


@pytest.mark.parametrize("rows, caption, formats, message", [
    ([], "None.", {}, "rows must hold at least one row"),
    ([{}], "None.", {}, "with at least one column"),
    ([{"a": 1}, {"b": 1}], "Two.", {}, r"rows\[1\] must have the columns of the first row, a; got b"),
    ([{"a": 1}], "without an end", {}, "caption must be whole sentences, with a full stop at the end, got 'without an end'"),
    ([{"a": 1}], "One.", {"b": ".2f"}, "formats: a column must be one of a; got 'b'"),
])  # fmt: skip
def test_what_is_no_table_is_refused(rows, caption, formats, message):
    with pytest.raises(ValueError, match=message):
        Results(rows, caption, formats)


@pytest.mark.parametrize("rows, message", [([1], r"rows\[0\] must be a dictionary"), ("text", "rows must be a list of dictionaries"), ([{"a": [1]}], "rows must hold numbers, text, True, False or None")])
def test_what_cannot_be_shown_is_refused(rows, message):
    with pytest.raises(TypeError, match=message):
        str(Results(rows, "One."))


def test_a_notebook_is_given_markup_and_text(monkeypatch):
    shown = []
    monkeypatch.setattr(results, "is_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    show(ROWS, "Digits.")
    display(Results(ROWS, "Digits."), "as text")
    assert shown[0]["text/plain"] == str(Results(ROWS, "Digits.")) and shown[1]["text/plain"] == "as text"
    assert shown[0]["text/html"] == shown[1]["text/html"] == Results(ROWS, "Digits.").markup()


def test_the_markup_holds_no_more_classes_than_styles_name():
    html = results.Results([{"method": "SAM", "verdict": "holds"}, {"method": "SGD", "verdict": "refuted"}], "Two rows.").markup()
    assert set(re.findall(r'class="([^"]*)"', html)) == {
        "bisam-results-box", "bisam-results sortable", "col0", "col1", "col1 verdict verdict-good", "col1 verdict verdict-bad",
    }  # fmt: skip
    assert not re.search(r"\n\s", html)


@pytest.mark.parametrize("value, form, text", [
    (-0.001, "+.2f", "0.00"), (0.004, "+.2f", "0.00"), (-0.006, "+.2f", "-0.01"), (0.0, ".1e", "0"), (-1e-9, ".0%", "0%"), (0, "", "0"), (1.0, ".0e", "1e+00"),
])  # fmt: skip
def test_a_zero_has_neither_sign_nor_exponent(value, form, text):
    assert Results([{"x": value}], "One number.", {"x": form}).cells == [[text]]


def test_a_small_p_is_a_number_and_never_zero():
    rows = [{"p": p_value(0.00001)}, {"p": p_value(0.25)}]
    assert Results(rows, "Two tests.").is_number == [True]
    assert Results(rows, "Two tests.").cells == [["<0.001"], ["0.250"]] and "&lt;0.001" in Results(rows, "Two tests.").markup()
    for wrong in (-0.1, 1.1, "x", float("nan")):
        with pytest.raises((TypeError, ValueError), match=r"^p must be"):
            p_value(wrong)
