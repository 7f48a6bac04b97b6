"""A run given back, finished or still running: its metrics as arrays, samples, pictures, policy.

    run = RunView("runs/rl-1")
    steps, rewards = run.metrics["reward"]
    run.metrics.to_pandas();  run.samples();  run.curves();  run.policy()

It takes no lock and writes nothing. Left out: going on with a run (`Run.open`), and loading models:
who opens the run says how (`logpi.open_run` knows every kind of model).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from logpi.errors import RunError, nearest
from logpi.runs.directory import read_arguments
from logpi.runs.disk import reported
from logpi.runs.metrics import is_time, names, read_metrics, read_rows
from logpi.runs.plots import curves_figure
from logpi.runs.progress import number

# Metrics that a picture shows first, where they are there.
DRAWN = (
    *("reward", "reward_100", "loss", "accuracy", "entropy", "kl"),
    *("completions/mean_length", "grad_norm"),
)


class Series(NamedTuple):
    """One metric as it was logged.

    Attributes:
        steps: [N] int64, ascending. values: [N] float64.
    """

    steps: np.ndarray
    values: np.ndarray


class Metrics(Mapping[str, Series]):
    """Every metric of a run by its name: `steps, values = metrics["reward"]`.

    A notebook shows the last value of each.
    """

    def __init__(self, records: Sequence[Mapping[str, Any]]) -> None:
        self._records = records
        self._names = names(records)

    def __getitem__(self, name: str) -> Series:
        pairs = {r["step"]: r[name] for r in self._records if isinstance(r.get(name), int | float)}
        if not pairs:
            raise KeyError(f"no metric {name!r}; {nearest(name, self._names)}")
        steps = np.array(sorted(pairs), dtype=np.int64)
        return Series(steps, np.array([pairs[s] for s in steps.tolist()], dtype=np.float64))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame`: a row for each step, a column for each metric, NaN where none was
        logged. Needs pandas."""
        import pandas  # pyright: ignore[reportMissingModuleSource]

        columns = {name: dict(zip(*self[name], strict=True)) for name in self}
        return pandas.DataFrame(columns).rename_axis("step").sort_index()

    def _repr_html_(self) -> str:
        rows = ((name, *(column[-1] for column in self[name])) for name in self)
        lines = (
            f"<tr><td>{escape(name)}</td><td>{step}</td><td>{number(value)}</td></tr>"
            for name, step, value in rows
        )
        head = "<tr><th>metric</th><th>step</th><th>last value</th></tr>"
        return f"<table>{head}{''.join(lines)}</table>"


class RunView:
    """A run to read, finished or still running.

    Attributes:
        path: the directory. command, arguments: what it runs. model: where its final model is.

    Args:
        load: loads the policy of the run, given its view.

    Raises:
        RunError: there is no run at `path`.
    """

    def __init__(self, path: str | Path, load: Callable[[RunView], Any] | None = None) -> None:
        self.path = Path(path)
        self.model = self.path / "model"
        self.command, self.arguments = read_arguments(path)
        self._load = load

    @property
    def metrics(self) -> Metrics:
        """What was logged so far; read anew each time."""
        with reported(f"read {self.path / 'metrics.jsonl'}"):
            return Metrics(read_metrics(self.path))

    def sample_steps(self, kind: str = "step") -> list[int]:
        """The steps that have samples, ascending. kind: "step" (of training) or "eval"."""
        return sorted(self._sample_files(kind))

    def samples(self, step: int | None = None, kind: str = "step") -> list[dict[str, Any]]:
        """The responses of a step as they were judged; the last that has any, by default.

        Raises:
            RunError: there are none, or they cannot be read.
        """
        files = self._sample_files(kind)
        if not files:
            raise RunError(f"{self.path} {self._elsewhere()}")
        step = max(files) if step is None else step
        if step not in files:
            raise RunError(
                f"{self.path} has no samples of step {step}; it has steps {min(files)} …"
                f" {max(files)}"
            )
        with reported(f"read {files[step]}"):
            return list(read_rows(files[step]))

    def _elsewhere(self) -> str:
        """Where responses are that no update of this run sampled."""
        files = [self.path / name for name in ("responses.jsonl", "samples.jsonl")]
        if here := [str(f) for f in files if f.is_file()]:
            return f"has no updates with samples; its responses are in {here[0]}"
        if stages := sorted(str(f.parent) for f in self.path.glob("*/samples")):
            return f"has no samples of its own; runs in it that have some: {', '.join(stages)}"
        return "has no samples yet: a run of `logpi rl` keeps those of every update"

    def _sample_files(self, kind: str) -> dict[int, Path]:
        pattern = re.compile(rf"{re.escape(kind)}-([0-9]+)\.jsonl")
        named = ((pattern.fullmatch(f.name), f) for f in (self.path / "samples").glob("*.jsonl"))
        return {int(name[1]): file for name, file in named if name and file.is_file()}

    def curves(self, names: Sequence[str | tuple[str, ...]] = (), title: str = "") -> Any:
        """Metrics against steps as a `matplotlib.figure.Figure`, which a notebook shows.

        Args:
            names: one panel each; a tuple shares a panel. By default those that matter first.

        Raises:
            UserError: none of them was logged, or matplotlib is not installed.
        """
        records = read_metrics(self.path)
        label = self.path.resolve().name
        return curves_figure({label: records}, names or _drawn(records), title)

    @cached_property
    def _policy(self) -> Any:
        if self._load is None:
            raise RunError(f"nothing here knows the model of {self.path}; use logpi.open_run")
        if not self.model.is_dir():
            raise RunError(f"{self.path} has no model: it is saved when the run ends")
        return self._load(self)

    def policy(self) -> Any:
        """The final model; loaded once, when it is first asked for.

        Raises:
            RunError: the run has not ended.
        """
        return self._policy

    def __repr__(self) -> str:
        return f"<{self.command} run {self.path}>"

    def _repr_html_(self) -> str:
        head = f"<p><b>{escape(self.command)}</b> run <code>{escape(str(self.path))}</code></p>"
        return head + self.metrics._repr_html_()


def _drawn(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of a picture's panels: the known ones and the first evaluation, else the first
    six."""
    logged = [name for name in names(records) if not is_time(name)]
    first = [name for name in logged if name.startswith("eval/")][:1]
    return [*(n for n in DRAWN if n in logged), *first] or logged[:6]
