"""Nothing that is tested depends on a clock: on a busy machine any two times may change places.

What comes from a clock is followed through assignments and functions, to the cells that nbval compares and to every ``assert``.
"""

import ast
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
CLOCKS = {"perf_counter", "perf_counter_ns", "process_time", "monotonic", "time_ns", "default_timer", "timeit", "elapsed_time"}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TESTS = sorted((ROOT / "tests").glob("**/test_*.py"))


def _reads(node: ast.AST, timed: set[str]) -> bool:
    """Whether a piece of code looks at a clock, or at a name that holds a time."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and (part.id in timed or part.id in CLOCKS):
            return True
        if isinstance(part, ast.Attribute) and (part.attr in CLOCKS or ast.unparse(part) == "time.time"):
            return True
    return False


def _statements(body: list[ast.stmt]):
    """Every statement that holds no other; of a compound one its parts, of a function the whole."""
    for statement in body:
        inner = [getattr(statement, name, []) for name in ("body", "orelse", "finalbody", "handlers")]
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)) or not any(inner):
            yield statement
        else:
            for part in inner:
                yield from _statements([each for one in part for each in (one.body if isinstance(one, ast.ExceptHandler) else [one])])


def _names(statement: ast.stmt) -> set[str]:
    """The names that a statement gives a value to."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
        return {statement.name}
    loops = {id(part) for each in ast.walk(statement) if isinstance(each, ast.comprehension) for part in ast.walk(each.target)}
    stored = [part for part in ast.walk(statement) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)]
    found = {part.id for part in stored if id(part) not in loops}  # the names of a comprehension end with it
    # found[key] = value and object.field = value
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    for target in filter(None, targets):
        while isinstance(target, (ast.Subscript, ast.Attribute)):
            target = target.value
        found |= {target.id} if isinstance(target, ast.Name) else set()
    return found


def timed_names(sources: list[str]) -> set[str]:
    """All names that, somewhere in the sources, are given what comes from a clock."""
    statements = [each for source in sources for each in _statements(ast.parse(source).body)]
    timed: set[str] = set()
    while True:
        grown = timed | {name for each in statements if _reads(each, timed) for name in _names(each)}
        if grown == timed:
            return timed
        timed = grown


def has_clock(source: str) -> bool:
    """Whether there is anything to follow."""
    return any(clock in source for clock in (*CLOCKS, "time.time"))


def faults_of(cells: list[tuple[str, bool]]) -> list[str]:
    """The compared cells and the asserts that depend on a clock, of cells with whether nbval compares them."""
    if not any(has_clock(source) for source, _ in cells):
        return []
    timed = timed_names([source for source, _ in cells])
    found = [source for source, is_compared in cells if is_compared and _reads(ast.parse(source), timed)]
    asserts = [node for source, _ in cells for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert)]
    return found + [ast.unparse(node) for node in asserts if _reads(node.test, timed)]


def cells_of(path: Path) -> list[tuple[str, bool]]:
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return [(cell.source, "nbval-check-output" in cell.metadata.get("tags", [])) for cell in code]


def test_no_compared_cell_and_no_assert_of_a_notebook_depends_on_a_clock():
    for path in NOTEBOOKS:
        assert faults_of(cells_of(path)) == [], path.name


def test_no_assert_of_a_test_depends_on_a_clock():
    sources = {path: path.read_text(encoding="utf-8") for path in TESTS}
    for path, tree in ((path, ast.parse(source)) for path, source in sources.items() if has_clock(source)):
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            body = "\n".join(ast.unparse(statement) for statement in function.body)
            assert faults_of([(body, False)]) == [], f"{path.name}, {function.name}"


@pytest.mark.parametrize("cells", [
    [("import time\nbegan = time.perf_counter()", False), ("print(time.perf_counter() - began < 5)", True)],
    [("def seconds(work):\n    now = time.perf_counter()\n    work()\n    return time.perf_counter() - now", False),
     ("a = {'loop': seconds(f)}", False), ("b = a['loop'] > 5 * 2", False), ("print(b)", True)],
    [("x = timeit.timeit(f)\nif True:\n    y = x\n    assert y < 3", False)],
    [("found = {}\nfor k in range(3):\n    found[k] = time.time()", False), ("print(found)", True)],
], ids=["at once", "through a function", "assert", "through a subscript"])
def test_a_time_is_found_wherever_it_goes(cells):
    assert faults_of(cells)


def test_what_only_stands_beside_a_time_is_not_taken_for_one():
    assert faults_of([("if True:\n    spent = time.perf_counter()\n    counted = 5\n    print(spent)", False), ("print(counted)", True)]) == []
