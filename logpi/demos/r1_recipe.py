"""DeepSeek-R1's recipe as data: its stages, and the settings of each stage's job.

    zero          R1-Zero: RL on the base model, accuracy + format
    cold-data     its responses, cleaned: demonstrations for the cold start
    cold-start    SFT of the base model on them
    reasoning     RL: accuracy + format + language
    rejection     its responses, verified and cleaned, mixed with non-reasoning demonstrations
    sft           SFT of the base model on them
    reward-model  what people prefer, from pairs
    final         RL on verifiable prompts, and from some update on general ones too, which the
                  reward model scores

The settings are three tables, chosen by the model's size (`for_size`): what the demonstration's
model of under a million parameters needs; what SmolLM2-135M needs (docs/r1.md says what failed
before); and DeepSeek-R1's (Nature 645, 633, Methods), with these differences: a step's batch is 512
samples as published, but the steps are 300, 300 and 200, not 10,400, as many again and 1,700; the
general prompts join in the last quarter; and the rates of SFT are ours. Left out: how a stage is
run (`r1_stages.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from logpi.jobs.options.model_size import size


@dataclass(frozen=True)
class Stage:
    """One link of the chain.

    Attributes:
        name: of it and its directory. job: what runs it. title: in the table. starts: whose model
            it starts from, the first of these that is not skipped; data: whose rows it learns from,
            or ""; own: the option that gives these rows in its place, or "".
    """

    name: str
    job: str
    title: str
    starts: tuple[str, ...]
    data: str = ""
    own: str = ""


_LINE = ("sft", "reasoning", "cold-start", "zero", "base")

STAGES: dict[str, Stage] = {
    s.name: s
    for s in (
        Stage("base", "sft", "base", ()),
        Stage("zero", "rl", "R1-Zero", ("base",)),
        Stage("cold-data", "harvest", "", ("zero", "base")),
        Stage("cold-start", "sft", "cold start", ("base",), "cold-data", "cold_start"),
        Stage("reasoning", "rl", "reasoning RL", ("cold-start", "zero", "base")),
        Stage("rejection", "harvest", "", ("reasoning", "cold-start", "zero", "base")),
        Stage("sft", "sft", "second SFT", ("base",), "rejection"),
        Stage("reward-model", "reward-model", "", _LINE),
        Stage("final", "rl", "final RL", _LINE),
    )
}

_SMALL_RL = {
    "lr": 3e-4, "warmup": 5, "prompts": 32, "num_generations": 8, "slots": 256, "eval_every": 0,
    "options": {"low": 10, "beta": 0.001}, "refresh_reference": 20,
}  # fmt: skip

_SMALL_SFT = {"lr": 1e-3, "rows": 64, "warmup": 5, "max_length": 160}

SMALL: dict[str, dict[str, Any]] = {
    "base": {},
    "zero": {**_SMALL_RL, "steps": 100},
    "cold-start": {**_SMALL_SFT, "epochs": 6},
    "reasoning": {**_SMALL_RL, "steps": 80},
    "sft": {**_SMALL_SFT, "epochs": 6},
    "reward-model": {"lr": 1e-3, "steps": 150, "pairs": 64, "eval_every": 0},
    "final": {**_SMALL_RL, "steps": 60, "temperature": 0.7, "general_from": 46},
}  # fmt: skip

_MIDDLE_RL = {
    "lr": 5e-6, "warmup": 5, "prompts": 8, "num_generations": 8, "groups": "resample",
    "options": {"low": 10, "beta": 0.0}, "eval_every": 0,
}  # fmt: skip

_MIDDLE_SFT = {"lr": 1e-4, "rows": 8, "warmup": 5}

MIDDLE: dict[str, dict[str, Any]] = {
    "base": {},
    "zero": {**_MIDDLE_RL, "steps": 40, "lr": 1e-5},
    # A hundred demonstrations are 12 updates a pass: after one, seeds differed by 23 points.
    "cold-start": {**_MIDDLE_SFT, "epochs": 2, "warmup": 2},
    "reasoning": {**_MIDDLE_RL, "steps": 40},
    "sft": {**_MIDDLE_SFT, "epochs": 2},
    "reward-model": {"lr": 1e-4, "pairs": 8, "epochs": 1, "warmup": 5},
    "final": {**_MIDDLE_RL, "lr": 3e-6, "steps": 16, "temperature": 0.7, "general_from": 12},
}

_RL = {
    "lr": 3e-6,
    "prompts": 32,
    "num_generations": 16,
    "options": {"low": 10, "beta": 0.001},
    "refresh_reference": 400,
}

PUBLISHED: dict[str, dict[str, Any]] = {
    "base": {},
    "zero": {**_RL, "steps": 300},
    "cold-start": {"lr": 2e-5, "epochs": 2},
    "reasoning": {**_RL, "steps": 300},
    "sft": {"lr": 2e-5, "epochs": 2},
    "reward-model": {"lr": 6e-6, "pairs": 256, "epochs": 1},
    "final": {**_RL, "steps": 200, "temperature": 0.7, "general_from": 150},
}

# in the order of `size`
SETTINGS = {"small": SMALL, "middle": MIDDLE, "published": PUBLISHED}


def for_size(parameters: float) -> str:
    """The name of the settings for a model with this many parameters.

    >>> for_size(8e5), for_size(135e6), for_size(7e9)
    ('small', 'middle', 'published')
    """
    return list(SETTINGS)[size(parameters)]
