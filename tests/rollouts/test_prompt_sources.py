"""Sources of prompts: the curriculum prefers the frontier, the mixture keeps its share, both resume
exactly."""

from __future__ import annotations

from collections import Counter

import pytest

from logpi.envs.tasks import task
from logpi.rollouts.prompt_sources import Curriculum, Mixture, TaskPrompts

RATES = {1: 1.0, 2: 0.5, 3: 0.0}  # what the policy can: level 1 always, level 3 never


def drawn(curriculum: Curriculum, steps: int, n: int = 16) -> Counter:
    """Levels of the rows that come, after each take has been answered with `RATES`."""
    found: Counter = Counter()
    for _ in range(steps):
        rows = curriculum.take(n)
        found.update(r["level"] for r in rows)
        curriculum.learn(rows, [RATES[r["level"]] for r in rows])
    return found


def made(**options) -> Curriculum:
    return Curriculum(TaskPrompts(task("bilingual"), 0), 0, **options)


def test_the_frontier_is_preferred_and_nothing_is_lost():
    plain = Counter(r["level"] for r in TaskPrompts(task("bilingual"), 0).take(640))
    assert max(plain.values()) < 0.4 * 640
    found = drawn(made(), 40)
    assert found[2] > 0.75 * 640 and min(found[1], found[3]) > 0


def test_a_prompts_own_rate_counts_before_its_levels():
    c, row = made(), {"prompt": "1+1=", "level": 1}
    assert c.pass_rate(row) == 0.5 and c.weight(row) == pytest.approx(1.05)
    c.learn([{"prompt": "2+2=", "level": 1}], [1.0])
    assert c.pass_rate(row) == 1.0 and c.weight(row) == pytest.approx(0.05)  # as its level
    c.learn([row], [0.0])
    assert c.pass_rate(row) == 0.0
    c.learn([row], [1.0])
    assert c.pass_rate(row) == 0.5  # a moving average, half of it the last
    c.learn([row], [None])
    assert c.pass_rate(row) == 0.5  # no verdict says nothing


def test_lookahead_of_one_takes_the_rows_in_their_order():
    rows = TaskPrompts(task("bilingual"), 0).take(8)
    assert made(lookahead=1).take(8) == rows


class Few:
    """Rows that come round again soon."""

    def __init__(self, rows: int) -> None:
        self.rows, self.given = [{"prompt": str(i), "level": 1} for i in range(rows)], 0

    def take(self, n: int) -> list[dict]:
        self.given += n
        return [self.rows[i % len(self.rows)] for i in range(self.given - n, self.given)]


def test_a_prompt_comes_once_where_there_are_enough():
    c = Curriculum(Few(6), lookahead=4)
    for n, distinct in ((4, 4), (6, 6), (9, 6)):
        for _ in range(20):
            assert len({r["prompt"] for r in c.take(n)}) == distinct


def test_resume_is_exact():
    whole = made()
    drawn(whole, 3)
    state = whole.state_dict()
    expected = [whole.take(8) for _ in range(2)]
    again = made()
    again.load_state_dict(state)
    assert [again.take(8) for _ in range(2)] == expected


def test_the_weighted_draw_is_proportional():
    """Two kinds of rows of weight .05 and 1.05: of single draws from windows with one of each, 1/22
    are of the first."""

    class Pair:
        def take(self, n):
            return [{"prompt": "known", "level": 0}, {"prompt": "open", "level": 1}][:n]

        def learn(self, rows, rates): ...

    c = Curriculum(Pair(), 0, lookahead=2)
    c.learn([{"prompt": "known"}], [1.0])
    found = Counter(c.take(1)[0]["prompt"] for _ in range(4000))
    assert found["known"] / 4000 == pytest.approx(0.05 / 1.10, abs=0.012)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.25, 8), (0.5, 16), (0.3, 9), (0.0, 0), (1.0, 32)]
)
def test_a_mixture_keeps_its_share_over_takes(share, expected):
    m = Mixture(TaskPrompts(task("addition"), 0), TaskPrompts(task("sort"), 0), share=share)
    rows = [r for _ in range(8) for r in m.take(4)]
    assert sum(r["prompt"].startswith("Sort") for r in rows) == expected


def test_the_other_joins_late_and_resumes():
    def new():
        return Mixture(made(), TaskPrompts(task("sort"), 0), share=0.5, start=8)

    m = new()
    assert not any("Sort" in r["prompt"] for r in m.take(4) + m.take(4))
    rows = m.take(4)
    assert sum("Sort" in r["prompt"] for r in rows) == 2
    m.learn(rows, [None if "Sort" in r["prompt"] else 1.0 for r in rows])
    state = m.state_dict()
    expected = m.take(6)
    again = new()
    again.load_state_dict(state)
    assert again.take(6) == expected and len(again.main.passed) == 2


@pytest.mark.parametrize(
    "options", [{"lookahead": 0}, {"floor": 0.0}, {"rate": 0.0}, {"rate": 1.5}]
)
def test_refused(options):
    with pytest.raises(ValueError, match="a curriculum needs"):
        made(**options)
    with pytest.raises(ValueError, match="share of a mixture"):
        Mixture(made(), made(), share=1.5)


@pytest.mark.parametrize(
    "option", ["digits=0", "digits=5", "worked=1.5", "english=0.7, chinese=0.7"]
)
def test_bilingual_refuses(option):
    with pytest.raises(ValueError, match="bilingual: "):
        task(f"bilingual({option})")


def test_bilingual_demonstrations_are_what_they_say():
    """Worked without slips is right; tidy is in the format; one language is one script; and the
    shares are as stated."""
    from logpi.rewards import TagAnswer, ThinkAnswer
    from logpi.rewards.language import is_mixed, scripts

    clean = task("bilingual(worked=1, tidy=1, slips=0, english=1, chinese=0)").rows()[:200]
    texts, answers = [r["completion"] for r in clean], [r["answer"] for r in clean]
    assert sum(TagAnswer()(texts, texts, answer=answers)) == 200 == sum(ThinkAnswer()(texts, texts))
    assert all(set(scripts(t)) == {"latin"} for t in texts)
    rows = task("bilingual").rows()[:2000]
    texts = [r["completion"] for r in rows]
    assert sum(ThinkAnswer()(texts, texts)) / 2000 == pytest.approx(0.35, abs=0.04)
    assert 0.05 < sum(map(is_mixed, texts)) / 2000 < 0.4
    blurts = [r for r in task("bilingual(worked=0, tidy=1)").rows()[:200]]
    assert not any(
        TagAnswer()(texts, [r["completion"] for r in blurts], answer=[r["answer"] for r in blurts])
    )
    levels = Counter(r["level"] for r in rows)
    assert set(levels) == {1, 2, 3} and min(levels.values()) > 500
