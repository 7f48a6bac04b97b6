"""`logpi sft`: supervised fine-tuning on demonstrations.

The learner is that of every other job. Left out: preferences (`prefer.py`), and rejection sampling
of a model's own responses (`logpi r1`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from logpi.jobs.job import Job, Setup, job
from logpi.jobs.options.fields import changed, option
from logpi.jobs.options.learning import FineTuningArguments
from logpi.jobs.options.model_size import said, settled
from logpi.jobs.seeds import command

if TYPE_CHECKING:
    from logpi.engine.language_model import LanguageModel
    from logpi.envs.task import Task
    from logpi.policies.causal_lm import CausalLM
    from logpi.train import Evaluate
    from logpi.types import Batch

# Logits in memory at a time, 16 MB: SFT learns every token of a row, and backward recomputes its
# logits.
CHUNK = 2**22


@job
class SFT(Job, FineTuningArguments):
    """Supervised fine-tuning of a language model on demonstrations: `logpi sft`.

    >>> import logpi
    >>> logpi.SFT(model="my-model", task=[{"prompt": "1+1=", "completion": "2"}], lr=1e-4).lr
    0.0001
    """

    COMMAND = "sft"
    RANKS = True
    HEADING = "training"
    FIRST = "model task steps rows lr lora out"

    task: str | Any = option(
        objects=True,
        help=(
            "rows with prompt and completion, messages, or text: a file, a hub name, or a built-in"
            " task"
        ),
    )
    steps: int = option(200, help="updates", least=1, most=10**7, changeable=True)
    rows: int = option(32, help="demonstrations for each update", least=1, most=2**20)
    max_length: int = option(
        1024,
        help="tokens of prompt and completion together; longer ones are cut",
        least=2,
        most=2**24,
    )
    lr: float | None = changed(
        FineTuningArguments,
        "lr",
        None,
        help=f"peak learning rate (default: {said('sft', 'lr')})",
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

    def setup(self) -> Setup:
        from logpi.envs.tasks import task as make_task
        from logpi.runs.rng import seed

        task = make_task(self.task)
        seed(self.seed)
        policy = self.load(**self.bits())
        return settled(self, policy, lambda job: job._learning(task, policy))

    def _learning(self, task: Task, policy: LanguageModel) -> Setup:
        """Everything else, of settled options."""
        from logpi.algorithms import algorithm
        from logpi.learner import Learner
        from logpi.rollouts.demonstrations import Demonstrations

        policy.chunk = CHUNK if policy.device.type == "cpu" else policy.chunk
        saver = self.adapt(policy)
        shape: dict[str, Any] = {
            "max_length": policy.fitting(self.max_length),
            "chat": self.template(policy),
            "seed": self.seed,
            "learn": self.loss,
        }
        rollout = Demonstrations(policy, task, rows=self.rows, **shape)
        evaluate = None
        if self.eval_items:
            items = min(self.eval_items, len(task.rows("test")))
            held_out = Demonstrations(policy, task, rows=items, split="test", **shape)
            evaluate = _perplexity(policy, held_out().batch)
        method = algorithm("sft", micro_tokens=self.micro_tokens)
        learner = Learner(policy, method, self.rates(), total=self.steps, seed=self.seed)
        print(policy.template.describe(), file=sys.stderr)
        return Setup(
            rollout,
            learner,
            policy,
            saver.save,
            self.steps,
            evaluate,
            self.eval_every,
            self.save_every,
            curves=(("loss", "eval/loss"), "grad_norm"),
        )


main = partial(command, SFT, "Fine-tune a language model on demonstrations.")


def _perplexity(policy: CausalLM, batch: Batch) -> Evaluate:
    """Measures exp of the mean negative log-likelihood of held-out tokens. The best policy has the
    largest log-likelihood."""
    from logpi.updates.micro_batches import evaluate

    def measure(step: int) -> tuple[Mapping[str, float], Sequence[Mapping[str, Any]]]:
        loss = -float(evaluate(policy, batch, 16_384).logp[batch.mask].mean())
        return {
            "eval/log_likelihood": -loss,
            "eval/loss": loss,
            "eval/perplexity": math.exp(loss),
        }, []

    return measure
