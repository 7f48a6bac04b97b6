"""`logpi rl`: reinforcement learning of a language model with verifiable rewards, by any algorithm
of the table.

`rl_parts.py` makes the parts. Left out: demonstrations (`sft.py`), given pairs (`prefer.py`), and
environments of numbers (`gym.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from logpi.jobs.job import Job, Setup, job
from logpi.jobs.memory import memory
from logpi.jobs.options.algorithm import flags_of_algorithm
from logpi.jobs.options.fields import changed, option
from logpi.jobs.options.learning import LearningArguments, LoraArguments
from logpi.jobs.options.model import ModelArguments
from logpi.jobs.options.model_size import said, settled
from logpi.jobs.options.sampler import SamplerArguments
from logpi.jobs.options.sampling import DecodingArguments
from logpi.jobs.options.sources import SourceArguments
from logpi.jobs.options.turns import TurnArguments
from logpi.jobs.rl_parts import (
    RLData,
    algorithm_of,
    by_reward,
    check_groups,
    curves_of,
    idle_ranks,
    make_learner,
    make_reference,
    roles_in_memory,
    rollout_and_evaluator,
    rows_and_rewards,
    sampled_ahead,
    tokenizer_file,
    with_critic,
)
from logpi.jobs.seeds import command
from logpi.runs.progress import Progress

if TYPE_CHECKING:
    from logpi.algorithms import Algorithm
    from logpi.engine.language_model import LanguageModel

# A recipe holds the options that a paper published; the user's own options win.
RECIPES: dict[str, dict[str, Any]] = {
    # DeepSeek-R1-Zero (Nature 645, 633, Methods): 32 questions of 16 samples, equal weights, no
    # neural reward, clip 10
    "r1-zero": {
        "prompt_template": "r1-zero",
        "rewards": ("math", "think_answer"),
        "algorithm": "grpo_r1",
        "options": {"low": 10, "beta": 0.001},
        "prompts": 32,
        "num_generations": 16,
        "lr": 3e-6,
        "refresh_reference": 400,
    },
}


@job
class RL(
    Job,
    ModelArguments,
    LoraArguments,
    LearningArguments,
    DecodingArguments,
    SamplerArguments,
    SourceArguments,
    TurnArguments,
):
    """Reinforcement learning of a language model with rewards that can be checked: `logpi rl`.

    >>> import logpi
    >>> job = logpi.RL(model="my-model", task=[{"prompt": "1+1=", "answer": "2"}], steps=50)
    >>> job.algorithm, job.steps
    ('grpo', 50)
    """

    COMMAND = "rl"
    RANKS = True
    HEADING = "training"
    FIRST = "model task rewards algorithm steps prompts num_generations lr out"
    RECIPES = RECIPES

    recipe: str = option(
        "", help="arguments that a paper published, before your own", choices=("", *RECIPES)
    )
    task: str | Any = option(
        "addition",
        objects=True,
        help="addition, countdown, sort, facts, … (docs/guide.md), a file of rows, or a hub name",
    )
    rewards: tuple[str | Any, ...] = option(
        (),
        objects=True,
        help=(
            "NAME, FILE.py:FUNCTION or model:PATH, with :WEIGHT (0: only measured), summed"
            " (default: the task's own)"
        ),
        nargs="*",
    )
    critic: str | Any = option(
        "shared",
        objects=True,
        help=(
            "for ppo: shared (a value head), policy (a trunk of its own), or a reward model's"
            " directory"
        ),
    )
    teacher: str | Any = option(
        "",
        objects=True,
        help=(
            "a model with the same tokens, which the policy becomes like: with --algorithm distill,"
            " or with another row's --beta"
        ),
    )
    algorithm: str | Any = option(
        "grpo", objects=True, help="a row of `logpi algorithms`, or FILE.py:NAME"
    )
    options: Mapping[str, Any] = option(
        {},
        help=(
            "its settings, e.g. beta=0 high=0.28 epochs=2 entropy_coef=0.01 (see `logpi describe"
            " NAME`)"
        ),
        nargs="*",
        flags=flags_of_algorithm,
    )
    steps: int = option(200, help="updates", least=1, most=10**7, changeable=True)
    prompts: int | None = option(
        None,
        help=f"prompts for each update (default: {said('rl', 'prompts')})",
        least=1,
        most=2**20,
    )
    num_generations: int = option(
        8, help="completions for each prompt (the group)", least=1, most=2**16
    )
    truncation: str | None = option(
        None,
        help="what a cut-off completion is (default: the algorithm's choice, mostly bootstrap)",
        choices=("bootstrap", "mask", "fail"),
    )
    groups: str | None = option(
        None,
        help="those whose rewards are all equal (default: the algorithm's choice)",
        choices=("keep", "drop", "resample"),
    )
    temperature: float = changed(
        DecodingArguments, "temperature", 1.0, help="of the policy: sampled with, and trained with"
    )
    stop: tuple[str, ...] = option((), help="strings that end a completion", nargs="*")
    refresh_reference: int = option(
        0, help="set the KL penalty's reference to the policy every N updates; 0: never", least=0
    )
    eval_every: int = option(
        20,
        help="steps between evaluations on held-out items; 0: only before and after",
        least=0,
        changeable=True,
    )
    eval_items: int = option(200, help="held-out items", least=1)
    eval_samples: int = option(
        1, help="samples for each of them; more give pass@k and maj@k", least=1, most=2**16
    )
    slots: int = changed(DecodingArguments, "slots", 128)
    mask_observations: bool = option(
        True, help="with tools: train on nothing that they said (off: for the ablation only)"
    )

    def setup(self) -> Setup:
        with ExitStack() as stack:
            setup = self._setup(stack)
            return replace(setup, close=stack.pop_all().close)

    def _setup(self, stack: ExitStack) -> Setup:
        from logpi.runs.rng import seed

        method = algorithm_of(self)
        data = rows_and_rewards(self)
        seed(self.seed)
        shared = method.objective.needs_critic and self.critic == "shared"
        policy = self.load(critic=shared, temperature=self.temperature, **self.bits())
        return settled(self, policy, lambda job: job._learning(stack, method, data, policy))

    def _learning(
        self, stack: ExitStack, method: Algorithm, data: RLData, policy: LanguageModel
    ) -> Setup:
        """Everything else, of settled options."""
        from logpi.algorithms import describe
        from logpi.engine.vllm.sampler import VLLMSampler
        from logpi.policies.reward_model import WithCritic

        check_groups(self, method)
        saver = plain = self.adapt(policy)
        learns, reference = with_critic(self, method, policy), make_reference(self, method, policy)
        saver = learns.saver(saver) if isinstance(learns, WithCritic) else saver
        learner = make_learner(self, method, learns, reference)
        sampler = stack.enter_context(self.sampling_by(policy, plain.save, lambda: learner.updates))
        rollout, evaluator = rollout_and_evaluator(self, method, policy, sampler, data)
        if isinstance(sampler, VLLMSampler) and not self.ahead:
            rollout.numbers = sampler.metrics
        roles = roles_in_memory(self, learns, policy, reference, data.rewards)
        notes = [describe(method), policy.template.describe()]
        notes += [memory(roles)] if len(roles) > 1 else []
        notes += idle_ranks(rollout.size)
        print(*notes, sep="\n\n", file=sys.stderr)
        progress = Progress(self.steps)
        rollout.progress = evaluator.progress = lambda done, total: progress.phase(
            f"sampling {done}/{total}"
        )
        batches, evaluate = sampled_ahead(self, stack, rollout, learner, by_reward(evaluator))
        return Setup(
            batches,
            learner,
            policy,
            saver.save,
            self.steps,
            evaluate,
            self.eval_every,
            self.save_every,
            curves=curves_of(data.rewards.names, rollout.conversations is not None),
            progress=progress,
            files=tokenizer_file(policy.tokenizer),
        )


main = partial(command, RL, "Train a language model with rewards that can be checked.")
