"""Why a stage of `logpi r1` lost accuracy, as its own run shows it, and what to set instead.

    reinforcement learning    it went far from its start; most groups had equal rewards; responses
                              were cut off; only its own prompts were learned; nothing was
    supervised                few rows; few passes over them

Each is a test of a stage's metrics, in this order, and the first that holds is the reason. They are
rules of thumb, not proofs; how far a stage went is known only where a KL penalty keeps a reference.
Left out: which stage lost (`r1_report.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

# nats a response from the stage's start: SmolLM2 lost a third of its accuracy at 4, nothing at 1
FAR = 2.0
# share of groups whose rewards are all equal
EQUAL = 0.7
CUT = 0.1
# demonstrations: SmolLM2 learned nothing from 33 and half from 53, where 96 and 500 were enough
FEW_ROWS = 96
LOW_LOSS = 0.1
ENDS = 5


@dataclass(frozen=True)
class Reason:
    """Why a stage lost, and settings of it (as --set takes them) or options that may help."""

    why: str
    remedy: str


def reason(job: str, name: str, path: Path) -> Reason:
    """Why the stage `name`, whose run is at `path`, lost."""
    from logpi.runs.metrics import read_metrics

    steps = [r for r in read_metrics(path) if "loss" in r]
    settings = json.loads((path / "arguments.json").read_text())["arguments"]
    return _of_rl(name, steps, settings) if job == "rl" else _of_sft(name, steps, settings)


def _of_rl(name: str, steps: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> Reason:
    first, last = steps[:ENDS], steps[-ENDS:]
    lr, prompts = settings["lr"], settings["prompts"]
    responses = prompts * settings["num_generations"]
    smaller = f"{name}.lr={lr / 3:.0e} {name}.prompts={2 * prompts}"
    far = _mean(last, "kl_sequence")
    if far > FAR:
        return Reason(
            f"its updates were too large: {far:.1f} nats a response from its start after"
            f" {len(steps)} updates of {responses} responses at lr {lr:g}",
            smaller,
        )
    equal = _mean(steps, "frac_reward_zero_std")
    if equal > EQUAL:
        return Reason(
            f"in {equal:.0%} of its groups all rewards were equal, and taught nothing",
            f"{name}.groups=resample {name}.num_generations={2 * settings['num_generations']}",
        )
    cut = _mean(last, "completions/clipped_ratio")
    if cut > CUT:
        longer = 2 * settings["max_completion_length"]
        return Reason(
            f"{cut:.0%} of its responses were cut off", f"{name}.max_completion_length={longer}"
        )
    began, ended = _mean(first, "reward"), _mean(last, "reward")
    if ended > began:
        return Reason(
            f"the reward of its own prompts rose ({began:.2f} to {ended:.2f}), that of others fell:"
            " it learned too few prompts",
            f"{name}.prompts={2 * prompts}, and more rows in --task",
        )
    return Reason(
        f"its reward did not rise ({began:.2f} to {ended:.2f} in {len(steps)} updates of"
        f" {responses} responses): the gradient was mostly noise",
        smaller,
    )


def _of_sft(name: str, steps: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> Reason:
    from logpi.envs.data import RowsTask

    rows = len(RowsTask(settings["task"]).rows("train"))
    more = "more rows (--data-prompts, --samples, --per-prompt)"
    loss = _mean(steps[-ENDS:], "loss")
    passes = len(steps) * settings["rows"] / rows
    if rows < FEW_ROWS:
        return Reason(f"it starts from the base model and had {rows} rows", more)
    if loss > LOW_LOSS:
        return Reason(
            f"its loss was still {loss:.2f} nats a token after {passes:.1f} passes over {rows}"
            " rows",
            # not epochs: steps that were --set would win over them
            f"{name}.steps={2 * len(steps)}",
        )
    return Reason(f"{rows} rows were learned (loss {loss:.2f}), and are not the whole task", more)


def _mean(steps: Sequence[Mapping[str, Any]], name: str) -> float:
    # NaN: a step without a verdict
    values = [x for r in steps if name in r and isfinite(x := float(r[name]))]
    return fmean(values) if values else 0.0
