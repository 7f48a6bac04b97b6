"""Text rollouts: prompts in groups, completions from the engine, rewards, and rows for the learner.

Token in, token out: the engine's ids and log-probabilities are the record, text is only decoded, never encoded again. One
turn for each row; tools and conversations with an environment are not here yet. How tokens are drawn is the engine's
(`engine.py`), what a completion is worth the rewards' (`logpi.rewards`), what is learned from the algorithm's (`selection.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

import torch

from logpi.envs.rows import Row, Task
from logpi.errors import UserError
from logpi.policies.causal_lm import CausalLM
from logpi.rewards import Rewards, Score, failures
from logpi.rollouts.curriculum import Source
from logpi.rollouts.engine import Completion, Engine, Request, Sampling
from logpi.rollouts.story import story
from logpi.rollouts.templates import filled
from logpi.selection import Bootstrap, Keep, KeepAll, Truncation
from logpi.types import Collected, Trajectory, collate

__all__ = ["Answers", "Chat", "Prompts", "TextRollout", "pass_rate", "trajectory"]


@dataclass(frozen=True)
class Chat:
    """How a row's prompt becomes tokens.

    Attributes:
        wrap: a plain string is put as a user's message through the model's chat template.
        system: system message in front, or "".
        around: for plain prompts without a chat template: a text with {prompt} (`templates.py`), or "".
    """

    wrap: bool = False
    system: str = ""
    around: str = ""

    def __call__(self, policy: CausalLM, prompt: str | list[dict[str, Any]]) -> list[int]:
        """Token ids of the prompt. Raises ValueError if messages meet a model without a chat template."""
        if isinstance(prompt, str) and not self.wrap:
            return policy.render(self.system + (filled(self.around, prompt) if self.around else prompt))
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        if self.system:
            messages = [{"role": "system", "content": self.system}, *messages]
        return policy.render(messages)


class Prompts:
    """An endless walk over a task's training rows; its state is one integer. Each pass over a file has its own order."""

    def __init__(self, task: Task, seed: int = 0) -> None:
        self.task, self.seed, self.cursor = task, seed, 0
        self._pass = -1
        self._rows: Sequence[Row] = ()

    def take(self, n: int) -> list[Row]:
        """The next `n` rows."""
        return [self._next() for _ in range(n)]

    def learn(self, rows: Sequence[Row], rates: Sequence[float | None]) -> None:
        """Nothing: its order does not depend on the answers (`curriculum.py` has one that does)."""

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


@dataclass(frozen=True)
class Answers:
    """Completions of one row with their verdicts."""

    row: Row
    prompt: Sequence[int]
    completions: Sequence[Completion]
    texts: Sequence[str]
    scores: Sequence[Score]


def pass_rate(answers: Answers) -> float | None:
    """Share of right responses: the first reward at its full mark of 1. None without any verdict of it."""
    marks = [next(iter(s.parts.values()), None) for s in answers.scores]
    known = [m for m in marks if m is not None]
    return fmean(m >= 1.0 for m in known) if known else None


def answer(
    policy: CausalLM, engine: Engine, rewards: Rewards, rows: Sequence[Row], requests: Sequence[Request],
    sampling: Sampling, generator: torch.Generator, progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Answers], dict[str, float]]:  # fmt: skip
    """Sample and judge: `requests[i]` answers `rows[i]`. Also the seconds that each half took."""
    start = time.perf_counter()
    sampled = engine.generate(requests, sampling, generator, progress)
    between = time.perf_counter()
    texts = [[policy.tokenizer.decode(c.tokens, skip_special_tokens=True) for c in cs] for cs in sampled]
    scores = iter(_judge(rewards, rows, texts, sampled))
    out = [
        Answers(row, request.prompt, cs, ts, [next(scores) for _ in cs])
        for row, request, cs, ts in zip(rows, requests, sampled, texts, strict=True)
    ]
    return out, {"time/generate": between - start, "time/reward": time.perf_counter() - between}


def _judge(
    rewards: Rewards, rows: Sequence[Row], texts: Sequence[Sequence[str]], sampled: Sequence[Sequence[Completion]]
) -> list[Score]:
    """One score for each completion, rows flattened."""
    flat = [(row, t, c) for row, ts, cs in zip(rows, texts, sampled, strict=True) for t, c in zip(ts, cs, strict=True)]
    names = {name for row in rows for name in row} - {"prompt", "completion"}
    completions = [t if isinstance(r["prompt"], str) else [{"role": "assistant", "content": t}] for r, t, _ in flat]
    return rewards.score(
        prompts=[r["prompt"] for r, _, _ in flat],
        completions=completions,
        completion_ids=[c.tokens.tolist() for _, _, c in flat],
        columns={name: [r.get(name) for r, _, _ in flat] for name in sorted(names)},
    )


def trajectory(
    prompt: Sequence[int], completion: Completion, reward: float | None, group: int, info: dict[str, Any],
    baseline: float | None = None,
) -> Trajectory:  # fmt: skip
    """The row of one completion. The reward stands at its last token; without a verdict (None) nothing is learned from it."""
    obs = torch.cat([torch.tensor(prompt, dtype=torch.long), completion.tokens])
    first = len(prompt) - 1
    own = torch.zeros(len(obs) - 1, dtype=torch.bool)
    own[first:] = reward is not None
    logp, rewards = torch.zeros(len(own)), torch.zeros(len(own))
    logp[first:] = completion.logp
    rewards[-1] = reward or 0.0
    return Trajectory(
        obs=obs, action=obs[1:], mask=own, reward=rewards, logp=torch.where(own, logp, 0.0),
        terminated=completion.stop != "length", group=group, baseline=baseline, info=info,
    )  # fmt: skip


class TextRollout:
    """Samples groups of completions for a task's prompts. A `logpi.types.Rollout`.

    Args:
        policy, engine: who answers. task, rewards: what is asked and what an answer is worth.
        prompts: prompts for each batch (P). num_generations: samples for each prompt (G).
        sampling: token limit and stop strings; the temperature is the policy's.
        keep, truncation: the algorithm's choices. greedy: also answer each prompt greedily (ReMax).
        chat: how prompts become tokens. seed: of prompts and of sampling.
        progress: called with (rows done, rows in all) while sampling.
        source: of prompts, instead of the task's rows in their order (`curriculum.py`).
    Raises:
        UserError: truncated sampling (top-k, top-p): the recorded log-probabilities would not be those of the sampler, and
            the gradient would shrink by the mass that was cut off.
    """

    def __init__(
        self, policy: CausalLM, engine: Engine, task: Task, rewards: Rewards, *, prompts: int, num_generations: int,
        sampling: Sampling, keep: Keep | None = None, truncation: Truncation | None = None, greedy: bool = False,
        chat: Chat | None = None, seed: int = 0, progress: Callable[[int, int], None] | None = None,
        source: Source | None = None,
    ) -> None:  # fmt: skip
        if sampling.truncated or sampling.temperature not in (None, policy.temperature):
            raise UserError(
                "top-k, top-p and a temperature other than the policy's cannot be trained on: the gradient would be that of "
                "another distribution. Set the policy's temperature instead (--temperature)"
            )
        self.policy, self.engine, self.rewards = policy, engine, rewards
        self.prompts, self.size, self.num_generations = source or Prompts(task, seed), prompts, num_generations
        self.sampling, self.keep, self.truncation = sampling, keep or KeepAll(), truncation or Bootstrap()
        self.greedy, self.chat, self.progress = greedy, chat or Chat(), progress
        self.generator = torch.Generator().manual_seed(seed)
        self.groups = 0

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
            answers, baselines, seconds = self._sample(self.prompts.take(self.size))
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
        metrics = _metrics(everything) | story(everything) | times
        metrics |= {"groups/sampled": float(len(groups)), "groups/kept": float(len(kept))}
        return Collected(collate(rows), metrics, [dict(t.info) for t in rows])

    def _sample(self, rows: list[Row]) -> tuple[list[Answers], list[float | None], dict[str, float]]:
        """Answers to each row, the greedy answer's reward (None without one), and seconds."""
        prompts = [self.chat(self.policy, row["prompt"]) for row in rows]
        requests = [Request(p, self.num_generations) for p in prompts]
        if self.greedy:
            requests += [Request(p, 1, greedy=True) for p in prompts]
        asked = rows * (len(requests) // len(rows))
        answers, seconds = answer(
            self.policy, self.engine, self.rewards, asked, requests, self.sampling, self.generator, self.progress
        )
        greedy = [a.scores[0].total for a in answers[len(rows) :]]
        return answers[: len(rows)], greedy or [None] * len(rows), seconds

    def _group(self, answers: Answers, baseline: float | None) -> list[Trajectory]:
        group, self.groups = self.groups, self.groups + 1
        unknown = self.greedy and baseline is None  # no verdict on the greedy answer: nothing to compare with
        made = [
            trajectory(answers.prompt, c, None if unknown else s.total, group, _info(answers.row, t, c, s, group),
                       (baseline or 0.0) if self.greedy else None)
            for c, t, s in zip(answers.completions, answers.texts, answers.scores, strict=True)
        ]  # fmt: skip
        return [t if t.terminated or not t.mask.any() else self.truncation(t) for t in made]

    def _check(self, kept: list[list[Trajectory]], everything: list[Answers], rounds: int) -> None:
        scores = [s for a in everything for s in a.scores]
        if all(s.total is None for s in scores):
            what = next((e for s in scores for e in s.errors.values()), "no reward applies to any row")
            raise UserError(f"not one of {len(scores)} completions got a verdict: {what}")
        if self.keep.refill and len(kept) < self.size:
            mean = fmean(s.total for s in scores if s.total is not None)
            raise UserError(
                f"only {len(kept)} of {self.size} groups with differing rewards in {rounds} rounds ({len(everything)} prompts, "
                f"mean reward {mean:.3g}): the task is too easy or too hard for this policy, or a group too small. Raise "
                "num_generations, choose another task, or keep all groups (--groups keep)"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"prompts": self.prompts.state_dict(), "generator": self.generator.get_state(), "groups": self.groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.prompts.load_state_dict(state["prompts"])
        self.groups = state["groups"]
        self.generator.set_state(state["generator"])


def _info(row: Row, text: str, completion: Completion, score: Score, group: int) -> dict[str, Any]:
    return {
        "prompt": row["prompt"], "completion": text, "answer": row.get("answer"), "reward": score.total,
        "rewards": dict(score.parts), "errors": dict(score.errors), "stop": completion.stop,
        "tokens": len(completion.tokens), "group": group,
    }  # fmt: skip


def _metrics(answers: Sequence[Answers]) -> dict[str, float]:
    """TRL's names. Rewards and lengths of everything that was sampled, kept or not."""
    scores = [s for a in answers for s in a.scores]
    completions = [c for a in answers for c in a.completions]
    totals = [s.total for s in scores if s.total is not None]
    spreads = [pstdev(t) for a in answers if len(t := [s.total for s in a.scores if s.total is not None]) > 1]
    out = {
        "reward": fmean(totals) if totals else float("nan"),
        "reward_std": fmean(spreads) if spreads else 0.0,
        "completions/mean_length": fmean(len(c.tokens) for c in completions),
        "completions/max_length": float(max(len(c.tokens) for c in completions)),
        "completions/clipped_ratio": fmean(c.stop == "length" for c in completions),
        "num_tokens": float(sum(len(c.tokens) for c in completions)),
        "rewards/missing": fmean(s.total is None for s in scores),
    }
    for name in scores[0].parts:
        values = [v for s in scores if (v := s.parts[name]) is not None]
        out[f"rewards/{name}/mean"] = fmean(values) if values else float("nan")
    return out | {f"rewards/failed/{k}": float(n) for k, n in failures(scores).items()}
