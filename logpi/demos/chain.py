"""A chain of jobs in one directory.

Each stage is an ordinary job in a directory below it, so the same --out resumes a chain that was
stopped.

    with home(a, "demo") as chain:
        base_model(chain.path / "base", make)
        stage(SFT(model=str(chain.path / "base"), out=chain.path / "sft", …))

Left out: what the stages are (each demonstration's), and a single job's beginning and end
(`jobs/common.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from logpi.distributed.world import current
from logpi.jobs.common import check_alike
from logpi.jobs.options.fields import option
from logpi.jobs.options.model import DEVICES
from logpi.jobs.options.saved import to_json

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM
    from logpi.runs.directory import Run
    from logpi.runs.ranks import JointRun


@dataclass(frozen=True, kw_only=True)
class ChainArguments:
    """What every demonstration takes."""

    seed: int = option(0, help="seed of everything", least=0)
    device: str = option("cpu", help=DEVICES)
    out: Path | None = option(None, help="directory (default: runs/COMMAND-1, -2, …)")


def home(arguments: Any, command: str, free: Sequence[str] = ()) -> Run | JointRun:
    """The directory of a chain of jobs: a new one, or the one of a chain that was stopped.

    Args:
        free: arguments that may differ from those of the stopped chain, besides the device.

    Raises:
        RunError: it holds another run or other files, cannot be made, or is in use.
        UserError: it was begun with other arguments.
    """
    from logpi.runs.directory import Run, next_path
    from logpi.runs.disk import refuse_unwritable
    from logpi.runs.ranks import joint_run

    def make() -> Run:
        saved = to_json(arguments)
        out = arguments.out or next_path(command)
        refuse_unwritable(out, "give another --out")
        if not (out / "arguments.json").exists():
            return Run.create(out, command, saved)
        check_alike(out, command, saved, ("out", "device", *free))
        return Run.open(out)

    return joint_run(make)


def base_model(path: Path, make: Callable[[], CausalLM]) -> Path:
    """The directory of an untrained model, made once; after a kill it is there whole or not at
    all."""
    from logpi.runs.disk import replaced

    if not path.exists():
        with replaced(path) as partial:
            make().save(partial)
    return path


def judged(prompt: str, one: str, two: str, lead: float, rng: Random) -> dict[str, str]:
    """Two responses as a noisy person compares them: the first wins with probability σ(lead)."""
    wins = rng.random() < 1 / (1 + math.exp(-lead))
    return {"prompt": prompt, "chosen": one if wins else two, "rejected": two if wins else one}


def stage(job: Any) -> tuple[Path, float]:
    """Run a job as a stage of a chain: from its beginning, or from where it was stopped; not at all
    if it has ended.

    Returns: the directory of its model, and the seconds that this call took.

    Raises:
        Stopped: a signal ended it, and so ends the chain.
    """
    model, start = job.out / "model", time.perf_counter()
    files = (model / "config.json", job.out / "arguments.json")
    done, begun = current().by_first(lambda: [file.exists() for file in files])
    if not done:
        (replace(job, resume=job.out) if begun else job).run()
    return model, time.perf_counter() - start
