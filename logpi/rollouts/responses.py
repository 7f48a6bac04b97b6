"""Sampling, judging, and the row of one response: what rollouts and evaluation share.

Token in, token out: the engine's ids and log-probabilities are the record, text is only decoded,
never encoded again. A response has one turn, or with an environment several; rewards judge what the
policy itself wrote, in either case. Left out: which prompts, and which rows are kept
(`text_rollout.py`, `evaluation/evaluator.py`).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from logpi.engine.turns import ENDED, Talk, Turn
from logpi.rewards import Rewards, RewardScore, failures
from logpi.rollouts.tool_conversations import Dialogues, announced
from logpi.types import Batch, Trajectory
from logpi.updates.micro_batches import evaluate

if TYPE_CHECKING:
    from logpi.engine.engine import Engine
    from logpi.engine.sampling import Completion, Request, Sampling
    from logpi.envs.task import Row
    from logpi.policies.causal_lm import CausalLM
    from logpi.rollouts.chat import Chat


@dataclass(frozen=True)
class Answers:
    """Completions of one row with their verdicts.

    Attributes:
        row, prompt: what was asked, and its token ids. completions: everything that was sampled,
            over all turns.
        texts: what the policy wrote, turns joined by line breaks. scores: of the reward functions.
            talks: turn by turn.
        prefix: what the prompt itself opened of the answer (`<think>\\n`, say).
    """

    row: Row
    prompt: Sequence[int]
    completions: Sequence[Completion]
    texts: Sequence[str]
    scores: Sequence[RewardScore]
    talks: Sequence[Talk]
    prefix: str = ""

    @property
    def returns(self) -> list[float | None]:
        """The final verdict and the turns' own rewards; None without a verdict."""
        return [self.worth(i) for i in range(len(self.scores))]

    def worth(self, number: int) -> float | None:
        """The return of response `number`."""
        total = self.scores[number].total
        return None if total is None else total + self.talks[number].reward


def prompt_ids(policy: CausalLM, chat: Chat, row: Row, dialogues: Dialogues | None) -> list[int]:
    """What the policy sees first. Raises ValueError or UserError if the model has no way to show
    it.

    A row's column `template_tools` goes to the chat template; an environment's tools take its
    place.
    """
    if dialogues is not None:
        return dialogues.prompt(row)
    return announced(
        policy,
        chat,
        row["prompt"],
        row.get("template_tools") or (),
        row.get("chat_template_kwargs"),
    )


def pass_rate(answers: Answers) -> float | None:
    """Share of right responses: the first reward at its full mark of 1. None without any verdict of
    it."""
    marks = [next(iter(s.parts.values()), None) for s in answers.scores]
    known = [m for m in marks if m is not None]
    return fmean(m >= 1.0 for m in known) if known else None


def answer(
    policy: CausalLM,
    engine: Engine,
    rewards: Rewards,
    rows: Sequence[Row],
    requests: Sequence[Request],
    sampling: Sampling,
    generator: torch.Generator,
    progress: Callable[[int, int], None] | None = None,
    dialogues: Dialogues | None = None,
    step: int = 0,
) -> tuple[list[Answers], dict[str, float]]:
    """Sample and judge: `requests[i]` answers `rows[i]`, in conversation if there are `dialogues`.
    Also each half's seconds.

    step: how many updates the policy has had, for rewards that change with it.
    """
    start = time.perf_counter()
    if dialogues is None:
        sampled = engine.generate(requests, sampling, generator, progress)
        flat = [c for cs in sampled for c in cs]
        texts = [policy.template.said(c.tokens.tolist()) for c in flat]
        told = [Talk((Turn(len(c.tokens), text),)) for c, text in zip(flat, texts, strict=True)]
    else:
        partner = dialogues.begin(rows, requests)
        sampling = replace(
            sampling, stop=tuple(dict.fromkeys((*sampling.stop, *dialogues.env.stop)))
        )
        sampled = engine.generate(requests, sampling, generator, progress, partner)
        told = [
            partner.talk(i, c.tokens.tolist())
            for i, c in enumerate(c for cs in sampled for c in cs)
        ]
    between = time.perf_counter()
    talks = iter(told)
    asked = []
    for row, request, completions in zip(rows, requests, sampled, strict=True):
        some, prefix = [next(talks) for _ in completions], policy.template.prefix(request.prompt)
        asked.append(
            Answers(row, request.prompt, completions, [t.text for t in some], (), some, prefix)
        )
    scores = iter(_judge(rewards, asked, dialogues is not None, step))
    out = [replace(a, scores=[next(scores) for _ in a.completions]) for a in asked]
    return out, {"time/generate": between - start, "time/reward": time.perf_counter() - between}


def _judge(
    rewards: Rewards, asked: Sequence[Answers], several: bool, step: int
) -> list[RewardScore]:
    """One score for each completion, rows flattened. What the environment said is not shown to any
    reward.

    Beside the rows' own columns there is `step`, the updates that the policy has had, and
    `assistant_prefix`, what the prompt opened of the answer; with several turns also `turns`, the
    texts of the policy's turns, and `step_reward`, what the environment gave for them in all (added
    to the return in any case).
    """
    flat = [(a, c, t) for a in asked for c, t in zip(a.completions, a.talks, strict=True)]
    names = sorted({name for a in asked for name in a.row} - {"prompt", "completion"})
    columns: dict[str, list[Any]] = {
        "step": [step] * len(flat),
        "assistant_prefix": [a.prefix for a, *_ in flat],
    }
    columns |= {name: [a.row.get(name) for a, *_ in flat] for name in names}
    if several:
        columns |= {
            "turns": [[turn.text for turn in t.turns] for *_, t in flat],
            "step_reward": [t.reward for *_, t in flat],
        }
    return rewards.score(
        prompts=[a.row["prompt"] for a, *_ in flat],
        completions=[_completion(a.row, t) for a, _, t in flat],
        completion_ids=[c.tokens.tolist() for _, c, _ in flat],
        columns=columns,
    )


def _completion(row: Row, talk: Talk) -> str | list[dict[str, str]]:
    if isinstance(row["prompt"], str):
        return talk.text
    return [{"role": "assistant", "content": turn.text} for turn in talk.turns]


def trajectory(
    prompt: Sequence[int],
    completion: Completion,
    reward: float | None,
    group: int,
    info: dict[str, Any],
    baseline: float | None = None,
    turns: Sequence[Turn] = (),
) -> Trajectory:
    """The row of one completion, observations between its turns (none given: a single turn).

    A turn's reward stands at its last token, and `reward` at the last token of all; without a
    verdict (None) nothing is learned.
    """
    turns = turns or (Turn(len(completion.tokens), ""),)
    obs, at, said = [torch.tensor(prompt, dtype=torch.long)], len(prompt) - 1, 0
    size = at + sum(t.tokens + len(t.observation) for t in turns)
    mask, earned, logp = torch.zeros(size, dtype=torch.bool), torch.zeros(size), torch.zeros(size)
    for turn in turns:
        own, spoken = slice(at, at + turn.tokens), slice(said, said + turn.tokens)
        obs.append(completion.tokens[spoken])
        if turn.observation:
            obs.append(torch.tensor(turn.observation, dtype=torch.long))
        if turn.reward:
            earned[own.stop - 1] = turn.reward
        if reward is not None:
            mask[own], logp[own] = True, completion.logp[spoken]
        at, said = own.stop + len(turn.observation), spoken.stop
    earned[-1] += reward or 0.0
    tokens = torch.cat(obs)
    return Trajectory(
        obs=tokens,
        action=tokens[1:],
        mask=mask,
        reward=earned,
        logp=logp,
        terminated=completion.stop in ENDED,
        group=group,
        baseline=baseline,
        info=info,
    )


@torch.no_grad()
def unmasked(policy: CausalLM, batch: Batch) -> Batch:
    """For the ablation only: what the environment said between the policy's turns counts as the
    policy's own.

    Its recorded log-probabilities are the policy's own evaluation, so ratios are 1 before the first
    step as they should be.
    """
    own = batch.mask
    span = (own.cumsum(1) > 0) & (own.flip(1).cumsum(1).flip(1) > 0)
    every = replace(batch, mask=span)
    logp = evaluate(policy, every, None).logp
    return replace(every, logp=torch.where(own, batch.logp, torch.where(span, logp, 0.0)))


def info(answers: Answers, number: int, group: int) -> dict[str, Any]:
    """What people look at of response `number`. `ids` are its own tokens, in the order of the
    turns."""
    row, completion, score = answers.row, answers.completions[number], answers.scores[number]
    talk = answers.talks[number]
    ids = completion.tokens.tolist()
    said = {
        "prompt": row["prompt"],
        "completion": answers.texts[number],
        "answer": row.get("answer"),
        "reward": answers.worth(number),
        "rewards": dict(score.parts),
        "errors": dict(score.errors),
        "stop": completion.stop,
        "tokens": len(ids),
        "group": group,
        "ids": ids,
    }
    extras = {"extras": dict(score.extras)} if score.extras else {}
    return said | extras | told(talk)


def told(talk: Talk) -> dict[str, Any]:
    """A conversation turn by turn, for people; nothing of a single turn."""
    if len(talk.turns) == 1 and not talk.metrics:
        return {}
    keys = ("tokens", "text", "shown", "reward")
    turns = [
        {k: getattr(t, k) for k in keys} | {"observed": len(t.observation)} for t in talk.turns
    ]
    return {"turns": turns, "counts": dict(talk.metrics)}


def metrics(answers: Sequence[Answers]) -> dict[str, float]:
    """TRL's names. Rewards and lengths of everything that was sampled, kept or not."""
    scores = [s for a in answers for s in a.scores]
    completions = [c for a in answers for c in a.completions]
    known = [[t for t in a.returns if t is not None] for a in answers]
    totals, lengths = [t for group in known for t in group], [c.tokens.numel() for c in completions]
    spreads = [_spread(group) for group in known if len(group) > 1]
    out = {
        "reward": fmean(totals) if totals else float("nan"),
        "reward_std": fmean(spreads) if spreads else 0.0,
        "completions/mean_length": fmean(lengths),
        "completions/max_length": float(max(lengths)),
        "completions/clipped_ratio": fmean(c.stop not in ENDED for c in completions),
        "num_tokens": float(sum(lengths)),
        "rewards/missing": fmean(s.total is None for s in scores),
    }
    for name in scores[0].parts:
        values = [v for s in scores if (v := s.parts[name]) is not None]
        out[f"rewards/{name}/mean"] = fmean(values) if values else float("nan")
    return (
        logged(scores)
        | out
        | {f"rewards/failed/{k}": float(n) for k, n in failures(scores).items()}
    )


def logged(scores: Sequence[RewardScore]) -> dict[str, float]:
    """What reward functions logged by `log_metric`, under their own names: means over the
    responses of the batches that have them."""
    names = dict.fromkeys(name for s in scores for name in s.metrics)
    return {name: fmean(s.metrics[name] for s in scores if name in s.metrics) for name in names}


def _spread(values: Sequence[float]) -> float:
    """Standard deviation of all values; `statistics.pstdev` counts in fractions, a tenth of a
    millisecond each."""
    mean = fmean(values)
    return math.sqrt(fmean((v - mean) ** 2 for v in values))


def dialogue_metrics(answers: Sequence[Answers]) -> dict[str, float]:
    """Of conversations, each a mean over them: turns, tokens observed, what was counted, and at
    which limits they ended.

    What an environment counts as `tool_calls` is logged as `tools/calls`, what it counts as `hops`
    as `tools/hops` (`tally`).
    """
    talks = [t for a in answers for t in a.talks]
    stops = Counter(c.stop for a in answers for c in a.completions)
    out = {
        "turns/mean": fmean(len(t.turns) for t in talks),
        "turns/max": float(max(len(t.turns) for t in talks)),
        "observation_tokens": fmean(sum(len(turn.observation) for turn in t.turns) for t in talks),
        "step_reward": fmean(t.reward for t in talks),
    }
    out |= {
        f"stopped/{name}": stops[name] / len(talks)
        for name in ("length", "turns", "calls", "context")
    }
    return out | tally([t.metrics for t in talks])


def tally(counts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of what conversations counted, by the names under which they are logged.

    >>> tally([{"tool_calls": 2, "hops": 1}, {}])
    {'tools/hops': 0.5, 'tools/calls': 1.0, 'tools/errors': 0.0, 'tools/timeouts': 0.0}
    """
    names = sorted({"tool_calls", "tool_errors", "tool_timeouts"}.union(*counts))
    return {f"tools/{n.removeprefix('tool_')}": fmean(c.get(n, 0.0) for c in counts) for n in names}
