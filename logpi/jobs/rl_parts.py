"""The parts of reinforcement learning on text, made from the job's options: algorithm, rows,
rewards, rollout, evaluation, and the learner with its critic and reference.

Left out: the options and the run itself (`rl.py`).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from logpi.distributed.world import current
from logpi.errors import UserError
from logpi.jobs.common import whole_groups
from logpi.jobs.memory import Role
from logpi.jobs.options.fingerprint import described
from logpi.jobs.options.turns import columns

if TYPE_CHECKING:
    from logpi.algorithms import Algorithm
    from logpi.engine.sampler import Sampler
    from logpi.envs.task import Row, Task
    from logpi.evaluation.evaluator import Evaluator
    from logpi.learner import Learner
    from logpi.policies.causal_lm import CausalLM
    from logpi.rewards import Rewards
    from logpi.rollouts.text_rollout import TextRollout
    from logpi.train import Evaluate
    from logpi.types import Policy, Rollout

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
    """Rows, and the rewards that judge responses to them."""

    task: Task
    other: Task | None
    rewards: Rewards
    held_out: list[Row]


def rows_and_rewards(a: Any) -> RLData:
    """The job's rows, checked against its rewards."""
    from logpi.distributed.sharding import Shard
    from logpi.envs.tasks import task as make_task
    from logpi.rewards import rewards as make_rewards

    task = make_task(a.task)
    rewards = make_rewards(a.rewards, a.device) if a.rewards else task.reward
    rewards = rewards.in_shards(Shard.parse(a.shard, offload=a.offload))
    rows = task.rows("train", a.seed)
    rewards.check([*rows[0], *columns(task, a)], rows[:32], rows)
    other = a.others()
    return RLData(task, other, rewards, list(task.rows("test")[: a.eval_items]))


def rollout_and_evaluator(
    a: Any, method: Algorithm, policy: CausalLM, sampler: Sampler, data: RLData
) -> tuple[TextRollout, Evaluator]:
    """The rollout that the learner learns from, and the evaluator of held-out items."""
    from logpi.engine.sampling import Sampling
    from logpi.evaluation.evaluator import Evaluator
    from logpi.rollouts.text_rollout import TextRollout

    template = a.template(policy)
    sampling = Sampling(max_tokens=a.max_completion_length, stop=a.stop)
    conversations = a.conversations(data.task, policy, template)
    readable = a.prompt_filter(policy, template, conversations)
    held_out = readable.check(data.held_out, "held-out items")
    for task in (data.task, data.other):
        # Training passes over the prompts that are not readable.
        readable.check(task.rows("train") if task else [], "prompts")
    rollout = TextRollout(
        policy,
        sampler,
        data.task,
        data.rewards,
        algorithm=method,
        prompts=a.prompts,
        num_generations=a.num_generations,
        sampling=sampling,
        chat=template,
        seed=a.seed,
        source=a.source(data.task, data.other, a.prompts, a.seed),
        conversations=conversations,
        mask_observations=a.mask_observations,
        overlong=a.overlong_prompts,
    )
    evaluator = Evaluator(
        policy,
        sampler,
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


def sampled_ahead(
    a: Any, stack: ExitStack, rollout: TextRollout, learner: Learner, evaluate: Evaluate
) -> tuple[Rollout, Evaluate]:
    """The rollout and the evaluation. With `ahead` a thread collects batches until the stack ends,
    and an evaluation waits for it."""
    from logpi.rollouts.ahead import Ahead, Correct, Drop, Refuse

    if not a.ahead:
        return rollout, evaluate
    ahead = Ahead(
        rollout,
        a.ahead,
        rollout.sampler,
        lambda: learner.updates,
        stale={"correct": Correct(), "drop": Drop(), "refuse": Refuse()}[a.stale],
        total=a.steps,
    )
    return stack.enter_context(ahead), ahead.resting(evaluate)


def tokenizer_file(tokenizer: Any) -> dict[str, bytes]:
    """The file that turns a run's token ids into text without its model (`logpi view`); none of a
    tokenizer that is written in Python."""
    core = getattr(tokenizer, "backend_tokenizer", None)
    return {} if core is None else {"tokenizer/tokenizer.json": core.to_str().encode()}


def idle_ranks(prompts: int) -> list[str]:
    """What to say of ranks that have no prompt to sample."""
    ranks = current().size
    if ranks <= prompts:
        return []
    return [
        f"{ranks} ranks share {prompts} prompts, so {ranks - prompts} of them have nothing to"
        f" sample and only learn: --prompts {ranks}, or a multiple, uses all"
    ]


def algorithm_of(a: Any) -> Algorithm:
    """The algorithm with the job's settings. Raises UserError if it cannot learn from samples of a
    policy."""
    from logpi.algorithms import Algorithm, algorithm
    from logpi.algorithms import options as known
    from logpi.ops.selection import GROUPS, TRUNCATIONS

    takes = set() if isinstance(a.algorithm, Algorithm) else {o.name for o in known(a.algorithm)}
    own: dict[str, Any] = {"sampled": True}
    if "weight" not in a.options:  # which says for itself what it divides by
        own["max_completion_length"] = a.max_completion_length
    chosen = {**{k: v for k, v in own.items() if k in takes}, **a.options}
    if a.truncation is not None:
        chosen["truncation"] = TRUNCATIONS[a.truncation]
    if a.groups is not None:
        chosen["keep"] = GROUPS[a.groups]
    return _checked(a, algorithm(a.algorithm, **chosen))


def _checked(a: Any, method: Algorithm) -> Algorithm:
    """The algorithm, if it can learn in this job. Raises UserError if not."""
    from logpi.types import Data

    if Data.SAMPLES not in method.objective.learns_from:
        raise UserError(
            f"{method.name} learns from given data: use `logpi sft`, `prefer` or `reward-model`"
        )
    check_groups(a, method)
    if a.ahead:
        _check_ahead(a)
    method = _taught(a, method)
    # With 16-bit weights, or by another engine, sampler and learner round differently: the
    # objective corrects for the mismatch with capped importance weights.
    if a.dtype == "float32" and a.same_numerics:
        return method
    return replace(method, objective=method.objective.corrected())


def check_groups(a: Any, method: Algorithm) -> None:
    """Raises UserError if the algorithm cannot compare so few responses, or so few prompts (None:
    the model's size will say how many)."""
    if a.num_generations < method.objective.min_group:
        raise UserError(
            f"{method.name} compares completions of one prompt: --num-generations must be at least "
            f"{method.objective.min_group}, not {a.num_generations}"
        )
    if a.prompts is not None:
        whole_groups(method, a.prompts, "--prompts")


def _taught(a: Any, method: Algorithm) -> Algorithm:
    """The algorithm with the job's teacher as the reference of its penalty. Raises UserError if a
    teacher is missing, or not read."""
    objective = method.objective
    if not a.teacher:
        if objective.needs_teacher:
            raise UserError(f"{method.name} learns from a teacher: give --teacher MODEL")
        return method
    if not objective.needs_reference:
        raise UserError(
            f"{method.name} does not read a teacher with these settings: {_to_be_taught(a, method)}"
        )
    if a.refresh_reference:
        raise UserError("a teacher stays as it is: leave --refresh-reference out")
    return replace(method, objective=objective.taught())


def _to_be_taught(a: Any, method: Algorithm) -> str:
    """What makes an algorithm without a penalty read a teacher. Some rows have no β to set, and
    `distill` is what it is already."""
    from logpi.algorithms import options as known

    penalty = ["set --beta above 0"] if "beta" in {o.name for o in known(a.algorithm)} else []
    distill = [] if method.objective.needs_teacher else ["use --algorithm distill"]
    return ", or ".join(penalty + distill) or "give it a penalty above 0"


def _check_ahead(a: Any) -> None:
    """Raises UserError if batches cannot be sampled ahead."""
    from logpi.rollouts.ahead import independent

    if a.samples_itself or not isinstance(a.sampler, str):
        independent(a.sampler)
    if not a.mask_observations:
        raise UserError(
            "--no-mask-observations reads the policy while rows are made, and with --ahead it"
            " changes then: leave one of them out"
        )


def make_learner(a: Any, method: Algorithm, learns: Policy, reference: Policy | None) -> Learner:
    """The learner. With 16-bit weights, or another engine's samples, it computes old log-
    probabilities itself, and does not take the sampler's."""
    from logpi.learner import Learner, Trust

    trust = Trust(sampler=a.same_numerics)
    if a.dtype != "float32" or a.sampler_dtype != "auto":
        trust = Trust(sampler=False, tolerance=ROUNDING, mean=True)
    return Learner(
        learns,
        method,
        a.rates(),
        total=a.steps,
        reference=reference,
        refresh=a.refresh_reference,
        trust=trust,
        seed=a.seed,
    )


def with_critic(a: Any, method: Algorithm, policy: CausalLM) -> Policy:
    """The policy, with a critic that has a trunk of its own if the options ask for one."""
    from logpi.policies.reward_model import RewardModel, WithCritic

    if not method.objective.needs_critic or a.critic == "shared":
        return policy
    source, tokenizer = a.critic, None
    if a.critic == "policy":
        # The policy uses the user's object in place; the critic gets a copy of it.
        own = isinstance(a.model, str)
        source, tokenizer = (a.model, None) if own else (policy.model, policy.tokenizer)
    elif isinstance(source, str):
        source = source.removeprefix("model:")
    return WithCritic(policy, RewardModel.load(source, tokenizer=tokenizer, **a.loading()))


def make_reference(a: Any, method: Algorithm, policy: CausalLM) -> Policy | None:
    """The policy as it is now; with LoRA the same weights without the adapter."""
    from logpi.policies.lora import AdapterOff

    if not method.objective.needs_reference:
        return None
    if a.teacher:
        return make_teacher(a, policy)
    if not a.lora:
        return copy.deepcopy(policy).requires_grad_(False)
    if a.refresh_reference:
        raise UserError(
            "with --lora the reference is the model without its adapter, and cannot be refreshed"
        )
    return AdapterOff(policy)


def make_teacher(a: Any, policy: CausalLM) -> CausalLM:
    """The frozen teacher, at the policy's temperature. Raises UserError if its tokens are not the
    policy's."""
    from logpi.errors import as_user_errors
    from logpi.policies.causal_lm import CausalLM

    with as_user_errors():
        teacher = CausalLM.load(a.teacher, temperature=a.temperature, **a.loading())
    name = a.teacher if isinstance(a.teacher, str) else described(a.teacher)
    ours, theirs = policy.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    if differing := sorted({token for token, _ in ours.items() ^ theirs.items()}):
        raise UserError(
            f"--teacher {name} has another tokenizer than the policy (differing tokens:"
            f" {len(differing)}, e.g. {differing[0]!r}), so it cannot judge its"
            " tokens: give a model of the same family, or learn from its texts (logpi harvest,"
            " then logpi sft)"
        )
    if teacher.vocabulary < policy.vocabulary:
        raise UserError(
            f"--teacher {name} has {teacher.vocabulary} logits and the policy"
            f" {policy.vocabulary}, so some of the policy's tokens have no probability there"
        )
    return teacher.requires_grad_(False)


def roles_in_memory(
    a: Any, learns: Any, policy: CausalLM, reference: Any, rewards: Rewards
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
        alone = a.lora and not a.teacher
        module, note = (None, "the policy without its adapter") if alone else (reference, "")
        roles.append(Role("teacher" if a.teacher else "reference", module, note))
    models = [p.function for p in rewards.parts if isinstance(p.function, ModelReward)]
    return roles + [Role(f"reward {m.name}", m.model) for m in models]


def by_reward(evaluator: Evaluator) -> Evaluate:
    """The evaluation with further numbers: what responses look like, and with several rewards the
    mean of each. Under a reward model its total comes first, for it says which policy is best."""
    from logpi.rewards.model import ModelReward
    from logpi.rollouts.response_metrics import evaluation_metrics

    rewards = evaluator.rewards
    learned = isinstance(rewards.parts[0].function, ModelReward)

    def measure(step: int) -> tuple[Mapping[str, float], Sequence[Mapping[str, Any]]]:
        numbers, rows = evaluator(step)
        scores = [s for row in rows if row["kind"] == "sampled" for s in row["rewards"]]
        known = {n: [s[n] for s in scores if s[n] is not None] for n in rewards.names}
        means = {f"eval/{n}": fmean(v) for n, v in known.items() if v}
        if not learned:
            means = means if len(known) > 1 else {}
            return {**numbers, **means, **evaluation_metrics(rows)}, rows
        # Nothing is right or wrong under a reward model.
        kept = {k: v for k, v in numbers.items() if not re.search("pass@|maj@|greedy", k)}
        return {"eval/reward": numbers["eval/reward"], **kept, **means}, rows

    return measure
