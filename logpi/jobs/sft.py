"""`logpi sft`: supervised fine-tuning on demonstrations, by the learner that does everything else.

Left out: preferences (`prefer.py`), and choosing a model's own responses to learn from (`logpi
r1`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from logpi.errors import as_user_errors
from logpi.jobs.common import finish, opened
from logpi.jobs.options.fields import option
from logpi.jobs.options.lora import LoraArguments
from logpi.jobs.options.model import ModelArguments
from logpi.jobs.options.run import RunArguments, available, read
from logpi.jobs.options.seeds import SeedArguments
from logpi.jobs.seeds import start

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM
    from logpi.train import Evaluate
    from logpi.types import Batch

CHUNK = (
    2**22
)  # logits alive at a time, 16 MB: every token of a row is learned here, and backward computes them again


@dataclass(frozen=True, kw_only=True)
class SFT(ModelArguments, LoraArguments, SeedArguments, RunArguments):
    """Arguments of `logpi sft`."""

    HEADING: ClassVar[str] = "training"
    FIRST: ClassVar[str] = "model task steps rows lr lora out"

    task: str = option(
        help=(
            "rows with prompt and completion, messages, or text: a file, a hub name, or a built-in"
            " task"
        )
    )
    steps: int = option(200, help="updates", least=1, most=10**7, changeable=True)
    rows: int = option(32, help="demonstrations for each update", least=1, most=2**20)
    max_length: int = option(
        1024,
        help="tokens of prompt and completion together; longer ones are cut",
        least=2,
        most=2**24,
    )
    lr: float = option(2e-5, help="peak learning rate", least=0, most=10)
    warmup: int = option(10, help="updates over which it climbs", least=0)
    schedule: str = option(
        "cosine", help="of the learning rate after that", choices=("constant", "linear", "cosine")
    )
    loss: str = option(
        "assistant",
        help="which tokens are learned: all answers', the last one's, or every token",
        choices=("assistant", "last", "all"),
    )
    micro_tokens: int = option(
        2048,
        help="most tokens of a forward and backward; memory only, never the result",
        least=1,
        changeable=True,
    )
    eval_every: int = option(
        0,
        help="steps between evaluations of held-out perplexity; 0: only before and after",
        least=0,
        changeable=True,
    )
    eval_items: int = option(0, help="held-out rows; 0: no evaluation", least=0)


def main(argv: Sequence[str]) -> int:
    start(run, read(SFT, argv, "sft", "Fine-tune a language model on demonstrations."), "sft")
    return 0


def run(a: SFT) -> None:
    """Set up, train, save."""
    from logpi.algorithms import algorithm
    from logpi.envs.tasks import task as make_task
    from logpi.learner import Learner
    from logpi.rollouts.demonstrations import Demonstrations
    from logpi.runs.rng import seed
    from logpi.train import train
    from logpi.updates.adamw import AdamW, Constant, Cosine, Linear

    available(a)
    with as_user_errors():
        task = make_task(a.task)
        seed(a.seed)
        policy = a.load(**a.bits())
        policy.chunk = CHUNK if policy.device.type == "cpu" else policy.chunk
        saver = a.adapt(policy)
        shape: dict[str, Any] = {
            "max_length": policy.fitting(a.max_length),
            "chat": a.template(policy),
            "seed": a.seed,
            "learn": a.loss,
        }
        rollout = Demonstrations(policy, task, rows=a.rows, **shape)
        evaluate = None
        if a.eval_items:
            items = min(a.eval_items, len(task.rows("test")))
            evaluate = _perplexity(
                policy, Demonstrations(policy, task, rows=items, split="test", **shape)().batch
            )
        schedule = {"constant": Constant(), "linear": Linear(0.1), "cosine": Cosine(0.1)}[
            a.schedule
        ]
        rates = AdamW(a.lr, warmup=a.warmup, schedule=schedule)
        made = algorithm("sft", micro_tokens=a.micro_tokens)
        learner = Learner(policy, made, rates, total=a.steps, seed=a.seed)
    print(policy.template.describe(), file=sys.stderr)
    with opened(a, "sft") as home:
        outcome = train(
            rollout,
            learner,
            home,
            steps=a.steps,
            evaluate=evaluate,
            eval_every=a.eval_every,
            save_every=a.save_every,
        )
        finish(home, saver, learner, outcome, (("loss", "eval/loss"), "grad_norm"))


def _perplexity(policy: CausalLM, batch: Batch) -> Evaluate:
    """exp of the mean negative log-likelihood of held-out tokens. The best policy has the largest
    log-likelihood."""
    from logpi.updates.micro_batches import evaluate

    def measure(step: int) -> tuple[Mapping[str, float], Sequence[Mapping[str, Any]]]:
        loss = -float(evaluate(policy, batch, 16_384).logp[batch.mask].mean())
        return {
            "eval/log_likelihood": -loss,
            "eval/loss": loss,
            "eval/perplexity": math.exp(loss),
        }, []

    return measure
