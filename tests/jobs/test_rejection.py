"""Rejection sampling without a model: what is kept, what is counted, what a kill leaves, what a
moody verifier does."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

from logpi.engine.sampling import Completion
from logpi.errors import UserError
from logpi.jobs import rejection
from logpi.jobs.rejection import (
    Rules,
    clean,
    harvest,
    mixed,
    probe,
    read_rows,
    records,
    write_rows,
)
from logpi.rewards import (
    LanguageConsistency,
    Number,
    Rewards,
    TagAnswer,
    ThinkAnswer,
    Weighted,
    rewards,
)
from logpi.rollouts.responses import Responses
from logpi.rollouts.turns import Transcript, Turn

JUDGES = Rewards(
    (Weighted(TagAnswer()), Weighted(ThinkAnswer()), Weighted(LanguageConsistency("en")))
)
RULES = Rules(
    {"tag_answer": 1.0, "think_answer": 1.0, "language": 0.9}, shortest=2, longest=20, per_prompt=2
)


def form(thought: str, said: object) -> str:
    return f"<think>{thought}</think><answer>{said}</answer>"


def answers(row, texts, stops=None, tokens=8):
    stops = stops or ["eos"] * len(texts)
    made = [Completion(torch.arange(tokens), torch.zeros(tokens), stop) for stop in stops]
    scores = JUDGES.score(
        [row["prompt"]] * len(texts), texts, None, {"answer": [row.get("answer")] * len(texts)}
    )
    return Responses(row, [1], made, [Transcript((Turn(tokens, t),)) for t in texts], scores)


TEXTS = [
    form("so two", 2),
    form("so  two", 2),
    form("then two", 2),
    form("again two", 2),  # kept, duplicate (white space), kept, surplus
    form("so two", 3),
    "so two 2",
    form("二 so 二", 2),
    form("so two", 2),  # wrong, wrong (no tags to read), language, cut off
]
FATES = [
    "kept",
    "duplicate",
    "kept",
    "surplus",
    "tag_answer",
    "tag_answer",
    "language",
    "truncated",
]


def test_each_response_falls_at_the_first_rule_and_is_counted_once(tmp_path):
    row = {"prompt": "1+1=", "answer": "2", "level": 1}
    kept = harvest(
        tmp_path,
        lambda rows, seed: records(answers(rows[0], TEXTS, ["eos"] * 7 + ["length"])),
        [row],
        JUDGES,
        RULES,
    )
    assert [s["fate"] for s in read_rows(tmp_path / "samples.jsonl")] == FATES
    assert (
        kept
        == [{**row, "completion": TEXTS[0]}, {**row, "completion": TEXTS[2]}]
        == read_rows(tmp_path / "train.jsonl")
    )
    assert json.loads((tmp_path / "counts.json").read_text()) == {
        "prompts": 1,
        "prompts_with_one": 1,
        "sampled": 8,
        "kept": 2,
        "filtered": {"tag_answer": 2, "duplicate": 1, "surplus": 1, "language": 1, "truncated": 1},
    }


@pytest.mark.parametrize(("tokens", "fate"), [(1, "too short"), (21, "too long"), (20, "kept")])
def test_length(tokens, fate):
    sample = records(answers({"prompt": "1+1=", "answer": "2"}, TEXTS[:1], tokens=tokens))
    clean(sample, JUDGES, RULES)
    assert sample[0]["fate"] == fate


def test_a_missing_verdict_is_no_zero_but_never_kept():
    sample = records(answers({"prompt": "1+1="}, TEXTS[:1]))
    clean(sample, JUDGES, RULES)
    assert sample[0]["fate"] == "no verdict of tag_answer"


def test_a_killed_harvest_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(rejection, "CHUNK", 2)
    rows = [{"prompt": f"{i}+1=", "answer": str(i + 1)} for i in range(6)]
    asked = []

    def ask(some, seed):
        asked.append(seed)
        return [x for r in some for x in records(answers(r, [form(f"seed {seed}x", r["answer"])]))]

    def dying(some, seed):
        if len(asked) == 2:
            raise KeyboardInterrupt
        return ask(some, seed)

    harvest(tmp_path / "whole", ask, rows, JUDGES, RULES, seed=3)
    asked.clear()
    with pytest.raises(KeyboardInterrupt):
        harvest(tmp_path / "cut", dying, rows, JUDGES, RULES, seed=3)
    assert not (tmp_path / "cut" / "counts.json").exists()
    harvest(tmp_path / "cut", ask, rows, JUDGES, RULES, seed=3)
    assert (
        len(asked) == 3 and len(set(asked)) == 3
    )  # two before the kill, the third after; each with its own seed
    for name in ("samples.jsonl", "train.jsonl", "counts.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


def test_nothing_passed_keeps_everything_and_says_what_to_try(tmp_path):
    row = {"prompt": "1+1=", "answer": "2"}
    with pytest.raises(UserError, match="none of 2 samples passed: 2 tag_answer.*more steps"):
        harvest(
            tmp_path,
            lambda rows, seed: records(answers(rows[0], [form("so", 3)] * 2)),
            [row],
            JUDGES,
            RULES,
        )
    assert (
        len(read_rows(tmp_path / "samples.jsonl")) == 2 and not (tmp_path / "counts.json").exists()
    )


@pytest.mark.parametrize(
    ("texts", "stops", "advice"),
    [
        (["2", "so 2"], None, r"\(0 of 2 whole responses\): more samples do not help. Ask for it"),
        # one has it, and is wrong
        (["2", form("so", 3)], None, "try more --samples"),
        (["so", "so"], ["length"] * 2, "larger --max-completion-length, .* stage before$"),
        (
            ["2", "so", "so"],
            ["eos", "length", "length"],
            r"Try a larger --max-completion-length.* \(0 of 1 whole responses\)",
        ),
    ],
)
def test_a_model_without_the_format_is_not_asked_for_more_samples(tmp_path, texts, stops, advice):
    row = {"prompt": "1+1=", "answer": "2"}
    with pytest.raises(UserError, match=advice):
        harvest(tmp_path, lambda rows, _: records(answers(row, texts, stops)), [row], JUDGES, RULES)


class Moody:
    """Right the first time it is asked, wrong the next."""

    name = "moody"
    needs = ("answer",)

    def __init__(self):
        self.calls = itertools.count()

    def __call__(self, prompts, completions, completion_ids=None, **columns):
        return [float(next(self.calls) % 2 == 0) for _ in completions]


def test_a_verifier_that_disagrees_with_itself_is_not_believed():
    moody = Rewards((Weighted(Moody()),))
    sample = [
        {
            "prompt": "?",
            "completion": "x",
            "answer": "1",
            "tokens": 3,
            "stop": "eos",
            "rewards": {"moody": 1.0},
            "errors": {},
        }
    ]
    next(moody.parts[0].function.calls)
    assert clean(sample, moody, Rules({"moody": 1.0})) == [] and sample[0]["fate"] == "unstable"
    with pytest.raises(
        UserError, match="'moody' disagrees with itself: asked twice, it changed 3 of 3"
    ):
        probe([{"prompt": "?", "answer": "1"}] * 3, Rewards((Weighted(Moody()),)))


def test_the_probe():
    assert probe([{"prompt": "?", "answer": "1"}], JUDGES) == ""
    number = Rewards(
        (Weighted(Number()),)
    )  # reads the last number; a row whose answer is none has no verdict
    rows = [{"prompt": "?", "answer": "1"}, {"prompt": "?", "answer": "many"}]
    assert "own answer of only 1 of 2" in probe(rows, number)
    with pytest.raises(
        UserError, match="none of the first 2 rows has an answer that 'tag_answer' can read"
    ):
        probe([{"prompt": "?"}] * 2, JUDGES)


def test_the_probe_names_verifiers_that_fit():
    others = ("exact", "number", "tag_answer", "countdown")
    with pytest.raises(UserError, match="fits the answers: number, tag_answer$"):
        probe([{"prompt": "?", "answer": "1"}], rewards("exact"), others)
    with pytest.raises(UserError, match="or choose another verifier: countdown$"):
        probe([{"prompt": "?", "numbers": [1, 2], "target": 3}], rewards("exact"), others)


def test_rows_survive_odd_characters(tmp_path):
    rows = [{"completion": "a\u2028b\x85c\nd 等"}]
    write_rows(tmp_path / "x.jsonl", rows)
    assert read_rows(tmp_path / "x.jsonl") == rows


@pytest.mark.parametrize(
    ("kept", "other", "share", "size"),
    [(6, 10, 0.25, 8), (6, 1, 0.25, 7), (6, 10, 0.0, 6), (5, 10, 0.5, 10)],
)
def test_the_mixture_has_the_stated_share(kept, other, share, size):
    rows = mixed(
        [{"prompt": f"a{i}"} for i in range(kept)],
        [{"prompt": f"b{i}"} for i in range(other)],
        share,
        seed=1,
    )
    assert len(rows) == size == len({r["prompt"] for r in rows})
    assert rows == mixed(
        [{"prompt": f"a{i}"} for i in range(kept)],
        [{"prompt": f"b{i}"} for i in range(other)],
        share,
        seed=1,
    )
    with pytest.raises(ValueError, match="share of other"):
        mixed([], [], 1.0)
