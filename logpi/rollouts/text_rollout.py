"""Text rollouts: prompts in groups, responses from the sampler, rewards, and rows for the learner.

The algorithm chooses which groups are kept, what becomes of rows that were cut off, and whether
each prompt also gets a greedy response. Left out: how tokens are drawn (`engine/`), how responses
are judged and laid out (`responses.py`), what they are worth (`logpi.rewards`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from logpi.engine.sampling import Request
from logpi.errors import SamplerLost, UserError
from logpi.rollouts.chat import Chat
from logpi.rollouts.collate import collate
from logpi.rollouts.prompt_filter import PromptFilter
from logpi.rollouts.prompt_sources import TaskPrompts
from logpi.rollouts.response_metrics import (
    conversation_metrics,
    pass_rate,
    step_metrics,
    version_metrics,
)
from logpi.rollouts.responses import (
    Responses,
    ResponseSampler,
    response_info,
    trajectory,
    unmasked,
)
from logpi.types import Collected, Trajectory

if TYPE_CHECKING:
    from logpi.algorithms import Algorithm
    from logpi.engine.sampler import Sampler
    from logpi.engine.sampling import Sampling
    from logpi.envs.task import Row, Task
    from logpi.policies.causal_lm import CausalLM
    from logpi.rewards import Rewards
    from logpi.rollouts.prompt_sources import PromptSource
    from logpi.rollouts.tool_conversations import ToolConversations

# most draws of prompts for one batch
TRIES = 1_000
notices = logging.getLogger("logpi")


class TextRollout:
    """Samples groups of responses to a task's prompts. A `logpi.types.Rollout`.

    Args:
        policy, sampler: write the responses. task: the items. rewards: judge the responses.
        algorithm: its `keep`, `truncation` and `objective.needs_greedy` are applied.
        prompts: prompts of each batch (P). num_generations: samples of each prompt (G).
        sampling: token limit and stop strings; the temperature is the policy's.
        chat: how prompts become tokens. seed: of prompts and of sampling.
        progress: called with (rows done, rows in all) while sampling.
        source: of prompts, instead of the task's items in their order (`prompt_sources.py`).
        conversations: with an environment that replies; `sampling` then limits what the policy
            writes in all turns together.
        mask_observations: False also trains on the environment's words: the ablation, never a good
            idea.
        overlong: what becomes of prompts that fill the model's context (`prompt_filter.py`).

    Raises:
        UserError: fewer samples of a prompt than the algorithm compares. Truncated sampling (top-k,
            top-p): the recorded log-probabilities would not be the sampler's, and the gradient
            would shrink by the mass that was cut off.
    """

    def __init__(  # noqa: PLR0913 (settings, all keywords)
        self,
        policy: CausalLM,
        sampler: Sampler,
        task: Task,
        rewards: Rewards,
        *,
        algorithm: Algorithm,
        prompts: int,
        num_generations: int,
        sampling: Sampling,
        chat: Chat | None = None,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
        source: PromptSource | None = None,
        conversations: ToolConversations | None = None,
        mask_observations: bool = True,
        overlong: str = "drop",
    ) -> None:
        _check(algorithm, num_generations, sampling, policy)
        self.policy, self.sampler, self.rewards = policy, sampler, rewards
        self.prompts = source or TaskPrompts(task, seed)
        self.size, self.num_generations, self.sampling = prompts, num_generations, sampling
        self.keep, self.truncation = algorithm.keep, algorithm.truncation
        self.greedy, self.progress = algorithm.objective.needs_greedy, progress
        self.filter = PromptFilter(policy, chat or Chat(), conversations, overlong)
        self.conversations, self.mask_observations = conversations, mask_observations
        self.generator = torch.Generator().manual_seed(seed)
        self.groups = self.steps = 0
        # that a batch was not full
        self.told = False
        # further numbers of each batch
        self.numbers: Callable[[], Mapping[str, float]] = dict

    def __call__(self) -> Collected:
        """A batch of `prompts` groups (fewer if groups are dropped, and refilling does not find
        enough others).

        Raises:
            UserError: refilling found no group whose rewards differ, or there is no verdict at all.
            SamplerLost: nobody samples any more; the rollout is then as it was before the call.
        """
        before = self.state_dict()
        try:
            return self._collect()
        except SamplerLost:
            self.load_state_dict(before)
            raise

    def _collect(self) -> Collected:
        groups: list[list[Trajectory]] = []
        responses: list[Responses] = []
        seconds: dict[str, float] = {}
        rounds = 0
        while sum(map(self.keep, groups)) < self.size and rounds < self.keep.rounds:
            sampled, baselines, times = self._sample(*self._take())
            groups += [self._group(r, b) for r, b in zip(sampled, baselines, strict=True)]
            responses += sampled
            self.prompts.learn([r.row for r in sampled], [pass_rate(r) for r in sampled])
            seconds = {k: seconds.get(k, 0.0) + v for k, v in times.items()}
            rounds += 1
        kept = [g for g in groups if self.keep(g)][: self.size]
        self._check_outcome(kept, responses, rounds)
        # where no group is kept, one stands for them all: its gradient is 0
        rows = [t for group in kept or groups[:1] for t in group]
        metrics = (
            step_metrics(responses) | seconds | version_metrics(responses) | dict(self.numbers())
        )
        metrics |= {"groups/sampled": float(len(groups)), "groups/kept": float(len(kept))}
        if self.conversations is not None:
            metrics |= conversation_metrics(responses)
        self.steps += 1
        batch = collate(rows) if self.mask_observations else unmasked(self.policy, collate(rows))
        return Collected(batch, metrics, [dict(t.info) for t in rows])

    def _take(self) -> tuple[list[Row], list[list[int]]]:
        """The next items whose prompts fit the context, and their tokens."""
        rows, prompts = [], []
        for _ in range(TRIES):
            for row in self.prompts.take(self.size - len(rows)):
                ids = self.filter.ids(row)
                if self.filter.fits(ids):
                    rows.append(row)
                    prompts.append(ids)
            if len(rows) == self.size:
                return rows, prompts
        raise UserError(
            f"prompts that fit the model's context of {self.policy.context} tokens cannot be found"
        )

    def _sample(
        self, rows: list[Row], prompts: list[list[int]]
    ) -> tuple[list[Responses], list[float | None], dict[str, float]]:
        """Responses to each item, the return of its greedy response (None without one), and
        seconds."""
        sampler = ResponseSampler(
            self.policy,
            self.sampler,
            self.rewards,
            self.sampling,
            self.conversations,
            self.progress,
        )
        requests = [Request(p, self.num_generations) for p in prompts]
        if self.greedy:
            requests += [Request(p, 1, greedy=True) for p in prompts]
        items = rows * (len(requests) // len(rows))
        responses, seconds = sampler(items, requests, self.generator, self.steps)
        greedy = [r.returns[0] for r in responses[len(rows) :]]
        return responses[: len(rows)], greedy or [None] * len(rows), seconds

    def _group(self, responses: Responses, baseline: float | None) -> list[Trajectory]:
        """The rows of one prompt. Their masks are empty if the greedy response, with which they are
        compared, has no verdict."""
        group, self.groups = self.groups, self.groups + 1
        unknown = self.greedy and baseline is None
        rows = [
            trajectory(
                responses.prompt,
                completion,
                None if unknown else responses.scores[i].total,
                group,
                response_info(responses, i, group),
                (baseline or 0.0) if self.greedy else None,
                responses.transcripts[i].turns,
            )
            for i, completion in enumerate(responses.completions)
        ]
        return [t if t.terminated or not t.mask.any() else self.truncation(t) for t in rows]

    def _check_outcome(
        self, kept: list[list[Trajectory]], responses: list[Responses], rounds: int
    ) -> None:
        """Says once that a batch is not full. Raises UserError if there is no verdict at all, or
        nothing to learn from where groups are refilled."""
        scores = [s for r in responses for s in r.scores]
        if all(s.total is None for s in scores):
            errors = (e for s in scores for e in s.errors.values())
            reason = next(errors, "no reward applies to any row")
            raise UserError(f"not one of {len(scores)} completions got a verdict: {reason}")
        if not self.keep.refill or len(kept) == self.size:
            return
        mean = fmean(s.total for s in scores if s.total is not None)
        said = (
            f"only {len(kept)} of {self.size} groups with differing rewards in {rounds} rounds"
            f" ({len(responses)} prompts, mean reward {mean:.3g}): the task is too easy or too"
            " hard for this policy, or a group too small. Raise num_generations, choose another"
            " task, or keep all groups (--groups keep)"
        )
        if not kept:
            raise UserError(said)
        if not self.told:
            self.told = True
            notices.warning(f"{said}. The update has what there is (groups/kept)")

    def state_dict(self) -> dict[str, Any]:
        return {
            "prompts": self.prompts.state_dict(),
            "generator": self.generator.get_state(),
            "groups": self.groups,
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.prompts.load_state_dict(state["prompts"])
        self.groups, self.steps = state["groups"], state["steps"]
        self.generator.set_state(state["generator"])


def _check(algorithm: Algorithm, generations: int, sampling: Sampling, policy: CausalLM) -> None:
    """Refuse samples that the algorithm cannot learn from, as `TextRollout` says."""
    if generations < algorithm.objective.min_group:
        raise UserError(
            f"{algorithm.name} compares samples of one prompt: num_generations must be at least"
            f" {algorithm.objective.min_group}, not {generations}"
        )
    if sampling.truncated or sampling.temperature not in (None, policy.temperature):
        raise UserError(
            "top-k, top-p and a temperature other than the policy's cannot be trained on: the"
            " gradient would be that of another distribution. Set the policy's temperature"
            " instead (--temperature)"
        )
