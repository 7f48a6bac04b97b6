"""`logpi sft`: supervised fine-tuning on demonstrations, by the learner that does everything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from logpi.arguments import option
from logpi.recipes.common import ModelArguments, RunArguments, available, finish, mistakes, opened, read

__all__ = ["SFT", "main", "run"]


@dataclass(frozen=True, kw_only=True)
class SFT(ModelArguments, RunArguments):
    """Arguments of `logpi sft`."""

    task: str = option(help="a file of rows with `prompt` and `completion`, a hub name, or a built-in task")
    steps: int = option(200, help="updates")
    rows: int = option(32, help="demonstrations for each update")
    max_length: int = option(1024, help="tokens of prompt and completion together; longer ones are cut")
    lr: float = option(2e-5, help="peak learning rate")
    warmup: int = option(10, help="updates over which it climbs")


def main(argv: Sequence[str]) -> int:
    run(read(SFT, argv, "sft", "Fine-tune a language model on demonstrations."))
    return 0


def run(a: SFT) -> None:
    """Set up, train, save."""
    from logpi.algorithms import algorithm
    from logpi.envs.tasks import task as make_task
    from logpi.learner import Learner
    from logpi.optimizers import AdamW, Cosine
    from logpi.rollouts.demonstrations import Demonstrations
    from logpi.runs.rng import seed
    from logpi.train import train

    available(a)
    with mistakes():
        task = make_task(a.task)
        seed(a.seed)
        policy = a.load()
        rollout = Demonstrations(
            policy, task, rows=a.rows, max_length=a.max_length, chat=a.template(policy), seed=a.seed
        )
        rates = AdamW(a.lr, warmup=a.warmup, schedule=Cosine(0.1))
        learner = Learner(policy, algorithm("sft"), rates, total=a.steps, seed=a.seed)
    with opened(a, "sft") as home:
        outcome = train(rollout, learner, home, steps=a.steps, save_every=a.save_every)
        finish(home, policy, learner, outcome, ("loss", "grad_norm"))
