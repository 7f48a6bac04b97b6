"""Text rollouts: prompts in groups, completions from the engine, rewards, and rows for the learner.

A response is one turn, or a conversation with an environment (`tool_conversations.py`). How tokens
are drawn is the engine's (`engine/engine.py`), how responses are sampled, judged and laid out
`responses.py`'s, what a completion is worth the rewards' (`logpi.rewards`), what is learned from
the algorithm's (`ops/selection.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from logpi.engine.sampling import Request, Sampling
from logpi.errors import UserError
from logpi.ops.selection import Bootstrap, Keep, KeepAll, Truncation
from logpi.rollouts.chat import Chat
from logpi.rollouts.prompt_filter import PromptFilter
from logpi.rollouts.response_metrics import story
from logpi.rollouts.responses import (
    Answers,
    answer,
    dialogue_metrics,
    info,
    metrics,
    pass_rate,
    trajectory,
    unmasked,
)
from logpi.types import Collected, Trajectory, collate

if TYPE_CHECKING:
    from logpi.engine.engine import Engine
    from logpi.envs.task import Row, Task
    from logpi.policies.causal_lm import CausalLM
    from logpi.rewards import Rewards
    from logpi.rollouts.prompt_sources import Source
    from logpi.rollouts.tool_conversations import Dialogues

TRIES = 1_000  # draws of prompts for one batch


class Prompts:
    """An endless walk over a task's training rows; its state is one integer. Each pass over a file
    has its own order."""

    def __init__(self, task: Task, seed: int = 0) -> None:
        self.task, self.seed, self.cursor = task, seed, 0
        self._pass = -1
        self._rows: Sequence[Row] = ()

    def take(self, n: int) -> list[Row]:
        """The next `n` rows."""
        return [self._next() for _ in range(n)]

    def learn(self, rows: Sequence[Row], rates: Sequence[float | None]) -> None:
        """Nothing: its order does not depend on the answers (`prompt_sources.py` has one that
        does)."""

    def state_dict(self) -> dict[str, Any]:
        return {"cursor": self.cursor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.cursor = state["cursor"]

    def _next(self) -> Row:
        size = len(self._rows) or len(self.task.rows("train", self.seed))
        number, place = divmod(self.cursor, size)
        if number != self._pass:
            self._pass, self._rows = number, self.task.rows("train", self.seed + number)
        self.cursor += 1
        return self._rows[place]


class TextRollout:
    """Samples groups of completions for a task's prompts. A `logpi.types.Rollout`.

    Args:
        policy, engine: who answers. task, rewards: what is asked and what an answer is worth.
        prompts: prompts for each batch (P). num_generations: samples for each prompt (G).
        sampling: token limit and stop strings; the temperature is the policy's.
        keep, truncation: the algorithm's choices. greedy: also answer each prompt greedily (ReMax).
        chat: how prompts become tokens. seed: of prompts and of sampling.
        progress: called with (rows done, rows in all) while sampling.
        source: of prompts, instead of the task's rows in their order (`prompt_sources.py`).
        dialogues: with an environment that answers; `sampling` then limits what the policy writes
            in all turns together.
        mask_observations: False also trains on what the environment said: the ablation, never a
            good idea.
        overlong: what becomes of prompts that fill the model's context (`prompt_filter.py`).
    Raises:
        UserError: truncated sampling (top-k, top-p): the recorded log-probabilities would not be
            those of the sampler, and the gradient would shrink by the mass that was cut off.
    """

    def __init__(
        self,
        policy: CausalLM,
        engine: Engine,
        task: Task,
        rewards: Rewards,
        *,
        prompts: int,
        num_generations: int,
        sampling: Sampling,
        keep: Keep | None = None,
        truncation: Truncation | None = None,
        greedy: bool = False,
        chat: Chat | None = None,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
        source: Source | None = None,
        dialogues: Dialogues | None = None,
        mask_observations: bool = True,
        overlong: str = "drop",
    ) -> None:
        if sampling.truncated or sampling.temperature not in (None, policy.temperature):
            raise UserError(
                "top-k, top-p and a temperature other than the policy's cannot be trained on: the"
                " gradient would be that of another distribution. Set the policy's temperature"
                " instead (--temperature)"
            )
        self.policy, self.engine, self.rewards = policy, engine, rewards
        self.prompts, self.size, self.num_generations = (
            source or Prompts(task, seed),
            prompts,
            num_generations,
        )
        self.sampling, self.keep, self.truncation = (
            sampling,
            keep or KeepAll(),
            truncation or Bootstrap(),
        )
        self.greedy, self.progress = greedy, progress
        self.filter = PromptFilter(policy, chat or Chat(), dialogues, overlong)
        self.dialogues, self.mask_observations = dialogues, mask_observations
        self.generator = torch.Generator().manual_seed(seed)
        self.groups = self.steps = 0

    def __call__(self) -> Collected:
        """A batch of `prompts` groups (fewer if groups are dropped and not refilled).

        Raises:
            UserError: refilling found too few groups whose rewards differ, or no verdict at all.
        """
        groups: list[list[Trajectory]] = []
        everything: list[Answers] = []
        times: dict[str, float] = {}
        rounds = 0
        while sum(map(self.keep, groups)) < self.size and rounds < self.keep.rounds:
            answers, baselines, seconds = self._sample(*self._take())
            groups += [self._group(a, b) for a, b in zip(answers, baselines, strict=True)]
            everything += answers
            self.prompts.learn([a.row for a in answers], [pass_rate(a) for a in answers])
            times = {k: times.get(k, 0.0) + v for k, v in seconds.items()}
            rounds += 1
        kept = [g for g in groups if self.keep(g)][: self.size]
        self._check(kept, everything, rounds)
        rows = [
            t for group in kept or groups[:1] for t in group
        ]  # no group differs: one stands for them, its gradient is 0
        numbers = metrics(everything) | story(everything) | times
        numbers |= {"groups/sampled": float(len(groups)), "groups/kept": float(len(kept))}
        if self.dialogues is not None:
            numbers |= dialogue_metrics(everything)
        self.steps += 1
        batch = collate(rows) if self.mask_observations else unmasked(self.policy, collate(rows))
        return Collected(batch, numbers, [dict(t.info) for t in rows])

    def _take(self) -> tuple[list[Row], list[list[int]]]:
        """The next rows whose prompts fit the context, and their tokens."""
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
    ) -> tuple[list[Answers], list[float | None], dict[str, float]]:
        """Answers to each row, the greedy answer's reward (None without one), and seconds."""
        requests = [Request(p, self.num_generations) for p in prompts]
        if self.greedy:
            requests += [Request(p, 1, greedy=True) for p in prompts]
        asked = rows * (len(requests) // len(rows))
        answers, seconds = answer(
            self.policy,
            self.engine,
            self.rewards,
            asked,
            requests,
            self.sampling,
            self.generator,
            self.progress,
            self.dialogues,
            self.steps,
        )
        greedy = [a.returns[0] for a in answers[len(rows) :]]
        return answers[: len(rows)], greedy or [None] * len(rows), seconds

    def _group(self, answers: Answers, baseline: float | None) -> list[Trajectory]:
        group, self.groups = self.groups, self.groups + 1
        unknown = (
            self.greedy and baseline is None
        )  # no verdict on the greedy answer: nothing to compare with
        baseline = (baseline or 0.0) if self.greedy else None
        made = [
            trajectory(
                answers.prompt,
                c,
                None if unknown else s.total,
                group,
                info(answers, i, group),
                baseline,
                t.turns,
            )
            for i, (c, s, t) in enumerate(
                zip(answers.completions, answers.scores, answers.talks, strict=True)
            )
        ]
        return [t if t.terminated or not t.mask.any() else self.truncation(t) for t in made]

    def _check(self, kept: list[list[Trajectory]], everything: list[Answers], rounds: int) -> None:
        scores = [s for a in everything for s in a.scores]
        if all(s.total is None for s in scores):
            what = next(
                (e for s in scores for e in s.errors.values()), "no reward applies to any row"
            )
            raise UserError(f"not one of {len(scores)} completions got a verdict: {what}")
        if self.keep.refill and len(kept) < self.size:
            mean = fmean(s.total for s in scores if s.total is not None)
            raise UserError(
                f"only {len(kept)} of {self.size} groups with differing rewards in {rounds} rounds"
                f" ({len(everything)} prompts, mean reward {mean:.3g}): the task is too easy or too"
                " hard for this policy, or a group too small. Raise num_generations, choose"
                " another task, or keep all groups (--groups keep)"
            )

    def state_dict(self) -> dict[str, Any]:
        return {
            "prompts": self.prompts.state_dict(),
            "generator": self.generator.get_state(),
            "groups": self.groups,
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.prompts.load_state_dict(state["prompts"])
        self.groups, self.steps = state["groups"], state.get("steps", 0)
        self.generator.set_state(state["generator"])
