"""The stored notebooks: complete, current, with claims that are really compared. (nbval executes them.)"""

import ast
import functools
import itertools
import json
import re
from pathlib import Path

import nbformat
import pytest
from scripts import tool

from bisam.notebook import parameters

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


# One module for all of them: it remembers what it has read of the package.
execute_notebooks = functools.cache(lambda: tool("execute_notebooks"))


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture(scope="module")
def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def code(cells):
    return [cell for cell in cells if cell["cell_type"] == "code"]


def tags(cell):
    return cell["metadata"].get("tags", [])


def source(cell):
    return "".join(cell["source"])


def text(cell):
    """What a cell prints, and its tables as lines."""
    return "".join("".join(out.get("text", out.get("data", {}).get("text/plain", []))) for out in cell["outputs"])


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 3


def test_every_cell_is_executed_in_order_and_none_failed(cells):
    assert [cell["execution_count"] for cell in code(cells)] == list(range(1, len(code(cells)) + 1))
    assert not [out for cell in code(cells) for out in cell["outputs"] if out["output_type"] == "error"]


def test_outputs_hold_no_stderr_and_no_widgets(path, cells):
    assert not [out for cell in code(cells) for out in cell["outputs"] if out.get("name") == "stderr"]
    assert "widgets" not in json.loads(path.read_text(encoding="utf-8"))["metadata"]


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["laptop", "smoke"])
def test_outputs_are_current(path, scale):
    assert not execute_notebooks().is_stale(path, scale), "out of date: run `make book`"


def test_outputs_at_scale_smoke_are_stored_for_the_compared_cells_and_no_others(path, cells):
    stored = json.loads(execute_notebooks().smoke_of(path).read_text(encoding="utf-8"))["outputs"]
    compared = {cell["id"] for cell in code(cells) if "nbval-check-output" in tags(cell)}
    assert compared <= stored.keys() <= {cell["id"] for cell in code(cells)}


def test_at_scale_smoke_every_cell_has_a_name_of_its_own(path):
    names = [cell.id for cell in execute_notebooks().smoke_notebook(path).cells]
    assert len(set(names)) == len(names)


def test_smoke_outputs_belong_to_notebooks():
    stored = sorted(path.stem for path in execute_notebooks().SMOKE.iterdir())
    assert stored == [path.stem for path in NOTEBOOKS]


def test_the_page_is_a_run_of_what_its_text_describes(path, cells):
    assert parameters.from_notebook(path)["scale"].default == "laptop"
    said = "".join(text(cell) for cell in code(cells))
    assert "The text of this page describes" not in said
    assert "not come out as stated" not in said and "stated for" not in said


def test_no_cell_changes_a_parameter(path, cells):
    """So that cells can be run twice and out of order, and a banner says what was run."""
    names = set(parameters.from_notebook(path))
    for cell in code(cells)[1:]:
        for node in ast.walk(ast.parse(source(cell))):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                assert node.id not in names or node.id in _local(cell), f"{node.id} is a parameter: {source(cell)}"


def _local(cell):
    """Names that functions and comprehensions of a cell keep to themselves."""
    inner = (ast.FunctionDef, ast.Lambda, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp)
    tree = ast.parse(source(cell))
    inside = [node for scope in ast.walk(tree) if isinstance(scope, inner) for node in ast.walk(scope)]
    stored = {node for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    every = {node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return {node.id for node in stored} - {node.id for node in every - stored}


def test_no_cell_depends_on_where_the_kernel_stands(cells):
    for cell in code(cells):
        assert not re.search(r"""["']\.\.(?!\.)|Path\.cwd|getcwd|chdir|\bIn\b""", source(cell)), source(cell)


@pytest.mark.parametrize("source, reached, left", [
    ("bisam.NegLog()", {"losses/bounds", "_checks"}, {"losses/surrogate", "training/train", "methods/table"}),
    ("bisam.BISAM_LOG", {"methods/table", "axes/recipe", "losses/surrogate", "losses/bounds"}, {"training/train", "step/optimizer"}),
    ("from bisam.evidence import ledger", {"evidence/ledger", "training/data/task", "training/run"}, {"cli", "notebook/run", "training/loop"}),
    ("from bisam import (\n    Batch,\n    SAM,\n)\nimport json", {"step/batch", "axes/recipe"}, {"step/optimizer", "evidence/ledger"}),
    ("from bisam.training import fit", {"training/loop", "training/data/task", "training/models/plain"}, {"evidence/ledger", "measure/grid"}),
    ("from bisam.measure import climb as up  # a name", {"measure/worst_point"}, {"measure/grid", "training/loop"}),
])  # fmt: skip
def test_a_notebook_depends_on_the_modules_that_its_names_reach(source, reached, left):
    found = {path.relative_to(ROOT / "bisam").with_suffix("").as_posix() for path in execute_notebooks().modules(source)}
    assert reached <= found and not left & found


def test_parameters_are_declared_once_and_checked_first(path, cells):
    assert "scale" in parameters.from_notebook(path)
    where = [k for k, cell in enumerate(code(cells)) if "parameters" in tags(cell)]
    assert where == [0]
    assert f'this = page.begin(globals(), "{path.stem}")' in source(code(cells)[1])


def test_every_parameter_says_what_it_means_and_what_is_allowed(path):
    for parameter in parameters.from_notebook(path).values():
        assert parameter.help and parameter.allowed, parameter


def test_at_least_one_claim_is_compared_and_it_says_something(cells):
    compared = [cell for cell in code(cells) if "nbval-check-output" in tags(cell)]
    assert compared
    for cell in compared:
        assert re.search(r"\d|\b(True|False|yes|no|better|worse|resolved)\b", text(cell)), source(cell)


def test_tolerances_stand_in_assert_cells(cells):
    nodes = [node for cell in code(cells) for node in ast.walk(ast.parse(source(cell)))]
    asserts = [node for node in nodes if isinstance(node, ast.Assert)]
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    stated = [key for node in calls if node.func.attr == "claims" and node.args for key in getattr(node.args[0], "keys", [])]
    assert len(asserts) + len(stated) >= 2


def test_captions_and_alt_texts_hold_at_every_setting(path, cells):
    """Values of parameters stand in the figures, which the code draws; a caption cannot follow them."""
    names = set(parameters.from_notebook(path))
    for cell in code(cells):
        figure = cell["metadata"].get("mystnb", {})
        words = figure.get("figure", {}).get("caption", "") + figure.get("image", {}).get("alt", "")
        if "label_noise" in names:
            assert not re.search(r"(forty|40)[  ]*(%|per cent)", words, flags=re.I), words


def test_headings_form_a_tree_under_one_title(cells):
    prose = "\n".join(source(cell) for cell in cells if cell["cell_type"] == "markdown")
    levels = [len(mark) for mark in re.findall(r"^(#+) ", prose, flags=re.M)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels))
    for wanted in ("You will", "You will learn", "You need", "What differs", "Verdict", "Exercises"):
        assert wanted.lower() in prose.lower(), wanted


def test_exercises_have_solutions_that_unfold(cells):
    prose = "\n".join(source(cell) for cell in cells if cell["cell_type"] == "markdown")
    labels = re.findall(r":label: (ex-\S+)", prose)
    solved = re.findall(r"\{solution(?:-start)?\} (ex-\S+)\n:class: dropdown", prose)
    assert len(labels) >= 3 and sorted(labels) == sorted(solved)


def test_every_picture_has_alt_text_a_caption_and_a_name(cells):
    for cell in code(cells):
        if any({"image/svg+xml", "image/png"} & set(out.get("data", {})) for out in cell["outputs"]):
            made = cell["metadata"]["mystnb"]
            assert len(made["image"]["alt"]) > 40 and made["figure"]["caption"] and made["figure"]["name"]


def test_it_is_listed_in_the_contents_and_small(path):
    assert f"notebooks/{path.stem}\n" in (ROOT / "_toc.yml").read_text(encoding="utf-8") + "\n"
    assert path.stat().st_size < 1_000_000


def test_borrowed_pictures_are_those_of_the_notebooks():
    pictures = tool("build_book").named_figures()
    stored = {path.stem: path.read_bytes() for path in (ROOT / "book" / "figures").glob("*.svg")}
    assert stored.keys() == pictures.keys(), "run `make html`"
    # Names and not bytes: to show where a hundred pictures differ would take minutes.
    assert [name for name in stored if stored[name] != pictures[name]] == [], "run `make html`"


def test_status_lists_every_notebook():
    status = json.loads((ROOT / "book" / "status.json").read_text(encoding="utf-8"))
    assert sorted(status) == [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("writer", ["store", "status"])
def test_a_disk_that_is_full_keeps_the_notebook_and_the_status_as_they_were(writer, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    execute, path = tool("execute_notebooks"), tmp_path / "lower_bounds.ipynb"
    before = (ROOT / "notebooks" / path.name).read_bytes()
    path.write_bytes(before)
    monkeypatch.setattr(execute, "STATUS", tmp_path / "status.json")
    execute.STATUS.write_text('{"lower_bounds": {}}')
    monkeypatch.setattr("bisam._files.os.replace", full)
    with pytest.raises(OSError, match=rf"cannot be written: No space left on device: '{tmp_path}"):
        execute.store(path, execute.nbformat.read(path, as_version=4)) if writer == "store" else execute.write_status("lower_bounds", 1.0)
    assert path.read_bytes() == before and execute.STATUS.read_text() == '{"lower_bounds": {}}'
    assert sorted(name.name for name in tmp_path.iterdir()) == [path.name, "status.json"]


def test_a_run_at_another_scale_is_no_run_of_what_the_text_describes(path):
    """The declared default stays laptop, so that a claim at smoke stands beside what is stated."""
    at = tool("execute_notebooks").at_scale
    sources = [cell.source for cell in at(nbformat.read(path, as_version=4), "smoke").cells if cell.cell_type == "code"]
    assert 'scale: str = "laptop"' in sources[0] and sources[1] == '# Parameters\nscale = "smoke"'
    assert at(nbformat.read(path, as_version=4), "laptop") == nbformat.read(path, as_version=4)
