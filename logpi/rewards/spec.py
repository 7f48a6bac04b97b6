"""Rewards by name, as a command line writes them, and rewards as objects.

    number                         a built-in with its defaults
    soft_overlong(512, cache=128)  a built-in with arguments: plain literals, never evaluated
    think_answer:0.1               the weight stands after the last colon
    my.py:score   my.py:score:0.5  the user's own function
    model:PATH    model:PATH:0.5   a reward model's directory or hub name; model:PATH#LABEL: one of
                                   its labels
    preference:PATH                the same, of what follows the thoughts, and only for rows without
                                   an answer

Left out: what the names do (each has its file), and any other configuration.
"""

from __future__ import annotations

import ast
import inspect
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
# the heaviest weight: rewards are added, and then squared, in 32 bits
HEAVIEST = 1e6
_WEIGHT = re.compile(r"(.+):([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)", re.DOTALL)


def parse_call(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """`name` or `name(1, key="x")` as name, positional and named arguments; the arguments are
    literals.

    Raises:
        ValueError: not of that form.

    >>> parse_call("soft_overlong(512, cache=128)")
    ('soft_overlong', [512], {'cache': 128})
    """
    text = text.strip()
    if re.fullmatch(r"[\w-]+", text):
        return text.replace("-", "_"), [], {}
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError
        named = {k.arg: _literal(k.value) for k in call.keywords if k.arg}
        return call.func.id, [_literal(a) for a in call.args], named
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(
            f"cannot read {text!r}: write NAME or NAME(value, option=value), a text that is not one"
            " word in quotes"
        ) from None


def _literal(node: ast.expr) -> Any:
    """A plain value. A bare word is itself: `language(en)` needs no quotes for a shell to eat."""
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def build(
    kind: str, name: str, make: Callable[..., Any], args: Sequence[Any], options: dict[str, Any]
) -> Any:
    """`make(*args, **options)`, with one clear line where the arguments do not fit.

    Raises:
        ValueError: an unknown option (the nearest is named), a missing or a surplus argument.
    """
    known = inspect.signature(make).parameters
    for option in options:
        if option not in known:
            raise ValueError(f"{kind} {name!r} has no option {option!r}; {nearest(option, known)}")
    try:
        inspect.signature(make).bind(*args, **options)
    except TypeError as error:
        raise ValueError(f"{kind} {name!r}: {error}; its options are: {', '.join(known)}") from None
    try:
        return make(*args, **options)
    # a word where a number belongs, or the other way round
    except (TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{kind} {name!r}: {error}") from None


def reward(spec: str, device: str = "cpu") -> Weighted:
    """One reward from its specification (see this module's first lines); a reward model runs on
    `device`.

    Raises:
        ValueError: unknown name (the nearest is named), missing file or function, arguments that do
            not fit.

    >>> reward("think_answer:0.1")
    Weighted(function=ThinkAnswer(opened=False, name='think_answer'), weight=0.1,
    name='think_answer')
    """
    match = _WEIGHT.fullmatch(spec.strip())
    body, weight = (match[1], float(match[2])) if match else (spec.strip(), 1.0)
    return Weighted(_function(body, device), _weight(weight, body))


def _function(body: str, device: str) -> Callable[..., Any]:
    """The reward that a specification without its weight names."""
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
"""What stands for one reward: a word, a function or another callable, a loaded `RewardModel`, any
of these with a weight as `(what, weight)`, or a `Weighted`."""


def rewards(specs: Spec | Sequence[Spec] | Rewards, device: str = "cpu") -> Rewards:
    """One reward or several, as words or objects in any mixture, as one `Rewards`.

    A function says by the names of its parameters what it takes: TRL's `f(prompts, completions,
    completion_ids, **columns)` or a part of it such as `f(completions, answer)`, or verl's
    `compute_score(data_source, solution_str, ground_truth, extra_info)`; plain or `async def`, also
    in a notebook. `log_metric(name, value)` and `log_extra(column, values)` are given to a function
    that names them; what they log stands in the step's metrics and samples. A function given from
    Python runs in this process: what it raises costs verdicts and never the run, but one that
    hangs cannot be stopped (a function of a file can: `my.py:score`).

    Args:
        specs: see `Spec`.
        device: where reward models that are named by words run.

    Raises:
        ValueError: in one line: an unknown word, what cannot be called, a weight that is no
            number, two rewards of one name, no reward at all.

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
    """Whether it is a reward with its weight."""
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
