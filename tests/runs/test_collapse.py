"""The alarm of a collapse: the table of its docstring, once until it recovers, and its state."""

from __future__ import annotations

import math

from logpi.runs.collapse import Collapse

REWARDS = (0.1, 0.9, 0.8, 0.4, 0.3, 0.7)


def alarms(collapse: Collapse, rewards: tuple[float, ...], first: int = 1) -> list[int]:
    """The steps that raise an alarm."""
    steps = enumerate(rewards, first)
    return [s for s, r in steps if collapse(s, {"reward": r, "entropy": 0.5})]


def test_the_table_of_the_docstring() -> None:
    assert alarms(Collapse(window=1, patience=2, noise=0), REWARDS) == [5]
    assert alarms(Collapse(window=1, patience=2, noise=0), (*REWARDS, 0.2, 0.2, 0.2)) == [5, 8]


def test_what_it_says() -> None:
    collapse = Collapse(window=1, patience=1, noise=0)
    collapse(1, {"reward": 1.0})
    text = collapse(2, {"reward": 0.25, "lr": 1e-3})
    assert text is not None and text.startswith(
        "step 2: the policy is collapsing: mean reward 1 (step 1) -> 0.25 (lr 0.001)."
    )


def test_no_reward_is_no_collapse_and_a_negative_one_may_fall_as_far_again() -> None:
    assert not alarms(Collapse(window=1, patience=1, noise=0), (math.nan, math.nan))
    assert Collapse()(1, {}) is None
    # best −1, least −3: more than half of the way back is lost at −2.5
    assert alarms(Collapse(window=1, patience=1, noise=0), (-3.0, -1.0, -2.0, -2.5)) == [4]


def test_what_was_never_gained_is_not_lost() -> None:
    """The first rewards of A2C on the grid world, seed 0: short episodes end first."""
    first = (-5.7, -8.9, -9.8, -15.8, -21.8, -12.7, -12.0, -23.5, -14.7, -9.2, -7.8, -9.5, -11.3)
    assert not alarms(Collapse(), first)
    # means rise from −17.5 to −9.45 (step 13) and are below half-way, −13.5, in steps 16 to 18
    assert alarms(Collapse(noise=0), (*first, -12.0, -15.0, -20.0, -22.0, -24.0)) == [18]


def test_a_lucky_answer_is_no_height() -> None:
    """One right answer of 32 now and then, at a rate of 1 %; then none for a while."""
    rewards = (0.0, 0.03125, 0.0, 0.0, 0.0625, 0.0, 0.03125, *[0.0] * 9) * 4
    assert not alarms(Collapse(), rewards) and alarms(Collapse(noise=0), rewards)


def test_a_policy_that_falls_to_nothing_in_ten_steps() -> None:
    """It climbs to 0.8 with a noise of 0.05 and loses 0.1 a step."""
    climb = tuple(0.8 * i / 40 + 0.05 * (-1) ** i for i in range(40))
    fall = tuple(0.8 - 0.1 * i for i in range(9))
    # means below half of it in steps 47 to 49
    assert alarms(Collapse(), climb + fall) == [49]


def test_its_state_goes_on_where_it_was() -> None:
    whole, before, after = (Collapse(window=1, patience=2, noise=0) for _ in range(3))
    alarms(before, REWARDS[:4])
    after.load_state_dict(before.state_dict())
    assert alarms(after, REWARDS[4:], 5) == [s for s in alarms(whole, REWARDS) if s > 4] == [5]
