"""Conversations with an environment: the partner that answers the engine's rows, each in a thread,
and what is kept of them.

    Dialogues(policy, env, limits, chat)     one for a rollout: which prompts, which conversations
    dialogues.begin(rows, requests)          one for a call of the engine: a `Partner`; afterwards its `talk`s

Nobody waits for a slow tool but its own row. What happens at a limit is decided here and nowhere
else:

    turns      the last turn allowed is still answered, for its reward; if that was not the end, the row ends with stop "turns"
    calls      a reply after which more tools were called than allowed is not shown; "calls"
    context    an observation that leaves no room for a further token is not shown; "context"
    length     the policy may sample no more tokens; "length"

A call that raises, takes too long or brings nothing gives the policy an error to read, and is
counted. Reply threads cannot be killed: one that hangs keeps its conversation's lock, and further
calls of that conversation time out too. While `HUNG` of them are late, no further call is made:
each is an error at once, so that a tool which never answers
    costs a bounded
number of threads and no time.
What environments say becomes text that can be encoded here. Left out: who decodes
(`engine/engine.py`), how observations are encoded (`observations.py`), what a conversation is worth
in the end (`rewards`).
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

from logpi.calls.templates import unread
from logpi.engine.turns import Heard, Spoken, Talk, Turn
from logpi.envs.conversation import Conversation, Env, Reply, encodable, told
from logpi.errors import UserError
from logpi.rollouts.observations import Observation, Observations

if TYPE_CHECKING:
    from logpi.engine.sampling import Request
    from logpi.envs.task import Row
    from logpi.policies.causal_lm import CausalLM
    from logpi.policies.chat_template import Message, Reader
    from logpi.rollouts.chat import Chat

A_DAY = 86_400.0  # what a queue can wait for
HUNG = 64  # threads that are late, of all conversations of a run: with so many, no further call is made
notices = logging.getLogger("logpi")


@dataclass(frozen=True)
class Limits:
    """How far a conversation may go.

    Attributes:
        turns: of the policy. calls: of tools, as the environment counts them (`tool_calls`).
        observation: tokens of one observation; a longer one loses its middle. seconds: for one
            reply.
        patience: seconds for which all rows wait for the replies to turns that just ended. Quick
            tools then answer at the same step in every run, so that runs repeat bit for bit;
            infinite makes that certain, and slow tools hold up the others. Without it only the
            order of work differs: the same tokens, log-probabilities equal up to rounding.

    Raises:
        ValueError: a limit out of its range.
    """

    turns: int = 8
    calls: int = 16
    observation: int = 512
    seconds: float = 30.0
    patience: float = 0.05

    def __post_init__(self) -> None:
        if (
            min(self.turns, self.observation) < 1
            or self.calls < 0
            or not self.seconds > 0
            or not self.patience >= 0
        ):
            raise ValueError(
                "limits of turns and observation are at least 1, seconds above 0, calls and"
                f" patience not below: {self}"
            )


@dataclass(frozen=True)
class Dialogues:
    """An environment for a policy to talk to.

    Attributes:
        late: threads whose replies did not come in time, as far as they still run.

    Raises:
        UserError: the model's chat template cannot show the tools, or rewrites what was said
            before.
    """

    policy: CausalLM
    env: Env
    limits: Limits
    chat: Chat
    observations: Observations = field(init=False, repr=False)
    late: list[threading.Thread] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        tools = self.tools
        object.__setattr__(
            self, "observations", Observations(self.policy.template, tools, self.limits.observation)
        )
        if tools:
            self.observations.check("tool")
            self._check_calls()

    def _check_calls(self) -> None:
        """Refuse a model whose calls nobody could read."""
        said = unread(lambda messages, known: self.policy.template.text(messages, known, ask=False))
        if said:
            raise UserError(
                "the model's chat template writes calls in a form that cannot be read:"
                f" …{said.strip()[-120:]!r}; use another template, or an environment that describes"
                " its tools and a form of calls itself (native=False)"
            )

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]:
        """The environment's, for the chat template."""
        return encodable(self.env.tools)

    def prompt(self, row: Row) -> list[int]:
        """Token ids of what the policy sees first. Raises UserError if its template has no place
        for the tools."""
        prompt = encodable(self._started(row).prompt)
        return announced(
            self.policy, self.chat, prompt, self.tools, row.get("chat_template_kwargs")
        )

    def begin(self, rows: Sequence[Row], requests: Sequence[Request]) -> Talking:
        """A fresh conversation about `rows[i]` for every sample of `requests[i]`.

        Raises:
            UserError: the conversations of one row do not begin alike, or not at all.
        """
        started: list[Conversation] = []
        for row, request in zip(rows, requests, strict=True):
            some = [self._started(row) for _ in range(request.n)]
            if any(c.prompt != some[0].prompt for c in some):
                raise UserError(
                    "the environment begins conversations about one row with different prompts: a"
                    " group must begin alike"
                )
            started += some
        return Talking(self, started)

    def _started(self, row: Row) -> Conversation:
        try:
            return self.env.start(row)
        except (ValueError, UserError):
            raise
        except Exception as error:  # somebody else's code
            raise UserError(
                f"the environment cannot begin a conversation: {told(error)}"
            ) from error

    def crowded(self) -> bool:
        """Whether so many replies are late that no further one is asked for."""
        self.late[:] = [t for t in self.late if t.is_alive()]
        return len(self.late) >= HUNG


def announced(
    policy: Reader,
    chat: Chat,
    said: str | Sequence[Message],
    tools: Sequence[Message],
    options: Mapping[str, Any] | None = None,
) -> list[int]:
    """Token ids of a prompt with `tools` in the model's chat template. Raises UserError if it has
    no place for them."""
    ids = chat(policy, said, tools, options)
    if tools and ids == chat(policy, said, (), options):
        raise UserError(
            "the model's chat template has no place for tools, so the policy would not know of"
            " them: use a model whose template has, or an environment or task that describes them"
            " in its prompt"
        )
    return ids


@dataclass
class _State:
    """One conversation under way. spoken, text: the turn that is being answered, by `thread`, until
    `deadline`."""

    conversation: Conversation
    thread: threading.Thread | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    turns: list[Turn] = field(default_factory=list)
    metrics: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    spoken: Spoken | None = None
    text: str = ""
    deadline: float = math.inf


class Talking:
    """The partner of one call of the engine."""

    def __init__(self, dialogues: Dialogues, conversations: Sequence[Conversation]) -> None:
        self.dialogues = dialogues
        self.env, self.limits, self.observations = (
            dialogues.env,
            dialogues.limits,
            dialogues.observations,
        )
        self.template, self.chat = dialogues.policy.template, dialogues.chat
        self.states = [_State(c) for c in conversations]
        self.arrived: SimpleQueue[tuple[int, int, Reply | BaseException]] = SimpleQueue()
        self.pending: set[int] = set()
        self.fresh: set[int] = set()  # not yet waited for
        self.patient_until = 0.0

    def talk(self, number: int, sampled: Sequence[int]) -> Talk:
        """Conversation `number` as it was, with a last turn that a limit cut off, if `sampled` has
        more tokens."""
        state = self.states[number]
        rest = sampled[sum(t.tokens for t in state.turns) :]
        cut_off = (Turn(len(rest), self._text(rest)),) if len(rest) else ()
        return Talk((*state.turns, *cut_off), dict(state.metrics))

    def hear(self, spoken: Spoken) -> None:
        state, now = self.states[spoken.row], time.monotonic()
        state.spoken, state.text, state.deadline = (
            spoken,
            self._text(spoken.tokens),
            now + self.limits.seconds,
        )
        self.pending.add(spoken.row)
        self.fresh.add(spoken.row)
        self.patient_until = now + self.limits.patience
        work = (spoken.row, len(state.turns), state.text)
        if self.dialogues.crowded():
            busy = TimeoutError(f"not asked: {HUNG} earlier calls have not come back")
            self.arrived.put((*work[:2], busy))
            return
        state.thread = threading.Thread(target=self._ask, args=work, daemon=True)
        state.thread.start()

    def _ask(self, row: int, number: int, text: str) -> None:
        """In a thread: one call at a time for each conversation."""
        state = self.states[row]
        outcome: Reply | BaseException
        try:
            with state.lock:
                outcome = _checked(state.conversation.reply(text))
        except BaseException as error:  # whatever a tool throws, its row reads of it
            outcome = error
        self.arrived.put((row, number, outcome))

    def replies(self, wait: bool) -> list[Heard]:
        found: dict[int, Reply | BaseException] = {}
        while self.fresh and self._receive(found, self.patient_until):
            pass
        while wait and self.pending and not found and self._receive(found, math.inf):
            pass
        while self._receive(found, 0.0):
            pass
        self.fresh.clear()
        now = time.monotonic()
        for row in [r for r in self.pending if self.states[r].deadline <= now]:
            found[row] = TimeoutError(f"no answer in {self.limits.seconds:g} s")
            self.pending.discard(row)
            self._left_behind(self.states[row].thread)
        return [self._heard(row, found[row]) for row in sorted(found)]

    def _left_behind(self, thread: threading.Thread | None) -> None:
        """Remember a thread that is late; a notice when they become too many."""
        if thread is None:
            return
        crowded = self.dialogues.crowded()
        self.dialogues.late.append(thread)
        if not crowded and self.dialogues.crowded():
            notices.warning(
                f"{HUNG} calls of tools have not come back: until one does, no further call is made"
                " (tools/timeouts counts them; give tools a time limit of their own)"
            )

    def _receive(self, found: dict[int, Reply | BaseException], until: float) -> bool:
        """Take one outcome that arrives before `until`, or before the next deadline; False if none
        does."""
        until = min(until, min((self.states[r].deadline for r in self.pending), default=0.0))
        try:
            row, number, outcome = self.arrived.get(
                timeout=min(max(0.0, until - time.monotonic()), A_DAY)
            )
        except Empty:
            return False
        if row in self.pending and number == len(self.states[row].turns):  # else it was too late
            found[row] = outcome
            self.pending.discard(row)
            self.fresh.discard(row)
        return True

    def _heard(self, row: int, outcome: Reply | BaseException) -> Heard:
        """What the row hears, and the turn into its record."""
        state = self.states[row]
        spoken = state.spoken
        assert spoken is not None
        reply, observation = self._understood(state, outcome, spoken)
        for name, value in reply.metrics.items():
            state.metrics[name] += value
        turn = Turn(len(spoken.tokens), state.text, reward=float(reply.reward))
        stop = self._over(state, reply, spoken, observation)
        if stop is not None:
            state.turns.append(turn)
            return Heard(row, None, stop)
        state.metrics["tool_cut"] += observation.cut
        state.turns.append(replace(turn, observation=observation.ids, shown=observation.text))
        return Heard(row, observation.ids)

    def _understood(
        self, state: _State, outcome: Reply | BaseException, spoken: Spoken
    ) -> tuple[Reply, Observation]:
        """The reply and its observation, encoded; in place of what failed, an error for the policy
        to read."""
        last = spoken.tokens[-1] if spoken.stop == "eos" else None
        if isinstance(outcome, BaseException):
            state.metrics[
                "tool_timeouts" if isinstance(outcome, TimeoutError) else "tool_errors"
            ] += 1
            outcome = self._error(state, " ".join(told(outcome).split())[:200], spoken)
        elif not outcome.done and not outcome.observation:
            state.metrics["tool_empty"] += 1
            outcome = replace(
                outcome, observation=self._error(state, "no result", spoken).observation
            )
        if outcome.done:
            return outcome, Observation((), "", False)
        try:
            return outcome, self.observations(encodable(outcome.observation), last)
        except ValueError as error:
            state.metrics["tool_errors"] += 1
            said = encodable(self._error(state, str(error)[:200], spoken).observation)
            return replace(outcome, observation=said), self.observations(said, last)

    def _error(self, state: _State, what: str, spoken: Spoken) -> Reply:
        """In the form in which the environment answers: a tool's message, a user's after a closed
        chat turn, or text."""
        closed = spoken.stop == "eos" and (
            self.chat.wrap or not isinstance(state.conversation.prompt, str)
        )
        if self.env.tools or closed:
            return Reply(
                [{"role": "tool" if self.env.tools else "user", "content": f"Error: {what}"}]
            )
        return Reply(f"\n\nError: {what}\n\n")

    def _over(
        self, state: _State, reply: Reply, spoken: Spoken, observation: Observation
    ) -> str | None:
        """Why the conversation ends here ("": by itself), or None if it goes on."""
        if reply.done:
            return ""
        limits = {
            "turns": len(state.turns) + 1 >= self.limits.turns,
            "calls": state.metrics["tool_calls"] > self.limits.calls,
            "context": len(observation.ids) > spoken.room,
            "length": spoken.left < 1,
        }
        return next((name for name, reached in limits.items() if reached), None)

    def _text(self, tokens: Sequence[int]) -> str:
        return self.template.said(tokens)


def _checked(reply: Any) -> Reply:
    """Raises TypeError or ValueError if `reply` is not what an environment may answer."""
    if reply is None:
        return Reply()
    if not isinstance(reply, Reply):
        raise TypeError(f"the environment answered with {type(reply).__name__}, not a Reply")
    if not math.isfinite(reply.reward) or not all(math.isfinite(v) for v in reply.metrics.values()):
        raise ValueError("the environment's reward or metrics are not finite numbers")
    messages = [] if isinstance(reply.observation, str) else reply.observation
    good = all(
        isinstance(m, Mapping)
        and isinstance(m.get("role"), str)
        and isinstance(m.get("content"), str)
        for m in messages
    )
    if not good:
        raise TypeError(
            "the environment's observation is neither text nor messages with role and content"
        )
    return reply
