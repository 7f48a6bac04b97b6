"""reasoning-gym as a source of rows: seeded, scored apart, and without the data sets that execute
what a model wrote."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from logpi.envs.tasks import task
from logpi.envs.tasks.reasoning_gym import DENIED, ReasoningScore

pytestmark = pytest.mark.skipif(
    find_spec("reasoning_gym") is None, reason="the extra `reasoning-gym` is not installed"
)


def test_rows_are_seeded_split_and_scored() -> None:
    made = task('reasoning_gym("chain_sum", config={"max_terms": 3})')
    rows = made.rows("train", seed=1)[:20]
    assert rows == made.rows("train", seed=1)[:20] and rows != made.rows("train", seed=2)[:20]
    assert not {r["prompt"] for r in rows} & {r["prompt"] for r in made.rows("test")[:20]}
    right = [f"<think>5</think><answer>{r['answer']}</answer>" for r in rows]
    columns = {"source": [r["source"] for r in rows]}
    assert [s.total for s in made.reward.score(rows, right, columns=columns)] == [1.0] * 20
    assert [
        s.total for s in made.reward.score(rows, ["__import__('os')"] * 20, columns=columns)
    ] == [0.0] * 20


def test_an_answer_that_merely_contains_the_right_one_earns_nothing() -> None:
    row = task('reasoning_gym("letter_counting")').rows("train")[0]
    hedge = f"<answer>{row['answer']} or else 1 2 3 4 5 6 7 8 9</answer>"
    assert ReasoningScore()([row["prompt"]], [hedge], source=[row["source"]]) == [0.0]
    assert 0 < ReasoningScore(partial=True)([row["prompt"]], [hedge], source=[row["source"]])[0] < 1


@pytest.mark.parametrize("name", DENIED)
def test_those_that_execute_the_answer_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is refused: it"):
        task(f'reasoning_gym("{name}")')


def test_a_scorer_that_executes_and_is_not_on_the_list_is_refused_too(monkeypatch) -> None:
    monkeypatch.delitem(DENIED, "n_queens")
    with pytest.raises(
        ValueError, match="'n_queens' is refused: its scorer executes the model's answer"
    ):
        task('reasoning_gym("n_queens")')


def test_mistakes_are_one_line() -> None:
    with pytest.raises(ValueError, match="did you mean chain_sum"):
        task('reasoning_gym("chain_summ")')
    with pytest.raises(ValueError, match="'chain_sum' does not take {'zz': 1}"):
        task('reasoning_gym("chain_sum", config={"zz": 1})')
