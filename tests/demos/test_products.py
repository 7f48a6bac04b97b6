"""examples/products.py: its data are what `logpi r1` takes, and its demonstrations are right by the
recipe's own rewards."""

from __future__ import annotations

import runpy
from pathlib import Path
from random import Random

from logpi.envs.tasks import task
from logpi.jobs.rejection import probe, read_rows
from logpi.rewards import rewards

MADE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "products.py"))


def test_the_files_fit_the_recipe(tmp_path):
    MADE["main"](tmp_path, demonstrations=20)
    train, test = (
        {r["prompt"]: r for r in task(str(tmp_path / "task")).rows(s)} for s in ("train", "test")
    )
    assert len(train) + len(test) == 98 * 8 and not train.keys() & test.keys()
    mirrored = {
        f"What is {b} times {a}?"
        for a in range(2, 10)
        for b in range(2, 10)
        if f"What is {a} times {b}?" in test
    }
    assert not mirrored & train.keys()
    assert {r["level"] for r in train.values()} == {1, 2}

    judge = rewards(["math", "think_answer", "language(en)"])
    shown = read_rows(tmp_path / "demonstrations" / "train.jsonl")
    assert len(shown) == 20 and all(r["prompt"] in train for r in shown)
    answers = {"answer": [train[r["prompt"]]["answer"] for r in shown]}
    scores = judge.score(
        [r["prompt"] for r in shown], [r["completion"] for r in shown], None, answers
    )
    assert all(s.parts == {"math": 1.0, "think_answer": 1.0, "language": 1.0} for s in scores)
    assert probe(list(train.values())[:64], judge) == ""

    general = read_rows(tmp_path / "general" / "train.jsonl")
    assert "answer" not in general[0] and not {r["prompt"] for r in general} & {
        r["prompt"] for r in read_rows(tmp_path / "general" / "test.jsonl")
    }
    pairs = read_rows(tmp_path / "pairs" / "train.jsonl")
    assert all(r["chosen"] != r["rejected"] for r in pairs) and len(pairs) == 2 * len(general)


def test_a_demonstrations_thought_leads_to_its_answer():
    rng = Random(0)
    for _ in range(50):
        a, b = rng.randint(2, 99), rng.randint(2, 9)
        assert MADE["worked"](a, b).endswith(f" is {a * b}.")
