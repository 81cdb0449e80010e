"""The path for those with one hour: a list on its own page, and a box on each page of the path that leads to the next.

Both are made from ``book/one_hour.toml`` while the pages are read, so that no page has to name its neighbours.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from sphinx.errors import ExtensionError

LIST = Path(__file__).resolve().parents[1] / "one_hour.toml"
PAGE = "book/one_hour"
MARK = "% the stops of the hour"


def setup(app):
    app.connect("source-read", lead)
    app.connect("env-get-outdated", read_again)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def read_again(app, env, added, changed, removed):
    """The pages of the path, which depend on the list: they are few, and read at every build."""
    return [page for page in (PAGE, *(stop["page"] for stop in stops())) if page in env.found_docs]


def lead(app, name, source):
    source[0] = with_path(name, source[0], is_notebook=Path(app.env.doc2path(name)).suffix == ".ipynb")


def stops() -> list[dict]:
    return tomllib.loads(LIST.read_text(encoding="utf-8"))["stop"]


def with_path(name: str, text: str, is_notebook: bool) -> str:
    """The source of a page with what belongs to the path."""
    if name == PAGE:
        return text.replace(MARK, listed())
    for number, stop in enumerate(stops(), start=1):
        if stop["page"] == name:
            return in_notebook(text, stop["after"], box(number)) if is_notebook else put(text, stop["after"], box(number), name)
    return text


def listed() -> str:
    """The stops as a numbered list."""
    return "\n".join(f"1. {link(stop)} ({stop['minutes']} minutes): {stop['what']}." for stop in stops())


def box(number: int) -> str:
    """What leads from a stop to the next."""
    path = stops()
    where = f"**{{doc}}`One hour for a newcomer </{PAGE}>`, stop {number} of {len(path)}.**"
    if number == len(path):
        return f":::{{div}} one-hour\n{where} This was the last one. {{doc}}`/book/how_to_read` says how to run all of it, and the contents list the chapters.\n:::"
    after = path[number]
    return f":::{{div}} one-hour\n{where} Next: {link(after)}, {after['minutes']} minutes. Read {after['what']}.\n:::"


def link(stop: dict) -> str:
    return f"{{doc}}`/{stop['page']}`"


def put(text: str, after: str, box: str, page: str) -> str:
    """The text with the box before the first heading that follows some words; at the end if there is no such heading."""
    if after not in text:
        raise ExtensionError(f"book/one_hour.toml: {page} has no {after!r}")
    begun = text.index(after) + len(after)
    label = re.compile(r"^(?:\([\w-]+\)=\n)?#{2,6} ", re.MULTILINE)
    heading = next((found for found in label.finditer(text, begun) if text[begun : found.start()].strip()), None)
    place = heading.start() if heading else len(text)
    return f"{text[:place].rstrip()}\n\n{box}\n\n{text[place:]}"


def in_notebook(text: str, after: str, box: str) -> str:
    """The same for the Markdown cell of a notebook that has the words."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and after in source:
            cell["source"] = put(source, after, box, "")
            return json.dumps(notebook)
    raise ExtensionError(f"book/one_hour.toml: no cell of the notebook has {after!r}")
