"""One letter, one thing: the symbols of the page on notation, and where the letters that papers share out otherwise may stand."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTATION = (ROOT / "book" / "notation.md").read_text(encoding="utf-8")
MAIN, _, SECOND = NOTATION.partition("(second-meanings)=")

# Where a letter may stand in a formula. A page that is not named has to take another letter, or the list grows on purpose.
ONLY_ON = {
    r"\gamma": "notation bisam slides/deck lemma lower_bounds wrong_maximiser",  # the shift of -log
    r"\delta": "notation sam generalisation_bound",  # the probability with which a bound may fail
    "h": "notation sam bisam slides/deck generalisation_bound",  # the increasing function of the bound
    "c": "notation sam slides/deck two_minima flat_minima when_sam_does_not_help convergence not_a_gradient",  # a curvature
    r"\nu": "notation bisam reproduce_label_noise",  # the share of wrong labels
    r"\beta": "",  # momentum, kept shares and rates in papers: nothing here
}
WORDS = {  # what the book said once and can not hold, or says with another word now
    r"stop(s|ped)? steering the (climb|perturbation)": "lower_bounds and misclassification show how much mistakes still pull",
    r"wholly with \$?-": "no network of the book has mistakes so far out",
    r"that exchange is sound": "the reason is calibration",
    r"samples, the condition .{0,60} are ours": "the two samples are those of Xie et al. 2024",
    r"up to second order\s+SAM": "to first order",
    r"weights? in the ascent|of the weight at a tie": "a pull",
    r"(One|A) term is dropped, of order": "an order says nothing at a radius that is not small",
}


def sources():
    """Name and text of every page; of notebooks the markdown with the captions, and the code."""
    for path in [*(ROOT / "book").glob("*.md"), ROOT / "book" / "slides" / "deck.md", ROOT / "README.md"]:
        text = path.read_text(encoding="utf-8")
        yield path.relative_to(ROOT / "book" if path.name != "README.md" else ROOT).with_suffix("").as_posix(), text, ""
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        text, code = "", ""
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                text += "".join(cell["source"]) + "\n\n"
            else:
                text += cell["metadata"].get("mystnb", {}).get("figure", {}).get("caption", "") + "\n\n"
                code += "".join(cell["source"]) + "\n" + json.dumps(cell["metadata"], ensure_ascii=False) + "\n"
        yield path.stem, text, code


PAGES = {name: (text, code) for name, text, code in sources()}


def formulas(text):
    """What stands between dollars, without words in it."""
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", lambda m: m[0] if m[0].startswith("```{") else " ", text, flags=re.M | re.S)
    found = re.findall(r"\$\$(.+?)\$\$|(?<![\\\w$])\$([^$]+?)\$(?!\d)", text, flags=re.S)
    return [re.sub(r"\\(text|operatorname\*?|mathrm|mathbf|texttt)\{[^{}]*\}", " ", block or inline) for block, inline in found]


def letters(formula):
    """Single letters and Greek ones, but not those of commands."""
    return re.findall(r"\\[A-Za-z]+|(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])", formula)


def test_letters_are_found():
    assert letters(r"\frac{c_k}{\gamma} h(z)") == [r"\frac", "c", "k", r"\gamma", "h", "z"]
    assert formulas("a $x_1$ for `$y$` and\n$$\nz\n$$ $p = \\text{keep}$") == ["x_1", "\nz\n", "p =  "]


def first_cells(text):
    return [line.split(" | ")[0].strip("| ") for line in text.splitlines() if line.startswith("| ") and not re.match(r"\| (symbol|letter|---)", line)]


def test_each_symbol_is_explained_once():
    symbols = Counter(symbol for cell in first_cells(MAIN) for symbol in re.findall(r"\$([^$]+)\$", cell))
    assert len(symbols) > 50 and [symbol for symbol, times in symbols.items() if times > 1] == []


def test_a_second_meaning_has_a_first_and_a_place():
    first = {letter for cell in first_cells(MAIN) for formula in formulas(cell) for letter in letters(formula)}
    rows = [line for line in SECOND.partition("## Readings")[0].splitlines() if line.startswith("| $")]
    assert len(rows) > 5
    for line in rows:
        letter, meaning, where = (cell.strip() for cell in line.strip("| ").split(" | "))
        assert letter.strip("$") in first and meaning and where, line


@pytest.mark.parametrize("letter", ONLY_ON)
def test_a_letter_stands_only_where_it_means_what_the_notation_says(letter):
    allowed = set(ONLY_ON[letter].split())
    assert allowed <= set(PAGES)
    there = {name for name, (text, _) in PAGES.items() if any(letter in letters(formula) for formula in formulas(text))}
    if letter.startswith("\\"):  # figures have Greek letters in their labels
        there |= {name for name, (_, code) in PAGES.items() if re.search(re.escape(letter) + r"(?![a-z])", code)}
    assert there - allowed == set()


@pytest.mark.parametrize("words", WORDS)
def test_what_was_withdrawn_stays_so(words):
    found = {name for name, texts in PAGES.items() for text in texts if re.search(words, " ".join(text.split()))}
    assert found == set(), WORDS[words]
