"""Where the records are, and the error for what is wrong among them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["RESULTS", "LedgerError"]

BESIDE = Path(__file__).resolve().parents[2] / "results"  # in a checkout


class LedgerError(RuntimeError):
    """A list of claims or a record that cannot be read, is there already, or does not have the agreed form."""


def found_from(here: Path) -> Path:
    """The folder ``results`` with a list of claims, here or in a folder above, else beside the package; else one that is not there."""
    places = [*(folder / "results" for folder in (here, *here.parents)), BESIDE]
    return next((place for place in places if (place / "claims.toml").is_file()), here / "results")


RESULTS = found_from(Path.cwd())


def check_there(folder: Path) -> None:
    """A ``LedgerError`` where the folder is that of the project, and no project is here."""
    if folder == RESULTS and not (folder / "claims.toml").exists():
        raise LedgerError(
            f"this works in a checkout of bisam or below a folder with results/claims.toml; none found at {folder}, in a folder above, "
            f"or at {BESIDE}. `pip install -e .` in a checkout installs bisam with its records"
        )
