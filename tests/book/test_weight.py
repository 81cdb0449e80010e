"""What a page makes a reader load."""

import re

import pytest
from built import HTML, PAGES, visit

pytestmark = pytest.mark.book


def test_the_first_page_weighs_less_than_a_megabyte(browser, address):
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    tab, answers = context.new_page(), []
    tab.on("response", lambda answer: answers.append(answer))
    visit(tab, address, "book/index")
    tab.wait_for_load_state("networkidle")
    weights = {answer.url.removeprefix(address): len(answer.body()) for answer in answers if answer.ok}
    context.close()
    heaviest = sorted(weights.items(), key=lambda item: -item[1])[:5]
    assert len(weights) > 10 and sum(weights.values()) < 1_000_000, heaviest


@pytest.mark.parametrize("name", PAGES)
def test_mathjax_comes_where_there_is_a_formula_and_no_page_loads_all_icons(name):
    text = (HTML / f"{name}.html").read_text(encoding="utf-8")
    assert ("mathjax/tex-" in text) == bool(re.search(r'class="[^"]*\bmath\b', text))
    assert "fontawesome.js" not in text and not re.search(r"<(i|span) [^>]*\bfa-", text)
    assert text.count('class="svg-inline--fa') > 8
