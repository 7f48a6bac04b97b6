r"""ToolRL's rewards (arXiv:2504.13958): the calls of a completion compared with the row's, its
format, the length of its thought.

    match(A, B) = |A ∩ B| / |A ∪ B| as multisets; 1 if both are empty, 0 if one is
    S    = match(names) + Σ over gold calls g of [ match(keys_g, keys_p) + #{k : p[k] = g[k]} ]
           p: the call that g is matched with
    Smax = 1 + Σ_g (1 + |keys_g|)
    R    = low + (high − low) · S / Smax                          published: low −3, high 3

Divergences from the published code (qiancheng0/ToolRL, rlla.py), which are why its values may
differ here:
- g and p are matched so that S is greatest; the code takes the best unused p for each g in turn
  (`greedy=True`).
- true is not 1: JSON's truth values equal truth values only; 1 and 1.0 are equal, as in the code.
- an unreadable call beside readable ones counts as a call of no name; in the code one bad line
  costs all (−3).
- a completion's thought is not searched for calls.
Left out: the schedules that scale rewards over training (`SCHEDULEREWARD`, `MAX1STEP30MAX3`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from logpi.calls import Call, Malformed, style
from logpi.calls.messages import calls_of
from logpi.rewards.call_matching import GRAINS
from logpi.rewards.text import text_of


@dataclass(frozen=True)
class ToolCalls:
    """ToolRL's correctness reward: the completion's calls against the row's `calls`, in [low,
    high].

    A completion without calls, where the row has some, gets `low`. A row whose `calls` are empty
    wants a plain answer: 0 for every completion, as published (group-normalised, such rows teach
    the format alone), or with `idle`, high without a call and low with one.

    Attributes:
        grain: "fine": names, parameter names and values; "strict": the first two wholly or not;
            "call": each call wholly or not; "all": everything or nothing (coarse).
        style: how calls are written: "lines" (ToolRL's), "hermes", "xml", "python".
        greedy: match calls in the gold order, as published, instead of best.
        low, high: range. idle: judge rows that ask for no call too.

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
        read = [
            Call("") if isinstance(a, Malformed) else a
            for a in style(self.style).parse(text, tools)
        ]
        if not golds:
            return (self.low if read else self.high) if self.idle else 0.0
        share = GRAINS[self.grain](golds, read, self.greedy) if read else 0.0
        return self.low + (self.high - self.low) * share


_TAGS = ("think", "tool_call", "response")


@dataclass(frozen=True)
class ToolFormat:
    """ToolRL's format reward: 1 for `<think>…</think>`, then `<tool_call>` if the row has calls,
    then `<response>` if it wants one.

    Each on its own line, each tag once, nothing around them: the published patterns, stricter in
    that <think> too may stand only once (there, junk between two thoughts still has full marks).
    Column `respond`: the row wants a response; without the column, rows without calls do.

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
            float(_formed(text_of(c), bool(gold), not gold if w is None else bool(w)))
            for c, gold, w in rows
        ]


def _formed(text: str, calling: bool, responding: bool) -> bool:
    wanted = ["think", *(["tool_call"] if calling else []), *(["response"] if responding else [])]
    if any(
        text.count(f"<{t}>") != (t in wanted) or text.count(f"</{t}>") != (t in wanted)
        for t in _TAGS
    ):
        return False
    rest = text.strip()
    for tag in wanted:
        pad = "\n" if tag == "tool_call" else ""
        opened, end = f"<{tag}>{pad}", f"{pad}</{tag}>"
        at = rest.find(end)
        if not rest.startswith(opened) or at < len(opened):
            return False
        rest = rest[at + len(end) :]
        if tag != wanted[-1]:
            if not rest.startswith("\n"):
                return False
            rest = rest[1:]
    return not rest


@dataclass(frozen=True)
class ToolLength:
    """ToolRL's length reward, for the ablation: words of the thought over `words`, at most 1. The
    paper finds that it does not help.

    Attributes:
        words: of a thought that earns 1 (published: 512). grow: words that are added to it each
            step (published: from 384 by 256/105 a step), by the column `step` that training gives
            to every reward.
        tag: of the thought; "" counts every word of the completion.

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
        steps = step or [0] * len(completions)
        return [
            self._judge(text_of(c), float(s or 0)) for c, s in zip(completions, steps, strict=True)
        ]

    def _judge(self, text: str, step: float) -> float:
        if self.tag and (f"<{self.tag}>" not in text or f"</{self.tag}>" not in text):
            return 0.0
        thought = (
            text.rpartition(f"<{self.tag}>")[2].partition(f"</{self.tag}>")[0] if self.tag else text
        )
        return min(1.0, len(thought.split()) / (self.words + self.grow * step))
