"""Rewards and tasks by name, as they are written on a command line.

    number                         a built-in with its defaults
    soft_overlong(512, cache=128)  a built-in with arguments: plain literals, never evaluated
    think_answer:0.1               weight after the last colon
    my.py:score   my.py:score:0.5  the user's own function
    model:PATH    model:PATH:0.5   a reward model's directory or hub name; model:PATH#LABEL: one of its labels
    preference:PATH                the same for rows without an answer alone, of what follows the thoughts

Left out: what the names mean (`reward` is given the table of built-ins below), and any other
configuration.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from logpi.rewards.arithmetic import CountdownReward
from logpi.rewards.bfcl import BfclReward
from logpi.rewards.code import Code
from logpi.rewards.combine import Rewards, Weighted
from logpi.rewards.command import CommandReward
from logpi.rewards.format import ThinkAnswer
from logpi.rewards.language import LanguageConsistency
from logpi.rewards.length import SoftOverlong
from logpi.rewards.match import Boxed, ExactAnswer, Number, TagAnswer
from logpi.rewards.math import Math
from logpi.rewards.model import ModelReward
from logpi.rewards.pattern import JsonSchema, Regex
from logpi.rewards.qa import AnswerF1, AnswerMatch
from logpi.rewards.tool_calls import ToolCalls, ToolFormat, ToolLength
from logpi.rewards.user import user_reward

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
HEAVIEST = 1e6  # rewards are added, and then squared, in 32 bits
_WEIGHT = re.compile(r"(.+):([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)", re.DOTALL)


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of an error line: the likely intention, or all that there is."""
    names = sorted(names)
    close = difflib.get_close_matches(name.lower(), names, 1, 0.5)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}"


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
    """A plain value; a bare word is itself: `language(en)` needs no quotes, which a shell would
    eat."""
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
            raise ValueError(f"{kind} {name!r} has no option {option!r}: {nearest(option, known)}")
    try:
        inspect.signature(make).bind(*args, **options)
    except TypeError as error:
        raise ValueError(f"{kind} {name!r}: {error}; its options are: {', '.join(known)}") from None
    try:
        return make(*args, **options)
    except (
        TypeError,
        AttributeError,
        OverflowError,
    ) as error:  # a word where a number belongs, or the other way round
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
    if abs(weight) > HEAVIEST:
        raise ValueError(
            f"the weight of reward {body!r} must lie between -{HEAVIEST:g} and {HEAVIEST:g}, not"
            f" {weight:g}"
        )
    if re.search(r"\.py(:\w*)?$", body):
        return Weighted(user_reward(body), weight)
    if body.startswith("model:"):
        return Weighted(ModelReward.of(body.removeprefix("model:"), device=device), weight)
    if body.startswith("preference:"):
        return Weighted(
            ModelReward.of(body.removeprefix("preference:"), unverified=True, device=device), weight
        )
    name, args, options = parse_call(body)
    if name not in NAMES:
        raise ValueError(
            f"no reward is called {name!r}: {nearest(name, NAMES)} (your own: my_file.py:function)"
        )
    return Weighted(build("reward", name, NAMES[name], args, options), weight)


def rewards(
    specs: Sequence[str | Callable[..., Any] | Weighted] | str | Rewards | Callable[..., Any],
    device: str = "cpu",
) -> Rewards:
    """Any mixture of specifications, functions with TRL's signature and `Weighted` parts, as one
    `Rewards`. `device`: as `reward`.

    >>> rewards(["exact:1.0", "think_answer:0.1"]).names
    ('exact', 'think_answer')
    """
    if isinstance(specs, Rewards):
        return specs
    parts = [specs] if isinstance(specs, str | Weighted) or callable(specs) else list(specs)
    return Rewards(tuple(_part(p, device) for p in parts))


def _part(part: str | Callable[..., Any] | Weighted, device: str) -> Weighted:
    if isinstance(part, Weighted):
        return part
    return reward(part, device) if isinstance(part, str) else Weighted(part)
