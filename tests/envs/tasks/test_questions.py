"""Questions over a corpus: three layouts of one thing, three ways to answer, demonstrations that
read before they say.

Run: python -m pytest -q tests/envs/tasks/test_questions.py
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from logpi.envs.tasks import questions, task
from logpi.envs.tasks.questions import Questions
from logpi.envs.tools import Bm25, Document, RetrieveClient
from logpi.envs.tools.retrieve import RetrieveError
from logpi.envs.tools.search_r1 import PROMPT
from logpi.errors import UserError
from logpi.policies.causal_lm import CausalLM
from logpi.rollouts.demonstrations import Demonstrations
from tests.tiny import tiny_model, tiny_tokenizer

DATA = Path(__file__).parents[2] / "data" / "hotpotqa"
QUESTIONS, CORPUS = DATA / "questions.jsonl", DATA / "corpus.jsonl"


@pytest.fixture(autouse=True)
def _no_index_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def qa(**options) -> Questions:
    return Questions(str(QUESTIONS), str(CORPUS), **({"test_share": 0, "top": 2} | options))


def told(row) -> list[str]:
    return [m["content"] for m in row["completion"] if m["role"] == "assistant"]


def test_a_demonstration_searches_reads_and_answers():
    rows = {r["question"]: r for r in qa().rows()}
    two = next(r for q, r in rows.items() if q.startswith("The Rome Protocols"))
    question, bridge, answer = told(two)
    assert question == f"<search> {two['question']} </search>"
    assert (
        bridge == "<search> Engelbert Dollfuss </search>"
        and "Engelbert Dollfuss" not in two["question"]
    )
    assert "Engelbert Dollfuss" in two["completion"][1]["content"]  # that name was read, not known
    assert answer == "<answer> a failed coup attempt </answer>"
    assert (
        "a failed coup attempt" in two["completion"][3]["content"]
        and "coup" not in two["completion"][1]["content"]
    )
    assert two["prompt"] == PROMPT.replace("{question}", two["question"])
    assert [m["role"] for m in two["completion"]] == ["assistant", "tool"] * 2 + ["assistant"]
    asked = next(
        r for q, r in rows.items() if q.startswith("VIVA")
    )  # no search brings its answer up: nothing is made up
    assert "completion" not in asked and len(rows) == 8
    assert len(qa(grounded=True).rows()) == 7


def test_what_a_demonstration_reads_is_what_the_environment_says():
    t = qa()
    for row in t.rows():
        talk, messages = t.env.start(row), row.get("completion", [])
        for said, shown in zip(messages[::2], messages[1::2], strict=False):
            assert talk.reply(said["content"]).observation == shown["content"]
        assert not messages or talk.reply(messages[-1]["content"]).done


def test_three_ways_to_answer_share_questions_and_rewards():
    search, upfront, closed = (qa(mode=m).rows(seed=3) for m in ("search", "upfront", "closed"))
    assert (
        [r["question"] for r in search]
        == [r["question"] for r in upfront]
        == [r["question"] for r in closed]
    )
    assert qa(mode="upfront").env is None is qa(mode="closed").env and qa().env.stop == (
        "</search>",
        "</answer>",
    )
    assert all(r["prompt"].startswith("<information>Doc 1(Title: ") for r in upfront)
    assert all("<information>" not in r["prompt"] and r["completion"] for r in closed)
    assert {r["category"] for r in closed} == {"bridge", "comparison"}
    score = qa().reward.score(
        ["?"], ["<answer>The Bath in Maine</answer>"], columns={"answer": ["Bath, Maine"]}
    )[0]
    assert score.parts == {"qa_em": 0.0, "qa_f1": pytest.approx(0.8)} and score.total == 0.0


def test_published_and_hub_layouts_are_the_same_questions(tmp_path):
    contents = [json.loads(line)["contents"] for line in CORPUS.read_text().splitlines()]
    pages = [c.split("\n", 1) for c in contents[:10]]
    context = [[title.strip('"'), [text[:30], text[30:]]] for title, text in pages]
    facts = [["VIVA Media", 0], ["VIVA Media", 2], ["Other", 1]]
    row = {"_id": "1", "question": "Who? ", "answer": "VIVA", "type": "bridge", "level": "easy"}
    published = row | {"context": context, "supporting_facts": facts}
    hub = row | {
        "context": {"title": [t for t, _ in context], "sentences": [s for _, s in context]},
        "supporting_facts": {"title": [t for t, _ in facts], "sent_id": [s for _, s in facts]},
    }
    found = []
    for name, raw in (("a.json", published), ("b.json", hub)):
        (tmp_path / name).write_text(json.dumps([raw]))
        found += task(f"hotpotqa(test_share=0):{tmp_path / name}").rows()
    assert (
        found[0] == found[1]
        and found[0]["documents"] == contents[:10]
        and found[0]["question"] == "Who?"
    )
    flash = {"id": "2", "question": "Who?", "golden_answers": ["Ada", "Lovelace"]}  # Search-R1's
    (tmp_path / "c.jsonl").write_text(json.dumps(flash))
    (read,) = task(f'qa(corpus="{CORPUS}", test_share=1):{tmp_path / "c.jsonl"}').rows("test")
    assert read["answer"] == ["Ada", "Lovelace"] and "completion" not in read


def test_shots_are_training_rows_demonstrations():
    t = qa(shots=2, test_share=0.5, mode="closed", prompt="Q: {question}\nA:")
    (row, *_) = t.rows("test")
    train = {r["question"] for r in qa(test_share=0.5).rows()}
    parts = row["prompt"].split("\n\n")
    assert (
        len(parts) == 3
        and all(p.endswith(" </answer>") for p in parts[:2])
        and parts[2] == f"Q: {row['question']}\nA:"
    )
    assert (
        all(p.split("\n")[0].removeprefix("Q: ") in train for p in parts[:2])
        and row["question"] not in train
    )


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("qa:nowhere.jsonl", "nowhere.jsonl: no such file"),
        (
            f'qa(corpus="nowhere.jsonl"):{QUESTIONS}',
            "nowhere.jsonl: no such file; a corpus is a JSONL file",
        ),
        (f"qa(corpus=nowhere.jsonl):{QUESTIONS}", "in quotes"),
        (f"qa:{QUESTIONS}", "its rows bring no paragraphs of their own: give corpus="),
        (f"qa(mode=open):{QUESTIONS}", "mode is one of search, upfront, closed, got 'open'"),
        (f"qa(test_share=2):{QUESTIONS}", "0 ≤ test_share ≤ 1"),
        (f"qa(top=0, mode=closed):{QUESTIONS}", "must be at least 1"),
        (f"qa:{CORPUS}", "line 1: expected a question and an answer"),
    ],
)
def test_mistakes_are_one_line(spec, line):
    with pytest.raises(ValueError, match=line) as error:
        task(spec).rows()
    assert "\n" not in str(error.value)


def test_a_server_that_does_not_answer_is_said_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(
        ValueError, match=r"search server http://127.0.0.1:9/retrieve: .* start the search server"
    ):
        task(f'qa(corpus="http://127.0.0.1:9"):{QUESTIONS}')


class Corpus:
    """A server over the corpus of these questions."""

    def __init__(self, answers=lambda found: found):
        documents = [json.loads(line) for line in CORPUS.read_text().splitlines()]
        self.ranker, self.asked, self.answers = (
            Bm25([Document(d["id"], d["contents"]) for d in documents]),
            [],
            answers,
        )

    def __call__(self, client, body, until):
        asked = json.loads(body)
        self.asked.append(asked["queries"])
        return self.answers(
            {
                "result": [
                    [{"id": d.id, "contents": d.contents} for d in row]
                    for row in self.ranker.search(asked["queries"], asked["topk"])
                ]
            }
        )


def many(tmp_path, n: int) -> str:
    """A file of the questions, again and again with a number."""
    rows = [json.loads(line) for line in QUESTIONS.read_text().splitlines()]
    path = tmp_path / "many.jsonl"
    lines = [
        json.dumps(rows[i % len(rows)] | {"question": f"{rows[i % len(rows)]['question']} {i}"})
        for i in range(n)
    ]
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture
def served(monkeypatch):
    def serve(**how):
        corpus = Corpus(**how)
        monkeypatch.setattr(
            RetrieveClient, "_exchange", lambda client, body, until: corpus(client, body, until)
        )
        questions._searcher.cache_clear()
        return corpus

    yield serve
    questions._searcher.cache_clear()


@pytest.mark.parametrize("mode", ["search", "upfront"])
def test_a_server_is_asked_for_many_rows_at_once_and_for_none_that_nobody_reads(
    tmp_path, served, mode
):
    """400 questions were 401 requests before the first step."""
    server, local = (
        served(),
        Questions(many(tmp_path, 400), str(CORPUS), mode=mode, test_share=0, top=2),
    )
    t = Questions(many(tmp_path, 400), "http://host:1", mode=mode, test_share=0, top=2)
    rows = t.rows()
    assert len(rows) == 400 and server.asked == [["test"]]
    first = rows[0]
    assert (
        len({q for batch in server.asked for q in batch} - {"test"}) < 3 * 128
        and 1 < len(server.asked) < 30
    )
    before = len(server.asked)
    assert (
        rows[:100][0] is first and len(server.asked) == before
    )  # its neighbours were made with it
    assert list(rows) == list(local.rows()) and len(server.asked) < 80
    again, before = t.rows(seed=1), len(server.asked)
    assert sorted(map(str, again)) == sorted(map(str, rows)) and len(server.asked) == before


def test_a_server_that_is_down_later_costs_demonstrations_and_not_the_run(
    tmp_path, served, caplog, monkeypatch
):
    def down(found):
        if len(server.asked) > 1:
            raise RetrieveError("it is down", again=False)
        return found

    server = served(answers=down)
    t = Questions(str(QUESTIONS), "http://host:1", test_share=0)
    assert (
        all("completion" not in r for r in t.rows())
        and "no demonstration of" in caplog.text
        and "it is down" in caplog.text
    )
    with pytest.raises(UserError, match="search server http://host:1/retrieve: it is down"):
        Questions(str(QUESTIONS), "http://host:1", mode="upfront", test_share=0).rows()[0]
    with pytest.raises(UserError, match="it is down"):
        Questions(str(QUESTIONS), "http://host:1", grounded=True, test_share=0).rows()


def test_sft_wants_a_completion_of_every_row():
    policy = CausalLM(tiny_model(), tiny_tokenizer())
    with pytest.raises(UserError, match="row .: no completion to learn from"):
        Demonstrations(policy, qa(), rows=1)
    Demonstrations(policy, qa(grounded=True), rows=1)
