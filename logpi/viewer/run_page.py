"""One run as JSON: arguments, versions, the line to type, panels, pictures, tables, its log.

Everything is read from the run's directory when it is asked for. Left out: responses
(`samples_index.py`), and the curves themselves (`/metrics`).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logpi.runs.metric_table import panels
from logpi.runs.summary import number
from logpi.viewer.files import LARGEST_PICTURE, Folders, ViewError, read_json
from logpi.viewer.metrics_tail import columns, read_on

if TYPE_CHECKING:
    from logpi.viewer.runs_index import FoundRun, RunRecord, RunsIndex

# what a page shows as a picture -> its media type
PICTURES = {".png": "image/png", ".gif": "image/gif", ".mp4": "video/mp4"}
LOG_LINES, LOG_BYTES = 200, 2**16
Cell = str | float | None


def run_json(runs: RunsIndex, run: FoundRun, kinds: Mapping[str, list[int]]) -> dict[str, Any]:
    """The page of a run. kinds: the steps that have responses.

    Raises:
        ViewError: the run was deleted.
    """
    shown, record = runs.shown(run), runs.record(run)
    children = runs.below(run)
    versions: Any = {}
    with suppress(ViewError):
        versions = read_json(runs.folders, run.path / "versions.json")
    versions = versions if isinstance(versions, dict) else {}
    names = list(record.summary.names)
    return shown | {
        "arguments": record.arguments,
        "versions": versions,
        "line": _line(record, versions),
        "log": _log(runs.folders, run.path),
        "metrics": names,
        "panels": panels_json(names),
        "sample_kinds": kinds,
        "pictures": sorted(_pictures(runs.folders, run.path)),
        "tables": list(_tables(runs, record, children)),
        "seeds": [child.id for child in children],
    }


def panels_json(names: Sequence[str]) -> list[dict[str, Any]]:
    """The panels of these metrics."""
    return [
        {
            "title": panel.group.title,
            "metrics": panel.metrics,
            "meaning": panel.group.meaning.replace("`", ""),
            "worry": panel.group.worry.replace("`", ""),
            "band": panel.band,
            "log": panel.group.log,
        }
        for panel in panels(names)
    ]


def metrics_json(
    folders: Folders, run: FoundRun, names: Sequence[str], after: int
) -> dict[str, Any]:
    """Columns of the metrics that were logged behind a bookmark."""
    try:
        with folders.open(run.path / "metrics.jsonl") as file:
            reading = read_on(file, after)
    except ViewError as error:
        if error.status == 403:
            raise
        return columns([], names) | {"end": 0, "rewound": after > 0, "more": False}
    more = {"end": reading.end, "rewound": reading.rewound, "more": reading.more}
    return columns(reading.records, names) | more


def picture(folders: Folders, run: FoundRun, name: str) -> tuple[bytes, str]:
    """A picture of a run and its media type. Raises ViewError: it has none of this name."""
    if name not in _pictures(folders, run.path):
        raise ViewError(f"{run.shown} has no picture {name[:80]!r}")
    with folders.open(run.path / name) as file:
        data = file.read(LARGEST_PICTURE + 1)
    if len(data) > LARGEST_PICTURE:
        raise ViewError(f"{name} is too large to show")
    return data, PICTURES[Path(name).suffix]


def _pictures(folders: Folders, path: Path) -> set[str]:
    """Names of the pictures that lie in the run itself."""
    with suppress(OSError):
        there = [p for p in path.iterdir() if p.suffix in PICTURES and p.is_file()]
        return {p.name for p in there if folders.hold(p)}
    return set()


def _line(record: RunRecord, versions: Mapping[str, Any]) -> str:
    """What to type for this run: the words that began it, or to repeat it."""
    words = versions.get("command_line")
    if isinstance(words, list) and all(isinstance(w, str) for w in words) and len(words) > 1:
        program = Path(words[0]).name
        if program in ("logpi", "__main__.py") and words[1] == record.command:
            return shlex.join(["logpi", *words[1:]])
    return shlex.join(["logpi", "repeat", record.run.shown]) if record.command else ""


def _log(folders: Folders, path: Path) -> list[str]:
    """The end of the log beside a run, if there is one (several seeds have it)."""
    with suppress(ViewError), folders.open(path.with_name(f"{path.name}.log")) as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LOG_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
        return lines[1 if size > LOG_BYTES else 0 :][-LOG_LINES:]
    return []


# --- tables ---


def _tables(
    runs: RunsIndex, record: RunRecord, children: Sequence[FoundRun]
) -> Iterator[dict[str, Any]]:
    """Whatever of results, seeds and sweeps a run has."""
    path = record.run.path
    first = record.arguments.get("seed")
    for name, make in (
        ("results.json", _results),
        ("seeds.json", partial(_seeds, first if type(first) is int else 0)),
        ("sweep.json", _sweep),
        ("held_out.json", _numbers),
    ):
        # a damaged file, or one of another version, is left out
        with suppress(ViewError, AttributeError, KeyError, TypeError, ValueError):
            yield make(read_json(runs.folders, path / name))
    if record.summary.best:
        yield _evaluations(record)
    if children:
        yield _children(runs, children)


def _table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], note: str = ""
) -> dict[str, Any]:
    return {"title": title, "columns": list(columns), "rows": [list(r) for r in rows], "note": note}


def _results(results: Mapping[str, Any]) -> dict[str, Any]:
    """Of `logpi eval`: measures with intervals, and of each level."""
    levels = list(results["levels"])
    rows = [
        [name, *(number(e[k]) for k in ("mean", "low", "high"))]
        + [number(results["levels"][x].get(name, {}).get("mean")) for x in levels]
        for name, e in results["numbers"].items()
    ]
    rows += [[k, number(v), None, None, *[None] * len(levels)] for k, v in results["rest"].items()]
    note = f"{results['items']} items, {results['samples']} samples of each; 95 % intervals"
    head = ["measure", "mean", "low", "high", *(f"level {x}" for x in levels)]
    return _table("results", head, rows, note)


def _seeds(first: int, record: Mapping[str, Any]) -> dict[str, Any]:
    """Of several seeds, from `first` on: mean, half width of the interval, and each."""
    count = len(record["final"])
    rows = [
        [name, number(m["mean"]), number(m["interval95"]), *map(number, m["values"])]
        for name, m in record["measures"].items()
    ]
    head = ["measure", "mean", "± 95 %", *(f"seed {first + i}" for i in range(count))]
    return _table("seeds", head, rows, "last evaluation of each; Student's t over seeds")


def _sweep(record: Mapping[str, Any]) -> dict[str, Any]:
    """Of a sweep: the settings and the measure of each run."""
    cells = list(record["cells"].values())
    names = list(cells[0]["settings"])
    rows = []
    for cell in cells:
        settings = [str(cell["settings"].get(name)) for name in names]
        for run, result in cell["runs"].items():
            value = number(result["numbers"].get(record["measure"]))
            rows.append([run, *settings, value, result["failure"]])
    return _table("sweep", ["run", *names, record["measure"], "failure"], rows)


def _numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    rows = [[name, number(value)] for name, value in record.items()]
    return _table("held-out pairs", ["measure", "value"], rows)


def _evaluations(record: RunRecord) -> dict[str, Any]:
    """The last and the highest value of each measure of the evaluations in training."""
    summary = record.summary
    rows = [[name, summary.last.get(name), best] for name, best in summary.best.items()]
    return _table("evaluations", ["measure", "last", "highest"], rows)


def _children(runs: RunsIndex, children: Sequence[FoundRun]) -> dict[str, Any]:
    rows = []
    for child in children:
        with suppress(ViewError):
            r = runs.shown(child)
            rows.append([r[k] for k in ("path", "command", "state", "step", "metric", "reward")])
    return _table("runs inside", ["run", "command", "state", "step", "metric", "last"], rows)
