"""What a sweep has found, on one page, and as CSV and JSON."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import _files as files
from .attempt import source_of
from .data import csv_text, safe
from .executed import Executed, columns_of
from .job import Job
from .side_by_side import runs_in

__all__ = ["gather"]

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .7rem; text-align: left; vertical-align: top; }
th { background: #f4f4f4; }
td.differs { background: #fff3d6; }
td.failed { color: #a00; }
.small { display: grid; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figure img { max-width: 100%; } figcaption { font-size: .85rem; }
pre { background: #f7f7f7; padding: .5rem; overflow-x: auto; margin: 0; font-size: .8rem; }
"""


def gather(jobs: Sequence[Job], folder: Path, failed: Mapping[str, str]) -> Path:
    """Writes the page of a sweep with all current runs of its folder, ``results.csv`` with a row a run, ``results.json``, and a CSV for each table.

    Args:
        jobs: the runs of the command.
        folder: of the sweep.
        failed: name of a run to what went wrong.

    Returns:
        The page.

    Raises:
        OSError: the disk does not take it.

    Example:
        >>> import tempfile
        >>> from bisam.notebook.job import job
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = gather([job("lower_bounds", {"alpha": "0.2"})], Path(folder), {"lower_bounds-alpha=0.2": "no luck"})
        ...     page.name, (Path(folder) / "results.csv").read_text().splitlines()[1][:38]
        ('index.html', 'lower_bounds-alpha=0.2,no luck,,laptop')
    """
    kept = list(runs_in(folder, source_of(jobs[0])))
    found = [run for run, is_current in kept if is_current]
    older = sum(not is_current for _, is_current in kept)
    varied = _varied(found, jobs)
    found.sort(key=lambda run: [_order(run.parameters.get(name)) for name in varied])
    lost = {job.stem: (job, failed[job.stem]) for job in jobs if job.stem in failed and job.stem not in {run.path.stem for run in found}}
    rows = [_row(run, varied) for run in found]
    rows += [{"run": name, "status": why, "seconds": None, **_arranged(job.all_values, varied)} for name, (job, why) in lost.items()]
    files.write_whole(folder / "results.csv", csv_text(rows))
    content = [{**run.made, "run": run.path.stem, "status": "done", "tables": dict(run.tables), "checked": _lines(run)} for run in found]
    content += [{"run": name, "status": why, "parameters": job.all_values} for name, (job, why) in lost.items()]
    files.write_whole(folder / "results.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    tables = _joined(found, varied)
    for name, lines in tables.items():
        files.write_whole(folder / f"{safe(name)}.csv", csv_text(lines))
    page = folder / "index.html"
    files.write_whole(page, _page(jobs[0], found, rows, varied, older, folder, tables))
    return page


def _joined(found: Sequence[Executed], varied: Sequence[str]) -> dict[str, list[dict]]:
    """Every table with the rows of all runs, each with the parameters of its run before it."""
    tables: dict[str, list[dict]] = {}
    for run in found:
        for name, rows in run.tables:
            tables.setdefault(name, []).extend({**_settings(run, varied), **row} for row in rows)
    return tables


def _varied(found: Sequence[Executed], jobs: Sequence[Job]) -> list[str]:
    """The parameters that are not the same in all runs, in the order of their declaration."""
    every = [run.parameters for run in found] + [job.all_values for job in jobs]
    return [name for name in jobs[0].declared if len({repr(each.get(name)) for each in every}) > 1]


def _order(value: object) -> tuple[bool, float, str]:
    is_number = isinstance(value, (int, float))
    return not is_number, float(value) if is_number else 0.0, str(value)


def _settings(run: Executed, varied: Sequence[str]) -> dict:
    return {name: run.parameters.get(name) for name in varied}


def _arranged(values: Mapping[str, object], varied: Sequence[str]) -> dict:
    return {**{name: values.get(name) for name in varied}, **values}


def _row(run: Executed, varied: Sequence[str]) -> dict:
    claims = {row["claim"]: row["yours"] for row in run.claims}
    return {"run": run.path.stem, "status": "done", "seconds": run.made["seconds"], **_arranged(run.parameters, varied), **claims}


def _lines(run: Executed) -> dict[str, str]:
    return {name: text for name, (_, text) in run.checked.items()}


def _page(
    job: Job, found: Sequence[Executed], rows: Sequence[dict], varied: Sequence[str], older: int, folder: Path, tables: Mapping[str, list[dict]],
) -> str:  # fmt: skip
    shared = ", ".join(f"{name} = {value}" for name, value in job.all_values.items() if name not in varied)
    left = f"<p>Left out: {older} runs of an earlier version of the notebook or of the code.</p>" if older else ""
    versions = sorted({f"{run.made['commit']}, torch {run.made['versions']['torch']}, {run.made['machine']['processor']}" for run in found})
    parts = [
        f"<h1>{_e(job.path.stem)}: {len(rows)} runs over {_e(', '.join(varied) or 'nothing')}</h1>",
        f"<p>All with {_e(shared or 'nothing else')}. Made by {_e('; '.join(versions))}.</p>{left}",
        '<p><a href="results.csv">results.csv</a>, <a href="results.json">results.json</a></p>',
        _table(found, rows, varied), *_others(tables), *_figures(found, varied, folder), *_checked(found, varied),
    ]
    return f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_e(job.path.stem)}</title><style>{STYLE}</style></head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _e(text: object) -> str:
    return html.escape(str(text))


def _table(found: Sequence[Executed], rows: Sequence[dict], varied: Sequence[str]) -> str:
    sentences = list(dict.fromkeys(row["claim"] for run in found for row in run.claims))
    agrees = {run.path.stem: {row["claim"]: row.get("agrees", True) for row in run.claims} for run in found}
    head = "".join(f"<th>{_e(name)}</th>" for name in [*varied, "run", "seconds", *sentences])
    body = []
    for row in rows:
        cells = [f"<td>{_e(row[name])}</td>" for name in varied]
        if row["status"] == "done":
            cells += [f'<td><a href="runs/{_e(row["run"])}.ipynb">notebook</a></td><td>{row["seconds"]:.1f}</td>']
            cells += [f"<td{'' if agrees[row['run']].get(each, True) else ' class=differs'}>{_e(row.get(each, ''))}</td>" for each in sentences]
        else:
            cells.append(f'<td class="failed" colspan="{2 + len(sentences)}">{_e(row["status"])}</td>')
        body.append(f"<tr>{''.join(cells)}</tr>")
    note = "<p>A claim that does not come out as the text of the notebook states it has a coloured cell.</p>" if sentences else ""
    return f"<table><tr>{head}</tr>\n" + "\n".join(body) + f"</table>{note}"


def _others(tables: Mapping[str, list[dict]]) -> list[str]:
    """The tables beside the claims, one of all runs each."""
    parts = []
    for name, rows in tables.items():
        if name == "claims":
            continue
        columns = columns_of(rows)
        head = "".join(f"<th>{_e(column)}</th>" for column in columns)
        body = "\n".join("<tr>" + "".join(f"<td>{_e(row.get(column, ''))}</td>" for column in columns) + "</tr>" for row in rows)
        parts.append(f'<h2>{_e(name)}</h2><p><a href="{_e(safe(name))}.csv">{_e(safe(name))}.csv</a></p><table><tr>{head}</tr>\n{body}</table>')
    return parts


def _figures(found: Sequence[Executed], varied: Sequence[str], folder: Path) -> list[str]:
    """Each figure of the notebook once for every run, side by side; the pictures lie in a folder beside the page."""
    parts, names = [], dict.fromkeys(figure.name for run in found for figure in run.figures)
    if names:
        (folder / "figures").mkdir(exist_ok=True)
    for name in names:
        shown = [(run, figure) for run in found for figure in run.figures if figure.name == name]
        parts.append(f"<h2>{_e(name)}</h2><p>{_e(shown[0][1].caption)}</p><div class=\"small\">")
        for run, figure in shown:
            file = f"{safe(name)}-{run.path.stem}.{figure.kind}"
            files.write_whole(folder / "figures" / file, figure.content)
            words = _words(run, varied)
            alt = _e(f"{words}: {figure.alt or name}")
            parts.append(f'<figure><img loading="lazy" src="figures/{_e(file)}" alt="{alt}"><figcaption>{_e(words)}</figcaption></figure>')
        parts.append("</div>")
    return parts


def _checked(found: Sequence[Executed], varied: Sequence[str]) -> list[str]:
    """The lines that the tests compare, a run below the other."""
    parts, headings = [], {name: heading for run in found for name, (heading, _) in run.checked.items()}
    for name, heading in headings.items():
        body = "".join(f"<tr><td>{_e(_words(run, varied))}</td><td><pre>{_e(run.checked[name][1])}</pre></td></tr>" for run in found if name in run.checked)
        parts.append(f"<h2>{_e(heading or name)}</h2><table>{body}</table>")
    return parts


def _words(run: Executed, varied: Sequence[str]) -> str:
    return ", ".join(f"{name} = {run.parameters.get(name)}" for name in varied) or run.path.stem
