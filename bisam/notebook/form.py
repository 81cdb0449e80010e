"""The parameters of a notebook as a form, for Jupyter: what is changed is checked and put into the notebook's namespace."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, MutableMapping

from .. import _checks
from .._checks import shown
from . import parameters
from .declarations import Parameter, ParameterError

__all__ = ["show", "widgets_of"]

CHANGED = "Changed: run this cell again and all below it."
UNCHANGED = "Change a value, then run this cell again and all below it."


def widgets_of(declared: Mapping[str, Parameter], namespace: MutableMapping[str, object]) -> tuple[dict, object]:
    """A widget for each parameter, by its type and by what is allowed, and the line in which the form speaks.

    Args:
        declared: the parameters.
        namespace: that holds their values, and gets the new ones.

    Raises:
        ModuleNotFoundError: ipywidgets is not there.

    Example:
        >>> from bisam.notebook.declarations import declared
        >>> try:
        ...     widgets, line = widgets_of(declared("n: int = 3  # seeds; allowed: [1, 9]"), {"n": 4})
        ...     print(widgets["n"].value)
        ... except ModuleNotFoundError:
        ...     print(4)  # without ipywidgets
        4
    """
    ipywidgets = _checks.needs("ipywidgets", extra="lab")
    line = ipywidgets.HTML(UNCHANGED)
    found = {}
    for name, one in declared.items():
        widget = _widget(ipywidgets, one, namespace[name])
        widget.observe(_setter(declared, namespace, name, line), names="value")
        found[name] = widget
    return found, line


def show(declared: Mapping[str, Parameter], namespace: MutableMapping[str, object]) -> None:
    """Shows the form below the cell that runs.

    Args:
        declared: the parameters.
        namespace: that holds their values, and gets the new ones.

    Raises:
        ModuleNotFoundError: ipywidgets is not there.

    Example:
        >>> show({}, {})
        VBox(children=(HTML(value='Change a value, then run this cell again and all below it.'),))
    """
    ipywidgets = _checks.needs("ipywidgets", extra="lab")
    from IPython.display import display

    found, line = widgets_of(declared, namespace)
    rows = [ipywidgets.HBox([widget, ipywidgets.HTML(_help(declared[name]))]) for name, widget in found.items()]
    display(ipywidgets.VBox([*rows, line]))


def _widget(ipywidgets, one: Parameter, value: object):
    options = {"description": one.name, "style": {"description_width": "9em"}, "layout": ipywidgets.Layout(width="22em")}
    listed = re.split(r",\s*", one.allowed)
    if one.kind == "bool":
        return ipywidgets.Checkbox(value=value, indent=False, **options)
    if one.kind == "str" and len(listed) > 1 and not one.allowed.startswith(("some of ", "[", "(")):
        return ipywidgets.Dropdown(options=listed, value=value, **options)
    # Text keeps all digits of a number and takes what is half typed; it is looked at when the field is left.
    return ipywidgets.Text(value=str(value), continuous_update=False, **options)


def _help(one: Parameter) -> str:
    allowed = f"; allowed: {one.allowed}" if one.allowed and one.allowed != "any" else ""
    return html.escape(one.help + allowed + (f"; read only at {one.only_at}" if one.only_at else ""))


def _setter(declared: Mapping[str, Parameter], namespace: MutableMapping[str, object], name: str, line) -> Callable[[dict], None]:
    def put(change: dict) -> None:
        try:
            values = parameters.from_text(declared, {**_texts(declared, namespace), name: str(change["new"])})
        except ParameterError as error:
            line.value = f'<b style="color:#a00">{html.escape(str(error))}</b>; {name} stays {html.escape(shown(namespace[name]))}'
            return
        namespace[name] = values[name]
        line.value = CHANGED

    return put


def _texts(declared: Mapping[str, Parameter], namespace: Mapping[str, object]) -> dict[str, str]:
    """The values that are not at their defaults, with which a new one must go together."""
    return {name: str(namespace[name]) for name, one in declared.items() if namespace[name] != one.default}
