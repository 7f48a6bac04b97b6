"""The vLLM sampler against servers that answer like vLLM and hold our own decoder, so that tokens
and log-probabilities are real: nothing is lost, doubled or believed.

Left out: vLLM itself (`test_vllm_real.py`).
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from logpi.engine.engine import Engine
from logpi.engine.sampling import Request, Sampling, seeded
from logpi.engine.turns import Continuation
from logpi.engine.vllm import client as client_module
from logpi.engine.vllm.client import Client
from logpi.engine.vllm.rows import Row, own_logp
from logpi.engine.vllm.sampler import VLLMSampler
from logpi.engine.vllm.server import Server, connect
from logpi.engine.vllm.weights import Files
from logpi.errors import SamplerLost, UserError
from logpi.policies.causal_lm import CausalLM
from logpi.policies.small import small_policy
from tests.engine.fake_vllm import FakeVLLM, Wrong
from tests.tiny import tiny_tokenizer

SAMPLING = Sampling(max_tokens=12)


def make_policy(seed: int = 0, **options) -> CausalLM:
    return small_policy("0123456789+= abcdef", width=32, layers=1, heads=2, seed=seed, **options)


@pytest.fixture
def policy() -> CausalLM:
    return make_policy()


@pytest.fixture
def fakes() -> Iterator[list[FakeVLLM]]:
    made: list[FakeVLLM] = []
    yield made
    for fake in made:
        fake.wake()
        fake.kill()


def serving(fakes: list[FakeVLLM], policy: CausalLM, number: int = 1, **wrong) -> list[Server]:
    new = [FakeVLLM(policy, Wrong(**wrong)) for _ in range(number)]
    fakes += new
    return [connect(fake.url) for fake in new]


class Updates:
    """Counts updates, and makes them."""

    def __init__(self, policy: CausalLM) -> None:
        self.policy, self.number = policy, 0

    def __call__(self) -> int:
        return self.number

    @torch.no_grad()
    def make(self) -> None:
        self.number += 1
        generator = torch.Generator().manual_seed(self.number)
        for p in self.policy.parameters():
            p.mul_(1 + 0.2 * torch.randn(p.shape, generator=generator))


def sampler(policy: CausalLM, servers: list[Server], **options) -> VLLMSampler:
    return VLLMSampler(policy, servers, Files(policy.save), **options)


def requests_of(policy: CausalLM, n: int = 3) -> list[Request]:
    prompts = [policy.render(f"{a}+{a + 1}=") for a in range(5)]
    return [Request(p, n) for p in prompts] + [Request(prompts[0], 1, greedy=True)]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def same(one, other) -> None:
    """The same tokens for the same reasons, log-probabilities up to rounding."""
    for group, twin in zip(one, other, strict=True):
        for a, b in zip(group, twin, strict=True):
            assert a.tokens.tolist() == b.tokens.tolist() and a.stop == b.stop
            assert (a.logp - b.logp).abs().max() < 1e-4


# --- what it samples ---


@pytest.mark.parametrize("has_generate", [True, False])
def test_it_is_our_decoder_over_http(policy, fakes, has_generate) -> None:
    """Either route; the greedy row too; progress to the end; versions of every token."""
    updates, seen = Updates(policy), []
    vllm = sampler(policy, serving(fakes, policy, has_generate=has_generate), version=updates)
    requests = requests_of(policy)
    for number in range(2):
        ours = Engine(policy).generate(requests, SAMPLING, generator())
        theirs = vllm.generate(requests, SAMPLING, generator(), lambda *x: seen.append(x))
        same(ours, theirs)
        for row in (c for group in theirs for c in group):
            assert row.version is not None and row.version.tolist() == [number] * len(row.tokens)
        assert seen[-1] == (16, 16)
        numbers = vllm.metrics()
        assert numbers["gap_sync"] < 1e-5 and numbers["time/sync"] > 0 and not vllm.metrics()
        updates.make()


def test_temperature_stop_strings_and_truncation(fakes) -> None:
    """Greedy rows at another temperature get the policy's own log-probabilities."""
    policy = make_policy(temperature=0.7)
    vllm, requests = sampler(policy, serving(fakes, policy)), requests_of(policy)
    sampling = Sampling(max_tokens=40, stop=("1", "2"))
    ours = Engine(policy).generate(requests, sampling, generator())
    theirs = vllm.generate(requests, sampling, generator())
    same(ours, theirs)
    assert "stop" in {c.stop for group in theirs for c in group}
    with pytest.raises(ValueError, match="the policy's temperature"):
        vllm.generate(requests, Sampling(temperature=1.0), generator())


def test_seeds_make_it_independent_of_servers_and_shares(policy, fakes) -> None:
    requests = requests_of(policy)
    one = sampler(policy, serving(fakes, policy)).generate(requests, SAMPLING, generator())
    servers = serving(fakes, policy, 3)
    three = sampler(policy, servers, slots=2).generate(requests, SAMPLING, generator())
    same(one, three)
    # rows of a group went to one server, and every server had some
    groups = [{prompt for prompt, seed in f.rows if seed and len(prompt) > 1} for f in fakes[1:]]
    assert all(groups)
    requests = seeded(requests, generator())
    vllm = sampler(policy, servers)
    first = vllm.generate(requests[:2], SAMPLING)
    rest = vllm.generate(requests[2:], SAMPLING)
    same(one, first + rest)


def test_turns_go_through_it(policy, fakes) -> None:
    """An environment that says "7" after every turn, three times; a limit of the whole row."""
    seven = policy.tokenizer("7", add_special_tokens=False)["input_ids"]
    sampling = Sampling(max_tokens=30, stop=("1", "2", "3", "4", "5"))
    requests = requests_of(policy)

    def environment():
        counts: dict[int, int] = {}

        def on_turn_end(ended, wait):
            out = []
            for end in ended:
                counts[end.row] = counts.get(end.row, 0) + 1
                assert end.room > 0 and end.left >= 0
                over = counts[end.row] == 3 or end.left < 1
                out.append(Continuation(end.row, None if over else seven))
            return out

        return on_turn_end

    vllm = sampler(policy, serving(fakes, policy, 2))
    theirs = vllm.generate(requests, sampling, generator(), on_turn_end=environment())
    again = vllm.generate(requests, sampling, generator(), on_turn_end=environment())
    same(theirs, again)
    rows = [c for group in theirs for c in group]
    text = [policy.tokenizer.decode(c.tokens) for c in rows]
    assert max(sum(t.count(s) for s in "12345") for t in text) == 3
    assert all(len(c.tokens) <= 30 and c.version is not None for c in rows)
    # the first turn is that of one-turn rows, and later turns have other seeds
    plain = vllm.generate(requests, sampling, generator())
    for group, twin in zip(plain, theirs, strict=True):
        for a, b in zip(group, twin, strict=True):
            assert b.tokens.tolist()[: len(a.tokens)] == a.tokens.tolist()


def test_a_token_has_the_version_that_sampled_it(policy, fakes, monkeypatch) -> None:
    """An update in flight: the server names two versions within a row."""
    updates = Updates(policy)
    [server] = serving(fakes, policy)
    vllm = sampler(policy, [server], version=updates)
    vllm.generate(requests_of(policy), SAMPLING, generator())
    server.labels.add("1")

    def generate(body):
        answer = FakeVLLM.generate(fakes[0], body)
        n = len(answer["choices"][0]["token_ids"])
        spans = [("0", 0, n // 2), ("1", n // 2, n)]
        named = [{"version": v, "start": a, "end": b} for v, a, b in spans]
        answer["choices"][0]["weight_versions"] = named
        return answer

    monkeypatch.setattr(fakes[0], "generate", generate)
    groups = vllm.generate(requests_of(policy), SAMPLING, generator())
    for c in (c for group in groups for c in group):
        half = len(c.tokens) // 2
        assert c.version is not None
        assert c.version.tolist() == [0] * half + [1] * (len(c.tokens) - half)


# --- weights ---


def test_a_publication_that_did_nothing_is_sent_again(policy, fakes) -> None:
    updates = Updates(policy)
    vllm = sampler(policy, serving(fakes, policy), version=updates)
    vllm.generate(requests_of(policy), SAMPLING, generator())
    updates.make()
    fakes[0].wrong.ignores_weights = 1
    theirs = vllm.generate(requests_of(policy), SAMPLING, generator())
    same(Engine(policy).generate(requests_of(policy), SAMPLING, generator()), theirs)
    assert fakes[0].calls.count("/update_weights") == 3


def test_weights_that_never_arrive_are_an_error(policy, fakes) -> None:
    updates = Updates(policy)
    vllm = sampler(policy, serving(fakes, policy), version=updates)
    vllm.generate(requests_of(policy), SAMPLING, generator())
    updates.make()
    fakes[0].wrong.ignores_weights = 9
    with pytest.raises(SamplerLost, match=r"says that it has the weights of update 1, and gives"):
        vllm.generate(requests_of(policy), SAMPLING, generator())


def test_weights_are_sent_when_they_have_changed_and_old_ones_removed(policy, fakes) -> None:
    updates = Updates(policy)
    vllm = sampler(policy, serving(fakes, policy, 2), version=updates)
    for _ in range(4):
        vllm.generate(requests_of(policy), SAMPLING, generator())
        vllm.generate(requests_of(policy), SAMPLING, generator())
        updates.make()
    assert [f.calls.count("/update_weights") for f in fakes] == [4, 4]
    directory = vllm.publisher.directory
    assert sorted(p.name for p in directory.iterdir()) == ["version-2", "version-3"]
    vllm.close()
    assert not directory.exists()


# --- faults ---


def test_a_killed_server_loses_and_doubles_nothing(policy, fakes) -> None:
    """Its rows go to the other one with their seeds; when it is back it gets the weights."""
    updates, servers = Updates(policy), serving(fakes, policy, 2)
    vllm = sampler(policy, servers, version=updates, slots=4)
    updates.make()
    vllm.generate(requests_of(policy), SAMPLING, generator())
    fakes[0].wrong.dies_after = 2
    ours = Engine(policy).generate(requests_of(policy), SAMPLING, generator())
    same(ours, vllm.generate(requests_of(policy), SAMPLING, generator()))
    assert not servers[0].live
    fakes[0].wrong.dies_after = -1
    fakes[0].start()
    updates.make()
    ours = Engine(policy).generate(requests_of(policy, 40), SAMPLING, generator())
    same(ours, vllm.generate(requests_of(policy, 40), SAMPLING, generator()))
    assert servers[0].live and fakes[0].label == "2"


def test_the_only_server_is_waited_for(policy, fakes) -> None:
    updates = Updates(policy)
    vllm = sampler(policy, serving(fakes, policy), version=updates, slots=4)
    updates.make()
    vllm.generate(requests_of(policy), SAMPLING, generator())
    fakes[0].wrong.dies_after = 3

    def revive() -> None:
        fakes[0].wrong.dies_after = -1
        fakes[0].start()

    timer = threading.Timer(1.0, revive)
    timer.start()
    ours = Engine(policy).generate(requests_of(policy), SAMPLING, generator())
    same(ours, vllm.generate(requests_of(policy), SAMPLING, generator()))
    assert fakes[0].label == "1"


def test_a_server_that_came_back_unnoticed_is_not_believed(policy, fakes) -> None:
    """Between two calls it died and was started anew: its weights have another name."""
    updates = Updates(policy)
    vllm = sampler(policy, serving(fakes, policy), version=updates)
    updates.make()
    vllm.generate(requests_of(policy), SAMPLING, generator())
    fakes[0].kill()
    fakes[0].start()
    ours = Engine(policy).generate(requests_of(policy), SAMPLING, generator())
    same(ours, vllm.generate(requests_of(policy), SAMPLING, generator()))


def test_a_hung_server_is_left(policy, fakes, monkeypatch) -> None:
    monkeypatch.setattr(client_module, "SHORT", 0.3)
    monkeypatch.setattr("logpi.engine.vllm.server.LOOK", 0.2)
    updates, servers = Updates(policy), serving(fakes, policy, 2)
    vllm = sampler(policy, servers, version=updates, hang=1.0)
    vllm.generate(requests_of(policy), SAMPLING, generator())
    fakes[1].hang()
    ours = Engine(policy).generate(requests_of(policy), SAMPLING, generator())
    same(ours, vllm.generate(requests_of(policy), SAMPLING, generator()))
    assert "hung" in servers[1].reason
    fakes[1].wake()


def test_no_server_left_is_an_error(policy, fakes) -> None:
    vllm = sampler(policy, serving(fakes, policy, 2), patience=0.5)
    for fake in fakes:
        fake.kill()
    with pytest.raises(SamplerLost, match="no vLLM server answers: http://127"):
        vllm.generate(requests_of(policy), SAMPLING, generator())


def test_a_row_that_always_fails_is_given_up(policy, fakes, monkeypatch) -> None:
    monkeypatch.setattr("logpi.engine.vllm.server.SOON", 0.01)
    vllm = sampler(policy, serving(fakes, policy))
    vllm.generate(requests_of(policy), SAMPLING, generator())

    def fail(body):
        if body["sampling_params"].get("ignore_eos") and body["sampling_params"]["max_tokens"] == 9:
            raise KeyError("a fault of the server")
        return FakeVLLM.generate(fakes[0], body)

    monkeypatch.setattr(fakes[0], "generate", fail)
    monkeypatch.setattr("logpi.engine.vllm.sampler.PROBED", 4)
    with pytest.raises(SamplerLost, match="a row failed 6 times"):
        vllm.generate(requests_of(policy), Sampling(max_tokens=9), generator())


# --- bad input ---


def refused(policy, fakes, match: str, **wrong) -> None:
    with pytest.raises(UserError, match=match):
        sampler(policy, serving(fakes, wrong.pop("other", policy), **wrong))


def test_servers_that_are_not_this_learners_are_refused(policy, fakes, tmp_path) -> None:
    refused(policy, fakes, "before temperature .raw_logprobs.", logprobs_mode="raw_logprobs")
    refused(policy, fakes, "takes weights by nccl, not by files", backend="nccl")
    refused(policy, fakes, "has no routes for weights", has_weights_routes=False)
    refused(policy, fakes, "has another tokenizer", tokenizer=tiny_tokenizer())
    refused(
        policy, fakes, "another model: .* the server fewer than", other=small_policy("01", width=32)
    )
    other = small_policy("0123456789+= abcdefgh", width=32)
    refused(policy, fakes, "another model: .* the server more", other=other)
    small_policy("0123456789+= abcdef", width=64).save(tmp_path)
    refused(policy, fakes, "its hidden_size is 64, the policy's 32", root=str(tmp_path))
    with pytest.raises(UserError, match="no vLLM server answers at"):
        connect("http://127.0.0.1:9")
    with pytest.raises(UserError, match="an address like"):
        connect("127.0.0.1:8000")


def test_untempered_log_probabilities_are_noticed_whatever_the_server_says(fakes) -> None:
    policy = make_policy(temperature=0.5)
    servers = serving(fakes, policy)
    vllm = sampler(policy, servers)
    fakes[0].wrong.logprobs_mode = "says processed, is raw"
    with pytest.raises(SamplerLost, match="processed log-probabilities"):
        vllm.generate(requests_of(policy), SAMPLING, generator())


def test_weights_of_16_bits_may_differ_more(policy, fakes) -> None:
    assert sampler(policy, serving(fakes, policy)).limit == 0.002
    assert sampler(policy, serving(fakes, policy, dtype="torch.bfloat16")).limit == 0.1


def test_another_machine_needs_a_key(policy, fakes, monkeypatch) -> None:
    """The key is sent, never shown; a server that does not ask for it is refused too."""
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    with pytest.raises(UserError, match="VLLM_API_KEY"):
        Client("http://10.0.0.1:8000")
    monkeypatch.setenv("VLLM_API_KEY", "s3cret")
    [server] = serving(fakes, policy, key="s3cret")
    server.client.local = False
    sampler(policy, [server])
    fakes[0].wrong.key = ""
    with pytest.raises(UserError, match="answers without an API key") as error:
        sampler(policy, [server])
    fakes[0].wrong.key = "other"
    with pytest.raises(UserError, match="wants an API key: set VLLM_API_KEY") as error:
        sampler(policy, [server])
    assert "s3cret" not in str(error.value) + repr(vars(server))


def test_prompts_must_fit_the_server_too(policy, fakes) -> None:
    vllm = sampler(policy, serving(fakes, policy))
    vllm.servers[0].context = 6
    [[row]] = vllm.generate([Request([1, 5, 6], 1)], SAMPLING, generator())
    assert len(row.tokens) <= 3
    with pytest.raises(ValueError, match="leaves no room in the 6 tokens"):
        vllm.generate([Request([1, 5, 6, 7, 8, 9], 1)], SAMPLING, generator())


# --- while the policy changes in another thread ---


def test_rows_go_on_under_weights_that_are_sent_meanwhile(policy, fakes) -> None:
    """Nothing is sampled twice; each row's log-probabilities are those of the weights it names."""
    updates, began, sent = Updates(policy), threading.Event(), threading.Event()
    vllm = sampler(policy, serving(fakes, policy), version=updates, slots=2)
    vllm.follow(threading.Lock())
    before, requests = copy.deepcopy(policy), requests_of(policy)

    def progress(done: int, total: int) -> None:
        began.set()
        assert sent.wait(30)

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(vllm.generate, requests, SAMPLING, seeds(), progress)
        assert began.wait(30)
        updates.make()
        with vllm.reading:
            vllm.publish()
        sent.set()
        groups = call.result()
    rows = [(r, c) for r, group in zip(requests, groups, strict=True) for c in group]
    assert {int(v) for _, c in rows for v in c.version} == {0, 1}
    for request, completion in rows:
        (version,) = completion.version.unique().tolist()
        row = Row(0, 0, 0, False, [*request.prompt], [False] * len(request.prompt), 0, 0)
        row.ids += completion.tokens.tolist()
        row.own += [True] * len(completion.tokens)
        [logp] = own_logp(policy if version else before, [row])
        assert torch.allclose(logp, completion.logp, atol=1e-4)
    sampled = [seed for _, seed in fakes[0].rows if seed is not None]
    assert len(sampled) == len(rows) + 2 * 4 and vllm.servers[0].live


def test_a_call_can_be_ended_from_another_thread(policy, fakes) -> None:
    vllm = sampler(policy, serving(fakes, policy))
    vllm.generate(requests_of(policy), SAMPLING, seeds())
    fakes[0].hang()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(vllm.generate, requests_of(policy), SAMPLING, seeds())
        vllm.abort()
        fakes[0].wake()
        with pytest.raises(SamplerLost, match="sampling was ended"):
            call.result(timeout=20)


def seeds() -> torch.Generator:
    return torch.Generator().manual_seed(3)
