"""Notebooks that are read without the book: what roles and directives become, which edition has which cells, and that they run."""

import json
import re
import symtable
from pathlib import Path

import pytest
import scripts

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
WORDS = {
    "{numref}`fig-x`": ["Fig. 3.8", "notebooks/mine.html#fig-x", []], "{doc}`../book/sam`": ["Climb", "book/sam.html", []],
    "{eq}`eq:x`": ["(3.4)", "notebooks/mine.html#equation-eq-x", []], "{cite:p}`xie`": ["[Xie et al., 2024]", "book/bibliography.html#id3", ["Xie. A title. 2024."]],
    "{ref}`there`": ["The rule", "notebooks/report.html#there", []], "{ref}`so <there>`": ["so", "notebooks/report.html#there", []],
    "{numref}`ex-a`": ["Exercise 3.1", "notebooks/mine.html#ex-a", []], "{prf:ref}`thm-a`": ["Theorem 3.2", "notebooks/mine.html#thm-a", []],
}  # fmt: skip


@pytest.fixture
def tool():
    return scripts.tool("editions")


@pytest.fixture
def edition(tool):
    return lambda solutions=True, site="": tool.Edition("notebooks/mine", WORDS, solutions, site)


@pytest.mark.parametrize("source, read", [
    ("see {numref}`fig-x` and {eq}`eq:x`", "see Fig. 3.8 and (3.4)"),
    ("in {doc}`../book/sam` {cite:p}`xie`", "in *Climb* (Xie et al., 2024)"),
    ("{ref}`there`, {ref}`so <there>`", "*The rule*, so"),
    ("$$\na = b\n$$ (eq:x)", "$$\na = b \\tag{3.4}$$"),
    ("(there)=\n## Head\n% not said", "## Head"),
    ("```{exercise} A name\n:label: ex-a\nDo it, see {eq}`eq:x`.\n```", "**Exercise 3.1 (A name).** Do it, see (3.4)."),
    ("```{solution} ex-a\n:class: dropdown\nSo.\n```", "**Solution of Exercise 3.1.** So."),
    ("````{prf:theorem}\n:label: thm-a\nLet\n```python\nx = 1\n```\n````", "**Theorem 3.2.** Let\n```python\nx = 1\n```"),
    ("```{prf:proof}\nSo it is.\n```", "**Proof.** So it is. $\\square$"),
    (":::{note}\nMind.\n:::", "**Note.** Mind."),
    (":::{moving} surface\n:instead-of: fig-x\n\nSee {numref}`fig-x`.\n:::", "*This picture moves on the page of the book; here it stands still.*\n\nSee Fig. 3.8."),
    ("```python\n# {numref}`fig-x` stays\n```", "```python\n# {numref}`fig-x` stays\n```"),
])  # fmt: skip
def test_roles_and_directives_become_markdown(source, read, edition):
    assert edition().text(source) == read


def test_with_an_address_roles_lead_to_the_book_and_not_to_their_own_page(edition):
    found = edition(site="https://x.github.io/y/stable").text("{numref}`fig-x` of {doc}`../book/sam`")
    assert found == "Fig. 3.8 of [Climb](https://x.github.io/y/stable/book/sam.html)"


@pytest.mark.parametrize("source, message", [
    ("{numref}`fig-unknown`", "no words for {numref}`fig-unknown`"), ("```{mystery}\n```", "no Markdown for the directive mystery"),
    ("```{note}\nopen", "a fence is not closed"), ("![a](nowhere.png)", "there is no picture nowhere.png"),
])
def test_what_has_no_words_is_refused(source, message, edition, tool):
    with pytest.raises(tool.EditionError, match=re.escape(message)):
        edition().text(source)


def test_a_picture_of_the_book_is_put_into_the_file(edition, tmp_path, monkeypatch, tool):
    (tmp_path / "book").mkdir()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "book" / "x.png").write_bytes(b"png")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    assert edition().text("![two curves](../book/x.png)") == '<img alt="two curves" src="data:image/png;base64,cG5n">'


def cell(kind, source, **metadata):
    return {"cell_type": kind, "id": source[:6], "metadata": metadata, "source": source, **({"outputs": [], "execution_count": 1} if kind == "code" else {})}


MINE = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"bisam": {"inputs": "0"}, "kernelspec": {"name": "python3"}}, "cells": [
    cell("markdown", "# Title\n\nWords {cite:p}`xie`."), cell("code", "n: int = 3", tags=["parameters"]),
    cell("code", "draw()", tags=["hide-input"], mystnb={"figure": {"name": "fig-x", "caption": "As in {doc}`../book/sam`."}}),
    cell("markdown", "```{exercise}\n:label: ex-a\nDo it.\n```\n\n```{solution-start} ex-a\n:class: dropdown\n```\nFirst this:"),
    cell("code", "solved()"), cell("markdown", "Then that.\n```{solution-end}\n```\n\nThe end."), cell("code", "kept()"),
]}  # fmt: skip


def test_an_edition_keeps_the_picture_and_not_what_only_the_page_needs(edition):
    stored = {"image/svg+xml": "<svg/>", "application/vnd.bisam.narrow-svg": "H4sI", "application/pdf": "JVBE"}
    drawn = {**cell("code", "draw()"), "outputs": [{"output_type": "display_data", "data": stored, "metadata": {}}]}
    made = edition(True).notebook({**MINE, "cells": [drawn]})
    assert list(made["cells"][0]["outputs"][0]["data"]) == ["image/svg+xml"] and len(stored) == 3


@pytest.mark.parametrize("solutions", [False, True])
def test_an_edition_has_its_cells(solutions, edition):
    made = edition(solutions).notebook(MINE)
    texts = ["".join(each["source"]) for each in made["cells"]]
    said = "with the solutions" if solutions else "without the solutions"
    assert texts[0].startswith(f"# Title\n\n*This page of the book bisam comes {said} of the exercises.")
    assert ("solved()" in texts) == ("Then that." in "".join(texts)) == ("First this" in "".join(texts)) == solutions
    assert "kept()" in texts and "**Exercise 3.1.** Do it." in "".join(texts) and "The end." in "".join(texts)
    assert "**Fig. 3.8.** As in *Climb*." in texts and texts[-1] == "## References\n\n- Xie. A title. 2024."
    assert made["cells"][1]["metadata"] == {"tags": ["parameters"]} and "bisam" not in made["metadata"]
    assert made["cells"][2]["metadata"] == {"jupyter": {"source_hidden": True}}
    assert len({each["id"] for each in made["cells"]}) == len(made["cells"]) and MINE["cells"][2]["metadata"]["mystnb"]


def names(cells):
    """The names that cells define for others, and those that they take from others or from themselves."""
    code = "\n".join("".join(each["source"]) for each in cells if each["cell_type"] == "code")
    tables, whole = [symtable.symtable(code, "cells", "exec")], set()
    defined = {symbol.get_name() for symbol in tables[0].get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    whole |= {symbol.get_name() for symbol in tables[0].get_symbols() if symbol.is_referenced()}
    while tables:
        tables += (inner := tables.pop()).get_children()
        whole |= {symbol.get_name() for symbol in inner.get_symbols() if symbol.is_global()}
    return defined, whole


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_needs_what_only_a_solution_defines(name, tool):
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    kept = tool.without_solutions(cells)
    stay = {each["id"] for each in kept}
    gone = [each for each in cells if each["id"] not in stay]
    (lost, _), (there, needed) = names(gone), names(kept)
    assert not (lost - there) & needed


# -- the editions of the built book --------------------------------------------------------------------------------------


def held(name, edition):
    import nbformat

    notebook = nbformat.read(HTML / "editions" / edition / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    return notebook


@pytest.mark.book
@pytest.mark.parametrize("edition", ["student", "solutions"])
@pytest.mark.parametrize("name", NAMES)
def test_no_page_of_an_edition_has_markup_of_the_book(name, edition):
    for each in held(name, edition).cells:
        if each.cell_type == "markdown":
            assert not re.search(r"\{[\w:]+\}`|^ *(?:`{3,}|:{3,})\{|^:\w+:|^\([\w-]+\)=|\$\$ *\(eq|\]\((?!https?:)[^)]*\)", each.source, re.MULTILINE), each.source


@pytest.mark.book
@pytest.mark.parametrize("name", NAMES)
def test_the_page_offers_both_editions_and_only_one_has_solutions(name):
    page = (HTML / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
    for edition in ("student", "solutions"):
        assert f'href="../editions/{edition}/{name}.ipynb"' in page
    solved, student = (" ".join(each.source for each in held(name, edition).cells) for edition in ("solutions", "student"))
    source = (ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
    assert "**Solution of" not in student and solved.count("**Solution of") == len(re.findall(r"\{solution(?:-start)?\}", source))
    assert student.count("**Exercise") == len(re.findall(r"\{exercise\}", source))


@pytest.mark.book
@pytest.mark.slow
def test_a_student_edition_runs_from_the_download_alone(tmp_path):
    import papermill

    there = tmp_path / "lower_bounds.ipynb"
    there.write_bytes((HTML / "editions" / "student" / "lower_bounds.ipynb").read_bytes())
    ran = papermill.execute_notebook(there, tmp_path / "ran.ipynb", {"scale": "smoke"}, cwd=tmp_path, kernel_name="python3", progress_bar=False)
    assert sum(each.cell_type == "code" for each in ran.cells) > 10 and not any(out.output_type == "error" for each in ran.cells for out in each.get("outputs", []))
    assert "You ran scale = smoke" in str(ran.cells) and sorted(path.name for path in tmp_path.iterdir()) == ["lower_bounds.ipynb", "ran.ipynb"]


# -- the buttons ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def ways(tool):
    return tool.ways


def test_with_an_address_there_are_buttons_for_colab_binder_and_the_source(ways):
    group = ways.launch("first_run", "https://github.com/Some/thing.git", "1.2", "stable")
    assert {button["text"]: button["url"] for button in group["buttons"]} == {
        "Colab": "https://colab.research.google.com/github/Some/thing/blob/editions/stable/student/first_run.ipynb",
        "Binder": "https://mybinder.org/v2/gh/Some/thing/v1.2?urlpath=lab%2Ftree%2F_build%2Fhtml%2Feditions%2Fstudent%2Ffirst_run.ipynb",
        "Source": "https://github.com/Some/thing/blob/v1.2/notebooks/first_run.ipynb",
    }
    assert "/thing/blob/main/" in ways.launch("first_run", "https://github.com/Some/thing", "1.2", "latest")["buttons"][2]["url"]
    with pytest.raises(ValueError, match=r"must be https://github\.com/OWNER/NAME"):
        ways.launch("first_run", "https://example.org/bisam.git", "1.2", "stable")


class App:
    class env:
        doc2path = staticmethod(lambda name: f"{name}.ipynb")


def shown(ways, monkeypatch, address, published=""):
    """What the extension makes of the context of a page."""
    monkeypatch.setattr(ways, "setting", lambda: (address, "1.2"))
    monkeypatch.setenv("BISAM_PUBLISHED", published)
    theme = [{"label": "download-buttons", "buttons": [{"label": "download-notebook-button"}, {"label": "download-pdf-button"}]}]
    context = {"header_buttons": theme, "pathto": lambda name, _: f"../{name}"}
    ways.add(App, "notebooks/mine", "page.html", context, object())
    return context


def test_a_page_without_an_address_offers_editions_alone(ways, monkeypatch):
    (group,) = shown(ways, monkeypatch, "")["header_buttons"]
    assert [button["label"] for button in group["buttons"]] == ["download-student-button", "download-solutions-button", "download-pdf-button"]
    assert ways.site() == ""


def test_a_published_page_leads_to_the_other_version(ways, monkeypatch):
    context = shown(ways, monkeypatch, "https://github.com/Some/thing", "latest")
    assert [group["label"] for group in context["header_buttons"]] == ["launch-buttons", "download-buttons"]
    assert "<b>latest</b>" in context["theme_announcement"] and 'href="../../stable/index.html"' in context["theme_announcement"]
    assert ways.site() == "https://some.github.io/thing/latest"
    with pytest.raises(ValueError, match="must be one of latest, stable"):
        ways.version_line("newest", "")
