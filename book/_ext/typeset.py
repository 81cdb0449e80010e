"""What a compositor would do to the words of finished pages: signs, and spaces at which no line ends.

Authors type what a keyboard has: ``-0.5``, ``40 %``, ``Fig. 3.1``. A page shows a minus sign, and keeps together what belongs together. Code, formulas and
drawings stay as they are. Each function takes the text of a page and returns it changed; a page that was changed stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable

PIECES = re.compile(r"<!--.*?-->|<[^>]+>|[^<]+", re.DOTALL)
TAG = re.compile(r"<(/?)([\w-]+)([^>]*)>")
UNTOUCHED = {"code", "kbd", "pre", "samp", "script", "select", "style", "svg", "textarea", "title"}
BARE = {"area", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}
KEPT, SIGN = "\N{NO-BREAK SPACE}", "\N{MINUS SIGN}"
MINUS = (re.compile(r"(?<![\w.)\]-])-(?=\.?\d)"), SIGN)
LESS = (re.compile(r"\b(\w) - (?=\d)"), rf"\1{KEPT}{SIGN}{KEPT}")
EQUAL = (re.compile(r"\b(\w) = (?=[-\N{MINUS SIGN}]?\d)"), rf"\1{KEPT}={KEPT}")
PERCENT = (re.compile(r"(?<=\d) ?%"), KEPT + "%")
NUMBERED = (re.compile(r"\b(Fig\.|Algorithm|Exercise|Lemma|Proposition|Theorem)\s(?=\d+\.\d)"), rf"\1{KEPT}")
PAIR = (re.compile(r"(?<=[(\[])([-+\N{MINUS SIGN}]?[\d.]+), (?=[-+\N{MINUS SIGN}]?[\d.]+[)\]])"), rf"\1,{KEPT}")
TORN = re.compile(r"(?<![\w\\{-])(?:-log|0-1)(?![\w-])")  # a browser would end a line behind their hyphen
CELL = re.compile(r'(<table[^>]*class="[^"]*bisam-results[^"]*".*?</table>)', re.DOTALL)
SHORT = re.compile(r"(<td[^>]*>)([^<]{1,14})(</td>)")
# A mark after an inline formula, and a bracket before it, stay with it.
FORMULA = re.compile(r'([(\[“]?)(<span class="math notranslate nohighlight">[^<]*</span>)([)\]”’]*[.,;:?!]?)')
CODE = re.compile(r'<code class="(docutils literal notranslate|xref[^"]*)">(?=(?:<span class="pre">[^<]*</span> ?)+</code>)([^\n]*?)</code>')
LONGEST = 22  # letters of code in one line, also on a telephone


def set_in_type(text: str) -> str:
    """A page with its signs and its spaces."""
    if 'class="kept' in text:
        return text
    head, article, rest = parts(text)
    return words(head + short_code(with_marks(short_cells(words(article, signs)))) + rest, whole)


def parts(text: str) -> tuple[str, str, str]:
    """What is before the article, the article, and what is after it."""
    begin, end = re.search(r"<article\b", text), text.rfind("</article>")
    return (text[: begin.start()], text[begin.start() : end], text[end:]) if begin and end > 0 else (text, "", "")


def words(text: str, put: Callable[[str], str]) -> str:
    """A page whose words between the tags, outside of code, formulas and drawings, are put otherwise."""
    found, closed_by = [], None
    for piece in PIECES.findall(text):
        tag = TAG.match(piece)
        if tag is None:
            found.append(piece if closed_by or piece.startswith("<!--") else put(piece))
            continue
        found.append(piece)
        closing, name, attributes = tag.groups()
        if closed_by is None:
            is_untouched = name in UNTOUCHED or 'class="math' in attributes
            closed_by, depth = (name, 1) if is_untouched and not closing and name not in BARE else (None, 0)
        elif name == closed_by:
            depth += -1 if closing else 1
            closed_by = closed_by if depth else None
    return "".join(found)


def signs(text: str) -> str:
    """A piece of running text with minus signs, and without breaks before a percent sign, within a reference, an equation or a pair of numbers."""
    for pattern, put in (MINUS, LESS, EQUAL, PERCENT, NUMBERED, PAIR):
        text = pattern.sub(put, text)
    return text


def whole(text: str) -> str:
    """A piece of running text with "-log" and "0-1" in one piece."""
    return text if "$" in text or "\\(" in text else TORN.sub(r'<span class="kept">\g<0></span>', text)


def short_cells(text: str) -> str:
    """With the few words of a short cell of results in one line."""

    def kept(cell: re.Match) -> str:
        return cell[1] + cell[2].strip().replace(" ", KEPT) + cell[3]

    return CELL.sub(lambda table: SHORT.sub(kept, table[0]), text)


def with_marks(text: str) -> str:
    """With each inline formula and the mark that follows it in one line."""

    def kept(found: re.Match) -> str:
        before, formula, after = found.groups()
        return f'<span class="kept">{before}{formula}{after}</span>' if before or after else found[0]

    return FORMULA.sub(kept, text)


def short_code(text: str) -> str:
    """With a class for code that is short enough to stay in one line."""

    def named(found: re.Match) -> str:
        letters = re.sub(r"<[^>]+>", "", found[2])
        return found[0].replace(' class="', ' class="kept ', 1) if len(letters) <= LONGEST else found[0]

    return CODE.sub(named, text)
