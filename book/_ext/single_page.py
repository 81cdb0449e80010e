"""Lets the extensions of the book write its one long page, which is printed, and keeps the links of that page apart.

Sphinx keeps the visitors of nodes by builder, and some extensions register none for ``singlehtml``. Its own links on the long page name a place and forget
the page that has it, so that all pages with a section "Summary" would be one; here they name both: ``#document-PAGE#PLACE``.
"""

from docutils import nodes


def setup(app):
    app.connect("builder-inited", share)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def share(app):
    handlers = app.registry.translation_handlers
    for node, visitors in handlers.get("html", {}).items():
        handlers.setdefault("singlehtml", {}).setdefault(node, visitors)
    if app.builder.name == "singlehtml":
        app.builder.fix_refuris = keep_both


def keep_both(tree):
    for link in tree.findall(nodes.reference):
        where = link.get("refuri", "")
        if "#document-" in where:
            link["refuri"] = where[where.index("#document-") :]
