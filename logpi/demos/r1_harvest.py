"""The harvests of `logpi r1`: a stage's model samples, its responses are judged and cleaned, and
become demonstrations.

Left out: the sampling by chunks, the cleaning and the counts (`jobs/rejection.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from logpi.demos.r1_arguments import R1, judged, model_of, template
from logpi.demos.r1_recipe import STAGES, Stage
from logpi.demos.r1_stages import done, stage_settings
from logpi.distributed.world import current
from logpi.errors import as_user_errors
from logpi.jobs.harvest import in_one_line

if TYPE_CHECKING:
    from logpi.jobs.rejection import Rules, SampleRows
    from logpi.rewards import Rewards


def harvest(a: R1, stage: Stage, model: str, out: Path, general: str) -> None:
    """Responses of a stage's model, judged and cleaned; for the second SFT mixed with the
    non-reasoning demonstrations."""
    from logpi.envs.data import RowsTask
    from logpi.envs.tasks import task as make_task
    from logpi.jobs.rejection import harvest as sample
    from logpi.jobs.rejection import mixed, write_counts, write_rows
    from logpi.runs.progress import Progress

    path, rewards = out / stage.name, judged(a)
    # Each harvest has prompts and random numbers of its own.
    number = list(STAGES).index(stage.name)
    with as_user_errors(), Progress(a.data_prompts) as progress:
        rows = list(make_task(a.task).rows("train", a.seed + number)[: a.data_prompts])
        kept = sample(
            path,
            _sampler(a, model, rewards, progress.phase),
            rows,
            rewards,
            rules(a),
            seed=a.seed + number,
            progress=lambda done, _: progress.step(done, {}),
            unformatted=_to_the_format(a, out),
        )

        def mix() -> None:
            write_rows(path / "reasoning.jsonl", kept)
            other = RowsTask(general).rows("train", a.seed)
            both = mixed(kept, other, a.general_share, a.seed)
            write_rows(path / "train.jsonl", both)
            counts = json.loads((path / "counts.json").read_text())
            write_counts(path, counts | {"general": len(both) - len(kept)})

        if general and stage.name == "rejection":
            current().by_first(mix)
    print(in_one_line(path / "counts.json", stage.name))


def _to_the_format(a: R1, out: Path) -> str:
    """What helps a model that does not write the format."""
    if not done(out / "cold-start"):
        return "Give demonstrations in it (--cold-start FILE), or a prompt that asks for it" + (
            "" if a.prompt_template else " (--prompt-template r1-zero)"
        )
    settings = stage_settings(a, "cold-start")
    # steps that were --set win over passes
    name = "steps" if "steps" in settings else "epochs"
    more = f"--from cold-start --set cold-start.{name}={2 * settings[name]:g}"
    return f"Give more demonstrations in it (--cold-start FILE), or learn them longer: {more}"


def rules(a: R1) -> Rules:
    """Right, in the format, in the language, and ended."""
    from logpi.jobs.rejection import Rules

    least = dict(zip(judged(a).names, (1.0, 1.0, a.language_least), strict=True))
    return Rules(least, longest=a.tokens, per_prompt=a.per_prompt)


def _sampler(a: R1, model: str, rewards: Rewards, tell: Callable[[str], None]) -> SampleRows:
    """Samples from a model, loaded when it is first asked."""
    from logpi.engine.sampling import Sampling
    from logpi.jobs.harvest import sampled

    load, settings = cache(model_of(a, model).load), Sampling(max_tokens=a.tokens)
    return sampled(load, partial(template, a), rewards, a.samples, settings, a.slots, tell)
