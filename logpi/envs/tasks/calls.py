"""Requests that are function calls in other words: `walk 3 north, buy 2 figs` →
`[walk(by=3,to=north),buy(n=2,item=fig)]`.

It compares rewards of different grain (`rewards/tool_calls.py`): each call of a demonstration is
right or wrong on its own, so several are seldom right at once, and a reward that counts names,
parameters and values one by one learns from answers to which an all-or-nothing reward gives 0.
Left out: running the calls, values that must be computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar

from logpi.envs.task import GeneratedTask, Row
from logpi.rewards import Rewards, ToolCalls, Weighted

_DIRECTIONS = ("north", "east", "south", "west")
_ITEMS = ("fig", "nut", "pear", "plum")
_NAMES = ("Ada", "Ben", "Cleo", "Dov")
# function -> its parameters with their values, and how people ask for it
_FUNCTIONS: dict[str, tuple[dict[str, tuple[Any, ...]], tuple[str, ...]]] = {
    "walk": ({"by": tuple(range(1, 10)), "to": _DIRECTIONS}, ("go {by} {to}", "{to} {by} steps")),
    "buy": ({"n": tuple(range(1, 10)), "item": _ITEMS}, ("get {n} {item}", "{item} {n} please")),
    "ring": (
        {"who": _NAMES, "at": tuple(range(1, 10))},
        ("call {who} {at}", "at {at} phone {who}"),
    ),
}
_TALK = ("go", "steps", "get", "please", "call", "phone", "at")


@dataclass(frozen=True)
class Calls(GeneratedTask):
    """The calls that a request asks for, in Python's syntax (style "python").

    A row: prompt `go 3 north, fig 2 please:`, `calls` as `{"name", "arguments"}`, `level` (their
    number), and a demonstration in which each call is right with probability `right`, and otherwise
    missing, or wrong in its function, in a parameter's name or in a value.

    Attributes:
        most: calls of a request, 1 … 4; each number as often. right: in [0, 1].
        thoughtful: share of demonstrations that first repeat the request between <think> tags, once
            to three times.
        grain: of the reward: "fine", "strict", "call" or "all".

    Raises:
        ValueError: an option out of its range.

    >>> Calls(most=1, right=1, thoughtful=0).rows("train", seed=1)[0]["completion"]
    '[walk(by=1,to=east)]'
    """

    most: int = 3
    right: float = 0.5
    thoughtful: float = 0.5
    grain: str = "fine"
    name: str = field(default="calls", init=False, repr=False)
    words: ClassVar[tuple[str, ...]] = (
        "<think>",
        "</think>",
        *_FUNCTIONS,
        *_DIRECTIONS,
        *_ITEMS,
        *_NAMES,
        *_TALK,
        "by",
        "to",
        "item",
        "who",
        *(
            f"{key}=" for key in ("by", "to", "n", "item", "who", "at")
        ),  # one token then tells which value follows
    )

    @property
    def alphabet(self) -> str:
        return " ,:=()[]0123456789n"

    def __post_init__(self) -> None:
        if not 1 <= self.most <= 4 or not (0 <= self.right <= 1 and 0 <= self.thoughtful <= 1):
            raise ValueError("calls: needs 1 ≤ most ≤ 4, and right and thoughtful in [0, 1]")
        ToolCalls(self.grain)

    @property
    def reward(self) -> Rewards:
        return Rewards((Weighted(ToolCalls(self.grain, "python", low=0.0, high=1.0)),))

    def draw(self, rng: Random) -> tuple[str, list[dict[str, Any]]]:
        calls = []
        for _ in range(1 + rng.randrange(self.most)):
            name = rng.choice(list(_FUNCTIONS))
            calls.append(
                {
                    "name": name,
                    "arguments": {k: rng.choice(v) for k, v in _FUNCTIONS[name][0].items()},
                }
            )
        return " ".join(sorted(map(_written, calls))), calls

    def row(self, problem: list[dict[str, Any]], rng: Random) -> Row:
        request = ", ".join(
            rng.choice(_FUNCTIONS[c["name"]][1]).format(**c["arguments"]) for c in problem
        )
        calls = [c if rng.random() < self.right else _spoilt(c, rng) for c in problem]
        thought = (
            f"<think>{', '.join([request] * rng.randint(1, 3))}</think>"
            if rng.random() < self.thoughtful
            else ""
        )
        return {
            "prompt": f"{request}:",
            "completion": f"{thought}[{','.join(_written(c) for c in calls if c)}]",
            "calls": problem,
            "level": len(problem),
        }


def _written(call: dict[str, Any]) -> str:
    return f"{call['name']}({','.join(f'{k}={v}' for k, v in call['arguments'].items())})"


def _spoilt(call: dict[str, Any], rng: Random) -> dict[str, Any] | None:
    """A call with one fault, or None for a missing call."""
    name, arguments = call["name"], dict(call["arguments"])
    values = _FUNCTIONS[name][0]
    match rng.randrange(4):
        case 0:
            return None
        case 1:
            return {
                "name": rng.choice([f for f in _FUNCTIONS if f != name]),
                "arguments": arguments,
            }
        case 2:
            wrong, other = (
                rng.choice(list(arguments)),
                rng.choice([k for f in _FUNCTIONS.values() for k in f[0] if k not in arguments]),
            )
            return {
                "name": name,
                "arguments": {other if k == wrong else k: v for k, v in arguments.items()},
            }
        case _:
            wrong = rng.choice(list(arguments))
            return {
                "name": name,
                "arguments": arguments
                | {wrong: rng.choice([v for v in values[wrong] if v != arguments[wrong]])},
            }
