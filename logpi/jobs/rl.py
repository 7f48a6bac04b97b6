"""`logpi rl`: reinforcement learning of a language model with verifiable rewards, by any algorithm
of the table.

Here the parts are chosen and put together. Left out: demonstrations (`sft.py`), given pairs
(`prefer.py`), environments of numbers (`gym.py`).
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from logpi.errors import UserError
from logpi.jobs.common import whole_groups
from logpi.jobs.job import Job, Setup, job
from logpi.jobs.memory import Role, memory
from logpi.jobs.options.algorithm import flags_of_algorithm
from logpi.jobs.options.fields import changed, option
from logpi.jobs.options.lora import LoraArguments
from logpi.jobs.options.model import ModelArguments
from logpi.jobs.options.run import read
from logpi.jobs.options.sampling import DecodingArguments
from logpi.jobs.options.seeds import SeedArguments
from logpi.jobs.options.sources import SourceArguments
from logpi.jobs.options.turns import TurnArguments, columns
from logpi.jobs.seeds import start
from logpi.runs.progress import Progress

if TYPE_CHECKING:
    from logpi.algorithms import Algorithm
    from logpi.engine.engine import Engine
    from logpi.envs.task import Row, Task
    from logpi.evaluation.evaluator import Evaluator
    from logpi.learner import Learner
    from logpi.policies.causal_lm import CausalLM
    from logpi.rewards import Rewards
    from logpi.rollouts.prompt_sources import PromptSource
    from logpi.rollouts.text_rollout import TextRollout
    from logpi.train import Evaluate
    from logpi.types import Policy

# Nats, on average: two forwards of 16-bit weights differ by 0.007 to 0.05 (single tokens by 0.4).
ROUNDING = 0.1
CURVES = (
    "reward",
    "eval/pass@1",
    "completions/mean_length",
    "entropy",
    ("responses/format", "responses/mixed", "responses/reflective"),
)
# A recipe is options that a paper published; the user's own win.
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
    DecodingArguments,
    SourceArguments,
    TurnArguments,
    SeedArguments,
):
    """Reinforcement learning of a language model with rewards that can be checked: `logpi rl`.

    >>> import logpi
    >>> job = logpi.RL(model="my-model", task=[{"prompt": "1+1=", "answer": "2"}], steps=50)
    >>> job.algorithm, job.steps
    ('grpo', 50)
    """

    COMMAND = "rl"
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
    algorithm: str | Any = option("grpo", objects=True, help="a row of `logpi algorithms`")
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
    prompts: int = option(8, help="prompts for each update", least=1, most=2**20)
    num_generations: int = option(
        8, help="completions for each prompt (the group)", least=1, most=2**16
    )
    truncation: str = option(
        "bootstrap", help="what a cut-off completion is", choices=("bootstrap", "mask", "fail")
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
    lr: float = option(
        1e-6,
        help="peak learning rate (about 3e-4 for a model of a million parameters)",
        least=0,
        most=10,
    )
    warmup: int = option(0, help="updates over which the learning rate climbs", least=0)
    schedule: str = option(
        "constant", help="of the learning rate after that", choices=("constant", "linear", "cosine")
    )
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
        from logpi.algorithms import describe
        from logpi.engine.engine import Engine
        from logpi.policies.reward_model import WithCritic
        from logpi.runs.rng import seed

        made = algorithm_of(self)
        data = _data(self)
        seed(self.seed)
        shared = made.objective.needs_critic and self.critic == "shared"
        policy = self.load(critic=shared, temperature=self.temperature, **self.bits())
        saver = self.adapt(policy)
        learns, reference = _with_critic(self, made, policy), _reference(self, made, policy)
        saver = learns.saver(saver) if isinstance(learns, WithCritic) else saver
        learner = _learner(self, made, learns, reference)
        rollout, evaluator = _sampling(self, made, policy, Engine(policy, slots=self.slots), data)
        roles = _roles(self, learns, policy, reference, data.rewards)
        notes = [describe(made), policy.template.describe()]
        notes += [memory(roles)] if len(roles) > 1 else []
        print(*notes, sep="\n\n", file=sys.stderr)
        progress = Progress(self.steps)
        rollout.progress = evaluator.progress = lambda done, total: progress.phase(
            f"sampling {done}/{total}"
        )
        return Setup(
            rollout,
            learner,
            policy,
            saver.save,
            self.steps,
            _by_part(evaluator, evaluator.rewards),
            self.eval_every,
            self.save_every,
            curves=_curves(data.rewards.names, rollout.conversations is not None),
            progress=progress,
        )


def main(argv: Sequence[str]) -> int:
    start(read(RL, argv, "rl", "Train a language model with rewards that can be checked."))
    return 0


@dataclass(frozen=True)
class _Data:
    """Rows and what judges responses to them."""

    task: Task
    other: Task | None
    rewards: Rewards
    source: PromptSource
    held_out: list[Row]


def _data(a: RL) -> _Data:
    """The job's rows, checked against its rewards."""
    from logpi.envs.tasks import task as make_task
    from logpi.rewards import rewards as make_rewards

    task = make_task(a.task)
    rewards = make_rewards(a.rewards, a.device) if a.rewards else task.reward
    rows = task.rows("train", a.seed)
    rewards.check([*rows[0], *columns(task)], rows[:32], rows)
    other = a.others()
    source = a.source(task, other, a.prompts, a.seed)
    return _Data(task, other, rewards, source, list(task.rows("test")[: a.eval_items]))


def _sampling(
    a: RL, made: Algorithm, policy: CausalLM, engine: Engine, data: _Data
) -> tuple[TextRollout, Evaluator]:
    """What samples responses to learn from, and to measure by."""
    from logpi.engine.sampling import Sampling
    from logpi.evaluation.evaluator import Evaluator
    from logpi.rollouts.text_rollout import TextRollout

    template = a.template(policy)
    sampling = Sampling(max_tokens=a.max_completion_length, stop=a.stop)
    conversations = a.conversations(data.task, policy, template)
    readable = a.prompt_filter(policy, template, conversations)
    held_out = readable.check(data.held_out, "held-out items")
    for task in (data.task, data.other):
        # What is not readable is passed over while training.
        readable.check(task.rows("train") if task else [], "prompts")
    rollout = TextRollout(
        policy,
        engine,
        data.task,
        data.rewards,
        algorithm=made,
        prompts=a.prompts,
        num_generations=a.num_generations,
        sampling=sampling,
        chat=template,
        seed=a.seed,
        source=data.source,
        conversations=conversations,
        mask_observations=a.mask_observations,
        overlong=a.overlong_prompts,
    )
    evaluator = Evaluator(
        policy,
        engine,
        held_out,
        data.rewards,
        sampling,
        a.eval_samples,
        chat=template,
        conversations=conversations,
        overlong=a.overlong_prompts,
    )
    return rollout, evaluator


def _curves(names: Sequence[str], tools: bool) -> tuple[Any, ...]:
    """The panels of the run's picture."""
    parts = (tuple(f"rewards/{n}/mean" for n in names), tuple(f"eval/{n}" for n in names))
    turns = ("turns/mean", "tools/calls", "tools/errors") if tools else ()
    return (*CURVES, *(parts if len(names) > 1 else ()), *turns, "kl_sequence")


def algorithm_of(a: RL) -> Algorithm:
    """The algorithm with the command line's settings; refused if it cannot learn from samples of a
    policy."""
    from logpi.algorithms import Algorithm, algorithm
    from logpi.algorithms import options as known
    from logpi.ops.selection import (
        Bootstrap,
        CountAsFailure,
        DropUniform,
        KeepAll,
        MaskOut,
        MixedOutcomes,
    )

    if isinstance(a.algorithm, Algorithm):
        made = a.algorithm
        if a.groups is not None or a.truncation != "bootstrap":
            raise UserError("an algorithm that is an object says itself what it learns from")
        return _checked(a, made)
    chosen = dict(a.options)
    takes = {o.name for o in known(a.algorithm)}
    if "max_completion_length" in takes:
        chosen.setdefault("max_completion_length", a.max_completion_length)
    if "sampled" in takes:
        chosen.setdefault("sampled", True)
    truncation = {"bootstrap": Bootstrap(), "mask": MaskOut(), "fail": CountAsFailure()}[
        a.truncation
    ]
    if a.groups is not None:
        chosen["keep"] = {"keep": KeepAll(), "drop": DropUniform(), "resample": MixedOutcomes()}[
            a.groups
        ]
    return _checked(a, algorithm(a.algorithm, truncation=truncation, **chosen))


def _checked(a: RL, made: Algorithm) -> Algorithm:
    """The algorithm, if this job can serve it."""
    from logpi.types import Data

    if Data.SAMPLES not in made.objective.learns_from:
        raise UserError(
            f"{made.name} learns from given data: use `logpi sft`, `prefer` or `reward-model`"
        )
    if a.num_generations < made.objective.min_group:
        raise UserError(
            f"{made.name} compares completions of one prompt: --num-generations must be at least "
            f"{made.objective.min_group}, not {a.num_generations}"
        )
    whole_groups(made, a.prompts, "--prompts")
    # With weights of 16 bits the decoder rounds otherwise than the learner: the mismatch is
    # weighed, up to a cap.
    return made if a.dtype == "float32" else replace(made, objective=made.objective.corrected())


def _learner(a: RL, made: Algorithm, learns: Policy, reference: Policy | None) -> Learner:
    """The learner with the command line's rates. Old log-probabilities of 16-bit weights are its
    own, not the decoder's."""
    from logpi.learner import Learner, Trust
    from logpi.updates.adamw import AdamW, Constant, Cosine, Linear

    schedule = {"constant": Constant(), "linear": Linear(), "cosine": Cosine()}[a.schedule]
    rates = AdamW(a.lr, warmup=a.warmup, schedule=schedule)
    trust = Trust() if a.dtype == "float32" else Trust(sampler=False, tolerance=ROUNDING, mean=True)
    return Learner(
        learns,
        made,
        rates,
        total=a.steps,
        reference=reference,
        refresh=a.refresh_reference,
        trust=trust,
        seed=a.seed,
    )


def _with_critic(a: RL, made: Algorithm, policy: CausalLM) -> Policy:
    """What learns: the policy, with a critic of its own trunk if one is asked for."""
    from logpi.policies.reward_model import RewardModel, WithCritic

    if not made.objective.needs_critic or a.critic == "shared":
        return policy
    if a.critic != "policy":
        source = a.critic.removeprefix("model:") if isinstance(a.critic, str) else a.critic
        return WithCritic(policy, RewardModel.load(source, **a.loading()))
    # Of an object, which the policy uses in place, the critic gets a copy.
    source, tokenizer = a.model, None
    if not isinstance(source, str):
        source, tokenizer = policy.model, policy.tokenizer
    return WithCritic(policy, RewardModel.load(source, tokenizer=tokenizer, **a.loading()))


def _reference(a: RL, made: Algorithm, policy: CausalLM) -> Policy | None:
    """The policy as it is now; with LoRA the same weights without the adapter."""
    from logpi.policies.lora import AdapterOff

    if not made.objective.needs_reference:
        return None
    if not a.lora:
        return copy.deepcopy(policy).requires_grad_(False)
    if a.refresh_reference:
        raise UserError(
            "with --lora the reference is the model without its adapter, and cannot be refreshed"
        )
    return AdapterOff(policy)


def _roles(a: RL, learns: Any, policy: CausalLM, reference: Any, judged: Rewards) -> list[Role]:
    """Every model in memory."""
    from logpi.rewards.model import ModelReward

    roles = [Role("policy", policy, f"LoRA of rank {a.lora}" if a.lora else "")]
    if learns is not policy:
        roles.append(Role("critic", learns.critic, f"begins as {a.critic}"))
    elif policy.value_head is not None:
        roles.append(Role("critic", None, "a value head on the policy's trunk, counted there"))
    if reference is not None:
        module, note = (None, "the policy without its adapter") if a.lora else (reference, "")
        roles.append(Role("reference", module, note))
    models = [p.function for p in judged.parts if isinstance(p.function, ModelReward)]
    return roles + [Role(f"reward {m.name}", m.model) for m in models]


def _by_part(evaluator: Evaluate, judged: Rewards) -> Evaluate:
    """Also what responses look like, and with several rewards the mean of each; a learned one's
    total says what is best."""
    from logpi.rewards.model import ModelReward
    from logpi.rollouts.response_metrics import evaluation_metrics

    learned = isinstance(judged.parts[0].function, ModelReward)

    def measure(step: int) -> tuple[Mapping[str, float], Sequence[Mapping[str, Any]]]:
        numbers, rows = evaluator(step)
        scores = [s for row in rows if row["kind"] == "sampled" for s in row["rewards"]]
        known = {n: [s[n] for s in scores if s[n] is not None] for n in judged.names}
        means = (
            {f"eval/{n}": fmean(v) for n, v in known.items() if v}
            if learned or len(known) > 1
            else {}
        )
        total = {"eval/reward": numbers["eval/reward"]} if learned else {}
        dull = [k for k in numbers if learned and ("pass@" in k or "greedy" in k or "maj@" in k)]
        kept = {k: v for k, v in numbers.items() if k not in dull}
        return {**total, **kept, **means, **({} if learned else evaluation_metrics(rows))}, rows

    return measure
