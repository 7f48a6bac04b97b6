"""The server as OpenAI's own client sees it: the same tokens as our engine's, numbers as the policy
has them, streams that add up, errors in one line."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
import torch

from logpi.engine.engine import Engine
from logpi.engine.openai_server.errors import RequestError
from logpi.engine.openai_server.scores import scores
from logpi.engine.openai_server.service import Service
from logpi.engine.sampling import Request, Sampling
from logpi.errors import UserError
from logpi.policies.causal_lm import CausalLM
from tests.engine.openai_server.serving import (
    ANSWER,
    CALL,
    CONTEXT,
    QUESTION,
    SAID,
    TOOLS,
    endless_policy,
    parrot,
    served,
    tiny_policy,
)
from tests.policies.architectures import architecture
from tests.tiny import tiny_model, tiny_tokenizer

PROMPTS = ["hello", "a b c", "Q: 1+1?\nA:", "x" * 40]
IDS = {"extra_body": {"return_token_ids": True}}


@pytest.fixture(scope="module")
def tiny() -> Iterator[tuple[Service, str]]:
    with served(tiny_policy(), requests=64, slots=4) as pair:
        yield pair


@pytest.fixture(scope="module")
def client(tiny: tuple[Service, str]) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{tiny[1]}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def calling() -> Iterator[openai.OpenAI]:
    with served(parrot()) as (_, url):
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def engine_tokens(service: Service, prompt: str, **settings) -> list[int]:
    policy = service.scheduler.policy
    request = Request(policy.template.plain(prompt), greedy=settings.pop("greedy", False))
    generator = torch.Generator().manual_seed(settings.pop("seed", 0))
    [[row]] = Engine(policy).generate([request], Sampling(**settings), generator)
    return row.tokens.tolist()


# --- completions ---


def test_greedy_is_the_engines_token_for_token(tiny, client) -> None:
    """Many at the same time, of other kinds among them."""

    def ask(number: int):
        prompt, warm = PROMPTS[number % 4], number >= 8
        settings = {"temperature": 1.3, "seed": number} if warm else {"temperature": 0}
        return client.completions.create(
            model="tiny", prompt=prompt, max_tokens=30, **settings, **IDS
        )

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(12)))
    for number, answer in enumerate(answers):
        [choice] = answer.choices
        kind = {"greedy": True} if number < 8 else {"temperature": 1.3, "seed": number}
        expected = engine_tokens(tiny[0], PROMPTS[number % 4], max_tokens=30, **kind)
        assert choice.token_ids == expected
        assert choice.prompt_token_ids == tiny[0].words.plain(PROMPTS[number % 4])
        assert choice.text == tiny[0].scheduler.policy.template.decode(expected)
        assert answer.usage.completion_tokens == len(expected)
        assert choice.finish_reason == ("stop" if expected[-1] == 2 else "length")


def test_prompts_as_ids_and_several_of_them(tiny, client) -> None:
    ids = [tiny[0].words.plain(p) for p in PROMPTS[:2]]
    settings = {"model": "tiny", "max_tokens": 8, "seed": 3, "n": 2}
    by_text = client.completions.create(prompt=PROMPTS[:2], **settings)
    by_ids = client.completions.create(prompt=ids, **settings)
    alone = client.completions.create(prompt=ids[1], **settings)
    texts = [c.text for c in by_text.choices]
    assert texts == [c.text for c in by_ids.choices] and len(set(texts)) == 4
    assert [c.index for c in by_text.choices] == [0, 1, 2, 3]
    # what a prompt's samples are does not depend on the other prompts
    assert texts[2:] == [c.text for c in alone.choices]


def test_log_probabilities_are_the_policys(tiny, client) -> None:
    """Of the prompt (as lm-eval asks) and of what is sampled, at any temperature."""
    answer = client.completions.create(
        model="tiny",
        prompt=PROMPTS[1],
        max_tokens=6,
        temperature=0.5,
        seed=1,
        logprobs=3,
        echo=True,
        extra_body={"return_token_ids": True, "return_tokens_as_token_ids": True},
    )
    [choice] = answer.choices
    ids = choice.prompt_token_ids + choice.token_ids
    [score] = scores(tiny[0].scheduler.policy, [ids], 3)
    numbers = choice.logprobs
    assert numbers.tokens == [f"token_id:{i}" for i in ids]
    assert numbers.token_logprobs[0] is None and numbers.top_logprobs[0] is None
    assert numbers.token_logprobs[1:] == pytest.approx(score.logp, abs=1e-5)
    for token, top, known in zip(ids[1:], numbers.top_logprobs[1:], score.top, strict=True):
        assert {f"token_id:{token}", *(f"token_id:{i}" for i, _ in known)} == set(top)
    assert choice.text.startswith(PROMPTS[1])
    begin = [choice.text[i:] for i in numbers.text_offset]
    assert all(b.startswith(tiny[0].words.spelled(i)) for b, i in zip(begin, ids) if i > 3)
    assert numbers.text_offset[:6] == [0, 1, 2, 3, 4, 5]


def test_only_the_prompt_is_scored(tiny, client) -> None:
    answer = client.completions.create(
        model="tiny", prompt=PROMPTS, max_tokens=0, logprobs=1, echo=True
    )
    for prompt, choice in zip(PROMPTS, answer.choices, strict=True):
        assert choice.text == prompt and choice.finish_reason == "length"
        for own, top in zip(choice.logprobs.token_logprobs[1:], choice.logprobs.top_logprobs[1:]):
            # lm-eval takes equality for "greedy would have said so"
            assert max(top.values()) >= own and own in top.values()


def test_a_seed_fixes_a_sample_whatever_is_beside_it(client) -> None:
    def ask(seed: int, tokens: int = 25) -> str:
        answer = client.completions.create(
            model="tiny", prompt="hello", max_tokens=tokens, seed=seed, temperature=0.9, top_p=0.9
        )
        return answer.choices[0].text

    alone = ask(5)
    with ThreadPoolExecutor(8) as pool:
        beside = list(pool.map(ask, [5, 1, 2, 5, 3, 4, 5, 6]))
    assert {beside[0], beside[3], beside[6]} == {alone} and len(set(beside)) == 6


def test_stop_strings_across_tokens(tiny, client) -> None:
    whole = client.completions.create(model="tiny", prompt="hello", max_tokens=40, temperature=0)
    text = whole.choices[0].text
    stop = text[10:13]
    settings = {"model": "tiny", "prompt": "hello", "max_tokens": 40, "temperature": 0}
    [choice] = client.completions.create(stop=[stop, "\0"], **settings, **IDS).choices
    assert choice.text == text[: text.index(stop)]
    assert choice.finish_reason == "stop" and choice.stop_reason == stop
    # one token is one character: nothing was sampled behind the stop string
    assert len(choice.token_ids) == text.index(stop) + 3
    pieces = [
        chunk.choices[0].text
        for chunk in client.completions.create(stop=[stop], stream=True, **settings)
    ]
    assert "".join(pieces) == choice.text


def test_a_stream_adds_up(client) -> None:
    settings = {"model": "tiny", "prompt": ["hello", "world"], "n": 2, "seed": 7, "max_tokens": 12}
    settings |= {"logprobs": 1, "echo": True, **IDS}
    whole = client.completions.create(**settings)
    usage = {"include_usage": True}
    chunks = list(client.completions.create(stream=True, stream_options=usage, **settings))
    for choice in whole.choices:
        own = [c.choices[0] for c in chunks if c.choices and c.choices[0].index == choice.index]
        assert "".join(c.text for c in own) == choice.text
        assert [i for c in own for i in c.token_ids] == choice.token_ids
        assert own[0].prompt_token_ids == choice.prompt_token_ids
        assert [x for c in own for x in c.logprobs.token_logprobs] == pytest.approx(
            choice.logprobs.token_logprobs, abs=1e-5
        )
        assert [x for c in own for x in c.logprobs.text_offset] == choice.logprobs.text_offset
        assert [c.finish_reason for c in own] == [None] * (len(own) - 1) + [choice.finish_reason]
    assert not chunks[-1].choices and chunks[-1].usage == whole.usage
    assert len({c.id for c in chunks}) == 1


# --- chat ---


def test_a_chat(calling) -> None:
    answer = calling.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": [{"type": "text", "text": "1+2?"}]}],
        temperature=0,
        logprobs=True,
        top_logprobs=2,
        **IDS,
    )
    [choice] = answer.choices
    assert choice.message.content == ANSWER and choice.finish_reason == "stop"
    assert choice.message.tool_calls is None
    tokens = choice.logprobs.content
    assert "".join(t.token for t in tokens) == ANSWER + "<eos>"
    assert len(tokens) == len(choice.token_ids) == answer.usage.completion_tokens
    assert all(t.top_logprobs[0].token == t.token and len(t.top_logprobs) == 2 for t in tokens)
    assert tokens[0].logprob == pytest.approx(tokens[0].top_logprobs[0].logprob)
    assert len(answer.prompt_token_ids) == answer.usage.prompt_tokens


@pytest.mark.parametrize("n", [1, 2])
def test_tool_calls(calling, n: int) -> None:
    settings = {"model": "tiny", "messages": QUESTION, "temperature": 0, "tools": TOOLS, "n": n}
    for choice in calling.chat.completions.create(**settings).choices:
        assert choice.finish_reason == "tool_calls" and choice.message.content == "Let me see."
        [call] = choice.message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == (
            "add",
            {"a": 1, "b": 2},
        )
    chunks = list(calling.chat.completions.create(stream=True, **settings))
    for index in range(n):
        deltas = [c.choices[0].delta for c in chunks if c.choices[0].index == index]
        assert deltas[0].role == "assistant"
        assert "".join(d.content or "" for d in deltas) == "Let me see."
        [call] = [call for d in deltas for call in d.tool_calls or ()]
        assert (call.index, call.function.name) == (0, "add")
    assert [c.choices[0].finish_reason for c in chunks][-1] == "tool_calls"
    # none: the tools are not shown, and what looks like a call is text
    [choice] = calling.chat.completions.create(**{**settings, "n": 1}, tool_choice="none").choices
    assert choice.message.content == ANSWER


def test_a_call_goes_back_as_the_model_wrote_it(calling) -> None:
    """The conversation with the call and its result renders, arguments as JSON text and all."""
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    messages = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
    ]
    with pytest.raises(openai.BadRequestError, match="leaves out the call"):
        # the tiny template has no place for calls, and says so
        calling.chat.completions.create(model="tiny", messages=messages, tools=TOOLS)


def test_text_that_looks_like_a_call_is_text_without_tools(calling) -> None:
    answer = calling.completions.create(
        model="tiny",
        prompt=calling_prompt(),
        max_tokens=100,
        temperature=0,
        extra_body={"add_special_tokens": False},
    )
    assert answer.choices[0].text == SAID and CALL in SAID


def calling_prompt() -> list[int]:
    template = "{% if tools %}tools: {{ tools | tojson }}\n{% endif %}" + (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "
    )
    tokenizer = tiny_tokenizer(template)
    text = tokenizer.apply_chat_template(QUESTION, tools=TOOLS, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


# --- errors and limits ---


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"max_tokens": 5000}, "context is 512 tokens: the prompt has 5"),
        ({"prompt": "x" * 600}, "context is 512 tokens: the prompt has 600"),
        ({"prompt": ""}, "a prompt is empty"),
        ({"prompt": []}, "a prompt is empty"),
        ({"prompt": [[]]}, "a prompt is empty"),
        ({"prompt": [10**6]}, "token id 1000000"),
        ({"prompt": [1, "a"]}, "prompt must be a text"),
        ({"prompt": ["a"] * 65}, "65 samples"),
        ({"n": 65}, "65 samples"),
        ({"max_tokens": 0}, "1 or more"),
        ({"extra_body": {"guided_json": {}}}, "no parameter 'guided_json'"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
    ],
)
def test_refusals(client, settings: dict, line: str) -> None:
    with pytest.raises(openai.BadRequestError, match=line) as caught:
        client.completions.create(**{"model": "tiny", "prompt": "hello", **settings})
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"tools": TOOLS}, "no place for tools"),
        ({"tools": [{"type": "function"}]}, "a tool needs a name"),
        ({"tools": TOOLS, "tool_choice": "required"}, "tool_choice='required'"),
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "x"}]}, "role"),
        (
            {"messages": [*QUESTION, {"role": "boss", "content": "x"}]},
            r"message 2: there is no role 'boss' \(system, developer, user, assistant, tool\)",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "only text is read",
        ),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"top_logprobs": 2}, "needs logprobs=true"),
        ({"extra_body": {"chat_template_kwargs": {"nosuch": 1}}}, "no variable 'nosuch'"),
    ],
)
def test_refusals_of_chats(client, settings: dict, line: str) -> None:
    with pytest.raises(openai.BadRequestError, match=line):
        client.chat.completions.create(**{"model": "tiny", "messages": QUESTION, **settings})


def test_another_models_name(client) -> None:
    with pytest.raises(openai.NotFoundError, match="did you mean tiny"):
        client.completions.create(model="tinny", prompt="a")
    assert [m.id for m in client.models.list()] == ["tiny"]


def test_bodies(tiny) -> None:
    url = f"{tiny[1]}/v1/completions"
    as_json = {"content-type": "application/json"}
    assert httpx.post(url, content=b"{}").status_code == 415
    assert httpx.post(url, content=b"{", headers=as_json).status_code == 400
    assert httpx.post(url, content=b"[" * 10**5, headers=as_json).status_code == 400
    nan = b'{"prompt": "a", "temperature": NaN}'
    assert "JSON" in httpx.post(url, content=nan, headers=as_json).json()["error"]["message"]
    assert httpx.post(url, json=[]).status_code == 400
    half = httpx.post(url, content=b'{"prompt": "\\ud83d"}', headers=as_json)
    assert half.status_code == 400 and "no UTF-8" in half.text
    wrong, posted = httpx.get(url), httpx.post(f"{tiny[1]}/v1/models", json={})
    assert wrong.status_code == posted.status_code == 405 and wrong.headers["allow"] == "POST"
    assert "/v1/completions is a POST route: it takes no GET" in wrong.text
    assert "/v1/models is a GET route: it takes no POST" in posted.text
    missing = httpx.post(f"{tiny[1]}/chat/completions", json={})
    assert missing.status_code == 404 and "did you mean /v1/chat/completions?" in missing.text
    elsewhere = httpx.post(url, json={"prompt": "a"}, headers={"host": "evil.example:80"})
    assert elsewhere.status_code == 403


def test_limits() -> None:
    limits = {"requests": 3, "slots": 1, "body": 200, "seconds": 0.3, "longest": 400}
    with served(endless_policy(), **limits) as (service, url):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.APIStatusError, match="more than 200 bytes"):
            client.completions.create(model="tiny", prompt="x" * 300)
        slow(service)
        with pytest.raises(openai.InternalServerError, match=r"no answer within 0\.3 s"):
            client.completions.create(model="tiny", prompt="a", max_tokens=300)
        with pytest.raises(openai.APIError, match=r"no answer within 0\.3 s"):
            list(client.completions.create(model="tiny", prompt="a", max_tokens=300, stream=True))
        idle(service)
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(lambda: statuses(url, 3))
            until(lambda: service.scheduler.busy == 3)
            with pytest.raises(openai.RateLimitError, match="busy with 3 of at most 3"):
                client.completions.create(model="tiny", prompt="a")
            assert other.result() == [504]
        idle(service)


def slow(service: Service) -> None:
    """Every step takes a hundredth of a second."""
    step = service.scheduler._step

    def stepped() -> None:
        time.sleep(0.01)
        step()

    service.scheduler._step = stepped


def statuses(url: str, n: int) -> list[int]:
    body = {"prompt": "a", "max_tokens": 300, "n": n}
    return [httpx.post(f"{url}/v1/completions", json=body, timeout=60).status_code]


def until(true) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def idle(service: Service) -> None:
    until(lambda: service.scheduler.busy == 0)
    assert len(service.scheduler._generation.free_rows) == service.limits.requests


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_is_sampled_no_further(stream: bool) -> None:
    with served(endless_policy(), slots=2) as (service, url):
        slow(service)
        body = {"prompt": "a", "max_tokens": 500, "stream": stream, "n": 3}
        with httpx.Client(timeout=httpx.Timeout(60, read=0.5)) as http:
            if stream:
                with http.stream("POST", f"{url}/v1/completions", json=body) as answer:
                    next(answer.iter_lines())
            else:
                with pytest.raises(httpx.ReadTimeout):
                    http.post(f"{url}/v1/completions", json=body)
        started = time.monotonic()
        idle(service)
        # 500 tokens would take five seconds and more
        assert time.monotonic() - started < 4


def test_a_key() -> None:
    with served(tiny_policy(), key="secret") as (_, url):
        for key, good in (("secret", True), ("wrong", False)):
            client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
            if good:
                assert client.completions.create(model="tiny", prompt="a", max_tokens=1)
            else:
                with pytest.raises(openai.AuthenticationError, match="API key"):
                    client.completions.create(model="tiny", prompt="a")
        assert httpx.get(f"{url}/health").json()["status"] == "ok"


def test_weights_that_have_diverged_are_an_error_and_the_server_goes_on() -> None:
    policy = tiny_policy()
    with served(policy) as (service, url):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        broken = tiny_policy(seed=1)
        broken.model.lm_head.weight.data[7] = float("nan")
        service.swap(broken, "bad").result()
        scored = {"echo": True, "max_tokens": 0}
        for settings in ({}, scored | {"logprobs": 1}, scored | {"logprobs": 0}):
            with pytest.raises(openai.InternalServerError, match="not numbers"):
                client.completions.create(model="tiny", prompt="abc", **settings)
        service.swap(policy, "good").result()
        assert client.completions.create(model="tiny", prompt="a", max_tokens=2).choices
        idle(service)


def test_a_request_that_cannot_begin_fails_at_once() -> None:
    with served(tiny_policy()) as (service, url):
        body = {"prompt": "a", "max_tokens": 2}
        service.scheduler._generation.join = broken
        answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
        assert answer.status_code == 500 and "no memory" in answer.text
        idle(service)
        # the next one has a generation of its own
        assert httpx.post(f"{url}/v1/completions", json=body, timeout=60).status_code == 200


def broken(*_) -> None:
    raise MemoryError("no memory")


def test_a_decoder_that_cannot_begin_again() -> None:
    """Every route that needs it says so, and nobody waits."""
    with served(tiny_policy(), source=lambda path: (tiny_policy(), "v2")) as (service, url):
        service.scheduler._step = service.scheduler._begin = broken
        body = {"prompt": "a", "max_tokens": 2}
        assert httpx.post(f"{url}/v1/completions", json=body, timeout=60).status_code == 500
        service.scheduler._thread.join(20)
        answers = [
            httpx.post(f"{url}/v1/completions", json=body, timeout=60),
            httpx.post(f"{url}/v1/weights", json={}, timeout=60),
            httpx.get(f"{url}/health", timeout=60),
        ]
        assert [a.status_code for a in answers] == [503] * 3
        assert all("the server has ended" in a.text for a in answers)


def test_rows_end_where_rotary_embeddings_change() -> None:
    """As in our own engine: behind a short prompt a row of a longrope model has 32 tokens."""
    policy = CausalLM(architecture("Llama longrope"), tiny_tokenizer())
    assert (policy.reach(4), policy.reach(40)) == (32, policy.context)
    with served(policy) as (service, url):
        body = {"prompt": [1, 5, 6, 7], "max_tokens": 29}
        answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
        assert answer.status_code == 400 and "32 tokens for so short a prompt" in answer.text
        assert service.words.room([1, 5, 6, 7], None) == 28
        assert service.words.room([1] * 40, None) == policy.context - 40


def test_a_model_that_keeps_its_own_attention_is_refused() -> None:
    policy = tiny_policy()
    policy.packed = False
    with pytest.raises(UserError, match="keeps its own attention"):
        Service(policy, "tiny")


# --- weights ---


def test_weights_change_under_a_request() -> None:
    """The one under way finishes under the old weights, and the next one begins under the new."""
    old, new = tiny_policy(seed=0), tiny_policy(seed=1)
    settings = {"model": "tiny", "prompt": "hello", "temperature": 0, "max_tokens": 60}
    with served(old, source=lambda path: (new, path or "v2")) as (service, url):
        slow(service)
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(lambda: client.completions.create(**settings, **IDS))
            until(lambda: service.scheduler._rows)
            changed = pool.submit(lambda: httpx.post(f"{url}/v1/weights", json={}, timeout=60))
            until(lambda: service.scheduler._next is not None)
            second = client.completions.create(**settings, **IDS)
        assert changed.result().json() == {"version": "v2", "before": "v1"}
        for answer, policy, version in ((first.result(), old, "v1"), (second, new, "v2")):
            assert answer.system_fingerprint == f"logpi-{version}"
            [[row]] = Engine(policy).generate(
                [Request(policy.template.plain("hello"), greedy=True)], Sampling(max_tokens=60)
            )
            assert answer.choices[0].token_ids == row.tokens.tolist()


def test_weights_that_cannot_be_decoded_leave_the_old_ones(monkeypatch) -> None:
    """The weights, and how their prompts are written."""
    with served(tiny_policy(), source=lambda path: (tiny_policy(seed=1), "v2")) as (service, url):
        words = service.words
        monkeypatch.setattr(
            "logpi.engine.openai_server.scheduler.OpenGeneration",
            lambda *_, **__: (_ for _ in ()).throw(MemoryError("no memory")),
        )
        answer = httpx.post(f"{url}/v1/weights", json={}, timeout=60)
        assert answer.status_code == 500 and "the old weights stay: no memory" in answer.text
        assert service.words is words
        body = {"prompt": "a", "max_tokens": 2}
        again = httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()
        assert again["system_fingerprint"] == "logpi-v1"


def test_weights_of_a_longer_context() -> None:
    """The server's own limit holds as far as the model's context reaches, then and now."""
    short = CausalLM(tiny_model(max_position_embeddings=40), tiny_tokenizer())
    with served(short, longest=300) as (service, _):
        assert service.words.longest == service.scheduler._generation.most == 40
        service.swap(tiny_policy(), "v2").result()
        assert service.words.longest == service.scheduler._generation.most == 300


def test_weights_that_wait_when_the_server_ends() -> None:
    """Whoever waits for them is told."""
    with served(endless_policy()) as (service, _):
        # as while a row is sampled
        service.scheduler._is_idle = lambda: False
        loading = service.swap(endless_policy(), "v2")
    with pytest.raises(RequestError, match="the server is ending"):
        loading.result(timeout=60)


def test_weights_of_another_tokenizer() -> None:
    from logpi.policies.small import small_policy

    with (
        served(tiny_policy(), source=lambda path: (small_policy("abc"), "x")) as (_, url),
    ):
        answer = httpx.post(f"{url}/v1/weights", json={}, timeout=60)
        assert answer.status_code == 409 and "another tokenizer" in answer.text


# --- tokens ---


def test_tokenize_and_back(tiny) -> None:
    url = tiny[1]
    answer = httpx.post(f"{url}/tokenize", json={"prompt": "a b", "return_token_strs": True}).json()
    assert answer["count"] == len(answer["tokens"]) == 3 and answer["max_model_len"] == CONTEXT
    assert answer["token_strs"] == ["a", " ", "b"]
    back = httpx.post(f"{url}/detokenize", json={"tokens": answer["tokens"]}).json()
    assert back == {"prompt": "a b"}
    chat = httpx.post(f"{url}/tokenize", json={"messages": QUESTION}).json()
    assert chat["tokens"] == tiny[0].scheduler.policy.template.ids(QUESTION)
    empty = httpx.post(f"{url}/tokenize", json={"prompt": ""}).json()
    assert (empty["count"], empty["tokens"]) == (0, [])
    assert httpx.post(f"{url}/tokenize", json={}).status_code == 400
    assert httpx.get(f"{url}/tokenizer_info").json()["eos_token"] == "<eos>"


def test_our_own_client_talks_to_it(calling) -> None:
    """As `logpi harvest --server` does."""
    from logpi.engine.chat_server import ChatServer

    server = ChatServer(str(calling.base_url))
    [answers] = server([QUESTION], n=2, temperature=0.0, max_tokens=40)
    assert [(a.text, a.stop) for a in answers] == [(ANSWER, "stop")] * 2


def test_threads_end(tiny) -> None:
    before = threading.active_count()
    with served(tiny_policy()) as (service, _):
        pass
    assert not service.scheduler._thread.is_alive() and threading.active_count() <= before


def test_models_are_of_any_packed_family() -> None:
    policy = CausalLM(tiny_model("gemma3"), tiny_tokenizer())
    with served(policy) as (service, url):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        answer = client.completions.create(
            model="tiny", prompt="hello", temperature=0, max_tokens=20, **IDS
        )
        tokens = answer.choices[0].token_ids
        assert tokens == engine_tokens(service, "hello", greedy=True, max_tokens=20)
