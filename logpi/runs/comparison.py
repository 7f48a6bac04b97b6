"""Runs side by side: the arguments that differ, and means over runs that differ by seed alone.

Runs of one seed are not independent, so they count as one.

Left out: reading runs (`summary.py` takes their records), and pictures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logpi.runs.summary import Summary

# Student's t, 97.5 % quantile, with 1 … 9 degrees of freedom
_T95 = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
# arguments that say where and when a run goes on, not what it is
PLACES = ("out", "resume", "repeat", "at_once", "trust")
# what stands for an entry of a mapping that a run was not given: `options.beta` of `--beta`
DEFAULT = "(default)"
# besides the chief metric and the first measure of an evaluation
MATTER = ("completions/mean_length", "episode_length", "entropy", "kl", "step_time")


def _t95(freedom: int) -> float:
    """The 97.5 % quantile of Student's t; beyond the table by its expansion around the normal's z
    (to 0.003)."""
    if freedom <= len(_T95):
        return _T95[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval (Student's t over seeds; NaN for one seed).

    >>> interval([1.0, 2.0, 3.0])[0]
    2.0
    """
    n = len(values)
    if n < 2:
        return fmean(values), math.nan
    return fmean(values), _t95(n - 1) * stdev(values) / math.sqrt(n)


@dataclass(frozen=True)
class ComparedRun:
    """A run as it is compared.

    Attributes:
        label: short and its own. command, arguments: what it runs. summary: of its metrics.
    """

    label: str
    command: str
    arguments: Mapping[str, Any]
    summary: Summary

    @property
    def flat(self) -> dict[str, Any]:
        """Its arguments with those of mappings one by one: `options.beta`."""
        return {"command": self.command, **_flat(self.arguments)}


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ by seed alone.

    Attributes:
        label: what differs from the other groups. runs: their numbers, from 0. seeds: the same
            numbers by seed, those of one seed together.
    """

    label: str
    runs: tuple[int, ...]
    seeds: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        differing: (argument, its value in each run); None where a run has none, `DEFAULT` where an
            entry of a mapping was not given.
        groups: of runs that differ by seed alone.
        columns, rows: the table: a row for each group, None where nothing was measured; n counts
            seeds.
        notes: which runs share a seed, a line each.
    """

    differing: tuple[tuple[str, tuple[Any, ...]], ...]
    groups: tuple[RunGroup, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]
    notes: tuple[str, ...] = ()


def compare(runs: Sequence[ComparedRun]) -> Comparison:
    """Compare runs, at least one.

    >>> from logpi.runs.summary import Summary
    >>> def run(label, lr, seed, reward):
    ...     summary = Summary()
    ...     summary.add([{"step": 1, "reward": reward}])
    ...     return ComparedRun(label, "rl", {"lr": lr, "seed": seed}, summary)
    >>> c = compare([run("a", 1e-3, 0, 0.5), run("b", 1e-3, 1, 0.7), run("c", 1e-4, 0, 0.1)])
    >>> c.differing
    (('lr', (0.001, 0.001, 0.0001)), ('seed', (0, 1, 0)))
    >>> [(g.label, g.runs) for g in c.groups]
    [('lr=0.001', (0, 1)), ('lr=0.0001', (2,))]
    >>> c.columns[:3], c.rows[0][:3], c.rows[1]
    (('runs', 'n', 'reward'), ('lr=0.001', 2, 0.6), ('lr=0.0001', 1, 0.1, None))
    """
    flats = _with_defaults(runs)
    differing = tuple(_differing(flats))
    groups = tuple(_groups(runs, flats, [name for name, _ in differing]))
    columns, rows = _table(runs, groups)
    return Comparison(differing, groups, columns, rows, tuple(_notes(runs, groups)))


def _flat(arguments: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in arguments.items():
        if isinstance(value, Mapping) and value.keys() != {"object", "fingerprint"}:
            flat |= _flat(value, f"{before}{name}.")
        elif before or name not in PLACES:
            flat[before + name] = value
    return flat


def _with_defaults(runs: Sequence[ComparedRun]) -> list[dict[str, Any]]:
    """The arguments of each run, with `DEFAULT` for an entry that another run's mapping has.

    a   options {"beta": 0}    options.beta 0
    b   options {}             options.beta (default)
    c   none: an older run     nothing, which is no difference
    """
    flats = [run.flat for run in runs]
    names = dict.fromkeys(name for flat in flats for name in flat if "." in name)
    return [
        {n: DEFAULT for n in names if n.partition(".")[0] in run.arguments} | flat
        for run, flat in zip(runs, flats, strict=True)
    ]


def _same(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _differing(flats: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for name in dict.fromkeys(name for flat in flats for name in flat):
        # a run of an older version lacks whole options: that is no difference
        if len({_same(flat[name]) for flat in flats if name in flat}) > 1:
            yield name, tuple(flat.get(name) for flat in flats)


def _groups(
    runs: Sequence[ComparedRun], flats: Sequence[Mapping[str, Any]], differing: Sequence[str]
) -> Iterator[RunGroup]:
    names = [name for name in differing if name != "seed"]
    members: dict[str, list[int]] = {}
    for i, flat in enumerate(flats):
        members.setdefault(_same([flat.get(name) for name in names]), []).append(i)
    for numbers in members.values():
        run, flat = runs[numbers[0]], flats[numbers[0]]
        words = [f"{name}={word(flat.get(name))}" for name in names if flat.get(name) is not None]
        alone = run.label if len(numbers) == 1 else ""
        seeds: dict[str, list[int]] = {}
        for i in numbers:
            seeds.setdefault(_same(flats[i].get("seed")), []).append(i)
        by_seed = tuple(map(tuple, seeds.values()))
        yield RunGroup(" ".join(words) or alone or _name(run), tuple(numbers), by_seed)


def _notes(runs: Sequence[ComparedRun], groups: Sequence[RunGroup]) -> Iterator[str]:
    for same in (s for group in groups for s in group.seeds if len(s) > 1):
        seed = runs[same[0]].arguments.get("seed")
        kind = "no seed" if seed is None else f"the same seed ({seed})"
        labels = ", ".join(runs[i].label for i in same[:4]) + (" …" if len(same) > 4 else "")
        yield f"{len(same)} runs have {kind} and count as one, by their mean: {labels}"


def _name(run: ComparedRun) -> str:
    method = run.arguments.get("algorithm")
    return f"{run.command} {method}" if isinstance(method, str) else run.command


def word(value: Any) -> str:
    """An argument's value in a table.

    >>> word(1e-05), word([64, 64]), word({"object": "function f", "fingerprint": "0"})
    ('1e-05', '[64, 64]', 'function f')
    """
    if isinstance(value, Mapping) and "object" in value:
        return str(value["object"])
    return value if isinstance(value, str) else "–" if value is None else json.dumps(value)


def least_is_best(name: str) -> bool:
    """Less of a loss and of perplexity is better."""
    return name.endswith(("loss", "perplexity"))


def _table(
    runs: Sequence[ComparedRun], groups: Sequence[RunGroup]
) -> tuple[tuple[str, ...], tuple[tuple[str | float | None, ...], ...]]:
    """Last values, and of an evaluation's first measure also the best one; each with its interval
    where a group has several seeds."""
    measures = list(_measures(runs))
    head = ["runs", "n"]
    for title, _ in measures:
        head += [title, "± 95 %"]
    rows = []
    for group in groups:
        cells: list[str | float | None] = [group.label, len(group.seeds)]
        for _, values in measures:
            known = list(_by_seed(group, values))
            mean, half = interval(known) if known else (math.nan, math.nan)
            cells += [_finite(mean), _finite(half)]
        rows.append(tuple(cells))
    return tuple(head), tuple(rows)


def _by_seed(group: RunGroup, values: Sequence[float | None]) -> Iterator[float]:
    """One value for each seed of a group that has any."""
    for same in group.seeds:
        if known := [v for i in same if (v := values[i]) is not None]:
            yield fmean(known)


def _measures(runs: Sequence[ComparedRun]) -> Iterator[tuple[str, list[float | None]]]:
    """(title, value of each run) of what is compared."""
    chiefs = [run.summary.chief for run in runs]
    evaluated = [run.summary.evaluated for run in runs]
    chief = [name for name in dict.fromkeys(chiefs) if name and not name.startswith("eval/")]
    first = [name for name in dict.fromkeys(evaluated) if name]
    for name in [*chief, *first]:
        yield name, [run.summary.last.get(name) for run in runs]
    for name in first:
        least = least_is_best(name)
        found = [(run.summary.least if least else run.summary.best).get(name) for run in runs]
        yield f"best {name}", found
    for name in MATTER:
        if any(name in run.summary.last for run in runs):
            yield name, [run.summary.last.get(name) for run in runs]


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
