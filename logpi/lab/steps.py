"""`logpi lab step-values`: Monte-Carlo value and advantage of each step of a real model's response.

A response is split into steps. From the prompt and from the end of each step the model samples many
completions. Their mean reward is V of that prefix, and A = V(after) − V(before) is the advantage of
the step, whatever the final answer is. After the last step V is the response's own reward. Left
out: steps shorter than a token, and any judgement of the text itself.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from logpi.errors import UserError
from logpi.lab.report import Report, ReportTable
from logpi.runs.plots import COLOURS, Panel, figure

if TYPE_CHECKING:
    from logpi.engine.engine import Engine
    from logpi.engine.sampling import Sampling
    from logpi.policies.causal_lm import CausalLM
    from logpi.rewards import Rewards

Judge = Callable[[Sequence[str]], Sequence[float]]
# characters of a step in the table
SHOWN = 56
# a fall of more standard errors than this is marked
CLEAR = 3.0


@dataclass(frozen=True)
class StepValue:
    """One step.

    Attributes:
        text: of the step. before, after: V of the prefixes around it, in units of reward.
        error: standard error of `after − before`, over completions.
    """

    text: str
    before: float
    after: float
    error: float

    @property
    def advantage(self) -> float:
        return self.after - self.before

    @property
    def bad(self) -> bool:
        """The value falls, and by more than chance."""
        return self.advantage < -CLEAR * self.error and self.advantage < 0


def split_steps(text: str, separator: str = "\n") -> list[str]:
    """The steps of a text, each with the separators that end it; joined they are the text again.

    >>> split_steps("a\\n\\nb\\nc")
    ['a\\n\\n', 'b\\n', 'c']
    """
    steps: list[str] = []
    for piece in text.split(separator) if separator else [text]:
        if piece or not steps:
            steps.append(piece + separator)
        else:
            steps[-1] += separator
    steps[-1] = steps[-1].removesuffix(separator)
    return [s for s in steps if s]


def _token_steps(policy: CausalLM, response: str, steps: Sequence[str]) -> list[list[int]]:
    """The response's token ids, cut at the ends of steps; a token that crosses an end belongs to
    the step in which it begins."""
    tokens = policy.tokenizer(response, add_special_tokens=False, return_offsets_mapping=True)
    ends = list(accumulate(map(len, steps)))
    by_step: list[list[int]] = [[] for _ in steps]
    for token, (start, _) in zip(tokens["input_ids"], tokens["offset_mapping"], strict=True):
        by_step[bisect_right(ends, start)].append(token)
    return by_step


def judge_steps(  # noqa: PLR0913 (settings, all keywords or flags)
    policy: CausalLM,
    engine: Engine,
    prompt: Sequence[int],
    response: str,
    judge: Judge,
    *,
    samples: int = 32,
    separator: str = "\n",
    sampling: Sampling | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[StepValue]:
    """Value and advantage of each step of `response` to `prompt` (token ids), from `samples`
    completions of each prefix.

    Args:
        judge: rewards of whole responses (texts), one number each.
        separator: ends a step. sampling: of the completions.
    Raises:
        ValueError: an empty response, or fewer than 2 samples.
    """
    from logpi.engine.sampling import Request

    if not response:
        raise ValueError("an empty response has no steps")
    if samples < 2:
        raise ValueError("samples must be at least 2")
    steps = split_steps(response, separator)
    tokens = _token_steps(policy, response, steps)
    prefixes = [[t for part in tokens[:k] for t in part] for k in range(len(steps))]
    requests = [Request([*prompt, *prefix], samples) for prefix in prefixes]
    groups = engine.generate(requests, sampling, torch.Generator().manual_seed(seed), progress)
    values, errors = [], []
    for prefix, completions in zip(prefixes, groups, strict=True):
        texts = [policy.template.decode([*prefix, *c.tokens.tolist()]) for c in completions]
        rewards = torch.tensor(list(judge(texts)), dtype=torch.float64)
        values.append(float(rewards.mean()))
        errors.append(float(rewards.std()) / math.sqrt(samples))
    values.append(float(judge([response])[0]))
    # the response itself is not sampled
    errors.append(0.0)
    return [
        StepValue(text, values[k], values[k + 1], math.hypot(errors[k], errors[k + 1]))
        for k, text in enumerate(steps)
    ]


def _read(text: str) -> str:
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {text[1:]}: {error}") from None


def step_values(  # noqa: PLR0913 (settings, all keywords or flags)
    model: str,
    prompt: str,
    response: str,
    answer: str,
    reward: str = "exact",
    samples: int = 32,
    separator: str = "\n",
    max_tokens: int = 256,
    temperature: float = 1.0,
    seed: int = 0,
    device: str = "cpu",
    chat: bool | None = None,
) -> Report:
    """The report of `logpi lab step-values`.

    Args:
        model: directory or hub name. prompt, response: texts, or @file. answer: of the reward.
        reward: as in training. device: where models run. chat: put the prompt through the chat
            template; None for "if the model has one".
    Raises:
        UserError: the model or the reward does not load, or has no verdict on a completion.
    """
    from logpi.engine.engine import Engine
    from logpi.engine.sampling import Sampling
    from logpi.policies.causal_lm import CausalLM
    from logpi.rewards import rewards as make_rewards
    from logpi.rollouts.chat import Chat

    prompt, response = _read(prompt), _read(response)
    try:
        scorer = make_rewards((reward,), device)
        scorer.check(["prompt", "answer"])
        policy = CausalLM.load(model, device=device, temperature=temperature)
        wrap = policy.tokenizer.chat_template is not None if chat is None else chat
        judge = partial(_judge, scorer, prompt, answer)
        values = judge_steps(
            policy,
            Engine(policy),
            Chat(wrap=wrap)(policy, prompt),
            response,
            judge,
            samples=samples,
            separator=separator.encode().decode("unicode_escape"),
            sampling=Sampling(max_tokens=max_tokens),
            seed=seed,
        )
    except (ValueError, FileNotFoundError) as error:
        raise UserError(str(error)) from None
    return step_report(values, samples)


def _judge(scorer: Rewards, prompt: str, answer: str, texts: Sequence[str]) -> list[float]:
    """Rewards of completions. Raises UserError if one has no verdict."""
    columns = {"answer": [answer] * len(texts)}
    scores = scorer.score([prompt] * len(texts), list(texts), columns=columns)
    if any(s.total is None for s in scores):
        raise UserError(
            f"reward {scorer.names[0]!r} has no verdict on a completion:"
            f" {scores[0].errors or 'it says None'}"
        )
    return [float(s.total) for s in scores if s.total is not None]


def step_report(values: Sequence[StepValue], samples: int) -> Report:
    """The report of steps and their values."""
    rows = tuple(
        (k + 1, v.before, v.after, v.advantage, v.error, "◄ falls" if v.bad else "", _short(v.text))
        for k, v in enumerate(values)
    )
    table = ReportTable(
        "Value of the prefix before and after each step",
        ("step", "V before", "V after", "advantage", "± error", "", "text"),
        rows,
        ("d", ".2f", ".2f", "+.2f", ".2f", "", ""),
    )
    return Report(
        "step-values",
        f"V of a prefix is the mean reward of {samples} completions of it; a step's advantage is"
        " the change of V. ± error: one standard error of the advantage; a fall of more than"
        f" {CLEAR:g} of them is marked.",
        (table,),
        _sentence(values),
        lambda: _picture(values),
    )


def _short(text: str, most: int = SHOWN) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def _sentence(values: Sequence[StepValue]) -> str:
    end = values[-1].after
    worst = min(range(len(values)), key=lambda k: values[k].advantage)
    v = values[worst]
    if not v.bad:
        return (
            f"the response has reward {end:g}, and no step of it lowers the value by more than"
            " chance."
        )
    what = f"step {worst + 1} lowers the value from {v.before:.2f} to {v.after:.2f}"
    return (
        f"the response has reward {end:g}, yet {what}: every method without a critic rewards or"
        " punishes all its steps alike."
        if end >= v.before
        else f"the response has reward {end:g}; {what}."
    )


def _picture(values: Sequence[StepValue]) -> Any:
    steps = range(1, len(values) + 1)
    picture = figure(
        [
            Panel("advantage of each step", "A = V(after) − V(before)"),
            Panel("value before and after", "V(prefix)"),
        ],
        size=(4.5, 1.6 + 0.38 * len(values)),
        width_ratios=(3, 2),
        sharey=True,
    )
    left, right = picture.axes
    colours = [
        COLOURS[1] if v.bad else COLOURS[2] if v.advantage > 0 else "#9ca3af" for v in values
    ]
    left.barh(
        steps,
        [v.advantage for v in values],
        xerr=[v.error for v in values],
        color=colours,
        height=0.7,
        error_kw={"elinewidth": 0.8, "ecolor": "#374151"},
    )
    left.axvline(0, color="#374151", linewidth=0.8)
    left.set_yticks(
        list(steps),
        [
            f"{_short(v.text, 40)}  {k}".replace("$", r"\$")
            for k, v in zip(steps, values, strict=True)
        ],
    )
    left.set_ylim(len(values) + 0.65, 0.35)
    right.plot(
        [values[0].before, *(v.after for v in values)],
        [0.5 + k for k in range(len(values) + 1)],
        marker="o",
        markersize=4,
        color=COLOURS[0],
    )
    for k, v in enumerate(values):
        if v.bad:
            right.axhspan(k + 0.5, k + 1.5, color=COLOURS[1], alpha=0.12, linewidth=0)
            left.axhspan(k + 0.5, k + 1.5, color=COLOURS[1], alpha=0.12, linewidth=0)
    return picture
