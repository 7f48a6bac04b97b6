"""The end of conversations: what an environment says of the whole, and what it holds.

Run: python -m pytest -q tests/rollouts/test_endings.py
"""

from __future__ import annotations

import threading
import time

import pytest

import logpi
from logpi.engine.sampling import Request, Sampling
from logpi.envs.conversation import Reply, Verdicts
from logpi.envs.packages.verdicts import StepRewards, Verdict
from logpi.errors import UserError
from logpi.policies.causal_lm import CausalLM
from logpi.rewards import Rewards, Weighted
from logpi.rewards.user import user_reward
from logpi.rollouts.chat import Chat
from logpi.rollouts.text_rollout import TextRollout
from logpi.rollouts.tool_conversations import ToolConversations
from logpi.rollouts.turns import TurnLimits
from tests.scripted import Scripted
from tests.tiny import tiny_model, tiny_tokenizer


class Judges:
    """Ends after two turns; judges by `verdict(texts, rest)`."""

    stop, tools = (), ()

    def __init__(self, verdict):
        self.verdict, self.ended = verdict, 0

    def start(self, row):
        return Talk(self, row["prompt"])


class Talk:
    def __init__(self, env, prompt):
        self.env, self.prompt, self.texts = env, prompt, []

    def reply(self, text):
        self.texts.append(text)
        return Reply("\nand? ", done=len(self.texts) == 2)

    def end(self, rest):
        self.env.ended += 1
        return self.env.verdict(self.texts, rest)


class Task:
    name = "judged"
    reward = Rewards((Weighted(Verdict("length"), 2.0), Weighted(Verdict("other"))))

    def rows(self, split="train", seed=0):
        return [{"prompt": "say: "}] * 9


def collected(environment, says, limits=None, rewards=Task.reward):
    policy = CausalLM(tiny_model("llama", max_position_embeddings=200), tiny_tokenizer(None))
    rollout = TextRollout(
        policy,
        Scripted(policy, says),
        Task(),
        rewards,
        algorithm=logpi.algorithm("reinforce"),
        prompts=1,
        num_generations=2,
        sampling=Sampling(max_tokens=12),
        conversations=ToolConversations(policy, environment, limits or TurnLimits(), Chat()),
    )
    return rollout()


def length(texts, rest):
    return Verdicts({"length": float(len("".join(texts)))})


def test_verdicts_are_rewards_with_their_weights():
    env = Judges(length)
    batch = collected(env, lambda row, turn: "ab" * (row + 1))
    assert [s["reward"] for s in batch.samples] == [8.0, 16.0]
    assert batch.metrics["rewards/length/mean"] == 6.0
    assert env.ended == 3, "two rows, and the one of which only the prompt was wanted"


@pytest.mark.parametrize(
    ("limits", "says", "texts", "rest"),
    [
        (TurnLimits(turns=1), lambda row, turn: "ab", ["ab"], ""),
        (None, lambda row, turn: None, [], "x" * 12),
        (None, lambda row, turn: "ab" if turn == 0 else None, ["ab"], "x" * 9),
    ],
)
def test_a_limit_ends_a_conversation_too(limits, says, texts, rest):
    seen = []

    def verdict(texts, rest):
        seen.append((texts, rest))
        return Verdicts({"length": 1.0})

    batch = collected(Judges(verdict), says, limits)
    assert seen[0] == ([], "") and seen[1:] == [(texts, rest)] * 2
    assert batch.metrics["rewards/length/mean"] == 1.0


def test_a_verdict_that_is_missing_is_no_zero():
    def verdict(texts, rest):
        if texts and texts[0] == "bad":
            raise RuntimeError("no battery")
        return Verdicts({"length": 3.0})

    batch = collected(Judges(verdict), lambda row, turn: ("good", "bad")[row])
    assert batch.batch.mask[0].any() and not batch.batch.mask[1].any()
    assert batch.metrics["rewards/failed/length/failed"] == 1
    assert "RuntimeError: no battery" in batch.samples[1]["errors"]["length"]


def test_an_end_that_hangs_costs_its_time_limit_and_no_more():
    def verdict(texts, rest):
        time.sleep(3.0 if texts and texts[0] == "bad" else 0.0)
        return Verdicts({"length": 3.0})

    start = time.monotonic()
    limits = TurnLimits(seconds=0.5)
    batch = collected(Judges(verdict), lambda row, turn: ("good", "bad")[row], limits)
    assert time.monotonic() - start < 3.0
    assert batch.metrics["rewards/failed/length/hung"] == 1
    assert batch.samples[0]["rewards"]["length"] == 3.0


def test_an_end_may_have_nothing_to_say():
    steps = Rewards((Weighted(StepRewards()),))
    batch = collected(Judges(lambda texts, rest: None), lambda row, turn: "ab", rewards=steps)
    assert [s["errors"] for s in batch.samples] == [{}, {}]
    with pytest.raises(UserError, match="end returned float, neither Verdicts nor None"):
        collected(Judges(lambda texts, rest: 3.0), lambda row, turn: "ab")


def test_a_fault_at_the_end_does_not_hide_the_prompt():
    def verdict(texts, rest):
        raise OSError("no such session")

    env = Judges(verdict)
    policy = CausalLM(tiny_model("llama", max_position_embeddings=200), tiny_tokenizer(None))
    ids = ToolConversations(policy, env, TurnLimits(), Chat()).prompt({"prompt": "say: "})
    assert policy.tokenizer.decode(ids) == "say: " and env.ended == 1


class Fills(Judges):
    """Has place for two conversations at once."""

    def start(self, row):
        if self.begun - self.ended == 2:
            raise ValueError("no more place")
        self.begun += 1
        return super().start(row)

    begun = 0


class Differs(Judges):
    """Each conversation has a prompt of its own."""

    begun = 0

    def start(self, row):
        self.begun += 1
        return Talk(self, f"{row['prompt']}{self.begun}")


@pytest.mark.parametrize(("kind", "n"), [(Fills, 3), (Differs, 2)])
def test_conversations_that_cannot_all_begin_are_ended(kind, n):
    env = kind(length)
    policy = CausalLM(tiny_model("llama", max_position_embeddings=200), tiny_tokenizer(None))
    talk = ToolConversations(policy, env, TurnLimits(), Chat())
    with pytest.raises((ValueError, UserError), match="no more place|must begin alike"):
        talk.begin([{"prompt": "say: "}], [Request([1], n)])
    assert env.begun == env.ended == 2


def test_while_too_many_calls_hang_no_end_is_asked_for(monkeypatch):
    monkeypatch.setattr("logpi.rollouts.open_conversations.HUNG", 1)
    release = threading.Event()
    policy = CausalLM(tiny_model("llama", max_position_embeddings=200), tiny_tokenizer(None))

    def verdict(texts, rest):
        release.wait(30)
        return Verdicts()

    talk = ToolConversations(policy, Judges(verdict), TurnLimits(seconds=0.2), Chat())

    def ended():
        return talk.begin([{"prompt": "say: "}], [Request([1], 2)]).end()

    assert [v.error for v in ended()] == ["hung: no verdict in 0.2 s"] * 2
    assert all("not asked" in v.error for v in ended()) and len(talk.late) == 2
    release.set()


FILE = """
import sys

def score(completions, verdicts):
    assert "logpi" not in sys.modules
    return [v["numbers"].get("length") for v in verdicts]
"""


def test_a_file_reads_verdicts_as_plain_data(tmp_path):
    """Its process need not have logpi, nor load it."""
    (tmp_path / "own.py").write_text(FILE)
    own = Rewards((Weighted(user_reward(f"{tmp_path}/own.py:score")),))
    own.check(["prompt", "turns", "step_reward", "verdicts"], [{"prompt": "say: "}])
    batch = collected(Judges(length), lambda row, turn: "ab" * (row + 1), rewards=own)
    assert [s["reward"] for s in batch.samples] == [4.0, 8.0]
