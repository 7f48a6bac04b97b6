"""The record of a conversation, turn by turn, and the limits of a conversation.

Left out: the conversation while it runs (`open_conversations.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from logpi.envs.conversation import Verdicts


@dataclass(frozen=True)
class Turn:
    """One turn of the policy, and the observation that followed.

    Attributes:
        tokens: number of tokens that the policy sampled. text: their text, without special tokens.
        observation: token ids that followed. shown: their text, for people.
        reward: of this turn, in units of return; it stands at the turn's last token.
    """

    tokens: int
    text: str
    observation: tuple[int, ...] = ()
    shown: str = ""
    reward: float = 0.0


@dataclass(frozen=True)
class Transcript:
    """A finished conversation.

    Attributes:
        turns: of the policy, in order. metrics: what the environment and the rollout counted.
        verdicts: what the environment says of the whole.
    """

    turns: tuple[Turn, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)
    verdicts: Verdicts = Verdicts()

    @property
    def text(self) -> str:
        """What the policy wrote, turns joined by line breaks."""
        return "\n".join(turn.text for turn in self.turns)

    @property
    def reward(self) -> float:
        """Sum of the turns' rewards, in units of return."""
        return sum(t.reward for t in self.turns)


@dataclass(frozen=True)
class TurnLimits:
    """How far a conversation may go. What happens at each limit is in `open_conversations.py`.

    Attributes:
        turns: of the policy, ≥ 1. calls: of tools, ≥ 0, as the environment counts them
            (`tool_calls`).
        observation: tokens of one observation, ≥ 1; a longer one loses its middle.
        seconds: for one reply, > 0.
        patience: seconds, ≥ 0, for which all rows wait for the replies to turns that just ended.
            Quick tools then reply at the same step in every run, so runs repeat bit for bit.
            Infinite patience makes that certain, but slow tools then hold up the other rows.
            Without patience only the order of work differs: the tokens are the same, the
            log-probabilities equal up to rounding.

    Raises:
        ValueError: a limit out of its range.
    """

    turns: int = 8
    calls: int = 16
    observation: int = 512
    seconds: float = 30.0
    patience: float = 0.05

    def __post_init__(self) -> None:
        least = min(self.turns, self.observation)
        if least < 1 or self.calls < 0 or not self.seconds > 0 or not self.patience >= 0:
            raise ValueError(
                "limits of turns and observation are at least 1, seconds above 0, calls and"
                f" patience not below 0: {self}"
            )
