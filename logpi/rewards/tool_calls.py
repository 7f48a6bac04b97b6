r"""ToolRL's rewards (arXiv:2504.13958): for the calls of a completion, its format, and the length
of its thought.

    match(A, B) = |A ∩ B| / |A ∪ B| as multisets; 1 if both are empty, 0 if one is
    S    = match(names) + Σ over gold calls g of [ match(keys_g, keys_p) + #{k : p[k] = g[k]} ]
           p: the call that is matched with g
    Smax = 1 + Σ_g (1 + |keys_g|)
    R    = low + (high − low) · S / Smax                          published: low −3, high 3

Divergences from the published code (qiancheng0/ToolRL, rlla.py):
- The matching of g and p maximises S. The code takes the best unused p for each g in turn
  (`greedy=True`).
- true is not 1: JSON's booleans equal booleans only. 1 and 1.0 are equal, as in the code.
- A malformed call beside good ones counts as a call without a name. In the code one bad line gives
  −3 to the completion.
- Calls inside a thought do not count.
Left out: the schedules that scale rewards over training (`SCHEDULEREWARD`, `MAX1STEP30MAX3`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from logpi.calls import Call, Malformed, style
from logpi.calls.messages import calls_of
from logpi.rewards.call_matching import GRAINS
from logpi.rewards.text import text_of


@dataclass(frozen=True)
class ToolCalls:
    """ToolRL's correctness reward: compares the completion's calls with the row's, in [low, high].

    A completion without calls gets `low` if the row has some. A row with empty `calls` expects a
    plain answer. Every completion of such a row gets 0, as published, so the row teaches the format
    alone. With `idle` it gets `high` without a call and `low` with one.

    Attributes:
        grain: "fine" compares names, parameter names and values; "strict" gives names and parameter
            names all or nothing; "call" gives each call all or nothing; "all" gives the whole
            completion all or nothing.
        style: the style of the calls: "lines" (ToolRL's), "hermes", "xml", "python".
        greedy: match calls in the gold order, as published.
        low, high: the range.
        idle: judge rows without calls too.

    Raises:
        ValueError: an unknown grain or style, or low ≥ high.

    >>> gold = [{"name": "add", "arguments": {"a": 1, "b": 2}}]
    >>> call = '{"name": "add", "parameters": {"a": 1, "b": 3}}'
    >>> said = f"<think>…</think>\\n<tool_call>\\n{call}\\n</tool_call>"
    >>> ToolCalls()(prompts=["?"], completions=[said], calls=[gold])
    [1.5]
    """

    grain: str = "fine"
    style: str = "lines"
    greedy: bool = False
    low: float = -3.0
    high: float = 3.0
    idle: bool = False
    name: str = "tool_calls"
    needs: ClassVar[tuple[str, ...]] = ("calls",)

    def __post_init__(self) -> None:
        style(self.style)
        if self.grain not in GRAINS or self.low >= self.high:
            raise ValueError(
                f"tool_calls: grain is one of {', '.join(GRAINS)} and low < high, got"
                f" {self.grain!r}, {self.low}, {self.high}"
            )

    def __call__(
        self,
        prompts,
        completions,
        completion_ids=None,
        *,
        calls: Sequence[Any],
        tools=None,
        **columns,
    ) -> list[float | None]:
        rows = zip(completions, calls, tools or [()] * len(completions), strict=True)
        return [
            None if gold is None else self._judge(text_of(c), calls_of(gold), schemas or ())
            for c, gold, schemas in rows
        ]

    def _judge(self, text: str, golds: Sequence[Call], tools: Sequence[Any]) -> float:
        attempts = style(self.style).parse(text, tools)
        calls = [Call("") if isinstance(a, Malformed) else a for a in attempts]
        if not golds:
            return (self.low if calls else self.high) if self.idle else 0.0
        share = GRAINS[self.grain](golds, calls, self.greedy) if calls else 0.0
        return self.low + (self.high - self.low) * share


# each part of a completion that has the published format
_PARTS = {
    "think": "<think>.*</think>",
    "tool_call": "<tool_call>\n.*\n</tool_call>",
    "response": "<response>.*</response>",
}


@dataclass(frozen=True)
class ToolFormat:
    """ToolRL's format reward: 1 for `<think>…</think>`, then `<tool_call>` if the row has calls,
    then `<response>` if the row expects one.

    Each part begins a line, each tag appears once, and nothing surrounds them. Divergence: the
    published patterns accept several thoughts, with any text between them. The column `respond`
    says whether the row expects a response; without it, rows without calls do.

    >>> said = "<think>easy</think>\\n<response>4</response>"
    >>> ToolFormat()(prompts=["?"], completions=[said], calls=[[]])
    [1.0]
    """

    name: str = "tool_format"
    needs: ClassVar[tuple[str, ...]] = ("calls",)

    def __call__(
        self,
        prompts,
        completions,
        completion_ids=None,
        *,
        calls: Sequence[Any],
        respond=None,
        **columns,
    ) -> list[float | None]:
        wants = respond or [None] * len(completions)
        rows = zip(completions, calls, wants, strict=True)
        return [
            float(_formatted(text_of(c), bool(gold), not gold if w is None else bool(w)))
            for c, gold, w in rows
        ]


def _formatted(text: str, calling: bool, responding: bool) -> bool:
    present = {"think": True, "tool_call": calling, "response": responding}
    tags = [
        (tag, wanted) for name, wanted in present.items() for tag in (f"<{name}>", f"</{name}>")
    ]
    form = "\n".join(_PARTS[name] for name, wanted in present.items() if wanted)
    return all(text.count(tag) == wanted for tag, wanted in tags) and bool(
        re.fullmatch(form, text.strip(), re.DOTALL)
    )


@dataclass(frozen=True)
class ToolLength:
    """ToolRL's length reward, for its ablation: the words of the thought over `words`, at most 1.

    The paper finds that it does not help.

    Attributes:
        words: the length of a thought that earns 1 (published: 512).
        grow: the increase of `words` at each step (published: from 384 by 256/105). It needs the
            column `step`, which training gives to every reward.
        tag: the tag of the thought; "" counts every word of the completion.

    Raises:
        ValueError: `grow` without a column `step`; words < 1.

    >>> ToolLength(words=4)(prompts=["?"], completions=["<think>two words</think>"])
    [0.5]
    """

    words: float = 512
    grow: float = 0.0
    tag: str = "think"
    name: str = "tool_length"

    def __post_init__(self) -> None:
        if self.words < 1 or self.grow < 0:
            raise ValueError(
                f"tool_length: needs words ≥ 1 and grow ≥ 0, got {self.words} and {self.grow}"
            )

    @property
    def needs(self) -> tuple[str, ...]:
        return ("step",) if self.grow else ()

    def __call__(
        self,
        prompts,
        completions,
        completion_ids=None,
        *,
        step: Sequence[float] | None = None,
        **columns,
    ) -> list[float | None]:
        if self.grow and step is None:
            raise ValueError("tool_length with grow needs the column 'step'")
        rows = zip(completions, step or [0] * len(completions), strict=True)
        return [self._judge(text_of(c), float(s or 0)) for c, s in rows]

    def _judge(self, text: str, step: float) -> float:
        opening, closing = f"<{self.tag}>", f"</{self.tag}>"
        if self.tag and (opening not in text or closing not in text):
            return 0.0
        thought = text.rpartition(opening)[2].partition(closing)[0] if self.tag else text
        return min(1.0, len(thought.split()) / (self.words + self.grow * step))
