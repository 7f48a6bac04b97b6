"""The options that vary in a sweep, and its cells: every combination, or those that Optuna chooses.

    Space.of(line, {"lr": ["1e-5", "3e-5"], "beta": ["0"]}, words)
    grid(space)      Cell(0, {"lr": "1e-5", "beta": "0"}), Cell(1, {"lr": "3e-5", "beta": "0"})

Left out: running them (`sweep.py`), and their results (`sweep_table.py`).
"""

from __future__ import annotations

import itertools
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from logpi.errors import UserError, did_you_mean, install
from logpi.jobs.options.command_line import CommandLine
from logpi.jobs.options.fields import OptionField

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(:log)?")


@dataclass(frozen=True)
class Axis:
    """One option with what it may be: some values, or a range.

    Attributes:
        name: as the user wrote it. field: the option. values: texts. low, high: of a range, as
            texts; log: in powers.
    """

    name: str
    field: OptionField
    values: tuple[str, ...] = ()
    low: str = ""
    high: str = ""
    log: bool = False

    def words(self, value: str) -> list[str]:
        """A value on the job's command line. A value of a list is one word: "64 64"."""
        flag = "--" + self.name.replace("_", "-")
        if self.field.kind.many:
            return [flag, *shlex.split(value)]
        if self.field.kind.item is bool:
            on = self.field.kind.read(value)
            return [flag if on else f"--no-{flag[2:]}"]
        return [f"{flag}={value}"]

    @property
    def whole(self) -> bool:
        """A range of whole numbers is one whose bounds are written so."""
        return all(re.fullmatch(r"[-+]?\d+", bound) for bound in (self.low, self.high))


@dataclass(frozen=True)
class Cell:
    """One combination.

    Attributes:
        number: its place. settings: option -> value as text. words: on the job's command line.
    """

    number: int
    settings: Mapping[str, str]
    words: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return " ".join(f"{k}={v}" for k, v in self.settings.items())

    @property
    def name(self) -> str:
        """Of its directory."""
        safe = re.sub(r"[^\w.+=-]+", "_", self.label.replace(" ", "-"))
        return f"{self.number:03d}-{safe[:80]}"


@dataclass(frozen=True)
class Space:
    """All axes."""

    axes: tuple[Axis, ...]

    @classmethod
    def of(cls, line: CommandLine, vary: Mapping[str, Any], words: Sequence[str]) -> Space:
        """The options of a job that vary, by the job's command line and its other words.

        Raises:
            UserError: an unknown option, or one without values.
        """
        fields = _fields(line, vary, words)
        axes = []
        for name, texts in vary.items():
            flag = "--" + name.replace("_", "-")
            if flag not in fields:
                raise UserError(f"unknown option {flag}{did_you_mean(flag, fields)}")
            values = [str(v) for v in (texts if isinstance(texts, list | tuple) else [texts])]
            if not values:
                raise UserError(f"{flag} has no values to try")
            axes.append(_axis(name, fields[flag], values))
        return cls(tuple(axes))

    def cell(self, number: int, values: Sequence[str]) -> Cell:
        """The combination of one value for each axis."""
        try:
            words = [w for a, v in zip(self.axes, values, strict=True) for w in a.words(v)]
        except ValueError as error:
            raise UserError(f"what varies: {error}") from None
        names = [a.name for a in self.axes]
        return Cell(number, dict(zip(names, values, strict=True)), tuple(words))


def _fields(
    line: CommandLine, vary: Mapping[str, Any], words: Sequence[str]
) -> dict[str, OptionField]:
    """Every flag of the job, with those of each algorithm that it may have."""
    defaults = {f.name: f.default for f in line.fields if not f.required}
    known = {**defaults, **line.peek(words)}
    fields = {w: f for f in line.fields for w in f.words}
    for name in vary.get("algorithm", [known.get("algorithm")]):
        for _, setting in line.settings({**known, "algorithm": name}):
            fields = {w: setting for w in setting.words} | fields
    return fields


def _axis(name: str, field: OptionField, values: Sequence[str]) -> Axis:
    span = _RANGE.fullmatch(values[0]) if len(values) == 1 else None
    if span is None:
        return Axis(name, field, tuple(values))
    low, high, log = span[1], span[2], bool(span[3])
    if float(low) >= float(high) or (log and float(low) <= 0):
        raise UserError(
            f"--{name}: a range goes from a lower bound to a higher one, not {values[0]}"
        )
    return Axis(name, field, low=low, high=high, log=log)


def grid(space: Space) -> list[Cell]:
    """Every combination. Raises UserError for a range, which has no end of values."""
    for axis in space.axes:
        if not axis.values:
            raise UserError(f"--{axis.name} is a range: say how many runs to look in, --trials 20")
    combinations = itertools.product(*(a.values for a in space.axes))
    return [space.cell(i, values) for i, values in enumerate(combinations)]


class Trials:
    """Where Optuna looks next (TPE, seeded: the same results lead to the same places)."""

    def __init__(self, space: Space) -> None:
        try:
            import optuna
        except ImportError:
            raise UserError(f"--trials needs Optuna: {install('sweep')}") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.optuna, self.space, self.told = optuna, space, 0
        self.done: list[Any] = []

    def ask(self, minimise: bool) -> Cell:
        """The next combination to try."""
        sampler = self.optuna.samplers.TPESampler(seed=self.told)
        direction = "minimize" if minimise else "maximize"
        study = self.optuna.create_study(direction=direction, sampler=sampler)
        study.add_trials(self.done)
        trial = study.ask(self._distributions())
        values = (trial.params[axis.name] for axis in self.space.axes)
        texts = [f"{v:.6g}" if isinstance(v, float) else str(v) for v in values]
        return self.space.cell(self.told, texts)

    def tell(self, cell: Cell, value: float) -> None:
        """Record the result of a combination; NaN: it failed."""
        self.told += 1
        distributions = self._distributions()
        params = {
            a.name: cell.settings[a.name] if a.values else _number(a, cell.settings[a.name])
            for a in self.space.axes
        }
        failed, states = math.isnan(value), self.optuna.trial.TrialState
        self.done.append(
            self.optuna.trial.create_trial(
                params=params,
                distributions=distributions,
                value=None if failed else value,
                state=states.FAIL if failed else states.COMPLETE,
            )
        )

    def _distributions(self) -> dict[str, Any]:
        kinds = self.optuna.distributions
        return {
            a.name: kinds.CategoricalDistribution(a.values)
            if a.values
            else kinds.IntDistribution(int(a.low), int(a.high), log=a.log)
            if a.whole
            else kinds.FloatDistribution(float(a.low), float(a.high), log=a.log)
            for a in self.space.axes
        }


def _number(axis: Axis, text: str) -> float:
    """A value of a range, which rounding may have put beside it."""
    return int(text) if axis.whole else min(max(float(text), float(axis.low)), float(axis.high))
