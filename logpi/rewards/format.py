"""Rewards for the form of a completion, whatever it says. Left out: whether the answer is right
(`match.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from logpi.rewards.text import text_of

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@dataclass(frozen=True)
class ThinkAnswer:
    """1 if the completion is `<think>…</think><answer>…</answer>`: each tag once, in order, nothing
    outside them.

    The format reward of DeepSeek-R1-Zero (arXiv:2501.12948, §2.2.2). White space around and between
    the two parts is free; an empty part is no part.

    Attributes:
        opened: the prompt already ends with `<think>`, so the completion starts inside it. It is
            seen by itself where the prompt is a text, and where rollouts say what the chat template
            opened (`assistant_prefix`).

    >>> ThinkAnswer()(prompts=["?"], completions=["<think>3+4</think> <answer>7</answer>"])
    [1.0]
    """

    opened: bool = False
    name: str = "think_answer"
    needs: ClassVar[tuple[str, ...]] = ()

    def __call__(self, prompts, completions, completion_ids=None, **columns) -> list[float | None]:
        begun = columns.get("assistant_prefix") or [""] * len(prompts)
        return [
            float(self._well_formed(self._opened(p, b) + text_of(c)))
            for p, b, c in zip(prompts, begun, completions, strict=True)
        ]

    def _opened(self, prompt: Any, prefix: str) -> str:
        """What the prompt opened of the answer."""
        asked = prompt if isinstance(prompt, str) else ""
        return (
            "<think>"
            if self.opened or any(t.rstrip().endswith("<think>") for t in (asked, prefix))
            else ""
        )

    def _well_formed(self, text: str) -> bool:
        text = text.strip()
        if any(text.count(tag) != 1 for tag in _TAGS):
            return False
        head, thought, between, answer, tail = self._parts(text)
        return (
            not head
            and not tail
            and not between.strip()
            and bool(thought.strip())
            and bool(answer.strip())
        )

    @staticmethod
    def _parts(text: str) -> list[str]:
        """The five pieces around the four tags, taken in order; a tag out of order leaves a piece
        that fails."""
        parts = []
        for tag in _TAGS:
            piece, found, text = text.partition(tag)
            parts.append(piece if found else tag)
        return [*parts, text]
