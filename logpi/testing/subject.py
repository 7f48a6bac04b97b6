"""The model under test, and the findings of laws: the tokens that logpi, and that `transformers`,
make of messages.

Left out: the laws (`model_text.py`, `model_template.py`, `model_numbers.py`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar, cast

from logpi.errors import UserError
from logpi.rollouts.chat import Chat
from logpi.rollouts.demonstrations import Demonstrations, Learn
from logpi.rollouts.preference_pairs import read_pairs

if TYPE_CHECKING:
    from logpi.envs.task import Row, Split
    from logpi.policies.causal_lm import CausalLM
    from logpi.policies.chat_template import ChatTemplate, Message
    from logpi.policies.reward_model import RewardModel
    from logpi.rewards import Rewards
    from logpi.types import Trajectory

__all__ = [
    "LONG",
    "LawFinding",
    "LawVerdict",
    "Subject",
    "absent",
    "answer",
    "fail",
    "holds",
    "limited",
    "system",
    "user",
    "with_warnings",
]

T = TypeVar("T")
LONG = 1 << 20  # tokens: no row of a law is cut


class LawVerdict(Enum):
    """The result of one law. LIMITED: it holds within a limit of the model that a user should
    know."""

    OK = "ok"
    FAIL = "FAIL"
    LIMITED = "limited"
    ABSENT = "not applicable"


@dataclass(frozen=True)
class LawFinding:
    """A verdict, and a line with the reason."""

    verdict: LawVerdict
    detail: str


def holds(detail: str) -> LawFinding:
    """The law holds."""
    return LawFinding(LawVerdict.OK, detail)


def fail(detail: str) -> LawFinding:
    """The law is broken."""
    return LawFinding(LawVerdict.FAIL, detail)


def limited(detail: str) -> LawFinding:
    """The law holds within a limit."""
    return LawFinding(LawVerdict.LIMITED, detail)


def absent(detail: str) -> LawFinding:
    """The law does not apply."""
    return LawFinding(LawVerdict.ABSENT, detail)


def user(content: str) -> Message:
    """A user's message."""
    return {"role": "user", "content": content}


def answer(content: str, **more: Any) -> Message:
    """An assistant's message."""
    return {"role": "assistant", "content": content, **more}


def system(content: str) -> Message:
    """A system message."""
    return {"role": "system", "content": content}


def with_warnings(make: Callable[[], T]) -> tuple[T, str]:
    """The value of `make()`, and the warnings that it gave ("" for none)."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        value = make()
    return value, "; ".join(dict.fromkeys(str(w.message) for w in record))


@dataclass(frozen=True)
class _OneRow:
    """A task of one row."""

    row: Row
    name: str = "laws"

    @property
    def reward(self) -> Rewards:
        raise NotImplementedError("nothing is judged")

    def rows(self, split: Split = "train", seed: int = 0) -> Sequence[Row]:
        return [self.row]


@dataclass(frozen=True)
class Subject:
    """A model under test."""

    policy: CausalLM | RewardModel

    @property
    def template(self) -> ChatTemplate:
        return self.policy.template

    @property
    def tokenizer(self) -> Any:
        return self.policy.tokenizer

    @property
    def chats(self) -> bool:
        """It has a chat template."""
        return self.tokenizer.chat_template is not None

    @property
    def end(self) -> int:
        """The token that ends an answer. Raises UserError if there is none."""
        if self.template.end_id is None:
            raise UserError("answers have no end token: choose one with --end-token")
        return self.template.end_id

    # The messages in transformers; both raise whatever the template raises

    def written(
        self, messages: Sequence[Message], ask: bool = False, tools: Any = None
    ) -> list[int]:
        """Token ids."""
        return list(self._apply(messages, ask, tools, tokenize=True, return_dict=False))

    def text(self, messages: Sequence[Message], ask: bool = False, tools: Any = None) -> str:
        """Text."""
        return self._apply(messages, ask, tools, tokenize=False)

    def _apply(self, messages: Sequence[Message], ask: bool, tools: Any, **how: Any) -> Any:
        return self.tokenizer.apply_chat_template(
            [dict(m) for m in messages],
            tools=tools,
            add_generation_prompt=ask,
            **how,
            **self.template.options,
        )

    def refusal(self, messages: Sequence[Message]) -> str:
        """Why the template refuses the messages or a part of them; "" if it does not."""
        try:
            self.text(messages)
            self.template.text(messages, ask=False)
        except Exception as error:  # templates may raise anything
            return " ".join(str(error).split())[:120] or type(error).__name__
        return ""

    # The messages in logpi

    def demonstrated(self, row: Row, learn: Learn = "assistant") -> list[Trajectory]:
        """The rows that supervised fine-tuning makes of a demonstration."""
        demonstrations = Demonstrations(
            cast("CausalLM", self.policy),
            _OneRow(row),
            rows=1,
            max_length=LONG,
            chat=Chat(wrap=self.chats),
            learn=learn,
        )
        return demonstrations.trajectories(row, 0)

    def conversed(
        self, messages: Sequence[Message], learn: Learn = "assistant"
    ) -> list[Trajectory]:
        """The rows that it makes of a whole conversation."""
        return self.demonstrated({"prompt": messages[:-1], "messages": list(messages)}, learn)

    def preferred(self, row: Row, whole: bool = False) -> tuple[Trajectory, ...]:
        """The two rows of a preference pair."""
        return read_pairs(
            self.policy, [row], max_length=LONG, chat=Chat(wrap=self.chats), whole=whole
        ).groups[0]

    def decoded(self, ids: Sequence[int]) -> str:
        """Tokens as text, control tokens included."""
        return self.tokenizer.decode(list(ids))

    def own(self, row: Trajectory) -> str:
        """The text of a row that is learned."""
        return self.decoded(row.action[row.mask].tolist())
