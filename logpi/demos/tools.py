"""`logpi tools-demo EXPERIMENT`: small language models learn to use tools, beside others that lack
one part of it. Nothing is downloaded.

    search   questions whose facts stand only in a generated corpus: with search, with retrieval up front, without documents
    mask     the same with search, trained on what the policy wrote, and for the ablation on what it read as well
    calls    requests as function calls: rewarded name by name and value by value, all or nothing, and with a reward for long thoughts

Every lane is a small model that saw a few demonstrations (`sft`), most of them bad, and then
learned from rewards alone (`rl`). The stages are ordinary jobs in OUT/seed-N/TAUGHT/; lanes that
differ in their reward or mask begin with the same model, and a stopped demonstration goes on with
the same --out. `tools_report.py` reads the runs. Left out: real text, and tools other than search.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logpi.jobs import rl, sft
from logpi.jobs.common import base_model, home, stage
from logpi.jobs.options.command_line import parse
from logpi.jobs.options.fields import option
from logpi.jobs.options.model import DEVICES, placed


@dataclass(frozen=True)
class Lane:
    """A line of the table.

    Attributes:
        label: for people. task: of its demonstrations and its rewards. taught: directory of the
            model that demonstrations made.
        trained: directory of its reinforcement learning. rewards: the task's own if empty. mask:
            train on nothing that was read.
    """

    label: str
    task: str
    taught: str
    trained: str = "rl"
    rewards: tuple[str, ...] = ()
    mask: bool = True


@dataclass(frozen=True)
class Experiment:
    """VectorEnvironment that are compared.

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


def _calls(label: str, trained: str, first: int, *more: str) -> Lane:
    """Both grains are measured, one is rewarded; either has its full mark where every call is
    right."""
    return Lane(
        label, "calls(most=2)", "calls", trained, (_GRAINS[first], f"{_GRAINS[1 - first]}:0", *more)
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
            Lane("masked", SEARCH.task, SEARCH.taught),
            Lane("not masked", SEARCH.task, SEARCH.taught, "unmasked", mask=False),
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


@dataclass(frozen=True)
class ToolsDemo:
    """Arguments of `logpi tools-demo`."""

    experiment: str = option("search", help="which", choices=tuple(EXPERIMENTS), positional=True)
    seeds: int | None = option(
        None, help="of every lane (default: 3 for mask, else 1)", least=1, most=1000
    )
    seed: int = option(0, help="the first of them", least=0)
    sft_steps: int | None = option(
        None, help="updates on demonstrations (default: the experiment's)", least=1, most=100_000
    )
    steps: int | None = option(
        None,
        help="updates of reinforcement learning (default: the experiment's)",
        least=1,
        most=100_000,
    )
    lr: float = option(1e-3, help="of reinforcement learning", least=0, most=10)
    eval_items: int = option(200, help="held-out questions", least=1)
    device: str = option("cpu", help=DEVICES)
    out: Path | None = option(None, help="directory (default: runs/tools-demo-1, -2, …)")


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
            lane.label: [_learned(a, experiment, lane, seed, out) for seed in seeds]
            for lane in experiment.lanes
        }
        report(a.experiment, experiment, runs, out)
    print(
        f"{time.perf_counter() - wall:.0f} s in this call, {time.process_time() - cpu:.0f} s of CPU"
    )
    return 0


def _learned(a: ToolsDemo, experiment: Experiment, lane: Lane, seed: int, out: Path) -> Path:
    """The run of a lane's reinforcement learning, after its demonstrations."""
    home = out / f"seed-{seed}" / lane.taught
    _base(lane, seed, home / "base")
    stage(_taught(a, experiment, lane, seed, home))
    trained = _trained(a, experiment, lane, seed, home)
    stage(trained)
    return home / lane.trained


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


def _taught(a: ToolsDemo, experiment: Experiment, lane: Lane, seed: int, home: Path) -> sft.SFT:
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


def _trained(a: ToolsDemo, experiment: Experiment, lane: Lane, seed: int, home: Path) -> rl.RL:
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
        out=home / lane.trained,
    )
