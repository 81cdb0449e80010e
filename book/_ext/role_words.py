"""What the roles of the notebooks say in the built book, for copies that are read without it.

A role such as ``{numref}`fig-x` `` becomes words only in Sphinx, which knows all pages. After each build this extension lets it resolve every
role of every notebook and writes ``_build/words.json``: page, then role as written, then its words, the page and place that it leads to, and what a
citation cites.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path

from docutils import nodes
from docutils.frontend import get_default_settings
from docutils.utils import new_document
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.util.docutils import sphinx_domains

ROLE = re.compile(r"\{[\w:]+\}`[^`]+`")
LABEL = re.compile(r"^:label: *(\S+) *$", re.MULTILINE)
EQUATION = re.compile(r"\$\$ *\((\S+)\)")
KINDS = {"exercise": "numref", "prf": "prf:ref"}


def setup(app):
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write(app, failed):
    """The words of all notebooks, beside the built book."""
    if failed or app.builder.name != "html":
        return
    found = {}
    for name in sorted(app.env.found_docs):
        path = Path(app.env.doc2path(name))
        if path.suffix == ".ipynb":
            found[name] = resolved(app, name, wanted(json.loads(path.read_text(encoding="utf-8"))))
    (Path(app.outdir).parent / "words.json").write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")


def wanted(notebook: dict) -> list[str]:
    """The roles that a notebook has, and one for each thing that it numbers."""
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    figures = [cell["metadata"].get("mystnb", {}).get("figure", {}) for cell in notebook["cells"]]
    roles = ROLE.findall("\n".join([text, *(figure.get("caption", "") for figure in figures)]))
    roles += [f"{{numref}}`{figure['name']}`" for figure in figures if "name" in figure]
    roles += [f"{{eq}}`{name}`" for name in EQUATION.findall(text)]
    for directive in re.findall(r"^`{3,}\{(?:exercise|prf:(?!proof)\w+)\}.*\n(?::.*\n)+", text, re.MULTILINE):
        name = LABEL.search(directive)
        if name:
            roles.append(f"{{{KINDS['exercise' if 'exercise' in directive.partition('}')[0] else 'prf']}}}`{name[1]}`")
    return list(dict.fromkeys(roles))


def resolved(app, name: str, roles: list[str]) -> dict[str, list[str]]:
    """Role to its words, the address that it leads to, seen from the root of the site, and the works that it cites."""
    app.env.prepare_settings(name)
    document = new_document(name, get_default_settings(MystParser()))
    for key, value in app.env.settings.items():
        setattr(document.settings, key, value)
    document.settings.env = app.env
    parser = MystParser()
    parser.set_application(app)
    with sphinx_domains(app.env):
        parser.parse("\n\n".join(roles), document)
    app.env.apply_post_transforms(document, name)
    paragraphs = list(document.findall(nodes.paragraph))
    if len(paragraphs) != len(roles):
        raise ValueError(f"{len(roles)} roles of {name} became {len(paragraphs)} paragraphs")
    return dict(zip(roles, (words(app, name, paragraph) for paragraph in paragraphs), strict=True))


def words(app, name: str, paragraph: nodes.paragraph) -> list:
    links = list(paragraph.findall(nodes.reference))
    where = links[0].get("refuri", "#" + links[0].get("refid", "")) if links else ""
    place = app.builder.get_target_uri(name)
    if where.startswith("#"):
        where = place + where
    elif where:
        where = posixpath.normpath(posixpath.join(posixpath.dirname(place), where))
    return [paragraph.astext(), where, [link["reftitle"] for link in links if "reftitle" in link and "bibliography" in where]]
