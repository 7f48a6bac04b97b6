"""`logpi view --static DIR`: the same page as files that open without a server.

    DIR/index.html  page/ …                  the page, as one script: a file may load no modules
    DIR/data/index.js                        the list of runs
    DIR/data/ID/run.js metrics.js samples.js a run; samples of its first, best and last step alone
    DIR/data/ID/curves.png …                 its pictures

Data are scripts that put a value (`page/source_files.js`): a browser loads nothing else from a
file. Left out: the rest of the responses, and a run that goes on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logpi.errors import UserError
from logpi.runs.disk import refuse_unwritable, reported
from logpi.viewer.files import ViewError
from logpi.viewer.json_answer import finite
from logpi.viewer.mathematics import objectives_json
from logpi.viewer.metrics_tail import columns, read_on
from logpi.viewer.run_page import picture, run_json
from logpi.viewer.runs_index import FoundRun, RunsIndex
from logpi.viewer.sample_page import sample_json
from logpi.viewer.samples_index import SamplesIndex

if TYPE_CHECKING:
    from logpi.viewer.files import Folders

PAGE = Path(__file__).parent / "page"
ROWS, TOKENS = 64, 4000
NOTE = (
    f"Written to files: responses of the first, the best and the last step, at most {ROWS} of each"
)


def write(folders: Folders, directory: Path) -> str:
    """Write the page into a directory that is empty, or that it wrote before. Returns a line for
    people.

    Raises:
        UserError: there is no run, or the directory holds something else, or it is inside a run.
        RunError: the disk failed.
    """
    runs = RunsIndex(folders)
    found = runs.runs()
    _check(directory, found)
    with reported(f"write {directory}", "give another --static"):
        _write_page(directory)
        records = [runs.record(run) for run in found]
        objectives = objectives_json([(r.command, r.arguments) for r in records])
        files = {
            run.id: _write_run(runs, run, objective, directory / "data" / run.id)
            for run, objective in zip(found, objectives, strict=True)
        }
        index = {"note": NOTE, "runs": runs.listed(), "files": files}
        (directory / "data" / "index.js").write_text(f"window.__logpi = {_script(index)};\n")
    return f"{directory / 'index.html'}   {len(found)} run{'s' * (len(found) != 1)}"


def _check(directory: Path, found: Sequence[FoundRun]) -> None:
    """Raises UserError if the page cannot be written there."""
    if not found:
        raise UserError("there is no run to write a page of")
    refuse_unwritable(directory, "give another --static")
    real = directory.resolve()
    inside = next((run for run in found if run.path == real or run.path in real.parents), None)
    if inside is not None:
        raise UserError(f"{directory} is inside the run {inside.shown}: give another --static")
    if directory.is_file():
        raise UserError(f"{directory} is a file: give another --static")
    own = (directory / "data" / "index.js").is_file()
    if directory.exists() and not own and any(directory.iterdir()):
        raise UserError(f"{directory} is not empty: give another --static")


def _write_page(directory: Path) -> None:
    from logpi.viewer.bundle import index_html, one_script

    for name in ("page", "data"):
        shutil.rmtree(directory / name, ignore_errors=True)
    (directory / "page").mkdir(parents=True)
    (directory / "data").mkdir()
    shutil.copytree(PAGE / "vendor", directory / "page" / "vendor")
    for name in ("style.css", "icon.svg"):
        shutil.copyfile(PAGE / name, directory / "page" / name)
    (directory / "page" / "logpi.js").write_text(one_script(), encoding="utf-8")
    (directory / "index.html").write_text(index_html(), encoding="utf-8")


def _write_run(
    runs: RunsIndex, run: FoundRun, objective: dict[str, Any], home: Path
) -> dict[str, Any]:
    """One run's files; returns which there are."""
    home.mkdir()
    index = SamplesIndex(runs.folders, run.path)
    shown = run_json(runs, run, index.kinds())
    metrics = _metrics(runs, run, shown["metrics"])
    samples = list(_samples(index, runs, run, metrics))
    parts = {"run": {"run": shown, "objective": objective}, "metrics": {"metrics": metrics}}
    parts |= {"samples": {"samples": samples}} if samples else {}
    for name, values in parts.items():
        puts = (
            f"__logpi.put({_script(f'{run.id}/{k}')}, {_script(v)});\n" for k, v in values.items()
        )
        (home / f"{name}.js").write_text("".join(puts))
    pictures = {}
    for name in shown["pictures"]:
        with suppress(ViewError):
            (home / name).write_bytes(picture(runs.folders, run, name)[0])
            pictures[name] = f"data/{run.id}/{name}"
    return {"parts": list(parts), "pictures": pictures}


def _metrics(runs: RunsIndex, run: FoundRun, names: Sequence[str]) -> dict[str, Any]:
    """All that was logged."""
    records, end, more = [], 0, True
    while more:
        try:
            with runs.folders.open(run.path / "metrics.jsonl") as file:
                reading = read_on(file, end)
        except ViewError:
            break
        records, end, more = records + reading.records, reading.end, reading.more
    return columns(records, names)


def _samples(
    index: SamplesIndex, runs: RunsIndex, run: FoundRun, metrics: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """The responses that the page holds, in their order."""
    for kind, steps in index.kinds().items():
        for step in _few(steps, metrics):
            with suppress(ViewError):
                count = len(index.file(kind, step))
                for row in range(min(count, ROWS)):
                    place, window = (kind, step, row), (0, TOKENS)
                    yield sample_json(index, runs.record(run), place, window)


def _few(steps: Sequence[int], metrics: dict[str, Any]) -> list[int]:
    """The first, the best and the last of some steps.

    >>> _few([1, 2, 3, 4], {"step": [1, 2, 3, 4], "columns": {"reward": [0.1, 0.9, 0.3, 0.4]}})
    [1, 2, 4]
    """
    rewards = dict(zip(metrics["step"], metrics["columns"].get("reward", ()), strict=False))
    known = [step for step in steps if rewards.get(step) is not None]
    best = max(known, key=lambda step: rewards[step], default=None)
    few = {*steps[:1], *steps[-1:], *([best] if best is not None else [])}
    return sorted(few)


def _script(value: Any) -> str:
    """A value as JavaScript, in ASCII."""
    return json.dumps(finite(value), allow_nan=False)
