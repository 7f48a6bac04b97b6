"""What each stage of `logpi r1` runs: the arguments of a job of `sft`, `rl` or `reward-model`, in
the stage's own directory.

Left out: the stages themselves and their settings (`r1_recipe.py`), harvests (`r1_harvest.py`), and
the chain (`r1.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from logpi.demos.r1_arguments import R1, own_rows
from logpi.demos.r1_recipe import SETTINGS, Stage
from logpi.errors import UserError, as_user_errors
from logpi.jobs import reward_model, rl, sft
from logpi.jobs.options.fields import setting
from logpi.jobs.options.saved import from_json, to_json


def done(path: Path) -> bool:
    """Whether a stage's directory is whole: a model, or rows with their counts."""
    return (path / "model" / "config.json").exists() or (path / "counts.json").exists()


def stage_settings(a: R1, name: str) -> dict[str, Any]:
    """The table's settings of a stage, with the user's own."""
    own = [pair.partition(".")[2] for pair in a.set if pair.startswith(f"{name}.")]
    return {
        **SETTINGS[a.settings].get(name, {}),
        "seed": a.seed,
        **dict(map(setting, own)),
    }


def learned_from(a: R1, stage: Stage, out: Path) -> Path:
    """The rows that a stage learns from.

    Raises:
        UserError: they are not there.
    """
    if own := own_rows(a, stage):
        return Path(own)
    path = out / stage.data / "train.jsonl"
    if not path.exists():
        raise UserError(
            f"stage {stage.name} learns from {path}, which is not there: make it again with"
            f" --resume {out} --from {stage.data}"
        )
    return path


def job(a: R1, stage: Stage, model: str, out: Path, general: str, pairs: str) -> Any:
    """The arguments of a stage's job."""
    common = {
        "model": model,
        "out": str(out / stage.name),
        "trackers": list(a.trackers),
        "save_every": a.save_every,
        "device": a.device,
        "template_options": dict(a.template_options),
        "end_token": a.end_token,
    }
    if stage.job == "sft":
        rows = learned_from(a, stage, out)
        shape = {"task": str(rows), "prompt_template": a.prompt_template}
        return _arguments(sft.SFT, common | shape | _steps(a, stage.name, rows, "rows", sft.SFT))
    if stage.job == "reward-model":
        kind = reward_model.TrainRewardModel
        chosen = _steps(a, stage.name, Path(pairs), "pairs", kind)
        return _arguments(kind, common | {"data": pairs} | chosen)
    return _arguments(rl.RL, common | _rl(a, stage, out, general))


def _rl(a: R1, stage: Stage, out: Path, general: str) -> dict[str, Any]:
    """What a stage of reinforcement learning does; the last one learns from general prompts too, if
    there is a model that scores them."""
    chosen = stage_settings(a, stage.name)
    shape: dict[str, Any] = {
        "task": a.task,
        "prompt_template": a.prompt_template,
        "max_completion_length": a.tokens,
        "truncation": "fail",
        "algorithm": "grpo_r1",
        "eval_items": a.eval_items,
        "rewards": [a.accuracy, "think_answer"],
    }
    if stage.name != "zero":
        shape["rewards"].append(f"language({a.language})")
    scorer = out / "reward-model" / "model"
    if stage.name == "final" and general and scorer.exists():
        shape |= {"general": general, "general_share": a.general_share}
        shape["rewards"].append(f"preference:{scorer}")
    else:
        chosen.pop("general_from", None)
    return shape | chosen


def base(a: R1, reading: sft.SFT) -> sft.SFT:
    """The reading that makes the demonstration's base model, with the user's own settings."""
    return _arguments(
        sft.SFT,
        to_json(reading) | _steps(a, "base", Path(reading.task), "rows", sft.SFT),
    )


def _arguments(cls: type, values: Mapping[str, Any]) -> Any:
    with as_user_errors():
        return from_json(cls, dict(values))


def _steps(a: R1, stage: str, rows: Path, batch: str, job: type) -> dict[str, Any]:
    """A stage's settings, with passes over the rows (`epochs`) as updates (`steps`).

    batch: the job's option that says how many rows an update takes. 2 epochs of 100 rows, 64 at a
    time, are ⌈200 / 64⌉ = 4 updates.
    """
    chosen = stage_settings(a, stage)
    epochs = chosen.pop("epochs", None)
    if epochs is None or "steps" in chosen:
        return chosen
    from logpi.envs.data import RowsTask

    with as_user_errors():
        count = len(RowsTask(str(rows)).rows("train"))
    size = chosen.get(batch, next(f.default for f in fields(job) if f.name == batch))
    return chosen | {"steps": max(1, math.ceil(epochs * count / size))}
