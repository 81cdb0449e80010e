"""Writes the notebooks of the book as files that read well without it: one edition with the solutions of the exercises, one without.

Roles, directives and captions of the book become Markdown that Jupyter, VS Code and Colab show: numbers and names are those of the built book, which
has written them into `_build/words.json`. Cells whose code the book folds are folded. A picture in the text is put into the file.
"""

from __future__ import annotations

import argparse
import base64
import copy
import html
import json
import mimetypes
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import figures  # noqa: E402 - beside the other extensions of the book
import ways  # noqa: E402 - it is beside the other extensions of the book

WORDS = ROOT / "_build" / "words.json"
IN_BOOK = ROOT / "_build" / "html" / "editions"
NAMES = {"student": "without the solutions of the exercises", "solutions": "with the solutions of the exercises"}
OPENS = re.compile(r"^( *)(`{3,}|:{3,})(?:\{([\w:-]+)\} *(.*)|(.*))$")
OPTION = re.compile(r"^:([\w-]+): *(.*)$")
ROLE = re.compile(r"\{[\w:]+\}`[^`]+`")
PICTURE = re.compile(r"!\[([^\]]*)\]\((?!https?:|data:)([^)\s]+)\)")
EQUATION = re.compile(r"\$\$((?:(?!\$\$).)+?)\s*\$\$ *\((\S+)\)", re.DOTALL)
ADMONITIONS = ("admonition", "note", "tip", "hint", "important", "warning", "caution", "seealso", "dropdown")
FOLDED = {"hide-input": {"source_hidden": True}, "hide-output": {"outputs_hidden": True}, "hide-cell": {"source_hidden": True, "outputs_hidden": True}}


STILL = "*This picture moves on the page of the book; here it stands still.*"


class EditionError(ValueError):
    """A notebook says something that cannot be said without the book."""


@dataclass(frozen=True)
class Edition:
    """What is needed to write one page without the book: its words, and whether solutions stay."""

    page: str
    words: dict[str, list]
    solutions: bool
    site: str = ""  # the public address of the book

    # -- the text --------------------------------------------------------------------------------------------------------

    def text(self, source: str) -> str:
        """Markdown of a piece of MyST."""
        lines, out, plain = source.split("\n"), [], []
        number = 0
        while number < len(lines):
            opened = OPENS.match(lines[number])
            if not opened:
                plain.append(lines[number])
                number += 1
                continue
            out, plain = [*out, self._prose("\n".join(plain))] if plain else out, []
            indent, fence, name, argument, _ = opened.groups()
            end = next((at for at in range(number + 1, len(lines)) if lines[at].strip() == fence), None)
            if end is None:
                raise EditionError(f"{self.page}: a fence is not closed: {lines[number]}")
            body = [line.removeprefix(indent) for line in lines[number + 1 : end]]
            out.append(self._directive(name, argument, body) if name else "\n".join(lines[number : end + 1]))
            number = end + 1
        return re.sub(r"\n{3,}", "\n\n", "\n".join([*out, self._prose("\n".join(plain))])).strip("\n")

    def _prose(self, text: str) -> str:
        text = re.sub(r"^\([\w:-]+\)=\n?|^%.*\n?", "", text, flags=re.MULTILINE)
        text = EQUATION.sub(lambda found: f"$${found[1]} \\tag{{{self._number('eq', found[2]).strip('()')}}}$$", text)
        text = ROLE.sub(lambda found: self._role(found[0]), text)
        return PICTURE.sub(lambda found: self._picture(found[2], found[1]), text)

    def _known(self, role: str) -> list:
        if role not in self.words:
            raise EditionError(f"{self.page}: the book has no words for {role}; build it again")
        return self.words[role]

    def _number(self, role: str, label: str) -> str:
        return self._known(f"{{{role}}}`{label}`")[0]

    def _role(self, role: str) -> str:
        """Words of a role, as a link where the book is public and the target on another page."""
        said, where, _ = self._known(role)
        kind = role[1:].partition("}")[0]
        if kind.startswith("cite"):
            return said.replace("[", "(").replace("]", ")")
        if kind != "eq":
            said = said.replace("[", r"\[").replace("]", r"\]")
        here = where.startswith(f"{self.page}.html")
        if self.site and where and not here:
            return f"[{said}]({self.site}/{where})"
        return f"*{said}*" if kind in ("doc", "ref") and "<" not in role else said

    def _directive(self, name: str, argument: str, body: list[str]) -> str:
        options = {}
        while body and OPTION.match(body[0]):
            key, value = OPTION.match(body.pop(0)).groups()
            options[key] = value.strip("\"'")
        if name.startswith("solution"):
            return self._solution(name, argument, body)
        if name == "literalinclude":
            return f"```{options.get('language', 'python')}\n{included(ROOT / 'notebooks' / argument, options)}\n```"
        if name in ("figure", "image"):
            return self._picture(argument, options.get("alt", "")) + "\n\n" + self.text("\n".join(body))
        text = self.text("\n".join(body))
        if name == "prf:proof":
            return f"\n**Proof.** {text} $\\square$\n"
        if name == "exercise" or name.startswith("prf:"):
            number = self._number("numref" if name == "exercise" else "prf:ref", options["label"])
            return f"\n**{number}{f' ({self._prose(argument)})' if argument else ''}.** {text}\n"
        if name == "moving":  # what the book shows without scripts
            return f"{STILL}\n\n{text}"
        if name in ADMONITIONS:
            return f"\n**{self._prose(argument) or name.capitalize()}.** {text}\n"
        raise EditionError(f"{self.page}: tools/editions.py has no Markdown for the directive {name}")

    def _solution(self, name: str, label: str, body: list[str]) -> str:
        if not self.solutions or name == "solution-end":
            return ""
        return f"\n**Solution of {self._number('numref', label)}.** {self.text(chr(10).join(body))}\n"

    def _picture(self, where: str, alt: str) -> str:
        path = ROOT / "notebooks" / where
        if not path.is_file():
            raise EditionError(f"{self.page}: there is no picture {where}")
        kind = mimetypes.guess_type(path.name)[0]
        return f'<img alt="{html.escape(alt)}" src="data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}">'

    # -- the notebook ----------------------------------------------------------------------------------------------------

    def notebook(self, notebook: dict) -> dict:
        """A copy of a notebook in this edition."""
        cells = []
        for cell in notebook["cells"] if self.solutions else without_solutions(notebook["cells"]):
            cells += self._cell(copy.deepcopy(cell))
        cells += self._references(cells, notebook)
        metadata = {key: value for key, value in notebook["metadata"].items() if key != "bisam"}
        return {**notebook, "cells": cells, "metadata": metadata}

    def _cell(self, cell: dict) -> list[dict]:
        metadata = cell["metadata"]
        tags = metadata.get("tags", [])
        figure = metadata.get("mystnb", {}).get("figure", {})
        cell["metadata"] = {"tags": ["parameters"]} if "parameters" in tags else {}
        if cell["cell_type"] == "markdown":
            text = self.text("".join(cell["source"]))
            return [{**cell, "source": self._headed(text).splitlines(keepends=True)}] if text.strip() else []
        for output in cell["outputs"]:  # what only a page of the book shows, or a link of it leads to
            for kind in (figures.NARROW, figures.PDF):
                output.get("data", {}).pop(kind, None)
        folded = {key: value for tag in tags for key, value in FOLDED.get(tag, {}).items()}
        cell["metadata"] |= {"jupyter": folded} if folded else {}
        if not figure.get("caption"):
            return [cell]
        head = self._number("numref", figure["name"]) if "name" in figure else "Figure"
        said = f"**{head}.** {self._prose(figure['caption'])}"
        return [cell, {"cell_type": "markdown", "id": f"{cell['id']}-caption"[:64], "metadata": {}, "source": [said]}]

    def _headed(self, text: str) -> str:
        """The text with a line on the edition below the title."""
        if not text.startswith("# "):
            return text
        title, _, rest = text.partition("\n")
        edition = NAMES["solutions" if self.solutions else "student"]
        book = f"[the book bisam]({self.site}/{self.page}.html)" if self.site else "the book bisam"
        return f"{title}\n\n*This page of {book} comes {edition}. The setup cell says what it needs.*\n{rest}"

    def _references(self, cells: list[dict], notebook: dict) -> list[dict]:
        """A cell with the works that the page cites."""
        text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
        works = {work for role in ROLE.findall(text) for work in self._known(role)[2]}
        if not works:
            return []
        listed = "\n".join(f"- {work}" for work in sorted(works))
        return [{"cell_type": "markdown", "id": "references", "metadata": {}, "source": f"## References\n\n{listed}".splitlines(keepends=True)}]


def without_solutions(cells: list[dict]) -> list[dict]:
    """The cells without the code between the start and the end of a solution."""
    kept, inside, ending = [], False, False
    for cell in cells:
        if cell["cell_type"] == "code":
            kept += [] if inside else [cell]
            continue
        out = []
        for line in "".join(cell["source"]).split("\n"):
            inside = inside or line.startswith("```{solution-start}")
            out += [] if inside else [line]
            if ending and line == "```":
                inside = ending = False
            ending = ending or line.startswith("```{solution-end}")
        kept.append({**cell, "source": "\n".join(out).splitlines(keepends=True)})
    return kept


def included(path: Path, options: dict[str, str]) -> str:
    """The lines of a file that `literalinclude` shows."""
    text = path.read_text(encoding="utf-8")
    if "start-after" in options:
        text = text.partition(options["start-after"])[2].partition("\n")[2]
    if "end-before" in options:
        text = text.partition(options["end-before"])[0].rpartition("\n")[0]
    return text.strip("\n")


def build(folder: Path = IN_BOOK, site: str = "") -> int:
    """Writes both editions of every notebook into a folder, and says how many there are."""
    words = json.loads(WORDS.read_text(encoding="utf-8"))
    for edition in NAMES:
        (folder / edition).mkdir(parents=True, exist_ok=True)
        for page, said in words.items():
            notebook = json.loads((ROOT / f"{page}.ipynb").read_text(encoding="utf-8"))
            made = Edition(page, said, edition == "solutions", site).notebook(notebook)
            path = folder / edition / f"{page.rpartition('/')[2]}.ipynb"
            path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return len(words)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--folder", type=Path, default=IN_BOOK, help="where both editions are written")
    given = arguments.parse_args()
    if not WORDS.exists():
        print("==> failed: the editions need the built book: run `make html`", file=sys.stderr)
        return 1
    try:
        count = build(given.folder, ways.site())
    except EditionError as error:
        print(f"==> failed: {error}", file=sys.stderr)
        return 1
    print(f"==> {count} notebooks in two editions are in {given.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
