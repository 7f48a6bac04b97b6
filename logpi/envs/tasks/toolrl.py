"""Recorded tool calls as tasks: ToolRL's files, and conversations in OpenAI's format.

    toolrl:test.parquet, toolrl:rlla_sft.json     qiancheng0/ToolRL, Apache-2.0: verl's rows, or
                                                  instruction, input, output
    openai:FILE    {"messages": […, {"role": "assistant", "tool_calls": […]}], "tools": […]}

The policy learns one turn: the calls of the next answer (`rewards.ToolCalls`). Left out: running
the calls; earlier answers of a conversation, which are part of the prompt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from logpi.calls import Lines, Malformed
from logpi.calls import style as style_of
from logpi.calls.messages import calls_of, conversation, tool_list
from logpi.calls.reading import answering
from logpi.calls.schema import standard
from logpi.envs.files import read_raw
from logpi.envs.task import Row, Split, parted
from logpi.rewards import Rewards, ToolCalls, ToolFormat, Weighted


@dataclass(frozen=True)
class _RecordedCalls(ABC):
    """A file whose rows end in a recorded answer. test_share: of rows on the test side, by a hash
    of the prompt."""

    path: str
    test_share: float = 0.1

    def rows(self, split: Split = "train", seed: int = 0) -> list[Row]:
        return parted(self._rows, split, seed, self.test_share, self.path)

    @cached_property
    def _rows(self) -> list[Row]:
        return [self._row(raw, where) for where, raw in read_raw(self.path)]

    @abstractmethod
    def _row(self, raw: Row, where: str) -> Row:
        """A raw row in our layout. Raises ValueError with its place."""


@dataclass(frozen=True)
class ToolRL(_RecordedCalls):
    """ToolRL's rows: a system message with the tools, the dialogue so far, and the answer to it.

    A row: `prompt` (messages), `calls` (`{"name", "arguments"}`), `respond` (a response is wanted),
    `completion` (the recorded answer).
    Rewards: format in {0, 1} and correctness in [−3, 3], as published.

    Attributes:
        path: the file. test_share: of rows on the test side, by a hash of the prompt; 1: all, as
            for a file that is a test.

    Raises:
        ValueError: a missing file, rows of another layout, an answer whose calls cannot be read.
    """

    name: str = field(default="toolrl", init=False, repr=False)
    reward: Rewards = field(
        default=Rewards((Weighted(ToolCalls()), Weighted(ToolFormat()))), init=False, repr=False
    )

    def _row(self, raw: Row, where: str) -> Row:
        answer, prompt = raw.get("output"), raw.get("prompt")
        if answer is not None and "instruction" in raw:
            prompt = [
                {"role": "system", "content": raw["instruction"]},
                {"role": "user", "content": raw.get("input", "")},
            ]
        elif isinstance(raw.get("reward_model"), Mapping) and not isinstance(prompt, str):
            answer = raw["reward_model"].get("ground_truth")
        if not isinstance(answer, str) or not prompt or isinstance(prompt, str):
            raise ValueError(
                f"{where}: expected instruction, input, output; or prompt and"
                " reward_model.ground_truth"
            )
        calls = Lines().parse(answer)
        broken = next((c for c in calls if isinstance(c, Malformed)), None)
        if broken is not None:
            raise ValueError(f"{where}: the recorded call cannot be read: {broken.reason}")
        return {
            "prompt": list(prompt),
            "completion": answer,
            "calls": _plain(calls),
            "respond": "<response>" in answering(answer),
            "answer": answer,
        }


@dataclass(frozen=True)
class OpenAICalls(_RecordedCalls):
    """Conversations that end in an assistant's message, with tool calls or with plain text (no call
    is right).

    A row: `prompt` (the messages before, with the tools in the system message in the style's form),
    `calls`, `tools`, `completion`.

    Attributes:
        path: a file of `{"messages", "tools"}`. style: how calls are written. announce: put the
            tools into the system message; False leaves that to the model's chat template (column
            `template_tools`), which then also writes the calls of demonstrations, whatever the
            style (column `messages`: every answer of the conversation is learned). test_share: as
            in ToolRL.

    Raises:
        ValueError: a missing file, a conversation that does not end with the assistant, arguments
            that are no JSON object.
    """

    style: str = "hermes"
    announce: bool = True
    grain: str = "fine"
    name: str = field(default="openai", init=False, repr=False)

    def __post_init__(self) -> None:
        ToolCalls(self.grain, self.style)

    @property
    def reward(self) -> Rewards:
        return Rewards((Weighted(ToolCalls(self.grain, self.style, low=0.0, high=1.0, idle=True)),))

    def _row(self, raw: Row, where: str) -> Row:
        try:
            messages = conversation(raw.get("messages") or ())
            tools = standard(tool_list(raw.get("tools") or []))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if len(messages) < 2 or messages[-1].get("role") != "assistant":
            raise ValueError(
                f"{where}: expected messages that end with the assistant's, and found columns"
                f" {', '.join(raw)}"
            )
        calls, prompt = calls_of(messages[-1].get("tool_calls")), messages[:-1]
        if tools and self.announce:
            system = style_of(self.style).system(tools)
            first = prompt[0] if prompt and prompt[0]["role"] == "system" else None
            content = f"{first['content']}\n\n{system}" if first else system
            prompt = [{"role": "system", "content": content}, *(prompt[1:] if first else prompt)]
        call_text = style_of(self.style).write(calls) if calls else ""
        answer = "\n".join(p for p in (messages[-1].get("content"), call_text) if p)
        row = {
            "prompt": prompt,
            "calls": _plain(calls),
            "tools": tools,
            "completion": answer,
            "answer": answer,
        }
        if tools and not self.announce:
            row |= {"template_tools": tools, "messages": messages}
        return row


def _plain(calls: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"name": c.name, "arguments": dict(c.arguments)} for c in calls]
