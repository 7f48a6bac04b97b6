"""The parts of a run of reinforcement learning on text: the algorithm as the options say it, rows,
rewards, the rollout and the evaluation, the learner with its critic and reference.

Left out: the job's options and the run itself (`jobs/rl.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from logpi.errors import UserError
from logpi.jobs.common import whole_groups
from logpi.jobs.memory import Role
from logpi.jobs.options.turns import columns

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


@dataclass(frozen=True)
class RLData:
    """Rows and what judges responses to them."""

    task: Task
    other: Task | None
    rewards: Rewards
    source: PromptSource
    held_out: list[Row]


def rows_and_rewards(a: Any) -> RLData:
    """The job's rows, checked against its rewards."""
    from logpi.envs.tasks import task as make_task
    from logpi.rewards import rewards as make_rewards

    task = make_task(a.task)
    rewards = make_rewards(a.rewards, a.device) if a.rewards else task.reward
    rows = task.rows("train", a.seed)
    rewards.check([*rows[0], *columns(task)], rows[:32], rows)
    other = a.others()
    source = a.source(task, other, a.prompts, a.seed)
    return RLData(task, other, rewards, source, list(task.rows("test")[: a.eval_items]))


def rollout_and_evaluator(
    a: Any, made: Algorithm, policy: CausalLM, engine: Engine, data: RLData
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


def curves_of(names: Sequence[str], tools: bool) -> tuple[Any, ...]:
    """The panels of the run's picture."""
    parts = (tuple(f"rewards/{n}/mean" for n in names), tuple(f"eval/{n}" for n in names))
    turns = ("turns/mean", "tools/calls", "tools/errors") if tools else ()
    return (*CURVES, *(parts if len(names) > 1 else ()), *turns, "kl_sequence")


def algorithm_of(a: Any) -> Algorithm:
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

    chosen = dict(a.options)
    if not isinstance(a.algorithm, Algorithm):
        takes = {o.name for o in known(a.algorithm)}
        if "max_completion_length" in takes:
            chosen.setdefault("max_completion_length", a.max_completion_length)
        if "sampled" in takes:
            chosen.setdefault("sampled", True)
    if a.truncation is not None:
        kinds = {"bootstrap": Bootstrap(), "mask": MaskOut(), "fail": CountAsFailure()}
        chosen["truncation"] = kinds[a.truncation]
    if a.groups is not None:
        groups = {"keep": KeepAll(), "drop": DropUniform(), "resample": MixedOutcomes()}
        chosen["keep"] = groups[a.groups]
    return _checked(a, algorithm(a.algorithm, **chosen))


def _checked(a: Any, made: Algorithm) -> Algorithm:
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


def make_learner(a: Any, made: Algorithm, learns: Policy, reference: Policy | None) -> Learner:
    """The learner with the command line's rates. Old log-probabilities of 16-bit weights are its
    own, not the decoder's."""
    from logpi.learner import Learner, Trust

    trust = Trust() if a.dtype == "float32" else Trust(sampler=False, tolerance=ROUNDING, mean=True)
    return Learner(
        learns,
        made,
        a.rates(),
        total=a.steps,
        reference=reference,
        refresh=a.refresh_reference,
        trust=trust,
        seed=a.seed,
    )


def with_critic(a: Any, made: Algorithm, policy: CausalLM) -> Policy:
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


def make_reference(a: Any, made: Algorithm, policy: CausalLM) -> Policy | None:
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


def roles_in_memory(
    a: Any, learns: Any, policy: CausalLM, reference: Any, judged: Rewards
) -> list[Role]:
    """Every model in memory."""
    from logpi.rewards.model import ModelReward

    roles = [
        Role("policy", policy, f"LoRA of rank {getattr(a.lora, 'r', a.lora)}" if a.lora else "")
    ]
    if learns is not policy:
        roles.append(Role("critic", learns.critic, f"begins as {a.critic}"))
    elif policy.value_head is not None:
        roles.append(Role("critic", None, "a value head on the policy's trunk, counted there"))
    if reference is not None:
        module, note = (None, "the policy without its adapter") if a.lora else (reference, "")
        roles.append(Role("reference", module, note))
    models = [p.function for p in judged.parts if isinstance(p.function, ModelReward)]
    return roles + [Role(f"reward {m.name}", m.model) for m in models]


def by_reward(evaluator: Evaluate, judged: Rewards) -> Evaluate:
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
