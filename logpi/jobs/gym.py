"""`logpi gym`: reinforcement learning on a Gymnasium environment, by any algorithm of the table.

The loop, the learner and the objectives are those that train language models; only policy and
rollout are others (`gym_parts.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from logpi.envs.control.presets import Preset
from logpi.errors import as_user_errors
from logpi.jobs.gym_parts import build, evaluator, notes, save_policy
from logpi.jobs.job import Job, Setup, job
from logpi.jobs.options.fields import changed, option
from logpi.jobs.options.fingerprint import described
from logpi.jobs.options.preset import flags_of_gym
from logpi.jobs.options.run import read
from logpi.jobs.seeds import start
from logpi.runs.progress import Progress

if TYPE_CHECKING:
    from logpi.runs.directory import Run
    from logpi.train import Outcome

SHOWN = ("reward", "reward_100", "episode_length", "entropy", "value/explained_variance")
CURVES = (
    ("reward", "eval/reward"),
    "episode_length",
    "entropy",
    "value/explained_variance",
    "trust/kl",
    "grad_norm",
)


@job
class Gym(Job):
    """Reinforcement learning on a Gymnasium environment: `logpi gym`.

    >>> import logpi
    >>> logpi.Gym(env="CartPole-v1", algorithm="ppo", gamma=0.98, n_steps=64).options
    {'gamma': 0.98, 'n_steps': 64}
    """

    COMMAND = "gym"
    HEADING = "training"
    FIRST = "env algorithm steps updates seeds out"
    SETTINGS = ("settings", *(x.name for x in fields(Preset)))

    env: str | Any = option(
        "CartPole-v1",
        objects=True,
        help="a Gymnasium id, e.g. Pendulum-v1, logpi/GridWorld-v0, or FILE.py:NAME",
    )
    algorithm: str | Any = option("ppo", objects=True, help="a row of `logpi algorithms`")
    network: str | Any | None = option(
        None,
        aliases=("policy",),
        objects=True,
        help="FILE.py:NAME of networks of your own, made by NAME(inputs, outputs)",
    )
    optimizer: str | Any | None = option(
        None, objects=True, hidden=True, help="a class or function of torch that takes parameters"
    )
    options: Mapping[str, Any] = option(
        {},
        help=(
            "settings of the preset or the algorithm, e.g. lr=1e-3 n_steps=64 gamma=0.98"
            " hidden=[256,256]"
        ),
        nargs="*",
        flags=flags_of_gym,
    )
    env_options: Mapping[str, Any] = option(
        {}, help="of the environment, e.g. slip=0.2 cost=-2 terminals='(3,0):-5,(3,1):5'", nargs="*"
    )
    steps: int | None = option(
        None,
        help="environment steps in all (default: the preset's)",
        least=1,
        changeable=True,
        aliases=("total_timesteps",),
    )
    updates: int | None = option(
        None,
        help="updates in all, for methods that learn from whole episodes",
        least=1,
        changeable=True,
    )
    vectorized: bool = option(False, help="step the environment's own vectorised form")
    env_processes: int | None = option(
        None,
        help="processes that step the environments (default: several where a step costs over 1 ms)",
        least=1,
        most=1024,
        changeable=True,
    )
    at_once: int = changed(Job, "at_once", 0)
    eval_episodes: int = option(
        20, help="greedy episodes on fresh seeds, for each evaluation", least=1, most=100_000
    )
    evaluations: int = option(
        5,
        help="evaluations during training, besides those before and after",
        least=0,
        changeable=True,
    )

    def setup(self) -> Setup:
        import torch

        from logpi.runs.rng import seed

        # Networks this small only lose by more threads.
        torch.set_num_threads(self.threads or 1)
        seed(self.seed)
        p, made, rollout, learner, updates = build(self)
        env = self.env if isinstance(self.env, str) else described(self.env)
        lines = [f"{env}, {made.name}: {p}", *notes(self, made)]
        if (number := rollout.envs.processes) > 1:
            lines.append(f"{number} processes step the environments")
        print(*lines, sep="\n", file=sys.stderr)
        every = max(1, updates // (self.evaluations + 1)) if self.evaluations else 0
        return Setup(
            rollout,
            learner,
            rollout.policy,
            partial(save_policy, rollout.policy, p),
            updates,
            evaluator(self, p, rollout.policy),
            every,
            max(self.save_every, updates // 20),
            SHOWN,
            CURVES,
            Progress(updates, unit="steps"),
            end=_say_score,
        )


def main(argv: Sequence[str]) -> int:
    arguments = read(Gym, argv, "gym", "Train a policy on a Gymnasium environment.")
    if arguments.seeds > 1:
        # the seeds share the cores already
        arguments = replace(arguments, env_processes=arguments.env_processes or 1)
        with as_user_errors():
            build(arguments)  # what is wrong is said now, once
    start(arguments, f"{arguments.env}, {arguments.algorithm}")
    return 0


def _say_score(run: Run, outcome: Outcome) -> None:
    numbers: Mapping[str, float] = outcome.last
    scores = [
        f"{k.removeprefix('eval/')} {numbers[k]:.2f}" for k in numbers if k.startswith("eval/")
    ]
    line = "evaluation, greedy, fresh seeds:  " + "  ".join(scores)
    print(f"{line}\nwatch   logpi play {run.path}", file=sys.stderr)
