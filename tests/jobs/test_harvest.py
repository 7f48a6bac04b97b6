"""`logpi harvest`: a teacher in this process and one behind a server; and `--teacher` of
`logpi rl`, the other half of distillation."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
import torch

import logpi
from logpi.cli import main
from logpi.engine import chat_server
from logpi.engine.chat_server import ChatServer
from logpi.errors import UserError
from logpi.jobs import harvest
from logpi.jobs.harvest import Harvest, served
from logpi.jobs.rejection import read_rows
from logpi.jobs.rl_parts import make_teacher
from logpi.policies.small import small_policy
from logpi.rewards import rewards

ROWS = [{"prompt": f"{a}+1=", "answer": str(a + 1)} for a in range(40)]
CHARACTERS = "0123456789+="


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("harvest")
    small_policy(CHARACTERS, width=32, layers=1, seed=1).save(path / "teacher")
    small_policy(CHARACTERS, width=16, layers=1, seed=2).save(path / "student")
    small_policy(CHARACTERS + "x", width=16, layers=1).save(path / "stranger")
    (path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    (path / "judge.py").write_text(
        "def even(completions, **columns):\n"
        "    return [float(len(c) % 2 == 0) for c in completions]\n"
    )
    return path


def test_a_teacher_in_this_process(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    words = f"harvest --model {home}/teacher --task {home}/rows.jsonl --samples 8 --prompts 6"
    words += f" --rewards {home}/judge.py:even --max-completion-length 6 --out {tmp_path}/h"
    assert main(words.split()) == 0
    kept = read_rows(tmp_path / "h" / "train.jsonl")
    every = read_rows(tmp_path / "h" / "samples.jsonl")
    counts = json.loads((tmp_path / "h" / "counts.json").read_text())
    assert counts["sampled"] == len(every) and counts["kept"] == len(kept) > 0
    assert all(row["completion"] and len(row["completion"]) % 2 == 0 for row in kept)
    assert [s["completion"] for s in every if s["fate"] == "empty"].count("") > 0
    assert "logpi sft --model STUDENT" in capsys.readouterr().err
    words = f"sft --model {home}/student --task {tmp_path}/h/train.jsonl --steps 1 --rows 2"
    assert main([*words.split(), "--out", str(tmp_path / "s")]) == 0


def server(answer) -> httpx.MockTransport:
    """A server with one model; `answer(body, number)` gives the response to the n-th question."""
    number = iter(range(1000))

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "big"}]})
        return answer(json.loads(request.content), next(number))

    return httpx.MockTransport(handle)


def choices(body, texts) -> httpx.Response:
    some = [{"message": {"content": t}, "finish_reason": "stop"} for t in texts[: body["n"]]]
    usage = {"completion_tokens": 3 * len(some)}
    return httpx.Response(200, json={"choices": some, "usage": usage})


def test_a_teacher_behind_a_server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chat_server, "PAUSE", 0.0)

    def answer(body, number):
        if number == 0:
            return httpx.Response(503, text="warming up")
        question = body["messages"][-1]["content"]
        right = str(int(question.partition("+")[0]) + 1)
        return choices(body, [right, "no"])

    a = Harvest(server="http://127.0.0.1:1/v1", samples=2, max_completion_length=9)
    sample = served(a, rewards(["number"]), server(answer))
    records = sample(ROWS[:3], 7)
    assert [r["completion"] for r in records] == ["1", "no", "2", "no", "3", "no"]
    assert [r["rewards"]["number"] for r in records] == [1.0, 0.0] * 3
    assert {r["tokens"] for r in records} == {3}


@pytest.mark.parametrize(
    ("response", "line"),
    [
        (httpx.Response(401), "wants an API key"),
        (httpx.Response(400, text="max_tokens is too large"), "max_tokens is too large"),
        (
            httpx.Response(400, json={"error": {"message": "too\nlong", "code": 400}}),
            "/v1/chat/completions answered 400: too long$",
        ),
        (httpx.Response(422, json={"detail": "no such field"}), "answered 422: no such field$"),
        (httpx.Response(200, text="<html>"), "answered 200"),
        (httpx.Response(200, json={"choices": []}), "gave 0 answers where 2"),
        (httpx.Response(500, text="no memory"), "after 5 tries: 500 no memory"),
    ],
)
def test_what_a_server_may_say(monkeypatch, response: httpx.Response, line: str):
    monkeypatch.setattr(chat_server, "PAUSE", 0.0)
    asks = ChatServer("http://127.0.0.1:1/v1", transport=server(lambda body, number: response))
    with pytest.raises(UserError, match=line):
        asks([[{"role": "user", "content": "1+1="}]], n=2)
    with pytest.raises(UserError, match="no model 'bigg'.*serves: big"):
        ChatServer("http://127.0.0.1:1/v1", "bigg", asks.transport).served()
    with pytest.raises(UserError, match="a server is an address"):
        ChatServer("ftp://x")


def test_an_address_without_its_path_and_one_where_nobody_listens(monkeypatch):
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(404, json={"error": {"message": "GET /models: no such route"}})

    asks = ChatServer("http://127.0.0.1:1", transport=httpx.MockTransport(handle))
    with pytest.raises(UserError, match=r"no such route; .*below /v1: http://127\.0\.0\.1:1/v1$"):
        asks.served()
    asks = ChatServer("http://127.0.0.1:1/v2", transport=httpx.MockTransport(handle))
    with pytest.raises(UserError, match=r"/v2/models answered 404: GET /models: no such route$"):
        asks.served()

    def no_wait(seconds: float) -> None:
        raise AssertionError("it waits")

    monkeypatch.setattr(chat_server.time, "sleep", no_wait)
    # port 1 of this machine: refused
    with pytest.raises(UserError, match="cannot be reached .*: start the server, or correct"):
        ChatServer("http://127.0.0.1:1/v1").served()


def test_the_rules_are_the_users():
    a = Harvest(model="m", least=(0.5,), max_completion_length=7, shortest=2, per_prompt=3)
    rules = harvest.rules_of(a, ["exact"])
    assert (dict(rules.least), rules.shortest, rules.longest, rules.per_prompt) == (
        {"exact": 0.5},
        2,
        7,
        3,
    )
    with pytest.raises(UserError, match="1 values for 2 rewards"):
        harvest.rules_of(a, ["exact", "number"])
    with pytest.raises(ValueError, match="one teacher"):
        Harvest()


@pytest.mark.parametrize("estimator", [{}, {"kl_estimator": "reverse"}])
def test_a_student_comes_nearer_to_its_teacher(home: Path, tmp_path: Path, estimator):
    job = logpi.RL(
        model=str(home / "student"),
        teacher=str(home / "teacher"),
        task=ROWS,
        algorithm="distill",
        rewards=["exact"],
        lr=3e-3,
        steps=12,
        eval_every=0,
        eval_items=2,
        max_completion_length=6,
        out=tmp_path / "d",
        **estimator,
    )
    divergence = [step.metrics["kl"] for step in job]
    assert sum(divergence[-3:]) < 0.8 * sum(divergence[:3])
    assert not any(p.requires_grad for p in job.learner.reference.parameters())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"algorithm": "distill"}, "give teacher=MODEL"),
        (
            {"algorithm": "grpo", "beta": 0.0, "teacher": "teacher"},
            "settings: set beta above 0, or use algorithm distill$",
        ),
        # DAPO has no penalty to set
        ({"algorithm": "dapo", "teacher": "teacher"}, "settings: use algorithm distill$"),
        (
            {"algorithm": "distill", "beta": 0.0, "teacher": "teacher"},
            "settings: set beta above 0$",
        ),
        ({"algorithm": "distill", "teacher": "stranger"}, "another tokenizer"),
        (
            {"algorithm": "distill", "teacher": "teacher", "refresh_reference": 5},
            "a teacher stays as it is",
        ),
    ],
)
def test_what_cannot_be_taught(home: Path, tmp_path: Path, options, line: str):
    options = {k: str(home / v) if k == "teacher" else v for k, v in options.items()}
    job = logpi.RL(
        model=str(home / "student"), task=ROWS, rewards=["exact"], out=tmp_path / "x", **options
    )
    with pytest.raises(UserError, match=line):
        job.run()


@pytest.mark.parametrize(
    ("characters", "differing"),
    [("ab", "differing tokens: 1, e.g. 'b'"), ("b", "differing tokens: 2, e.g. 'a'")],
)
def test_a_teacher_that_is_an_object_is_named_in_one_line(characters: str, differing: str):
    """One has a token more, or another; a model's own text would be twenty lines."""
    job = logpi.RL(
        model="student",
        teacher=small_policy(characters, width=16, layers=1),
        task=ROWS,
        algorithm="distill",
    )
    with pytest.raises(UserError, match=differing) as error:
        make_teacher(job, small_policy("a", width=16, layers=1))
    said = str(error.value)
    assert "teacher CausalLM has another tokenizer" in said and "\n" not in said


def test_a_teacher_with_more_logits_than_tokens(home: Path):
    """Models of one family fill their matrices up differently; what fills up is never compared."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from logpi.policies.causal_lm import CausalLM
    from logpi.types import Batch

    teacher = CausalLM.load(str(home / "teacher"))
    known = len(teacher.tokenizer)
    teacher.model.resize_token_embeddings(known + 7, mean_resizing=False)
    wide = CausalLM(teacher.model, teacher.tokenizer)
    with torch.no_grad():
        # unlikely tokens in name alone: the matrix would choose them
        wide.model.get_output_embeddings().weight[known:] = 9.0
    obs = torch.tensor([[4, 5, 6, 7]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    zeros = torch.zeros(1, 3)
    ends = torch.ones(1, dtype=torch.bool)
    batch = Batch(obs, obs[:, 1:], mask, zeros, ends, torch.zeros(1, dtype=torch.long), zeros)
    ids, said = wide.likeliest(batch, 64)
    assert ids.shape == (1, 3, known) and int(ids.max()) == known - 1
    assert said.others is not None and said.others.shape == ids.shape
    # ids may have a gap: the last token is one all the same
    gap = {**teacher.tokenizer.get_vocab(), "<late>": known + 2}
    core = Tokenizer(models.BPE(vocab=gap, merges=[], unk_token=teacher.tokenizer.unk_token))
    late = CausalLM(teacher.model, PreTrainedTokenizerFast(tokenizer_object=core))
    assert int(late.likeliest(batch, 64)[0].max()) == known + 2
