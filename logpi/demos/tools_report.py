"""The report of `logpi tools-demo`: one table and one picture, read from the runs' directories.

    OUT/EXPERIMENT.txt    the table
    OUT/EXPERIMENT.json   every seed's numbers
    OUT/EXPERIMENT.png    curves, means over seeds

Left out: training (`tools.py`), and any measure that the runs did not take themselves.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from logpi.runs import disk
from logpi.runs.comparison import interval
from logpi.runs.metrics import read_metrics

if TYPE_CHECKING:
    from logpi.demos.tools_experiments import Experiment

MEAN = "mean/"  # before a metric's name: averaged over all updates

Records = Sequence[Mapping[str, Any]]


def report(
    name: str, experiment: Experiment, runs: Mapping[str, Sequence[Path]], out: Path
) -> None:
    """Print and write the report.

    runs: each lane's directories of reinforcement learning, one for each seed.
    """
    from logpi.runs.plots import curves

    records = {label: [read_metrics(run) for run in some] for label, some in runs.items()}
    ends = {
        label: [_ends(seed, experiment.columns) for seed in some] for label, some in records.items()
    }
    text = _table(experiment, ends)
    kept = {
        label: [
            {
                "run": str(run),
                **{
                    stage: {k: v for k, v in row.items() if k in experiment.columns}
                    for stage, row in pair.items()
                },
            }
            for run, pair in zip(runs[label], some, strict=True)
        ]
        for label, some in ends.items()
    }
    disk.write(out / f"{name}.txt", (text + "\n").encode())
    disk.write(out / f"{name}.json", json.dumps(kept, indent=1).encode())
    picture = curves(
        {label: averaged(some) for label, some in records.items()},
        experiment.panels,
        out / f"{name}.png",
        f"{experiment.title}, mean of {len(next(iter(runs.values())))} seed(s)",
    )
    print(
        f"\n{text}\n\npicture: {picture}   numbers: {out / name}.json   one conversation: logpi"
        f" inspect {runs[next(iter(runs))][0]}"
    )


def _ends(records: Records, columns: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """The evaluations before and after reinforcement learning. A column `mean/X` is the mean of X
    over all updates, which says how fast the policy learned."""
    measured = [r for r in records if "eval/pass@1" in r]
    names = {c: c.removeprefix(MEAN) for c in columns if c.startswith(MEAN)}
    means = {c: fmean(r[name] for r in records if name in r) for c, name in names.items()}
    return {"SFT": measured[0], "RL": {**measured[-1], **means}}


def averaged(seeds: Sequence[Records]) -> list[dict[str, Any]]:
    """The mean over seeds of every number, step by step, where all seeds have it.

    >>> one, two = [{"step": 1, "reward": 0.0}], [{"step": 1, "reward": 1.0}]
    >>> averaged([one, [*two, {"step": 2, "reward": 1.0}]])
    [{'step': 1, 'reward': 0.5}]
    """
    values: defaultdict[int, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for records in seeds:
        for record in records:
            for key, value in record.items():
                if isinstance(value, int | float) and key != "step":
                    values[record["step"]][key].append(value)
    means = (
        (step, {k: fmean(v) for k, v in some.items() if len(v) == len(seeds)})
        for step, some in sorted(values.items())
    )
    return [{"step": step, **some} for step, some in means if some]


def _table(
    experiment: Experiment, ends: Mapping[str, Sequence[Mapping[str, Mapping[str, Any]]]]
) -> str:
    """Lanes before and after, means over seeds; then what is compared, seed by seed."""
    columns = experiment.columns
    lines = [f"{experiment.title:<34}" + "".join(f"{h:>12}" for h, _ in columns.values())]
    for label, seeds in ends.items():
        for when in ("SFT", "RL"):
            cells = [
                _mean([s[when] for s in seeds], key, spec) for key, (_, spec) in columns.items()
            ]
            lines.append(f"{label:<24}{when:<10}" + "".join(f"{c:>12}" for c in cells))
    if len(next(iter(ends.values()))) > 1:
        for key in experiment.compared:
            lines += [
                "",
                f"{columns[key][0]}, RL, seed by seed (mean ± 95 %, Student's t):",
                *_by_seed(ends, key, columns[key][1]),
            ]
    return "\n".join(lines)


def _by_seed(
    ends: Mapping[str, Sequence[Mapping[str, Mapping[str, Any]]]], key: str, spec: str
) -> Iterator[str]:
    """Every lane, and how far the first is ahead of it on the same seeds."""
    of = {label: [s["RL"][key] for s in seeds] for label, seeds in ends.items()}
    first = next(iter(of))
    ahead = {
        f"{first} ahead of {label}": [a - b for a, b in zip(of[first], v, strict=True)]
        for label, v in of.items()
        if label != first
    }
    for label, values in (of | ahead).items():
        mean, half = interval(values)
        yield (
            f"{label:<34}{' '.join(spec.format(v) for v in values)}   ({spec.format(mean)} ±"
            f" {spec.format(half)})"
        )


def _mean(rows: Records, key: str, spec: str) -> str:
    values = [r[key] for r in rows if key in r]
    return spec.format(fmean(values)) if values else "–"
