"""The form of the parameters in Jupyter: what is changed is checked and arrives in the namespace."""

import pytest

from bisam.notebook import form
from bisam.notebook.declarations import declared

ipywidgets = pytest.importorskip("ipywidgets", reason='the form needs ipywidgets, of the extra "lab"')

KNOWN = declared(
    'scale: str = "laptop"  # how much; allowed: smoke, laptop, paper\nn: int = 3  # seeds; allowed: [1, 9]\nrho: float = 0.1234567890123  # radius; allowed: (0, 2]\n'
    'methods: str = "sam"  # methods; allowed: some of sgd, sam\nplot: bool = True  # draw; allowed: True, False\nword: str = "a <b>"  # a word; allowed: any'
)


@pytest.fixture
def made():
    namespace = {name: one.default for name, one in KNOWN.items()}
    return *form.widgets_of(KNOWN, namespace), namespace


def test_each_parameter_has_a_widget_of_its_kind_with_its_value(made):
    widgets, line, namespace = made
    assert {name: type(widget).__name__ for name, widget in widgets.items()} == {
        "scale": "Dropdown", "n": "Text", "rho": "Text", "methods": "Text", "plot": "Checkbox", "word": "Text",
    }  # fmt: skip
    assert widgets["rho"].value == "0.1234567890123" and widgets["scale"].options == ("smoke", "laptop", "paper") and widgets["plot"].value is True
    assert line.value == form.UNCHANGED and namespace["n"] == 3


def test_what_is_allowed_arrives_in_the_type_that_is_declared(made):
    widgets, line, namespace = made
    for name, value in {"scale": "smoke", "n": "7", "rho": "2", "methods": "sgd, sam", "plot": False, "word": "<i>"}.items():
        widgets[name].value = value
        assert line.value == form.CHANGED
    assert namespace == {"scale": "smoke", "n": 7, "rho": 2.0, "methods": "sgd, sam", "plot": False, "word": "<i>"}


@pytest.mark.parametrize("name, value, message", [
    ("n", "10", "n must be in [1, 9], got 10"), ("n", "x", "n must be of type int, got &#x27;x&#x27;"), ("rho", "0", "rho must be in (0, 2], got 0.0"),
    ("methods", "adam", "methods must be some of sgd, sam"),
])
def test_what_is_not_allowed_is_said_and_changes_nothing(name, value, message, made):
    widgets, line, namespace = made
    widgets[name].value = value
    assert message in line.value and f"{name} stays" in line.value and namespace[name] == KNOWN[name].default
    widgets[name].value = str(KNOWN[name].default)
    assert line.value == form.CHANGED


def test_a_parameter_that_another_one_switches_off_is_said(made):
    known = declared('scale: str = "laptop"  # how much; allowed: smoke, laptop, paper\ntable: str = "T1"  # table; allowed: T1, T9; only at: paper')
    namespace = {name: one.default for name, one in known.items()}
    widgets, line = form.widgets_of(known, namespace)
    widgets["table"].value = "T9"
    assert "table is read only at scale paper" in line.value and namespace["table"] == "T1"
    widgets["scale"].value = "paper"
    widgets["table"].value = "T1"
    widgets["table"].value = "T9"
    assert namespace == {"scale": "paper", "table": "T9"}


def test_the_form_is_displayed_with_meaning_and_limits(capsys):
    form.show(KNOWN, {name: one.default for name, one in KNOWN.items()})
    assert "VBox" in capsys.readouterr().out
