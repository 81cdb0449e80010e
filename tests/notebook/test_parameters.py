import pytest

from bisam.notebook import declarations, find, parameters
from bisam.notebook.declarations import ParameterError

CELL = '''# a comment
scale: str = "smoke"  # how much; allowed: smoke, laptop, paper
rho: float = 0.3  # radius; allowed: (0, 2]
seeds: int = 2  # runs; allowed: [1, 50)
plot: bool = True  # draw
'''


@pytest.fixture
def declared():
    return declarations.declared(CELL)


def test_a_cell_declares_name_type_default_help_and_range(declared):
    assert list(declared) == ["scale", "rho", "seeds", "plot"]
    assert declared["rho"] == declarations.Parameter("rho", "float", 0.3, "radius", "(0, 2]")
    assert declared["plot"].allowed == ""


@pytest.mark.parametrize("name, value", [("rho", 2), ("rho", 1e-9), ("seeds", 1), ("seeds", 49), ("scale", "paper"), ("plot", False)])
def test_allowed_values_pass(declared, name, value):
    parameters.check(declared, {name: value})


@pytest.mark.parametrize("name, value, message", [
    ("rho", 0, r"rho must be in \(0, 2\], got 0"),
    ("rho", -0.1, r"rho must be in \(0, 2\], got -0.1"),
    ("rho", 2.0001, "rho must be in"),
    ("rho", float("nan"), "rho must be in .* got nan"),
    ("rho", float("inf"), "rho must be in"),
    ("rho", True, "rho must be of type float, got True"),
    ("rho", "0.3", "rho must be of type float, got '0.3'"),
    ("seeds", 50, r"seeds must be in \[1, 50\), got 50"),
    ("seeds", 2.0, "seeds must be of type int, got 2.0"),
    ("seeds", True, "seeds must be of type int"),
    ("scale", "huge", "scale must be one of smoke, laptop, paper; got 'huge'"),
    ("plot", 1, "plot must be of type bool"),
    ("rhoo", 0.3, r"there is no parameter rhoo; there are:\n  scale: str"),
])
def test_other_values_are_refused_by_name_value_and_range(declared, name, value, message):
    with pytest.raises(ParameterError, match=message):
        parameters.check(declared, {name: value})


def test_text_is_read_in_the_declared_type(declared):
    given = {"rho": "1e-1", "seeds": "7", "plot": "false", "scale": "laptop"}
    assert parameters.from_text(declared, given) == {"rho": 0.1, "seeds": 7, "plot": False, "scale": "laptop"}


@pytest.mark.parametrize("name, text", [("seeds", "7.5"), ("rho", "big"), ("plot", "maybe")])
def test_text_of_another_type_is_refused(declared, name, text):
    with pytest.raises(ParameterError, match=f"{name} must be of type .* got '{text}'"):
        parameters.from_text(declared, {name: text})


@pytest.mark.parametrize("line", ["rho = 0.3  # no type", "rho: float = 0.3", "import os", "x: list = []  # no"])
def test_a_line_that_declares_nothing_is_refused(line):
    with pytest.raises(ParameterError, match="not a declaration"):
        declarations.declared(line)


def test_a_default_out_of_its_own_range_is_refused():
    with pytest.raises(ParameterError, match="rho must be in"):
        declarations.declared("rho: float = 3.0  # radius; allowed: (0, 2]")


def defaults(declared, **changes):
    return {name: parameter.default for name, parameter in declared.items()} | changes


def test_the_first_cell_accepts_the_defaults_and_what_papermill_adds(declared):
    parameters.check_cells(["", CELL], defaults(declared), "small")
    parameters.check_cells(["", CELL, "# Parameters\nrho = 0.5\n"], defaults(declared, rho=0.5), "small")


def test_the_first_cell_refuses_an_injected_unknown_name(declared):
    with pytest.raises(ParameterError, match="there is no parameter epochz"):
        parameters.check_cells(["", CELL, "# Parameters\nepochz = 3\n"], defaults(declared, epochz=3), "small")


def test_the_first_cell_refuses_an_injected_value_out_of_range(declared):
    with pytest.raises(ParameterError, match="rho must be in"):
        parameters.check_cells([CELL, "# Parameters\nrho = 5.0\n"], defaults(declared, rho=5.0), "small")


def test_the_first_cell_refuses_an_edited_default_of_another_type(declared):
    with pytest.raises(ParameterError, match="seeds must be of type int"):
        parameters.check_cells([CELL.replace("= 2 ", "= 2.5 ")], defaults(declared, seeds=2.5), "small")


def test_the_first_cell_needs_a_declaration():
    with pytest.raises(ParameterError, match="no cell before this one declares parameters"):
        parameters.check_cells(["", "import torch"], {}, "small")


def test_where_cells_are_not_remembered_the_file_declares():
    stored = {name: parameter.default for name, parameter in parameters.from_notebook(find.find("lower_bounds")).items()}
    parameters.check_cells([""], stored, "lower_bounds")
    with pytest.raises(ParameterError, match="alpha must be in"):
        parameters.check_cells([""], stored | {"alpha": -1.0}, "lower_bounds")


@pytest.mark.parametrize("value", ["sgd", "sam,sgd", "sgd, sam"])
def test_some_of_a_list_is_written_with_commas(value):
    parameters.check(declarations.declared('m: str = "sam"  # methods; allowed: some of sgd, sam'), {"m": value})


@pytest.mark.parametrize("value", ["", "adam", "sam,adam", "sam,", "sam,sam", "sgd sam"])
def test_some_of_a_list_is_not_anything_else(value):
    with pytest.raises(ParameterError, match="m must be some of sgd, sam, each once, with commas between; got"):
        parameters.check(declarations.declared('m: str = "sam"  # methods; allowed: some of sgd, sam'), {"m": value})


def test_any_text_may_be_allowed_and_keeps_its_type():
    folder = declarations.declared('root: str = ""  # folder; allowed: any')
    parameters.check(folder, {"root": "a, b"})
    with pytest.raises(ParameterError, match="root must be of type str"):
        parameters.check(folder, {"root": 1})
