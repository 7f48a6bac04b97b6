"""An episode between two threads, and what its environment says of it; verifiers itself is not
needed.

Run: python -m pytest -q tests/envs/packages/test_verifiers_episode.py
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from logpi.envs.conversation import Verdicts
from logpi.envs.packages.verdicts import StepRewards, Verdict
from logpi.envs.packages.verifiers import VerifiersEnvironment, verdicts
from logpi.envs.packages.verifiers_episode import Asked, Episode, Left, Over
from logpi.envs.tasks import task
from logpi.rewards import Failure

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


async def asks_twice(episode):
    """Counts the turns that it got."""
    got = []
    try:
        for _ in range(2):
            message, finish = await episode.ask([*HELLO, *got], [])
            got.append({**message, "finish": finish})
    except Left:
        pass
    return Over({"turns": float(len(got))}, {"turns": 1.0})


async def breaks(episode):
    await episode.ask(HELLO, [])
    raise RuntimeError("no battery")


def said(text):
    return {"role": "assistant", "content": text}


def test_turns_go_to_and_fro(loop):
    episode = Episode(loop, asks_twice)
    assert episode.begin() == Asked(HELLO, [])
    assert episode.answer(said("a")) == Asked([*HELLO, {**said("a"), "finish": "stop"}], [])
    assert episode.answer(said("b"), "length") == Over({"turns": 2.0}, {"turns": 1.0})


def test_an_episode_that_is_left_is_judged_as_it_is(loop):
    episode = Episode(loop, asks_twice)
    episode.begin()
    episode.answer(said("a"))
    assert episode.leave() == Over({"turns": 1.0}, {"turns": 1.0})


def test_a_fault_of_the_environment_is_the_end_without_a_verdict(loop):
    episode = Episode(loop, breaks)
    episode.begin()
    over = episode.answer(said("a"))
    assert over == Over(error="RuntimeError: no battery")
    assert verdicts(over, {"x": 1.0}) == Verdicts(error="failed: RuntimeError: no battery")


TOOLS = [{"function": {"name": "look", "parameters": {}}}]


class Environment(VerifiersEnvironment):
    """Of one item, whose episodes are `play`."""

    def __init__(self, loop, play):
        super().__init__(SimpleNamespace(tasks=[None], chat=True, declared={}))  # type: ignore
        self.__dict__["host"] = SimpleNamespace(episode=lambda _: Episode(loop, play))
        self.__dict__["schemas"] = TOOLS

    def opening(self, item):
        return HELLO


def asking(turns, *last):
    """An episode that asks as it should for `turns` turns, and then this."""

    async def play(episode):
        messages = [*HELLO]
        for _ in range(turns):
            messages.append((await episode.ask(messages, TOOLS))[0])
        with suppress(Left):
            await episode.ask(*last)
        return Over({"x": 1.0}, {"x": 1.0})

    return play


PICTURE = {"role": "user", "content": [{"type": "image_url"}]}


@pytest.mark.parametrize(
    "play",
    [
        asking(0, HELLO, []),
        asking(1, [{"role": "user", "content": "hullo"}, said("a"), *HELLO], TOOLS),
        asking(1, [*HELLO, said("a"), PICTURE], TOOLS),
    ],
    ids=["begins otherwise", "rewrites", "shows a picture"],
)
def test_what_the_policy_cannot_read_ends_the_conversation_without_a_verdict(loop, play):
    talk = Environment(loop, play).start({"item": 0})
    assert talk.reply("a").done and talk.reply("b").done, "and no later turn waits for an answer"
    assert "the tokens are not those of its messages" in talk.end("").error


async def judges(episode):
    await episode.ask(HELLO, TOOLS)
    return Over({}, {}, {"turns": 1.0, "none": None, "odd": float("nan")})


def test_malformed_calls_are_errors_and_metrics_are_numbers(loop):
    reply = Environment(loop, judges).start({"item": 0}).reply("<tool_call>{look</tool_call>")
    counts = {"tool_calls": 0.0, "tool_errors": 1.0, "tool_errors/malformed": 1.0}
    assert reply.done and reply.metrics == counts | {"verifiers/turns": 1.0}


def test_declared_rewards_by_name_and_the_others_as_one_sum():
    over = Over({"a": 1.0, "b": None, "c": 3.0, "d": 4.0}, {"a": 0.5, "c": 2.0, "d": 0.25})
    found = verdicts(over, {"a": 0.5, "b": 1.0})
    assert found.numbers == {"a": 1.0, "verifiers": 7.0}, "3 · 2 + 4 · ¼; b was not judged"
    assert verdicts(Over(), {"a": 1.0}).numbers == {}


def test_a_missing_verdict_is_no_zero():
    found = [Verdicts({"a": 2.0}), Verdicts(), Verdicts(error="hung: no verdict in 3 s")]
    found = [asdict(v) for v in found]
    hung = Failure("hung", "no verdict in 3 s")
    assert Verdict("a")(verdicts=found) == [2.0, None, hung]
    assert StepRewards()(step_reward=[0.5, 0.0, 0.25], verdicts=found) == [0.5, 0.0, hung]


def test_a_package_that_is_missing_is_one_line(monkeypatch):
    for package in ("verifiers", "openenv"):
        monkeypatch.setattr(f"logpi.envs.packages.{package}.find_spec", lambda name: None)
        with pytest.raises(
            ValueError, match=rf"^{package} is not installed: pip install .*\[{package}\]'$"
        ):
            task(f"{package}:something")
