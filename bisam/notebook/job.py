"""What is to be run: a notebook and its values, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import estimate, outputs, parameters
from .declarations import Parameter
from .find import find

__all__ = ["Job", "job"]


@dataclass(frozen=True)
class Job:
    """A notebook and the values that it will run with, all checked.

    Example:
        >>> job("lower_bounds", {"alpha": "0.2"}).stem
        'lower_bounds-alpha=0.2'
    """

    path: Path
    declared: Mapping[str, Parameter]
    values: Mapping[str, object]

    @property
    def stem(self) -> str:
        """A name for what comes out."""
        return outputs.stem(self.path.stem, self.declared, self.values)

    @property
    def given(self) -> dict:
        """The values that are not at their defaults."""
        return outputs.changed(self.declared, self.values)

    @property
    def all_values(self) -> dict:
        """Every declared parameter with its value."""
        return {name: self.values.get(name, one.default) for name, one in self.declared.items()}

    @property
    def seconds(self) -> float | None:
        """How long it will probably take."""
        return estimate.seconds(self.path, *self._scales())

    def estimate(self) -> str:
        """How long it will probably take, in a sentence."""
        return estimate.words(self.path, *self._scales(), [name for name in ("seeds", "epochs") if name in self.declared])

    def _scales(self) -> tuple[object, object]:
        one = self.declared.get("scale")
        return (None, None) if one is None else (self.all_values["scale"], one.default)


def job(name: str, given: Mapping[str, str]) -> Job:
    """Checks what is to be run, before anything runs.

    Args:
        name: of the notebook, or its file.
        given: parameter name to text.

    Raises:
        NotebookError: no such notebook.
        ParameterError: an unknown name, a wrong type or a value out of range.

    Example:
        >>> job("lower_bounds", {"alpha": "0.2"}).given
        {'alpha': 0.2}
    """
    path = find(name)
    declared = parameters.from_notebook(path)
    return Job(path, declared, parameters.from_text(declared, given))

