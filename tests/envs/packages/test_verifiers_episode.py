"""An episode between two threads, and what its environment says of it; verifiers itself is not
needed.

Run: python -m pytest -q tests/envs/packages/test_verifiers_episode.py
"""

from __future__ import annotations

import asyncio
import threading

import pytest

from logpi.envs.conversation import Verdicts
from logpi.envs.packages.verdicts import StepRewards, Verdict
from logpi.envs.packages.verifiers import verdicts
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


def test_declared_rewards_by_name_and_the_others_as_one_sum():
    over = Over({"a": 1.0, "b": None, "c": 3.0, "d": 4.0}, {"a": 0.5, "c": 2.0, "d": 0.25})
    found = verdicts(over, {"a": 0.5, "b": 1.0})
    assert found.numbers == {"a": 1.0, "verifiers": 7.0}, "3 · 2 + 4 · ¼; b was not judged"
    assert verdicts(Over(), {"a": 1.0}).numbers == {}


def test_a_missing_verdict_is_no_zero():
    found = [Verdicts({"a": 2.0}), Verdicts(), Verdicts(error="hung: no verdict in 3 s")]
    assert Verdict("a")(verdicts=found) == [2.0, None, Failure("hung", "no verdict in 3 s")]
    assert StepRewards()(step_reward=[0.5]) == [0.5]


def test_a_package_that_is_missing_is_one_line(monkeypatch):
    for package in ("verifiers", "openenv"):
        monkeypatch.setattr(f"logpi.envs.packages.{package}.find_spec", lambda name: None)
        with pytest.raises(ValueError, match=rf"^{package} is not installed: pip install 'logpi\["):
            task(f"{package}:something")
