"""The conversations of one call of the sampler: each row's environment replies in a thread.

A row waits only for its own tool. The environment gets every turn of the policy. Its reply becomes
an observation that the row reads, or a limit ends the row:

    limit     what happens                                                          stop
    turns     the last turn still gets its reply, whose reward counts               "turns"
    calls     a reply after more calls of tools than allowed is not shown           "calls"
    context   an observation that leaves no room for one more token is not shown    "context"
    length    the policy may sample no more tokens                                  "length"

If a call raises, takes too long or returns nothing, the policy reads an error, and the error is
counted. Threads cannot be killed: one that hangs keeps the lock of its conversation, and further
calls of that conversation time out too. While `HUNG` threads are late, no call is made, each turn
gets an error at once and no conversation is told its end, so a tool that never answers costs a
bounded number of threads.

Left out: decoding (`engine/`), how observations are encoded (`observations.py`), how conversations
begin (`tool_conversations.py`).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from logpi.engine.turns import Continuation, TurnEnd
from logpi.envs.conversation import (
    Conversation,
    Ending,
    Reply,
    Verdicts,
    encodable,
    end,
    error_text,
)
from logpi.rollouts.observations import Observation, Observations
from logpi.rollouts.turns import Transcript, Turn, TurnLimits

if TYPE_CHECKING:
    from logpi.policies.chat_template import ChatTemplate
    from logpi.rollouts.chat import Chat

# the longest wait for a queue, in seconds: it refuses infinity
A_DAY = 86_400.0
# number of late threads of a rollout at which calls stop
HUNG = 64
notices = logging.getLogger("logpi")

Outcome = Reply | BaseException


@dataclass
class _OpenConversation:
    """One conversation under way.

    Attributes:
        turns: the finished ones. metrics: counts so far.
        turn_end, text: the turn that waits for its reply, and its text.
        thread: asks for that reply, until `deadline` (seconds of the monotonic clock).
    """

    conversation: Conversation
    thread: threading.Thread | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    turns: list[Turn] = field(default_factory=list)
    metrics: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    turn_end: TurnEnd | None = None
    text: str = ""
    deadline: float = math.inf


class OpenConversations:
    """Answers the rows of one call of a sampler: its `on_turn_end`.

    Args:
        conversations: of the rows, by their numbers. tools: the environment has tools for the chat
            template, so errors are a tool's messages.
        limits: of each conversation. template: the policy's. chat: how prompts became tokens.
        observations: encodes replies. late: the rollout's list of late threads, which grows here.
    """

    def __init__(
        self,
        conversations: Sequence[Conversation],
        *,
        tools: bool,
        limits: TurnLimits,
        template: ChatTemplate,
        chat: Chat,
        observations: Observations,
        late: list[threading.Thread],
    ) -> None:
        self.open = [_OpenConversation(c) for c in conversations]
        self.tools, self.limits, self.template, self.chat = tools, limits, template, chat
        self.observations, self.late = observations, late
        self.arrived: SimpleQueue[tuple[int, int, Outcome]] = SimpleQueue()
        self.pending: set[int] = set()
        # rows whose turn has just ended: `patience` waits for their replies
        self.fresh: set[int] = set()
        self.patient_until = 0.0

    def transcripts(self, sampled: Sequence[Sequence[int]]) -> list[Transcript]:
        """The transcripts of all rows, in their order; the conversations are over. Tokens of
        `sampled[i]` behind the last full turn are a turn that a limit cut off."""
        cut = [self._cut_off(c, tokens) for c, tokens in zip(self.open, sampled, strict=True)]
        verdicts = self.end([turns[0].text if turns else "" for turns in cut])
        return [
            Transcript((*c.turns, *rest), dict(c.metrics), verdict)
            for c, rest, verdict in zip(self.open, cut, verdicts, strict=True)
        ]

    def _cut_off(self, conversation: _OpenConversation, sampled: Sequence[int]) -> tuple[Turn, ...]:
        rest = sampled[sum(t.tokens for t in conversation.turns) :]
        return (Turn(len(rest), self.template.decode(rest)),) if len(rest) else ()

    def end(self, rests: Sequence[str] | None = None) -> list[Verdicts]:
        """Tell every conversation that it is over, in threads; what each says of the whole.

        Args:
            rests: turns that the token limit cut off; "" without one.
        """
        verdicts = [Verdicts() for _ in self.open]
        full = crowded(self.late)

        def ask(row: int, rest: str) -> None:
            with self.open[row].lock:
                verdicts[row] = end(self.open[row].conversation, rest)

        threads = []
        for row, rest in enumerate(rests or [""] * len(self.open)):
            if not isinstance(self.open[row].conversation, Ending):
                continue
            if full:
                verdicts[row] = Verdicts(error=f"hung: {_not_asked()}")
                continue
            verdicts[row] = Verdicts(error=f"hung: no verdict in {self.limits.seconds:g} s")
            threads.append(threading.Thread(target=ask, args=(row, rest), daemon=True))
            threads[-1].start()
        deadline = time.monotonic() + self.limits.seconds
        for thread in threads:
            thread.join(min(max(0.0, deadline - time.monotonic()), A_DAY))
            if thread.is_alive():
                self._leave_behind(thread)
        return list(verdicts)

    def on_turn_end(self, ended: Sequence[TurnEnd], wait: bool) -> list[Continuation]:
        """As `engine.turns.OnTurnEnd`."""
        for turn_end in ended:
            self._ask(turn_end)
        outcomes = self._outcomes(wait)
        return [self._continuation(row, outcomes[row]) for row in sorted(outcomes)]

    # --- asking, in threads ---

    def _ask(self, turn_end: TurnEnd) -> None:
        """Begin to wait for the environment's reply to a turn."""
        row, now = turn_end.row, time.monotonic()
        conversation = self.open[row]
        conversation.turn_end, conversation.text = turn_end, self.template.decode(turn_end.tokens)
        conversation.deadline = now + self.limits.seconds
        self.pending.add(row)
        self.fresh.add(row)
        self.patient_until = now + self.limits.patience
        number = len(conversation.turns)
        if crowded(self.late):
            self.arrived.put((row, number, TimeoutError(_not_asked())))
            return
        work = (row, number, conversation.text)
        conversation.thread = threading.Thread(target=self._reply, args=work, daemon=True)
        conversation.thread.start()

    def _reply(self, row: int, number: int, text: str) -> None:
        """In a thread: the reply to turn `number`; one call at a time for each conversation."""
        conversation = self.open[row]
        outcome: Outcome
        try:
            with conversation.lock:
                outcome = _checked(conversation.conversation.reply(text))
        except BaseException as error:  # the row reads whatever a tool raises
            outcome = error
        self.arrived.put((row, number, outcome))

    def _outcomes(self, wait: bool) -> dict[int, Outcome]:
        """Replies that have come for the waiting rows; a TimeoutError for a row past its
        deadline."""
        outcomes: dict[int, Outcome] = {}
        while self.fresh and self._receive(outcomes, self.patient_until):
            pass
        while wait and self.pending and not outcomes and self._receive(outcomes, math.inf):
            pass
        while self._receive(outcomes, 0.0):
            pass
        self.fresh.clear()
        now = time.monotonic()
        for row in [r for r in self.pending if self.open[r].deadline <= now]:
            outcomes[row] = TimeoutError(f"no answer in {self.limits.seconds:g} s")
            self.pending.discard(row)
            self._leave_behind(self.open[row].thread)
        return outcomes

    def _receive(self, outcomes: dict[int, Outcome], until: float) -> bool:
        """Take one outcome that arrives before `until` and the next deadline; False if none
        does."""
        until = min(until, min((self.open[r].deadline for r in self.pending), default=0.0))
        seconds = min(max(0.0, until - time.monotonic()), A_DAY)
        try:
            row, number, outcome = self.arrived.get(timeout=seconds)
        except Empty:
            return False
        # a reply to an earlier turn of the row came too late
        if row in self.pending and number == len(self.open[row].turns):
            outcomes[row] = outcome
            self.pending.discard(row)
            self.fresh.discard(row)
        return True

    def _leave_behind(self, thread: threading.Thread | None) -> None:
        """Remember a late thread; warn when there are too many."""
        if thread is None:
            return
        before = crowded(self.late)
        self.late.append(thread)
        if not before and crowded(self.late):
            notices.warning(
                f"{HUNG} calls of tools have not come back: until one does, no further call is made"
                " (tools/timeouts counts them; give tools a time limit of their own)"
            )

    # --- what a row reads ---

    def _continuation(self, row: int, outcome: Outcome) -> Continuation:
        """What the row reads next. Adds its turn to the transcript."""
        conversation = self.open[row]
        turn_end = conversation.turn_end
        assert turn_end is not None
        reply, observation = self._encoded(conversation, outcome, turn_end)
        for name, value in reply.metrics.items():
            conversation.metrics[name] += value
        turn = Turn(len(turn_end.tokens), conversation.text, reward=float(reply.reward))
        stop = self._stop(conversation, reply, observation, turn_end)
        if stop is not None:
            conversation.turns.append(turn)
            return Continuation(row, None, stop)
        conversation.metrics["tool_cut"] += observation.cut
        turn = replace(turn, observation=observation.ids, shown=observation.text)
        conversation.turns.append(turn)
        return Continuation(row, observation.ids)

    def _encoded(
        self, conversation: _OpenConversation, outcome: Outcome, turn_end: TurnEnd
    ) -> tuple[Reply, Observation]:
        """The reply and its encoded observation; an error takes the place of a call that
        failed."""
        metrics, last = conversation.metrics, None
        if turn_end.stop == "eos":
            last = turn_end.tokens[-1]
        if isinstance(outcome, BaseException):
            timeout = isinstance(outcome, TimeoutError)
            metrics["tool_timeouts" if timeout else "tool_errors"] += 1
            message = " ".join(error_text(outcome).split())[:200]
            reply = Reply(self._error(conversation, message, turn_end))
        elif not outcome.done and not outcome.observation:
            metrics["tool_empty"] += 1
            reply = replace(outcome, observation=self._error(conversation, "no result", turn_end))
        else:
            reply = outcome
        if reply.done:
            return reply, Observation((), "", False)
        try:
            return reply, self.observations(encodable(reply.observation), last)
        except ValueError as error:
            metrics["tool_errors"] += 1
            text = encodable(self._error(conversation, str(error)[:200], turn_end))
            return replace(reply, observation=text), self.observations(text, last)

    def _error(
        self, conversation: _OpenConversation, message: str, turn_end: TurnEnd
    ) -> str | list[dict[str, str]]:
        """An error in the form in which the environment replies: a tool's message, a user's message
        after a closed chat turn, or text."""
        is_chat = self.chat.wrap or not isinstance(conversation.conversation.prompt, str)
        if self.tools or (turn_end.stop == "eos" and is_chat):
            return [{"role": "tool" if self.tools else "user", "content": f"Error: {message}"}]
        return f"\n\nError: {message}\n\n"

    def _stop(
        self,
        conversation: _OpenConversation,
        reply: Reply,
        observation: Observation,
        turn_end: TurnEnd,
    ) -> str | None:
        """Why the conversation ends here ("": by itself), or None if it continues.

        With TurnLimits(turns=2, calls=1) and an environment that counts one call a turn:

            turn 1   1 of 2 turns, 1 of 1 calls    None: the row reads the observation
            turn 2   2 of 2 turns, 2 of 1 calls    "turns": the first limit in the order below
        """
        if reply.done:
            return ""
        limits = {
            "turns": len(conversation.turns) + 1 >= self.limits.turns,
            "calls": conversation.metrics["tool_calls"] > self.limits.calls,
            "context": len(observation.ids) > turn_end.room,
            "length": turn_end.left < 1,
        }
        return next((name for name, reached in limits.items() if reached), None)


def _not_asked() -> str:
    return f"not asked: {HUNG} earlier calls have not come back"


def crowded(late: list[threading.Thread]) -> bool:
    """Whether too many threads are late for a further call. Forgets threads that ended."""
    late[:] = [t for t in late if t.is_alive()]
    return len(late) >= HUNG


def _checked(reply: Any) -> Reply:
    """Raises TypeError or ValueError if `reply` is not what an environment may return."""
    if reply is None:
        return Reply()
    if not isinstance(reply, Reply):
        raise TypeError(f"the environment answered with {type(reply).__name__}, not a Reply")
    if not math.isfinite(reply.reward) or not all(math.isfinite(v) for v in reply.metrics.values()):
        raise ValueError("the environment's reward or metrics are not finite numbers")
    messages = [] if isinstance(reply.observation, str) else reply.observation
    if not all(_is_message(m) for m in messages):
        raise TypeError(
            "the environment's observation is neither text nor messages with role and content"
        )
    return reply


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(value.get(key), str) for key in ("role", "content")
    )
