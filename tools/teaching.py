"""Writes what the page for teachers and the glossary include: tables of chapters, plans and exercises, an index of terms.

The facts stand in `book/teaching.toml` and in `book/glossary.md`; which pages there are is read from `_toc.yml`. Needs no
torch.
"""

from __future__ import annotations

import json
import re
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BESIDE = ("Start here", "Reference")  # parts of the contents that hold no chapters
AMBIGUOUS = ("claim", "interval", "pass", "pull", "tie", "verdict")  # words that also occur in another sense
OFTEN = 3  # times that a chapter has to use a term so that the index leads there


class TeachingError(ValueError):
    """A chapter that the page for teachers does not know, or a page that does not exist."""


def tables() -> dict[str, str]:
    """The text of every file that is included, by name."""
    known = facts()
    unknown = [page for page in chapters() if page not in known]
    if unknown:
        raise TeachingError(f"book/teaching.toml says nothing of {', '.join(unknown)}")
    plans = {f"teach-{plan['name']}.md": course(plan) if plan.get("weeks") else lesson(plan) for plan in data()["plan"]}
    return {
        "teach-chapters.md": chapter_table(), "teach-goals.md": goal_list(), "teach-exercises.md": exercise_table(),
        "terms.md": term_index(), **plans,
    }  # fmt: skip


@cache
def data() -> dict:
    return tomllib.loads((ROOT / "book" / "teaching.toml").read_text(encoding="utf-8"))


def facts() -> dict[str, dict]:
    return {chapter["page"]: chapter for chapter in data()["chapter"]}


# -- what there is ---------------------------------------------------------------------------------------------------------


@cache
def contents() -> list[dict]:
    import yaml

    return yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))["parts"]


def chapters() -> list[str]:
    """The chapters in the order of the contents: all that does not stand before or beside the text."""
    return [page for part in contents() if part["caption"] not in BESIDE for page in files(part["chapters"])]


def pages() -> list[str]:
    return [page for part in contents() for page in files(part["chapters"])]


def files(entries: list[dict]) -> list[str]:
    return [page for entry in entries for page in (entry["file"], *files(entry.get("sections", [])))]


@cache
def prose(page: str) -> str:
    """The text of a page, without its code."""
    path = ROOT / f"{page}.ipynb"
    if path.exists():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    if not path.with_suffix(".md").exists():
        raise TeachingError(f"_toc.yml lists {page}, which does not exist")
    return path.with_suffix(".md").read_text(encoding="utf-8")


def exercises() -> dict[str, str]:
    """The titles of all exercises, by label."""
    found = (re.findall(r"\{exercise\} (.+)\n:label: (ex-\S+)", prose(page)) for page in chapters())
    return {label: title for page in found for title, label in page}


# -- tables ----------------------------------------------------------------------------------------------------------------


def chapter_table() -> str:
    rows = ["| chapter | read | exercises | run | device |", "| --- | ---: | ---: | ---: | --- |"]
    for page in chapters():
        fact = facts()[page]
        rows.append(f"| {link(page)} | {fact['read']} | {fact['exercises']} | {seconds(page)} | {fact['device']} |")
    return "\n".join(rows) + "\n"


def goal_list() -> str:
    return "".join(f"* {link(page)}: {'; '.join(facts()[page]['goals'])}.\n" for page in chapters())


def seconds(page: str) -> str:
    """How long the notebook took when it was last executed for the book."""
    measured = json.loads((ROOT / "book" / "status.json").read_text(encoding="utf-8")).get(Path(page).stem)
    return f"{measured['wall_seconds']:.0f}\N{NO-BREAK SPACE}s" if measured and page.startswith("notebooks/") else "-"


def lesson(plan: dict) -> str:
    rows = ["| from | minutes | what | pages | exercises |", "| ---: | ---: | --- | --- | --- |"]
    begun = 0
    for part in plan["part"]:
        clock = f"{begun // 60}:{begun % 60:02d}"
        rows.append(f"| {clock} | {part['minutes']} | {part['what']} | {links(part)} | {labels(part.get('exercises', []))} |")
        begun += part["minutes"]
    return "\n".join(rows) + "\n"


def course(plan: dict) -> str:
    rows = ["| week | what | chapters | at home | hand in |", "| ---: | --- | --- | ---: | --- |"]
    for week, part in enumerate(plan["part"], start=1):
        minutes = sum(facts()[page]["read"] + facts()[page]["exercises"] for page in part["pages"] if page in chapters())
        rows.append(f"| {week} | {part['what']} | {links(part)} | {minutes / 60:.1f} h | {labels(part['hand_in'])} |")
    return "\n".join(rows) + "\n"


def exercise_table() -> str:
    rows = ["| for whom | exercises |", "| --- | --- |"]
    rows += [f"| {readers['who']} | {labels(readers['exercises'])} |" for readers in data()["readers"]]
    return "\n".join(rows) + "\n"


def link(page: str) -> str:
    return f"{{doc}}`{facts()[page]['short']} <../{page}>`"


def links(part: dict) -> str:
    return ", ".join(link(page) for page in part.get("pages", []) if page in chapters()) or "-"


def labels(wanted: list[str]) -> str:
    there = exercises()
    return "; ".join(f"{{ref}}`{there[label]} <{label}>`" for label in wanted if label in there) or "-"


# -- the index of terms ----------------------------------------------------------------------------------------------------


def terms() -> dict[str, str]:
    """Every term of the glossary with its definition; terms that share one are joined."""
    text = re.search(r"^```\{glossary\}\n(?::\w+:\n)*\n?(.*?)^```$", prose("book/glossary"), re.M | re.S)[1]
    entries = re.findall(r"((?:^\S.*\n)+)((?:^ +\S.*\n)+)", text, re.M)
    return {term: definition for names, definition in entries for term in names.strip().splitlines()}


def term_index() -> str:
    """Where each term is used: the chapters that use it often, or those that use it at all if none does."""
    rows = []
    for term in sorted(terms(), key=str.lower):
        if term in AMBIGUOUS:
            continue
        uses = {page: len(re.findall(pattern(term), readable(page), re.I)) for page in chapters()}
        found = [page for page in uses if uses[page] >= OFTEN] or [page for page in uses if uses[page]]
        if len(found) > len(uses) / 2:
            rows.append(f"* {{term}}`{term}`: throughout")
        elif found:
            rows.append(f"* {{term}}`{term}`: {', '.join(link(page) for page in found)}")
    return "\n".join(rows) + "\n"


@cache
def readable(page: str) -> str:
    """The words of a page, without formulas, code and the names of labels."""
    text = re.sub(r"^```\{(?:literalinclude|code).*?^```|\$\$.*?\$\$", " ", prose(page), flags=re.S | re.M)
    text = re.sub(r"^```.*$|^:\w+:.*$|^\(.*\)=$|\$[^$\n]+\$|\]\([^)\n]*\)", " ", text, flags=re.M)
    text = re.sub(r"\{(?:term|index)\}`(?:[^`<]*<)?([^`>]+)>?`", r"\1", text)  # keeps what a link to the glossary says
    return " ".join(re.sub(r"\{[\w:]+\}`[^`]*`|`[^`]*`", " ", text).split())


def pattern(term: str) -> str:
    """The term as a word, also in the plural and across the hyphens and spaces that writers choose."""
    words = [re.escape(word) for word in re.split(r"[ -]", term)]
    return r"(?<![\w-])" + r"[ -]".join(words) + r"(?:s|es)?(?![\w-])"
