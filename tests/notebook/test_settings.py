"""Whole notebooks at settings that once ended in an error, and settings that are refused before anything runs."""

import json

import matplotlib
import pytest

from bisam.notebook import parameters
from bisam.notebook.declarations import ParameterError
from bisam.notebook.find import find

# At these settings some networks never come below the lower training loss; they show that after an eighth of the updates too.
FEWER = {"flat_minima": ("STOPS, LIMIT = 300, (0.5, 0.05), 12000", "STOPS, LIMIT = 300, (0.5, 0.05), 1500")}


def executed(name, **values):
    """Runs the code cells of a notebook in this process, with parameters of one's own; returns what its names stand for at the end."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parameters.check(parameters.from_notebook(find(name)), values)
    namespace, (long, short) = {"__name__": "__main__"}, FEWER.get(name, ("", ""))
    cells = json.loads(find(name).read_text(encoding="utf-8"))["cells"]
    assert sum(long in "".join(cell["source"]) for cell in cells) == 1 or not long
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]).replace(long, short) if long else "".join(cell["source"]), f"{name}, cell {cell['id']}", "exec"), namespace)
            plt.close("all")
        if "parameters" in cell["metadata"].get("tags", []):
            namespace |= values
    return namespace


@pytest.fixture(autouse=True)
def no_window(monkeypatch):
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)


@pytest.mark.slow
@pytest.mark.parametrize("name, setting", [
    ("sharpness", {"label_noise": 0.8, "seeds": 1}),
    ("sharpness", {"label_noise": 0.85, "epochs": 4, "seeds": 1}),
    ("sharpness", {"label_noise": 0.8, "rho": 0.4, "epochs": 4, "seeds": 1}),
    ("sharpness", {"label_noise": 0.6, "rho": 0.5, "epochs": 4, "seeds": 1}),
    ("flat_minima", {"lr": 0.02, "seeds": 2}),
    ("flat_minima", {"width": 8, "label_noise": 0.6, "seeds": 2}),
    ("flat_minima", {"width": 16, "label_noise": 0.4, "lr": 0.3, "seeds": 2}),
    ("generalisation_bound", {"width": 4, "seeds": 1}),
    ("misclassification", {"label_noise": 0.0, "seeds": 2, "epochs": 2}),
], ids=lambda value: value if isinstance(value, str) else "-".join(f"{key}={each}" for key, each in value.items()))  # fmt: skip
def test_an_allowed_setting_finishes(name, setting, capsys):
    assert executed(name, scale="smoke", **setting)["this"].changed == {"scale": "smoke", **setting}
    assert f"{next(iter(setting))} = " in capsys.readouterr().out  # the banner


@pytest.mark.parametrize("name, setting, words", [
    ("misclassification", {"checkpoint": "runs/nowhere.pt"}, "checkpoint must be none or a file that is there, got 'runs/nowhere.pt'"),
    ("reproduce_cifar", {"scale": "smoke", "root": "."}, "root is read only at scale paper; at scale smoke it would change nothing"),
    ("reproduce_cifar", {"scale": "paper", "root": "no/such/folder"}, "root must be empty or a folder that is there, got 'no/such/folder'"),
    ("reproduce_label_noise", {"device": "cuda:99"}, "device must be a device that is there, got 'cuda:99'"),
    ("sharpness", {"epochs": 3}, r"epochs must be .* got 3"),
    ("flat_minima", {"seeds": 1}, r"seeds must be .* got 1"),
    ("when_sam_does_not_help", {"seeds": 1}, r"seeds must be .* got 1"),
    ("report", {"matters": 0.0}, r"matters must be .* got 0"),
    ("reproduce_variants", {"table": "T9"}, r"table must be one of T5, T6, T7, T8; got 'T9'"),
    ("reproduce_variants", {"methods": "esam"}, r"methods must be some of all, baseline, log, tanh, .*'esam'"),
    ("misclassification", {"group": 10}, r"group must be one of 50, .* got 10"),
])  # fmt: skip
def test_a_setting_that_would_fail_or_change_nothing_is_refused_before_anything_runs(name, setting, words):
    with pytest.raises(ParameterError, match=words):
        parameters.check(parameters.from_notebook(find(name)), setting)
