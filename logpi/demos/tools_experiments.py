"""The experiments of `logpi tools-demo`: which lanes are compared, and what is shown of them.

Left out: running them (`tools.py`), and the report (`tools_report.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Lane:
    """A line of the table.

    Attributes:
        label: for people. task: of its demonstrations and its rewards.
        model: the directory of the model that demonstrations made; run: that of its reinforcement
            learning.
        rewards: the task's own if empty. mask: train on nothing that was read.
    """

    label: str
    task: str
    model: str
    run: str = "rl"
    rewards: tuple[str, ...] = ()
    mask: bool = True


@dataclass(frozen=True)
class Experiment:
    """Lanes that are compared.

    Attributes:
        seeds: as a default. sft_steps, steps, tokens: updates of either stage, and tokens that the
            policy may write.
        columns: metric → (heading, format) of the table; `mean/X` is the mean of X over all
            updates. compared: those of them that are shown seed by seed. panels: of the picture.
    """

    title: str
    lanes: tuple[Lane, ...]
    seeds: int
    sft_steps: int
    steps: int
    tokens: int
    columns: Mapping[str, tuple[str, str]]
    panels: tuple[str | tuple[str, ...], ...]
    compared: tuple[str, ...] = ("eval/pass@1", "mean/reward")


SEARCH = Lane("search", "facts", "search")


_ASKED = {
    "eval/pass@1": ("right", "{:.1%}"),
    "eval/level_1/pass@1": ("one hop", "{:.1%}"),
    "eval/level_2/pass@1": ("two hops", "{:.1%}"),
    "eval/tools/searches": ("searches", "{:.2f}"),
    "mean/reward": ("on the way", "{:.3f}"),
}


_GRAINS = tuple(
    f"tool_calls('{grain}', 'python', low=0, high=1, name='{grain}')" for grain in ("fine", "all")
)


_CALLED = {
    "eval/pass@1": ("all right", "{:.1%}"),
    "eval/level_1/pass@1": ("one call", "{:.1%}"),
    "eval/level_2/pass@1": ("two calls", "{:.1%}"),
    "eval/fine": ("fine score", "{:.3f}"),
    "eval/mean_length": ("tokens", "{:.1f}"),
    "mean/rewards/fine/mean": ("on the way", "{:.3f}"),
}


def _calls(label: str, run: str, first: int, *more: str) -> Lane:
    """Both grains are measured, one is rewarded; either has its full mark where every call is
    right."""
    return Lane(
        label, "calls(most=2)", "calls", run, (_GRAINS[first], f"{_GRAINS[1 - first]}:0", *more)
    )


EXPERIMENTS = {
    "search": Experiment(
        "questions about generated worlds",
        (
            SEARCH,
            Lane("documents up front", "facts(mode='upfront')", "upfront"),
            Lane("no documents", "facts(mode='closed')", "closed"),
        ),
        1,
        300,
        30,
        48,
        _ASKED,
        ("eval/level_1/pass@1", "eval/level_2/pass@1", "reward", "tools/searches"),
    ),
    "mask": Experiment(
        "observation mask on and off",
        (
            Lane("masked", SEARCH.task, SEARCH.model),
            Lane("not masked", SEARCH.task, SEARCH.model, "unmasked", mask=False),
        ),
        3,
        300,
        30,
        48,
        _ASKED,
        ("eval/pass@1", "reward", "tools/searches", "entropy"),
    ),
    "calls": Experiment(
        "requests as function calls",
        (
            _calls("fine-grained", "fine", 0),
            _calls("all or nothing", "all", 1),
            _calls("fine + length", "length", 0, "tool_length(words=24):0.5"),
        ),
        1,
        400,
        40,
        96,
        _CALLED,
        ("eval/pass@1", "rewards/fine/mean", "completions/mean_length", "entropy"),
        ("eval/pass@1", "eval/fine"),
    ),
}
