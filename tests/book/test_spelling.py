"""The prose of the book against a British dictionary and the project's own words, ``book/dictionary.txt``.

The dictionary is Hunspell's en_GB with the endings in -ise, as the npm package dictionary-en-gb 3.0.0 has it; its licence lies beside it.
"""

import functools
import re

import pytest
from built import HTML, PAGES, ROOT

# spylls leaves the files of a dictionary to the garbage collector.
pytestmark = [pytest.mark.book, pytest.mark.filterwarnings("ignore:.*en_GB.*:pytest.PytestUnraisableExceptionWarning")]

OWN = ROOT / "book" / "dictionary.txt"
PROSE = [page for page in PAGES if not page.startswith("book/api/") and page != "book/bibliography"]
# A word with a digit, an underscore or a capital inside is a name.
WORD = re.compile(r"(?<![\w\\./@-])[^\W\d_]+(?:['’][^\W\d_]+)?(?![\w@]|[.][\w])")


def own():
    return OWN.read_text(encoding="utf-8").split()


@functools.cache
def dictionary():
    spylls = pytest.importorskip("spylls.hunspell", reason="spylls is not installed")
    return spylls.Dictionary.from_files(str(ROOT / "tests" / "book" / "en_GB" / "en_GB"))


@functools.cache
def is_known(word):
    plain = re.sub(r"['’]s$", "", word)
    return plain in own_words() or plain.lower() in own_words() or dictionary().lookup(plain.replace("’", "'"))


@functools.cache
def own_words():
    return frozenset(own())


def words(text):
    """The words that can be spelled wrongly: no abbreviations in capitals, no names with a capital inside, no single letters."""
    return {word for word in WORD.findall(text) if len(word) > 2 and not re.search(r"\w[A-Z]", word)}


def prose(name):
    """What a page says in words; a cell of one word in a table of results is a name."""
    soup = pytest.importorskip("bs4").BeautifulSoup((HTML / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
    article = soup.find("article")
    for part in article.select("pre, code, script, style, svg, .math, .headerlink, a[href*='bibliography.html#']"):
        part.decompose()
    for cell in article.select("table.bisam-results td"):
        if len(cell.get_text().split()) == 1:
            cell.decompose()
    return " ".join([article.get_text(" "), *(image.get("alt", "") for image in article.find_all("img"))])


@pytest.mark.parametrize("name", PROSE)
def test_a_page_is_spelled_as_the_british_spell(name):
    assert sorted(word for word in words(prose(name)) if not is_known(word)) == []


def test_mistakes_and_american_words_are_found():
    assert {word for word in words("the colour of teh color, generalised generalized, its SAM2 and a_name.py") if not is_known(word)} == {
        "teh",
        "color",
        "generalized",
    }


def test_own_words_are_sorted_stand_once_and_are_needed():
    assert own() == sorted(set(own()), key=lambda word: (word.lower(), word))
    assert [word for word in own() if dictionary().lookup(word)] == []
