"""The directive ``moving``: something on a page that a reader can move, with a still picture for readers without scripts and for paper.

    :::{moving} lower-bounds
    ![what the picture shows](../book/_static/moving/stills/lower-bounds.png)

    What it shows, in a sentence.
    :::

The content is what is seen without scripts. With ``:instead-of: fig-name`` the thing takes the place of the picture in a figure of the page. Its scripts are loaded only where they are used. They are plain scripts and no modules, because browsers load no module from a folder.
"""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

STATIC = Path(__file__).resolve().parents[1] / "_static"
SHARED = ("vendor/d3/d3.js", "moving/maths.js", "moving/parts.js")
THINGS = tuple(sorted(path.stem for path in (STATIC / "moving").glob("*.js") if path.name not in ("maths.js", "parts.js")))


class place(nodes.General, nodes.Element):
    """The place on the page where a thing is put."""


class Moving(SphinxDirective):
    required_arguments = 1
    has_content = True
    option_spec = {"instead-of": directives.unchanged_required}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in THINGS:
            raise self.error(f"moving: there is no {name}; there are {', '.join(THINGS)}")
        self.assert_has_content()
        node = place(name=name, instead_of=self.options.get("instead-of", ""))
        self.set_source_info(node)
        self.state.nested_parse(self.content, self.content_offset, node)
        used = self.env.metadata[self.env.docname].setdefault("moving", [])
        used += [name] if name not in used else []
        return [node]


def open_place(translator, node: place) -> None:
    figure = {"data-instead-of": node["instead_of"]} if node["instead_of"] else {}
    translator.body.append(translator.starttag(node, "div", "", CLASS="moving", **{"data-moving": node["name"]}, **figure))


def close_place(translator, node: place) -> None:
    translator.body.append("</div>\n")


def nothing(translator, node: place) -> None:
    """Elsewhere the content is all there is."""


def add_scripts(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    used = app.env.metadata.get(page, {}).get("moving", []) if doctree is not None else []
    if used:
        app.add_css_file("moving/moving.css")
        for path in (*SHARED, *(f"moving/{name}.js" for name in used)):
            app.add_js_file(path, loading_method="defer")


def setup(app: Sphinx) -> dict:
    other = (nothing, nothing)
    app.add_node(place, html=(open_place, close_place), latex=other, text=other, man=other, texinfo=other)
    app.add_directive("moving", Moving)
    app.connect("html-page-context", add_scripts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}
