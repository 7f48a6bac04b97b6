"""`logpi tools-demo EXPERIMENT`: small language models learn to use tools, beside others that lack
one part of it. Nothing is downloaded.

    search   questions whose facts stand only in a generated corpus: with search, with retrieval up
             front, without documents
    mask     the same with search, trained on what the policy wrote, and for the ablation on what it
             read as well
    calls    requests as function calls: rewarded name by name and value by value, all or nothing,
             and with a reward for long thoughts

Every lane is a small model that saw a few demonstrations (`sft`), most of them bad, and then
learned from rewards alone (`rl`). The stages are ordinary jobs in OUT/seed-N/MODEL/; lanes that
differ in their reward or mask begin with the same model, and the same --out resumes a stopped
demonstration. Left out: real text, and tools other than search.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logpi.demos.chain import ChainArguments, base_model, home, stage
from logpi.demos.tools_experiments import EXPERIMENTS, Experiment, Lane
from logpi.jobs import rl, sft
from logpi.jobs.options.command_line import parse
from logpi.jobs.options.fields import option
from logpi.jobs.options.model import placed


@dataclass(frozen=True, kw_only=True)
class ToolsDemo(ChainArguments):
    """Arguments of `logpi tools-demo`."""

    experiment: str = option(
        "search", help="what is compared", choices=tuple(EXPERIMENTS), positional=True
    )
    seeds: int | None = option(
        None, help="how many seeds of every lane (default: 3 for mask, else 1)", least=1, most=1000
    )
    seed: int = option(0, help="the first seed", least=0)
    sft_steps: int | None = option(
        None, help="updates on demonstrations (default: the experiment's)", least=1, most=100_000
    )
    steps: int | None = option(
        None,
        help="updates of reinforcement learning (default: the experiment's)",
        least=1,
        most=100_000,
    )
    lr: float = option(1e-3, help="learning rate of reinforcement learning", least=0, most=10)
    eval_items: int = option(200, help="held-out questions", least=1)


def main(argv: Sequence[str]) -> int:
    a = parse(ToolsDemo, argv, "logpi tools-demo", __doc__ or "")
    placed(a.device)
    from logpi.demos.tools_report import report

    experiment = EXPERIMENTS[a.experiment]
    seeds = range(a.seed, a.seed + (a.seeds or experiment.seeds))
    wall, cpu = time.perf_counter(), time.process_time()
    with home(
        a, "tools-demo", free=("experiment", "seed", "seeds")
    ) as chain:  # experiments share what they can
        out = chain.path
        runs = {
            lane.label: [_lane_run(a, experiment, lane, seed, out) for seed in seeds]
            for lane in experiment.lanes
        }
        report(a.experiment, experiment, runs, out)
    print(
        f"{time.perf_counter() - wall:.0f} s in this call, {time.process_time() - cpu:.0f} s of CPU"
    )
    return 0


def _lane_run(a: ToolsDemo, experiment: Experiment, lane: Lane, seed: int, out: Path) -> Path:
    """The run of a lane's reinforcement learning, after its demonstrations."""
    home = out / f"seed-{seed}" / lane.model
    _base(lane, seed, home / "base")
    stage(_sft(a, experiment, lane, seed, home))
    stage(_rl(a, experiment, lane, seed, home))
    return home / lane.run


def _base(lane: Lane, seed: int, path: Path) -> None:
    """The untrained model, a hundred thousand parameters: words are its tokens, so that questions
    are short."""
    from logpi.envs.tasks import task as make_task
    from logpi.policies.small import small_policy

    task: Any = make_task(lane.task)
    base_model(
        path,
        lambda: small_policy(
            task.alphabet, words=task.words, width=64, layers=2, context=256, seed=seed
        ),
    )


def _sft(a: ToolsDemo, experiment: Experiment, lane: Lane, seed: int, home: Path) -> sft.SFT:
    return sft.SFT(
        model=str(home / "base"),
        task=lane.task,
        steps=a.sft_steps or experiment.sft_steps,
        rows=64,
        lr=5e-3,
        warmup=20,
        schedule="constant",
        seed=seed,
        save_every=1000,
        device=a.device,
        out=home / "sft",
    )


def _rl(a: ToolsDemo, experiment: Experiment, lane: Lane, seed: int, home: Path) -> rl.RL:
    """GRPO without a reference: there is nothing that it should protect. Replies are waited for, so
    that runs repeat bit for bit."""
    return rl.RL(
        model=str(home / "sft" / "model"),
        task=lane.task,
        rewards=lane.rewards,
        algorithm="grpo",
        options={"beta": 0},
        steps=a.steps or experiment.steps,
        prompts=16,
        num_generations=8,
        max_completion_length=experiment.tokens,
        lr=a.lr,
        warmup=3,
        seed=seed,
        eval_every=10,
        eval_items=a.eval_items,
        slots=256,
        save_every=1000,
        tool_patience=float("inf"),
        mask_observations=lane.mask,
        device=a.device,
        out=home / lane.run,
    )
