import pytest

from bisam.notebook import declarations, find, page, parameters
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


def test_values_that_have_their_type_are_taken_as_they_are(declared):
    given = {"rho": 1, "seeds": 7, "plot": False, "scale": "laptop"}
    assert parameters.from_text(declared, given) == given
    with pytest.raises(ParameterError, match=r"seeds must be of type int, got 7\.5"):
        parameters.from_text(declared, {"seeds": 7.5})
    with pytest.raises(ParameterError, match="rho must be of type float, got None"):
        parameters.from_text(declared, {"rho": None})


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


def space(cells, values):
    """The namespace of a notebook whose cells have been run."""
    return {"In": cells, **values}


def test_the_first_cell_accepts_the_defaults_and_what_papermill_adds(declared):
    assert page.begin(space(["", CELL], defaults(declared)), "small").is_stated
    begun = page.begin(space(["", CELL, "# Parameters\nrho = 0.5\n"], defaults(declared, rho=0.5)), "small")
    assert begun.changed == {"rho": 0.5}


def test_the_first_cell_refuses_an_injected_unknown_name(declared):
    with pytest.raises(ParameterError, match="there is no parameter epochz"):
        page.begin(space(["", CELL, "# Parameters\nepochz = 3\n"], defaults(declared, epochz=3)), "small")


def test_the_first_cell_refuses_an_injected_value_out_of_range(declared):
    with pytest.raises(ParameterError, match="rho must be in"):
        page.begin(space([CELL, "# Parameters\nrho = 5.0\n"], defaults(declared, rho=5.0)), "small")


def test_the_first_cell_refuses_an_edited_default_of_another_type(declared):
    with pytest.raises(ParameterError, match="seeds must be of type int"):
        page.begin(space([CELL.replace("= 2 ", "= 2.5 ")], defaults(declared, seeds=2.5)), "small")


def test_a_default_that_is_computed_is_refused_by_its_line():
    with pytest.raises(ParameterError, match=r"the default of alpha must be a plain number.* got '1/3'"):
        page.begin(space(["alpha: float = 1/3  # slope; allowed: (0, 1]"], {"alpha": 1 / 3}), "small")
    with pytest.raises(ParameterError, match=r"not a declaration .*alpha: float = 1 / 3"):
        page.begin(space(["alpha: float = 1 / 3  # slope; allowed: (0, 1]"], {"alpha": 1 / 3}), "small")


@pytest.mark.parametrize("later", ["total: int = 3", "seeds: int = 3  # how many; allowed: [1, 5]", "def f(x):\n    y: int = x\n    return y"])
def test_an_annotated_line_further_down_declares_nothing(declared, later):
    with pytest.raises(ParameterError, match="rho must be in"):
        page.begin(space([CELL, later], defaults(declared, rho=5.0)), "small")


def test_a_parameters_cell_that_was_edited_and_run_again_counts(declared):
    assert page.begin(space([CELL, "x = 1", CELL.replace("0.3", "0.4")], defaults(declared, rho=0.4)), "small").is_stated


def test_a_cell_that_is_timed_declares_as_any_other(declared):
    with pytest.raises(ParameterError, match="rho must be in"):
        page.begin(space(["%%time\n" + CELL], defaults(declared, rho=5.0)), "small")


def test_the_first_cell_needs_a_declaration():
    with pytest.raises(ParameterError, match="no cell declares the parameters of small, and its file is not here"):
        page.begin(space(["", "import torch"], {}), "small")


def test_parameters_that_were_not_run_are_asked_for():
    with pytest.raises(ParameterError, match="the namespace must hold scale, and does not: run the cell tagged `parameters` first"):
        page.begin({"In": [""]}, "lower_bounds")


@pytest.mark.parametrize("cells", [{}, {"In": [""]}, {"In": ["", "%run lower_bounds.ipynb"]}])
def test_where_cells_are_not_remembered_the_file_declares(cells):
    stored = {name: parameter.default for name, parameter in parameters.from_notebook(find.find("lower_bounds")).items()}
    assert page.begin(cells | stored, "lower_bounds").is_stated
    with pytest.raises(ParameterError, match="alpha must be in"):
        page.begin(cells | stored | {"alpha": -1.0}, "lower_bounds")


def test_a_script_without_its_notebook_declares_by_its_own_lines(declared, tmp_path):
    script = tmp_path / "small.py"
    script.write_text("#!/usr/bin/env python\n" + CELL + "\nprint(rho)\n", encoding="utf-8")
    values = {"__file__": str(script), **defaults(declared)}
    values.pop("plot")  # has no range
    assert page.begin({**values, "plot": True}, "small").is_stated
    with pytest.raises(ParameterError, match="rho must be in"):
        page.begin({**values, "plot": True, "rho": 5.0}, "small")


def test_the_banner_says_what_the_text_describes_and_what_was_run(declared, capsys):
    page.begin(space([CELL], defaults(declared)), "small")
    assert capsys.readouterr().out == ""
    page.begin(space([CELL], defaults(declared, rho=0.5, seeds=3)), "small")
    said = capsys.readouterr().out
    assert said.startswith("The text of this page describes rho = 0.3, seeds = 2. You ran rho = 0.5, seeds = 3.")


ROWS = {"SAM is flatter": (True, True), "gap in points": (12.5, 26)}


def test_claims_at_the_stated_setting_print_values_and_say_what_does_not_come_out(declared, capsys):
    begun = page.begin(space([CELL], defaults(declared)), "small")
    begun.claims({"SAM is flatter": (True, True), "gap in points": (26, 26)})
    assert capsys.readouterr().out.splitlines() == ["SAM is flatter  yes", "gap in points    26"]
    begun.claims(ROWS)
    said = capsys.readouterr().out
    assert "yours  stated" in said and "1 of 2 do not come out as stated" in said


def test_claims_elsewhere_stand_beside_what_is_stated_and_say_for_what(declared, capsys):
    page.begin(space([CELL], defaults(declared, seeds=3)), "small").claims(ROWS)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines[0].split() == ["yours", "stated"] and lines[2].split()[-2:] == ["12.5", "26"] and lines[3] == "stated for seeds = 2"
    assert "come out" not in lines[3]


@pytest.mark.parametrize("pair", [True, (1,), (1, None), ([1], [1])])
def test_claims_are_pairs_of_plain_values(declared, pair):
    with pytest.raises(TypeError, match=r"rows\['a'\] must"):
        page.begin(space([CELL], defaults(declared)), "small").claims({"a": pair})


@pytest.mark.parametrize("allowed, good, bad, words", [
    ("0 or [2, 50]", [0, 2, 50], [1, 51, -1], r"n must be 0 or in \[2, 50\], got"),
    ("[2, 5] or [10, 20]", [2, 15], [7], r"n must be in \[2, 5\] or in \[10, 20\], got 7"),
])
def test_several_kinds_of_values_may_be_allowed(allowed, good, bad, words):
    parameter = declarations.declared(f"n: int = {good[0]}  # number; allowed: {allowed}")
    for value in good:
        parameters.check(parameter, {"n": value})
    for value in bad:
        with pytest.raises(ParameterError, match=words):
            parameters.check(parameter, {"n": value})


def test_a_file_and_a_folder_must_be_there(tmp_path):
    (tmp_path / "net.pt").write_text("x")
    both = declarations.declared('net: str = "none"  # yours; allowed: none or a file\nroot: str = ""  # data; allowed: empty or a folder')
    parameters.check(both, {"net": str(tmp_path / "net.pt"), "root": str(tmp_path)})
    parameters.check(both, {"net": "none", "root": ""})
    with pytest.raises(ParameterError, match="net must be none or a file that is there, got"):
        parameters.check(both, {"net": str(tmp_path / "other.pt")})
    with pytest.raises(ParameterError, match="root must be empty or a folder that is there, got"):
        parameters.check(both, {"root": str(tmp_path / "net.pt")})


def test_a_device_must_be_there(monkeypatch):
    device = declarations.declared('device: str = "cpu"  # where to train; allowed: a device')
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    for name in ("cpu", "cuda", "cuda:0"):
        parameters.check(device, {"device": name})
    for name in ("cuda:1", "gpu", "cuda:x", ""):
        with pytest.raises(ParameterError, match="device must be a device that is there, got"):
            parameters.check(device, {"device": name})


def test_a_parameter_that_is_not_read_at_a_scale_is_refused_there():
    both = declarations.declared('scale: str = "laptop"  # how much; allowed: smoke, laptop, paper\nroot: str = ""  # data; allowed: any; only at: laptop, paper')
    parameters.check(both, {"root": "x"})
    parameters.check(both, {"scale": "smoke", "root": ""})
    with pytest.raises(ParameterError, match="root is read only at scale laptop, paper; at scale smoke it would change nothing, got 'x'"):
        parameters.check(both, {"scale": "smoke", "root": "x"})
    assert parameters.table(both).endswith("; allowed: any; only at: laptop, paper")


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
