"""The PDF and the narrow SVG of each figure lie beside the notebooks, and not in them."""

import base64
import gzip
import json
from pathlib import Path

import nbformat
import scripts

ROOT = Path(__file__).resolve().parents[2]


def test_renderings_are_taken_out_of_a_notebook_by_the_names_of_its_figures(tmp_path, monkeypatch):
    executed = scripts.tool("execute_notebooks")
    monkeypatch.setattr(executed, "RENDERINGS", tmp_path)
    (tmp_path / "fig-own.narrow.svg").write_text("of an earlier execution")
    drawn = {executed.SVG: "<svg/>", executed.PDF: base64.b64encode(b"%PDF").decode(), "text/plain": "a figure"}
    narrow = {**drawn, executed.NARROW: base64.b64encode(gzip.compress(b"<svg>narrow</svg>")).decode()}
    cells = [nbformat.v4.new_code_cell(id="own"), nbformat.v4.new_code_cell(id="plain")]
    cells[0].metadata["mystnb"] = {"figure": {"name": "fig-own"}}
    cells[0].outputs = [nbformat.v4.new_output("display_data", data=dict(drawn))]
    cells[1].outputs = [nbformat.v4.new_output("display_data", data=dict(narrow)) for _ in range(2)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    executed.set_aside("page", notebook)
    assert all(set(out.data) == {executed.SVG, "text/plain"} for cell in notebook.cells for out in cell.outputs)
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    both = {f"page-plain{number}.{ending}": content for number in ("", "-2") for ending, content in (("pdf", b"%PDF"), ("narrow.svg", b"<svg>narrow</svg>"))}
    assert found == {"fig-own.pdf": b"%PDF", **both}


def test_every_figure_of_the_book_has_its_pdf_and_no_rendering_is_left_over():
    executed, names = scripts.tool("execute_notebooks"), set()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.reads(json.dumps(json.loads(path.read_text(encoding="utf-8"))), as_version=4).cells:
            figures = [out.data for out in cell.get("outputs", []) if executed.SVG in out.get("data", {})]
            assert not any({executed.PDF, executed.NARROW} & set(data) for data in figures), path.name
            names |= {executed.figure_name(path.stem, cell, number) for number in range(len(figures))}
    found = {path.name for path in executed.RENDERINGS.iterdir()}
    assert {f"{name}.pdf" for name in names} <= found
    assert {name.removesuffix(".pdf").removesuffix(".narrow.svg") for name in found} == names
