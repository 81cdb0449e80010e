"""The page for teachers and the glossary: complete, consistent, and true to the table of contents."""

import re
from pathlib import Path

import pytest
from scripts import tool

ROOT = Path(__file__).resolve().parents[2]


teaching = tool("teaching")
TABLES = teaching.tables()
LINK = re.compile(r"\{doc\}`[^`<]+ <\.\./([^>]+)>`")


def test_every_chapter_of_the_contents_stands_once_in_the_table():
    assert LINK.findall(TABLES["teach-chapters.md"]) == teaching.chapters()
    assert LINK.findall(TABLES["teach-goals.md"]) == teaching.chapters()
    assert len(teaching.chapters()) == len(set(teaching.chapters())) > 7


def test_chapters_are_what_stands_between_the_first_and_the_last_part():
    assert {"book/sam", "notebooks/two_minima"} <= set(teaching.chapters())
    assert not {"book/notation", "book/api", "book/teach", "book/glossary"} & set(teaching.chapters())
    every = re.findall(r"file: (\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    assert teaching.pages() == every
    assert {page for page in every if page.startswith("notebooks/")} <= set(teaching.chapters())


def test_what_the_table_knows_is_in_the_contents_or_not_written_yet():
    for page in teaching.facts():
        written = any((ROOT / f"{page}{ending}").exists() for ending in (".md", ".ipynb"))
        assert page in teaching.chapters() or not written, f"{page} is missing in _toc.yml"


def test_a_chapter_that_nobody_entered_fails_the_build(monkeypatch):
    monkeypatch.setattr(teaching, "chapters", lambda: ["book/sam", "notebooks/brand_new"])
    with pytest.raises(teaching.TeachingError, match="says nothing of notebooks/brand_new"):
        teaching.tables()


def test_facts_are_complete():
    seen = [chapter["page"] for chapter in teaching.data()["chapter"]]
    assert len(seen) == len(set(seen))
    for page, fact in teaching.facts().items():
        assert 5 <= fact["read"] <= 90 and 5 <= fact["exercises"] <= 90, page
        assert fact["device"] in ("none", "CPU", "GPU"), page
        assert (fact["device"] == "none") == page.startswith("book/"), page
        assert fact["goals"] and all(len(goal.split()) > 5 for goal in fact["goals"]), page


WORDS = {
    "quarter of an hour": 15, "twenty minutes": 20, "half an hour": 30, "thirty minutes": 30, "forty minutes": 40,
    "three quarters of an hour": 45, "an hour": 60,
}  # fmt: skip


def test_minutes_are_those_that_the_page_names():
    for page in teaching.chapters():
        need = re.search(r"\*\*You need\*\*(.*?)(?:\n\n|$)", teaching.prose(page), re.S)[1].lower()
        named = [minutes for words, minutes in WORDS.items() if re.search(rf"{words}( to read| of reading|\.?$)", need.strip())]
        assert not named or teaching.facts()[page]["read"] == named[0], page


def test_no_chapter_needs_a_later_one():
    order = teaching.chapters()
    for place, page in enumerate(order):
        need = re.search(r"\*\*You need\*\*(.*?)(?:\n\n|$)", teaching.prose(page), re.S)[1]
        named = [each.rpartition("/")[2] for each in re.findall(r"\{doc\}`(?:[^`<]*<)?([^`>]+)>?`", need)]
        assert not {each.rpartition("/")[2] for each in order[place:]} & set(named), page


def plan(name):
    return next(plan for plan in teaching.data()["plan"] if plan["name"] == name)


@pytest.mark.parametrize("name", ["lecture", "half-day"])
def test_the_parts_of_a_plan_add_up(name):
    assert sum(part["minutes"] for part in plan(name)["part"]) == plan(name)["minutes"]


def test_the_course_takes_every_chapter_once():
    taken = [page for part in plan("course")["part"] for page in part["pages"]]
    assert sorted(taken) == sorted(teaching.facts())
    assert len(plan("course")["part"]) == 6


def test_every_exercise_that_is_named_exists():
    there = teaching.exercises()
    named = [label for readers in teaching.data()["readers"] for label in readers["exercises"]]
    assert sorted(named) == sorted(there), "every exercise once"
    for each in teaching.data()["plan"]:
        for part in each["part"]:
            named += part.get("exercises", []) + part.get("hand_in", [])
    assert not set(named) - set(there)


def test_the_page_includes_every_table():
    page = (ROOT / "book" / "teach.md").read_text(encoding="utf-8")
    for name in TABLES:
        assert f"_generated/{name}" in page or name == "terms.md"


# -- the glossary ----------------------------------------------------------------------------------------------------------


TERMS = teaching.terms()


def test_the_glossary_has_the_terms_of_the_field():
    wanted = (
        "SAM, BiSAM, ASAM, ascent loss, descent loss, perturbation, radius, dual norm, margin, tie, surrogate, log-sum-exp gap, sharpness, "
        "m-sharpness, micro-batch, flat minimum, filter normalisation, PAC-Bayes, hypergradient, equal budget, paired seeds, minimum detectable effect, "
        "sign-flip test, claim, verdict"
    )
    assert set(wanted.split(", ")) <= set(TERMS)
    names = [term.lower() for term in TERMS]
    assert len(names) == len(set(names)) >= 40


def test_a_definition_is_short_and_leads_to_a_page():
    for definition in (" ".join(words.split()) for words in TERMS.values()):
        words = re.sub(r"\{\w+:?\w*\}`[^`]*`|\$[^$]*\$", "x", definition)
        assert 1 <= len(re.findall(r"[.](?= [A-Z]|$)", words)) <= 2, definition
        assert re.search(r"\{(ref|doc|prf:ref)\}`", definition), definition


def test_terms_are_in_the_order_of_the_alphabet():
    text = re.search(r"^```\{glossary\}\n(.*?)^```$", teaching.prose("book/glossary"), re.M | re.S)[1]
    first = [entry.splitlines()[0].lower() for entry in text.split("\n\n")]
    assert first == sorted(first)


def test_the_index_leads_to_pages_that_use_the_term():
    rows = dict(re.findall(r"^\* \{term\}`([^`]+)`: (.+)$", TABLES["terms.md"], re.M))
    assert "book/sam" in LINK.findall(rows["dual norm"]) and rows["SAM"] == "throughout"
    assert not set(rows) & set(teaching.AMBIGUOUS) and set(teaching.AMBIGUOUS) <= set(TERMS)
    for term, row in rows.items():
        for page in LINK.findall(row):
            assert re.search(teaching.pattern(term), teaching.readable(page), re.I)


def test_words_are_found_as_words():
    assert re.search(teaching.pattern("paired seeds"), "with paired\nseeds".replace("\n", " "), re.I)
    assert re.search(teaching.pattern("dual norm"), "of dual norms")
    assert not re.search(teaching.pattern("SAM"), "LE-SAM, SAM-ON and the same sample", re.I)


def test_chapters_link_their_terms():
    for page in ("book/sam", "book/bisam", "book/adaptive"):
        linked = re.findall(r"\{term\}`(?:[^`<]* <)?([^`>]+)>?`", teaching.prose(page))
        assert len(linked) >= 3 and set(linked) <= set(TERMS)
