"""Makes rewards from the words of a command line, or from objects.

    number                         a built-in with its defaults
    soft_overlong(512, cache=128)  a built-in with arguments: literals, never evaluated
    think_answer:0.1               the weight follows the last colon
    my.py:score   my.py:score:0.5  the user's own function
    model:PATH    model:PATH:0.5   a reward model's directory or hub name; model:PATH#LABEL: one of
                                   its labels
    preference:PATH                the same, for the text after the thoughts, and only for rows
                                   without an answer

Left out: the rewards themselves (each has its file), and any other configuration.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from logpi.errors import nearest
from logpi.rewards.arithmetic import CountdownReward
from logpi.rewards.bfcl import BfclReward
from logpi.rewards.code import Code
from logpi.rewards.combine import Rewards
from logpi.rewards.command import CommandReward
from logpi.rewards.format import ThinkAnswer
from logpi.rewards.language import LanguageConsistency
from logpi.rewards.length import SoftOverlong
from logpi.rewards.match import Boxed, ExactAnswer, Number, TagAnswer
from logpi.rewards.math import Math
from logpi.rewards.model import ModelReward, is_reward_model
from logpi.rewards.pattern import JsonSchema, Regex
from logpi.rewards.qa import AnswerF1, AnswerMatch
from logpi.rewards.tool_calls import ToolCalls, ToolFormat, ToolLength
from logpi.rewards.user import user_reward
from logpi.rewards.weighted import Weighted
from logpi.runs.words import build, parse_call

NAMES: dict[str, Callable[..., Any]] = {
    "exact": ExactAnswer,
    "number": Number,
    "boxed": Boxed,
    "tag_answer": TagAnswer,
    "think_answer": ThinkAnswer,
    "soft_overlong": SoftOverlong,
    "countdown": CountdownReward,
    "math": Math,
    "code": Code,
    "regex": Regex,
    "json_schema": JsonSchema,
    "command": CommandReward,
    "language": LanguageConsistency,
    "qa_em": AnswerMatch,
    "qa_f1": AnswerF1,
    "tool_calls": ToolCalls,
    "tool_format": ToolFormat,
    "tool_length": ToolLength,
    "bfcl": BfclReward,
}
# the largest weight: float32 holds the square of a sum
HEAVIEST = 1e6
_WEIGHT = re.compile(r"(.+):([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)", re.DOTALL)


def reward(spec: str, device: str = "cpu") -> Weighted:
    """One reward from its word (see this module's docstring); a reward model runs on `device`.

    Raises:
        ValueError: an unknown name and the nearest known one, a missing file or function, or wrong
            arguments.

    >>> reward("think_answer:0.1")
    Weighted(function=ThinkAnswer(opened=False, name='think_answer'), weight=0.1,
    name='think_answer')
    """
    match = _WEIGHT.fullmatch(spec.strip())
    body, weight = (match[1], float(match[2])) if match else (spec.strip(), 1.0)
    return Weighted(_function(body, device), _weight(weight, body))


def _function(body: str, device: str) -> Callable[..., Any]:
    """The reward of a word without its weight."""
    if re.search(r"\.py(:\w*)?$", body):
        return user_reward(body)
    kind, _, place = body.partition(":")
    if place and kind in ("model", "preference"):
        return ModelReward.of(place, unverified=kind == "preference", device=device)
    name, args, options = parse_call(body)
    if name not in NAMES:
        raise ValueError(
            f"no reward is called {name!r}; {nearest(name, NAMES)} (your own: my_file.py:function)"
        )
    return build("reward", name, NAMES[name], args, options)


def _weight(weight: float, name: str) -> float:
    if not abs(weight) <= HEAVIEST:
        raise ValueError(
            f"the weight of reward {name!r} must lie between -{HEAVIEST:g} and {HEAVIEST:g}, not"
            f" {weight:g}"
        )
    return float(weight)


Spec = str | Weighted | Callable[..., Any] | tuple[Any, float]
"""One reward: a word, a function or another callable, a loaded `RewardModel`, any of these with a
weight as `(reward, weight)`, or a `Weighted`."""


def rewards(specs: Spec | Sequence[Spec] | Rewards, device: str = "cpu") -> Rewards:
    """The sum of one or more rewards, as words or objects in any mixture.

    A function takes what its parameters name: TRL's `f(prompts, completions, completion_ids,
    **columns)`, a part of it such as `f(completions, answer)`, or verl's
    `compute_score(data_source, solution_str, ground_truth, extra_info)`. It may be `async def`,
    also in a notebook. If it names `log_metric(name, value)` or `log_extra(column, values)`, their
    values go into the step's metrics and samples. A Python function runs in this process. Its
    exceptions cost verdicts, never the run, but nothing stops one that hangs (a function of a file,
    `my.py:score`, can be stopped).

    Args:
        specs: see `Spec`.
        device: the device of reward models that words name.

    Raises:
        ValueError: in one line: an unknown word, an object that cannot be called, a weight that is
            not a number, two rewards of one name, no reward.

    >>> def short(completions):
    ...     return [1.0 / (1 + len(c)) for c in completions]
    >>> rewards(["exact:1.0", (short, 0.5)]).names
    ('exact', 'short')
    """
    if isinstance(specs, Rewards):
        return specs
    if isinstance(specs, Sequence) and not isinstance(specs, str) and not _pair(specs):
        return Rewards(tuple(_part(p, device) for p in specs))
    return Rewards((_part(specs, device),))


def _pair(spec: Any) -> bool:
    """Whether a value is a reward with its weight."""
    return (
        isinstance(spec, tuple)
        and len(spec) == 2
        and isinstance(spec[1], int | float)
        and not isinstance(spec[1], bool)
    )


def _part(part: Any, device: str) -> Weighted:
    if _pair(part):
        what, weight = part
        one = _part(what, device)
        return replace(one, weight=_weight(one.weight * weight, one.name))
    if isinstance(part, Weighted):
        return part
    if isinstance(part, str):
        return reward(part, device)
    if is_reward_model(part):
        return Weighted(ModelReward.loaded(part))
    if not callable(part):
        raise ValueError(
            f"a reward is a word, a function, a reward model, or one of these with a weight as"
            f" (function, 0.5); not {type(part).__name__} {part!r:.60}"
        )
    return Weighted(part)
