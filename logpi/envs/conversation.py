"""Text environments: the policy writes, the environment replies, until one of them ends it.

A task's attribute `env` is its `TextEnvironment`, which begins one `Conversation` for each sample
of an item. The conversation holds all its state. Replies may be slow (a search, a sandbox): the
rollout calls `reply` in threads, one call at a time for each conversation. Left out: sampling,
token ids and masks (`rollouts/`), rewards for the final answer (`rewards/`).

A user's environment: guess a number between 1 and 9, five tries.

    >>> class Guess:
    ...     stop, tools = ("\\n",), ()
    ...     def start(self, row):
    ...         return Game(row["prompt"], int(row["answer"]))
    >>> class Game:
    ...     def __init__(self, prompt, number):
    ...         self.prompt, self.number, self.tries = prompt, number, 0
    ...     def reply(self, text):
    ...         self.tries += 1
    ...         if text.strip() == str(self.number):
    ...             return Reply(reward=1.0, done=True)
    ...         return Reply("no, again: ", done=self.tries == 5)
    >>> game = Guess().start({"prompt": "a digit: ", "answer": "7"})
    >>> game.reply("3\\n").observation, game.reply("7\\n").done
    ('no, again: ', True)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from logpi.envs.task import Row

Message = dict[str, Any]
"""A chat message, as chat templates read it: `role` ("tool", "user") and `content`."""


def encodable(value: Any) -> Any:
    r"""Text or JSON values from outside, with `?` for halves of characters, which no tokenizer can
    encode.

    >>> encodable(["na\u00efve \ud83d", {"n": 1}])
    ['naïve ?', {'n': 1}]
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {encodable(k): encodable(v) for k, v in value.items()}
    return [encodable(x) for x in value] if isinstance(value, list | tuple) else value


def error_text(error: BaseException) -> str:
    """Type and message of an exception, whose own `str` may fail."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return f"{type(error).__name__}: (it cannot say what)"


@dataclass(frozen=True)
class Reply:
    """The environment's reply to one turn of the policy.

    The search environment, on the policy's `…<search>capital of France</search>`:

        Reply("\\n\\n<information>Doc 1 …</information>\\n\\n", metrics={"tool_calls": 1})

    Attributes:
        observation: what follows in the context: text, or messages that the model's chat template
            writes. Never trained. Control tokens in it are text. In place of an empty one the
            policy reads an error.
        reward: for this turn, in units of return; it stands at the turn's last token and is added
            to nothing else.
        done: the conversation is over; the observation is not shown.
        metrics: numbers that add up over the conversation (`tool_calls`, `tool_errors`, `searches`,
            …).
    """

    observation: str | Sequence[Message] = ""
    reward: float = 0.0
    done: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)


class Conversation(Protocol):
    """One conversation about one item."""

    @property
    def prompt(self) -> str | list[Message]:
        """What the policy sees first."""
        ...

    def reply(self, text: str) -> Reply:
        """The reply to the policy's turn, whose end token is left out of `text`. An exception
        becomes an error observation, and is counted."""
        ...


@dataclass(frozen=True)
class Verdicts:
    """What an environment says of a whole conversation, beside the rewards of its turns.

    Attributes:
        numbers: by name, in its own units; a name that is missing has no verdict, which is no zero.
        error: why there are none.
    """

    numbers: Mapping[str, float] = field(default_factory=dict)
    error: str = ""


@runtime_checkable
class Ending(Protocol):
    """A conversation that wants to know that it is over, to judge it or to free what it holds."""

    def end(self, rest: str) -> Verdicts | None:
        """The conversation is over, by itself or at a limit. It is called once, last. None: it has
        nothing to say of the whole.

        Args:
            rest: the policy's last turn where the token limit cut it off, so that it got no reply.
        """
        ...


def end(conversation: Conversation, rest: str = "") -> Verdicts:
    """Tell a conversation that it is over, if it wants to know; what it says of the whole. Never
    raises: a fault costs the verdicts.

    >>> class Closes:
    ...     def end(self, rest):
    ...         raise OSError("no such session")
    >>> end(Closes()).error, end(object())
    ('failed: OSError: no such session', Verdicts(numbers={}, error=''))
    """
    if not isinstance(conversation, Ending):
        return Verdicts()
    try:
        return _checked(conversation.end(rest))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Verdicts(error="failed: " + " ".join(error_text(error).split())[:200])


def _checked(verdicts: Any) -> Verdicts:
    """Raises TypeError or ValueError if `verdicts` is not what an end may return."""
    if verdicts is None:
        return Verdicts()
    if not isinstance(verdicts, Verdicts):
        raise TypeError(f"end returned {type(verdicts).__name__}, neither Verdicts nor None")
    numbers = {name: float(v) for name, v in verdicts.numbers.items()}
    if not all(map(isfinite, numbers.values())):
        raise ValueError("a verdict is not a finite number")
    return Verdicts(numbers, verdicts.error)


class TextEnvironment(Protocol):
    """Begins conversations.

    Attributes:
        stop: strings that end a turn ("</search>"); an end-of-sequence token always does. They stay
            in the text.
        tools: JSON schemas for the chat template's `tools` argument, or () without one.
    """

    @property
    def stop(self) -> tuple[str, ...]: ...

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]: ...

    def start(self, row: Row) -> Conversation:
        """A new conversation. Many may be open about equal items at the same time."""
        ...
