"""Responses: sampled, judged, and laid out as rows. Rollouts and evaluation share this.

Token in, token out: a row holds the sampler's ids and log-probabilities. Text is decoded and never
encoded again. A response is one turn, or a conversation with an environment; in both cases rewards
judge only what the policy wrote. Left out: which prompts are drawn and which rows are kept
(`text_rollout.py`, `evaluation/evaluator.py`); metrics (`response_metrics.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from logpi.distributed.dealing import deal
from logpi.distributed.sharding import whole
from logpi.distributed.world import current
from logpi.engine.sampler import IndependentSampler
from logpi.engine.sampling import seeded
from logpi.engine.turns import ENDED
from logpi.rollouts.turns import Transcript, Turn
from logpi.types import Batch, Trajectory
from logpi.updates.micro_batches import evaluate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logpi.engine.sampler import Sampler
    from logpi.engine.sampling import Completion, Request, Sampling
    from logpi.envs.task import Row
    from logpi.policies.causal_lm import CausalLM
    from logpi.rewards import Rewards, RewardScore
    from logpi.rollouts.tool_conversations import ToolConversations


@dataclass(frozen=True)
class Responses:
    """The responses to one item, with their scores. Sequences have one entry for each response.

    Attributes:
        row, prompt: the item, and the token ids of its prompt.
        completions: all sampled tokens, over all turns.
        transcripts: the conversations, turn by turn. scores: of the reward functions.
        prefix: the beginning of the response that the prompt already holds (`<think>\\n`, say).
    """

    row: Row
    prompt: Sequence[int]
    completions: Sequence[Completion]
    transcripts: Sequence[Transcript]
    scores: Sequence[RewardScore] = ()
    prefix: str = ""

    @property
    def texts(self) -> list[str]:
        """What the policy wrote, turns joined by line breaks."""
        return [t.text for t in self.transcripts]

    @property
    def returns(self) -> list[float | None]:
        """Total score plus the turns' own rewards; None without a verdict."""
        judged = zip(self.scores, self.transcripts, strict=True)
        return [None if s.total is None else s.total + t.reward for s, t in judged]


@dataclass(frozen=True)
class ResponseSampler:
    """Samples responses and judges them.

    Attributes:
        policy, sampler: write the responses. rewards: judge them.
        sampling: token limit and stop strings.
        conversations: with an environment that replies; None: one turn.
        progress: called with (rows done, rows in all) while sampling.
    """

    policy: CausalLM
    sampler: Sampler
    rewards: Rewards
    sampling: Sampling
    conversations: ToolConversations | None = None
    progress: Callable[[int, int], None] | None = None

    def __call__(
        self,
        rows: Sequence[Row],
        requests: Sequence[Request],
        generator: torch.Generator,
        step: int = 0,
    ) -> tuple[list[Responses], dict[str, float]]:
        """Responses to `requests[i]`, whose item is `rows[i]`; and the seconds of sampling and of
        judging.

        Ranks share out the requests: each samples and judges some, and all get every response. So
        a reward sees whole groups, but not the whole batch. A sampler with weights of its own works
        for the first rank, which has all the requests; judging is shared out.

        Args:
            generator: of the samples. step: the policy's updates so far, for rewards that change
                with it.
        """
        world, clock = current(), {"time/generate": 0.0, "time/reward": 0.0}
        names = sorted({name for row in rows for name in row} - {"prompt", "completion"})

        def sample(mine: Sequence[tuple[Row, Request]]) -> list[Responses]:
            start = time.perf_counter()
            made = self._sample([row for row, _ in mine], [r for _, r in mine]) if mine else []
            clock["time/generate"] += time.perf_counter() - start
            return made

        def judge(unjudged: Sequence[Responses]) -> list[Responses]:
            start = time.perf_counter()
            scores = iter(self._judge(unjudged, step, names) if unjudged else ())
            clock["time/reward"] += time.perf_counter() - start
            return [replace(r, scores=[next(scores) for _ in r.completions]) for r in unjudged]

        work = list(zip(rows, seeded(requests, generator), strict=True))
        costs = [
            request.n * (len(request.prompt) + self.sampling.max_tokens) for _, request in work
        ]
        shares = deal(costs, world.size)
        with ExitStack() as stack:
            for model in (self.policy, *self.rewards.models):
                stack.enter_context(whole(model))
            if isinstance(self.sampler, IndependentSampler):
                unjudged = world.by_first(lambda: sample(work))
                responses = world.split(unjudged, judge, shares)
            else:
                responses = world.split(work, lambda mine: judge(sample(mine)), shares)
        return responses, {k: world.max(v) for k, v in clock.items()}

    def _sample(self, rows: Sequence[Row], requests: Sequence[Request]) -> list[Responses]:
        """Responses to each request, without scores."""
        generate, sampling = self.sampler.generate, self.sampling
        if self.conversations is None:
            sampled = generate(requests, sampling, progress=self.progress)
            transcripts = map(self._one_turn, chain.from_iterable(sampled))
        else:
            stop = (*sampling.stop, *self.conversations.environment.stop)
            sampling = replace(sampling, stop=tuple(dict.fromkeys(stop)))
            opened = self.conversations.begin(rows, requests)
            try:
                sampled = generate(
                    requests, sampling, progress=self.progress, on_turn_end=opened.on_turn_end
                )
            except BaseException:
                opened.end()
                raise
            own = [c.tokens.tolist() for c in chain.from_iterable(sampled)]
            transcripts = iter(opened.transcripts(own))
        return [
            Responses(
                row,
                request.prompt,
                completions,
                [next(transcripts) for _ in completions],
                prefix=self.policy.template.prefix(request.prompt),
            )
            for row, request, completions in zip(rows, requests, sampled, strict=True)
        ]

    def _one_turn(self, completion: Completion) -> Transcript:
        text = self.policy.template.decode(completion.tokens.tolist())
        return Transcript((Turn(len(completion.tokens), text),))

    def _judge(
        self, responses: Sequence[Responses], step: int, names: Sequence[str]
    ) -> list[RewardScore]:
        """One score for each response, items in order. No reward sees what the environment wrote.

        Rewards get the columns `names` of the items and two more: `step`, the policy's updates so
        far, and `assistant_prefix`, the beginning of the response that the prompt already holds. In
        conversations also `turns`, the texts of the policy's turns, `step_reward`, the sum of the
        environment's rewards (which the return includes in any case), and `verdicts`, what it says
        of the whole: {"numbers": {"lcs": 0.5}, "error": ""}.
        """
        flat = [
            (r, c, t) for r in responses for c, t in zip(r.completions, r.transcripts, strict=True)
        ]
        columns: dict[str, list[Any]] = {
            "step": [step] * len(flat),
            "assistant_prefix": [r.prefix for r, _, _ in flat],
        }
        columns |= {name: [r.row.get(name) for r, _, _ in flat] for name in names}
        if self.conversations is not None:
            columns["turns"] = [[turn.text for turn in t.turns] for _, _, t in flat]
            columns["step_reward"] = [t.reward for _, _, t in flat]
            columns["verdicts"] = [asdict(t.verdicts) for _, _, t in flat]
        return self.rewards.score(
            prompts=[r.row["prompt"] for r, _, _ in flat],
            completions=[_completion(r.row, t) for r, _, t in flat],
            completion_ids=[c.tokens.tolist() for _, c, _ in flat],
            columns=columns,
        )


def _completion(row: Row, transcript: Transcript) -> str | list[dict[str, str]]:
    """The text that rewards judge; messages, one for each turn, if the prompt is messages."""
    if isinstance(row["prompt"], str):
        return transcript.text
    return [{"role": "assistant", "content": turn.text} for turn in transcript.turns]


def trajectory(
    prompt: Sequence[int],
    completion: Completion,
    reward: float | None,
    group: int,
    info: dict[str, Any],
    baseline: float | None = None,
    turns: Sequence[Turn] = (),
) -> Trajectory:
    """The row of one completion, with the observations between its turns (default: one turn).

    A turn's reward stands at its last token, and `reward` at the row's last token. Without a
    verdict (None) the mask is empty.
    """
    # Prompt P0 P1, a turn A0 A1 with reward .5, its observation E0, a turn A2, reward 1:
    #
    #     obs      P0 P1 A0 A1 E0 A2
    #     action   P1 A0 A1 E0 A2       obs[1:]
    #     mask      0  1  1  0  1       a turn's first token is the action at place len(prompt) − 1
    #     reward    0  0 .5  0  1
    turns = turns or (Turn(len(completion.tokens), ""),)
    tokens, place, taken = [torch.tensor(prompt, dtype=torch.long)], len(prompt) - 1, 0
    size = place + sum(t.tokens + len(t.observation) for t in turns)
    mask, rewards, logp = torch.zeros(size, dtype=torch.bool), torch.zeros(size), torch.zeros(size)
    for turn in turns:
        own, sampled = slice(place, place + turn.tokens), slice(taken, taken + turn.tokens)
        tokens.append(completion.tokens[sampled])
        if turn.observation:
            tokens.append(torch.tensor(turn.observation, dtype=torch.long))
        if turn.reward:
            rewards[own.stop - 1] = turn.reward
        if reward is not None:
            mask[own], logp[own] = True, completion.logp[sampled]
        place, taken = own.stop + len(turn.observation), sampled.stop
    rewards[-1] += reward or 0.0
    obs = torch.cat(tokens)
    return Trajectory(
        obs=obs,
        action=obs[1:],
        mask=mask,
        reward=rewards,
        logp=logp,
        terminated=completion.stop in ENDED,
        group=group,
        baseline=baseline,
        info=info,
    )


@torch.no_grad()
def unmasked(policy: CausalLM, batch: Batch) -> Batch:
    """The ablation's batch: observations between the policy's turns count as the policy's own.

    The policy evaluates them, so their ratios too are 1 before the first step.
    """
    own = batch.mask
    span = (own.cumsum(1) > 0) & (own.flip(1).cumsum(1).flip(1) > 0)
    every = replace(batch, mask=span)
    logp = evaluate(policy, every, None).logp
    return replace(every, logp=torch.where(own, batch.logp, torch.where(span, logp, 0.0)))


def response_info(responses: Responses, number: int, group: int) -> dict[str, Any]:
    """The record of response `number` for people. `ids` are its own tokens, turn after turn."""
    row, score = responses.row, responses.scores[number]
    completion, transcript = responses.completions[number], responses.transcripts[number]
    ids = completion.tokens.tolist()
    info = {
        "prompt": row["prompt"],
        "completion": responses.texts[number],
        "answer": row.get("answer"),
        "reward": responses.returns[number],
        "rewards": dict(score.parts),
        "errors": dict(score.errors),
        "stop": completion.stop,
        "tokens": len(ids),
        "group": group,
        "ids": ids,
    }
    if completion.version is not None:
        # of the weights: the oldest, and the newest
        info["version"] = [int(completion.version.min()), int(completion.version.max())]
    extras = {"extras": dict(score.extras)} if score.extras else {}
    return info | extras | transcript_info(transcript)


def transcript_info(transcript: Transcript) -> dict[str, Any]:
    """The record of a conversation for people; empty for a single turn."""
    if len(transcript.turns) == 1 and not transcript.metrics:
        return {}
    turns = [
        {
            "tokens": t.tokens,
            "text": t.text,
            "shown": t.shown,
            "reward": t.reward,
            "observed": len(t.observation),
        }
        for t in transcript.turns
    ]
    return {"turns": turns, "counts": dict(transcript.metrics)}
