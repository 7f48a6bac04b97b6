"""Rewards for the form of a completion. Left out: whether its answer is right (`match.py`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from logpi.rewards.text import text_of

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_FORM = re.compile(r"<think>(.*)</think>\s*<answer>(.*)</answer>", re.DOTALL)


@dataclass(frozen=True)
class ThinkAnswer:
    """1 if the completion is `<think>…</think><answer>…</answer>`, with nothing outside.

    The format reward of DeepSeek-R1-Zero (arXiv:2501.12948, §2.2.2). Each tag must appear once, in
    this order. White space around and between the two parts is free. Neither part may be empty.

    Attributes:
        opened: the prompt already ends with `<think>`, so the completion starts inside it. The
            reward sees this by itself in a prompt that is a text, and in the chat template's prefix
            that rollouts give (`assistant_prefix`).

    >>> ThinkAnswer()(prompts=["?"], completions=["<think>3+4</think> <answer>7</answer>"])
    [1.0]
    """

    opened: bool = False
    name: str = "think_answer"
    needs: ClassVar[tuple[str, ...]] = ()
    # what a response must hold, whatever it says
    tags: ClassVar[tuple[str, ...]] = _TAGS

    def __call__(self, prompts, completions, completion_ids=None, **columns) -> list[float | None]:
        prefixes = columns.get("assistant_prefix") or [""] * len(prompts)
        rows = zip(prompts, prefixes, completions, strict=True)
        return [float(_well_formed(self._begin(p, a) + text_of(c))) for p, a, c in rows]

    def _begin(self, prompt: Any, prefix: str) -> str:
        """The tag that the prompt or the chat template opened, or ""."""
        texts = (prompt if isinstance(prompt, str) else "", prefix)
        opened = self.opened or any(t.rstrip().endswith("<think>") for t in texts)
        return "<think>" if opened else ""


def _well_formed(text: str) -> bool:
    once = all(text.count(tag) == 1 for tag in _TAGS)
    form = _FORM.fullmatch(text.strip()) if once else None
    return form is not None and all(part.strip() for part in form.groups())
