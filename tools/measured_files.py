"""Writes the files of ``results/measured``, one line a row."""

from __future__ import annotations

import json
from pathlib import Path

from bisam import _files as files
from bisam.training.environment import environment


def write(name: str, what: str, networks: list[dict], rows: list[dict], seconds: float, folder: Path, digits: int) -> None:
    """One file, with what its rows are and the machine that measured; numbers with so many digits."""
    head = {"what": json.dumps(what), "environment": json.dumps(environment("cpu", seconds)), "networks": table(networks, digits), "rows": table(rows, digits)}
    place = folder / "measured"
    place.mkdir(parents=True, exist_ok=True)
    parts = ",\n".join(f'  "{key}": {text}' for key, text in head.items())
    files.write_whole(place / f"{name}.json", f"{{\n{parts}\n}}\n")


def table(rows: list[dict], digits: int) -> str:
    columns = list(rows[0]) if rows else []
    lines = ",\n".join(f"    {json.dumps([rounded(row[column], digits) for column in columns])}" for row in rows)
    return f'{{\n   "columns": {json.dumps(columns)},\n   "values": [\n{lines}\n   ]\n  }}'


def rounded(value, digits: int):
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value
