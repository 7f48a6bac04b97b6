"""The end of conversations: what an environment says of the whole, and what it holds.

Run: python -m pytest -q tests/rollouts/test_endings.py
"""

from __future__ import annotations

import time

import pytest

import logpi
from logpi.engine.sampling import Sampling
from logpi.envs.conversation import Reply, Verdicts
from logpi.envs.packages.verdicts import Verdict
from logpi.policies.causal_lm import CausalLM
from logpi.rewards import Rewards, Weighted
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


def collected(environment, says, limits=None):
    policy = CausalLM(tiny_model("llama", max_position_embeddings=200), tiny_tokenizer(None))
    rollout = TextRollout(
        policy,
        Scripted(policy, says),
        Task(),
        Task.reward,
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
