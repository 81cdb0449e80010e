"""Signs and spaces that are set in finished pages, on small pieces of them."""

import sys

import pytest
from built import ROOT

sys.path.insert(0, str(ROOT / "book" / "_ext"))
typeset = pytest.importorskip("typeset", reason="the tools of the book are not installed")

FORMULA = '<span class="math notranslate nohighlight">\\(x - 1\\)</span>'


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("-0.5, F = -4 and [-1.07, +0.14]", "−0.5, F\xa0=\xa0−4 and [−1.07,\xa0+0.14]"),
        ("minus -.3, with -log", "minus −.3, with -log"),
        ("CIFAR-10, 1e-08, 2026-11-28, 0-1, --all, well-known, -logits", "CIFAR-10, 1e-08, 2026-11-28, 0-1, --all, well-known, -logits"),
        ("log(K - 1) at μ = 1.5, SAM - SGD, a = b", "log(K\xa0−\xa01) at μ\xa0=\xa01.5, SAM - SGD, a = b"),
        ("40 % or 40%", "40\xa0% or 40\xa0%"),
        ("Fig. 3.1 and Theorem 5.2, Theorem of Stokes", "Fig.\xa03.1 and Theorem\xa05.2, Theorem of Stokes"),
        ("at (2.00, 0.20), in (a, b)", "at (2.00,\xa00.20), in (a, b)"),
    ],
)
def test_signs_and_spaces(typed, shown):
    assert typeset.signs(typed) == shown and typeset.signs(shown) == shown


def test_code_formulas_drawings_and_what_is_outside_of_the_article_stay():
    left = f'<code>-1 40 %</code><pre>-1<b>x</b> -1</pre><div class="math">-1<div>-1</div></div>{FORMULA}<svg><text>-1</text></svg><img alt="-1"><!-- -1 -->'
    assert typeset.words(left, typeset.signs) == left
    page = f"<title>-1</title><article>{left}<p>-1</p></article><p>-1</p>"
    assert typeset.words(left + "<p>-1</p>", typeset.signs) == left + "<p>−1</p>"
    assert typeset.set_in_type(page) == page.replace("<p>-1</p></article>", "<p>−1</p></article>")


def test_a_short_cell_of_results_stays_in_one_line():
    table = '<table class="bisam-results sortable"><td class="a">✓ holds</td><td>– not resolved</td><td>more than fourteen letters</td></table>'
    new = typeset.short_cells(table + "<td>✓ holds</td>")
    assert "✓\xa0holds</td><td>–\xa0not\xa0resolved</td><td>more than fourteen" in new and new.endswith("<td>✓ holds</td>")


def test_a_formula_keeps_its_mark_and_its_bracket():
    assert typeset.with_marks(f"for {FORMULA}, and ({FORMULA}) is {FORMULA} here") == (
        f'for <span class="kept">{FORMULA},</span> and <span class="kept">({FORMULA})</span> is {FORMULA} here'
    )


def test_short_code_is_named():
    code = '<code class="docutils literal notranslate"><span class="pre">-p</span> <span class="pre">seed</span></code>'
    assert typeset.short_code(code) == code.replace('class="docutils', 'class="kept docutils', 1)
    long = code.replace("seed", "a_very_long_name_of_a_thing")
    assert typeset.short_code(long) == long


def test_a_page_that_is_set_stays_as_it_is():
    page = f"<article><p>-1 for ({FORMULA}), 40 %</p></article>"
    once = typeset.set_in_type(page)
    assert once != page and typeset.set_in_type(once) == once


def test_words_that_begin_with_a_hyphen_or_a_digit_stay_on_one_line():
    page = '<p title="-log">BiSAM (-log) and the 0-1 loss, bisam-log, <code>-log</code>, 10-1, <span class="math">0-1</span>, \\(0-1\\)</p>'
    new = typeset.set_in_type(page)
    whole = '<span class="kept">%s</span>'
    assert new.startswith(f'<p title="-log">BiSAM ({whole % "-log"}) and the {whole % "0-1"} loss, bisam-log, <code>-log</code>, 10-1, <span class="math">0-1')
    assert new.count('class="kept"') == 2 and new.endswith("\\(0-1\\)</p>") and typeset.set_in_type(new) == new
